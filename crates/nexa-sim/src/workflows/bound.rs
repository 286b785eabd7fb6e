//! What no schedule can be below.

use nexa_sched::Cluster;
use nexa_types::Millis;

use super::Workflow;

/// A time that no schedule of a workflow on a cluster ends before.
///
/// Let a task's *head* be the longest way to its start and its *tail* the longest way from its end, both at the speed of
/// the fastest node and without transfers. A set of tasks whose heads are at least `h` and whose tails are at least `q`
/// starts after `h`, has `q` to follow, and takes its work divided by what the whole cluster can do (the energetic bound of
/// Carlier and Pinson, "An algorithm for solving the job-shop problem", 1989, for all nodes as one). The bound is the
/// largest of these over all `h` and `q`, which the longest path and the total work are cases of. Processor time is what is
/// counted; memory is left out.
#[must_use]
pub fn lower_bound(workflow: &Workflow, cluster: &Cluster) -> Millis {
    let tasks = workflow.tasks();
    let Some(fastest) = cluster.nodes.iter().max_by_key(|node| node.speed) else { return Millis(0) };
    let duration = |task: u32| fastest.duration(tasks[task as usize].duration).0;
    let (mut head, mut tail) = (vec![0_u64; tasks.len()], vec![0_u64; tasks.len()]);
    let mut longest = 0;
    for &task in workflow.topological() {
        let ends = |need: &super::Need| head[need.task as usize] + duration(need.task);
        head[task as usize] = tasks[task as usize].needs.iter().map(ends).max().unwrap_or(0);
        longest = longest.max(head[task as usize] + duration(task));
    }
    for &task in workflow.topological().iter().rev() {
        let way = |child: &u32| tail[*child as usize] + duration(*child);
        tail[task as usize] = workflow.children(task).iter().map(way).max().unwrap_or(0);
    }
    // Work in thousandths of a core at one percent of the reference, times milliseconds.
    let power: u128 =
        cluster.nodes.iter().map(|node| u128::from(node.capacity.cpu_milli) * u128::from(node.speed.max(1))).sum();
    let work = |task: u32| {
        let it = &tasks[task as usize];
        u128::from(it.duration.0) * 100 * u128::from(it.requirements.cpu_milli)
    };
    let mut by_tail: Vec<u32> = (0..tasks.len() as u32).collect();
    by_tail.sort_by_key(|task| std::cmp::Reverse(tail[*task as usize]));
    let mut heads = head.clone();
    heads.sort_unstable();
    heads.dedup();
    let mut bound = longest;
    for h in heads {
        let mut sum = 0;
        for &task in by_tail.iter().filter(|task| head[**task as usize] >= h) {
            sum += work(task);
            let takes = u64::try_from(sum.div_ceil(power.max(1))).unwrap_or(u64::MAX);
            bound = bound.max(h.saturating_add(takes).saturating_add(tail[task as usize]));
        }
    }
    Millis(bound)
}
