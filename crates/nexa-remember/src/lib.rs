//! What agents remember, on one node: pages written behind the log, and found again.
//!
//! ```text
//! log ─► tail ─► page writer ─► waiting pages ─(15 s, 512 rows)─► page store
//!                                  │   ▲
//!                                  ▼   │ vectors, when they come
//!                               embedder
//! query ─► stored pages + waiting pages + what is open ─► ranking ─► messages with their provenance
//! ```
//!
//! The log is the truth: whatever is lost here is made again from it. A page is found as soon as the log has its messages,
//! before it is stored and before it has vectors. What is to be forgotten is told by the log as well, in the stream of the
//! agent's tenant: so every node forgets it, and whoever reads the log again (`forget`).
//!
//! Agents that do not remember cost nothing: the log is followed, and the store touched, from when the first program that
//! remembers is seen, somebody asks, or whoever started this says so ([`Remembrance::follow`]).
//!
//! One process writes all shards of its own store: it is in its memory, or in its data folder. Its epoch is later than those of
//! processes that had the folder before, so that one of them that still runs writes nothing any more. A store that several
//! nodes share would need an owner for each shard.
//!
//! A shard that cannot be read, because its files are damaged, is emptied and written again from the log, without being asked; so
//! is one that is ahead of the log, as after a copy of that was put back.
//!
//! Holds:
//!   RM-1  an answer shows every message that this node knew the log to have when it was asked, or the call is refused as
//!         behind; of what other nodes write to a shared log, a node hears a moment later
//!   RM-2  nothing of one tenant is in an answer to another
//!   RM-3  a page is in the store or in memory from the fact that ended it, whatever fails; but for one that the store will never
//!         take, which an error names
//!   RM-4  what an agent had said when it was forgotten is in no answer from then on, whatever is lost, read again or embedded
//!         meanwhile; what it says later is
//!
//! Not here: which fact is part of which page and what is ranked how (nexa-paging), who may ask (nexa-gateway).

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing"))]

mod forget;
mod search;
mod state;
mod stored;
mod tail;
mod vectors;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nexa_paging::{FoundMessage, Mode};
use nexa_ports::clock::Clock;
use nexa_ports::embedder::Embedder;
use nexa_ports::formats::Writing;
use nexa_ports::pages::{PageStore, PagesError, Scope};
use nexa_ports::store::{Stamp, Store, StoreError};
use nexa_types::{AgentId, GlobalSeq, Millis, PageId, TenantId, Timestamp, Version};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use search::{PAGES_RANKED_MAX, RANKED_BYTES_MAX, RECALLS_AT_ONCE, WIDE_PAGES_MAX};
use state::State;
pub use tail::{APPEND_BYTES, APPEND_EVERY, APPEND_ROWS, LAG_FACTS_MAX, WAITING_BYTES_MAX, WAITING_PAGES_MAX};
pub use vectors::{EMBED_TEXTS, UNEMBEDDED_PAGES_MAX};

/// What answering a query took, until there was an answer.
pub const RECALL_SECONDS: &str = "nexa_recall_seconds";
/// How long a call waits until the log is folded as far as it was when it was asked. Then: behind.
const FOLD_WAIT: Millis = Millis(5_000);

