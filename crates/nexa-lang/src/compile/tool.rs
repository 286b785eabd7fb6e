//! What stands around the call of a tool: its `requires` and approval before it, further tries and what its declaration
//! says of an unknown outcome after it, and a check of what it gave, its `ensures` included. Calls in code and calls of models both go through here.
//!
//! Written out in the language, the tool
//!
//! ```text
//! tool T(q: str) -> R { source: …, risk: "high", idempotent: true, retry: { max: 2, … }, on_unknown: "ask" }
//! ```
//!
//! is called like this:
//!
//! ```text
//! if (not <requires>) { raise contract_violated }
//! match approve("Call the tool `T`?", { tool, source, risk, effect, arguments: { q } }, timeout: 1d) {
//!     denied(by, note) => raise denied
//! }
//! let value = none
//! let tries = 0
//! let asked = 0
//! while (true) {
//!     try {
//!         value = <call>(q)
//!         break
//!     } catch (e) {
//!         if ((e is transient or e.code == "outcome_unknown") and tries < 2) { sleep(waits[tries]); tries += 1; continue }
//!         if (e.code == "outcome_unknown" and asked < 3) {
//!             asked += 1
//!             // "ask": a person says whether to call again
//!             // "probe": let found = P(q); if (found is none) { continue } else { return found }
//!             // Neither can say: raise e, with what went wrong as its cause
//!         }
//!         raise e
//!     }
//! }
//! let result = <value checked as R, or tool_failed>
//! if (not <ensures>) { raise contract_violated }
//! return result
//! ```

use nexa_event::effect::ToolEffect;

use super::pool::Pool;
use super::template::Template;
use crate::hir::{Const, Expr, ExprKind, Function, OnUnknown, Operator, Shape, Stmt, StmtKind, Test, Tool};
use crate::types::Ty;

/// How long a person has to say whether a tool may be called.
const APPROVAL_TIMEOUT_MS: i64 = 24 * 3_600_000;
/// How often one call is made again because its outcome was unknown.
const UNKNOWN_CALLS_MAX: i64 = 3;

/// Makes the function around the call of a tool.
pub(super) fn body(tool: &Tool, number: u32, pool: &mut Pool<'_>) -> Function {
    let locals = (tool.params.len() as u16).max(tool.contract_locals);
    let mut template = Template { at: tool.at, locals };
    let body = template.tool(tool, number, pool);
    Function {
        name: tool.name.clone(),
        arity: tool.params.len() as u8,
        params: tool.params.iter().map(|param| param.ty.clone()).collect(),
        locals: template.locals,
        body,
        grants: match &tool.on_unknown {
            OnUnknown::Probe(probe, _) => vec![*probe],
            OnUnknown::Fail | OnUnknown::Ask => Vec::new(),
        },
        at: tool.at,
        ..Function::default()
    }
}

impl Template {
    fn tool(&mut self, tool: &Tool, number: u32, pool: &mut Pool<'_>) -> Vec<Stmt> {
        let (value, error, tries, asked) = (self.local(), self.local(), self.local(), self.local());
        let mut body: Vec<Stmt> = tool.requires.iter().map(|held| self.unless_holds(held, "requires")).collect();
        if tool.asks {
            let denied = format!("`{}` was not called: a person said no", tool.name);
            let question = format!("Call the tool `{}`?", tool.name);
            let decision = self.local();
            body.push(self.store(decision, self.question(tool, &question)));
            body.push(self.unless_approved(decision, |this, note| {
                this.raise(this.error("denied", vec![this.text(&denied), note]))
            }));
        }
        let params: Vec<Expr> = self.params(tool);
        let call = self.made(ExprKind::ToolCall(number, params), Ty::Any);
        if tool.backoff.is_empty() && tool.on_unknown == OnUnknown::Fail {
            body.push(self.store(value, call));
        } else {
            body.push(self.store(tries, self.int(0)));
            body.push(self.store(asked, self.int(0)));
            let attempt = vec![self.store(value, call), self.stmt(StmtKind::Break)];
            let mut handler = self.again_if(self.is_worth_a_try(tool, error), &tool.backoff, tries);
            handler.extend(self.when_unknown(tool, error, asked, value));
            handler.push(self.raise(self.load(error)));
            let turn = self.stmt(StmtKind::Try(attempt, error, handler));
            let forever = self.made(ExprKind::Const(Const::Bool(true)), Ty::Bool);
            body.push(self.stmt(StmtKind::While(forever, vec![turn])));
        }
        body.extend(self.checked(tool, value, pool));
        body
    }

