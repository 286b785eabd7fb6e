//! Every question to the store, with the checks that damage is reported and never handed out.
//!
//! Holds:
//!   RD-1  a fact is only returned after its link was computed again from its bytes and the link before it
//!   RD-2  a stream without gap is returned, up to the version and the link that its row says
//!   RD-3  snapshots and blobs are returned only with the right hash

use std::collections::{BTreeMap, BTreeSet};

use nexa_event::codec::{self, DecodeError};
use nexa_event::envelope::{self, Link};
use nexa_event::inbox;
use nexa_ports::store::{AgentRow, InboxEntry, Recorded, Rows, StoreError};
use nexa_types::{
    AgentId, BlobHash, GlobalSeq, InputId, PrincipalId, StreamId, TenantId, Timestamp, Version, WorkloadId,
};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use crate::column::{AGENT_COLUMNS, agent_row, count, counter, damaged, link, moment};
use crate::command::snapshot_checksum;
use crate::index::{self, Recent};
use crate::trouble::refusal;

/// What a question ends with.
pub(crate) type Answer<T> = Result<T, StoreError>;

/// Lists that are longer than this are not asked for at once; the rest comes with the next question.
const LIMIT_MAX: usize = 1 << 20;

pub(crate) fn sql<T>(result: rusqlite::Result<T>) -> Answer<T> {
    result.map_err(|error| refusal(&error))
}

pub(crate) fn limited(limit: usize) -> i64 {
    limit.min(LIMIT_MAX) as i64
}

/// A row of `events` as it lies there.
struct Stored {
    position: u64,
    stream: Vec<u8>,
    version: u64,
    workload: Option<WorkloadId>,
    header: Vec<u8>,
    payload: Option<Vec<u8>>,
    blob: Option<Vec<u8>>,
    link: Link,
}

/// Facts after a position, with the columns of [`Stored`].
const ALL_AFTER: &str = "SELECT position, stream, version, workload, header, payload, blob, link FROM events
                         WHERE position > ?1 ORDER BY position LIMIT ?2";
/// The fact at a position, with the same columns.
const AT: &str =
    "SELECT position, stream, version, workload, header, payload, blob, link FROM events WHERE position = ?1";

impl Stored {
    fn from_row(row: &Row<'_>) -> Answer<Self> {
        let place = "a fact";
        let workload: Option<Vec<u8>> = sql(row.get(3))?;
        let workload = match workload {
            None => None,
            Some(bytes) => {
                let id = WorkloadId::from_slice(&bytes);
                Some(id.ok_or_else(|| damaged(place, "its workload does not have 16 bytes"))?)
            }
        };
        let chain: Vec<u8> = sql(row.get(7))?;
        Ok(Self {
            position: counter(sql(row.get(0))?)?,
            stream: sql(row.get(1))?,
            version: counter(sql(row.get(2))?)?,
            workload,
            header: sql(row.get(4))?,
            payload: sql(row.get(5))?,
            blob: sql(row.get(6))?,
            link: link(&chain)?,
        })
    }

    fn place(&self) -> String {
        format!("the fact at position {}", self.position)
    }

    /// Checks the fact against the link before it.
    fn open(self, connection: &Connection, before: Link) -> Answer<Recorded> {
        let position = self.position;
        let place = || format!("the fact at position {position}");
        let payload = match (self.payload, self.blob) {
            (Some(payload), None) => payload,
            (None, Some(hash)) => {
                let header: envelope::Header =
                    codec::decode(&self.header).map_err(|error| damaged(&place(), &error.to_string()))?;
                let bytes: Option<Vec<u8>> = sql(connection
                    .prepare_cached("SELECT bytes FROM blobs WHERE tenant = ?1 AND hash = ?2")
                    .and_then(|mut select| {
                        select.query_row(params![header.tenant.as_str(), hash], |row| row.get(0)).optional()
                    }))?;
                bytes.ok_or_else(|| damaged(&place(), "its payload is missing"))?
            }
            _ => return Err(damaged(&place(), "it must have either a payload or the hash of one")),
        };
        let opened = envelope::open(before, &self.header, &payload, self.link).map_err(|error| match error {
            DecodeError::NewerFormat { .. } => StoreError::Unavailable { detail: format!("{}: {error}", place()) },
            error => damaged(&place(), &error.to_string()),
        })?;
        if opened.header.stream.key() != self.stream || opened.header.version != Version(self.version) {
            return Err(damaged(&place(), "it lies in another stream or at another version than its header says"));
        }
        Ok(Recorded { position: GlobalSeq(self.position), workload: self.workload, envelope: opened })
    }
}

