//! Holds back calls to an endpoint that is away.
//!
//! ```text
//!            FAILURES_MAX in a row            the pause is over
//!   closed ─────────────────────────▶ open ─────────────────────▶ half open: one call tries
//!     ▲                                ▲                             │            │
//!     │ any sign of life               └── it failed: a pause twice ─┘            │
//!     └───────────────────────────────────── as long, up to PAUSE_MAX             │
//!     ▲                                                                           │
//!     └───────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A failure is an endpoint that cannot be reached or does not answer. Whatever else it says, a refusal and a 429
//! included, is a sign of life. A call that gave up sooner than [`TIMEOUT_MIN`] says nothing: otherwise a program with
//! short times could take the endpoint from all others.
//!
//! Pure: times come in as arguments.

use nexa_types::{Millis, RunCode, Timestamp};

/// Failures in a row that open it.
const FAILURES_MAX: u32 = 5;
/// The first pause.
const PAUSE_MIN: Millis = Millis(1_000);
/// The longest pause.
const PAUSE_MAX: Millis = Millis(60_000);
/// An answer that did not come in this time was not coming.
const TIMEOUT_MIN: Millis = Millis(10_000);

/// What the end of a call says about the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// It is there.
    Alive,
    /// It could not be reached, or did not answer.
    Away,
    /// Nothing.
    None,
}

impl Sign {
    /// What a failure says that came after so long.
    pub(super) fn of(code: RunCode, took: Millis) -> Self {
        match code {
            RunCode::Unavailable => Self::Away,
            RunCode::Timeout if took >= TIMEOUT_MIN => Self::Away,
            RunCode::Timeout | RunCode::Cancelled => Self::None,
            _ => Self::Alive,
        }
    }
}

/// Who may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// Everybody.
    Open,
    /// One, to see whether the endpoint is back.
    One,
    /// Nobody, until then; or until the one that tries has ended.
    Shut(Option<Timestamp>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Timestamp, pause: Millis },
    Trying { pause: Millis },
}

/// The breaker of one lane.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// When it opened first since it was last closed.
    since: Timestamp,
    last: RunCode,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed { failures: 0 }, since: Timestamp(0), last: RunCode::Unavailable }
    }
}

impl Breaker {
    pub(super) fn gate(&self, now: Timestamp) -> Gate {
        match self.state {
            State::Closed { .. } => Gate::Open,
            State::Open { until, .. } if until > now => Gate::Shut(Some(until)),
            State::Open { .. } => Gate::One,
            State::Trying { .. } => Gate::Shut(None),
        }
    }

    /// Since when calls are held back.
    pub(super) fn open_since(&self) -> Option<Timestamp> {
        (!matches!(self.state, State::Closed { .. })).then_some(self.since)
    }

    /// The one that tries goes.
    pub(super) fn tries(&mut self) {
        if let State::Open { pause, .. } = self.state {
            self.state = State::Trying { pause };
        }
    }

    /// The one that tried said nothing, or was not sent after all: the next one tries.
    pub(super) fn tried_nothing(&mut self, now: Timestamp) {
        if let State::Trying { pause } = self.state {
            self.state = State::Open { until: now, pause };
        }
    }

    /// A call has ended; `tried` if it is the one that was let through to see.
    pub(super) fn heard(&mut self, sign: Sign, code: RunCode, tried: bool, now: Timestamp) {
        match (sign, self.state) {
            (Sign::Alive, _) => self.state = State::Closed { failures: 0 },
            (Sign::None, _) if tried => self.tried_nothing(now),
            (Sign::None, _) => {}
            (Sign::Away, State::Closed { failures }) if failures + 1 < FAILURES_MAX => {
                self.state = State::Closed { failures: failures + 1 };
            }
            (Sign::Away, State::Closed { .. }) => {
                (self.since, self.last) = (now, code);
                self.state = State::Open { until: now.after(PAUSE_MIN), pause: PAUSE_MIN };
            }
            (Sign::Away, State::Trying { pause }) if tried => {
                let pause = Millis((pause.0 * 2).min(PAUSE_MAX.0));
                self.last = code;
                self.state = State::Open { until: now.after(pause), pause };
            }
            // Sent before it opened.
            (Sign::Away, State::Open { .. } | State::Trying { .. }) => {}
        }
    }

