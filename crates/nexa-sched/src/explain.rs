//! Why a task is where it is, and what it waits for.
//!
//! Looks at a finished plan, whoever made it: the task is taken out, everything else stays, and it is asked when the task
//! could start here and elsewhere, and what keeps it from starting sooner. So the answer is what a person could check with
//! the plan in hand, and not what a planner thought on its way.
//!
//! What is said of another node is what one task would find there alone, also of a member of a gang.
//!
//! ```text
//! now ── dependency ends ── its result arrives ── the gang is ready ── there is room ── start
//! ```
//!
//! Holds: the waits of a task follow each other from now until its start, without a gap. All of it is data; words are for
//! whoever shows it.

use nexa_types::Millis;
use thiserror::Error;

use crate::graph::NONE;
use crate::plan::Setting;
use crate::timeline::{Amounts, KINDS, Timeline, room};
use crate::{PlanError, Problem, SchedulePlan, Slot};

/// The most waits that are told of one task; the last one goes on until its start.
pub const WAITS_MAX: usize = 16;
/// The most tasks that are named as those that hold what another waits for.
pub const HOLDERS_MAX: usize = 8;
/// The most nodes that are told of one task, the best of them.
pub const ALTERNATIVES_MAX: usize = 16;
/// How often limits are asked in turn for a moment that suits all of them.
const TURNS_MAX: usize = 64;

/// Why nothing is explained.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExplainError {
    /// There is no plan for this problem at all.
    #[error("the problem has no plan")]
    Problem(#[source] PlanError),
    /// The plan is about other tasks or nodes.
    #[error("the plan is about other tasks or nodes than the problem")]
    OtherPlan,
    /// There is no such task.
    #[error("there is no task {task}")]
    NoTask {
        /// The task.
        task: u32,
    },
}

/// Why a task is where it is, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The task.
    pub task: u32,
    /// Where and when it runs.
    pub slot: Slot,
    /// Whether it has started, so that nothing about it is open.
    pub has_started: bool,
    /// Whether the whole would take longer if it did.
    pub is_critical: bool,
    /// The nodes, the one where it would end first in front; at most [`ALTERNATIVES_MAX`]. Nothing of what has started.
    pub alternatives: Vec<Alternative>,
    /// What it waits for, from now until its start; at most [`WAITS_MAX`].
    pub waits: Vec<Wait>,
}

/// A node, and what would become of a task there while all others stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative {
    /// The node.
    pub node: u32,
    /// What would become of it.
    pub outcome: Outcome,
}

/// What would become of a task on a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It could run from then until then.
    Runs {
        /// Its start.
        start: Millis,
        /// Its end.
        end: Millis,
    },
    /// The node takes nothing new.
    Cordoned,
    /// The node lacks a label, or has it with another value.
    Label {
        /// Its name.
        name: String,
        /// The value that is asked for.
        value: String,
    },
    /// The node is too small even when it is empty.
    TooSmall {
        /// Of what it has too little.
        resource: Resource,
        /// What is needed.
        need: u64,
        /// What it has.
        has: u64,
    },
}

/// What is held on a node. Cores in thousandths, memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Cores.
    Cpu,
    /// Memory.
    Memory,
    /// Model requests under way.
    LlmSlots,
}

const RESOURCES: [Resource; KINDS] = [Resource::Cpu, Resource::Memory, Resource::LlmSlots];

/// A part of the time before a task starts, and what it waits for then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Since when.
    pub from: Millis,
    /// Until when.
    pub until: Millis,
    /// For what.
    pub reason: WaitReason,
}

/// What a task waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitReason {
    /// Another task must end; of several the one whose result is there last.
    Dependency {
        /// The task.
        task: u32,
    },
    /// A result is on its way from another node.
    Transfer {
        /// The task whose result it is.
        task: u32,
    },
    /// A member of its gang cannot start yet.
    Gang {
        /// The member.
        task: u32,
    },
    /// Its node has no room.
    Capacity {
        /// For what.
        resource: Resource,
        /// Who holds it, the last to end first; at most [`HOLDERS_MAX`].
        holders: Vec<u32>,
    },
    /// A limit that all nodes share: agents at once, or what a model's provider takes.
    Limit {
        /// The limit in the planner's words: `"acme" takes 60 requests a minute`.
        limit: String,
    },
    /// Nothing keeps it: the plan gives way to others, or stays as it was.
    Order,
}

