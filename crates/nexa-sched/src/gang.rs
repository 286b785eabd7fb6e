//! Members that start together: all of them at once, or none.
//!
//! Nothing is held while a gang waits: a moment is looked for at which all members find room together, and only then is
//! room taken. So gangs cannot wait for each other in a ring.

use crate::plan::Setting;
use crate::timeline::{Amounts, KINDS};

/// Places that are tried for one gang at one moment before it is held that there is no room.
const PACK_STEPS_MAX: usize = 2_000;

/// A node for each member, in the order of `members`, so that what all hold together is free: whoever has the fewest
/// nodes to choose from chooses first, then whoever takes the most of a node; each takes the fastest node with room, and
/// goes on to the next if those after it find none, up to [`PACK_STEPS_MAX`] places. `free` is what each node has; it is
/// as before afterwards. `may` says whether a member may be on a node now.
pub(crate) fn pack(
    setting: &Setting,
    members: &[u32],
    free: &mut [Amounts],
    may: impl Fn(u32, u32) -> bool,
) -> Option<Vec<u32>> {
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_cached_key(|&place| {
        let task = members[place];
        let nodes = setting.nodes_for(task);
        let share = nodes.iter().map(|&node| {
            let of = &setting.problem.cluster.nodes[node as usize].capacity;
            setting.problem.graph.agents()[task as usize].requirements.dominant_share(of)
        });
        (nodes.len(), std::cmp::Reverse(share.min().unwrap_or(0)), task)
    });
    // The place in its list of nodes that each member tries next; a member before `at` is on the node before that.
    let mut tried = vec![0usize; members.len()];
    let mut at = 0;
    let mut steps = 0;
    let node_of = |place: usize, tried: &[usize]| setting.nodes_for(members[place])[tried[place] - 1];
    while at < order.len() {
        let place = order[at];
        let task = members[place];
        let need = setting.demand(task);
        let nodes = setting.nodes_for(task);
        let fits = |node: u32, free: &[Amounts]| {
            (0..KINDS).all(|kind| need[kind] <= free[node as usize][kind] || need[kind] == 0) && may(task, node)
        };
        let found = (tried[place]..nodes.len()).find(|&choice| fits(nodes[choice], free));
        steps += 1;
        if let Some(choice) = found {
            tried[place] = choice + 1;
            for (free, need) in free[nodes[choice] as usize].iter_mut().zip(need) {
                *free -= need;
            }
            at += 1;
        } else {
            if at == 0 || steps > PACK_STEPS_MAX {
                break;
            }
            tried[place] = 0;
            at -= 1;
            give_back(setting, members[order[at]], node_of(order[at], &tried), free);
        }
    }
    let is_found = at == order.len();
    for &place in &order[..at] {
        give_back(setting, members[place], node_of(place, &tried), free);
    }
    is_found.then(|| (0..members.len()).map(|place| node_of(place, &tried)).collect())
}

fn give_back(setting: &Setting, task: u32, node: u32, free: &mut [Amounts]) {
    for (free, need) in free[node as usize].iter_mut().zip(setting.demand(task)) {
        *free += need;
    }
}
