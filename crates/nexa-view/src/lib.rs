//! Read models: what people list and search, folded from facts.
//!
//! In:  facts in the store's reading order, each with its position.
//! Out: one view a workload, agent, approval and program, one line a fact for the search of history, and what workloads
//!      and tenants remember.
//!
//! Holds:
//!   VW-1  folding the same facts in the same order gives the same views, byte for byte
//!   VW-2  a fact that a view has seen changes nothing, so that a fold may start again from an earlier position
//!   VW-3  an agent's state here is the state that its row had after the same append; but for one: an agent that was
//!         born without a node is `ready` here until it starts, since being placed is no fact of its stream
//!
//! Not here: where views are kept (an adapter implements [`Shelf`]), and what their payloads mean.

mod agent;
mod approval;
mod fold;
mod history;
mod memory;
mod program;
mod workload;

pub use agent::{AgentView, Pending};
pub use approval::{ApprovalView, Closed, Closing};
pub use fold::{Key, Seen, Shelf, View, fold};
pub use history::{HISTORY_TEXT_BYTES_MAX, HistoryLine, line};
pub use memory::{MemoryBook, MemoryEntry, MemoryPlace};
pub use program::ProgramView;
pub use workload::WorkloadView;
