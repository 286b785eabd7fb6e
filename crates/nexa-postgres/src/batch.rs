//! Judges the appends of a batch in memory, by the rows that were read for them, and gathers what they change.
//!
//! In:  the rows of every agent and stream that the appends name ([`Wanted`]), then append after append.
//! Out: an answer each, and the [`Changes`] of all that were accepted, with the rows that the judgement rests on.
//!
//! Nothing is locked meanwhile: the server compares those rows again, under its locks, and stores all or nothing. Each rule is
//! told in `nexa_ports::memory`, which does the same. An append sees what those before it in the batch have changed.

use std::collections::{BTreeMap, BTreeSet};

use nexa_event::codec;
use nexa_event::envelope::{Fact, Header, Link, chain};
use nexa_event::fact::WorkloadEvent;
use nexa_event::inbox;
use nexa_ports::store::{AgentHead, Append, AppendError, Birth, Guard, Stamp, StoreError};
use nexa_types::limits::{INLINE_BYTES_MAX, SNAPSHOT_BYTES_MAX};
use nexa_types::{AgentId, AgentState, Epoch, InputId, NodeId, StreamId, Timestamp, Version, WorkloadId};

use crate::row::{Body, Event};

/// A fact as it is stored.
pub(crate) struct Written {
    payload: Vec<u8>,
    ends_workload: bool,
    /// In which its bytes are.
    format: u16,
}

impl Written {
    fn of(fact: &Fact, format: u16) -> Self {
        let ends_workload = matches!(fact, Fact::Workload(WorkloadEvent::Ended { .. }));
        Self { payload: codec::encode(fact), ends_workload, format }
    }
}

/// An append whose facts and posts are encoded, by its caller.
pub(crate) struct Ready {
    append: Append,
    facts: Vec<Written>,
    also: Vec<Written>,
    births: Vec<Written>,
    posts: Vec<Vec<u8>>,
}

impl Ready {
    pub(crate) fn new(append: Append, format: u16) -> Self {
        let written = |fact: &Fact| Written::of(fact, format);
        let also = append.also.iter().flat_map(|(_, facts)| facts);
        Self {
            facts: append.facts.iter().map(written).collect(),
            also: also.map(written).collect(),
            births: append.births.iter().map(|birth| written(&birth.first)).collect(),
            posts: append.posts.iter().map(|post| inbox::encode(&post.input, post.trace.as_ref())).collect(),
            append,
        }
    }

    /// The stream that grows.
    pub(crate) fn stream(&self) -> &StreamId {
        &self.append.stream
    }

    fn written(&self) -> impl Iterator<Item = &Written> {
        self.facts.iter().chain(&self.births).chain(&self.also)
    }

    /// Bytes of all that is encoded.
    pub(crate) fn bytes(&self) -> usize {
        let posts: usize = self.posts.iter().map(Vec::len).sum();
        self.written().map(|fact| fact.payload.len()).sum::<usize>() + posts
    }

    fn fits(&self) -> Result<(), StoreError> {
        self.written().try_for_each(|fact| bound("a fact", fact.payload.len()))?;
        self.posts.iter().try_for_each(|body| bound("an input", body.len()))
    }
}

/// Refuses what has more bytes than anything stored may have.
pub(crate) fn bound(what: &'static str, len: usize) -> Result<(), StoreError> {
    if len > SNAPSHOT_BYTES_MAX {
        return Err(StoreError::TooLarge { what, len, max: SNAPSHOT_BYTES_MAX });
    }
    Ok(())
}

/// Whose rows a batch needs.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) agents: BTreeSet<AgentId>,
    pub(crate) streams: BTreeSet<Vec<u8>>,
    /// Of these agents, those that somebody bears: they have no row, unless it was done before.
    pub(crate) born: BTreeSet<AgentId>,
    /// Of these streams, those that somebody begins: the same.
    pub(crate) begun: BTreeSet<Vec<u8>>,
}

