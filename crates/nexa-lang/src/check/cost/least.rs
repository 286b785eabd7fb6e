//! What every run that ends with a value needs.
//!
//! Each way through a function is followed to where it goes on, returns, or leaves its loop; a way that raises ends no
//! run well. What may fail and is caught counts only as far as it happens before anything can fail.

use std::collections::BTreeMap;

use nexa_types::{Budget, UsdMicro};

use super::most::length_of;
use super::{Amounts, Prices, price_by_name, price_of};
use crate::hir::{Const, Expr, ExprKind, Fork, Forked, Operator, Part, Program, Stmt, StmtKind, Target};

/// The least of each way that something can end; nothing for a way that there is not.
#[derive(Clone, Copy, Debug)]
struct Ways {
    goes_on: Option<Amounts>,
    returns: Option<Amounts>,
    leaves_loop: Option<Amounts>,
}

impl Ways {
    const NONE: Ways = Ways { goes_on: None, returns: None, leaves_loop: None };

    fn goes_on(amounts: Amounts) -> Self {
        Ways { goes_on: Some(amounts), ..Self::NONE }
    }

    fn then(self, next: Ways) -> Ways {
        let after = |least: Option<Amounts>| self.goes_on.zip(least).map(|(before, least)| before.then(least));
        Ways {
            goes_on: after(next.goes_on),
            returns: smaller(self.returns, after(next.returns)),
            leaves_loop: smaller(self.leaves_loop, after(next.leaves_loop)),
        }
    }

    fn or(self, other: Ways) -> Ways {
        Ways {
            goes_on: smaller(self.goes_on, other.goes_on),
            returns: smaller(self.returns, other.returns),
            leaves_loop: smaller(self.leaves_loop, other.leaves_loop),
        }
    }

    fn any(self) -> Option<Amounts> {
        smaller(smaller(self.goes_on, self.returns), self.leaves_loop)
    }
}

fn smaller(a: Option<Amounts>, b: Option<Amounts>) -> Option<Amounts> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.smaller(b)),
        (a, b) => a.or(b),
    }
}

/// Lower bounds of the functions and agents of a program.
pub(super) struct LeastOf<'p> {
    program: &'p Program,
    prices: &'p Prices,
    /// By function, and whether a budget may keep what is caught from being done.
    functions: BTreeMap<(u32, bool), Option<Amounts>>,
    is_capped: bool,
}

impl<'p> LeastOf<'p> {
    pub(super) fn new(program: &'p Program, prices: &'p Prices) -> Self {
        LeastOf { program, prices, functions: BTreeMap::new(), is_capped: false }
    }

    /// An agent's run: one request, which sets tokens aside even if an earlier answer will do. Of several runs each makes one, and the judge what it needs.
    pub(super) fn agent(&mut self, number: u32) -> Amounts {
        let program = self.program;
        let Some(agent) = program.agents.get(number as usize) else { return Amounts::NOTHING };
        if let Some(best_of) = &agent.best_of {
            // All of them have the same share of the budget: if it lets none ask, the agent fails as a whole.
            let run = self.agent(best_of.run);
            let runs = Amounts { requests: run.requests.saturating_mul(u64::from(best_of.count)), ..run };
            return runs.then(self.expr(&best_of.chosen).any().unwrap_or(Amounts::NOTHING));
        }
        let tokens = agent.sampling.max_tokens;
        let price = |model: &String| price_by_name(self.prices, model).map(|price| price_of(tokens, price.output));
        let prices: Option<Vec<_>> = agent.models.iter().map(price).collect();
        if agent.cache {
            return Amounts { requests: 0, tokens, cost: Some(UsdMicro(0)) };
        }
        Amounts { requests: 1, tokens, cost: prices.and_then(|prices| prices.into_iter().min()) }
    }

    /// A flow that is started as an agent of its own.
    pub(super) fn run_of(&mut self, flow: u32, budget: &Budget) -> Amounts {
        self.is_capped = *budget != Budget::default();
        self.function(flow)
    }

    pub(super) fn function(&mut self, number: u32) -> Amounts {
        let key = (number, self.is_capped);
        match self.functions.get(&key) {
            Some(known) => return known.unwrap_or(Amounts::NOTHING),
            None => self.functions.insert(key, None),
        };
        let Some(function) = self.program.functions.get(number as usize) else { return Amounts::NOTHING };
        let ways = self.statements(&function.body);
        let least = smaller(ways.goes_on, ways.returns).unwrap_or(Amounts::NOTHING);
        self.functions.insert(key, Some(least));
        least
    }

