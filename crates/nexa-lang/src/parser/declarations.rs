//! The file and its declarations.

use super::{
    cursor::{Mode, Parser},
    patterns::Typed,
};
use crate::{
    SyntaxKind,
    diagnostic::{Code, nearest},
    source::Span,
};

/// The words a declaration can begin with, besides `fn` and decorators.
const HEADS: [(&str, SyntaxKind); 9] = [
    ("agent", SyntaxKind::AgentKw),
    ("tool", SyntaxKind::ToolKw),
    ("protocol", SyntaxKind::ProtocolKw),
    ("struct", SyntaxKind::StructKw),
    ("enum", SyntaxKind::EnumKw),
    ("type", SyntaxKind::TypeKw),
    ("flow", SyntaxKind::FlowKw),
    ("test", SyntaxKind::TestKw),
    ("use", SyntaxKind::UseKw),
];

impl Parser<'_> {
    /// All declarations up to the end of the file.
    pub(super) fn file(&mut self) {
        while !self.at(SyntaxKind::EndOfFile) {
            self.begin_statement();
            if self.eat(SyntaxKind::Semicolon) {
                continue;
            }
            if self.older_import() {
                continue;
            }
            if self.at_declaration() || self.head(0).is_some() {
                let start = self.span().start;
                self.declaration();
                let is_left_over = !self.follows_newline()
                    || matches!(
                        self.current(),
                        SyntaxKind::BraceClose | SyntaxKind::BracketClose | SyntaxKind::ParenClose
                    );
                if is_left_over && self.has_error_since(start) {
                    // What a mistake left over is part of the same mistake.
                    self.skip_to_declaration();
                }
            } else {
                self.no_declaration();
            }
        }
    }

    /// The head word at a place, if one stands there.
    fn head(&self, ahead: usize) -> Option<SyntaxKind> {
        if self.nth(ahead) != SyntaxKind::Ident {
            return None;
        }
        let text = self.text(ahead);
        HEADS.iter().find(|(word, _)| *word == text).map(|(_, kind)| *kind)
    }

    /// Whether what begins here can only be a declaration: a head and what must follow it.
    pub(super) fn at_declaration(&self) -> bool {
        match self.current() {
            SyntaxKind::FnKw => self.nth(1) == SyntaxKind::Ident,
            SyntaxKind::At => self.nth(1) == SyntaxKind::Ident,
            SyntaxKind::Ident => match self.head(0) {
                Some(SyntaxKind::UseKw | SyntaxKind::TestKw) => self.nth(1) == SyntaxKind::StrOpen,
                Some(_) => self.nth(1) == SyntaxKind::Ident,
                None => false,
            },
            _ => false,
        }
    }

    /// Reports what stands where a declaration should, and skips to the next one.
    fn no_declaration(&mut self) {
        let span = self.span();
        if let Some(refused) = self.refused() {
            self.report(refused.code, span, refused.message, |diagnostic| diagnostic.help(refused.help));
        }
        let message = format!("expected a declaration, found {}", self.found());
        let word = self.text(0);
        let suggestion = nearest(word, HEADS.iter().map(|(head, _)| *head).chain(["fn"]));
        self.report(Code::E0203, span, message, |diagnostic| match suggestion {
            Some(head) if self_is_word(word) => diagnostic.help(format!("did you mean `{head}`?")),
            _ => diagnostic.help(
                "a file holds `use`, `type`, `protocol`, `struct`, `enum`, `fn`, `tool`, `agent`, `flow` and `test`",
            ),
        });
        self.start(SyntaxKind::Error);
        self.bump();
        self.finish();
        self.skip_to_declaration();
    }

    fn skip_to_declaration(&mut self) {
        if self.at(SyntaxKind::EndOfFile) || self.at_declaration() {
            return;
        }
        let mut open = 0usize;
        self.start(SyntaxKind::Error);
        while !self.at(SyntaxKind::EndOfFile) && !self.at_declaration_line() {
            if open == 0 && self.follows_newline() && self.refused().is_some() {
                break;
            }
            match self.current() {
                SyntaxKind::BraceOpen => open += 1,
                SyntaxKind::BraceClose => open = open.saturating_sub(1),
                _ => {}
            }
            self.bump();
        }
        self.finish();
    }

    fn declaration(&mut self) {
        let place = self.checkpoint();
        self.declared = super::legacy::Declared::default();
        self.within(Mode::BRACKET, |parser| {
            while parser.at(SyntaxKind::At) {
                parser.decorator();
            }
        });
        let head = self.head(0);
        let kind = match head {
            Some(SyntaxKind::UseKw) => SyntaxKind::UseDecl,
            Some(SyntaxKind::TypeKw) => SyntaxKind::TypeDecl,
            Some(SyntaxKind::ProtocolKw) => SyntaxKind::ProtocolDecl,
            Some(SyntaxKind::StructKw) => SyntaxKind::StructDecl,
            Some(SyntaxKind::EnumKw) => SyntaxKind::EnumDecl,
            Some(SyntaxKind::ToolKw) => SyntaxKind::ToolDecl,
            Some(SyntaxKind::AgentKw) => SyntaxKind::AgentDecl,
            Some(SyntaxKind::FlowKw) => SyntaxKind::FlowDecl,
            Some(SyntaxKind::TestKw) => SyntaxKind::TestDecl,
            _ if self.at(SyntaxKind::FnKw) => SyntaxKind::FnDecl,
            _ => {
                self.start_at(place, SyntaxKind::Error);
                self.unexpected("the declaration that is decorated");
                return self.finish();
            }
        };
        self.start_at(place, kind);
        let (head_span, name_span) = (self.span(), self.nth_span(1));
        self.bump_as(head.unwrap_or(SyntaxKind::FnKw));
        self.within(Mode::BRACKET, |parser| match kind {
            SyntaxKind::UseDecl => parser.use_rest(),
            SyntaxKind::TypeDecl => parser.type_rest(),
            SyntaxKind::ProtocolDecl | SyntaxKind::StructDecl => {
                parser.name("the name of a type");
                parser.field_list();
            }
            SyntaxKind::EnumDecl => {
                parser.name("the name of a type");
                parser.variant_list();
            }
            SyntaxKind::TestDecl => {
                parser.expect_string();
                parser.block();
            }
            _ => parser.signature_and_body(kind),
        });
        self.end_declaration(kind, head_span, name_span);
        self.finish();
    }

    fn decorator(&mut self) {
        self.start(SyntaxKind::Decorator);
        let start = self.span().start;
        self.bump();
        let name = self.span();
        self.name("the name of a decorator");
        let mut args = None;
        if self.at(SyntaxKind::ParenOpen) {
            let open = self.span().start;
            self.arg_list();
            args = Some(Span::new(open, self.previous_span().end));
        }
        self.finish();
        self.tell_decorator(Span::new(start, self.previous_span().end), name, args);
    }

    fn use_rest(&mut self) {
        let start = self.span().start;
        self.expect_string();
        let path = Span::new(start, self.previous_span().end);
        if self.slice(path).ends_with(".nxs\"") {
            self.report(Code::E0906, path, "a `.nxs` file is not supported", |diagnostic| {
                diagnostic.help("write it anew as a `.nx` file, and import that")
            });
        }
        if self.at(SyntaxKind::BraceOpen) {
            self.start(SyntaxKind::UseList);
            self.list(SyntaxKind::BraceClose, |parser| {
                parser.start(SyntaxKind::UseName);
                parser.name("the name of a declaration");
                parser.finish();
            });
            self.finish();
        } else if self.eat_word("as", SyntaxKind::AsKw) {
            self.name("the name of the import");
        }
    }

    fn type_rest(&mut self) {
        self.name("the name of a type");
        if !self.expect(SyntaxKind::Equals) {
            return;
        }
        let place = self.checkpoint();
        self.within(Mode::STATEMENT, Parser::ty);
        // A decorator of the next declaration begins with `@` too; the condition of a semantic type is a text.
        if self.at(SyntaxKind::At) && self.nth(1) == SyntaxKind::StrOpen {
            self.start_at(place, SyntaxKind::SemanticType);
            self.bump();
            self.expect_string();
            if self.eat(SyntaxKind::MatchKw) {
                match self.current() {
                    SyntaxKind::RawStr => self.literal(false),
                    _ => self.expect_string(),
                }
            }
            self.finish();
        }
    }

    /// `{ a: T, b: U }`; also newlines may stand between fields.
    pub(super) fn field_list(&mut self) {
        self.start(SyntaxKind::FieldList);
        self.entries(SyntaxKind::BraceClose, |parser| {
            parser.start(SyntaxKind::Field);
            parser.name("the name of a field");
            if parser.expect(SyntaxKind::Colon) {
                parser.ty();
            }
            parser.finish();
        });
        self.finish();
    }

    fn variant_list(&mut self) {
        self.start(SyntaxKind::VariantList);
        self.entries(SyntaxKind::BraceClose, |parser| {
            parser.start(SyntaxKind::Variant);
            parser.name("the name of a variant");
            if parser.at(SyntaxKind::ParenOpen) {
                parser.start(SyntaxKind::FieldList);
                parser.list(SyntaxKind::ParenClose, |parser| {
                    parser.start(SyntaxKind::Field);
                    parser.name("the name of a field");
                    if parser.expect(SyntaxKind::Colon) {
                        parser.ty();
                    }
                    parser.finish();
                });
                parser.finish();
            }
            parser.finish();
        });
        self.finish();
    }

    fn signature_and_body(&mut self, kind: SyntaxKind) {
        self.name("the name of the declaration");
        if self.at(SyntaxKind::ParenOpen) {
            self.param_list(Parser::param);
        } else if kind != SyntaxKind::AgentDecl && !(kind == SyntaxKind::ToolDecl && self.at(SyntaxKind::BraceOpen)) {
            self.unexpected("the parameters in parentheses");
        }
        self.declared.signature_end = self.previous_span().end;
        self.declared.has_result = self.at(SyntaxKind::ThinArrow);
        self.result_type();
        self.clauses(kind);
        match kind {
            SyntaxKind::AgentDecl | SyntaxKind::ToolDecl => self.property_list(),
            SyntaxKind::FnDecl if self.eat(SyntaxKind::FatArrow) => self.within(Mode::STATEMENT, Parser::expr),
            _ => self.block(),
        }
    }

    /// The clauses between a signature and a body. Their order is the checker's business.
    fn clauses(&mut self, kind: SyntaxKind) {
        const HEAD: Mode = Mode { lines: false, braces: false };
        loop {
            let before = self.position();
            match self.text(0) {
                _ if !self.at(SyntaxKind::Ident) => {}
                "uses" => self.clause(SyntaxKind::UsesClause, SyntaxKind::UsesKw, Parser::grants),
                "implements" => {
                    self.tell_implements(self.span());
                    self.clause(SyntaxKind::ImplementsClause, SyntaxKind::ImplementsKw, Parser::ty)
                }
                "requires" => self.clause(SyntaxKind::RequiresClause, SyntaxKind::RequiresKw, |parser| {
                    parser.within(HEAD, Parser::expr)
                }),
                "ensures" => self.clause(SyntaxKind::EnsuresClause, SyntaxKind::EnsuresKw, |parser| {
                    parser.within(HEAD, Parser::expr)
                }),
                "budget" if kind == SyntaxKind::FlowDecl => {
                    self.clause(SyntaxKind::BudgetClause, SyntaxKind::BudgetKw, Parser::record)
                }
                "schedule" if kind == SyntaxKind::FlowDecl => {
                    self.clause(SyntaxKind::ScheduleClause, SyntaxKind::ScheduleKw, Parser::record)
                }
                _ => {}
            }
            if self.position() == before {
                return;
            }
        }
    }

    fn clause(&mut self, node: SyntaxKind, keyword: SyntaxKind, read: impl FnOnce(&mut Self)) {
        self.start(node);
        self.bump_as(keyword);
        read(self);
        self.finish();
    }

    fn record(&mut self) {
        if self.at(SyntaxKind::BraceOpen) {
            self.record_or_dict();
        } else {
            self.unexpected("a record in braces");
        }
    }

    fn grants(&mut self) {
        if self.at(SyntaxKind::StrOpen) {
            return self.older_skills();
        }
        loop {
            if self.at_word("mcp") && self.nth(1) == SyntaxKind::Colon {
                self.older_server();
                if !self.eat(SyntaxKind::Comma) {
                    return;
                }
                continue;
            }
            self.start(SyntaxKind::Grant);
            self.name("the name of a tool, a flow, or a part of `std`");
            while self.eat(SyntaxKind::Dot) {
                self.name("the name of a part");
            }
            if self.at(SyntaxKind::ParenOpen) {
                self.arg_list();
            }
            self.finish();
            if !self.eat(SyntaxKind::Comma) {
                return;
            }
        }
    }

    pub(super) fn param_list(&mut self, param: impl FnMut(&mut Self)) {
        self.start(SyntaxKind::ParamList);
        self.list(SyntaxKind::ParenClose, param);
        self.finish();
    }

    /// `a: T = e` of a declaration.
    fn param(&mut self) {
        self.start(SyntaxKind::Param);
        self.name("the name of a parameter");
        self.param_rest();
        self.finish();
    }

    /// `a`, `a: T`, or a pattern such as `(k, v)` of a lambda.
    pub(super) fn lambda_param(&mut self) {
        self.start(SyntaxKind::Param);
        if self.at(SyntaxKind::Ident) {
            self.bump();
        } else {
            self.pattern(Typed::No);
        }
        self.param_rest();
        self.finish();
    }

    fn param_rest(&mut self) {
        if self.eat(SyntaxKind::Colon) {
            self.ty();
        }
        if self.eat(SyntaxKind::Equals) {
            self.expr();
        }
    }

    /// The properties of an agent or a tool.
    fn property_list(&mut self) {
        if !self.at(SyntaxKind::BraceOpen) {
            return self.unexpected("the properties in braces");
        }
        self.start(SyntaxKind::PropertyList);
        self.declared.brace = Some(self.span());
        self.entries(SyntaxKind::BraceClose, |parser| {
            parser.start(SyntaxKind::Property);
            let name = parser.span();
            parser.name("the name of a property");
            if !parser.older_context(name) && parser.expect(SyntaxKind::Colon) {
                let start = parser.span().start;
                parser.expr();
                parser.tell_property(name, Span::new(start, parser.previous_span().end));
            }
            parser.finish();
        });
        self.finish();
    }

    /// `{ entry entry … }` where a newline, a comma or a semicolon stands between two entries, and each entry is judged
    /// on its own, as statements are.
    pub(super) fn entries(&mut self, close: SyntaxKind, mut entry: impl FnMut(&mut Self)) {
        if !self.at(SyntaxKind::BraceOpen) {
            return self.unexpected(SyntaxKind::BraceOpen.words());
        }
        let opener = self.span();
        self.bump();
        self.aside(|parser| {
            parser.within(Mode::STATEMENT, |parser| {
                loop {
                    while matches!(parser.current(), SyntaxKind::Comma | SyntaxKind::Semicolon) {
                        parser.bump();
                    }
                    if parser.at_entries_stop() {
                        break;
                    }
                    parser.begin_statement();
                    let before = parser.position();
                    entry(parser);
                    let is_separated = matches!(parser.current(), SyntaxKind::Comma | SyntaxKind::Semicolon)
                        || parser.at_entries_stop();
                    if !is_separated && (!parser.follows_newline() || parser.position() == before) {
                        parser.unexpected("`,` or a new line");
                        let start = parser.position();
                        parser.skip(|parser| {
                            matches!(parser.current(), SyntaxKind::Comma | SyntaxKind::Semicolon)
                                || (parser.position() > start && parser.follows_newline())
                        });
                    }
                }
                parser.close(close, opener);
            });
        });
    }

    fn at_entries_stop(&self) -> bool {
        matches!(self.current(), SyntaxKind::BraceClose | SyntaxKind::EndOfFile | SyntaxKind::InterpolationClose)
            || self.at_declaration_line()
    }
}

fn self_is_word(text: &str) -> bool {
    text.chars().next().is_some_and(char::is_alphabetic)
}
