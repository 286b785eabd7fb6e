//! Where a gang goes: all of its members, or none.
//!
//! In:  what each node has free, what each member needs.
//! Out: a node for each member, such that all of them fit together; none if no such way was found.
//!
//! Whether several demands fit together is bin packing, which nobody answers exactly in time. Members that fewest nodes could
//! take go first, of those the largest, each to the first node with room (first fit decreasing: Johnson, "Near-Optimal Bin
//! Packing Algorithms", MIT, 1973). So a gang that would just fit may be refused; one that does not fit is never taken.
//! Taking the first node keeps members close together, and leaves the last nodes free for gangs that need whole ones.
//!
//! A way found is no room held: others place at the same time. See [`GangAttempt`](crate::GangAttempt).

use std::cmp::Reverse;

use crate::place::NodeFree;
use crate::{Labels, Resources};

/// What one member needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand<'a> {
    /// What it holds.
    pub resources: Resources,
    /// What its node must have.
    pub labels: &'a Labels,
}

/// A node for each member, by their places in `nodes` and `demands`. Takes O(members · nodes).
#[must_use]
pub fn place_gang(nodes: &[NodeFree<'_>], demands: &[Demand<'_>]) -> Option<Vec<u32>> {
    let largest = nodes.iter().fold(Resources::default(), |largest, node| Resources {
        cpu_milli: largest.cpu_milli.max(node.capacity.cpu_milli),
        memory_bytes: largest.memory_bytes.max(node.capacity.memory_bytes),
        llm_slots: largest.llm_slots.max(node.capacity.llm_slots),
    });
    let mut order = Vec::with_capacity(demands.len());
    for (at, demand) in demands.iter().enumerate() {
        let takers = nodes.iter().filter(|node| node.takes(&demand.resources, demand.labels)).count();
        if takers == 0 {
            return None;
        }
        order.push((takers, Reverse(demand.resources.dominant_share(&largest)), at));
    }
    order.sort_unstable();
    let mut left: Vec<NodeFree<'_>> = nodes.to_vec();
    let mut places = vec![0; demands.len()];
    for (.., at) in order {
        let Demand { resources, labels } = &demands[at];
        let node = left.iter().position(|node| node.takes(resources, labels))?;
        left[node].free = left[node].free.minus(resources);
        places[at] = u32::try_from(node).expect("nodes are numbered in 32 bits");
    }
    Some(places)
}
