//! Lists and searches over the tables of the read models.
//!
//! Each answer is one statement, or one snapshot, together with the position that it has seen. Pages go by the position of an
//! item's first or newest fact, which never repeats, so that what is added meanwhile moves nothing. Words are looked for with
//! PostgreSQL's search over words of our own; it knows the places of the first 16,383 words of a line and of the first 256
//! times that a word is in it, so that parts in a row are found up to there.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use nexa_ports::store::StoreError;
use nexa_ports::view::{
    AgentFilter, Answer, ApprovalFilter, HistoryHit, ListKind, Listed, Page, ViewError, Views, digest, search_terms,
    token, words,
};
use nexa_types::{AgentId, EffectKey, GlobalSeq, ModuleHash, TenantId, Timestamp, WorkloadId, WorkloadState};
use nexa_view::{AgentView, ApprovalView, HistoryLine, ProgramView, View, WorkloadView};
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Postgres, QueryBuilder, Row};

use crate::column::{count, counter, damaged};
use crate::memories;
use crate::open::PostgresStore;
use crate::shelf::{decode, tsquery};
use crate::trouble::Fault;

/// How long after a reader met damaged read models the next one cannot have them made again.
const REMAKE_PAUSE: Duration = Duration::from_secs(10);
/// How long a rebuild may make no step.
const STILL_MAX: Duration = Duration::from_secs(60);
/// Words of a line that a search shows.
const SNIPPET_WORDS: usize = 24;

