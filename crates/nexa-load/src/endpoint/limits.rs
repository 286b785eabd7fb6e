//! The limits of one API key, as providers keep them: so many a minute, given out second by second, and so many at once.
//!
//! A limit of 600 requests a minute is ten a second, and never sixty in the first six: what is not used within a second
//! is not saved up. A request that is larger than a second's worth passes when a whole second's worth is there, and those
//! after it wait until it is paid for.

use std::time::Duration;

/// What one key may do. What is not set is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Requests a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens read a minute.
    pub input_tokens_per_minute: Option<u64>,
    /// Tokens written a minute.
    pub output_tokens_per_minute: Option<u64>,
    /// Requests at once.
    pub concurrency: Option<usize>,
}

/// What a key has used of its limits.
#[derive(Debug, Clone)]
pub struct KeyUse {
    limits: KeyLimits,
    requests: Bucket,
    input: Bucket,
    output: Bucket,
    in_flight: usize,
}

/// How long to wait when too many requests are under way: they end when they end.
const CONCURRENCY_RETRY: Duration = Duration::from_secs(1);

impl KeyUse {
    /// Nothing is used yet.
    pub fn new(limits: KeyLimits) -> Self {
        let bucket = |per_minute: Option<u64>| Bucket::new(per_minute.map(|amount| amount as f64 / 60.0));
        Self {
            limits,
            requests: bucket(limits.requests_per_minute),
            input: bucket(limits.input_tokens_per_minute),
            output: bucket(limits.output_tokens_per_minute),
            in_flight: 0,
        }
    }

    /// Begins a request, if it is within all limits; otherwise nothing is used, and the error says when to come back.
    /// `now` is the time since some moment.
    ///
    /// # Errors
    /// The time after which the request would be within the limits.
    pub fn begin(&mut self, now: Duration, input: u64, output: u64) -> Result<(), Duration> {
        if self.limits.concurrency.is_some_and(|most| self.in_flight >= most) {
            return Err(CONCURRENCY_RETRY);
        }
        let wanted = [(&mut self.requests, 1.0), (&mut self.input, input as f64), (&mut self.output, output as f64)];
        let wait = wanted.map(|(bucket, amount)| bucket.wait(now, amount)).into_iter().max().unwrap_or_default();
        if !wait.is_zero() {
            return Err(wait);
        }
        self.requests.take(1.0);
        self.input.take(input as f64);
        self.output.take(output as f64);
        self.in_flight += 1;
        Ok(())
    }

    /// Ends a request that was begun.
    pub fn end(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }
}

/// A second's worth, filled evenly. Below zero it is in debt.
#[derive(Debug, Clone)]
struct Bucket {
    per_second: Option<f64>,
    level: f64,
    at: Duration,
}

impl Bucket {
    fn new(per_second: Option<f64>) -> Self {
        Self { per_second, level: Self::capacity(per_second), at: Duration::ZERO }
    }

    /// One request always fits, however few there are a minute.
    fn capacity(per_second: Option<f64>) -> f64 {
        per_second.unwrap_or(0.0).max(1.0)
    }

    /// How long until `amount` may be taken; zero for now.
    fn wait(&mut self, now: Duration, amount: f64) -> Duration {
        let Some(per_second) = self.per_second else { return Duration::ZERO };
        let capacity = Self::capacity(self.per_second);
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.level = (self.level + passed * per_second).min(capacity);
        self.at = self.at.max(now);
        // A thousandth is what rounding may lose; who has waited for the rest may miss a millionth more.
        let missing = amount.min(capacity) - self.level - 1e-3;
        if missing <= 1e-6 { Duration::ZERO } else { Duration::from_secs_f64(missing / per_second.max(1e-9)) }
    }

    fn take(&mut self, amount: f64) {
        if self.per_second.is_some() {
            self.level -= amount;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_minute_is_given_out_second_by_second() {
        let limits = KeyLimits { requests_per_minute: Some(600), ..KeyLimits::default() };
        let mut key = KeyUse::new(limits);
        let passed = (0..50).filter(|_| key.begin(ms(0), 5, 5).is_ok()).count();
        assert_eq!(passed, 10);
        assert_eq!(key.begin(ms(0), 5, 5).map_err(|wait| wait.as_millis()), Err(99));
        assert_eq!(key.begin(ms(100), 5, 5), Ok(()));
        // A minute of silence saves up no more than a second.
        assert_eq!((0..50).filter(|_| key.begin(ms(60_100), 5, 5).is_ok()).count(), 10);
    }

    #[test]
    fn a_request_larger_than_a_second_is_paid_for_by_those_after_it() {
        let limits = KeyLimits { input_tokens_per_minute: Some(6_000), ..KeyLimits::default() };
        let mut key = KeyUse::new(limits);
        assert_eq!(key.begin(ms(0), 500, 1), Ok(()));
        assert!(key.begin(ms(1_000), 1, 1).is_err());
        assert!(key.begin(ms(3_900), 1, 1).is_err());
        assert_eq!(key.begin(ms(4_100), 1, 1), Ok(()));
    }

    #[test]
    fn only_so_many_at_once() {
        let mut key = KeyUse::new(KeyLimits { concurrency: Some(2), ..KeyLimits::default() });
        assert_eq!([key.begin(ms(0), 1, 1), key.begin(ms(0), 1, 1)], [Ok(()), Ok(())]);
        assert_eq!(key.begin(ms(0), 1, 1), Err(CONCURRENCY_RETRY));
        key.end();
        assert_eq!(key.begin(ms(0), 1, 1), Ok(()));
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_in_any_minute(
            gaps in prop::collection::vec((0..400_u64, 1..80_u64), 1..400),
            per_minute in 60..3_000_u64,
        ) {
            let limits = KeyLimits { input_tokens_per_minute: Some(per_minute), ..KeyLimits::default() };
            let mut key = KeyUse::new(limits);
            let (mut now, mut taken) = (0, Vec::new());
            for (gap, amount) in gaps {
                now += gap;
                if key.begin(ms(now), amount, 0).is_ok() {
                    taken.push((now, amount));
                }
            }
            for (from, _) in &taken {
                let within = taken.iter().filter(|(at, _)| at >= from && *at < from + 60_000);
                let sum: u64 = within.map(|(_, amount)| amount).sum();
                // A second's worth at its start, and the debt of one request at its end.
                prop_assert!(sum <= per_minute + per_minute.div_ceil(60) + 81, "{sum} of {per_minute}");
            }
        }

        #[test]
        fn who_comes_back_when_told_is_let_in(per_minute in 1..5_000_u64, amounts in prop::collection::vec(1..300_u64, 1..60)) {
            let limits = KeyLimits { output_tokens_per_minute: Some(per_minute), ..KeyLimits::default() };
            let mut key = KeyUse::new(limits);
            let mut now = Duration::ZERO;
            for amount in amounts {
                if let Err(wait) = key.begin(now, 0, amount) {
                    now += wait;
                    prop_assert_eq!(key.begin(now, 0, amount), Ok(()));
                }
            }
        }
    }
}
