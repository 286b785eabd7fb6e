//! The in-memory twin of a store: what every adapter must do, written as plainly as possible.
//!
//! It is the model that adapters are tested against, and the store of tests that are about something else. Each
//! writing call first judges everything and then changes everything, under one lock, so that a refused call has
//! touched nothing.
//!
//! Decided here where the port leaves room, and the same in every adapter:
//!   - an append to an agent that has ended is refused as [`AppendError::VersionConflict`], whatever its version;
//!     so is one to a workload that has ended, and a birth of an agent that exists
//!   - an append without facts answers with the position of the newest fact of the store
//!   - taking an input that never arrived leaves its mark, so that it cannot arrive later
//!   - a post within an append to an agent that has ended, or that nobody knows, is dropped
//!   - posts within an append do not count against `INBOX_ENTRIES_MAX`; posts from outside do
//!   - a cancel that already waits in an inbox gets the raised epoch; one that was taken stays taken
//!   - births are accepted also after their workload ended by itself: its end reaches those below from parent to child,
//!     and whoever it has not reached yet may bear children, which it tells in its turn
//!   - placing an agent that has ended changes nothing; placing one that was ready makes it placed

mod leadership;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};

use futures::future::BoxFuture;
use nexa_event::codec;
use nexa_event::envelope::{Envelope, FORMAT, Fact, Header};
use nexa_event::fact::{Input, WorkloadEvent};
use nexa_types::limits::{INBOX_ENTRIES_MAX, SNAPSHOT_BYTES_MAX};
use nexa_types::{
    AgentId, AgentState, BlobHash, Epoch, GlobalSeq, InputId, NodeId, StreamId, TenantId, Version, WorkloadId,
};
use tokio::sync::watch;

use crate::store::{
    AgentHead, AgentRow, Append, AppendError, Appended, Birth, Cancelled, Guard, InboxEntry, Place, Post, Posted,
    Recorded, Rows, Stamp, Store, StoreError,
};

/// A store that forgets everything when it is dropped.
pub struct MemoryStore {
    kept: Mutex<Kept>,
    head: watch::Sender<GlobalSeq>,
}

#[derive(Default)]
struct Kept {
    log: Vec<Recorded>,
    streams: BTreeMap<StreamId, Vec<usize>>,
    workloads: BTreeMap<WorkloadId, Flags>,
    agents: BTreeMap<AgentId, AgentRow>,
    inboxes: BTreeMap<AgentId, Vec<Slot>>,
    snapshots: BTreeMap<AgentId, (Version, Vec<u8>)>,
    blobs: BTreeMap<(TenantId, BlobHash), Vec<u8>>,
    led: leadership::Led,
    fault: Option<Fault>,
}

#[derive(Default, Clone, Copy)]
struct Flags {
    cancelled: bool,
    ended: bool,
}

/// A place in an inbox. Its id stays when the entry is taken, so that the same entry cannot come twice.
struct Slot {
    id: InputId,
    entry: Option<InboxEntry>,
}

enum Fault {
    Refuse(StoreError),
    LoseAnswer,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "MemoryStore({} facts)", self.lock().log.len())
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self { kept: Mutex::default(), head: watch::Sender::new(GlobalSeq(0)) }
    }

    /// Makes the next writing call fail with this error and store nothing.
    pub fn fail_next(&self, error: StoreError) {
        self.lock().fault = Some(Fault::Refuse(error));
    }

    /// Makes the next writing call store what it should and answer [`StoreError::Ambiguous`] all the same.
    pub fn lose_next_answer(&self) {
        self.lock().fault = Some(Fault::LoseAnswer);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no holder of this lock can panic")
    }

    /// Runs a writing call, or the fault that was ordered for it.
    fn write<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> Result<T, StoreError> {
        let mut kept = self.lock();
        let lost = match kept.fault.take() {
            Some(Fault::Refuse(error)) => return Err(error),
            Some(Fault::LoseAnswer) => true,
            None => false,
        };
        let answer = change(&mut kept);
        let newest = kept.newest();
        drop(kept);
        self.head.send_if_modified(|head| std::mem::replace(head, newest) != newest);
        if lost {
            return Err(StoreError::Ambiguous { detail: "a test made the answer get lost".into() });
        }
        Ok(answer)
    }
}

