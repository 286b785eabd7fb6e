//! Decides in which format a cluster writes, while its nodes are of two releases and after.
//!
//! In:  which formats each member reads, again and again, and what the store keeps of it.
//! Out: what the store is to keep next, if that is news: a [`Floor`].
//!
//! A node of a newer release reads what older ones have written, not the other way round. So old and new nodes may run side by
//! side in any mixture as long as all of them write what the oldest reads; only when no such node is left may something newer be
//! written. That takes two steps, because a list of members is never quite new:
//!
//! 1. *Announced* is what every member has read for [`WAIT`]. From then on a node that does not read it is refused at its start.
//! 2. *Written* is what was announced at least [`WAIT`] ago, if every member still reads it. Otherwise the announcement is
//!    taken back.
//!
//! A node joins first and looks at what is announced afterwards. So one that does not read it is either refused, or has been a
//! member since before the announcement, and so is in every list that counts for the second step. The first wait is for people:
//! the last old node of a cluster may be restarted without coming back to a cluster that it cannot read.
//!
//! Holds, while lists of members are less than [`WAIT`] old; the model in `floor_tests` checks each:
//!   FF-1  nothing is written that a member does not read, once it has looked
//!   FF-2  what is written never goes back, and is announced
//!   FF-3  what all members read is written after two waits in which nobody comes who does not

use nexa_event::formats::{Floor, Formats};
use nexa_types::{Millis, Timestamp};

/// How long every member has to read a format before it is announced, and again before it is written: twice what a list of
/// members may be old.
pub const WAIT: Millis = Millis(10_000);

/// What a leader keeps in mind. Each leader begins anew with what the store keeps.
#[derive(Debug, Clone)]
pub struct Raising {
    floor: Floor,
    /// Since when the store keeps that, as far as this leader knows.
    kept_since: Timestamp,
    /// What all members read, and since when that is so.
    common: Option<(u16, Timestamp)>,
}

impl Raising {
    /// A leader that has just read what the store keeps.
    #[must_use]
    pub fn new(floor: Floor, now: Timestamp) -> Self {
        Self { floor, kept_since: now, common: None }
    }

    /// What the store keeps.
    #[must_use]
    pub fn floor(&self) -> Floor {
        self.floor
    }

    /// Looks at what all members read. Gives what the store should keep; it is asked for again until [`kept`](Self::kept).
    pub fn look(&mut self, members: impl IntoIterator<Item = Formats>, now: Timestamp) -> Option<Floor> {
        let common = members.into_iter().map(|formats| formats.newest).min()?;
        let since = match self.common {
            Some((before, since)) if before == common => since,
            _ => now,
        };
        self.common = Some((common, since));
        let Floor { announced, written } = self.floor;
        let is_announced = announced > written;
        if is_announced && common < announced {
            return Some(Floor::of(written));
        }
        let next = if is_announced { Floor::of(announced) } else { Floor { announced: common, written } };
        let waits_since = if is_announced { self.kept_since } else { since };
        (next.announced > written && now.since(waits_since) >= WAIT).then_some(next)
    }

    /// The store keeps it.
    pub fn kept(&mut self, floor: Floor, now: Timestamp) {
        (self.floor, self.kept_since) = (floor, now);
    }
}

#[cfg(test)]
#[path = "floor_tests.rs"]
mod tests;