    /// Why nothing is sent.
    pub(super) fn reason(&self, lane: &str, now: Timestamp) -> String {
        let (code, away) = (self.last, now.since(self.since));
        format!(
            "`{lane}` is away: at least {FAILURES_MAX} calls in a row failed, the last with `{code}`, and its circuit \
             breaker has been open for {away} ms; nothing was sent; try later or name a fallback"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWAY: RunCode = RunCode::Unavailable;

    fn opened(now: Timestamp) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES_MAX {
            assert_eq!(breaker.gate(now), Gate::Open);
            breaker.heard(Sign::Away, AWAY, false, now);
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_not_before() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            for _ in 1..FAILURES_MAX {
                breaker.heard(Sign::Away, AWAY, false, Timestamp(7));
            }
            breaker.heard(Sign::Alive, RunCode::RateLimited, false, Timestamp(7));
        }
        assert_eq!((breaker.gate(Timestamp(7)), breaker.open_since()), (Gate::Open, None));
        assert_eq!(opened(Timestamp(7)).gate(Timestamp(7)), Gate::Shut(Some(Timestamp(1_007))));
        assert_eq!(opened(Timestamp(7)).open_since(), Some(Timestamp(7)));
    }

    #[test]
    fn one_call_tries_after_each_pause_and_pauses_double_up_to_a_bound() {
        let mut now = Timestamp(0);
        let mut breaker = opened(now);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let Gate::Shut(Some(until)) = breaker.gate(now) else { panic!("{breaker:?}") };
            pauses.push(until.since(now).0);
            now = until;
            assert_eq!(breaker.gate(now), Gate::One);
            breaker.tries();
            assert_eq!(breaker.gate(now), Gate::Shut(None));
            breaker.heard(Sign::Away, AWAY, false, now);
            assert_eq!(breaker.gate(now), Gate::Shut(None), "a late failure of another call says nothing new");
            breaker.heard(Sign::Away, AWAY, true, now);
        }
        assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(breaker.open_since(), Some(Timestamp(0)));
    }

    #[test]
    fn a_sign_of_life_closes_it_whoever_brings_it() {
        let mut breaker = opened(Timestamp(0));
        breaker.heard(Sign::Alive, RunCode::Refused, false, Timestamp(5));
        assert_eq!((breaker.gate(Timestamp(5)), breaker.open_since()), (Gate::Open, None));
        let mut breaker = opened(Timestamp(0));
        breaker.tries();
        breaker.heard(Sign::Alive, RunCode::Refused, true, Timestamp(1_005));
        assert_eq!(breaker.gate(Timestamp(1_005)), Gate::Open);
    }

    #[test]
    fn a_try_that_says_nothing_is_followed_by_another() {
        let mut breaker = opened(Timestamp(0));
        for _ in 0..3 {
            assert_eq!(breaker.gate(Timestamp(1_000)), Gate::One);
            breaker.tries();
            breaker.heard(Sign::of(RunCode::Timeout, Millis(9_999)), RunCode::Timeout, true, Timestamp(1_000));
        }
        breaker.tries();
        breaker.tried_nothing(Timestamp(1_000));
        assert_eq!(breaker.gate(Timestamp(1_000)), Gate::One);
    }

    #[test]
    fn what_an_end_says() {
        let of = |code, took| Sign::of(code, Millis(took));
        assert_eq!(of(RunCode::Unavailable, 0), Sign::Away);
        assert_eq!(of(RunCode::Timeout, 10_000), Sign::Away);
        assert_eq!(of(RunCode::Timeout, 9_999), Sign::None);
        assert_eq!(of(RunCode::Cancelled, 60_000), Sign::None);
        assert_eq!(of(RunCode::RateLimited, 0), Sign::Alive);
        assert_eq!(of(RunCode::Refused, 0), Sign::Alive);
    }
}
