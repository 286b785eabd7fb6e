//! What all nodes share: how many agents run at once, and what providers of models take.
//!
//! Concurrency is held while a task runs. A rate is a fluid: what a task needs of a minute is held for a minute from its
//! start on; if it runs longer, or needs more than a minute's, a part of it for as long as that. So whatever starts within
//! any minute never needs more than the minute has.

use super::setting::amounts;
use super::tasks::Tasks;
use super::{PlanError, Problem, Progress, Slot};
use crate::graph::Rows;
use crate::timeline::{KINDS, Timeline};

/// Rates are counted in thousandths of a request or token.
const RATE_SCALE: u64 = 1_000;

const MINUTE_MS: u64 = 60_000;

/// What a task holds of one ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) ledger: u32,
    pub(crate) amount: u64,
    /// For how long from its start; while it runs, if not said.
    pub(crate) span: Option<u64>,
}

/// Which of the ledgers there are, what each has, and what each task holds of it.
pub(crate) struct Ledgers {
    /// What each has, and what it is called in words.
    pub(crate) each: Vec<(u64, String)>,
    starts: Vec<u32>,
    holds: Vec<Hold>,
    /// What started tasks hold, by ledger.
    pub(crate) busy: Vec<Timeline>,
}

/// How many agents the nodes can hold at once: what runs, and as many of the least of each need as go onto each node.
fn at_once_max(problem: &Problem, started: &[Slot], tasks: &Tasks) -> u64 {
    let is_running = |slot: &&Slot| slot.node != crate::graph::NONE && slot.end > problem.now;
    let running = match problem.progress {
        [] => 0,
        _ => started.iter().filter(is_running).count() as u64,
    };
    let mut least = [u64::MAX; KINDS];
    for shape in tasks.shapes().iter().filter(|shape| shape.is_waiting) {
        for (least, need) in least.iter_mut().zip(shape.demand) {
            *least = need.min(*least);
        }
    }
    let of_node = |node: &crate::NodeInfo| {
        let counts = amounts(&node.capacity).into_iter().zip(least).filter_map(|(has, need)| has.checked_div(need));
        counts.min().unwrap_or(u64::MAX)
    };
    problem.cluster.nodes.iter().map(of_node).fold(running, u64::saturating_add)
}

/// A limit of one provider: its ledger, and whether it is a rate.
struct Limit {
    ledger: u32,
    need: fn(&crate::AgentScheduleInfo, &crate::ModelNeed) -> u64,
    is_rate: bool,
}

impl Ledgers {
    /// # Errors
    /// If a task or a gang needs more of one than there is.
    pub(crate) fn new(problem: &Problem, started: &[Slot], units: &Rows, tasks: &Tasks) -> Result<Self, PlanError> {
        let graph = problem.graph;
        let mut each = Vec::new();
        let at_once = problem.config.max_concurrent_agents.max(1) as u64;
        let unended = problem.progress.iter().filter(|progress| !matches!(progress, Progress::Ended { .. })).count();
        let unended = if problem.progress.is_empty() { graph.len() } else { unended };
        // A limit that nodes keep by themselves is nothing to look at for each agent, and the more there are the more so.
        let everyone = (at_once < unended as u64 && at_once < at_once_max(problem, started, tasks)).then(|| {
            each.push((at_once, format!("{at_once} agents run at once")));
            0
        });
        let mut limits: Vec<(&str, Vec<Limit>)> = Vec::new();
        for budget in problem.budgets {
            let mut of_provider = Vec::new();
            let mut limit = |amount: Option<u64>, what: &str, is_rate: bool, need| {
                if let Some(amount) = amount {
                    of_provider.push(Limit { ledger: each.len() as u32, need, is_rate });
                    let scale = if is_rate { RATE_SCALE } else { 1 };
                    each.push((amount.saturating_mul(scale), format!("{:?} takes {amount} {what}", budget.provider)));
                }
            };
            limit(budget.concurrency, "requests at once", false, |agent, need| match need.requests {
                0 => 0,
                _ => agent.requirements.llm_slots.max(1),
            });
            limit(budget.requests_per_minute, "requests a minute", true, |_, need| need.requests);
            limit(budget.input_tokens_per_minute, "input tokens a minute", true, |_, need| need.input_tokens.0);
            limit(budget.output_tokens_per_minute, "output tokens a minute", true, |_, need| need.output_tokens.0);
            limits.push((&budget.provider, of_provider));
        }
        let mut ledgers =
            Self { busy: vec![Timeline::default(); each.len()], each, starts: Vec::new(), holds: Vec::new() };
        if ledgers.each.is_empty() {
            return Ok(ledgers);
        }
        let mut by_task: Vec<Vec<Hold>> = vec![Vec::new(); graph.len()];
        let alone = (0..graph.len() as u32).filter(|&task| started[task as usize].node != crate::graph::NONE);
        let alone: Vec<[u32; 1]> = alone.map(|task| [task]).collect();
        let waiting = (0..units.len() as u32).map(|unit| (units.row(unit), true));
        for (members, is_waiting) in alone.iter().map(|task| (&task[..], false)).chain(waiting) {
            ledgers.unit_holds(problem, &limits, everyone, members, &mut by_task);
            if is_waiting {
                ledgers.check_unit(problem, members, &by_task)?;
            }
        }
        for (task, slot) in started.iter().enumerate().filter(|(_, slot)| slot.node != crate::graph::NONE) {
            for hold in &by_task[task] {
                let until = hold.span.map_or(slot.end.0, |span| slot.start.0.saturating_add(span));
                ledgers.busy[hold.ledger as usize].hold(problem.now.0, until, &[hold.amount, 0, 0]);
            }
        }
        ledgers.starts.push(0);
        for holds in by_task {
            ledgers.holds.extend(holds);
            ledgers.starts.push(ledgers.holds.len() as u32);
        }
        Ok(ledgers)
    }

