//! A store between a node and the in-memory twin that fails on demand.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use nexa_ports::store::*;
use nexa_types::*;
use tokio::sync::watch;

/// Where a process dies, as seen from its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The append of this number (from 0) never arrives.
    Before(u64),
    /// It is stored, and the process never hears of it.
    After(u64),
}

/// What becomes of a placing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It is not stored, and the store says so.
    Refused,
    /// It is not stored, and the store says nothing.
    Unsaid,
    /// It is stored, and the store says nothing.
    Lost,
}

/// One node's way to the store. Several may lead to one store.
pub struct Way {
    pub store: Arc<dyn Store>,
    death: Option<Death>,
    dead: watch::Sender<bool>,
    pub appends: AtomicU64,
    /// Calls that are no appends.
    pub questions: AtomicU64,
    /// Every call fails while set.
    pub away: AtomicBool,
    /// This many appends of facts panic before they reach the store.
    pub panics: AtomicU64,
    /// Appends that were refused because the store was away.
    pub refused: watch::Sender<u64>,
    /// Placing waits while set.
    pub holds_placing: watch::Sender<bool>,
    /// How often placing was asked for.
    pub placings: watch::Sender<u64>,
    /// What becomes of the next placings.
    pub doubts: Mutex<VecDeque<Doubt>>,
    /// Every snapshot is damaged while set.
    pub damages_snapshots: AtomicBool,
    /// Listing rows panics while set.
    pub rows_panic: AtomicBool,
    pub blobs_put: AtomicU64,
    /// Others have a turn before each append while set, as with a store that does more than look into memory.
    pub yields: AtomicBool,
    /// Streams are not read while set; and how many readings have waited.
    pub holds_reads: watch::Sender<bool>,
    pub held_reads: watch::Sender<u64>,
    /// What rows say is on its way while set; and how many answers were.
    pub holds_rows: watch::Sender<bool>,
    pub held_rows: watch::Sender<u64>,
    /// Appends wait while set.
    pub holds_appends: watch::Sender<bool>,
    /// How many have waited.
    pub held_appends: watch::Sender<u64>,
}

impl Way {
    pub fn to(store: &Arc<dyn Store>, death: Option<Death>) -> Arc<Self> {
        Arc::new(Self {
            store: store.clone(),
            death,
            dead: watch::Sender::new(false),
            appends: AtomicU64::new(0),
            questions: AtomicU64::new(0),
            away: AtomicBool::new(false),
            panics: AtomicU64::new(0),
            refused: watch::Sender::new(0),
            holds_placing: watch::Sender::new(false),
            placings: watch::Sender::new(0),
            doubts: Mutex::default(),
            damages_snapshots: AtomicBool::new(false),
            rows_panic: AtomicBool::new(false),
            blobs_put: AtomicU64::new(0),
            yields: AtomicBool::new(false),
            holds_reads: watch::Sender::new(false),
            held_reads: watch::Sender::new(0),
            holds_rows: watch::Sender::new(false),
            held_rows: watch::Sender::new(0),
            holds_appends: watch::Sender::new(false),
            held_appends: watch::Sender::new(0),
        })
    }

    /// Waits until the process has died here.
    pub async fn died(&self) {
        self.dead.subscribe().wait_for(|dead| *dead).await.unwrap();
    }

