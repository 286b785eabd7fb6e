//! Every question to the store but the scan of facts ([`crate::scan`]), each in one statement and so of one moment, with the
//! checks that damage is reported and never handed out.
//!
//! Holds:
//!   PR-1  a fact is only returned after its link was computed again from its bytes and the link before it
//!   PR-2  a stream without gap is returned, up to the version and the link that its row says
//!   PR-3  snapshots and blobs are returned only with the right hash

use nexa_event::codec::DecodeError;
use nexa_event::envelope::{self, Link};
use nexa_event::formats::Formats;
use nexa_event::inbox;
use nexa_ports::store::{AgentRow, InboxEntry, Recorded, Rows, Snapshot, StoreError};
use nexa_types::{
    AgentId, BlobHash, GlobalSeq, InputId, PrincipalId, StreamId, TenantId, Timestamp, Version, WorkloadId,
};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::column::{agent_columns, agent_row, count, counter, damaged, link, moment};
use crate::row::{ROW_FACTS_MAX, event_columns, facts_of};
use crate::trouble::Fault;

/// What a question ends with.
pub(crate) type Answer<T> = Result<T, Fault>;

/// Lists that are longer than this are not asked for at once; the rest comes with the next question.
pub(crate) const LIMIT_MAX: usize = 1 << 20;

pub(crate) fn limited(limit: usize) -> i64 {
    limit.min(LIMIT_MAX) as i64
}

/// A fact as it lies in its row, its blob fetched.
pub(crate) struct Stored {
    pub(crate) position: u64,
    pub(crate) stream: Vec<u8>,
    pub(crate) version: u64,
    pub(crate) workload: Option<WorkloadId>,
    pub(crate) header: Vec<u8>,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) link: Link,
}

impl Stored {
    /// One that says nothing.
    #[cfg(test)]
    pub(crate) fn empty(stream: &[u8], version: u64) -> Self {
        let (header, payload) = (Vec::new(), None);
        Self { position: 0, stream: stream.to_vec(), version, workload: None, header, payload, link: Link::START }
    }

    pub(crate) fn place(&self) -> String {
        format!("the fact at position {}", self.position)
    }

    /// Checks the fact against the link before it.
    pub(crate) fn open(self, before: Link, reads: Formats) -> Answer<Recorded> {
        let place = self.place();
        let payload = self.payload.ok_or_else(|| damaged(&place, "its payload is missing"))?;
        let opened =
            envelope::open_of(reads, before, &self.header, &payload, self.link).map_err(|error| match error {
                DecodeError::NewerFormat { .. } => StoreError::Unavailable { detail: format!("{place}: {error}") },
                error => damaged(&place, &error.to_string()),
            })?;
        if opened.header.stream.key() != self.stream || opened.header.version != Version(self.version) {
            return Err(damaged(&place, "it lies in another stream or at another version than its header says").into());
        }
        Ok(Recorded { position: GlobalSeq(self.position), workload: self.workload, envelope: opened })
    }
}

/// See `Store::read`.
pub(crate) async fn read(
    connection: &mut PgConnection,
    reads: Formats,
    stream: &StreamId,
    after: Version,
    limit: usize,
) -> Answer<Vec<Recorded>> {
    // One fact more, for its link.
    let (from, extra) = (after.0.max(1), usize::from(after.0 > 0));
    let facts = limit.min(LIMIT_MAX) + extra;
    // Rows end with the versions that they have; the last of these may end beyond the facts that are wanted.
    let below = from.saturating_add((facts + ROW_FACTS_MAX) as u64);
    let rows = sqlx::query(concat!(
        "SELECT ",
        event_columns!(),
        ", h.version, h.link, h.workload
         FROM (SELECT version, link, workload FROM agents WHERE agent = $1
               UNION ALL SELECT version, link, NULL FROM streams WHERE stream = $2) AS h
         LEFT JOIN LATERAL (SELECT * FROM events WHERE stream = $2 AND version >= $3 AND version < $4
                            ORDER BY version LIMIT $5) AS e ON true
         ORDER BY e.version"
    ))
    .bind(if let StreamId::Agent(agent) = stream { agent.as_bytes().as_slice() } else { &[] })
    .bind(stream.key())
    .bind(count(from))
    .bind(count(below))
    .bind(limited(facts))
    .fetch_all(connection)
    .await?;
    let Some(first) = rows.first() else { return Ok(Vec::new()) };
    let (length, end) = (counter(first.try_get(7)?)?, link(first.try_get(8)?)?);
    let workload: Option<&[u8]> = first.try_get(9)?;
    let workload = match stream {
        StreamId::Workload(workload) => Some(*workload),
        _ => workload.and_then(WorkloadId::from_slice),
    };
    let is_fact = |row: &PgRow| row.try_get::<Option<i64>, _>(0).map(|position| position.is_some());
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        if is_fact(row)? {
            facts_of(row, &mut found)?;
        }
    }
    found.retain(|fact| fact.version >= from);
    found.truncate(facts);
    checked(reads, stream, found, after, limit, Told { length, end, workload })
}

