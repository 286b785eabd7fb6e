//! A problem made ready: who is still to be planned, what fits where, what is held already.

use std::collections::BinaryHeap;

use nexa_types::Millis;

use super::ledger::Ledgers;
use super::tasks::Tasks;
use super::{PlanError, Problem, Progress, Slot};
use crate::Resources;
use crate::gang;
use crate::graph::{NONE, Rows};
use crate::timeline::{Amounts, Timeline};

/// A task that runs longer than it should is expected to go on for this part of what it has taken so far.
const OVERDUE_PART: u64 = 4;

/// A problem made ready. A *unit* is what starts at one time: the members of a gang that have not started, or one task.
pub(crate) struct Setting<'a> {
    pub(crate) problem: &'a Problem<'a>,
    /// Members by unit; units stand in topological order.
    pub(crate) units: Rows,
    /// The unit of each task, [`NONE`] for what has started.
    pub(crate) unit_of: Vec<u32>,
    /// For how many dependencies that have not started each unit waits.
    pub(crate) waits: Vec<u32>,
    /// What has started; for what has not, a slot on node [`NONE`].
    pub(crate) started: Vec<Slot>,
    /// What counts of each task.
    pub(crate) tasks: Tasks,
    /// What each node has.
    pub(crate) capacity: Vec<Amounts>,
    /// What running tasks hold on each node.
    pub(crate) busy: Vec<Timeline>,
    /// What all nodes share.
    pub(crate) ledgers: Ledgers,
    speeds: Vec<u32>,
}

/// When a task could start for all that it waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrivals {
    /// The node of the result that would arrive last.
    pub(crate) node: u32,
    /// When all results are there.
    pub(crate) there: u64,
    /// When all results are on any other node.
    pub(crate) elsewhere: u64,
}

impl Arrivals {
    pub(crate) fn on(self, node: u32) -> u64 {
        if node == self.node { self.there } else { self.elsewhere }
    }

    pub(crate) fn not_before(self, floor: u64) -> Self {
        Self { there: self.there.max(floor), elsewhere: self.elsewhere.max(floor), ..self }
    }
}

pub(crate) fn amounts(of: &Resources) -> Amounts {
    [of.cpu_milli, of.memory_bytes, of.llm_slots]
}

/// As [`NodeInfo::duration`], without the wide division where it is not needed.
pub(crate) fn scaled(at_reference: u64, speed: u32) -> u64 {
    match (u32::try_from(at_reference.saturating_mul(100)), speed) {
        (_, 100) => at_reference,
        (Ok(work), speed) => u64::from(work.div_ceil(speed.max(1))),
        (Err(_), speed) => {
            let work = u128::from(at_reference) * 100;
            u64::try_from(work.div_ceil(u128::from(speed.max(1)))).unwrap_or(u64::MAX)
        }
    }
}

impl<'a> Setting<'a> {
    pub(crate) fn new(problem: &'a Problem<'a>) -> Result<Self, PlanError> {
        let (graph, cluster) = (problem.graph, problem.cluster);
        if cluster.nodes.is_empty() {
            return Err(PlanError::NoNodes);
        }
        let started = started(problem)?;
        let is_waiting = |task: u32| started[task as usize].node == NONE;

        let mut unit_of = vec![NONE; graph.len()];
        let mut members = Vec::with_capacity(graph.len());
        let mut units = 0;
        for &task in graph.topological() {
            if is_waiting(task) && unit_of[task as usize] == NONE {
                let alone = [task];
                for &member in graph.gang(task).unwrap_or(&alone) {
                    if is_waiting(member) {
                        unit_of[member as usize] = units;
                        members.push((units, member));
                    }
                }
                units += 1;
            }
        }
        let units = Rows::new(units as usize, members.iter().copied());
        let mut waits = vec![0; units.len()];
        for &(unit, member) in &members {
            let waiting = graph.dependencies(member).iter().filter(|&&before| is_waiting(before));
            waits[unit as usize] += waiting.count() as u32;
        }

        let tasks = Tasks::new(problem, is_waiting)?;
        let mut setting = Self {
            problem,
            ledgers: Ledgers::new(problem, &started, &units, &tasks)?,
            units,
            unit_of,
            waits,
            tasks,
            capacity: cluster.nodes.iter().map(|node| amounts(&node.capacity)).collect(),
            busy: vec![Timeline::default(); cluster.nodes.len()],
            speeds: cluster.nodes.iter().map(|node| node.speed).collect(),
            started,
        };
        for (task, slot) in (0u32..).zip(&setting.started) {
            if slot.node != NONE && slot.end > problem.now {
                let demand = &setting.tasks.shape(task).demand;
                setting.busy[slot.node as usize].hold(problem.now.0, slot.end.0, demand);
            }
        }
        setting.check_gangs()?;
        Ok(setting)
    }

