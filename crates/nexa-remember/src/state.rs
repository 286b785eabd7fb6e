//! What is in memory: the page writer, pages that the store does not have yet, and pages without vectors.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use nexa_event::envelope::Fact;
use nexa_event::fact::ClusterEvent;
use nexa_paging::{MessageVector, OwnedPage, PageWriter, PlaceInLog, SealedPage, Told};
use nexa_ports::pages::{BATCH_PAGES_MAX, PageBatch, Scope, Shard, Shards, StoredPage};
use nexa_ports::store::Recorded;
use nexa_types::{AgentId, Epoch, GlobalSeq, PageId, StreamId, TenantId, Timestamp, Version};

use crate::stored::{reach_of, stored};
use crate::tail::LAG_FACTS_MAX;
use crate::vectors::UNEMBEDDED_PAGES_MAX;

/// While so many stored pages wait for vectors, what queries read does not wait, too.
const FOUND_WHILE_UNEMBEDDED_MAX: usize = 1_024;

/// A page that the store does not have as it is here.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) page: SealedPage,
    /// The model of its vectors, if it has some.
    pub(crate) model: Option<String>,
    /// Changes with it, so that a batch that was stored meanwhile does not take a newer version along.
    version: u64,
}

/// A page that the store has and that may still get vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unembedded {
    pub(crate) tenant: TenantId,
    pub(crate) agent: AgentId,
    pub(crate) page: PageId,
}

impl Unembedded {
    pub(crate) fn of(page: SealedPage) -> Self {
        Self { tenant: page.tenant, agent: page.agent, page: page.page.id }
    }
}

/// A page without vectors.
pub(crate) enum NextUnembedded {
    /// It waits to be stored.
    Here(SealedPage),
    /// It is to be read.
    Stored(Unembedded),
}

/// Pages that the store is to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deletion {
    pub(crate) tenant: TenantId,
    pub(crate) agent: AgentId,
    /// Those that begin at this message or before it.
    pub(crate) up_to: Version,
    /// The fact that tells it, or the first of several.
    position: GlobalSeq,
}

/// What a batch was made of.
pub(crate) struct Taken {
    pub(crate) batch: PageBatch,
    pages: Vec<(PageId, u64)>,
}

pub(crate) struct State {
    shards: Shards,
    /// Under which all shards are written; 0 before they were taken over.
    pub(crate) epoch: Epoch,
    /// Shards that were found to be damaged.
    pub(crate) damaged: BTreeSet<Shard>,
    pub(crate) writer: PageWriter,
    /// How far the log is folded.
    pub(crate) folded: GlobalSeq,
    /// How far each shard is applied.
    applied: Vec<GlobalSeq>,
    /// How far each was when it was taken over: pages that were ended by then are there.
    found: Vec<GlobalSeq>,
    pub(crate) waiting: BTreeMap<PageId, Waiting>,
    /// Stored pages that may still get vectors, the oldest first.
    unembedded: VecDeque<Unembedded>,
    /// Pages that a query has read and that had no vectors.
    found_without: BTreeSet<PageId>,
    /// Up to which message agents are forgotten, as far as the log told it since the start: whoever holds a page of before
    /// that, to give it vectors, does not bring it back. 24 bytes each; the store keeps as much of each.
    forgotten: BTreeMap<AgentId, Version>,
    /// What the store has not deleted yet.
    deletions: BTreeMap<AgentId, Deletion>,
    versions: u64,
    embeds: bool,
    /// When everything that the log had was folded last.
    pub(crate) whole_at: Timestamp,
    /// Not before this pages are offered for their number: the store has failed.
    pub(crate) retry_at: Timestamp,
}

