//! Patterns that take a value apart by its shape: tuples, lists and records.

use std::rc::Rc;

use super::super::coverage::{ANYTHING, Cover};
use super::super::{Checker, listed};
use super::{Tested, all};
use crate::ast::{self, AstNode, Name, Pattern};
use crate::hir::{At, Const, Expr, ExprKind, Operator};
use crate::types::{Field, Ty};

impl Checker<'_> {
    pub(super) fn tuple_pattern(&mut self, pattern: &ast::TuplePat, subject: &Expr) -> Tested {
        let at = self.at(pattern);
        let items: Vec<Pattern> = pattern.items().collect();
        if subject.ty == Ty::Any {
            let ty = Ty::Tuple(items.iter().map(|_| Ty::Any).collect());
            return self.read_and_match(&Pattern::TuplePat(pattern.clone()), subject, &ty, at);
        }
        let suits = |ty: &Ty| matches!(ty, Ty::Tuple(types) if types.len() == items.len());
        let suiting: Vec<Ty> = Self::alternatives(&subject.ty).into_iter().filter(suits).collect();
        let [ty @ Ty::Tuple(types)] = suiting.as_slice() else {
            return self.mismatch(pattern.span(), subject, &format!("a tuple of {}", items.len()));
        };
        let (test, value) = self.narrowed(subject, &suiting, at);
        let parts = items.into_iter().zip(types.iter()).enumerate().map(|(place, (item, ty))| {
            let index = Expr::constant(Const::Int(place as i64), at);
            (item, Expr::new(ExprKind::Index(Box::new(value.clone()), Box::new(index)), ty.clone(), at))
        });
        let (test, covers) = self.all_parts(test, parts.collect(), at);
        Tested { test, cover: self.cover_of(&subject.ty, ty, ANYTHING, covers) }
    }

    /// `[a, b]`: a list of so many elements.
    pub(super) fn list_pattern(&mut self, pattern: &ast::ListPat, subject: &Expr) -> Tested {
        let at = self.at(pattern);
        if subject.ty == Ty::Any {
            return self.read_and_match(&Pattern::ListPat(pattern.clone()), subject, &Ty::list(Ty::Any), at);
        }
        let items: Vec<Pattern> = pattern.items().collect();
        let is_list = |ty: &Ty| matches!(ty, Ty::List(_));
        let lists: Vec<Ty> = Self::alternatives(&subject.ty).into_iter().filter(is_list).collect();
        if lists.is_empty() {
            return self.mismatch(pattern.span(), subject, "a list");
        }
        let item = lists.iter().fold(Ty::Never, |joined, ty| match ty {
            Ty::List(item) => self.types.join(&joined, item),
            _ => joined,
        });
        let (test, value) = self.narrowed(subject, &lists, at);
        let len = nexa_vm::stdlib::lookup("list.len").map_or(u16::MAX, |function| function.number);
        let len = Expr::new(ExprKind::Std(len, vec![value.clone()]), Ty::Int, at);
        let count = Expr::constant(Const::Int(items.len() as i64), at);
        let fits = Expr::new(ExprKind::Binary(Operator::Eq, Box::new(len), Box::new(count)), Ty::Bool, at);
        let first = all(test.into_iter().chain([fits]).collect(), at);
        let parts = items.into_iter().enumerate().map(|(place, part)| {
            let index = Expr::constant(Const::Int(place as i64), at);
            (part, Expr::new(ExprKind::Index(Box::new(value.clone()), Box::new(index)), item.clone(), at))
        });
        let (test, _) = self.all_parts(first, parts.collect(), at);
        Tested { test, cover: Cover::Some }
    }

    /// `{ f, g: p }`: a record with these fields.
    pub(super) fn record_pattern(&mut self, pattern: &ast::RecordPat, subject: &Expr) -> Tested {
        let at = self.at(pattern);
        let wanted: Vec<(Name, Option<Pattern>)> =
            pattern.fields().filter_map(|field| Some((field.name()?, field.pattern()))).collect();
        if subject.ty == Ty::Any {
            return self.record_of_any(&wanted, subject, at);
        }
        let records: Vec<Ty> =
            Self::alternatives(&subject.ty).into_iter().filter(|ty| self.types.fields(ty).is_some()).collect();
        let has_all = |ty: &Ty| {
            let fields = self.types.fields(ty).unwrap_or_else(|| [].into());
            wanted.iter().all(|(name, _)| fields.iter().any(|field| *field.name == name.text()))
        };
        let mut suiting: Vec<Ty> = records.iter().filter(|ty| has_all(ty)).cloned().collect();
        if suiting.is_empty() {
            match records.as_slice() {
                [] => return self.mismatch(pattern.span(), subject, "a record"),
                // The field that is missing is reported by its name.
                [one] => suiting = vec![one.clone()],
                _ => {
                    let names: Vec<String> = wanted.iter().map(|(name, _)| name.text()).collect();
                    let names = listed(names.iter().map(String::as_str));
                    return self.mismatch(pattern.span(), subject, &format!("a record with {names}"));
                }
            }
        }
        let (test, value) = self.narrowed(subject, &suiting, at);
        let mut tests: Vec<Expr> = test.into_iter().collect();
        let mut parts = Vec::new();
        let mut places: Vec<(String, Cover)> = Vec::new();
        for (name, inner) in wanted {
            let part = self.field_of_each(&value, &suiting, &name);
            match inner {
                Some(inner) => parts.push((inner, part, name.text())),
                None => tests.push(self.bind_part(&name, part)),
            }
        }
        let names: Vec<String> = parts.iter().map(|(_, _, name)| name.clone()).collect();
        let parts = parts.into_iter().map(|(inner, part, _)| (inner, part)).collect();
        let (inner, covers) = self.all_parts(None, parts, at);
        tests.extend(inner);
        places.extend(names.into_iter().zip(covers));
        let covers = suiting.iter().map(|ty| {
            let fields = self.types.fields(ty).unwrap_or_else(|| [].into());
            let of_field = |field: &Field| {
                let given = places.iter().find(|(name, _)| *field.name == *name);
                given.map_or(Cover::All, |(_, cover)| cover.clone())
            };
            self.cover_of(&subject.ty, ty, ANYTHING, fields.iter().map(of_field).collect())
        });
        let cover = Cover::OneOf(covers.collect());
        Tested { test: all(tests, at), cover }
    }

    /// A field of a value that is of one of several record types.
    fn field_of_each(&mut self, value: &Expr, types: &[Ty], name: &Name) -> Expr {
        if let [one] = types {
            return self.field_of(Expr { ty: one.clone(), ..value.clone() }, name);
        }
        let text = name.text();
        let ty = types.iter().fold(Ty::Never, |joined, ty| {
            let fields = self.types.fields(ty).unwrap_or_else(|| [].into());
            let field = fields.iter().find(|field| *field.name == *text);
            field.map_or(joined.clone(), |field| self.types.join(&joined, &field.ty))
        });
        Expr::new(ExprKind::Field(Box::new(value.clone()), text.into()), ty, value.at)
    }

    /// The fields of a value of any type, where it has them.
    fn record_of_any(&mut self, wanted: &[(Name, Option<Pattern>)], subject: &Expr, at: At) -> Tested {
        let mut tests = Vec::new();
        let mut parts = Vec::new();
        for (name, inner) in wanted {
            let field = Expr::new(ExprKind::Field(Box::new(subject.clone()), name.text().into()), Ty::Any, at);
            let tried = Expr::new(ExprKind::Try(Box::new(field)), Ty::result(Ty::Any), at);
            let (has, value) = self.held(tried, Ty::Any, at);
            tests.push(has);
            match inner {
                Some(inner) => parts.push((inner.clone(), value)),
                None => tests.push(self.bind_part(name, value)),
            }
        }
        if wanted.is_empty() {
            // `{}` takes every record, and a record of any type is a dict or a record.
            let ty = Ty::Dict(Rc::new(Ty::Str), Rc::new(Ty::Any));
            tests.push(self.read_as(subject, &ty, at).0);
        }
        let (inner, _) = self.all_parts(None, parts, at);
        tests.extend(inner);
        Tested { test: all(tests, at), cover: Cover::Some }
    }
}
