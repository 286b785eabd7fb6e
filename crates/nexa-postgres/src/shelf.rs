//! What one batch of facts makes of the read models: worked out in memory, then written table by table.
//!
//! A fold asks for views one at a time and cannot wait for a server. So it runs over what is loaded, notes what it missed, and
//! is run again from the same beginning once that was loaded too; mostly the second or third run misses nothing. What begins in
//! the batch is not asked for: there is no view of a stream before its first fact was folded, and none is folded twice.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use nexa_event::codec;
use nexa_ports::store::{Recorded, StoreError};
use nexa_ports::view::words;
use nexa_types::limits::MEMORY_ENTRIES_MAX;
use nexa_types::{StreamId, Version};
use nexa_view::{HistoryLine, Key, MemoryEntry, MemoryPlace, Seen, Shelf, View, fold};
use sqlx::{PgConnection, Row};

use crate::column::{count, damaged, moment};
use crate::trouble::Fault;

/// Views as they are kept; `None` for one that is known not to be there.
pub(crate) type Loaded = BTreeMap<Key, Option<View>>;

/// Bytes of a word that PostgreSQL keeps; of a longer one only the beginning is compared.
const WORD_BYTES_MAX: usize = 2_046;

/// What a batch changes.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) views: BTreeMap<Key, View>,
    lines: Vec<HistoryLine>,
    memories: Vec<Remembering>,
}

/// A change of a memory: an entry, or all of it forgotten.
enum Remembering {
    Keep(MemoryEntry),
    Forget(MemoryPlace),
}

struct Draft<'a> {
    loaded: &'a Loaded,
    /// What begins in this batch.
    new: BTreeSet<Key>,
    changes: Changes,
    missing: BTreeSet<Key>,
}

impl Shelf for Draft<'_> {
    type Error = Infallible;

    fn load(&mut self, key: &Key) -> Result<Option<View>, Infallible> {
        if let Some(view) = self.changes.views.get(key) {
            return Ok(Some(view.clone()));
        }
        let found = self.loaded.get(key);
        if found.is_none() && !self.new.contains(key) {
            self.missing.insert(key.clone());
        }
        Ok(found.cloned().flatten())
    }

    fn save(&mut self, view: View) -> Result<(), Infallible> {
        self.changes.views.insert(view.key(), view);
        Ok(())
    }

    fn save_line(&mut self, line: HistoryLine) -> Result<(), Infallible> {
        self.changes.lines.push(line);
        Ok(())
    }

    fn keep_memory(&mut self, entry: MemoryEntry) -> Result<(), Infallible> {
        self.changes.memories.push(Remembering::Keep(entry));
        Ok(())
    }

    fn forget_memory(&mut self, place: &MemoryPlace) -> Result<(), Infallible> {
        self.changes.memories.push(Remembering::Forget(place.clone()));
        Ok(())
    }
}

/// What the facts change, or which views must be loaded first.
pub(crate) fn fold_all(facts: &[Recorded], loaded: &Loaded) -> Result<Changes, BTreeSet<Key>> {
    let new = facts.iter().filter_map(begins).collect();
    let mut draft = Draft { loaded, new, changes: Changes::default(), missing: BTreeSet::new() };
    for fact in facts {
        let seen = Seen { position: fact.position, workload: fact.workload, envelope: &fact.envelope };
        match fold(&mut draft, &seen) {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }
    if draft.missing.is_empty() { Ok(draft.changes) } else { Err(draft.missing) }
}

/// Of what a fact is the first one.
fn begins(fact: &Recorded) -> Option<Key> {
    let header = &fact.envelope.header;
    match &header.stream {
        StreamId::Agent(agent) if header.version == Version(1) => Some(Key::Agent(*agent)),
        StreamId::Workload(workload) if header.version == Version(1) => Some(Key::Workload(*workload)),
        _ => None,
    }
}

/// A view's bytes as a view.
pub(crate) fn decode<T: for<'b> minicbor::Decode<'b, ()>>(bytes: &[u8]) -> Result<T, StoreError> {
    codec::decode(bytes).map_err(|error| damaged("a read model", &error.to_string()))
}

/// Loads views by their keys, those that are not there as well.
pub(crate) async fn load(connection: &mut PgConnection, keys: BTreeSet<Key>, loaded: &mut Loaded) -> Result<(), Fault> {
    let (mut workloads, mut agents, mut approvals) = (Vec::new(), Vec::new(), Vec::new());
    let mut programs = Vec::new();
    for key in &keys {
        match key {
            Key::Workload(id) => workloads.push(id.as_bytes().as_slice()),
            Key::Agent(id) => agents.push(id.as_bytes().as_slice()),
            Key::Approval(id) => approvals.push(id.as_bytes().as_slice()),
            Key::Program(tenant, name, module) => programs.push((tenant, name, module)),
        }
    }
    let rows = sqlx::query(
        "SELECT 0, body FROM view_workloads WHERE id = ANY($1) UNION ALL SELECT 1, body FROM view_agents WHERE id = ANY($2)
         UNION ALL SELECT 2, body FROM view_approvals WHERE id = ANY($3)",
    )
    .bind(workloads)
    .bind(agents)
    .bind(approvals)
    .fetch_all(&mut *connection)
    .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let body: &[u8] = row.try_get(1)?;
        found.push(match row.try_get::<i32, _>(0)? {
            0 => View::Workload(decode(body)?),
            1 => View::Agent(decode(body)?),
            _ => View::Approval(decode(body)?),
        });
    }
    for (tenant, name, module) in programs {
        let body: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT body FROM view_programs WHERE tenant = $1 AND name = $2 AND module = $3")
                .bind(tenant.as_str())
                .bind(name.as_bytes())
                .bind(module.as_bytes().as_slice())
                .fetch_optional(&mut *connection)
                .await?;
        if let Some(body) = body {
            found.push(View::Program(decode(&body)?));
        }
    }
    loaded.extend(keys.into_iter().map(|key| (key, None)));
    loaded.extend(found.into_iter().map(|view| (view.key(), Some(view))));
    Ok(())
}

