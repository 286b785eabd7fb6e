//! What one append does within a transaction: judge first, change afterwards.
//!
//! A refused append has only read: whatever may refuse it is known before the first change, and a statement that fails
//! afterwards gives up the whole transaction. So no append needs a savepoint, which would copy every page that it
//! touches. Each rule is told in `nexa_ports::memory`, which does the same.

use std::sync::Arc;

use nexa_event::codec;
use nexa_event::envelope::{FORMAT, Fact, Header, Link, chain};
use nexa_event::fact::WorkloadEvent;
use nexa_event::inbox;
use nexa_ports::store::{AgentHead, Append, AppendError, Appended, Birth, Guard, Post, Stamp, StoreError};
use nexa_types::limits::{INLINE_BYTES_MAX, SNAPSHOT_BYTES_MAX};
use nexa_types::{AgentId, AgentState, Epoch, GlobalSeq, InputId, StreamId, TenantId, Version, WorkloadId};
use rusqlite::{Connection, OptionalExtension, params};

use crate::column::{self, count, link, moment};
use crate::index::Arrival;

/// A fact as it is stored.
pub(crate) struct Written {
    payload: Vec<u8>,
    ends_workload: bool,
}

impl Written {
    pub(crate) fn of(fact: &Fact) -> Self {
        let ends_workload = matches!(fact, Fact::Workload(WorkloadEvent::Ended { .. }));
        Self { payload: codec::encode(fact), ends_workload }
    }

    /// Refuses one that is too long.
    pub(crate) fn fits(&self) -> Result<(), StoreError> {
        bound("a fact", self.payload.len())
    }
}

/// An append whose facts and posts are encoded: by its caller, since the one thread that writes has enough to do.
pub(crate) struct Ready {
    append: Append,
    facts: Vec<Written>,
    also: Vec<Written>,
    births: Vec<Written>,
    posts: Vec<Vec<u8>>,
}

impl Ready {
    pub(crate) fn new(append: Append) -> Self {
        let also = append.also.iter().flat_map(|(_, facts)| facts);
        Self {
            facts: append.facts.iter().map(Written::of).collect(),
            also: also.map(Written::of).collect(),
            births: append.births.iter().map(|birth| Written::of(&birth.first)).collect(),
            posts: append.posts.iter().map(|post| inbox::encode(&post.input, post.trace.as_ref())).collect(),
            append,
        }
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
        self.written().try_for_each(Written::fits)?;
        self.posts.iter().try_for_each(|body| bound("an input", body.len()))
    }
}

/// A transaction that is being filled.
pub(crate) struct Desk<'a> {
    /// The writer's connection, within the transaction.
    pub(crate) connection: &'a Connection,
    /// The position of the newest fact, this transaction's own among them.
    pub(crate) newest: u64,
    /// Bytes of facts and inbox entries so far.
    pub(crate) bytes: u64,
    /// The transaction's facts.
    pub(crate) arrivals: Vec<Arrival>,
}

/// Why an append was not stored: its own fault, or the store's.
pub(crate) enum Refused {
    /// It was judged.
    Append(AppendError),
    /// A statement failed; the transaction is given up.
    Sql(rusqlite::Error),
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Self {
        Self::Append(error)
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Append(error.into())
    }
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// Where a stream ends.
#[derive(Clone)]
pub(crate) struct Head {
    version: u64,
    link: Link,
    workload: Option<WorkloadId>,
    /// The column `due` of an agent's row.
    due: Option<i64>,
    /// Whose agent it is.
    node: Option<Box<str>>,
}

impl Head {
    /// Whether the stream has any fact.
    pub(crate) fn exists(&self) -> bool {
        self.version > 0
    }
}

/// Version, link, workload, epoch, whether it has ended, when it is due, and its owner.
type AgentColumns = (i64, Vec<u8>, Vec<u8>, i64, bool, Option<i64>, Option<Box<str>>);

/// What a workload's row of `streams` says.
#[derive(Clone, Copy, Default)]
pub(crate) struct Flags {
    /// Somebody cancelled it.
    pub(crate) cancelled: bool,
    /// Its last fact is its end.
    pub(crate) ended: bool,
}

/// Refuses what has more bytes than anything stored may have.
pub(crate) fn bound(what: &'static str, len: usize) -> Result<(), StoreError> {
    if len > SNAPSHOT_BYTES_MAX {
        return Err(StoreError::TooLarge { what, len, max: SNAPSHOT_BYTES_MAX });
    }
    Ok(())
}

impl Desk<'_> {
    /// Stores one append, or says why not and leaves nothing of it.
    pub(crate) fn append(&mut self, ready: &Ready) -> rusqlite::Result<Result<Appended, AppendError>> {
        let judged = self.judge(&ready.append).and_then(|heads| Ok(ready.fits().map(|()| heads)?));
        match judged {
            Ok((head, other)) => self.change(ready, head, other).map(Ok),
            Err(Refused::Append(error)) => Ok(Err(error)),
            Err(Refused::Sql(error)) => Err(error),
        }
    }