    /// Whether the call may be made again without anybody being asked. One that changes something and whose answer was lost may
    /// have done its work, which does not matter to a tool of which twice is as good as once.
    fn is_worth_a_try(&self, tool: &Tool, error: u16) -> Expr {
        let is_transient = self.is_transient(error);
        if !tool.idempotent || tool.effect != ToolEffect::Write {
            return is_transient;
        }
        let is_unknown = self.has_code(error, "outcome_unknown");
        self.made(ExprKind::Or(Box::new(is_transient), Box::new(is_unknown)), Ty::Bool)
    }

    /// Asks a person.
    fn question(&self, tool: &Tool, question: &str) -> Expr {
        let record = |fields: Vec<&str>, values: Vec<Expr>| {
            let fields = fields.into_iter().map(Into::into).collect();
            self.made(ExprKind::Record(Shape { fields, ..Shape::default() }, values), Ty::Any)
        };
        let names = tool.params.iter().map(|param| param.name.as_str()).collect();
        let arguments = record(names, self.params(tool));
        let words = [&tool.name, &tool.source.to_string(), tool.risk.as_str(), tool.effect.as_str()];
        let mut values: Vec<Expr> = words.into_iter().map(|word| self.text(word)).collect();
        values.push(arguments);
        let data = record(vec!["tool", "source", "risk", "effect", "arguments"], values);
        let timeout = self.made(ExprKind::Const(Const::Duration(APPROVAL_TIMEOUT_MS)), Ty::Duration);
        self.made(ExprKind::Approve(Box::new(self.text(question)), Box::new(data), Box::new(timeout)), Ty::Any)
    }

    /// What happens after a no, given the person's words.
    fn unless_approved(&self, decision: u16, otherwise: impl Fn(&Self, Expr) -> Stmt) -> Stmt {
        let denied =
            Shape { type_name: "Approval".into(), tag: "denied".into(), fields: vec!["by".into(), "note".into()] };
        let is_no = self.made(ExprKind::Is(Test::Variant(denied), Box::new(self.load(decision))), Ty::Bool);
        let note = self.field(self.load(decision), "note");
        let has_note = self.binary(Operator::Ne, note.clone(), self.text(""), Ty::Bool);
        let note = self.made(ExprKind::Concat(vec![self.text(": "), note]), Ty::Str);
        let note = self.made(ExprKind::If(Box::new(has_note), Box::new(note), Box::new(self.text(""))), Ty::Str);
        self.stmt(StmtKind::If(is_no, vec![otherwise(self, note)], Vec::new()))
    }

    /// Finds out what became of a call, or has a person say what to do. Where that fails, the call is as unknown as it was:
    /// its error is raised, and not that of whoever should have found out, which would say that nothing was done.
    fn when_unknown(&mut self, tool: &Tool, error: u16, asked: u16, value: u16) -> Vec<Stmt> {
        let mut then = vec![self.stmt(StmtKind::Increment(asked, 1))];
        match &tool.on_unknown {
            OnUnknown::Fail => return Vec::new(),
            OnUnknown::Ask => {
                let question = format!("Call the tool `{}` again? Nobody can say whether it was called", tool.name);
                let (answer, decision) = (self.local(), self.local());
                let asked = self.question(tool, &question);
                then.extend(self.found(asked, answer, error, "and nobody said whether to call it again: "));
                then.push(self.store(decision, self.unwrapped(answer)));
                then.push(self.unless_approved(decision, |this, _| this.raise(this.load(error))));
                then.push(self.stmt(StmtKind::Continue));
            }
            OnUnknown::Probe(probe, places) => {
                let all = self.params(tool);
                let args = places.iter().filter_map(|place| all.get(usize::from(*place)).cloned()).collect();
                let answer = self.local();
                let asked = self.made(ExprKind::Tool(*probe, args), Ty::Any);
                then.extend(self.found(asked, answer, error, "and the tool that finds out has failed: "));
                then.push(self.store(value, self.unwrapped(answer)));
                let is_none = self.made(ExprKind::Is(Test::None, Box::new(self.load(value))), Ty::Bool);
                then.push(self.stmt(StmtKind::If(is_none, vec![self.stmt(StmtKind::Continue)], Vec::new())));
                then.push(self.stmt(StmtKind::Break));
            }
        }
        let is_unknown = self.has_code(error, "outcome_unknown");
        let may_ask = self.binary(Operator::Lt, self.int_local(asked), self.int(UNKNOWN_CALLS_MAX), Ty::Bool);
        let both = self.made(ExprKind::And(Box::new(is_unknown), Box::new(may_ask)), Ty::Bool);
        vec![self.stmt(StmtKind::If(both, then, Vec::new()))]
    }