impl PostgresStore {
    /// Asks the read models. Damaged ones are asked to be made again.
    pub(crate) async fn look<T, F>(&self, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
    {
        let answer = self.readers.read(question).await;
        if matches!(answer, Err(StoreError::Corrupt { .. })) {
            let is_time = {
                let mut damage = self.damage.lock().expect("no holder of this lock can panic");
                let is_time = damage.is_none_or(|at| at.elapsed() > REMAKE_PAUSE);
                if is_time {
                    *damage = Some(Instant::now());
                }
                is_time
            };
            if is_time {
                tracing::warn!("a reader met damaged read models: they are folded again");
                // If it cannot be asked for now, the next reader does.
                let _ = self.ask_rebuild().await;
            }
        }
        answer
    }

    async fn ask_rebuild(&self) -> Result<u64, StoreError> {
        self.callers.write(|connection| Box::pin(ask_rebuild(connection))).await
    }

    /// A page of views of a table.
    async fn list<T>(&self, kind: ListKind, page: Page, wanted: Wanted) -> Result<Listed<T>, ViewError>
    where
        T: for<'b> minicbor::Decode<'b, ()> + Send + 'static,
    {
        let after = page.after(kind)?;
        let asked = page.clone();
        let listed = self.look(move |connection| {
            let (wanted, page) = (wanted.clone(), asked.clone());
            Box::pin(async move {
                let mut query = QueryBuilder::new(
                    "SELECT m.applied, x.seq, x.body FROM view_meta AS m LEFT JOIN (SELECT seq, body FROM ",
                );
                wanted.push(&mut query);
                push_page(&mut query, kind, "seq", after, &page);
                query.push(") AS x ON true ORDER BY x.seq").push(if kind.newest_first() { " DESC" } else { "" });
                let rows = query.build().fetch_all(connection).await?;
                listed(&rows, kind, &page, |row| decode(row.try_get(2)?).map_err(Fault::from))
            })
        });
        Ok(listed.await?)
    }

    /// A view by its key, whosever it is.
    async fn find<T>(&self, table: &'static str, id: Vec<u8>) -> Result<Option<T>, ViewError>
    where
        T: for<'b> minicbor::Decode<'b, ()> + Send + 'static,
    {
        let found = self.look(move |connection| {
            let id = id.clone();
            Box::pin(async move {
                let mut query = QueryBuilder::<Postgres>::new("SELECT body FROM ");
                query.push(table).push(" WHERE id = ").push_bind(id);
                let row = query.build().fetch_optional(connection).await?;
                row.map(|row| decode(row.try_get(0)?).map_err(Fault::from)).transpose()
            })
        });
        Ok(found.await?)
    }
}

async fn ask_rebuild(connection: &mut PgConnection) -> Result<u64, Fault> {
    let asked =
        sqlx::query_scalar("UPDATE view_meta SET asked = asked + 1 RETURNING asked").fetch_one(connection).await?;
    Ok(counter(asked)?)
}

/// A table of views and which of them.
#[derive(Clone)]
struct Wanted {
    table: &'static str,
    tenant: TenantId,
    workload: Option<WorkloadId>,
    states: Vec<String>,
    open_only: bool,
    module: Option<ModuleHash>,
}

impl Wanted {
    fn all(table: &'static str, tenant: TenantId) -> Self {
        Self { table, tenant, workload: None, states: Vec::new(), open_only: false, module: None }
    }

    fn push(&self, query: &mut QueryBuilder<Postgres>) {
        query.push(self.table).push(" WHERE tenant = ").push_bind(self.tenant.as_str().to_owned());
        if let Some(workload) = &self.workload {
            query.push(" AND workload = ").push_bind(workload.as_bytes().to_vec());
        }
        if !self.states.is_empty() {
            query.push(" AND state = ANY(").push_bind(self.states.clone()).push(")");
        }
        if self.open_only {
            query.push(" AND open");
        }
        if let Some(module) = &self.module {
            query.push(" AND module = ").push_bind(module.as_bytes().to_vec());
        }
    }
}

/// The order and bounds of a page; asks for one item more, to know whether there is a next page.
fn push_page(
    query: &mut QueryBuilder<Postgres>,
    kind: ListKind,
    seq: &'static str,
    after: Option<GlobalSeq>,
    page: &Page,
) {
    let (beyond, order) = if kind.newest_first() { (" < ", " DESC") } else { (" > ", "") };
    if let Some(after) = after {
        query.push(" AND ").push(seq).push(beyond).push_bind(count(after.0));
    }
    query.push(" ORDER BY ").push(seq).push(order).push(" LIMIT ").push_bind(page.items() as i64 + 1);
}

/// A page from rows of `applied, seq, ...`; without any item there is one row without a seq.
fn listed<T>(
    rows: &[PgRow],
    kind: ListKind,
    page: &Page,
    read: impl Fn(&PgRow) -> Result<T, Fault>,
) -> Result<Listed<T>, Fault> {
    let mut items = Vec::with_capacity(rows.len());
    let mut applied_seq = GlobalSeq(0);
    for row in rows {
        applied_seq = GlobalSeq(counter(row.try_get(0)?)?);
        if let Some(seq) = row.try_get::<Option<i64>, _>(1)? {
            items.push((GlobalSeq(counter(seq)?), read(row)?));
        }
    }
    let more = items.len() > page.items();
    items.truncate(page.items());
    let next = items.last().filter(|_| more).map(|(seq, _)| token(kind, *seq));
    Ok(Listed { items: items.into_iter().map(|(_, item)| item).collect(), next, applied_seq })
}

/// A line from `position, at, tenant, workload, agent, kind, text`, from that column on.
fn line(row: &PgRow, from: usize) -> Result<HistoryLine, Fault> {
    let bad = |what: &str| damaged("a line of history", what);
    let workload: Option<&[u8]> = row.try_get(from + 3)?;
    let agent: Option<&[u8]> = row.try_get(from + 4)?;
    Ok(HistoryLine {
        position: GlobalSeq(counter(row.try_get(from)?)?),
        at: Timestamp(counter(row.try_get(from + 1)?)?),
        tenant: TenantId::new(row.try_get(from + 2)?).map_err(|error| bad(&error.to_string()))?,
        workload: workload.and_then(WorkloadId::from_slice),
        agent: agent.and_then(AgentId::from_slice),
        kind: row.try_get(from + 5)?,
        text: String::from_utf8(row.try_get(from + 6)?).map_err(|_| bad("its text is none"))?,
    })
}

/// Some words of a text around the first place where a term is.
fn snippet(text: &str, terms: &[Vec<String>]) -> String {
    // Where each word begins and ends; the same words, in the same order, as `words` gives.
    let mut spans: Vec<(usize, usize)> = Vec::new();
    let mut begin = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        match (begin, c.is_alphanumeric()) {
            (None, true) => begin = Some(at),
            (Some(from), false) => {
                spans.push((from, at));
                begin = None;
            }
            _ => {}
        }
    }
    if spans.len() <= SNIPPET_WORDS {
        return text.to_owned();
    }
    let all = words(text);
    let found = (0..all.len()).find(|at| terms.iter().any(|term| all[*at..].starts_with(term))).unwrap_or(0);
    let first = found.saturating_sub(SNIPPET_WORDS / 3).min(spans.len() - SNIPPET_WORDS);
    let last = first + SNIPPET_WORDS - 1;
    let (before, after) = (if first > 0 { "…" } else { "" }, if last + 1 < spans.len() { "…" } else { "" });
    format!("{before}{}{after}", &text[spans[first].0..spans[last].1])
}

impl Views for PostgresStore {
    fn list_workloads(
        &self,
        tenant: TenantId,
        state: Option<WorkloadState>,
        page: Page,
    ) -> Answer<'_, Listed<WorkloadView>> {
        let states = state.iter().map(ToString::to_string).collect();
        Box::pin(self.list(ListKind::Workloads, page, Wanted { states, ..Wanted::all("view_workloads", tenant) }))
    }

