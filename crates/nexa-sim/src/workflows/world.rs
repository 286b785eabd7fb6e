//! The modelled execution: discrete events, in which a policy says what starts and the truth says when it ends.
//!
//! At each moment at which something happens (a task ends, a result arrives) the world tells the policy what can be seen,
//! and starts what it names, until it names nothing more. It refuses what cannot be: a start before the results are there,
//! or beyond what a node has. A policy sees when tasks end and never how long they will take.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use nexa_sched::{Cluster, Resources};
use nexa_types::Millis;

use super::Workflow;

/// What is played: a workflow with its true durations on a cluster.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// What is to be done.
    pub workflow: &'a Workflow,
    /// On what.
    pub cluster: &'a Cluster,
    /// When results set out.
    pub transfers: Transfers,
}

/// When the result of a task sets out for another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfers {
    /// When the task ends, for every node: whoever reads it may be placed late.
    AtOnce,
    /// When the task has ended and the node of whoever reads it is settled; again, if that changes.
    WhenSettled,
}

/// Who says what starts where.
pub trait Policy {
    /// Something has happened: these tasks have ended, or a result has arrived.
    ///
    /// # Errors
    /// Where it cannot go on; the sentence says why.
    fn happened(&mut self, seen: &Seen<'_>, ended: &[u32]) -> Result<(), String>;

    /// Where a task that has not started is to run, as far as that is settled.
    fn node_of(&self, task: u32) -> Option<u32>;

    /// What starts now; asked until there is nothing.
    fn next(&mut self, seen: &Seen<'_>) -> Option<Start>;
}

/// That a task starts on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Which task.
    pub task: u32,
    /// Where.
    pub node: u32,
}

/// What has become of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It has not started.
    Waiting,
    /// It runs.
    Running {
        /// Where.
        node: u32,
        /// From when on.
        since: Millis,
    },
    /// It has ended.
    Ended {
        /// Where.
        node: u32,
        /// From when on it ran.
        since: Millis,
        /// When it ended.
        at: Millis,
    },
}

/// What can be seen of a run, at one moment.
#[derive(Debug)]
pub struct Seen<'a> {
    /// What is played.
    pub world: World<'a>,
    /// The moment.
    pub now: Millis,
    /// What has become of each task.
    pub status: &'a [Status],
    /// The tasks that have not started and wait for no other, in the order in which that became so.
    pub ready: &'a [u32],
    /// What is free on each node.
    pub free: &'a [Resources],
    arrivals: &'a [Vec<Millis>],
}

impl Seen<'_> {
    /// When all that a ready task reads is on a node; nothing for one that is not ready.
    #[must_use]
    pub fn arrival(&self, task: u32, node: u32) -> Option<Millis> {
        self.arrivals[task as usize].get(node as usize).copied()
    }

    /// Whether a task may start on a node at this moment.
    #[must_use]
    pub fn can_start(&self, task: u32, node: u32) -> bool {
        self.status[task as usize] == Status::Waiting
            && self.arrival(task, node).is_some_and(|at| at <= self.now)
            && self.world.workflow.tasks()[task as usize].requirements.fits(&self.free[node as usize])
    }
}

/// What came of a run: where and when each task ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// By task: node, start and end.
    pub slots: Vec<(u32, Millis, Millis)>,
    /// The end of the last.
    pub makespan: Millis,
}

/// What a policy did that cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fault {
    /// A start of what may not start.
    #[error("the policy started task `{task}` on node {node} at {} ms, where it cannot start", at.0)]
    CannotStart {
        /// Which task.
        task: String,
        /// Where.
        node: u32,
        /// When.
        at: Millis,
    },
    /// It says itself that it cannot go on.
    #[error("the policy cannot go on: {0}")]
    Policy(String),
    /// Nothing runs and nothing is on its way, and not all has ended.
    #[error("the policy starts nothing more at {} ms, and {left} tasks are left", at.0)]
    Stalled {
        /// When.
        at: Millis,
        /// How many.
        left: usize,
    },
}

/// Nothing arrives then.
const NEVER: Millis = Millis(u64::MAX);

/// Something that will happen.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ends(u32),
    Arrives,
}