impl Kept {
    fn newest(&self) -> GlobalSeq {
        GlobalSeq(self.log.len() as u64)
    }

    fn version(&self, stream: &StreamId) -> Version {
        Version(self.streams.get(stream).map_or(0, |facts| facts.len() as u64))
    }

    fn flags(&self, workload: WorkloadId) -> Flags {
        self.workloads.get(&workload).copied().unwrap_or_default()
    }

    fn workload_of(&self, stream: &StreamId) -> Option<WorkloadId> {
        match stream {
            StreamId::Agent(agent) => self.agents.get(agent).map(|row| row.workload),
            StreamId::Workload(workload) => Some(*workload),
            StreamId::Cluster(_) => None,
        }
    }

    fn append(&mut self, append: &Append) -> Result<Appended, AppendError> {
        self.judge(append)?;
        let epoch = match append.guard {
            Guard::Owner(epoch) => Some(epoch),
            Guard::Version => None,
        };
        self.push(&append.stream, epoch, &append.stamp, &append.facts);
        if let StreamId::Agent(agent) = append.stream {
            self.change_row(agent, append);
        }
        for birth in &append.births {
            self.bear(birth, &append.stamp);
        }
        let mut elsewhere = Vec::new();
        for post in &append.posts {
            let Some(row) = self.agents.get(&post.to).filter(|row| !row.state.is_terminal()) else { continue };
            elsewhere.extend(self.elsewhere(&append.stream, row));
            if !self.knows_input(post.to, post.id) {
                self.put_entry(post, &append.stamp);
            }
        }
        if let Some((stream, facts)) = &append.also {
            self.push(stream, None, &append.stamp, facts);
        }
        Ok(Appended { version: self.version(&append.stream), position: self.newest(), elsewhere })
    }

    /// An agent that was posted to, if it belongs to another node than the agent whose stream grows.
    fn elsewhere(&self, stream: &StreamId, to: &AgentRow) -> Option<(AgentId, NodeId)> {
        let StreamId::Agent(from) = stream else { return None };
        let here = self.agents.get(from)?.node.as_ref();
        let there = to.node.clone().filter(|there| Some(there) != here)?;
        Some((to.agent, there))
    }

    /// Says whether the append may be stored, and changes nothing.
    fn judge(&self, append: &Append) -> Result<(), AppendError> {
        let current = self.version(&append.stream);
        let conflict = AppendError::VersionConflict { given: append.expected, current };
        match (&append.stream, append.guard) {
            (StreamId::Agent(agent), guard) => {
                let row = self.agents.get(agent).ok_or(AppendError::NoSuchAgent)?;
                let head = AgentHead { epoch: row.epoch, version: current, has_ended: row.state.is_terminal() };
                guard.admits(append.expected, head)?;
            }
            (_, Guard::Owner(_)) => return Err(AppendError::NoSuchAgent),
            (_, Guard::Version) if append.row.is_some() || !append.takes.is_empty() => {
                return Err(AppendError::NoSuchAgent);
            }
            (StreamId::Workload(workload), Guard::Version) if self.flags(*workload).ended => return Err(conflict),
            (_, Guard::Version) => {}
        }
        if append.expected != current {
            return Err(conflict);
        }
        for (index, birth) in append.births.iter().enumerate() {
            if self.flags(birth.workload).cancelled {
                return Err(AppendError::WorkloadCancelled);
            }
            let twin = append.births[..index].iter().any(|other| other.agent == birth.agent);
            let current = if twin { Version(1) } else { self.version(&StreamId::Agent(birth.agent)) };
            if current != Version(0) {
                return Err(AppendError::VersionConflict { given: Version(0), current });
            }
        }
        if let Some((stream, _)) = &append.also {
            let current = self.version(stream);
            match stream {
                StreamId::Agent(_) => return Err(AppendError::NoSuchAgent),
                StreamId::Workload(workload) if self.flags(*workload).ended => {
                    return Err(AppendError::VersionConflict { given: current, current });
                }
                StreamId::Workload(_) | StreamId::Cluster(_) => {}
            }
        }
        let also = append.also.iter().flat_map(|(_, facts)| facts);
        for fact in append.facts.iter().chain(append.births.iter().map(|birth| &birth.first)).chain(also) {
            bound("a fact", codec::encode(fact).len())?;
        }
        append.posts.iter().try_for_each(|post| bound("an input", codec::encode(&post.input).len()))?;
        Ok(())
    }