impl Wanted {
    /// What judging an append looks at.
    pub(crate) fn add(&mut self, ready: &Ready) {
        let append = &ready.append;
        for stream in [Some(&append.stream), append.also.as_ref().map(|(stream, _)| stream)].into_iter().flatten() {
            match stream {
                StreamId::Agent(agent) => drop(self.agents.insert(*agent)),
                stream => drop(self.streams.insert(stream.key())),
            }
        }
        if append.guard == Guard::Version && append.expected == Version(0) {
            self.begun.insert(append.stream.key());
        }
        for birth in &append.births {
            self.agents.insert(birth.agent);
            self.born.insert(birth.agent);
            self.streams.insert(StreamId::Workload(birth.workload).key());
        }
        self.agents.extend(append.posts.iter().map(|post| post.to));
    }
}

/// An agent's row, as it was read and as the batch leaves it.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    pub(crate) version: u64,
    pub(crate) link: Link,
    pub(crate) workload: WorkloadId,
    pub(crate) epoch: Epoch,
    pub(crate) ended: bool,
    pub(crate) node: Option<NodeId>,
    /// The version that was read; `None` if the agent is born in this batch.
    pub(crate) read: Option<u64>,
    /// Whether an accepted append rests on this row.
    pub(crate) relied: bool,
    /// What the row says of state and due time, if that changes.
    pub(crate) told: Option<(AgentState, Option<Timestamp>)>,
    /// The birth, if it is in this batch.
    pub(crate) born: Option<Born>,
}

/// The columns that a birth sets.
#[derive(Debug, Clone)]
pub(crate) struct Born {
    pub(crate) stamp: Stamp,
    pub(crate) priority: u8,
    /// What it asks of its node, encoded.
    pub(crate) asks: Option<Vec<u8>>,
}

/// A stream without owner, as it was read and as the batch leaves it.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) version: u64,
    pub(crate) link: Link,
    pub(crate) cancelled: bool,
    pub(crate) ended: bool,
    /// Version, and whether it had ended, when it was read.
    pub(crate) read: (u64, bool),
    /// Whether an accepted append rests on this row.
    pub(crate) relied: bool,
}

impl Default for Stream {
    fn default() -> Self {
        Self { version: 0, link: Link::START, cancelled: false, ended: false, read: (0, false), relied: false }
    }
}

/// An entry on its way into an inbox.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) agent: AgentId,
    /// The batch itself knows that the agent lives; of others the server looks again.
    pub(crate) sure: bool,
    pub(crate) input: InputId,
    pub(crate) body: Vec<u8>,
    pub(crate) stamp: Stamp,
}

/// What an accepted append is told, once the batch has its place in the reading order.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) version: Version,
    /// Facts of the batch up to its last one.
    pub(crate) facts: u64,
    /// The owner of the stream's agent, and those agents that were posted to; `None` for a stream without owner.
    pub(crate) posted: Option<(Option<NodeId>, Vec<AgentId>)>,
}

/// A batch that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) agents: BTreeMap<AgentId, Agent>,
    pub(crate) streams: BTreeMap<Vec<u8>, Stream>,
    pub(crate) events: Vec<Event>,
    /// Facts of all those rows.
    pub(crate) facts: u64,
    pub(crate) posts: Vec<Entry>,
    pub(crate) takes: BTreeMap<(AgentId, InputId), Stamp>,
    /// Agents outside of this batch that are posted to.
    pub(crate) targets: BTreeSet<AgentId>,
}

impl Batch {
    /// Judges one append and takes its changes in, or says why not and leaves nothing of it.
    pub(crate) fn append(&mut self, ready: &Ready) -> Result<Accepted, AppendError> {
        self.judge(&ready.append)?;
        ready.fits()?;
        Ok(self.change(ready))
    }

    /// Whether anything is to be stored.
    pub(crate) fn is_empty(&self) -> bool {
        !self.agents.values().any(|agent| agent.relied) && !self.streams.values().any(|stream| stream.relied)
    }

    fn stream(&self, stream: &StreamId) -> Stream {
        self.streams.get(&stream.key()).cloned().unwrap_or_default()
    }