    pub(crate) fn now(&self) -> u64 {
        self.problem.now.0
    }

    pub(crate) fn duration(&self, task: u32, node: u32) -> u64 {
        scaled(self.tasks.get(task).reference, self.speeds[node as usize])
    }

    /// Whether it runs, or is over.
    pub(crate) fn has_started(&self, task: u32) -> bool {
        self.unit_of[task as usize] == NONE
    }

    /// What a task holds on its node.
    pub(crate) fn demand(&self, task: u32) -> &Amounts {
        &self.tasks.shape(task).demand
    }

    /// What the result of a task takes from one node to another, in milliseconds.
    pub(crate) fn transfer(&self, task: u32) -> u64 {
        self.tasks.get(task).transfer
    }

    /// Over all nodes where it fits.
    pub(crate) fn mean_duration(&self, task: u32) -> u64 {
        if self.has_started(task) {
            return self.started[task as usize].end.0.saturating_sub(self.now());
        }
        let slowness = self.tasks.shape(task).mean_slowness;
        u64::try_from(u128::from(self.tasks.get(task).reference) * u128::from(slowness) / 1024).unwrap_or(u64::MAX)
    }

    /// The mean over all nodes where it fits, times the number of all nodes.
    pub(crate) fn summed_duration(&self, task: u32) -> u64 {
        if self.has_started(task) {
            return self.mean_duration(task).saturating_mul(self.capacity.len() as u64);
        }
        let nodes = self.nodes_for(task);
        let sum = nodes.iter().map(|&node| u128::from(self.duration(task, node))).sum::<u128>();
        let all = self.capacity.len() as u128;
        u64::try_from(sum.saturating_mul(all) / nodes.len().max(1) as u128).unwrap_or(u64::MAX)
    }

    /// Over all pairs of nodes, also a node and itself.
    pub(crate) fn mean_transfer(&self, task: u32) -> u64 {
        let nodes = self.capacity.len() as u64;
        let part = u128::from(self.transfer(task)) * u128::from(nodes - 1) / u128::from(nodes);
        u64::try_from(part).unwrap_or(u64::MAX)
    }

    /// How many of the nodes for a task, which are the fastest, finish it within a span.
    pub(crate) fn in_time(&self, task: u32, span: u64) -> usize {
        let nodes = self.nodes_for(task);
        match self.tasks.get(task).reference.checked_mul(100) {
            // One division for all nodes: it takes no longer than the span where speed times span is all the work.
            Some(work) if span > 0 => {
                let speed = work.div_ceil(span);
                nodes.partition_point(|&node| u64::from(self.speed(node).max(1)) >= speed)
            }
            _ => nodes.partition_point(|&node| self.duration(task, node) <= span),
        }
    }

    /// The longest way from the end of each task to the end of all, each task on the fastest node that it fits on and
    /// nothing in transit.
    pub(crate) fn tails(&self) -> Vec<u64> {
        let graph = self.problem.graph;
        let mut tails = vec![0u64; graph.len()];
        for &task in graph.topological().iter().rev() {
            let waiting = graph.dependents(task).iter().filter(|&&after| !self.has_started(after));
            let ways = waiting.map(|&after| tails[after as usize].saturating_add(self.fastest(after)));
            tails[task as usize] = ways.max().unwrap_or(0);
        }
        tails
    }

    /// What a task that has not started takes at least.
    pub(crate) fn fastest(&self, task: u32) -> u64 {
        self.tasks.get(task).fastest
    }

    /// Tasks times nodes.
    pub(crate) fn cells(&self) -> usize {
        self.problem.graph.len().saturating_mul(self.capacity.len())
    }

    /// Values that give this order again, with room between each two.
    pub(crate) fn order_values(&self, order: &[u32]) -> Vec<u64> {
        let mut values = vec![0; order.len()];
        for (place, &unit) in order.iter().rev().enumerate() {
            values[unit as usize] = 2 * (1 + place as u64);
        }
        values
    }

    /// The nodes where a task that has not started fits when they are empty, the fastest first.
    pub(crate) fn nodes_for(&self, task: u32) -> &[u32] {
        &self.tasks.shape(task).nodes
    }

    /// Whether a task fits on a node when that is empty.
    pub(crate) fn fits_on(&self, task: u32, node: u32) -> bool {
        self.tasks.fits_on(task, node)
    }

    /// How fast a node is, in percent.
    pub(crate) fn speed(&self, node: u32) -> u32 {
        self.speeds[node as usize]
    }

