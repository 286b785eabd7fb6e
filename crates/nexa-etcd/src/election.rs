//! What the list of members means for who wants to lead.
//!
//! There is no lock and no queue: whoever wants to lead and sees that nobody does writes the leader's key, if it is still absent,
//! under its own lease. Losing, resigning and the end of a lease all show in the list, from which the next step follows.

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use nexa_ports::membership::{Generation, Members};
use nexa_types::{Epoch, NodeId};

use crate::lease::Own;
use crate::view::{Keys, encode_leader};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Lead, if still nobody does.
    Lead,
    /// Give this right to lead back.
    Resign(Epoch),
}

/// What a node that is this run has to do when the list is so.
pub(crate) fn step(members: &Members, own: Option<(&NodeId, Generation)>, wants: bool) -> Option<Step> {
    let (node, generation) = own?;
    match &members.leader {
        None if wants && members.nodes.get(node).is_some_and(|member| member.generation == generation) => {
            Some(Step::Lead)
        }
        Some(leader) if !wants && leader.node == *node && leader.generation == generation => {
            Some(Step::Resign(leader.epoch))
        }
        _ => None,
    }
}

/// The write for a step: does nothing if the list has changed since.
pub(crate) fn write(step: Step, keys: &Keys, own: &Own) -> Txn {
    let leader = keys.leader();
    match step {
        Step::Lead => Txn::new()
            .when([
                Compare::create_revision(leader.clone(), CompareOp::Equal, 0),
                Compare::create_revision(keys.node(&own.node), CompareOp::Equal, signed(own.generation.0)),
            ])
            .and_then([TxnOp::put(
                leader,
                encode_leader(&own.node, own.generation),
                Some(PutOptions::new().with_lease(own.lease)),
            )]),
        Step::Resign(epoch) => Txn::new()
            .when([Compare::create_revision(leader.clone(), CompareOp::Equal, signed(epoch.0))])
            .and_then([TxnOp::delete(leader, None)]),
    }
}

fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nexa_ports::membership::{Leader, Member, NodeCard};

    use super::*;

    fn node(name: &str) -> NodeId {
        name.parse().expect("a node's name")
    }

    fn list(nodes: &[(&str, u64)], leader: Option<(&str, u64)>) -> Members {
        let member = |name: &str, generation: u64| Member {
            card: NodeCard {
                id: node(name),
                door: String::new(),
                link: String::new(),
                labels: BTreeMap::new(),
                cpu_milli: 0,
                memory_bytes: 0,
                agents_max: 0,
                build: String::new(),
                formats: (1, 1),
            },
            generation: Generation(generation),
        };
        Members {
            revision: 9,
            nodes: nodes.iter().map(|(name, generation)| (node(name), member(name, *generation))).collect(),
            leader: leader.map(|(name, generation)| Leader {
                node: node(name),
                generation: Generation(generation),
                epoch: Epoch(generation + 1),
            }),
        }
    }

    #[test]
    fn a_step_follows_from_the_list_the_own_run_and_the_wish() {
        let a = node("a");
        let own = Some((&a, Generation(3)));
        let nobody = list(&[("a", 3), ("b", 5)], None);
        assert_eq!(step(&nobody, own, true), Some(Step::Lead));
        assert_eq!(step(&nobody, own, false), None);
        assert_eq!(step(&nobody, None, true), None, "who is not a member does not lead");
        assert_eq!(
            step(&list(&[("b", 5)], None), own, true),
            None,
            "who is not in the list any more waits until it knows"
        );
        assert_eq!(step(&list(&[("a", 7)], None), own, true), None, "nor a later run of the same name");

        let led = list(&[("a", 3), ("b", 5)], Some(("b", 5)));
        assert_eq!(step(&led, own, true), None, "one leads at a time");
        assert_eq!(step(&led, own, false), None, "nobody resigns for another");
        let leads = list(&[("a", 3)], Some(("a", 3)));
        assert_eq!(step(&leads, own, true), None);
        assert_eq!(step(&leads, own, false), Some(Step::Resign(Epoch(4))));
    }
}
