//! Patterns of `match`: what each tests, what it binds, and which values it takes.
//!
//! A value of several alternatives (an optional one, a union) is tested for those that a pattern can take; inside of
//! the pattern it has their type. A value of any type is read as the type that the pattern wants, as everywhere else
//! where `any` becomes a type, and the pattern does not fit if that fails.

use std::rc::Rc;

use nexa_vm::op::Asking;

use super::Checker;
use super::coverage::{self, ANYTHING, Cover};
use super::literals::block_of;
use super::modules::Item;
use super::places::Place;
use crate::ast::{self, AstNode, Name, Pattern};
use crate::diagnostic::{Code, nearest};
use crate::hir::{At, Const, Expr, ExprKind, Operator, Shape, Stmt, StmtKind, Test};
use crate::source::Span;
use crate::types::{Field, Fit, NamedId, Ty, Variant};

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

    fn variant_pattern(&mut self, pattern: &ast::VariantPat, subject: &Expr) -> Tested {
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
    fn has_case(&self, ty: &Ty, tag: &str) -> bool {
        let has = |ty: &Ty| matches!(ty, Ty::Named(id) if self.tag_of(*id, tag).is_some());
        Self::alternatives(ty).iter().any(has)
    }

    fn tag_of(&self, id: NamedId, tag: &str) -> Option<Variant> {
        self.cases(id)?.iter().find(|(known, _)| **known == *tag).cloned()
    }

    /// `accept`, `Verdict.reject(reason)`: a case of an enum. Without parentheses what it holds does not matter.
    fn case_pattern(&mut self, path: &[Name], payload: Option<&[Pattern]>, subject: &Expr, span: Span) -> Tested {
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
                let message = format!("`{text}` is a case of {}", super::listed(owners.iter().map(String::as_str)));
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
            let names = super::listed(fields.iter().map(|field| &*field.name));
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

    fn tuple_pattern(&mut self, pattern: &ast::TuplePat, subject: &Expr) -> Tested {
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
    fn list_pattern(&mut self, pattern: &ast::ListPat, subject: &Expr) -> Tested {
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

    /// `{ f, g: p }`: a record with these fields.
    fn record_pattern(&mut self, pattern: &ast::RecordPat, subject: &Expr) -> Tested {
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
                    let names = super::listed(names.iter().map(String::as_str));
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

    /// `n: T`: the value, if it is of a type.
    fn typed_pattern(&mut self, pattern: &ast::TypedPat, subject: &Expr) -> Tested {
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

/// All of these, in order.
fn all(tests: Vec<Expr>, at: At) -> Option<Expr> {
    tests.into_iter().reduce(|left, right| Expr::new(ExprKind::And(Box::new(left), Box::new(right)), Ty::Bool, at))
}
