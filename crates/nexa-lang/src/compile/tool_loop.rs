//! The tools of an agent: what each request offers, and what becomes of the calls in an answer.
//!
//! In the loop of [`super::agent_loop`], right after an answer:
//!
//! ```text
//! if (reply.calls is not empty) {
//!     steps += 1                                       // with `max_steps`: beyond it, tool_limit
//!     messages = messages + [assistant(reply.text, reply.calls)]
//!     for each call in reply.calls {
//!         if (calls == max_tool_calls) { raise tool_limit }
//!         calls += 1
//!         outcome = err(denied)                        // no tool of this name is granted
//!         if (call.name == "find") {
//!             let read = <read call.arguments as { q: str, limit: int? }>
//!             outcome = if (read is ok) try find(read.q, read.limit ?? 5) else err(output_invalid)
//!         }
//!         if (outcome is an error of the run and not of the tool) { raise it }
//!         messages = messages + [tool(call.id, <the value, or { error: { code, message } }>)]
//!     }
//!     start = messages                                 // the next model goes on from here
//!     continue
//! }
//! ```
//!
//! Calls run one after the other, in the order of the answer. A flow runs as a child of the agent: whatever the model made
//! it do, also with its stack and its memory, ends that child and is told like any other failure.

use std::rc::Rc;

use super::agent_loop::FROM_MACHINE;
use super::pool::Pool;
use super::template::Template;
use crate::hir::{
    Agent, Const, Expr, ExprKind, ForEach, Granted, Item, Offered, Operator, Shape, Stmt, StmtKind, Test,
};
use crate::types::{Field, Ty};

/// Locals of the loop that tools read and write.
#[derive(Clone, Copy)]
pub(super) struct Slots {
    pub(super) start: u16,
    pub(super) messages: u16,
    pub(super) reply: u16,
    /// Calls of tools so far.
    pub(super) calls: u16,
    /// Answers that asked for tools so far.
    pub(super) steps: u16,
}

/// The record type of the arguments that a model gives: what has a default may be left out.
pub(super) fn args_type(offered: &Offered) -> Ty {
    let field = |param: &crate::hir::ToolParam| Field {
        name: param.name.as_str().into(),
        ty: if param.default.is_some() { Ty::option(param.ty.clone()) } else { param.ty.clone() },
        doc: param.doc.as_str().into(),
    };
    Ty::Record(offered.params.iter().map(field).collect())
}

impl Template {
    /// What happens when an answer asks for tools.
    pub(super) fn tool_calls(&mut self, agent: &Agent, slots: Slots, pool: &mut Pool<'_>) -> Vec<Stmt> {
        if agent.tools.is_empty() {
            return Vec::new();
        }
        let (call, outcome, text, failure) = (self.local(), self.local(), self.local(), self.local());
        let asked = self.field(self.load(slots.reply), "calls");
        let mut then = Vec::new();
        if let Some(most) = agent.max_steps {
            let message = format!("`{}` took more than {most} steps", agent.name);
            then.push(self.limit(slots.steps, i64::from(most), &message));
            then.push(self.stmt(StmtKind::Increment(slots.steps, 1)));
        }
        let reply = self.load(slots.reply);
        let said =
            vec![self.text("assistant"), self.field(reply.clone(), "text"), self.field(reply, "from"), asked.clone()];
        then.push(self.append(slots.messages, self.record(&["role", "text", "from", "calls"], said)));
        let message = format!("`{}` asked for more than {} calls of tools", agent.name, agent.max_tool_calls);
        let mut each = vec![
            self.limit(slots.calls, i64::from(agent.max_tool_calls), &message),
            self.stmt(StmtKind::Increment(slots.calls, 1)),
        ];
        each.extend(self.dispatch(agent, call, outcome, pool));
        each.extend(self.told(outcome, text, failure));
        let answer =
            vec![self.text("tool"), self.load(text), self.int(FROM_MACHINE), self.field(self.load(call), "id")];
        each.push(self.append(slots.messages, self.record(&["role", "text", "from", "call"], answer)));
        let walk = ForEach { over: asked.clone(), index: None, item: Item::One(call), body: each };
        then.push(self.stmt(StmtKind::ForEach(Box::new(walk))));
        then.push(self.store(slots.start, self.load(slots.messages)));
        then.push(self.stmt(StmtKind::Continue));
        let count = Expr::new(self.standard("list.len", vec![asked]).kind, Ty::Int, self.at);
        let has_calls = self.binary(Operator::Gt, count, self.int(0), Ty::Bool);
        vec![self.stmt(StmtKind::If(has_calls, then, Vec::new()))]
    }

