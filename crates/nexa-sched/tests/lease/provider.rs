//! A provider that counts every minute, wherever it begins, and never forgives.

use std::collections::VecDeque;

use nexa_sched::lease::{Cost, Meter, Sizes};

#[derive(Default)]
pub(crate) struct Counting {
    limits: Sizes,
    minutes: [VecDeque<(u64, u64)>; 3],
    sums: [u64; 3],
    in_flight: u64,
    /// Requests ever.
    pub(crate) requests: u64,
}

impl Counting {
    pub(crate) fn new(limits: Sizes) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(crate) fn arrives(&mut self, cost: Cost, now: u64) {
        self.requests += 1;
        self.in_flight += 1;
        let most = self.limits.of(Meter::Concurrency);
        assert!(self.in_flight <= most, "LS-2: {} requests at once, {most} may be, at {now}", self.in_flight);
        self.count(Meter::Requests, 1, now);
        self.count(Meter::InputTokens, cost.input_tokens, now);
    }

    pub(crate) fn writes(&mut self, tokens: u64, now: u64) {
        self.count(Meter::OutputTokens, tokens, now);
    }

    pub(crate) fn ends(&mut self) {
        self.in_flight -= 1;
    }

    fn count(&mut self, meter: Meter, amount: u64, now: u64) {
        let at = meter as usize;
        self.minutes[at].push_back((now, amount));
        self.sums[at] += amount;
        while let Some((then, old)) = self.minutes[at].front().copied().filter(|(then, _)| then + 60_000 <= now) {
            assert!(then <= now);
            self.sums[at] -= old;
            self.minutes[at].pop_front();
        }
        let most = self.limits.of(meter);
        assert!(self.sums[at] <= most, "LS-2: {meter:?}: {} within a minute, {most} may be, at {now}", self.sums[at]);
    }
}
