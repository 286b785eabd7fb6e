//! Chance that comes out the same each time: everything is a function of a seed and of what is asked about.

use std::f64::consts::TAU;

/// A stream of numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The stream of these numbers. Other numbers, or another order of them, give another stream.
    pub fn of(parts: &[u64]) -> Self {
        let mut dice = Self(0x6E65_7861);
        for part in parts {
            dice.0 ^= *part;
            dice.0 = dice.roll();
        }
        dice
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number between 0 and 1, never 0.
    pub fn unit(&mut self) -> f64 {
        ((self.roll() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// Normally distributed around 0 with deviation 1 (Box and Muller).
    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (TAU * self.unit()).cos()
    }

    /// Exponentially distributed: the gaps of arrivals that know nothing of each other.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -self.unit().ln() * mean
    }
}

/// Sizes and times as they are found in the world: half lie below the median, and a few far above it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogNormal {
    /// Half of the values are below this.
    pub median: f64,
    /// The deviation of the logarithm; 0 makes every value the median.
    pub spread: f64,
}

impl LogNormal {
    /// A value.
    pub fn draw(&self, dice: &mut Dice) -> f64 {
        self.median * (self.spread * dice.normal()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_question_has_the_same_answer() {
        assert_eq!(Dice::of(&[1, 2]).roll(), Dice::of(&[1, 2]).roll());
        assert_ne!(Dice::of(&[1, 2]).roll(), Dice::of(&[2, 1]).roll());
        assert_ne!(Dice::of(&[1]).roll(), Dice::of(&[1, 0]).roll());
    }

    #[test]
    fn half_lie_below_the_median_and_two_thirds_within_one_deviation() {
        let shape = LogNormal { median: 200.0, spread: 0.5 };
        let mut dice = Dice::of(&[7]);
        let values: Vec<f64> = (0..20_000).map(|_| shape.draw(&mut dice)).collect();
        let share = |fits: &dyn Fn(f64) -> bool| {
            values.iter().filter(|value| fits(**value)).count() as f64 / values.len() as f64
        };
        let below = share(&|value| value < 200.0);
        let within = share(&|value| (value / 200.0).ln().abs() < 0.5);
        assert!((below - 0.5).abs() < 0.02 && (within - 0.683).abs() < 0.02, "{below} {within}");
        assert_eq!(LogNormal { median: 3.0, spread: 0.0 }.draw(&mut dice), 3.0);
    }

    #[test]
    fn gaps_have_the_mean_that_was_asked_for() {
        let mut dice = Dice::of(&[8]);
        let mean = (0..20_000).map(|_| dice.exponential(4.0)).sum::<f64>() / 20_000.0;
        assert!((mean - 4.0).abs() < 0.15, "{mean}");
    }
}