    /// Says whether the append may be stored, and changes nothing.
    fn judge(&self, append: &Append) -> Result<(), AppendError> {
        let conflict = |current| AppendError::VersionConflict { given: append.expected, current: Version(current) };
        let version = match (&append.stream, append.guard) {
            (StreamId::Agent(agent), guard) => {
                let row = self.agents.get(agent).ok_or(AppendError::NoSuchAgent)?;
                let head = AgentHead { epoch: row.epoch, version: Version(row.version), has_ended: row.ended };
                guard.admits(append.expected, head)?;
                row.version
            }
            (_, Guard::Owner(_)) => return Err(AppendError::NoSuchAgent),
            (_, Guard::Version) if append.row.is_some() || !append.takes.is_empty() => {
                return Err(AppendError::NoSuchAgent);
            }
            (stream, Guard::Version) => {
                let found = self.stream(stream);
                if found.ended {
                    return Err(conflict(found.version));
                }
                found.version
            }
        };
        if append.expected != Version(version) {
            return Err(conflict(version));
        }
        self.judge_births(&append.births)?;
        match &append.also {
            None => Ok(()),
            Some((StreamId::Agent(_), _)) => Err(AppendError::NoSuchAgent),
            Some((stream, _)) => match self.stream(stream) {
                Stream { ended: true, version, .. } => {
                    Err(AppendError::VersionConflict { given: Version(version), current: Version(version) })
                }
                Stream { .. } => Ok(()),
            },
        }
    }

    fn judge_births(&self, births: &[Birth]) -> Result<(), AppendError> {
        let mut seen = BTreeSet::new();
        for birth in births {
            if self.stream(&StreamId::Workload(birth.workload)).cancelled {
                return Err(AppendError::WorkloadCancelled);
            }
            let current = match self.agents.get(&birth.agent) {
                Some(row) => row.version,
                None => u64::from(!seen.insert(birth.agent)),
            };
            if current != 0 {
                return Err(AppendError::VersionConflict { given: Version(0), current: Version(current) });
            }
        }
        Ok(())
    }

    fn change(&mut self, ready: &Ready) -> Accepted {
        let append = &ready.append;
        let version = match (&append.stream, append.guard) {
            (StreamId::Agent(agent), Guard::Owner(epoch)) => {
                self.push_owned(*agent, epoch, &append.stamp, &ready.facts);
                self.change_row(*agent, append);
                self.agents.get(agent).map_or(0, |row| row.version)
            }
            (stream, _) => self.push_unowned(stream, &append.stamp, &ready.facts),
        };
        for (birth, first) in append.births.iter().zip(&ready.births) {
            self.bear(birth, first, &append.stamp);
        }
        let posted = self.post(ready);
        let grown =
            append.also.as_ref().map(|(stream, _)| (stream, self.push_unowned(stream, &append.stamp, &ready.also)));
        let version = match grown {
            Some((stream, version)) if *stream == append.stream => version,
            _ => version,
        };
        let from = match &append.stream {
            StreamId::Agent(agent) => self.agents.get(agent).map(|row| row.node.clone()),
            _ => None,
        };
        Accepted { version: Version(version), facts: self.facts, posted: from.map(|node| (node, posted)) }
    }

    /// Those of the append's posts that reach somebody, so far as is known here.
    fn post(&mut self, ready: &Ready) -> Vec<AgentId> {
        let mut reached = Vec::new();
        for (post, body) in ready.append.posts.iter().zip(&ready.posts) {
            let Some(row) = self.agents.get(&post.to).filter(|row| !row.ended) else { continue };
            let sure = row.relied || row.read.is_none();
            if !sure {
                self.targets.insert(post.to);
            }
            reached.push(post.to);
            let stamp = ready.append.stamp.clone();
            self.posts.push(Entry { agent: post.to, sure, input: post.id, body: body.clone(), stamp });
        }
        reached
    }

    fn push_owned(&mut self, agent: AgentId, epoch: Epoch, stamp: &Stamp, facts: &[Written]) {
        let Some(row) = self.agents.get_mut(&agent) else { return };
        row.relied = true;
        let mut header = header(StreamId::Agent(agent), Some(epoch), stamp);
        header.version = Version(row.version);
        let workload = Some(row.workload);
        row.version += facts.len() as u64;
        pack(&mut self.events, &mut header, &mut row.link, workload, facts);
        self.facts += facts.len() as u64;
    }

