//! The textbook: HEFT, heterogeneous earliest finish time, with insertion (Topcuoglu, Hariri and Wu, "Performance-effective
//! and low-complexity task scheduling for heterogeneous computing", IEEE TPDS 13(3), 2002, §4).
//!
//! Tasks are taken by falling upward rank, which is the longest way to the end in mean durations and mean transfers, and
//! each is put where it ends earliest, also into gaps between those placed before. The paper's processors run one task at a
//! time; here a node runs as many as its resources allow, and a gap is where enough of them is free for long enough. With
//! one task per node this is the paper's algorithm, which a test shows with the paper's example.
//!
//! Written for comparison, from the paper: nothing of it is used by `nexa-sched`, and nothing of that is used here.

use nexa_sched::{Cluster, Resources};
use nexa_types::Millis;

use super::{Fixed, Order, Workflow};

/// What HEFT must know.
pub trait Costs {
    /// How many tasks there are.
    fn tasks(&self) -> u32;
    /// What each node has.
    fn capacities(&self) -> Vec<Resources>;
    /// What a task holds.
    fn requirements(&self, task: u32) -> Resources;
    /// How long a task takes on a node; not 0.
    fn duration(&self, task: u32, node: u32) -> Millis;
    /// Whom a task waits for.
    fn parents(&self, task: u32) -> Vec<u32>;
    /// How long the result of one takes to another on another node.
    fn transfer(&self, parent: u32, child: u32) -> Millis;
    /// All tasks, each after its parents.
    fn topological(&self) -> Vec<u32>;
}

/// Where and when a task is planned to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Placed {
    /// Where.
    pub node: u32,
    /// From when.
    pub start: Millis,
    /// Until when.
    pub end: Millis,
}

/// The plan of HEFT, by task.
///
/// # Panics
/// Where a task fits on no node.
#[must_use]
pub fn heft(costs: &impl Costs) -> Vec<Placed> {
    let capacities = costs.capacities();
    let topological = costs.topological();
    let ranks = ranks(costs, &topological, capacities.len() as u64);
    // Equal ranks keep this order, in which a parent is before its children.
    let mut order = topological;
    order.sort_by_key(|task| std::cmp::Reverse(ranks[*task as usize]));
    let mut placed = vec![Placed::default(); costs.tasks() as usize];
    let mut profiles: Vec<Profile> = capacities.into_iter().map(Profile::new).collect();
    for task in order {
        let (needs, parents) = (costs.requirements(task), costs.parents(task));
        let at = |node: u32, profile: &Profile| {
            let arrived = |parent: &u32| {
                let Placed { node: from, end, .. } = placed[*parent as usize];
                end + if from == node { Millis(0) } else { costs.transfer(*parent, task) }
            };
            let ready = parents.iter().map(arrived).max().unwrap_or_default();
            let duration = costs.duration(task, node);
            let start = profile.earliest(ready, duration, &needs)?;
            Some(Placed { node, start, end: start + duration })
        };
        let nodes = (0..).zip(&profiles).filter_map(|(node, profile)| at(node, profile));
        let best = nodes.min_by_key(|placed| (placed.end, placed.node)).expect("every task fits on some node");
        profiles[best.node as usize].hold(best.start, best.end, &needs);
        placed[task as usize] = best;
    }
    placed
}

/// Upward ranks, each times the number of nodes, so that means over nodes are whole numbers.
fn ranks(costs: &impl Costs, topological: &[u32], nodes: u64) -> Vec<u128> {
    let mut ranks = vec![0_u128; costs.tasks() as usize];
    for &task in topological.iter().rev() {
        // What lies behind a task has been added by its children.
        let own: u128 = (0..nodes as u32).map(|node| u128::from(costs.duration(task, node).0)).sum();
        ranks[task as usize] += own;
        for parent in costs.parents(task) {
            let way = u128::from(costs.transfer(parent, task).0) * u128::from(nodes) + ranks[task as usize];
            ranks[parent as usize] = ranks[parent as usize].max(way);
        }
    }
    ranks
}

