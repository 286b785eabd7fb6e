//! What the endpoint has seen: requests by key, agents by tag, answers by second.
//!
//! Bounds: [`ADMISSIONS_MAX`] requests of which time and size are kept; of those after it only sums. [`KEYS_MAX`] keys, of which a hash and three numbers are kept; a further one is refused. As many tags as were
//! announced; others are not counted by tag. [`SECONDS_MAX`] seconds of answers; what comes later is not drawn.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

/// Keys that are remembered; a request with a further one is refused with status 507.
pub const KEYS_MAX: usize = 4_000_000;
/// Requests that were let in of which time and size are kept.
pub const ADMISSIONS_MAX: usize = 4_000_000;
/// Seconds of which the answers are counted apart.
pub const SECONDS_MAX: usize = 86_400;

/// A key is a hash already.
#[derive(Debug, Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// What is known of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Key {
    /// How often it was sent.
    pub sent: u32,
    /// How often it was answered to the end, as far as this side can tell.
    pub answered: u32,
    /// Who asked.
    pub tag: Option<u32>,
}

/// A request that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// When.
    pub at: Duration,
    /// Who asked.
    pub tag: Option<u32>,
    /// Tokens read.
    pub input: u64,
    /// Tokens written.
    pub output: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tag {
    /// When the first request came.
    first: Option<Duration>,
    /// Keys that were answered.
    answered: u32,
}

/// Everything that was counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    keys: HashMap<u64, Key, BuildHasherDefault<Same>>,
    tags: Vec<Tag>,
    answers_per_tag: u32,
    answers_by_second: Vec<u32>,
    admissions: Vec<Admission>,
    pub(super) totals: Totals,
}

/// The sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests.
    pub requests: u64,
    /// Different keys.
    pub keys: u64,
    /// Keys that were answered to the end.
    pub answered: u64,
    /// Requests that were answered with 429.
    pub rate_limited: u64,
    /// Requests that went wrong on purpose.
    pub faults: u64,
    /// Requests that wait for an answer.
    pub in_flight: u64,
    /// The most of them at once.
    pub in_flight_peak: u64,
    /// Tokens read by requests that were let in.
    pub input_tokens: u64,
    /// Tokens written by answers to them.
    pub output_tokens: u64,
    /// Tags of which a request came.
    pub tags_arrived: usize,
    /// Tags that have got all their answers.
    pub tags_finished: usize,
}

impl Counts {
    pub(super) fn new(tags: usize, answers_per_tag: u32) -> Self {
        Self { tags: vec![Tag::default(); tags], answers_per_tag, ..Self::default() }
    }

    /// Notes a request; gives how often its key was sent by now. `None` if there is no room for a further key.
    pub(super) fn sent(&mut self, key: u64, tag: Option<u32>, now: Duration) -> Option<u32> {
        let room = self.keys.len() < KEYS_MAX;
        let known = match self.keys.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if !room => return None,
            Entry::Vacant(new) => {
                self.totals.keys += 1;
                new.insert(Key { tag, ..Key::default() })
            }
        };
        known.sent += 1;
        let sent = known.sent;
        self.totals.requests += 1;
        if let Some(of) = tag.and_then(|tag| self.tags.get_mut(tag as usize))
            && of.first.is_none()
        {
            of.first = Some(now);
            self.totals.tags_arrived += 1;
        }
        Some(sent)
    }

    /// Notes an answer that went out to its end.
    pub(super) fn answered(&mut self, key: u64, now: Duration) {
        let Some(known) = self.keys.get_mut(&key) else { return };
        known.answered += 1;
        if known.answered > 1 {
            return;
        }
        self.totals.answered += 1;
        let second = now.as_secs() as usize;
        if second < SECONDS_MAX {
            if self.answers_by_second.len() <= second {
                self.answers_by_second.resize(second + 1, 0);
            }
            self.answers_by_second[second] += 1;
        }
        if let Some(of) = known.tag.and_then(|tag| self.tags.get_mut(tag as usize)) {
            of.answered += 1;
            self.totals.tags_finished += usize::from(of.answered == self.answers_per_tag);
        }
    }

    pub(super) fn begins(&mut self, admission: Admission) {
        if self.admissions.len() < ADMISSIONS_MAX {
            self.admissions.push(admission);
        }
        self.totals.input_tokens += admission.input;
        self.totals.output_tokens += admission.output;
        self.totals.in_flight += 1;
        self.totals.in_flight_peak = self.totals.in_flight_peak.max(self.totals.in_flight);
    }

    pub(super) fn ends(&mut self) {
        self.totals.in_flight = self.totals.in_flight.saturating_sub(1);
    }

    pub(super) fn key(&self, key: u64) -> Key {
        self.keys.get(&key).copied().unwrap_or_default()
    }

    pub(super) fn sent_again(&self) -> Vec<(u64, Key)> {
        self.keys.iter().filter(|(_, key)| key.sent > 1).map(|(hash, key)| (*hash, *key)).collect()
    }

    pub(super) fn first_of_tag(&self, tag: usize) -> Option<Duration> {
        self.tags.get(tag).and_then(|tag| tag.first)
    }

    pub(super) fn admissions(&self) -> Vec<Admission> {
        self.admissions.clone()
    }

    pub(super) fn answers_by_second(&self) -> Vec<u32> {
        self.answers_by_second.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_tags_are_counted_once_however_often_they_come() {
        let mut counts = Counts::new(2, 2);
        let at = Duration::from_secs;
        assert_eq!(counts.sent(7, Some(0), at(1)), Some(1));
        assert_eq!(counts.sent(7, Some(0), at(2)), Some(2));
        assert_eq!(counts.sent(8, Some(0), at(2)), Some(1));
        assert_eq!(counts.sent(9, Some(5), at(2)), Some(1));
        counts.answered(7, at(3));
        counts.answered(7, at(3));
        counts.answered(8, at(3));
        let totals = counts.totals;
        assert_eq!((totals.requests, totals.keys, totals.answered), (4, 3, 2));
        assert_eq!((totals.tags_arrived, totals.tags_finished), (1, 1));
        assert_eq!(counts.first_of_tag(0), Some(at(1)));
        assert_eq!(counts.sent_again(), [(7, Key { sent: 2, answered: 2, tag: Some(0) })]);
        assert_eq!(counts.answers_by_second(), [0, 0, 0, 2]);
    }
}
