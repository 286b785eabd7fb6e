//! Shares agents out among the nodes with room: `nexa_sched::place_one`, one after the other.

use nexa_sched::{Labels, NodeFree, NodeLoad, Resources, Weights, place_one};
use nexa_types::{Generation, NodeId};

use super::Limits;
use super::nodes::Nodes;

/// What one agent takes of a node: a place.
const ONE: Resources = Resources { cpu_milli: 0, memory_bytes: 0, llm_slots: 1 };

/// The nodes while agents are shared out among them.
pub(super) struct Board {
    names: Vec<(NodeId, Generation)>,
    loads: Vec<NodeLoad>,
    rooms: Vec<u64>,
}

impl Board {
    pub(super) fn new(nodes: &Nodes, limits: &Limits, except: Option<&NodeId>) -> Self {
        let mut board = Self { names: Vec::new(), loads: Vec::new(), rooms: Vec::new() };
        for (node, seat) in nodes.seats.iter().filter(|(node, _)| Some(*node) != except) {
            let room = nodes.room(limits, node);
            if room > 0 {
                board.names.push((node.clone(), seat.facts.generation));
                board.loads.push(nodes.load(limits, node, seat));
                board.rooms.push(room);
            }
        }
        board
    }

    /// A place on one of them.
    pub(super) fn take(&mut self, limits: &Limits, dice: u64) -> Option<(NodeId, Generation)> {
        let weights = Weights::default();
        let free: Vec<NodeFree<'_>> = (self.loads.iter().zip(&self.rooms))
            .map(|(load, room)| NodeFree { is_open: *room > 0, ..load.free(&weights) })
            .collect();
        let at = place_one(&free, &ONE, &Labels::new(), limits.strategy, dice)? as usize;
        self.rooms[at] -= 1;
        self.loads[at].used = self.loads[at].used.plus(&ONE);
        Some(self.names[at].clone())
    }
}
