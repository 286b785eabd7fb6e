//! What a provider takes in a minute, and how much of it is left now.
//!
//! Three buckets: requests, tokens read, tokens written. Each fills at its rate, up to what the rate gives in [`BURST`],
//! so that a provider which counts by the second has as little to refuse as one that counts by the minute. A call takes
//! what it is thought to cost when it may be sent; its end settles the difference to what it did cost.
//!
//! Estimates are [`thought_of`] the request and then corrected by how far off those of its tenant were of late, because
//! `max_tokens` is seldom used up and four bytes are not a token everywhere.
//!
//! Holds:
//!   BU-1  in a time t a bucket lets through what its rate gives in t and in [`SPILL`], and one call of up to what it
//!         gives in [`DEBT`]; what a call cost beyond its estimate is held back from those after it
//!   BU-2  a call that is larger than a bucket goes when that is full, and leaves a debt which the rate pays back
//!
//! Pure: integers, and times come in as arguments.

use std::collections::BTreeMap;

use nexa_event::effect::ModelRequest;
use nexa_ports::model::LaneLimits;
use nexa_types::{Millis, Spend, TenantId, Timestamp};

/// A bucket holds what its rate gives in this. Half of a second, because calls also wait for the store and for the
/// network, and come in closer together than they went out.
const BURST: Millis = Millis(500);
/// A bucket that gets something back holds no more than what its rate gives in this.
const SPILL: Millis = Millis(1_000);
/// A debt of more than what the rate gives in this is forgiven, lest one wrong figure stops a lane for good.
const DEBT: Millis = Millis(300_000);
/// One unit of a bucket's level in thousandths of a minute, so that a rate per minute is a whole number per millisecond.
const UNIT: i128 = 60_000;
/// Bytes of text that are taken for one token.
const BYTES_PER_TOKEN: u64 = 4;
/// What a message costs beside its text.
const BYTES_PER_MESSAGE: u64 = 16;
/// The most tokens that a single figure may claim.
const TOKENS_MAX: u64 = 1 << 32;
/// The highest rate that is told from no limit at all.
const RATE_MAX: u64 = 1 << 40;
/// How many of the last calls say how far off estimates are, roughly.
const MEMORY: u64 = 32;
/// Tenants whose estimates are corrected by their own calls. Beyond it all are forgotten, and those of the lane count
/// until there are some again.
const TENANTS_MAX: usize = 4_096;
/// See [`Correction`].
const PARTS: u64 = 1 << 12;
/// The most by which an estimate is corrected upwards.
const CORRECTION_MAX: u64 = 8;

/// Tokens of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cost {
    pub(super) input: u64,
    pub(super) output: u64,
}

impl Cost {
    /// Both together, for shares.
    pub(super) fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// What an answer says that it cost.
    pub(super) fn of(spend: &Spend) -> Self {
        Self { input: spend.tokens_in.0.min(TOKENS_MAX), output: spend.tokens_out.0.min(TOKENS_MAX) }
    }
}

/// What a request looks as if it costs: four bytes a token, tools and schemas included, and all that it may write.
pub(super) fn thought_of(request: &ModelRequest) -> Cost {
    let len = |texts: &[&str]| texts.iter().map(|text| text.len() as u64).sum::<u64>();
    let messages = request.messages.iter().map(|message| {
        let calls = message.tool_calls.iter().map(|call| len(&[&call.id, &call.name, &call.arguments])).sum::<u64>();
        BYTES_PER_MESSAGE + len(&[&message.text]) + calls
    });
    let tools = request.tools.iter().map(|tool| len(&[&tool.name, &tool.description, &tool.schema]));
    let schema = request.schema.as_ref().map_or(0, |schema| schema.len() as u64);
    let bytes = messages.chain(tools).sum::<u64>() + schema;
    let input = bytes.div_ceil(BYTES_PER_TOKEN).min(TOKENS_MAX);
    Cost { input, output: request.sampling.max_tokens.0.min(TOKENS_MAX) }
}

struct Bucket {
    /// Per minute.
    rate: i128,
    /// What it holds now, in units; below zero is a debt.
    level: i128,
    /// When it held that.
    at: Timestamp,
}