/// What it works with.
#[derive(Clone)]
pub struct Outside {
    /// The log.
    pub store: Arc<dyn Store>,
    /// Where pages are kept. Nobody else writes there.
    pub pages: Arc<dyn PageStore>,
    /// What makes vectors; without it, words are searched.
    pub embedder: Option<Arc<dyn Embedder>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// In which format the log is written: since [`nexa_event::formats::FORGETTING`] it can tell what is to be forgotten.
    pub writing: Writing,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RememberError {
    /// The log is not folded as far as it was when somebody asked.
    #[error("pages have seen position {folded} and not yet {wanted}; try again later")]
    Behind {
        /// What the caller has to see.
        wanted: GlobalSeq,
        /// What is folded.
        folded: GlobalSeq,
    },
    /// The pages cannot be read or written.
    #[error(transparent)]
    Pages(#[from] PagesError),
    /// The log cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is to be forgotten cannot be told in the format that is written.
    #[error(
        "the log is written in format {written}, which cannot say that an agent is forgotten: that begins with format {}",
        nexa_event::formats::FORGETTING
    )]
    Unwritten {
        /// The format.
        written: u16,
    },
    /// A search ended without an answer.
    #[error("the search met a bug: {0}")]
    Broken(String),
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Whose pages may be found.
    pub scope: Scope,
    /// In words.
    pub query: String,
    /// Messages that are wanted at most.
    pub messages: usize,
    /// Tokens of all of them, if there is a limit.
    pub tokens: Option<u64>,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Recalled {
    /// Messages, the best first.
    pub messages: Vec<FoundMessage>,
    /// What was compared; `None` if there was nothing.
    pub mode: Option<Mode>,
    /// Everything up to here was looked at.
    pub seen: GlobalSeq,
    /// Pages that were ranked.
    pub pages: usize,
}

/// A page as people see it.
#[derive(Debug, Clone, PartialEq)]
pub struct PageLine {
    /// Its id; `None`: it is open.
    pub id: Option<PageId>,
    /// The first of its messages, packed as [`nexa_paging::PlaceInLog`] does.
    pub first: Version,
    /// The last of them.
    pub last: Version,
    /// When the first was said.
    pub first_at: Timestamp,
    /// When the last was said.
    pub last_at: Timestamp,
    /// How many.
    pub messages: u32,
    /// Tokens of them, estimated.
    pub tokens: u64,
    /// What it takes in the store; 0 while it waits.
    pub bytes: u64,
    /// Messages with a vector.
    pub embedded: u32,
    /// Whether the store has it.
    pub stored: bool,
}

/// What this node has done since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// How far the log is folded.
    pub folded: GlobalSeq,
    /// Facts that the log has and that are not folded; none before it is followed.
    pub lag_facts: u64,
    /// For how long that has been so, in milliseconds.
    pub lag_ms: u64,
    /// Pages that wait to be stored.
    pub waiting: u64,
    /// Bytes of the texts in them.
    pub waiting_bytes: u64,
    /// Pages that were made.
    pub sealed: u64,
    /// Batches that were stored.
    pub batches: u64,
    /// Pages in them.
    pub rows: u64,
    /// Messages that have got a vector.
    pub embedded: u64,
    /// Answers.
    pub recalls: u64,
    /// Pages that were ranked for them.
    pub ranked: u64,
    /// Times that the store refused or lost a batch, which is then offered again.
    pub failures: u64,
    /// Shards that were damaged or ahead of the log, and emptied to be written again.
    pub emptied: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sealed: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) embedded: AtomicU64,
    pub(crate) recalls: AtomicU64,
    pub(crate) ranked: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) emptied: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