fn events(connection: &Connection, question: &str, values: &[&dyn ToSql]) -> Answer<Vec<Stored>> {
    let mut select = sql(connection.prepare_cached(question))?;
    let mut rows = sql(select.query(values))?;
    let mut found = Vec::new();
    while let Some(row) = sql(rows.next())? {
        found.push(Stored::from_row(row)?);
    }
    Ok(found)
}

/// The facts that lie where they are said to, in the order given. What nobody can see yet is left out.
fn lying_at(connection: &Connection, places: &[u64], is_meant: impl Fn(&Stored) -> bool) -> Answer<Vec<Stored>> {
    let mut found = Vec::with_capacity(places.len());
    for position in places {
        found.extend(events(connection, AT, &[&count(*position)])?.into_iter().filter(&is_meant));
    }
    Ok(found)
}

/// Where a stream ends according to its row, and to which workload its facts belong.
fn head(connection: &Connection, stream: &StreamId) -> Answer<(u64, Link, Option<WorkloadId>)> {
    let (statement, key) = match stream {
        StreamId::Agent(agent) => {
            ("SELECT version, link, workload FROM agents WHERE agent = ?1", agent.as_bytes().to_vec())
        }
        _ => ("SELECT version, link, NULL FROM streams WHERE stream = ?1", stream.key()),
    };
    let found: Option<(i64, Vec<u8>, Option<Vec<u8>>)> = sql(connection
        .prepare_cached(statement)
        .and_then(|mut select| select.query_row([key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()))?;
    let Some((version, chain, workload)) = found else { return Ok((0, Link::START, None)) };
    let workload = match stream {
        StreamId::Workload(workload) => Some(*workload),
        _ => workload.as_deref().and_then(WorkloadId::from_slice),
    };
    Ok((counter(version)?, link(&chain)?, workload))
}

/// See `Store::read`.
pub(crate) fn read(
    connection: &Connection,
    recent: &Recent,
    stream: &StreamId,
    after: Version,
    limit: usize,
) -> Answer<Vec<Recorded>> {
    let (length, end, workload) = head(connection, stream)?;
    // One fact more, for its link.
    let from = after.0.max(1);
    let extra = usize::from(after.0 > 0);
    let key = stream.key();
    let places = index::of_stream(connection, recent, &key, from, limit.saturating_add(extra))?;
    let rows = lying_at(connection, &places, |row| row.stream == key)?;
    if after.0 >= length && rows.iter().all(|row| row.version <= after.0) {
        return Ok(Vec::new());
    }
    let broken = |what: &str| damaged(&stream.to_string(), what);
    let mut before = Link::START;
    let mut expected = from;
    let mut facts = Vec::with_capacity(rows.len());
    for row in rows {
        if row.version != expected {
            return Err(broken("facts are missing in the middle"));
        }
        expected += 1;
        let link = row.link;
        if row.version > after.0 {
            if row.workload != workload {
                return Err(broken("a fact is filed under another workload than its stream"));
            }
            facts.push(row.open(connection, before)?);
        }
        before = link;
    }
    let reached = expected - 1;
    let complete = facts.len() < limit;
    if reached > length || (reached == length && length > 0 && before != end) || (complete && reached < length) {
        return Err(broken("its facts are not those that its row says"));
    }
    Ok(facts)
}

/// See `Store::scan`.
pub(crate) fn scan(
    connection: &Connection,
    recent: &Recent,
    workload: Option<WorkloadId>,
    after: GlobalSeq,
    limit: usize,
) -> Answer<Vec<Recorded>> {
    Ok(scan_linked(connection, recent, workload, after, limit)?.into_iter().map(|(fact, _)| fact).collect())
}

/// The same with each fact's link.
pub(crate) fn scan_linked(
    connection: &Connection,
    recent: &Recent,
    workload: Option<WorkloadId>,
    after: GlobalSeq,
    limit: usize,
) -> Answer<Vec<(Recorded, Link)>> {
    let rows = match workload {
        None => events(connection, ALL_AFTER, &[&count(after.0), &limited(limit)])?,
        Some(workload) => {
            let places = index::of_workload(connection, recent, workload, after.0, limit)?;
            lying_at(connection, &places, |row| row.workload == Some(workload))?
        }
    };
    let mut streams: BTreeMap<Vec<u8>, Before> = BTreeMap::new();
    let mut facts = Vec::with_capacity(rows.len());
    for (expected, row) in (after.0 + 1..).zip(rows) {
        if workload.is_none() && row.position != expected {
            return Err(damaged(&format!("position {expected}"), "a fact is missing"));
        }
        let before = match streams.get(&row.stream) {
            Some(before) if before.version + 1 == row.version => *before,
            Some(before) => Before { link: link_before(connection, recent, &row)?, ..*before },
            None => Before {
                version: 0,
                link: link_before(connection, recent, &row)?,
                workload: workload_of(connection, &row.stream)?,
            },
        };
        if row.workload != before.workload {
            return Err(damaged(&row.place(), "it is filed under another workload than its stream"));
        }
        let link = row.link;
        streams.insert(row.stream.clone(), Before { version: row.version, link, ..before });
        facts.push((row.open(connection, before.link)?, link));
    }
    Ok(facts)
}

/// What is known of a stream while facts of many are read.
#[derive(Clone, Copy)]
struct Before {
    version: u64,
    link: Link,
    workload: Option<WorkloadId>,
}

fn workload_of(connection: &Connection, key: &[u8]) -> Answer<Option<WorkloadId>> {
    match key.split_first() {
        Some((b'w', id)) => Ok(WorkloadId::from_slice(id)),
        Some((b'a', id)) => {
            let found: Option<Vec<u8>> = sql(connection
                .prepare_cached("SELECT workload FROM agents WHERE agent = ?1")
                .and_then(|mut select| select.query_row([id], |row| row.get(0)).optional()))?;
            Ok(found.as_deref().and_then(WorkloadId::from_slice))
        }
        _ => Ok(None),
    }
}

fn link_before(connection: &Connection, recent: &Recent, row: &Stored) -> Answer<Link> {
    if row.version <= 1 {
        return Ok(Link::START);
    }
    let before = row.version - 1;
    let link_at = |position: Option<u64>| -> Answer<Option<Vec<u8>>> {
        let Some(position) = position else { return Ok(None) };
        sql(connection
            .prepare_cached("SELECT link FROM events WHERE position = ?1 AND stream = ?2 AND version = ?3")
            .and_then(|mut select| {
                select.query_row(params![count(position), row.stream, count(before)], |row| row.get(0)).optional()
            }))
    };
    let chain = match link_at(recent.at(&row.stream, before))? {
        Some(chain) => Some(chain),
        None => link_at(index::at(connection, &row.stream, before)?)?,
    };
    link(&chain.ok_or_else(|| damaged(&row.place(), "the fact before it in its stream is missing"))?)
}

/// See `Store::row`.
pub(crate) fn row(connection: &Connection, agent: AgentId) -> Answer<Option<AgentRow>> {
    let found = agents(connection, "agents WHERE agent = ?1", &[agent.as_bytes()])?;
    Ok(found.into_iter().next())
}

/// See `Store::rows`.
pub(crate) fn rows(
    connection: &Connection,
    which: &Rows,
    after: Option<AgentId>,
    limit: usize,
) -> Answer<Vec<AgentRow>> {
    // No id is empty, so that everything comes after the empty one.
    let after = after.map_or(Vec::new(), |after| after.as_bytes().to_vec());
    let limit = limited(limit);
    match which {
        Rows::Workload(workload) => agents(
            connection,
            "agents WHERE workload = ?1 AND agent > ?2 ORDER BY agent LIMIT ?3",
            &[workload.as_bytes(), &after, &limit],
        ),
        Rows::Live => {
            agents(connection, "agents WHERE ended = 0 AND agent > ?1 ORDER BY agent LIMIT ?2", &[&after, &limit])
        }
        Rows::Unplaced => agents(
            connection,
            "agents WHERE ended = 0 AND node IS NULL AND agent > ?1 ORDER BY agent LIMIT ?2",
            &[&after, &limit],
        ),
        Rows::Of(node) => agents(
            connection,
            "agents WHERE ended = 0 AND node = ?1 AND agent > ?2 ORDER BY agent LIMIT ?3",
            &[&node.as_str(), &after, &limit],
        ),
        Rows::Agents(wanted) => {
            let wanted: BTreeSet<&AgentId> = wanted.iter().filter(|agent| agent.as_bytes()[..] > after[..]).collect();
            let mut found = Vec::new();
            for agent in wanted {
                if found.len() as i64 >= limit {
                    break;
                }
                found.extend(row(connection, *agent)?);
            }
            Ok(found)
        }
        // Without the hint it would walk all agents that live, for the sake of the order.
        Rows::Due(now) => agents(
            connection,
            "agents INDEXED BY agents_due
             WHERE ended = 0 AND due IS NOT NULL AND due <= ?1 AND agent > ?2 ORDER BY agent LIMIT ?3",
            &[&moment(*now), &after, &limit],
        ),
    }
}

fn agents(connection: &Connection, from: &str, values: &[&dyn ToSql]) -> Answer<Vec<AgentRow>> {
    let mut select = sql(connection.prepare_cached(&format!("SELECT {AGENT_COLUMNS} FROM {from}")))?;
    let mut rows = sql(select.query(values))?;
    let mut found = Vec::new();
    while let Some(row) = sql(rows.next())? {
        found.push(sql(agent_row(row))??);
    }
    Ok(found)
}

/// See `Store::inbox`.
pub(crate) fn inbox(connection: &Connection, agent: AgentId, limit: usize) -> Answer<Vec<InboxEntry>> {
    let mut select = sql(connection.prepare_cached(
        "SELECT input, body, at, principal FROM inbox WHERE agent = ?1 AND body IS NOT NULL ORDER BY arrival LIMIT ?2",
    ))?;
    let mut rows = sql(select.query(params![agent.as_bytes(), limited(limit)]))?;
    let mut entries = Vec::new();
    while let Some(row) = sql(rows.next())? {
        entries.push(inbox_entry(agent, row)?);
    }
    Ok(entries)
}

/// See `Store::entry`.
pub(crate) fn entry(connection: &Connection, agent: AgentId, id: InputId) -> Answer<Option<InboxEntry>> {
    let mut select = sql(connection.prepare_cached(
        "SELECT input, body, at, principal FROM inbox WHERE agent = ?1 AND input = ?2 AND body IS NOT NULL",
    ))?;
    let mut rows = sql(select.query(params![agent.as_bytes(), id.as_bytes()]))?;
    sql(rows.next())?.map(|row| inbox_entry(agent, row)).transpose()
}

/// An entry from `input, body, at, principal`.
fn inbox_entry(agent: AgentId, row: &rusqlite::Row<'_>) -> Answer<InboxEntry> {
    let bad = |what: &str| damaged(&format!("the inbox of {agent}"), what);
    let (id, body): (Vec<u8>, Vec<u8>) = (sql(row.get(0))?, sql(row.get(1))?);
    let principal: String = sql(row.get(3))?;
    let (input, trace) = inbox::decode(&body).map_err(|error| bad(&error.to_string()))?;
    Ok(InboxEntry {
        id: InputId::from_slice(&id).ok_or_else(|| bad("an id does not have 16 bytes"))?,
        input,
        at: Timestamp(counter(sql(row.get(2))?)?),
        principal: PrincipalId::new(&principal).map_err(|error| bad(&error.to_string()))?,
        trace,
    })
}

/// See `Store::snapshot`.
pub(crate) fn snapshot(connection: &Connection, agent: AgentId) -> Answer<Option<(Version, Vec<u8>)>> {
    let found: Option<(i64, Vec<u8>, Vec<u8>)> = sql(connection
        .prepare_cached("SELECT version, bytes, checksum FROM snapshots WHERE agent = ?1")
        .and_then(|mut select| {
            select.query_row([agent.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
        }))?;
    let Some((version, bytes, checksum)) = found else { return Ok(None) };
    let version = Version(counter(version)?);
    if checksum != snapshot_checksum(agent, version, &bytes) {
        return Err(damaged(&format!("the snapshot of {agent}"), "its checksum does not fit"));
    }
    Ok(Some((version, bytes)))
}

/// See `Store::blob`.
pub(crate) fn blob(connection: &Connection, tenant: &TenantId, hash: BlobHash) -> Answer<Option<Vec<u8>>> {
    let found: Option<Vec<u8>> =
        sql(connection.prepare_cached("SELECT bytes FROM blobs WHERE tenant = ?1 AND hash = ?2").and_then(
            |mut select| select.query_row(params![tenant.as_str(), hash.as_bytes()], |row| row.get(0)).optional(),
        ))?;
    let Some(bytes) = found else { return Ok(None) };
    if blake3::hash(&bytes).as_bytes() != hash.as_bytes() {
        return Err(damaged(&format!("the blob {hash}"), "its bytes do not have this hash"));
    }
    Ok(Some(bytes))
}
