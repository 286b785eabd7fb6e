//! What a holder has begun of late, as its provider may count it.
//!
//! A provider counts a request, and the tokens that it reads, when the request arrives; the tokens that it writes, at
//! any time between its arrival and its end. So requests and tokens read count from the moment at which they are sent
//! until a [`WINDOW`] after it, and tokens written from that moment (as many as may come) until a window after the end
//! (as many as came). Then no minute of the provider, wherever it begins, sees more than was counted here at its end,
//! for whatever arrives within [`ARRIVAL`]. What is only reserved, because it is not sent yet, counts until it is.
//!
//! Kept in slots of a quarter of a second, each of which counts until its last moment is old enough.

use std::collections::VecDeque;

use nexa_types::planted::{Bug, planted};
use nexa_types::{Millis, Timestamp};

use super::sizes::{Meter, NO_LIMIT, Sizes};

/// How much later than it was sent a request may be counted by the provider.
pub const ARRIVAL: Millis = Millis(500);
/// How long what was begun counts: a minute, and what requests take to arrive.
pub const WINDOW: Millis = Millis(60_000 + ARRIVAL.0);
const SLOT: Millis = Millis(250);
/// The most tokens that a single figure may claim.
const TOKENS_MAX: u64 = 1 << 32;
/// The meters that count by the minute.
const RATES: [Meter; 3] = [Meter::Requests, Meter::InputTokens, Meter::OutputTokens];

/// Tokens of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// That the model reads.
    pub input_tokens: u64,
    /// That it writes, or may write.
    pub output_tokens: u64,
}

impl Cost {
    /// What one request of this cost takes on each meter.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes::new(1, self.input_tokens, self.output_tokens, 1)
    }

    /// Without figures that nobody can mean.
    pub(super) fn bounded(self) -> Self {
        let bounded = |tokens: u64| tokens.min(TOKENS_MAX);
        Self { input_tokens: bounded(self.input_tokens), output_tokens: bounded(self.output_tokens) }
    }
}

/// A request that was begun. Whoever ends it hands it back.
#[derive(Debug, PartialEq, Eq)]
pub struct Begun {
    cost: Cost,
    /// When it was sent; not yet, if it is only reserved.
    at: Option<Timestamp>,
}

impl Begun {
    /// What it takes until it is sent, of what counts by the minute from then on.
    fn reserved(&self) -> Sizes {
        if self.at.is_none() { Sizes::new(1, self.cost.input_tokens, 0, 0) } else { Sizes::NONE }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was sent, and cost this, as far as is known.
    Sent(Cost),
    /// It never left this node.
    NotSent,
}

#[derive(Debug, Default)]
pub(super) struct Usage {
    /// By number of the slot, the oldest first: as many as [`WINDOW`] has slots, at most.
    slots: VecDeque<(u64, Sizes)>,
    /// The sum over all slots.
    past: Sizes,
    /// What requests take that are not sent yet.
    reserved: Sizes,
    in_flight: u64,
    /// Tokens that requests in flight may write, all together.
    may_write: u64,
    now: Timestamp,
}

impl Usage {
    /// What counts now, on each meter.
    pub(super) fn held(&mut self, now: Timestamp) -> Sizes {
        self.forget(now);
        self.past.plus(&self.reserved).plus(&Sizes::new(0, 0, self.may_write, self.in_flight))
    }

    pub(super) fn reserve(&mut self, cost: Cost) -> Begun {
        let cost = cost.bounded();
        self.in_flight += 1;
        self.may_write = self.may_write.saturating_add(cost.output_tokens);
        let begun = Begun { cost, at: None };
        self.reserved = self.reserved.plus(&begun.reserved());
        begun
    }

    pub(super) fn sends(&mut self, begun: &mut Begun, now: Timestamp) {
        self.forget(now);
        let sent = begun.reserved();
        self.reserved = self.reserved.minus(&sent);
        self.count(sent);
        begun.at.get_or_insert(self.now);
    }

