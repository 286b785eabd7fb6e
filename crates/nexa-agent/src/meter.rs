//! What an agent may use, has used, and has promised.
//!
//! A request reserves its worst case before it is wanted, and a child's grant is set aside when it is born; both are
//! settled with what was really used. A child's grant is its share of what is left, fixed at birth, because a counter
//! that a whole family shares would have to be asked over the network before each request, from every node, and would
//! be one place for all to wait at. What a child does not use comes back with its end.
//!
//! How many tokens an input is, the provider's tokenizer says, afterwards. A request therefore holds a token for each byte
//! of its input, which none exceeds, or, where the rest of the budget is less than that and at least a token for four
//! bytes, the whole rest: see `reserve` in [`crate::advance`].
//!
//! Prices are not known here, so a reserve holds no money: a money cap ends the agent at the first request after it is
//! used up. Time is measured against the clock in [`crate::agent`], not here.

use minicbor::{Decode, Encode};
use nexa_types::{Budget, Spend, Tokens, UsdMicro};

use crate::invariant;
use crate::shortage::{CALLS, COST, STEPS, TOKENS};

/// Amounts of everything that is counted against a cap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Amount {
    #[n(0)]
    tokens: u64,
    #[n(1)]
    cost: u64,
    #[n(2)]
    calls: u64,
    #[n(3)]
    steps: u64,
}

impl From<&Spend> for Amount {
    fn from(spend: &Spend) -> Self {
        Self { tokens: spend.tokens().0, cost: spend.cost.0, calls: spend.calls, steps: spend.steps }
    }
}

impl From<&Budget> for Amount {
    /// The caps themselves; nothing where there is no cap.
    fn from(budget: &Budget) -> Self {
        Self {
            tokens: budget.tokens.map_or(0, |cap| cap.0),
            cost: budget.cost.map_or(0, |cap| cap.0),
            calls: budget.calls.unwrap_or(0),
            steps: budget.steps.unwrap_or(0),
        }
    }
}

impl Amount {
    fn zip(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            tokens: with(self.tokens, other.tokens),
            cost: with(self.cost, other.cost),
            calls: with(self.calls, other.calls),
            steps: with(self.steps, other.steps),
        }
    }

    fn plus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    fn less(self, other: Self) -> Self {
        self.zip(other, u64::saturating_sub)
    }
}

/// Why a request does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shortage {
    pub(crate) what: &'static str,
    pub(crate) needed: u64,
    pub(crate) left: u64,
}

/// The meters of one agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Meter {
    #[n(0)]
    budget: Budget,
    #[n(1)]
    spent: Spend,
    #[n(2)]
    reserved: Amount,
    #[n(3)]
    set_aside: Amount,
    /// What was billed above its reserve or grant.
    #[n(4)]
    excess: Amount,
    /// What detached branches were given of it. It stays set aside.
    #[n(5)]
    #[cbor(skip_if = "Amount::is_nothing")]
    handed_over: Amount,
}

impl Meter {
    pub(crate) fn new(budget: Budget) -> Self {
        Self { budget, ..Self::default() }
    }

    pub(crate) fn spent(&self) -> Spend {
        self.spent
    }

    /// What is left of each cap. The cap of time is left out.
    pub(crate) fn rest(&self) -> Budget {
        let used = self.used();
        Budget {
            tokens: self.budget.tokens.map(|cap| Tokens(cap.0.saturating_sub(used.tokens))),
            cost: self.budget.cost.map(|cap| UsdMicro(cap.0.saturating_sub(used.cost))),
            time: None,
            calls: self.budget.calls.map(|cap| cap.saturating_sub(used.calls)),
            steps: self.budget.steps.map(|cap| cap.saturating_sub(used.steps)),
        }
    }

    /// Promises a request's worst case, or says what is missing.
    pub(crate) fn reserve(&mut self, worst: &Spend) -> Result<(), Shortage> {
        self.fits(worst)?;
        self.reserved = self.reserved.plus(worst.into());
        self.check();
        Ok(())
    }

    /// What is missing for a request, if anything is.
    pub(crate) fn fits(&self, worst: &Spend) -> Result<(), Shortage> {
        let need = Amount::from(worst);
        let rest = self.rest();
        let short = |what, needed: u64, left: Option<u64>| match left {
            Some(left) if left < needed => Err(Shortage { what, needed, left }),
            _ => Ok(()),
        };
        short(TOKENS, need.tokens, rest.tokens.map(|rest| rest.0))?;
        short(CALLS, need.calls, rest.calls)?;
        short(STEPS, need.steps, rest.steps)?;
        // Without a price the least that a request can cost is something.
        short(COST, need.cost.max(1), rest.cost.map(|rest| rest.0))
    }

