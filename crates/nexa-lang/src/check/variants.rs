//! Cases of enums as values: `accept`, `reject("late")`, `Verdict.reject(reason: "late")`.
//!
//! A case is found by its bare name where nothing else has that name. If several enums have such a case, the one of the
//! type that is asked for is meant; where none is asked for, the program has to say whose case it is.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::Checker;
use super::calls::{Piped, Slot};
use super::literals::block_of;
use super::modules::Item;
use super::places::Place;
use crate::ast::{self, AstNode, Name};
use crate::diagnostic::Code;
use crate::hir::{Const, Expr, ExprKind, Shape};
use crate::source::Span;
use crate::types::{NamedId, NamedKind, Ty, Variant};

impl Checker<'_> {
    /// The cases of an enum; nothing for another type.
    pub(super) fn cases(&self, id: NamedId) -> Option<&[Variant]> {
        match &self.types.named(id).kind {
            NamedKind::Enum(variants) => Some(variants),
            _ => None,
        }
    }

    /// The enum that a bare name is a case of. A name that several enums have is reported.
    pub(super) fn enum_of_case(&mut self, name: &Name, want: Option<&Ty>) -> Option<NamedId> {
        let text = name.text();
        let has = |id: NamedId| self.cases(id).is_some_and(|cases| cases.iter().any(|(tag, _)| **tag == *text));
        match want.map(Ty::without_option) {
            Some(Ty::Named(id)) if has(*id) => return Some(*id),
            Some(Ty::Union(parts)) => {
                let mut having = parts.iter().filter_map(|part| match part {
                    Ty::Named(id) if has(*id) => Some(*id),
                    _ => None,
                });
                if let (Some(id), None) = (having.next(), having.next()) {
                    return Some(id);
                }
            }
            _ => {}
        }
        let known = self.case_owners.get(self.place_of(self.file))?.get(&text)?.clone();
        let ids: BTreeSet<NamedId> = known.iter().map(|(_, id)| *id).collect();
        let (first, id) = known.first()?;
        // Looking it up by name counts as a use of its import.
        self.item(first);
        if ids.len() > 1 {
            let owners = super::listed(known.iter().map(|(name, _)| name.as_str()));
            let many = self.finding(Code::E0208, name.span(), format!("`{text}` is a case of {owners}"));
            self.report(many.help(format!("say which is meant: `{first}.{text}`")));
        }
        Some(*id)
    }

    /// The names of all cases that can be named bare, for suggestions.
    pub(super) fn case_names(&self) -> Vec<String> {
        let owners = self.case_owners.get(self.place_of(self.file));
        owners.into_iter().flat_map(|cases| cases.keys().cloned()).collect()
    }

    /// Looks up every case of every enum that a file can name, once.
    pub(super) fn index_cases(&mut self) {
        let index = self.scopes.iter().map(|scope| {
            let mut owners: BTreeMap<String, Vec<(String, NamedId)>> = BTreeMap::new();
            for name in scope.names() {
                let Some(Item::Type(id)) = scope.get(name).map(|known| known.item) else { continue };
                for (tag, _) in self.cases(id).unwrap_or_default() {
                    owners.entry(tag.to_string()).or_default().push((name.to_owned(), id));
                }
            }
            owners
        });
        self.case_owners = index.collect();
    }

    /// A case by name, of an enum that is known; a name that it does not have is reported.
    pub(super) fn case_of(&mut self, id: NamedId, name: &Name) -> Option<Variant> {
        let text = name.text();
        let cases = self.cases(id).unwrap_or_default().to_vec();
        if let Some(case) = cases.iter().find(|(tag, _)| **tag == *text) {
            return Some(case.clone());
        }
        let owner = self.types.named(id).name.to_string();
        let unknown = self.finding(Code::E0305, name.span(), format!("`{owner}` has no case `{text}`"));
        let unknown = self.suggest(unknown, &text, cases.iter().map(|(tag, _)| &**tag));
        self.report(unknown.note(format!("it has {}", super::listed(cases.iter().map(|(tag, _)| &**tag)))));
        None
    }

    /// A case that is named without parentheses.
    pub(super) fn case_value(&mut self, id: NamedId, name: &Name) -> Expr {
        self.note_use(Item::Type(id), name.span());
        let Some((tag, fields)) = self.case_of(id, name) else { return self.broken(name.span()) };
        if !fields.is_empty() {
            let names = super::listed(fields.iter().map(|field| &*field.name));
            let lacks = self.finding(Code::E0304, name.span(), format!("`{tag}` holds {names}"));
            return self.refuse(lacks.help(format!("write `{tag}(…)`")));
        }
        let shape = Shape { type_name: self.shape_name(&Ty::Named(id)), tag, fields: Vec::new() };
        Expr::new(ExprKind::Record(shape, Vec::new()), Ty::Named(id), self.at_span(name.span()))
    }

    /// A case with what it holds.
    pub(super) fn case_call(
        &mut self,
        id: NamedId,
        name: &Name,
        args: &[ast::Arg],
        piped: Option<Piped>,
        span: Span,
    ) -> Expr {
        self.note_use(Item::Type(id), name.span());
        let Some((tag, fields)) = self.case_of(id, name) else {
            self.look_at(args);
            return self.broken(span);
        };
        if fields.is_empty() {
            self.look_at(args);
            let wrong = self.finding(Code::E0304, span, format!("`{tag}` holds nothing"));
            return self.refuse(wrong.help(format!("write `{tag}` without parentheses")));
        }
        let at = self.at_span(name.span());
        let slots: Vec<Slot<'_>> = fields
            .iter()
            .map(|field| Slot {
                name: &field.name,
                ty: field.ty.clone(),
                declared: None,
                default: matches!(field.ty, Ty::Option(_)).then(|| Expr::constant(Const::None, at)),
            })
            .collect();
        let Some((statements, values)) = self.arguments(&tag, &slots, args, piped, span) else {
            return self.broken(span);
        };
        let names = fields.iter().map(|field| Rc::clone(&field.name)).collect();
        let shape = Shape { type_name: self.shape_name(&Ty::Named(id)), tag, fields: names };
        block_of(statements, Expr::new(ExprKind::Record(shape, values), Ty::Named(id), at))
    }

    /// A call where a type is asked for, which may say whose case is meant.
    pub(super) fn wanted_case(&mut self, node: &ast::CallExpr, want: Option<&Ty>) -> Option<Expr> {
        let Some(ast::Expr::NameRef(reference)) = node.callee() else { return None };
        let name = reference.name()?;
        let text = name.text();
        want?;
        if self.in_agent_text || self.is_variable(&text) || self.item(&text).is_some() {
            return None;
        }
        if let ("ok" | "err", Some(Ty::Result(value, error))) = (text.as_str(), want.map(Ty::without_option)) {
            return self.wanted_result(text == "ok", value, error, node);
        }
        let id = self.enum_of_case(&name, want)?;
        Some(self.case_call(id, &name, &node.args(), None, node.span()))
    }

    /// `ok(v)`, `err(e)` where a result is asked for, which says what the other one would hold.
    fn wanted_result(&mut self, is_ok: bool, value: &Rc<Ty>, error: &Rc<Ty>, node: &ast::CallExpr) -> Option<Expr> {
        let [arg] = &node.args()[..] else { return None };
        let (None, Some(written)) = (arg.name(), arg.value()) else { return None };
        let (to, name, callee) = if is_ok { (value, "value", "ok") } else { (error, "error", "err") };
        let held = self.expr(&written, Some(to));
        let held = self.coerce(held, to, written.span(), Place::Argument(name, callee, None));
        if held.ty == Ty::Broken {
            return Some(self.broken(node.span()));
        }
        let kind = if is_ok { ExprKind::WrapOk(Box::new(held)) } else { ExprKind::WrapErr(Box::new(held)) };
        Some(Expr::new(kind, Ty::Result(Rc::clone(value), Rc::clone(error)), self.at(node)))
    }
}
