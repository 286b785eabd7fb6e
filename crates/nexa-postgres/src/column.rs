//! How domain values stand in columns, and back.
//!
//! What cannot be read back is damage: each function from a column answers [`StoreError::Corrupt`] with its place.

use nexa_event::codec;
use nexa_event::envelope::Link;
use nexa_ports::store::{AgentRow, StoreError};
use nexa_types::{AgentId, AgentState, Epoch, NodeId, PrincipalId, TenantId, Timestamp, Version, WorkloadId};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::trouble::Fault;

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

/// A link of a chain from a column.
pub(crate) fn link(column: &[u8]) -> Result<Link, StoreError> {
    column.try_into().map(Link).map_err(|_| damaged("a link of a chain", "does not have 32 bytes"))
}

/// Whom to tell, from the column of an agent's owner. A name that cannot be one is nobody's: hints may get lost.
pub(crate) fn owner(node: Option<String>) -> Option<NodeId> {
    node.and_then(|node| NodeId::new(&node).ok())
}

/// An agent's state from a column, where it stands as [`AgentState::word`].
fn state(word: &str) -> Result<AgentState, StoreError> {
    AgentState::of_word(word).ok_or_else(|| damaged("an agent's row", "its state is none that this build knows"))
}

/// The columns of [`agent_row`], in its order.
macro_rules! agent_columns {
    () => {
        "agent, workload, tenant, principal, node, epoch, version, state, due, cancelled, priority, asks"
    };
}
pub(crate) use agent_columns;

/// An agent's row from `agent_columns!`.
pub(crate) fn agent_row(row: &PgRow) -> Result<AgentRow, Fault> {
    let bad = |what: &str| damaged("an agent's row", what);
    let tenant: &str = row.try_get(2)?;
    let principal: &str = row.try_get(3)?;
    let node: Option<&str> = row.try_get(4)?;
    let due: Option<i64> = row.try_get(8)?;
    let priority: i16 = row.try_get(10)?;
    let asks: Option<&[u8]> = row.try_get(11)?;
    Ok(AgentRow {
        agent: AgentId::from_slice(row.try_get(0)?).ok_or_else(|| bad("its id does not have 16 bytes"))?,
        workload: WorkloadId::from_slice(row.try_get(1)?).ok_or_else(|| bad("its workload does not have 16 bytes"))?,
        tenant: TenantId::new(tenant).map_err(|error| bad(&error.to_string()))?,
        principal: PrincipalId::new(principal).map_err(|error| bad(&error.to_string()))?,
        node: node.map(NodeId::new).transpose().map_err(|error| bad(&error.to_string()))?,
        epoch: Epoch(counter(row.try_get(5)?)?),
        version: Version(counter(row.try_get(6)?)?),
        state: state(row.try_get(7)?)?,
        due: due.map(counter).transpose()?.map(Timestamp),
        cancelled: row.try_get(9)?,
        priority: u8::try_from(priority).map_err(|_| bad("its priority is not within 0 to 255"))?,
        asks: asks.map(codec::decode).transpose().map_err(|error| bad(&error.to_string()))?,
    })
}
