//! Patterns that take a case: `ok(p)`, `err(p)`, and those of enums, `accept`, `Verdict.reject(p)`.

use std::rc::Rc;

use super::super::coverage::Cover;
use super::super::literals::block_of;
use super::super::modules::Item;
use super::super::{Checker, listed};
use super::{Tested, all};
use crate::ast::{self, AstNode, Name, Pattern};
use crate::diagnostic::Code;
use crate::hir::{Const, Expr, ExprKind, Shape, Test};
use crate::source::Span;
use crate::types::{NamedId, Ty, Variant};

impl Checker<'_> {
    pub(super) fn variant_pattern(&mut self, pattern: &ast::VariantPat, subject: &Expr) -> Tested {
        let Some(name) = pattern.name() else { return Tested::anything() };
        let path = pattern.path();
        let payload: Vec<Pattern> = pattern.payload().collect();
        let text = name.text();
        let is_result = |ty: &Ty| matches!(ty, Ty::Result(..) | Ty::Any);
        let has_result = Self::alternatives(&subject.ty).iter().any(is_result);
        if path.len() == 1 && matches!(text.as_str(), "ok" | "err") && has_result {
            return self.result_pattern(text == "ok", &payload, subject, pattern.span());
        }
        self.case_pattern(&path, Some(&payload), subject, pattern.span())
    }

    /// `ok(p)`, `err(p)`.
    fn result_pattern(&mut self, is_ok: bool, payload: &[Pattern], subject: &Expr, span: Span) -> Tested {
        let at = self.at_span(span);
        let word = if is_ok { "ok" } else { "err" };
        let [inner] = payload else {
            let wrong = self.finding(Code::E0304, span, format!("`{word}` holds one value: `{word}(x)`"));
            self.report(wrong);
            return Tested::anything();
        };
        let held = |ty: &Ty| match ty {
            Ty::Result(value, error) => Some(if is_ok { (**value).clone() } else { (**error).clone() }),
            Ty::Any => Some(Ty::Any),
            _ => None,
        };
        let held: Vec<Ty> = Self::alternatives(&subject.ty).iter().filter_map(held).collect();
        let held = held.iter().fold(Ty::Never, |joined, ty| self.types.join(&joined, ty));
        let holder = Box::new(subject.clone());
        let test = Expr::new(ExprKind::Is(if is_ok { Test::Ok } else { Test::Err }, holder.clone()), Ty::Bool, at);
        let part = if is_ok { ExprKind::Unwrap(holder) } else { ExprKind::ErrorOf(holder) };
        let part = Expr::new(part, held, at);
        let (test, covers) = self.all_parts(Some(test), vec![(inner.clone(), part)], at);
        let cover = if subject.ty == Ty::Any { Cover::Some } else { Cover::Case(word.into(), covers) };
        Tested { test, cover }
    }

    /// Whether some alternative of a type is an enum with this case.
    pub(super) fn has_case(&self, ty: &Ty, tag: &str) -> bool {
        let has = |ty: &Ty| matches!(ty, Ty::Named(id) if self.tag_of(*id, tag).is_some());
        Self::alternatives(ty).iter().any(has)
    }

    fn tag_of(&self, id: NamedId, tag: &str) -> Option<Variant> {
        self.cases(id)?.iter().find(|(known, _)| **known == *tag).cloned()
    }

    /// `accept`, `Verdict.reject(reason)`: a case of an enum. Without parentheses what it holds does not matter.
    pub(super) fn case_pattern(
        &mut self,
        path: &[Name],
        payload: Option<&[Pattern]>,
        subject: &Expr,
        span: Span,
    ) -> Tested {
        let Some((name, owner)) = path.split_last() else { return Tested::anything() };
        let text = name.text();
        let owner = match owner {
            [] => None,
            words => match self.enum_named(words) {
                Some(id) => Some(id),
                None => return Tested::anything(),
            },
        };
        if subject.ty.is_silent() {
            return Tested::anything();
        }
        if subject.ty == Ty::Any {
            let Some(id) = owner.or_else(|| self.enum_of_case(name, None)) else {
                return self.mismatch(span, subject, &format!("a value with the case `{text}`"));
            };
            let at = self.at_span(span);
            let (is_read, value) = self.read_as(subject, &Ty::Named(id), at);
            let mut statements = Vec::new();
            let value = self.set_aside(value, &mut statements, at);
            let Some(tested) = self.case_of_enum(id, name, payload, &value, &value.ty.clone(), span) else {
                return Tested::anything();
            };
            let stored = block_of(statements, Expr::constant(Const::Bool(true), at));
            let test = all([Some(is_read), Some(stored), tested.test].into_iter().flatten().collect(), at);
            return Tested { test, cover: Cover::Some };
        }
        let ids: Vec<NamedId> = Self::alternatives(&subject.ty)
            .iter()
            .filter_map(|ty| match ty {
                Ty::Named(id) if self.cases(*id).is_some() => Some(*id),
                _ => None,
            })
            .filter(|id| owner.is_none_or(|owner| owner == *id))
            .collect();
        let having: Vec<NamedId> = ids.iter().copied().filter(|id| self.tag_of(*id, &text).is_some()).collect();
        match (having.as_slice(), ids.as_slice()) {
            ([id], _) | ([], [id]) => {
                let tested = self.case_of_enum(*id, name, payload, subject, &subject.ty, span);
                tested.unwrap_or_else(Tested::anything)
            }
            ([], []) => self.mismatch(span, subject, &format!("a value with the case `{text}`")),
            ([], _) => {
                let message = format!("`{}` has no case `{text}`", self.show(&subject.ty));
                let unknown = self.finding(Code::E0305, name.span(), message);
                let cases = ids.iter().flat_map(|id| self.cases(*id).unwrap_or_default());
                let cases: Vec<String> = cases.map(|(tag, _)| tag.to_string()).collect();
                let unknown = self.suggest(unknown, &text, cases.iter().map(String::as_str));
                self.report(unknown);
                Tested::anything()
            }
            (several, _) => {
                let owners: Vec<String> = several.iter().map(|id| self.types.named(*id).name.to_string()).collect();
                let message = format!("`{text}` is a case of {}", listed(owners.iter().map(String::as_str)));
                let many = self.finding(Code::E0208, name.span(), message);
                self.report(many.help(format!("say which is meant: `{}.{text}`", owners[0])));
                Tested::anything()
            }
        }
    }

    /// The enum that the words before a case name.
    fn enum_named(&mut self, words: &[Name]) -> Option<NamedId> {
        let (first, rest) = words.split_first()?;
        let mut item = self.item(&first.text()).map(|known| known.item);
        for word in rest {
            item = match item {
                Some(Item::Module(place)) => Some(self.item_of_module(place, word)),
                other => other.filter(|item| *item == Item::Reported),
            };
        }
        match item {
            Some(Item::Type(id)) if self.cases(id).is_some() => Some(id),
            Some(Item::Reported) => None,
            None if rest.is_empty() && self.types.built_in(&first.text()).is_some() => {
                self.types.built_in(&first.text()).filter(|id| self.cases(*id).is_some())
            }
            _ => {
                let text = words.iter().map(Name::text).collect::<Vec<_>>().join(".");
                let unknown = self.finding(Code::E0302, first.span(), format!("there is no enum `{text}`"));
                let known: Vec<String> = self.scopes[self.place_of(self.file)].names().map(str::to_owned).collect();
                let unknown = self.suggest(unknown, &text, known.iter().map(String::as_str));
                self.report(unknown);
                None
            }
        }
    }

    /// A case of an enum that `subject` may be of, as an alternative of `whole`.
    fn case_of_enum(
        &mut self,
        id: NamedId,
        name: &Name,
        payload: Option<&[Pattern]>,
        subject: &Expr,
        whole: &Ty,
        span: Span,
    ) -> Option<Tested> {
        let at = self.at_span(span);
        let (tag, fields) = self.case_of(id, name)?;
        let given = payload.map_or(fields.len(), <[Pattern]>::len);
        if given != fields.len() {
            let names = listed(fields.iter().map(|field| &*field.name));
            let message = format!("`{tag}` holds {names}, and {given} patterns stand here");
            let wrong =
                self.finding(Code::E0304, span, message).help("write one pattern for each, `_` for what is not needed");
            self.report(wrong);
            return None;
        }
        let names = fields.iter().map(|field| Rc::clone(&field.name)).collect();
        let ty = Ty::Named(id);
        let shape = Shape { type_name: self.shape_name(&ty), tag: Rc::clone(&tag), fields: names };
        let test = Expr::new(ExprKind::Is(Test::Variant(shape), Box::new(subject.clone())), Ty::Bool, at);
        let value = Expr { ty: ty.clone(), ..subject.clone() };
        let parts = payload.unwrap_or_default().iter().zip(fields.iter()).map(|(inner, field)| {
            let kind = ExprKind::Field(Box::new(value.clone()), Rc::clone(&field.name));
            (inner.clone(), Expr::new(kind, field.ty.clone(), at))
        });
        let (test, mut covers) = self.all_parts(Some(test), parts.collect(), at);
        if payload.is_none() {
            covers = vec![Cover::All; fields.len()];
        }
        Some(Tested { test, cover: self.cover_of(whole, &ty, &tag, covers) })
    }
}
