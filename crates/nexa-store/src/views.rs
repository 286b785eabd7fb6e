//! Lists and searches over `views.db`.
//!
//! Each answer is read in one transaction together with the position that it has seen. Pages go by the position of an
//! item's first or newest fact, which never repeats, so that what is added meanwhile moves nothing.

use std::time::Duration;

use nexa_ports::store::StoreError;
use nexa_ports::view::{
    AgentFilter, Answer, ApprovalFilter, HistoryHit, ListKind, Listed, Page, ViewError, Views, digest, search_terms,
    token,
};
use nexa_types::{AgentId, EffectKey, GlobalSeq, ModuleHash, TenantId, WorkloadId, WorkloadState};
use nexa_view::{AgentView, ApprovalView, Key, ProgramView, View, WorkloadView};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::column::{count, counter};
use crate::memories;
use crate::open::SqliteStore;
use crate::projector::{decode, line, load};
use crate::trouble::refusal;
use crate::views_file::read_applied;

/// A condition that grows, with its values.
struct Query {
    from: String,
    values: Vec<Value>,
}

impl Query {
    fn new(from: &str, tenant: &TenantId) -> Self {
        Self { from: from.to_owned(), values: vec![Value::Text(tenant.as_str().to_owned())] }
    }

    /// Adds a condition that ends with the value, as `x =`.
    fn and(&mut self, condition: &str, value: Value) {
        self.values.push(value);
        self.from.push_str(&format!(" AND {condition} ?{}", self.values.len()));
    }

    fn and_workload(&mut self, column: &str, workload: Option<WorkloadId>) {
        if let Some(workload) = workload {
            self.and(&format!("{column} ="), Value::Blob(workload.as_bytes().to_vec()));
        }
    }

    /// The order and bounds of a page; asks for one item more, to know whether there is a next page.
    fn page(&mut self, kind: ListKind, seq: &str, after: Option<GlobalSeq>, page: &Page) {
        let (beyond, order) = if kind.newest_first() { ("<", "DESC") } else { (">", "ASC") };
        if let Some(after) = after {
            self.and(&format!("{seq} {beyond}"), Value::Integer(count(after.0)));
        }
        self.from.push_str(&format!(" ORDER BY {seq} {order} LIMIT {}", page.items() + 1));
    }

    fn run<T>(
        &self,
        connection: &Connection,
        mut read: impl FnMut(&rusqlite::Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let sql = |error: rusqlite::Error| refusal(&error);
        let mut select = connection.prepare_cached(&self.from).map_err(sql)?;
        let mut rows = select.query(params_from_iter(&self.values)).map_err(sql)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(sql)? {
            found.push(read(row)?);
        }
        Ok(found)
    }
}

impl SqliteStore {
    /// Asks the read models. Damage is told to the projector, which makes them again.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let answer = self.views.read(question).await;
        if matches!(answer, Err(StoreError::Corrupt { .. })) {
            self.projector.report_damage();
        }
        answer
    }

    /// A page of views: `query` selects `seq, body`.
    async fn list<T>(&self, kind: ListKind, page: Page, mut query: Query) -> Result<Listed<T>, ViewError>
    where
        T: for<'b> minicbor::Decode<'b, ()> + Send + 'static,
    {
        query.page(kind, "seq", page.after(kind)?, &page);
        let read = move |connection: &Connection| {
            let items = query.run(connection, |row| {
                let seq = counter(row.get(0).map_err(|error| refusal(&error))?)?;
                let body: Vec<u8> = row.get(1).map_err(|error| refusal(&error))?;
                Ok((GlobalSeq(seq), decode(&body)?))
            })?;
            listed(connection, kind, &page, items)
        };
        Ok(self.look(read).await?)
    }

    async fn find(&self, key: Key) -> Result<Option<View>, ViewError> {
        Ok(self.look(move |connection| load(connection, &key)).await?)
    }
}