impl World<'_> {
    /// Plays a policy to the end.
    ///
    /// # Errors
    /// Where the policy starts what cannot start, or stops before the end.
    pub fn play(&self, policy: &mut impl Policy) -> Result<Ran, Fault> {
        let count = self.workflow.tasks().len();
        let mut status = vec![Status::Waiting; count];
        let mut arrivals: Vec<Vec<Millis>> = vec![Vec::new(); count];
        let mut settled: Vec<Option<(u32, Millis)>> = vec![None; count];
        let mut free: Vec<Resources> = self.cluster.nodes.iter().map(|node| node.capacity).collect();
        let mut waits: Vec<usize> = self.workflow.tasks().iter().map(|task| task.needs.len()).collect();
        let mut ready: Vec<u32> = (0..).zip(&waits).filter(|(_, waits)| **waits == 0).map(|(task, _)| task).collect();
        for task in &ready {
            arrivals[*task as usize] = vec![Millis(0); self.cluster.nodes.len()];
        }
        let (mut now, mut left, mut ended) = (Millis(0), count, Vec::new());
        let mut events: BinaryHeap<Reverse<(Millis, Event)>> = BinaryHeap::new();
        loop {
            let seen = Seen { world: *self, now, status: &status, ready: &ready, free: &free, arrivals: &arrivals };
            policy.happened(&seen, &ended).map_err(Fault::Policy)?;
            if self.transfers == Transfers::WhenSettled {
                for task in (0_u32..).take(count) {
                    let place = task as usize;
                    let node = policy.node_of(task);
                    if status[place] == Status::Waiting && node != settled[place].map(|(node, _)| node) {
                        settled[place] = node.map(|node| (node, now));
                        if waits[place] == 0 {
                            self.arrive(task, &status, settled[place], now, &mut arrivals, &mut events);
                        }
                    }
                }
            }
            loop {
                let seen = Seen { world: *self, now, status: &status, ready: &ready, free: &free, arrivals: &arrivals };
                let Some(Start { task, node }) = policy.next(&seen) else { break };
                let place = node as usize;
                if task as usize >= count || place >= free.len() || !seen.can_start(task, node) {
                    let task =
                        self.workflow.tasks().get(task as usize).map_or_else(|| task.to_string(), |t| t.id.clone());
                    return Err(Fault::CannotStart { task, node, at: now });
                }
                let it = &self.workflow.tasks()[task as usize];
                free[place] = free[place].minus(&it.requirements);
                status[task as usize] = Status::Running { node, since: now };
                ready.retain(|other| *other != task);
                let end = now + self.cluster.nodes[place].duration(it.duration);
                events.push(Reverse((end, Event::Ends(task))));
            }
            ended.clear();
            let Some(Reverse((at, _))) = events.peek() else { break };
            now = *at;
            while let Some(Reverse((at, event))) = events.pop() {
                if at > now {
                    events.push(Reverse((at, event)));
                    break;
                }
                let Event::Ends(task) = event else { continue };
                let Status::Running { node, since } = status[task as usize] else { continue };
                status[task as usize] = Status::Ended { node, since, at: now };
                let back = self.workflow.tasks()[task as usize].requirements;
                free[node as usize] = free[node as usize].plus(&back);
                left -= 1;
                ended.push(task);
                for &child in self.workflow.children(task) {
                    waits[child as usize] -= 1;
                    if waits[child as usize] == 0 {
                        ready.push(child);
                        self.arrive(child, &status, settled[child as usize], now, &mut arrivals, &mut events);
                    }
                }
            }
        }
        if left > 0 {
            return Err(Fault::Stalled { at: now, left });
        }
        let slot = |status: &Status| match *status {
            Status::Ended { node, since, at } => (node, since, at),
            Status::Waiting | Status::Running { .. } => unreachable!("nothing is left"),
        };
        let slots: Vec<_> = status.iter().map(slot).collect();
        // Not the time of the last event: a result may still be on its way to where nobody waits for it.
        let makespan = slots.iter().map(|slot| slot.2).max().unwrap_or_default();
        Ok(Ran { slots, makespan })
    }

    /// Notes when all that a task reads is on each node, all of it having ended, and when something happens by that.
    fn arrive(
        &self,
        task: u32,
        status: &[Status],
        settled: Option<(u32, Millis)>,
        now: Millis,
        arrivals: &mut [Vec<Millis>],
        events: &mut BinaryHeap<Reverse<(Millis, Event)>>,
    ) {
        let mut at = vec![Millis(0); self.cluster.nodes.len()];
        for need in &self.workflow.tasks()[task as usize].needs {
            let Status::Ended { node: from, at: end, .. } = status[need.task as usize] else { continue };
            let way = self.cluster.network.duration(self.workflow.result_bytes(need.task));
            for (node, at) in (0..).zip(&mut at) {
                let sets_out = match (self.transfers, settled) {
                    (Transfers::WhenSettled, Some((settled, since))) if settled == node => end.max(since),
                    (Transfers::WhenSettled, _) => NEVER,
                    (Transfers::AtOnce, _) => end,
                };
                *at = (*at).max(if node == from { end } else { sets_out + way });
            }
        }
        let later: BTreeSet<Millis> = at.iter().copied().filter(|at| *at > now && *at < NEVER).collect();
        events.extend(later.into_iter().map(|at| Reverse((at, Event::Arrives))));
        arrivals[task as usize] = at;
    }
}