    /// Keeps in a local what tries to find out about a call; if it fails, raises the error of that call, which says so.
    fn found(&mut self, asked: Expr, answer: u16, error: u16, words: &str) -> Vec<Stmt> {
        let failure = self.local();
        let failed = self.made(ExprKind::ErrorOf(Box::new(self.load(answer))), Ty::Any);
        let set = |name: &str, value: Expr| {
            let set = ExprKind::SetField(Box::new(self.load(error)), name.into(), Box::new(value));
            self.store(error, self.made(set, Ty::Any))
        };
        let words = self.text(&format!("; {words}"));
        let message = vec![self.field(self.load(error), "message"), words, self.field(self.load(failure), "message")];
        let message = self.made(ExprKind::Concat(message), Ty::Str);
        let known = Box::new(self.field(self.load(error), "cause"));
        let cause = self.made(ExprKind::Coalesce(known, Box::new(self.load(failure))), Ty::Any);
        let is_ok = self.made(ExprKind::Is(Test::Ok, Box::new(self.load(answer))), Ty::Bool);
        let otherwise = vec![
            self.store(failure, failed),
            self.unless_of_tool(failure),
            set("message", message),
            set("cause", cause),
            self.raise(self.load(error)),
        ];
        vec![
            self.store(answer, self.made(ExprKind::Try(Box::new(asked)), Ty::Any)),
            self.stmt(StmtKind::If(is_ok, Vec::new(), otherwise)),
        ]
    }

    fn unwrapped(&self, result: u16) -> Expr {
        self.made(ExprKind::Unwrap(Box::new(self.load(result))), Ty::Any)
    }

    /// Returns a value for which all that is ensured holds.
    fn promised(&self, tool: &Tool, value: Expr) -> Vec<Stmt> {
        if tool.ensures.is_empty() {
            return vec![self.stmt(StmtKind::Return(value))];
        }
        // The conditions know the result as the local after the parameters.
        let slot = tool.params.len() as u16;
        let result = Expr::local(slot, value.ty.clone(), self.at);
        let held = tool.ensures.iter().map(|held| self.unless_holds(held, "ensures"));
        let given = self.stmt(StmtKind::Return(result));
        std::iter::once(self.store(slot, value)).chain(held).chain([given]).collect()
    }

    /// Returns the value as the type that the tool promises.
    fn checked(&mut self, tool: &Tool, value: u16, pool: &mut Pool<'_>) -> Vec<Stmt> {
        match &tool.result {
            Ty::Any => return self.promised(tool, self.load(value)),
            Ty::Unit => {
                let unit = self.made(ExprKind::Const(Const::Unit), Ty::Unit);
                return self.promised(tool, unit);
            }
            _ => {}
        }
        let checked = self.local();
        let check = self.made(ExprKind::Check(Box::new(self.load(value))), tool.result.clone());
        let fits = self.made(ExprKind::Is(Test::Ok, Box::new(self.load(checked))), Ty::Bool);
        let found = self.made(ExprKind::Unwrap(Box::new(self.load(checked))), tool.result.clone());
        let why = self.made(ExprKind::ErrorOf(Box::new(self.load(checked))), Ty::Any);
        let (name, ty) = (&tool.name, pool.show(&tool.result));
        let message =
            vec![self.text(&format!("`{name}` gave something else than `{ty}`: ")), self.field(why, "message")];
        vec![
            self.store(checked, self.made(ExprKind::Try(Box::new(check)), Ty::Any)),
            self.stmt(StmtKind::If(fits, self.promised(tool, found), Vec::new())),
            self.raise(self.error("tool_failed", message)),
        ]
    }

    fn params(&self, tool: &Tool) -> Vec<Expr> {
        let param =
            |(place, param): (usize, &crate::hir::ToolParam)| Expr::local(place as u16, param.ty.clone(), self.at);
        tool.params.iter().enumerate().map(param).collect()
    }
}
