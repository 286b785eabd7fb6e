//! Amounts of the four things that a provider limits, together.

use minicbor::{Decode, Encode};

use crate::ProviderBudget;

/// What a provider limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Meter {
    /// Requests begun in a minute.
    Requests,
    /// Tokens read in a minute.
    InputTokens,
    /// Tokens written in a minute.
    OutputTokens,
    /// Requests in flight at once.
    Concurrency,
}

impl Meter {
    /// All of them, in the order of [`Sizes`].
    pub const ALL: [Self; 4] = [Self::Requests, Self::InputTokens, Self::OutputTokens, Self::Concurrency];
}

/// Says that a meter has no limit.
pub const NO_LIMIT: u64 = u64::MAX;

/// So much on each meter: requests a minute, tokens read and written a minute, requests at once. [`NO_LIMIT`] is more
/// than any other value, plus or minus anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Sizes(#[n(0)] [u64; 4]);

impl Sizes {
    /// Nothing of anything.
    pub const NONE: Self = Self([0; 4]);

    /// So many requests, tokens read and written a minute, and requests at once.
    #[must_use]
    pub const fn new(requests: u64, input_tokens: u64, output_tokens: u64, concurrency: u64) -> Self {
        Self([requests, input_tokens, output_tokens, concurrency])
    }

    /// What it says for each meter.
    #[must_use]
    pub fn by(value: impl FnMut(Meter) -> u64) -> Self {
        Self(Meter::ALL.map(value))
    }

    /// So much on this meter; [`NO_LIMIT`] is no limit.
    #[must_use]
    pub fn of(&self, meter: Meter) -> u64 {
        self.0[meter as usize]
    }

    /// So much on this meter, as settings say it: `None` is no limit.
    #[must_use]
    pub fn limit(&self, meter: Meter) -> Option<u64> {
        Some(self.of(meter)).filter(|size| *size != NO_LIMIT)
    }

    pub(super) fn set(&mut self, meter: Meter, value: u64) {
        self.0[meter as usize] = value;
    }

    /// The larger one on each meter.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        Self::by(|meter| self.of(meter).max(other.of(meter)))
    }

    /// The smaller one on each meter.
    #[must_use]
    pub fn min(&self, other: &Self) -> Self {
        Self::by(|meter| self.of(meter).min(other.of(meter)))
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self::by(|meter| self.of(meter).saturating_add(other.of(meter)))
    }

    /// What is left without the other; stops at 0, and no limit stays none.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self::by(|meter| match (self.of(meter), other.of(meter)) {
            (NO_LIMIT, _) => NO_LIMIT,
            (all, part) => all.saturating_sub(part),
        })
    }

    /// Whether it is no more than the other on any meter.
    #[must_use]
    pub fn fits(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).all(|(own, other)| *own <= other)
    }

    /// Whether it is nothing of anything.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

impl From<&ProviderBudget> for Sizes {
    fn from(budget: &ProviderBudget) -> Self {
        let ProviderBudget {
            provider: _,
            requests_per_minute,
            input_tokens_per_minute,
            output_tokens_per_minute,
            concurrency,
        } = budget;
        let limits = [requests_per_minute, input_tokens_per_minute, output_tokens_per_minute, concurrency];
        Self(limits.map(|limit| limit.unwrap_or(NO_LIMIT)))
    }
}