    /// Says whether the append may be stored, and where its stream ends now, and the other one that it writes to.
    fn judge(&self, append: &Append) -> Result<(Head, Option<Head>), Refused> {
        let conflict = |current| AppendError::VersionConflict { given: append.expected, current: Version(current) };
        let head = match (&append.stream, append.guard) {
            (StreamId::Agent(agent), guard) => {
                let (head, current, ended) = self.agent(*agent)?.ok_or(AppendError::NoSuchAgent)?;
                let (version, has_ended) = (Version(head.version), ended);
                guard.admits(append.expected, AgentHead { epoch: current, version, has_ended })?;
                head
            }
            (_, Guard::Owner(_)) => return Err(AppendError::NoSuchAgent.into()),
            (_, Guard::Version) if append.row.is_some() || !append.takes.is_empty() => {
                return Err(AppendError::NoSuchAgent.into());
            }
            (stream, Guard::Version) => {
                let (head, flags) = self.stream(stream)?;
                if flags.ended {
                    return Err(conflict(head.version).into());
                }
                head
            }
        };
        if append.expected != Version(head.version) {
            return Err(conflict(head.version).into());
        }
        self.judge_births(&append.births)?;
        let Some((stream, _)) = &append.also else { return Ok((head, None)) };
        if matches!(stream, StreamId::Agent(_)) {
            return Err(AppendError::NoSuchAgent.into());
        }
        let (other, flags) = self.stream(stream)?;
        if flags.ended {
            let current = Version(other.version);
            return Err(AppendError::VersionConflict { given: current, current }.into());
        }
        Ok((head, Some(other)))
    }

    fn judge_births(&self, births: &[Birth]) -> Result<(), Refused> {
        let mut seen = std::collections::BTreeSet::new();
        // Births of one append are nearly always of one workload.
        let mut asked: Option<(WorkloadId, Flags)> = None;
        for birth in births {
            let flags = match asked {
                Some((workload, flags)) if workload == birth.workload => flags,
                _ => self.stream(&StreamId::Workload(birth.workload))?.1,
            };
            asked = Some((birth.workload, flags));
            if flags.cancelled {
                return Err(AppendError::WorkloadCancelled.into());
            }
            let current = match self.agent(birth.agent)? {
                Some((head, ..)) => head.version,
                None => u64::from(!seen.insert(birth.agent)),
            };
            if current != 0 {
                return Err(AppendError::VersionConflict { given: Version(0), current: Version(current) }.into());
            }
        }
        Ok(())
    }

    fn change(&mut self, ready: &Ready, mut head: Head, other: Option<Head>) -> rusqlite::Result<Appended> {
        let append = &ready.append;
        match (&append.stream, append.guard) {
            (StreamId::Agent(agent), Guard::Owner(epoch)) => {
                self.push(&append.stream, &mut head, Some(epoch), &append.stamp, &ready.facts)?;
                self.change_row(*agent, &head, append)?;
                append.takes.iter().try_for_each(|id| self.take(*agent, *id, &append.stamp))?;
            }
            (stream, _) => self.push_unowned(stream, &mut head, &append.stamp, &ready.facts)?,
        }
        for (birth, first) in append.births.iter().zip(&ready.births) {
            self.bear(birth, first, &append.stamp)?;
        }
        let mut elsewhere = Vec::new();
        for (post, body) in append.posts.iter().zip(&ready.posts) {
            let Some(owner) = self.owner(post.to)? else { continue };
            if owner != head.node
                && matches!(append.stream, StreamId::Agent(_))
                && let Some(owner) = column::owner(owner)
            {
                elsewhere.push((post.to, owner));
            }
            self.put_entry(post, body, &append.stamp)?;
        }
        match (&append.also, other) {
            (Some((stream, _)), _) if *stream == append.stream => {
                self.push_unowned(stream, &mut head, &append.stamp, &ready.also)?;
            }
            (Some((stream, _)), Some(mut other)) => {
                self.push_unowned(stream, &mut other, &append.stamp, &ready.also)?;
            }
            _ => {}
        }
        Ok(Appended { version: Version(head.version), position: GlobalSeq(self.newest), elsewhere })
    }

