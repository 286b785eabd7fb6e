//! Vectors of messages: one byte a dimension and one scale a vector, compared exactly.
//!
//! A cosine is a sum of products of integers, so it is the same on every machine, whatever order a processor adds in. Against
//! four bytes a dimension nothing is lost that a ranking would show (`docs/reports/retrieval.md`).

use minicbor::{Decode, Encode};

/// The most dimensions of a vector. Models in use have 384 to 3,072.
pub const VECTOR_DIMENSIONS_MAX: usize = 4_096;

/// The length that a query's vector is given before it is rounded. By Cauchy and Schwarz the sum of products with a message's
/// stays below 2³¹ for every allowed dimension: 32,767 · 127 · √4,096 is 2.7 · 10⁸.
const QUERY_LENGTH: f32 = 32_767.0;

/// A vector of length 1, in bytes. Its cosine to a query is within a hundredth of that of what it was made from.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct MessageVector {
    /// What a step of one is worth.
    #[n(0)]
    scale: f32,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    steps: Vec<u8>,
}

impl MessageVector {
    /// The direction of a vector; `None` for one that has none, has a number that is none, or has too many dimensions.
    #[must_use]
    pub fn new(vector: &[f32]) -> Option<Self> {
        if vector.is_empty() || vector.len() > VECTOR_DIMENSIONS_MAX {
            return None;
        }
        let length = length(vector);
        let largest = vector.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        if !length.is_normal() || !largest.is_normal() {
            return None;
        }
        let step = largest / 127.0;
        let steps = vector.iter().map(|value| (value / step).round() as i8 as u8).collect();
        Some(Self { scale: step / length, steps })
    }

    /// How many dimensions it has.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.steps.len()
    }

    /// Its dimensions as numbers.
    pub fn values(&self) -> impl Iterator<Item = f32> {
        self.steps.iter().map(|step| f32::from(*step as i8) * self.scale)
    }

    /// The cosine of the angle to a query.
    #[cfg(test)]
    fn cosine(&self, query: &QueryVector) -> f32 {
        cosine(&self.steps, self.scale, query)
    }
}

/// The length of a vector.
fn length(vector: &[f32]) -> f32 {
    vector.iter().map(|value| value * value).sum::<f32>().sqrt()
}

/// The mean direction of vectors; `None` if there is none, or they cancel each other out.
pub(crate) fn mean<'v>(vectors: impl IntoIterator<Item = &'v MessageVector>) -> Option<Vec<f32>> {
    let mut sum: Vec<f32> = Vec::new();
    for vector in vectors {
        if sum.is_empty() {
            sum = vec![0.0; vector.dimensions()];
        }
        sum.iter_mut().zip(vector.values()).for_each(|(sum, value)| *sum += value);
    }
    let length = length(&sum);
    length.is_normal().then(|| sum.iter().map(|value| value / length).collect())
}

/// A query's vector, of length [`QUERY_LENGTH`] and rounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueryVector(Vec<i16>);

impl QueryVector {
    /// `None` as for [`MessageVector::new`].
    pub(crate) fn new(vector: &[f32]) -> Option<Self> {
        if vector.is_empty() || vector.len() > VECTOR_DIMENSIONS_MAX {
            return None;
        }
        let length = length(vector);
        length
            .is_normal()
            .then(|| Self(vector.iter().map(|value| (value / length * QUERY_LENGTH).round() as i16).collect()))
    }

    pub(crate) fn dimensions(&self) -> usize {
        self.0.len()
    }
}

fn cosine(steps: &[u8], scale: f32, query: &QueryVector) -> f32 {
    // Nothing wraps, see `QUERY_LENGTH`; said so, checked builds add eight at a time as well.
    let product = |(step, value): (&u8, &i16)| i32::from(*step as i8).wrapping_mul(i32::from(*value));
    let sum = steps.iter().zip(&query.0).map(product).fold(0i32, i32::wrapping_add);
    // What rounding adds does not make anything more alike than equal.
    (sum as f32 * scale / QUERY_LENGTH).clamp(-1.0, 1.0)
}

