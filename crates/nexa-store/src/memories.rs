//! What workloads and tenants remember, in `views.db`: one row an entry, the tenant's own under an empty workload.

use std::time::Duration;

use nexa_ports::memories::Memories;
use nexa_ports::store::StoreError;
use nexa_ports::view::{Answer, Views};
use nexa_types::limits::MEMORY_ENTRIES_MAX;
use nexa_types::{GlobalSeq, Payload, TenantId, WorkloadId};
use nexa_view::{MemoryEntry, MemoryPlace};
use rusqlite::{Connection, params};

use crate::column::{count, damaged};
use crate::open::SqliteStore;
use crate::trouble::refusal;

fn workload(place: &MemoryPlace) -> &[u8] {
    place.workload.as_ref().map_or(&[], |workload| workload.as_bytes().as_slice())
}

/// Takes over one more entry, or forgets its key; then whatever was stored before the newest ones that fit.
pub(crate) fn keep(views: &Connection, entry: &MemoryEntry) -> rusqlite::Result<()> {
    let (tenant, workload) = (entry.place.tenant.as_str(), workload(&entry.place));
    let Some(value) = &entry.value else {
        views
            .prepare_cached("DELETE FROM memories WHERE tenant = ?1 AND workload = ?2 AND key = ?3")?
            .execute(params![tenant, workload, entry.key])?;
        return Ok(());
    };
    views
        .prepare_cached(
            "INSERT INTO memories (tenant, workload, key, seq, value) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (tenant, workload, key) DO UPDATE SET seq = ?4, value = ?5",
        )?
        .execute(params![tenant, workload, entry.key, count(entry.position.0), value.as_bytes()])?;
    views
        .prepare_cached(
            "DELETE FROM memories WHERE tenant = ?1 AND workload = ?2 AND seq <= (
                 SELECT seq FROM memories WHERE tenant = ?1 AND workload = ?2 ORDER BY seq DESC LIMIT 1 OFFSET ?3
             )",
        )?
        .execute(params![tenant, workload, MEMORY_ENTRIES_MAX as i64])?;
    Ok(())
}

/// Forgets all of a memory.
pub(crate) fn forget(views: &Connection, place: &MemoryPlace) -> rusqlite::Result<()> {
    views
        .prepare_cached("DELETE FROM memories WHERE tenant = ?1 AND workload = ?2")?
        .execute(params![place.tenant.as_str(), workload(place)])?;
    Ok(())
}

/// Every entry of a tenant, in the order of their places and keys.
pub(crate) fn all(views: &Connection, tenant: &TenantId) -> Result<Vec<(MemoryPlace, String, Payload)>, StoreError> {
    let sql = |error: rusqlite::Error| refusal(&error);
    let text = "SELECT workload, key, value FROM memories WHERE tenant = ?1 ORDER BY workload, key";
    let mut select = views.prepare_cached(text).map_err(sql)?;
    let mut rows = select.query([tenant.as_str()]).map_err(sql)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(sql)? {
        let workload: Vec<u8> = row.get(0).map_err(sql)?;
        let workload = match workload.as_slice() {
            [] => None,
            bytes => Some(WorkloadId::from_slice(bytes).ok_or_else(|| damaged("a memory", "its workload"))?),
        };
        let place = MemoryPlace { tenant: tenant.clone(), workload };
        let value: Vec<u8> = row.get(2).map_err(sql)?;
        found.push((place, row.get(1).map_err(sql)?, Payload::new(value)));
    }
    Ok(found)
}

fn entries(views: &Connection, place: &MemoryPlace, key: Option<&str>) -> Result<Vec<(String, Payload)>, StoreError> {
    let sql = |error: rusqlite::Error| refusal(&error);
    let text = "SELECT key, value FROM memories WHERE tenant = ?1 AND workload = ?2 AND (?3 IS NULL OR key = ?3)
                ORDER BY key";
    let mut select = views.prepare_cached(text).map_err(sql)?;
    let mut rows = select.query(params![place.tenant.as_str(), workload(place), key]).map_err(sql)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(sql)? {
        let value: Vec<u8> = row.get(1).map_err(sql)?;
        found.push((row.get(0).map_err(sql)?, Payload::new(value)));
    }
    Ok(found)
}

impl Memories for SqliteStore {
    fn entries(
        &self,
        place: MemoryPlace,
        key: Option<String>,
        seen: GlobalSeq,
        deadline: Duration,
    ) -> Answer<'_, Vec<(String, Payload)>> {
        Box::pin(async move {
            self.wait_applied(seen, deadline).await?;
            Ok(self.look(move |views| entries(views, &place, key.as_deref())).await?)
        })
    }
}
