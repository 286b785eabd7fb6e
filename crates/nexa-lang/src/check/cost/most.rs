//! What no run exceeds.
//!
//! Everything that a function may do counts, whatever path it takes; of two ways that exclude each other the larger
//! one. A value that is called is followed to where it was made, if there is one such place.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use nexa_types::Budget;
use nexa_vm::stdlib::CONDITIONS_MAX;

use super::{Amounts, Prices, QUESTION_TURNS, Unknown, one_question, one_request};
use crate::hir::{
    Asked, At, Const, Entry, Expr, ExprKind, Function, Granted, Item, Operator, Part, Program, Stmt, StmtKind, Target,
};
use crate::types::Ty;

/// Times that a program may go back to a saved state.
const RESTORES_MAX: u64 = 16;
/// Functions inside of each other that are followed with what they capture.
const DEPTH_MAX: u32 = 32;

/// An upper bound, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Most {
    amounts: Amounts,
    unknown: Option<Unknown>,
}

impl Most {
    pub(super) const NOTHING: Most = Most { amounts: Amounts::NOTHING, unknown: None };

    fn known(amounts: Amounts) -> Self {
        Most { amounts, unknown: None }
    }

    fn unknown(at: At, why: impl Into<String>) -> Self {
        Most { amounts: Amounts::NOTHING, unknown: Some(Unknown { at, why: why.into() }) }
    }

    /// Whether it asks no model, for certain.
    pub(super) fn is_nothing(&self) -> bool {
        self.unknown.is_none() && self.amounts.requests == 0
    }

    fn plus(self, other: Most) -> Most {
        Most { amounts: self.amounts.plus(other.amounts), unknown: self.unknown.or(other.unknown) }
    }

    fn larger(self, other: Most) -> Most {
        Most { amounts: self.amounts.larger(other.amounts), unknown: self.unknown.or(other.unknown) }
    }

    fn times(self, count: u64) -> Most {
        Most { amounts: self.amounts.times(count), ..self }
    }

    /// What is told of it without a budget of its own.
    pub(super) fn amounts(&self) -> Amounts {
        self.amounts
    }

    pub(super) fn into_result(self) -> Result<Amounts, Unknown> {
        match self.unknown {
            None => Ok(self.amounts),
            Some(unknown) => Err(unknown),
        }
    }
}

/// What is known of the values of a function: locals that are stored to once, and what it captured.
#[derive(Clone, Default)]
struct Known<'p> {
    locals: BTreeMap<u16, &'p Expr>,
    captures: Captured<'p>,
}

/// Upper bounds of the functions and agents of a program.
pub(super) struct MostOf<'p> {
    program: &'p Program,
    prices: &'p Prices,
    /// By function; nothing while it is being computed.
    functions: BTreeMap<u32, Option<Most>>,
    /// The budgets of flows.
    budgets: BTreeMap<u32, Budget>,
    counts_budgets: bool,
    /// The model that the questions of what is looked at go to.
    asked: &'p str,
    depth: u32,
}

impl<'p> MostOf<'p> {
    pub(super) fn new(program: &'p Program, prices: &'p Prices) -> Self {
        let budget = |entry: &Entry| match entry.target {
            Target::Flow(flow) => Some((flow, entry.budget)),
            Target::Agent(_) => None,
        };
        let budgets = program.entries.iter().filter_map(budget).collect();
        MostOf { budgets, counts_budgets: true, ..Self::without_budgets(program, prices) }
    }

    /// Bounds of what would be done if no budget stopped it.
    pub(super) fn without_budgets(program: &'p Program, prices: &'p Prices) -> Self {
        let (functions, budgets) = (BTreeMap::new(), BTreeMap::new());
        MostOf { program, prices, functions, budgets, counts_budgets: false, asked: "", depth: 0 }
    }

