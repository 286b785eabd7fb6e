//! Room that is kept for a gang.
//!
//! A gang goes on when there is room for all of it at once. Where agents end and begin all the time that may never be: each
//! place that gets free goes to somebody who needs only one. So for a gang that has waited for [`AFTER`] the room of a few
//! nodes is kept, those that would hold it if they were empty: until it goes on, nothing is born there, and nobody is placed
//! there whose turn is later. Who has a higher priority, or has waited for longer, is not kept waiting by it.
//!
//! Bounds: room is kept for one gang at a time, for [`FIRST`] and after each time in vain for twice as long, up to
//! [`LONGEST`]; then for as long for none, so that at least half of the time belongs to all. Then it is the turn of the gang
//! for which it was done least often. While agents of a lost node need places, none is kept. A gang that the nodes could not
//! hold even if they were empty has none kept for it.

use std::collections::BTreeSet;

use nexa_types::{Millis, NodeId, Timestamp};

use super::Limits;
use super::board::Board;
use super::nodes::Nodes;
use super::queue::{GangId, Queue, Turn};

/// A gang has room kept for it when it has waited for so long.
const AFTER: Millis = Millis(1_000);
/// For how long the first time.
const FIRST: Millis = Millis(2_000);
/// For how long at most.
const LONGEST: Millis = Millis(64_000);

/// For whom room is kept.
#[derive(Debug, Clone)]
struct Held {
    gang: GangId,
    turn: Turn,
    nodes: BTreeSet<NodeId>,
    since: Timestamp,
    until: Timestamp,
}

#[derive(Debug, Clone)]
pub(super) struct Hold {
    held: Option<Held>,
    /// Until when none is kept.
    rests_until: Timestamp,
}

impl Hold {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { held: None, rests_until: now }
    }

    /// The nodes that are kept, if any.
    pub(super) fn nodes(&self) -> Option<&BTreeSet<NodeId>> {
        self.held.as_ref().map(|held| &held.nodes)
    }

    /// Whether somebody may use what is kept: the gang itself, and who has an earlier turn.
    pub(super) fn is_for(&self, turn: Turn) -> bool {
        self.held.as_ref().is_none_or(|held| turn <= held.turn)
    }

    /// Begins and ends keeping room.
    pub(super) fn review(
        &mut self,
        queue: &mut Queue,
        nodes: &Nodes,
        limits: &Limits,
        is_failing_over: bool,
        now: Timestamp,
    ) {
        if let Some(held) = &self.held {
            let is_over = queue.asks_of(&held.gang).is_none() || held.nodes.iter().any(|node| !nodes.is_open(node));
            if is_over || is_failing_over {
                self.held = None;
            } else if now >= held.until {
                queue.in_vain(&held.gang);
                self.rests_until = now.after(Millis(now.since(held.since).0));
                self.held = None;
            }
        }
        if self.held.is_some() || is_failing_over || now < self.rests_until {
            return;
        }
        let Some((gang, turn, in_vain)) = queue.in_want(now, AFTER) else { return };
        let Some(asks) = queue.asks_of(&gang) else { return };
        if let Some(nodes) = Board::enough(nodes, limits, &asks) {
            let span = Millis(FIRST.0.saturating_mul(1 << in_vain.min(16)).min(LONGEST.0));
            self.held = Some(Held { gang, turn, nodes, since: now, until: now.after(span) });
        }
    }
}
