//! A message as memory keeps it.

use minicbor::{Decode, Encode};
use nexa_event::effect::Role;
use nexa_types::{Timestamp, Version};

use crate::calendar::Day;

/// One message of an agent's conversations, verbatim: what was said, by whom, when, and where the log has it.
///
/// It is a [`nexa_event::effect::Message`] that has a place of its own in the log. What a machine derives from others, as a list
/// of violations, has none and is not remembered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct MemoryMessage {
    /// Where the agent's stream has it. A later message has a greater one.
    #[n(0)]
    pub seq: Version,
    /// Who wrote it.
    #[n(1)]
    pub role: Role,
    /// The name of who wrote it, if several share a role; or empty.
    #[n(2)]
    pub speaker: String,
    /// What it says.
    #[n(3)]
    pub text: String,
    /// When it was recorded.
    #[n(4)]
    pub at: Timestamp,
    /// Tokens that it takes in a context, as the tokenizer counts that sends it.
    #[n(5)]
    pub tokens: u32,
}

/// What words are looked for in: who spoke, what was said, and on which day.
#[must_use]
pub fn keyword_text(message: &MemoryMessage) -> String {
    format!("{} {} {}", message.speaker, message.text, Day::of(message.at).in_words())
}

/// What a vector is made from: who spoke and what was said. A day says nothing to a model of meaning.
#[must_use]
pub fn vector_text(message: &MemoryMessage) -> String {
    match message.speaker.as_str() {
        "" => message.text.clone(),
        speaker => format!("{speaker}: {}", message.text),
    }
}
