//! An agent's loop: from its declaration to the function that every run of it executes.
//!
//! Written out in the language, the agent
//!
//! ```text
//! agent A(input: str) -> T { role: R, prompt: P, model: [m1, m2], retry: { max: 2, … }, repair: 1 }
//! ```
//!
//! runs this:
//!
//! ```text
//! let start = [system(R, P, schema of T), user(input)]
//! let failure = none
//! for each model in [m1, m2] {
//!     let messages = start
//!     let tries = 0                                  // tries of this model after which it was asked again
//!     let repairs = 0                                // repair turns of this model
//!     while (true) {
//!         try {
//!             let reply = <model request>(model, messages)
//!             <what the reply asks of tools, see `tool_loop`>
//!             let read = <read reply.text as T>      // for `-> str`: return reply.text
//!             // `validate: "semantic"`: what a model says does not hold of the value counts as not fitting
//!             if (read is ok and what is ensured holds of it) { return its value }
//!             failure = output_invalid, listing what does not fit
//!             if (repairs == 1) { break }            // the next model
//!             repairs += 1
//!             messages = messages + [assistant(reply.text), user(what does not fit)]
//!         } catch (e) {
//!             failure = e
//!             if (e is transient and tries < 2) { sleep(waits[tries]); tries += 1; continue }
//!             if (e is transient, refused or output_invalid) { break }
//!             raise e                                // a budget, a script, a cancel: no other model helps
//!         }
//!     }
//! }
//! raise failure                                      // with `fallback: B` instead: return B(input)
//! ```
//!
//! An agent of which there are several runs (`planner: best_of_n(n: 4)`) has no loop of its own: what is required, a fork
//! of the agent that is run, and a choice among the results.
//!
//! The system text is the role, the prompt, and for results that are no text what the answer must look like, with blank
//! lines between; without any of them there is no system message. The user's text is the input: a single parameter as it is (a str as text, any other value as
//! canonical JSON), several as one canonical JSON record of all of them; parameters that the prompt speaks of are in it
//! too. Each message says where its text comes from, so that the log need not hold it twice.

use std::rc::Rc;

use nexa_vm::op::Asking;

use super::TooLarge;
use super::pool::Pool;
use super::template::Template;
use super::tool_loop::Slots;
use crate::hir::{
    Agent, Ask, Asked, BestOf, Const, Expr, ExprKind, ForEach, Fork, Function, Item, Operator, Shape, Stmt, StmtKind,
};
use crate::types::Ty;

/// Where a message's text comes from, see `nexa_vm::module::ModelRequestSpec`.
const FROM_PROGRAM: i64 = 0;
pub(super) const FROM_MACHINE: i64 = -1;

/// Makes the function that runs an agent. `request` is the number of its model request, `forced` that of the same
/// request that wants a tool to be called, which is made until one was.
pub(super) fn body(
    agent: &Agent,
    request: u32,
    forced: Option<u32>,
    pool: &mut Pool<'_>,
) -> Result<Function, TooLarge> {
    let chosen = agent.best_of.as_ref().map_or(0, |best_of| best_of.locals);
    let locals = (agent.params.len() as u16).max(agent.contract_locals).max(chosen);
    let mut template = Template { at: agent.at, locals };
    let body = match &agent.best_of {
        Some(best_of) => template.runs(agent, best_of),
        None => template.agent(agent, request, forced, pool),
    };
    let grants = match &agent.best_of {
        Some(_) => Vec::new(),
        None => agent.tools.iter().filter_map(|offered| offered.granted.tool()).collect(),
    };
    Ok(Function {
        name: agent.name.clone(),
        arity: agent.params.len() as u8,
        params: agent.params.iter().map(|(_, ty)| ty.clone()).collect(),
        locals: template.locals,
        captures: Vec::new(),
        body,
        is_pure: false,
        schedule: agent.schedule,
        is_test: false,
        grants,
        model: agent.first_model().to_owned(),
        at: agent.at,
    })
}