impl Bucket {
    fn new(rate: u64, now: Timestamp) -> Self {
        let mut bucket = Self { rate: i128::from(rate.clamp(1, RATE_MAX)), level: 0, at: now };
        bucket.level = bucket.full();
        bucket
    }

    /// Goes by another rate from now on; what it holds, or owes, stays.
    fn turn(&mut self, rate: u64, now: Timestamp) {
        self.fill(now);
        self.rate = i128::from(rate.clamp(1, RATE_MAX));
        self.level = self.level.clamp(-self.given_in(DEBT), self.full());
    }

    /// What the rate gives in so long, and one at least.
    fn given_in(&self, span: Millis) -> i128 {
        (self.rate * i128::from(span.0)).max(UNIT)
    }

    fn full(&self) -> i128 {
        self.given_in(BURST)
    }

    fn fill(&mut self, now: Timestamp) {
        let gained = self.level + self.rate * i128::from(now.since(self.at).0);
        self.level = gained.min(self.full().max(self.level));
        self.at = self.at.max(now);
    }

    /// How long until it holds this much, or is full.
    fn wait(&self, count: u64) -> Millis {
        let missing = (i128::from(count) * UNIT).min(self.full()) - self.level;
        let wait = (missing.max(0) + self.rate - 1) / self.rate;
        Millis(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    fn take(&mut self, count: u64) {
        self.level = (self.level - i128::from(count) * UNIT).max(-self.given_in(DEBT));
    }

    fn give_back(&mut self, count: u64) {
        let most = self.given_in(SPILL).max(self.level);
        self.level = (self.level + i128::from(count) * UNIT).min(most);
    }

    fn settle(&mut self, taken: u64, real: u64) {
        if real > taken { self.take(real - taken) } else { self.give_back(taken - real) }
    }
}

/// How far off estimates were: sums over the last calls, of what was thought and of what it was.
#[derive(Debug, Clone, Copy, Default)]
struct Correction {
    thought: u64,
    real: u64,
}

impl Correction {
    fn learn(&mut self, thought: u64, real: u64) {
        let faded = |sum: u64| sum - sum / MEMORY;
        // In parts of a token, so that what rounding loses is nothing beside them.
        self.thought = faded(self.thought) + thought.min(TOKENS_MAX) * PARTS;
        self.real = faded(self.real) + real.min(TOKENS_MAX) * PARTS;
    }

    fn apply(&self, thought: u64) -> u64 {
        if self.thought == 0 {
            return thought;
        }
        let (real, sum) = (u128::from(self.real), u128::from(self.thought));
        let corrected = (u128::from(thought) * real + sum / 2) / sum;
        let most = thought.saturating_mul(CORRECTION_MAX);
        u64::try_from(corrected).unwrap_or(u64::MAX).clamp(1, most.max(1))
    }
}

/// For what is read and for what is written.
#[derive(Debug, Clone, Copy, Default)]
struct Corrections {
    input: Correction,
    output: Correction,
}

impl Corrections {
    fn learn(&mut self, thought: Cost, real: Cost) {
        self.input.learn(thought.input, real.input);
        self.output.learn(thought.output, real.output);
    }
}

/// The budgets of one lane.
pub(super) struct Budget {
    limits: LaneLimits,
    requests: Option<Bucket>,
    input: Option<Bucket>,
    output: Option<Bucket>,
    of_lane: Corrections,
    of_tenants: BTreeMap<TenantId, Corrections>,
}

impl Budget {
    pub(super) fn new(limits: LaneLimits, now: Timestamp) -> Self {
        let bucket = |rate: Option<u64>| rate.map(|rate| Bucket::new(rate, now));
        Self {
            limits,
            requests: bucket(limits.requests_per_minute),
            input: bucket(limits.input_tokens_per_minute),
            output: bucket(limits.output_tokens_per_minute),
            of_lane: Corrections::default(),
            of_tenants: BTreeMap::new(),
        }
    }

    /// Goes by these limits from now on.
    pub(super) fn adapt(&mut self, limits: LaneLimits, now: Timestamp) {
        if self.limits == limits {
            return;
        }
        self.limits = limits;
        let turns = [
            (&mut self.requests, limits.requests_per_minute),
            (&mut self.input, limits.input_tokens_per_minute),
            (&mut self.output, limits.output_tokens_per_minute),
        ];
        for (bucket, rate) in turns {
            match (bucket.as_mut(), rate) {
                (Some(bucket), Some(rate)) => bucket.turn(rate, now),
                (_, rate) => *bucket = rate.map(|rate| Bucket::new(rate, now)),
            }
        }
    }

    /// What a call will cost, going by those before it.
    pub(super) fn expected(&self, tenant: &TenantId, thought: Cost) -> Cost {
        let Corrections { input, output } = self.of_tenants.get(tenant).unwrap_or(&self.of_lane);
        Cost { input: input.apply(thought.input), output: output.apply(thought.output) }
    }

    /// How long until a call of this cost fits.
    pub(super) fn wait(&mut self, cost: Cost, now: Timestamp) -> Millis {
        let mut wait = Millis(0);
        self.each([1, cost.input, cost.output], now, |bucket, count| wait = wait.max(bucket.wait(count)));
        wait
    }

    /// A call of this cost goes.
    pub(super) fn take(&mut self, cost: Cost, now: Timestamp) {
        self.each([1, cost.input, cost.output], now, Bucket::take);
    }

    /// It was not sent after all.
    pub(super) fn give_back(&mut self, taken: Cost, now: Timestamp) {
        self.each([1, taken.input, taken.output], now, Bucket::give_back);
    }

    /// It was answered.
    pub(super) fn settle(&mut self, tenant: &TenantId, thought: Cost, taken: Cost, real: Cost, now: Timestamp) {
        self.of_lane.learn(thought, real);
        if self.of_tenants.len() >= TENANTS_MAX && !self.of_tenants.contains_key(tenant) {
            self.of_tenants.clear();
        }
        self.of_tenants.entry(tenant.clone()).or_default().learn(thought, real);
        self.each([0; 3], now, |_, _| {});
        self.input.iter_mut().for_each(|bucket| bucket.settle(taken.input, real.input));
        self.output.iter_mut().for_each(|bucket| bucket.settle(taken.output, real.output));
    }

    /// It failed: it counts as a request that was read and not answered.
    pub(super) fn failed(&mut self, taken: Cost, now: Timestamp) {
        self.each([0, 0, taken.output], now, Bucket::give_back);
    }

    fn each(&mut self, counts: [u64; 3], now: Timestamp, mut change: impl FnMut(&mut Bucket, u64)) {
        for (bucket, count) in [&mut self.requests, &mut self.input, &mut self.output].into_iter().zip(counts) {
            if let Some(bucket) = bucket {
                bucket.fill(now);
                change(bucket, count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(requests: Option<u64>, input: Option<u64>, output: Option<u64>) -> LaneLimits {
        LaneLimits {
            requests_per_minute: requests,
            input_tokens_per_minute: input,
            output_tokens_per_minute: output,
            ..LaneLimits::at_once(1)
        }
    }

    fn someone() -> TenantId {
        TenantId::local()
    }

    fn cost(input: u64, output: u64) -> Cost {
        Cost { input, output }
    }

    /// When each of so many calls of a cost may go, if all wait from the start.
    fn times(budget: &mut Budget, cost: Cost, calls: usize) -> Vec<u64> {
        let mut now = Timestamp(0);
        let mut times = Vec::new();
        for _ in 0..calls {
            now = now.after(budget.wait(cost, now));
            assert_eq!(budget.wait(cost, now), Millis(0), "it fits when it was said to fit");
            budget.take(cost, now);
            times.push(now.0);
        }
        times
    }

    #[test]
    fn requests_go_at_their_rate_and_a_few_at_once() {
        let mut slow = Budget::new(limits(Some(60), None, None), Timestamp(0));
        assert_eq!(times(&mut slow, cost(9, 9), 4), [0, 1_000, 2_000, 3_000]);
        let mut quick = Budget::new(limits(Some(480), None, None), Timestamp(0));
        assert_eq!(times(&mut quick, cost(9, 9), 6), [0, 0, 0, 0, 125, 250]);
    }

    #[test]
    fn a_call_larger_than_the_bucket_goes_when_it_is_full_and_is_paid_for_afterwards() {
        let mut budget = Budget::new(limits(None, Some(60_000), None), Timestamp(0));
        // 1 token a millisecond, and room for 500.
        assert_eq!(times(&mut budget, cost(2_000, 0), 3), [0, 2_000, 4_000]);
        assert_eq!(budget.wait(cost(1, 0), Timestamp(4_000)), Millis(1_501));
    }

    #[test]
    fn what_a_call_cost_is_settled_both_ways() {
        let mut budget = Budget::new(limits(None, None, Some(60_000)), Timestamp(0));
        let now = Timestamp(0);
        budget.take(cost(0, 400), now);
        assert_eq!(budget.wait(cost(0, 500), now), Millis(400));
        budget.settle(&someone(), cost(0, 400), cost(0, 400), cost(0, 100), now);
        assert_eq!(budget.wait(cost(0, 500), now), Millis(100));
        budget.settle(&someone(), cost(0, 400), cost(0, 400), cost(0, 700), now);
        assert_eq!(budget.wait(cost(0, 500), now), Millis(400));
        budget.failed(cost(0, 250), now);
        assert_eq!(budget.wait(cost(0, 500), now), Millis(150));
    }

    #[test]
    fn estimates_follow_what_calls_cost() {
        let mut budget = Budget::new(limits(None, None, Some(60_000)), Timestamp(0));
        for n in 0..2 * TENANTS_MAX {
            let tenant = TenantId::new(&format!("tenant-{n}")).unwrap();
            budget.settle(&tenant, cost(1, 1), cost(1, 1), cost(1, 1), Timestamp(0));
        }
        assert!(budget.of_tenants.len() <= TENANTS_MAX);
        let thought = cost(100, 1_024);
        assert_eq!(budget.expected(&someone(), thought), thought);
        for _ in 0..100 {
            budget.settle(&someone(), thought, thought, cost(150, 64), Timestamp(0));
        }
        assert_eq!(budget.expected(&someone(), cost(200, 2_048)), cost(300, 128));
        let other = TenantId::new("other").unwrap();
        assert_eq!(budget.expected(&other, cost(200, 2_048)), cost(300, 128), "of whom nothing is known");
        budget.settle(&other, thought, thought, cost(100, 512), Timestamp(0));
        assert_eq!(budget.expected(&other, cost(200, 2_048)), cost(200, 1_024), "who has calls of his own");
        assert_eq!(budget.expected(&someone(), cost(200, 2_048)), cost(300, 128));
        budget.adapt(limits(None, None, Some(6)), Timestamp(0));
        assert_eq!(budget.expected(&someone(), cost(200, 2_048)), cost(300, 128), "other limits do not change that");
    }

    #[test]
    fn a_wrong_figure_does_not_stop_a_lane_for_good() {
        let mut budget = Budget::new(limits(Some(1), Some(1), Some(u64::MAX)), Timestamp(0));
        let absurd = Cost { input: u64::MAX, output: u64::MAX };
        budget.take(absurd, Timestamp(0));
        budget.settle(&someone(), absurd, cost(0, 0), absurd, Timestamp(0));
        assert!(budget.wait(cost(1, 1), Timestamp(0)) <= Millis(DEBT.0 + 60_000));
        budget.give_back(absurd, Timestamp(u64::MAX));
        assert_eq!(budget.wait(absurd, Timestamp(u64::MAX)), Millis(0));
        assert!(budget.expected(&someone(), absurd).total() > 0);
    }

    proptest! {
        /// BU-1 against a plain count of what went in every stretch of time.
        #[test]
        fn no_stretch_of_time_gets_more_than_its_rate(
            rate in 600u64..200_000,
            calls in prop::collection::vec((1u64..3_000, 0u64..3_000), 1..60),
        ) {
            let mut budget = Budget::new(limits(None, Some(rate), None), Timestamp(0));
            let (mut now, mut gone) = (Timestamp(0), Vec::new());
            for (size, idle) in calls {
                now = now.after(budget.wait(cost(size, 0), now)).after(Millis(idle));
                budget.take(cost(size, 0), now);
                gone.push((now.0, size));
            }
            for from in 0..gone.len() {
                let mut sum = 0;
                for (at, size) in &gone[from..] {
                    // Whatever was let through before this one fits the rate and a full bucket.
                    let most = u128::from(rate) * u128::from(at - gone[from].0 + SPILL.0) / 60_000 + 1;
                    prop_assert!(u128::from(sum) <= most, "{sum} > {most} in {gone:?}");
                    sum += size;
                }
            }
        }
    }
}