    fn push(&mut self, stream: &StreamId, epoch: Option<Epoch>, stamp: &Stamp, facts: &[Fact]) {
        let workload = self.workload_of(stream);
        for fact in facts {
            let header = Header {
                format: FORMAT,
                stream: stream.clone(),
                version: self.version(stream).next(),
                at: stamp.at,
                tenant: stamp.tenant.clone(),
                principal: stamp.principal.clone(),
                epoch,
                trace: stamp.trace,
            };
            self.streams.entry(stream.clone()).or_default().push(self.log.len());
            let envelope = Envelope { header, fact: fact.clone() };
            self.log.push(Recorded { position: self.newest().next(), workload, envelope });
            if let (StreamId::Workload(workload), Fact::Workload(WorkloadEvent::Ended { .. })) = (stream, fact) {
                self.workloads.entry(*workload).or_default().ended = true;
            }
        }
    }

    fn change_row(&mut self, agent: AgentId, append: &Append) {
        let version = self.version(&append.stream);
        if let Some(row) = self.agents.get_mut(&agent) {
            row.version = version;
            if let Some(change) = append.row {
                row.state = change.state;
                row.due = change.due;
            }
        }
        let slots = self.inboxes.entry(agent).or_default();
        for id in &append.takes {
            match slots.iter_mut().find(|slot| slot.id == *id) {
                Some(slot) => slot.entry = None,
                None => slots.push(Slot { id: *id, entry: None }),
            }
        }
    }

    fn bear(&mut self, birth: &Birth, stamp: &Stamp) {
        let placed = birth.node.is_some();
        let epoch = Epoch(u64::from(placed));
        let row = AgentRow {
            agent: birth.agent,
            workload: birth.workload,
            tenant: stamp.tenant.clone(),
            principal: stamp.principal.clone(),
            node: birth.node.clone(),
            epoch,
            version: Version(1),
            state: if placed { AgentState::Placed } else { AgentState::Ready },
            due: None,
            cancelled: false,
            priority: birth.priority,
            asks: birth.asks().cloned(),
        };
        self.agents.insert(birth.agent, row);
        self.push(&StreamId::Agent(birth.agent), Some(epoch), stamp, std::slice::from_ref(&birth.first));
    }

    fn knows_input(&self, agent: AgentId, id: InputId) -> bool {
        self.inboxes.get(&agent).is_some_and(|slots| slots.iter().any(|slot| slot.id == id))
    }

    fn put_entry(&mut self, post: &Post, stamp: &Stamp) {
        let Post { id, input, trace, .. } = post.clone();
        let entry = InboxEntry { id, input, at: stamp.at, principal: stamp.principal.clone(), trace };
        self.inboxes.entry(post.to).or_default().push(Slot { id: post.id, entry: Some(entry) });
    }

    fn waiting(&self, agent: AgentId) -> impl Iterator<Item = &InboxEntry> {
        self.inboxes.get(&agent).into_iter().flatten().filter_map(|slot| slot.entry.as_ref())
    }

