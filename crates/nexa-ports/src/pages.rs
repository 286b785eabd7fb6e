//! The port to the store of context pages: what agents said, in pages of some messages each, to be found again.
//!
//! The log is the truth, and this is a projection of it: what was lost here is written again from there. Pages are spread
//! over a fixed number of shards by their agent. Each shard has one writer at a time, which tails the log and appends in
//! batches; each batch says up to which position of the log it goes.
//!
//! Holds, for every adapter; the contract suite in `nexa-testkit` checks each:
//!   PG-1  what was accepted is read back as it was, also by another handle and after a restart
//!   PG-2  a page that was appended several times is one page; of versions that differ, that of the highest epoch counts
//!   PG-3  once a shard was taken over under an epoch, nothing that is written under an earlier one is ever read
//!   PG-4  nothing of one tenant is in an answer to another, and a search finds nothing outside of its scope
//!   PG-5  what a page supersedes is gone from all answers at once and for good, as are the pages of an agent up to where they
//!         were deleted, whatever a replay appends
//!   PG-6  the position that a shard is applied up to is that of a batch whose pages are all there, and never goes back
//!   PG-7  compaction changes no answer
//!   PG-8  a shard that was dropped is applied up to nothing, has no pages, and takes them again; what was deleted stays so
//!
//! Not here: which page is worth finding ([`Hit`] has two scores, and ranking is `nexa-paging`'s), and what is in a body.

mod memory;

use futures::future::BoxFuture;
use nexa_types::{AgentId, Epoch, GlobalSeq, PageId, TenantId, Timestamp, Version, WorkloadId};

use crate::embedder::UnitVector;

pub use memory::MemoryPages;

/// Pages of one batch; a longer one is refused.
pub const BATCH_PAGES_MAX: usize = 1_024;
/// All that one page holds, in bytes; a larger one is refused.
pub const PAGE_BYTES_MAX: usize = 1 << 20;
/// Pages of one answer; a wish for more gets so many.
pub const ANSWER_PAGES_MAX: usize = 512;
/// A query's text, in bytes; what is beyond is not looked for.
pub const QUERY_BYTES_MAX: usize = 16 << 10;

/// One part of all pages. Which one an agent's pages are in is computed from its id and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u16);

/// How many parts there are: as many for ever as when the store was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shards(u16);

impl Shards {
    /// The most that there can be.
    pub const MAX: u16 = 256;

    /// So many; `None` for none, or more than [`Shards::MAX`].
    #[must_use]
    pub const fn new(count: u16) -> Option<Self> {
        if count >= 1 && count <= Self::MAX { Some(Self(count)) } else { None }
    }

    /// Their number.
    #[must_use]
    pub const fn count(self) -> u16 {
        self.0
    }

    /// The part that an agent's pages are in. Ids are hashes, so two bytes of one are as good as another hash of it.
    #[must_use]
    pub const fn of(self, agent: AgentId) -> Shard {
        let bytes = agent.as_bytes();
        Shard(u16::from_le_bytes([bytes[0], bytes[1]]) % self.0)
    }

    /// All of them.
    pub fn all(self) -> impl Iterator<Item = Shard> {
        (0..self.0).map(Shard)
    }
}

/// How widely a page may be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reach {
    /// By its agent.
    Agent = 0,
    /// By all agents of its workload.
    Workload = 1,
    /// By all agents of its tenant.
    Tenant = 2,
}

/// What a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PageKind {
    /// Messages as they were said.
    Raw = 0,
    /// What stands for some of them, and never replaces them.
    Summary = 1,
    /// Nothing but that another page is gone: the one it supersedes.
    Tombstone = 2,
}

/// A vector, and the model that made it.
#[derive(Debug, Clone, PartialEq)]
pub struct PageVector {
    /// The model's full name. Vectors of other models are not compared with it.
    pub model: String,
    /// The vector.
    pub vector: UnitVector,
}

/// One page as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPage {
    /// Derived from agent, positions and content.
    pub id: PageId,
    /// Whose data it is.
    pub tenant: TenantId,
    /// The agent's workload.
    pub workload: WorkloadId,
    /// Who said it or heard it.
    pub agent: AgentId,
    /// Who may find it.
    pub reach: Reach,
    /// What it is.
    pub kind: PageKind,
    /// The first of its messages, in the agent's stream.
    pub first: Version,
    /// The last of them.
    pub last: Version,
    /// When the first was said.
    pub first_at: Timestamp,
    /// When the last was said.
    pub last_at: Timestamp,
    /// A page of the same agent that is gone now that this is here.
    pub supersedes: Option<PageId>,
    /// How many messages.
    pub messages: u32,
    /// How many tokens they are.
    pub tokens: u32,
    /// The messages, in a form of their writer's.
    pub body: Vec<u8>,
    /// What is searched for words.
    pub text: String,
    /// The vectors of messages, in a form of their writer's.
    pub message_vectors: Vec<u8>,
    /// What is searched by nearness, once it was made.
    pub vector: Option<PageVector>,
    /// 0 to 1: how much would be missed.
    pub importance: f32,
}

