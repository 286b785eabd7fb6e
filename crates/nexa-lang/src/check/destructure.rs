//! Patterns that must take every value: in `let`, in `for`, and as the parameters of a lambda.
//!
//! Tuples and lists are taken apart by one instruction, which raises `type_mismatch` where the lengths differ; records
//! field by field. What else stands there must take every value of its type, as the only case of an enum does; otherwise
//! it is E0315, because nothing says what happens to the values that are left out.

use super::Checker;
use super::coverage;
use super::places::Place;
use crate::ast::{self, AstNode, Pattern};
use crate::diagnostic::{Code, Diagnostic};
use crate::hir::{Expr, ExprKind, Item, Stmt, StmtKind};
use crate::source::Span;
use crate::types::Ty;

impl Checker<'_> {
    /// Binds the names of a pattern to the parts of a value.
    pub(super) fn take_apart(&mut self, pattern: &Pattern, value: Expr, out: &mut Vec<Stmt>) {
        let at = self.at(pattern);
        match pattern {
            Pattern::NamePat(name) if name.path().len() == 1 => {
                if let Some(name) = name.name() {
                    let slot = self.bind(&name, value.ty.clone());
                    out.push(Stmt { kind: StmtKind::Store(slot, value), at });
                }
            }
            Pattern::WildcardPat(_) => out.push(Stmt { kind: StmtKind::Expr(value), at }),
            Pattern::TuplePat(tuple) => self.unpack(tuple.items().collect(), tuple.span(), value, out),
            Pattern::ListPat(list) => self.unpack(list.items().collect(), list.span(), value, out),
            Pattern::RecordPat(record) => self.take_fields(record, value, out),
            Pattern::TypedPat(typed) => {
                let Some(written) = typed.ty() else { return };
                let ty = self.ty(&written);
                let made = self.coerce(value, &ty, typed.span(), Place::Let(written.span()));
                let made = Expr { ty: if made.ty.is_silent() { Ty::Broken } else { ty }, ..made };
                match typed.name() {
                    Some(name) => {
                        let slot = self.bind(&name, made.ty.clone());
                        out.push(Stmt { kind: StmtKind::Store(slot, made), at });
                    }
                    None => out.push(Stmt { kind: StmtKind::Expr(made), at }),
                }
            }
            Pattern::NamePat(_) | Pattern::VariantPat(_) | Pattern::LiteralPat(_) | Pattern::IntentPat(_) => {
                self.take_case(pattern, value, out);
            }
        }
    }

    /// What each round of a `for` binds; `inner` takes apart what is nested in it.
    pub(super) fn loop_item(&mut self, pattern: &Pattern, ty: Ty, inner: &mut Vec<Stmt>) -> Item {
        match pattern {
            Pattern::TuplePat(tuple) => {
                self.part_slots(tuple.items().collect(), tuple.span(), &ty, inner).map_or(Item::Nothing, Item::Parts)
            }
            other => self.part_slot(other, ty, inner).map_or(Item::Nothing, Item::One),
        }
    }

    /// Where a part of a value is kept: under its name, or until it is taken apart itself, which `inner` does.
    pub(super) fn part_slot(&mut self, part: &Pattern, ty: Ty, inner: &mut Vec<Stmt>) -> Option<u16> {
        match part {
            Pattern::NamePat(name) if name.path().len() == 1 => name.name().map(|name| self.bind(&name, ty)),
            Pattern::WildcardPat(_) => None,
            other => {
                let at = self.at(other);
                let slot = self.temporary(other.span());
                self.take_apart(other, Expr::local(slot, ty, at), inner);
                Some(slot)
            }
        }
    }

    fn unpack(&mut self, parts: Vec<Pattern>, span: Span, value: Expr, out: &mut Vec<Stmt>) {
        let at = self.at_span(span);
        let value = self.plain(value);
        let mut inner = Vec::new();
        if let Some(slots) = self.part_slots(parts, span, &value.ty.clone(), &mut inner) {
            out.push(Stmt { kind: StmtKind::Unpack(value, slots), at });
            out.append(&mut inner);
        }
    }

    /// Binds the parts of a tuple, or of a list of as many elements; nothing if that was reported.
    fn part_slots(
        &mut self,
        parts: Vec<Pattern>,
        span: Span,
        ty: &Ty,
        inner: &mut Vec<Stmt>,
    ) -> Option<Vec<Option<u16>>> {
        let types: Vec<Ty> = match ty {
            Ty::Tuple(items) if items.len() == parts.len() => items.to_vec(),
            Ty::Any => {
                self.refuse_any(ty, span, "a tuple");
                vec![Ty::Any; parts.len()]
            }
            Ty::List(item) => vec![(**item).clone(); parts.len()],
            _ => {
                if !ty.is_silent() {
                    let message = format!("this takes {} values apart, and `{}` is given", parts.len(), self.show(ty));
                    let wrong = self.finding(Code::E0301, span, message);
                    self.report(wrong);
                }
                vec![Ty::Broken; parts.len()]
            }
        };
        let slots = parts.iter().zip(types).map(|(part, ty)| self.part_slot(part, ty, inner)).collect();
        (!ty.is_silent()).then_some(slots)
    }

    /// `{ f, g: p }`
    fn take_fields(&mut self, record: &ast::RecordPat, value: Expr, out: &mut Vec<Stmt>) {
        let at = self.at(record);
        let mut value = self.plain(value);
        if value.ty == Ty::Any {
            self.refuse_any(&value.ty, record.span(), "a record");
        } else if self.types.fields(&value.ty).is_none() && !value.ty.is_silent() {
            let shown = self.show(&value.ty);
            let wrong = if matches!(value.ty, Ty::Union(_)) {
                self.unnarrowed(record.span(), &value.ty, "its fields are taken")
            } else {
                self.finding(
                    Code::E0301,
                    record.span(),
                    format!("this takes the fields of a record, and `{shown}` is given"),
                )
            };
            self.report(wrong);
            value.ty = Ty::Broken;
        }
        let value = if matches!(value.kind, ExprKind::Local(_)) { value } else { self.set_aside(value, out, at) };
        for field in record.fields() {
            let Some(name) = field.name() else { continue };
            let part = self.field_of(value.clone(), &name);
            match field.pattern() {
                Some(pattern) => self.take_apart(&pattern, part, out),
                None => {
                    let slot = self.bind(&name, part.ty.clone());
                    out.push(Stmt { kind: StmtKind::Store(slot, part), at });
                }
            }
        }
    }

    /// A pattern that looks for something: it must take every value of its type.
    fn take_case(&mut self, pattern: &Pattern, value: Expr, out: &mut Vec<Stmt>) {
        let at = self.at(pattern);
        let value = if matches!(value.kind, ExprKind::Local(_)) { value } else { self.set_aside(value, out, at) };
        let (opened, known) = (self.open_block(), self.diagnostics.len());
        if let Pattern::IntentPat(_) = pattern {
            let asks = self.finding(Code::E0315, pattern.span(), "an intent may not be the one that the model names");
            self.report(asks.help("use it in a `match`, which ends with `_`"));
            return;
        }
        let tested = self.pattern(pattern, &value, &[]);
        if value.ty.is_silent() || self.diagnostics[known..].iter().any(Diagnostic::is_error) {
            return self.bind_rest(pattern, opened);
        }
        let left = coverage::left_out(&self.types, std::slice::from_ref(&tested.cover), &value.ty);
        if !left.is_empty() {
            let shown = left.iter().map(|case| if case == coverage::ANYTHING { "other values" } else { case });
            let message = format!("this pattern leaves out {}", super::listed(shown));
            let lacks = self.finding(Code::E0315, pattern.span(), message);
            self.report(lacks.help("say with `match` what happens to all of them"));
            return;
        }
        let Some(test) = tested.test else { return };
        // It holds always; what it binds is set where it does.
        let never = Stmt { kind: StmtKind::Expr(Expr::new(ExprKind::Unreachable, Ty::Never, at)), at };
        out.push(Stmt { kind: StmtKind::If(test, Vec::new(), vec![never]), at });
    }
}
