//! The in-memory twin of read models.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nexa_types::{AgentId, EffectKey, GlobalSeq, ModuleHash, Payload, TenantId, WorkloadId, WorkloadState};
use nexa_view::{
    AgentView, ApprovalView, HistoryLine, Key, MemoryBook, MemoryEntry, MemoryPlace, ProgramView, Seen, Shelf, View,
    WorkloadView, fold,
};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    AgentFilter, Answer, ApprovalFilter, HistoryHit, ListKind, Listed, Page, ViewError, Views, digest, search_terms,
    token, words,
};
use crate::memories::Memories;
use crate::store::{Store, StoreError};

/// Folds what is new before each answer, and so is never behind. Works over any store.
pub struct MemoryViews {
    store: Arc<dyn Store>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    views: BTreeMap<Key, View>,
    lines: BTreeMap<GlobalSeq, HistoryLine>,
    memories: MemoryBook,
    applied: GlobalSeq,
}

impl Shelf for Kept {
    type Error = std::convert::Infallible;

    fn load(&mut self, key: &Key) -> Result<Option<View>, Self::Error> {
        Ok(self.views.get(key).cloned())
    }

    fn save(&mut self, view: View) -> Result<(), Self::Error> {
        self.views.insert(view.key(), view);
        Ok(())
    }

    fn save_line(&mut self, line: HistoryLine) -> Result<(), Self::Error> {
        self.lines.insert(line.position, line);
        Ok(())
    }

    fn keep_memory(&mut self, entry: MemoryEntry) -> Result<(), Self::Error> {
        self.memories.keep(entry);
        Ok(())
    }

    fn forget_memory(&mut self, place: &MemoryPlace) -> Result<(), Self::Error> {
        self.memories.forget(place);
        Ok(())
    }
}

impl Kept {
    fn list<T: Clone>(
        &self,
        kind: ListKind,
        page: &Page,
        pick: impl Fn(&View) -> Option<(GlobalSeq, T)>,
    ) -> Result<Listed<T>, ViewError> {
        self.page(kind, page, self.views.values().filter_map(pick).collect())
    }

    fn page<T>(&self, kind: ListKind, page: &Page, mut all: Vec<(GlobalSeq, T)>) -> Result<Listed<T>, ViewError> {
        let after = page.after(kind)?;
        all.sort_by_key(|(seq, _)| *seq);
        if kind.newest_first() {
            all.reverse();
        }
        let later =
            |seq: GlobalSeq| after.is_none_or(|after| if kind.newest_first() { seq < after } else { seq > after });
        let mut items: Vec<(GlobalSeq, T)> = all.into_iter().filter(|(seq, _)| later(*seq)).collect();
        let more = items.len() > page.items();
        items.truncate(page.items());
        let next = items.last().filter(|_| more).map(|(seq, _)| token(kind, *seq));
        Ok(Listed { items: items.into_iter().map(|(_, item)| item).collect(), next, applied_seq: self.applied })
    }
}

impl MemoryViews {
    /// Views over all facts of a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, kept: Mutex::default() }
    }

    async fn caught_up(&self) -> Result<MutexGuard<'_, Kept>, StoreError> {
        let mut kept = self.kept.lock().await;
        loop {
            let facts = self.store.scan(None, kept.applied, 1_000).await?;
            let Some(last) = facts.last() else { return Ok(kept) };
            let applied = last.position;
            for fact in &facts {
                let seen = Seen { position: fact.position, workload: fact.workload, envelope: &fact.envelope };
                match fold(&mut *kept, &seen) {
                    Ok(()) => {}
                    Err(never) => match never {},
                }
            }
            kept.applied = applied;
        }
    }

    async fn find(&self, key: Key) -> Result<Option<View>, ViewError> {
        Ok(self.caught_up().await?.views.get(&key).cloned())
    }
}