/// Explains tasks of one plan, one after the other.
pub struct Explainer<'p> {
    setting: Setting<'p>,
    plan: &'p SchedulePlan,
    /// What is held on each node, and of each limit, by the whole plan.
    nodes: Vec<Timeline>,
    limits: Vec<Timeline>,
    /// Tasks by node that have not ended.
    on: Vec<Vec<u32>>,
    critical: Vec<bool>,
}

/// Why a task of a plan is where it is.
///
/// # Errors
/// If the problem has no plan, or the plan is about other tasks or nodes.
pub fn explain(problem: &Problem, plan: &SchedulePlan, task: u32) -> Result<Explanation, ExplainError> {
    Explainer::new(problem, plan)?.explain(task)
}

impl<'p> Explainer<'p> {
    /// Takes a problem and a plan for it.
    ///
    /// # Errors
    /// If the problem has no plan, or the plan is about other tasks or nodes.
    pub fn new(problem: &'p Problem<'p>, plan: &'p SchedulePlan) -> Result<Self, ExplainError> {
        let setting = Setting::new(problem).map_err(ExplainError::Problem)?;
        let nodes = problem.cluster.nodes.len();
        let fits = plan.allocation.len() == problem.graph.len()
            && plan.allocation.iter().all(|slot| (slot.node as usize) < nodes);
        if !fits {
            return Err(ExplainError::OtherPlan);
        }
        let mut explainer = Self {
            nodes: setting.busy.clone(),
            limits: setting.ledgers.busy.clone(),
            on: vec![Vec::new(); nodes],
            critical: vec![false; problem.graph.len()],
            setting,
            plan,
        };
        for task in &plan.critical_path {
            if let Some(is_critical) = explainer.critical.get_mut(*task as usize) {
                *is_critical = true;
            }
        }
        for (task, slot) in (0u32..).zip(&plan.allocation) {
            if slot.end > problem.now {
                explainer.on[slot.node as usize].push(task);
            }
            if explainer.setting.unit_of[task as usize] != NONE {
                explainer.put(task, true);
            }
        }
        Ok(explainer)
    }

    /// Why a task is where it is.
    ///
    /// # Errors
    /// If there is no such task.
    pub fn explain(&mut self, task: u32) -> Result<Explanation, ExplainError> {
        let Some(slot) = self.plan.allocation.get(task as usize).copied() else {
            return Err(ExplainError::NoTask { task });
        };
        let is_critical = self.critical[task as usize];
        let unit = self.setting.unit_of[task as usize];
        if unit == NONE {
            let (alternatives, waits) = (Vec::new(), Vec::new());
            return Ok(Explanation { task, slot, has_started: true, is_critical, alternatives, waits });
        }
        let members = self.setting.units.row(unit).to_vec();
        self.put(task, false);
        let alternatives = self.alternatives(task);
        members.iter().filter(|member| **member != task).for_each(|member| self.put(*member, false));
        let waits = self.waits(task, slot, &members);
        members.iter().for_each(|member| self.put(*member, true));
        Ok(Explanation { task, slot, has_started: false, is_critical, alternatives, waits })
    }

    /// Holds what a task holds, or gives it back.
    fn put(&mut self, task: u32, holds: bool) {
        let slot = self.plan.allocation[task as usize];
        let (start, end) = (slot.start.0, slot.end.0);
        let put = |timeline: &mut Timeline, until: u64, need: &Amounts| {
            if holds { timeline.hold(start, until, need) } else { timeline.give_back(start, until, need) }
        };
        put(&mut self.nodes[slot.node as usize], end, self.setting.demand(task));
        for hold in self.setting.ledgers.holds(task) {
            let until = hold.span.map_or(end, |span| start.saturating_add(span));
            put(&mut self.limits[hold.ledger as usize], until, &[hold.amount, 0, 0]);
        }
    }