    /// Where an agent's stream ends, its epoch, and whether it has ended.
    fn agent(&self, agent: AgentId) -> Result<Option<(Head, Epoch, bool)>, Refused> {
        let found = self
            .connection
            .prepare_cached("SELECT version, link, workload, epoch, ended, due, node FROM agents WHERE agent = ?1")?
            .query_row([agent.as_bytes()], |row| {
                let columns: AgentColumns =
                    (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?);
                Ok(columns)
            })
            .optional()?;
        let Some((version, chain, workload, epoch, ended, due, node)) = found else { return Ok(None) };
        let head = Head {
            version: crate::column::counter(version)?,
            link: link(&chain)?,
            workload: WorkloadId::from_slice(&workload),
            due,
            node,
        };
        Ok(Some((head, Epoch(crate::column::counter(epoch)?), ended)))
    }

    /// Where a stream without owner ends; version 0 if it has no fact yet.
    pub(crate) fn stream(&self, stream: &StreamId) -> Result<(Head, Flags), Refused> {
        let workload = if let StreamId::Workload(workload) = stream { Some(*workload) } else { None };
        let found = self
            .connection
            .prepare_cached("SELECT version, link, cancelled, ended FROM streams WHERE stream = ?1")?
            .query_row([stream.key()], |row| {
                let columns: (i64, Vec<u8>, bool, bool) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
                Ok(columns)
            })
            .optional()?;
        let empty = Head { version: 0, link: Link::START, workload, due: None, node: None };
        let Some((version, chain, cancelled, ended)) = found else { return Ok((empty, Flags::default())) };
        let head = Head { version: column::counter(version)?, link: link(&chain)?, ..empty };
        Ok((head, Flags { cancelled, ended }))
    }

    /// Adds facts to the events and moves the head along, which the caller then keeps.
    fn push(
        &mut self,
        stream: &StreamId,
        head: &mut Head,
        epoch: Option<Epoch>,
        stamp: &Stamp,
        facts: &[Written],
    ) -> rusqlite::Result<()> {
        if facts.is_empty() {
            return Ok(());
        }
        let key: Arc<[u8]> = stream.key().into();
        let workload = head.workload.as_ref().map(|workload| &workload.as_bytes()[..]);
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO events (position, stream, version, workload, header, payload, blob, link)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        let mut header = Header {
            format: FORMAT,
            stream: stream.clone(),
            version: Version(head.version),
            at: stamp.at,
            tenant: stamp.tenant.clone(),
            principal: stamp.principal.clone(),
            epoch,
            trace: stamp.trace,
        };
        for Written { payload, .. } in facts {
            header.version = Version(head.version + 1);
            let (header, link) = chain(head.link, &header, payload);
            let (inline, blob) = if payload.len() > INLINE_BYTES_MAX {
                let hash = *blake3::hash(payload).as_bytes();
                self.put_blob(&stamp.tenant, &hash, payload)?;
                (None, Some(hash))
            } else {
                (Some(payload), None)
            };
            insert.execute(params![
                count(self.newest + 1),
                &key[..],
                count(head.version + 1),
                workload,
                header,
                inline,
                blob,
                link.0
            ])?;
            self.bytes += (header.len() + payload.len()) as u64;
            self.newest += 1;
            head.version += 1;
            head.link = link;
            let (position, version, stream) = (self.newest, head.version, Arc::clone(&key));
            self.arrivals.push(Arrival { position, stream, version, workload: head.workload });
        }
        Ok(())
    }

    /// Adds facts to a stream without owner.
    pub(crate) fn push_unowned(
        &mut self,
        stream: &StreamId,
        head: &mut Head,
        stamp: &Stamp,
        facts: &[Written],
    ) -> rusqlite::Result<()> {
        if facts.is_empty() {
            return Ok(());
        }
        self.push(stream, head, None, stamp, facts)?;
        let in_workload = matches!(stream, StreamId::Workload(_));
        self.connection
            .prepare_cached(
                "INSERT INTO streams (stream, version, link, cancelled, ended) VALUES (?1, ?2, ?3, 0, ?4)
                 ON CONFLICT (stream) DO UPDATE SET version = ?2, link = ?3, ended = ended OR ?4",
            )?
            .execute(params![
                stream.key(),
                count(head.version),
                head.link.0,
                in_workload && facts.iter().any(|fact| fact.ends_workload)
            ])?;
        Ok(())
    }