    /// An agent's run with those that stand in for it.
    pub(super) fn agent(&mut self, number: u32) -> Most {
        let mut total = Most::NOTHING;
        let mut next = Some(number);
        // A chain of agents that stand in for each other; the checker lets none lead back to itself.
        for _ in 0..=self.program.agents.len() {
            let Some(agent) = next.and_then(|number| self.program.agents.get(number as usize)) else { break };
            let known = Rc::new(Known::default());
            let around = std::mem::replace(&mut self.asked, agent.first_model());
            if let Some(best_of) = &agent.best_of {
                let mut own = Most::NOTHING;
                for contract in &agent.requires {
                    own = own.plus(self.expr(&contract.holds, &known));
                }
                own = own.plus(self.expr(&best_of.chosen, &known));
                self.asked = around;
                // Who stands in stands in for each run.
                own = own.plus(self.agent(best_of.run).times(u64::from(best_of.count)));
                return total.plus(if self.counts_budgets { self.capped(own, &agent.budget) } else { own });
            }
            let turns = 1 + u64::from(agent.repair);
            let tries = 1 + agent.backoff.len() as u64;
            let calls = if agent.tools.is_empty() { 0 } else { u64::from(agent.max_tool_calls) };
            let requests = turns.saturating_mul(tries).saturating_mul(agent.models.len() as u64);
            let requests = requests.saturating_mul(1 + calls);
            let mut own = Most::known(one_request(agent, self.prices).times(requests));
            // Conditions in words are questions, those on the result at each answer.
            for contract in &agent.requires {
                own = own.plus(self.expr(&contract.holds, &known));
            }
            for contract in &agent.ensures {
                own = own.plus(self.expr(&contract.holds, &known).times(requests));
            }
            if agent.asks_conditions {
                let each = one_question(self.asked, self.prices).times(QUESTION_TURNS);
                let each = each.times(self.conditions(&agent.result, Asked::Every));
                own = own.plus(Most::known(each.times(requests)));
            }
            self.asked = around;
            for offered in &agent.tools {
                let each = match offered.granted {
                    Granted::Flow(flow) => self.function(flow),
                    Granted::Tool(tool) => self.tool(tool),
                };
                own = own.plus(each.times(calls));
            }
            let own = if self.counts_budgets { self.capped(own, &agent.budget) } else { own };
            total = total.plus(own);
            next = agent.fallback;
        }
        total
    }

    /// A call of a tool asks what its contracts say in words.
    fn tool(&mut self, number: u32) -> Most {
        let Some(tool) = self.program.tools.get(number as usize) else { return Most::NOTHING };
        let around = std::mem::take(&mut self.asked);
        let known = Rc::new(Known::default());
        let contracts = tool.requires.iter().chain(&tool.ensures);
        let most = contracts.fold(Most::NOTHING, |most, held| most.plus(self.expr(&held.holds, &known)));
        self.asked = around;
        most
    }

    /// No more than a budget allows. A number of requests bounds what they take, too.
    pub(super) fn capped(&self, most: Most, budget: &Budget) -> Most {
        match (&most.unknown, budget.calls) {
            (None, _) => Most::known(most.amounts.capped(budget)),
            (Some(_), Some(calls)) => {
                let each = self.program.agents.iter().map(|agent| one_request(agent, self.prices));
                let questions = self.program.agents.iter().map(|agent| one_question(agent.first_model(), self.prices));
                let each = each.chain(questions).fold(one_question("", self.prices), Amounts::larger);
                Most::known(each.times(calls).capped(budget))
            }
            (Some(_), None) => most,
        }
    }

    /// Conditions that a model is asked about in one value of a type.
    fn conditions(&self, ty: &Ty, asked: Asked) -> u64 {
        self.program.types.questions(ty, asked).min(CONDITIONS_MAX as u64)
    }

    /// A flow that is started as an agent of its own.
    pub(super) fn run_of(&mut self, flow: u32) -> Most {
        let most = self.function(flow);
        if self.goes_back(flow) { most.times(1 + RESTORES_MAX) } else { most }
    }

    /// A call of a function.
    pub(super) fn function(&mut self, number: u32) -> Most {
        let Some(function) = self.program.functions.get(number as usize) else { return Most::NOTHING };
        match self.functions.get(&number) {
            Some(Some(most)) => return most.clone(),
            Some(None) => {
                let why = format!("`{}` calls itself as often as its input makes it", function.name);
                return Most::unknown(function.at, why);
            }
            None => {}
        }
        self.functions.insert(number, None);
        let most = self.body(function, Vec::new());
        // A function that calls itself and asks nobody asks nobody.
        let most = if asks_nobody(&most, function.at) { Most::NOTHING } else { most };
        let most = self.budgets.get(&number).map_or(most.clone(), |budget| self.capped(most, budget));
        self.functions.insert(number, Some(most.clone()));
        most
    }

