//! Operands: literals, texts, tuples, lists, records, dicts, arguments and branches.

use super::cursor::{Mode, Parser};
use crate::{SyntaxKind, diagnostic::Code, lexer::numbers};

impl Parser<'_> {
    pub(super) fn operand(&mut self) {
        match self.current() {
            SyntaxKind::Ident if self.nth(1) == SyntaxKind::Bang && self.at_word("python") => self.embedded_python(),
            SyntaxKind::Ident if self.at_tagged_text() => self.tagged_text(),
            SyntaxKind::Ident => {
                self.start(SyntaxKind::NameRef);
                self.bump();
                self.finish();
            }
            SyntaxKind::Underscore => {
                self.start(SyntaxKind::PlaceholderExpr);
                self.bump();
                self.finish();
            }
            SyntaxKind::Int
            | SyntaxKind::Float
            | SyntaxKind::Duration
            | SyntaxKind::Size
            | SyntaxKind::RawStr
            | SyntaxKind::TrueKw
            | SyntaxKind::FalseKw
            | SyntaxKind::NoneKw => self.literal(false),
            SyntaxKind::StrOpen => self.string(),
            SyntaxKind::ParenOpen => self.parens_or_tuple(),
            SyntaxKind::BracketOpen => {
                self.start(SyntaxKind::ListExpr);
                self.list(SyntaxKind::BracketClose, |parser| {
                    if parser.at_word("fallback") && parser.nth(1) == SyntaxKind::Colon {
                        parser.older_fallback();
                    }
                    parser.expr();
                });
                self.finish();
            }
            SyntaxKind::BraceOpen => self.record_or_dict(),
            _ => self.unexpected("an expression"),
        }
    }

    /// `python! """…"""`, which is refused whole.
    fn embedded_python(&mut self) {
        if let Some(refused) = self.refused() {
            self.report(refused.code, self.span(), refused.message, |diagnostic| diagnostic.help(refused.help));
        }
        self.start(SyntaxKind::Error);
        self.bump();
        self.bump();
        if matches!(self.current(), SyntaxKind::StrOpen | SyntaxKind::RawStr) {
            self.literal(false);
        }
        self.finish();
    }

    /// A literal of one token. The magnitude 2^63 is an int only right after a minus.
    pub(super) fn literal(&mut self, follows_minus: bool) {
        let is_literal = matches!(
            self.current(),
            SyntaxKind::Int
                | SyntaxKind::Float
                | SyntaxKind::Duration
                | SyntaxKind::Size
                | SyntaxKind::RawStr
                | SyntaxKind::TrueKw
                | SyntaxKind::FalseKw
                | SyntaxKind::NoneKw
        );
        if !is_literal {
            return if self.at(SyntaxKind::StrOpen) { self.string() } else { self.unexpected("a literal") };
        }
        let is_least = |text: &str| numbers::read(text) == Ok(numbers::Number::Int(1 << 63));
        if self.at(SyntaxKind::Int) && !follows_minus && is_least(self.text(0)) {
            let span = self.span();
            self.report(Code::E0111, span, "this number is out of range", |diagnostic| {
                diagnostic.primary_label("beyond a signed 64-bit integer")
            });
        }
        self.start(SyntaxKind::LiteralExpr);
        self.bump();
        self.finish();
    }

    pub(super) fn expect_string(&mut self) {
        if self.at(SyntaxKind::StrOpen) {
            self.string();
        } else {
            self.unexpected("a text");
        }
    }

    fn string(&mut self) {
        self.start(SyntaxKind::StringExpr);
        let is_block = self.text(0).len() == 3;
        self.bump();
        loop {
            match self.current() {
                SyntaxKind::StrText => self.bump(),
                SyntaxKind::InterpolationOpen => {
                    // Within one line a newline means that the text was not closed, so it ends what is inside too.
                    let mode = Mode { lines: !is_block, braces: true };
                    self.start(SyntaxKind::Interpolation);
                    self.bump();
                    self.within(mode, Parser::interpolated);
                    self.finish();
                }
                SyntaxKind::StrClose => {
                    self.bump();
                    break;
                }
                _ => break,
            }
        }
        self.finish();
    }

    fn interpolated(&mut self) {
        self.expr();
        if self.eat(SyntaxKind::InterpolationClose) {
            return;
        }
        self.unexpected("`}` at the end of the interpolation");
        self.skip(|parser| {
            matches!(parser.current(), SyntaxKind::StrText | SyntaxKind::StrClose)
                || (parser.mode.lines && parser.follows_newline())
        });
        self.eat(SyntaxKind::InterpolationClose);
    }

    /// `()`, `(e)` or `(a, b)`.
    fn parens_or_tuple(&mut self) {
        let place = self.checkpoint();
        let opener = self.position();
        let mut items = 0usize;
        let mut commas_seen_at = None;
        self.list(SyntaxKind::ParenClose, |parser| {
            items += 1;
            parser.expr();
            if items == 1 && parser.at(SyntaxKind::Comma) {
                commas_seen_at = Some(parser.position());
            }
        });
        let is_single = items == 1 && commas_seen_at.is_none() && self.position() > opener;
        self.start_at(place, if is_single { SyntaxKind::ParenExpr } else { SyntaxKind::TupleExpr });
        self.finish();
    }

    pub(super) fn record_or_dict(&mut self) {
        let first = self.nth(1);
        let is_dict = matches!(
            first,
            SyntaxKind::BraceClose | SyntaxKind::StrOpen | SyntaxKind::RawStr | SyntaxKind::BracketOpen
        );
        if is_dict {
            self.start(SyntaxKind::DictExpr);
            self.list(SyntaxKind::BraceClose, Parser::dict_entry);
        } else {
            self.start(SyntaxKind::RecordExpr);
            self.list(SyntaxKind::BraceClose, Parser::record_field);
        }
        self.finish();
    }

    pub(super) fn record_field(&mut self) {
        self.start(SyntaxKind::RecordField);
        self.name("the name of a field");
        if self.expect(SyntaxKind::Colon) {
            self.expr();
        }
        self.finish();
    }

    fn dict_entry(&mut self) {
        self.start(SyntaxKind::DictEntry);
        match self.current() {
            SyntaxKind::BracketOpen => {
                let opener = self.span();
                self.bump();
                self.expr();
                self.close_or_skip(SyntaxKind::BracketClose, opener);
            }
            SyntaxKind::RawStr => self.literal(false),
            SyntaxKind::StrOpen => self.string(),
            _ => self.unexpected("a key: a text, or an expression in brackets"),
        }
        if self.expect(SyntaxKind::Colon) {
            self.expr();
        }
        self.finish();
    }

    /// `(a, k: b)`.
    pub(super) fn arg_list(&mut self) {
        self.start(SyntaxKind::ArgList);
        self.list(SyntaxKind::ParenClose, |parser| parser.maybe_named(SyntaxKind::Arg));
        self.finish();
    }

    pub(super) fn fork_list(&mut self) {
        self.start(SyntaxKind::ForkList);
        self.list(SyntaxKind::BracketClose, |parser| parser.maybe_named(SyntaxKind::ForkBranch));
        self.finish();
    }

    /// `e` or `name: e`.
    fn maybe_named(&mut self, node: SyntaxKind) {
        self.start(node);
        if self.nth(1) == SyntaxKind::Colon && (self.at(SyntaxKind::Ident) || self.current().is_reserved_word()) {
            self.name("the name of an argument");
            self.bump();
        } else if self.at_older_name() {
            self.older_name(if node == SyntaxKind::Arg { "in an argument" } else { "in a branch" });
        }
        self.expr();
        self.finish();
    }

    /// `merge S(opts)`, if it stands here. On a line of its own it needs the strategy's name, for `merge` may be a name too.
    pub(super) fn merge_clause(&mut self) {
        if !self.at_word("merge") || (self.follows_newline() && self.nth(1) != SyntaxKind::Ident) {
            return;
        }
        self.start(SyntaxKind::MergeClause);
        self.bump_as(SyntaxKind::MergeKw);
        self.name("the name of a strategy");
        if self.at(SyntaxKind::ParenOpen) && !self.is_cut_off() {
            self.arg_list();
        }
        self.finish();
    }
}
