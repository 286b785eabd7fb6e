//! Patterns that ask for a type: `n: T`.

use super::super::Checker;
use super::super::coverage::Cover;
use super::super::places::Place;
use super::{Tested, all};
use crate::ast::{self, AstNode};
use crate::diagnostic::Code;
use crate::hir::{Expr, ExprKind, Test};
use crate::types::{Fit, Ty};

impl Checker<'_> {
    /// `n: T`: the value, if it is of a type.
    pub(super) fn typed_pattern(&mut self, pattern: &ast::TypedPat, subject: &Expr) -> Tested {
        let (at, span) = (self.at(pattern), pattern.span());
        let ty = pattern.ty().map_or(Ty::Broken, |written| self.ty(&written));
        let name = pattern.name();
        if subject.ty.is_silent() || ty.is_silent() {
            let value = Expr { ty: Ty::Broken, ..subject.clone() };
            let test = name.map(|name| self.bind_part(&name, value));
            return Tested { test, cover: Cover::All };
        }
        let alternatives = Self::alternatives(&subject.ty);
        let taken: Vec<Ty> =
            alternatives.iter().filter(|from| self.types.fit(from, &ty) == Fit::Same).cloned().collect();
        let (test, value, cover) = if taken.len() == alternatives.len() && !(subject.ty == Ty::Any && ty != Ty::Any) {
            (None, Expr { ty, ..subject.clone() }, Cover::All)
        } else if self.only_a_model_knows(&alternatives, &taken, &ty) {
            let message = format!("only a model can say whether a value is `{}`", self.show(&ty));
            let wrong = self.finding(Code::E0311, span, message);
            self.report(
                wrong.help("a semantic type without a pattern is asked for with its `check`, before the `match`"),
            );
            return Tested::anything();
        } else if holds_function(&ty) {
            let message = "a function cannot be told from other values when the program runs";
            let wrong = self.finding(Code::E0301, span, message);
            self.report(wrong.help("wrap it in a case of an enum, or keep it apart"));
            return Tested::anything();
        } else if let [from] = alternatives.as_slice() {
            match self.types.fit(from, &ty) {
                Fit::No if !self.may_be(from, &ty) => {
                    let what = format!("`{}`", self.show(&ty));
                    return self.mismatch(span, subject, &what);
                }
                Fit::No => {
                    let test = Expr::new(ExprKind::Is(Test::Of(ty.clone()), Box::new(subject.clone())), Ty::Bool, at);
                    (Some(test), Expr { ty, ..subject.clone() }, Cover::Some)
                }
                Fit::Check => {
                    let (test, value) = self.read_as(subject, &ty, at);
                    (Some(test), value, Cover::Some)
                }
                Fit::Same | Fit::Widen => (None, self.coerce(subject.clone(), &ty, span, Place::Arm), Cover::All),
            }
        } else if alternatives.iter().any(|from| self.may_be(from, &ty)) {
            let test = Expr::new(ExprKind::Is(Test::Of(ty.clone()), Box::new(subject.clone())), Ty::Bool, at);
            let cover = if taken.is_empty() { Cover::Some } else { self.cover_all_of(&subject.ty, &taken) };
            (Some(test), Expr { ty, ..subject.clone() }, cover)
        } else {
            let what = format!("`{}`", self.show(&ty));
            return self.mismatch(span, subject, &what);
        };
        let bound = name.map(|name| self.bind_part(&name, value));
        Tested { test: all(test.into_iter().chain(bound).collect(), at), cover }
    }

    /// Whether what is of a type cannot be told from other alternatives by looking at it.
    fn only_a_model_knows(&self, alternatives: &[Ty], taken: &[Ty], ty: &Ty) -> bool {
        let plain = self.types.base(ty);
        let others = alternatives.iter().filter(|from| !taken.contains(from));
        self.types.questions(ty, crate::hir::Asked::Undecided) > 0
            && others.into_iter().any(|from| self.may_be(self.types.base(from), plain))
    }

    /// Whether a value of one type may be of another as it is.
    fn may_be(&self, from: &Ty, ty: &Ty) -> bool {
        let is_near = |fit: Fit| matches!(fit, Fit::Same | Fit::Check);
        is_near(self.types.fit(from, ty)) || is_near(self.types.fit(ty, from))
    }
}

/// Whether a value of a type is a function or holds one.
fn holds_function(ty: &Ty) -> bool {
    match ty {
        Ty::Function(..) | Ty::Stage(..) | Ty::Secret | Ty::Snapshot => true,
        Ty::List(inner) | Ty::Option(inner) => holds_function(inner),
        Ty::Dict(a, b) | Ty::Result(a, b) => holds_function(a) || holds_function(b),
        Ty::Tuple(items) | Ty::Union(items) => items.iter().any(holds_function),
        Ty::Record(fields) => fields.iter().any(|field| holds_function(&field.ty)),
        _ => false,
    }
}
