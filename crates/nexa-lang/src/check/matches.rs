//! `match`: patterns become tests and bindings, and the arms a chain of choices.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::Checker;
use super::expressions::Use;
use super::literals::block_of;
use super::places::Place;
use crate::ast::{self, AstNode, Name, Pattern};
use crate::diagnostic::Code;
use crate::hir::{At, Const, Expr, ExprKind, Operator, Shape, Stmt, StmtKind, Test};
use crate::source::Span;
use crate::types::{Field, Fit, NamedKind, Ty, Variant};

/// Which values of the subject some arm takes whatever its guard says.
#[derive(Default)]
struct Covered {
    all: bool,
    cases: BTreeSet<String>,
}

/// A pattern, checked.
struct Tested {
    /// Holds if the pattern fits, and binds its names; nothing if it always fits and binds nothing.
    test: Option<Expr>,
    /// Whether it always fits.
    is_certain: bool,
    /// The case that it takes whole, if it takes one: `ok`, `none`, `true`, a variant.
    case: Option<String>,
}

impl Checker<'_> {
    pub(super) fn match_expr(&mut self, node: &ast::MatchExpr, usage: Use<'_>) -> Expr {
        let Some(subject_node) = node.subject() else { return self.broken(node.span()) };
        let at = self.at(node);
        let subject = self.expr(&subject_node, None);
        let mut statements = Vec::new();
        let subject = if matches!(subject.kind, ExprKind::Local(_)) {
            subject
        } else {
            self.set_aside(subject, &mut statements, at)
        };
        let mut covered = Covered::default();
        let mut arms: Vec<(Option<Expr>, Expr, Span)> = Vec::new();
        let mut ty = Ty::Never;
        for arm in node.arms() {
            let (Some(pattern), Some(body)) = (arm.pattern(), arm.body()) else { continue };
            if covered.all {
                let dead = self
                    .finding(Code::W0316, pattern.span(), "this arm is never reached")
                    .help("the arms before it take every value");
                self.report(dead);
            }
            let opened = self.open_block();
            let tested = self.pattern(&pattern, &subject, &covered);
            if let Some(case) = tested.case.as_ref().filter(|case| !covered.all && covered.cases.contains(*case)) {
                let dead = self.finding(Code::W0316, pattern.span(), "this arm is never reached");
                self.report(dead.help(format!("an arm before it takes every `{case}`")));
            }
            let guard = arm.guard().map(|guard| self.condition(Some(guard), pattern.span()));
            if guard.is_none() {
                covered.all |= tested.is_certain;
                covered.cases.extend(tested.case);
                covered.all |= self.cases_of(&subject.ty).iter().all(|case| covered.cases.contains(case));
            }
            let test = match (tested.test, guard) {
                (Some(test), Some(guard)) => {
                    Some(Expr::new(ExprKind::And(Box::new(test), Box::new(guard)), Ty::Bool, at))
                }
                (test, guard) => test.or(guard),
            };
            let value = self.body(&body, usage);
            self.close_block(opened);
            // The values of statement arms are dropped; whether they end is what counts.
            let value_ty = match usage {
                Use::Nothing if value.ty != Ty::Never => Ty::Unit,
                _ => value.ty.clone(),
            };
            ty = self.types.join(&ty, &value_ty);
            arms.push((test, value, arm.span()));
        }
        self.check_exhaustive(&subject, &covered, node);
        let mut chain = Expr::new(ExprKind::Unreachable, Ty::Never, at);
        for (test, value, span) in arms.into_iter().rev() {
            let value = match usage {
                Use::Value(_) => self.coerce(value, &ty, span, Place::Arm),
                Use::Nothing => value,
            };
            chain = match test {
                Some(test) => Expr::new(ExprKind::If(Box::new(test), Box::new(value), Box::new(chain)), ty.clone(), at),
                None => value,
            };
        }
        block_of(statements, Expr { ty, ..chain })
    }

    /// The cases that a `match` of a type must take; `_` is what is left besides.
    fn cases_of(&self, ty: &Ty) -> Vec<String> {
        match ty {
            Ty::Bool => vec!["true".into(), "false".into()],
            Ty::Result(..) => vec!["ok".into(), "err".into()],
            Ty::Named(id) => match self.cases(*id) {
                Some(variants) => variants.iter().map(|(name, _)| name.to_string()).collect(),
                None => vec!["_".into()],
            },
            Ty::Option(_) => vec!["none".into(), "_".into()],
            _ => vec!["_".into()],
        }
    }

    /// T7: what every value of the subject meets.
    fn check_exhaustive(&mut self, subject: &Expr, covered: &Covered, node: &ast::MatchExpr) {
        if covered.all || subject.ty.is_silent() || node.is_broken() {
            return;
        }
        let cases = self.cases_of(&subject.ty);
        let missing: Vec<&str> =
            cases.iter().filter(|case| !covered.cases.contains(*case)).map(String::as_str).collect();
        if missing.is_empty() {
            return;
        }
        let start = node.span().start;
        let span = Span::new(start, start + "match".len() as u32);
        let message = format!(
            "this `match` leaves out {}",
            super::listed(missing.iter().map(|case| if *case == "_" { "every other value" } else { case }))
        );
        let lacks =
            self.finding(Code::E0315, span, message).help("add an arm for each, or `_ => …` for all that is left");
        self.report(lacks);
    }

    fn pattern(&mut self, pattern: &Pattern, subject: &Expr, covered: &Covered) -> Tested {
        let at = self.at(pattern);
        match pattern {
            Pattern::WildcardPat(_) => Tested { test: None, is_certain: true, case: None },
            Pattern::LiteralPat(literal) => self.literal_pattern(literal, subject),
            Pattern::NamePat(name) => self.name_pattern(name, subject, covered),
            Pattern::VariantPat(variant) => self.variant_pattern(variant, subject),
            Pattern::TuplePat(tuple) => {
                let items: Vec<Pattern> = tuple.items().collect();
                let Ty::Tuple(types) = &subject.ty else { return self.mismatch(pattern.span(), subject, "a tuple") };
                if types.len() != items.len() {
                    return self.mismatch(pattern.span(), subject, &format!("a tuple of {}", items.len()));
                }
                let parts = items.into_iter().zip(types.iter()).enumerate();
                let parts = parts.map(|(place, (item, ty))| {
                    let index = Expr::constant(Const::Int(place as i64), at);
                    let part = Expr::new(ExprKind::Index(Box::new(subject.clone()), Box::new(index)), ty.clone(), at);
                    (item, part)
                });
                let parts = parts.collect();
                self.all_parts(None, parts, at)
            }
            Pattern::RecordPat(record) => {
                if self.types.fields(&subject.ty).is_none() && subject.ty != Ty::Any {
                    return self.mismatch(pattern.span(), subject, "a record");
                }
                let mut parts = Vec::new();
                let mut tests: Vec<Expr> = Vec::new();
                let mut is_certain = true;
                for field in record.fields() {
                    let Some(name) = field.name() else { continue };
                    let value = self.field_of(subject.clone(), &name);
                    match field.pattern() {
                        Some(inner) => parts.push((inner, value)),
                        None => tests.push(self.bind_part(&name, value)),
                    }
                }
                let inner = self.all_parts(None, parts, at);
                is_certain &= inner.is_certain;
                tests.extend(inner.test);
                Tested { test: all(tests, at), is_certain, case: None }
            }
            Pattern::ListPat(_) => self.no_pattern(pattern.span(), "a list pattern"),
            Pattern::TypedPat(_) => self.no_pattern(pattern.span(), "a pattern with a type"),
            Pattern::IntentPat(_) => self.no_pattern(pattern.span(), "`intent`"),
        }
    }

    fn no_pattern(&mut self, span: Span, what: &str) -> Tested {
        self.report_not_available(span, what);
        Tested { test: None, is_certain: true, case: None }
    }

    fn mismatch(&mut self, span: Span, subject: &Expr, what: &str) -> Tested {
        if !subject.ty.is_silent() {
            let message = format!("this pattern takes {what}, and the value is `{}`", self.show(&subject.ty));
            let wrong = self.finding(Code::E0301, span, message);
            self.report(wrong);
        }
        // The rest of the `match` is judged as if the arm were right.
        Tested { test: None, is_certain: true, case: None }
    }

    fn literal_pattern(&mut self, literal: &ast::LiteralPat, subject: &Expr) -> Tested {
        let Some(node) = literal.value() else { return Tested { test: None, is_certain: true, case: None } };
        let at = self.at(literal);
        let inner = subject.ty.without_option().clone();
        let value = self.expr(&node, Some(&inner));
        if value.ty.is_silent() {
            return Tested { test: None, is_certain: true, case: None };
        }
        let case = match &value.kind {
            ExprKind::Const(Const::None) => {
                if !matches!(subject.ty, Ty::Option(_) | Ty::Any | Ty::Broken) {
                    return self.mismatch(literal.span(), subject, "an optional value");
                }
                let test = Expr::new(ExprKind::Is(Test::None, Box::new(subject.clone())), Ty::Bool, at);
                return Tested { test: Some(test), is_certain: false, case: Some("none".into()) };
            }
            ExprKind::Const(Const::Bool(value)) => Some(value.to_string()),
            _ => None,
        };
        if self.types.fit(&value.ty, &inner) == Fit::No {
            let what = format!("`{}`", self.show(&value.ty));
            return self.mismatch(literal.span(), subject, &what);
        }
        let value = self.coerce(value, &inner, literal.span(), Place::Arm);
        let test = Expr::new(ExprKind::Binary(Operator::Eq, Box::new(subject.clone()), Box::new(value)), Ty::Bool, at);
        Tested { test: Some(test), is_certain: false, case }
    }

    fn name_pattern(&mut self, pattern: &ast::NamePat, subject: &Expr, covered: &Covered) -> Tested {
        let Some(name) = pattern.name() else { return Tested { test: None, is_certain: true, case: None } };
        let variants = self.variants(&subject.ty);
        let variant = variants.iter().flatten().find(|(tag, _)| **tag == *name.text());
        if let Some((tag, fields)) = variant {
            let test = self.variant_test(subject, tag, fields, pattern.span());
            return Tested { test: Some(test), is_certain: false, case: Some(tag.to_string()) };
        }
        if pattern.path().len() > 1 {
            return self.unknown_variant(&name, subject);
        }
        // After an arm for `none`, what is left is there.
        let mut value = subject.clone();
        if covered.cases.contains("none") {
            value.ty = value.ty.without_option().clone();
        }
        let test = self.bind_part(&name, value);
        Tested { test: Some(test), is_certain: true, case: None }
    }

    fn variant_pattern(&mut self, pattern: &ast::VariantPat, subject: &Expr) -> Tested {
        let Some(name) = pattern.name() else { return Tested { test: None, is_certain: true, case: None } };
        let at = self.at(pattern);
        let payload: Vec<Pattern> = pattern.payload().collect();
        let text = name.text();
        if let ("ok" | "err", Ty::Result(value, error)) = (text.as_str(), subject.ty.clone()) {
            let is_ok = text == "ok";
            let [inner] = payload.as_slice() else {
                let wrong = self.finding(Code::E0304, pattern.span(), format!("`{text}` holds one value: `{text}(x)`"));
                self.report(wrong);
                return Tested { test: None, is_certain: true, case: None };
            };
            let holder = Box::new(subject.clone());
            let test = if is_ok { Test::Ok } else { Test::Err };
            let test = Expr::new(ExprKind::Is(test, holder.clone()), Ty::Bool, at);
            let part = if is_ok {
                Expr::new(ExprKind::Unwrap(holder), (*value).clone(), at)
            } else {
                Expr::new(ExprKind::ErrorOf(holder), (*error).clone(), at)
            };
            let tested = self.all_parts(Some(test), vec![(inner.clone(), part)], at);
            let case = tested.is_certain.then_some(text);
            return Tested { is_certain: false, case, ..tested };
        }
        let Some(variants) = self.variants(&subject.ty) else {
            return self.mismatch(pattern.span(), subject, &format!("a value with the case `{text}`"));
        };
        let Some((tag, fields)) = variants.iter().find(|(tag, _)| **tag == *text) else {
            return self.unknown_variant(&name, subject);
        };
        if payload.len() != fields.len() {
            let names = super::listed(fields.iter().map(|field| &*field.name));
            let message = format!("`{tag}` holds {names}, and {} patterns stand here", payload.len());
            let wrong = self
                .finding(Code::E0304, pattern.span(), message)
                .help("write one pattern for each, `_` for what is not needed");
            self.report(wrong);
            return Tested { test: None, is_certain: true, case: None };
        }
        let test = self.variant_test(subject, tag, fields, pattern.span());
        let parts = payload.into_iter().zip(fields.iter()).map(|(inner, field)| {
            let kind = ExprKind::Field(Box::new(subject.clone()), Rc::clone(&field.name));
            (inner, Expr::new(kind, field.ty.clone(), at))
        });
        let tested = self.all_parts(Some(test), parts.collect(), at);
        let case = tested.is_certain.then(|| tag.to_string());
        Tested { is_certain: false, case, ..tested }
    }

    /// The test of a whole and the patterns of its parts, in order.
    fn all_parts(&mut self, first: Option<Expr>, parts: Vec<(Pattern, Expr)>, at: At) -> Tested {
        let mut tests: Vec<Expr> = first.into_iter().collect();
        let mut is_certain = true;
        for (pattern, part) in parts {
            let before = tests.len();
            // A part is looked at more than once only if its pattern has parts; it waits in a local then.
            let mut statements = Vec::new();
            let is_simple = matches!(pattern, Pattern::NamePat(_) | Pattern::WildcardPat(_) | Pattern::LiteralPat(_));
            let part = if is_simple { part } else { self.set_aside(part, &mut statements, at) };
            if !statements.is_empty() {
                tests.push(block_of(statements, Expr::constant(Const::Bool(true), at)));
            }
            let tested = self.pattern(&pattern, &part, &Covered::default());
            is_certain &= tested.is_certain;
            if tested.test.is_none() && tests.len() > before {
                tests.truncate(before);
            }
            tests.extend(tested.test);
        }
        Tested { test: all(tests, at), is_certain, case: None }
    }

    fn bind_part(&mut self, name: &Name, value: Expr) -> Expr {
        let at = value.at;
        let slot = self.bind(name, value.ty.clone());
        let store = Stmt { kind: StmtKind::Store(slot, value), at };
        block_of(vec![store], Expr::constant(Const::Bool(true), at))
    }

    fn variants(&self, ty: &Ty) -> Option<Vec<Variant>> {
        match ty {
            Ty::Named(id) => match &self.types.named(*id).kind {
                NamedKind::Enum(variants) => Some(variants.clone()),
                _ => None,
            },
            _ => None,
        }
    }

    fn variant_test(&mut self, subject: &Expr, tag: &Rc<str>, fields: &[Field], span: Span) -> Expr {
        let names = fields.iter().map(|field| Rc::clone(&field.name)).collect();
        let shape = Shape { type_name: self.shape_name(&subject.ty), tag: Rc::clone(tag), fields: names };
        Expr::new(ExprKind::Is(Test::Variant(shape), Box::new(subject.clone())), Ty::Bool, self.at_span(span))
    }

    fn unknown_variant(&mut self, name: &Name, subject: &Expr) -> Tested {
        let text = name.text();
        let shown = self.show(&subject.ty);
        let variants = self.variants(&subject.ty).unwrap_or_default();
        let unknown = self.finding(Code::E0305, name.span(), format!("`{shown}` has no case `{text}`"));
        let unknown = self.suggest(unknown, &text, variants.iter().map(|(tag, _)| &**tag));
        self.report(unknown);
        Tested { test: None, is_certain: true, case: None }
    }
}

/// All of these, in order.
fn all(tests: Vec<Expr>, at: At) -> Option<Expr> {
    tests.into_iter().reduce(|left, right| Expr::new(ExprKind::And(Box::new(left), Box::new(right)), Ty::Bool, at))
}
