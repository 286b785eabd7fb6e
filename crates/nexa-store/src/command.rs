//! The writing calls, each as what it does within the writer's transaction.

use nexa_event::envelope::Fact;
use nexa_event::fact::{Input, WorkloadEvent};
use nexa_event::inbox;
use nexa_ports::store::{AppendError, Appended, Cancelled, Place, Post, Posted, Stamp, StoreError};
use nexa_types::limits::INBOX_ENTRIES_MAX;
use nexa_types::{AgentId, Epoch, InputId, NodeId, StreamId, TenantId, Version, WorkloadId};
use rusqlite::{OptionalExtension, params};

use crate::append::{Desk, Ready, Refused, Written};
use crate::column::{self, count, counter, damaged, moment};

/// One writing call. It may be run more than once, each time in a transaction that has nothing of it.
pub(crate) trait Command: Send + 'static {
    /// What the caller gets, once it is durable.
    type Output: Send + 'static;

    /// Does it. An `Err` gives up the transaction; what concerns this call alone is part of the output.
    fn run(&self, desk: &mut Desk<'_>) -> rusqlite::Result<Self::Output>;

    /// About how many bytes wait with it in the queue.
    fn bytes(&self) -> usize;

    /// How many appends it counts as in a batch.
    fn appends(&self) -> usize {
        1
    }
}

/// Splits a refusal into what the caller is told and what ends the transaction.
fn told<T>(outcome: Result<T, Refused>) -> rusqlite::Result<Result<T, StoreError>> {
    match outcome {
        Ok(value) => Ok(Ok(value)),
        Err(Refused::Append(AppendError::Store(error))) => Ok(Err(error)),
        Err(Refused::Append(error)) => Ok(Err(damaged("a judgement", &error.to_string()))),
        Err(Refused::Sql(error)) => Err(error),
    }
}

/// See `Store::append`.
pub(crate) struct AppendAll(pub(crate) Vec<Ready>);

impl Command for AppendAll {
    type Output = Vec<Result<Appended, AppendError>>;

    fn bytes(&self) -> usize {
        self.0.iter().map(Ready::bytes).sum()
    }

    fn run(&self, desk: &mut Desk<'_>) -> rusqlite::Result<Self::Output> {
        self.0.iter().map(|append| desk.append(append)).collect()
    }

    fn appends(&self) -> usize {
        self.0.len()
    }
}

/// See `Store::post`.
pub(crate) struct PostOne {
    pub(crate) post: Post,
    /// Its input, encoded.
    pub(crate) body: Vec<u8>,
    pub(crate) stamp: Stamp,
}

impl Command for PostOne {
    type Output = Result<Posted, StoreError>;

    fn bytes(&self) -> usize {
        self.body.len()
    }

    fn run(&self, desk: &mut Desk<'_>) -> rusqlite::Result<Self::Output> {
        let to = self.post.to.as_bytes();
        let found: Option<(bool, Option<Box<str>>)> = desk
            .connection
            .prepare_cached("SELECT ended, node FROM agents WHERE agent = ?1")?
            .query_row([to], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((ended, owner)) = found else { return Ok(Ok(Posted::NoSuchAgent)) };
        let known = desk
            .connection
            .prepare_cached("SELECT 1 FROM inbox WHERE agent = ?1 AND input = ?2")?
            .exists(params![to, self.post.id.as_bytes()])?;
        let accepted = Posted::Accepted { owner: column::owner(owner) };
        if known {
            return Ok(Ok(accepted));
        }
        if ended {
            return Ok(Ok(Posted::AgentEnded));
        }
        let waiting: i64 = desk
            .connection
            .prepare_cached("SELECT count(*) FROM inbox WHERE agent = ?1 AND body IS NOT NULL")?
            .query_row([to], |row| row.get(0))?;
        if waiting >= INBOX_ENTRIES_MAX as i64 {
            return Ok(Ok(Posted::InboxFull));
        }
        desk.put_entry(&self.post, &self.body, &self.stamp).map(|()| Ok(accepted))
    }
}

/// See `Store::cancel`.
pub(crate) struct CancelAll {
    pub(crate) workload: WorkloadId,
    pub(crate) reason: String,
    pub(crate) stamp: Stamp,
}

impl CancelAll {
    fn cancel(&self, desk: &mut Desk<'_>) -> Result<Cancelled, Refused> {
        let stream = StreamId::Workload(self.workload);
        let (mut head, flags) = desk.stream(&stream)?;
        if !head.exists() {
            return Ok(Cancelled::NoSuchWorkload);
        }
        if flags.cancelled {
            return Ok(Cancelled::Already);
        }
        if flags.ended {
            return Ok(Cancelled::Ended);
        }
        let wish = Written::of(&Fact::Workload(WorkloadEvent::CancelRequested { reason: self.reason.clone() }));
        wish.fits()?;
        desk.push_unowned(&stream, &mut head, &self.stamp, &[wish])?;
        desk.connection
            .prepare_cached("UPDATE streams SET cancelled = 1 WHERE stream = ?1")?
            .execute([stream.key()])?;

        let raised = self.raise_epochs(desk)?;
        for (agent, epoch, _) in &raised {
            let input = Input::Cancel { reason: self.reason.clone(), epoch: *epoch };
            desk.connection
                .prepare_cached(
                    "INSERT INTO inbox (agent, input, body, at, principal) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (agent, input) DO UPDATE SET body = ?3 WHERE body IS NOT NULL",
                )?
                .execute(params![
                    agent.as_bytes(),
                    InputId::cancel(*agent).as_bytes(),
                    inbox::encode(&input, self.stamp.trace.as_ref()),
                    moment(self.stamp.at),
                    self.stamp.principal.as_str()
                ])?;
        }
        Ok(Cancelled::Accepted { agents: raised.into_iter().map(|(agent, _, owner)| (agent, owner)).collect() })
    }

