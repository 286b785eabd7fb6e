//! Decides in which format a cluster writes, while its nodes are of two releases and after.
//!
//! In:  what the store keeps of it, what an operator asks for, and which formats each member reads, again and again.
//! Out: what the store is to keep next, if that is news: a [`Floor`].
//!
//! A node of a newer release reads what older ones have written, not the other way round. So old and new nodes may run side by
//! side in any mixture as long as all of them write what the oldest reads, and an upgrade can be undone until something newer is
//! written. When that is to be is for an operator to say, once every node reads it. It takes two steps, because a list of members
//! is never quite new:
//!
//! 1. *Announced* is what was asked for. From then on a node that does not read it is refused at its start.
//! 2. *Written* is what was announced at least [`WAIT`] ago, as soon as every member reads it.
//!
//! A node joins first and looks at what is announced afterwards. So one that does not read it is either refused, or has been a
//! member since before the announcement, and so is in every list that counts for the second step. The announcement is also how a
//! wish outlives the leader that was asked.
//!
//! Holds, while lists of members are less than [`WAIT`] old; the model in `floor_tests` checks each:
//!   FF-1  nothing is written that a member does not read, once it has looked
//!   FF-2  what is announced and what is written never go back, and what is written is announced
//!   FF-3  what an operator was told is announced, and all members read, is written after a wait
//!   FF-4  nothing is announced that nobody asked for

use std::collections::BTreeMap;

use nexa_event::formats::{Floor, Formats};
use nexa_types::{Millis, NodeId, Timestamp};

use crate::say::Refused;

/// How long something is announced before it is written: twice what a list of members may be old.
pub const WAIT: Millis = Millis(10_000);

/// What a leader keeps in mind. Each leader begins anew with what the store keeps.
#[derive(Debug, Clone)]
pub struct Raising {
    floor: Floor,
    /// Since when the store keeps that, as far as this leader knows.
    kept_since: Timestamp,
}

impl Raising {
    /// A leader that has just read what the store keeps.
    #[must_use]
    pub fn new(floor: Floor, now: Timestamp) -> Self {
        Self { floor, kept_since: now }
    }

    /// An operator asks for a format. Gives what the store should keep; nothing if that is announced or written already.
    ///
    /// # Errors
    /// [`Refused::Unread`] if a member does not read it.
    pub fn asked(&self, format: u16, members: &BTreeMap<NodeId, Formats>) -> Result<Option<Floor>, Refused> {
        if format <= self.floor.announced {
            return Ok(None);
        }
        match members.iter().find(|(_, reads)| !reads.has(format)) {
            Some((node, reads)) => Err(Refused::Unread { node: node.clone(), newest: reads.newest }),
            None => Ok(Some(Floor { announced: format, ..self.floor })),
        }
    }

    /// Looks at what all members read. Gives what the store should keep; it is asked for again until [`kept`](Self::kept).
    #[must_use]
    pub fn look(&self, members: &BTreeMap<NodeId, Formats>, now: Timestamp) -> Option<Floor> {
        let Floor { announced, written } = self.floor;
        let is_due = announced > written && now.since(self.kept_since) >= WAIT;
        // An empty list says nothing.
        let is_read = !members.is_empty() && members.values().all(|reads| reads.has(announced));
        (is_due && is_read).then(|| Floor::of(announced))
    }

    /// The store keeps it.
    pub fn kept(&mut self, floor: Floor, now: Timestamp) {
        (self.floor, self.kept_since) = (floor, now);
    }
}

#[cfg(test)]
#[path = "floor_tests.rs"]
mod tests;
