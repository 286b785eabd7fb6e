//! The port to memories beyond one agent: of a workload and of a tenant.
//!
//! Nothing is written here. What an agent stores is a fact of its stream, and a memory is what the facts leave, see
//! [`nexa_view::MemoryBook`]. A reader names the position that it must see, so it finds what was stored before it asked.
//!
//! Holds, for every adapter:
//!   ME-1  an answer shows every fact up to the position that was asked for
//!   ME-2  nothing of one tenant is in an answer to another, and nothing of one workload in another's
//!   ME-3  a memory has at most `MEMORY_ENTRIES_MAX` entries, those stored last

use std::time::Duration;

use nexa_types::{GlobalSeq, Payload};
pub use nexa_view::MemoryPlace;

use crate::view::Answer;

/// Memories beyond one agent. All calls are cancel-safe.
pub trait Memories: Send + Sync {
    /// The entries of a memory by key, or of one key only, once everything up to `seen` is in them; waits for that at
    /// most for `deadline`, and then is [`crate::view::ViewError::Behind`].
    fn entries(
        &self,
        place: MemoryPlace,
        key: Option<String>,
        seen: GlobalSeq,
        deadline: Duration,
    ) -> Answer<'_, Vec<(String, Payload)>>;
}