/// Vectors of messages by their numbers, one after the other in memory. A message may have none yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vectors {
    dimensions: usize,
    /// 0 for a message without a vector.
    scales: Vec<f32>,
    steps: Vec<u8>,
    have: usize,
}

impl Vectors {
    /// The next message, which has no vector yet.
    pub(crate) fn push(&mut self) {
        self.scales.push(0.0);
        self.steps.resize(self.scales.len() * self.dimensions, 0);
    }

    /// How many dimensions all of them have; `None` while there is none.
    pub(crate) fn dimensions(&self) -> Option<usize> {
        (self.dimensions > 0).then_some(self.dimensions)
    }

    /// How many messages have one.
    pub(crate) fn have(&self) -> usize {
        self.have
    }

    /// Gives a message its vector, which has as many dimensions as the others.
    pub(crate) fn set(&mut self, message: u32, vector: &MessageVector) {
        if self.dimensions == 0 {
            self.dimensions = vector.dimensions();
            self.steps.resize(self.scales.len() * self.dimensions, 0);
        }
        let place = message as usize;
        self.have += usize::from(self.scales[place] == 0.0);
        self.scales[place] = vector.scale;
        self.steps[place * self.dimensions..][..self.dimensions].copy_from_slice(&vector.steps);
    }

    pub(crate) fn get(&self, message: u32) -> Option<MessageVector> {
        let scale = self.scales[message as usize];
        let steps = || self.steps[message as usize * self.dimensions..][..self.dimensions].to_vec();
        (scale != 0.0).then(|| MessageVector { scale, steps: steps() })
    }

    /// The cosine of a query and a message that has a vector of the query's dimensions.
    pub(crate) fn cosine(&self, message: u32, query: &QueryVector) -> Option<f32> {
        let scale = self.scales[message as usize];
        let steps = || &self.steps[message as usize * self.dimensions..][..self.dimensions];
        (scale != 0.0 && query.dimensions() == self.dimensions).then(|| cosine(steps(), scale, query))
    }

    /// Bytes that it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.scales.capacity() * size_of::<f32>() + self.steps.capacity()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(x: &[f32], y: &[f32]) -> f64 {
        let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        dot(x, y) / (dot(x, x) * dot(y, y)).sqrt()
    }

    proptest! {
        #[test]
        fn a_byte_a_dimension_is_within_a_hundredth(
            vector in prop::collection::vec(-1.0f32..1.0, 384),
            query in prop::collection::vec(-1.0f32..1.0, 384),
        ) {
            let (stored, asked) = (MessageVector::new(&vector).unwrap(), QueryVector::new(&query).unwrap());
            prop_assert!((f64::from(stored.cosine(&asked)) - exact(&vector, &query)).abs() < 0.01);
            let itself = QueryVector::new(&vector).unwrap();
            prop_assert!(stored.cosine(&itself) > 0.99);
        }
    }

    #[test]
    fn what_has_no_direction_is_no_vector() {
        for bad in
            [&[][..], &[0.0, 0.0], &[f32::NAN, 1.0], &[f32::INFINITY, 1.0], &vec![1.0; VECTOR_DIMENSIONS_MAX + 1]]
        {
            assert!(MessageVector::new(bad).is_none() && QueryVector::new(bad).is_none(), "{}", bad.len());
        }
    }

    #[test]
    fn the_largest_vectors_do_not_overflow() {
        let ones = vec![1.0; VECTOR_DIMENSIONS_MAX];
        let (vector, query) = (MessageVector::new(&ones).unwrap(), QueryVector::new(&ones).unwrap());
        assert!((vector.cosine(&query) - 1.0).abs() < 0.01, "{}", vector.cosine(&query));
    }

    #[test]
    fn a_mean_lies_between_and_opposites_have_none() {
        let [x, y, minus] = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]].map(|vector| MessageVector::new(&vector).unwrap());
        let between = mean([&x, &y]).unwrap();
        assert!((between[0] - between[1]).abs() < 1e-6 && (length(&between) - 1.0).abs() < 1e-6);
        assert_eq!((mean([&x, &minus]), mean([])), (None, None));
    }
}
