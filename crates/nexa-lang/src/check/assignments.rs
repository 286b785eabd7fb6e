//! Assignments: to a variable, to a field of it, to an element of it.
//!
//! Values are immutable, so assigning to a part rebuilds what is around it and stores the whole.

use std::rc::Rc;

use super::Checker;
use super::places::Place;
use super::scope::{Assignable, FrameKind};
use crate::ast::{self, AssignOp, AstNode, BinaryOp};
use crate::diagnostic::Code;
use crate::hir::{Const, Expr, ExprKind, Stmt, StmtKind};
use crate::types::Ty;

/// How to rebuild a value around a changed part.
enum Step {
    Field(Expr, Rc<str>),
    Index(Expr, Expr),
}

/// The whole value around a new part, the innermost step last.
fn rebuilt(steps: Vec<Step>, part: Expr) -> Expr {
    steps.into_iter().rev().fold(part, |part, step| {
        let at = part.at;
        let (kind, ty) = match step {
            Step::Field(holder, name) => {
                let ty = holder.ty.clone();
                (ExprKind::SetField(Box::new(holder), name, Box::new(part)), ty)
            }
            Step::Index(holder, key) => {
                let ty = holder.ty.clone();
                (ExprKind::SetIndex(Box::new(holder), Box::new(key), Box::new(part)), ty)
            }
        };
        Expr::new(kind, ty, at)
    })
}

impl Checker<'_> {
    pub(super) fn assignment(&mut self, node: &ast::AssignStmt, out: &mut Vec<Stmt>) -> bool {
        let (Some(target), Some(value)) = (node.target(), node.value()) else { return false };
        let at = self.at(node);
        let Some((root, variable)) = self.assigned(&target) else {
            self.expr(&value, None);
            return false;
        };
        if let (ast::Expr::NameRef(_), AssignOp::Set) = (&target, node.op()) {
            let made = self.expect(&value, &variable.ty, Place::Assignment(&root, variable.span));
            out.push(Stmt { kind: StmtKind::Store(variable.slot, made), at });
            return false;
        }
        // A field or an index rebuilds the variable: the parts on the way are read first, left to right.
        let mut steps = Vec::new();
        let local = Expr::local(variable.slot, variable.ty.clone(), at);
        let Some(current) = self.path_to(&target, local, &mut steps, out) else {
            self.expr(&value, None);
            return false;
        };
        let ty = current.ty.clone();
        let written = target.syntax().text().to_string();
        let place = if steps.is_empty() { Place::Assignment(&root, variable.span) } else { Place::Part(&written) };
        let made = match node.op() {
            AssignOp::Set => self.expect(&value, &ty, place),
            op => {
                let right = self.expr(&value, Some(&ty));
                if let (Ty::Int, ExprKind::Const(Const::Int(int)), true) = (&ty, &right.kind, steps.is_empty()) {
                    let step = if op == AssignOp::Add { Some(*int) } else { int.checked_neg() };
                    if let Some(step) = step.and_then(|step| i16::try_from(step).ok())
                        && variable.slot < 256
                    {
                        out.push(Stmt { kind: StmtKind::Increment(variable.slot, step), at });
                        return false;
                    }
                }
                let binary = if op == AssignOp::Add { BinaryOp::Add } else { BinaryOp::Subtract };
                let sum = self.operate(binary, node.span(), (current, target.span()), (right, value.span()), at);
                self.coerce(sum, &ty, value.span(), place)
            }
        };
        let whole = rebuilt(steps, made);
        out.push(Stmt { kind: StmtKind::Store(variable.slot, whole), at });
        false
    }

    /// The variable at the root of what is assigned to; reports what cannot be assigned to.
    fn assigned(&mut self, target: &ast::Expr) -> Option<(String, Assignable)> {
        let mut root = target.clone();
        loop {
            root = match &root {
                ast::Expr::FieldExpr(field) => field.receiver()?,
                ast::Expr::IndexExpr(index) => index.receiver()?,
                _ => break,
            };
        }
        let ast::Expr::NameRef(reference) = &root else {
            let wrong = self.finding(
                Code::E0201,
                target.span(),
                "only a variable, a field of it, or an element of it can be assigned to",
            );
            self.report(wrong);
            return None;
        };
        let name = reference.name()?;
        let text = name.text();
        let Some(variable) = self.assignable(&text) else {
            if self.item(&text).is_some() {
                let wrong = self.finding(
                    Code::E0201,
                    name.span(),
                    format!("`{text}` is declared at the top and cannot be assigned to"),
                );
                self.report(wrong);
            } else {
                self.unknown_name(&name);
            }
            return None;
        };
        if !variable.is_own {
            let inside = if variable.kind == FrameKind::Branch { "a branch" } else { "a lambda" };
            let outer = self
                .finding(Code::E0321, name.span(), format!("{inside} cannot assign `{text}` from outside"))
                .label(variable.span, "it is bound here")
                .note("it works on a copy, so nobody would see the new value")
                .help("return the new value instead");
            self.report(outer);
            return None;
        }
        Some((text, variable))
    }

    /// Reads what an assignment's target holds now, and notes how to rebuild what is around it.
    fn path_to(&mut self, target: &ast::Expr, root: Expr, steps: &mut Vec<Step>, out: &mut Vec<Stmt>) -> Option<Expr> {
        let at = self.at(target);
        match target {
            ast::Expr::FieldExpr(field) => {
                let holder = self.path_to(&field.receiver()?, root, steps, out)?;
                let name = field.field()?;
                if self.is_checked(&holder, target.span()) {
                    return None;
                }
                let value = self.field_of(holder.clone(), &name);
                steps.push(Step::Field(holder, name.text().into()));
                (value.ty != Ty::Broken).then_some(value)
            }
            ast::Expr::IndexExpr(index) => {
                let holder = self.path_to(&index.receiver()?, root, steps, out)?;
                if self.is_checked(&holder, target.span()) {
                    return None;
                }
                let Some((key, item)) = self.indexed(&holder.ty) else {
                    let message = format!("the elements of `{}` cannot be assigned to", self.show(&holder.ty));
                    let wrong = self.finding(Code::E0305, target.span(), message);
                    self.report(wrong);
                    return None;
                };
                let key = self.expect(&index.index()?, &key, Place::Index);
                let key = if key.is_inert() { key } else { self.set_aside(key, out, at) };
                steps.push(Step::Index(holder.clone(), key.clone()));
                Some(Expr::new(ExprKind::Index(Box::new(holder), Box::new(key)), item, at))
            }
            _ => Some(root),
        }
    }
}
