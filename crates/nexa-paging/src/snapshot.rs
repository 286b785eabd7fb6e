//! What of an agent's memory travels with it: the page table, and what the last turns were about.
//!
//! Messages and vectors stay where they are stored. Whoever restores reads the pages again, of which only the active ones stay
//! in memory, and the messages after the last page from the log.

use minicbor::{Decode, Encode};
use nexa_event::codec;
use nexa_types::{AgentId, Version};

use crate::error::SnapshotError;
use crate::pager::Recent;
use crate::table::PageTable;

/// The newest form of snapshots.
const FORMAT: u16 = 1;

/// As it is stored.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Stored {
    #[n(0)]
    format: u16,
    #[n(1)]
    pub agent: AgentId,
    #[n(2)]
    pub table: PageTable,
    #[n(3)]
    pub recent: Vec<Recent>,
    /// The last message that memory had.
    #[n(4)]
    pub last: Version,
}

impl Stored {
    pub(crate) fn new(agent: AgentId, table: PageTable, recent: Vec<Recent>, last: Version) -> Self {
        Self { format: FORMAT, agent, table, recent, last }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let stored: Self = codec::decode(bytes).map_err(SnapshotError::Unread)?;
        if stored.format > FORMAT {
            let error = codec::DecodeError::NewerFormat { found: stored.format, known: FORMAT };
            return Err(SnapshotError::Unread(error));
        }
        match stored.table.contradiction() {
            Some(detail) => Err(SnapshotError::Contradiction { detail }),
            None => Ok(stored),
        }
    }
}
