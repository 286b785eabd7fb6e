//! The port's calls: writing ones go through the queue, reading ones to the pool.

use std::time::Instant;

use futures::future::BoxFuture;
use nexa_event::inbox;
use nexa_ports::store::{
    AgentRow, Append, AppendError, Appended, Backlog, Cancelled, InboxEntry, Place, Post, Posted, Recorded, Rows,
    Stamp, Store, StoreError,
};
use nexa_types::{AgentId, BlobHash, Epoch, GlobalSeq, InputId, StreamId, TenantId, Version, WorkloadId};
use tokio::sync::watch;

use crate::append::{Ready, bound};
use crate::command::{AppendAll, CancelAll, Command, PlaceAll, PostOne, PutBlob, PutSnapshot};
use crate::open::SqliteStore;
use crate::read;
use crate::writer::Queue;

impl SqliteStore {
    /// Why the next write may be refused, as far as the latest one tells: the disk was full, or a write failed for good.
    pub fn trouble(&self) -> Option<StoreError> {
        self.queue.as_ref().and_then(|queue| queue.trouble())
    }

    /// Waits until a write has failed for good, and gives why: from then on nothing is written, so the process should end and be
    /// started anew. For ever, if the store is closed before.
    pub fn broken(&self) -> impl Future<Output = String> + Send + use<> {
        let stopped = self.queue.as_ref().map(Queue::stopped);
        async move {
            let why = match stopped {
                Some(mut stopped) => stopped.wait_for(Option::is_some).await.ok().and_then(|why| why.clone()),
                None => None,
            };
            match why {
                Some(why) => why,
                None => std::future::pending().await,
            }
        }
    }

    pub(crate) async fn submit<C: Command>(&self, command: C) -> Result<C::Output, StoreError> {
        match &self.queue {
            Some(queue) => queue.submit(command).await,
            // Only while it is being dropped.
            None => Err(StoreError::Unavailable { detail: "the store was closed".into() }),
        }
    }
}

impl Store for SqliteStore {
    fn append(&self, batch: Vec<Append>) -> BoxFuture<'_, Vec<Result<Appended, AppendError>>> {
        Box::pin(async move {
            let asked = batch.len();
            if asked == 0 {
                return Vec::new();
            }
            let began = Instant::now();
            match self.submit(AppendAll(batch.into_iter().map(Ready::new).collect())).await {
                Ok(answers) => {
                    self.appending.record(began.elapsed().as_secs_f64());
                    answers
                }
                Err(error) => vec![Err(error.into()); asked],
            }
        })
    }

    fn post(&self, post: Post, stamp: Stamp) -> BoxFuture<'_, Result<Posted, StoreError>> {
        Box::pin(async move {
            let body = inbox::encode(&post.input, post.trace.as_ref());
            bound("an input", body.len())?;
            self.submit(PostOne { post, body, stamp }).await?
        })
    }

    fn cancel(
        &self,
        workload: WorkloadId,
        reason: String,
        stamp: Stamp,
    ) -> BoxFuture<'_, Result<Cancelled, StoreError>> {
        Box::pin(async move { self.submit(CancelAll { workload, reason, stamp }).await? })
    }

    fn place(&self, wishes: Vec<Place>) -> BoxFuture<'_, Result<Vec<Result<Epoch, Epoch>>, StoreError>> {
        Box::pin(self.submit(PlaceAll(wishes)))
    }

    fn row(&self, agent: AgentId) -> BoxFuture<'_, Result<Option<AgentRow>, StoreError>> {
        Box::pin(self.readers.read(move |connection| read::row(connection, agent)))
    }

    fn rows(
        &self,
        which: Rows,
        after: Option<AgentId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<AgentRow>, StoreError>> {
        Box::pin(self.readers.read(move |connection| read::rows(connection, &which, after, limit)))
    }

    fn inbox(&self, agent: AgentId, limit: usize) -> BoxFuture<'_, Result<Vec<InboxEntry>, StoreError>> {
        Box::pin(self.readers.read(move |connection| read::inbox(connection, agent, limit)))
    }

    fn entry(&self, agent: AgentId, id: InputId) -> BoxFuture<'_, Result<Option<InboxEntry>, StoreError>> {
        Box::pin(self.readers.read(move |connection| read::entry(connection, agent, id)))
    }

    fn read(&self, stream: StreamId, after: Version, limit: usize) -> BoxFuture<'_, Result<Vec<Recorded>, StoreError>> {
        let recent = self.recent.clone();
        Box::pin(self.readers.read(move |connection| read::read(connection, &recent, &stream, after, limit)))
    }

    fn scan(
        &self,
        workload: Option<WorkloadId>,
        after: GlobalSeq,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Recorded>, StoreError>> {
        let recent = self.recent.clone();
        Box::pin(self.readers.read(move |connection| read::scan(connection, &recent, workload, after, limit)))
    }

    fn head(&self) -> watch::Receiver<GlobalSeq> {
        self.head.clone()
    }

    fn put_snapshot(&self, agent: AgentId, version: Version, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            bound("a snapshot", bytes.len())?;
            self.submit(PutSnapshot { agent, version, bytes }).await
        })
    }

    fn snapshot(&self, agent: AgentId) -> BoxFuture<'_, Result<Option<(Version, Vec<u8>)>, StoreError>> {
        Box::pin(self.readers.read(move |connection| read::snapshot(connection, agent)))
    }

    fn put_blob(&self, tenant: TenantId, bytes: Vec<u8>) -> BoxFuture<'_, Result<BlobHash, StoreError>> {
        Box::pin(async move {
            bound("a blob", bytes.len())?;
            let hash = *blake3::hash(&bytes).as_bytes();
            self.submit(PutBlob { tenant, hash, bytes }).await?;
            Ok(BlobHash::from_bytes(hash))
        })
    }

    fn blob(&self, tenant: TenantId, hash: BlobHash) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        Box::pin(self.readers.read(move |connection| read::blob(connection, &tenant, hash)))
    }

    fn backlog(&self) -> Backlog {
        self.queue.as_ref().map_or_else(Backlog::default, Queue::backlog)
    }
}
