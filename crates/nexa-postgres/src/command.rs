//! The writing calls that are no appends, each one statement, but for the cancel of a workload that changes all the time.

use nexa_event::envelope::{Fact, Link};
use nexa_event::fact::{Input, WorkloadEvent};
use nexa_event::inbox;
use nexa_ports::store::{Cancelled, Place, Post, Posted, Stamp};
use nexa_types::limits::INBOX_ENTRIES_MAX;
use nexa_types::{AgentId, Epoch, GlobalSeq, InputId, NodeId, StreamId, TenantId, Version, WorkloadId};
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row};

use crate::batch::one_event;
use crate::column::{count, counter, damaged, link, moment, owner};
use crate::read::snapshot_checksum;
use crate::row::{Body, Event};
use crate::trouble::Fault;

/// How often a cancel is tried while agents of the workload may be born, end or move meanwhile. After that they are held.
const CANCEL_FREE_TRIES: u32 = 4;
/// How long the server waits for the next message of a cancel that holds a workload.
const CANCEL_IDLE_TIMEOUT: &str = "1s";

/// See `Store::post`; `body` is the input, encoded.
pub(crate) async fn post(
    connection: &mut PgConnection,
    post: &Post,
    body: &[u8],
    stamp: &Stamp,
) -> Result<Posted, Fault> {
    let row = sqlx::query("SELECT said, owner FROM post_one_1($1, $2, $3, $4, $5, $6)")
        .bind(post.to.as_bytes().as_slice())
        .bind(post.id.as_bytes().as_slice())
        .bind(body)
        .bind(moment(stamp.at))
        .bind(stamp.principal.as_str())
        .bind(INBOX_ENTRIES_MAX as i64)
        .fetch_one(connection)
        .await?;
    match row.try_get(0)? {
        "accepted" => Ok(Posted::Accepted { owner: owner(row.try_get(1)?) }),
        "ended" => Ok(Posted::AgentEnded),
        "full" => Ok(Posted::InboxFull),
        "nobody" => Ok(Posted::NoSuchAgent),
        other => Err(damaged("the answer to a post", other).into()),
    }
}

/// What a cancel is judged by.
struct Condemned {
    version: u64,
    link: Link,
    agents: Vec<(AgentId, Epoch, Option<NodeId>)>,
}

impl Condemned {
    fn accepted(self) -> Cancelled {
        Cancelled::Accepted { agents: self.agents.into_iter().map(|(agent, _, owner)| (agent, owner)).collect() }
    }
}

/// What a cancel says, and the position of its fact if there is one.
type Answered = (Cancelled, Option<GlobalSeq>);

/// See `Store::cancel`; also the position of its fact.
pub(crate) async fn cancel(
    connection: &mut PgConnection,
    workload: WorkloadId,
    reason: &str,
    stamp: &Stamp,
    format: u16,
) -> Result<Answered, Fault> {
    for _ in 0..CANCEL_FREE_TRIES {
        if let Some(answered) = try_cancel(connection, workload, reason, stamp, format).await? {
            return Ok(answered);
        }
    }
    // Agents are born faster than a question and an answer travel.
    let mut change = connection.begin().await?;
    let held = async {
        hold(&mut change, workload).await?;
        let answered = try_cancel(&mut change, workload, reason, stamp, format).await?;
        answered.ok_or_else(|| damaged("a workload", "it changes while it is held").into())
    };
    // Whatever became of it, nobody is kept waiting until this connection is used again.
    let answered: Result<Answered, Fault> = held.await;
    match &answered {
        Ok(_) => change.commit().await?,
        Err(_) => change.rollback().await?,
    }
    answered
}

