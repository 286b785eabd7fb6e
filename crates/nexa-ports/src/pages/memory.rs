//! The twin of the store of pages in memory. Words are scored by how many of the query's words a page has, and how rare they
//! are; nearness is computed for every page of the scope.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::future::FutureExt;
use nexa_types::{AgentId, Epoch, GlobalSeq, PageId, TenantId, Version};

use super::{
    ANSWER_PAGES_MAX, Compacted, Done, Hit, PageBatch, PageKind, PageQuery, PageStore, PagesError, QUERY_BYTES_MAX,
    Scope, Shard, Shards, StoredPage, counts_more, sort_hits,
};
use crate::view::words;

/// Pages in memory. Clones are handles to the same ones.
#[derive(Debug, Clone)]
pub struct MemoryPages {
    shards: Shards,
    state: Arc<Mutex<Vec<ShardState>>>,
}

#[derive(Debug, Clone, Default)]
struct ShardState {
    epoch: Epoch,
    applied: GlobalSeq,
    /// As they were appended, with the epoch of their batch.
    rows: Vec<(Epoch, StoredPage)>,
    /// Agents whose pages are gone for good, up to those that begin here.
    gone: BTreeMap<AgentId, Version>,
}

impl MemoryPages {
    /// A store without pages.
    pub fn new(shards: Shards) -> Self {
        let state = vec![ShardState::default(); usize::from(shards.count())];
        Self { shards, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, Vec<ShardState>> {
        self.state.lock().expect("no holder of this lock can panic")
    }

    fn shard<T>(
        &self,
        shard: Shard,
        work: impl FnOnce(&mut ShardState) -> Result<T, PagesError>,
    ) -> Result<T, PagesError> {
        let mut state = self.state();
        match state.get_mut(usize::from(shard.0)) {
            Some(state) => work(state),
            None => Err(PagesError::Refused(format!("there is no shard {}", shard.0))),
        }
    }

    fn written<T>(&self, shard: Shard, epoch: Epoch, work: impl FnOnce(&mut ShardState) -> T) -> Result<T, PagesError> {
        self.shard(shard, |state| {
            if epoch == state.epoch && epoch != Epoch(0) {
                Ok(work(state))
            } else {
                Err(PagesError::Fenced { given: epoch, current: state.epoch })
            }
        })
    }
}

impl ShardState {
    /// The row that counts of each id.
    fn newest(&self) -> BTreeMap<PageId, (&StoredPage, Epoch)> {
        let mut newest: BTreeMap<PageId, (&StoredPage, Epoch)> = BTreeMap::new();
        for (epoch, page) in &self.rows {
            let known = newest.entry(page.id).or_insert((page, *epoch));
            if counts_more((page, *epoch), *known) {
                *known = (page, *epoch);
            }
        }
        newest
    }

    /// The pages that can be read, by id.
    fn pages(&self) -> BTreeMap<PageId, &StoredPage> {
        let newest = self.newest();
        let gone: BTreeSet<(PageId, AgentId)> =
            newest.values().filter_map(|(page, _)| Some((page.supersedes?, page.agent))).collect();
        let is_there = |page: &StoredPage| {
            page.kind != PageKind::Tombstone && !gone.contains(&(page.id, page.agent)) && !self.is_gone(page)
        };
        newest.into_iter().filter(|(_, (page, _))| is_there(page)).map(|(id, (page, _))| (id, page)).collect()
    }

    fn is_gone(&self, page: &StoredPage) -> bool {
        self.gone.get(&page.agent).is_some_and(|up_to| page.first <= *up_to)
    }

    /// Deletes the pages of agents up to those that begin there.
    fn delete(&mut self, agents: &BTreeSet<AgentId>, up_to: Version) -> usize {
        let is_meant = |page: &&&StoredPage| agents.contains(&page.agent) && page.first <= up_to;
        let count = self.pages().values().filter(is_meant).count();
        for agent in agents {
            let gone = self.gone.entry(*agent).or_insert(up_to);
            *gone = up_to.max(*gone);
        }
        let rows = std::mem::take(&mut self.rows).into_iter();
        // What a page superseded stays gone without it.
        let left = rows.filter(|(_, page)| !self.is_gone(page) || page.supersedes.is_some());
        self.rows = left
            .map(|(epoch, page)| if self.is_gone(&page) { (epoch, page.hollow()) } else { (epoch, page) })
            .collect();
        count
    }
}

fn ready<'a, T: Send + 'a>(result: Result<T, PagesError>) -> Done<'a, T> {
    std::future::ready(result).boxed()
}

impl PageStore for MemoryPages {
    fn shards(&self) -> Shards {
        self.shards
    }

    fn take_over(&self, shard: Shard, epoch: Epoch) -> Done<'_, GlobalSeq> {
        ready(self.shard(shard, |state| {
            if epoch < state.epoch || epoch == Epoch(0) {
                return Err(PagesError::Fenced { given: epoch, current: state.epoch });
            }
            state.epoch = epoch;
            Ok(state.applied)
        }))
    }

