//! What providers take, split over nodes in slices.
//!
//! ```text
//!             joined, lease ended          recorded, refused
//!   membership ───────────► Leader ◄──────────────────────── store
//!                            │  ▲  ───── record a slice ────►
//!          your slice is now │  │ what I hold, have, want; a provider told me to pause
//!                            ▼  │
//!   lane: may I begin? ───► Holder (one a node)
//! ```
//!
//! A provider has one budget for the whole cluster (requests, tokens read and tokens written a minute, requests at
//! once), and every node asks it without asking anybody first. So the elected [`Leader`] splits the budget into slices,
//! and the [`Holder`] of a node lets begin what fits its slice. Both are step machines: they are told what happened and
//! when, and say what is to be sent and recorded. All messages may be lost, repeated, late and out of order, for they
//! say how things stand and not what changed.
//!
//! **A slice does not lapse.** It stands at its last size as long as its holder's generation does, whatever becomes of
//! the leader, and grows and shrinks like this:
//!
//! - *Grow:* the leader records the larger size under its epoch. When the store has it, the holder is told.
//! - *Shrink:* the holder is told. From then on it begins nothing beyond the smaller size, and reports what it keeps:
//!   on each meter the smaller size, or what it still has in flight and has begun within a minute, if that is more. When
//!   the store has recorded that it keeps no more, the difference may go to somebody else at once: what the holder began
//!   within the minute of the provider still counts for the holder alone.
//! - *End:* when membership says that a holder's lease has ended, its slice counts until the last request that it may
//!   have begun counts nowhere: see [`VANISHING`] and [`LeaderSettings::request_max`]. Where holders spread what they begin
//!   ([`LeaderSettings::ahead`]), its requests go to others as they get too old to count, bit by bit.
//! - *A new leader* counts every recorded slice as outstanding, and tells each holder anew under its own epoch.
//!
//! What is recorded for a slice is therefore never less than what its holder may use, by the word of any leader.
//!
//! **A slice has a pace**, the requests a minute that its holder begins them at: its share of the rate that all have
//! together. The slice says how many may count at once. The two differ where less is wanted than the budget: what waits is
//! to begin as soon as it can, and with the slice for a rate it would be spread over the whole minute. And they differ while
//! requests of others still count that nobody makes any more: then the slice grows as these get old, and with the slice for
//! a rate its holder would be behind all the time by what came back within the minute before. A quicker pace is told when
//! the others have said that they go as much slower, since many providers give their minute out second by second. It is
//! recorded before it is told, and a slower one when nothing counts any more that was begun at the quicker one, so that also
//! the next leader knows how late the requests of a lost holder can have been.
//!
//! Holds:
//!   LS-1  the sizes recorded for a provider add up to its budget or less, on each meter; if a budget is lowered below
//!         what is outstanding, the sum only falls until it fits
//!   LS-2  what a holder may use, and what counts for it, is no more than what is recorded for it; so a provider whose
//!         limits are the budget never sees more within any minute, if a request costs no more than was said when it began
//!   LS-3  a holder goes by the newest epoch and version that it has heard, for its own generation only; a leader whose
//!         write was refused says nothing ever after
//!   LS-4  no slice changes by time alone while its holder's lease stands
//!   LS-5  a pause that one holder was told of by a provider reaches all holders, ends by itself, and is not prolonged by
//!         being passed on
//!   LS-6  the pace of a holder that has a slice, now and within the last minute, is no more than what is recorded for it
//!   LS-7  the paces that holders have by the word of one leader add up to the budget's requests a minute or less, whichever of
//!         its words each of them has heard; after the budget is lowered, once they have heard of it
//!
//! What the store must do: refuse a [`SliceRecord`] whose epoch is older than the newest that was elected, and not go back
//! to an older version of a slice when a write arrives twice; a new leader reads the records after its election is known
//! to the store. Times are read from each machine's own clock, which goes forward and evenly; none is ever sent.
//!
//! Not here: electing, membership, storing and sending; order among those who wait on one node (its lanes), and smoothing
//! within the minute.