    fn statements(&mut self, statements: &'p [Stmt]) -> Ways {
        let mut ways = Ways::goes_on(Amounts::NOTHING);
        for (place, stmt) in statements.iter().enumerate() {
            if ways.goes_on.is_none() {
                break;
            }
            let before = place.checked_sub(1).and_then(|place| statements.get(place));
            let next = self.statement(stmt, before);
            ways = ways.then(next);
        }
        ways
    }

    /// A statement and the one before it.
    fn statement(&mut self, stmt: &'p Stmt, before: Option<&Stmt>) -> Ways {
        match &stmt.kind {
            StmtKind::Store(_, value) | StmtKind::Unpack(value, _) | StmtKind::Expr(value) => self.expr(value),
            StmtKind::Return(value) => {
                let ways = self.expr(value);
                Ways { goes_on: None, returns: smaller(ways.returns, ways.goes_on), ..ways }
            }
            StmtKind::Increment(..) => Ways::goes_on(Amounts::NOTHING),
            StmtKind::Break | StmtKind::Continue => Ways { leaves_loop: Some(Amounts::NOTHING), ..Ways::NONE },
            StmtKind::If(condition, then, other) => {
                let either = self.statements(then).or(self.statements(other));
                self.expr(condition).then(either)
            }
            StmtKind::While(condition, body) => {
                let first = self.expr(condition);
                let round = self.statements(body);
                let once = Ways { goes_on: smaller(round.goes_on, round.leaves_loop), leaves_loop: None, ..round };
                if runs_once(condition, before) {
                    first.then(once)
                } else {
                    first.then(once.or(Ways::goes_on(Amounts::NOTHING)))
                }
            }
            StmtKind::ForEach(walk) => {
                let over = self.expr(&walk.over);
                let round = self.statements(&walk.body);
                let once = Ways { goes_on: smaller(round.goes_on, round.leaves_loop), leaves_loop: None, ..round };
                let rounds = match length_of(&walk.over) {
                    Some(length) if length > 0 => {
                        let is_whole = round.returns.is_none() && round.leaves_loop.is_none();
                        let all = |least: Amounts| Amounts { requests: least.requests.saturating_mul(length), ..least };
                        if is_whole { Ways { goes_on: round.goes_on.map(all), ..round } } else { once }
                    }
                    _ => once.or(Ways::goes_on(Amounts::NOTHING)),
                };
                over.then(rounds)
            }
            StmtKind::Try(body, _, handler) => {
                let caught = Ways::goes_on(self.sure_of(body)).then(self.statements(handler));
                self.statements(body).or(caught)
            }
            StmtKind::Defer(deferred, rest) => {
                let least = self.statements(deferred).any().unwrap_or(Amounts::NOTHING);
                let after = |way: Option<Amounts>| way.map(|way| way.then(least));
                let ways = self.statements(rest);
                Ways {
                    goes_on: after(ways.goes_on),
                    returns: after(ways.returns),
                    leaves_loop: after(ways.leaves_loop),
                }
            }
            StmtKind::Timed(span, body) => self.expr(span).then(self.statements(body)),
            StmtKind::Block(body) => self.statements(body),
        }
    }

    fn expr(&mut self, expr: &'p Expr) -> Ways {
        let own = match &expr.kind {
            ExprKind::Raise(_) | ExprKind::Unreachable | ExprKind::Restore(_) => return Ways::NONE,
            ExprKind::And(left, _) | ExprKind::Or(left, _) | ExprKind::Coalesce(left, _) => return self.expr(left),
            ExprKind::If(..) => return self.choice(expr),
            ExprKind::Block(statements, value) => {
                let before = self.statements(statements);
                return if before.goes_on.is_some() { before.then(self.expr(value)) } else { before };
            }
            ExprKind::Try(value) => {
                let sure = self.sure(value);
                return Ways::goes_on(sure);
            }
            ExprKind::Rescue(rescue) => {
                let caught = Ways::goes_on(self.sure(&rescue.value)).then(self.expr(&rescue.substitute));
                return self.expr(&rescue.value).or(caught);
            }
            ExprKind::Call(function, _) => self.function(*function),
            ExprKind::Run(agent, _) => self.agent(*agent),
            ExprKind::CallValue(callee, _) => self.called(callee),
            ExprKind::Ask(_) => Amounts { requests: 1, tokens: 0, cost: Some(UsdMicro(0)) },
            ExprKind::Fork(fork) => self.forked(fork),
            _ => Amounts::NOTHING,
        };
        let mut ways = Ways::goes_on(Amounts::NOTHING);
        let mut parts = Vec::new();
        expr.parts(&mut parts);
        for part in parts {
            if let Part::Expr(part) = part {
                ways = ways.then(self.expr(part));
            }
        }
        ways.then(Ways::goes_on(own))
    }