/// Checks what came of a run by itself, without the world: no start before its results are there, no node beyond what it
/// has, each task for as long as it takes.
///
/// # Errors
/// A sentence about the first thing that is wrong.
pub fn check(world: &World<'_>, ran: &Ran) -> Result<(), String> {
    let tasks = world.workflow.tasks();
    if ran.slots.len() != tasks.len() {
        return Err(format!("{} of {} tasks ran", ran.slots.len(), tasks.len()));
    }
    let mut changes: Vec<Vec<(Millis, bool, u32)>> = vec![Vec::new(); world.cluster.nodes.len()];
    for (ordinal, (task, &(node, start, end))) in (0..).zip(tasks.iter().zip(&ran.slots)) {
        if start + world.cluster.nodes[node as usize].duration(task.duration) != end {
            return Err(format!("{} took {} ms", task.id, end.0 - start.0));
        }
        for need in &task.needs {
            let (from, _, ended) = ran.slots[need.task as usize];
            let way = world.cluster.network.duration(world.workflow.result_bytes(need.task));
            if start < ended + if from == node { Millis(0) } else { way } {
                return Err(format!(
                    "{} started before it had the result of {}",
                    task.id, tasks[need.task as usize].id
                ));
            }
        }
        changes[node as usize].extend([(end, false, ordinal), (start, true, ordinal)]);
    }
    for (node, mut changes) in world.cluster.nodes.iter().zip(changes) {
        changes.sort_unstable();
        let mut used = Resources::default();
        for (at, is_start, task) in changes {
            let needs = &tasks[task as usize].requirements;
            used = if is_start { used.plus(needs) } else { used.minus(needs) };
            if !used.fits(&node.capacity) {
                return Err(format!("{} holds more than it has at {} ms", node.id, at.0));
            }
        }
    }
    let last = ran.slots.iter().map(|slot| slot.2).max().unwrap_or_default();
    if last == ran.makespan { Ok(()) } else { Err(format!("the last ends at {} ms", last.0)) }
}

/// In which order a fixed plan starts what is placed on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// In that of the plan: one that cannot start yet holds up those behind it.
    Strict,
    /// In that of the plan among those that can start: no node is idle while one of its tasks could run.
    Conserving,
}

/// A plan made before: each task's node and its place in the order of that node are fixed, the times follow the truth.
#[derive(Debug, Clone)]
pub struct Fixed {
    node: Vec<u32>,
    /// By task, its place among all in the plan.
    place: Vec<usize>,
    /// By node, what is placed there and has not started, the last first.
    queues: Vec<Vec<u32>>,
    order: Order,
}

impl Fixed {
    /// The plan that puts each task on `slots[task].0`, in the order of `slots[task].1`; of what starts at the same time,
    /// in that of `topological`.
    #[must_use]
    pub fn new(slots: &[(u32, Millis)], topological: &[u32], nodes: usize, order: Order) -> Self {
        let mut sorted = topological.to_vec();
        sorted.sort_by_key(|task| slots[*task as usize].1);
        let mut place = vec![0; slots.len()];
        let mut queues = vec![Vec::new(); nodes];
        for (at, task) in sorted.iter().enumerate() {
            place[*task as usize] = at;
        }
        for task in sorted.iter().rev() {
            queues[slots[*task as usize].0 as usize].push(*task);
        }
        Self { node: slots.iter().map(|slot| slot.0).collect(), place, queues, order }
    }
}

impl Policy for Fixed {
    fn node_of(&self, task: u32) -> Option<u32> {
        self.node.get(task as usize).copied()
    }

    fn happened(&mut self, _: &Seen<'_>, _: &[u32]) -> Result<(), String> {
        Ok(())
    }

    fn next(&mut self, seen: &Seen<'_>) -> Option<Start> {
        match self.order {
            Order::Strict => (0..).zip(&mut self.queues).find_map(|(node, queue)| {
                let task = queue.pop_if(|task| seen.can_start(*task, node))?;
                Some(Start { task, node })
            }),
            Order::Conserving => {
                let can = |task: &&u32| seen.can_start(**task, self.node[**task as usize]);
                let first = seen.ready.iter().filter(can).min_by_key(|task| self.place[**task as usize])?;
                Some(Start { task: *first, node: self.node[*first as usize] })
            }
        }
    }
}
