//! The port to the two truths: event streams, and one row per agent. Both change in one transaction or not at all.
//!
//! The row is the fence and the directory: an append under an old epoch is refused, whatever its sender believes about
//! leases or clocks. All else that a store keeps (snapshots, read models) is a fold and can be rebuilt.
//!
//! Holds, for every adapter; the contract suite in `nexa-testkit` checks each:
//!   ST-1  a stream's versions are 1..n without gap or duplicate, and its chain verifies
//!   ST-2  an append under another epoch than the row's, or at another version than the stream's, changes nothing
//!   ST-3  all parts of one [`Append`] are stored or none; other appends of the same batch are judged alone
//!   ST-4  an input id enters an agent's inbox at most once, also after it was taken
//!   ST-5  when a call returns `Ok`, a power cut changes nothing about it
//!   ST-6  after a cancel no birth of that workload is accepted, and every append needs the raised epoch
//!   ST-7  the reading order never shows a later fact before an earlier one of the same stream, and skips none

use std::time::Duration;

use futures::future::BoxFuture;
use nexa_event::asks::Asks;
use nexa_event::envelope::{Envelope, Fact, TraceContext};
use nexa_event::fact::{AgentEvent, Input};
use nexa_types::{
    AgentId, AgentState, BlobHash, Epoch, GlobalSeq, InputId, NodeId, PrincipalId, StreamId, TenantId, Timestamp,
    Version, WorkloadId,
};
use tokio::sync::watch;

/// One indivisible change: facts at the end of a stream, and what follows from them elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Append {
    /// The stream that grows.
    pub stream: StreamId,
    /// Who may do it.
    pub guard: Guard,
    /// The stream's version as its writer knows it; 0 for a new stream.
    pub expected: Version,
    /// Goes into every header.
    pub stamp: Stamp,
    /// The facts, in order. May be empty, if only the row changes.
    pub facts: Vec<Fact>,
    /// What the agent's row says afterwards; only with [`Guard::Owner`].
    pub row: Option<RowChange>,
    /// Inbox entries of this agent that the facts account for; they are gone afterwards.
    pub takes: Vec<InputId>,
    /// Entries for the inboxes of other agents. One whose agent has ended is dropped.
    pub posts: Vec<Post>,
    /// Agents that exist afterwards, each with its first fact.
    pub births: Vec<Birth>,
    /// Facts for one more stream without owner, at whatever version it has: a workload's end.
    pub also: Option<(StreamId, Vec<Fact>)>,
}

/// What waits to be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Calls that are not answered yet.
    pub calls: usize,
    /// Their bytes.
    pub bytes: usize,
    /// How long the oldest of them has waited.
    pub oldest: Duration,
}

/// Who may append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// The owner of an agent, by its epoch.
    Owner(Epoch),
    /// Anybody who knows the version: workload and cluster streams.
    Version,
}

/// Where an agent's stream ends, and who may go on with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentHead {
    /// The right to append.
    pub epoch: Epoch,
    /// How many facts it has.
    pub version: Version,
    /// Whether the last of them is its end.
    pub has_ended: bool,
}

impl Guard {
    /// Whether the stream of an agent that stands so grows by an append to this version under this guard. The fence (ST-2):
    /// every adapter asks it within the transaction that stores the append.
    ///
    /// # Errors
    /// [`AppendError::StaleEpoch`] or [`AppendError::VersionConflict`]; then nothing may be stored.
    pub fn admits(self, expected: Version, head: AgentHead) -> Result<(), AppendError> {
        // Nobody may write to an agent's stream without an epoch, so that counts as the lowest one.
        let given = if let Self::Owner(epoch) = self { epoch } else { Epoch(0) };
        if given != head.epoch || self == Self::Version {
            return Err(AppendError::StaleEpoch { given, current: head.epoch });
        }
        if head.has_ended || expected != head.version {
            return Err(AppendError::VersionConflict { given: expected, current: head.version });
        }
        Ok(())
    }
}

/// What goes into the header of every fact of an append.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamp {
    /// When the writer decided it.
    pub at: Timestamp,
    /// Whose data it is.
    pub tenant: TenantId,
    /// On whose behalf.
    pub principal: PrincipalId,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
}

/// The part of an agent's row that its owner writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowChange {
    /// As people see it. A terminal state is final.
    pub state: AgentState,
    /// When the agent must wake up without any input.
    pub due: Option<Timestamp>,
}

/// An entry for an inbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Post {
    /// Whose inbox.
    pub to: AgentId,
    /// Makes it the same entry however often it is posted.
    pub id: InputId,
    /// What it says.
    pub input: Input,
    /// What is being done where it is sent, if that is exported. The agent's next turn is linked to it.
    pub trace: Option<TraceContext>,
}