/// What a stream's row says.
struct Told {
    length: u64,
    end: Link,
    workload: Option<WorkloadId>,
}

/// The facts after a version, if they and the one before them are those that the row tells of.
fn checked(
    reads: Formats,
    stream: &StreamId,
    rows: Vec<Stored>,
    after: Version,
    limit: usize,
    told: Told,
) -> Answer<Vec<Recorded>> {
    if after.0 >= told.length && rows.iter().all(|row| row.version <= after.0) {
        return Ok(Vec::new());
    }
    let broken = |what: &str| damaged(&stream.to_string(), what);
    let mut before = Link::START;
    let mut expected = after.0.max(1);
    let mut facts = Vec::with_capacity(rows.len());
    for row in rows {
        if row.version != expected {
            return Err(broken("facts are missing in the middle").into());
        }
        expected += 1;
        let link = row.link;
        if row.version > after.0 {
            if row.workload != told.workload {
                return Err(broken("a fact is filed under another workload than its stream").into());
            }
            facts.push(row.open(before, reads)?);
        }
        before = link;
    }
    let reached = expected - 1;
    let complete = facts.len() < limit;
    let at_end = reached == told.length && told.length > 0;
    if reached > told.length || (at_end && before != told.end) || (complete && reached < told.length) {
        return Err(broken("its facts are not those that its row says").into());
    }
    Ok(facts)
}

/// See `Store::row`.
pub(crate) async fn row(connection: &mut PgConnection, agent: AgentId) -> Answer<Option<AgentRow>> {
    let found = sqlx::query(concat!("SELECT ", agent_columns!(), " FROM agents WHERE agent = $1"))
        .bind(agent.as_bytes().as_slice())
        .fetch_optional(connection)
        .await?;
    found.as_ref().map(agent_row).transpose()
}

/// See `Store::rows`.
pub(crate) async fn rows(
    connection: &mut PgConnection,
    which: &Rows,
    after: Option<AgentId>,
    limit: usize,
) -> Answer<Vec<AgentRow>> {
    macro_rules! select {
        ($condition:literal) => {
            sqlx::query(concat!(
                "SELECT ",
                agent_columns!(),
                " FROM agents WHERE ",
                $condition,
                " AND agent > $1 ORDER BY agent LIMIT $2"
            ))
            // No id is empty, so that everything comes after the empty one.
            .bind(after.map_or(Vec::new(), |after| after.as_bytes().to_vec()))
            .bind(limited(limit))
        };
    }
    let query = match which {
        Rows::Workload(workload) => select!("workload = $3").bind(workload.as_bytes().as_slice()),
        Rows::Live => select!("NOT ended"),
        Rows::Unplaced => select!("NOT ended AND node IS NULL"),
        Rows::Of(node) => select!("NOT ended AND node = $3").bind(node.as_str()),
        Rows::Agents(agents) => {
            let agents: Vec<&[u8]> = agents.iter().map(|agent| agent.as_bytes().as_slice()).collect();
            select!("agent = ANY($3)").bind(agents)
        }
        // As a list of its own, so that it does not walk all agents that live for the sake of the order.
        Rows::Due(now) => select!(
            "agent = ANY(ARRAY(SELECT agent FROM agents WHERE NOT ended AND due IS NOT NULL AND due <= $3)) AND NOT ended"
        )
        .bind(moment(*now)),
    };
    query.fetch_all(connection).await?.iter().map(agent_row).collect()
}

