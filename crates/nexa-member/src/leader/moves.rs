//! Agents that move while they live: off a draining node, by a person's wish, or for balance.
//!
//! At most `leaving_max` leave one node at a time; what is beyond waits for the next look, a wish is refused. A move that
//! is not answered within `move_within` counts as failed: the row says what became of it, and the next look goes by that.

use std::collections::BTreeMap;

use nexa_types::{AgentId, Millis, NodeId, Timestamp};

use super::Limits;

/// For how long it is remembered that an agent has moved.
const REMEMBERED: Millis = Millis(60_000);
/// Moves that are remembered. Of further ones nobody knows that they were.
const REMEMBERED_MAX: usize = 65_536;

#[derive(Debug, Clone)]
struct Move {
    from: NodeId,
    since: Timestamp,
    /// The command that asked for it.
    command: Option<u64>,
}

/// Those under way, and those of the last minute.
#[derive(Debug, Clone, Default)]
pub(super) struct Moves {
    under_way: BTreeMap<AgentId, Move>,
    moved: BTreeMap<AgentId, Timestamp>,
}

impl Moves {
    /// How many more may leave a node now.
    pub(super) fn may_leave(&self, limits: &Limits, node: &NodeId) -> usize {
        let leaving = self.under_way.values().filter(|it| it.from == *node).count();
        limits.leaving_max.saturating_sub(leaving)
    }

    pub(super) fn is_moving(&self, agent: AgentId) -> bool {
        self.under_way.contains_key(&agent)
    }

    /// An agent is told to leave.
    pub(super) fn begin(&mut self, agent: AgentId, from: NodeId, command: Option<u64>, now: Timestamp) {
        self.under_way.insert(agent, Move { from, since: now, command });
    }

    /// A move has ended; gives the command that is to be answered.
    pub(super) fn ended(&mut self, agent: AgentId, done: bool, now: Timestamp) -> Option<u64> {
        let ended = self.under_way.remove(&agent)?;
        if done && self.moved.len() < REMEMBERED_MAX {
            self.moved.insert(agent, now);
        }
        ended.command
    }

    /// Forgets what is long past; gives the commands whose moves took too long.
    pub(super) fn expire(&mut self, limits: &Limits, now: Timestamp) -> Vec<u64> {
        let is_late = |it: &Move| now.since(it.since) >= limits.move_within;
        let late = self.under_way.values().filter(|it| is_late(it)).filter_map(|it| it.command).collect();
        self.under_way.retain(|_, it| !is_late(it));
        self.moved.retain(|_, at| now.since(*at) < REMEMBERED);
        late
    }

    /// When an agent moved, if within the last minute.
    pub(super) fn moved_at(&self, agent: AgentId) -> Option<Timestamp> {
        self.moved.get(&agent).copied()
    }

    /// How many moved within the last minute.
    pub(super) fn lately(&self) -> u64 {
        self.moved.len() as u64
    }
}
