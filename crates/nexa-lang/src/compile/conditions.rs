//! Conditions as jumps, without a bool in between where that can be helped.

use nexa_vm::op::Op;

use super::builder::{Builder, Label};
use crate::hir::{Const, Expr, ExprKind};

impl Builder<'_, '_> {
    /// Goes to the label if the condition does not hold.
    pub(super) fn jump_unless(&mut self, condition: &Expr, label: Label) {
        match &condition.kind {
            ExprKind::Const(Const::Bool(true)) => {}
            ExprKind::Const(Const::Bool(false)) => self.jump(Op::Jump, label, 0, 0, 0),
            ExprKind::Not(inner) => self.jump_if(inner, label),
            ExprKind::And(left, right) => {
                self.jump_unless(left, label);
                self.jump_unless(right, label);
            }
            ExprKind::Or(left, right) => {
                let holds = self.label();
                self.jump_if(left, holds);
                self.jump_unless(right, label);
                self.bind(holds);
            }
            ExprKind::Block(statements, value) => {
                self.statements(statements);
                self.jump_unless(value, label);
            }
            _ => {
                self.expr(condition);
                self.jump(Op::JumpIfNot, label, 1, 0, -1);
            }
        }
    }

    /// Goes to the label if the condition holds.
    pub(super) fn jump_if(&mut self, condition: &Expr, label: Label) {
        match &condition.kind {
            ExprKind::Const(Const::Bool(true)) => self.jump(Op::Jump, label, 0, 0, 0),
            ExprKind::Const(Const::Bool(false)) => {}
            ExprKind::Not(inner) => self.jump_unless(inner, label),
            ExprKind::Or(left, right) => {
                self.jump_if(left, label);
                self.jump_if(right, label);
            }
            ExprKind::And(left, right) => {
                let fails = self.label();
                self.jump_unless(left, fails);
                self.jump_if(right, label);
                self.bind(fails);
            }
            ExprKind::Block(statements, value) => {
                self.statements(statements);
                self.jump_if(value, label);
            }
            _ => {
                self.expr(condition);
                self.jump(Op::JumpIf, label, 1, 0, -1);
            }
        }
    }
}
