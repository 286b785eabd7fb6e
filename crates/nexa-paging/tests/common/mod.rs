//! One agent's memory with everything around it: a log that records, a store that keeps pages, somebody who makes vectors.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

use std::collections::BTreeMap;

use nexa_event::effect::Role;
use nexa_paging::{
    Access, Change, ContextPager, Leave, MemoryMessage, MemoryPage, PagingConfig, PagingError, Query, Recall,
    RecallBudget,
};
use nexa_types::{AgentId, PageId, Timestamp, Version};

pub const AGENT: AgentId = AgentId::from_bytes([7; 16]);
/// Dimensions of the vectors that the desk makes.
const DIMENSIONS: usize = 24;

#[derive(Clone)]
pub struct Desk {
    pub pager: ContextPager,
    pub store: BTreeMap<PageId, MemoryPage>,
    /// Pages in the order in which they were sealed.
    pub sealed: Vec<PageId>,
    /// Everything that left, in its order.
    pub left: Vec<Leave>,
    pub said: Vec<MemoryMessage>,
    pub has_vectors: bool,
    pub records: bool,
    clock: u64,
}

impl Desk {
    pub fn new(config: PagingConfig) -> Self {
        Self {
            pager: ContextPager::new(AGENT, config).unwrap(),
            store: BTreeMap::new(),
            sealed: Vec::new(),
            left: Vec::new(),
            said: Vec::new(),
            has_vectors: true,
            records: true,
            clock: 1_700_000_000_000,
        }
    }

    /// Pages of two messages, so many active.
    pub fn small(max_active_pages: usize) -> Self {
        Self::new(PagingConfig { page_size: 2, max_active_pages, ..PagingConfig::default() })
    }

    pub fn by_words(mut self) -> Self {
        self.has_vectors = false;
        self
    }

    fn message(&mut self, text: &str) -> MemoryMessage {
        self.clock += 1_000;
        let seq = Version(self.said.len() as u64 * 3 + 1);
        let at = Timestamp(self.clock);
        let (role, speaker) = (Role::User, "Ann".to_owned());
        MemoryMessage { seq, role, speaker, text: text.to_owned(), at, tokens: text.len() as u32 / 4 + 1 }
    }

    pub fn try_says(&mut self, text: &str) -> Result<Version, PagingError> {
        let message = self.message(text);
        let seq = message.seq;
        if self.records {
            self.pager.recorded(seq);
        }
        let changes = self.pager.add(message.clone())?;
        self.said.push(message);
        if self.has_vectors {
            self.pager.embed(seq, &vector(text)).unwrap();
        }
        self.keep(changes);
        Ok(seq)
    }

    pub fn says(&mut self, text: &str) -> Version {
        self.try_says(text).unwrap()
    }

    /// Several messages.
    pub fn tells(&mut self, texts: &[&str]) -> &mut Self {
        for text in texts {
            self.says(text);
        }
        self
    }

    pub fn breaks(&mut self) {
        let changes = self.pager.break_conversation(Timestamp(self.clock)).unwrap();
        self.keep(changes);
    }

