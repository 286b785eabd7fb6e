//! How loaded the nodes are, and what the agents on them take: what rebalancing and placing decide by.
//!
//! Count is not load: a node with ten busy agents is fuller than one with a thousand that wait. So agents are weighed by
//! what they are seen to use, and a node has two figures, both in millionths:
//!
//! - its *pressure*, the part in use of whatever is scarcest on it (processor, memory, model requests), and nothing else:
//!   whether a node must be relieved, and up to where another may be filled;
//! - its [cost](NodeLoad::cost), one weighted sum of everything that makes a node a worse place: which of several good
//!   enough nodes to take.
//!
//! Processors are compared by what they do: a core at speed 200 is two of the reference, so that an agent that moves to a
//! slower node is known to take more of it.

use nexa_types::{AgentId, Millis};

use crate::place::NodeFree;
use crate::{Labels, Resources};

/// The whole, where parts are counted in millionths.
pub const MILLION: u64 = 1_000_000;

/// The age of the oldest waiting message at which the mailboxes of a node count as full.
pub const MAILBOX_AGE_FULL: Millis = Millis(10_000);

/// How much there must be to bring for it to count as all of a node. Moving more costs no more.
pub const FETCH_FULL_BYTES: u64 = 1 << 30;

/// How many agents each agent's affinity names. Further ones are not looked at.
pub const TALKS_MAX: usize = 8;

/// Pressure is not told apart above this, in millionths: a thousand times a node's capacity.
const PRESSURE_MAX: u64 = 1_000 * MILLION;

/// The nodes and the agents on them, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SystemLoad {
    /// The nodes; agents and moves name them by their place here.
    pub nodes: Vec<NodeLoad>,
    /// The agents, in the order in which they came; moves and affinities name them by their place here.
    pub agents: Vec<AgentLoad>,
}

impl SystemLoad {
    /// The moves that are left of `percent` of all agents a minute, rounded up, at `now`: those that were moved within the
    /// last minute are taken off.
    #[must_use]
    pub fn moves_left(&self, percent: u64, now: Millis) -> u64 {
        let allowed = (self.agents.len() as u64).saturating_mul(percent).div_ceil(100);
        let moved = |agent: &&AgentLoad| agent.moved_at.is_some_and(|at| (now - at).0 < 60_000);
        allowed.saturating_sub(self.agents.iter().filter(moved).count() as u64)
    }
}

/// Whether a node takes part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NodeState {
    /// It takes agents.
    #[default]
    Open,
    /// It keeps what it has and takes nothing new.
    Cordoned,
    /// It takes nothing new, and what it has is to move away.
    Draining,
}

/// What a node does at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeLoad {
    /// What it has in all.
    pub capacity: Resources,
    /// What is held on it, by agents and by reservations. Never let above `capacity` by anything here.
    pub used: Resources,
    /// How fast it computes, in percent of the reference. 0 is taken for 1.
    pub speed: u32,
    /// The part of its processors in use, in millionths, as measured.
    pub cpu: u64,
    /// The part of its memory in use, in millionths, as measured.
    pub memory: u64,
    /// Model requests under way.
    pub model_calls: u64,
    /// Agents that could compute and wait for their turn.
    pub run_queue: u64,
    /// How long the oldest message has waited.
    pub mailbox_age: Millis,
    /// Whether it takes part.
    pub state: NodeState,
    /// What may be asked of it.
    pub labels: Labels,
}

impl NodeLoad {
    /// The part in use of what is scarcest on it, in millionths; above a million if it has promised too much.
    #[must_use]
    pub fn pressure(&self) -> u64 {
        self.cpu.max(self.memory).max(part(self.model_calls, self.capacity.llm_slots)).min(PRESSURE_MAX)
    }

    /// What it costs to be on this node, in millionths: 0 for an idle one, a million for one that is full in every respect.
    #[must_use]
    pub fn cost(&self, weights: &Weights) -> u64 {
        let parts =
            [self.cpu, self.memory, part(self.model_calls, self.capacity.llm_slots), age_part(self.mailbox_age)];
        weights.cost(parts)
    }