    /// What a task holds of which ledger.
    pub(crate) fn holds(&self, task: u32) -> &[Hold] {
        match self.starts.get(task as usize..task as usize + 2) {
            Some(range) => &self.holds[range[0] as usize..range[1] as usize],
            None => &[],
        }
    }

    fn unit_holds(
        &self,
        problem: &Problem,
        limits: &[(&str, Vec<Limit>)],
        everyone: Option<u32>,
        members: &[u32],
        by_task: &mut [Vec<Hold>],
    ) {
        let agents = problem.graph.agents();
        for &task in members {
            by_task[task as usize].extend(everyone.map(|ledger| Hold { ledger, amount: 1, span: None }));
        }
        for (provider, limits) in limits {
            let asking = members.iter().filter_map(|&task| {
                let agent = &agents[task as usize];
                agent.model.as_ref().filter(|need| need.provider == *provider).map(|need| (task, agent, need))
            });
            for limit in limits {
                let needs = asking.clone().map(|(task, agent, need)| (task, agent, (limit.need)(agent, need)));
                let total: u128 = needs.clone().map(|(_, _, need)| u128::from(need)).sum();
                let capacity = self.each[limit.ledger as usize].0;
                let scaled = total.saturating_mul(u128::from(MINUTE_MS * RATE_SCALE));
                let minutes = scaled.div_ceil(u128::from(capacity.max(1)));
                let longest = needs.clone().map(|(_, agent, _)| agent.estimated_duration.0).max().unwrap_or(0);
                let span = u64::try_from(minutes).unwrap_or(u64::MAX).max(longest).max(MINUTE_MS);
                for (task, _, need) in needs.filter(|&(_, _, need)| need > 0) {
                    let part = u128::from(need).saturating_mul(u128::from(RATE_SCALE * MINUTE_MS)) / u128::from(span);
                    let (amount, span) = match limit.is_rate {
                        true => (u64::try_from(part).unwrap_or(u64::MAX).max(u64::from(capacity == 0)), Some(span)),
                        false => (need, None),
                    };
                    by_task[task as usize].push(Hold { ledger: limit.ledger, amount, span });
                }
            }
        }
    }

    fn check_unit(&self, problem: &Problem, members: &[u32], by_task: &[Vec<Hold>]) -> Result<(), PlanError> {
        for (ledger, (capacity, words)) in (0u32..).zip(&self.each) {
            let of_it = members.iter().flat_map(|&task| &by_task[task as usize]).filter(|hold| hold.ledger == ledger);
            let amount = of_it.fold(0u64, |sum, hold| sum.saturating_add(hold.amount));
            if amount > *capacity {
                let agent = &problem.graph.agents()[members[0] as usize];
                return Err(match &agent.gang {
                    Some(gang) if members.len() > 1 => {
                        let why = format!("{words}, and all of them together need more");
                        PlanError::GangDoesNotFit { gang: gang.clone(), members: members.len(), why }
                    }
                    _ => PlanError::DoesNotFit { agent: agent.id.clone(), why: format!("{words}, and it needs more") },
                });
            }
        }
        Ok(())
    }
}
