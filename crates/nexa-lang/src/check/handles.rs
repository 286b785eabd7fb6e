//! `spawn`, `await` and `pass`: children that run beside the flow, by their handles.

use std::rc::Rc;

use super::Checker;
use crate::ast::{self, AstNode};
use crate::diagnostic::Code;
use crate::hir::{Expr, ExprKind, Stmt, StmtKind};
use crate::source::Span;
use crate::types::Ty;

impl Checker<'_> {
    /// `spawn F(args)`. The arguments are evaluated here, the call runs in a child.
    pub(super) fn spawn(&mut self, node: &ast::SpawnExpr) -> Expr {
        let Some(call) = node.call() else { return self.broken(node.span()) };
        if self.is_effect_in_fn(node.span(), "`spawn`") {
            return self.broken(node.span());
        }
        if !matches!(call, ast::Expr::CallExpr(_)) {
            let wrong = self.finding(Code::E0503, call.span(), "`spawn` starts a call of a flow or an agent");
            return self.refuse(wrong.help("write the call: `spawn F(…)`"));
        }
        let made = self.expr(&call, None);
        self.spawned(made, call.span())
    }

    /// The child instead of the call.
    fn spawned(&mut self, made: Expr, span: Span) -> Expr {
        let (at, ty) = (made.at, made.ty.clone());
        let callee = |kind| Box::new(Expr::new(kind, Ty::Any, at));
        let kind = match made.kind {
            _ if ty == Ty::Broken => return self.broken(span),
            ExprKind::Block(statements, inner) => {
                let inner = self.spawned(*inner, span);
                let ty = inner.ty.clone();
                return Expr::new(ExprKind::Block(statements, Box::new(inner)), ty, at);
            }
            ExprKind::Run(agent, args) => ExprKind::Spawn(callee(ExprKind::Agent(agent)), args),
            ExprKind::Call(flow, args) if !self.is_declared_fn(flow) => {
                ExprKind::Spawn(callee(ExprKind::Closure(flow, Vec::new())), args)
            }
            ExprKind::CallValue(callee, args) => ExprKind::Spawn(callee, args),
            _ => {
                let wrong =
                    self.finding(Code::E0503, span, "`spawn` starts a flow or an agent, and this only computes");
                return self.refuse(wrong.help("call it without `spawn`"));
            }
        };
        Expr::new(kind, Ty::Handle(Rc::new(ty)), at)
    }

    fn is_declared_fn(&self, function: u32) -> bool {
        (function as usize) < self.flows.len() && self.is_fn(function as usize)
    }

    /// `await h`
    pub(super) fn await_handle(&mut self, node: &ast::AwaitExpr) -> Expr {
        let Some(operand) = node.operand() else { return self.broken(node.span()) };
        if self.is_effect_in_fn(node.span(), "`await`") {
            return self.broken(node.span());
        }
        let handle = self.expr(&operand, None);
        let Some(ty) = self.value_of_handle(&handle, operand.span(), "`await` waits for") else {
            return self.broken(node.span());
        };
        Expr::new(ExprKind::Await(Box::new(handle)), ty, self.at(node))
    }

    /// `pass e to h`
    pub(super) fn pass_statement(&mut self, node: &ast::PassStmt, out: &mut Vec<Stmt>) -> bool {
        let at = self.at(node);
        let (Some(message), Some(target)) = (node.message(), node.target()) else { return false };
        self.is_effect_in_fn(node.span(), "`pass`");
        let message = self.expr(&message, None);
        let handle = self.expr(&target, None);
        let ends = message.ty == Ty::Never;
        match self.value_of_handle(&handle, target.span(), "`pass` sends to") {
            Some(_) if message.ty != Ty::Broken => {}
            _ => return ends,
        }
        let pass = Expr::new(ExprKind::Pass(Box::new(message), Box::new(handle)), Ty::Unit, at);
        out.push(Stmt { kind: StmtKind::Expr(pass), at });
        ends
    }

    /// What the child of a handle gives; nothing if it is no handle, which was reported.
    fn value_of_handle(&mut self, handle: &Expr, span: Span, does: &str) -> Option<Ty> {
        match &handle.ty {
            Ty::Handle(value) => return Some((**value).clone()),
            ty if ty.is_silent() => {}
            ty => {
                let message = format!("{does} a handle, and this is `{}`", self.show(ty));
                let wrong = self.finding(Code::E0301, span, message);
                self.report(wrong.help("a handle is what `spawn F(…)` or `timer(…)` gives"));
            }
        }
        None
    }
}