    /// Adds facts to a stream without owner; its version then.
    fn push_unowned(&mut self, stream: &StreamId, stamp: &Stamp, facts: &[Written]) -> u64 {
        let row = self.streams.entry(stream.key()).or_default();
        row.relied = true;
        let workload = if let StreamId::Workload(workload) = stream { Some(*workload) } else { None };
        row.ended |= workload.is_some() && facts.iter().any(|fact| fact.ends_workload);
        let mut header = header(stream.clone(), None, stamp);
        header.version = Version(row.version);
        row.version += facts.len() as u64;
        pack(&mut self.events, &mut header, &mut row.link, workload, facts);
        self.facts += facts.len() as u64;
        row.version
    }

    fn change_row(&mut self, agent: AgentId, append: &Append) {
        if let (Some(change), Some(row)) = (append.row, self.agents.get_mut(&agent)) {
            row.told = Some((change.state, change.due));
            row.ended = change.state.is_terminal();
        }
        for id in &append.takes {
            self.takes.entry((agent, *id)).or_insert_with(|| append.stamp.clone());
        }
    }

    fn bear(&mut self, birth: &Birth, first: &Written, stamp: &Stamp) {
        let (epoch, state) = match birth.node {
            Some(_) => (Epoch(1), AgentState::Placed),
            None => (Epoch(0), AgentState::Ready),
        };
        self.streams.entry(StreamId::Workload(birth.workload).key()).or_default().relied = true;
        let row = Agent {
            version: 0,
            link: Link::START,
            workload: birth.workload,
            epoch,
            ended: false,
            node: birth.node.clone(),
            read: None,
            relied: true,
            told: Some((state, None)),
            born: Some(Born { stamp: stamp.clone(), priority: birth.priority, asks: birth.asks().map(codec::encode) }),
        };
        self.agents.insert(birth.agent, row);
        self.push_owned(birth.agent, epoch, stamp, std::slice::from_ref(first));
    }
}

fn header(stream: StreamId, epoch: Option<Epoch>, stamp: &Stamp) -> Header {
    Header {
        // Each fact says its own.
        format: 0,
        stream,
        version: Version(0),
        at: stamp.at,
        tenant: stamp.tenant.clone(),
        principal: stamp.principal.clone(),
        epoch,
        trace: stamp.trace,
    }
}

/// The rows of facts that follow one another in a stream, from the header and the link of the one before them, which move along.
fn pack(
    rows: &mut Vec<Event>,
    header: &mut Header,
    before: &mut Link,
    workload: Option<WorkloadId>,
    facts: &[Written],
) {
    let first = rows.len();
    for fact in facts {
        let next = event(header, before, workload, fact);
        let alone = match rows[first..].last_mut() {
            Some(row) => row.join(next).err(),
            None => Some(next),
        };
        rows.extend(alone);
    }
}

/// The row of the fact that follows a link in its stream.
fn event(header: &mut Header, before: &mut Link, workload: Option<WorkloadId>, fact: &Written) -> Event {
    header.format = fact.format;
    header.version = Version(header.version.0 + 1);
    let (bytes, link) = chain(*before, header, &fact.payload);
    *before = link;
    let payload = match fact.payload.len() > INLINE_BYTES_MAX {
        false => Body::Inline(fact.payload.clone()),
        true => {
            Body::Blob(header.tenant.as_str().to_owned(), *blake3::hash(&fact.payload).as_bytes(), fact.payload.clone())
        }
    };
    let (stream, version, links) = (header.stream.key(), header.version.0, link.0.to_vec());
    Event { stream, version, workload, header: bytes, payload, links, format: fact.format }
}

/// A fact of a stream without owner, after a link and a version, alone: what a cancel writes.
pub(crate) fn one_event(
    stream: &StreamId,
    version: u64,
    before: Link,
    stamp: &Stamp,
    (fact, format): (&Fact, u16),
) -> Result<Event, StoreError> {
    let written = Written::of(fact, format);
    bound("a fact", written.payload.len())?;
    let workload = if let StreamId::Workload(workload) = stream { Some(*workload) } else { None };
    let mut header = Header { version: Version(version), ..header(stream.clone(), None, stamp) };
    let mut link = before;
    Ok(event(&mut header, &mut link, workload, &written))
}
