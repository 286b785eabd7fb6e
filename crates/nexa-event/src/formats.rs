//! Which formats of stored bytes a build knows.
//!
//! Every fact says in its header in which format it was written, and stays in it for ever: stored bytes are hashed as stored and
//! never written again. So that nodes of two releases can work side by side, none may write what another does not read yet: all
//! write in the cluster's *floor*, which an operator raises once every member reads more. What a format means is in
//! [`crate::codec`] and in the golden files of each.
//!
//! | format | what is new in it |
//! |---|---|
//! | 1 | |
//! | 2 | a tenant's stream says of agents that they are forgotten ([`FORGETTING`]) |
//! | 3 | facts that one append adds to a stream share a row of PostgreSQL; each alone is written as before ([`PACKING`]) |

use minicbor::{Decode, Encode};

use crate::codec::{self, DecodeError};
use crate::envelope::FORMAT;

/// The first format with [`crate::fact::ClusterEvent::AgentForgotten`]. Who writes that asks first what is written.
pub const FORGETTING: u16 = 2;

/// The first format in which a row of a store may have several facts.
pub const PACKING: u16 = 3;

/// The formats that a build reads, and can write: from the oldest to the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formats {
    /// The oldest.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

impl Formats {
    /// Those of this build.
    pub const THIS_BUILD: Self = Self { oldest: 1, newest: FORMAT };

    /// Whether it is one of them.
    #[must_use]
    pub fn has(self, format: u16) -> bool {
        (self.oldest..=self.newest).contains(&format)
    }
}

/// What a cluster writes. Neither number ever goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Floor {
    /// Every node that starts has to read this: the newest that somebody asked for.
    #[n(0)]
    pub announced: u16,
    /// What is written, no greater than what is announced.
    #[n(1)]
    pub written: u16,
}

impl Floor {
    /// One that is announced and written.
    #[must_use]
    pub fn of(format: u16) -> Self {
        Self { announced: format, written: format }
    }

    /// As it is kept.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        codec::encode(&self)
    }

    /// What was kept.
    ///
    /// # Errors
    /// [`DecodeError`] for other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_and_nothing_else_is_taken_for_it() {
        let floor = Floor { announced: 3, written: 2 };
        assert_eq!(floor.to_bytes(), [0x82, 3, 2], "other releases read this");
        assert_eq!(Floor::from_bytes(&floor.to_bytes()), Ok(floor));
        assert!(Floor::from_bytes(b"").is_err() && Floor::from_bytes(b"formats").is_err());
    }

    #[test]
    fn a_build_reads_what_it_writes_and_everything_before() {
        let reads = Formats { oldest: 2, newest: 3 };
        assert_eq!([1, 2, 3, 4].map(|format| reads.has(format)), [false, true, true, false]);
        assert!(Formats::THIS_BUILD.has(FORMAT));
    }
}
