//! `assert e, "why"`: raises `assertion_failed` unless `e` holds.
//!
//! `a and b` asserts `a` and then `b`, each for itself. Of a comparison both sides are kept, so that the error can say
//! what they were: its message shows them, and its data is `{ part, left, right }` for whoever shows them better, `part`
//! being the number of the conjunct from 0. The text of the program is in neither, so that comments and spaces do not
//! change a module.

use std::rc::Rc;

use super::Checker;
use super::places::Place;
use crate::ast::{self, AstNode, BinaryOp};
use crate::hir::{At, Const, Expr, ExprKind, Operator, Shape, Stmt, StmtKind};
use crate::source::Span;
use crate::types::{Ty, TypeTable};

impl Checker<'_> {
    pub(super) fn assert_statement(&mut self, node: &ast::AssertStmt, out: &mut Vec<Stmt>) -> bool {
        let at = self.at(node);
        if let Some(subject) = node.subject() {
            let Some(condition) = node.condition() else { return false };
            let word = Span::new(at.start, at.start + "assert".len() as u32);
            self.demand(&condition, &subject, word, "assertion_failed", node.reason().as_ref(), out);
            return false;
        }
        let Some(condition) = node.condition() else { return false };
        let mut parts = Vec::new();
        conjuncts(&condition, &mut parts);
        for (number, part) in parts.iter().enumerate() {
            self.assertion(number, part, node.reason().as_ref(), out);
        }
        false
    }

    fn assertion(&mut self, number: usize, node: &ast::Expr, reason: Option<&ast::Expr>, out: &mut Vec<Stmt>) {
        let (at, span) = (self.at(node), node.span());
        // Taken before the operands are looked at, so that an assertion inside of one takes others.
        let slots = [self.take_scratch(span), self.take_scratch(span)];
        let value = self.condition(Some(node.clone()), span);
        let mut sides = None;
        let holds = match value {
            Expr { kind: ExprKind::Binary(operator, left, right), ty, at } if is_comparison(operator) => {
                let mut keep = |slot: u16, side: Expr| {
                    let ty = side.ty.clone();
                    out.push(Stmt { kind: StmtKind::Store(slot, side), at });
                    Expr::local(slot, ty, at)
                };
                let (left, right) = (keep(slots[0], *left), keep(slots[1], *right));
                sides = Some((operator, left.clone(), right.clone()));
                Expr::new(ExprKind::Binary(operator, Box::new(left), Box::new(right)), ty, at)
            }
            value => value,
        };
        let reason = reason.map(|reason| self.expect(reason, &Ty::Str, Place::Argument("reason", "assert", None)));
        let raise = failed(number, sides, reason, at);
        let fails = Expr::new(ExprKind::Not(Box::new(holds)), Ty::Bool, at);
        let raise = Stmt { kind: StmtKind::Expr(raise), at };
        out.push(Stmt { kind: StmtKind::If(fails, vec![raise], Vec::new()), at });
        slots.into_iter().for_each(|slot| self.give_scratch(slot));
    }

    /// A local that is used within one statement.
    pub(super) fn take_scratch(&mut self, span: Span) -> u16 {
        match self.frame().scratch.pop() {
            Some(slot) => slot,
            None => self.temporary(span),
        }
    }

    pub(super) fn give_scratch(&mut self, slot: u16) {
        self.frame().scratch.push(slot);
    }
}

/// What `and` joins, in order.
fn conjuncts(node: &ast::Expr, out: &mut Vec<ast::Expr>) {
    // A stack of its own: a chain of `and` may be longer than ours.
    let mut waiting = vec![node.clone()];
    while let Some(node) = waiting.pop() {
        match &node {
            ast::Expr::BinaryExpr(both) if matches!(both.op(), Some((BinaryOp::And, _))) => {
                waiting.extend([both.right(), both.left()].into_iter().flatten());
            }
            ast::Expr::ParenExpr(paren) if paren.inner().is_some() => waiting.extend(paren.inner()),
            _ => out.push(node),
        }
    }
}

/// The conjuncts of an assertion, as [`super::asserts`] numbers them: for whoever shows a failed one.
#[must_use]
pub fn asserted_parts(node: &ast::AssertStmt) -> Vec<ast::Expr> {
    let mut parts = Vec::new();
    if let Some(condition) = node.condition() {
        conjuncts(&condition, &mut parts);
    }
    parts
}

fn is_comparison(operator: Operator) -> bool {
    use Operator as O;
    matches!(operator, O::Eq | O::Ne | O::Lt | O::Le | O::Gt | O::Ge | O::In)
}

fn sign(operator: Operator) -> &'static str {
    match operator {
        Operator::Eq => "==",
        Operator::Ne => "!=",
        Operator::Lt => "<",
        Operator::Le => "<=",
        Operator::Gt => ">",
        Operator::Ge => ">=",
        _ => "in",
    }
}

/// Raises `assertion_failed`.
fn failed(number: usize, sides: Option<(Operator, Expr, Expr)>, reason: Option<Expr>, at: At) -> Expr {
    let made = |kind, ty| Expr::new(kind, ty, at);
    let text = |text: &str| Expr::text(text, at);
    let mut message = vec![reason.unwrap_or_else(|| text("the assertion does not hold"))];
    let mut fields: Vec<Rc<str>> = vec!["part".into()];
    let mut values = vec![Expr::constant(Const::Int(i64::try_from(number).unwrap_or(i64::MAX)), at)];
    if let Some((operator, left, right)) = sides {
        let json = |side: &Expr| {
            let number = nexa_vm::stdlib::lookup("core.json").map_or(u16::MAX, |function| function.number);
            made(ExprKind::Std(number, vec![side.clone()]), Ty::Str)
        };
        message.extend([text(": "), json(&left), text(&format!(" {} ", sign(operator))), json(&right)]);
        fields.extend(["operator".into(), "left".into(), "right".into()]);
        values.extend([text(sign(operator)), left, right]);
    }
    let data = made(ExprKind::Record(Shape { fields, ..Shape::default() }, values), Ty::Any);
    let shape = Shape {
        type_name: "Error".into(),
        fields: ["code", "message", "data", "at", "cause"].map(Rc::from).to_vec(),
        ..Shape::default()
    };
    let message = made(ExprKind::Concat(message), Ty::Str);
    let none = Expr::constant(Const::None, at);
    let error = vec![text("assertion_failed"), message, data, text(""), none];
    let error = made(ExprKind::Record(shape, error), Ty::Named(TypeTable::ERROR));
    made(ExprKind::Raise(Box::new(error)), Ty::Never)
}
