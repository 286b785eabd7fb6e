//! Whether a plan keeps what it must.
//!
//! Works on slots alone, by sorting what begins and ends, and so says the same of a plan made by anybody.

use nexa_types::Millis;
use thiserror::Error;

use super::setting::Setting;
use super::{PlanError, Problem, SchedulePlan};
use crate::graph::NONE;
use crate::timeline::KINDS;

/// What a plan breaks. Tasks and nodes by their place, times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Violation {
    /// There is no plan for this problem at all.
    #[error("the problem has no plan")]
    Problem(#[source] PlanError),
    /// It is not about all tasks.
    #[error("the plan is about {planned} tasks, and there are {tasks}")]
    Tasks {
        /// In the plan.
        planned: usize,
        /// In the graph.
        tasks: usize,
    },
    /// The node is not there, is cordoned, has not the labels, or is too small.
    #[error("task {task} is on node {node}, where it does not fit")]
    Node {
        /// The task.
        task: u32,
        /// Its node.
        node: u32,
    },
    /// It takes another time than it takes there, or starts before now.
    #[error("task {task} runs from {start} to {end} ms, which its node or the clock does not allow")]
    Time {
        /// The task.
        task: u32,
        /// Its start.
        start: Millis,
        /// Its end.
        end: Millis,
    },
    /// What has started is somewhere else, or at another time.
    #[error("task {task} has started, and the plan has it elsewhere")]
    Moved {
        /// The task.
        task: u32,
    },
    /// It starts before a result is there.
    #[error("task {task} starts at {start} ms, and the result of task {dependency} arrives at {arrival} ms")]
    Dependency {
        /// The task.
        task: u32,
        /// What it waits for.
        dependency: u32,
        /// Its start.
        start: Millis,
        /// When the result is there.
        arrival: Millis,
    },
    /// Members start at different times.
    #[error("tasks {one} and {other} are of one gang and start at different times")]
    Gang {
        /// A member.
        one: u32,
        /// Another.
        other: u32,
    },
    /// More is held on a node than it has.
    #[error("node {node} holds more {what} at {at} ms than it has")]
    Capacity {
        /// The node.
        node: u32,
        /// Of what.
        what: &'static str,
        /// When.
        at: Millis,
    },
    /// More is held of what all share than there is: agents at once, or what a provider takes.
    #[error("more is asked for at {at} ms than allowed: {limit}")]
    Shared {
        /// The limit.
        limit: String,
        /// When.
        at: Millis,
    },
    /// The whole takes another time than the plan says, or less than is possible.
    #[error("the plan says {said} ms, and its last task ends after {found} ms; nothing ends before {bound} ms")]
    Total {
        /// What it says.
        said: Millis,
        /// What its slots say.
        found: Millis,
        /// The lower bound.
        bound: Millis,
    },
}

/// Something held: when, how much, and whether a task holds it that has not started.
struct Held {
    from: u64,
    until: u64,
    amount: u64,
    is_planned: bool,
}

