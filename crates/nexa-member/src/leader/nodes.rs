//! The nodes as a leader sees them, and how much room each has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use minicbor::{Decode, Encode};
use nexa_event::asks::Asks;
use nexa_sched::{Labels, NodeLoad, NodeState, Resources};
use nexa_types::planted::{Bug, planted};
use nexa_types::{Epoch, Generation, NodeId, Timestamp, Version};

use super::{Facts, Limits, Seen};
use crate::say::{Adopted, Load};

/// Heartbeats over which births are counted: from what a node says to a level that counts it are up to two beats, and whoever
/// is busy is late.
const BIRTHS_OVER: usize = 5;

/// What is to be done with a node. Kept in the store, so that it outlives the leader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub enum Mark {
    /// It takes agents.
    #[default]
    #[n(0)]
    Open,
    /// It keeps what it has and takes nothing new.
    #[n(1)]
    Cordoned,
    /// It takes nothing new, and what it has moves away.
    #[n(2)]
    Draining,
    /// It crashed too often of late: until then it keeps what it has and takes nothing new, unless nobody else would.
    #[n(3)]
    Resting(#[n(0)] Timestamp),
}

impl Mark {
    /// What it says by now.
    #[must_use]
    pub fn by(self, now: Timestamp) -> Self {
        match self {
            Self::Resting(until) if until <= now => Self::Open,
            mark => mark,
        }
    }
}

/// A node that is there.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) facts: Facts,
    /// What it said last; none before this run was heard.
    pub(super) load: Option<Load>,
    /// Births that had been asked of it by its last heartbeats, the newest at the end.
    births: VecDeque<u64>,
    pub(super) is_suspected: bool,
    /// Agents that this leader gave to this run, and how many of them it has said to have taken up.
    given: u64,
    adopted: u64,
    /// Whether nothing is left on it that can move.
    pub(super) is_drained: bool,
    /// While it is left: agents that stay because no other node has what they ask for, as counted in this pass, and as
    /// somebody was told.
    pub(super) kept: u64,
    pub(super) kept_asks: Option<Asks>,
    pub(super) kept_told: u64,
}

impl Seat {
    /// Agents on their way to it.
    pub(super) fn pending(&self) -> u64 {
        if planted(Bug::RampIgnored) { 0 } else { self.given.saturating_sub(self.adopted) }
    }

    /// Whether it was heard, and neither leaves nor is suspected.
    fn is_well(&self) -> bool {
        let is_silent = self.is_suspected && !planted(Bug::SilentNodeUsed);
        self.load.is_some_and(|load| !load.is_draining) && !is_silent
    }

    /// Agents that it has or is about to have.
    fn agents(&self) -> u64 {
        self.load.map_or(0, |load| load.agents).saturating_add(self.pending())
    }

    /// Births that are asked of it, if they go on as they did, before it has a level that counts them.
    fn coming(&self) -> u64 {
        self.births.back().zip(self.births.front()).map_or(0, |(newest, oldest)| newest.saturating_sub(*oldest))
    }
}

/// All of them, and what is to be done with each.
#[derive(Debug, Clone, Default)]
pub(super) struct Nodes {
    pub(super) seats: BTreeMap<NodeId, Seat>,
    /// Also of nodes that are not there, and might come back.
    marks: BTreeMap<NodeId, (Version, Mark)>,
}

impl Nodes {
    /// Who is there by now; gives those who are gone, and those who came back as another run.
    pub(super) fn members(
        &mut self,
        members: &BTreeMap<NodeId, Facts>,
        suspects: &BTreeSet<NodeId>,
    ) -> (Vec<NodeId>, Vec<(NodeId, Generation)>) {
        let gone: Vec<NodeId> = self.seats.keys().filter(|node| !members.contains_key(*node)).cloned().collect();
        self.seats.retain(|node, _| members.contains_key(node));
        let mut new = Vec::new();
        for (node, facts) in members {
            if self.seats.get(node).is_some_and(|seat| seat.facts.generation == facts.generation) {
                continue;
            }
            new.push((node.clone(), facts.generation));
            let seat = Seat {
                facts: facts.clone(),
                load: None,
                births: VecDeque::new(),
                is_suspected: suspects.contains(node),
                given: 0,
                adopted: 0,
                is_drained: false,
                kept: 0,
                kept_asks: None,
                kept_told: 0,
            };
            self.seats.insert(node.clone(), seat);
        }
        (gone, new)
    }