    /// The meter as it would be if these grants had come back unused.
    pub(crate) fn once_back<'a>(&self, granted: impl Iterator<Item = &'a Budget>) -> Self {
        let mut later = self.clone();
        for granted in granted {
            later.set_aside = later.set_aside.less(granted.into());
        }
        later
    }

    /// Ends a reserve: without a bill if the request was never sent.
    pub(crate) fn settle(&mut self, worst: &Spend, bill: Option<&Spend>) {
        let worst = Amount::from(worst);
        self.reserved = self.reserved.less(worst);
        if let Some(bill) = bill {
            self.excess = self.excess.plus(Amount::from(bill).less(worst));
            self.spent += *bill;
        }
        self.check();
    }

    /// A child's grant: its own caps, or its share of what is left if that is tighter; `shares` is how many are to share
    /// it, itself included. While there is one for each of so many that are `sure` of it, a share is not nothing: what is
    /// kept back for others is of no use to those who cannot begin.
    pub(crate) fn grant(&self, own: Budget, shares: u64, sure: Option<u64>) -> Budget {
        let least = |rest: u64| u64::from(sure.is_some_and(|sure| rest >= sure.max(1)));
        let share = |rest: u64| (rest / shares.max(sure.unwrap_or(1)).max(1)).max(least(rest));
        let rest = self.rest();
        own.tighter(Budget {
            tokens: rest.tokens.map(|rest| Tokens(share(rest.0))),
            cost: rest.cost.map(|rest| UsdMicro(share(rest.0))),
            time: None,
            calls: rest.calls.map(share),
            steps: rest.steps.map(share),
        })
    }

    /// Promises a child its grant.
    pub(crate) fn set_aside(&mut self, granted: &Budget) {
        self.set_aside = self.set_aside.plus(granted.into());
        self.check();
    }

    /// Takes a child's grant back, less what it used.
    pub(crate) fn give_back(&mut self, granted: &Budget, bill: &Spend) {
        let granted = Amount::from(granted);
        self.set_aside = self.set_aside.less(granted);
        self.excess = self.excess.plus(Amount::from(bill).less(granted));
        self.spent += *bill;
        self.check();
    }

    /// A detached branch gets this from the root: it does not come back.
    pub(crate) fn hand_over(&mut self, granted: &Budget) {
        self.set_aside(granted);
        self.handed_over = self.handed_over.plus(granted.into());
    }

    /// What was handed over, if anything is counted.
    pub(crate) fn handed_over(&self) -> Option<Budget> {
        let Amount { tokens, cost, calls, steps } = self.handed_over;
        let some = |amount: u64| (amount > 0).then_some(amount);
        let handed_over = Budget {
            tokens: some(tokens).map(Tokens),
            cost: some(cost).map(UsdMicro),
            time: None,
            calls: some(calls),
            steps: some(steps),
        };
        (handed_over != Budget::default()).then_some(handed_over)
    }

    fn used(&self) -> Amount {
        Amount::from(&self.spent).plus(self.reserved).plus(self.set_aside)
    }

    /// Whether nothing is over its cap but by what was billed above its worst case.
    pub(crate) fn is_sound(&self) -> bool {
        let (used, excess) = (self.used(), self.excess);
        let within =
            |cap: Option<u64>, used: u64, excess: u64| cap.is_none_or(|cap| used <= cap.saturating_add(excess));
        within(self.budget.tokens.map(|cap| cap.0), used.tokens, excess.tokens)
            && within(self.budget.cost.map(|cap| cap.0), used.cost, excess.cost)
            && within(self.budget.calls, used.calls, excess.calls)
            && within(self.budget.steps, used.steps, excess.steps)
    }

    fn check(&self) {
        invariant!(AG2, self.is_sound());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(tokens: u64) -> Spend {
        Spend { tokens_out: Tokens(tokens), calls: 1, ..Spend::default() }
    }

    fn capped(tokens: u64) -> Meter {
        Meter::new(Budget { tokens: Some(Tokens(tokens)), ..Budget::default() })
    }

    #[test]
    fn what_is_promised_cannot_be_promised_twice() {
        let mut meter = capped(100);
        assert_eq!(meter.reserve(&spend(60)), Ok(()));
        assert_eq!(meter.reserve(&spend(41)), Err(Shortage { what: "tokens", needed: 41, left: 40 }));
        let granted = meter.grant(Budget::default(), 2, Some(2));
        assert_eq!(granted.tokens, Some(Tokens(20)));
        meter.set_aside(&granted);
        assert_eq!(meter.rest().tokens, Some(Tokens(20)));
        meter.settle(&spend(60), Some(&spend(10)));
        meter.give_back(&granted, &spend(5));
        assert_eq!((meter.rest().tokens, meter.spent().calls), (Some(Tokens(85)), 2));
    }

    #[test]
    fn what_was_handed_over_does_not_come_back() {
        let mut meter = capped(100);
        let granted = meter.grant(Budget::default(), 4, None);
        meter.hand_over(&granted);
        meter.hand_over(&granted);
        assert_eq!(meter.rest().tokens, Some(Tokens(50)));
        assert_eq!(meter.handed_over().and_then(|handed| handed.tokens), Some(Tokens(50)));
        assert_eq!(meter.spent(), Spend::default());
    }

    #[test]
    fn a_request_that_was_never_sent_costs_nothing() {
        let mut meter = capped(100);
        meter.reserve(&spend(60)).expect("it fits");
        meter.settle(&spend(60), None);
        assert_eq!((meter.rest().tokens, meter.spent()), (Some(Tokens(100)), Spend::default()));
    }

    #[test]
    fn money_stops_the_first_request_after_it_is_used_up() {
        let mut meter = Meter::new(Budget { cost: Some(UsdMicro(10)), ..Budget::default() });
        meter.reserve(&spend(5)).expect("some money is left");
        meter.settle(&spend(5), Some(&Spend { cost: UsdMicro(11), ..spend(5) }));
        assert!(meter.reserve(&spend(0)).is_err());
    }
}