    fn raise_epochs(&self, desk: &Desk<'_>) -> Result<Vec<(AgentId, Epoch, Option<NodeId>)>, Refused> {
        desk.connection
            .prepare_cached("UPDATE agents SET epoch = epoch + 1, cancelled = 1 WHERE workload = ?1 AND ended = 0")?
            .execute([self.workload.as_bytes()])?;
        let mut select = desk
            .connection
            .prepare_cached("SELECT agent, epoch, node FROM agents WHERE workload = ?1 AND ended = 0 ORDER BY agent")?;
        let mut rows = select.query([self.workload.as_bytes()])?;
        let mut raised = Vec::new();
        while let Some(row) = rows.next()? {
            let agent: Vec<u8> = row.get(0)?;
            let agent = AgentId::from_slice(&agent)
                .ok_or_else(|| damaged("an agent's row", "its id does not have 16 bytes"))?;
            raised.push((agent, Epoch(counter(row.get(1)?)?), column::owner(row.get(2)?)));
        }
        Ok(raised)
    }
}

impl Command for CancelAll {
    type Output = Result<Cancelled, StoreError>;

    fn bytes(&self) -> usize {
        self.reason.len()
    }

    fn run(&self, desk: &mut Desk<'_>) -> rusqlite::Result<Self::Output> {
        told(self.cancel(desk))
    }
}

/// See `Store::place`.
pub(crate) struct PlaceAll(pub(crate) Vec<Place>);

impl Command for PlaceAll {
    type Output = Vec<Result<Epoch, Epoch>>;

    fn bytes(&self) -> usize {
        self.0.len() * size_of::<Place>()
    }

    fn run(&self, desk: &mut Desk<'_>) -> rusqlite::Result<Self::Output> {
        self.0.iter().map(|wish| place(desk, wish)).collect()
    }

    fn appends(&self) -> usize {
        self.0.len()
    }
}

pub(crate) fn place(desk: &Desk<'_>, wish: &Place) -> rusqlite::Result<Result<Epoch, Epoch>> {
    let changed = desk
        .connection
        .prepare_cached(
            "UPDATE agents SET epoch = epoch + 1, node = ?3,
                    state = CASE state WHEN 'ready' THEN 'placed' ELSE state END
             WHERE agent = ?1 AND epoch = ?2 AND ended = 0",
        )?
        .execute(params![wish.agent.as_bytes(), count(wish.from.0), wish.node.as_str()])?;
    if changed == 1 {
        return Ok(Ok(wish.from.next()));
    }
    let current: Option<i64> = desk
        .connection
        .prepare_cached("SELECT epoch FROM agents WHERE agent = ?1")?
        .query_row([wish.agent.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(Err(Epoch(current.unwrap_or(0).unsigned_abs())))
}

/// See `Store::put_snapshot`.
pub(crate) struct PutSnapshot {
    pub(crate) agent: AgentId,
    pub(crate) version: Version,
    pub(crate) bytes: Vec<u8>,
}

/// What stands beside a snapshot, so that it is never taken for another agent's or another version's.
pub(crate) fn snapshot_checksum(agent: AgentId, version: Version, bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("nexa.v1 stored snapshot");
    hasher.update(agent.as_bytes()).update(&version.0.to_le_bytes()).update(bytes);
    *hasher.finalize().as_bytes()
}

impl Command for PutSnapshot {
    type Output = ();

    fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn run(&self, desk: &mut Desk<'_>) -> rusqlite::Result<()> {
        desk.bytes += self.bytes.len() as u64;
        let checksum = snapshot_checksum(self.agent, self.version, &self.bytes);
        desk.connection
            .prepare_cached(
                "INSERT INTO snapshots (agent, version, bytes, checksum) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (agent) DO UPDATE SET version = ?2, bytes = ?3, checksum = ?4 WHERE version <= ?2",
            )?
            .execute(params![self.agent.as_bytes(), count(self.version.0), self.bytes, checksum])?;
        Ok(())
    }
}

/// See `Store::put_blob`.
pub(crate) struct PutBlob {
    pub(crate) tenant: TenantId,
    pub(crate) hash: [u8; 32],
    pub(crate) bytes: Vec<u8>,
}

impl Command for PutBlob {
    type Output = ();

    fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn run(&self, desk: &mut Desk<'_>) -> rusqlite::Result<()> {
        desk.bytes += self.bytes.len() as u64;
        desk.put_blob(&self.tenant, &self.hash, &self.bytes)
    }
}
