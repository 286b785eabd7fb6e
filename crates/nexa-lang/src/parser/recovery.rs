//! What the parser does about mistakes: it reports the first of a statement and skips to where it can read on.

use super::cursor::{Mode, Parser};
use crate::{
    SyntaxKind,
    diagnostic::{Code, Diagnostic, Edit, SYNTAX_FINDINGS_MAX},
    source::Span,
};

/// How many tokens are looked at to guess which of two mistakes was made.
const LOOKAHEAD_MAX: usize = 64;

/// What takes the place of code that would run outside of the sandbox.
pub(super) const SANDBOXED: &str =
    "it would run outside of the sandbox; declare a tool with `source: wasm(…)` or `source: mcp(…)`";

/// Why a construct of other languages is not in this one.
pub(super) struct Refused {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) help: &'static str,
}

impl Parser<'_> {
    /// From here on, a new mistake is a new error.
    pub(super) fn begin_statement(&mut self) {
        self.statement_start = self.span().start;
        self.has_reported = false;
    }

    /// Reads something with statements of its own, after which the outer statement goes on.
    pub(super) fn aside<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let outer = (self.statement_start, self.has_reported);
        let result = read(self);
        (self.statement_start, self.has_reported) = outer;
        result
    }

    /// Reports a mistake, unless this statement has one already.
    pub(super) fn report(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
        more: impl FnOnce(Diagnostic) -> Diagnostic,
    ) {
        if !self.has_error_here() && self.diagnostics.len() < SYNTAX_FINDINGS_MAX {
            let diagnostic = Diagnostic::new(code, self.source.file(), span, message);
            self.diagnostics.push(more(diagnostic));
            self.last_report = Some(span.start);
        }
        self.has_reported = true;
    }

    /// Whether an error of the current statement is known, be it of its characters or of its syntax.
    pub(super) fn has_error_here(&self) -> bool {
        let end = self.span().end;
        let first = self.lexical.partition_point(|start| *start < self.statement_start);
        self.has_reported || self.lexical.get(first).is_some_and(|start| *start <= end)
    }

    /// Whether any error was found from this place of the text on.
    pub(super) fn has_error_since(&self, start: u32) -> bool {
        let first = self.lexical.partition_point(|at| *at < start);
        let is_lexical = self.lexical.get(first).is_some_and(|at| *at <= self.span().end);
        is_lexical || self.has_reported || self.last_report.is_some_and(|at| at >= start)
    }

    /// What is known about the construct that begins here, if it is one that the language refuses on purpose.
    pub(super) fn refused(&self) -> Option<Refused> {
        if self.current() != SyntaxKind::Ident {
            return None;
        }
        match self.text(0) {
            "python" if self.nth(1) == SyntaxKind::Bang => {
                Some(Refused { code: Code::E0903, message: "embedded Python is refused".to_owned(), help: SANDBOXED })
            }
            word @ ("server" | "job" | "db" | "kv" | "auth") => Some(Refused {
                code: Code::E0905,
                message: format!("a `{word}` block is refused"),
                help: "servers, stores and queues run beside a program, which uses them as tools",
            }),
            word => not_supported(word),
        }
    }

    /// The same at the start of a statement, where most of these words may be names: only where no statement could begin
    /// like this.
    pub(super) fn refused_construct(&self) -> Option<Refused> {
        let is_refused = match (self.text(0), self.nth(1)) {
            ("with_context", SyntaxKind::BraceOpen | SyntaxKind::Ident | SyntaxKind::StrOpen) => true,
            ("with_context", SyntaxKind::ParenOpen) => self.is_call_with_block(),
            ("unharnessed", next) => matches!(next, SyntaxKind::BraceOpen | SyntaxKind::Ident),
            ("img" | "hook", next) => matches!(next, SyntaxKind::StrOpen | SyntaxKind::Ident),
            ("trait" | "impl", next) => next == SyntaxKind::Ident,
            _ => false,
        };
        if is_refused { not_supported(self.text(0)) } else { None }
    }

    /// Whether `name(…) {` stands here. Looks at a bounded number of tokens.
    fn is_call_with_block(&self) -> bool {
        let mut open = 0usize;
        for ahead in 1..LOOKAHEAD_MAX {
            match self.nth(ahead) {
                SyntaxKind::ParenOpen => open += 1,
                SyntaxKind::ParenClose if open == 1 => return self.nth(ahead + 1) == SyntaxKind::BraceOpen,
                SyntaxKind::ParenClose => open -= 1,
                SyntaxKind::EndOfFile => return false,
                _ => {}
            }
        }
        false
    }

    /// `template"""…"""` or `img"…"`: a text with a word that touches its quotes.
    pub(super) fn at_tagged_text(&self) -> bool {
        matches!(self.text(0), "template" | "img")
            && self.nth(1) == SyntaxKind::StrOpen
            && self.nth_span(1).start == self.span().end
    }

    /// How the current token is called in a message.
    pub(super) fn found(&self) -> String {
        match self.current() {
            SyntaxKind::Ident | SyntaxKind::Int | SyntaxKind::Float | SyntaxKind::Duration | SyntaxKind::Size => {
                format!("`{}`", self.text(0))
            }
            kind => kind.words().to_owned(),
        }
    }

    /// Reports that something else was expected at the current token.
    pub(super) fn unexpected(&mut self, expected: &str) {
        let message = format!("expected {expected}, found {}", self.found());
        let span = self.span();
        self.report(Code::E0201, span, message, |diagnostic| diagnostic.primary_label(format!("expected {expected}")));
    }

    /// Takes a token that must stand here.
    pub(super) fn expect(&mut self, kind: SyntaxKind) -> bool {
        let is_there = self.eat(kind);
        if !is_there {
            self.unexpected(kind.words());
        }
        is_there
    }

    /// Takes a name; a reserved word on the same line is taken for one, with E0209.
    pub(super) fn name(&mut self, what: &str) {
        if self.eat(SyntaxKind::Ident) {
            return;
        }
        if self.current().is_reserved_word() && !self.follows_newline() {
            let message = format!("{} is a reserved word and cannot be {what}", self.current().words());
            let fix = Edit::replace(self.span(), format!("{}_", self.text(0)));
            self.report(Code::E0209, self.span(), message, |diagnostic| diagnostic.fix("add an underscore", vec![fix]));
            return self.bump_as(SyntaxKind::Ident);
        }
        self.unexpected(what);
    }

    /// Takes the bracket that closes one opened before, or reports E0202 at the one that is open.
    pub(super) fn close(&mut self, kind: SyntaxKind, opener: Span) {
        if self.eat(kind) {
            return;
        }
        let open = match kind {
            SyntaxKind::ParenClose => "(",
            SyntaxKind::BracketClose => "[",
            _ => "{",
        };
        let here = self.span();
        let found = self.found();
        // Brackets left open around each other are most often one forgotten bracket; the innermost is named.
        if self.unclosed_at.replace(self.position()) == Some(self.position()) {
            return;
        }
        self.report(Code::E0202, opener, format!("`{open}` is not closed"), |diagnostic| {
            diagnostic.primary_label("opened here").label(here, format!("{} expected before {found}", kind.words()))
        });
    }

    /// Reads `open item, item, … close`. A comma may follow the last item.
    pub(super) fn list(&mut self, close: SyntaxKind, mut item: impl FnMut(&mut Self)) {
        let opener = self.span();
        self.bump();
        self.within(Mode::BRACKET, |parser| {
            while !parser.at_list_stop() {
                let before = parser.position();
                item(parser);
                if parser.eat(SyntaxKind::Comma) || parser.at_list_stop() {
                    continue;
                }
                if parser.follows_newline() && parser.position() > before && !parser.is_closed_soon(close) {
                    break;
                }
                parser.unexpected(&format!("`,` or {}", close.words()));
                parser.skip(|parser| parser.at(SyntaxKind::Comma) || parser.at_list_stop());
                parser.eat(SyntaxKind::Comma);
            }
            parser.close(close, opener);
        });
    }

    /// After a new line without a comma: whether the closing bracket follows, so that a comma was forgotten. If it does
    /// not, the bracket was. Looks at a bounded number of tokens.
    fn is_closed_soon(&self, close: SyntaxKind) -> bool {
        let mut open = 0usize;
        for ahead in 0..LOOKAHEAD_MAX {
            match self.nth(ahead) {
                SyntaxKind::ParenOpen | SyntaxKind::BracketOpen | SyntaxKind::BraceOpen => open += 1,
                kind @ (SyntaxKind::ParenClose | SyntaxKind::BracketClose | SyntaxKind::BraceClose) if open == 0 => {
                    return kind == close;
                }
                SyntaxKind::ParenClose | SyntaxKind::BracketClose | SyntaxKind::BraceClose => open -= 1,
                SyntaxKind::LetKw | SyntaxKind::ReturnKw | SyntaxKind::Semicolon | SyntaxKind::EndOfFile
                    if open == 0 =>
                {
                    return false;
                }
                _ => {}
            }
        }
        false
    }

    /// Whether a bracketed list cannot go on here: a closing bracket of any kind, or something that begins a statement
    /// or a declaration and is no expression.
    fn at_list_stop(&self) -> bool {
        use SyntaxKind::{
            BraceClose, BracketClose, BreakKw, ContinueKw, DeferKw, EndOfFile, ForKw, InterpolationClose, LetKw,
            ParenClose, ReturnKw, Semicolon, WhileKw,
        };
        let stops = [ParenClose, BracketClose, BraceClose, InterpolationClose, EndOfFile, Semicolon];
        let heads = [LetKw, ReturnKw, ForKw, WhileKw, BreakKw, ContinueKw, DeferKw];
        let current = self.current();
        stops.contains(&current)
            || (heads.contains(&current) && self.nth(1) != SyntaxKind::Colon)
            || self.at_declaration_line()
    }

    /// Whether a declaration begins here, at the start of a line.
    pub(super) fn at_declaration_line(&self) -> bool {
        self.follows_newline() && self.at_declaration()
    }

    /// Skips tokens into an error node until `stop` holds outside of all brackets opened on the way, but never past a
    /// closing bracket of someone else, nor into the next declaration. Does nothing if it holds already.
    pub(super) fn skip(&mut self, stop: impl Fn(&Self) -> bool) {
        if !self.skips_on(0, &stop) {
            return;
        }
        let mut open = 0usize;
        self.start(SyntaxKind::Error);
        while self.skips_on(open, &stop) {
            match self.current() {
                SyntaxKind::ParenOpen
                | SyntaxKind::BracketOpen
                | SyntaxKind::BraceOpen
                | SyntaxKind::InterpolationOpen => open += 1,
                SyntaxKind::ParenClose
                | SyntaxKind::BracketClose
                | SyntaxKind::BraceClose
                | SyntaxKind::InterpolationClose => open = open.saturating_sub(1),
                _ => {}
            }
            self.bump();
        }
        self.finish();
    }

    fn skips_on(&self, open: usize, stop: &impl Fn(&Self) -> bool) -> bool {
        let current = self.current();
        if current == SyntaxKind::EndOfFile || self.at_declaration_line() {
            return false;
        }
        let closes = matches!(current, SyntaxKind::BraceClose | SyntaxKind::InterpolationClose);
        open > 0 || (!closes && !stop(self))
    }

    /// Skips the rest of a statement.
    pub(super) fn skip_statement(&mut self) {
        let start = self.position();
        self.skip(|parser| parser.at(SyntaxKind::Semicolon) || (parser.position() > start && parser.follows_newline()));
    }

    /// Reports E0210 and skips what is nested too deep.
    pub(super) fn too_deep(&mut self) {
        let span = self.span();
        self.report(Code::E0210, span, "the program nests too deep here", |diagnostic| {
            diagnostic
                .note(format!("at most {} levels, or {} with chained operators", super::NESTING_MAX, super::DEPTH_MAX))
                .help("name an inner part with `let`, or move it into a flow or function of its own")
        });
        let lines = self.mode.lines;
        self.skip(|parser| {
            let is_end = matches!(
                parser.current(),
                SyntaxKind::ParenClose
                    | SyntaxKind::BracketClose
                    | SyntaxKind::Comma
                    | SyntaxKind::Semicolon
                    | SyntaxKind::StrClose
                    | SyntaxKind::StrText
            );
            is_end || (lines && parser.follows_newline())
        });
    }
}

/// Constructs of other dialects that this language has no place for, and what takes theirs.
fn not_supported(word: &str) -> Option<Refused> {
    let (what, help) = match word {
        "template" => ("`template` texts are", "write a text with `#{…}`, which every text can hold"),
        "img" => ("`img` is", "pass the picture to a tool, and its answer to the agent"),
        "trait" => ("a `trait` is", "declare a `protocol`: a record with its fields has it without saying so"),
        "impl" => ("an `impl` is", "declare a `fn` or `flow` that takes the value as its first parameter"),
        "hook" | "hooks" => {
            ("a hook is", "call what it does in a flow around the agent, or say it with `requires` and `ensures`")
        }
        "with_context" => {
            ("`with_context` is", "pass what the agent shall know as a parameter, or set its property `context`")
        }
        "unharnessed" => ("`unharnessed` is", "leave it out: every effect is recorded, budgeted and checked"),
        _ => return None,
    };
    Some(Refused { code: Code::E0906, message: format!("{what} not supported"), help })
}
