//! Small words to write library code with: the loops of agents and what stands around the call of a tool.

use std::rc::Rc;

use crate::hir::{At, Const, Contract, Expr, ExprKind, Operator, Shape, Stmt, StmtKind};
use crate::types::Ty;

/// A function while it is written.
pub(super) struct Template {
    pub(super) at: At,
    pub(super) locals: u16,
}

impl Template {
    pub(super) fn local(&mut self) -> u16 {
        self.locals += 1;
        self.locals - 1
    }

    pub(super) fn stmt(&self, kind: StmtKind) -> Stmt {
        Stmt { kind, at: self.at }
    }

    pub(super) fn made(&self, kind: ExprKind, ty: Ty) -> Expr {
        Expr::new(kind, ty, self.at)
    }

    pub(super) fn store(&self, slot: u16, value: Expr) -> Stmt {
        self.stmt(StmtKind::Store(slot, value))
    }

    pub(super) fn load(&self, slot: u16) -> Expr {
        Expr::local(slot, Ty::Any, self.at)
    }

    pub(super) fn int_local(&self, slot: u16) -> Expr {
        Expr::local(slot, Ty::Int, self.at)
    }

    pub(super) fn int(&self, int: i64) -> Expr {
        Expr::constant(Const::Int(int), self.at)
    }

    pub(super) fn text(&self, text: &str) -> Expr {
        Expr::text(text, self.at)
    }

    pub(super) fn list(&self, items: Vec<Expr>) -> Expr {
        self.made(ExprKind::List(items), Ty::list(Ty::Any))
    }

    pub(super) fn field(&self, record: Expr, name: &str) -> Expr {
        self.made(ExprKind::Field(Box::new(record), name.into()), Ty::Any)
    }

    pub(super) fn binary(&self, operator: Operator, left: Expr, right: Expr, ty: Ty) -> Expr {
        self.made(ExprKind::Binary(operator, Box::new(left), Box::new(right)), ty)
    }

    pub(super) fn message(&self, role: &str, text: Expr, from: Expr) -> Expr {
        let shape = Shape { fields: ["role", "text", "from"].map(Rc::from).to_vec(), ..Shape::default() };
        self.made(ExprKind::Record(shape, vec![self.text(role), text, from]), Ty::Any)
    }

    pub(super) fn standard(&self, name: &str, args: Vec<Expr>) -> Expr {
        let number = nexa_vm::stdlib::lookup(name).map_or(u16::MAX, |function| function.number);
        self.made(ExprKind::Std(number, args), Ty::Any)
    }

    pub(super) fn raise(&self, error: Expr) -> Stmt {
        self.stmt(StmtKind::Expr(self.made(ExprKind::Raise(Box::new(error)), Ty::Never)))
    }

    /// An error of this code, its message made of these texts.
    pub(super) fn error(&self, code: &str, message: Vec<Expr>) -> Expr {
        let message = self.made(ExprKind::Concat(message), Ty::Str);
        self.standard("core.error", vec![self.text(code), message])
    }

    /// Raises `contract_violated` unless a condition holds.
    pub(super) fn unless_holds(&self, contract: &Contract, clause: &str) -> Stmt {
        let fails = self.made(ExprKind::Not(Box::new(contract.holds.clone())), Ty::Bool);
        let message = self.text(&format!("`{clause}` does not hold: {}", contract.text));
        let error = self.standard("core.error", vec![self.text("contract_violated"), message]);
        self.stmt(StmtKind::If(fails, vec![self.raise(error)], Vec::new()))
    }

    /// Whether the error in a local has this code.
    pub(super) fn has_code(&self, error: u16, code: &str) -> Expr {
        self.binary(Operator::Eq, self.field(self.load(error), "code"), self.text(code), Ty::Bool)
    }

    /// Raises an error that is wrong with the run of a test and not with the tool that was called.
    pub(super) fn unless_of_tool(&self, error: u16) -> Stmt {
        let [unscripted, exhausted] = ["unscripted_call", "script_exhausted"].map(|code| self.has_code(error, code));
        let is_of_run = self.made(ExprKind::Or(Box::new(unscripted), Box::new(exhausted)), Ty::Bool);
        self.stmt(StmtKind::If(is_of_run, vec![self.raise(self.load(error))], Vec::new()))
    }

    /// Waits and goes on with the next round of the loop around it after a transient error, as long as there are waits left.
    pub(super) fn again_if_transient(&self, waits: &[u64], error: u16, tries: u16) -> Vec<Stmt> {
        self.again_if(self.is_transient(error), waits, tries)
    }

    /// Whether the same request may do better a moment later.
    pub(super) fn is_transient(&self, error: u16) -> Expr {
        self.made(ExprKind::IsTransient(Box::new(self.load(error))), Ty::Bool)
    }

    /// Waits and goes on with the next round of the loop around it if that holds, as long as there are waits left.
    pub(super) fn again_if(&self, is_worth_it: Expr, waits: &[u64], tries: u16) -> Vec<Stmt> {
        if waits.is_empty() {
            return Vec::new();
        }
        let wait = |millis: &u64| {
            let millis = i64::try_from(*millis).unwrap_or(i64::MAX);
            self.made(ExprKind::Const(Const::Duration(millis)), Ty::Duration)
        };
        let count = waits.len() as i64;
        let waits = self.list(waits.iter().map(wait).collect());
        let wait = self.made(ExprKind::Index(Box::new(waits), Box::new(self.int_local(tries))), Ty::Duration);
        let may_try = self.binary(Operator::Lt, self.int_local(tries), self.int(count), Ty::Bool);
        let again = self.made(ExprKind::And(Box::new(is_worth_it), Box::new(may_try)), Ty::Bool);
        let then = vec![
            self.stmt(StmtKind::Expr(self.made(ExprKind::Sleep(Box::new(wait)), Ty::Unit))),
            self.stmt(StmtKind::Increment(tries, 1)),
            self.stmt(StmtKind::Continue),
        ];
        vec![self.stmt(StmtKind::If(again, then, Vec::new()))]
    }
}