    /// Sets the outcome of one call.
    fn dispatch(&mut self, agent: &Agent, call: u16, outcome: u16, pool: &mut Pool<'_>) -> Vec<Stmt> {
        let names: Vec<String> = agent.tools.iter().map(|offered| format!("`{}`", offered.name)).collect();
        let unknown = vec![
            self.text("there is no tool `"),
            self.field(self.load(call), "name"),
            self.text(&format!("`; there are {}", names.join(", "))),
        ];
        let unknown = self.made(ExprKind::WrapErr(Box::new(self.error("denied", unknown))), Ty::Any);
        let mut statements = vec![self.store(outcome, unknown)];
        let (read, args) = (self.local(), self.local());
        for offered in &agent.tools {
            let ty = pool.ty(&args_type(offered));
            let arguments = self.field(self.load(call), "arguments");
            let read_args = self.standard("core.read_args", vec![self.int(i64::from(ty)), arguments]);
            let fits = self.made(ExprKind::Is(Test::Ok, Box::new(self.load(read))), Ty::Bool);
            let unwrapped = self.made(ExprKind::Unwrap(Box::new(self.load(read))), Ty::Any);
            let called = self.called(offered, args);
            let right = vec![
                self.store(args, unwrapped),
                self.store(outcome, self.made(ExprKind::Try(Box::new(called)), Ty::Any)),
            ];
            let violations = self.made(ExprKind::ErrorOf(Box::new(self.load(read))), Ty::Any);
            let violations = self.standard("list.join", vec![violations, self.text("; ")]);
            let lead = self.text(&format!("the arguments of `{}` do not fit: ", offered.name));
            let wrong = self.error("output_invalid", vec![lead, violations]);
            let wrong = self.made(ExprKind::WrapErr(Box::new(wrong)), Ty::Any);
            let then = vec![
                self.store(read, read_args),
                self.stmt(StmtKind::If(fits, right, vec![self.store(outcome, wrong)])),
            ];
            let name = self.field(self.load(call), "name");
            let is_it = self.binary(Operator::Eq, name, self.text(&offered.name), Ty::Bool);
            statements.push(self.stmt(StmtKind::If(is_it, then, Vec::new())));
        }
        statements
    }

    /// The call itself, with the arguments that were read.
    fn called(&self, offered: &Offered, args: u16) -> Expr {
        let value = |param: &crate::hir::ToolParam| {
            let given = ExprKind::Field(Box::new(self.load(args)), param.name.as_str().into());
            match &param.default {
                None => self.made(given, param.ty.clone()),
                Some(default) => {
                    let given = self.made(given, Ty::option(param.ty.clone()));
                    self.made(ExprKind::Coalesce(Box::new(given), Box::new(default.clone())), param.ty.clone())
                }
            }
        };
        let values = offered.params.iter().map(value).collect();
        let kind = match offered.granted {
            Granted::Tool(number) => ExprKind::Tool(number, values),
            Granted::Flow(number) => ExprKind::CallApart(number, values),
        };
        self.made(kind, Ty::Any)
    }

    /// The outcome as a text for the model. What is wrong with the run and not with the tool is raised. A budget that is
    /// over is the tool's own: that of the agent ends the agent, and nothing comes here.
    fn told(&self, outcome: u16, text: u16, failure: u16) -> Vec<Stmt> {
        let is_ok = self.made(ExprKind::Is(Test::Ok, Box::new(self.load(outcome))), Ty::Bool);
        let value = self.made(ExprKind::Unwrap(Box::new(self.load(outcome))), Ty::Any);
        let value = self.made(ExprKind::Concat(vec![value]), Ty::Str);
        let error = self.made(ExprKind::ErrorOf(Box::new(self.load(outcome))), Ty::Any);
        let told = self.record(
            &["code", "message"],
            vec![self.field(self.load(failure), "code"), self.field(self.load(failure), "message")],
        );
        let told = self.standard("core.json", vec![self.record(&["error"], vec![told])]);
        let otherwise = vec![self.store(failure, error), self.unless_of_tool(failure), self.store(text, told)];
        vec![self.stmt(StmtKind::If(is_ok, vec![self.store(text, value)], otherwise))]
    }

    /// Raises `tool_limit` once a counter has reached its most.
    fn limit(&self, counter: u16, most: i64, message: &str) -> Stmt {
        let is_over = self.binary(Operator::Ge, self.int_local(counter), self.int(most), Ty::Bool);
        let raise = self.raise(self.error("tool_limit", vec![self.text(message)]));
        self.stmt(StmtKind::If(is_over, vec![raise], Vec::new()))
    }

    fn append(&self, list: u16, item: Expr) -> Stmt {
        self.store(list, self.binary(Operator::Add, self.load(list), self.list(vec![item]), Ty::Any))
    }

    fn record(&self, names: &[&str], values: Vec<Expr>) -> Expr {
        let fields = names.iter().copied().map(Rc::from).collect();
        self.made(ExprKind::Record(Shape { fields, ..Shape::default() }, values), Ty::Any)
    }

    /// A counter that starts at zero.
    pub(super) fn zero(&self, slot: u16) -> Stmt {
        self.store(slot, self.made(ExprKind::Const(Const::Int(0)), Ty::Int))
    }
}