impl State {
    pub(crate) fn new(shards: Shards) -> Self {
        Self {
            shards,
            epoch: Epoch(0),
            damaged: BTreeSet::new(),
            writer: PageWriter::default(),
            folded: GlobalSeq(0),
            applied: vec![GlobalSeq(0); usize::from(shards.count())],
            found: vec![GlobalSeq(0); usize::from(shards.count())],
            waiting: BTreeMap::new(),
            unembedded: VecDeque::new(),
            found_without: BTreeSet::new(),
            forgotten: BTreeMap::new(),
            deletions: BTreeMap::new(),
            versions: 0,
            embeds: false,
            whole_at: Timestamp(0),
            retry_at: Timestamp(0),
        }
    }

    /// The shards were taken over, and are applied so far: folds from where the least of them is.
    pub(crate) fn take_over(&mut self, epoch: Epoch, applied: Vec<GlobalSeq>, embeds: bool) {
        self.epoch = epoch;
        self.folded = applied.iter().copied().min().unwrap_or_default();
        self.found.clone_from(&applied);
        (self.applied, self.embeds) = (applied, embeds);
    }

    /// Folds from the first fact again, and offers all pages again.
    pub(crate) fn begin_again(&mut self) {
        self.found.fill(GlobalSeq(0));
        self.writer = PageWriter::default();
        self.folded = GlobalSeq(0);
    }

    /// A shard has lost its pages: folds from the first fact again, for it alone.
    pub(crate) fn begin_again_for(&mut self, shard: Shard) {
        self.applied[usize::from(shard.0)] = GlobalSeq(0);
        self.found.clone_from(&self.applied);
        self.writer = PageWriter::default();
        self.folded = GlobalSeq(0);
    }

    /// Folds a fact; gives how many pages it ended.
    pub(crate) fn fold(&mut self, recorded: &Recorded) -> usize {
        let (header, position) = (&recorded.envelope.header, recorded.position);
        let mut count = 0;
        match (&recorded.envelope.fact, &header.stream, recorded.workload) {
            (Fact::Agent(event), StreamId::Agent(agent), Some(workload)) => {
                let (tenant, agent, version, at) = (&header.tenant, *agent, header.version, header.at);
                let told = Told { position, tenant, workload, agent, version, at, event };
                for page in self.writer.take(&told) {
                    if !self.is_there(position, agent) && !self.is_gone(&page) {
                        count += 1;
                        self.wait(page, None);
                    }
                }
            }
            (Fact::Cluster(ClusterEvent::AgentForgotten { agent, up_to }), StreamId::Cluster(tenant), _) => {
                self.forget(position, tenant, *agent, *up_to);
            }
            _ => {}
        }
        self.folded = position;
        count
    }

    /// Whether the store has what follows from a fact about an agent.
    fn is_there(&self, position: GlobalSeq, agent: AgentId) -> bool {
        position <= self.found[usize::from(self.shards.of(agent).0)]
    }

    /// The log tells that an agent is forgotten up to a fact of its stream. A page that was ended between that fact and this
    /// one, and has messages of before, goes whole.
    fn forget(&mut self, position: GlobalSeq, tenant: &TenantId, agent: AgentId, up_to: Version) {
        self.writer.forget(agent, up_to);
        let up_to = PlaceInLog::last_of(up_to).packed();
        let known = self.forgotten.entry(agent).or_insert(up_to);
        *known = up_to.max(*known);
        let up_to = *known;
        self.waiting.retain(|_, waiting| waiting.page.agent != agent || first_of(&waiting.page) > up_to);
        if !self.is_there(position, agent) {
            let tenant = tenant.clone();
            let new = Deletion { tenant, agent, up_to, position };
            self.deletions.entry(agent).and_modify(|deletion| deletion.up_to = up_to).or_insert(new);
        }
    }

    /// Whether the log has told that a page is forgotten.
    fn is_gone(&self, page: &SealedPage) -> bool {
        self.is_forgotten(page.agent, first_of(page))
    }

    fn is_forgotten(&self, agent: AgentId, first: Version) -> bool {
        self.forgotten.get(&agent).is_some_and(|up_to| first <= *up_to)
    }

