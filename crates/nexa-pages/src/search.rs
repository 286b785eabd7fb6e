//! Finds pages among rows that are in memory: exactly, with the words and the scores of the store's twin in `nexa-ports`.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use nexa_ports::pages::{ANSWER_PAGES_MAX, Hit, PageQuery, PageVector, QUERY_BYTES_MAX, sort_hits};
use nexa_ports::view::words;
use nexa_types::PageId;

use crate::part::Place;
use crate::rows::{Found, Key};

/// A row as a search needs it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) key: Key,
    /// Hashes of its words, sorted, each once. In 64 bits no two words of a language meet.
    words: Box<[u64]>,
    vector: Option<PageVector>,
    /// Where it is: a place of one row.
    pub(crate) place: Place,
}

impl Row {
    /// A row that was read.
    pub(crate) fn new(key: Key, found: Found, place: Place) -> Self {
        let mut hashes: Vec<u64> = words(&found.text).iter().map(|word| hash(word)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        Self { key, words: hashes.into(), vector: found.vector, place }
    }

    /// What it weighs, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let vector = self.vector.as_ref().map_or(0, |of| size_of_val(of.vector.numbers()) + of.model.len());
        size_of::<Self>() + size_of_val(&*self.words) + vector
    }

    fn hit(&self) -> Hit {
        Hit { id: self.key.id, agent: self.key.agent, first: self.key.first, words: None, cosine: None }
    }
}

fn hash(word: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    word.hash(&mut hasher);
    hasher.finish()
}

/// The best of some rows, in the order of an answer.
pub(crate) fn best(rows: &[Arc<Row>], query: &PageQuery) -> Vec<Hit> {
    let best = query.best.min(ANSWER_PAGES_MAX);
    let mut hits: Vec<(usize, Hit)> = Vec::new();
    let by_words = query.words.as_deref().map_or_else(Vec::new, |text| by_words(rows, text));
    for (score, row) in first(best, by_words, rows) {
        hits.push((row, Hit { words: Some(score), ..rows[row].hit() }));
    }
    let by_nearness = query.near.as_ref().map_or_else(Vec::new, |near| by_nearness(rows, near));
    for (cosine, row) in first(best, by_nearness, rows) {
        match hits.iter_mut().find(|(of, _)| *of == row) {
            Some((_, hit)) => hit.cosine = Some(cosine),
            None => hits.push((row, Hit { cosine: Some(cosine), ..rows[row].hit() })),
        }
    }
    let mut hits: Vec<Hit> = hits.into_iter().map(|(_, hit)| hit).collect();
    sort_hits(&mut hits);
    hits
}

/// The highest so many, then by id.
fn first(best: usize, mut scored: Vec<(f32, usize)>, rows: &[Arc<Row>]) -> Vec<(f32, usize)> {
    let id = |row: usize| -> PageId { rows[row].key.id };
    let order = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0).then_with(|| id(a.1).cmp(&id(b.1)));
    if best < scored.len() {
        scored.select_nth_unstable_by(best, order);
        scored.truncate(best);
    }
    scored.sort_unstable_by(order);
    scored
}

/// Rows with any of the words; a word weighs more the fewer rows have it.
fn by_words(rows: &[Arc<Row>], text: &str) -> Vec<(f32, usize)> {
    let wanted: BTreeSet<String> = words(&text[..text.floor_char_boundary(QUERY_BYTES_MAX)]).into_iter().collect();
    let hashes: Vec<u64> = wanted.iter().map(|word| hash(word)).collect();
    let mut holding = vec![0_usize; hashes.len()];
    // For each row that has any, which ones; in the order of the words, because a sum of floats depends on it.
    let mut held: Vec<(usize, Vec<usize>)> = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let has: Vec<usize> =
            (0..hashes.len()).filter(|word| row.words.binary_search(&hashes[*word]).is_ok()).collect();
        has.iter().for_each(|word| holding[*word] += 1);
        if !has.is_empty() {
            held.push((at, has));
        }
    }
    let rarity: Vec<f32> =
        holding.iter().map(|holding| 1.0 + (rows.len() as f32 / (*holding).max(1) as f32).ln()).collect();
    held.into_iter().map(|(at, has)| (has.iter().map(|word| rarity[*word]).sum(), at)).collect()
}

fn by_nearness(rows: &[Arc<Row>], near: &PageVector) -> Vec<(f32, usize)> {
    let vectors = rows.iter().enumerate().filter_map(|(at, row)| Some((at, row.vector.as_ref()?)));
    vectors.filter(|(_, of)| of.model == near.model).map(|(at, of)| (of.vector.cosine(&near.vector), at)).collect()
}
