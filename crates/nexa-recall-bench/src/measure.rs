//! How well a ranking finds what it should.

use std::time::Duration;

use serde_json::{Value, json};

/// How many of a ranking count.
pub(crate) const DEPTHS: [usize; 2] = [5, 10];

/// Sums over questions; shares of them come out.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Score {
    questions: u32,
    any: [f64; 2],
    mean: [f64; 2],
    all: [f64; 2],
    reciprocal: f64,
}

/// What of the evidence is among so many: whether any is, which part, whether all is.
pub(crate) fn among<T: PartialEq>(ranked: &[T], gold: &[T], count: usize) -> (f64, f64, f64) {
    let top = &ranked[..count.min(ranked.len())];
    let found = gold.iter().filter(|wanted| top.contains(wanted)).count();
    let as_number = |is: bool| if is { 1.0 } else { 0.0 };
    (as_number(found > 0), found as f64 / gold.len().max(1) as f64, as_number(found == gold.len()))
}

impl Score {
    /// Counts one question: what was ranked, and what should be found, each once.
    pub(crate) fn count<T: PartialEq>(&mut self, ranked: &[T], gold: &[T]) {
        self.questions += 1;
        for (place, depth) in DEPTHS.into_iter().enumerate() {
            let (any, mean, all) = among(ranked, gold, depth);
            self.any[place] += any;
            self.mean[place] += mean;
            self.all[place] += all;
        }
        let first = ranked.iter().position(|found| gold.contains(found));
        self.reciprocal += first.map_or(0.0, |rank| 1.0 / (rank as f64 + 1.0));
    }

    fn percent(&self, sum: f64) -> f64 {
        100.0 * sum / f64::from(self.questions.max(1))
    }

    /// Any, mean recall and all at a place of [`DEPTHS`], in percent.
    pub(crate) fn at(&self, place: usize) -> [f64; 3] {
        [self.any, self.mean, self.all].map(|sums| self.percent(sums[place]))
    }

    /// Mean reciprocal rank of the first that should be found.
    pub(crate) fn mrr(&self) -> f64 {
        self.reciprocal / f64::from(self.questions.max(1))
    }

    /// By names.
    pub(crate) fn to_json(self) -> Value {
        let [any_5, mean_5, all_5] = self.at(0).map(rounded);
        let [any_10, mean_10, all_10] = self.at(1).map(rounded);
        json!({
            "questions": self.questions,
            "any_at_5": any_5, "mean_recall_at_5": mean_5, "all_at_5": all_5,
            "any_at_10": any_10, "mean_recall_at_10": mean_10, "all_at_10": all_10,
            "mrr": (self.mrr() * 1e4).round() / 1e4,
        })
    }

    /// `any / mean / all` for people.
    pub(crate) fn cell(&self, place: usize) -> String {
        if self.questions == 0 {
            return "–".to_owned();
        }
        let [any, mean, all] = self.at(place);
        format!("{any:.1} / {mean:.1} / {all:.1}")
    }
}

/// What of the evidence is among the messages that were returned within a budget.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Returned {
    questions: u32,
    found: [f64; 3],
    messages: usize,
    tokens: u64,
}

impl Returned {
    pub(crate) fn count<T: PartialEq>(&mut self, returned: &[T], gold: &[T], tokens: u64) {
        let (any, mean, all) = among(returned, gold, returned.len());
        self.questions += 1;
        self.found = [self.found[0] + any, self.found[1] + mean, self.found[2] + all];
        self.messages += returned.len();
        self.tokens += tokens;
    }

    /// As if both had counted together.
    pub(crate) fn add(&mut self, other: &Self) {
        self.questions += other.questions;
        self.found.iter_mut().zip(other.found).for_each(|(sum, part)| *sum += part);
        self.messages += other.messages;
        self.tokens += other.tokens;
    }

    /// Whether nothing was counted.
    pub(crate) fn is_empty(&self) -> bool {
        self.questions == 0
    }

    /// Any, mean recall and all, in percent.
    pub(crate) fn percent(&self) -> [f64; 3] {
        self.found.map(|sum| 100.0 * sum / f64::from(self.questions.max(1)))
    }

    /// Messages and tokens of a question.
    pub(crate) fn size(&self) -> [f64; 2] {
        let questions = f64::from(self.questions.max(1));
        [self.messages as f64 / questions, self.tokens as f64 / questions]
    }

    pub(crate) fn to_json(self) -> Value {
        let [any, mean, all] = self.percent().map(rounded);
        let [messages, tokens] = self.size().map(rounded);
        json!({ "any": any, "mean_recall": mean, "all": all, "messages": messages, "tokens": tokens })
    }

    pub(crate) fn cell(&self) -> String {
        let [any, mean, all] = self.percent();
        format!("{any:.1} / {mean:.1} / {all:.1}")
    }
}

/// Two digits after the point.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The median and the 99th percentile, in milliseconds.
pub(crate) fn times(mut all: Vec<Duration>) -> [f64; 2] {
    all.sort_unstable();
    [50, 99].map(|percent| {
        let place = (all.len() * percent / 100).min(all.len().saturating_sub(1));
        all.get(place).map_or(0.0, |time| (time.as_secs_f64() * 1e6).round() / 1e3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_the_evidence_among_the_first() {
        assert_eq!(among(&[1, 2, 3], &[3, 9], 3), (1.0, 0.5, 0.0));
        assert_eq!(among(&[1, 2, 3], &[3, 9], 2), (0.0, 0.0, 0.0));
        let mut score = Score::default();
        score.count(&[7, 8], &[8]);
        score.count(&[1], &[2]);
        assert_eq!((score.at(0), score.mrr()), ([50.0, 50.0, 50.0], 0.25));
    }
}