fn listed<T>(
    connection: &Connection,
    kind: ListKind,
    page: &Page,
    mut items: Vec<(GlobalSeq, T)>,
) -> Result<Listed<T>, StoreError> {
    let more = items.len() > page.items();
    items.truncate(page.items());
    let next = items.last().filter(|_| more).map(|(seq, _)| token(kind, *seq));
    let applied_seq = read_applied(connection).map_err(|error| refusal(&error))?;
    Ok(Listed { items: items.into_iter().map(|(_, item)| item).collect(), next, applied_seq })
}

impl Views for SqliteStore {
    fn list_workloads(
        &self,
        tenant: TenantId,
        state: Option<WorkloadState>,
        page: Page,
    ) -> Answer<'_, Listed<WorkloadView>> {
        let mut query = Query::new("SELECT seq, body FROM workloads WHERE tenant = ?1", &tenant);
        if let Some(state) = state {
            query.and("state =", Value::Text(state.to_string()));
        }
        Box::pin(self.list(ListKind::Workloads, page, query))
    }

    fn workload(&self, tenant: TenantId, workload: WorkloadId) -> Answer<'_, Option<WorkloadView>> {
        Box::pin(async move {
            Ok(match self.find(Key::Workload(workload)).await? {
                Some(View::Workload(view)) if view.tenant == tenant => Some(view),
                _ => None,
            })
        })
    }

    fn list_agents(&self, tenant: TenantId, filter: AgentFilter, page: Page) -> Answer<'_, Listed<AgentView>> {
        let mut query = Query::new("SELECT seq, body FROM agents WHERE tenant = ?1", &tenant);
        query.and_workload("workload", filter.workload);
        if !filter.states.is_empty() {
            let states: Vec<String> = filter.states.iter().map(|state| format!("'{}'", state.word())).collect();
            query.from.push_str(&format!(" AND state IN ({})", states.join(", ")));
        }
        Box::pin(self.list(ListKind::Agents, page, query))
    }

    fn agent(&self, tenant: TenantId, agent: AgentId) -> Answer<'_, Option<AgentView>> {
        Box::pin(async move {
            Ok(match self.find(Key::Agent(agent)).await? {
                Some(View::Agent(view)) if view.tenant == tenant => Some(view),
                _ => None,
            })
        })
    }

    fn list_approvals(&self, tenant: TenantId, filter: ApprovalFilter, page: Page) -> Answer<'_, Listed<ApprovalView>> {
        let mut query = Query::new("SELECT seq, body FROM approvals WHERE tenant = ?1", &tenant);
        query.and_workload("workload", filter.workload);
        if filter.pending_only {
            query.from.push_str(" AND open = 1");
        }
        Box::pin(self.list(ListKind::Approvals, page, query))
    }

    fn approval(&self, tenant: TenantId, key: EffectKey) -> Answer<'_, Option<ApprovalView>> {
        Box::pin(async move {
            Ok(match self.find(Key::Approval(key)).await? {
                Some(View::Approval(view)) if view.tenant == tenant => Some(view),
                _ => None,
            })
        })
    }

    fn list_programs(&self, tenant: TenantId, page: Page) -> Answer<'_, Listed<ProgramView>> {
        let query = Query::new("SELECT seq, body FROM programs WHERE tenant = ?1", &tenant);
        Box::pin(self.list(ListKind::Programs, page, query))
    }

    fn program(&self, tenant: TenantId, module: ModuleHash) -> Answer<'_, Option<ProgramView>> {
        let mut query = Query::new("SELECT seq, body FROM programs WHERE tenant = ?1", &tenant);
        query.and("module =", Value::Blob(module.as_bytes().to_vec()));
        let newest = Page { size: 1, token: None };
        Box::pin(async move { Ok(self.list(ListKind::Programs, newest, query).await?.items.into_iter().next()) })
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
            // Every term is quoted and has letters and digits only, so that nothing of it is query syntax.
            let terms: Vec<String> =
                search_terms(&query).iter().map(|parts| format!("\"{}\"", parts.join(" "))).collect();
            let mut select = Query::new(
                "SELECT h.position, h.at, h.tenant, h.workload, h.agent, h.kind,
                        snippet(history_words, 0, '', '', '…', 24), agents.body
                 FROM history_words JOIN history AS h ON h.position = history_words.rowid
                 LEFT JOIN agents ON agents.id = h.agent
                 WHERE h.tenant = ?1",
                &tenant,
            );
            select.and_workload("h.workload", workload);
            select.and("history_words MATCH", Value::Text(terms.join(" AND ")));
            select.page(kind, "history_words.rowid", after, &page);
            let read = move |connection: &Connection| {
                if terms.is_empty() {
                    return listed(connection, kind, &page, Vec::new());
                }
                let hits = select.run(connection, |row| {
                    let line = line(row)?;
                    let body: Option<Vec<u8>> = row.get(7).map_err(|error| refusal(&error))?;
                    let agent: Option<AgentView> = body.as_deref().map(decode).transpose()?;
                    Ok((line.position, HistoryHit { line, agent_name: agent.map(|agent| agent.name) }))
                })?;
                listed(connection, kind, &page, hits)
            };
            Ok(self.look(read).await?)
        })
    }

    fn wait_applied(&self, min_seq: GlobalSeq, deadline: Duration) -> Answer<'_, ()> {
        let mut applied = self.projector.applied.clone();
        self.projector.want(min_seq);
        Box::pin(async move {
            let reached = tokio::time::timeout(deadline, applied.wait_for(|seq| *seq >= min_seq)).await;
            match reached {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) => Err(StoreError::Unavailable { detail: "the store was closed".into() }.into()),
                Err(_) => Err(ViewError::Behind { wanted: min_seq, applied: *self.projector.applied.borrow() }),
            }
        })
    }

    fn lag(&self) -> u64 {
        self.head.borrow().0.saturating_sub(self.projector.applied.borrow().0)
    }

    fn rebuild(&self) -> Answer<'_, ()> {
        let done = self.projector.rebuild();
        Box::pin(async move {
            done.await.map_err(|_| StoreError::Unavailable { detail: "the store was closed".into() }.into())
        })
    }

    fn digest(&self, tenant: TenantId) -> Answer<'_, [u8; 32]> {
        let read = move |connection: &Connection| {
            let body = |row: &rusqlite::Row<'_>| row.get::<_, Vec<u8>>(0).map_err(|error| refusal(&error));
            let query = |text: &str| Query::new(text, &tenant);
            let mut views = query("SELECT body FROM workloads WHERE tenant = ?1 ORDER BY id")
                .run(connection, |row| Ok(View::Workload(decode(&body(row)?)?)))?;
            views.extend(
                query("SELECT body FROM agents WHERE tenant = ?1 ORDER BY id")
                    .run(connection, |row| Ok(View::Agent(decode(&body(row)?)?)))?,
            );
            views.extend(
                query("SELECT body FROM approvals WHERE tenant = ?1 ORDER BY id")
                    .run(connection, |row| Ok(View::Approval(decode(&body(row)?)?)))?,
            );
            views.extend(
                query("SELECT body FROM programs WHERE tenant = ?1 ORDER BY name, module")
                    .run(connection, |row| Ok(View::Program(decode(&body(row)?)?)))?,
            );
            let lines = query(
                "SELECT position, at, tenant, workload, agent, kind, text FROM history WHERE tenant = ?1
                 ORDER BY position",
            )
            .run(connection, line)?;
            let kept = memories::all(connection, &tenant)?;
            let kept = kept.iter().map(|(place, key, value)| (place, key.as_str(), value));
            Ok(digest(views.iter(), lines.iter(), kept, &tenant))
        };
        Box::pin(async move { Ok(self.look(read).await?) })
    }
}
