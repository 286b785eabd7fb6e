//! A page as a store keeps it: its messages, and their vectors apart from them, since these may come later.
//!
//! CBOR with numbered fields, the format first. What an earlier build wrote is read for ever.

use minicbor::{Decode, Encode};
use nexa_event::codec::{self, DecodeError};
use nexa_types::AgentId;

use crate::message::MemoryMessage;
use crate::page::MemoryPage;
use crate::vectors::MessageVector;

/// The newest form of pages.
const FORMAT: u16 = 1;

#[derive(Encode, Decode)]
#[cbor(map)]
struct Kept<T> {
    #[n(0)]
    format: u16,
    /// In the order of the log.
    #[n(1)]
    all: Vec<T>,
}

fn to_bytes<T: Encode<()>>(all: Vec<T>) -> Vec<u8> {
    codec::encode(&Kept { format: FORMAT, all })
}

fn from_bytes<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<Vec<T>, DecodeError> {
    let kept: Kept<T> = codec::decode(bytes)?;
    match kept.format {
        0..=FORMAT => Ok(kept.all),
        found => Err(DecodeError::NewerFormat { found, known: FORMAT }),
    }
}

impl MemoryPage {
    /// Its messages as they are stored.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        to_bytes(self.messages.clone())
    }

    /// Their vectors as they are stored; a message without one has an empty place.
    #[must_use]
    pub fn vectors_body(&self) -> Vec<u8> {
        to_bytes(self.vectors.clone())
    }

    /// A page as it was stored. Empty bytes of vectors are none. Whoever asked for a page by its id compares it with that of the
    /// page: it is derived from what was read.
    ///
    /// # Errors
    /// [`DecodeError`] for other bytes.
    pub fn from_stored(agent: AgentId, body: &[u8], vectors: &[u8]) -> Result<Self, DecodeError> {
        let messages: Vec<MemoryMessage> = from_bytes(body)?;
        let mut all: Vec<Option<MessageVector>> = if vectors.is_empty() { Vec::new() } else { from_bytes(vectors)? };
        all.resize(messages.len(), None);
        Ok(Self::new(agent, messages, all))
    }
}
