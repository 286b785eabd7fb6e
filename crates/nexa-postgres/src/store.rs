//! The port's calls: appends go through the queues, everything else to a pool.

use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use nexa_event::inbox;
use nexa_ports::store::{
    AgentRow, Append, AppendError, Appended, Backlog, Cancelled, InboxEntry, Place, Post, Posted, Recorded, Rows,
    Snapshot, Stamp, Store, StoreError,
};
use nexa_types::{AgentId, BlobHash, Epoch, GlobalSeq, InputId, StreamId, TenantId, Version, WorkloadId};
use tokio::sync::watch;

use crate::batch::{Ready, bound};
use crate::command;
use crate::open::PostgresStore;
use crate::read;
use crate::scan;

impl Store for PostgresStore {
    fn append(&self, batch: Vec<Append>) -> BoxFuture<'_, Vec<Result<Appended, AppendError>>> {
        Box::pin(async move {
            if batch.is_empty() {
                return Vec::new();
            }
            let (began, format) = (Instant::now(), self.writing.format());
            let answers = self.queue.submit(batch.into_iter().map(|append| Ready::new(append, format)).collect()).await;
            self.appending.record(began.elapsed().as_secs_f64());
            answers
        })
    }

    fn post(&self, post: Post, stamp: Stamp) -> BoxFuture<'_, Result<Posted, StoreError>> {
        Box::pin(async move {
            let body = inbox::encode(&post.input, post.trace.as_ref());
            bound("an input", body.len())?;
            let whole = Arc::new((post, body, stamp));
            self.callers
                .write(move |connection| {
                    let whole = Arc::clone(&whole);
                    Box::pin(async move { command::post(connection, &whole.0, &whole.1, &whole.2).await })
                })
                .await
        })
    }

    fn cancel(
        &self,
        workload: WorkloadId,
        reason: String,
        stamp: Stamp,
    ) -> BoxFuture<'_, Result<Cancelled, StoreError>> {
        Box::pin(async move {
            let (whole, format) = (Arc::new((reason, stamp)), self.writing.format());
            let (answer, position) = self
                .callers
                .write(move |connection| {
                    let whole = Arc::clone(&whole);
                    Box::pin(async move { command::cancel(connection, workload, &whole.0, &whole.1, format).await })
                })
                .await?;
            if let Some(position) = position {
                self.head.send_if_modified(|head| {
                    let is_news = *head < position;
                    *head = position.max(*head);
                    is_news
                });
            }
            Ok(answer)
        })
    }

    fn place(&self, wishes: Vec<Place>) -> BoxFuture<'_, Result<Vec<Result<Epoch, Epoch>>, StoreError>> {
        Box::pin(async move {
            let wishes = Arc::new(wishes);
            self.callers
                .write(move |connection| {
                    let wishes = Arc::clone(&wishes);
                    Box::pin(async move { command::place(connection, &wishes).await })
                })
                .await
        })
    }

    fn row(&self, agent: AgentId) -> BoxFuture<'_, Result<Option<AgentRow>, StoreError>> {
        Box::pin(self.readers.read(move |connection| Box::pin(read::row(connection, agent))))
    }

    fn rows(
        &self,
        which: Rows,
        after: Option<AgentId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<AgentRow>, StoreError>> {
        let which = Arc::new(which);
        Box::pin(self.readers.read(move |connection| {
            let which = Arc::clone(&which);
            Box::pin(async move { read::rows(connection, &which, after, limit).await })
        }))
    }

    fn inbox(&self, agent: AgentId, limit: usize) -> BoxFuture<'_, Result<Vec<InboxEntry>, StoreError>> {
        Box::pin(self.readers.read(move |connection| Box::pin(read::inbox(connection, agent, limit))))
    }

    fn entry(&self, agent: AgentId, id: InputId) -> BoxFuture<'_, Result<Option<InboxEntry>, StoreError>> {
        Box::pin(self.readers.read(move |connection| Box::pin(read::entry(connection, agent, id))))
    }

    fn read(&self, stream: StreamId, after: Version, limit: usize) -> BoxFuture<'_, Result<Vec<Recorded>, StoreError>> {
        let reads = self.writing.reads();
        Box::pin(self.readers.read(move |connection| {
            let stream = stream.clone();
            Box::pin(async move { read::read(connection, reads, &stream, after, limit).await })
        }))
    }

    fn scan(
        &self,
        workload: Option<WorkloadId>,
        after: GlobalSeq,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Recorded>, StoreError>> {
        let reads = self.writing.reads();
        Box::pin(self.readers.read(move |connection| Box::pin(scan::scan(connection, reads, workload, after, limit))))
    }

    fn head(&self) -> watch::Receiver<GlobalSeq> {
        self.head.subscribe()
    }

    fn put_snapshot(&self, agent: AgentId, version: Version, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            bound("a snapshot", bytes.len())?;
            let bytes: Arc<[u8]> = bytes.into();
            self.callers
                .write(move |connection| {
                    let bytes = Arc::clone(&bytes);
                    Box::pin(async move { command::put_snapshot(connection, agent, version, &bytes).await })
                })
                .await
        })
    }

    fn snapshot(&self, agent: AgentId) -> BoxFuture<'_, Result<Option<Snapshot>, StoreError>> {
        Box::pin(self.readers.read(move |connection| Box::pin(read::snapshot(connection, agent))))
    }

    fn put_blob(&self, tenant: TenantId, bytes: Vec<u8>) -> BoxFuture<'_, Result<BlobHash, StoreError>> {
        Box::pin(async move {
            bound("a blob", bytes.len())?;
            let (tenant, hash) = command::named(&tenant, &bytes);
            let whole = Arc::new((tenant, bytes));
            self.callers
                .write(move |connection| {
                    let whole = Arc::clone(&whole);
                    Box::pin(async move { command::put_blob(connection, &whole.0, &hash, &whole.1).await })
                })
                .await?;
            Ok(BlobHash::from_bytes(hash))
        })
    }

    fn blob(&self, tenant: TenantId, hash: BlobHash) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        Box::pin(self.readers.read(move |connection| {
            let tenant = tenant.clone();
            Box::pin(async move { read::blob(connection, &tenant, hash).await })
        }))
    }

    fn backlog(&self) -> Backlog {
        self.queue.backlog()
    }
}
