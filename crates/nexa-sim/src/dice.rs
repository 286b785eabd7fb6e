//! Random numbers from a seed: the same ones on every machine and with every version of every library, so that a report
//! can be made again.

/// The generator `SplitMix64` (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice for one purpose: every list of numbers has its own sequence.
    #[must_use]
    pub fn of(purpose: &[u64]) -> Self {
        let mut dice = Self(0x9e37_79b9_7f4a_7c15);
        for number in purpose {
            dice.0 = dice.next() ^ number;
        }
        dice
    }

    /// 64 random bits.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and an iterator's `next` may")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is taken for 1 if it is 0. The bias is below `bound / 2^64`.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound.max(1));
        u64::try_from(wide >> 64).expect("the upper half of 128 bits has 64")
    }

    /// A number from `first` to `last`, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last.saturating_sub(first).saturating_add(1))
    }

    /// A number of the standard normal distribution (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        // 53 bits, as many as a float has; above 0, so that there is a logarithm.
        let mut unit = || ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        let (radius, angle) = (unit(), unit());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    /// A factor that is 1 on average and spreads by `percent` of that (standard deviation), of the lognormal
    /// distribution: never below 0, and now and then far above.
    pub fn lognormal(&mut self, percent: u32) -> f64 {
        let spread = f64::from(percent) / 100.0;
        let variance = spread.mul_add(spread, 1.0).ln();
        variance.sqrt().mul_add(self.normal(), -variance / 2.0).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_purpose_has_the_same_numbers_and_another_has_others() {
        let first = |purpose: &[u64]| Dice::of(purpose).next();
        assert_eq!(first(&[1, 2]), first(&[1, 2]));
        assert!(first(&[1, 2]) != first(&[2, 1]) && first(&[1]) != first(&[1, 0]) && first(&[]) != first(&[0]));
        let mut dice = Dice::of(&[7]);
        let mut seen = [false; 6];
        (0..200).for_each(|_| seen[usize::try_from(dice.between(3, 8)).expect("one digit") - 3] = true);
        assert_eq!(seen, [true; 6]);
        assert_eq!((dice.below(0), dice.between(5, 5)), (0, 5));
    }

    #[test]
    fn lognormal_factors_are_one_on_average_and_spread_as_asked() {
        for percent in [0, 30, 100] {
            let mut dice = Dice::of(&[u64::from(percent)]);
            let factors: Vec<f64> = (0..200_000).map(|_| dice.lognormal(percent)).collect();
            let mean = factors.iter().sum::<f64>() / 200_000.0;
            let deviation = (factors.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 200_000.0).sqrt();
            assert!((mean - 1.0).abs() < 0.02, "{percent} %: mean {mean}");
            assert!((deviation - f64::from(percent) / 100.0).abs() < 0.05, "{percent} %: deviation {deviation}");
            assert!(factors.iter().all(|factor| *factor > 0.0));
        }
    }
}