impl Template {
    /// Several runs beside each other, and the value of the one that is chosen.
    fn runs(&mut self, agent: &Agent, best_of: &BestOf) -> Vec<Stmt> {
        let mut body = Vec::new();
        let mut args: Vec<Expr> = agent
            .inputs()
            .iter()
            .enumerate()
            .map(|(place, (_, ty))| Expr::local(place as u16, ty.clone(), self.at))
            .collect();
        if agent.is_told {
            // Its local is that of the results, which do not know of it.
            let (given, kept) = (agent.inputs().len() as u16, self.local());
            body.push(self.store(kept, self.load(given)));
            args.push(self.load(kept));
        }
        body.extend(agent.requires.iter().map(|contract| self.unless_holds(contract, "requires")));
        let run = || {
            let run = self.made(ExprKind::Agent(best_of.run), Ty::Any);
            if args.is_empty() { run } else { self.made(ExprKind::Partial(Box::new(run), args.clone(), None), Ty::Any) }
        };
        let runs = (0..best_of.count).map(|_| run()).collect();
        let fork = Fork { branches: runs, ..Fork::default() };
        let results = self.made(ExprKind::Fork(Box::new(fork)), Ty::list(Ty::Any));
        body.push(self.store(best_of.results, results));
        body.push(self.stmt(StmtKind::Return(best_of.chosen.clone())));
        body
    }

    fn agent(&mut self, agent: &Agent, request: u32, forced: Option<u32>, pool: &mut Pool<'_>) -> Vec<Stmt> {
        let [start, failure, model, messages, tries, repairs, reply, error] = std::array::from_fn(|_| self.local());
        let system = self.system_text(agent, pool).map(|text| self.message("system", text, self.int(FROM_PROGRAM)));
        let user = self.message("user", self.user_text(agent), self.int(FROM_PROGRAM));
        let mut body = Vec::new();
        let told = agent.is_told.then(|| {
            // Its local is that of the result for contracts, which do not know of it.
            let (given, kept) = (agent.inputs().len() as u16, self.local());
            body.push(self.store(kept, self.load(given)));
            self.message("user", self.load(kept), self.int(FROM_PROGRAM))
        });
        let start_messages = self.list(system.into_iter().chain([user]).chain(told).collect());
        // An agent without tools has no use for counters of their calls.
        let has_tools = !agent.tools.is_empty();
        let (calls, steps) = if has_tools { (self.local(), self.local()) } else { (0, 0) };
        let ask = |request| {
            let ask = ExprKind::Model(request, Box::new(self.load(model)), Box::new(self.load(messages)), agent.stream);
            self.made(ask, Ty::Any)
        };
        let ask = match forced {
            None => ask(request),
            Some(forced) => {
                let is_first = self.binary(Operator::Eq, self.int_local(calls), self.int(0), Ty::Bool);
                let either = ExprKind::If(Box::new(is_first), Box::new(ask(forced)), Box::new(ask(request)));
                self.made(either, Ty::Any)
            }
        };
        let mut attempt = vec![self.store(reply, ask)];
        let slots = Slots { start, messages, reply, calls, steps };
        attempt.extend(self.tool_calls(agent, slots, pool));
        attempt.extend(self.read_reply(agent, reply, failure, repairs, messages, pool));
        let handler = self.on_error(agent, error, failure, tries);
        let turn = self.stmt(StmtKind::Try(attempt, error, handler));
        let each_model = vec![
            self.store(messages, self.load(start)),
            self.store(tries, self.int(0)),
            self.store(repairs, self.int(0)),
            self.stmt(StmtKind::While(self.made(ExprKind::Const(Const::Bool(true)), Ty::Bool), vec![turn])),
        ];
        let models = self.list(agent.models.iter().map(|model| self.text(model)).collect());
        let walk = ForEach { over: models, index: None, item: Item::One(model), body: each_model };
        body.extend(agent.requires.iter().map(|contract| self.unless_holds(contract, "requires")));
        if has_tools {
            body.extend([self.zero(calls), self.zero(steps)]);
        }
        body.extend([
            self.store(start, start_messages),
            self.store(failure, self.made(ExprKind::Const(Const::None), Ty::Any)),
            self.stmt(StmtKind::ForEach(Box::new(walk))),
            match agent.fallback {
                None => self.raise(self.load(failure)),
                Some(fallback) => {
                    let params = agent.inputs().iter().enumerate();
                    let params = params.map(|(place, (_, ty))| Expr::local(place as u16, ty.clone(), self.at));
                    let run = ExprKind::Run(fallback, params.collect());
                    self.stmt(StmtKind::Return(self.made(run, agent.result.clone())))
                }
            },
        ]);
        body
    }

