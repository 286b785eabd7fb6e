//! What runs where and when.
//!
//! In:  a [`Problem`] (graph, cluster, settings, budgets of models, what has run so far, the time, a seed) and the plan
//!      before this one.
//! Out: a [`SchedulePlan`]: a node and a time for each task, or a [`PlanError`] that names who fits nowhere.
//!
//! ```text
//! problem ─► setting ─► candidates ─► the best ─► beside the previous plan ─► slots ─► plan
//!            (what is    (serial, forward,         (kept unless the gain
//!             free)       search)                   exceeds a margin)
//! ```
//!
//! Holds for every plan, said by [`check`]: capacity, dependencies with transfers, gangs, concurrency and budgets are
//! kept; what has started stays where it is; the same problem gives the same plan; a plan solved again with itself as the
//! previous one keeps every place.
//!
//! Not here: carrying it out, and moving what runs (`rebalance`).

mod check;
mod dice;
mod forward;
#[cfg(test)]
mod growth;
mod ledger;
mod lines;
mod moments;
mod nodes;
mod search;
mod serial;
mod setting;
mod tasks;
mod turn;

use std::collections::BTreeMap;

use nexa_types::{Millis, NodeId};
use thiserror::Error;

use crate::graph::NONE;
use crate::rank::critical_path;
use crate::{Cluster, LoadBalanceStrategy, ProviderBudget, SchedulerConfig, TaskGraph};

pub use check::{Violation, check};
pub(crate) use ledger::Hold;
use serial::{Place, Serial};
pub(crate) use setting::Setting;
use turn::Turn;

/// How much longer a plan may take than the best one found before it is given up for that one, in percent.
pub const KEEP_MARGIN_PERCENT: u64 = 5;

/// What is to be planned.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// The tasks.
    pub graph: &'a TaskGraph,
    /// The nodes.
    pub cluster: &'a Cluster,
    /// Strategy, concurrency and priority levels.
    pub config: &'a SchedulerConfig,
    /// What providers take, over all nodes. One that is not named takes everything.
    pub budgets: &'a [ProviderBudget],
    /// What has run so far, by task; empty if nothing has.
    pub progress: &'a [Progress],
    /// The time; nothing is planned before it.
    pub now: Millis,
    /// The same seed gives the same plan.
    pub seed: u64,
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It has not started.
    Waiting,
    /// It runs, and stays where it is.
    Running {
        /// Where.
        node: u32,
        /// When it started.
        since: Millis,
    },
    /// It is over.
    Ended {
        /// Where its result is.
        node: u32,
        /// When it ended.
        at: Millis,
    },
}

/// Where and when a task runs: from `start` until just before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The node, by its place in the cluster.
    pub node: u32,
    /// When it starts, or started. Of a task that is over: its end less what it was expected to take.
    pub start: Millis,
    /// When it ends, or ended, or is expected to.
    pub end: Millis,
}

/// What runs where and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulePlan {
    /// The tasks by stage: the longest way, in dependencies, from one that waits for nobody.
    pub stages: Vec<Vec<u32>>,
    /// Where and when, by task.
    pub allocation: Vec<Slot>,
    /// The longest way through the graph with durations and transfers as placed, from its first task to its last.
    pub critical_path: Vec<u32>,
    /// From now until the last end; 0 if all is over.
    pub estimated_total_time: Millis,
    /// No plan takes less, from now on.
    pub lower_bound: Millis,
}