/// Cancels a workload as it was just read; `None` if it has changed since.
async fn try_cancel(
    connection: &mut PgConnection,
    workload: WorkloadId,
    reason: &str,
    stamp: &Stamp,
    format: u16,
) -> Result<Option<Answered>, Fault> {
    let found = match condemned(connection, workload).await? {
        Ok(found) => found,
        Err(answer) => return Ok(Some((answer, None))),
    };
    let fact = Fact::Workload(WorkloadEvent::CancelRequested { reason: reason.to_owned() });
    let stream = StreamId::Workload(workload);
    let event = one_event(&stream, found.version, found.link, stamp, (&fact, format))?;
    let position = cancel_as_read(connection, workload, reason, stamp, &found, event).await?;
    Ok(position.map(|position| (found.accepted(), Some(position))))
}

/// Holds a workload and its live agents as they are until the transaction ends, in the order of `functions.sql`.
async fn hold(change: &mut PgConnection, workload: WorkloadId) -> Result<(), Fault> {
    sqlx::query("SELECT set_config('idle_in_transaction_session_timeout', $1, true)")
        .bind(CANCEL_IDLE_TIMEOUT)
        .execute(&mut *change)
        .await?;
    sqlx::query("SELECT FROM streams WHERE stream = $1 FOR NO KEY UPDATE")
        .bind(StreamId::Workload(workload).key())
        .execute(&mut *change)
        .await?;
    sqlx::query("SELECT FROM agents WHERE workload = $1 AND NOT ended ORDER BY agent FOR NO KEY UPDATE")
        .bind(workload.as_bytes().as_slice())
        .execute(change)
        .await?;
    Ok(())
}

/// The stream of a workload and its live agents, or why it is not to be cancelled.
async fn condemned(connection: &mut PgConnection, workload: WorkloadId) -> Result<Result<Condemned, Cancelled>, Fault> {
    let rows = sqlx::query(
        "SELECT s.version, s.link, s.cancelled, s.ended, a.agent, a.epoch, a.node
         FROM streams AS s LEFT JOIN agents AS a ON a.workload = $2 AND NOT a.ended
         WHERE s.stream = $1 ORDER BY a.agent",
    )
    .bind(StreamId::Workload(workload).key())
    .bind(workload.as_bytes().as_slice())
    .fetch_all(connection)
    .await?;
    let Some(first) = rows.first() else { return Ok(Err(Cancelled::NoSuchWorkload)) };
    if first.try_get(2)? {
        return Ok(Err(Cancelled::Already));
    }
    if first.try_get(3)? {
        return Ok(Err(Cancelled::Ended));
    }
    let mut agents = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(agent) = row.try_get::<Option<&[u8]>, _>(4)? {
            let agent =
                AgentId::from_slice(agent).ok_or_else(|| damaged("an agent's row", "its id does not have 16 bytes"))?;
            agents.push((agent, Epoch(counter(row.try_get(5)?)?), owner(row.try_get(6)?)));
        }
    }
    Ok(Ok(Condemned { version: counter(first.try_get(0)?)?, link: link(first.try_get(1)?)?, agents }))
}

