//! What workloads and tenants remember: one row an entry, the tenant's own under an empty workload.

use std::time::Duration;

use nexa_ports::memories::Memories;
use nexa_ports::view::{Answer, Views};
use nexa_types::{GlobalSeq, Payload, TenantId, WorkloadId};
use nexa_view::MemoryPlace;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::column::damaged;
use crate::open::PostgresStore;
use crate::shelf::workload_key;
use crate::trouble::Fault;

/// An entry from `key, value`, from that column on.
fn entry(row: &PgRow, from: usize) -> Result<(String, Payload), Fault> {
    let key = String::from_utf8(row.try_get(from)?).map_err(|_| damaged("a memory", "a key is no text"))?;
    Ok((key, Payload::new(row.try_get::<Vec<u8>, _>(from + 1)?)))
}

/// Every entry of a tenant, in the order of their places and keys.
pub(crate) async fn all(
    connection: &mut PgConnection,
    tenant: &TenantId,
) -> Result<Vec<(MemoryPlace, String, Payload)>, Fault> {
    let rows = sqlx::query("SELECT workload, key, value FROM view_memories WHERE tenant = $1 ORDER BY workload, key")
        .bind(tenant.as_str())
        .fetch_all(connection)
        .await?;
    let read = |row: &PgRow| {
        let workload = match row.try_get::<&[u8], _>(0)? {
            [] => None,
            bytes => Some(WorkloadId::from_slice(bytes).ok_or_else(|| damaged("a memory", "its workload"))?),
        };
        let (key, value) = entry(row, 1)?;
        Ok((MemoryPlace { tenant: tenant.clone(), workload }, key, value))
    };
    rows.iter().map(read).collect()
}

async fn entries(
    connection: &mut PgConnection,
    place: &MemoryPlace,
    key: Option<&str>,
) -> Result<Vec<(String, Payload)>, Fault> {
    let rows = sqlx::query(
        "SELECT key, value FROM view_memories WHERE tenant = $1 AND workload = $2 AND ($3::bytea IS NULL OR key = $3)
         ORDER BY key",
    )
    .bind(place.tenant.as_str())
    .bind(workload_key(place))
    .bind(key.map(str::as_bytes))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| entry(row, 0)).collect()
}

impl Memories for PostgresStore {
    fn entries(
        &self,
        place: MemoryPlace,
        key: Option<String>,
        seen: GlobalSeq,
        deadline: Duration,
    ) -> Answer<'_, Vec<(String, Payload)>> {
        Box::pin(async move {
            self.wait_applied(seen, deadline).await?;
            let found = self.look(move |connection| {
                let (place, key) = (place.clone(), key.clone());
                Box::pin(async move { entries(connection, &place, key.as_deref()).await })
            });
            Ok(found.await?)
        })
    }
}