    fn post(&mut self, post: &Post, stamp: &Stamp) -> Posted {
        let Some(row) = self.agents.get(&post.to) else { return Posted::NoSuchAgent };
        let accepted = Posted::Accepted { owner: row.node.clone() };
        if self.knows_input(post.to, post.id) {
            return accepted;
        }
        if row.state.is_terminal() {
            return Posted::AgentEnded;
        }
        if self.waiting(post.to).count() >= INBOX_ENTRIES_MAX {
            return Posted::InboxFull;
        }
        self.put_entry(post, stamp);
        accepted
    }

    fn cancel(&mut self, workload: WorkloadId, reason: &str, stamp: &Stamp) -> Cancelled {
        let stream = StreamId::Workload(workload);
        if self.version(&stream) == Version(0) {
            return Cancelled::NoSuchWorkload;
        }
        match self.flags(workload) {
            Flags { cancelled: true, .. } => return Cancelled::Already,
            Flags { ended: true, .. } => return Cancelled::Ended,
            Flags { .. } => {}
        }
        let wish = Fact::Workload(WorkloadEvent::CancelRequested { reason: reason.to_owned() });
        self.push(&stream, None, stamp, &[wish]);
        self.workloads.entry(workload).or_default().cancelled = true;

        let mut raised = Vec::new();
        for row in self.agents.values_mut().filter(|row| row.workload == workload && !row.state.is_terminal()) {
            row.epoch = row.epoch.next();
            row.cancelled = true;
            raised.push((row.agent, row.epoch, row.node.clone()));
        }
        for (agent, epoch, _) in &raised {
            let id = InputId::cancel(*agent);
            let input = Input::Cancel { reason: reason.to_owned(), epoch: *epoch };
            let slots = self.inboxes.entry(*agent).or_default();
            match slots.iter_mut().find(|slot| slot.id == id) {
                Some(Slot { entry: Some(entry), .. }) => (entry.input, entry.trace) = (input, stamp.trace),
                Some(Slot { entry: None, .. }) => {}
                None => self.put_entry(&Post { to: *agent, id, input, trace: stamp.trace }, stamp),
            }
        }
        Cancelled::Accepted { agents: raised.into_iter().map(|(agent, _, owner)| (agent, owner)).collect() }
    }

    fn place(&mut self, wish: &Place) -> Result<Epoch, Epoch> {
        let row = self.agents.get_mut(&wish.agent).ok_or(Epoch(0))?;
        row.epoch = wish.judge(row.epoch, row.state.is_terminal())?;
        row.node = Some(wish.node.clone());
        if row.state == AgentState::Ready {
            row.state = AgentState::Placed;
        }
        Ok(row.epoch)
    }
}

fn bound(what: &'static str, len: usize) -> Result<(), StoreError> {
    if len > SNAPSHOT_BYTES_MAX {
        return Err(StoreError::TooLarge { what, len, max: SNAPSHOT_BYTES_MAX });
    }
    Ok(())
}

