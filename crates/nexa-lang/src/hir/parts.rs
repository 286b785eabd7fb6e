//! Walking through a checked program without asking what each part means.

use super::{Expr, ExprKind, Stmt, StmtKind};

/// A part of a program, as [`Part::any`] meets it.
#[derive(Clone, Copy)]
pub enum Part<'p> {
    /// A statement.
    Stmt(&'p Stmt),
    /// An expression.
    Expr(&'p Expr),
}

impl<'p> Part<'p> {
    /// Whether something in these statements, however deep, is what is looked for. Where `enter` says no, it does not
    /// look inside. Bodies of closures are functions of their own and not looked at.
    pub fn any(body: &'p [Stmt], enter: &dyn Fn(Part<'p>) -> bool, found: &dyn Fn(Part<'p>) -> bool) -> bool {
        // A stack of its own: a chain of operators may be longer than ours.
        let mut waiting: Vec<Part<'p>> = body.iter().map(Part::Stmt).collect();
        while let Some(part) = waiting.pop() {
            if found(part) {
                return true;
            }
            if enter(part) {
                match part {
                    Part::Stmt(stmt) => stmt.parts(&mut waiting),
                    Part::Expr(expr) => expr.parts(&mut waiting),
                }
            }
        }
        false
    }
}

impl Stmt {
    pub(crate) fn parts<'p>(&'p self, out: &mut Vec<Part<'p>>) {
        match &self.kind {
            StmtKind::Store(_, value)
            | StmtKind::Unpack(value, _)
            | StmtKind::Expr(value)
            | StmtKind::Return(value) => {
                out.push(Part::Expr(value));
            }
            StmtKind::Increment(..) | StmtKind::Break | StmtKind::Continue => {}
            StmtKind::If(condition, then, other) => {
                out.push(Part::Expr(condition));
                out.extend(then.iter().chain(other).map(Part::Stmt));
            }
            StmtKind::While(condition, body) | StmtKind::Timed(condition, body) => {
                out.push(Part::Expr(condition));
                out.extend(body.iter().map(Part::Stmt));
            }
            StmtKind::ForEach(walk) => {
                out.push(Part::Expr(&walk.over));
                out.extend(walk.body.iter().map(Part::Stmt));
            }
            StmtKind::Try(body, _, handler) => out.extend(body.iter().chain(handler).map(Part::Stmt)),
            StmtKind::Defer(deferred, rest) => out.extend(deferred.iter().chain(rest).map(Part::Stmt)),
            StmtKind::Block(body) => out.extend(body.iter().map(Part::Stmt)),
        }
    }
}

impl Expr {
    pub(crate) fn parts<'p>(&'p self, out: &mut Vec<Part<'p>>) {
        let mut push = |expr: &'p Expr| out.push(Part::Expr(expr));
        match &self.kind {
            ExprKind::Const(_)
            | ExprKind::Local(_)
            | ExprKind::Capture(_)
            | ExprKind::Agent(_)
            | ExprKind::ToolValue(_)
            | ExprKind::Now
            | ExprKind::Secret(_)
            | ExprKind::Snapshot
            | ExprKind::NextSeq
            | ExprKind::Unreachable => {}
            ExprKind::Concat(items)
            | ExprKind::List(items)
            | ExprKind::Tuple(items)
            | ExprKind::Record(_, items)
            | ExprKind::Call(_, items)
            | ExprKind::CallApart(_, items)
            | ExprKind::Std(_, items)
            | ExprKind::Run(_, items)
            | ExprKind::Tool(_, items)
            | ExprKind::ToolCall(_, items)
            | ExprKind::Closure(_, items)
            | ExprKind::Memory(_, _, items)
            | ExprKind::TestCall(_, items)
            | ExprKind::Question(_, items)
            | ExprKind::Chain(items) => items.iter().for_each(push),
            ExprKind::Ask(ask) => [&ask.question, &ask.subject].into_iter().chain(&ask.labels).for_each(push),
            ExprKind::Dict(entries) => {
                for (key, value) in entries {
                    push(key);
                    push(value);
                }
            }
            ExprKind::Field(a, _)
            | ExprKind::Not(a)
            | ExprKind::Neg(a)
            | ExprKind::Widen(a)
            | ExprKind::Check(a)
            | ExprKind::Is(_, a)
            | ExprKind::Conditions(_, _, a)
            | ExprKind::ErrorOf(a)
            | ExprKind::Unwrap(a)
            | ExprKind::WrapOk(a)
            | ExprKind::WrapErr(a)
            | ExprKind::Try(a)
            | ExprKind::Raise(a)
            | ExprKind::IsTransient(a)
            | ExprKind::MergeAll(a)
            | ExprKind::Sleep(a)
            | ExprKind::Restore(a)
            | ExprKind::Tries(a)
            | ExprKind::Await(a)
            | ExprKind::Receive(a)
            | ExprKind::Cancel(a)
            | ExprKind::Timer(a)
            | ExprKind::Release(a)
            | ExprKind::Log(a) => push(a),
            ExprKind::SetField(a, _, b)
            | ExprKind::Index(a, b)
            | ExprKind::Binary(_, a, b)
            | ExprKind::And(a, b)
            | ExprKind::Or(a, b)
            | ExprKind::Coalesce(a, b)
            | ExprKind::MergeSections(a, b)
            | ExprKind::Model(_, a, b, _)
            | ExprKind::Emit(a, b)
            | ExprKind::Pass(a, b)
            | ExprKind::Random(a, b) => [a, b].into_iter().for_each(|part| push(part)),
            ExprKind::SetIndex(a, b, c) | ExprKind::If(a, b, c) | ExprKind::Approve(a, b, c) => {
                [a, b, c].into_iter().for_each(|part| push(part));
            }
            ExprKind::CallValue(callee, args)
            | ExprKind::Spawn(callee, args)
            | ExprKind::Partial(callee, args, _)
            | ExprKind::Merge(_, callee, args) => {
                push(callee);
                args.iter().for_each(push);
            }
            ExprKind::Fork(fork) => {
                fork.input.iter().chain(&fork.branches).chain(&fork.timeout).for_each(push);
            }
            ExprKind::Rescue(rescue) => {
                push(&rescue.value);
                push(&rescue.substitute);
            }
            ExprKind::Block(statements, value) => {
                push(value);
                out.extend(statements.iter().map(Part::Stmt));
            }
        }
    }
}