impl StoredPage {
    /// What it holds, in bytes.
    pub fn bytes(&self) -> usize {
        let vector = self.vector.as_ref().map_or(0, |of| of.model.len() + size_of_val(of.vector.numbers()));
        self.body.len() + self.text.len() + self.message_vectors.len() + vector
    }

    /// What stays of it once it is gone: that it superseded another.
    #[must_use]
    pub fn hollow(&self) -> Self {
        let (body, message_vectors, text) = (Vec::new(), Vec::new(), String::new());
        Self { kind: PageKind::Tombstone, body, message_vectors, text, vector: None, ..self.clone() }
    }
}

/// A batch of pages of one shard.
#[derive(Debug, Clone, PartialEq)]
pub struct PageBatch {
    /// The shard of all of them.
    pub shard: Shard,
    /// Under which its writer took it over.
    pub epoch: Epoch,
    /// Everything of this shard up to here is in this batch or was in those before it.
    pub applied: GlobalSeq,
    /// The pages.
    pub pages: Vec<StoredPage>,
}

impl PageBatch {
    /// Whether it may be stored at all; asked by every adapter before anything is written.
    ///
    /// # Errors
    /// [`PagesError::Refused`] names what is wrong.
    pub fn check(&self, shards: Shards) -> Result<(), PagesError> {
        let refused = |why: String| Err(PagesError::Refused(why));
        if self.shard.0 >= shards.count() {
            return refused(format!("there are {} shards, so none has the number {}", shards.count(), self.shard.0));
        }
        if self.pages.len() > BATCH_PAGES_MAX {
            return refused(format!(
                "{} pages are more than {BATCH_PAGES_MAX}; append them in several batches",
                self.pages.len()
            ));
        }
        for page in &self.pages {
            let (id, bytes) = (page.id, page.bytes());
            if shards.of(page.agent) != self.shard {
                return refused(format!("the page {id} is of another shard than {}", self.shard.0));
            }
            if bytes > PAGE_BYTES_MAX {
                return refused(format!(
                    "the page {id} has {bytes} bytes, more than {PAGE_BYTES_MAX}; seal pages earlier"
                ));
            }
            if page.kind == PageKind::Tombstone && page.supersedes.is_none() {
                return refused(format!("the tombstone {id} says of no page that it is gone"));
            }
        }
        Ok(())
    }
}

/// Who asks, and therefore what may be found. Made on the server from what it knows of the caller, never from what the
/// caller says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything of one agent.
    Agent(TenantId, AgentId),
    /// What the agents of one workload share.
    Workload(TenantId, WorkloadId),
    /// What all agents of a tenant share.
    Tenant(TenantId),
}

impl Scope {
    /// Whose data it is.
    pub fn tenant(&self) -> &TenantId {
        let (Self::Agent(tenant, _) | Self::Workload(tenant, _) | Self::Tenant(tenant)) = self;
        tenant
    }

    /// Whether a page may be found (PG-4).
    pub fn admits(&self, page: &StoredPage) -> bool {
        self.admits_of(&page.tenant, page.workload, page.agent, page.reach)
    }

    /// The same of what is no stored page yet.
    pub fn admits_of(&self, tenant: &TenantId, workload: WorkloadId, agent: AgentId, reach: Reach) -> bool {
        tenant == self.tenant()
            && match self {
                Self::Agent(_, only) => agent == *only,
                Self::Workload(_, only) => workload == *only && reach >= Reach::Workload,
                Self::Tenant(_) => reach == Reach::Tenant,
            }
    }
}

/// What is looked for. With words and a vector, what either finds is found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PageQuery {
    /// Words, compared as [`crate::view::words`] are. Any one of them is enough.
    pub words: Option<String>,
    /// A vector; pages without one of the same model are not near it.
    pub near: Option<PageVector>,
    /// The best so many by words, and the best so many by nearness; at most [`ANSWER_PAGES_MAX`].
    pub best: usize,
}

/// A page that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The page.
    pub id: PageId,
    /// Whose it is, which says where to read it.
    pub agent: AgentId,
    /// Where its messages are.
    pub first: Version,
    /// How well it has the words, above 0, if it is among the best by that. Comparable within one answer only.
    pub words: Option<f32>,
    /// The cosine, if it is among the nearest.
    pub cosine: Option<f32>,
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Rows before, with those that nobody can read.
    pub rows_before: usize,
    /// Rows after.
    pub rows_after: usize,
}