/// The position of the cancel, or `None` if what it was judged by has changed.
async fn cancel_as_read(
    connection: &mut PgConnection,
    workload: WorkloadId,
    reason: &str,
    stamp: &Stamp,
    found: &Condemned,
    event: Event,
) -> Result<Option<GlobalSeq>, Fault> {
    let (payload, tenant, blob) = match event.payload {
        Body::Inline(bytes) => (Some(bytes), None, None),
        Body::Blob(tenant, hash, bytes) => {
            put_blob(connection, &tenant, &hash, &bytes).await?;
            (None, Some(tenant), Some(hash.to_vec()))
        }
    };
    let inputs: Vec<InputId> = found.agents.iter().map(|(agent, ..)| InputId::cancel(*agent)).collect();
    let cancel = |epoch: Epoch| Input::Cancel { reason: reason.to_owned(), epoch: epoch.next() };
    let body = |epoch: Epoch| inbox::encode(&cancel(epoch), stamp.trace.as_ref());
    let position: Option<i64> =
        sqlx::query_scalar("SELECT cancel_workload_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)")
            .bind(event.stream)
            .bind(count(found.version))
            .bind(workload.as_bytes().as_slice())
            .bind(event.header)
            .bind(payload)
            .bind(tenant)
            .bind(blob)
            .bind(event.links)
            .bind(found.agents.iter().map(|(agent, ..)| agent.as_bytes().as_slice()).collect::<Vec<_>>())
            .bind(found.agents.iter().map(|(_, epoch, _)| count(epoch.0)).collect::<Vec<_>>())
            .bind(inputs.iter().map(|input| input.as_bytes().as_slice()).collect::<Vec<_>>())
            .bind(found.agents.iter().map(|(_, epoch, _)| body(*epoch)).collect::<Vec<_>>())
            .bind(moment(stamp.at))
            .bind(stamp.principal.as_str())
            .fetch_one(connection)
            .await?;
    Ok(position.map(counter).transpose()?.map(GlobalSeq))
}

/// The arrays of wishes: agents, epochs, nodes.
pub(crate) fn wished(wishes: &[Place]) -> (Vec<&[u8]>, Vec<i64>, Vec<&str>) {
    let agents = wishes.iter().map(|wish| wish.agent.as_bytes().as_slice()).collect();
    let froms = wishes.iter().map(|wish| count(wish.from.0)).collect();
    (agents, froms, wishes.iter().map(|wish| wish.node.as_str()).collect())
}

/// The answer to a wish from `changed, epoch`.
pub(crate) fn placed(row: &PgRow) -> Result<Result<Epoch, Epoch>, Fault> {
    let epoch = Epoch(counter(row.try_get(1)?)?);
    Ok(if row.try_get(0)? { Ok(epoch) } else { Err(epoch) })
}

/// See `Store::place`.
pub(crate) async fn place(connection: &mut PgConnection, wishes: &[Place]) -> Result<Vec<Result<Epoch, Epoch>>, Fault> {
    let (agents, froms, nodes) = wished(wishes);
    let rows = sqlx::query("SELECT changed, epoch FROM place_all_1($1, $2, $3, false)")
        .bind(agents)
        .bind(froms)
        .bind(nodes)
        .fetch_all(connection)
        .await?;
    rows.iter().map(placed).collect()
}

/// See `Store::put_snapshot`.
pub(crate) async fn put_snapshot(
    connection: &mut PgConnection,
    agent: AgentId,
    version: Version,
    bytes: &[u8],
) -> Result<(), Fault> {
    sqlx::query(
        "INSERT INTO snapshots AS s (agent, version, bytes, checksum) VALUES ($1, $2, $3, $4)
         ON CONFLICT (agent) DO UPDATE SET version = $2, bytes = $3, checksum = $4 WHERE s.version <= $2",
    )
    .bind(agent.as_bytes().as_slice())
    .bind(count(version.0))
    .bind(bytes)
    .bind(snapshot_checksum(agent, version, bytes).to_vec())
    .execute(connection)
    .await?;
    Ok(())
}

/// See `Store::put_blob`.
pub(crate) async fn put_blob(
    connection: &mut PgConnection,
    tenant: &str,
    hash: &[u8; 32],
    bytes: &[u8],
) -> Result<(), Fault> {
    sqlx::query("INSERT INTO blobs (tenant, hash, bytes) VALUES ($1, $2, $3) ON CONFLICT (tenant, hash) DO NOTHING")
        .bind(tenant)
        .bind(hash.as_slice())
        .bind(bytes)
        .execute(connection)
        .await?;
    Ok(())
}

/// The blob of a tenant, for whoever keeps it.
pub(crate) fn named(tenant: &TenantId, bytes: &[u8]) -> (String, [u8; 32]) {
    (tenant.as_str().to_owned(), *blake3::hash(bytes).as_bytes())
}