    fn workload(&self, tenant: TenantId, workload: WorkloadId) -> Answer<'_, Option<WorkloadView>> {
        Box::pin(async move {
            let found: Option<WorkloadView> = self.find("view_workloads", workload.as_bytes().to_vec()).await?;
            Ok(found.filter(|view| view.tenant == tenant))
        })
    }

    fn list_agents(&self, tenant: TenantId, filter: AgentFilter, page: Page) -> Answer<'_, Listed<AgentView>> {
        let states = filter.states.iter().map(|state| state.word().to_owned()).collect();
        let wanted = Wanted { workload: filter.workload, states, ..Wanted::all("view_agents", tenant) };
        Box::pin(self.list(ListKind::Agents, page, wanted))
    }

    fn agent(&self, tenant: TenantId, agent: AgentId) -> Answer<'_, Option<AgentView>> {
        Box::pin(async move {
            let found: Option<AgentView> = self.find("view_agents", agent.as_bytes().to_vec()).await?;
            Ok(found.filter(|view| view.tenant == tenant))
        })
    }

    fn list_approvals(&self, tenant: TenantId, filter: ApprovalFilter, page: Page) -> Answer<'_, Listed<ApprovalView>> {
        let all = Wanted::all("view_approvals", tenant);
        let wanted = Wanted { workload: filter.workload, open_only: filter.pending_only, ..all };
        Box::pin(self.list(ListKind::Approvals, page, wanted))
    }

    fn approval(&self, tenant: TenantId, key: EffectKey) -> Answer<'_, Option<ApprovalView>> {
        Box::pin(async move {
            let found: Option<ApprovalView> = self.find("view_approvals", key.as_bytes().to_vec()).await?;
            Ok(found.filter(|view| view.tenant == tenant))
        })
    }

    fn list_programs(&self, tenant: TenantId, page: Page) -> Answer<'_, Listed<ProgramView>> {
        Box::pin(self.list(ListKind::Programs, page, Wanted::all("view_programs", tenant)))
    }

    fn program(&self, tenant: TenantId, module: ModuleHash) -> Answer<'_, Option<ProgramView>> {
        let wanted = Wanted { module: Some(module), ..Wanted::all("view_programs", tenant) };
        let newest = Page { size: 1, token: None };
        Box::pin(async move { Ok(self.list(ListKind::Programs, newest, wanted).await?.items.into_iter().next()) })
    }

    fn search_history(
        &self,
        tenant: TenantId,
        query: String,
        workload: Option<WorkloadId>,
        page: Page,
    ) -> Answer<'_, Listed<HistoryHit>> {
        Box::pin(async move {
            let kind = ListKind::History;
            let after = page.after(kind)?;
            let terms = search_terms(&query);
            let found = self.look(move |connection| {
                let (tenant, terms, page) = (tenant.clone(), terms.clone(), page.clone());
                Box::pin(async move {
                    let mut query = QueryBuilder::new(
                        "SELECT m.applied, x.position, x.position, x.at, x.tenant, x.workload, x.agent, x.kind, x.text, a.body
                         FROM view_meta AS m LEFT JOIN (SELECT * FROM view_history WHERE tenant = ",
                    );
                    query.push_bind(tenant.as_str().to_owned());
                    if let Some(workload) = &workload {
                        query.push(" AND workload = ").push_bind(workload.as_bytes().to_vec());
                    }
                    match terms.is_empty() {
                        true => query.push(" AND false"),
                        false => query.push(" AND words @@ ").push_bind(tsquery(&terms)).push("::tsquery"),
                    };
                    push_page(&mut query, kind, "position", after, &page);
                    query.push(") AS x ON true LEFT JOIN view_agents AS a ON a.id = x.agent ORDER BY x.position DESC");
                    let rows = query.build().fetch_all(connection).await?;
                    listed(&rows, kind, &page, |row| {
                        let mut line = line(row, 2)?;
                        line.text = snippet(&line.text, &terms);
                        let agent: Option<&[u8]> = row.try_get(9)?;
                        let agent: Option<AgentView> = agent.map(decode).transpose()?;
                        Ok(HistoryHit { line, agent_name: agent.map(|agent| agent.name) })
                    })
                })
            });
            Ok(found.await?)
        })
    }

    fn wait_applied(&self, min_seq: GlobalSeq, deadline: Duration) -> Answer<'_, ()> {
        let mut models = self.models.clone();
        Box::pin(async move {
            if models.borrow().applied >= min_seq {
                return Ok(());
            }
            let _eager = self.eager.wait();
            match tokio::time::timeout(deadline, models.wait_for(|models| models.applied >= min_seq)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) => Err(crate::pool::closed().into()),
                Err(_) => Err(ViewError::Behind { wanted: min_seq, applied: self.models.borrow().applied }),
            }
        })
    }

    fn lag(&self) -> u64 {
        self.head.borrow().0.saturating_sub(self.models.borrow().applied.0)
    }

    fn rebuild(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut models = self.models.clone();
            let wanted = *self.head.borrow();
            let asked = self.ask_rebuild().await?;
            let _eager = self.eager.wait();
            loop {
                let now = *models.borrow_and_update();
                if now.made >= asked && now.applied >= wanted {
                    return Ok(());
                }
                match tokio::time::timeout(STILL_MAX, models.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err(crate::pool::closed().into()),
                    Err(_) => {
                        let detail =
                            format!("no read model was folded for {STILL_MAX:?}; the rebuild goes on by itself");
                        return Err(StoreError::Unavailable { detail }.into());
                    }
                }
            }
        })
    }

    fn digest(&self, tenant: TenantId) -> Answer<'_, [u8; 32]> {
        Box::pin(async move {
            let found = self.look(move |connection| {
                let tenant = tenant.clone();
                Box::pin(async move { digest_of(connection, &tenant).await })
            });
            Ok(found.await?)
        })
    }
}