    /// Its side of placing one agent.
    #[must_use]
    pub fn free(&self, weights: &Weights) -> NodeFree<'_> {
        NodeFree {
            free: self.capacity.minus(&self.used),
            capacity: self.capacity,
            speed: self.speed,
            cost: self.cost(weights),
            run_queue: self.run_queue,
            is_open: self.state == NodeState::Open,
            labels: &self.labels,
        }
    }

    /// Whether it has all of these labels, with these values.
    #[must_use]
    pub fn has(&self, labels: &Labels) -> bool {
        labels.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}

/// What an agent takes where it is, and what it would take to move it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentLoad {
    /// Its name at the edges; nothing is decided by it.
    pub id: AgentId,
    /// Where it is. An agent on a node that is not there is left alone.
    pub node: u32,
    /// What it holds there, whether it uses it or not.
    pub holds: Resources,
    /// What it costs its node: processor, memory and model requests that it was seen to use, averaged over what its
    /// observer thinks right. The processor as on the node where it is.
    pub uses: Resources,
    /// What must be brought to its new node, in bytes.
    pub move_bytes: u64,
    /// Labels that its node must have.
    pub labels: Labels,
    /// 0 to 255, higher first.
    pub priority: u8,
    /// Its share beside others, in thousandths.
    pub weight: u64,
    /// Members of one gang that share a node move together, to one node, or stay.
    pub gang: Option<u64>,
    /// When it last moved; none if it never did.
    pub moved_at: Option<Millis>,
    /// Whom it talks to most: agents by their place, each with its part of all messages in millionths. The first
    /// [`TALKS_MAX`] count.
    pub talks_to: Vec<(u32, u64)>,
}

/// What counts how much in the cost of a node. The first four are taken in proportion to their sum; the last two are
/// percent of a whole node. The defaults start from those of Orleans' placement by resources (processor 40, memory 20).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// Processors in use.
    pub cpu: u64,
    /// Memory in use.
    pub memory: u64,
    /// Model requests under way, of those it may have.
    pub model: u64,
    /// The age of the oldest message, of [`MAILBOX_AGE_FULL`].
    pub mailbox_age: u64,
    /// Bytes to bring, of [`FETCH_FULL_BYTES`].
    pub fetch: u64,
    /// The part of an agent's messages that goes to agents on the same node. It lowers the cost.
    pub affinity: u64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { cpu: 40, memory: 20, model: 20, mailbox_age: 20, fetch: 10, affinity: 10 }
    }
}

impl Weights {
    /// The weighted mean of processor, memory, model requests and age of mailboxes, all in millionths.
    pub(crate) fn cost(&self, parts: [u64; 4]) -> u64 {
        let weights = [self.cpu, self.memory, self.model, self.mailbox_age].map(|weight| weight.min(MILLION));
        let all: u64 = weights.iter().sum();
        let sum: u64 = parts.iter().zip(weights).map(|(part, weight)| part.min(&PRESSURE_MAX) * weight).sum();
        sum / all.max(1)
    }

    /// What bringing this much costs, in millionths of a node.
    pub(crate) fn fetch(&self, bytes: u64) -> u64 {
        part(bytes.min(FETCH_FULL_BYTES), FETCH_FULL_BYTES) * self.fetch.min(MILLION) / 100
    }

    /// What this part of an agent's messages is worth when it stays on one node, in millionths of a node.
    pub(crate) fn affinity(&self, talk: u64) -> u64 {
        talk.min(MILLION) * self.affinity.min(MILLION) / 100
    }
}

