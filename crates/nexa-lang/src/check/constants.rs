//! Values that are known when the program is compiled: defaults, properties and their settings.

use std::ops::RangeInclusive;

use nexa_types::{Budget, Millis, Tokens, UsdMicro};

use super::Checker;
use super::places::Place;
use super::scope::{Frame, FrameKind};
use crate::ast::{self, AstNode};
use crate::diagnostic::{Code, Edit};
use crate::hir::{Const, Expr, ExprKind};
use crate::source::Span;
use crate::types::Ty;

/// The caps of a `budget`.
const CAPS: &[&str] = &["tokens", "cost", "time", "calls", "steps"];
/// The most a budget may allow in US dollars.
const COST_MAX: f64 = 1_000_000.0;

/// A setting of a property: its name, its name's place, its value.
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) span: Span,
    pub(super) value: ast::Expr,
}

impl Checker<'_> {
    /// A constant of a type; anything else is reported.
    pub(super) fn constant(&mut self, value: &ast::Expr, ty: &Ty, place: Place<'_>) -> Expr {
        let around = std::mem::take(&mut self.frames);
        self.frames.push(Frame::new(String::new(), FrameKind::Flow, None));
        let made = self.expect(value, ty, place);
        self.frames = around;
        if made.ty.is_silent() || is_constant(&made) {
            return made;
        }
        let (what, help) = match place {
            Place::Property(name) => (format!("`{name}` must be a constant"), "write a literal here"),
            _ => (
                "a default must be a constant".to_owned(),
                "write a literal, or take an optional value and use `??` in the body",
            ),
        };
        let computed = self.finding(Code::E0404, value.span(), what).help(help);
        self.refuse(computed)
    }

    /// A constant int within bounds.
    pub(super) fn int_setting(&mut self, value: &ast::Expr, name: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let made = self.constant(value, &Ty::Int, Place::Property(name));
        let ExprKind::Const(Const::Int(int)) = made.kind else { return None };
        if range.contains(&int) {
            return Some(int);
        }
        self.out_of_range(value.span(), name, &int.to_string(), &format!("from {} to {}", range.start(), range.end()));
        None
    }

    /// A constant float within bounds.
    pub(super) fn float_setting(&mut self, value: &ast::Expr, name: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let made = self.constant(value, &Ty::Float, Place::Property(name));
        let ExprKind::Const(Const::Float(float)) = made.kind else { return None };
        if range.contains(&float) {
            return Some(float);
        }
        self.out_of_range(
            value.span(),
            name,
            &float.to_string(),
            &format!("from {} to {}", range.start(), range.end()),
        );
        None
    }

    /// A constant duration within bounds, in milliseconds. A bare number is an older form, with E0902.
    pub(super) fn duration_setting(
        &mut self,
        value: &ast::Expr,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let made = match value {
            ast::Expr::LiteralExpr(literal) if literal.int_magnitude().is_some() => {
                let seconds =
                    literal.int_magnitude().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(i64::MAX);
                let bare = self
                    .finding(Code::E0902, value.span(), format!("`{name}` as a bare number is an older form"))
                    .note("a duration has a unit, of which there are `ms`, `s`, `m`, `h` and `d`")
                    .help(format!("write `{seconds}s`"))
                    .fix(format!("write `{seconds}s`"), vec![Edit::replace(value.span(), format!("{seconds}s"))]);
                self.report(bare);
                return None;
            }
            _ => match self.constant(value, &Ty::Duration, Place::Property(name)).kind {
                ExprKind::Const(Const::Duration(millis)) => millis,
                _ => return None,
            },
        };
        if let Some(millis) = u64::try_from(made).ok().filter(|millis| range.contains(millis)) {
            return Some(millis);
        }
        self.out_of_range(
            value.span(),
            name,
            &format!("{made}ms"),
            &format!("from {}ms to {}ms", range.start(), range.end()),
        );
        None
    }

    /// A constant text.
    pub(super) fn text_setting(&mut self, value: &ast::Expr, name: &str) -> Option<String> {
        match self.constant(value, &Ty::Str, Place::Property(name)).kind {
            ExprKind::Const(Const::Str(text)) => Some(text.to_string()),
            _ => None,
        }
    }

    /// A constant bool.
    pub(super) fn bool_setting(&mut self, value: &ast::Expr, name: &str) -> Option<bool> {
        match self.constant(value, &Ty::Bool, Place::Property(name)).kind {
            ExprKind::Const(Const::Bool(value)) => Some(value),
            _ => None,
        }
    }

    pub(super) fn out_of_range(&mut self, span: Span, name: &str, given: &str, allowed: &str) {
        let message = format!("`{name}` is {given}, and may be {allowed}");
        let out = self.finding(Code::E0403, span, message);
        self.report(out);
    }

    /// A code that is written out must be one of the run-time codes.
    pub(super) fn check_code(&mut self, code: &Expr, span: Span) {
        if let ExprKind::Const(Const::Str(text)) = &code.kind
            && text.parse::<nexa_types::RunCode>().is_err()
        {
            let unknown = self.finding(Code::E0403, span, format!("there is no run-time code `{text}`"));
            let known: Vec<&str> = nexa_types::RunCode::ALL.iter().map(|code| code.as_str()).collect();
            let unknown = self.suggest(unknown, text, known.iter().copied());
            self.report(unknown.help("leave `code` out for an error of the program's own: it is `failed` then"));
        }
    }

    /// The settings of a record-valued property, each of a known name and given once.
    pub(super) fn settings(&mut self, value: &ast::Expr, property: &str, known: &[&str]) -> Vec<Setting> {
        let record = match value.clone().without_parens() {
            Some(ast::Expr::RecordExpr(record)) if record.ty().is_none() => record,
            Some(ast::Expr::DictExpr(dict)) if dict.entries().next().is_none() => return Vec::new(),
            _ => {
                let wrong = self
                    .finding(Code::E0301, value.span(), format!("`{property}` takes a record of settings"))
                    .help(format!("write `{property}: {{ {}: … }}`", known.first().copied().unwrap_or("name")));
                self.report(wrong);
                return Vec::new();
            }
        };
        let mut settings: Vec<Setting> = Vec::new();
        for field in record.fields() {
            let (Some(name), Some(value)) = (field.name(), field.value()) else { continue };
            let text = name.text();
            if let Some(first) = settings.iter().find(|setting| setting.name == text) {
                let twice = self
                    .finding(Code::E0402, name.span(), format!("`{property}` has `{text}` twice"))
                    .label(first.span, "it is given here first");
                self.report(twice);
            } else if known.contains(&text.as_str()) {
                settings.push(Setting { name: text, span: name.span(), value });
            } else {
                let unknown = self.finding(Code::E0401, name.span(), format!("`{property}` has no setting `{text}`"));
                let unknown = self.suggest(unknown, &text, known.iter().copied());
                self.report(unknown.note(format!("it has {}", super::listed(known.iter().copied()))));
            }
        }
        settings
    }

    /// A `budget`.
    pub(super) fn budget(&mut self, value: &ast::Expr) -> Budget {
        let mut budget = Budget::default();
        for Setting { name, value, .. } in self.settings(value, "budget", CAPS) {
            let mut count = || self.int_setting(&value, &name, 1..=i64::MAX).map(|int| int.unsigned_abs());
            match name.as_str() {
                "tokens" => budget.tokens = count().map(Tokens),
                "calls" => budget.calls = count(),
                "steps" => budget.steps = count(),
                "time" => budget.time = self.duration_setting(&value, &name, 1..=u64::MAX / 2).map(Millis),
                _ => {
                    let dollars = self.float_setting(&value, &name, 0.0..=COST_MAX);
                    budget.cost = dollars.map(|dollars| UsdMicro((dollars * 1_000_000.0).round() as u64));
                }
            }
        }
        budget
    }
}

/// Whether an expression is a constant tree.
pub(super) fn is_constant(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Const(_) => true,
        ExprKind::List(items) | ExprKind::Tuple(items) | ExprKind::Record(_, items) => items.iter().all(is_constant),
        ExprKind::Dict(entries) => entries.iter().all(|(key, value)| is_constant(key) && is_constant(value)),
        _ => false,
    }
}
