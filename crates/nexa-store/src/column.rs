//! How domain values stand in columns, and back.
//!
//! What cannot be read back is damage: each function from a column answers [`StoreError::Corrupt`] with its place.

use nexa_event::codec;
use nexa_event::envelope::Link;
use nexa_ports::store::{AgentRow, StoreError};
use nexa_types::{AgentId, AgentState, Epoch, NodeId, PrincipalId, TenantId, Timestamp, Version, WorkloadId};
use rusqlite::Row;

/// The place of damage, for people.
pub(crate) fn damaged(place: &str, what: &str) -> StoreError {
    StoreError::Corrupt { detail: format!("{place}: {what}") }
}

/// A moment as a column. Moments beyond the 292 millionth year are all the same.
pub(crate) fn moment(at: Timestamp) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

/// A counter as a column. Counters grow by one and cannot reach 2⁶³.
pub(crate) fn count(counter: u64) -> i64 {
    i64::try_from(counter).unwrap_or(i64::MAX)
}

/// A counter from a column.
pub(crate) fn counter(column: i64) -> Result<u64, StoreError> {
    u64::try_from(column).map_err(|_| damaged("a counter", "is negative"))
}

/// Bytes as text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// And back; `None` for anything else.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// A link of a chain from a column.
pub(crate) fn link(column: &[u8]) -> Result<Link, StoreError> {
    column.try_into().map(Link).map_err(|_| damaged("a link of a chain", "does not have 32 bytes"))
}

/// Whom to tell, from the column of an agent's owner. A name that cannot be one is nobody's: hints may get lost.
pub(crate) fn owner(column: Option<Box<str>>) -> Option<NodeId> {
    column.and_then(|name| NodeId::new(&name).ok())
}

/// An agent's state from a column, where it stands as [`AgentState::word`].
fn state(word: &str) -> Result<AgentState, StoreError> {
    AgentState::of_word(word).ok_or_else(|| damaged("an agent's row", "its state is none that this build knows"))
}

/// The columns of [`agent_row`], in its order.
pub(crate) const AGENT_COLUMNS: &str =
    "agent, workload, tenant, principal, node, epoch, version, state, due, cancelled, priority, asks";

/// An agent's row from [`AGENT_COLUMNS`].
pub(crate) fn agent_row(row: &Row<'_>) -> rusqlite::Result<Result<AgentRow, StoreError>> {
    let agent: Vec<u8> = row.get(0)?;
    let workload: Vec<u8> = row.get(1)?;
    let tenant: String = row.get(2)?;
    let principal: String = row.get(3)?;
    let node: Option<String> = row.get(4)?;
    let epoch: i64 = row.get(5)?;
    let version: i64 = row.get(6)?;
    let word: String = row.get(7)?;
    let due: Option<i64> = row.get(8)?;
    let cancelled: bool = row.get(9)?;
    let priority: i64 = row.get(10)?;
    let asks: Option<Vec<u8>> = row.get(11)?;
    let read = || {
        let bad = |what: &str| damaged("an agent's row", what);
        Ok(AgentRow {
            agent: AgentId::from_slice(&agent).ok_or_else(|| bad("its id does not have 16 bytes"))?,
            workload: WorkloadId::from_slice(&workload).ok_or_else(|| bad("its workload does not have 16 bytes"))?,
            tenant: TenantId::new(&tenant).map_err(|error| bad(&error.to_string()))?,
            principal: PrincipalId::new(&principal).map_err(|error| bad(&error.to_string()))?,
            node: node.map(|node| NodeId::new(&node)).transpose().map_err(|error| bad(&error.to_string()))?,
            epoch: Epoch(counter(epoch)?),
            version: Version(counter(version)?),
            state: state(&word)?,
            due: due.map(counter).transpose()?.map(Timestamp),
            cancelled,
            priority: u8::try_from(priority).map_err(|_| bad("its priority is not within 0 to 255"))?,
            asks: asks.map(|asks| codec::decode(&asks)).transpose().map_err(|error| bad(&error.to_string()))?,
        })
    };
    Ok(read())
}
