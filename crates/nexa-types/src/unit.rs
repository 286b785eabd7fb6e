//! Units, so that a token is never added to a millisecond.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

use minicbor::{Decode, Encode};

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub u64);

        impl Add for $name {
            type Output = Self;

            /// Stops at the largest value instead of wrapping.
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }

        impl Sub for $name {
            type Output = Self;

            /// Stops at zero instead of wrapping.
            fn sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, out)
            }
        }
    };
}

unit!(
    /// A span of time in milliseconds.
    Millis
);
unit!(
    /// Model tokens.
    Tokens
);
unit!(
    /// Millionths of a US dollar.
    UsdMicro
);

/// A moment: milliseconds since 1970-01-01T00:00:00Z, as read by whoever recorded the input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Timestamp(#[n(0)] pub u64);

impl Timestamp {
    /// This moment and a span later.
    #[must_use]
    pub fn after(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// How long ago `earlier` was; zero if it was later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

/// Hard caps on what an agent and its children may use. `None` is no cap of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Budget {
    /// Input and output tokens together.
    #[n(0)]
    pub tokens: Option<Tokens>,
    /// Money.
    #[n(1)]
    pub cost: Option<UsdMicro>,
    /// Time from start to end, approvals not counted.
    #[n(2)]
    pub time: Option<Millis>,
    /// Model requests.
    #[n(3)]
    pub calls: Option<u64>,
    /// Planner steps.
    #[n(4)]
    pub steps: Option<u64>,
}

impl Budget {
    /// The tighter of two caps, field by field.
    #[must_use]
    pub fn tighter(self, other: Self) -> Self {
        fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        }
        Self {
            tokens: least(self.tokens, other.tokens),
            cost: least(self.cost, other.cost),
            time: least(self.time, other.time),
            calls: least(self.calls, other.calls),
            steps: least(self.steps, other.steps),
        }
    }
}

/// What was used, of everything that a [`Budget`] caps but time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Spend {
    /// Tokens that models read.
    #[n(0)]
    pub tokens_in: Tokens,
    /// Tokens that models wrote.
    #[n(1)]
    pub tokens_out: Tokens,
    /// Money.
    #[n(2)]
    pub cost: UsdMicro,
    /// Model requests sent, every attempt counted.
    #[n(3)]
    pub calls: u64,
    /// Planner steps.
    #[n(4)]
    pub steps: u64,
}

impl Spend {
    /// Input and output tokens together.
    pub fn tokens(&self) -> Tokens {
        self.tokens_in + self.tokens_out
    }
}

impl Add for Spend {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            tokens_in: self.tokens_in + other.tokens_in,
            tokens_out: self.tokens_out + other.tokens_out,
            cost: self.cost + other.cost,
            calls: self.calls.saturating_add(other.calls),
            steps: self.steps.saturating_add(other.steps),
        }
    }
}

impl AddAssign for Spend {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