    /// When all that a task waits for is there, given the slots of that.
    pub(crate) fn arrivals(&self, task: u32, slots: &[Slot]) -> Arrivals {
        let mut last = (self.now(), NONE);
        let before = self.problem.graph.dependencies(task);
        for &before in before {
            let slot = &slots[before as usize];
            let arrival = slot.end.0.saturating_add(self.transfer(before));
            if arrival > last.0 {
                last = (arrival, slot.node);
            }
        }
        let mut there = self.now();
        for &before in before {
            let slot = &slots[before as usize];
            let on_the_way = if slot.node == last.1 { 0 } else { self.transfer(before) };
            there = there.max(slot.end.0.saturating_add(on_the_way));
        }
        Arrivals { node: last.1, there, elsewhere: last.0 }
    }

    /// The largest value of its members, for each unit.
    pub(crate) fn unit_values(&self, value: impl Fn(u32) -> u64) -> Vec<u64> {
        let largest = |unit| self.units.row(unit).iter().map(|&task| value(task)).max().unwrap_or(0);
        (0..self.units.len() as u32).map(largest).collect()
    }

    /// All units, each after those it waits for, and else the larger value first; of equal ones the first in
    /// topological order.
    pub(crate) fn order_by(&self, values: &[u64]) -> Vec<u32> {
        let mut waits = self.waits.clone();
        let entry = |unit: u32| (values[unit as usize], std::cmp::Reverse(unit));
        let ready = (0..self.units.len() as u32).filter(|&unit| waits[unit as usize] == 0);
        let mut ready: BinaryHeap<_> = ready.map(entry).collect();
        let mut order = Vec::with_capacity(waits.len());
        while let Some((_, std::cmp::Reverse(unit))) = ready.pop() {
            order.push(unit);
            for &task in self.units.row(unit) {
                for &after in self.problem.graph.dependents(task) {
                    let after = self.unit_of[after as usize];
                    if after != NONE {
                        waits[after as usize] -= 1;
                        if waits[after as usize] == 0 {
                            ready.push(entry(after));
                        }
                    }
                }
            }
        }
        order
    }

    /// Whether each gang fits on empty nodes.
    fn check_gangs(&self) -> Result<(), PlanError> {
        for unit in 0..self.units.len() as u32 {
            let members = self.units.row(unit);
            if members.len() > 1 && gang::pack(self, members, &mut self.capacity.clone(), |_, _| true).is_none() {
                let gang = self.problem.graph.agents()[members[0] as usize].gang.clone().unwrap_or_default();
                let why =
                    "no way was found to put all of them on the nodes at once, even when nothing else runs".to_owned();
                return Err(PlanError::GangDoesNotFit { gang, members: members.len(), why });
            }
        }
        Ok(())
    }
}

/// The slots of what has started.
fn started(problem: &Problem) -> Result<Vec<Slot>, PlanError> {
    let (graph, now) = (problem.graph, problem.now);
    let waiting = Slot { node: NONE, start: Millis(0), end: Millis(0) };
    if problem.progress.is_empty() {
        return Ok(vec![waiting; graph.len()]);
    }
    let wrong = |why: String| Err(PlanError::ProgressMismatch { why });
    if problem.progress.len() != graph.len() {
        return wrong(format!("it is about {} tasks, and there are {}", problem.progress.len(), graph.len()));
    }
    let mut slots = Vec::with_capacity(graph.len());
    for (agent, progress) in graph.agents().iter().zip(problem.progress) {
        let (Progress::Running { node, .. } | Progress::Ended { node, .. }) = *progress else {
            slots.push(waiting);
            continue;
        };
        let Some(info) = problem.cluster.nodes.get(node as usize) else {
            return wrong(format!(
                "agent {:?} is on node {node}, and there are {}",
                agent.id,
                problem.cluster.nodes.len()
            ));
        };
        let taking = info.duration(agent.estimated_duration);
        slots.push(match *progress {
            Progress::Ended { at, .. } if at <= now => Slot { node, start: at - taking, end: at },
            Progress::Running { since, .. } if since <= now => {
                let overdue = now + Millis(((now - since).0 / OVERDUE_PART).max(1));
                let end = since + taking;
                Slot { node, start: since, end: if end > now { end } else { overdue } }
            }
            _ => return wrong(format!("agent {:?} started or ended after now, {now} ms", agent.id)),
        });
    }
    for (task, agent) in (0u32..).zip(graph.agents()) {
        if slots[task as usize].node != NONE {
            let waits_for = graph.dependencies(task).iter();
            let mut unended =
                waits_for.filter(|&&before| !matches!(problem.progress[before as usize], Progress::Ended { .. }));
            if let Some(&before) = unended.next() {
                let before = &graph.agents()[before as usize].id;
                return wrong(format!(
                    "agent {:?} has started, and {before:?}, which it waits for, has not ended",
                    agent.id
                ));
            }
        }
    }
    Ok(slots)
}