/// An agent that comes into existence.
#[derive(Debug, Clone, PartialEq)]
pub struct Birth {
    /// Its id.
    pub agent: AgentId,
    /// Its workload.
    pub workload: WorkloadId,
    /// The node that owns it from the start, under epoch 1; `None` leaves it to be placed, under epoch 0.
    pub node: Option<NodeId>,
    /// 0 to 255, higher first.
    pub priority: u8,
    /// Its first fact.
    pub first: Fact,
}

impl Birth {
    /// What it asks of its node, by its first fact: the row has it too.
    #[must_use]
    pub fn asks(&self) -> Option<&Asks> {
        match &self.first {
            Fact::Agent(AgentEvent::Spawned(spawned)) => spawned.asks.as_ref(),
            _ => None,
        }
    }
}

/// What an accepted append made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The stream's version now.
    pub version: Version,
    /// The position of the last fact in the reading order.
    pub position: GlobalSeq,
    /// Of the agents that were posted to, those that belong to another node than the stream's own agent: whom to tell.
    /// Empty for a stream without owner.
    pub elsewhere: Vec<(AgentId, NodeId)>,
}

/// Why an append changed nothing, or may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Another owner, or a cancel, has raised the epoch.
    #[error("the agent's epoch is {current}, not {given}: it has another owner or was cancelled")]
    StaleEpoch {
        /// The epoch of the append.
        given: Epoch,
        /// The epoch of the row.
        current: Epoch,
    },
    /// The stream is not as long as the writer thinks.
    #[error("the stream is at version {current}, not {given}")]
    VersionConflict {
        /// The version of the append.
        given: Version,
        /// The version of the stream.
        current: Version,
    },
    /// The workload was cancelled, so no agent of it may be born.
    #[error("the workload was cancelled")]
    WorkloadCancelled,
    /// There is no such agent.
    #[error("no such agent")]
    NoSuchAgent,
    /// The store failed; see its text for whether anything may have been stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing was stored. It may work later.
    #[error("the store is not available: {detail}")]
    Unavailable {
        /// What the adapter met.
        detail: String,
    },
    /// Nobody knows whether it was stored: read again before anything else.
    #[error("the store did not say whether it stored this: {detail}")]
    Ambiguous {
        /// What the adapter met.
        detail: String,
    },
    /// Nothing was stored, and nothing will be until there is room.
    #[error("the disk is full; free some space, then the node goes on by itself")]
    DiskFull,
    /// What is stored cannot be trusted.
    #[error("stored data is damaged: {detail}")]
    Corrupt {
        /// Where, and how it was noticed.
        detail: String,
    },
    /// More is asked for than the store takes.
    #[error("{what} has {len} bytes, more than the {max} that fit")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The bound in bytes.
        max: usize,
    },
}

/// A fact as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its place in the reading order of this store.
    pub position: GlobalSeq,
    /// The workload that it belongs to, if any.
    pub workload: Option<WorkloadId>,
    /// Header and fact.
    pub envelope: Envelope,
}

/// An agent's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRow {
    /// The agent.
    pub agent: AgentId,
    /// Its workload.
    pub workload: WorkloadId,
    /// Whose it is.
    pub tenant: TenantId,
    /// On whose behalf it runs.
    pub principal: PrincipalId,
    /// Its owner.
    pub node: Option<NodeId>,
    /// The right to append.
    pub epoch: Epoch,
    /// How many facts its stream has.
    pub version: Version,
    /// As people see it.
    pub state: AgentState,
    /// When it must wake up without any input.
    pub due: Option<Timestamp>,
    /// Whether its workload was cancelled.
    pub cancelled: bool,
    /// 0 to 255, higher first.
    pub priority: u8,
    /// What it asks of its node, if anything. Rows from before there was such a thing have none.
    pub asks: Option<Asks>,
}

/// An entry of an inbox.
#[derive(Debug, Clone, PartialEq)]
pub struct InboxEntry {
    /// Its id.
    pub id: InputId,
    /// What it says.
    pub input: Input,
    /// When it was posted.
    pub at: Timestamp,
    /// Who posted it.
    pub principal: PrincipalId,
    /// What was being done where it was sent, if that was exported.
    pub trace: Option<TraceContext>,
}

/// What became of a post by somebody who is not an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    /// It is in the inbox, now or from before.
    Accepted {
        /// Whose agent it is: whom to tell.
        owner: Option<NodeId>,
    },
    /// The agent has ended.
    AgentEnded,
    /// `INBOX_ENTRIES_MAX` entries wait already.
    InboxFull,
    /// There is no such agent.
    NoSuchAgent,
}

/// What became of a cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// These agents have a raised epoch and a cancel in their inbox.
    Accepted {
        /// The agents that had not ended, with their owners: whom to tell.
        agents: Vec<(AgentId, Option<NodeId>)>,
    },
    /// It was cancelled before, and is ending or has ended.
    Already,
    /// It had ended by itself.
    Ended,
    /// There is no such workload.
    NoSuchWorkload,
}

