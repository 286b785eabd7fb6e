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
//! before it is stored and before it has vectors.
//!
//! Agents that do not remember cost nothing: the log is followed from when the first program that remembers is seen, somebody
//! asks, or pages are found in the store.
//!
//! One process writes all shards of its own store, under an epoch that does not change: the store is in its memory, or in its
//! data folder, which nobody else has open. A store that several nodes share would need an owner for each shard.
//!
//! Holds:
//!   RM-1  an answer shows every message that the log had when it was asked, or the call is refused as behind
//!   RM-2  nothing of one tenant is in an answer to another
//!   RM-3  a page is in the store or in memory from the fact that ended it, whatever fails; but for one that the store will never
//!         take, which an error names
//!   RM-4  what was forgotten is in no answer from then on
//!
//! Not here: which fact is part of which page and what is ranked how (nexa-paging), who may ask (nexa-gateway).

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing"))]

mod search;
mod state;
mod stored;
mod tail;
mod vectors;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nexa_paging::{FoundMessage, Mode};
use nexa_ports::clock::Clock;
use nexa_ports::embedder::Embedder;
use nexa_ports::pages::{PageStore, PagesError, Scope};
use nexa_ports::store::{Store, StoreError};
use nexa_types::{AgentId, Epoch, GlobalSeq, Millis, PageId, TenantId, Timestamp, Version};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use search::{PAGES_RANKED_MAX, RANKED_BYTES_MAX, RECALLS_AT_ONCE, WIDE_PAGES_MAX};
use state::State;
pub use tail::{APPEND_BYTES, APPEND_EVERY, APPEND_ROWS, LAG_FACTS_MAX, WAITING_BYTES_MAX, WAITING_PAGES_MAX};
pub use vectors::{EMBED_TEXTS, UNEMBEDDED_PAGES_MAX};

/// The writer of a store that nobody else has open.
const ALONE: Epoch = Epoch(1);
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
    /// Pages that wait to be stored.
    pub waiting: u64,
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
    /// Times that the store refused or lost a batch, which is then offered again.
    pub failures: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sealed: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) embedded: AtomicU64,
    pub(crate) recalls: AtomicU64,
    pub(crate) failures: AtomicU64,
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
        let seen = self.caught_up().await?;
        search::recall(&self.shared, asked, seen).await
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
        search::pages(&self.shared, tenant, agent, from, pages_max).await
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
        search::messages(&self.shared, tenant, agent, from).await
    }

    /// Forgets an agent for good, also what it says later; gives how many pages there were. The log keeps what it has.
    ///
    /// # Errors
    /// [`RememberError`]; then nothing is forgotten, or all of it after another call.
    pub async fn forget(&self, tenant: &TenantId, agent: AgentId) -> Result<usize, RememberError> {
        self.caught_up().await?;
        if self.shared.outside.store.row(agent).await?.is_none_or(|row| row.tenant != *tenant) {
            return Ok(0);
        }
        let deleted = self.shared.outside.pages.delete_agent(ALONE, tenant.clone(), agent).await?;
        Ok(deleted + self.shared.state().forget(agent))
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
        let counters = &self.shared.counters;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Standing {
            folded: *self.shared.folded.borrow(),
            waiting: self.shared.state().waiting.len() as u64,
            sealed: count(&counters.sealed),
            batches: count(&counters.batches),
            rows: count(&counters.rows),
            embedded: count(&counters.embedded),
            recalls: count(&counters.recalls),
            failures: count(&counters.failures),
        }
    }

    /// Waits until everything is folded that the log has now (RM-1).
    async fn caught_up(&self) -> Result<GlobalSeq, RememberError> {
        let wanted = *self.shared.outside.store.head().borrow();
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