    pub(super) fn end(&mut self, begun: Begun, ending: Ending, now: Timestamp) {
        self.forget(now);
        self.reserved = self.reserved.minus(&begun.reserved());
        let Begun { cost, at } = begun;
        self.in_flight = self.in_flight.saturating_sub(1);
        self.may_write = self.may_write.saturating_sub(cost.output_tokens);
        match ending {
            Ending::Sent(real) => {
                let real = real.bounded();
                let (more, requests) = match at {
                    Some(_) => (real.input_tokens.saturating_sub(cost.input_tokens), 0),
                    // Nobody said when it was sent: now, at the latest.
                    None => (real.input_tokens, 1),
                };
                self.count(Sizes::new(requests, more, real.output_tokens, 0));
                self.give_back(at, Sizes::new(0, cost.input_tokens.saturating_sub(real.input_tokens), 0, 0));
            }
            Ending::NotSent => self.give_back(at, Sizes::new(1, cost.input_tokens, 0, 0)),
        }
    }

    /// How long until so much more fits into `size` because what was begun no longer counts. `None`: it never does by
    /// that alone.
    pub(super) fn wait(&mut self, more: &Sizes, size: &Sizes, now: Timestamp) -> Option<Millis> {
        let held = self.held(now);
        let over = Sizes::by(|meter| match size.of(meter) {
            NO_LIMIT => 0,
            size => held.of(meter).saturating_add(more.of(meter)).saturating_sub(size),
        });
        if over.of(Meter::Concurrency) > 0 {
            return None;
        }
        let mut wait = Millis(0);
        for meter in RATES {
            let mut over = over.of(meter);
            for (slot, counted) in &self.slots {
                if over == 0 {
                    break;
                }
                over = over.saturating_sub(counted.of(meter));
                wait = wait.max(end_of(*slot).since(self.now));
            }
            if over > 0 {
                return None;
            }
        }
        Some(wait)
    }

    fn count(&mut self, sizes: Sizes) {
        if sizes.is_none() {
            return;
        }
        let slot = self.now.0 / SLOT.0;
        self.past = self.past.plus(&sizes);
        match self.slots.back_mut().filter(|(last, _)| *last == slot) {
            Some((_, counted)) => *counted = counted.plus(&sizes),
            None => self.slots.push_back((slot, sizes)),
        }
    }

    /// What was counted at that time was not taken after all.
    fn give_back(&mut self, at: Option<Timestamp>, sizes: Sizes) {
        let Some(slot) = at.map(|at| at.0 / SLOT.0) else { return };
        if let Ok(found) = self.slots.binary_search_by_key(&slot, |(slot, _)| *slot) {
            let counted = &mut self.slots[found].1;
            *counted = counted.minus(&sizes);
            self.past = self.past.minus(&sizes);
        }
    }

