//! What nodes were given and have not said to have: told again until they do, or until that run of theirs is gone.
//!
//! Bounded by the ramp: a node with `adopting_max` agents here is given no more.

use std::collections::{BTreeMap, BTreeSet};

use nexa_types::{AgentId, Epoch, Generation, NodeId, Timestamp};

use super::queue::Wish;
use super::{Limits, Output};

#[derive(Debug, Clone)]
struct Telling {
    node: NodeId,
    generation: Generation,
    agents: Vec<Wish>,
    /// When it is told again; none while an answer is awaited.
    again_at: Option<Timestamp>,
}

/// All that was told and not answered, by number.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    tellings: BTreeMap<u64, Telling>,
}

impl Told {
    /// A run of a node was given these; `from` of each is its new epoch.
    pub(super) fn add(&mut self, number: u64, node: NodeId, generation: Generation, agents: Vec<Wish>, now: Timestamp) {
        self.tellings.insert(number, Telling { node, generation, agents, again_at: Some(now) });
    }

    pub(super) fn answered(&mut self, limits: &Limits, number: u64, done: bool, now: Timestamp) {
        if done {
            self.tellings.remove(&number);
        } else if let Some(telling) = self.tellings.get_mut(&number) {
            telling.again_at = Some(now.after(limits.retell_after));
        }
    }

    /// What was told to this node, but to another run of it or to none that is there: nobody has it.
    pub(super) fn lost(&mut self, node: &NodeId, run: Option<Generation>) -> Vec<Wish> {
        let mut lost = Vec::new();
        self.tellings.retain(|_, telling| {
            let stays = telling.node != *node || Some(telling.generation) == run;
            if !stays {
                lost.append(&mut telling.agents);
            }
            stays
        });
        lost
    }

    /// Says what is due.
    pub(super) fn tell(&mut self, leader: Epoch, now: Timestamp, out: &mut Vec<Output>) {
        for (number, telling) in &mut self.tellings {
            if telling.again_at.is_some_and(|at| at <= now) {
                telling.again_at = None;
                out.push(Output::Tell {
                    number: *number,
                    node: telling.node.clone(),
                    generation: telling.generation,
                    leader,
                    agents: telling.agents.iter().map(|wish| (wish.agent, wish.from)).collect(),
                });
            }
        }
    }

    /// Which agents a node is being told of.
    pub(super) fn on_their_way(&self, node: &NodeId) -> BTreeSet<AgentId> {
        let of_node = self.tellings.values().filter(|telling| telling.node == *node);
        of_node.flat_map(|telling| telling.agents.iter().map(|wish| wish.agent)).collect()
    }
}
