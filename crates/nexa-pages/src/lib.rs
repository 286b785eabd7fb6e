//! Context pages in Lance datasets, in a folder or a bucket: the adapter of `nexa_ports::pages`.
//!
//! ```text
//! take_over ──► claim 7: epoch 4 · sealed: A at version 12, B at 3 · open: C        a small file, written once
//! append    ──► C: one fragment a batch, one commit, durable
//! compact   ──► D = what counts of B and C; claim 8: sealed: A at 12, D at 2 · open: E
//! read      ──► the claim of the highest number, then the rows of A, D, E
//! ```
//!
//! - `storage`: where everything is, and what it is called. `folder`, `bucket`: how it becomes durable there.
//! - `claim`: who writes a shard and what counts in it.
//! - `part`: one dataset at one version, and who is where in it; `rows`: pages as rows, with their checksums.
//! - `seen`: what a handle knows of a shard. `shard`, `compact`: its writer.
//! - `reading`, `counts`, `search`: what counts, what is kept in memory, and how it is found.
//!
//! **The fence is one file** (PG-3). Lance lets an append through that began before another writer's commit, so its own
//! commits fence nobody. Here a claim names the exact version of each dataset that counts; what a writer that was taken over
//! from commits to its dataset afterwards is a later version, which nobody reads, and a claim of its own it cannot write.
//!
//! **Of Lance only what is plain**: create, append, read. Deletes, updates, compaction in place, clean-up of versions and
//! indices are where its data was lost or came back; a compaction here writes another dataset, and old ones are removed
//! whole, by the shard's writer, once no claim names them.
//!
//! **Nothing is answered that was not written**: each row has checksums, each claim has one, and whatever does not match is
//! [`PagesError::Damaged`], to be written again from the log ([`PageStore::drop_pages`]).

#[cfg(feature = "s3")]
mod bucket;
mod claim;
mod compact;
mod counts;
mod folder;
mod part;
mod reading;
mod rows;
mod search;
mod seen;
mod shard;
mod storage;
mod trouble;

#[cfg(all(test, feature = "s3"))]
mod bucket_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::future::FutureExt;
use futures::stream::{StreamExt, TryStreamExt};
use nexa_ports::pages::{
    ANSWER_PAGES_MAX, Compacted, Done, Hit, PageBatch, PageQuery, PageStore, PagesError, Scope, Shard, Shards,
    StoredPage,
};
use nexa_types::{AgentId, Epoch, GlobalSeq, PageId, TenantId, Version};

#[cfg(feature = "s3")]
pub use crate::bucket::Access;
use crate::reading::Memory;
use crate::search::Row;
use crate::seen::Seen;
use crate::shard::ShardStore;
use crate::storage::Storage;
use crate::trouble::Trouble;

/// Shards that one search looks at at once.
const SHARDS_AT_ONCE: usize = 8;
/// How often a question is asked again of a shard that is compacted meanwhile.
const TRIES_MAX: usize = 4;

/// How a store is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether what is acknowledged in a folder survives a power cut. Without it a batch is stored some milliseconds sooner; for
    /// tests.
    pub fsync: bool,
    /// What is kept in memory to answer from, in bytes: rows of agents and shards that were asked about.
    pub memory_bytes: u64,
    /// What Lance keeps of its files' metadata, in bytes.
    pub lance_cache_bytes: usize,
    /// How long what a compaction replaced stays there, for those who still read it.
    pub retired_kept: Duration,
    /// How a bucket is reached, beside what the environment says.
    #[cfg(feature = "s3")]
    pub access: Access,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            fsync: true,
            memory_bytes: 256 << 20,
            lance_cache_bytes: 64 << 20,
            retired_kept: Duration::from_secs(600),
            #[cfg(feature = "s3")]
            access: Access::default(),
        }
    }
}

/// Pages in a folder or a bucket. Clones are handles to the same ones, and share what is kept in memory; a process needs one.
#[derive(Clone)]
pub struct LancePages {
    shards: Shards,
    stores: Arc<Vec<Arc<ShardStore>>>,
    memory: Memory,
}

