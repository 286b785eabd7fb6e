//! What an agent asks of the node that runs it.
//!
//! Part of an agent's first fact, and of its row, so that whoever places it need not read its stream. Most agents ask for
//! nothing and have none of it.

use std::collections::BTreeMap;
use std::fmt;

use minicbor::{Decode, Encode};
use nexa_types::Timestamp;

/// What an agent asks of its node. A node alone runs everything, whatever is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Asks {
    /// Labels that the node must have, with these values.
    #[n(0)]
    pub labels: BTreeMap<String, String>,
    /// Cores, in thousandths, that the node must have.
    #[n(1)]
    pub cpu_milli: Option<u32>,
    /// Memory, in bytes, that the node must have.
    #[n(2)]
    pub memory_bytes: Option<u64>,
    /// The gang that it starts with.
    #[n(3)]
    pub gang: Option<Gang>,
    /// From then on nothing is asked any more: its time is over, and it can say so anywhere.
    #[n(4)]
    pub until: Option<Timestamp>,
}

/// Agents that start together, or not at all. They are born with one record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Gang {
    /// Its name within the workload.
    #[n(0)]
    pub name: String,
    /// How many agents it has.
    #[n(1)]
    pub members: u32,
}

impl Asks {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a node has the labels, the cores (in thousandths) and the memory (in bytes), all of it counted as free.
    #[must_use]
    pub fn is_met_by(&self, labels: &BTreeMap<String, String>, cpu_milli: u64, memory_bytes: u64) -> bool {
        self.labels.iter().all(|(name, value)| labels.get(name) == Some(value))
            && self.cpu_milli.is_none_or(|wanted| u64::from(wanted) <= cpu_milli)
            && self.memory_bytes.is_none_or(|wanted| wanted <= memory_bytes)
    }
}

/// As people read it after "a node with": `gpu=yes, zone=eu, 64 cores`. Empty if nothing is asked of the node itself.
impl fmt::Display for Asks {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.labels.iter().map(|(name, value)| format!("{name}={value}"));
        let cores = self.cpu_milli.map(|milli| format!("{} cores", f64::from(milli) / 1_000.0));
        let memory = self.memory_bytes.map(|bytes| format!("{} MiB", bytes.div_ceil(1 << 20)));
        let words: Vec<String> = labels.chain(cores).chain(memory).collect();
        out.write_str(&words.join(", "))
    }
}

/// As people read it: `readers (3 agents)`.
impl fmt::Display for Gang {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({} agents)", self.name, self.members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_node_must_have_every_label_and_be_large_enough() {
        let asks =
            Asks { labels: labels(&[("gpu", "yes"), ("zone", "eu")]), cpu_milli: Some(1_500), ..Asks::default() };
        let both = labels(&[("zone", "eu"), ("gpu", "yes"), ("disk", "ssd")]);
        assert!(asks.is_met_by(&both, 1_500, 0));
        assert!(!asks.is_met_by(&both, 1_499, 0), "too few cores");
        assert!(!asks.is_met_by(&labels(&[("gpu", "yes"), ("zone", "us")]), 2_000, 0), "another zone");
        assert!(!asks.is_met_by(&labels(&[("gpu", "yes")]), 2_000, 0), "no zone");
        assert!(Asks::default().is_met_by(&labels(&[]), 0, 0) && Asks::default().is_nothing());
        assert_eq!(asks.to_string(), "gpu=yes, zone=eu, 1.5 cores");
        assert_eq!(Gang { name: "readers".into(), members: 3 }.to_string(), "readers (3 agents)");
    }
}
