//! The port to a log as auditors see it, and to where its anchors are kept.
//!
//! A log cannot vouch for itself: whoever may change it may change all of it. So what stands for the whole of it, its root
//! ([`nexa_event::root`]), is kept somewhere else again and again, and compared with what is there later.
//!
//! Holds, for every adapter; the contract suite in `nexa-testkit` checks each:
//!   AU-1  [`Audit::root`] is the root of the log as it is, up to a position that follows the newest fact
//!   AU-2  [`Audit::proven`] never gives a fact that was changed, nor one after a gap
//!   AN-1  anchors are kept in a row: one is refused unless it follows the newest
//!   AN-2  who does not lead (any more) keeps none
//!   AN-3  the newest are kept, at least as many as an adapter says, and older ones go first
//!
//! [`MemoryAnchors`] is the twin.

use std::sync::{Mutex, MutexGuard};

use futures::future::BoxFuture;
use nexa_event::envelope::Link;
use nexa_event::root::{Anchor, Root, Unchained, check_chain};
use nexa_types::{Epoch, GlobalSeq, Version};

use crate::store::StoreError;

/// A fact's place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// In the reading order.
    pub position: GlobalSeq,
    /// Its stream, as [`nexa_types::StreamId::key`] has it.
    pub stream: Vec<u8>,
    /// Its place there.
    pub version: Version,
    /// The stream's chain up to and with it.
    pub link: Link,
}

/// Where a stream ends, by its own row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The stream, as [`nexa_types::StreamId::key`] has it.
    pub stream: Vec<u8>,
    /// The version of its newest fact.
    pub version: Version,
    /// The link of that.
    pub link: Link,
}

/// Which log it is, and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHead {
    /// The id that it got when it was made.
    pub id: String,
    /// The position of its newest fact; 0 for none.
    pub newest: GlobalSeq,
}

/// A log as auditors see it.
pub trait Audit: Send + Sync {
    /// Which log it is, and how long.
    fn log(&self) -> BoxFuture<'_, Result<LogHead, StoreError>>;

    /// The root as far as it is folded, which follows the newest fact. What cannot say folds nothing: [`Root::start`].
    fn root(&self) -> BoxFuture<'_, Result<Root, StoreError>>;

    /// Facts after a position as they lie there, without a look at what they say.
    fn entries(&self, after: GlobalSeq, limit: usize) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>>;

    /// The same, each read as a whole and checked against the link before it; [`StoreError::Corrupt`] if any of them is
    /// not what was appended.
    fn proven(&self, after: GlobalSeq, limit: usize) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>>;

    /// Where streams end by their own rows, in the order of their keys, from after one on; an empty key comes before all.
    fn ends(&self, after: Vec<u8>, limit: usize) -> BoxFuture<'_, Result<Vec<End>, StoreError>>;
}

/// Folds a root on over facts that come right after it, as far as none is missing.
pub fn fold_on(root: Root, entries: &[Entry]) -> Root {
    let expected = root.position.0 + 1..;
    let following = entries.iter().zip(expected).take_while(|(entry, expected)| entry.position.0 == *expected);
    following.fold(root, |root, (entry, _)| root.next(entry.version, entry.link))
}

/// Why an anchor is not kept, or kept ones are not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// It cannot be reached, or did not say whether it was kept. It may work later.
    #[error("the place of the anchors is not available: {detail}")]
    Unavailable {
        /// What the adapter met.
        detail: String,
    },
    /// What is kept there are no anchors.
    #[error("{place} does not hold anchors that follow each other: {detail}")]
    Damaged {
        /// Where.
        place: String,
        /// How it was noticed.
        detail: String,
    },
    /// Another one is the newest by now.
    #[error("anchor {number} does not follow the newest one that is kept")]
    Overtaken {
        /// The refused one.
        number: u64,
    },
    /// Somebody else leads.
    #[error("only who leads keeps anchors, and this node does not")]
    NotLeading,
}

/// Where anchors are kept: outside the log, so that nothing changes both.
pub trait Anchors: Send + Sync {
    /// Those that are kept, oldest first, each following the one before it.
    fn kept(&self) -> BoxFuture<'_, Result<Vec<Anchor>, AnchorError>>;

    /// Keeps one more. `leader` is the right of who leads, `None` where nobody else can write or for a person while nobody leads.
    fn keep(&self, anchor: Anchor, leader: Option<Epoch>) -> BoxFuture<'_, Result<(), AnchorError>>;
}

/// Whether an anchor may come after those that are kept. For adapters.
///
/// # Errors
/// [`AnchorError::Overtaken`].
pub fn check_next(newest: Option<&Anchor>, next: &Anchor) -> Result<(), AnchorError> {
    let pair: Vec<Anchor> = newest.into_iter().chain([next]).cloned().collect();
    let follows = newest.is_some() || next.number == 1;
    match check_chain(&pair) {
        Ok(()) if follows => Ok(()),
        Ok(()) | Err(Unchained { .. }) => Err(AnchorError::Overtaken { number: next.number }),
    }
}

/// Anchors that are gone with the process.
#[derive(Debug)]
pub struct MemoryAnchors {
    kept: Mutex<Kept>,
    kept_max: usize,
}

#[derive(Debug, Default)]
struct Kept {
    anchors: Vec<Anchor>,
    leader: Option<Epoch>,
    is_away: bool,
}

impl MemoryAnchors {
    /// A place for so many anchors, where nobody leads.
    pub fn new(kept_max: usize) -> Self {
        Self { kept: Mutex::default(), kept_max }
    }

    /// Who leads from here on.
    pub fn elect(&self, leader: Option<Epoch>) {
        self.lock().leader = leader;
    }

    /// Whether it cannot be reached from here on.
    pub fn set_away(&self, is_away: bool) {
        self.lock().is_away = is_away;
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no holder of this lock can panic")
    }
}

impl Kept {
    fn reached(&self) -> Result<(), AnchorError> {
        match self.is_away {
            true => Err(AnchorError::Unavailable { detail: "it was ordered to be away".into() }),
            false => Ok(()),
        }
    }
}

impl Anchors for MemoryAnchors {
    fn kept(&self) -> BoxFuture<'_, Result<Vec<Anchor>, AnchorError>> {
        Box::pin(async move {
            let kept = self.lock();
            kept.reached()?;
            Ok(kept.anchors.clone())
        })
    }

    fn keep(&self, anchor: Anchor, leader: Option<Epoch>) -> BoxFuture<'_, Result<(), AnchorError>> {
        Box::pin(async move {
            let mut kept = self.lock();
            kept.reached()?;
            if leader != kept.leader {
                return Err(AnchorError::NotLeading);
            }
            check_next(kept.anchors.last(), &anchor)?;
            kept.anchors.push(anchor);
            let over = kept.anchors.len().saturating_sub(self.kept_max);
            kept.anchors.drain(..over);
            Ok(())
        })
    }
}