mod budgets;
mod holder;
mod leader;
mod record;
mod share;
mod sizes;
mod slice;
mod tenants;
mod usage;

use std::fmt;

use minicbor::{Decode, Encode};
pub use nexa_types::Generation;
use nexa_types::{Millis, NodeId};

pub use budgets::{Budgets, BudgetsError};
pub use holder::{Backlog, Denied, Holder, HolderInput};
pub use leader::{Leader, LeaderInput, LeaderOutput, LeaderSettings, VANISHING};
pub use record::SliceRecord;
pub use sizes::{Meter, NO_LIMIT, Sizes};
pub use tenants::{TENANTS_TOLD_MAX, WaitingTenants, WaitingWhere};
pub use usage::{ARRIVAL, Begun, Cost, Ending, WINDOW};

/// Providers that are told apart. Settings with more are refused, and a holder lets nothing begin for further ones.
pub const PROVIDERS_MAX: usize = 256;
/// Holders that a leader serves. Further ones have no slices until others have gone and it is told anew who is there.
pub const HOLDERS_MAX: usize = 4_096;
/// The longest pause that a provider may impose with one answer.
pub const PAUSE_MAX: Millis = Millis(300_000);

/// Which election made a leader. Later ones are larger; 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct LeaderEpoch(#[n(0)] pub u64);

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, out)
    }
}

/// Who holds slices: one life of one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct HolderId {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// Which life of it.
    #[n(1)]
    pub generation: Generation,
}

impl fmt::Display for HolderId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}#{}", self.node, self.generation)
    }
}

/// From a leader to a holder: how things stand for one provider. It replaces all older ones.
///
/// In all that is sent, fields are numbered; a number is never used again, and a reader skips those that it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Notice {
    /// To whom. Another generation does not take it.
    #[n(0)]
    pub holder: HolderId,
    /// By whom.
    #[n(1)]
    pub epoch: LeaderEpoch,
    /// Grows within an epoch.
    #[n(2)]
    pub version: u64,
    /// Of which provider.
    #[n(3)]
    pub provider: String,
    /// The slice from now on.
    #[n(4)]
    pub size: Sizes,
    /// The newest pause of this provider, if it lasts.
    #[n(5)]
    pub pause: Option<Pause>,
    /// Requests a minute that it is to begin them at. Nothing, as from a leader of an earlier version: those of the slice.
    #[n(6)]
    pub pace: Option<u64>,
}

/// A provider asked for a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Pause {
    /// Grows with each pause of a provider, by the count of whoever says it.
    #[n(0)]
    pub number: u64,
    /// How much of it is left as this is sent.
    #[n(1)]
    pub left: Millis,
}

/// From a holder to the leader: how things stand. It replaces all older ones.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Report {
    /// By whom.
    #[n(0)]
    pub holder: HolderId,
    /// Grows with each report of a holder.
    #[n(1)]
    pub number: u64,
    /// Each provider that it has a slice of, or wants one of.
    #[n(2)]
    pub of: Vec<ProviderReport>,
}

/// What a holder says of one provider.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ProviderReport {
    /// Of which provider.
    #[n(0)]
    pub provider: String,
    /// The newest notice that it goes by: whose.
    #[n(1)]
    pub epoch: LeaderEpoch,
    /// The newest notice that it goes by: which.
    #[n(2)]
    pub version: u64,
    /// The number of the newest pause that it has heard of from that leader.
    #[n(3)]
    pub pause_heard: u64,
    /// It will not use more than this under that notice.
    #[n(4)]
    pub kept: Sizes,
    /// What counts now, and what waits.
    #[n(5)]
    pub wanted: Sizes,
    /// What the largest request that waits takes.
    #[n(6)]
    pub least: Sizes,
    /// Its share beside other holders: the weights of those who wait, together.
    #[n(7)]
    pub weight: u64,
    /// A pause that it was told of by the provider itself, if it lasts. Numbered by the holder.
    #[n(8)]
    pub pause: Option<Pause>,
}
