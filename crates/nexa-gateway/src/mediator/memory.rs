//! Messages about what agents remember, and what they are answered with.

use nexa_paging::{FoundMessage, Mode};
use nexa_ports::pages::Reach;
use nexa_remember::{PageLine, Standing};
use nexa_types::{AgentId, GlobalSeq, Version};

/// Messages that agents remember, by a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recall {
    /// From which agent to look.
    pub agent: AgentId,
    /// How widely, seen from it.
    pub reach: Reach,
    /// In words.
    pub query: String,
    /// Messages at most.
    pub messages_max: usize,
    /// Tokens of them at most.
    pub tokens_max: Option<u64>,
}

/// Pages of an agent, in the order of their messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPages {
    /// Whose.
    pub agent: AgentId,
    /// How many at most.
    pub size: usize,
    /// From which message on, as packed.
    pub from: Version,
}

/// What an agent remembers, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryStats {
    /// Whose.
    pub agent: AgentId,
}

/// All that an agent remembers, in the order in which it was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportMemory {
    /// Whose.
    pub agent: AgentId,
}

/// Forget what an agent remembers.
#[derive(Debug, Clone)]
pub struct Forget {
    /// Whose.
    pub agent: AgentId,
}

/// Make pages again from the log.
#[derive(Debug, Clone)]
pub struct Rebuild;

/// What was found.
#[derive(Debug, Clone)]
pub struct Recollected {
    /// Messages, the best first.
    pub messages: Vec<FoundMessage>,
    /// What was compared.
    pub mode: Option<Mode>,
    /// Pages that were looked at.
    pub pages: usize,
    /// Everything up to here was looked at.
    pub seen: GlobalSeq,
}

/// Pages.
#[derive(Debug, Clone, PartialEq)]
pub struct PagesListed {
    /// The pages.
    pub pages: Vec<PageLine>,
    /// Where the next ones begin, if there are some.
    pub next: Option<Version>,
}

/// Numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Pages, the open one not counted.
    pub pages: u64,
    /// Messages.
    pub messages: u64,
    /// Tokens of them, estimated.
    pub tokens: u64,
    /// Bytes in the store.
    pub bytes: u64,
    /// Messages with a vector.
    pub embedded: u64,
    /// Pages that are not stored yet.
    pub unstored: u64,
    /// How the node is doing with those of all tenants, for operators.
    pub node: Option<Standing>,
}