    fn choice(&mut self, expr: &'p Expr) -> Ways {
        let (mut before, mut ways) = (Ways::goes_on(Amounts::NOTHING), Ways::NONE);
        let mut rest = expr;
        while let ExprKind::If(condition, then, other) = &rest.kind {
            before = before.then(self.expr(condition));
            ways = ways.or(before.then(self.expr(then)));
            rest = other;
        }
        ways.or(before.then(self.expr(rest)))
    }

    fn called(&mut self, callee: &'p Expr) -> Amounts {
        match &callee.kind {
            ExprKind::Agent(agent) => self.agent(*agent),
            ExprKind::Partial(inner, ..) => self.called(inner),
            ExprKind::Chain(stages) => {
                stages.iter().fold(Amounts::NOTHING, |least, stage| least.then(self.called(stage)))
            }
            ExprKind::Closure(function, _) => self.function(*function),
            _ => Amounts::NOTHING,
        }
    }

    /// What is done even if it fails.
    fn sure(&mut self, expr: &'p Expr) -> Amounts {
        match &expr.kind {
            ExprKind::Run(agent, args) if args.iter().all(is_there) => self.sure_agent(*agent),
            ExprKind::Unwrap(value) | ExprKind::Check(value) | ExprKind::Field(value, _) => self.sure(value),
            ExprKind::Rescue(rescue) => self.sure(&rescue.value),
            _ => Amounts::NOTHING,
        }
    }

    fn sure_of(&mut self, body: &'p [Stmt]) -> Amounts {
        match body.first().map(|stmt| &stmt.kind) {
            Some(StmtKind::Store(_, value) | StmtKind::Expr(value) | StmtKind::Return(value)) => self.sure(value),
            _ => Amounts::NOTHING,
        }
    }

    /// Branches that run side by side.
    fn forked(&mut self, fork: &'p Fork) -> Amounts {
        match fork.gives {
            // So many end ok, and the others may be ended before they have done anything.
            Forked::First(wanted) => {
                let cheapest = fork.branches.iter().map(|branch| self.called(branch)).reduce(Amounts::smaller);
                let cheapest = cheapest.unwrap_or(Amounts::NOTHING);
                (1..wanted).fold(cheapest, |least, _| least.then(cheapest))
            }
            // A branch may be over before it does anything.
            Forked::Nothing => Amounts::NOTHING,
            _ if fork.timeout.is_some() => Amounts::NOTHING,
            Forked::List | Forked::Record(_) => {
                fork.branches.iter().fold(Amounts::NOTHING, |least, branch| least.then(self.sure_call(branch)))
            }
        }
    }

    /// A branch, whose failure is a value.
    fn sure_call(&mut self, branch: &'p Expr) -> Amounts {
        match &branch.kind {
            ExprKind::Agent(agent) => self.sure_agent(*agent),
            ExprKind::Partial(inner, ..) => self.sure_call(inner),
            // A budget may keep it from asking at all.
            ExprKind::Closure(number, _)
                if self.program.apart.iter().any(|flow| flow.target == Target::Flow(*number)) =>
            {
                Amounts::NOTHING
            }
            ExprKind::Closure(number, _) => match self.program.functions.get(*number as usize) {
                Some(function) => self.sure_of(&function.body),
                None => Amounts::NOTHING,
            },
            _ => Amounts::NOTHING,
        }
    }

    fn sure_agent(&mut self, number: u32) -> Amounts {
        let has_budget =
            self.program.agents.get(number as usize).is_some_and(|agent| agent.budget != Budget::default());
        // A condition that does not hold keeps it from asking at all.
        let is_held = self.program.agents.get(number as usize).is_some_and(|agent| !agent.requires.is_empty());
        if self.is_capped || has_budget || is_held { Amounts::NOTHING } else { self.agent(number) }
    }
}

/// Whether evaluating it cannot fail.
fn is_there(expr: &Expr) -> bool {
    matches!(expr.kind, ExprKind::Local(_)) || expr.is_inert()
}

/// Whether a loop's body runs before its condition counts: `loop` asks first whether its counter, which it has just set,
/// is zero.
fn runs_once(condition: &Expr, before: Option<&Stmt>) -> bool {
    let is_zero = |expr: &Expr| matches!(expr.kind, ExprKind::Const(Const::Int(0)));
    let ExprKind::Or(first, _) = &condition.kind else {
        return matches!(condition.kind, ExprKind::Const(Const::Bool(true)));
    };
    let ExprKind::Binary(Operator::Eq, count, zero) = &first.kind else { return false };
    let (ExprKind::Local(counter), Some(Stmt { kind: StmtKind::Store(set, value), .. })) = (&count.kind, before) else {
        return false;
    };
    counter == set && is_zero(zero) && is_zero(value)
}
