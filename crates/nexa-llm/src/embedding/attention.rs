//! Attention of one text's pieces to each other, and the curves that a network needs besides.
//!
//! Everything here is a loop over neighbours in memory without a branch in it, so that the compiler makes vectors of it;
//! the powers of e are computed here for the same reason, to six digits.

/// Numbers that one head looks at.
pub(super) const HEAD_WIDTH: usize = 32;
/// Keys that are compared side by side.
const KEYS: usize = HEAD_WIDTH;
/// Queries that share a walk over keys and values: as many sums as the processor has registers for.
const QUERIES: usize = 2;
/// The score of a key that is not there.
const NO_SCORE: f32 = -1e30;

/// What is kept between texts for its memory.
#[derive(Default)]
pub(super) struct Scratch {
    /// For each number of a head, that number of all keys.
    keys: Vec<f32>,
    values: Vec<[f32; HEAD_WIDTH]>,
    scores: Vec<f32>,
}

/// What each piece of a text takes from all of them. Each row has queries, keys and values of all heads; queries come scaled.
pub(super) fn attend(rows: &[f32], width: usize, scratch: &mut Scratch, attended: &mut [f32]) {
    let count = rows.len() / (3 * width);
    let padded = count.next_multiple_of(KEYS);
    scratch.scores.resize(QUERIES * padded, 0.0);
    for head in (0..width).step_by(HEAD_WIDTH) {
        scratch.keys.clear();
        scratch.keys.resize(HEAD_WIDTH * padded, 0.0);
        scratch.values.clear();
        for (place, row) in rows.chunks_exact(3 * width).enumerate() {
            let part = |part: usize| -> &[f32; HEAD_WIDTH] {
                row[part * width + head..].first_chunk().expect("heads divide the width")
            };
            for (number, key) in part(1).iter().enumerate() {
                scratch.keys[number * padded + place] = *key;
            }
            scratch.values.push(*part(2));
        }
        let query = |query: usize| -> &[f32; HEAD_WIDTH] {
            rows[query * 3 * width + head..].first_chunk().expect("heads divide the width")
        };
        let (left, right) = scratch.scores.split_at_mut(padded);
        for first in (0..count).step_by(QUERIES) {
            // Beyond the last one it is computed once more, for nothing.
            let second = (first + 1).min(count - 1);
            score([query(first), query(second)], &scratch.keys, [left, right]);
            let sums = [&mut *left, &mut *right].map(|scores| {
                scores[count..].fill(NO_SCORE);
                raise(scores)
            });
            let taken = mix([&left[..count], &right[..count]], &scratch.values);
            for ((query, taken), sum) in [first, second].into_iter().zip(taken).zip(sums) {
                let into = &mut attended[query * width + head..][..HEAD_WIDTH];
                into.iter_mut().zip(taken).for_each(|(into, taken)| *into = taken / sum);
            }
        }
    }
}

/// The products of two queries with all keys.
fn score(queries: [&[f32; HEAD_WIDTH]; QUERIES], keys: &[f32], scores: [&mut [f32]; QUERIES]) {
    let [left, right] = scores;
    let padded = left.len();
    let chunks = left.as_chunks_mut::<KEYS>().0.iter_mut().zip(right.as_chunks_mut::<KEYS>().0);
    for (chunk, (left, right)) in chunks.enumerate() {
        let (mut sums_left, mut sums_right) = ([0.0; KEYS], [0.0; KEYS]);
        for (number, keys) in keys.chunks_exact(padded).enumerate() {
            let keys = keys[chunk * KEYS..].first_chunk().expect("keys are padded");
            add(&mut sums_left, queries[0][number], keys);
            add(&mut sums_right, queries[1][number], keys);
        }
        (*left, *right) = (sums_left, sums_right);
    }
}

/// The values, weighted in two ways.
fn mix(weights: [&[f32]; QUERIES], values: &[[f32; HEAD_WIDTH]]) -> [[f32; HEAD_WIDTH]; QUERIES] {
    let (mut left, mut right) = ([0.0; HEAD_WIDTH], [0.0; HEAD_WIDTH]);
    for ((values, weight_left), weight_right) in values.iter().zip(weights[0]).zip(weights[1]) {
        add(&mut left, *weight_left, values);
        add(&mut right, *weight_right, values);
    }
    [left, right]
}

#[inline(always)]
fn add(sums: &mut [f32; KEYS], factor: f32, numbers: &[f32; KEYS]) {
    for (sum, number) in sums.iter_mut().zip(numbers) {
        *sum = multiply_add(factor, *number, *sum);
    }
}

