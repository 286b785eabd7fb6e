//! The nodes, and what lies between them.

use std::collections::BTreeMap;

use nexa_types::{Millis, NodeId};

use crate::Resources;

/// What a node says of itself, and what an agent may ask of its node: `zone = "eu"`.
pub type Labels = BTreeMap<String, String>;

/// A node as a scheduler sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name.
    pub id: NodeId,
    /// What it has in all.
    pub capacity: Resources,
    /// How fast it computes, in percent of the reference: at 200 everything takes half as long.
    pub speed: u32,
    /// What may be asked of it.
    pub labels: Labels,
    /// Whether it takes nothing new.
    pub is_cordoned: bool,
}

impl NodeInfo {
    /// How long something takes here, rounded up. A speed of 0 is taken for 1.
    #[must_use]
    pub fn duration(&self, at_reference: Millis) -> Millis {
        let scaled = u128::from(at_reference.0) * 100;
        Millis(u64::try_from(scaled.div_ceil(u128::from(self.speed.max(1)))).unwrap_or(u64::MAX))
    }

    /// Whether it has all of these labels, with these values.
    #[must_use]
    pub fn has(&self, labels: &Labels) -> bool {
        labels.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}

/// How results get from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The time that each takes, however small.
    pub latency: Millis,
    /// Bytes a millisecond between any two nodes; 0 for no limit.
    pub bytes_per_ms: u64,
}

impl Network {
    /// How long something takes from one node to another, rounded up.
    #[must_use]
    pub fn duration(&self, bytes: u64) -> Millis {
        let on_the_way = if self.bytes_per_ms == 0 { 0 } else { bytes.div_ceil(self.bytes_per_ms) };
        self.latency + Millis(on_the_way)
    }
}

/// The nodes and their network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The nodes; other values name them by their place here.
    pub nodes: Vec<NodeInfo>,
    /// What lies between them.
    pub network: Network,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_up() {
        let node = |speed| NodeInfo {
            id: "a".parse().expect("a name"),
            capacity: Resources::default(),
            speed,
            labels: Labels::new(),
            is_cordoned: false,
        };
        assert_eq!([300, 100, 50, 0].map(|speed| node(speed).duration(Millis(10)).0), [4, 10, 20, 1_000]);
        let network = Network { latency: Millis(2), bytes_per_ms: 100 };
        assert_eq!([0, 1, 100, 101].map(|bytes| network.duration(bytes).0), [2, 3, 3, 4]);
        assert_eq!(Network { latency: Millis(0), bytes_per_ms: 0 }.duration(u64::MAX), Millis(0));
    }
}