    pub(super) fn suspects(&mut self, suspects: &BTreeSet<NodeId>) {
        for (node, seat) in &mut self.seats {
            seat.is_suspected = suspects.contains(node);
        }
    }

    pub(super) fn heard(&mut self, node: &NodeId, generation: Generation, load: Load, adopted: Adopted, leader: Epoch) {
        let Some(seat) =
            self.seats.get_mut(node).filter(|seat| seat.facts.generation == generation || planted(Bug::OldHeartbeat))
        else {
            return;
        };
        seat.load = Some(load);
        if let Some(births) = load.births {
            if seat.births.len() == BIRTHS_OVER {
                seat.births.pop_front();
            }
            seat.births.push_back(births);
        }
        if adopted.leader == leader {
            seat.adopted = seat.adopted.max(adopted.agents);
        }
    }

    /// Agents were given to a run of a node.
    pub(super) fn given(&mut self, node: &NodeId, agents: u64) {
        if let Some(seat) = self.seats.get_mut(node) {
            seat.given += agents;
        }
    }

    /// They were not given to that run after all.
    pub(super) fn not_given(&mut self, node: &NodeId, generation: Generation) {
        if let Some(seat) = self.seats.get_mut(node).filter(|seat| seat.facts.generation == generation) {
            seat.given = seat.given.saturating_sub(1);
        }
    }

    /// What the store says of nodes. It was asked a while ago: of a mark that was written meanwhile it says nothing yet, and
    /// then that one stays.
    pub(super) fn set_marks(&mut self, marks: BTreeMap<NodeId, (Version, Mark)>) {
        for (node, read) in marks {
            if read.0 > self.mark(&node).0 {
                self.marks.insert(node, read);
            }
        }
    }

    /// Those who have rested for long enough are open from now on.
    pub(super) fn rested(&mut self, now: Timestamp) {
        for (_, mark) in self.marks.values_mut() {
            *mark = mark.by(now);
        }
    }

    pub(super) fn mark(&self, node: &NodeId) -> (Version, Mark) {
        self.marks.get(node).copied().unwrap_or_default()
    }

    pub(super) fn set_mark(&mut self, node: &NodeId, version: Version, mark: Mark) {
        self.marks.insert(node.clone(), (version, mark));
        if let Some(seat) = self.seats.get_mut(node) {
            (seat.is_drained, seat.kept, seat.kept_told) = (false, 0, 0);
        }
    }

    /// Whether what is on a node is to move away: somebody said so, or it is about to leave.
    pub(super) fn is_left(&self, node: &NodeId) -> bool {
        let leaves = self.seats.get(node).and_then(|seat| seat.load).is_some_and(|load| load.is_draining);
        leaves || self.mark(node).1 == Mark::Draining
    }

    /// Whether a node takes agents, if it has room. One that rests does where nobody is open: it may crash again, and were all
    /// of them to rest, as after a fault that they share, nothing would run for as long.
    pub(super) fn is_open(&self, node: &NodeId) -> bool {
        let Some(seat) = self.seats.get(node) else { return false };
        let is_open = |mark| match mark {
            Mark::Open => true,
            Mark::Resting(_) => {
                !self.seats.iter().any(|(other, seat)| seat.is_well() && self.mark(other).1 == Mark::Open)
            }
            Mark::Cordoned | Mark::Draining => false,
        };
        seat.is_well() && (is_open(self.mark(node).1) || planted(Bug::CordonIgnored))
    }

    /// How many further agents a node may be given now.
    pub(super) fn room(&self, limits: &Limits, node: &NodeId) -> u64 {
        let Some(seat) = self.seats.get(node).filter(|_| self.is_open(node)) else { return 0 };
        if seat.load.is_none_or(|load| load.memory >= limits.memory_full) {
            return 0;
        }
        let of_ramp = limits.adopting_max.saturating_sub(seat.pending());
        if planted(Bug::FullNodeUsed) {
            of_ramp
        } else {
            seat.facts.agents_max.saturating_sub(seat.agents()).min(of_ramp)
        }
    }

