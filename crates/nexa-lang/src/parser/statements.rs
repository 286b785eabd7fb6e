//! Blocks and statements, and the rule by which a newline ends one.

use super::{
    cursor::{Mode, Parser},
    patterns::Typed,
};
use crate::{
    SyntaxKind,
    diagnostic::{Code, Edit},
    source::Span,
};

/// In the head of a `for`, a `match` or a `semantic_if` a brace opens the body.
pub(super) const HEAD: Mode = Mode { lines: false, braces: false };

impl Parser<'_> {
    /// Whether a newline before the current token ends the statement: no bracket is open, the token before can be the
    /// last of a statement, and this one does not go on with it.
    pub(super) fn is_cut_off(&self) -> bool {
        self.mode.lines && self.follows_newline() && can_end(self.previous_kind()) && !self.continues()
    }

    /// Whether the current token goes on with the line before: an operator other than `-`, or a comma and the like.
    fn continues(&self) -> bool {
        use SyntaxKind as K;
        match self.current() {
            K::Star | K::Slash | K::Percent | K::Plus | K::QuestionQuestion => true,
            K::Pipe | K::PipeCall | K::PipeFork | K::PipeDetach | K::PipeMerge | K::PipeConsensus | K::PipeBranch => {
                true
            }
            K::EqualsEquals | K::BangEquals | K::Less | K::LessEquals | K::Greater | K::GreaterEquals => true,
            K::InKw | K::AndKw | K::OrKw => true,
            K::Dot | K::Comma | K::Colon | K::FatArrow | K::ThinArrow | K::Bar => true,
            K::Ident => self.is_rescue_word(),
            _ => false,
        }
    }

    /// Whether `otherwise` or `fallback` stands here as an operator. At the start of a line it may be a name: one that
    /// is assigned to, used, or the name of a property.
    pub(super) fn is_rescue_word(&self) -> bool {
        if !self.at_word("otherwise") && !self.at_word("fallback") {
            return false;
        }
        let is_name = matches!(
            self.nth(1),
            SyntaxKind::Equals | SyntaxKind::PlusEquals | SyntaxKind::MinusEquals | SyntaxKind::Dot | SyntaxKind::Colon
        );
        !(is_name && self.follows_newline())
    }

    /// `{ statement … }`.
    pub(super) fn block(&mut self) {
        if !self.at(SyntaxKind::BraceOpen) {
            return self.unexpected("a block in braces");
        }
        if !self.enter() {
            return;
        }
        self.start(SyntaxKind::Block);
        let opener = self.span();
        self.bump();
        self.aside(|parser| {
            parser.within(Mode::STATEMENT, |parser| {
                loop {
                    while parser.eat(SyntaxKind::Semicolon) {}
                    if matches!(
                        parser.current(),
                        SyntaxKind::BraceClose | SyntaxKind::EndOfFile | SyntaxKind::InterpolationClose
                    ) || parser.at_declaration_line()
                    {
                        break;
                    }
                    parser.begin_statement();
                    let before = parser.position();
                    parser.statement();
                    parser.end_statement(before);
                }
                if !parser.at(SyntaxKind::EndOfFile) {
                    parser.begin_statement();
                }
                parser.close(SyntaxKind::BraceClose, opener);
            });
        });
        self.finish();
        self.leave();
    }

    /// Sees to it that a statement ends here; if it does not, says so and skips what is left of it.
    fn end_statement(&mut self, start: usize) {
        let has_moved = self.position() > start;
        if matches!(
            self.current(),
            SyntaxKind::Semicolon | SyntaxKind::BraceClose | SyntaxKind::EndOfFile | SyntaxKind::InterpolationClose
        ) || (has_moved && self.follows_newline() && !self.continues())
        {
            return;
        }
        let can_start = self.can_start_statement();
        if has_moved && !self.follows_newline() && can_start && !self.has_error_here() {
            let after = self.previous_span().end;
            let span = self.span();
            self.report(Code::E0204, span, "two statements stand on one line", |diagnostic| {
                diagnostic
                    .primary_label("a second statement begins here")
                    .help("put `;` or a new line between them")
                    .fix("insert `;`", vec![Edit::replace(Span::new(after, after), ";")])
            });
            return;
        }
        self.unexpected("the end of the statement");
        self.skip_statement();
        if self.position() == start {
            // A closing bracket that nobody opened stops every skip; take it, so that the block goes on.
            self.start(SyntaxKind::Error);
            self.bump();
            self.finish();
        }
    }

    fn can_start_statement(&self) -> bool {
        use SyntaxKind as K;
        let current = self.current();
        let is_closing_or_infix = matches!(
            current,
            K::ParenClose
                | K::BracketClose
                | K::BraceClose
                | K::Comma
                | K::Colon
                | K::Dot
                | K::At
                | K::Equals
                | K::PlusEquals
                | K::MinusEquals
        ) || matches!(
            current,
            K::FatArrow | K::ThinArrow | K::Question | K::Bar | K::ElseKw | K::CatchKw | K::Minus
        ) || self.continues();
        !is_closing_or_infix
    }

    fn statement(&mut self) {
        match self.current() {
            SyntaxKind::BraceOpen => self.block(),
            SyntaxKind::LetKw => self.let_statement(),
            SyntaxKind::WhileKw => self.while_statement(),
            SyntaxKind::ForKw => self.for_statement(),
            SyntaxKind::BreakKw | SyntaxKind::ContinueKw | SyntaxKind::ReturnKw => self.jump(),
            SyntaxKind::DeferKw => {
                self.start(SyntaxKind::DeferStmt);
                self.bump();
                if self.at(SyntaxKind::BraceOpen) {
                    self.block()
                } else {
                    self.expr()
                }
                self.finish();
            }
            SyntaxKind::Ident if !self.next_makes_it_a_name() => match self.text(0) {
                "semantic_if" => self.semantic_if(),
                "loop" => self.loop_statement(),
                "pass" => self.pass_statement(),
                "verify" => self.verify_statement(),
                "assert" => self.assert_statement(),
                _ if self.older_statement() || self.refused_statement() => {}
                "script" if self.nth(1) == SyntaxKind::Ident => self.script_statement(),
                _ => self.expression_statement(),
            },
            _ => self.expression_statement(),
        }
    }

    /// Whether the token after a statement's head word makes the word an ordinary name.
    fn next_makes_it_a_name(&self) -> bool {
        use SyntaxKind as K;
        matches!(
            self.nth(1),
            K::Equals
                | K::PlusEquals
                | K::MinusEquals
                | K::Dot
                | K::Comma
                | K::ParenClose
                | K::BracketClose
                | K::Colon
                | K::Semicolon
        )
    }

    /// An expression, or an assignment to one.
    fn expression_statement(&mut self) {
        let place = self.checkpoint();
        let before = self.position();
        self.expr();
        if self.position() == before {
            return;
        }
        let is_assignment =
            matches!(self.current(), SyntaxKind::Equals | SyntaxKind::PlusEquals | SyntaxKind::MinusEquals);
        if is_assignment && !self.is_cut_off() {
            self.start_at(place, SyntaxKind::AssignStmt);
            self.bump();
            self.expr();
        } else {
            self.start_at(place, SyntaxKind::ExprStmt);
        }
        self.finish();
    }

    fn let_statement(&mut self) {
        self.start(SyntaxKind::LetStmt);
        self.bump();
        let pattern = self.span();
        self.pattern(Typed::No);
        let pattern = pattern.to(self.previous_span());
        if self.eat(SyntaxKind::Colon) {
            self.ty();
        }
        if self.expect(SyntaxKind::Equals) {
            let start = self.span().start;
            self.expr();
            self.older_receive(pattern, Span::new(start, self.previous_span().end));
        }
        self.finish();
    }

    /// `return e`, `break`, `continue`; also as the body of an arm.
    pub(super) fn jump(&mut self) {
        let (node, takes_value) = match self.current() {
            SyntaxKind::ReturnKw => (SyntaxKind::ReturnStmt, true),
            SyntaxKind::BreakKw => (SyntaxKind::BreakStmt, false),
            _ => (SyntaxKind::ContinueStmt, false),
        };
        self.start(node);
        self.bump();
        let is_over = matches!(
            self.current(),
            SyntaxKind::Semicolon
                | SyntaxKind::BraceClose
                | SyntaxKind::Comma
                | SyntaxKind::ParenClose
                | SyntaxKind::BracketClose
                | SyntaxKind::InterpolationClose
                | SyntaxKind::EndOfFile
        ) || (self.follows_newline() && !self.continues());
        if takes_value && !is_over {
            self.expr();
        }
        self.finish();
    }

    /// `(c)` in front of a block.
    pub(super) fn condition(&mut self) {
        let opener = self.span();
        if !self.eat(SyntaxKind::ParenOpen) {
            let message = format!("expected `(`, found {}", self.found());
            self.report(Code::E0201, opener, message, |diagnostic| {
                diagnostic.primary_label("expected `(`").help("a condition stands in parentheses")
            });
            return self.within(HEAD, Parser::expr);
        }
        self.within(Mode::BRACKET, |parser| {
            parser.expr();
            parser.close_or_skip(SyntaxKind::ParenClose, opener);
        });
    }

    /// Takes a closing bracket; if something else stands before it, reports and skips that.
    pub(super) fn close_or_skip(&mut self, close: SyntaxKind, opener: Span) {
        let is_in_the_way = !matches!(
            self.current(),
            SyntaxKind::ParenClose
                | SyntaxKind::BracketClose
                | SyntaxKind::BraceClose
                | SyntaxKind::InterpolationClose
                | SyntaxKind::EndOfFile
                | SyntaxKind::Semicolon
                | SyntaxKind::LetKw
                | SyntaxKind::ReturnKw
        );
        if is_in_the_way && !self.follows_newline() {
            self.unexpected(close.words());
            self.skip(|parser| {
                parser.follows_newline()
                    || matches!(
                        parser.current(),
                        SyntaxKind::ParenClose | SyntaxKind::BracketClose | SyntaxKind::Semicolon
                    )
            });
        }
        self.close(close, opener);
    }

    fn while_statement(&mut self) {
        self.start(SyntaxKind::WhileStmt);
        self.bump();
        self.condition();
        self.block();
        self.finish();
    }

    fn for_statement(&mut self) {
        self.start(SyntaxKind::ForStmt);
        self.bump();
        if self.at_word("each") && self.nth(1) != SyntaxKind::InKw {
            self.bump_as(SyntaxKind::EachKw);
            self.pattern(Typed::No);
            if self.eat(SyntaxKind::Comma) {
                self.pattern(Typed::No);
            }
        } else {
            if !self.at(SyntaxKind::ParenOpen) {
                let span = self.span();
                self.report(
                    Code::E0201,
                    span,
                    format!("expected `each` or `(`, found {}", self.found()),
                    |diagnostic| {
                        let fix = Edit::replace(Span::new(span.start, span.start), "each ");
                        diagnostic.help("write `for each x in xs` or `for (k, v) in m`").fix("insert `each`", vec![fix])
                    },
                );
            }
            self.pattern(Typed::No);
        }
        if self.expect(SyntaxKind::InKw) {
            self.within(HEAD, Parser::expr);
        }
        self.block();
        self.finish();
    }

    fn semantic_if(&mut self) {
        self.start(SyntaxKind::SemanticIfStmt);
        self.bump_as(SyntaxKind::SemanticIfKw);
        if self.at(SyntaxKind::ParenOpen) {
            self.arg_list();
            self.arm_list(Parser::labelled_arm);
            return self.finish();
        }
        self.within(HEAD, |parser| {
            parser.expr();
            if parser.eat_word("fast_match", SyntaxKind::FastMatchKw) {
                if parser.at(SyntaxKind::Colon) {
                    parser.older_pattern();
                } else {
                    parser.expr();
                }
            }
            if parser.at_word("against") {
                parser.bump_as(SyntaxKind::AgainstKw);
                parser.expr();
            } else {
                parser.unexpected("`against` and the text it asks about");
            }
        });
        self.block();
        if self.eat(SyntaxKind::ElseKw) {
            self.block();
        }
        self.finish();
    }

    fn loop_statement(&mut self) {
        self.start(SyntaxKind::LoopStmt);
        self.bump_as(SyntaxKind::LoopKw);
        if self.at(SyntaxKind::ParenOpen) {
            self.arg_list();
        }
        self.block();
        if self.at_word("until") {
            self.start(SyntaxKind::UntilClause);
            self.bump_as(SyntaxKind::UntilKw);
            let opener = self.span();
            if self.expect(SyntaxKind::ParenOpen) {
                self.within(Mode::BRACKET, |parser| {
                    parser.expr();
                    parser.against();
                    parser.close_or_skip(SyntaxKind::ParenClose, opener);
                });
            }
            self.finish();
        } else {
            self.unexpected("`until` and a condition");
        }
        self.finish();
    }

    /// `against e`, if it stands here.
    fn against(&mut self) {
        if self.eat_word("against", SyntaxKind::AgainstKw) {
            self.expr();
        }
    }

    fn pass_statement(&mut self) {
        self.start(SyntaxKind::PassStmt);
        self.bump_as(SyntaxKind::PassKw);
        self.expr();
        if self.eat_word("to", SyntaxKind::ToKw) {
            self.expr();
        } else {
            self.unexpected("`to` and a handle");
        }
        self.finish();
    }

    fn verify_statement(&mut self) {
        self.start(SyntaxKind::VerifyStmt);
        self.bump_as(SyntaxKind::VerifyKw);
        self.expr();
        if self.eat_word("satisfies", SyntaxKind::SatisfiesKw) {
            self.ty();
        } else if self.at_word("against") {
            self.against();
        } else {
            self.unexpected("`satisfies` or `against`");
        }
        self.finish();
    }

    fn assert_statement(&mut self) {
        self.start(SyntaxKind::AssertStmt);
        self.bump_as(SyntaxKind::AssertKw);
        self.expr();
        self.against();
        if self.eat(SyntaxKind::Comma) {
            self.expr();
        }
        self.finish();
    }

    fn script_statement(&mut self) {
        self.start(SyntaxKind::ScriptStmt);
        self.bump_as(SyntaxKind::ScriptKw);
        self.bump();
        // `file.Name` and `std.fs.read`; more words than that are no target.
        for _ in 0..2 {
            if self.at(SyntaxKind::Dot) && self.nth(1) == SyntaxKind::Ident {
                self.bump();
                self.bump();
            }
        }
        if self.at(SyntaxKind::StrOpen) {
            self.expect_string();
        }
        if self.expect(SyntaxKind::FatArrow) {
            self.expr();
        }
        self.finish();
    }
}

/// Whether a statement can end with this token.
fn can_end(kind: SyntaxKind) -> bool {
    use SyntaxKind as K;
    matches!(
        kind,
        K::Ident
            | K::Int
            | K::Float
            | K::Duration
            | K::Size
            | K::RawStr
            | K::StrClose
            | K::TrueKw
            | K::FalseKw
            | K::NoneKw
            | K::ParenClose
            | K::BracketClose
            | K::BraceClose
            | K::Question
            | K::Underscore
            | K::BreakKw
            | K::ContinueKw
            | K::ReturnKw
    ) || is_end_of_open_text(kind)
}

/// A text without its closing quote ends with one of these; the next line is not part of it.
fn is_end_of_open_text(kind: SyntaxKind) -> bool {
    matches!(kind, SyntaxKind::StrOpen | SyntaxKind::StrText | SyntaxKind::InterpolationClose)
}
