//! Modelled clusters: nodes of different speed and size from a seed.

use nexa_sched::{Cluster, Labels, Network, NodeInfo, Resources};
use nexa_types::Millis;

use crate::dice::Dice;

/// What lies between modelled nodes: one gigabit a second, one millisecond away.
pub const NETWORK: Network = Network { latency: Millis(1), bytes_per_ms: 125_000 };

/// What a node has for each of its cores.
const MEMORY_PER_CORE: u64 = 4 << 30;
const SPEED: (u64, u64) = (50, 200);
const CORES: (u64, u64) = (1, 8);

/// A cluster of so many nodes, of 50 to 200 percent speed and with 1 to 8 cores of 4 GiB each. That of fewer nodes is the
/// beginning of that of more.
#[must_use]
pub fn cluster(nodes: usize, seed: u64) -> Cluster {
    let mut dice = Dice::of(&[0xc1, seed]);
    let node = |place: usize| {
        let (speed, cores) = (dice.between(SPEED.0, SPEED.1), dice.between(CORES.0, CORES.1));
        NodeInfo {
            id: format!("node-{place}").parse().expect("letters, digits and a hyphen are a name"),
            capacity: Resources { cpu_milli: cores * 1_000, memory_bytes: cores * MEMORY_PER_CORE, llm_slots: 0 },
            speed: u32::try_from(speed).expect("a speed is three digits"),
            labels: Labels::new(),
            is_cordoned: false,
        }
    };
    Cluster { nodes: (0..nodes).map(node).collect(), network: NETWORK }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_grow_and_are_heterogeneous() {
        let (small, large) = (cluster(4, 9), cluster(64, 9));
        assert_eq!(small.nodes, large.nodes[..4]);
        assert_ne!(cluster(4, 9), cluster(4, 10));
        let speeds = large.nodes.iter().map(|node| node.speed);
        let cores = large.nodes.iter().map(|node| node.capacity.cpu_milli / 1_000);
        assert!(speeds.clone().all(|speed| (50..=200).contains(&speed)));
        assert!(speeds.clone().min() < Some(75) && speeds.max() > Some(175));
        assert_eq!((cores.clone().min(), cores.max()), (Some(1), Some(8)));
    }
}