/// Makes scores into powers of e, the largest of them one, and gives their sum. The scores come padded.
fn raise(scores: &mut [f32]) -> f32 {
    let (lanes, _) = scores.as_chunks_mut::<KEYS>();
    let mut top = [NO_SCORE; KEYS];
    for lane in lanes.iter() {
        for (top, score) in top.iter_mut().zip(lane) {
            *top = if *score > *top { *score } else { *top };
        }
    }
    let top = top.iter().fold(NO_SCORE, |top, score| top.max(*score));
    let mut sums = [0.0_f32; KEYS];
    for lane in lanes {
        for (sum, score) in sums.iter_mut().zip(lane) {
            *score = exp(*score - top);
            *sum += *score;
        }
    }
    sums.iter().sum()
}

/// The curve between the two products of a mixer, `x·Φ(x)`: the error function is Abramowitz and Stegun's 7.1.26, which is
/// right to 1.5·10⁻⁷.
pub(super) fn gelu(numbers: &mut [f32]) {
    for number in numbers {
        let x = number.abs() * std::f32::consts::FRAC_1_SQRT_2;
        let t = 1.0 / multiply_add(0.327_591_1, x, 1.0);
        let mut tail = multiply_add(1.061_405_4, t, -1.453_152_1);
        tail = multiply_add(tail, t, 1.421_413_8);
        tail = multiply_add(tail, t, -0.284_496_72);
        tail = multiply_add(tail, t, 0.254_829_6) * t * exp(-x * x);
        // Φ(x) of a number below zero is half the tail, of one above it what the tail leaves of one.
        let half = 0.5 * tail;
        *number *= if *number < 0.0 { half } else { 1.0 - half };
    }
}

/// e to a power of at most some 80.
#[inline(always)]
fn exp(power: f32) -> f32 {
    const ROUNDER: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let power = if power > -87.0 { power } else { -87.0 };
    let shifted = multiply_add(power, std::f32::consts::LOG2_E, ROUNDER);
    let whole = shifted - ROUNDER;
    let rest = multiply_add(whole, -LN_2_LOW, multiply_add(whole, -LN_2_HIGH, power));
    let mut sum = multiply_add(1.987_569_1e-4, rest, 1.398_2e-3);
    sum = multiply_add(sum, rest, 8.333_452e-3);
    sum = multiply_add(sum, rest, 4.166_579_6e-2);
    sum = multiply_add(sum, rest, 1.666_666_5e-1);
    sum = multiply_add(sum, rest, 0.5);
    let sum = multiply_add(sum * rest, rest, rest) + 1.0;
    // The whole part goes into the exponent's bits.
    sum * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// In one instruction where the program is built for processors that have it. Elsewhere that would be a call.
#[inline(always)]
pub(super) fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) { a.mul_add(b, c) } else { a * b + c }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn powers_are_right_to_six_digits(power in -86.0..40.0_f32) {
            let exact = f64::from(power).exp();
            prop_assert!((f64::from(exp(power)) / exact - 1.0).abs() < 1e-6, "{} {}", exp(power), exact);
        }

        #[test]
        fn attention_is_a_weighted_mean(count in 1..40_usize, salt in 0..100_usize) {
            let width = 2 * HEAD_WIDTH;
            let rows: Vec<f32> =
                (0..count * 3 * width).map(|index| ((index * 7 + index / 64 + salt) % 23) as f32 / 11.0 - 1.0).collect();
            let mut attended = vec![0.0; count * width];
            attend(&rows, width, &mut Scratch::default(), &mut attended);
            for (place, attended) in attended.chunks_exact(width).enumerate() {
                for (number, attended) in attended.iter().enumerate() {
                    let head = number / HEAD_WIDTH * HEAD_WIDTH;
                    let part = |row: usize, part: usize| &rows[row * 3 * width + part * width..][..width];
                    let weights: Vec<f64> = (0..count).map(|other| {
                        let (query, key) = (&part(place, 0)[head..], &part(other, 1)[head..]);
                        (0..HEAD_WIDTH).map(|at| f64::from(query[at] * key[at])).sum::<f64>().exp()
                    }).collect();
                    let sum: f64 = weights.iter().sum();
                    let exact: f64 =
                        weights.iter().enumerate().map(|(other, weight)| weight * f64::from(part(other, 2)[number])).sum();
                    prop_assert!((exact / sum - f64::from(*attended)).abs() < 1e-4, "{} {}", exact / sum, attended);
                }
            }
        }
    }

    #[test]
    fn far_below_there_is_nothing() {
        assert!(exp(-1e30) < 1e-37 && exp(0.0) == 1.0);
    }

    #[test]
    fn the_curve_is_the_one_of_the_error_function() {
        let known = [(0.0, 0.0), (1.0, 0.841_345), (-1.0, -0.158_655), (3.0, 2.995_95), (-3.0, -0.004_05), (-9.0, 0.0)];
        for (number, exact) in known {
            let mut numbers = [number];
            gelu(&mut numbers);
            assert!((numbers[0] - exact).abs() < 1e-5, "{number}: {} {exact}", numbers[0]);
        }
    }
}
