//! The port to embeddings: texts in, vectors of length one out, so that a dot product says how near two texts are.
//!
//! An embedder is off the critical path: a text is found by its words before its vector exists, and a node without any
//! embedder finds by words alone. So nothing waits for a vector that does not have to, and a call that fails is made
//! again later or never.
//!
//! Holds, for every adapter; the contract suite in `nexa-testkit` checks each:
//!   EM-1  an answer has one vector for each text, in their order, each of [`Embedder::dimension`] numbers and of length one
//!   EM-2  a text has the same vector whatever else is asked for in the same call or before it, but for rounding
//!   EM-3  a call beyond the limits of this port is refused, and nothing of it is computed
//!   EM-4  a call ends by its answer, its deadline or its cancellation, whichever comes first; dropping it is a cancellation
//!
//! Not here: which texts are worth a vector, and what is near enough (`nexa-paging`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use nexa_types::{Millis, Spend, TenantId, Tokens};
use tokio_util::sync::CancellationToken;

use crate::view;

/// Texts of one call; more are refused.
pub const TEXTS_MAX: usize = 512;
/// All texts of one call together, in bytes; more are refused.
pub const TEXTS_BYTES_MAX: usize = 4 << 20;
/// Numbers of a vector; a model with more cannot be used.
pub const DIMENSION_MAX: usize = 4_096;
/// A vector whose length differs by more from one was not made by an embedder.
pub const LENGTH_TOLERANCE: f32 = 1e-3;

/// A vector of length one.
#[derive(Clone, PartialEq)]
pub struct UnitVector(Arc<[f32]>);

impl UnitVector {
    /// The direction of some numbers; `None` if they have none, being all zero or not all finite.
    #[must_use]
    pub fn towards(mut numbers: Vec<f32>) -> Option<Self> {
        // In 64 bits, because a sum of squares of large numbers is none in 32.
        let squares: f64 = numbers.iter().map(|number| f64::from(*number) * f64::from(*number)).sum();
        let scale = 1.0 / squares.sqrt();
        if squares == 0.0 || !scale.is_finite() || scale == 0.0 {
            return None;
        }
        numbers.iter_mut().for_each(|number| *number = (f64::from(*number) * scale) as f32);
        Some(Self(numbers.into()))
    }

    /// A vector as it was stored, to the last bit; `None` unless its length is one ([`LENGTH_TOLERANCE`]).
    #[must_use]
    pub fn stored(numbers: Vec<f32>) -> Option<Self> {
        let squares: f64 = numbers.iter().map(|number| f64::from(*number) * f64::from(*number)).sum();
        let is_unit = (squares.sqrt() - 1.0).abs() <= f64::from(LENGTH_TOLERANCE);
        if is_unit { Some(Self(numbers.into())) } else { None }
    }

    /// The numbers.
    pub fn numbers(&self) -> &[f32] {
        &self.0
    }

    /// The cosine of the angle to another vector of the same model: 1 for the same direction. Numbers that only one of them
    /// has count for nothing.
    pub fn cosine(&self, other: &Self) -> f32 {
        self.0.iter().zip(other.0.iter()).map(|(a, b)| a * b).sum()
    }
}

impl fmt::Debug for UnitVector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "UnitVector({} numbers)", self.0.len())
    }
}

/// Who waits for vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// Somebody asks now: goes before all that is not urgent.
    Query,
    /// Nobody: what was said is found by its words until it has a vector.
    Background,
}

/// Texts to embed, with everything that is known about them.
#[derive(Debug, Clone)]
pub struct EmbedCall {
    /// The texts. Of one longer than the model reads, what it reads counts. An empty one is a text, too.
    pub texts: Vec<Arc<str>>,
    /// Who pays, and in whose turn the call waits.
    pub tenant: TenantId,
    /// Who waits for it.
    pub urgency: Urgency,
    /// How long the answer may take from now.
    pub deadline: Duration,
    /// Ends the call early.
    pub cancel: CancellationToken,
}

impl EmbedCall {
    /// Whether the call may begin: it is within the limits of this port (EM-3), and somebody still waits for it. Asked by
    /// every adapter before anything is done.
    ///
    /// # Errors
    /// [`EmbedError::Refused`] names the limit; [`EmbedError::Cancelled`] and [`EmbedError::Timeout`] are what they are.
    pub fn check(&self) -> Result<(), EmbedError> {
        let (count, bytes) = (self.texts.len(), self.texts.iter().map(|text| text.len()).sum::<usize>());
        if count > TEXTS_MAX {
            return Err(EmbedError::Refused(format!(
                "{count} texts are more than {TEXTS_MAX}; send them in several calls"
            )));
        }
        if bytes > TEXTS_BYTES_MAX {
            let message = format!("texts of {bytes} bytes are more than {TEXTS_BYTES_MAX}; send them in several calls");
            return Err(EmbedError::Refused(message));
        }
        if self.cancel.is_cancelled() {
            return Err(EmbedError::Cancelled);
        }
        if self.deadline.is_zero() {
            return Err(EmbedError::Timeout("no time was given for the vectors".to_owned()));
        }
        Ok(())
    }
}

