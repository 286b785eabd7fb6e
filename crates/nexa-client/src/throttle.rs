//! Holds back new work that the server would refuse anyway.
//!
//! A refusal costs a server nearly as much as a small answer, so one that is asked for ten times what it can do would spend
//! its time on saying no. This is adaptive throttling, after B. Beyer et al. (eds.), "Site Reliability Engineering",
//! chapter 21, "Handling Overload", section "Client-Side Throttling": of the calls for new work that were asked for in the
//! last [`WINDOW`], with how many the server accepted, the next one is held back with the chance
//! `(asked - SENT_PER_ACCEPTED * accepted) / (asked + 1)`. So a server is sent little more than it takes, and the rest is
//! refused here, at once, as the server would have done it: [`ClientError::HeldBack`](crate::ClientError::HeldBack).
//!
//! It differs from the book in four ways:
//! - A call counts when its fate is known. The book counts it when it is sent, so that a client which begins with a
//!   thousand calls at once holds some back although nobody has refused any.
//! - A window in which the server refused nothing ends the holding back: it has room again, and so little is sent beyond
//!   what it takes that the formula alone would need many windows to find out.
//! - A server that refuses next to nothing, [`FULL_FROM`], is sent [`SENT_PER_ACCEPTED_UNLESS_FULL`] times what it accepts.
//! - Never more than [`HELD_BACK_MAX`] of the calls are held back, so that a busy client finds out soon.
//!
//! Holds, see the tests:
//!   TH-1  while the server refuses nothing, nothing is held back
//!   TH-2  a server that takes a part of what is asked for is sent at most [`SENT_PER_ACCEPTED`] times that, and what
//!         [`HELD_BACK_MAX`] lets through
//!   TH-3  a server that takes everything again is sent everything again after one window
//!
//! Only new work is held back, which is Submit and Put. Whoever looks, cancels, answers or asks what became of an earlier
//! attempt always gets through. All clones of a client share what is known of its server.
//!
//! Bounds: counts of [`PARTS`] parts of one window.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nexa_proto::refusal::Refusal;
use nexa_types::Reason;
use tokio::time::Instant;
use tonic::Code;
use uuid::Uuid;

use crate::ClientError;
use crate::window::{Place, Window};

/// Calls that a server which is full is sent for each that it accepts. More find out sooner that it has room, and cost it
/// more refusals.
pub const SENT_PER_ACCEPTED: f64 = 1.1;
/// The part of what is sent that a server refuses from which on it counts as full.
pub const FULL_FROM: f64 = 0.02;
/// Calls that a server which refuses less than that is sent for each that it accepts, so that what is held back after a
/// while without room does not come back by a tenth each window.
pub const SENT_PER_ACCEPTED_UNLESS_FULL: f64 = 2.0;
/// How far back is looked. A call for new work that comes less often than this is never held back.
pub const WINDOW: Duration = Duration::from_secs(2);
/// The most of the calls that are held back.
pub const HELD_BACK_MAX: f64 = 0.99;
/// Parts of a window; the oldest is forgotten as a whole.
const PARTS: u64 = 8;
/// When to come back if the server did not say.
const COME_BACK_AFTER: Duration = Duration::from_millis(500);

/// Whether new work is held back while the server has no room for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Throttling {
    /// By what the server accepted lately, see [`crate::throttle`].
    #[default]
    Adaptive,
    /// Never: each call is sent. For whoever measures a server, or has a throttle of their own.
    Off,
}

/// What a server made of a call for new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It had room, whatever its answer was.
    Accepted,
    /// It had none, and may have said when to come back.
    Refused(Option<Duration>),
}

impl Fate {
    /// `None` if nobody knows, as when the connection broke.
    pub(crate) fn of(error: &ClientError) -> Option<Self> {
        match error {
            ClientError::Refused(refusal) if refusal.reason == Reason::Overloaded => {
                Some(Self::Refused(refusal.retry_after))
            }
            ClientError::Refused(_) => Some(Self::Accepted),
            // What a server says that sheds load before it looks at the call.
            ClientError::Transport { code: Code::ResourceExhausted, .. } => Some(Self::Refused(None)),
            _ => None,
        }
    }
}

