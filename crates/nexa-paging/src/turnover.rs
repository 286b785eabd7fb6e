//! What is to become of an agent's pages: a decision that can be looked at before it is carried out.

use minicbor::{Decode, Encode};
use nexa_types::PageId;

/// What pages are wanted for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Access {
    /// To answer a query.
    #[default]
    #[n(0)]
    Recall,
    /// As part of many, of which most will not be wanted again. What it brings in is on probation.
    #[n(1)]
    Scan,
}

/// A stored page that becomes active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// The page.
    pub page: PageId,
    /// It left not long ago: it was let go too early.
    pub was_ghost: bool,
}

/// Why a page leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaveReason {
    /// It was brought in by a scan and not used since.
    Probation,
    /// It is least worth keeping.
    LeastWorth,
    /// There is no room for it beside what must stay. Only a page that has just been sealed.
    NoRoom,
    /// Fewer pages may be active than before.
    SmallerLimit,
}

/// An active page that leaves memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Leave {
    /// The page.
    pub page: PageId,
    /// Why.
    pub why: LeaveReason,
    /// What it was worth, see [`crate::keep`].
    pub worth: f64,
}

/// Which pages stay, come and leave because of some that are wanted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Turnover {
    /// Wanted pages that are active.
    pub hits: Vec<PageId>,
    /// Wanted pages that become active, in the order of need.
    pub loads: Vec<Load>,
    /// Pages that leave for them, in the order in which they do: the first for the first load that finds no room.
    pub leaves: Vec<Leave>,
    /// Wanted pages for which there is no room beside pinned ones and better ones. They are read and not kept.
    pub passing: Vec<PageId>,
    /// What the pages are wanted for.
    pub access: Access,
    /// The state of the table that this was decided on.
    pub(crate) base: u64,
}