/// See `Store::inbox`.
pub(crate) async fn inbox(connection: &mut PgConnection, agent: AgentId, limit: usize) -> Answer<Vec<InboxEntry>> {
    let rows = sqlx::query(
        "SELECT input, body, at, principal FROM inbox WHERE agent = $1 AND body IS NOT NULL ORDER BY arrival LIMIT $2",
    )
    .bind(agent.as_bytes().as_slice())
    .bind(limited(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| inbox_entry(agent, row)).collect()
}

/// See `Store::entry`.
pub(crate) async fn entry(connection: &mut PgConnection, agent: AgentId, id: InputId) -> Answer<Option<InboxEntry>> {
    let row = sqlx::query(
        "SELECT input, body, at, principal FROM inbox WHERE agent = $1 AND input = $2 AND body IS NOT NULL",
    )
    .bind(agent.as_bytes().as_slice())
    .bind(id.as_bytes().as_slice())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(|row| inbox_entry(agent, row)).transpose()
}

/// An entry from `input, body, at, principal`.
fn inbox_entry(agent: AgentId, row: &PgRow) -> Answer<InboxEntry> {
    let bad = |what: &str| damaged(&format!("the inbox of {agent}"), what);
    let principal: &str = row.try_get(3)?;
    let (input, trace) = inbox::decode(row.try_get(1)?).map_err(|error| bad(&error.to_string()))?;
    Ok(InboxEntry {
        id: InputId::from_slice(row.try_get(0)?).ok_or_else(|| bad("an id does not have 16 bytes"))?,
        input,
        at: Timestamp(counter(row.try_get(2)?)?),
        principal: PrincipalId::new(principal).map_err(|error| bad(&error.to_string()))?,
        trace,
    })
}

/// What stands beside a snapshot, so that it is never taken for another agent's or another version's.
pub(crate) fn snapshot_checksum(agent: AgentId, version: Version, bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("nexa.v1 stored snapshot");
    hasher.update(agent.as_bytes()).update(&version.0.to_le_bytes()).update(bytes);
    *hasher.finalize().as_bytes()
}

/// See `Store::snapshot`.
pub(crate) async fn snapshot(connection: &mut PgConnection, agent: AgentId) -> Answer<Option<Snapshot>> {
    let found = sqlx::query("SELECT version, bytes, checksum FROM snapshots WHERE agent = $1")
        .bind(agent.as_bytes().as_slice())
        .fetch_optional(connection)
        .await?;
    let Some(row) = found else { return Ok(None) };
    let (version, bytes) = (Version(counter(row.try_get(0)?)?), row.try_get::<Vec<u8>, _>(1)?);
    if row.try_get::<&[u8], _>(2)? != snapshot_checksum(agent, version, &bytes) {
        return Err(damaged(&format!("the snapshot of {agent}"), "its checksum does not fit").into());
    }
    Ok(Some((version, bytes)))
}

/// See `Store::blob`.
pub(crate) async fn blob(connection: &mut PgConnection, tenant: &TenantId, hash: BlobHash) -> Answer<Option<Vec<u8>>> {
    let found: Option<Vec<u8>> = sqlx::query_scalar("SELECT bytes FROM blobs WHERE tenant = $1 AND hash = $2")
        .bind(tenant.as_str())
        .bind(hash.as_bytes().as_slice())
        .fetch_optional(connection)
        .await?;
    let Some(bytes) = found else { return Ok(None) };
    if blake3::hash(&bytes).as_bytes() != hash.as_bytes() {
        return Err(damaged(&format!("the blob {hash}"), "its bytes do not have this hash").into());
    }
    Ok(Some(bytes))
}