/// What is used of a node over time, in steps.
struct Profile {
    capacity: Resources,
    /// From each time on, until the next, this is used. Rising times from 0 on; nothing is used from the last on.
    steps: Vec<(Millis, Resources)>,
}

impl Profile {
    fn new(capacity: Resources) -> Self {
        Self { capacity, steps: vec![(Millis(0), Resources::default())] }
    }

    /// The earliest start from `ready` on at which so much is free for so long; nothing where it never is.
    fn earliest(&self, ready: Millis, duration: Millis, needs: &Resources) -> Option<Millis> {
        if !needs.fits(&self.capacity) {
            return None;
        }
        let mut start = ready;
        let from = self.steps.partition_point(|step| step.0 <= ready).saturating_sub(1);
        for (place, (at, used)) in self.steps.iter().enumerate().skip(from) {
            if *at >= start + duration {
                break;
            }
            if !used.plus(needs).fits(&self.capacity) {
                // It does not fit before the next step; nothing is used from the last on.
                start = start.max(self.steps.get(place + 1)?.0);
            }
        }
        Some(start)
    }

    fn hold(&mut self, start: Millis, end: Millis, needs: &Resources) {
        let (first, last) = (self.split(start), self.split(end));
        for step in &mut self.steps[first..last] {
            step.1 = step.1.plus(needs);
        }
    }

    /// The place of the step that begins at this time, which is there from now on.
    fn split(&mut self, at: Millis) -> usize {
        let after = self.steps.partition_point(|step| step.0 < at);
        if self.steps.get(after).is_none_or(|step| step.0 != at) {
            let used = self.steps[after - 1].1;
            self.steps.insert(after, (at, used));
        }
        after
    }
}

/// A workflow whose tasks are believed to take these durations, on a cluster.
struct Believed<'a> {
    workflow: &'a Workflow,
    cluster: &'a Cluster,
    estimates: &'a [Millis],
    transfers: Vec<Millis>,
}

impl Costs for Believed<'_> {
    fn tasks(&self) -> u32 {
        u32::try_from(self.estimates.len()).expect("a workflow's tasks are counted in 32 bits")
    }

    fn capacities(&self) -> Vec<Resources> {
        self.cluster.nodes.iter().map(|node| node.capacity).collect()
    }

    fn requirements(&self, task: u32) -> Resources {
        self.workflow.tasks()[task as usize].requirements
    }

    fn duration(&self, task: u32, node: u32) -> Millis {
        self.cluster.nodes[node as usize].duration(self.estimates[task as usize])
    }

    fn parents(&self, task: u32) -> Vec<u32> {
        self.workflow.tasks()[task as usize].needs.iter().map(|need| need.task).collect()
    }

    fn transfer(&self, parent: u32, _: u32) -> Millis {
        self.transfers[parent as usize]
    }

    fn topological(&self) -> Vec<u32> {
        self.workflow.topological().to_vec()
    }
}

/// The plan of HEFT for a workflow whose tasks are believed to take these durations, as a policy.
#[must_use]
pub fn heft_fixed(workflow: &Workflow, cluster: &Cluster, estimates: &[Millis], order: Order) -> Fixed {
    heft_planned(workflow, cluster, estimates, order).1
}