/// What a node's agents remember. Clones are handles to the same.
#[derive(Clone)]
pub struct Remembrance {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    outside: Outside,
    state: Mutex<State>,
    folded: watch::Sender<GlobalSeq>,
    /// Whether the log is followed.
    follows: AtomicBool,
    /// Somebody waits, or the log is to be followed from now on.
    wanted: Notify,
    /// There are messages without vectors.
    unembedded: Notify,
    /// Turns of queries.
    recalls: Semaphore,
    counters: Counters,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is complete before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembrance {
    /// Starts it. Must be called within a tokio runtime; ends with [`Self::stop`].
    #[must_use]
    pub fn start(outside: Outside) -> Self {
        let shards = outside.pages.shards();
        let shared = Arc::new(Shared {
            outside,
            state: Mutex::new(State::new(shards)),
            folded: watch::Sender::new(GlobalSeq(0)),
            follows: AtomicBool::new(false),
            wanted: Notify::new(),
            unembedded: Notify::new(),
            recalls: Semaphore::new(RECALLS_AT_ONCE),
            counters: Counters::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(tail::run(Arc::clone(&shared)));
        if shared.outside.embedder.is_some() {
            shared.tasks.spawn(vectors::run(Arc::clone(&shared)));
        }
        Self { shared }
    }

    /// There is a program that remembers: follows the log from now on.
    pub fn follow(&self) {
        self.shared.follows.store(true, Ordering::Release);
        self.shared.wanted.notify_one();
    }

    /// Stores what waits, at most within so long, and ends. What is not stored is made again from the log.
    pub async fn stop(&self, within: Duration) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        // Whatever is left is in the log.
        let _ = tokio::time::timeout(within, self.shared.tasks.wait()).await;
    }

    /// Finds messages.
    ///
    /// # Errors
    /// [`RememberError`].
    pub async fn recall(&self, asked: Asked) -> Result<Recalled, RememberError> {
        let began = Instant::now();
        let seen = self.caught_up().await?;
        let recalled = self.noticed(search::recall(&self.shared, asked, seen).await)?;
        metrics::histogram!(RECALL_SECONDS).record(began.elapsed());
        Ok(recalled)
    }

    /// Pages of an agent in the order of their messages, stored or not, from one place on; at most `pages_max`. And where to go
    /// on.
    ///
    /// # Errors
    /// [`RememberError`].
    pub async fn pages(
        &self,
        tenant: &TenantId,
        agent: AgentId,
        from: Version,
        pages_max: usize,
    ) -> Result<(Vec<PageLine>, Option<Version>), RememberError> {
        self.caught_up().await?;
        self.noticed(search::pages(&self.shared, tenant, agent, from, pages_max).await)
    }

    /// Messages of an agent as they are remembered, from one place on, and where to go on.
    ///
    /// # Errors
    /// [`RememberError`].
    pub async fn messages(
        &self,
        tenant: &TenantId,
        agent: AgentId,
        from: Version,
    ) -> Result<(Vec<FoundMessage>, Option<Version>), RememberError> {
        self.caught_up().await?;
        self.noticed(search::messages(&self.shared, tenant, agent, from).await)
    }

    /// Has all nodes forget for good what an agent of the stamp's tenant has said so far, on behalf of the stamp's principal;
    /// gives how many pages there were, as far as they can be read. Nothing is written if there is nothing to forget. What it
    /// says later is remembered, and the log keeps what it has.
    ///
    /// # Errors
    /// [`RememberError`]. With [`RememberError::Behind`] the log may tell it all the same, and then it is forgotten as soon as
    /// that is read.
    pub async fn forget(&self, agent: AgentId, stamp: Stamp) -> Result<usize, RememberError> {
        forget::forget(self, agent, stamp).await
    }

    /// Reads the log again from its first fact, and waits until that is done. Pages that are there stay; those that were lost
    /// come back.
    ///
    /// # Errors
    /// [`RememberError::Behind`] if it takes longer than a caller waits: it goes on.
    pub async fn rebuild(&self) -> Result<GlobalSeq, RememberError> {
        {
            let mut state = self.shared.state();
            state.begin_again();
            self.shared.folded.send_replace(GlobalSeq(0));
        }
        self.caught_up().await
    }

    /// How it is doing.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let Shared { outside, counters, .. } = &*self.shared;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (head, now) = (*outside.store.head().borrow(), outside.clock.now());
        let state = self.shared.state();
        let follows = self.shared.follows.load(Ordering::Acquire);
        let lag_facts = if follows { head.0.saturating_sub(state.folded.0) } else { 0 };
        Standing {
            folded: state.folded,
            lag_facts,
            lag_ms: if lag_facts > 0 { now.0.saturating_sub(state.whole_at.0) } else { 0 },
            waiting: state.waiting.len() as u64,
            waiting_bytes: state.waiting_bytes() as u64,
            sealed: count(&counters.sealed),
            batches: count(&counters.batches),
            rows: count(&counters.rows),
            embedded: count(&counters.embedded),
            recalls: count(&counters.recalls),
            ranked: count(&counters.ranked),
            failures: count(&counters.failures),
            emptied: count(&counters.emptied),
        }
    }

    /// Has a shard written again that turns out to be damaged while it is read.
    fn noticed<T>(&self, answer: Result<T, RememberError>) -> Result<T, RememberError> {
        if let Err(RememberError::Pages(PagesError::Damaged { shard, .. })) = &answer {
            self.shared.state().damaged.insert(*shard);
            self.shared.wanted.notify_one();
        }
        answer
    }

    /// Waits until everything is folded that this node knows the log to have now (RM-1).
    async fn caught_up(&self) -> Result<GlobalSeq, RememberError> {
        let wanted = *self.shared.outside.store.head().borrow();
        self.folded_to(wanted).await
    }

    /// Waits until everything up to a position is folded.
    async fn folded_to(&self, wanted: GlobalSeq) -> Result<GlobalSeq, RememberError> {
        self.follow();
        let mut folded = self.shared.folded.subscribe();
        let clock = &self.shared.outside.clock;
        let late = clock.wait_until(clock.now().after(FOLD_WAIT));
        tokio::select! {
            biased;
            // It cannot fail while this is here.
            _ = folded.wait_for(|folded| *folded >= wanted) => Ok(wanted),
            () = late => Err(RememberError::Behind { wanted, folded: *self.shared.folded.borrow() }),
        }
    }
}
