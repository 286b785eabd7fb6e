//! Ranks the pages of several agents together, as they were read from a store or wait to be stored.
//!
//! In:  pages with their messages and vectors, a query, a budget.
//! Out: messages, the best first, each with its agent, its page and what its score is made of.
//!
//! The ranking is that of [`crate::ContextPager`]; an agent's messages are one conversation. Nothing is kept: what a query needs is
//! indexed for it, which takes about a millisecond for a hundred pages.

use std::collections::BTreeMap;

use nexa_types::{AgentId, PageId, Version};

use crate::config::PagingConfig;
use crate::index::MemoryIndex;
use crate::message::MemoryMessage;
use crate::page::id_of;
use crate::rank::{Asked, How, Mode, Why};
use crate::recall::{Query, RecallBudget};
use crate::vectors::MessageVector;

/// A page, or messages that are no page yet.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnedPage {
    /// Whose it is.
    pub agent: AgentId,
    /// Its id; `None`: it is open.
    pub id: Option<PageId>,
    /// Its messages in the order of the log, at least one.
    pub messages: Vec<MemoryMessage>,
    /// Their vectors; may be shorter than the messages.
    pub vectors: Vec<Option<MessageVector>>,
}

/// A message that was found among pages.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundMessage {
    /// Whose it is.
    pub agent: AgentId,
    /// Its page; `None`: that is open.
    pub page: Option<PageId>,
    /// What it says.
    pub message: MemoryMessage,
    /// How well it answers the query, compared with others for the same query.
    pub score: f64,
    /// What that is made of.
    pub why: Why,
}

/// Ranks messages of pages. A page that is given twice counts once; a vector of other dimensions than the query's is passed
/// over.
#[must_use]
pub fn rank_pages(
    pages: &[OwnedPage],
    query: &Query<'_>,
    config: &PagingConfig,
    budget: RecallBudget,
) -> (Vec<FoundMessage>, Option<Mode>) {
    let first = |page: &OwnedPage| page.messages.first().map(|message| message.seq);
    let mut order: BTreeMap<(AgentId, Option<Version>, Option<PageId>), &OwnedPage> = BTreeMap::new();
    for page in pages.iter().filter(|page| !page.messages.is_empty()) {
        order.insert((page.agent, first(page), page.id), page);
    }
    let (mut index, mut places) = (MemoryIndex::default(), Vec::new());
    let dimensions = query.vector.map(<[f32]>::len);
    let mut before: Option<(AgentId, Version)> = None;
    for page in order.into_values() {
        if before.is_some_and(|(agent, _)| agent != page.agent) {
            index.end_conversation();
            before = None;
        }
        let mut is_empty = true;
        for (nth, message) in page.messages.iter().enumerate() {
            // What is open may have become a page meanwhile.
            if before.is_some_and(|(_, last)| message.seq <= last) {
                continue;
            }
            let seq = Version(places.len() as u64 + 1);
            // Full: the rest is not looked at.
            if index.push(&MemoryMessage { seq, ..message.clone() }).is_err() {
                break;
            }
            let vector = page.vectors.get(nth).and_then(Option::as_ref);
            if let Some(vector) = vector.filter(|vector| Some(vector.dimensions()) == dimensions) {
                // Of the one number of dimensions that is let in.
                let _fits = index.embed(seq, vector);
            }
            places.push((page, nth));
            before = Some((page.agent, message.seq));
            is_empty = false;
        }
        if !is_empty {
            index.seal(page.id.unwrap_or_else(|| id_of(page.agent, &page.messages)));
        }
    }
    let asked = Asked::new(query.text, query.vector);
    let (weights, threshold) = (config.rank, config.similarity_threshold);
    let ranking = index.rank(&asked, &How { mode: query.mode, weights, threshold, depth: budget.depth() });
    let mode = ranking.mode;
    let found = budget.fitting(ranking.messages).into_iter().filter_map(|found| {
        let (page, nth) = places.get(found.seq.0 as usize - 1)?;
        let message = page.messages.get(*nth)?.clone();
        Some(FoundMessage { agent: page.agent, page: page.id, message, score: found.score, why: found.why })
    });
    (found.collect(), mode)
}

#[cfg(test)]
mod tests {
    use nexa_event::effect::Role;
    use nexa_types::Timestamp;

    use super::*;

    fn page(agent: u8, first: u64, texts: &[&str]) -> OwnedPage {
        let agent = AgentId::from_bytes([agent; 16]);
        let messages: Vec<MemoryMessage> = (first..)
            .zip(texts)
            .map(|(seq, text)| MemoryMessage {
                seq: Version(seq),
                role: Role::User,
                speaker: String::new(),
                text: (*text).to_owned(),
                at: Timestamp(0),
                tokens: 4,
            })
            .collect();
        OwnedPage { agent, id: Some(id_of(agent, &messages)), messages, vectors: Vec::new() }
    }

    fn found(pages: &[OwnedPage], text: &str) -> Vec<(u8, u64)> {
        let query = Query { text, ..Query::default() };
        let budget = RecallBudget { messages: 2, tokens: None };
        let (found, mode) = rank_pages(pages, &query, &PagingConfig::default(), budget);
        assert_eq!(mode, Some(Mode::Keywords));
        found.iter().map(|found| (found.agent.as_bytes()[0], found.message.seq.0)).collect()
    }

    #[test]
    fn messages_of_several_agents_are_ranked_together_and_keep_their_places() {
        let pages = [page(2, 70, &["the tower is in Paris", "yes"]), page(1, 3, &["tea", "a tower of cards"])];
        assert_eq!(found(&pages, "where is the tower in Paris")[0], (2, 70));
        assert_eq!(found(&pages, "cards")[0], (1, 4));
    }

    #[test]
    fn what_is_a_page_by_now_is_not_found_again_as_what_was_open() {
        let sealed = page(1, 1, &["green tea", "milk"]);
        let open = OwnedPage { id: None, ..page(1, 2, &["milk", "green salad"]) };
        let mut all = found(&[open, sealed.clone(), sealed], "green");
        all.sort_unstable();
        assert_eq!(all, [(1, 1), (1, 3)]);
    }
}
