//! What the endpoint says, when, and what goes wrong: functions of the seed, the message and the key, and of nothing else.
//!
//! An answer is a function of the last message of the user, so whoever knows what was asked knows the right output
//! without asking. It begins with the message's tag (`#12`), if it has one, so that a tag goes through a chain of agents,
//! and goes on with letters from the message's hash: an answer to another message is another answer.

use std::fmt::Write as _;
use std::time::Duration;

use crate::dice::{Dice, LogNormal};

/// The longest answer, in tokens.
pub const ANSWER_TOKENS_MAX: f64 = 512.0;
/// The shortest answer, in tokens: a tag and some of the hash.
const ANSWER_TOKENS_MIN: f64 = 6.0;
/// The longest wait before an answer.
pub const LATENCY_MAX: Duration = Duration::from_secs(300);
/// Bytes of text that count as one token.
pub const TOKEN_BYTES: usize = 4;

/// How an endpoint behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Where all chance comes from.
    pub seed: u64,
    /// From request to the end of its answer, in milliseconds.
    pub latency_ms: LogNormal,
    /// The length of an answer, in tokens.
    pub answer_tokens: LogNormal,
    /// How often something goes wrong.
    pub faults: Faults,
}

/// How often something goes wrong, each as a share of all requests.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faults {
    /// Status 500.
    pub errors: f64,
    /// The connection ends in the middle of the answer.
    pub drops: f64,
    /// No answer ever.
    pub hangs: f64,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is answered.
    Answered,
    /// Status 500.
    Error,
    /// The connection ends in the middle of the answer.
    Dropped,
    /// Nothing comes.
    Hangs,
}

/// What the dice are rolled for; keeps the streams apart.
const ANSWER: u64 = 1;
const LATENCY: u64 = 2;
const FATE: u64 = 3;

/// A hash that is small enough to keep for each of a million.
pub fn hash64(text: &[u8]) -> u64 {
    let hash = blake3::hash(text);
    u64::from_le_bytes(std::array::from_fn(|index| hash.as_bytes()[index]))
}

/// The number of the first `#` with digits behind it: who asks, as far as the message tells.
pub fn tag(message: &str) -> Option<u32> {
    message.match_indices('#').find_map(|(at, _)| {
        let digits = message[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        message[at + 1..at + 1 + digits].parse().ok()
    })
}

/// How many tokens a text of this many bytes counts.
pub fn tokens(bytes: usize) -> u64 {
    bytes.div_ceil(TOKEN_BYTES) as u64
}

impl Profile {
    /// The answer to a message.
    pub fn answer(&self, message: &str) -> String {
        let mut dice = Dice::of(&[self.seed, ANSWER, hash64(message.as_bytes())]);
        let tokens = self.answer_tokens.draw(&mut dice).clamp(ANSWER_TOKENS_MIN, ANSWER_TOKENS_MAX);
        let bytes = tokens as usize * TOKEN_BYTES;
        let mut text = tag(message).map(|tag| format!("#{tag}")).unwrap_or_else(|| "none".to_owned());
        while text.len() < bytes {
            // A string takes everything that is written to it.
            let _ = write!(text, " {:07x}", dice.roll() >> 36);
        }
        text
    }

    /// How long the answer takes to a request with this key.
    pub fn latency(&self, key: u64) -> Duration {
        let ms = self.latency_ms.draw(&mut Dice::of(&[self.seed, LATENCY, key]));
        Duration::from_secs_f64(ms.max(0.0) / 1e3).min(LATENCY_MAX)
    }

    /// What becomes of the `sending`th request with this key.
    pub fn fate(&self, key: u64, sending: u32) -> Fate {
        let roll = Dice::of(&[self.seed, FATE, key, sending.into()]).unit();
        let Faults { errors, drops, hangs } = self.faults;
        match roll {
            roll if roll <= errors => Fate::Error,
            roll if roll <= errors + drops => Fate::Dropped,
            roll if roll <= errors + drops + hangs => Fate::Hangs,
            _ => Fate::Answered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile {
            seed: 3,
            latency_ms: LogNormal { median: 50.0, spread: 0.3 },
            answer_tokens: LogNormal { median: 20.0, spread: 0.4 },
            faults: Faults { errors: 0.1, drops: 0.2, hangs: 0.3 },
        }
    }

    #[test]
    fn an_answer_carries_the_tag_and_belongs_to_its_message() {
        let (one, other) = (profile().answer("#12 a text"), profile().answer("#12 another"));
        assert!(one.starts_with("#12 ") && other.starts_with("#12 ") && one != other);
        assert_eq!(one, profile().answer("#12 a text"));
        assert_ne!(one, Profile { seed: 4, ..profile() }.answer("#12 a text"));
        assert!(profile().answer("nobody").starts_with("none "));
    }

    #[test]
    fn a_tag_is_the_first_number_behind_a_hash() {
        let found = |text| tag(text);
        assert_eq!(found(r##"{"input":"#7 x","results":{"n3":"#3 y"}}"##), Some(7));
        assert_eq!(found("# 1 #x ## #42"), Some(42));
        assert_eq!((found(""), found("#"), found("#99999999999 #5")), (None, None, Some(5)));
    }

    #[test]
    fn faults_come_as_often_as_asked_for_and_again_at_the_same_places() {
        let fates: Vec<Fate> = (0..10_000).map(|key| profile().fate(key, 1)).collect();
        assert_eq!(fates, (0..10_000).map(|key| profile().fate(key, 1)).collect::<Vec<_>>());
        let share = |fate| fates.iter().filter(|found| **found == fate).count() as f64 / 10_000.0;
        for (fate, wanted) in [(Fate::Error, 0.1), (Fate::Dropped, 0.2), (Fate::Hangs, 0.3), (Fate::Answered, 0.4)] {
            assert!((share(fate) - wanted).abs() < 0.02, "{fate:?}: {}", share(fate));
        }
        let none = Profile { faults: Faults::default(), ..profile() };
        assert!((0..10_000).all(|key| none.fate(key, 1) == Fate::Answered));
    }
}