    fn drop_pages(&self, shard: Shard, epoch: Epoch) -> Done<'_, ()> {
        ready(self.shard(shard, |state| {
            if epoch < state.epoch || epoch == Epoch(0) {
                return Err(PagesError::Fenced { given: epoch, current: state.epoch });
            }
            (state.epoch, state.applied) = (epoch, GlobalSeq(0));
            state.rows.clear();
            Ok(())
        }))
    }

    fn append(&self, batch: PageBatch) -> Done<'_, ()> {
        ready(batch.check(self.shards).and_then(|()| {
            self.written(batch.shard, batch.epoch, |state| {
                state.rows.extend(batch.pages.into_iter().map(|page| (batch.epoch, page)));
                state.applied = state.applied.max(batch.applied);
            })
        }))
    }

    fn read(&self, tenant: TenantId, agent: AgentId, ids: Vec<PageId>) -> Done<'_, Vec<StoredPage>> {
        ready(self.shard(self.shards.of(agent), |state| {
            let (pages, scope) = (state.pages(), Scope::Agent(tenant, agent));
            let found =
                ids.iter().take(ANSWER_PAGES_MAX).filter_map(|id| pages.get(id)).filter(|page| scope.admits(page));
            Ok(found.map(|page| (*page).clone()).collect())
        }))
    }

    fn scan(&self, tenant: TenantId, agent: AgentId, from: Version, pages_max: usize) -> Done<'_, Vec<StoredPage>> {
        ready(self.shard(self.shards.of(agent), |state| {
            let scope = Scope::Agent(tenant, agent);
            let pages = state.pages();
            let mut found: Vec<&StoredPage> =
                pages.into_values().filter(|page| scope.admits(page) && page.first >= from).collect();
            found.sort_by_key(|page| (page.first, page.id));
            let max = pages_max.clamp(1, ANSWER_PAGES_MAX);
            // All that begin where the last one does belong to it.
            let end = found.get(max - 1).map_or(found.len(), |last| {
                found.iter().position(|page| page.first > last.first).unwrap_or(found.len())
            });
            Ok(found[..end].iter().map(|page| (*page).clone()).collect())
        }))
    }

    fn search(&self, scope: Scope, query: PageQuery) -> Done<'_, Vec<Hit>> {
        let state = self.state();
        let best = query.best.min(ANSWER_PAGES_MAX);
        let pages: Vec<&StoredPage> =
            state.iter().flat_map(|state| state.pages().into_values()).filter(|page| scope.admits(page)).collect();
        let mut hits: BTreeMap<PageId, Hit> = BTreeMap::new();
        let hit =
            |page: &StoredPage| Hit { id: page.id, agent: page.agent, first: page.first, words: None, cosine: None };
        for (score, page) in by_words(&pages, query.words.as_deref().unwrap_or_default()).into_iter().take(best) {
            hits.entry(page.id).or_insert_with(|| hit(page)).words = Some(score);
        }
        if let Some(near) = &query.near {
            let with_vector = pages.iter().filter_map(|page| Some((page, page.vector.as_ref()?)));
            let mut nearest: Vec<(f32, &StoredPage)> = with_vector
                .filter(|(_, vector)| vector.model == near.model)
                .map(|(page, vector)| (vector.vector.cosine(&near.vector), *page))
                .collect();
            nearest.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.id.cmp(&b.1.id)));
            for (cosine, page) in nearest.into_iter().take(best) {
                hits.entry(page.id).or_insert_with(|| hit(page)).cosine = Some(cosine);
            }
        }
        let mut hits: Vec<Hit> = hits.into_values().collect();
        sort_hits(&mut hits);
        ready(Ok(hits))
    }

    fn delete_agent(&self, epoch: Epoch, tenant: TenantId, agent: AgentId, up_to: Version) -> Done<'_, usize> {
        ready(self.written(self.shards.of(agent), epoch, |state| {
            let others = state.rows.iter().any(|(_, page)| page.agent == agent && page.tenant != tenant);
            if others { 0 } else { state.delete(&BTreeSet::from([agent]), up_to) }
        }))
    }

    fn delete_tenant(&self, shard: Shard, epoch: Epoch, tenant: TenantId) -> Done<'_, usize> {
        ready(self.written(shard, epoch, |state| {
            let theirs = state.rows.iter().filter(|(_, page)| page.tenant == tenant);
            let agents = theirs.map(|(_, page)| page.agent).collect();
            state.delete(&agents, Version(u64::MAX))
        }))
    }

    fn compact(&self, shard: Shard, epoch: Epoch) -> Done<'_, Compacted> {
        ready(self.written(shard, epoch, |state| {
            let rows_before = state.rows.len();
            let there: BTreeSet<PageId> = state.pages().into_keys().collect();
            let newest = state.newest().into_values();
            // Of what cannot be read, only that it superseded something stays: a replay may append that again.
            let rows = newest
                .filter(|(page, _)| there.contains(&page.id) || page.supersedes.is_some())
                .map(|(page, epoch)| (epoch, if there.contains(&page.id) { page.clone() } else { page.hollow() }));
            state.rows = rows.collect();
            Compacted { rows_before, rows_after: state.rows.len() }
        }))
    }
}

/// Pages that have any of the query's words, the best first.
fn by_words<'p>(pages: &[&'p StoredPage], query: &str) -> Vec<(f32, &'p StoredPage)> {
    let wanted: BTreeSet<String> = words(&query[..query.floor_char_boundary(QUERY_BYTES_MAX)]).into_iter().collect();
    let held: Vec<(BTreeSet<String>, &StoredPage)> = pages
        .iter()
        .map(|page| (words(&page.text).into_iter().filter(|word| wanted.contains(word)).collect(), *page))
        .collect();
    let rarity = |word: &String| {
        let holding = held.iter().filter(|(words, _)| words.contains(word)).count();
        1.0 + (held.len() as f32 / holding.max(1) as f32).ln()
    };
    let rarity: BTreeMap<&String, f32> = wanted.iter().map(|word| (word, rarity(word))).collect();
    let mut scored: Vec<(f32, &StoredPage)> = held
        .iter()
        .filter(|(words, _)| !words.is_empty())
        .map(|(words, page)| (words.iter().map(|word| rarity[word]).sum(), *page))
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.id.cmp(&b.1.id)));
    scored
}
