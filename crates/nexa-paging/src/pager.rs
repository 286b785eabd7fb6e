//! The memory of one agent: messages come in, pages are sealed, queries are answered, pages leave.
//!
//! The shell around it does what is decided here, in this order:
//!
//! 1. a message that the log has recorded is [added](ContextPager::add); sealed pages go to the store;
//! 2. its vector comes when it comes ([`embed`](ContextPager::embed)); until then its words are enough;
//! 3. a query is [ranked](ContextPager::load_relevant_pages), which changes nothing;
//! 4. the shell reads the stored pages that this names, and has the recall [carried out](ContextPager::carry_out).
//!
//! What is in memory: the table (a hundred bytes a page), the index (half a kilobyte a message), the messages of at most
//! `max_active_pages` pages and those after the last page.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use minicbor::{Decode, Encode};
use nexa_types::{AgentId, PageId, Timestamp, Version};

use crate::config::{PagingConfig, RankWeights};
use crate::error::{PagingError, SnapshotError};
use crate::importance::importance;
use crate::index::{MemoryIndex, message_terms};
use crate::message::MemoryMessage;
use crate::page::{Accessed, MemoryPage, Turn, embedding, id_of};
use crate::rank::{Asked, Found, How, Ranking};
use crate::recall::{Query, Recall, RecallBudget};
use crate::snapshot::Stored;
use crate::table::{Judge, PageEntry, PageTable, Residency};
use crate::turnover::{Leave, LeaveReason};
use crate::vectors::{MessageVector, QueryVector, mean};
use crate::words::{Term, terms};

/// Turns that say what an agent is about at present.
const RECENT_TURNS: usize = 4;
/// Words of a turn that count for that.
const RECENT_WORDS_MAX: usize = 64;

/// One of the last turns: a message or a query.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Recent {
    /// The message; `None` for a query.
    #[n(0)]
    seq: Option<Version>,
    #[n(1)]
    words: Vec<Term>,
    #[n(2)]
    vector: Option<MessageVector>,
}

/// Something that happened because a message came or a conversation broke.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A page was sealed. It belongs into the store.
    Sealed(MemoryPage),
    /// A page left memory.
    Left(Leave),
}

/// The memory of one agent.
#[derive(Debug, Clone)]
pub struct ContextPager {
    agent: AgentId,
    config: PagingConfig,
    table: PageTable,
    index: MemoryIndex,
    /// Messages after the last page.
    open: Vec<MemoryMessage>,
    /// The messages of active pages.
    active: BTreeMap<PageId, Vec<MemoryMessage>>,
    recent: VecDeque<Recent>,
}

