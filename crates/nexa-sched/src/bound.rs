//! What no plan can undercut.

use nexa_types::Millis;

use crate::plan::Setting;
use crate::timeline::KINDS;

/// The largest of: the longest way through what has not ended, each task on the fastest node that it fits on and nothing
/// in transit; the work of each resource over all that there is of it; and of each shared limit. From now on.
pub(crate) fn lower_bound(setting: &Setting) -> Millis {
    Millis(longest_way(setting).max(work(setting)).max(shared(setting)))
}

fn waiting<'s>(setting: &'s Setting) -> impl Iterator<Item = u32> + 's {
    (0..setting.units.len() as u32).flat_map(|unit| setting.units.row(unit).iter().copied())
}

fn longest_way(setting: &Setting) -> u64 {
    let graph = setting.problem.graph;
    let mut ends: Vec<u64> = setting.started.iter().map(|slot| slot.end.0.saturating_sub(setting.now())).collect();
    for unit in 0..setting.units.len() as u32 {
        let members = setting.units.row(unit);
        let before = members.iter().flat_map(|&task| graph.dependencies(task));
        let start = before.map(|&before| ends[before as usize]).max().unwrap_or(0);
        for &task in members {
            ends[task as usize] = start.saturating_add(setting.fastest(task));
        }
    }
    ends.into_iter().max().unwrap_or(0)
}

/// Work counts at the reference: a node of speed 200 does twice as much of it in a millisecond.
fn work(setting: &Setting) -> u64 {
    let nodes = &setting.problem.cluster.nodes;
    let mut all = [0u128; KINDS];
    for (node, capacity) in nodes.iter().zip(&setting.capacity).filter(|(node, _)| !node.is_cordoned) {
        for (all, amount) in all.iter_mut().zip(capacity) {
            *all = all.saturating_add(u128::from(*amount) * u128::from(node.speed.max(1)));
        }
    }
    let mut needed = [0u128; KINDS];
    let shapes = setting.tasks.shapes();
    let mut references = vec![0u128; shapes.len()];
    for task in waiting(setting).map(|task| setting.tasks.get(task)) {
        references[task.shape as usize] += u128::from(task.reference) * 100;
    }
    for (shape, reference) in shapes.iter().zip(references) {
        for (needed, amount) in needed.iter_mut().zip(shape.demand) {
            *needed = needed.saturating_add(u128::from(amount).saturating_mul(reference));
        }
    }
    let times = needed.into_iter().zip(all).map(|(needed, all)| needed.checked_div(all).unwrap_or(0));
    u64::try_from(times.max().unwrap_or(0)).unwrap_or(u64::MAX)
}

fn shared(setting: &Setting) -> u64 {
    let each = &setting.ledgers.each;
    if each.is_empty() {
        return 0;
    }
    // What is held of a rate may go on after the last end: as long as the longest that is held, less the task itself.
    let mut needed = vec![0u128; each.len()];
    let mut beyond = vec![0u64; each.len()];
    for task in waiting(setting) {
        let taking = setting.fastest(task);
        for hold in setting.ledgers.holds(task) {
            let span = hold.span.unwrap_or(taking);
            let needed = &mut needed[hold.ledger as usize];
            *needed = needed.saturating_add(u128::from(hold.amount) * u128::from(span));
            let after = &mut beyond[hold.ledger as usize];
            *after = (*after).max(span.saturating_sub(taking));
        }
    }
    let times = each.iter().zip(needed).zip(beyond).map(|(((capacity, _), needed), beyond)| {
        let time = needed.checked_div(u128::from(*capacity)).unwrap_or(0);
        u64::try_from(time).unwrap_or(u64::MAX).saturating_sub(beyond)
    });
    times.max().unwrap_or(0)
}
