//! How an agent remembers its conversation with its model: what its declaration says, and what the log has of it.
//!
//! Other agents leave no text of what they heard: it follows from the program. Of one that remembers, the intent of a request
//! says what is new in it, so that pages can be made of the log alone, and which messages were sent, so that a replay sends
//! the same whatever a later build would choose.

use minicbor::{CborLen, Decode, Encode};
use nexa_types::Tokens;

use super::Role;

/// Who may find what was said in a conversation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(index_only)]
pub enum ConversationScope {
    /// The agent itself.
    #[default]
    #[n(0)]
    Agent,
    /// All agents of its workload.
    #[n(1)]
    Workload,
    /// All agents of its tenant.
    #[n(2)]
    Tenant,
}

impl ConversationScope {
    /// All of them, from the narrowest.
    pub const ALL: [Self; 3] = [Self::Agent, Self::Workload, Self::Tenant];

    /// The scope's name in a program.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Workload => "workload",
            Self::Tenant => "tenant",
        }
    }
}

/// Which page leaves when another comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(index_only)]
pub enum EvictionPolicy {
    /// The one that was used longest ago.
    #[n(0)]
    Lru,
    /// The one that is used most seldom.
    #[n(1)]
    Lfu,
    /// The one that has least to do with the last turns.
    #[n(2)]
    Relevance,
    /// All of that, weighed.
    #[default]
    #[n(3)]
    Hybrid,
}

impl EvictionPolicy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lru, Self::Lfu, Self::Relevance, Self::Hybrid];

    /// The policy's name in a program.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Lfu => "lfu",
            Self::Relevance => "relevance",
            Self::Hybrid => "hybrid",
        }
    }
}

/// The most messages of a page, and the most pages in memory, that a declaration may ask for.
pub const PAGE_SIZE_MAX: u32 = 64;
/// See [`PAGE_SIZE_MAX`].
pub const MAX_PAGES_MAX: u32 = 4_096;
/// The least window, and the greatest, in tokens.
pub const WINDOW_MIN: u64 = 256;
/// See [`WINDOW_MIN`].
pub const WINDOW_MAX: u64 = 1_000_000;

/// What a declaration says about memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Remembering {
    /// Who may find what was said.
    pub scope: ConversationScope,
    /// What is sent to the model at most, estimated in tokens.
    pub window: Tokens,
    /// Messages of a page.
    pub page_size: u32,
    /// Pages in memory.
    pub max_pages: u32,
    /// A page of which no message is so near to the query is found by its words only.
    pub threshold: f64,
    /// Which page leaves when another comes.
    pub evict: EvictionPolicy,
}

impl Default for Remembering {
    fn default() -> Self {
        Self {
            scope: ConversationScope::Agent,
            window: Tokens(6_000),
            page_size: 8,
            max_pages: 8,
            threshold: 0.2,
            evict: EvictionPolicy::Hybrid,
        }
    }
}

impl Remembering {
    /// Whether everything is within its bounds.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        (WINDOW_MIN..=WINDOW_MAX).contains(&self.window.0)
            && (1..=PAGE_SIZE_MAX).contains(&self.page_size)
            && (1..=MAX_PAGES_MAX).contains(&self.max_pages)
            && (-1.0..=1.0).contains(&self.threshold)
    }
}

/// A message that an agent heard, verbatim.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Heard {
    /// Who wrote it.
    #[n(0)]
    pub role: Role,
    /// What it says.
    #[n(1)]
    pub text: String,
}

/// What the log has of a request in a conversation that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Conversation {
    /// Who may find it.
    #[n(0)]
    pub scope: ConversationScope,
    /// The agent as declared: the speaker of its answers.
    #[n(1)]
    pub name: String,
    /// Messages of a page.
    #[n(2)]
    pub page_size: u32,
    /// What is new since the request before: neither what the program says of itself nor what is an answer in this log.
    #[n(3)]
    pub heard: Vec<Heard>,
    /// The places of the messages that were sent, if not all were.
    #[n(4)]
    pub sent: Option<Vec<u32>>,
    /// How many messages the conversation had before these; the answer comes behind them, and its place stays empty if
    /// there is none. So pages are cut alike wherever somebody begins to read.
    #[n(5)]
    pub before: u32,
}
