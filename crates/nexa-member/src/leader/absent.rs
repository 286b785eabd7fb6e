//! Agents that their nodes lack, until that is certain.
//!
//! Whoever moves by the order of an earlier leader is its new node's by its row before that node is told of it, and it is told
//! by the node that the agent comes from, with what that goes on with. To give such an agent anew would cost it the answer of
//! a call in flight. So a node that lacks an agent is asked once more, and only what it lacks then is given to another.
//!
//! Bound: [`ABSENT_MAX`] agents are remembered. Above it one that is lacked is given anew at once.

use std::collections::{BTreeMap, BTreeSet};

use nexa_types::{AgentId, Epoch, Millis, NodeId, Timestamp};

/// Until a node is asked again: it is told of an agent that moves to it within a few milliseconds, or not at once.
pub(super) const ASKED_AGAIN: Millis = Millis(1_000);
/// Agents that are remembered.
const ABSENT_MAX: usize = 65_536;

#[derive(Debug, Clone, Default)]
pub(super) struct Absent {
    /// Since when, and under which right.
    lacked: BTreeMap<(NodeId, AgentId), (Epoch, Timestamp)>,
    /// When nodes are asked again.
    due: BTreeMap<NodeId, Timestamp>,
}

impl Absent {
    /// A node was asked about agents and lacks some of them. Gives those that it has lacked for long enough.
    pub(super) fn lacks(
        &mut self,
        node: &NodeId,
        asked: impl Iterator<Item = (AgentId, Epoch)>,
        missing: &BTreeSet<AgentId>,
        now: Timestamp,
    ) -> BTreeSet<AgentId> {
        let mut lost = BTreeSet::new();
        for (agent, epoch) in asked {
            let place = (node.clone(), agent);
            let before = self.lacked.remove(&place);
            if !missing.contains(&agent) {
                continue;
            }
            let since = before.filter(|(right, _)| *right == epoch).map_or(now, |(_, since)| since);
            if now.since(since) >= ASKED_AGAIN || self.lacked.len() >= ABSENT_MAX {
                lost.insert(agent);
            } else {
                self.lacked.insert(place, (epoch, since));
                self.due.entry(node.clone()).or_insert(now.after(ASKED_AGAIN));
            }
        }
        lost
    }

    /// A node is asked again although nothing was found out now.
    pub(super) fn put_off(&mut self, node: &NodeId, now: Timestamp) {
        self.due.entry(node.clone()).or_insert(now.after(ASKED_AGAIN));
    }

    /// Asks those again whose time has come. One that is being asked already is asked after that.
    pub(super) fn ask_again(&mut self, now: Timestamp, mut ask: impl FnMut(&NodeId) -> bool) {
        self.due.retain(|node, at| *at > now || !ask(node));
    }

    /// A run of a node is over, and what it lacked with it.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.due.remove(node);
        self.lacked.retain(|(of, _), _| of != node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacked_twice_is_lost_and_what_has_come_meanwhile_or_under_another_right_is_not() {
        let (mut absent, node) = (Absent::default(), "a".parse::<NodeId>().expect("a name"));
        let agent = |n: u8| AgentId::from_bytes([n; 16]);
        let missing = |of: &[u8]| of.iter().map(|n| agent(*n)).collect::<BTreeSet<_>>();
        let mut ask = |right: u64, lacked: &[u8], at: u64| {
            let asked = [1, 2, 3].map(|n| (agent(n), Epoch(if n == 3 { right } else { 1 })));
            absent.lacks(&node, asked.into_iter(), &missing(lacked), Timestamp(at))
        };
        assert_eq!(ask(1, &[1, 2, 3], 0), missing(&[]));
        assert_eq!(ask(1, &[1, 2, 3], 999), missing(&[]), "too soon");
        assert_eq!(ask(2, &[1, 3], 1_000), missing(&[1]));
        assert_eq!(ask(2, &[2], 1_500), missing(&[]), "it had come, and is lacked again");
        assert_eq!(ask(2, &[2], 2_500), missing(&[2]));
        let mut asks = 0;
        let mut again = |at, is_free| {
            absent.ask_again(Timestamp(at), |_| {
                asks += 1;
                is_free
            });
            asks
        };
        assert_eq!([again(999, true), again(1_000, false), again(1_001, true), again(9_000, true)], [0, 1, 2, 2]);
    }
}