impl LancePages {
    /// Opens a folder, by path or by a URL that begins with `file://`; a new one if it is not there. With the feature `s3`
    /// also a bucket that is there, by a URL like `s3://bucket/prefix`.
    ///
    /// # Errors
    /// [`PagesError::Refused`] for another scheme, if there is another number of shards, or if a bucket's store lets two
    /// write the same name; [`PagesError::Unavailable`] if the place cannot be read or made.
    pub async fn open(at: &str, shards: Shards, settings: Settings) -> Result<Self, PagesError> {
        let storage = Arc::new(Storage::open(at, shards, &settings).await?);
        let store = |shard| Arc::new(ShardStore::new(Arc::clone(&storage), shard, settings.clone()));
        let stores = Arc::new(shards.all().map(store).collect());
        Ok(Self { shards, stores, memory: reading::memory(settings.memory_bytes) })
    }

    /// Whether anybody ever wrote here.
    ///
    /// # Errors
    /// [`PagesError::Unavailable`] if the place cannot be read.
    pub async fn has_some(&self) -> Result<bool, PagesError> {
        let store = self.store(Shard(0))?;
        store.storage.has_shards().await.map_err(|trouble| trouble.of(store.shard))
    }

    /// What is kept in memory to answer from, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory.run_pending_tasks();
        self.memory.weighted_size() << 10
    }

    fn store(&self, shard: Shard) -> Result<Arc<ShardStore>, PagesError> {
        let store = self.stores.get(usize::from(shard.0)).cloned();
        store.ok_or_else(|| PagesError::Refused(format!("there is no shard {}", shard.0)))
    }

    /// After a question met trouble: whether it is asked again, because the shard was compacted meanwhile.
    async fn again(store: &ShardStore, seen: &Seen, trouble: Trouble, tries: &mut usize) -> Result<(), PagesError> {
        *tries += 1;
        let has_changed = !store.view.is_new(seen).await.map_err(|trouble| trouble.of(store.shard))?;
        // A file that goes while it is read makes errors of many kinds.
        let may_be_that = !matches!(trouble, Trouble::Unreachable(_));
        if *tries < TRIES_MAX && has_changed && may_be_that { Ok(()) } else { Err(trouble.of(store.shard)) }
    }

    /// Pages of an agent that a choice of its rows names.
    async fn chosen(
        &self,
        tenant: TenantId,
        agent: AgentId,
        choice: impl Fn(&[Arc<Row>]) -> Vec<Arc<Row>> + Send + Sync,
    ) -> Result<Vec<StoredPage>, PagesError> {
        let (scope, mut tries) = (Scope::Agent(tenant, agent), 0);
        let store = self.store(self.shards.of(agent))?;
        loop {
            let seen = store.view.now().await.map_err(|trouble| trouble.of(store.shard))?;
            let trouble = match store.agent(&seen, &self.memory, agent).await {
                Ok(rows) => {
                    let mut pages = rows.pages.clone();
                    pages.retain(|row| counts::admits(&scope, &row.key));
                    match store.pages(&seen, &choice(&pages)).await {
                        Ok(pages) => return Ok(pages),
                        Err(trouble) => trouble,
                    }
                }
                Err(trouble) => trouble,
            };
            Self::again(&store, &seen, trouble, &mut tries).await?;
        }
    }

    /// Rows of one shard that a search looks at: an agent's, or those that are shared.
    async fn rows(&self, shard: Shard, agent: Option<AgentId>) -> Result<Vec<Arc<Row>>, PagesError> {
        let (store, mut tries) = (self.store(shard)?, 0);
        loop {
            let seen = store.view.now().await.map_err(|trouble| trouble.of(shard))?;
            let rows = match agent {
                Some(agent) => store.agent(&seen, &self.memory, agent).await.map(|of| of.pages.clone()),
                None => store.shared(&seen, &self.memory).await.map(|of| of.pages.clone()),
            };
            match rows {
                Ok(rows) => return Ok(rows),
                Err(trouble) => Self::again(&store, &seen, trouble, &mut tries).await?,
            }
        }
    }

    /// Rows that a search of a scope looks at.
    async fn candidates(&self, scope: &Scope) -> Result<Vec<Arc<Row>>, PagesError> {
        let mut rows: Vec<Arc<Row>> = match scope {
            Scope::Agent(_, agent) => self.rows(self.shards.of(*agent), Some(*agent)).await?,
            Scope::Workload(..) | Scope::Tenant(_) => {
                let shards = futures::stream::iter(self.shards.all()).map(|shard| self.rows(shard, None));
                shards.buffered(SHARDS_AT_ONCE).try_concat().await?
            }
        };
        rows.retain(|row| counts::admits(scope, &row.key));
        Ok(rows)
    }
}

