//! Context paging: how an agent remembers more than fits into its context.
//!
//! ```text
//! messages, as the log has them ─► pager ─┬─► open page ─(full, or a break)─► sealed pages, to be stored
//!                                         ├─► index: words and vectors of every message
//!                                         └─► table: which pages are active, and how they were used
//! a query ─► index ─► ranking ─► recall: messages with their provenance, pages to load, pages that leave
//! system, pinned, recalled, recent ─► assembler ─► the context, within its token budget
//! ```
//!
//! The *page* is the unit of storage and eviction, the *message* that of recall. A page is *active* while its messages are in
//! memory and *stored* otherwise. What is found does not depend on that: the index has every message, and a recall says which
//! stored pages have to be read for it. Eviction decides only how often that is.
//!
//! Pure: no clock, no dice, no I/O. Positions in the log, turns and the time come in as arguments; scores are made of
//! operations that IEEE 754 defines exactly; every loop goes over something ordered. So the same messages and queries give the
//! same bytes on every node.
//!
//! Holds:
//!   CP-1  at most `max_active_pages` pages are active, whatever comes
//!   CP-2  what a query finds is the same however many pages are active
//!   CP-3  a page leaves memory only when its messages are recorded in the log, and never while it is pinned or wanted
//!   CP-4  the same calls give the same decisions, also if a snapshot was taken and restored in between
//!   CP-5  a page never crosses a break of its conversation, and a replay makes the same page ids
//!   CP-6  the pages of a log are the same wherever somebody begins to read it, from where they are held (`writer`)
//!
//! Not here: storing pages and reading them, making vectors, who may see what.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing"))]

mod assemble;
mod calendar;
mod config;
mod error;
mod evict;
mod importance;
mod index;
mod keywords;
mod math;
mod message;
mod page;
mod pager;
mod rank;
mod recall;
mod search;
mod snapshot;
mod stored;
mod table;
mod turnover;
mod vectors;
mod words;
mod writer;

pub use assemble::{Assembled, Parts, Place, Placed, assemble};
pub use calendar::{Day, NamedDate};
pub use config::{
    ACTIVE_PAGES_MAX, EMBEDDING_MODEL_BYTES_MAX, EvictionPolicy, HybridWeights, PAGE_MESSAGES_MAX, PagingConfig,
    RankWeights,
};
pub use error::{AssembleError, ConfigError, PagingError, SnapshotError};
pub use evict::{Candidate, keep};
pub use index::{INDEXED_BYTES_MAX, MESSAGES_MAX, MemoryIndex};
pub use message::{MemoryMessage, keyword_text, vector_text};
pub use page::{Accessed, MemoryPage, Turn};
pub use pager::{Change, ContextPager};
pub use rank::{Found, FoundPage, Mode, Ranking, Why};
pub use recall::{Query, Recall, RecallBudget};
pub use search::{FoundMessage, OwnedPage, rank_pages};
pub use table::{GHOSTS_PER_ACTIVE, NEWEST_KEPT, PageEntry, PageTable, Residency};
pub use turnover::{Access, Leave, LeaveReason, Load, Turnover};
pub use vectors::{MessageVector, VECTOR_DIMENSIONS_MAX};
pub use writer::{MESSAGE_PLACES, PageWriter, PlaceInLog, SealedPage, Told};