/// The vectors of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// One for each text, in their order.
    pub vectors: Vec<UnitVector>,
    /// What it took. Vectors that were remembered cost nothing.
    pub spend: Spend,
}

/// Why there are no vectors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// There is no embedder: what is searched is searched by words. The text says what would change that.
    #[error("{0}")]
    Absent(String),
    /// The same call will be refused again.
    #[error("{0}")]
    Refused(String),
    /// There is no room for the call, or the provider asks to slow down.
    #[error("{message}")]
    Busy {
        /// What is full.
        message: String,
        /// When to come again.
        retry_after: Millis,
    },
    /// The embedder cannot be reached or failed; the same call may do better later.
    #[error("{0}")]
    Unavailable(String),
    /// No answer in time.
    #[error("{0}")]
    Timeout(String),
    /// The call was cancelled.
    #[error("the call was cancelled")]
    Cancelled,
    /// An answer came, and it is not what was asked for.
    #[error("{0}")]
    Invalid(String),
}

impl EmbedError {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Unavailable(_) | Self::Timeout(_) => true,
            Self::Absent(_) | Self::Refused(_) | Self::Cancelled | Self::Invalid(_) => false,
        }
    }
}

/// What makes vectors of texts. All calls are cancel-safe.
pub trait Embedder: Send + Sync {
    /// The model's full name, `provider/name`. Vectors of models with other names must not be compared.
    fn model(&self) -> &str;

    /// How many numbers a vector has.
    fn dimension(&self) -> usize;

    /// The vectors of some texts.
    fn embed(&self, call: EmbedCall) -> BoxFuture<'_, Result<Embedded, EmbedError>>;
}

impl<E: Embedder + ?Sized> Embedder for Arc<E> {
    fn model(&self) -> &str {
        (**self).model()
    }

    fn dimension(&self) -> usize {
        (**self).dimension()
    }

    fn embed(&self, call: EmbedCall) -> BoxFuture<'_, Result<Embedded, EmbedError>> {
        (**self).embed(call)
    }
}

/// The twin for tests: the words of a text, hashed into a vector. Texts are as near as they share words; it knows no
/// meaning. The same text has the same vector on every machine.
#[derive(Debug, Clone)]
pub struct HashedWords {
    model: String,
    dimension: usize,
}

impl HashedWords {
    /// An embedder whose vectors have so many numbers, at least one and at most [`DIMENSION_MAX`].
    pub fn new(dimension: usize) -> Self {
        let dimension = dimension.clamp(1, DIMENSION_MAX);
        Self { model: format!("test/hashed-words-{dimension}"), dimension }
    }

    /// The vector of a text.
    pub fn vector(&self, text: &str) -> UnitVector {
        let mut numbers = vec![0.0; self.dimension];
        for word in view::words(text) {
            let hash = blake3::hash(word.as_bytes());
            let [a, b, c, d, sign, ..] = *hash.as_bytes();
            let place = u32::from_le_bytes([a, b, c, d]) as usize % self.dimension;
            numbers[place] += if sign % 2 == 0 { 1.0 } else { -1.0 };
        }
        // A text without words, or whose words cancel out, points where the first number grows.
        UnitVector::towards(numbers).unwrap_or_else(|| {
            let mut first = vec![0.0; self.dimension];
            first[0] = 1.0;
            UnitVector(first.into())
        })
    }
}

impl Embedder for HashedWords {
    fn model(&self) -> &str {
        &self.model
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn embed(&self, call: EmbedCall) -> BoxFuture<'_, Result<Embedded, EmbedError>> {
        let answer = call.check().map(|()| {
            let words = call.texts.iter().map(|text| view::words(text).len() as u64).sum();
            let vectors = call.texts.iter().map(|text| self.vector(text)).collect();
            Embedded { vectors, spend: Spend { tokens_in: Tokens(words), calls: 1, ..Spend::default() } }
        });
        std::future::ready(answer).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_has_length_one_and_nothing_has_none() {
        let vector = UnitVector::towards(vec![3.0, 4.0]).expect("a direction");
        assert_eq!(vector.numbers(), [0.6, 0.8]);
        assert!((UnitVector::towards(vec![1e30, 1e30]).expect("a direction").cosine(&vector) - 0.989_95).abs() < 1e-4);
        for none in [vec![], vec![0.0, 0.0], vec![f32::NAN, 1.0], vec![f32::INFINITY, 1.0]] {
            assert_eq!(UnitVector::towards(none), None);
        }
    }

    #[test]
    fn shared_words_are_near_and_their_order_and_case_do_not_count() {
        let twin = HashedWords::new(256);
        let (one, two) = (twin.vector("The cat sits outside."), twin.vector("outside sits the CAT"));
        assert!((one.cosine(&two) - 1.0).abs() < 1e-6);
        assert!(one.cosine(&twin.vector("A man is playing guitar")) < 0.5);
        assert!((twin.vector("").numbers()[0] - 1.0).abs() < 1e-6);
    }
}