    /// Whether a node that is there has what an agent asks for, with room for it or without.
    pub(super) fn has(&self, asks: Option<&Asks>) -> bool {
        self.seats.values().any(|seat| seat.facts.has(asks))
    }

    /// How many further agents all nodes may be given now.
    pub(super) fn room_of_all(&self, limits: &Limits) -> u64 {
        self.seats.keys().fold(0, |sum: u64, node| sum.saturating_add(self.room(limits, node)))
    }

    /// Whether another node than this one has what an agent asks for, with room for it or without.
    pub(super) fn has_other(&self, than: &NodeId, asks: Option<&Asks>) -> bool {
        self.seats.iter().any(|(node, seat)| node != than && seat.facts.has(asks))
    }

    /// Whether a node takes an agent now that asks for this.
    pub(super) fn takes(&self, limits: &Limits, node: &NodeId, asks: Option<&Asks>) -> bool {
        self.seats.get(node).is_some_and(|seat| seat.facts.has(asks)) && self.room(limits, node) > 0
    }

    /// A node's side of placing and balancing. What `nexa_sched` calls slots for model requests are places for agents
    /// here: how many agents a node takes is what is held, the rest is measured.
    pub(super) fn load(&self, limits: &Limits, node: &NodeId, seat: &Seat) -> NodeLoad {
        let Facts { cpu_milli, memory_bytes, agents_max, labels, .. } = &seat.facts;
        let load = seat.load.unwrap_or_default();
        let state = match self.mark(node).1 {
            _ if self.is_left(node) => NodeState::Draining,
            _ if self.room(limits, node) > 0 => NodeState::Open,
            Mark::Open | Mark::Cordoned | Mark::Draining | Mark::Resting(_) => NodeState::Cordoned,
        };
        NodeLoad {
            capacity: Resources { cpu_milli: *cpu_milli, memory_bytes: *memory_bytes, llm_slots: *agents_max },
            used: Resources { cpu_milli: 0, memory_bytes: 0, llm_slots: seat.agents().min(*agents_max) },
            speed: 100,
            cpu: load.cpu,
            memory: load.memory,
            model_calls: load.model_calls,
            run_queue: load.run_queue,
            mailbox_age: load.lag,
            state,
            labels: Labels::clone(labels),
        }
    }

    /// Up to how many agents each open node may come by births of its own: its even share of all there are, of those that
    /// wait and of those that are about to be born, and a little beyond, so that small families stay together and large ones
    /// spread. None on those that are kept for somebody.
    pub(super) fn levels(&self, limits: &Limits, waiting: u64, kept: &BTreeSet<NodeId>) -> BTreeMap<NodeId, u64> {
        let is_open = |node: &NodeId| self.room(limits, node) > 0;
        let open: Vec<(&NodeId, &Seat)> = self.seats.iter().filter(|(node, _)| is_open(node)).collect();
        let sum = |of: fn(&Seat) -> u64| open.iter().map(|(_, seat)| u128::from(of(seat))).sum::<u128>();
        let all = sum(Seat::agents) + sum(Seat::coming) + u128::from(waiting);
        let places = sum(|seat| seat.facts.agents_max);
        let level = |node: &NodeId, seat: &Seat| {
            if !is_open(node) || kept.contains(node) {
                return 0;
            }
            let max = seat.facts.agents_max;
            let share = u64::try_from(all * u128::from(max) / places.max(1)).unwrap_or(u64::MAX);
            let beyond = limits.births_beyond.max(share / 32);
            let level = if self.seats.len() == 1 { max } else { share.saturating_add(beyond) };
            // Those on their way come on top of what the node has.
            level.min(max).saturating_sub(seat.pending())
        };
        self.seats.iter().map(|(node, seat)| (node.clone(), level(node, seat))).collect()
    }

    pub(super) fn seen(&self) -> BTreeMap<NodeId, Seen> {
        let seen = |node: &NodeId, seat: &Seat| Seen {
            mark: self.mark(node).1,
            is_suspected: seat.is_suspected,
            load: seat.load,
            is_drained: seat.is_drained,
        };
        self.seats.iter().map(|(node, seat)| (node.clone(), seen(node, seat))).collect()
    }
}
