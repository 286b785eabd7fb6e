//! How long agents of a kind take, learned from those that ended.
//!
//! In:  what was seen to take how long, and when; for a question, what was declared.
//! Out: the median, or the duration that nine of ten stay within.
//!
//! Each kind has one histogram. Its buckets are a sixteenth of an octave wide, so that a value is known to 6 % at worst, and
//! exactly below 32 ms. Within a bucket values are taken for evenly spread.
//!
//! *Follows changes.* Each observation weighs 1/128 more than the one before it: the old is never touched, the new outgrows
//! it (Cormode, Shkapenyuk, Srivastava, Xu, "Forward Decay", ICDE 2009). So about the last 128 count (the mean age), and
//! after a change the median is in the new regime after 89. A day without observations doubles the weight of what comes
//! next, but what was known is never worth less than [`PRIOR`] new ones.
//!
//! *One odd run does not throw it.* What was declared counts as [`PRIOR`] observations before the first, and fades as those
//! would. What is declared is given with each question, so a changed program is believed at once as far as it still counts.
//!
//! Holds: an estimate is never 0, never above [`DURATION_MAX`]; no more than [`KINDS_MAX`] kinds are kept. One more, and the
//! kind that was seen longest ago is forgotten (of several, the first by name). A kind with a name longer than
//! [`KIND_BYTES_MAX`] is not learned. A histogram has at most 560 buckets of 16 bytes, and mostly a few dozen.
//! The same observations in the same order give the same state: there are no fractions but integer ones.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use nexa_types::Millis;

/// Kinds that are remembered at a time.
pub const KINDS_MAX: usize = 4_096;

/// The longest name of a kind that is learned, in bytes.
pub const KIND_BYTES_MAX: usize = 256;

/// What is taken to be longer than this is taken for this: about two years.
pub const DURATION_MAX: Millis = Millis(1 << 36);

/// How many observations a declared duration counts for.
pub const PRIOR: u64 = 8;

/// The weight of the first observation. Weights grow up to [`WEIGHT_MAX`] and are then all scaled down.
const WEIGHT_MIN: u64 = 1 << 20;
const WEIGHT_MAX: u64 = 1 << 40;

/// Each observation weighs this part more than the one before.
const GROWTH: u64 = 128;

/// The time without observations after which what comes next weighs twice as much.
const HALF_LIFE: Millis = Millis(24 * 60 * 60 * 1_000);

/// Buckets in an octave, as a power of two.
const SUB_BITS: u32 = 4;

/// The format of the stored form.
const FORMAT: u16 = 1;

/// Why a stored form was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EstimatesError {
    /// It is no such form.
    #[error(
        "learned durations are damaged or of an unknown form: {detail}; they are learned anew if they are left out"
    )]
    Malformed {
        /// What was met.
        detail: String,
    },
    /// A newer build wrote it.
    #[error("learned durations are written in format {found}, this build reads {FORMAT}; upgrade this node first")]
    NewerFormat {
        /// Its format.
        found: u16,
    },
}

/// What was learned of all kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Estimates {
    kinds: BTreeMap<String, Kind>,
}

/// One kind's histogram.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Kind {
    /// When one of it ended last.
    #[n(0)]
    seen: Millis,
    /// What the next observation weighs.
    #[n(1)]
    next: u64,
    /// What is left of the weight of what was declared.
    #[n(2)]
    prior: u64,
    /// Weights by bucket, in the order of the buckets; none is 0.
    #[n(3)]
    buckets: Vec<(u16, u64)>,
}

#[derive(Encode, Decode)]
struct Stored {
    #[n(0)]
    format: u16,
    #[n(1)]
    kinds: Vec<(String, Kind)>,
}

impl Estimates {
    /// Learns from an agent of this kind that took so long and ended at `now`. Durations are those of a node of speed 100.
    pub fn observe(&mut self, kind: &str, duration: Millis, now: Millis) {
        if kind.len() > KIND_BYTES_MAX {
            return;
        }
        if !self.kinds.contains_key(kind) {
            if self.kinds.len() >= KINDS_MAX {
                self.forget_oldest();
            }
            self.kinds.insert(kind.to_owned(), Kind::new(now));
        }
        if let Some(known) = self.kinds.get_mut(kind) {
            known.observe(duration, now);
        }
    }

    /// What an agent of this kind takes: the median.
    #[must_use]
    pub fn estimate(&self, kind: &str, declared: Millis) -> Millis {
        self.quantile(kind, declared, 50)
    }

    /// What nine of ten agents of this kind stay within. Latencies of models have a long tail, so this is often far above
    /// the median.
    #[must_use]
    pub fn estimate_p90(&self, kind: &str, declared: Millis) -> Millis {
        self.quantile(kind, declared, 90)
    }