async fn digest_of(connection: &mut PgConnection, tenant: &TenantId) -> Result<[u8; 32], Fault> {
    let mut snapshot = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let bodies = async |connection: &mut PgConnection, statement: &'static str| -> Result<Vec<Vec<u8>>, Fault> {
        Ok(sqlx::query_scalar(statement).bind(tenant.as_str()).fetch_all(connection).await?)
    };
    let mut views = Vec::new();
    for body in bodies(&mut snapshot, "SELECT body FROM view_workloads WHERE tenant = $1 ORDER BY id").await? {
        views.push(View::Workload(decode(&body)?));
    }
    for body in bodies(&mut snapshot, "SELECT body FROM view_agents WHERE tenant = $1 ORDER BY id").await? {
        views.push(View::Agent(decode(&body)?));
    }
    for body in bodies(&mut snapshot, "SELECT body FROM view_approvals WHERE tenant = $1 ORDER BY id").await? {
        views.push(View::Approval(decode(&body)?));
    }
    for body in bodies(&mut snapshot, "SELECT body FROM view_programs WHERE tenant = $1 ORDER BY name, module").await? {
        views.push(View::Program(decode(&body)?));
    }
    let rows = sqlx::query(
        "SELECT position, at, tenant, workload, agent, kind, text FROM view_history WHERE tenant = $1 ORDER BY position",
    )
    .bind(tenant.as_str())
    .fetch_all(&mut *snapshot)
    .await?;
    let lines = rows.iter().map(|row| line(row, 0)).collect::<Result<Vec<_>, _>>()?;
    let kept = memories::all(&mut snapshot, tenant).await?;
    snapshot.commit().await?;
    let kept = kept.iter().map(|(place, key, value)| (place, key.as_str(), value));
    Ok(digest(views.iter(), lines.iter(), kept, tenant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snippet_has_some_words_around_what_was_found() {
        let text: String = (0..100).map(|number| format!("w{number}, ")).collect();
        let term = search_terms("W50");
        let shown = snippet(&text, &term);
        assert!(shown.starts_with("…w42, ") && shown.ends_with("w65…") && shown.contains("w50"), "{shown}");
        assert_eq!(snippet("all of a short text!", &term), "all of a short text!");
        assert!(snippet(&text, &search_terms("w99")).ends_with("w99"));
    }
}
