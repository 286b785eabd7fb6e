//! What plans ask of tasks again and again, apart from all else that is known of them.
//!
//! What is known of an agent takes more than two hundred bytes, its names not counted, and a plan goes over all tasks a
//! dozen times. Those of a hundred thousand agents are in no cache, and waiting for memory would be a third of what the
//! plan takes. So each agent is read once, and what counts is kept in rows of thirty-two bytes.
//!
//! What is needed of a node is kept once for all tasks that need the same of it, a *shape*, with the nodes that have it: as
//! a list in the order of speed, and as bits to ask about one node.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::setting::{amounts, scaled};
use super::{PlanError, Problem};
use crate::timeline::Amounts;
use crate::{Labels, NodeInfo, Resources};

/// What counts of one task, in milliseconds. Two of them lie in a line of the caches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    /// Its duration on a node of speed 100.
    pub(crate) reference: u64,
    /// Its duration on the fastest node that it fits on.
    pub(crate) fastest: u64,
    /// What its result takes from one node to another.
    pub(crate) transfer: u64,
    pub(crate) shape: u32,
    /// Its priority, as a level.
    pub(crate) level: u8,
}

/// What tasks need of a node.
pub(crate) struct Shape {
    pub(crate) demand: Amounts,
    /// The nodes where it fits when they are empty, the fastest first.
    pub(crate) nodes: Vec<u32>,
    /// The speed of 100 divided by mean speed, in 1/1024: what durations are multiplied with on average.
    pub(crate) mean_slowness: u64,
    /// Whether a task that has not started is of this shape.
    pub(crate) is_waiting: bool,
}

/// All tasks of a problem, and their shapes.
pub(crate) struct Tasks {
    each: Vec<Task>,
    shapes: Vec<Shape>,
    /// For each shape so many words, with a bit for each node where it fits.
    fits: Vec<u64>,
    words: usize,
    nodes: usize,
}

impl Tasks {
    /// # Errors
    /// If a task that has not started fits on no node.
    pub(crate) fn new(problem: &Problem, is_waiting: impl Fn(u32) -> bool) -> Result<Self, PlanError> {
        let (agents, nodes) = (problem.graph.agents(), &problem.cluster.nodes);
        let mut fastest: Vec<u32> = (0..nodes.len() as u32).collect();
        fastest.sort_by_key(|&node| (Reverse(nodes[node as usize].speed), node));
        let mut known: BTreeMap<(Amounts, &Labels), u32> = BTreeMap::new();
        let (each, words) = (Vec::with_capacity(agents.len()), nodes.len().div_ceil(64));
        let mut it = Self { each, shapes: Vec::new(), fits: Vec::new(), words, nodes: nodes.len() };
        for (task, agent) in (0u32..).zip(agents) {
            let next = it.shapes.len() as u32;
            let shape = *known.entry((amounts(&agent.requirements), &agent.labels)).or_insert(next);
            if shape == next {
                it.add_shape(nodes, &fastest, &agent.requirements, &agent.labels);
            }
            let of = &mut it.shapes[shape as usize];
            if is_waiting(task) {
                of.is_waiting = true;
                if of.nodes.is_empty() {
                    let why = why_nowhere(nodes, &agent.requirements, &agent.labels);
                    return Err(PlanError::DoesNotFit { agent: agent.id.clone(), why });
                }
            }
            let reference = agent.estimated_duration.0;
            it.each.push(Task {
                reference,
                fastest: of.nodes.first().map_or(0, |&node| scaled(reference, nodes[node as usize].speed)),
                transfer: problem.cluster.network.duration(agent.result_bytes).0,
                shape,
                level: problem.config.level(agent.priority),
            });
        }
        Ok(it)
    }

    fn add_shape(&mut self, nodes: &[NodeInfo], fastest: &[u32], need: &Resources, labels: &Labels) {
        let fits = |node: &NodeInfo| !node.is_cordoned && need.fits(&node.capacity) && node.has(labels);
        let of: Vec<u32> = fastest.iter().copied().filter(|&node| fits(&nodes[node as usize])).collect();
        let first = self.fits.len();
        self.fits.resize(first + self.words, 0);
        for &node in &of {
            self.fits[first + node as usize / 64] |= 1 << (node % 64);
        }
        let mean_slowness = mean_slowness(nodes, &of);
        self.shapes.push(Shape { demand: amounts(need), nodes: of, mean_slowness, is_waiting: false });
    }

    pub(crate) fn get(&self, task: u32) -> &Task {
        &self.each[task as usize]
    }

    pub(crate) fn shape(&self, task: u32) -> &Shape {
        &self.shapes[self.get(task).shape as usize]
    }

    pub(crate) fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    /// Whether a task fits on a node when that is empty. On a node that there is not, nothing does.
    pub(crate) fn fits_on(&self, task: u32, node: u32) -> bool {
        let (place, node) = (self.get(task).shape as usize * self.words, node as usize);
        node < self.nodes && self.fits[place + node / 64] >> (node % 64) & 1 == 1
    }
}

fn why_nowhere(nodes: &[NodeInfo], need: &Resources, labels: &Labels) -> String {
    let said = |of: &Resources| {
        format!("{} millicores, {} bytes of memory and {} model slots", of.cpu_milli, of.memory_bytes, of.llm_slots)
    };
    let labelled: Vec<&NodeInfo> = nodes.iter().filter(|node| node.has(labels)).collect();
    let open = labelled.iter().filter(|node| !node.is_cordoned);
    let nearest = open.min_by_key(|node| (need.dominant_share(&node.capacity), &node.id));
    match nearest {
        _ if labelled.is_empty() => {
            let wanted: Vec<String> = labels.iter().map(|(name, value)| format!("{name} = {value:?}")).collect();
            format!("no node has {}", wanted.join(" and "))
        }
        None => "every node that has its labels is cordoned".to_owned(),
        Some(node) => {
            format!(
                "it needs {}, and of the nodes it may run on, {} comes nearest with {}",
                said(need),
                node.id,
                said(&node.capacity)
            )
        }
    }
}

/// What a millisecond at the reference takes on average over these nodes, in 1/1024.
fn mean_slowness(nodes: &[NodeInfo], of: &[u32]) -> u64 {
    let each = of.iter().map(|&node| 102_400 / u64::from(nodes[node as usize].speed.max(1)));
    each.sum::<u64>() / of.len().max(1) as u64
}