    /// How many kinds are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Whether nothing was learned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// All of it as bytes: CBOR with numbered fields. Equal states give equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let kinds = self.kinds.iter().map(|(name, kind)| (name.clone(), kind.clone())).collect();
        minicbor::to_vec(Stored { format: FORMAT, kinds }).expect("writing to a vector cannot fail")
    }

    /// What [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// [`EstimatesError`] for anything else; nothing that breaks what holds of estimates gets in.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EstimatesError> {
        let malformed = |detail: &str| EstimatesError::Malformed { detail: detail.to_owned() };
        let mut decoder = minicbor::Decoder::new(bytes);
        // The format is read alone first: what a newer build wrote need not have the fields of this one.
        let found = decoder.array().and_then(|_| decoder.u16()).map_err(|error| malformed(&error.to_string()))?;
        if found > FORMAT {
            return Err(EstimatesError::NewerFormat { found });
        }
        let mut decoder = minicbor::Decoder::new(bytes);
        let stored: Stored = decoder.decode().map_err(|error| malformed(&error.to_string()))?;
        if found != FORMAT || decoder.position() != bytes.len() {
            return Err(malformed("something follows, or the format is none"));
        }
        if stored.kinds.len() > KINDS_MAX || !stored.kinds.is_sorted_by(|one, next| one.0 < next.0) {
            return Err(malformed("kinds are too many or out of order"));
        }
        if !stored.kinds.iter().all(|(name, kind)| name.len() <= KIND_BYTES_MAX && kind.is_sound()) {
            return Err(malformed("a kind has a histogram that no observations give"));
        }
        Ok(Self { kinds: stored.kinds.into_iter().collect() })
    }

    fn quantile(&self, kind: &str, declared: Millis, percent: u64) -> Millis {
        let declared = Millis(declared.0.clamp(1, DURATION_MAX.0));
        self.kinds.get(kind).map_or(declared, |known| known.quantile(declared, percent))
    }

    fn forget_oldest(&mut self) {
        let oldest = self.kinds.iter().min_by_key(|(name, kind)| (kind.seen, *name)).map(|(name, _)| name.clone());
        if let Some(name) = oldest {
            self.kinds.remove(&name);
        }
    }
}

impl Kind {
    fn new(now: Millis) -> Self {
        Self { seen: now, next: WEIGHT_MIN, prior: PRIOR * WEIGHT_MIN, buckets: Vec::new() }
    }

    fn observe(&mut self, duration: Millis, now: Millis) {
        let mut days = (now - self.seen).0 / HALF_LIFE.0;
        self.seen = self.seen.max(now);
        while days > 0 && self.total() >= 2 * PRIOR * self.next {
            self.next *= 2;
            days -= 1;
        }
        let at = bucket(duration);
        match self.buckets.binary_search_by_key(&at, |(bucket, _)| *bucket) {
            Ok(place) => self.buckets[place].1 += self.next,
            Err(place) => self.buckets.insert(place, (at, self.next)),
        }
        self.next += self.next / GROWTH;
        if self.next > WEIGHT_MAX {
            // What becomes nothing by this is a millionth of what comes next.
            let scaled = |weight: u64| weight / (WEIGHT_MAX / WEIGHT_MIN);
            self.next = scaled(self.next);
            self.prior = scaled(self.prior);
            self.buckets.iter_mut().for_each(|(_, weight)| *weight = scaled(*weight));
            self.buckets.retain(|(_, weight)| *weight > 0);
        }
    }

    /// The weight of all observations and of what was declared.
    fn total(&self) -> u64 {
        self.prior + self.buckets.iter().map(|(_, weight)| weight).sum::<u64>()
    }

    /// The duration below which so much of the weight lies, with what was declared among the rest.
    fn quantile(&self, declared: Millis, percent: u64) -> Millis {
        let mut before = self.total() / 100 * percent;
        let (mut declared, mut prior) = (Some(declared), self.prior);
        for (at, weight) in &self.buckets {
            let (low, width) = span(*at);
            if let Some(value) = declared.filter(|value| value.0 < low + width) {
                if before < prior {
                    return value;
                }
                before -= prior;
                (declared, prior) = (None, 0);
            }
            if before < *weight {
                // Never 0: the lowest bucket is that of 1. The highest one begins at the largest duration.
                let within = u128::from(width) * u128::from(before) / u128::from(*weight);
                return Millis(low + u64::try_from(within).expect("below the width")).min(DURATION_MAX);
            }
            before -= weight;
        }
        match (declared, self.buckets.last()) {
            (Some(value), _) => value,
            (None, Some((at, _))) => Millis(span(*at).0),
            (None, None) => Millis(1),
        }
    }

    /// Whether observations may have left it like this.
    fn is_sound(&self) -> bool {
        let sum = self.buckets.iter().try_fold(self.prior, |sum, (_, weight)| sum.checked_add(*weight));
        (WEIGHT_MIN..=WEIGHT_MAX).contains(&self.next)
            // Each observation adds at most what the next one weighs, and the sum of such a series is this many of it.
            && sum.is_some_and(|sum| sum <= (GROWTH + PRIOR + 2) * WEIGHT_MAX)
            && self.buckets.is_sorted_by(|one, next| one.0 < next.0)
            && self.buckets.iter().all(|(at, weight)| (1..=bucket(DURATION_MAX)).contains(at) && *weight > 0)
    }
}

/// The bucket of a duration: the duration itself below two octaves of buckets, then 16 for an octave.
fn bucket(duration: Millis) -> u16 {
    let value = duration.0.clamp(1, DURATION_MAX.0);
    let octave = value.ilog2().saturating_sub(SUB_BITS);
    u16::try_from((u64::from(octave) << SUB_BITS) + (value >> octave)).expect("36 octaves of 16")
}

/// The least duration of a bucket, and how many durations it has.
fn span(bucket: u16) -> (u64, u64) {
    let octave = u32::from(bucket >> SUB_BITS).saturating_sub(1);
    let low = u64::from(bucket) - (u64::from(octave) << SUB_BITS);
    (low << octave, 1 << octave)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_without_a_gap() {
        let mut end = 1;
        for at in 1..=bucket(DURATION_MAX) {
            let (low, width) = span(at);
            assert_eq!(
                (low, bucket(Millis(low)), bucket(Millis(low + width - 1))),
                (end, at, at.min(bucket(DURATION_MAX)))
            );
            assert!(width == 1 || width * 16 <= low);
            end = low + width;
        }
        assert!(end > DURATION_MAX.0 && bucket(DURATION_MAX) < 560);
        assert_eq!((bucket(Millis(0)), bucket(Millis(u64::MAX))), (1, bucket(DURATION_MAX)));
    }
}
