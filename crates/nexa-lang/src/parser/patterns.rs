//! Patterns of `match`, `let` and `for`.

use super::cursor::Parser;
use crate::SyntaxKind;

/// Whether `n: Type` is a pattern here; in a `let` the colon belongs to the `let`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Typed {
    Yes,
    No,
}

impl Parser<'_> {
    pub(super) fn pattern(&mut self, typed: Typed) {
        if !self.enter() {
            return;
        }
        match self.current() {
            SyntaxKind::Ident => self.named_pattern(typed),
            SyntaxKind::Underscore => {
                let place = self.checkpoint();
                self.bump();
                if typed == Typed::Yes && self.at(SyntaxKind::Colon) {
                    self.start_at(place, SyntaxKind::TypedPat);
                    self.bump();
                    self.ty();
                } else {
                    self.start_at(place, SyntaxKind::WildcardPat);
                }
                self.finish();
            }
            SyntaxKind::ParenOpen => {
                self.start(SyntaxKind::TuplePat);
                self.list(SyntaxKind::ParenClose, |parser| parser.pattern(Typed::Yes));
                self.finish();
            }
            SyntaxKind::BracketOpen => {
                self.start(SyntaxKind::ListPat);
                self.list(SyntaxKind::BracketClose, |parser| parser.pattern(Typed::Yes));
                self.finish();
            }
            SyntaxKind::BraceOpen => {
                self.start(SyntaxKind::RecordPat);
                self.list(SyntaxKind::BraceClose, Parser::field_pattern);
                self.finish();
            }
            kind if is_literal_start(kind) => {
                self.start(SyntaxKind::LiteralPat);
                if kind == SyntaxKind::Minus {
                    self.start(SyntaxKind::PrefixExpr);
                    self.bump();
                    self.literal(true);
                    self.finish();
                } else {
                    self.literal(false);
                }
                self.finish();
            }
            kind if kind.is_reserved_word() => self.name("a name"),
            _ => self.unexpected("a pattern"),
        }
        self.leave();
    }

    fn named_pattern(&mut self, typed: Typed) {
        let place = self.checkpoint();
        let is_intent = self.at_word("intent") && self.nth(1) == SyntaxKind::ParenOpen;
        if is_intent {
            self.start(SyntaxKind::IntentPat);
            self.bump_as(SyntaxKind::IntentKw);
            self.list(SyntaxKind::ParenClose, Parser::expect_string);
            return self.finish();
        }
        self.bump();
        while self.at(SyntaxKind::Dot) {
            self.bump();
            self.name("the name of a variant");
        }
        match self.current() {
            SyntaxKind::ParenOpen => {
                self.start_at(place, SyntaxKind::VariantPat);
                self.list(SyntaxKind::ParenClose, |parser| parser.pattern(Typed::Yes));
            }
            SyntaxKind::Colon if typed == Typed::Yes => {
                self.start_at(place, SyntaxKind::TypedPat);
                self.bump();
                self.ty();
            }
            _ => self.start_at(place, SyntaxKind::NamePat),
        }
        self.finish();
    }

    fn field_pattern(&mut self) {
        self.start(SyntaxKind::FieldPat);
        self.name("the name of a field");
        if self.eat(SyntaxKind::Colon) {
            self.pattern(Typed::Yes);
        }
        self.finish();
    }
}

fn is_literal_start(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::Int
            | SyntaxKind::Float
            | SyntaxKind::Duration
            | SyntaxKind::Size
            | SyntaxKind::RawStr
            | SyntaxKind::StrOpen
            | SyntaxKind::TrueKw
            | SyntaxKind::FalseKw
            | SyntaxKind::NoneKw
            | SyntaxKind::Minus
    )
}