impl Views for MemoryViews {
    fn list_workloads(
        &self,
        tenant: TenantId,
        state: Option<WorkloadState>,
        page: Page,
    ) -> Answer<'_, Listed<WorkloadView>> {
        Box::pin(async move {
            self.caught_up().await?.list(ListKind::Workloads, &page, |view| match view {
                View::Workload(view) if view.tenant == tenant && state.is_none_or(|state| view.state == state) => {
                    Some((view.submitted_seq, view.clone()))
                }
                _ => None,
            })
        })
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
        Box::pin(async move {
            let wanted = |view: &AgentView| {
                view.tenant == tenant
                    && filter.workload.is_none_or(|workload| view.workload == workload)
                    && (filter.states.is_empty() || filter.states.contains(&view.state))
            };
            self.caught_up().await?.list(ListKind::Agents, &page, |view| match view {
                View::Agent(view) if wanted(view) => Some((view.born_seq, view.clone())),
                _ => None,
            })
        })
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
        Box::pin(async move {
            let wanted = |view: &ApprovalView| {
                view.tenant == tenant
                    && filter.workload.is_none_or(|workload| view.workload == workload)
                    && !(filter.pending_only && view.closed.is_some())
            };
            self.caught_up().await?.list(ListKind::Approvals, &page, |view| match view {
                View::Approval(view) if wanted(view) => Some((view.asked_seq, view.clone())),
                _ => None,
            })
        })
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
        Box::pin(async move {
            self.caught_up().await?.list(ListKind::Programs, &page, |view| match view {
                View::Program(view) if view.tenant == tenant => Some((view.applied, view.clone())),
                _ => None,
            })
        })
    }

    fn program(&self, tenant: TenantId, module: ModuleHash) -> Answer<'_, Option<ProgramView>> {
        Box::pin(async move {
            let kept = self.caught_up().await?;
            let entries = kept.views.values().filter_map(|view| match view {
                View::Program(view) if view.tenant == tenant && view.module == module => Some(view),
                _ => None,
            });
            Ok(entries.max_by_key(|view| view.applied).cloned())
        })
    }

    fn search_history(
        &self,
        tenant: TenantId,
        query: String,
        workload: Option<WorkloadId>,
        page: Page,
    ) -> Answer<'_, Listed<HistoryHit>> {
        Box::pin(async move {
            let kept = self.caught_up().await?;
            let terms = search_terms(&query);
            let found = |line: &HistoryLine| {
                let text = words(&line.text);
                let has = |term: &Vec<String>| text.windows(term.len()).any(|window| window == term.as_slice());
                !terms.is_empty() && terms.iter().all(has)
            };
            let wanted = |line: &&HistoryLine| {
                line.tenant == tenant && workload.is_none_or(|workload| line.workload == Some(workload)) && found(line)
            };
            let hit = |line: &HistoryLine| {
                let name = line.agent.and_then(|agent| match kept.views.get(&Key::Agent(agent)) {
                    Some(View::Agent(view)) => Some(view.name.clone()),
                    _ => None,
                });
                (line.position, HistoryHit { line: line.clone(), agent_name: name })
            };
            kept.page(ListKind::History, &page, kept.lines.values().filter(wanted).map(hit).collect())
        })
    }

    fn wait_applied(&self, min_seq: GlobalSeq, _: Duration) -> Answer<'_, ()> {
        Box::pin(async move {
            let applied = self.caught_up().await?.applied;
            if applied < min_seq {
                return Err(ViewError::Behind { wanted: min_seq, applied });
            }
            Ok(())
        })
    }

    fn lag(&self) -> u64 {
        0
    }

    fn rebuild(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            *self.kept.lock().await = Kept::default();
            self.caught_up().await.map(|_| ()).map_err(ViewError::from)
        })
    }

    fn digest(&self, tenant: TenantId) -> Answer<'_, [u8; 32]> {
        Box::pin(async move {
            let kept = self.caught_up().await?;
            Ok(digest(kept.views.values(), kept.lines.values(), kept.memories.all(), &tenant))
        })
    }
}

impl Memories for MemoryViews {
    fn entries(
        &self,
        place: MemoryPlace,
        key: Option<String>,
        seen: GlobalSeq,
        _: Duration,
    ) -> Answer<'_, Vec<(String, Payload)>> {
        Box::pin(async move {
            let kept = self.caught_up().await?;
            if kept.applied < seen {
                return Err(ViewError::Behind { wanted: seen, applied: kept.applied });
            }
            let wanted =
                kept.memories.entries(&place).filter(|(known, _)| key.as_deref().is_none_or(|key| key == *known));
            Ok(wanted.map(|(key, value)| (key.to_owned(), value.clone())).collect())
        })
    }
}