    /// Role, skills, prompt, and what the answer must look like; nothing if there is nothing to say.
    fn system_text(&self, agent: &Agent, pool: &mut Pool<'_>) -> Option<Expr> {
        let mut parts: Vec<Expr> = Vec::new();
        let mut paragraph = |part: Expr| {
            if !parts.is_empty() {
                parts.push(self.text("\n\n"));
            }
            parts.push(part);
        };
        agent.role.iter().cloned().for_each(&mut paragraph);
        agent.skills.iter().for_each(|skill| paragraph(self.text(skill)));
        agent.prompt.iter().cloned().for_each(&mut paragraph);
        if agent.result != Ty::Str {
            paragraph(self.text("Answer with JSON only, no other words. It must fit this JSON Schema:\n"));
            let ty = pool.ty(&agent.result);
            parts.push(self.standard("core.schema", vec![self.int(i64::from(ty))]));
        }
        match parts.as_slice() {
            [] => None,
            [one] if matches!(one.kind, ExprKind::Const(_)) => Some(one.clone()),
            _ => Some(self.made(ExprKind::Concat(parts), Ty::Str)),
        }
    }

    fn user_text(&self, agent: &Agent) -> Expr {
        let param = |place: usize, ty: &Ty| Expr::local(place as u16, ty.clone(), self.at);
        let input = match agent.inputs() {
            [] => return self.text(""),
            [(_, ty)] => param(0, ty),
            params => {
                let fields = params.iter().map(|(name, _)| Rc::from(name.as_str())).collect();
                let shape = Shape { fields, ..Shape::default() };
                let values = params.iter().enumerate().map(|(place, (_, ty))| param(place, ty)).collect();
                self.made(ExprKind::Record(shape, values), Ty::Any)
            }
        };
        self.made(ExprKind::Concat(vec![input]), Ty::Str)
    }

    /// A text is the answer; anything else is read, and repaired while that is allowed.
    fn read_reply(
        &mut self,
        agent: &Agent,
        reply: u16,
        failure: u16,
        repairs: u16,
        messages: u16,
        pool: &mut Pool<'_>,
    ) -> Vec<Stmt> {
        let text = self.field(self.load(reply), "text");
        if agent.result == Ty::Str {
            return self.give(agent, text, reply, failure, repairs, messages);
        }
        let (read, violations) = (self.local(), self.local());
        let ty = pool.ty(&agent.result);
        let read_json = self.standard("core.read_json", vec![self.int(i64::from(ty)), text.clone()]);
        let fits = self.made(ExprKind::Is(crate::hir::Test::Ok, Box::new(self.load(read))), Ty::Bool);
        let value = self.made(ExprKind::Unwrap(Box::new(self.load(read))), agent.result.clone());
        let give = self.give(agent, value, reply, failure, repairs, messages);
        let list = self.made(ExprKind::ErrorOf(Box::new(self.load(read))), Ty::Any);
        let joined = |between: &str| self.standard("list.join", vec![self.load(violations), self.text(between)]);
        let invalid = vec![self.text("the answer does not fit its type: "), joined("; ")];
        let invalid = self.made(ExprKind::Concat(invalid), Ty::Str);
        let invalid = self.standard("core.error", vec![self.text("output_invalid"), invalid]);
        let is_last = self.binary(Operator::Ge, self.int_local(repairs), self.int(i64::from(agent.repair)), Ty::Bool);
        let asked = self.made(
            ExprKind::Concat(vec![
                self.text("The answer does not fit the JSON Schema:\n- "),
                joined("\n- "),
                self.text("\nAnswer again, with the whole corrected JSON and no other words."),
            ]),
            Ty::Str,
        );
        let turn = self.list(vec![
            self.message("assistant", text, self.field(self.load(reply), "from")),
            self.message("user", asked, self.int(FROM_MACHINE)),
        ]);
        let mut out = vec![self.store(read, read_json)];
        if agent.asks_conditions {
            let fits_in_words = self.binary(Operator::Eq, self.load(violations), self.list(Vec::new()), Ty::Bool);
            let mut asked = self.broken_conditions(agent, read, violations);
            asked.push(self.stmt(StmtKind::If(fits_in_words, give, Vec::new())));
            out.push(self.stmt(StmtKind::If(fits, asked, vec![self.store(violations, list)])));
        } else {
            out.extend([self.stmt(StmtKind::If(fits, give, Vec::new())), self.store(violations, list)]);
        }
        out.extend([
            self.store(failure, invalid),
            self.stmt(StmtKind::If(is_last, vec![self.stmt(StmtKind::Break)], Vec::new())),
            self.stmt(StmtKind::Increment(repairs, 1)),
            self.store(messages, self.binary(Operator::Add, self.load(messages), turn, Ty::Any)),
        ]);
        out
    }

