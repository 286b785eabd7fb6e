//! Types: `T`, `list[T]`, `T?`, `(T, U)`, `{ a: T }`, `fn(T) -> U`, `A | B`.

use super::cursor::Parser;
use crate::SyntaxKind;

impl Parser<'_> {
    /// A type, perhaps a union.
    pub(super) fn ty(&mut self) {
        let place = self.checkpoint();
        self.optional_type();
        if self.at(SyntaxKind::Bar) {
            self.start_at(place, SyntaxKind::UnionType);
            while self.eat(SyntaxKind::Bar) {
                self.optional_type();
            }
            self.finish();
        }
    }

    fn optional_type(&mut self) {
        if !self.enter() {
            return;
        }
        let place = self.checkpoint();
        let outer = self.begin_measure();
        self.plain_type();
        // `T??` means the same as `T?`, and `??` is one token.
        while matches!(self.current(), SyntaxKind::Question | SyntaxKind::QuestionQuestion) && self.wrap() {
            self.start_at(place, SyntaxKind::OptionType);
            self.bump();
            self.finish();
        }
        self.end_measure(outer);
        self.leave();
    }

    fn plain_type(&mut self) {
        match self.current() {
            SyntaxKind::Ident => self.named_type(),
            SyntaxKind::ParenOpen => self.tuple_type(),
            SyntaxKind::BraceOpen => {
                self.start(SyntaxKind::RecordType);
                self.field_list();
                self.finish();
            }
            SyntaxKind::FnKw => {
                self.start(SyntaxKind::FnType);
                self.bump();
                if self.at(SyntaxKind::ParenOpen) {
                    self.tuple_type();
                } else {
                    self.unexpected("the types of the parameters in parentheses");
                }
                self.result_type();
                self.finish();
            }
            SyntaxKind::StrOpen if self.nth(1) == SyntaxKind::StrText => self.older_type(),
            _ => self.unexpected("a type"),
        }
    }

    /// `-> T`, if it stands here.
    pub(super) fn result_type(&mut self) {
        if self.at(SyntaxKind::ThinArrow) {
            self.start(SyntaxKind::ResultType);
            self.bump();
            if self.is_body_ahead() {
                self.unexpected("a type");
            } else {
                self.ty();
            }
            self.finish();
        }
    }

    /// Whether the brace here opens a body rather than a record type: what would be its first field is none.
    fn is_body_ahead(&self) -> bool {
        const PROPERTIES: &[&str] = &["role", "prompt", "model", "source"];
        self.at(SyntaxKind::BraceOpen)
            && match self.nth(1) {
                SyntaxKind::BraceClose => false,
                SyntaxKind::Ident => self.nth(2) != SyntaxKind::Colon || PROPERTIES.contains(&self.text(1)),
                kind => kind.is_reserved_word(),
            }
    }

    fn named_type(&mut self) {
        self.start(SyntaxKind::NamedType);
        self.bump();
        while self.at(SyntaxKind::Dot) {
            self.bump();
            self.name("the name of a type");
        }
        if self.at(SyntaxKind::BracketOpen) && !self.is_cut_off() {
            self.start(SyntaxKind::TypeArgs);
            self.list(SyntaxKind::BracketClose, Parser::ty);
            self.finish();
        }
        self.finish();
    }

    fn tuple_type(&mut self) {
        self.start(SyntaxKind::TupleType);
        self.list(SyntaxKind::ParenClose, Parser::ty);
        self.finish();
    }
}