impl Store for MemoryStore {
    fn append(&self, batch: Vec<Append>) -> BoxFuture<'_, Vec<Result<Appended, AppendError>>> {
        Box::pin(async move {
            self.write(|kept| batch.iter().map(|append| kept.append(append)).collect())
                .unwrap_or_else(|error| batch.iter().map(|_| Err(error.clone().into())).collect())
        })
    }

    fn post(&self, post: Post, stamp: Stamp) -> BoxFuture<'_, Result<Posted, StoreError>> {
        Box::pin(async move {
            bound("an input", codec::encode(&post.input).len())?;
            self.write(|kept| kept.post(&post, &stamp))
        })
    }

    fn cancel(
        &self,
        workload: WorkloadId,
        reason: String,
        stamp: Stamp,
    ) -> BoxFuture<'_, Result<Cancelled, StoreError>> {
        Box::pin(async move { self.write(|kept| kept.cancel(workload, &reason, &stamp)) })
    }

    fn place(&self, wishes: Vec<Place>) -> BoxFuture<'_, Result<Vec<Result<Epoch, Epoch>>, StoreError>> {
        Box::pin(async move { self.write(|kept| wishes.iter().map(|wish| kept.place(wish)).collect()) })
    }

    fn row(&self, agent: AgentId) -> BoxFuture<'_, Result<Option<AgentRow>, StoreError>> {
        Box::pin(async move { Ok(self.lock().agents.get(&agent).cloned()) })
    }

    fn rows(
        &self,
        which: Rows,
        after: Option<AgentId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<AgentRow>, StoreError>> {
        Box::pin(async move {
            let wanted = |row: &&AgentRow| {
                let live = !row.state.is_terminal();
                after.is_none_or(|after| row.agent > after)
                    && match &which {
                        Rows::Workload(workload) => row.workload == *workload,
                        Rows::Live => live,
                        Rows::Unplaced => live && row.node.is_none(),
                        Rows::Of(node) => live && row.node.as_ref() == Some(node),
                        Rows::Agents(agents) => agents.contains(&row.agent),
                        Rows::Due(now) => live && row.due.is_some_and(|due| due <= *now),
                    }
            };
            Ok(self.lock().agents.values().filter(wanted).take(limit).cloned().collect())
        })
    }

    fn inbox(&self, agent: AgentId, limit: usize) -> BoxFuture<'_, Result<Vec<InboxEntry>, StoreError>> {
        Box::pin(async move { Ok(self.lock().waiting(agent).take(limit).cloned().collect()) })
    }

    fn entry(&self, agent: AgentId, id: InputId) -> BoxFuture<'_, Result<Option<InboxEntry>, StoreError>> {
        Box::pin(async move { Ok(self.lock().waiting(agent).find(|entry| entry.id == id).cloned()) })
    }

    fn read(&self, stream: StreamId, after: Version, limit: usize) -> BoxFuture<'_, Result<Vec<Recorded>, StoreError>> {
        Box::pin(async move {
            let kept = self.lock();
            let facts = kept.streams.get(&stream).map_or(&[][..], Vec::as_slice);
            let later = facts.iter().skip(usize::try_from(after.0).unwrap_or(usize::MAX)).take(limit);
            Ok(later.map(|index| kept.log[*index].clone()).collect())
        })
    }

    fn scan(
        &self,
        workload: Option<WorkloadId>,
        after: GlobalSeq,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Recorded>, StoreError>> {
        Box::pin(async move {
            let kept = self.lock();
            let wanted = |fact: &&Recorded| workload.is_none() || fact.workload == workload;
            let later = kept.log.iter().skip(usize::try_from(after.0).unwrap_or(usize::MAX));
            Ok(later.filter(wanted).take(limit).cloned().collect())
        })
    }

    fn head(&self) -> watch::Receiver<GlobalSeq> {
        self.head.subscribe()
    }

    fn put_snapshot(&self, agent: AgentId, version: Version, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            bound("a snapshot", bytes.len())?;
            self.write(|kept| {
                let newest = kept.snapshots.get(&agent).map(|(version, _)| *version);
                if newest.is_none_or(|newest| newest <= version) {
                    kept.snapshots.insert(agent, (version, bytes));
                }
            })
        })
    }

    fn snapshot(&self, agent: AgentId) -> BoxFuture<'_, Result<Option<(Version, Vec<u8>)>, StoreError>> {
        Box::pin(async move { Ok(self.lock().snapshots.get(&agent).cloned()) })
    }

    fn put_blob(&self, tenant: TenantId, bytes: Vec<u8>) -> BoxFuture<'_, Result<BlobHash, StoreError>> {
        Box::pin(async move {
            bound("a blob", bytes.len())?;
            let hash = BlobHash::from_bytes(*blake3::hash(&bytes).as_bytes());
            self.write(|kept| kept.blobs.insert((tenant, hash), bytes))?;
            Ok(hash)
        })
    }

    fn blob(&self, tenant: TenantId, hash: BlobHash) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        Box::pin(async move { Ok(self.lock().blobs.get(&(tenant, hash)).cloned()) })
    }
}
