//! Ranks what an agent remembers for a query.
//!
//! In:  the index, a query with or without a vector, weights.
//! Out: messages, pages and conversations, the best first, each with what its score is made of.
//!
//! Words and vectors are each scored over messages, pages and conversations: of a page, words as those of one text, vectors as
//! the best of its messages. Fusion is a weighted sum of the two, each brought to 0 to 1. A page's score is its own and a part of
//! its conversation's; a message's is its own and parts of its page's and its neighbours'. That is what makes few messages
//! enough: what answers a question often does not have its words, and stands beside what has.
//!
//! Ranks are not fused (reciprocal rank fusion): they forget by how much the best is better, and did worse than words alone.
//! Recency is no part of a score: it costs as much as it is given. All messages are compared, so nothing is missed. Equal scores
//! go by place in the log.

use nexa_types::{PageId, Version};

use crate::calendar::NamedDate;
use crate::config::RankWeights;
use crate::index::MemoryIndex;
use crate::keywords::{Hits, score};
use crate::vectors::QueryVector;
use crate::words::{Term, terms};

/// What is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Words only.
    Keywords,
    /// Vectors only.
    Vectors,
    /// Both; words only where there are no vectors.
    #[default]
    Hybrid,
}

/// What messages are parts of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    Page,
    Conversation,
}

/// What a message's score is made of, each part as it was before it was weighed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Why {
    /// Its words, 0 to 1; 0: it has none of the query's.
    pub keywords: f32,
    /// The cosine of its vector and the query's; `None` if one of them has none.
    pub cosine: Option<f32>,
    /// The score of its page: words and vectors together, 0 to 1, and what the page's conversation adds.
    pub page: f32,
    /// Words and vectors of its conversation together, 0 to 1.
    pub conversation: f32,
    /// Words and vectors of the messages before and after it, the mean of both.
    pub neighbours: f32,
    /// How near it is to the date that the query names.
    pub date: f32,
    /// Whether the query names who wrote it.
    pub speaker: bool,
}

/// A message that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its place in the log.
    pub seq: Version,
    /// Its page; `None`: the page is open, and so in memory.
    pub page: Option<PageId>,
    /// Tokens that it takes.
    pub tokens: u32,
    /// How well it answers the query, compared with others for the same query.
    pub score: f64,
    /// What that is made of.
    pub why: Why,
}

/// A page that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundPage {
    /// The page; `None`: it is open.
    pub page: Option<PageId>,
    /// The place in the log of its first message.
    pub first: Version,
    /// How well it answers the query, compared with others for the same query.
    pub score: f64,
}

/// What was found for a query, the best first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ranking {
    /// Messages.
    pub messages: Vec<Found>,
    /// Pages.
    pub pages: Vec<FoundPage>,
    /// First messages of conversations, with scores.
    pub conversations: Vec<(Version, f64)>,
    /// What was compared indeed: without vectors, words only.
    pub mode: Option<Mode>,
}

/// A query as the index compares it.
pub(crate) struct Asked {
    terms: Vec<Term>,
    vector: Option<QueryVector>,
    date: Option<NamedDate>,
}

impl Asked {
    pub(crate) fn new(text: &str, vector: Option<&[f32]>) -> Self {
        Self { terms: terms(text), vector: vector.and_then(QueryVector::new), date: NamedDate::in_text(text) }
    }
}

/// How to rank.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    pub mode: Mode,
    pub weights: RankWeights,
    pub threshold: f32,
    /// Messages that are wanted at most, and as many pages and conversations.
    pub depth: usize,
}

/// Scores of words and of vectors over units of one kind.
struct Scores {
    keywords: Vec<f64>,
    cosines: Option<Vec<Option<f32>>>,
}