/// Why nothing was done, or may have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PagesError {
    /// The shard has another writer by now, or this one never took it over.
    #[error("the shard is written under epoch {current}, not {given}; take it over first")]
    Fenced {
        /// The epoch of the call.
        given: Epoch,
        /// The newest that took it over, 0 for none.
        current: Epoch,
    },
    /// The same call will be refused again.
    #[error("{0}")]
    Refused(String),
    /// The write may have happened: take the shard over again and compare the position that it is applied up to.
    #[error("whether the shard was changed is not known: {0}")]
    Unknown(String),
    /// What is stored is not what was written: drop the shard and write it again from the log.
    #[error("shard {} is damaged ({what}); it must be written again from the log", shard.0)]
    Damaged {
        /// Which one.
        shard: Shard,
        /// What does not match.
        what: String,
    },
    /// The storage does not answer; nothing was changed.
    #[error("the pages cannot be reached: {0}")]
    Unavailable(String),
}

/// What an operation gives in the end.
pub type Done<'a, T> = BoxFuture<'a, Result<T, PagesError>>;

/// Pages, and how they are found. Reads may be dropped at any time; a write that is dropped may have happened.
pub trait PageStore: Send + Sync {
    /// How many shards there are.
    fn shards(&self) -> Shards;

    /// Makes the caller the writer of a shard under an epoch that the log gave it, and says up to which position the shard is
    /// applied. Under the same epoch again it reads anew what is there.
    fn take_over(&self, shard: Shard, epoch: Epoch) -> Done<'_, GlobalSeq>;

    /// Forgets all pages of a shard and makes the caller its writer, whatever state it is in: the way out of
    /// [`PagesError::Damaged`]. The shard is applied up to nothing then, and the log is to be written into it again. Which
    /// agents were deleted is kept.
    fn drop_pages(&self, shard: Shard, epoch: Epoch) -> Done<'_, ()>;

    /// Adds a batch, all of it or none. An empty one moves the position.
    fn append(&self, batch: PageBatch) -> Done<'_, ()>;

    /// Pages of an agent by id, in the order of the ids; those that are not there or not the tenant's are left out.
    fn read(&self, tenant: TenantId, agent: AgentId, ids: Vec<PageId>) -> Done<'_, Vec<StoredPage>>;

    /// Pages of an agent in the order of their first messages, from one position on; at most `pages_max` and
    /// [`ANSWER_PAGES_MAX`]. Ask again from behind the last one for the rest.
    fn scan(&self, tenant: TenantId, agent: AgentId, from: Version, pages_max: usize) -> Done<'_, Vec<StoredPage>>;

    /// The best pages of a scope: first by score of words, then by cosine, then by id.
    fn search(&self, scope: Scope, query: PageQuery) -> Done<'_, Vec<Hit>>;

    /// Deletes for good the pages of an agent that begin at a message or before it; gives how many there were. What begins later
    /// is stored as ever.
    fn delete_agent(&self, epoch: Epoch, tenant: TenantId, agent: AgentId, up_to: Version) -> Done<'_, usize>;

    /// Deletes the pages of all agents of a tenant in one shard for good; gives how many there were.
    fn delete_tenant(&self, shard: Shard, epoch: Epoch, tenant: TenantId) -> Done<'_, usize>;

    /// Drops what nobody can read any more, and makes few large files of many small ones.
    fn compact(&self, shard: Shard, epoch: Epoch) -> Done<'_, Compacted>;
}

/// What a scan must be asked for to go on behind a page: pages do not overlap, but for tombstones and summaries, so several
/// may begin at one message, and all of these are in one answer.
pub fn behind(page: &StoredPage) -> Version {
    page.first.next()
}

/// Puts hits into the order of an answer.
pub fn sort_hits(hits: &mut [Hit]) {
    let key = |score: Option<f32>| score.unwrap_or(f32::NEG_INFINITY);
    hits.sort_by(|a, b| {
        let by_words = key(b.words).total_cmp(&key(a.words));
        by_words.then_with(|| key(b.cosine).total_cmp(&key(a.cosine))).then_with(|| a.id.cmp(&b.id))
    });
}

/// Which of two rows under one id counts (PG-2): the one of the higher epoch. Of the same epoch they are equal, for an id is
/// a hash of the content; but for a vector, which may have come later.
#[must_use]
pub fn counts_more(a: (&StoredPage, Epoch), b: (&StoredPage, Epoch)) -> bool {
    (a.1, a.0.vector.is_some()) > (b.1, b.0.vector.is_some())
}