/// A call is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    /// Of so many that were asked for in the window.
    asked: u64,
    /// So many were accepted.
    accepted: u64,
    retry_after: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    asked: u64,
    accepted: u64,
    refused: u64,
}

/// What became of the calls of one window. Times count from any fixed moment, and do not go back.
#[derive(Debug, Default)]
struct Ledger {
    parts: [Counts; PARTS as usize],
    /// The number of the newest part.
    newest: u64,
    /// What the server said last about when to come back.
    said: Option<Duration>,
}

impl Ledger {
    /// Forgets what is too old.
    fn turn(&mut self, now: Duration) {
        let number = u64::try_from(now.as_nanos() / (WINDOW / PARTS as u32).as_nanos()).unwrap_or(u64::MAX);
        for old in (self.newest..number).take(PARTS as usize) {
            // The one after `old` takes the place of the one a whole window before it.
            self.parts[((old + 1) % PARTS) as usize] = Counts::default();
        }
        if number >= self.newest.saturating_add(PARTS) {
            self.parts = Default::default();
        }
        self.newest = self.newest.max(number);
    }

    fn now(&mut self) -> &mut Counts {
        &mut self.parts[(self.newest % PARTS) as usize]
    }

    fn lately(&self) -> Counts {
        self.parts.iter().fold(Counts::default(), |sum, part| Counts {
            asked: sum.asked + part.asked,
            accepted: sum.accepted + part.accepted,
            refused: sum.refused + part.refused,
        })
    }

    /// How likely the next call is held back.
    fn chance(&self) -> f64 {
        let Counts { asked, accepted, refused } = self.lately();
        if refused == 0 {
            return 0.0;
        }
        let (asked, accepted, refused) = (asked as f64, accepted as f64, refused as f64);
        let is_full = refused >= FULL_FROM * (accepted + refused);
        let sent_per_accepted = if is_full { SENT_PER_ACCEPTED } else { SENT_PER_ACCEPTED_UNLESS_FULL };
        ((asked - sent_per_accepted * accepted) / (asked + 1.0)).clamp(0.0, HELD_BACK_MAX)
    }

    /// Whether a call may be sent; one that is held back counts as asked for. `dice` are two chances from 0 to below 1.
    fn ask(&mut self, now: Duration, dice: [f64; 2]) -> Result<(), Held> {
        self.turn(now);
        if dice[0] >= self.chance() {
            return Ok(());
        }
        Err(self.hold_back(dice))
    }

    /// Whether a call may wait for its turn, which is so while nothing is refused.
    fn ask_to_wait(&mut self, now: Duration, dice: [f64; 2]) -> Result<(), Held> {
        self.turn(now);
        if self.lately().refused == 0 {
            return Ok(());
        }
        Err(self.hold_back(dice))
    }

    fn hold_back(&mut self, dice: [f64; 2]) -> Held {
        self.now().asked += 1;
        let Counts { asked, accepted, .. } = self.lately();
        // Who was held back together does not come back together.
        let retry_after = self.said.unwrap_or(COME_BACK_AFTER).mul_f64(1.0 + dice[1] / 2.0);
        Held { asked, accepted, retry_after }
    }

    /// What became of a call that was sent.
    fn told(&mut self, now: Duration, fate: Fate) {
        self.turn(now);
        let part = self.now();
        part.asked += 1;
        match fate {
            Fate::Accepted => part.accepted += 1,
            Fate::Refused(when) => {
                part.refused += 1;
                self.said = when.or(self.said);
            }
        }
    }
}

/// The throttle of a client and its clones.
#[derive(Debug)]
pub(crate) struct Throttle {
    start: Instant,
    ledger: Mutex<Ledger>,
    window: Window,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { start: Instant::now(), ledger: Mutex::default(), window: Window::default() }
    }
}

