//! Semantic types: `type Email = str @ "a deliverable address" match r"…"`, and `Email.check(x)`.
//!
//! A value of a semantic type may stand wherever its base may, so most of the checker looks at the base ([`plain`]). The
//! way back is a check: `Email.check(x)`, or a literal that the pattern decides while the program is compiled. A
//! pattern decides alone; without one a model is asked whether the condition holds.
//!
//! [`plain`]: Checker::plain

use std::rc::Rc;

use nexa_vm::op::Asking;
use nexa_vm::stdlib::Pattern;

use super::Checker;
use super::calls::{Piped, Slot};
use super::literals::block_of;
use super::modules::Item;
use super::questions::raised;
use crate::ast::{self, AstNode, Name, TypeDecl, TypeExpr};
use crate::diagnostic::{Code, Diagnostic, Edit};
use crate::hir::{Asked, Const, Expr, ExprKind, ForEach, Item as Round, Stmt, StmtKind};
use crate::source::{FileId, Span};
use crate::types::{NARROWED_MAX, NamedId, NamedKind, NamedType, Narrowed, Semantic, Ty, TypeTable};

impl Checker<'_> {
    /// Enters a semantic type under its name; what it narrows is looked at when all types are known.
    pub(super) fn declare_semantic(&mut self, decl: &TypeDecl) -> Option<Item> {
        let name = decl.name()?;
        match decl.definition() {
            Some(TypeExpr::SemanticType(_)) => {
                // Nothing fits it before it is defined, so a union with it stays one.
                let base = Semantic { base: Ty::Secret, condition: "".into(), pattern: None };
                let kind = NamedKind::Semantic(base.into());
                let declared = Some((self.file, name.span()));
                Some(Item::Type(self.types.declare(NamedType { name: name.text().into(), kind, declared })))
            }
            Some(_) => {
                let alias = self.finding(Code::E0906, name.span(), "a `type` without a condition is not supported");
                let help = "say what holds of its values: `type Email = str @ \"a deliverable address\"`";
                self.report(alias.help(help));
                Some(Item::Reported)
            }
            // The parser has said what is missing.
            None => Some(Item::Reported),
        }
    }

    /// What a declaration of a semantic type says.
    pub(super) fn semantic_of(&mut self, decl: &TypeDecl) -> Option<NamedKind> {
        let Some(TypeExpr::SemanticType(node)) = decl.definition() else { return None };
        let mut base = node.base().map_or(Ty::Broken, |base| self.ty(&base));
        let condition = match node.condition() {
            Some(words) => self.written_out(&ast::Expr::StringExpr(words), "a condition"),
            None => None,
        };
        let pattern = node.pattern().and_then(|pattern| {
            let text = self.written_out(&pattern, "a pattern")?;
            self.check_pattern(&text, pattern.span()).then_some(text)
        });
        if condition.is_none() || pattern.is_some() != node.pattern().is_some() {
            // What is wrong was reported, and what uses the type stays silent.
            base = Ty::Broken;
        }
        let pattern = pattern.map(Into::into);
        Some(NamedKind::Semantic(Semantic { base, condition: condition.unwrap_or_default().into(), pattern }.into()))
    }

    /// E0404 for a text with an interpolation.
    fn written_out(&mut self, node: &ast::Expr, what: &str) -> Option<String> {
        let text = match node {
            ast::Expr::StringExpr(text) => text.plain(),
            ast::Expr::LiteralExpr(_) => match self.expr(node, None).kind {
                ExprKind::Const(Const::Str(text)) => Some(text.to_string()),
                _ => None,
            },
            _ => None,
        };
        if text.is_none() {
            let computed = self.finding(Code::E0404, node.span(), format!("{what} of a type must be written out"));
            self.report(computed.help("write a text without `#{…}`"));
        }
        text
    }

    /// E0302, E0210 for a semantic type that comes down to no type; every type is known by now.
    pub(super) fn check_narrowed(&mut self, id: NamedId, decl: &TypeDecl) {
        let Some(TypeExpr::SemanticType(node)) = decl.definition() else { return };
        let (Some(name), Some(written)) = (decl.name(), node.base()) else { return };
        let finding = match self.types.narrowed(id) {
            Narrowed::Type => return,
            Narrowed::Itself => {
                let circle =
                    self.finding(Code::E0302, written.span(), format!("`{}` is defined by itself", name.text()));
                circle.help("name a type that does not need this one: `str`, or a `protocol`")
            }
            Narrowed::TooDeep => {
                let message = format!("more than {NARROWED_MAX} semantic types narrow each other");
                let deep = self.finding(Code::E0210, written.span(), message);
                deep.help("say several conditions in one: `type Email = str @ \"…\"`")
            }
        };
        self.report(finding);
        self.silence(id);
    }

    /// Whatever uses a type that was reported stays silent.
    fn silence(&mut self, id: NamedId) {
        if let Some((_, semantic)) = self.types.semantic(&Ty::Named(id)) {
            let silent = Semantic { base: Ty::Broken, ..semantic.clone() };
            self.types.define(id, NamedKind::Semantic(silent.into()));
        }
    }

    /// Whether a semantic type may narrow its base; none needs itself any more.
    pub(super) fn check_base(&mut self, id: NamedId, decl: &TypeDecl) {
        let Some(TypeExpr::SemanticType(node)) = decl.definition() else { return };
        let Some(written) = node.base() else { return };
        let base = self.types.base(&Ty::Named(id)).clone();
        if base.is_silent() {
            return;
        }
        if let Some(culprit) = self.types.not_for_models(&base, false) {
            let message = format!("`{}` cannot be narrowed by a condition", self.show(&base));
            let cannot = self.finding(Code::E0416, written.span(), message);
            self.report(cannot.note(format!("`{}` has no JSON form", self.show(&culprit))));
            self.silence(id);
        } else if let Some(pattern) = node.pattern().filter(|_| base != Ty::Str) {
            let message = format!("a pattern is matched with a text, and this type is `{}`", self.show(&base));
            let wrong = self.finding(Code::E0301, pattern.span(), message);
            self.report(wrong.label(written.span(), format!("this is `{}`", self.show(&base))));
            self.silence(id);
        }
    }

    /// The value as one of the type below all conditions.
    pub(super) fn plain(&self, value: Expr) -> Expr {
        if self.types.semantic(&value.ty).is_none() {
            return value;
        }
        Expr { ty: self.types.base(&value.ty).clone(), ..value }
    }

    /// A value that stands where no condition is asked for is of its base there.
    pub(super) fn settled(&self, value: Expr, to: &Ty) -> Expr {
        let wanted = to.without_option();
        if self.types.semantic(wanted).is_some() || matches!(wanted, Ty::Union(_)) { value } else { self.plain(value) }
    }

    /// The semantic type that a literal is of, if patterns decide that.
    pub(super) fn literal_as(&mut self, value: &Expr, to: &Ty) -> Option<NamedId> {
        let ExprKind::Const(Const::Str(text)) = &value.kind else { return None };
        let wanted = to.without_option();
        let (id, _) = self.types.semantic(wanted)?;
        let is_decided = *self.types.base(wanted) == Ty::Str && self.types.questions(wanted, Asked::Undecided) == 0;
        (is_decided && self.broken_pattern(text, wanted).is_none()).then_some(id)
    }

    /// The first pattern of a semantic type and its bases that a text does not match.
    fn broken_pattern(&mut self, text: &str, ty: &Ty) -> Option<Rc<str>> {
        let (mut next, mut broken) = (ty.clone(), None);
        while let Some((_, semantic)) = self.types.semantic(&next) {
            let (pattern, base) = (semantic.pattern.clone(), semantic.base.clone());
            if let Some(pattern) = pattern {
                let known = self.patterns.entry(Rc::clone(&pattern)).or_insert_with(|| Pattern::new(&pattern).ok());
                // A pattern that is malformed was reported.
                if known.as_ref().is_some_and(|known| !known.is_match(text)) {
                    broken = Some(pattern);
                }
            }
            next = base;
        }
        broken
    }

    /// E0311 says how a value gets there.
    pub(super) fn ask_for_check(&mut self, conflict: Diagnostic, value: &Expr, to: &Ty, id: NamedId) -> Diagnostic {
        let wanted = Ty::Named(id);
        let name = self.show(&wanted);
        let is_whole = self.types.semantic(to.without_option()).is_some_and(|(whole, _)| whole == id);
        let conflict = match &value.kind {
            ExprKind::Const(Const::Str(text)) if is_whole => match self.broken_pattern(text, &wanted) {
                Some(pattern) => {
                    let conflict = Diagnostic { message: format!("this text is no `{name}`"), ..conflict };
                    return conflict.note(format!("it does not match `{pattern}`"));
                }
                None => conflict,
            },
            _ => conflict,
        };
        let conflict = match self.types.questions(&wanted, Asked::Undecided) {
            0 => conflict,
            _ => conflict.note(format!("only a model can say whether a value is `{name}`")),
        };
        let conflict = conflict.help(format!("`{name}.check(…)` gives a Result, and `?` after it raises its error"));
        let fits = self.types.fit(&value.ty, self.types.base(&wanted)) != crate::types::Fit::No;
        let scope = &self.scopes[self.place_of(self.file)];
        if !is_whole || !fits || scope.get(&name).map(|known| known.item) != Some(Item::Type(id)) {
            return conflict;
        }
        let span = conflict.span;
        let (start, end) = (Span::new(span.start, span.start), Span::new(span.end, span.end));
        let edits = vec![Edit::replace(start, format!("{name}.check(")), Edit::replace(end, ")?")];
        conflict.fix(format!("check it: `{name}.check(…)?`"), edits)
    }

    /// E0311 for an assignment to a part of a value that was checked as a whole; the answer says whether it was.
    pub(super) fn is_checked(&mut self, holder: &Expr, span: Span) -> bool {
        if self.types.semantic(&holder.ty).is_none() {
            return false;
        }
        let name = self.show(&holder.ty);
        let message = format!("a part of a `{name}` cannot be assigned to: it was checked as a whole");
        let part = self.finding(Code::E0311, span, message);
        self.report(part.help(format!("make a new value, and check it: `{name}.check(…)`")));
        true
    }

    /// `Email.check(x)`: `ok` of the value if it is of the type, else `err`.
    pub(super) fn check_call(
        &mut self,
        id: NamedId,
        owner: &Name,
        args: &[ast::Arg],
        piped: Option<Piped>,
        span: Span,
    ) -> Expr {
        self.note_use(Item::Type(id), owner.span());
        let wanted = Ty::Named(id);
        let base = self.types.base(&wanted).clone();
        let slots = [Slot { name: "value", ty: base, declared: None::<(FileId, Span)>, default: None }];
        let callee = format!("{}.check", owner.text());
        let Some((mut statements, values)) = self.arguments(&callee, &slots, args, piped, span) else {
            return self.broken(span);
        };
        let is_silent = self.types.base(&wanted).is_silent();
        let Some(value) = values.into_iter().next().filter(|value| !is_silent && !value.ty.is_silent()) else {
            return self.broken(span);
        };
        // What is not even of the base is an `err` as well.
        let value = match value.kind {
            ExprKind::Check(unknown) if unknown.ty == Ty::Any => *unknown,
            _ => value,
        };
        let at = self.at_span(span);
        let kept = self.set_aside(value, &mut statements, at);
        let mut checks = Vec::new();
        let checked = self.demand_type(kept, &wanted, span, &mut checks);
        let checked = block_of(checks, checked);
        block_of(statements, Expr::new(ExprKind::Try(Box::new(checked)), Ty::result(wanted), at))
    }

    /// Raises `verify_failed` unless a value is of a type: by its form and the patterns first, then by the conditions
    /// that no pattern decides. Gives the value as one of the type.
    pub(super) fn demand_type(&mut self, kept: Expr, ty: &Ty, span: Span, out: &mut Vec<Stmt>) -> Expr {
        let at = self.at_span(span);
        let (error, slot) = (self.take_scratch(span), self.temporary(span));
        let value = Expr::local(slot, ty.clone(), at);
        let message = format!("the value is no `{}`: ", self.show(ty));
        let checked = Expr::new(ExprKind::Check(Box::new(kept)), ty.clone(), at);
        let failed = Expr::local(error, Ty::Named(TypeTable::ERROR), at);
        let why = Expr::new(ExprKind::Field(Box::new(failed), "message".into()), Ty::Str, at);
        let text = Expr::new(ExprKind::Concat(vec![Expr::text(&message, at), why]), Ty::Str, at);
        let tried = vec![Stmt { kind: StmtKind::Store(slot, checked), at }];
        let raise = vec![raised("verify_failed", text, at)];
        out.push(Stmt { kind: StmtKind::Try(tried, error, raise), at });
        self.give_scratch(error);
        if self.types.questions(ty, Asked::Undecided) == 0 {
            return value;
        }
        let [condition, part, expected] = std::array::from_fn(|_| self.take_scratch(span));
        let holds =
            self.ask(Asking::Question, Expr::local(condition, Ty::Str, at), Expr::local(part, Ty::Any, at), None, span);
        if holds.ty.is_silent() {
            return value;
        }
        let fails = Expr::new(ExprKind::Not(Box::new(holds)), Ty::Bool, at);
        let text = vec![Expr::text(&message, at), Expr::local(expected, Ty::Str, at)];
        let text = Expr::new(ExprKind::Concat(text), Ty::Str, at);
        let round = StmtKind::If(fails, vec![raised("verify_failed", text, at)], Vec::new());
        let over = ExprKind::Conditions(ty.clone(), Asked::Undecided, Box::new(value.clone()));
        let walk = ForEach {
            over: Expr::new(over, Ty::list(Ty::Tuple([Ty::Str, Ty::Any, Ty::Str].into())), at),
            index: None,
            item: Round::Parts(vec![Some(condition), Some(part), Some(expected)]),
            body: vec![Stmt { kind: round, at }],
        };
        out.push(Stmt { kind: StmtKind::ForEach(Box::new(walk)), at });
        [condition, part, expected].into_iter().for_each(|slot| self.give_scratch(slot));
        value
    }
}