/// A wish to make a node the owner of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The agent.
    pub agent: AgentId,
    /// The epoch that the row must still have.
    pub from: Epoch,
    /// The new owner, under `from + 1`.
    pub node: NodeId,
}

impl Place {
    /// The epoch that an agent has afterwards whose row is under `epoch` and has not ended.
    ///
    /// # Errors
    /// The row's epoch, if it is another than expected; then nothing changes.
    pub fn judge(&self, epoch: Epoch, has_ended: bool) -> Result<Epoch, Epoch> {
        if epoch == self.from && !has_ended { Ok(epoch.next()) } else { Err(epoch) }
    }
}

/// Which rows to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// Of one workload, ended ones too.
    Workload(WorkloadId),
    /// That have not ended, whoever owns them.
    Live,
    /// That have not ended and have no owner.
    Unplaced,
    /// That have not ended and have this owner.
    Of(NodeId),
    /// These, whatever their state.
    Agents(Vec<AgentId>),
    /// That are due at or before this moment and have not ended.
    Due(Timestamp),
}

/// An agent's encoded state, and the version of its stream that it is as of.
pub type Snapshot = (Version, Vec<u8>);

/// Streams, agent rows, inboxes, snapshots and blobs.
///
/// Dropping a future of a writing call leaves open whether it was stored, as [`StoreError::Ambiguous`] does.
pub trait Store: Send + Sync {
    /// Stores appends, each alone in its judgement, together in their commit. One answer an append, in order.
    fn append(&self, batch: Vec<Append>) -> BoxFuture<'_, Vec<Result<Appended, AppendError>>>;

    /// Puts an entry into an agent's inbox on behalf of somebody who is not an owner.
    fn post(&self, post: Post, stamp: Stamp) -> BoxFuture<'_, Result<Posted, StoreError>>;

    /// In one transaction: records the wish in the workload's stream, raises the epoch of every agent of it that has
    /// not ended, sets its cancelled flag, and puts a cancel into its inbox.
    fn cancel(
        &self,
        workload: WorkloadId,
        reason: String,
        stamp: Stamp,
    ) -> BoxFuture<'_, Result<Cancelled, StoreError>>;

    /// Changes owners. One answer a wish: the new epoch, or the row's epoch if it is another than expected.
    fn place(&self, wishes: Vec<Place>) -> BoxFuture<'_, Result<Vec<Result<Epoch, Epoch>>, StoreError>>;

    /// An agent's row. Linearizable.
    fn row(&self, agent: AgentId) -> BoxFuture<'_, Result<Option<AgentRow>, StoreError>>;

    /// Rows after `after` by agent id, at most `limit`.
    fn rows(
        &self,
        which: Rows,
        after: Option<AgentId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<AgentRow>, StoreError>>;

    /// The oldest entries of an agent's inbox, at most `limit`.
    fn inbox(&self, agent: AgentId, limit: usize) -> BoxFuture<'_, Result<Vec<InboxEntry>, StoreError>>;

    /// One entry of an agent's inbox by its id; `None` if it never came or was taken. Linearizable.
    fn entry(&self, agent: AgentId, id: InputId) -> BoxFuture<'_, Result<Option<InboxEntry>, StoreError>> {
        Box::pin(async move { Ok(self.inbox(agent, usize::MAX).await?.into_iter().find(|entry| entry.id == id)) })
    }

    /// Facts of one stream after version `after`, at most `limit`, with the chain checked. Linearizable.
    fn read(&self, stream: StreamId, after: Version, limit: usize) -> BoxFuture<'_, Result<Vec<Recorded>, StoreError>>;

    /// Facts of all streams, or of one workload and its agents, after a position, at most `limit`.
    fn scan(
        &self,
        workload: Option<WorkloadId>,
        after: GlobalSeq,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Recorded>, StoreError>>;

    /// Tells the position of the newest fact whenever it changes. A hint: what is there is what `scan` returns.
    fn head(&self) -> watch::Receiver<GlobalSeq>;

    /// Keeps a snapshot of an agent as of a version, in place of an older one.
    fn put_snapshot(&self, agent: AgentId, version: Version, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The newest snapshot of an agent.
    fn snapshot(&self, agent: AgentId) -> BoxFuture<'_, Result<Option<Snapshot>, StoreError>>;

    /// Keeps bytes under the tenant and their hash. Idempotent.
    fn put_blob(&self, tenant: TenantId, bytes: Vec<u8>) -> BoxFuture<'_, Result<BlobHash, StoreError>>;

    /// Bytes by tenant and hash, checked against the hash.
    fn blob(&self, tenant: TenantId, hash: BlobHash) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>>;

    /// What waits to be written, for whoever brings more. Cheap; its numbers need not be of one moment. A store that
    /// writes while it is asked has nothing waiting.
    fn backlog(&self) -> Backlog {
        Backlog::default()
    }
}