impl Throttle {
    /// Whether a call for new work may be sent, as soon as there is a place for it in the window. It waits for one only as
    /// long as the server refuses nothing: in a full line it would hear of the refusal later than from the server. Cancel-safe.
    pub(crate) async fn ask(&self) -> Result<Place<'_>, ClientError> {
        self.judge(Ledger::ask)?;
        match self.window.enter_at_once() {
            Some(place) => Ok(place),
            None => {
                self.judge(Ledger::ask_to_wait)?;
                let place = self.window.enter().await;
                self.judge(Ledger::ask_to_wait)?;
                Ok(place)
            }
        }
    }

    fn judge(&self, by: impl FnOnce(&mut Ledger, Duration, [f64; 2]) -> Result<(), Held>) -> Result<(), ClientError> {
        self.with(|ledger, now| by(ledger, now, dice())).map_err(|held| ClientError::HeldBack(Box::new(refusal(held))))
    }

    /// What became of one that was sent.
    pub(crate) fn told(&self, fate: Fate) {
        self.with(|ledger, now| ledger.told(now, fate));
        match fate {
            Fate::Accepted => self.window.accepted(),
            Fate::Refused(_) => self.window.refused(self.start.elapsed()),
        }
    }

    fn with<T>(&self, what: impl FnOnce(&mut Ledger, Duration) -> T) -> T {
        let now = self.start.elapsed();
        what(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner), now)
    }
}

fn refusal(held: Held) -> Refusal {
    let Held { asked, accepted, retry_after } = held;
    Refusal::new(
        Reason::Overloaded,
        format!("not sent: of {asked} calls for new work in the last {WINDOW:?} the server accepted {accepted}"),
    )
    .hint("the server has no room; ask again later with the same request id")
    .after(retry_after)
}