/// As [`heft_fixed`], with what is planned.
#[must_use]
pub(crate) fn heft_planned(
    workflow: &Workflow,
    cluster: &Cluster,
    estimates: &[Millis],
    order: Order,
) -> (Vec<Placed>, Fixed) {
    let tasks = 0..workflow.tasks().len() as u32;
    let transfers = tasks.map(|task| cluster.network.duration(workflow.result_bytes(task))).collect();
    let plan = heft(&Believed { workflow, cluster, estimates, transfers });
    let slots: Vec<(u32, Millis)> = plan.iter().map(|placed| (placed.node, placed.start)).collect();
    let fixed = Fixed::new(&slots, workflow.topological(), cluster.nodes.len(), order);
    (plan, fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the paper: figure 2 (left) and its table of costs. Three processors, ten tasks.
    struct Paper;

    const PAPER_COSTS: [[u64; 3]; 10] = [
        [14, 16, 9],
        [13, 19, 18],
        [11, 13, 19],
        [13, 8, 17],
        [12, 13, 10],
        [13, 16, 9],
        [7, 15, 11],
        [5, 11, 14],
        [18, 12, 20],
        [21, 7, 16],
    ];

    /// From, to (both counted from 1), and what it takes between processors.
    const PAPER_EDGES: [(u32, u32, u64); 15] = [
        (1, 2, 18),
        (1, 3, 12),
        (1, 4, 9),
        (1, 5, 11),
        (1, 6, 14),
        (2, 8, 19),
        (2, 9, 16),
        (3, 7, 23),
        (4, 8, 27),
        (4, 9, 23),
        (5, 9, 13),
        (6, 8, 15),
        (7, 10, 17),
        (8, 10, 11),
        (9, 10, 13),
    ];

    impl Costs for Paper {
        fn tasks(&self) -> u32 {
            10
        }

        fn capacities(&self) -> Vec<Resources> {
            vec![self.requirements(0); 3]
        }

        fn requirements(&self, _: u32) -> Resources {
            Resources { cpu_milli: 1_000, memory_bytes: 0, llm_slots: 0 }
        }

        fn duration(&self, task: u32, node: u32) -> Millis {
            Millis(PAPER_COSTS[task as usize][node as usize])
        }

        fn parents(&self, task: u32) -> Vec<u32> {
            PAPER_EDGES.iter().filter(|edge| edge.1 == task + 1).map(|edge| edge.0 - 1).collect()
        }

        fn transfer(&self, parent: u32, child: u32) -> Millis {
            let is_it = |edge: &&(u32, u32, u64)| (edge.0, edge.1) == (parent + 1, child + 1);
            Millis(PAPER_EDGES.iter().find(is_it).expect("an edge").2)
        }

        fn topological(&self) -> Vec<u32> {
            (0..10).collect()
        }
    }

    #[test]
    fn the_example_of_the_paper_has_the_ranks_and_the_makespan_of_the_paper() {
        let ranks = ranks(&Paper, &Paper.topological(), 3);
        let rounded: Vec<String> = ranks.iter().map(|rank| format!("{:.3}", *rank as f64 / 3.0)).collect();
        // Table 4 of the paper, in which 36.0 stands for the rank of the eighth task by a slip: it is 35.667.
        let paper =
            ["108.000", "77.000", "80.000", "80.000", "69.000", "63.333", "42.667", "35.667", "44.333", "14.667"];
        assert_eq!(rounded, paper);
        let plan = heft(&Paper);
        assert_eq!(plan.iter().map(|placed| placed.end).max(), Some(Millis(80)));
        let shown: Vec<(u32, u64, u64)> = plan.iter().map(|p| (p.node + 1, p.start.0, p.end.0)).collect();
        let figure = [
            (3, 0, 9),
            (1, 27, 40),
            (3, 9, 28),
            (2, 18, 26),
            (3, 28, 38),
            (2, 26, 42),
            (3, 38, 49),
            (1, 57, 62),
            (2, 56, 68),
            (2, 73, 80),
        ];
        assert_eq!(shown, figure);
    }

    #[test]
    fn gaps_are_filled_where_enough_is_free_for_long_enough() {
        let of = |cpu_milli| Resources { cpu_milli, memory_bytes: 0, llm_slots: 0 };
        let mut profile = Profile::new(of(4));
        profile.hold(Millis(0), Millis(10), &of(3));
        profile.hold(Millis(20), Millis(30), &of(2));
        let earliest =
            |ready, duration, cpu| profile.earliest(Millis(ready), Millis(duration), &of(cpu)).map(|at| at.0);
        assert_eq!(earliest(0, 5, 1), Some(0));
        assert_eq!((earliest(0, 10, 4), earliest(0, 11, 4)), (Some(10), Some(30)));
        assert_eq!((earliest(0, 100, 2), earliest(12, 8, 3), earliest(13, 8, 3)), (Some(10), Some(12), Some(30)));
        assert_eq!((earliest(25, 1, 3), earliest(30, 1, 4), earliest(0, 1, 5)), (Some(30), Some(30), None));
    }
}
