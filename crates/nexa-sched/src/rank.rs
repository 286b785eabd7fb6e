//! How far it is to the end, and how far it was from the start.
//!
//! The longest way counts, in time: what tasks take and what their results take on the way. Everything here is one pass
//! over the edges.

use nexa_types::Millis;

use crate::TaskGraph;

/// The longest way from the start of each task to the end of all, its own duration included (upward rank: Topcuoglu,
/// Hariri, Wu, "Performance-effective and low-complexity task scheduling for heterogeneous computing", IEEE TPDS 13(3),
/// 2002, §4.1). By task; `transfer` is asked for `(task, dependent)`. Stops at the largest value.
#[must_use]
pub fn upward_ranks(
    graph: &TaskGraph,
    duration: impl Fn(u32) -> Millis,
    transfer: impl Fn(u32, u32) -> Millis,
) -> Vec<Millis> {
    let mut ranks = vec![Millis(0); graph.len()];
    for &task in graph.topological().iter().rev() {
        let after = graph.dependents(task).iter().map(|&after| transfer(task, after) + ranks[after as usize]);
        ranks[task as usize] = duration(task) + after.max().unwrap_or_default();
    }
    ranks
}

/// The longest way from the start of all to the start of each task, its own duration not included (downward rank: the
/// same, §4.1). By task; `transfer` is asked for `(dependency, task)`.
#[must_use]
pub fn downward_ranks(
    graph: &TaskGraph,
    duration: impl Fn(u32) -> Millis,
    transfer: impl Fn(u32, u32) -> Millis,
) -> Vec<Millis> {
    let mut ranks = vec![Millis(0); graph.len()];
    for &task in graph.topological() {
        let before = graph.dependencies(task).iter();
        let arrivals = before.map(|&before| ranks[before as usize] + duration(before) + transfer(before, task));
        ranks[task as usize] = arrivals.max().unwrap_or_default();
    }
    ranks
}

/// The longest way through the graph, from its first task to its last. Of equally long ones, that of the lowest ordinals.
#[must_use]
pub fn critical_path(
    graph: &TaskGraph,
    duration: impl Fn(u32) -> Millis,
    transfer: impl Fn(u32, u32) -> Millis,
) -> Vec<u32> {
    let ranks = upward_ranks(graph, &duration, &transfer);
    let farthest = |tasks: &mut dyn Iterator<Item = u32>, way: &dyn Fn(u32) -> Millis| {
        tasks.map(|task| (std::cmp::Reverse(way(task)), task)).min().map(|(_, task)| task)
    };
    let mut roots = (0..graph.len() as u32).filter(|&task| graph.dependencies(task).is_empty());
    let mut next = farthest(&mut roots, &|task| ranks[task as usize]);
    let mut path = Vec::new();
    while let Some(task) = next {
        path.push(task);
        let mut after = graph.dependents(task).iter().copied();
        next = farthest(&mut after, &|after| transfer(task, after) + ranks[after as usize]);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AgentScheduleInfo;

    /// The example of the paper, figure 2 and table 1: ten tasks, mean durations over its three processors, and what
    /// lies on the edges. Its ranks are those of its table 2, rounded.
    #[test]
    fn the_ranks_of_the_paper_are_found_again() {
        let means = [13.0, 16.667, 14.333, 12.667, 11.667, 12.667, 11.0, 10.0, 16.667, 14.667];
        #[rustfmt::skip]
        let edges = [
            (1, 2, 18), (1, 3, 12), (1, 4, 9), (1, 5, 11), (1, 6, 14), (2, 8, 19), (2, 9, 16), (3, 7, 23), (4, 8, 27),
            (4, 9, 23), (5, 9, 13), (6, 8, 15), (7, 10, 17), (8, 10, 11), (9, 10, 13),
        ];
        let agents = (1..=10).map(|task| AgentScheduleInfo {
            dependencies: edges.iter().filter(|edge| edge.1 == task).map(|edge| format!("n{}", edge.0)).collect(),
            ..AgentScheduleInfo::new(format!("n{task}"))
        });
        let graph = TaskGraph::new(agents.collect()).expect("a graph");
        let transfer = |from: u32, to: u32| {
            let edge = edges.iter().find(|edge| (edge.0, edge.1) == (from as i32 + 1, to as i32 + 1)).expect("an edge");
            Millis(edge.2 * 1_000)
        };
        let duration = |task: u32| Millis((means[task as usize] * 1_000.0) as u64);
        let rounded = |ranks: Vec<Millis>| ranks.into_iter().map(|rank| (rank.0 + 500) / 1_000).collect::<Vec<_>>();
        let up = rounded(upward_ranks(&graph, duration, transfer));
        assert_eq!(up, [108, 77, 80, 80, 69, 63, 43, 36, 44, 15]);
        let down = rounded(downward_ranks(&graph, duration, transfer));
        assert_eq!(down, [0, 31, 25, 22, 24, 27, 62, 67, 64, 93]);
        assert_eq!(critical_path(&graph, duration, transfer), [0, 1, 8, 9]);
    }
}
