//! Finding texts by the words of a query.
//!
//! The ranking is BM25 (S. Robertson, H. Zaragoza, *The Probabilistic Relevance Framework: BM25 and Beyond*, 2009) with
//! the usual `k1 = 1.2` and `b = 0.75`, and the idf that never is negative, `ln(1 + (N - n + 0.5) / (n + 0.5))`. Words
//! are runs of letters and digits, compared in lower case. A text with none of the query's words is no hit.
//!
//! A score is a function of the texts and the query alone, the same bits on every machine: the logarithm is computed
//! here from additions, multiplications and divisions, which IEEE 754 defines exactly, and not by a platform's library.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use nexa_event::effect::Wanted;
use nexa_types::Payload;
use nexa_types::limits::{RECALL_BYTES_MAX, RECALL_HITS_MAX};

use crate::codec;
use crate::json::text_of;
use crate::value::{Record, Shape, Value};

const K1: f64 = 1.2;
const B: f64 = 0.75;

/// A text that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Its key.
    pub key: String,
    /// The text.
    pub text: String,
    /// How well it answers the query; above 0.
    pub score: f64,
}

static HIT: LazyLock<Arc<Shape>> = LazyLock::new(|| {
    let fields = ["key", "text", "score"].map(str::to_owned).to_vec();
    Arc::new(Shape { type_name: "Hit".to_owned(), tag: String::new(), fields })
});

/// How many hits a program gets when it asks for so many.
pub fn hits_wanted(count: i64) -> usize {
    usize::try_from(count).unwrap_or(0).min(RECALL_HITS_MAX)
}

/// The best `count` of the texts for a query: by score, the highest first, and then by key.
pub fn rank<'t>(query: &str, texts: impl IntoIterator<Item = (&'t str, &'t str)>, count: usize) -> Vec<Hit> {
    let mut wanted: BTreeMap<String, f64> = words(query).map(|word| (word, 0.0)).collect();
    let mut found = Vec::new();
    let (mut documents, mut total) = (0u32, 0u64);
    for (key, text) in texts {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        let mut len = 0u32;
        for word in words(text) {
            len += 1;
            if wanted.contains_key(&word) {
                *counts.entry(word).or_default() += 1;
            }
        }
        documents += 1;
        total += u64::from(len);
        for word in counts.keys() {
            if let Some(holding) = wanted.get_mut(word) {
                *holding += 1.0;
            }
        }
        if !counts.is_empty() {
            found.push((key, text, counts, f64::from(len)));
        }
    }
    let documents = f64::from(documents);
    let average = total as f64 / documents.max(1.0);
    let mut hits: Vec<Hit> = found
        .into_iter()
        .map(|(key, text, counts, len)| {
            let mut score = 0.0;
            for (word, count) in counts {
                let holding = wanted.get(&word).copied().unwrap_or_default();
                let idf = ln(1.0 + (documents - holding + 0.5) / (holding + 0.5));
                let often = f64::from(count);
                score += idf * often * (K1 + 1.0) / (often + K1 * (1.0 - B + B * len / average));
            }
            Hit { key: key.to_owned(), text: text.to_owned(), score }
        })
        .collect();
    hits.sort_by(|x, y| y.score.total_cmp(&x.score).then_with(|| x.key.cmp(&y.key)));
    hits.truncate(count);
    hits
}

/// What a memory answers to a request. An entry that is no value, or has no text, is passed over; hits whose texts take
/// more than [`RECALL_BYTES_MAX`] together are cut off after the last that fits.
pub fn look_up<'e>(wanted: &Wanted, entries: impl IntoIterator<Item = (&'e str, &'e Payload)>) -> Option<Payload> {
    match wanted {
        Wanted::Key(wanted) => entries.into_iter().find(|(key, _)| key == wanted).map(|(_, value)| value.clone()),
        Wanted::Best { query, count } => {
            let text = |value: &Payload| text_of(&codec::decode(value).ok()?).ok();
            let texts = entries.into_iter().filter_map(|(key, value)| Some((key, text(value)?)));
            let texts: Vec<(&str, String)> = texts.collect();
            let texts = texts.iter().map(|(key, text)| (*key, text.as_str()));
            let mut hits = rank(query, texts, *count as usize);
            let mut room = RECALL_BYTES_MAX;
            hits.retain(|hit| {
                let fits = hit.text.len() <= room;
                room = if fits { room - hit.text.len() } else { 0 };
                fits
            });
            Some(codec::encode(&hits_value(&hits)))
        }
    }
}

/// The hits as a program sees them: `list[Hit]`.
pub fn hits_value(hits: &[Hit]) -> Value {
    let one = |hit: &Hit| {
        let values =
            vec![Value::Str(hit.key.as_str().into()), Value::Str(hit.text.as_str().into()), Value::Float(hit.score)];
        Value::Record(Arc::new(Record { shape: Arc::clone(&HIT), values }))
    };
    Value::List(Arc::new(hits.iter().map(one).collect()))
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// The natural logarithm of a number of at least 1: `ln(m · 2ᵉ) = e · ln 2 + 2 · artanh((m - 1) / (m + 1))`, `m` being
/// below 2, so that each further term of the series is at most a ninth of the one before.
fn ln(mut number: f64) -> f64 {
    let mut exponent = 0.0;
    while number >= 2.0 {
        number /= 2.0;
        exponent += 1.0;
    }
    let t = (number - 1.0) / (number + 1.0);
    let (mut power, mut sum) = (t, 0.0);
    for odd in (1..=33).step_by(2) {
        sum += power / f64::from(odd);
        power *= t * t;
    }
    exponent * std::f64::consts::LN_2 + 2.0 * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(query: &str, texts: &[(&str, &str)], count: usize) -> Vec<String> {
        rank(query, texts.iter().copied(), count).into_iter().map(|hit| hit.key).collect()
    }

    #[test]
    fn a_rarer_word_weighs_more_and_a_shorter_text_does_too() {
        let texts = [
            ("a", "the cat sat on the mat"),
            ("b", "the dog sat on the log"),
            ("c", "the cat and the dog and the owl went to sea in a boat"),
            ("d", "an owl"),
        ];
        assert_eq!(keys("owl", &texts, 5), ["d", "c"]);
        assert_eq!(keys("the owl", &texts, 5), ["d", "c", "a", "b"]);
        assert_eq!(keys("THE OWL!", &texts, 1), ["d"]);
        assert_eq!(keys("unicorn", &texts, 5), Vec::<String>::new());
        assert_eq!(keys("", &texts, 5), Vec::<String>::new());
    }

    #[test]
    fn equal_scores_go_by_key() {
        let texts = [("z", "green tea"), ("a", "black tea"), ("m", "mint tea")];
        assert_eq!(keys("tea", &texts, 5), ["a", "m", "z"]);
    }

    #[test]
    fn a_text_with_all_words_of_its_only_query_scores_as_the_formula_says() {
        // N = 1, n = 1: idf = ln(1 + 0.5 / 1.5); the text has average length, so the rest is 1.
        let hits = rank("tea", [("k", "tea")], 5);
        assert!((hits[0].score - (4.0f64 / 3.0).ln()).abs() < 1e-12, "{hits:?}");
    }

    #[test]
    fn the_logarithm_is_one() {
        for step in 0..10_000 {
            let number = 1.0 + f64::from(step) * 0.37;
            assert!((ln(number) - number.ln()).abs() < 1e-12, "{number}");
        }
    }
}
