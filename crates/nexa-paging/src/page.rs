//! Pages: some consecutive messages of one agent, with what was noted of their use.

use minicbor::{Decode, Encode};
use nexa_types::{AgentId, PageId, Timestamp};

use crate::importance::importance;
use crate::message::MemoryMessage;
use crate::vectors::{MessageVector, mean};

/// The number of something that happened to an agent's memory: a message came, a break, a query. Time that passes while
/// nothing happens ages no page, and a replay counts the same turns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Turn(#[n(0)] pub u64);

impl Turn {
    /// How many turns ago `earlier` was.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// When something was used: the turn, which decides, and the time, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Accessed {
    /// The turn.
    #[n(0)]
    pub turn: Turn,
    /// The time.
    #[n(1)]
    pub at: Timestamp,
}

/// Some consecutive messages of one agent. A page is sealed: its messages never change.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryPage {
    /// Derived from the agent, the messages' places and what they say.
    pub id: PageId,
    /// At least one, in the order of the log.
    pub messages: Vec<MemoryMessage>,
    /// The vectors of its messages; `None` while a message has none.
    pub vectors: Vec<Option<MessageVector>>,
    /// The mean direction of them; empty while no message has one.
    pub embedding: Vec<f32>,
    /// When it was last found or came.
    pub last_accessed: Accessed,
    /// How often it was found.
    pub access_count: u64,
    /// How much it had to do with the last turns when that was last asked, 0 to 1.
    pub relevance_score: f32,
}

impl MemoryPage {
    /// A page that nobody has used yet.
    #[must_use]
    pub fn new(agent: AgentId, messages: Vec<MemoryMessage>, vectors: Vec<Option<MessageVector>>) -> Self {
        Self {
            id: id_of(agent, &messages),
            embedding: embedding(&vectors),
            messages,
            vectors,
            last_accessed: Accessed::default(),
            access_count: 0,
            relevance_score: 0.0,
        }
    }

    /// 0 to 1: how much rules hold it to be missed.
    #[must_use]
    pub fn importance(&self) -> f32 {
        f32::from(importance(&self.messages)) / 15.0
    }
}

/// The embedding of a page.
pub(crate) fn embedding(vectors: &[Option<MessageVector>]) -> Vec<f32> {
    mean(vectors.iter().flatten()).unwrap_or_default()
}

/// The id of the page that these messages make.
pub(crate) fn id_of(agent: AgentId, messages: &[MemoryMessage]) -> PageId {
    let (first, last) = match messages {
        [first, .., last] => (first.seq, last.seq),
        [only] => (only.seq, only.seq),
        [] => Default::default(),
    };
    let mut content = blake3::Hasher::new_derive_key("nexa.v1 page content");
    for message in messages {
        let mut part = |bytes: &[u8]| {
            content.update(&(bytes.len() as u64).to_le_bytes());
            content.update(bytes);
        };
        part(&message.seq.0.to_le_bytes());
        part(message.role.as_str().as_bytes());
        part(message.speaker.as_bytes());
        part(message.text.as_bytes());
        part(&message.at.0.to_le_bytes());
    }
    PageId::of(agent, first, last, content.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use nexa_event::effect::Role;
    use nexa_types::Version;

    use super::*;

    fn message(seq: u64, text: &str) -> MemoryMessage {
        let (speaker, text) = ("Ann".to_owned(), text.to_owned());
        MemoryMessage { seq: Version(seq), role: Role::User, speaker, text, at: Timestamp(7), tokens: 1 }
    }

    #[test]
    fn the_same_messages_make_the_same_page_and_others_another() {
        let agent = AgentId::from_bytes([1; 16]);
        let id = |agent, messages: &[MemoryMessage]| id_of(agent, messages);
        let page = [message(1, "one"), message(2, "two")];
        assert_eq!(id(agent, &page), id(agent, &page.clone()));
        let others = [
            id(AgentId::from_bytes([2; 16]), &page),
            id(agent, &page[..1]),
            id(agent, &[message(1, "one"), message(3, "two")]),
            id(agent, &[message(1, "on"), message(2, "etwo")]),
        ];
        assert!(others.iter().all(|other| *other != id(agent, &page)));
        assert_eq!(id(agent, &page).to_string(), "p-cd1ab525b0cc0c662cfb43aef68c567d", "kept for ever");
    }
}