    /// Of what the store gave, what it need not have deleted by now.
    pub(crate) fn left(&self, mut pages: Vec<StoredPage>) -> Vec<StoredPage> {
        pages.retain(|page| !self.is_forgotten(page.agent, page.first));
        pages
    }

    /// What the store is to delete.
    pub(crate) fn deletions(&self) -> Vec<Deletion> {
        self.deletions.values().cloned().collect()
    }

    /// The store has deleted something.
    pub(crate) fn deleted(&mut self, deletion: &Deletion) {
        if self.deletions.get(&deletion.agent).is_some_and(|known| known.up_to == deletion.up_to) {
            self.deletions.remove(&deletion.agent);
        }
    }

    fn wait(&mut self, page: SealedPage, model: Option<String>) {
        self.versions += 1;
        let (id, version) = (page.page.id, self.versions);
        self.waiting.insert(id, Waiting { page, model, version });
    }

    /// What is to be stored: of each shard that has waiting pages a batch, and an empty one of each that is applied far behind.
    pub(crate) fn batches(&self) -> Vec<Taken> {
        let mut by_shard: BTreeMap<Shard, Vec<&Waiting>> = BTreeMap::new();
        for waiting in self.waiting.values() {
            by_shard.entry(self.shards.of(waiting.page.agent)).or_default().push(waiting);
        }
        for shard in self.shards.all() {
            if self.folded.0.saturating_sub(self.applied[usize::from(shard.0)].0) >= LAG_FACTS_MAX {
                by_shard.entry(shard).or_default();
            }
        }
        let mut taken = Vec::new();
        for (shard, pages) in by_shard {
            let reached = self.writer.held(|agent| self.shards.of(agent) == shard).unwrap_or(self.folded);
            // What is not deleted is told again to whoever goes on from there.
            let deletions = self.deletions.values().filter(|deletion| self.shards.of(deletion.agent) == shard);
            let undeleted = deletions.map(|deletion| GlobalSeq(deletion.position.0.saturating_sub(1))).min();
            let reached = undeleted.map_or(reached, |undeleted| reached.min(undeleted));
            let reached = reached.max(self.applied[usize::from(shard.0)]);
            let count = pages.len().div_ceil(BATCH_PAGES_MAX).max(1);
            for nth in 0..count {
                let part = pages.iter().skip(nth * BATCH_PAGES_MAX).take(BATCH_PAGES_MAX);
                // Only with the last one all of them are there.
                let is_last = nth + 1 == count;
                let applied = if is_last { reached } else { self.applied[usize::from(shard.0)] };
                let batch = PageBatch {
                    shard,
                    epoch: self.epoch,
                    applied,
                    pages: part.clone().map(|waiting| stored(&waiting.page, waiting.model.as_deref())).collect(),
                };
                taken.push(Taken {
                    batch,
                    pages: part.map(|waiting| (waiting.page.page.id, waiting.version)).collect(),
                });
            }
        }
        taken
    }

    /// A batch is stored.
    pub(crate) fn applied(&mut self, taken: &Taken) {
        let applied = &mut self.applied[usize::from(taken.batch.shard.0)];
        *applied = taken.batch.applied.max(*applied);
        for (id, version) in &taken.pages {
            if self.waiting.get(id).is_some_and(|waiting| waiting.version == *version)
                && let Some(waiting) = self.waiting.remove(id)
                && waiting.model.is_none()
                && self.embeds
            {
                if self.unembedded.len() == UNEMBEDDED_PAGES_MAX {
                    // It is found by its words.
                    self.unembedded.pop_front();
                }
                self.unembedded.push_back(Unembedded::of(waiting.page));
            }
        }
    }

