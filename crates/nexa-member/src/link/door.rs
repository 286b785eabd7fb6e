//! Whether a node that dials is let in.

use std::collections::BTreeMap;

use nexa_types::{Generation, NodeId};

use super::{Hello, PROTOCOL};

/// Names of nodes whose generation is remembered; whoever comes under one more is refused. Only an authority that signs
/// for thousands of names can fill it.
pub const NODES_MAX: usize = 4_096;

/// Why a connection is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is of another cluster.
    #[error("this is a node of the cluster `{ours}`, and the one that dialled is of `{theirs}`")]
    OtherCluster {
        /// The cluster of this node.
        ours: String,
        /// The other one.
        theirs: String,
    },
    /// It wanted somebody else: an address has changed hands.
    #[error("this is {me}, and {wanted} was wanted")]
    OtherNode {
        /// Who this is.
        me: NodeId,
        /// Who was wanted.
        wanted: NodeId,
    },
    /// Its certificate is made out to another name.
    #[error("the certificate that was shown is not made out to {node}")]
    NotCertified {
        /// The name that it gave.
        node: NodeId,
    },
    /// There is no protocol that both speak.
    #[error("this node speaks protocols {} to {}, the other {} to {}: one of them has to be updated", ours.0, ours.1, theirs.0, theirs.1)]
    OtherProtocol {
        /// What this node speaks.
        ours: (u16, u16),
        /// What the other speaks.
        theirs: (u16, u16),
    },
    /// A later run of the same node has been here. This one is over, for good.
    #[error("{node} has been here as generation {seen}, so its generation {generation} is over")]
    OldGeneration {
        /// Whose.
        node: NodeId,
        /// What it came as.
        generation: Generation,
        /// What it has been seen as.
        seen: Generation,
    },
    /// More names than a cluster has.
    #[error("{NODES_MAX} names of nodes are known already, and {node} is not one of them")]
    TooManyNodes {
        /// Who is not let in.
        node: NodeId,
    },
}

/// Knows who this node is, and as what everybody else has been seen.
#[derive(Debug)]
pub struct Doorkeeper {
    cluster: String,
    me: NodeId,
    seen: BTreeMap<NodeId, Generation>,
}

impl Doorkeeper {
    /// Who has not seen anybody yet.
    pub fn new(cluster: String, me: NodeId) -> Self {
        Self { cluster, me, seen: BTreeMap::new() }
    }

    /// Judges who dials. `certified` says whether the certificate that was shown is made out to `hello.node`. Gives
    /// the protocol to speak.
    ///
    /// # Errors
    /// Why the connection must not be used; it has left no trace then.
    pub fn admit(&mut self, hello: &Hello, certified: bool) -> Result<u16, Refused> {
        // First who it is: nothing that an unproven name says is remembered, or told it more than that.
        if !certified {
            return Err(Refused::NotCertified { node: hello.node.clone() });
        }
        if hello.cluster != self.cluster {
            return Err(Refused::OtherCluster { ours: self.cluster.clone(), theirs: hello.cluster.clone() });
        }
        if hello.to != self.me {
            return Err(Refused::OtherNode { me: self.me.clone(), wanted: hello.to.clone() });
        }
        let protocol = PROTOCOL.1.min(hello.protocol.1);
        if protocol < PROTOCOL.0.max(hello.protocol.0) {
            return Err(Refused::OtherProtocol { ours: PROTOCOL, theirs: hello.protocol });
        }
        self.note(&hello.node, hello.generation)?;
        Ok(protocol)
    }

    /// Takes note that a node has been seen as a generation, wherever that was heard.
    ///
    /// # Errors
    /// [`Refused::OldGeneration`] if a later one has been seen, [`Refused::TooManyNodes`].
    pub fn note(&mut self, node: &NodeId, generation: Generation) -> Result<(), Refused> {
        match self.seen.get(node) {
            Some(seen) if *seen > generation => {
                return Err(Refused::OldGeneration { node: node.clone(), generation, seen: *seen });
            }
            None if self.seen.len() >= NODES_MAX => return Err(Refused::TooManyNodes { node: node.clone() }),
            Some(_) | None => {}
        }
        self.seen.insert(node.clone(), generation);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Class, Lane};
    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).expect("a name")
    }

    fn hello(generation: u64) -> Hello {
        Hello {
            cluster: "blue".into(),
            node: node("a"),
            generation: Generation(generation),
            to: node("b"),
            protocol: PROTOCOL,
            lane: Lane { class: Class::Work, connection: 1 },
        }
    }

    fn keeper() -> Doorkeeper {
        Doorkeeper::new("blue".into(), node("b"))
    }

    #[test]
    fn a_generation_that_is_over_stays_over() {
        let mut keeper = keeper();
        assert_eq!(keeper.admit(&hello(5), true), Ok(1));
        assert_eq!(keeper.admit(&hello(7), true), Ok(1));
        assert_eq!(keeper.admit(&hello(7), true), Ok(1));
        for _ in 0..2 {
            let refused = keeper.admit(&hello(5), true).expect_err("over");
            assert_eq!(refused.to_string(), "a has been here as generation 7, so its generation 5 is over");
        }
    }

    #[test]
    fn who_is_refused_leaves_no_trace() {
        let mut keeper = keeper();
        assert_eq!(keeper.admit(&hello(9), false), Err(Refused::NotCertified { node: node("a") }));
        let other = Hello { cluster: "green".into(), ..hello(9) };
        assert!(matches!(keeper.admit(&other, true), Err(Refused::OtherCluster { .. })));
        let lost = Hello { to: node("c"), ..hello(9) };
        assert!(matches!(keeper.admit(&lost, true), Err(Refused::OtherNode { .. })));
        assert_eq!(keeper.admit(&hello(1), true), Ok(1), "no 9 was remembered");
    }

    #[test]
    fn the_newest_protocol_that_both_speak_is_spoken() {
        let mut keeper = keeper();
        assert_eq!(keeper.admit(&Hello { protocol: (1, 9), ..hello(1) }, true), Ok(PROTOCOL.1));
        for protocol in [(PROTOCOL.1 + 1, PROTOCOL.1 + 2), (0, PROTOCOL.0 - 1), (5, 2)] {
            let refused = keeper.admit(&Hello { protocol, ..hello(1) }, true);
            assert!(matches!(refused, Err(Refused::OtherProtocol { .. })), "{protocol:?}");
        }
    }

    #[test]
    fn names_are_remembered_up_to_a_bound() {
        let mut keeper = keeper();
        for at in 0..NODES_MAX {
            keeper.note(&node(&format!("n{at}")), Generation(1)).expect("room");
        }
        assert!(matches!(keeper.note(&node("more"), Generation(1)), Err(Refused::TooManyNodes { .. })));
        keeper.note(&node("n7"), Generation(2)).expect("known");
    }
}
