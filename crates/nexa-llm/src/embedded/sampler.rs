//! Chooses the next token from its scores.
//!
//! At temperature 0 the best allowed token; otherwise dice over the smallest set of best allowed tokens that holds
//! `top_p` of the probability. What is allowed is asked from the best downwards and only as far as needed,
//! so a mask over the whole vocabulary is never computed. Same scores, same seed, same choice.

use nexa_ports::dice::{Dice, SeededDice};

/// Written tokens that count as recent.
const RECENT_MAX: usize = 64;
/// A recent token's score is weakened by this factor, else a small model repeats itself without end.
const REPEAT_PENALTY: f32 = 1.1;
/// The most tokens that dice decide between.
const NUCLEUS_MAX: usize = 256;

pub(super) struct Sampler {
    temperature: f64,
    top_p: f64,
    dice: SeededDice,
}

impl Sampler {
    pub(super) fn new(temperature: f64, top_p: f64, seed: u64) -> Self {
        Self { temperature, top_p, dice: SeededDice::new(seed) }
    }

    /// The next token, or `None` if none is allowed.
    pub(super) fn choose(
        &self,
        scores: &mut [f32],
        written: &[u32],
        mut is_allowed: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        weaken_recent(scores, &written[written.len().saturating_sub(RECENT_MAX)..]);
        let mut best_first = BestFirst::new(scores);
        if self.temperature <= 0.0 {
            return best_first.find(|token| is_allowed(*token));
        }
        let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |token: u32| (f64::from(scores[token as usize] - top) / self.temperature).exp();
        let mut unseen: f64 = (0..scores.len()).map(|token| weight(token as u32)).sum();
        let mut nucleus: Vec<(u32, f64)> = Vec::new();
        let mut mass = 0.0;
        for token in best_first {
            let weight = weight(token);
            unseen -= weight;
            if is_allowed(token) {
                nucleus.push((token, weight));
                mass += weight;
            }
            // As if all that is unseen were allowed: the set is then never too small.
            let is_enough = mass >= self.top_p * (mass + unseen.max(0.0));
            if !nucleus.is_empty() && (is_enough || nucleus.len() == NUCLEUS_MAX) {
                break;
            }
        }
        let mut point = mass * (self.dice.roll() >> 11) as f64 / (1_u64 << 53) as f64;
        for (token, weight) in &nucleus {
            point -= weight;
            if point < 0.0 {
                return Some(*token);
            }
        }
        nucleus.first().map(|(token, _)| *token)
    }
}

fn weaken_recent(scores: &mut [f32], recent: &[u32]) {
    for (index, token) in recent.iter().enumerate() {
        let is_first = !recent[..index].contains(token);
        if let Some(score) = scores.get_mut(*token as usize).filter(|_| is_first) {
            *score = if *score > 0.0 { *score / REPEAT_PENALTY } else { *score * REPEAT_PENALTY };
        }
    }
}

/// Tokens from the best down, sorted only as far as somebody looks.
struct BestFirst<'s> {
    scores: &'s [f32],
    tokens: Vec<u32>,
    sorted: usize,
    next: usize,
}

impl<'s> BestFirst<'s> {
    /// How much further each round sorts.
    const STEP: usize = 16;

    fn new(scores: &'s [f32]) -> Self {
        Self { scores, tokens: (0..scores.len() as u32).collect(), sorted: 0, next: 0 }
    }
}

impl Iterator for BestFirst<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.next == self.sorted {
            let scores = self.scores;
            let order = |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b));
            let rest = &mut self.tokens[self.sorted..];
            let step = (self.sorted * Self::STEP).max(Self::STEP * 2).min(rest.len());
            if step == 0 {
                return None;
            }
            if step < rest.len() {
                rest.select_nth_unstable_by(step - 1, order);
            }
            rest[..step].sort_unstable_by(order);
            self.sorted += step;
        }
        self.next += 1;
        Some(self.tokens[self.next - 1])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_best_allowed_token_wins_at_temperature_zero(
            scores in prop::collection::vec(-9.0..9.0_f32, 1..900),
            modulus in 1..7_u32,
        ) {
            let best = (0..scores.len() as u32)
                .filter(|token| token % modulus == 0)
                .max_by(|a, b| scores[*a as usize].total_cmp(&scores[*b as usize]).then(b.cmp(a)));
            let chosen = Sampler::new(0.0, 1.0, 1).choose(&mut scores.clone(), &[], |token| token % modulus == 0);
            prop_assert_eq!(chosen, best);
        }

        #[test]
        fn dice_fall_among_the_allowed_and_repeat_with_their_seed(
            scores in prop::collection::vec(-9.0..9.0_f32, 1..900),
            modulus in 1..7_u32,
            seed in any::<u64>(),
            top_p in 0.0..1.0_f64,
        ) {
            let choose = || Sampler::new(0.8, top_p, seed).choose(&mut scores.clone(), &[], |token| token % modulus == 0);
            prop_assert_eq!(choose(), choose());
            prop_assert!(choose().is_some_and(|token| token % modulus == 0));
        }
    }

    #[test]
    fn an_unlikely_token_stays_outside_the_nucleus() {
        let scores = [10.0, 9.5, 0.0, -3.0];
        let sampler = Sampler::new(1.0, 0.9, 7);
        assert!((0..500).all(|_| sampler.choose(&mut scores.clone(), &[], |_| true).is_some_and(|token| token < 2)));
        assert!((0..500).any(|_| sampler.choose(&mut scores.clone(), &[], |_| true) == Some(1)));
    }

    #[test]
    fn a_token_said_before_gives_way_to_one_almost_as_good() {
        let sampler = Sampler::new(0.0, 1.0, 1);
        assert_eq!(sampler.choose(&mut [2.0, 1.9], &[0], |_| true), Some(1));
        assert_eq!(sampler.choose(&mut [-1.0, -1.05], &[0], |_| true), Some(1));
    }

    #[test]
    fn nothing_allowed_is_said_and_not_guessed() {
        assert_eq!(Sampler::new(0.7, 0.9, 1).choose(&mut [1.0, 2.0], &[], |_| false), None);
    }
}