    fn body(&mut self, function: &'p Function, captures: Captured<'p>) -> Most {
        if function.is_pure {
            return Most::NOTHING;
        }
        let mut locals = stored_once(&function.body);
        // What a parameter holds at first comes from whoever calls.
        locals.retain(|slot, _| *slot >= u16::from(function.arity));
        let known = Rc::new(Known { locals, captures });
        self.statements(&function.body, &known)
    }

    fn statements(&mut self, statements: &'p [Stmt], known: &Rc<Known<'p>>) -> Most {
        statements.iter().fold(Most::NOTHING, |most, stmt| most.plus(self.statement(stmt, known)))
    }

    fn statement(&mut self, stmt: &'p Stmt, known: &Rc<Known<'p>>) -> Most {
        match &stmt.kind {
            StmtKind::Store(_, value)
            | StmtKind::Unpack(value, _)
            | StmtKind::Expr(value)
            | StmtKind::Return(value) => self.expr(value, known),
            StmtKind::Increment(..) | StmtKind::Break | StmtKind::Continue => Most::NOTHING,
            StmtKind::If(condition, then, other) => {
                let ways = self.statements(then, known).larger(self.statements(other, known));
                self.expr(condition, known).plus(ways)
            }
            StmtKind::While(condition, body) => {
                let round = self.expr(condition, known).plus(self.statements(body, known));
                match rounds_of(body) {
                    _ if round.is_nothing() => Most::NOTHING,
                    // The condition counts after each round, and before the first its left side holds.
                    Some(rounds) => round.times(rounds),
                    None => round.plus(Most::unknown(stmt.at, "how often this loop runs depends on the input")),
                }
            }
            StmtKind::ForEach(walk) => {
                let round = self.statements(&walk.body, known);
                let over = self.expr(&walk.over, known);
                let walked = match &walk.over.kind {
                    ExprKind::Local(slot) => known.locals.get(slot).copied().unwrap_or(&walk.over),
                    _ => &walk.over,
                };
                let length = match &walked.kind {
                    ExprKind::Conditions(ty, asked, _) => Some(self.conditions(ty, *asked)),
                    _ => length_of(walked),
                };
                match length {
                    _ if round.is_nothing() => over,
                    Some(length) => over.plus(round.times(length)),
                    None => {
                        let why = "how many elements there are depends on the input";
                        over.plus(round).plus(Most::unknown(stmt.at, why))
                    }
                }
            }
            StmtKind::Try(body, _, handler) => self.statements(body, known).plus(self.statements(handler, known)),
            StmtKind::Defer(deferred, rest) => self.statements(deferred, known).plus(self.statements(rest, known)),
            StmtKind::Timed(span, body) => self.expr(span, known).plus(self.statements(body, known)),
            StmtKind::Block(body) => self.statements(body, known),
        }
    }

    fn expr(&mut self, expr: &'p Expr, known: &Rc<Known<'p>>) -> Most {
        let mut total = Most::NOTHING;
        // A stack of its own, as chains of operators and of choices may be longer than ours.
        let mut waiting: Vec<Part<'p>> = vec![Part::Expr(expr)];
        while let Some(part) = waiting.pop() {
            let expr = match part {
                Part::Stmt(stmt) => {
                    total = total.plus(self.statement(stmt, known));
                    continue;
                }
                Part::Expr(expr) => expr,
            };
            let own = match &expr.kind {
                ExprKind::If(..) => {
                    total = total.plus(self.choice(expr, known));
                    continue;
                }
                ExprKind::Call(function, _) => self.function(*function),
                ExprKind::Run(agent, _) => self.agent(*agent),
                ExprKind::CallValue(callee, _) => self.called(callee, known, expr.at),
                ExprKind::Fork(fork) => fork
                    .branches
                    .iter()
                    .fold(Most::NOTHING, |most, branch| most.plus(self.child(branch, known, expr.at))),
                ExprKind::Spawn(callee, _) => self.child(callee, known, expr.at),
                ExprKind::Tool(tool, _) => self.tool(*tool),
                ExprKind::Ask(_) => Most::known(one_question(self.asked, self.prices).times(QUESTION_TURNS)),
                // A request that a program makes itself, which only the loops of agents do.
                ExprKind::Model(..) => Most::unknown(expr.at, "a request of its own"),
                _ => Most::NOTHING,
            };
            total = total.plus(own);
            expr.parts(&mut waiting);
        }
        total
    }