impl Scores {
    /// Brings both to 0 to 1 and adds them up. A unit without a vector is taken for one as near as the mean of the others.
    fn fused(&self, weight: f64) -> Vec<f64> {
        let most = self.keywords.iter().copied().fold(0.0, f64::max);
        let words = |unit: usize| if most > 0.0 { self.keywords[unit] / most } else { 0.0 };
        let units = 0..self.keywords.len();
        let Some(cosines) = &self.cosines else { return units.map(words).collect() };
        let known = || cosines.iter().flatten().copied();
        let (least, best) = known().fold((f32::MAX, f32::MIN), |(least, best), it| (least.min(it), best.max(it)));
        let span = f64::from(best - least);
        let scaled = |cosine: f32| if span > 0.0 { f64::from(cosine - least) / span } else { 1.0 };
        let count = known().count();
        let mean = known().map(scaled).sum::<f64>() / count.max(1) as f64;
        units.map(|unit| weight * words(unit) + (1.0 - weight) * cosines[unit].map_or(mean, scaled)).collect()
    }

    fn has_words(&self, unit: u32) -> bool {
        self.keywords[unit as usize] > 0.0
    }

    fn cosine(&self, unit: u32) -> Option<f32> {
        self.cosines.as_ref().and_then(|cosines| cosines[unit as usize])
    }
}

impl MemoryIndex {
    /// Ranks everything for a query.
    pub(crate) fn rank(&self, asked: &Asked, how: &How) -> Ranking {
        let has_vectors =
            self.vectors.have() > 0 && asked.vector.as_ref().map(QueryVector::dimensions) == self.vectors.dimensions();
        let mode = match how.mode {
            Mode::Hybrid if !has_vectors => Mode::Keywords,
            Mode::Vectors if !has_vectors => return Ranking::default(),
            mode => mode,
        };
        let weight = match mode {
            Mode::Keywords => 1.0,
            Mode::Vectors => 0.0,
            Mode::Hybrid => how.weights.keywords,
        };
        let hits = if mode == Mode::Vectors { Vec::new() } else { self.keywords.hits(&asked.terms) };
        let query = asked.vector.as_ref().filter(|_| mode != Mode::Keywords);
        let cosines: Option<Vec<Option<f32>>> =
            query.map(|query| (0..self.len() as u32).map(|message| self.vectors.cosine(message, query)).collect());
        let own = Scores { keywords: score(&hits, |message| message, self.keywords.lens()), cosines };
        let pages = self.unit_scores(Whole::Page, &hits, own.cosines.as_deref());
        let talks = self.unit_scores(Whole::Conversation, &hits, own.cosines.as_deref());
        let (fused_own, mut fused_pages, fused_talks) = (own.fused(weight), pages.fused(weight), talks.fused(weight));
        for (page, score) in fused_pages.iter_mut().enumerate() {
            let talk = self.entries[self.pages.firsts[page] as usize].conversation;
            *score += how.weights.conversation * fused_talks[talk as usize];
        }

        // A page is worth looking at if it has a word of the query, or is near enough. No hit is ever dropped for its cosine.
        let is_near = |page: u32| pages.cosine(page).is_some_and(|cosine| cosine >= how.threshold);
        let is_wanted = |page: u32| pages.has_words(page) || is_near(page);
        let named: Vec<bool> =
            self.speakers.iter().map(|name| name.iter().any(|term| asked.terms.contains(term))).collect();
        let most_words = own.keywords.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let (mut last_day, mut last_nearness) = (None, 0.0);

        let mut messages: Vec<(f64, u32, f32, f32)> = Vec::with_capacity(self.len());
        let weights = &how.weights;
        for (number, entry) in self.entries.iter().enumerate() {
            if !is_wanted(entry.page) {
                continue;
            }
            let beside = |other: Option<usize>| match other.and_then(|other| Some((other, self.entries.get(other)?))) {
                Some((other, at)) if at.conversation == entry.conversation => fused_own[other],
                _ => 0.0,
            };
            let neighbours = (beside(number.checked_sub(1)) + beside(Some(number + 1))) / 2.0;
            if let Some(date) = asked.date.filter(|_| last_day != Some(entry.day)) {
                (last_day, last_nearness) = (Some(entry.day), date.nearness(entry.day));
            }
            let score = fused_own[number]
                + weights.page * fused_pages[entry.page as usize]
                + weights.neighbours * neighbours
                + weights.date * last_nearness
                + if named[entry.speaker as usize] { weights.speaker } else { 0.0 };
            messages.push((score, number as u32, neighbours as f32, last_nearness as f32));
        }
        best(&mut messages, how.depth, |(score, number, ..)| (*score, *number));
        let messages = messages.into_iter().map(|(score, number, neighbours, date)| {
            let entry = &self.entries[number as usize];
            Found {
                seq: entry.seq,
                page: self.page_of(number),
                tokens: entry.tokens,
                score,
                why: Why {
                    keywords: (own.keywords[number as usize] / most_words) as f32,
                    cosine: own.cosine(number),
                    page: fused_pages[entry.page as usize] as f32,
                    conversation: fused_talks[entry.conversation as usize] as f32,
                    neighbours,
                    date,
                    speaker: named[entry.speaker as usize],
                },
            }
        });

        let mut found: Vec<(f64, u32)> = (0..fused_pages.len() as u32)
            .filter(|page| is_wanted(*page))
            .map(|page| (fused_pages[page as usize], page))
            .collect();
        best(&mut found, how.depth, |found| *found);
        let first = |number: u32| self.entries[number as usize].seq;
        let found_page = |(score, page): (f64, u32)| FoundPage {
            page: self.ids.get(page as usize).copied(),
            first: first(self.pages.firsts[page as usize]),
            score,
        };
        let mut found_talks: Vec<(f64, u32)> =
            (0..fused_talks.len() as u32).map(|talk| (fused_talks[talk as usize], talk)).collect();
        best(&mut found_talks, how.depth, |found| *found);
        let talk = |(score, talk): (f64, u32)| (first(self.conversations.firsts[talk as usize]), score);
        Ranking {
            messages: messages.collect(),
            pages: found.into_iter().map(found_page).collect(),
            conversations: found_talks.into_iter().map(talk).collect(),
            mode: Some(mode),
        }
    }

