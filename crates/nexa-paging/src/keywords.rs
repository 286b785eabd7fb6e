//! Words of all messages: BM25 over messages, and over any longer units that consist of them.
//!
//! A posting is a message that has a word, with how often. Messages are numbered as they come, so a word's postings grow at
//! their end, and are kept as differences in a byte or two each. What a page has of a word is the sum over its messages, whose
//! numbers are neighbours: pages and conversations are scored from the same postings and cost no memory of their own, and a
//! page may be of any size.
//!
//! The ranking is BM25 (S. Robertson, H. Zaragoza, *The Probabilistic Relevance Framework: BM25 and Beyond*, 2009) with the
//! idf that never is negative, `ln(1 + (N - n + 0.5) / (n + 0.5))`.

use std::collections::BTreeMap;

use crate::math::ln;
use crate::words::Term;

const K1: f64 = 1.2;
const B: f64 = 0.75;

/// The messages that have a word.
#[derive(Debug, Clone, Default)]
struct Postings {
    /// Pairs of numbers: how far after the message before, how often. Seven bits a byte, the lowest first, the eighth set on
    /// all but the last of a number.
    bytes: Vec<u8>,
    last: u32,
}

impl Postings {
    fn push(&mut self, message: u32, often: u32) {
        write(&mut self.bytes, message - self.last);
        write(&mut self.bytes, often);
        self.last = message;
    }

    fn read(&self) -> impl Iterator<Item = (u32, u32)> {
        let (mut rest, mut message) = (self.bytes.as_slice(), 0);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            message += read(&mut rest);
            Some((message, read(&mut rest)))
        })
    }
}

fn write(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// The bytes are those of [`write`].
fn read(bytes: &mut &[u8]) -> u32 {
    let (mut number, mut shift) = (0, 0);
    while let Some((byte, rest)) = bytes.split_first() {
        *bytes = rest;
        number |= u32::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

/// The words of all messages.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keywords {
    postings: BTreeMap<Term, Postings>,
    /// How many terms each message has.
    lens: Vec<u32>,
}

/// The messages that have one word of a query.
pub(crate) type Hits = Vec<(u32, u32)>;

impl Keywords {
    /// Takes the next message.
    pub(crate) fn push(&mut self, mut terms: Vec<Term>) {
        let message = self.lens.len() as u32;
        self.lens.push(terms.len() as u32);
        terms.sort_unstable();
        for same in terms.chunk_by(|x, y| x == y) {
            self.postings.entry(same[0]).or_default().push(message, same.len() as u32);
        }
    }

    /// How many terms each message has.
    pub(crate) fn lens(&self) -> &[u32] {
        &self.lens
    }

    /// The postings of a query's words, each word once, in an order that does not depend on the query's.
    pub(crate) fn hits(&self, query: &[Term]) -> Vec<Hits> {
        let mut words = query.to_vec();
        words.sort_unstable();
        words.dedup();
        words.iter().filter_map(|word| self.postings.get(word)).map(|found| found.read().collect()).collect()
    }

    /// Bytes that it takes in memory, nearly.
    pub(crate) fn bytes(&self) -> usize {
        // A node of the map holds eleven entries and is two thirds full.
        let entry = (size_of::<Term>() + size_of::<Postings>()) * 3 / 2;
        let postings: usize = self.postings.values().map(|postings| postings.bytes.capacity() + 16).sum();
        self.postings.len() * entry + postings + self.lens.capacity() * size_of::<u32>()
    }
}

/// BM25 of units: `unit_of` says which unit a message is part of, and never falls; `lens` how many terms each unit has. A unit
/// without any of the words has 0.
pub(crate) fn score(hits: &[Hits], unit_of: impl Fn(u32) -> u32, lens: &[u32]) -> Vec<f64> {
    let count = lens.len() as f64;
    let average = (lens.iter().map(|len| u64::from(*len)).sum::<u64>() as f64 / count.max(1.0)).max(1.0);
    let mut scores = vec![0.0; lens.len()];
    let mut units: Hits = Vec::new();
    for word in hits {
        units.clear();
        for (message, often) in word {
            let unit = unit_of(*message);
            match units.last_mut() {
                Some((last, sum)) if *last == unit => *sum += often,
                _ => units.push((unit, *often)),
            }
        }
        let holding = units.len() as f64;
        let idf = ln(1.0 + (count - holding + 0.5) / (holding + 0.5));
        for (unit, often) in &units {
            let (unit, often) = (*unit as usize, f64::from(*often));
            let len = f64::from(lens[unit]);
            scores[unit] += idf * often * (K1 + 1.0) / (often + K1 * (1.0 - B + B * len / average));
        }
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::terms;

    fn index(texts: &[&str]) -> Keywords {
        let mut keywords = Keywords::default();
        texts.iter().for_each(|text| keywords.push(terms(text)));
        keywords
    }

    fn best(keywords: &Keywords, query: &str, page: u32) -> Vec<usize> {
        let lens: Vec<u32> = keywords.lens().chunks(page as usize).map(|page| page.iter().sum()).collect();
        let found = score(&keywords.hits(&terms(query)), |message| message / page, &lens);
        let mut order: Vec<usize> = (0..found.len()).filter(|unit| found[*unit] > 0.0).collect();
        order.sort_by(|x, y| found[*y].total_cmp(&found[*x]).then(x.cmp(y)));
        order
    }

    #[test]
    fn a_rarer_word_weighs_more_and_a_shorter_text_does_too() {
        let keywords = index(&["cat mat sat", "dog log sat", "cat dog owl sea boat town", "owl sat"]);
        assert_eq!(best(&keywords, "owl", 1), [3, 2]);
        assert_eq!(best(&keywords, "SAT with an owl!", 1), [3, 2, 0, 1]);
        assert!(best(&keywords, "unicorn", 1).is_empty() && best(&keywords, "", 1).is_empty());
    }

    #[test]
    fn a_page_scores_as_its_whole_text_does() {
        let texts = ["green tea", "black tea and milk", "a red car", "tea and tea", "nothing here", "milk"];
        let keywords = index(&texts);
        let pages: Vec<String> = texts.chunks(2).map(|two| two.join(" ")).collect();
        let whole = index(&pages.iter().map(String::as_str).collect::<Vec<_>>());
        for query in ["tea", "milk tea", "car", "red milk nothing"] {
            let lens: Vec<u32> = keywords.lens().chunks(2).map(|page| page.iter().sum()).collect();
            let of_messages = score(&keywords.hits(&terms(query)), |message| message / 2, &lens);
            let of_texts = score(&whole.hits(&terms(query)), |page| page, whole.lens());
            assert_eq!(of_messages, of_texts, "{query}");
        }
    }

    #[test]
    fn a_text_with_all_words_of_its_only_query_scores_as_the_formula_says() {
        let keywords = index(&["tea"]);
        let scores = score(&keywords.hits(&terms("tea")), |message| message, keywords.lens());
        assert!((scores[0] - (4.0f64 / 3.0).ln()).abs() < 1e-12, "{scores:?}");
    }

    #[test]
    fn postings_are_read_as_they_were_written() {
        let mut postings = Postings::default();
        let all = [(0, 1), (1, 127), (129, 128), (70_000, 1), (3_000_000, 70_000)];
        all.iter().for_each(|(message, often)| postings.push(*message, *often));
        assert_eq!(postings.read().collect::<Vec<_>>(), all);
    }
}