    fn pass<'a, T: Send + 'a>(
        &'a self,
        call: impl FnOnce(&'a dyn Store) -> BoxFuture<'a, Result<T, StoreError>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        async move {
            self.questions.fetch_add(1, Ordering::SeqCst);
            if *self.dead.borrow() {
                std::future::pending::<()>().await;
            }
            if self.away.load(Ordering::SeqCst) {
                self.refused.send_modify(|refused| *refused += 1);
                return Err(away());
            }
            call(&*self.store).await
        }
        .boxed()
    }
}

fn away() -> StoreError {
    StoreError::Unavailable { detail: "a test has sent it away".into() }
}

async fn holds(gate: &watch::Sender<bool>, held: &watch::Sender<u64>) {
    if *gate.borrow() {
        held.send_modify(|held| *held += 1);
        gate.subscribe().wait_for(|holds| !holds).await.unwrap();
    }
}

impl Store for Way {
    fn append(&self, batch: Vec<Append>) -> BoxFuture<'_, Vec<Result<Appended, AppendError>>> {
        async move {
            if self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                panic!("a test wants it");
            }
            if self.yields.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            if *self.dead.borrow() {
                std::future::pending::<()>().await;
            }
            if self.away.load(Ordering::SeqCst) {
                self.refused.send_modify(|refused| *refused += 1);
                return batch.iter().map(|_| Err(AppendError::Store(away()))).collect();
            }
            holds(&self.holds_appends, &self.held_appends).await;
            let number = self.appends.fetch_add(1, Ordering::SeqCst);
            if self.death.is_some_and(|death| matches!(death, Death::Before(at) if at <= number)) {
                self.dead.send_replace(true);
                std::future::pending::<()>().await;
            }
            let answer = self.store.append(batch).await;
            if self.death.is_some_and(|death| matches!(death, Death::After(at) if at <= number)) {
                self.dead.send_replace(true);
                std::future::pending::<()>().await;
            }
            answer
        }
        .boxed()
    }

    fn post(&self, post: Post, stamp: Stamp) -> BoxFuture<'_, Result<Posted, StoreError>> {
        self.pass(move |store| store.post(post, stamp))
    }

    fn cancel(
        &self,
        workload: WorkloadId,
        reason: String,
        stamp: Stamp,
    ) -> BoxFuture<'_, Result<Cancelled, StoreError>> {
        self.pass(move |store| store.cancel(workload, reason, stamp))
    }

    fn place(&self, wishes: Vec<Place>) -> BoxFuture<'_, Result<Vec<Result<Epoch, Epoch>>, StoreError>> {
        async move {
            self.placings.send_modify(|placings| *placings += 1);
            self.holds_placing.subscribe().wait_for(|holds| !holds).await.unwrap();
            let doubt = self.doubts.lock().unwrap().pop_front();
            match doubt {
                None => self.pass(move |store| store.place(wishes)).await,
                Some(Doubt::Refused) => Err(away()),
                Some(doubt) => {
                    if doubt == Doubt::Lost {
                        self.store.place(wishes).await?;
                    }
                    Err(StoreError::Ambiguous { detail: "a test made the answer get lost".into() })
                }
            }
        }
        .boxed()
    }

    fn row(&self, agent: AgentId) -> BoxFuture<'_, Result<Option<AgentRow>, StoreError>> {
        async move {
            let row = self.pass(move |store| store.row(agent)).await;
            holds(&self.holds_rows, &self.held_rows).await;
            row
        }
        .boxed()
    }

    fn rows(
        &self,
        which: Rows,
        after: Option<AgentId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<AgentRow>, StoreError>> {
        assert!(!self.rows_panic.load(Ordering::SeqCst), "a test wants it");
        self.pass(move |store| store.rows(which, after, limit))
    }

    fn inbox(&self, agent: AgentId, limit: usize) -> BoxFuture<'_, Result<Vec<InboxEntry>, StoreError>> {
        self.pass(move |store| store.inbox(agent, limit))
    }

    fn read(&self, stream: StreamId, after: Version, limit: usize) -> BoxFuture<'_, Result<Vec<Recorded>, StoreError>> {
        async move {
            holds(&self.holds_reads, &self.held_reads).await;
            self.pass(move |store| store.read(stream, after, limit)).await
        }
        .boxed()
    }

    fn scan(
        &self,
        workload: Option<WorkloadId>,
        after: GlobalSeq,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Recorded>, StoreError>> {
        self.pass(move |store| store.scan(workload, after, limit))
    }

    fn head(&self) -> watch::Receiver<GlobalSeq> {
        self.store.head()
    }

    fn put_snapshot(&self, agent: AgentId, version: Version, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.pass(move |store| store.put_snapshot(agent, version, bytes))
    }

    fn snapshot(&self, agent: AgentId) -> BoxFuture<'_, Result<Option<(Version, Vec<u8>)>, StoreError>> {
        if self.damages_snapshots.load(Ordering::SeqCst) {
            return async { Err(StoreError::Corrupt { detail: "a test has damaged it".into() }) }.boxed();
        }
        self.pass(move |store| store.snapshot(agent))
    }

    fn put_blob(&self, tenant: TenantId, bytes: Vec<u8>) -> BoxFuture<'_, Result<BlobHash, StoreError>> {
        self.blobs_put.fetch_add(1, Ordering::SeqCst);
        self.pass(move |store| store.put_blob(tenant, bytes))
    }

    fn blob(&self, tenant: TenantId, hash: BlobHash) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        self.pass(move |store| store.blob(tenant, hash))
    }
}