    /// `if … else if … else …`, of which one arm is taken.
    fn choice(&mut self, expr: &'p Expr, known: &Rc<Known<'p>>) -> Most {
        let (mut conditions, mut arms) = (Most::NOTHING, Most::NOTHING);
        let mut rest = expr;
        while let ExprKind::If(condition, then, other) = &rest.kind {
            conditions = conditions.plus(self.expr(condition, known));
            arms = arms.larger(self.expr(then, known));
            rest = other;
        }
        conditions.plus(arms.larger(self.expr(rest, known)))
    }

    /// A branch of a fork: an agent of its own, which may go back to a saved state of its own.
    fn child(&mut self, branch: &'p Expr, known: &Rc<Known<'p>>, at: At) -> Most {
        let most = self.called(branch, known, at);
        match &branch.kind {
            ExprKind::Closure(function, _) if self.goes_back(*function) => most.times(1 + RESTORES_MAX),
            _ => most,
        }
    }

    /// A call of a value.
    fn called(&mut self, callee: &'p Expr, known: &Rc<Known<'p>>, at: At) -> Most {
        self.depth += 1;
        let most = if self.depth > DEPTH_MAX {
            Most::unknown(at, "functions are handed on too often to be followed")
        } else {
            self.called_here(callee, known, at)
        };
        self.depth -= 1;
        most
    }

    fn called_here(&mut self, callee: &'p Expr, known: &Rc<Known<'p>>, at: At) -> Most {
        let not_known = || Most::unknown(at, "which function or stage is called here is only known when it runs");
        match &callee.kind {
            ExprKind::Agent(agent) => self.agent(*agent),
            ExprKind::ToolValue(tool) => self.tool(*tool),
            ExprKind::Partial(inner, ..) => self.called(inner, known, at),
            ExprKind::Chain(stages) => {
                stages.iter().fold(Most::NOTHING, |most, stage| most.plus(self.called(stage, known, at)))
            }
            ExprKind::Closure(number, captured) => {
                let Some(function) = self.program.functions.get(*number as usize) else { return not_known() };
                let has_callable = function.captures.iter().any(|ty| matches!(ty, Ty::Function(..) | Ty::Stage(..)));
                if !has_callable || matches!(self.functions.get(number), Some(None)) {
                    return self.function(*number);
                }
                let captures = captured.iter().map(|value| Some((value, Rc::clone(known)))).collect();
                self.body(function, captures)
            }
            ExprKind::Local(slot) => match known.locals.get(slot) {
                Some(value) => self.called(value, known, at),
                None => not_known(),
            },
            ExprKind::Capture(number) => match known.captures.get(usize::from(*number)).cloned().flatten() {
                Some((value, around)) => self.called(value, &around, at),
                None => not_known(),
            },
            ExprKind::Block(_, value) => self.called(value, known, at),
            ExprKind::If(_, then, other) => self.called(then, known, at).larger(self.called(other, known, at)),
            _ => not_known(),
        }
    }

    /// The loops of a function that ask a model and say nowhere how often.
    pub(super) fn unbounded_loops(&mut self, function: &'p Function) -> Vec<At> {
        let mut locals = stored_once(&function.body);
        locals.retain(|slot, _| *slot >= u16::from(function.arity));
        let known = Rc::new(Known { locals, captures: Vec::new() });
        let mut found = Vec::new();
        let mut waiting: Vec<Part<'p>> = function.body.iter().map(Part::Stmt).collect();
        while let Some(part) = waiting.pop() {
            match part {
                Part::Stmt(stmt) => {
                    if let StmtKind::While(condition, body) = &stmt.kind
                        && rounds_of(body).is_none()
                        && !has_counter(body)
                    {
                        let round = self.expr(condition, &known).plus(self.statements(body, &known));
                        if round.amounts.requests > 0 {
                            found.push(stmt.at);
                        }
                    }
                    stmt.parts(&mut waiting);
                }
                Part::Expr(expr) => expr.parts(&mut waiting),
            }
        }
        found
    }