    fn keep(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Sealed(page) => {
                    self.sealed.push(page.id);
                    self.store.insert(page.id, page);
                }
                Change::Left(leave) => self.left.push(leave),
            }
        }
    }

    /// What is decided for a query, and the query's vector.
    pub fn plans(&self, text: &str, access: Access, budget: RecallBudget) -> (Recall, Option<Vec<f32>>) {
        let vector = self.has_vectors.then(|| vector(text));
        let query = Query { text, vector: vector.as_deref(), access, ..Query::default() };
        (self.pager.load_relevant_pages(&query, budget), vector)
    }

    pub fn carries_out(
        &mut self,
        text: &str,
        (recall, vector): &(Recall, Option<Vec<f32>>),
    ) -> Result<(), PagingError> {
        let query = Query { text, vector: vector.as_deref(), access: recall.turnover.access, ..Query::default() };
        let read = self.read(recall);
        self.left.extend(self.pager.carry_out(recall, &query, &read, Timestamp(self.clock))?);
        Ok(())
    }

    pub fn read(&self, recall: &Recall) -> BTreeMap<PageId, Vec<MemoryMessage>> {
        recall.reads.iter().map(|page| (*page, self.store[page].messages.clone())).collect()
    }

    /// A whole recall, as a node does it. Checks that every text is to be had, and is what was said.
    pub fn asks_for(&mut self, text: &str, access: Access, budget: RecallBudget) -> Recall {
        let planned = self.plans(text, access, budget);
        let read = self.read(&planned.0);
        for found in &planned.0.messages {
            let message = self.pager.message(found, &read).expect("in memory or read");
            assert_eq!(Some(message), self.said.iter().find(|message| message.seq == found.seq));
        }
        self.carries_out(text, &planned).unwrap();
        planned.0
    }

    pub fn asks(&mut self, text: &str) -> Recall {
        self.asks_for(text, Access::Recall, RecallBudget::default())
    }

    pub fn scans(&mut self, text: &str) -> Recall {
        self.asks_for(text, Access::Scan, RecallBudget::default())
    }

    /// What a query finds, as texts.
    pub fn finds(&mut self, text: &str) -> Vec<String> {
        let recall = self.asks(text);
        let text_of = |seq| self.said.iter().find(|message| message.seq == seq).unwrap().text.clone();
        recall.messages.iter().map(|found| text_of(found.seq)).collect()
    }

    pub fn is_active(&self, page: PageId) -> bool {
        self.pager.messages(page).is_some()
    }

    /// Numbers of the active pages, in the order in which pages were sealed.
    pub fn active(&self) -> Vec<usize> {
        (0..self.sealed.len()).filter(|number| self.is_active(self.sealed[*number])).collect()
    }

    pub fn number(&self, page: PageId) -> usize {
        self.sealed.iter().position(|sealed| *sealed == page).unwrap()
    }

    /// The same agent on another node: nothing but the snapshot, the store and the log.
    pub fn moves(&mut self, config: PagingConfig) {
        let snapshot = self.pager.snapshot();
        let pages: Vec<MemoryPage> = self.sealed.iter().map(|page| self.whole(*page)).collect();
        let tail = self.pager.open().to_vec();
        let (pager, left) = ContextPager::restore(&snapshot, config, pages, tail.clone()).unwrap();
        self.pager = pager;
        self.left.extend(left);
        for message in tail.iter().filter(|_| self.has_vectors) {
            self.pager.embed(message.seq, &vector(&message.text)).unwrap();
        }
    }

    /// A page as a store has it that was told of the vectors, too.
    fn whole(&self, page: PageId) -> MemoryPage {
        let messages = self.store[&page].messages.clone();
        let of = |message: &MemoryMessage| nexa_paging::MessageVector::new(&vector(&message.text));
        let vectors = messages.iter().map(|message| of(message).filter(|_| self.has_vectors)).collect();
        MemoryPage::new(AGENT, messages, vectors)
    }

    /// What always holds.
    pub fn checks(&self) {
        let config = self.pager.config();
        let active: Vec<PageId> = self.pager.table().active().map(|(page, _)| page).collect();
        assert!(active.len() <= config.max_active_pages, "CP-1: {active:?}");
        assert!(active.iter().all(|page| self.is_active(*page)), "what is active is in memory");
        assert_eq!(active.len(), self.active().len(), "and nothing else is");
        assert!(self.pager.table().ghosts().len() <= 2 * config.max_active_pages);
        assert!(self.pager.open().len() < config.page_size);
        let recorded = self.pager.table().recorded();
        let stored = self.pager.table().pages().filter(|(_, entry)| !entry.is_active());
        stored.for_each(|(page, entry)| assert!(entry.last <= recorded, "CP-3: {page}"));
    }
}

/// A vector of the words of a text: texts with the same words are near.
pub fn vector(text: &str) -> Vec<f32> {
    let mut vector = vec![0.01; DIMENSIONS];
    for word in text.to_lowercase().split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let hash = word.bytes().fold(7usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        vector[hash % DIMENSIONS] += 1.0;
    }
    vector
}