    fn forget(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        while let Some((slot, counted)) = self.slots.front().copied() {
            if end_of(slot) > self.now {
                break;
            }
            self.slots.pop_front();
            self.past = self.past.minus(&counted);
        }
    }
}

/// When what was counted in a slot no longer counts.
fn end_of(slot: u64) -> Timestamp {
    let window = if planted(Bug::MinuteTooShort) { SLOT } else { WINDOW };
    Timestamp(slot.saturating_add(1).saturating_mul(SLOT.0)).after(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(input_tokens: u64, output_tokens: u64) -> Cost {
        Cost { input_tokens, output_tokens }
    }

    impl Usage {
        fn begin(&mut self, cost: Cost, now: Timestamp) -> Begun {
            let mut begun = self.reserve(cost);
            self.sends(&mut begun, now);
            begun
        }
    }

    #[test]
    fn what_is_reserved_counts_until_it_is_sent_and_a_minute_from_then_on() {
        let mut usage = Usage::default();
        let (mut sent, given_up, unsaid) =
            (usage.reserve(cost(10, 100)), usage.reserve(cost(7, 9)), usage.reserve(cost(1, 1)));
        assert_eq!(usage.held(Timestamp(200_000)), Sizes::new(3, 18, 110, 3));
        usage.sends(&mut sent, Timestamp(200_000));
        usage.sends(&mut sent, Timestamp(230_000));
        usage.end(given_up, Ending::NotSent, Timestamp(201_000));
        assert_eq!(usage.held(Timestamp(230_000)), Sizes::new(2, 11, 101, 2));
        usage.end(sent, Ending::Sent(cost(10, 30)), Timestamp(231_000));
        usage.end(unsaid, Ending::Sent(cost(2, 1)), Timestamp(232_000));
        assert_eq!(usage.held(Timestamp(260_000)), Sizes::new(2, 12, 31, 0));
        assert_eq!(usage.held(Timestamp(260_750)), Sizes::new(1, 2, 31, 0));
        assert_eq!(usage.held(Timestamp(292_750)), Sizes::NONE);
    }

    #[test]
    fn what_is_read_counts_for_a_minute_and_what_is_written_for_a_minute_after_the_end() {
        let mut usage = Usage::default();
        let begun = usage.begin(cost(10, 100), Timestamp(1_000));
        assert_eq!(usage.held(Timestamp(1_000)), Sizes::new(1, 10, 100, 1));
        assert_eq!(usage.held(Timestamp(61_749)), Sizes::new(1, 10, 100, 1));
        assert_eq!(usage.held(Timestamp(61_750)), Sizes::new(0, 0, 100, 1), "it is still under way");
        usage.end(begun, Ending::Sent(cost(10, 30)), Timestamp(70_000));
        assert_eq!(usage.held(Timestamp(70_000)), Sizes::new(0, 0, 30, 0));
        assert_eq!(usage.held(Timestamp(130_749)), Sizes::new(0, 0, 30, 0));
        assert_eq!(usage.held(Timestamp(130_750)), Sizes::NONE);
        assert_eq!(usage.held(Timestamp(0)), Sizes::NONE, "time never goes back");
    }

    #[test]
    fn what_was_not_sent_or_not_read_no_longer_counts() {
        let mut usage = Usage::default();
        let (one, other) = (usage.begin(cost(10, 9), Timestamp(0)), usage.begin(cost(10, 9), Timestamp(300)));
        usage.end(one, Ending::NotSent, Timestamp(400));
        assert_eq!(usage.held(Timestamp(400)), Sizes::new(1, 10, 9, 1));
        usage.end(other, Ending::Sent(cost(4, 2)), Timestamp(400));
        assert_eq!(usage.held(Timestamp(400)), Sizes::new(1, 4, 2, 0));
        let third = usage.begin(cost(10, 9), Timestamp(500));
        usage.end(third, Ending::Sent(cost(25, 9)), Timestamp(600));
        assert_eq!(usage.held(Timestamp(600)), Sizes::new(2, 29, 11, 0), "more than was thought counts, too");
    }

    #[test]
    fn a_wait_is_until_enough_is_old_enough() {
        let mut usage = Usage::default();
        let size = Sizes::new(2, NO_LIMIT, NO_LIMIT, 5);
        assert_eq!(usage.wait(&cost(9, 9).sizes(), &size, Timestamp(0)), Some(Millis(0)));
        let _first = usage.begin(cost(9, 9), Timestamp(0));
        let _second = usage.begin(cost(9, 9), Timestamp(10_000));
        assert_eq!(usage.wait(&cost(9, 9).sizes(), &size, Timestamp(10_000)), Some(Millis(50_750)));
        assert_eq!(usage.wait(&cost(9, 9).sizes(), &Sizes::new(2, 9, 9, 2), Timestamp(10_000)), None, "two in flight");
        assert_eq!(usage.wait(&cost(9, 0).sizes(), &Sizes::new(9, 8, 99, 9), Timestamp(10_000)), None, "too large");
    }
}