    /// Whether a function, or one that it calls, goes back to a saved state: all that its agent did may be done again.
    fn goes_back(&self, function: u32) -> bool {
        let mut seen = BTreeSet::new();
        let mut waiting = vec![function];
        while let Some(number) = waiting.pop() {
            let Some(function) = self.program.functions.get(number as usize).filter(|_| seen.insert(number)) else {
                continue;
            };
            let is_restore = |part: Part<'_>| matches!(part, Part::Expr(Expr { kind: ExprKind::Restore(_), .. }));
            if Part::any(&function.body, &|_| true, &is_restore) {
                return true;
            }
            waiting.extend(super::graph::callees(function));
        }
        false
    }
}

/// What captures are known to be, and in which function that was.
type Captured<'p> = Vec<Option<(&'p Expr, Rc<Known<'p>>)>>;

/// Whether all that is not known of a function is how often it calls itself.
fn asks_nobody(most: &Most, at: At) -> bool {
    most.amounts.requests == 0 && most.unknown.as_ref().is_some_and(|unknown| unknown.at == at)
}

/// The locals that are stored to in one place, and what is stored there.
pub(crate) fn stored_once(body: &[Stmt]) -> BTreeMap<u16, &Expr> {
    let mut stored: BTreeMap<u16, Option<&Expr>> = BTreeMap::new();
    let mut waiting: Vec<Part<'_>> = body.iter().map(Part::Stmt).collect();
    while let Some(part) = waiting.pop() {
        match part {
            Part::Stmt(stmt) => {
                let mut lost = |slot: u16| {
                    stored.insert(slot, None);
                };
                match &stmt.kind {
                    StmtKind::Store(slot, value) => {
                        stored.entry(*slot).and_modify(|known| *known = None).or_insert(Some(value));
                    }
                    StmtKind::Unpack(_, slots) => slots.iter().flatten().copied().for_each(lost),
                    StmtKind::Try(_, slot, _) => lost(*slot),
                    StmtKind::ForEach(walk) => match &walk.item {
                        Item::One(slot) => lost(*slot),
                        Item::Parts(slots) => slots.iter().flatten().copied().for_each(lost),
                        Item::Nothing => {}
                    },
                    _ => {}
                }
                stmt.parts(&mut waiting);
            }
            Part::Expr(expr) => expr.parts(&mut waiting),
        }
    }
    stored.into_iter().filter_map(|(slot, value)| Some((slot, value?))).collect()
}

/// How often the body of `loop (max: n)` runs: it counts its rounds, and raises an error when they are over.
pub(crate) fn rounds_of(body: &[Stmt]) -> Option<u64> {
    let [Stmt { kind: StmtKind::If(over, raise, _), .. }, Stmt { kind: StmtKind::Increment(counter, 1), .. }, ..] =
        body
    else {
        return None;
    };
    let ExprKind::Binary(Operator::Ge, count, most) = &over.kind else { return None };
    let is_raise =
        matches!(raise.as_slice(), [Stmt { kind: StmtKind::Expr(Expr { kind: ExprKind::Raise(_), .. }), .. }]);
    match (&count.kind, &most.kind) {
        (ExprKind::Local(slot), ExprKind::Const(Const::Int(most))) if slot == counter && is_raise => {
            u64::try_from(*most).ok()
        }
        _ => None,
    }
}

/// Whether it is the body of a `loop` with a `max` that is computed.
fn has_counter(body: &[Stmt]) -> bool {
    let [Stmt { kind: StmtKind::If(over, ..), .. }, Stmt { kind: StmtKind::Increment(counter, 1), .. }, ..] = body
    else {
        return false;
    };
    matches!(&over.kind, ExprKind::Binary(Operator::Ge, count, _)
        if matches!(&count.kind, ExprKind::Local(slot) if slot == counter))
}

/// How many elements there are, where that is written.
pub(crate) fn length_of(over: &Expr) -> Option<u64> {
    let int = |expr: &Expr| match expr.kind {
        ExprKind::Const(Const::Int(int)) => Some(int),
        _ => None,
    };
    match &over.kind {
        ExprKind::List(items) => Some(items.len() as u64),
        ExprKind::Dict(entries) => Some(entries.len() as u64),
        ExprKind::Std(number, args) => match (nexa_vm::stdlib::by_number(*number)?.name, args.as_slice()) {
            ("range", [from, to]) => Some(u64::try_from(int(to)?.saturating_sub(int(from)?)).unwrap_or(0)),
            _ => None,
        },
        _ => None,
    }
}