    fn change_row(&self, agent: AgentId, head: &Head, append: &Append) -> rusqlite::Result<()> {
        match append.row {
            None => self
                .connection
                .prepare_cached("UPDATE agents SET version = ?2, link = ?3 WHERE agent = ?1")?
                .execute(params![agent.as_bytes(), count(head.version), head.link.0])?,
            // Without `due` and `ended` in the statement, SQLite leaves the indices over them alone.
            Some(change) if change.due.map(moment) == head.due && !change.state.is_terminal() => self
                .connection
                .prepare_cached("UPDATE agents SET version = ?2, link = ?3, state = ?4 WHERE agent = ?1")?
                .execute(params![agent.as_bytes(), count(head.version), head.link.0, change.state.word()])?,
            Some(change) => self
                .connection
                .prepare_cached(
                    "UPDATE agents SET version = ?2, link = ?3, state = ?4, due = ?5, ended = ?6 WHERE agent = ?1",
                )?
                .execute(params![
                    agent.as_bytes(),
                    count(head.version),
                    head.link.0,
                    change.state.word(),
                    change.due.map(moment),
                    change.state.is_terminal()
                ])?,
        };
        Ok(())
    }

    /// Marks an input as taken, also one that never arrived.
    fn take(&self, agent: AgentId, input: InputId, stamp: &Stamp) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO inbox (agent, input, body, at, principal) VALUES (?1, ?2, NULL, ?3, ?4)
                 ON CONFLICT (agent, input) DO UPDATE SET body = NULL",
            )?
            .execute(params![agent.as_bytes(), input.as_bytes(), moment(stamp.at), stamp.principal.as_str()])?;
        Ok(())
    }

    /// Whose agent it is, if it lives.
    fn owner(&self, agent: AgentId) -> rusqlite::Result<Option<Option<Box<str>>>> {
        self.connection
            .prepare_cached("SELECT node FROM agents WHERE agent = ?1 AND ended = 0")?
            .query_row([agent.as_bytes()], |row| row.get(0))
            .optional()
    }

    /// Puts an entry into the inbox of an agent that lives, unless it was there before.
    pub(crate) fn put_entry(&mut self, post: &Post, body: &[u8], stamp: &Stamp) -> rusqlite::Result<()> {
        self.bytes += body.len() as u64;
        self.connection
            .prepare_cached(
                "INSERT INTO inbox (agent, input, body, at, principal)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (agent, input) DO NOTHING",
            )?
            .execute(params![
                post.to.as_bytes(),
                post.id.as_bytes(),
                body,
                moment(stamp.at),
                stamp.principal.as_str()
            ])?;
        Ok(())
    }

    fn bear(&mut self, birth: &Birth, first: &Written, stamp: &Stamp) -> rusqlite::Result<()> {
        let (epoch, state) = match birth.node {
            Some(_) => (Epoch(1), AgentState::Placed),
            None => (Epoch(0), AgentState::Ready),
        };
        let mut head = Head { version: 0, link: Link::START, workload: Some(birth.workload), due: None, node: None };
        let stream = StreamId::Agent(birth.agent);
        self.push(&stream, &mut head, Some(epoch), stamp, std::slice::from_ref(first))?;
        self.connection
            .prepare_cached(
                "INSERT INTO agents (agent, workload, tenant, principal, node, epoch, version, link, state, ended,
                                     due, cancelled, priority, asks)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, NULL, 0, ?10, ?11)",
            )?
            .execute(params![
                birth.agent.as_bytes(),
                birth.workload.as_bytes(),
                stamp.tenant.as_str(),
                stamp.principal.as_str(),
                birth.node.as_ref().map(|node| node.as_str()),
                count(epoch.0),
                count(head.version),
                head.link.0,
                state.word(),
                birth.priority,
                birth.asks().map(codec::encode)
            ])?;
        Ok(())
    }

    /// Keeps bytes under their hash.
    pub(crate) fn put_blob(&self, tenant: &TenantId, hash: &[u8; 32], bytes: &[u8]) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO blobs (tenant, hash, bytes) VALUES (?1, ?2, ?3) ON CONFLICT (tenant, hash) DO NOTHING",
            )?
            .execute(params![tenant.as_str(), hash, bytes])?;
        Ok(())
    }
}
