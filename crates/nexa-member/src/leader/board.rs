//! Shares agents out among the nodes with room: `nexa_sched::place_one`, one after the other, and `place_gang` for those
//! that start together.
//!
//! What single agents use is measured and not held, so an agent that says how many cores it needs is kept from nodes that
//! have fewer, and from nothing else. Members of a gang must fit together.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use nexa_event::asks::Asks;
use nexa_sched::{Demand, Labels, NodeFree, NodeLoad, NodeState, Resources, Weights, place_gang, place_one};
use nexa_types::{Generation, NodeId};

use super::Limits;
use super::nodes::{Nodes, Seat};

/// What one agent takes of a node: a place.
const ONE: Resources = Resources { cpu_milli: 0, memory_bytes: 0, llm_slots: 1 };

/// The nodes while agents are shared out among them.
#[derive(Default)]
pub(super) struct Board {
    names: Vec<(NodeId, Generation)>,
    loads: Vec<NodeLoad>,
    rooms: Vec<u64>,
    /// Nodes of which the room is kept for somebody.
    kept: Vec<bool>,
}

impl Board {
    pub(super) fn new(nodes: &Nodes, limits: &Limits, except: Option<&NodeId>) -> Self {
        let mut board = Self::default();
        for (node, seat) in nodes.seats.iter().filter(|(node, _)| Some(*node) != except) {
            let room = nodes.room(limits, node);
            if room > 0 {
                board.add(node, seat.facts.generation, nodes.load(limits, node, seat), room);
            }
        }
        board
    }

    /// The open nodes as if nobody were on them, those with most room first.
    fn empty(nodes: &Nodes, limits: &Limits) -> Self {
        let mut open: Vec<(&NodeId, &Seat)> = nodes.seats.iter().filter(|(node, _)| nodes.is_open(node)).collect();
        open.sort_by_key(|(node, _)| Reverse(nodes.room(limits, node)));
        let mut board = Self::default();
        for (node, seat) in open {
            let load = nodes.load(limits, node, seat);
            let load = NodeLoad { used: Resources::default(), state: NodeState::Open, ..load };
            board.add(node, seat.facts.generation, load, seat.facts.agents_max);
        }
        board
    }

    fn add(&mut self, node: &NodeId, generation: Generation, load: NodeLoad, room: u64) {
        self.names.push((node.clone(), generation));
        self.loads.push(load);
        self.rooms.push(room);
        self.kept.push(false);
    }

    /// Nodes that would hold all of these if nobody were on them, few and with much room; none if there are not enough.
    pub(super) fn enough(nodes: &Nodes, limits: &Limits, asks: &[Option<&Asks>]) -> Option<BTreeSet<NodeId>> {
        let places = Self::empty(nodes, limits).take_all(asks, true)?;
        Some(places.into_iter().map(|(node, _)| node).collect())
    }

    /// Keeps the room of these nodes for somebody.
    pub(super) fn keep(&mut self, nodes: &BTreeSet<NodeId>) {
        for ((node, _), kept) in self.names.iter().zip(&mut self.kept) {
            *kept |= nodes.contains(node);
        }
    }

    /// What the nodes have free: as many places as there is room for, on those that are kept only for whom they are.
    fn free(&self, with_kept: bool) -> Vec<NodeFree<'_>> {
        let weights = Weights::default();
        let of = |((load, room), kept): ((_, &u64), &bool)| {
            let free = NodeLoad::free(load, &weights);
            let places = free.free.llm_slots.min(*room);
            let is_open = *room > 0 && (with_kept || !kept);
            NodeFree { is_open, free: Resources { llm_slots: places, ..free.free }, ..free }
        };
        self.loads.iter().zip(&self.rooms).zip(&self.kept).map(of).collect()
    }

    fn give(&mut self, at: u32) -> (NodeId, Generation) {
        let at = at as usize;
        self.rooms[at] -= 1;
        self.loads[at].used = self.loads[at].used.plus(&ONE);
        self.names[at].clone()
    }

    /// A place on one of them for an agent that asks for this, also on those that are kept if `with_kept`.
    pub(super) fn take(
        &mut self,
        limits: &Limits,
        asks: Option<&Asks>,
        with_kept: bool,
        dice: u64,
    ) -> Option<(NodeId, Generation)> {
        let none = Labels::new();
        let labels = asks.map_or(&none, |asks| &asks.labels);
        let at = place_one(&self.free(with_kept), &demand(asks), labels, limits.strategy, dice)?;
        Some(self.give(at))
    }

    /// Places for all of these, or for none.
    pub(super) fn take_all(&mut self, asks: &[Option<&Asks>], with_kept: bool) -> Option<Vec<(NodeId, Generation)>> {
        let usable = self.rooms.iter().zip(&self.kept).filter(|(_, kept)| with_kept || !**kept).map(|(room, _)| room);
        if usable.fold(0, |sum: u64, room| sum.saturating_add(*room)) < asks.len() as u64 {
            return None;
        }
        let none = Labels::new();
        let demands: Vec<Demand<'_>> = (asks.iter())
            .map(|asks| Demand { resources: demand(*asks), labels: asks.map_or(&none, |asks| &asks.labels) })
            .collect();
        let places = place_gang(&self.free(with_kept), &demands)?;
        Some(places.into_iter().map(|at| self.give(at)).collect())
    }
}

fn demand(asks: Option<&Asks>) -> Resources {
    let cpu_milli = asks.and_then(|asks| asks.cpu_milli).map_or(0, u64::from);
    Resources { cpu_milli, memory_bytes: asks.and_then(|asks| asks.memory_bytes).unwrap_or(0), ..ONE }
}