    /// A batch that will be refused for ever, in two; as it is if it has one page or none. Only with the second all are there.
    pub(crate) fn halves(&self, mut taken: Taken) -> Result<[Taken; 2], Taken> {
        if taken.pages.len() < 2 {
            return Err(taken);
        }
        let half = taken.pages.len() / 2;
        let PageBatch { shard, epoch, applied, .. } = taken.batch;
        let rest = PageBatch { shard, epoch, applied, pages: taken.batch.pages.split_off(half) };
        let second = Taken { batch: rest, pages: taken.pages.split_off(half) };
        taken.batch.applied = self.applied[usize::from(shard.0)];
        Ok([taken, second])
    }

    /// A page will be refused for ever.
    pub(crate) fn give_up(&mut self, taken: &Taken) {
        for (id, _) in &taken.pages {
            self.waiting.remove(id);
        }
    }

    /// The next page that has no vectors.
    pub(crate) fn next_unembedded(&mut self) -> Option<NextUnembedded> {
        let waiting = self.waiting.values().find(|waiting| waiting.model.is_none());
        let here = waiting.map(|waiting| NextUnembedded::Here(waiting.page.clone()));
        here.or_else(|| self.unembedded.pop_front().map(NextUnembedded::Stored))
    }

    /// A page gets its vectors at another time.
    pub(crate) fn embed_later(&mut self, later: Unembedded) {
        let is_known = self.waiting.contains_key(&later.page) || self.unembedded.contains(&later);
        if !is_known && self.unembedded.len() < UNEMBEDDED_PAGES_MAX {
            self.unembedded.push_back(later);
        }
    }

    /// What a query has read gets vectors if it has none of this model: it was stored without, by a process that has ended since
    /// or under another model. Each page once, for some never get any.
    pub(crate) fn embed_found(&mut self, pages: &[StoredPage], model: Option<&str>) {
        if !self.embeds || self.unembedded.len() >= FOUND_WHILE_UNEMBEDDED_MAX {
            return;
        }
        let model_of = |page: &StoredPage| page.vector.as_ref().map(|vector| vector.model.clone());
        for page in pages.iter().filter(|page| model_of(page).as_deref() != model) {
            if self.found_without.len() >= UNEMBEDDED_PAGES_MAX {
                self.found_without.clear();
            }
            if self.found_without.insert(page.id) {
                self.embed_later(Unembedded { tenant: page.tenant.clone(), agent: page.agent, page: page.id });
            }
        }
    }

    /// Bytes of the texts that wait to be stored.
    pub(crate) fn waiting_bytes(&self) -> usize {
        let messages = self.waiting.values().flat_map(|waiting| &waiting.page.page.messages);
        messages.map(|message| message.text.len()).sum()
    }

    /// A page has got its vectors, or will have none: then the model is empty.
    pub(crate) fn embedded(&mut self, page: SealedPage, model: String) {
        self.unembedded.retain(|other| other.page != page.page.id);
        if !self.is_gone(&page) {
            self.wait(page, Some(model));
        }
    }

    /// What a scope may find of what the store does not have: waiting pages, and what is open.
    pub(crate) fn unstored(&self, scope: &Scope) -> Vec<OwnedPage> {
        let waiting = self.waiting.values().map(|waiting| &waiting.page);
        let waiting =
            waiting.filter(|page| scope.admits_of(&page.tenant, page.workload, page.agent, reach_of(page.scope)));
        let waiting = waiting.map(|SealedPage { agent, page, .. }| OwnedPage {
            agent: *agent,
            id: Some(page.id),
            messages: page.messages.clone(),
            vectors: page.vectors.clone(),
        });
        let open = self
            .writer
            .open()
            .filter(|(agent, tenant, workload, of, _)| scope.admits_of(tenant, *workload, *agent, reach_of(*of)));
        let open = open.map(|(agent, .., messages)| {
            let vectors = Vec::<Option<MessageVector>>::new();
            OwnedPage { agent, id: None, messages: messages.to_vec(), vectors }
        });
        waiting.chain(open).collect()
    }
}

/// Where a page begins.
fn first_of(page: &SealedPage) -> Version {
    page.page.messages.first().map_or(Version(u64::MAX), |message| message.seq)
}
