//! Asking until the answer can be read: one function a kind of question, which every question of the program calls.
//!
//! Written out in the language:
//!
//! ```text
//! fn holds(question: str, subject: any) -> bool {
//!     let rejected = []
//!     let tries = 0
//!     while (true) {
//!         let reply = none
//!         try { reply = <question>(question, subject, rejected) }
//!         catch (e) {
//!             if (e is transient and tries < 2) { sleep(waits[tries]); tries += 1; continue }
//!             raise e
//!         }
//!         let read = <read reply.text>                     // none if it is no answer
//!         if (read != none) { return read }
//!         rejected = rejected + [reply]
//!         if (rejected.len() > 2) { fail("…", code: "semantic_failed") }
//!     }
//! }
//! ```
//!
//! There is no default answer: who asks goes on with an answer, or not at all. Inside of an agent there is one argument
//! more, the model that is asked.

use nexa_vm::op::{Asking, MemoryScope};

use super::pool::Pool;
use super::template::Template;
use crate::hir::{At, Const, Expr, ExprKind, Function, MemoryUse, Operator, Stmt, StmtKind, Test};
use crate::types::{Field, Ty};

/// How often a model is asked again for an answer that can be read.
pub(crate) const REPAIRS: i64 = 2;

/// Waits before each further try after a transient failure, in milliseconds: as agents have them by default.
pub(crate) const WAITS: [u64; 2] = [500, 1_000];

/// A kind of question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) asking: Asking,
    pub(super) has_labels: bool,
    /// Whether a model is named; otherwise the default one is asked.
    pub(super) has_model: bool,
}

/// How many kinds there are: yes/no and labels, of questions and intents, a verdict, a critique; each with a model or
/// without.
pub(super) const KINDS: usize = 12;

/// The function of a kind: question and subject, then labels and a model if it has them.
pub(super) fn function(kind: Kind, pool: &mut Pool<'_>) -> Function {
    let operands_len = if kind.has_labels { 3 } else { 2 };
    let arity = operands_len + u16::from(kind.has_model);
    let (reply, read, rejected, tries, error) = (arity, arity + 1, arity + 2, arity + 3, arity + 4);
    let at = At::default();
    let any = |slot: u16| Expr::local(slot, Ty::Any, at);
    let made = |kind: ExprKind, ty: Ty| Expr::new(kind, ty, at);
    let stmt = |kind: StmtKind| Stmt { kind, at };
    let int = |int: i64| Expr::constant(Const::Int(int), at);
    let standard = |name: &str, args: Vec<Expr>, ty: Ty| {
        let number = nexa_vm::stdlib::lookup(name).map_or(u16::MAX, |function| function.number);
        Expr::new(ExprKind::Std(number, args), ty, at)
    };
    let list = |items: Vec<Expr>| Expr::new(ExprKind::List(items), Ty::list(Ty::Any), at);
    let mut operands: Vec<Expr> = (0..operands_len).map(any).collect();
    if kind.has_model {
        operands[0] = made(ExprKind::Tuple(vec![any(0), any(operands_len)]), Ty::Any);
    }
    operands.push(any(rejected));
    let template = Template { at, locals: error + 1 };
    let ask = template.store(reply, made(ExprKind::Question(kind.asking, operands), Ty::Any));
    let mut handler = template.again_if_transient(&WAITS, error, tries);
    handler.push(template.raise(any(error)));
    let ask = template.stmt(StmtKind::Try(vec![ask], error, handler));
    let text = || made(ExprKind::Field(Box::new(any(reply)), "text".into()), Ty::Str);
    let name = match (kind.asking, kind.has_labels) {
        (Asking::Judge, _) => "$judge",
        (Asking::Reflect, _) => "$reflect",
        (_, true) => "$choose",
        (_, false) => "$holds",
    };
    let finish = |body: Vec<Stmt>| Function {
        name: name.to_owned(),
        arity: arity as u8,
        params: vec![Ty::Any; usize::from(arity)],
        locals: error + 1,
        body,
        ..Function::default()
    };
    let always = Expr::constant(Const::Bool(true), at);
    let mut body = vec![
        stmt(StmtKind::Store(rejected, list(Vec::new()))),
        stmt(StmtKind::Store(tries, int(0))),
        stmt(StmtKind::Store(reply, made(ExprKind::Const(Const::None), Ty::Any))),
    ];
    if kind.asking == Asking::Reflect {
        // A critique stays with the agent, under its question.
        let kept = made(ExprKind::Memory(MemoryUse::Store, MemoryScope::Agent, vec![any(0), text()]), Ty::Unit);
        let keep = stmt(StmtKind::Expr(kept));
        body.push(stmt(StmtKind::While(always, vec![ask, keep, stmt(StmtKind::Return(text()))])));
        return finish(body);
    }
    let verdict = Ty::Record([Field { name: "best".into(), ty: Ty::Int, doc: "".into() }].into());
    let (is_read, value, what) = match (kind.asking, kind.has_labels) {
        (Asking::Judge, _) => {
            let ty = i64::from(pool.ty(&verdict));
            let found = standard("core.read_json", vec![int(ty), text()], Ty::Any);
            let is_ok = made(ExprKind::Is(Test::Ok, Box::new(any(read))), Ty::Bool);
            let record = Box::new(made(ExprKind::Unwrap(Box::new(any(read))), Ty::Any));
            let best = made(ExprKind::Field(record, "best".into()), Ty::Int);
            (
                vec![
                    stmt(StmtKind::Store(read, found)),
                    stmt(StmtKind::If(is_ok, vec![stmt(StmtKind::Return(best))], vec![])),
                ],
                None,
                "a verdict",
            )
        }
        (_, true) => {
            let found = standard("core.read_label", vec![text(), any(2)], Ty::Any);
            (vec![stmt(StmtKind::Store(read, found))], Some(Ty::Int), "one of the labels")
        }
        (_, false) => {
            let found = standard("core.read_bool", vec![text()], Ty::Any);
            (vec![stmt(StmtKind::Store(read, found))], Some(Ty::Bool), "a yes or no")
        }
    };
    let mut round = vec![ask];
    round.extend(is_read);
    if let Some(ty) = value {
        let is_none = made(ExprKind::Is(Test::None, Box::new(any(read))), Ty::Bool);
        let value = stmt(StmtKind::Return(Expr::local(read, ty, at)));
        round.push(stmt(StmtKind::If(made(ExprKind::Not(Box::new(is_none)), Ty::Bool), vec![value], Vec::new())));
    }
    let more =
        made(ExprKind::Binary(Operator::Add, Box::new(any(rejected)), Box::new(list(vec![any(reply)]))), Ty::Any);
    round.push(stmt(StmtKind::Store(rejected, more)));
    let len = standard("list.len", vec![any(rejected)], Ty::Int);
    let is_last = made(ExprKind::Binary(Operator::Gt, Box::new(len), Box::new(int(REPAIRS))), Ty::Bool);
    let message =
        ExprKind::Concat(vec![Expr::text(&format!("the model gave no answer that is {what} to: "), at), any(0)]);
    let error = standard("core.error", vec![Expr::text("semantic_failed", at), made(message, Ty::Str)], Ty::Any);
    let raise = stmt(StmtKind::Expr(made(ExprKind::Raise(Box::new(error)), Ty::Never)));
    round.push(stmt(StmtKind::If(is_last, vec![raise], Vec::new())));
    body.push(stmt(StmtKind::While(always, round)));
    finish(body)
}