/// `of` as a part of `all`, in millionths. What is needed of something that is not there counts as all of it.
pub(crate) fn part(of: u64, all: u64) -> u64 {
    match (of, all) {
        (0, _) => 0,
        (_, 0) => MILLION,
        // Two divisions of 128 bits for each node and agent would be most of what rebalancing does.
        (of, all) if of <= u64::MAX / MILLION => of * MILLION / all,
        (of, all) => u64::try_from(u128::from(of) * u128::from(MILLION) / u128::from(all)).unwrap_or(u64::MAX),
    }
    .min(PRESSURE_MAX)
}

/// This many millionths of `all`, rounded down.
pub(crate) fn share(all: u64, millionths: u64) -> u64 {
    u64::try_from(u128::from(all) * u128::from(millionths) / u128::from(MILLION)).unwrap_or(u64::MAX)
}

/// The age of the oldest message as a part of what counts as full, in millionths.
pub(crate) fn age_part(age: Millis) -> u64 {
    part(age.0.min(MAILBOX_AGE_FULL.0), MAILBOX_AGE_FULL.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_costs_nothing_idle_and_a_million_when_it_is_full_in_every_respect() {
        let idle = NodeLoad {
            capacity: Resources { cpu_milli: 8_000, memory_bytes: 32 << 30, llm_slots: 10 },
            speed: 100,
            ..NodeLoad::default()
        };
        let weights = Weights::default();
        assert_eq!((idle.cost(&weights), idle.pressure()), (0, 0));
        let full =
            NodeLoad { cpu: MILLION, memory: MILLION, model_calls: 10, mailbox_age: MAILBOX_AGE_FULL, ..idle.clone() };
        assert_eq!((full.cost(&weights), full.pressure()), (MILLION, MILLION));
        let busy = NodeLoad { cpu: 500_000, model_calls: 9, ..idle };
        assert_eq!((busy.cost(&weights), busy.pressure()), (200_000 + 180_000, 900_000));
    }

    #[test]
    fn absurd_figures_give_a_figure() {
        let weights = Weights {
            cpu: u64::MAX,
            memory: u64::MAX,
            model: u64::MAX,
            mailbox_age: 0,
            fetch: u64::MAX,
            affinity: u64::MAX,
        };
        let absurd = NodeLoad {
            cpu: u64::MAX,
            memory: u64::MAX,
            model_calls: u64::MAX,
            mailbox_age: Millis(u64::MAX),
            ..NodeLoad::default()
        };
        assert_eq!(absurd.pressure(), PRESSURE_MAX);
        assert!(absurd.cost(&weights) <= PRESSURE_MAX);
        assert!(weights.fetch(u64::MAX) > 0 && weights.affinity(u64::MAX) > 0);
        assert_eq!((part(u64::MAX, u64::MAX), part(3, 4), part(1, 0)), (MILLION, 750_000, MILLION));
        assert_eq!((share(u64::MAX, MILLION), share(7, 500_000)), (u64::MAX, 3));
        let none = Weights { cpu: 0, memory: 0, model: 0, mailbox_age: 0, fetch: 0, affinity: 0 };
        assert_eq!(none.cost([MILLION; 4]), 0);
    }

    #[test]
    fn what_moved_within_the_minute_is_taken_off_the_budget() {
        let agent = |moved_at: Option<u64>| AgentLoad {
            id: AgentId::from_slice(&[0; 16]).expect("sixteen bytes"),
            node: 0,
            holds: Resources::default(),
            uses: Resources::default(),
            move_bytes: 0,
            labels: Labels::new(),
            priority: 128,
            weight: 1_000,
            gang: None,
            moved_at: moved_at.map(Millis),
            talks_to: Vec::new(),
        };
        let mut agents = vec![agent(None); 97];
        agents.extend([Some(0), Some(40_000), Some(40_001)].map(agent));
        let load = SystemLoad { nodes: Vec::new(), agents };
        assert_eq!([0, 60_000, 100_000, 100_001].map(|now| load.moves_left(5, Millis(now))), [2, 3, 4, 5]);
        assert_eq!(SystemLoad::default().moves_left(5, Millis(0)), 0);
    }
}