/// Two chances from 0 to below 1. The low half of a fresh UUID is as random as this needs.
fn dice() -> [f64; 2] {
    let random = Uuid::now_v7().as_u64_pair().1;
    let chance = |bits: u64| (bits & 0xFF_FFFF) as f64 / f64::from(1 << 24);
    [chance(random), chance(random >> 24)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Dice that have each chance equally often, for the seed of a test.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self) -> [f64; 2] {
            // SplitMix64, G. Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014.
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut bits = self.0;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            bits ^= bits >> 31;
            [(bits >> 40) as f64 / f64::from(1 << 24), (bits & 0xFF_FFFF) as f64 / f64::from(1 << 24)]
        }
    }

    /// A client that asks so many times a millisecond, and a server that takes so many of these, and has a queue for those
    /// of [`QUEUED_MS`].
    struct Pair {
        ledger: Ledger,
        dice: Dice,
        now: Duration,
        free: u32,
    }

    const QUEUED_MS: u32 = 50;

    #[derive(Debug, Default, PartialEq)]
    struct Sum {
        asked: f64,
        sent: f64,
        accepted: f64,
    }

    impl Pair {
        fn new(seed: u64) -> Self {
            Self { ledger: Ledger::default(), dice: Dice(seed), now: Duration::ZERO, free: 0 }
        }

        fn go(&mut self, time: Duration, asks: u32, room: u32) -> Sum {
            let (end, mut sum) = (self.now + time, Sum::default());
            while self.now < end {
                self.now += MS;
                self.free = (self.free + room).min(room * QUEUED_MS);
                for _ in 0..asks {
                    sum.asked += 1.0;
                    if self.ledger.ask(self.now, self.dice.roll()).is_err() {
                        continue;
                    }
                    sum.sent += 1.0;
                    let fate = match self.free.checked_sub(1) {
                        None => Fate::Refused(Some(MS * 300)),
                        Some(left) => {
                            (self.free, sum.accepted) = (left, sum.accepted + 1.0);
                            Fate::Accepted
                        }
                    };
                    self.ledger.told(self.now, fate);
                }
            }
            sum
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// TH-1
        #[test]
        fn while_the_server_refuses_nothing_nothing_is_held_back(seed: u64, asks in 1..20u32) {
            let sum = Pair::new(seed).go(WINDOW * 3, asks, asks);
            prop_assert_eq!(sum.sent, sum.asked);
        }

        /// TH-2
        #[test]
        fn a_full_server_is_sent_little_more_than_it_takes(seed: u64, room in 0..6u32, times in 2..20u32) {
            let asks = room.max(1) * times;
            let mut pair = Pair::new(seed);
            pair.go(WINDOW * 2, asks, room);
            let sum = pair.go(WINDOW * 4, asks, room);
            let most = SENT_PER_ACCEPTED * sum.accepted + (1.0 - HELD_BACK_MAX) * sum.asked;
            prop_assert!(sum.sent <= most * 1.05 + 50.0, "{:?}", sum);
            // And it is kept busy all the same.
            prop_assert!(sum.accepted >= 0.85 * f64::from(room) * (WINDOW * 4).as_millis() as f64, "{:?}", sum);
        }

        /// TH-3
        #[test]
        fn a_server_that_has_room_again_is_sent_everything_after_a_window(
            seed: u64,
            room in 0..6u32,
            times in 2..20u32,
        ) {
            let asks = room.max(1) * times;
            let mut pair = Pair::new(seed);
            pair.go(WINDOW * 3, asks, room);
            pair.go(WINDOW, asks, asks);
            let sum = pair.go(WINDOW, asks, asks);
            prop_assert!(sum.sent >= 0.99 * sum.asked, "{:?}", sum);
        }
    }

    #[test]
    fn whoever_asks_seldom_is_always_sent() {
        let mut pair = Pair::new(7);
        for _ in 0..1_000 {
            pair.now += WINDOW;
            assert_eq!(pair.ledger.ask(pair.now, [0.0, 0.0]), Ok(()));
            pair.ledger.told(pair.now, Fate::Refused(None));
        }
    }

    #[test]
    fn a_call_that_is_held_back_says_when_to_come_back_as_the_server_did() {
        let mut ledger = Ledger::default();
        for _ in 0..10 {
            ledger.told(MS, Fate::Refused(None));
        }
        let waits = |ledger: &mut Ledger, dice| ledger.ask(MS, [0.5, dice]).expect_err("held back").retry_after;
        assert_eq!(waits(&mut ledger, 0.0), COME_BACK_AFTER);
        ledger.told(MS, Fate::Refused(Some(MS * 800)));
        assert_eq!((waits(&mut ledger, 0.0), waits(&mut ledger, 0.5)), (MS * 800, MS * 1_000));
        let held = ledger.ask(MS, [0.5, 0.0]).expect_err("held back");
        assert_eq!((held.asked, held.accepted), (15, 0), "those that were held back count, too");
        assert_eq!(ledger.ask(MS, [HELD_BACK_MAX, 0.0]), Ok(()), "never all of them");
    }

    #[test]
    fn what_is_a_window_old_is_forgotten_however_long_nobody_asked() {
        for later in [WINDOW, WINDOW * 3, Duration::MAX] {
            let mut ledger = Ledger::default();
            ledger.told(MS, Fate::Refused(None));
            ledger.turn(MS + WINDOW / 2);
            assert!(ledger.chance() > 0.0, "not yet");
            ledger.turn(later.saturating_add(MS));
            assert_eq!((ledger.chance(), ledger.lately().asked), (0.0, 0), "after {later:?}");
        }
    }

    #[test]
    fn only_a_lack_of_room_counts_as_refused() {
        let refused = |reason| ClientError::Refused(Box::new(Refusal::new(reason, "no").after(MS)));
        assert_eq!(Fate::of(&refused(Reason::Overloaded)), Some(Fate::Refused(Some(MS))));
        assert_eq!(Fate::of(&refused(Reason::NotFound)), Some(Fate::Accepted));
        let broken = |code| ClientError::Transport { code, message: String::new() };
        assert_eq!(Fate::of(&broken(Code::ResourceExhausted)), Some(Fate::Refused(None)));
        assert_eq!((Fate::of(&broken(Code::Unavailable)), Fate::of(&ClientError::Deadline)), (None, None));
    }
}