/// Whether a plan keeps capacity, dependencies with transfers, gangs, concurrency, budgets of models and what has
/// started.
///
/// # Errors
/// The first thing it breaks. What running tasks hold beyond capacity is no fault of a plan that adds nothing to it.
pub fn check(problem: &Problem, plan: &SchedulePlan) -> Result<(), Violation> {
    let setting = Setting::new(problem).map_err(Violation::Problem)?;
    let graph = problem.graph;
    if plan.allocation.len() != graph.len() {
        return Err(Violation::Tasks { planned: plan.allocation.len(), tasks: graph.len() });
    }
    for (task, slot) in (0u32..).zip(&plan.allocation) {
        if setting.unit_of[task as usize] == NONE {
            if *slot != setting.started[task as usize] {
                return Err(Violation::Moved { task });
            }
            continue;
        }
        let (start, end) = (slot.start, slot.end);
        if !setting.fits_on(task, slot.node) {
            return Err(Violation::Node { task, node: slot.node });
        }
        let taking =
            problem.cluster.nodes[slot.node as usize].duration(graph.agents()[task as usize].estimated_duration);
        if start < problem.now || end != start + taking {
            return Err(Violation::Time { task, start, end });
        }
        for &dependency in graph.dependencies(task) {
            let before = &plan.allocation[dependency as usize];
            let bytes = graph.agents()[dependency as usize].result_bytes;
            let is_here = before.node == slot.node;
            let arrival = before.end + if is_here { Millis(0) } else { problem.cluster.network.duration(bytes) };
            if start < arrival {
                return Err(Violation::Dependency { task, dependency, start, arrival });
            }
        }
    }
    for unit in 0..setting.units.len() as u32 {
        let members = setting.units.row(unit);
        let start = |task: u32| plan.allocation[task as usize].start;
        if let Some(&other) = members.iter().find(|&&member| start(member) != start(members[0])) {
            return Err(Violation::Gang { one: members[0], other });
        }
    }
    capacity(&setting, plan)?;
    shared(&setting, plan)?;
    let found = plan.allocation.iter().map(|slot| slot.end).max().unwrap_or_default() - problem.now;
    let (said, bound) = (plan.estimated_total_time, plan.lower_bound);
    if found == said && bound <= said { Ok(()) } else { Err(Violation::Total { said, found, bound }) }
}

fn capacity(setting: &Setting, plan: &SchedulePlan) -> Result<(), Violation> {
    let mut on: Vec<Vec<u32>> = vec![Vec::new(); setting.capacity.len()];
    for (task, slot) in (0u32..).zip(&plan.allocation) {
        if slot.end > setting.problem.now {
            on[slot.node as usize].push(task);
        }
    }
    for (node, tasks) in (0u32..).zip(&on) {
        for (kind, what) in ["cores", "memory", "model slots"].into_iter().enumerate().take(KINDS) {
            let held = tasks.iter().map(|&task| {
                let slot = &plan.allocation[task as usize];
                let amount = setting.demand(task)[kind];
                let is_planned = setting.unit_of[task as usize] != NONE;
                Held { from: slot.start.0.max(setting.now()), until: slot.end.0, amount, is_planned }
            });
            if let Some(at) = overuse(held, setting.capacity[node as usize][kind]) {
                return Err(Violation::Capacity { node, what, at: Millis(at) });
            }
        }
    }
    Ok(())
}

fn shared(setting: &Setting, plan: &SchedulePlan) -> Result<(), Violation> {
    let mut of: Vec<Vec<Held>> = setting.ledgers.each.iter().map(|_| Vec::new()).collect();
    for (task, slot) in (0u32..).zip(&plan.allocation) {
        for hold in setting.ledgers.holds(task) {
            of[hold.ledger as usize].push(Held {
                from: slot.start.0.max(setting.now()),
                until: hold.span.map_or(slot.end.0, |span| slot.start.0.saturating_add(span)),
                amount: hold.amount,
                is_planned: setting.unit_of[task as usize] != NONE,
            });
        }
    }
    for (held, (capacity, limit)) in of.into_iter().zip(&setting.ledgers.each) {
        if let Some(at) = overuse(held.into_iter(), *capacity) {
            return Err(Violation::Shared { limit: limit.clone(), at: Millis(at) });
        }
    }
    Ok(())
}

/// The first moment at which more is held than there is, and a planned task holds some of it.
fn overuse(held: impl Iterator<Item = Held>, capacity: u64) -> Option<u64> {
    let mut changes: Vec<(u64, i128, i128)> = Vec::new();
    for held in held.filter(|held| held.from < held.until && held.amount > 0) {
        let (amount, planned) = (i128::from(held.amount), i128::from(held.is_planned));
        changes.push((held.from, amount, planned));
        changes.push((held.until, -amount, -planned));
    }
    changes.sort_unstable();
    let (mut sum, mut planned) = (0i128, 0i128);
    for of_moment in changes.chunk_by(|one, other| one.0 == other.0) {
        for &(_, amount, is_planned) in of_moment {
            sum += amount;
            planned += is_planned;
        }
        if sum > i128::from(capacity) && planned > 0 {
            return Some(of_moment[0].0);
        }
    }
    None
}
