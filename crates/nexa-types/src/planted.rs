//! Bugs that can be planted, to see whether the proofs would notice them.
//!
//! A closed list. Where one sits, the code reads `if is_stale && !planted(Bug::StoreFence)`. Without the feature
//! `planted-bugs`, which only `cargo xtask prove --bugs` asks for, [`planted`] is `false` and known to be when compiling:
//! nothing of a bug is in the product. With it, one is chosen at run time for the thread that plays a simulation.
//!
//! What each is called, which incident it stands for, and where it is looked for stands in `nexa_sim::bugs`.

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is told in full where it is listed, in `nexa_sim::bugs`")]
pub enum Bug {
    // The simulated layer: a store that breaks its promises, the adapter of a tool, the load.
    StoreFence,
    LeaseFence,
    EarlyAck,
    ToolRetry,
    BlindRetry,
    InputTwice,
    PostLost,
    OldLeaderHeard,
    BirthLost,
    // The runtime of a node.
    ActBeforeCommit,
    AmbiguousIsSuccess,
    RefusedIsSuccess,
    AppendTwice,
    EpochCopied,
    TicketFromAnswer,
    ChildEndsWorkload,
    InboxTakenEarly,
    MailNotTaken,
    FenceOpen,
    TicketNeverAges,
    SnapshotIsAll,
    TakeoverNotHeard,
    CancelUnderOldEpoch,
    CancelLast,
    TimerNotSet,
    BornNotKept,
    HintsStayHome,
    CarriedDropped,
    CarriedSentAgain,
    RestartKeepsEpoch,
    SweepBlind,
    SlotsOverrun,
    // The ledger of an agent.
    ToolAgain,
    UnknownIsFailed,
    EpochNotRaised,
    AttemptNotCounted,
    CancelIgnored,
    // A node among others.
    SilenceIsDeath,
    LostLeaseIgnored,
    // A leader.
    PlacedBeforeTold,
    CordonIgnored,
    SilentNodeUsed,
    OldHeartbeat,
    FullNodeUsed,
    RampIgnored,
    GangSplit,
    AsksIgnored,
    GoneForgotten,
    PatrolSkipped,
    RunForgotten,
    DeposedGoesOn,
    // Slices of budgets.
    SliceToldEarly,
    SliceFreedAtOnce,
    ShrinkNotAwaited,
    OldNotice,
    RecordsForgotten,
    PoolGivenTwice,
    PaceUnrecorded,
    PaceNotAwaited,
    MinuteTooShort,
    // Links.
    LastForgotten,
    AckOnSend,
    OtherRunWelcomed,
    CreditIgnored,
    NotSentAgain,
    LinkUnbounded,
}

/// Whether this bug is planted here.
#[cfg(not(feature = "planted-bugs"))]
#[must_use]
#[inline(always)]
pub const fn planted(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
pub use chosen::{plant, planted};

#[cfg(feature = "planted-bugs")]
mod chosen {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static CHOSEN: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this bug is planted in what this thread plays.
    #[must_use]
    pub fn planted(bug: Bug) -> bool {
        CHOSEN.get() == Some(bug)
    }

    /// Plants a bug in what this thread plays from now on, or none.
    pub fn plant(bug: Option<Bug>) {
        CHOSEN.set(bug);
    }
}
