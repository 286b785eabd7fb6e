//! Patterns of `match`: what each tests, what it binds, and which values it takes.
//!
//! A value of several alternatives (an optional one, a union) is tested for those that a pattern can take; inside of
//! the pattern it has their type. A value of any type is read as the type that the pattern wants, as everywhere else
//! where `any` becomes a type, and the pattern does not fit if that fails.
//!
//! Here are names, literals and what all patterns need; patterns with parts of their own are in the modules below.

mod cases;
mod shapes;
mod typed;

use nexa_vm::op::Asking;

use super::Checker;
use super::coverage::{self, Cover};
use super::literals::block_of;
use super::places::Place;
use crate::ast::{self, AstNode, Name, Pattern};
use crate::diagnostic::{Code, nearest};
use crate::hir::{At, Const, Expr, ExprKind, Operator, Stmt, StmtKind, Test};
use crate::source::Span;
use crate::types::{Fit, Ty};

/// A pattern, checked.
pub(super) struct Tested {
    /// Holds if the pattern fits, and binds its names; nothing if it always fits and binds nothing.
    pub(super) test: Option<Expr>,
    /// The values that it takes.
    pub(super) cover: Cover,
}

impl Tested {
    /// Takes what a model says.
    pub(super) fn asked(test: Expr) -> Self {
        Tested { test: Some(test), cover: Cover::Some }
    }

    /// Takes every value and binds nothing. Also stands for what was reported: the rest of the `match` is judged as if
    /// the arm were right.
    fn anything() -> Self {
        Tested { test: None, cover: Cover::All }
    }
}

