//! Where ways part and come together: choices and loops.

use std::rc::Rc;

use nexa_vm::module::outline::Act;

use super::{Front, Round, Scope, Walk};
use crate::check::cost::{length_of, rounds_of};
use crate::hir::{Const, Expr, ExprKind, ForEach, Operator, Stmt, StmtKind};

impl<'p> Walk<'p, '_> {
    pub(super) fn choice_of_statements(&mut self, stmt: &'p Stmt, scope: &Rc<Scope<'p>>) {
        let StmtKind::If(condition, then, other) = &stmt.kind else { return };
        let (start, before) = (self.steps.len(), self.front.clone().unwrap_or_default());
        let parting = self.parting(condition, scope);
        let mut ends: Front = None;
        let (mut then, mut rest) = (then, other);
        // A chain of choices may be longer than the stack.
        loop {
            self.statements(then, scope);
            ends = both(ends, self.front.replace(vec![parting]));
            match rest.as_slice() {
                [Stmt { kind: StmtKind::If(condition, next, other), .. }] if self.looks() => {
                    self.expr(condition, scope);
                    (then, rest) = (next, other);
                }
                _ => break,
            }
        }
        self.statements(rest, scope);
        self.meet(parting, ends);
        self.fold_ways(start, before);
    }

    pub(super) fn choice(&mut self, expr: &'p Expr, scope: &Rc<Scope<'p>>) {
        let ExprKind::If(condition, then, other) = &expr.kind else { return };
        let (start, before) = (self.steps.len(), self.front.clone().unwrap_or_default());
        let parting = self.parting(condition, scope);
        let mut ends: Front = None;
        let (mut then, mut rest) = (then, other);
        loop {
            self.expr(then, scope);
            ends = both(ends, self.front.replace(vec![parting]));
            match &rest.kind {
                ExprKind::If(condition, next, other) if self.looks() => {
                    self.expr(condition, scope);
                    (then, rest) = (next, other);
                }
                _ => break,
            }
        }
        self.expr(rest, scope);
        self.meet(parting, ends);
        self.fold_ways(start, before);
    }

    pub(super) fn repeat(&mut self, condition: &'p Expr, body: &'p [Stmt], scope: &Rc<Scope<'p>>) {
        let (start, before) = (self.steps.len(), self.front.clone().unwrap_or_default());
        let around = self.rounds;
        self.rounds = around.zip(rounds_of(body)).map(|(around, rounds)| around.saturating_mul(rounds));
        if let Some(until) = until_of(condition) {
            self.in_loop(body, scope);
            let condition = self.parting(until, scope);
            self.front = Some(vec![condition]);
        } else {
            let condition = self.parting(condition, scope);
            self.in_loop(body, scope);
            self.meet(condition, Some(vec![condition]));
        }
        self.rounds = around;
        self.fold(start, before);
    }

    pub(super) fn each(&mut self, each: &'p ForEach, scope: &Rc<Scope<'p>>) {
        self.expr(&each.over, scope);
        let (start, before) = (self.steps.len(), self.front.clone().unwrap_or_default());
        let around = self.rounds;
        let over = match &each.over.kind {
            ExprKind::Local(slot) => scope.local(*slot).unwrap_or(&each.over),
            _ => &each.over,
        };
        self.rounds = around.zip(length_of(over)).map(|(around, rounds)| around.saturating_mul(rounds));
        let condition = self.push(Act::Condition(0));
        self.in_loop(&each.body, scope);
        self.meet(condition, Some(vec![condition]));
        self.rounds = around;
        self.fold(start, before);
    }

    /// One round.
    fn in_loop(&mut self, body: &'p [Stmt], scope: &Rc<Scope<'p>>) {
        self.loops.push(Round::default());
        // That `loop` counts its rounds is no step of the program's.
        let counts =
            matches!(body, [Stmt { kind: StmtKind::If(..), .. }, Stmt { kind: StmtKind::Increment(..), .. }, ..])
                && rounds_of(body).is_some();
        self.statements(&body[usize::from(counts)..], scope);
        let round = self.loops.pop().unwrap_or_default();
        let left = (!round.left.is_empty()).then_some(round.left);
        self.join(left);
        if self.front.is_none() {
            // Every way returns in the first round.
            self.front = Some(self.last());
        }
    }
}

/// What ends a `loop`, whose body runs before it is asked for: `counter == 0 or …`.
fn until_of(condition: &Expr) -> Option<&Expr> {
    let ExprKind::Or(first, until) = &condition.kind else { return None };
    let ExprKind::Binary(Operator::Eq, count, zero) = &first.kind else { return None };
    let is_first = matches!((&count.kind, &zero.kind), (ExprKind::Local(_), ExprKind::Const(Const::Int(0))));
    is_first.then_some(until)
}

fn both(a: Front, b: Front) -> Front {
    match (a, b) {
        (Some(mut a), Some(b)) => {
            a.extend(b);
            Some(a)
        }
        (a, b) => a.or(b),
    }
}
