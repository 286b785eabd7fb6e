//! A conversation played turn by turn through the pager that is shipped, with a store of sealed pages beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nexa_paging::{
    Change, ContextPager, MemoryMessage, Mode, PagingConfig, PagingError, Query, Recall, RecallBudget, vector_text,
};
use nexa_types::{AgentId, PageId, Timestamp, Version};

use crate::locomo::{Question, Talk};
use crate::vectors::Vectors;

/// A conversation so far.
pub(crate) struct Replay<'d> {
    pub pager: ContextPager,
    store: BTreeMap<PageId, Vec<MemoryMessage>>,
    page_of: BTreeMap<Version, PageId>,
    vectors: &'d Vectors,
}

/// What became of a question.
pub(crate) struct Answer {
    /// Messages that were returned, the best first.
    pub found: Vec<Version>,
    pub tokens: u64,
    /// Sealed pages that they are in, each once, that with the best message first.
    pub needed: Vec<PageId>,
    /// Pages that had to be read.
    pub faults: usize,
    /// Pages with evidence that were active when it was asked, and how many there are.
    pub active: [usize; 2],
    /// How long the search took, without making a vector and without reading.
    pub took: Duration,
}

impl<'d> Replay<'d> {
    pub(crate) fn new(agent: AgentId, config: PagingConfig, vectors: &'d Vectors) -> Result<Self, String> {
        let pager = ContextPager::new(agent, config).map_err(|error| error.to_string())?;
        Ok(Self { pager, store: BTreeMap::new(), page_of: BTreeMap::new(), vectors })
    }

    /// Plays a whole conversation; `ask` is called after each session with how many messages there are, and at the end.
    pub(crate) fn play(
        talk: &Talk,
        config: PagingConfig,
        vectors: &'d Vectors,
        mut at_break: impl FnMut(&mut Self, usize) -> Result<(), String>,
    ) -> Result<Self, String> {
        let mut replay = Self::new(talk.agent, config, vectors)?;
        let mut said = 0;
        for end in &talk.breaks {
            for message in &talk.messages[said..*end] {
                replay.say(message).map_err(|error| error.to_string())?;
            }
            let at = talk.messages[..*end].last().map(|message| message.at).unwrap_or_default();
            let changes = replay.pager.break_conversation(at).map_err(|error| error.to_string())?;
            replay.keep(changes);
            said = *end;
            at_break(&mut replay, said)?;
        }
        Ok(replay)
    }

    pub(crate) fn say(&mut self, message: &MemoryMessage) -> Result<(), PagingError> {
        self.pager.recorded(message.seq);
        let changes = self.pager.add(message.clone())?;
        self.keep(changes);
        match self.vectors.of(&vector_text(message)) {
            Some(vector) => self.pager.embed(message.seq, vector),
            None => Ok(()),
        }
    }

    fn keep(&mut self, changes: Vec<Change>) {
        for change in changes {
            if let Change::Sealed(page) = change {
                self.page_of.extend(page.messages.iter().map(|message| (message.seq, page.id)));
                self.store.insert(page.id, page.messages);
            }
        }
    }

    /// The sealed pages of messages, each once.
    pub(crate) fn pages_of(&self, messages: &[Version]) -> Vec<PageId> {
        let pages: BTreeSet<PageId> = messages.iter().filter_map(|seq| self.page_of.get(seq).copied()).collect();
        pages.into_iter().collect()
    }

    pub(crate) fn query<'q>(&self, question: &'q Question, mode: Mode) -> Query<'q>
    where
        'd: 'q,
    {
        Query { text: &question.text, vector: self.vectors.of(&question.text), mode, ..Query::default() }
    }

    /// Asks a question the way a node does: decides, reads stored pages, carries out, and takes the messages from memory or from
    /// what was read.
    pub(crate) fn ask(&mut self, question: &Question, budget: RecallBudget, at: Timestamp) -> Result<Answer, String> {
        let gold = self.pages_of(&question.gold);
        let active = gold.iter().filter(|page| self.pager.messages(**page).is_some()).count();
        let query = self.query(question, Mode::Hybrid);
        let began = Instant::now();
        let recall: Recall = self.pager.load_relevant_pages(&query, budget);
        let took = began.elapsed();
        let read: BTreeMap<PageId, Vec<MemoryMessage>> =
            recall.reads.iter().filter_map(|page| Some((*page, self.store.get(page)?.clone()))).collect();
        // Texts are taken as they are before anything leaves.
        let texts: Option<Vec<&MemoryMessage>> =
            recall.messages.iter().map(|found| self.pager.message(found, &read)).collect();
        let texts = texts.ok_or("a message that was found is neither in memory nor in a page that was read")?;
        let tokens = texts.iter().map(|message| u64::from(message.tokens)).sum();
        let found: Vec<Version> = texts.iter().map(|message| message.seq).collect();
        let mut seen = BTreeSet::new();
        let pages = found.iter().filter_map(|seq| self.page_of.get(seq).copied());
        let needed = pages.filter(|page| seen.insert(*page)).collect();
        self.pager.carry_out(&recall, &query, &read, at).map_err(|error| error.to_string())?;
        Ok(Answer { found, tokens, needed, faults: read.len(), active: [active, gold.len()], took })
    }
}