/// Writes what a batch changes, within its transaction.
pub(crate) async fn write(connection: &mut PgConnection, changes: &Changes) -> Result<(), Fault> {
    write_workloads_and_agents(connection, changes).await?;
    write_approvals_and_programs(connection, changes).await?;
    write_lines(connection, &changes.lines).await?;
    remember(connection, &changes.memories).await
}

async fn write_workloads_and_agents(connection: &mut PgConnection, changes: &Changes) -> Result<(), Fault> {
    let (mut ids, mut tenants, mut seqs, mut states, mut bodies) = (vec![], vec![], vec![], vec![], vec![]);
    for view in changes.views.values() {
        if let View::Workload(view) = view {
            ids.push(view.workload.as_bytes().as_slice());
            tenants.push(view.tenant.as_str());
            seqs.push(count(view.submitted_seq.0));
            states.push(view.state.to_string());
            bodies.push(codec::encode(view));
        }
    }
    if !ids.is_empty() {
        sqlx::query(
            "INSERT INTO view_workloads (id, tenant, seq, state, body) SELECT * FROM unnest($1, $2, $3, $4, $5)
             ON CONFLICT (id) DO UPDATE SET state = excluded.state, body = excluded.body",
        )
        .bind(ids)
        .bind(tenants)
        .bind(seqs)
        .bind(states)
        .bind(bodies)
        .execute(&mut *connection)
        .await?;
    }
    let (mut ids, mut tenants, mut workloads, mut seqs) = (vec![], vec![], vec![], vec![]);
    let (mut states, mut bodies) = (vec![], vec![]);
    for view in changes.views.values() {
        if let View::Agent(view) = view {
            ids.push(view.agent.as_bytes().as_slice());
            tenants.push(view.tenant.as_str());
            workloads.push(view.workload.as_bytes().as_slice());
            seqs.push(count(view.born_seq.0));
            states.push(view.state.word());
            bodies.push(codec::encode(view));
        }
    }
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO view_agents (id, tenant, workload, seq, state, body) SELECT * FROM unnest($1, $2, $3, $4, $5, $6)
         ON CONFLICT (id) DO UPDATE SET state = excluded.state, body = excluded.body",
    )
    .bind(ids)
    .bind(tenants)
    .bind(workloads)
    .bind(seqs)
    .bind(states)
    .bind(bodies)
    .execute(connection)
    .await?;
    Ok(())
}

/// One by one: there are few of them.
async fn write_approvals_and_programs(connection: &mut PgConnection, changes: &Changes) -> Result<(), Fault> {
    for view in changes.views.values() {
        match view {
            View::Approval(view) => {
                sqlx::query(
                    "INSERT INTO view_approvals (id, tenant, workload, seq, open, body) VALUES ($1, $2, $3, $4, $5, $6)
                     ON CONFLICT (id) DO UPDATE SET open = excluded.open, body = excluded.body",
                )
                .bind(view.key.as_bytes().as_slice())
                .bind(view.tenant.as_str())
                .bind(view.workload.as_bytes().as_slice())
                .bind(count(view.asked_seq.0))
                .bind(view.closed.is_none())
                .bind(codec::encode(view))
                .execute(&mut *connection)
                .await?;
            }
            View::Program(view) => {
                sqlx::query(
                    "INSERT INTO view_programs (tenant, name, module, seq, body) VALUES ($1, $2, $3, $4, $5)
                     ON CONFLICT (tenant, name, module) DO UPDATE SET seq = excluded.seq, body = excluded.body",
                )
                .bind(view.tenant.as_str())
                .bind(view.name.as_bytes())
                .bind(view.module.as_bytes().as_slice())
                .bind(count(view.applied.0))
                .bind(codec::encode(view))
                .execute(&mut *connection)
                .await?;
            }
            View::Workload(_) | View::Agent(_) => {}
        }
    }
    Ok(())
}