impl ContextPager {
    /// The empty memory of an agent.
    ///
    /// # Errors
    /// A [`ConfigError`](crate::ConfigError) for a configuration that cannot be kept to.
    pub fn new(agent: AgentId, config: PagingConfig) -> Result<Self, crate::ConfigError> {
        Ok(Self {
            agent,
            config: config.checked()?,
            table: PageTable::default(),
            index: MemoryIndex::default(),
            open: Vec::new(),
            active: BTreeMap::new(),
            recent: VecDeque::new(),
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &PagingConfig {
        &self.config
    }

    /// Ranks with other weights from now on. Nothing that is kept depends on them.
    ///
    /// # Errors
    /// A [`ConfigError`](crate::ConfigError) for weights that cannot be kept to.
    pub fn set_rank(&mut self, weights: RankWeights) -> Result<(), crate::ConfigError> {
        self.config = PagingConfig { rank: weights, ..self.config.clone() }.checked()?;
        Ok(())
    }

    /// The page table.
    #[must_use]
    pub fn table(&self) -> &PageTable {
        &self.table
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> &MemoryIndex {
        &self.index
    }

    /// Messages after the last page, which are always in memory.
    #[must_use]
    pub fn open(&self) -> &[MemoryMessage] {
        &self.open
    }

    /// The messages of a page, if it is active.
    #[must_use]
    pub fn messages(&self, page: PageId) -> Option<&[MemoryMessage]> {
        self.active.get(&page).map(Vec::as_slice)
    }

    /// An active page with what was noted of its use.
    #[must_use]
    pub fn page(&self, page: PageId) -> Option<MemoryPage> {
        let (entry, messages) = (self.table.get(page)?, self.active.get(&page)?);
        let number = |message: &MemoryMessage| self.index.number_of(message.seq);
        let vectors = messages.iter().map(|message| self.index.vectors.get(number(message)?)).collect::<Vec<_>>();
        Some(MemoryPage {
            id: page,
            messages: messages.clone(),
            embedding: embedding(&vectors),
            vectors,
            last_accessed: entry.last_accessed,
            access_count: entry.access_count,
            relevance_score: entry.relevance,
        })
    }

    /// The log has recorded messages up to here. Pages with later ones do not leave memory.
    pub fn recorded(&mut self, upto: Version) {
        self.table.record(upto);
    }

    /// Takes a message. One that is known already changes nothing, so that a replay may begin too early.
    ///
    /// # Errors
    /// [`PagingError::OutOfOrder`]; [`PagingError::Full`]; [`PagingError::NotRecorded`] if a page would have to leave that
    /// the log does not have, and then the message is to be given again when the log has more.
    pub fn add(&mut self, message: MemoryMessage) -> Result<Vec<Change>, PagingError> {
        if self.index.number_of(message.seq).is_some() {
            return Ok(Vec::new());
        }
        let will_seal = self.open.len() + 1 >= self.config.page_size;
        if will_seal && !self.table.can_seal(message.seq, &self.config) {
            return Err(PagingError::NotRecorded { recorded: self.table.recorded() });
        }
        self.index.push(&message)?;
        self.table.next_turn();
        self.note(Some(message.seq), message_terms(&message), None);
        let at = message.at;
        self.open.push(message);
        Ok(if will_seal { self.seal(at) } else { Vec::new() })
    }

    /// The conversation breaks here: the open page is sealed, however few messages it has.
    ///
    /// # Errors
    /// [`PagingError::NotRecorded`] as for [`add`](Self::add).
    pub fn break_conversation(&mut self, at: Timestamp) -> Result<Vec<Change>, PagingError> {
        let mut changes = Vec::new();
        if let Some(last) = self.open.last() {
            if !self.table.can_seal(last.seq, &self.config) {
                return Err(PagingError::NotRecorded { recorded: self.table.recorded() });
            }
            changes = self.seal(at);
        }
        self.table.next_turn();
        self.table.end_conversation();
        self.index.end_conversation();
        Ok(changes)
    }

    /// Gives a message its vector.
    ///
    /// # Errors
    /// [`PagingError::NoVector`], [`PagingError::NoMessage`], [`PagingError::OtherDimensions`].
    pub fn embed(&mut self, seq: Version, vector: &[f32]) -> Result<(), PagingError> {
        let vector = MessageVector::new(vector).ok_or(PagingError::NoVector)?;
        self.index.embed(seq, &vector)?;
        let recent = self.recent.iter_mut().find(|recent| recent.seq == Some(seq));
        recent.into_iter().for_each(|recent| recent.vector = Some(vector.clone()));
        Ok(())
    }

    /// Messages without a vector, in the order of the log; at most so many.
    #[must_use]
    pub fn unembedded(&self, count: usize) -> Vec<Version> {
        let without = |number: &u32| self.index.vectors.get(*number).is_none();
        let numbers = (0..self.index.len() as u32).filter(without).take(count);
        numbers.map(|number| self.index.entries[number as usize].seq).collect()
    }

    /// Keeps a page in memory from when it is next active, or lets it go when its time comes.
    ///
    /// # Errors
    /// [`PagingError::NoPage`] and [`PagingError::TooManyPins`].
    pub fn pin(&mut self, page: PageId, is_pinned: bool) -> Result<(), PagingError> {
        self.table.pin(page, is_pinned, &self.config)
    }

    /// Ranks what is remembered for a query: at most `depth` messages, pages and conversations.
    #[must_use]
    pub fn rank(&self, query: &Query<'_>, depth: usize) -> Ranking {
        self.ranked(&Asked::new(query.text, query.vector), query, depth)
    }

    fn ranked(&self, asked: &Asked, query: &Query<'_>, depth: usize) -> Ranking {
        let (weights, threshold) = (self.config.rank, self.config.similarity_threshold);
        self.index.rank(asked, &How { mode: query.mode, weights, threshold, depth })
    }

    /// Finds the messages and pages that a query is about, and decides which pages become active and which leave for them. Active
    /// pages are among those that are found, and none of them leaves. Nothing changes yet.
    #[must_use]
    pub fn load_relevant_pages(&self, query: &Query<'_>, budget: RecallBudget) -> Recall {
        let asked = Asked::new(query.text, query.vector);
        let depth = budget.depth().max(self.config.max_active_pages);
        let ranking = self.ranked(&asked, query, depth);
        let messages = budget.fitting(ranking.messages);
        let mut pages = ranking.pages;
        pages.truncate(self.config.max_active_pages);
        // Only pages that are needed anyway become active, so that none is read for later only.
        let mut seen = BTreeSet::new();
        let of_messages = messages.iter().filter_map(|found| found.page).filter(|page| seen.insert(*page));
        let needed: Vec<PageId> = of_messages.collect();
        let wanted = &needed[..needed.len().min(self.config.activated())];
        let judge = self.judge(Some(query));
        let turnover = self.table.turnover(wanted, query.access, &judge, &self.config);
        let reads = needed.into_iter().filter(|page| !self.active.contains_key(page)).collect();
        Recall { messages, pages, reads, turnover, mode: ranking.mode, turn: self.table.turn() }
    }

    /// Carries a recall out with the stored pages that were read for it; those that could not be read are left out, and nothing
    /// leaves for them. Gives what left.
    ///
    /// # Errors
    /// [`PagingError::Stale`] if pages came or left since it was decided; [`PagingError::OtherContent`] if a page is not what
    /// it is called.
    pub fn carry_out(
        &mut self,
        recall: &Recall,
        query: &Query<'_>,
        read: &BTreeMap<PageId, Vec<MemoryMessage>>,
        at: Timestamp,
    ) -> Result<Vec<Leave>, PagingError> {
        if let Some((page, _)) = read.iter().find(|(page, messages)| id_of(self.agent, messages) != **page) {
            return Err(PagingError::OtherContent { page: *page });
        }
        let judge = self.judge(Some(query));
        let now = Accessed { turn: Turn(self.table.turn().0 + 1), at };
        let there = read.keys().copied().collect();
        let left = self.table.carry_out(&recall.turnover, &there, &judge, now, &self.config)?;
        self.table.next_turn();
        self.note(None, terms(query.text), query.vector.and_then(MessageVector::new));
        for leave in &left {
            self.active.remove(&leave.page);
        }
        for load in &recall.turnover.loads {
            if let Some(messages) = read.get(&load.page) {
                self.active.insert(load.page, messages.clone());
            }
        }
        Ok(left)
    }

    /// The message at a place in the log, from memory or from pages that were read.
    #[must_use]
    pub fn message<'m>(
        &'m self,
        found: &Found,
        read: &'m BTreeMap<PageId, Vec<MemoryMessage>>,
    ) -> Option<&'m MemoryMessage> {
        let messages = match found.page {
            None => &self.open,
            Some(page) => self.active.get(&page).or_else(|| read.get(&page))?,
        };
        messages.binary_search_by_key(&found.seq, |message| message.seq).ok().map(|place| &messages[place])
    }

    /// What travels with the agent.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let last = self.index.last().unwrap_or_default();
        Stored::new(self.agent, self.table.clone(), self.recent.iter().cloned().collect(), last).to_bytes()
    }

    /// Restores an agent's memory: from a snapshot, all its pages in the order of the log, and the messages after them up to the
    /// last that the snapshot knows. Pages that are missing are forgotten by the index only if the log does not have
    /// them either: whoever calls reads them from the log then.
    ///
    /// # Errors
    /// [`SnapshotError`] for bytes that are no snapshot, and for pages and messages that are not those of the snapshot.
    pub fn restore(
        snapshot: &[u8],
        config: PagingConfig,
        pages: impl IntoIterator<Item = MemoryPage>,
        tail: Vec<MemoryMessage>,
    ) -> Result<(Self, Vec<Leave>), SnapshotError> {
        let contradiction = |detail| SnapshotError::Contradiction { detail };
        let stored = Stored::from_bytes(snapshot)?;
        let mut pager = Self::new(stored.agent, config)?;
        pager.table = stored.table;
        pager.recent = stored.recent.into_iter().rev().take(RECENT_TURNS).rev().collect();
        let mut expected = pager.table.pages().map(|(page, entry)| (page, entry.ends_conversation)).collect::<Vec<_>>();
        expected.reverse();
        for page in pages {
            let (id, ends) = expected.pop().ok_or(contradiction("there are more pages than it knows"))?;
            if page.id != id || id_of(pager.agent, &page.messages) != id {
                return Err(contradiction("a page is not the one that it knows"));
            }
            pager.index_all(&page.messages).map_err(|_| contradiction("messages are out of order"))?;
            for (message, vector) in page.messages.iter().zip(&page.vectors) {
                let embedded = vector.iter().try_for_each(|vector| pager.index.embed(message.seq, vector));
                embedded.map_err(|_| contradiction("vectors are of different models"))?;
            }
            pager.index.seal(id);
            if ends {
                pager.index.end_conversation();
            }
            if pager.table.get(id).is_some_and(PageEntry::is_active) {
                pager.active.insert(id, page.messages);
            }
        }
        if !expected.is_empty() {
            return Err(contradiction("a page that it knows is missing"));
        }
        pager.index_all(&tail).map_err(|_| contradiction("messages are out of order"))?;
        if pager.index.last().unwrap_or_default() != stored.last {
            return Err(contradiction("the messages after its pages are not those that it knows"));
        }
        pager.open = tail;
        pager.table.limit_pins(&pager.config);
        let judge = pager.judge(None);
        let left = pager.table.shrink(LeaveReason::SmallerLimit, &judge, &pager.config);
        for leave in &left {
            pager.active.remove(&leave.page);
        }
        Ok((pager, left))
    }

    fn index_all(&mut self, messages: &[MemoryMessage]) -> Result<(), PagingError> {
        messages.iter().try_for_each(|message| self.index.push(message))
    }

    fn seal(&mut self, at: Timestamp) -> Vec<Change> {
        let messages = std::mem::take(&mut self.open);
        let (Some(first), Some(last)) = (messages.first(), messages.last()) else { return Vec::new() };
        let id = id_of(self.agent, &messages);
        let entry = PageEntry {
            first: first.seq,
            last: last.seq,
            messages: messages.len() as u32,
            tokens: messages.iter().fold(0, |sum, message| sum.saturating_add(message.tokens)),
            importance: importance(&messages),
            ends_conversation: false,
            residency: Residency::Active,
            is_pinned: false,
            last_accessed: Accessed { turn: self.table.turn(), at },
            access_count: 0,
            frequency: 0,
            relevance: 0.0,
        };
        self.index.seal(id);
        self.active.insert(id, messages);
        let judge = self.judge(None);
        let left = self.table.seal(id, entry, &judge, &self.config);
        let sealed = self.page(id).map(Change::Sealed);
        for leave in &left {
            self.active.remove(&leave.page);
        }
        sealed.into_iter().chain(left.into_iter().map(Change::Left)).collect()
    }

    /// What active pages have to do with the last turns, a query being the very last.
    fn judge(&self, query: Option<&Query<'_>>) -> Judge {
        let (policy, weights) = (self.config.eviction_policy, self.config.hybrid);
        let asked = query.and_then(|query| query.vector).and_then(MessageVector::new);
        let skipped = usize::from(query.is_some() && self.recent.len() == RECENT_TURNS);
        let last = || self.recent.iter().skip(skipped);
        let vectors = last().filter_map(|recent| recent.vector.as_ref()).chain(&asked);
        let about = mean(vectors.filter(|vector| self.index.fits(vector.dimensions()).is_ok()));
        let direction = about.and_then(|about| QueryVector::new(&about));
        let mut words: Vec<Term> = last().flat_map(|recent| recent.words.iter().copied()).collect();
        words.extend(query.iter().flat_map(|query| terms(query.text)));
        let (mut ids, mut numbers) = (Vec::new(), Vec::new());
        for (page, entry) in self.table.active() {
            if let Some(message) = self.index.number_of(entry.first) {
                ids.push(page);
                numbers.push(self.index.entries[message as usize].page);
            }
        }
        let relevance = self.index.relevance(&words, direction.as_ref(), &numbers);
        Judge { policy, weights, relevance: ids.into_iter().zip(relevance).collect() }
    }

    fn note(&mut self, seq: Option<Version>, mut words: Vec<Term>, vector: Option<MessageVector>) {
        words.truncate(RECENT_WORDS_MAX);
        if self.recent.len() == RECENT_TURNS {
            self.recent.pop_front();
        }
        self.recent.push_back(Recent { seq, words, vector });
    }
}