impl Checker<'_> {
    /// Checks a pattern against a value that waits in a local. `before` is what earlier arms take.
    pub(super) fn pattern(&mut self, pattern: &Pattern, subject: &Expr, before: &[Cover]) -> Tested {
        let plain = self.plain(subject.clone());
        let is_whole = match pattern {
            Pattern::NamePat(name) => {
                name.path().len() == 1 && !name.name().is_some_and(|name| self.has_case(&plain.ty, &name.text()))
            }
            Pattern::WildcardPat(_) | Pattern::TypedPat(_) | Pattern::IntentPat(_) => true,
            _ => false,
        };
        // What looks inside of a value of a semantic type sees its base.
        let subject = if is_whole { subject } else { &plain };
        match pattern {
            Pattern::WildcardPat(_) => Tested::anything(),
            Pattern::LiteralPat(literal) => self.literal_pattern(literal, subject),
            Pattern::NamePat(name) => self.name_pattern(name, subject, before),
            Pattern::VariantPat(variant) => self.variant_pattern(variant, subject),
            Pattern::TuplePat(tuple) => self.tuple_pattern(tuple, subject),
            Pattern::ListPat(list) => self.list_pattern(list, subject),
            Pattern::RecordPat(record) => self.record_pattern(record, subject),
            Pattern::TypedPat(typed) => self.typed_pattern(typed, subject),
            Pattern::IntentPat(intent) => {
                let labels = intent.question().iter().map(|words| self.words(words)).collect();
                let about = self.as_subject(subject.clone(), pattern.span());
                let run = self.run_of(Asking::Intent, labels, &about, pattern.span());
                Tested::asked(self.run_test(&run, 0, pattern.span()))
            }
        }
    }

    /// Binds the names of a pattern that are not bound since a block was opened, because something in it was reported.
    pub(super) fn bind_rest(&mut self, pattern: &Pattern, opened: usize) {
        let names: Vec<Name> = match pattern {
            Pattern::NamePat(name) if name.path().len() == 1 => name.name().into_iter().collect(),
            Pattern::TypedPat(typed) => typed.name().into_iter().collect(),
            Pattern::RecordPat(record) => {
                record.fields().filter(|field| field.pattern().is_none()).filter_map(|field| field.name()).collect()
            }
            _ => Vec::new(),
        };
        for name in names {
            if !self.is_bound_since(opened, &name.text()) {
                self.bind(&name, Ty::Broken);
            }
        }
        let parts: Vec<Pattern> = match pattern {
            Pattern::VariantPat(variant) => variant.payload().collect(),
            Pattern::TuplePat(tuple) => tuple.items().collect(),
            Pattern::ListPat(list) => list.items().collect(),
            Pattern::RecordPat(record) => record.fields().filter_map(|field| field.pattern()).collect(),
            _ => Vec::new(),
        };
        parts.iter().for_each(|part| self.bind_rest(part, opened));
    }

    fn mismatch(&mut self, span: Span, subject: &Expr, what: &str) -> Tested {
        if !subject.ty.is_silent() {
            let message = format!("this pattern takes {what}, and the value is `{}`", self.show(&subject.ty));
            let wrong = self.finding(Code::E0301, span, message);
            self.report(wrong);
        }
        Tested::anything()
    }

    /// What a value may be: the alternatives of a union, and `none` or something.
    fn alternatives(ty: &Ty) -> Vec<Ty> {
        match ty {
            Ty::Option(inner) if **inner == Ty::Never => vec![ty.clone()],
            Ty::Option(inner) => std::iter::once(Ty::option(Ty::Never)).chain(Self::alternatives(inner)).collect(),
            Ty::Union(parts) => parts.to_vec(),
            other => vec![other.clone()],
        }
    }

    /// The value as one of some of its alternatives, and what holds if it is. A single alternative needs no test.
    fn narrowed(&self, subject: &Expr, to: &[Ty], at: At) -> (Option<Expr>, Expr) {
        let ty = to.iter().fold(Ty::Never, |joined, ty| self.types.join(&joined, ty));
        let value = Expr { ty: ty.clone(), ..subject.clone() };
        if to.len() == Self::alternatives(&subject.ty).len() {
            return (None, value);
        }
        let test = Expr::new(ExprKind::Is(Test::Of(ty), Box::new(subject.clone())), Ty::Bool, at);
        (Some(test), value)
    }

    /// A value of any type read as a type: what holds if that works, and the value then.
    fn read_as(&mut self, subject: &Expr, ty: &Ty, at: At) -> (Expr, Expr) {
        let read = Expr::new(ExprKind::Check(Box::new(subject.clone())), ty.clone(), at);
        let tried = Expr::new(ExprKind::Try(Box::new(read)), Ty::result(ty.clone()), at);
        self.held(tried, ty.clone(), at)
    }

    /// What holds if a result is ok, and what it holds then.
    fn held(&mut self, result: Expr, ty: Ty, at: At) -> (Expr, Expr) {
        let mut statements = Vec::new();
        let result = self.set_aside(result, &mut statements, at);
        let is_ok = Expr::new(ExprKind::Is(Test::Ok, Box::new(result.clone())), Ty::Bool, at);
        let value = Expr::new(ExprKind::Unwrap(Box::new(result)), ty, at);
        (block_of(statements, is_ok), value)
    }

    /// The cover of a part of a value's alternatives by the cases of each.
    fn cover_of(&self, whole: &Ty, part: &Ty, case: &str, inner: Vec<Cover>) -> Cover {
        Cover::Case(coverage::case_name(&self.types, whole, part, case), inner)
    }

    /// Every value of some alternatives.
    fn cover_all_of(&self, whole: &Ty, parts: &[Ty]) -> Cover {
        let cases = parts.iter().flat_map(|part| {
            let own = coverage::cases(&self.types, part).into_iter();
            own.map(|(case, inner)| self.cover_of(whole, part, &case, vec![Cover::All; inner.len()]))
        });
        Cover::OneOf(cases.collect())
    }

    fn literal_pattern(&mut self, literal: &ast::LiteralPat, subject: &Expr) -> Tested {
        let Some(node) = literal.value() else { return Tested::anything() };
        let at = self.at(literal);
        let inner = subject.ty.without_option().clone();
        let value = self.expr(&node, Some(&inner));
        if value.ty.is_silent() {
            return Tested::anything();
        }
        if matches!(value.kind, ExprKind::Const(Const::None)) {
            if !matches!(subject.ty, Ty::Option(_) | Ty::Any | Ty::Broken) {
                return self.mismatch(literal.span(), subject, "an optional value");
            }
            let test = Expr::new(ExprKind::Is(Test::None, Box::new(subject.clone())), Ty::Bool, at);
            let cover = if subject.ty == Ty::Any { Cover::Some } else { Cover::Case("none".into(), Vec::new()) };
            return Tested { test: Some(test), cover };
        }
        let alternatives = Self::alternatives(&subject.ty);
        let alternatives: Vec<Ty> = alternatives.iter().map(|ty| self.types.base(ty).clone()).collect();
        let fit = |ty: &&Ty| self.types.fit(&value.ty, ty);
        let of_own = alternatives.iter().find(|ty| fit(ty) == Fit::Same);
        let Some(ty) = of_own.or_else(|| alternatives.iter().find(|ty| fit(ty) == Fit::Widen)).cloned() else {
            let what = format!("`{}`", self.show(&value.ty));
            return self.mismatch(literal.span(), subject, &what);
        };
        let value = self.coerce(value, &ty, literal.span(), Place::Arm);
        let cover = match (&value.kind, &ty) {
            (ExprKind::Const(Const::Bool(value)), Ty::Bool) => Cover::Case(value.to_string().into(), Vec::new()),
            _ => Cover::Some,
        };
        let test = Expr::new(ExprKind::Binary(Operator::Eq, Box::new(subject.clone()), Box::new(value)), Ty::Bool, at);
        Tested { test: Some(test), cover }
    }

    fn name_pattern(&mut self, pattern: &ast::NamePat, subject: &Expr, before: &[Cover]) -> Tested {
        let Some(name) = pattern.name() else { return Tested::anything() };
        let path = pattern.path();
        if path.len() > 1 || self.has_case(&subject.ty, &name.text()) {
            return self.case_pattern(&path, None, subject, pattern.span());
        }
        self.note_near_case(&name, &subject.ty);
        let value = self.what_is_left(subject, before);
        let test = self.bind_part(&name, value);
        Tested { test: Some(test), cover: Cover::All }
    }

    /// A name that takes every value and is nearly that of a case was probably meant to be the case.
    fn note_near_case(&mut self, name: &Name, ty: &Ty) {
        let text = name.text();
        let alternatives = Self::alternatives(ty);
        let cases = alternatives.iter().flat_map(|ty| match ty {
            Ty::Named(id) => self.cases(*id).unwrap_or_default(),
            _ => &[],
        });
        if let Some(near) = nearest(&text, cases.map(|(tag, _)| &**tag)) {
            self.near_cases.insert((self.file, name.span()), near.to_owned());
        }
    }

    /// The value without the alternatives that earlier arms take whole.
    fn what_is_left(&self, subject: &Expr, before: &[Cover]) -> Expr {
        let alternatives = Self::alternatives(&subject.ty);
        if before.is_empty() || alternatives.len() < 2 {
            return subject.clone();
        }
        let open = coverage::open_cases(&self.types, before, &subject.ty);
        let is_left = |part: &&Ty| {
            let mut own = coverage::cases(&self.types, part).into_iter();
            own.any(|(case, _)| open.contains(&coverage::case_name(&self.types, &subject.ty, part, &case)))
        };
        let left = alternatives.iter().filter(is_left);
        match left.fold(Ty::Never, |joined, ty| self.types.join(&joined, ty)) {
            Ty::Never => subject.clone(),
            ty => Expr { ty, ..subject.clone() },
        }
    }

    /// A value of any type that a pattern wants to be of one.
    fn read_and_match(&mut self, pattern: &Pattern, subject: &Expr, ty: &Ty, at: At) -> Tested {
        let (is_read, value) = self.read_as(subject, ty, at);
        let mut statements = Vec::new();
        let value = self.set_aside(value, &mut statements, at);
        let stored = block_of(statements, Expr::constant(Const::Bool(true), at));
        let tested = self.pattern(pattern, &value, &[]);
        let test = all([Some(is_read), Some(stored), tested.test].into_iter().flatten().collect(), at);
        Tested { test, cover: Cover::Some }
    }

    /// The test of a whole and the patterns of its parts, in order, and what each part takes.
    fn all_parts(&mut self, first: Option<Expr>, parts: Vec<(Pattern, Expr)>, at: At) -> (Option<Expr>, Vec<Cover>) {
        let mut tests: Vec<Expr> = first.into_iter().collect();
        let mut covers = Vec::new();
        for (pattern, part) in parts {
            let before = tests.len();
            // A part is looked at more than once only if its pattern has parts; it waits in a local then.
            let mut statements = Vec::new();
            let is_simple = matches!(pattern, Pattern::NamePat(_) | Pattern::WildcardPat(_) | Pattern::LiteralPat(_));
            let part = if is_simple { part } else { self.set_aside(part, &mut statements, at) };
            if !statements.is_empty() {
                tests.push(block_of(statements, Expr::constant(Const::Bool(true), at)));
            }
            let tested = self.pattern(&pattern, &part, &[]);
            if tested.test.is_none() && tests.len() > before {
                tests.truncate(before);
            }
            covers.push(tested.cover);
            tests.extend(tested.test);
        }
        (all(tests, at), covers)
    }

    fn bind_part(&mut self, name: &Name, value: Expr) -> Expr {
        let at = value.at;
        let slot = self.bind(name, value.ty.clone());
        let store = Stmt { kind: StmtKind::Store(slot, value), at };
        block_of(vec![store], Expr::constant(Const::Bool(true), at))
    }
}

/// All of these, in order.
fn all(tests: Vec<Expr>, at: At) -> Option<Expr> {
    tests.into_iter().reduce(|left, right| Expr::new(ExprKind::And(Box::new(left), Box::new(right)), Ty::Bool, at))
}