    /// Words and the best cosine of each page or conversation.
    fn unit_scores(&self, whole: Whole, hits: &[Hits], cosines: Option<&[Option<f32>]>) -> Scores {
        let units = if whole == Whole::Page { &self.pages } else { &self.conversations };
        let unit_of = |message: u32| {
            let entry = &self.entries[message as usize];
            if whole == Whole::Page { entry.page } else { entry.conversation }
        };
        let cosines = cosines.map(|cosines| {
            let mut best: Vec<Option<f32>> = vec![None; units.lens.len()];
            for (message, cosine) in cosines.iter().enumerate() {
                let unit = &mut best[unit_of(message as u32) as usize];
                *unit = match (*unit, *cosine) {
                    (Some(x), Some(y)) => Some(x.max(y)),
                    (x, y) => x.or(y),
                };
            }
            best
        });
        Scores { keywords: score(hits, unit_of, &units.lens), cosines }
    }

    /// How much each page has to do with some words or a direction, 0 to 1, by the pages' numbers.
    pub(crate) fn relevance(&self, words: &[Term], direction: Option<&QueryVector>, pages: &[u32]) -> Vec<f32> {
        let Some(direction) = direction.filter(|query| Some(query.dimensions()) == self.vectors.dimensions()) else {
            let scores =
                score(&self.keywords.hits(words), |message| self.entries[message as usize].page, &self.pages.lens);
            let most = scores.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
            return pages.iter().map(|page| (scores[*page as usize] / most) as f32).collect();
        };
        let best = |page: &u32| {
            let messages = self.pages.messages(*page, self.len());
            messages.filter_map(|message| self.vectors.cosine(message, direction)).fold(0.0, f32::max)
        };
        pages.iter().map(best).collect()
    }
}

/// Keeps the best so many, the highest score first and then the lowest number.
fn best<T>(all: &mut Vec<T>, count: usize, key: impl Fn(&T) -> (f64, u32)) {
    let order = |x: &T, y: &T| {
        let (x, y) = (key(x), key(y));
        y.0.total_cmp(&x.0).then(x.1.cmp(&y.1))
    };
    if count == 0 {
        all.clear();
    } else if all.len() > count {
        all.select_nth_unstable_by(count - 1, order);
        all.truncate(count);
    }
    all.sort_unstable_by(order);
}