impl SchedulePlan {
    /// The same plan, to be the previous one for a cluster in which nodes came or went: they are named by their places,
    /// which change with that, and are found again by their ids. What was on a node that is gone is on node `u32::MAX`,
    /// which there is not, and so will be planned anew.
    #[must_use]
    pub fn renumbered(&self, before: &Cluster, now: &Cluster) -> Self {
        let places: BTreeMap<&NodeId, u32> = now.nodes.iter().map(|node| &node.id).zip(0u32..).collect();
        let place = |node: u32| before.nodes.get(node as usize).and_then(|node| places.get(&node.id));
        let slot = |slot: &Slot| Slot { node: place(slot.node).copied().unwrap_or(NONE), ..*slot };
        Self { allocation: self.allocation.iter().map(slot).collect(), ..self.clone() }
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// There is no node.
    #[error("there is no node to run anything on: add one")]
    NoNodes,
    /// An agent fits on no node, even an empty one.
    #[error("agent {agent:?} fits nowhere: {why}")]
    DoesNotFit {
        /// Its id.
        agent: String,
        /// What is not there.
        why: String,
    },
    /// Its members fit on no nodes together, even empty ones.
    #[error("gang {gang:?} with {members} members that start together fits nowhere: {why}")]
    GangDoesNotFit {
        /// The gang.
        gang: String,
        /// How many of them have not started.
        members: usize,
        /// What is not there.
        why: String,
    },
    /// What is said to have run cannot have.
    #[error("what has run does not go with the graph: {why}")]
    ProgressMismatch {
        /// What is wrong.
        why: String,
    },
}

/// Where and when each task that has not started runs. What has started stays; a `previous` plan of the same number of
/// tasks is kept, place by place, unless another takes less by more than [`KEEP_MARGIN_PERCENT`]. A `max_concurrent_agents`
/// of 0 is taken for 1.
///
/// # Errors
/// If there is no node, somebody fits nowhere, or `progress` does not go with the graph and the time.
pub fn plan(problem: &Problem, previous: Option<&SchedulePlan>) -> Result<SchedulePlan, PlanError> {
    let setting = Setting::new(problem)?;
    let graph = problem.graph;
    let lower_bound = crate::bound::lower_bound(&setting);
    let slots = choose(&setting, lower_bound, previous);
    let end = slots.iter().map(|slot| slot.end).max().unwrap_or_default();
    let duration = |task: u32| slots[task as usize].end - slots[task as usize].start;
    let transfer = |from: u32, to: u32| match slots[from as usize].node == slots[to as usize].node {
        true => Millis(0),
        false => Millis(setting.transfer(from)),
    };
    let plan = SchedulePlan {
        stages: graph.stages(),
        critical_path: critical_path(graph, duration, transfer),
        estimated_total_time: end - problem.now,
        lower_bound,
        allocation: slots,
    };
    debug_assert_eq!(check(problem, &plan), Ok(()));
    Ok(plan)
}

/// Tasks times nodes, and tasks, up to which plans are made one task after the other and searched for a better one.
const SEARCH_CELLS_MAX: usize = 200_000;
const SEARCH_TASKS_MAX: usize = 4_000;

/// Tasks up to which HEFT's plan is made beside the one in a single pass, and looks for room until it is given up: some
/// twenty milliseconds.
const TEXTBOOK_TASKS_MAX: usize = 5_000;
const TEXTBOOK_LOOKS_MAX: u64 = 500_000;

fn choose(setting: &Setting, lower_bound: Millis, previous: Option<&SchedulePlan>) -> Vec<Slot> {
    let (now, tasks) = (setting.now(), setting.problem.graph.len());
    let strategy = setting.problem.config.load_balance_strategy;
    let is_adaptive = strategy == LoadBalanceStrategy::Adaptive;
    let is_small = tasks <= SEARCH_TASKS_MAX && setting.cells() <= SEARCH_CELLS_MAX;
    let bearable = |end: u64| now.saturating_add((end - now).saturating_mul(100 + KEEP_MARGIN_PERCENT) / 100);
    let previous = previous.filter(|previous| previous.allocation.len() == tasks);

    let mut kept = previous.map(|previous| Kept::new(setting, previous));
    let bound = now.saturating_add(lower_bound.0);
    let mut kept_end = u64::MAX;
    if let Some(kept) = &mut kept {
        let place = if is_adaptive && is_small { Place::Kept(&kept.nodes) } else { Place::InTurn(&kept.nodes) };
        kept_end = kept.serial.run(&kept.order, &place).unwrap_or(u64::MAX);
        if kept_end <= bearable(bound) {
            return kept.serial.slots().to_vec();
        }
    }
    let (end, fresh) = match is_adaptive && is_small {
        true => search::Search::new(setting, bound).run(),
        false if is_adaptive => {
            let ways = forward::both_ways(setting, bound);
            let is_worth_it = ways.0 > bound && tasks <= TEXTBOOK_TASKS_MAX;
            let textbook = is_worth_it.then(|| search::heft(setting, TEXTBOOK_LOOKS_MAX)).flatten();
            textbook.filter(|textbook| textbook.0 < ways.0).unwrap_or(ways)
        }
        false => forward::forward(setting, Turn::new(setting, strategy), bound),
    };
    let Some(mut kept) = kept else { return fresh };
    if kept_end <= bearable(end) {
        return kept.serial.slots().to_vec();
    }
    if is_small && is_adaptive {
        let gain = (end - now) * KEEP_MARGIN_PERCENT / 100;
        let order = setting.order_by(&setting.unit_values(turn::mean_ranks(setting)));
        let loyal = kept.serial.run(&order, &Place::Loyal(&kept.nodes, gain));
        // What moves must gain enough over keeping all, too.
        if loyal.is_some_and(|loyal| loyal <= bearable(end) && kept_end > bearable(loyal)) {
            return kept.serial.slots().to_vec();
        }
    }
    fresh
}

/// What a previous plan says about what has not started.
struct Kept<'s> {
    serial: Serial<'s>,
    /// The order in which it starts.
    order: Vec<u32>,
    /// Where, by task; [`NONE`] where that is no longer possible.
    nodes: Vec<u32>,
}

impl<'s> Kept<'s> {
    fn new(setting: &'s Setting<'s>, previous: &SchedulePlan) -> Self {
        let place = |(task, slot): (u32, &Slot)| {
            let fits = !setting.has_started(task) && setting.fits_on(task, slot.node);
            if fits { slot.node } else { NONE }
        };
        let starts = setting.unit_values(|task| u64::MAX - previous.allocation[task as usize].start.0);
        Self {
            serial: Serial::new(setting, u64::MAX),
            order: setting.order_by(&starts),
            nodes: (0u32..).zip(&previous.allocation).map(place).collect(),
        }
    }
}