    /// When the last result that a task waits for is on a node, and whose it is.
    fn ready(&self, task: u32, node: u32) -> Option<(u64, u32)> {
        let arrival = |before: &u32| {
            let slot = self.plan.allocation[*before as usize];
            let way = if slot.node == node { 0 } else { self.setting.transfer(*before) };
            (slot.end.0.saturating_add(way), *before)
        };
        self.setting.problem.graph.dependencies(task).iter().map(arrival).max()
    }

    fn alternatives(&self, task: u32) -> Vec<Alternative> {
        let agent = &self.setting.problem.graph.agents()[task as usize];
        let outcome = |node: u32| {
            let info = &self.setting.problem.cluster.nodes[node as usize];
            if info.is_cordoned {
                return Outcome::Cordoned;
            }
            if let Some((name, value)) = agent.labels.iter().find(|(name, value)| info.labels.get(*name) != Some(value))
            {
                return Outcome::Label { name: name.clone(), value: value.clone() };
            }
            let (need, has) = (self.setting.demand(task), &self.setting.capacity[node as usize]);
            if let Some(kind) = (0..KINDS).find(|kind| need[*kind] > has[*kind]) {
                return Outcome::TooSmall { resource: RESOURCES[kind], need: need[kind], has: has[kind] };
            }
            let ready = self.ready(task, node).map_or(0, |(ready, _)| ready).max(self.setting.now());
            let (start, taking) = (self.earliest(task, node, ready), self.setting.duration(task, node));
            Outcome::Runs { start: Millis(start), end: Millis(start.saturating_add(taking)) }
        };
        let nodes = 0..self.nodes.len() as u32;
        let mut alternatives: Vec<Alternative> =
            nodes.map(|node| Alternative { node, outcome: outcome(node) }).collect();
        alternatives.sort_by(|one, other| {
            let end = |alternative: &Alternative| match alternative.outcome {
                Outcome::Runs { end, .. } => end.0,
                _ => u64::MAX,
            };
            (end(one), one.node).cmp(&(end(other), other.node))
        });
        alternatives.truncate(ALTERNATIVES_MAX);
        alternatives
    }

    /// The first moment from there on at which the node and every limit have room for a task.
    fn earliest(&self, task: u32, node: u32, from: u64) -> u64 {
        let mut at = from;
        for _ in 0..TURNS_MAX {
            let before = at;
            let span = self.setting.duration(task, node);
            let free = room(self.setting.demand(task), &self.setting.capacity[node as usize]);
            if let Some(free) = free {
                at = self.nodes[node as usize].earliest(at, span, &free);
            }
            for hold in self.setting.ledgers.holds(task) {
                let has = self.setting.ledgers.each[hold.ledger as usize].0;
                if let Some(free) = room(&[hold.amount, 0, 0], &[has, 0, 0]) {
                    at = self.limits[hold.ledger as usize].earliest(at, hold.span.unwrap_or(span), &free);
                }
            }
            if at == before {
                break;
            }
        }
        at
    }

    /// What a task waits for; its gang is taken out of the plan.
    fn waits(&self, task: u32, slot: Slot, members: &[u32]) -> Vec<Wait> {
        let mut waits = Waits { at: self.setting.now(), until: slot.start.0, told: Vec::new() };
        if let Some((arrival, before)) = self.ready(task, slot.node) {
            waits.add(self.plan.allocation[before as usize].end.0, WaitReason::Dependency { task: before });
            waits.add(arrival, WaitReason::Transfer { task: before });
        }
        let others = members.iter().filter(|member| **member != task);
        let ready = |member: &u32| {
            let node = self.plan.allocation[*member as usize].node;
            (self.ready(*member, node).map_or(0, |(ready, _)| ready), *member)
        };
        if let Some((ready, member)) = others.map(ready).max() {
            waits.add(ready, WaitReason::Gang { task: member });
        }
        while waits.at < waits.until {
            let Some((until, reason)) = self.kept_by(task, waits.at, members) else { break };
            waits.add(until, reason);
        }
        waits.add(slot.start.0, WaitReason::Order);
        waits.told
    }