async fn write_lines(connection: &mut PgConnection, lines: &[HistoryLine]) -> Result<(), Fault> {
    if lines.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO view_history (position, at, tenant, workload, agent, kind, text, words)
         SELECT w.position, w.at, w.tenant, w.workload, w.agent, w.kind, w.text, w.words::tsvector
         FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS w (position, at, tenant, workload, agent, kind, text, words)",
    )
    .bind(lines.iter().map(|line| count(line.position.0)).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| moment(line.at)).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.tenant.as_str()).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.workload.as_ref().map(|id| id.as_bytes().to_vec())).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.agent.as_ref().map(|id| id.as_bytes().to_vec())).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.kind.to_string()).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.text.as_bytes()).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| vector(&line.text)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// A text as PostgreSQL's search keeps it: our words at their places, so that its own ideas of words do not matter.
fn vector(text: &str) -> String {
    let places = words(text).into_iter().zip(1..);
    places.map(|(word, place)| format!("'{}':{place} ", lexeme(&word))).collect()
}

/// A query for all of the terms, each of them its parts in a row.
pub(crate) fn tsquery(terms: &[Vec<String>]) -> String {
    let row = |parts: &Vec<String>| {
        let parts: Vec<String> = parts.iter().map(|part| format!("'{}'", lexeme(part))).collect();
        format!("({})", parts.join(" <-> "))
    };
    terms.iter().map(row).collect::<Vec<_>>().join(" & ")
}

/// Words have letters and digits only, so that nothing of them needs to be escaped.
fn lexeme(word: &str) -> &str {
    let end = (0..=word.len().min(WORD_BYTES_MAX)).rev().find(|end| word.is_char_boundary(*end)).unwrap_or(0);
    &word[..end]
}

async fn remember(connection: &mut PgConnection, memories: &[Remembering]) -> Result<(), Fault> {
    if memories.is_empty() {
        return Ok(());
    }
    let (mut tenants, mut workloads, mut keys, mut seqs, mut values) = (vec![], vec![], vec![], vec![], vec![]);
    for change in memories {
        let (place, entry) = match change {
            Remembering::Keep(entry) => (&entry.place, Some(entry)),
            Remembering::Forget(place) => (place, None),
        };
        tenants.push(place.tenant.as_str());
        workloads.push(workload_key(place));
        keys.push(entry.map(|entry| entry.key.as_bytes()));
        seqs.push(entry.map_or(0, |entry| count(entry.position.0)));
        values.push(entry.and_then(|entry| entry.value.as_ref()).map(|value| value.as_bytes()));
    }
    sqlx::query("SELECT remember_all_1($1, $2, $3, $4, $5, $6)")
        .bind(tenants)
        .bind(workloads)
        .bind(keys)
        .bind(seqs)
        .bind(values)
        .bind(MEMORY_ENTRIES_MAX as i64)
        .execute(connection)
        .await?;
    Ok(())
}

/// The tenant's own memory lies under an empty workload.
pub(crate) fn workload_key(place: &MemoryPlace) -> &[u8] {
    place.workload.as_ref().map_or(&[], |workload| workload.as_bytes().as_slice())
}

#[cfg(test)]
mod tests {
    use nexa_event::envelope::{Envelope, FORMAT, Fact, Header};
    use nexa_event::fact::WorkloadEvent;
    use nexa_types::{AgentId, Budget, GlobalSeq, PrincipalId, RequestId, TenantId, Timestamp, WorkloadId};

    use super::*;

    fn recorded(workload: WorkloadId, version: u64, event: WorkloadEvent) -> Recorded {
        let header = Header {
            format: FORMAT,
            stream: StreamId::Workload(workload),
            version: Version(version),
            at: Timestamp(1),
            tenant: TenantId::local(),
            principal: PrincipalId::local(),
            epoch: None,
            trace: None,
        };
        let envelope = Envelope { header, fact: Fact::Workload(event) };
        Recorded { position: GlobalSeq(version), workload: Some(workload), envelope }
    }

    #[test]
    fn what_begins_in_a_batch_is_not_asked_for_and_anything_else_is() {
        let workload = WorkloadId::from_bytes([7; 16]);
        let submitted = WorkloadEvent::Submitted {
            request: RequestId::from_bytes([7; 16]),
            request_hash: [0; 32],
            name: "test".to_owned(),
            root: AgentId::root(workload),
            budget: Budget::default(),
            priority: 100,
        };
        let cancelled = WorkloadEvent::CancelRequested { reason: "a test wants it".to_owned() };
        let facts = [recorded(workload, 1, submitted), recorded(workload, 2, cancelled)];
        let changes = fold_all(&facts, &Loaded::new()).unwrap_or_else(|missing| panic!("{missing:?} were asked for"));
        assert!(changes.views.contains_key(&Key::Workload(workload)));
        let missing = fold_all(&facts[1..], &Loaded::new()).err();
        assert_eq!(missing, Some([Key::Workload(workload)].into()), "it was begun by an earlier batch");
    }
}