    /// Lists the conditions in words of the result that a model says do not hold.
    fn broken_conditions(&mut self, agent: &Agent, read: u16, violations: u16) -> Vec<Stmt> {
        let [condition, part, violation] = std::array::from_fn(|_| self.local());
        let value = self.made(ExprKind::Unwrap(Box::new(self.load(read))), agent.result.clone());
        let conditions = ExprKind::Conditions(agent.result.clone(), Asked::Every, Box::new(value));
        let (question, subject) = (self.load(condition), self.load(part));
        let ask = Ask { asking: Asking::Question, question, subject, labels: None };
        let holds = self.made(ExprKind::Ask(Box::new(ask)), Ty::Bool);
        let fails = self.made(ExprKind::Not(Box::new(holds)), Ty::Bool);
        let one = self.list(vec![self.load(violation)]);
        let note = self.store(violations, self.binary(Operator::Add, self.load(violations), one, Ty::Any));
        let walk = ForEach {
            over: self.made(conditions, Ty::list(Ty::Any)),
            index: None,
            item: Item::Parts(vec![Some(condition), Some(part), Some(violation)]),
            body: vec![self.stmt(StmtKind::If(fails, vec![note], Vec::new()))],
        };
        vec![self.store(violations, self.list(Vec::new())), self.stmt(StmtKind::ForEach(Box::new(walk)))]
    }

    /// Returns a value for which all that is ensured holds. For another one the model is asked again while there are
    /// repair turns; then `contract_violated` is raised, and no other model is tried.
    fn give(&mut self, agent: &Agent, value: Expr, reply: u16, failure: u16, repairs: u16, messages: u16) -> Vec<Stmt> {
        if agent.ensures.is_empty() {
            return vec![self.stmt(StmtKind::Return(value))];
        }
        let (result, broken) = (agent.inputs().len() as u16, self.local());
        let mut out = vec![self.store(result, value), self.store(broken, self.list(Vec::new()))];
        for contract in &agent.ensures {
            let fails = self.made(ExprKind::Not(Box::new(contract.holds.clone())), Ty::Bool);
            let one = self.list(vec![self.text(&contract.text)]);
            let note = self.store(broken, self.binary(Operator::Add, self.load(broken), one, Ty::Any));
            out.push(self.stmt(StmtKind::If(fails, vec![note], Vec::new())));
        }
        let joined = |between: &str| self.standard("list.join", vec![self.load(broken), self.text(between)]);
        let none = self.binary(Operator::Eq, self.load(broken), self.list(Vec::new()), Ty::Bool);
        let done = self.stmt(StmtKind::Return(Expr::local(result, agent.result.clone(), self.at)));
        let message = vec![self.text("`ensures` does not hold: "), joined("; ")];
        let message = self.made(ExprKind::Concat(message), Ty::Str);
        let error = self.standard("core.error", vec![self.text("contract_violated"), message]);
        let is_last = self.binary(Operator::Ge, self.int_local(repairs), self.int(i64::from(agent.repair)), Ty::Bool);
        let raise = self.stmt(StmtKind::Expr(self.made(ExprKind::Raise(Box::new(self.load(failure))), Ty::Never)));
        let asked = self.made(
            ExprKind::Concat(vec![
                self.text("This must hold of the answer, and does not:\n- "),
                joined("\n- "),
                self.text("\nAnswer again, with the whole corrected answer and no other words."),
            ]),
            Ty::Str,
        );
        let turn = self.list(vec![
            self.message("assistant", self.field(self.load(reply), "text"), self.field(self.load(reply), "from")),
            self.message("user", asked, self.int(FROM_MACHINE)),
        ]);
        out.extend([
            self.stmt(StmtKind::If(none, vec![done], Vec::new())),
            self.store(failure, error),
            self.stmt(StmtKind::If(is_last, vec![raise], Vec::new())),
            self.stmt(StmtKind::Increment(repairs, 1)),
            self.store(messages, self.binary(Operator::Add, self.load(messages), turn, Ty::Any)),
            self.stmt(StmtKind::Continue),
        ]);
        out
    }

    /// The same model again after a wait, the next model, or the end.
    fn on_error(&self, agent: &Agent, error: u16, failure: u16, tries: u16) -> Vec<Stmt> {
        let mut handler = vec![self.store(failure, self.load(error))];
        let is_transient = || self.made(ExprKind::IsTransient(Box::new(self.load(error))), Ty::Bool);
        handler.extend(self.again_if_transient(&agent.backoff, error, tries));
        let either = |a: Expr, b: Expr| self.made(ExprKind::Or(Box::new(a), Box::new(b)), Ty::Bool);
        let is_this_models =
            either(either(is_transient(), self.has_code(error, "refused")), self.has_code(error, "output_invalid"));
        handler.push(self.stmt(StmtKind::If(is_this_models, vec![self.stmt(StmtKind::Break)], Vec::new())));
        handler.push(self.raise(self.load(error)));
        handler
    }
}