/// Runs a write to its end, also if nobody waits for it any more.
async fn spawned<T: Send + 'static>(
    work: impl Future<Output = Result<T, PagesError>> + Send + 'static,
) -> Result<T, PagesError> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => Err(PagesError::Unknown(error.to_string())),
    }
}

impl PageStore for LancePages {
    fn shards(&self) -> Shards {
        self.shards
    }

    fn take_over(&self, shard: Shard, epoch: Epoch) -> Done<'_, GlobalSeq> {
        async move {
            let store = self.store(shard)?;
            spawned(async move { store.take_over(epoch).await }).await
        }
        .boxed()
    }

    fn drop_pages(&self, shard: Shard, epoch: Epoch) -> Done<'_, ()> {
        async move {
            let store = self.store(shard)?;
            spawned(async move { store.drop_pages(epoch).await }).await
        }
        .boxed()
    }

    fn append(&self, batch: PageBatch) -> Done<'_, ()> {
        async move {
            batch.check(self.shards)?;
            let store = self.store(batch.shard)?;
            spawned(async move { store.writing(batch.epoch).await?.append(batch).await }).await
        }
        .boxed()
    }

    fn read(&self, tenant: TenantId, agent: AgentId, ids: Vec<PageId>) -> Done<'_, Vec<StoredPage>> {
        self.chosen(tenant, agent, move |pages| {
            let by_id = |id: &PageId| pages.iter().find(|row| row.key.id == *id).cloned();
            ids.iter().take(ANSWER_PAGES_MAX).filter_map(by_id).collect()
        })
        .boxed()
    }

    fn scan(&self, tenant: TenantId, agent: AgentId, from: Version, pages_max: usize) -> Done<'_, Vec<StoredPage>> {
        let max = pages_max.clamp(1, ANSWER_PAGES_MAX);
        self.chosen(tenant, agent, move |pages| {
            let start = pages.partition_point(|row| row.key.first < from);
            let pages = &pages[start..];
            // All that begin where the last one does belong to it.
            let last = pages.get(max - 1).map(|row| row.key.first);
            let end = last.map_or(pages.len(), |last| pages.partition_point(|row| row.key.first <= last));
            pages[..end].to_vec()
        })
        .boxed()
    }

    fn search(&self, scope: Scope, query: PageQuery) -> Done<'_, Vec<Hit>> {
        async move {
            let rows = self.candidates(&scope).await?;
            let found = tokio::task::spawn_blocking(move || search::best(&rows, &query)).await;
            found.map_err(|error| PagesError::Unavailable(error.to_string()))
        }
        .boxed()
    }

    fn delete_agent(&self, epoch: Epoch, tenant: TenantId, agent: AgentId, up_to: Version) -> Done<'_, usize> {
        async move {
            let store = self.store(self.shards.of(agent))?;
            spawned(async move { store.writing(epoch).await?.delete_agent(&tenant, agent, up_to).await }).await
        }
        .boxed()
    }

    fn delete_tenant(&self, shard: Shard, epoch: Epoch, tenant: TenantId) -> Done<'_, usize> {
        async move {
            let store = self.store(shard)?;
            spawned(async move { store.writing(epoch).await?.delete_tenant(&tenant).await }).await
        }
        .boxed()
    }

    fn compact(&self, shard: Shard, epoch: Epoch) -> Done<'_, Compacted> {
        async move {
            let store = self.store(shard)?;
            spawned(async move { store.writing(epoch).await?.compact().await }).await
        }
        .boxed()
    }
}