    /// What keeps a gang, or a task alone, from starting at a moment: of several limits the one that does so longest.
    fn kept_by(&self, task: u32, at: u64, members: &[u32]) -> Option<(u64, WaitReason)> {
        let mut longest: Option<(u64, WaitReason)> = None;
        let mut keep = |until: u64, reason: &dyn Fn() -> WaitReason| {
            if until > at && longest.as_ref().is_none_or(|(known, _)| until > *known) {
                longest = Some((until, reason()));
            }
        };
        for member in members {
            let node = self.plan.allocation[*member as usize].node;
            let span = self.setting.duration(*member, node);
            let together: Amounts = members
                .iter()
                .filter(|other| self.plan.allocation[**other as usize].node == node)
                .map(|other| *self.setting.demand(*other))
                .fold([0; KINDS], |sum, need| std::array::from_fn(|kind| sum[kind].saturating_add(need[kind])));
            for kind in 0..KINDS {
                let mut need = [0; KINDS];
                need[kind] = together[kind];
                let Some(free) = room(&need, &self.setting.capacity[node as usize]) else { continue };
                let until = self.nodes[node as usize].earliest(at, span, &free);
                keep(until, &|| match *member == task || self.plan.allocation[task as usize].node == node {
                    true => WaitReason::Capacity {
                        resource: RESOURCES[kind],
                        holders: self.holders(node, kind, at, until, members),
                    },
                    false => WaitReason::Gang { task: *member },
                });
            }
            for hold in self.setting.ledgers.holds(*member) {
                let (has, words) = &self.setting.ledgers.each[hold.ledger as usize];
                let same = |other: &&u32| {
                    let of_it = |one: &&crate::plan::Hold| one.ledger == hold.ledger;
                    self.setting.ledgers.holds(**other).iter().find(of_it).map(|hold| hold.amount)
                };
                let need = members.iter().filter_map(|other| same(&other)).fold(0, u64::saturating_add);
                let Some(free) = room(&[need, 0, 0], &[*has, 0, 0]) else { continue };
                let until = self.limits[hold.ledger as usize].earliest(at, hold.span.unwrap_or(span), &free);
                keep(until, &|| WaitReason::Limit { limit: words.clone() });
            }
        }
        longest
    }

    /// Who holds a resource of a node within a span, the last to end first.
    fn holders(&self, node: u32, kind: usize, from: u64, until: u64, but: &[u32]) -> Vec<u32> {
        let slot = |task: &u32| self.plan.allocation[*task as usize];
        let holds = |task: &&u32| {
            let held = slot(task);
            self.setting.demand(**task)[kind] > 0 && held.start.0 < until && held.end.0 > from && !but.contains(task)
        };
        let mut holders: Vec<u32> = self.on[node as usize].iter().filter(holds).copied().collect();
        let last_first = |task: &u32| (std::cmp::Reverse(slot(task).end), *task);
        if holders.len() > HOLDERS_MAX {
            holders.select_nth_unstable_by_key(HOLDERS_MAX, last_first);
            holders.truncate(HOLDERS_MAX);
        }
        holders.sort_unstable_by_key(last_first);
        holders
    }
}

/// Waits that follow each other.
struct Waits {
    at: u64,
    until: u64,
    told: Vec<Wait>,
}

impl Waits {
    /// Waits on until then, if that is not over already.
    fn add(&mut self, until: u64, reason: WaitReason) {
        let until = until.min(self.until);
        if until <= self.at {
            return;
        }
        let is_full = self.told.len() == WAITS_MAX;
        match self.told.last_mut() {
            Some(last) if is_full || last.reason == reason => last.until = Millis(until),
            _ => self.told.push(Wait { from: Millis(self.at), until: Millis(until), reason }),
        }
        self.at = until;
    }
}
