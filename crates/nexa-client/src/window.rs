//! How many calls for new work are in flight at the same time.
//!
//! A client that begins with thousands of calls at once has sent them all before the first answer says that there is no
//! room, and the last of them waits for its refusal behind all the others. So the window begins small, and grows by one
//! with each call that was accepted: it doubles with each round trip in which it is used, until something is refused.
//! Then it halves, and from there on it grows by one a round trip. This is slow start and congestion avoidance, after
//! V. Jacobson, "Congestion Avoidance and Control", 1988, sections 1 and 3, with a refusal in place of a lost packet.
//!
//! Whoever finds the window full waits in line while the server refuses nothing, for as long as its own deadline allows;
//! else it is refused here, see [`crate::throttle`].
//!
//! Holds, see the tests:
//!   WI-1  no more calls are in flight than the window is wide, but for those that were when it halved
//!   WI-2  the window is at least [`WIDTH_FIRST`] and at most [`WIDTH_MAX`] wide
//!   WI-3  a burst of refusals, as of calls that were sent together, halves it once
//!
//! Bounds: those who wait are as many as the program has calls under way.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Calls that are in flight at first, and never fewer.
pub const WIDTH_FIRST: usize = 64;
/// Calls that are in flight at most.
pub const WIDTH_MAX: usize = 8_192;
/// After it was halved, refusals of this long are of calls that were sent before.
pub const HALVED_ONCE_IN: Duration = Duration::from_millis(200);

/// How wide the window is. Times count from any fixed moment, and do not go back.
#[derive(Debug)]
struct Width {
    calls: usize,
    /// From here on it grows slowly.
    slow_from: usize,
    /// Calls that were accepted since it grew slowly the last time.
    accepted: usize,
    halved: Option<Duration>,
    /// Places that are to go as soon as their calls end.
    owed: usize,
}

impl Width {
    fn new() -> Self {
        Self { calls: WIDTH_FIRST, slow_from: WIDTH_MAX, accepted: 0, halved: None, owed: 0 }
    }

    /// A call was accepted while so many places were free: whether there is one more place.
    fn accepted(&mut self, free: usize) -> bool {
        // Whoever needs less than half of it has not found out that more would be accepted.
        if free * 2 > self.calls {
            return false;
        }
        self.accepted += 1;
        let grows = self.calls < WIDTH_MAX && (self.calls < self.slow_from || self.accepted >= self.calls);
        if !grows {
            return false;
        }
        (self.calls, self.accepted) = (self.calls + 1, 0);
        // A place that is owed is kept instead.
        let is_owed = self.owed > 0;
        self.owed -= usize::from(is_owed);
        !is_owed
    }

    /// A call was refused.
    fn refused(&mut self, now: Duration) {
        if self.halved.is_some_and(|at| now < at + HALVED_ONCE_IN) {
            return;
        }
        let calls = (self.calls / 2).max(WIDTH_FIRST);
        self.owed += self.calls - calls;
        (self.calls, self.slow_from, self.accepted, self.halved) = (calls, calls, 0, Some(now));
    }

    /// A call has ended: whether its place goes with it.
    fn ended(&mut self) -> bool {
        let goes = self.owed > 0;
        self.owed -= usize::from(goes);
        goes
    }
}

/// The window of a client and its clones.
#[derive(Debug)]
pub(crate) struct Window {
    width: Mutex<Width>,
    places: Semaphore,
}

impl Default for Window {
    fn default() -> Self {
        Self { width: Mutex::new(Width::new()), places: Semaphore::new(WIDTH_FIRST) }
    }
}

/// A place in the window, given back when it is dropped.
pub(crate) struct Place<'a> {
    window: &'a Window,
    permit: Option<SemaphorePermit<'a>>,
}

impl Window {
    fn lock(&self) -> MutexGuard<'_, Width> {
        self.width.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, if one is free.
    pub(crate) fn enter_at_once(&self) -> Option<Place<'_>> {
        let permit = self.places.try_acquire().ok()?;
        Some(Place { window: self, permit: Some(permit) })
    }

    /// Waits in line for a place. Cancel-safe.
    pub(crate) async fn enter(&self) -> Place<'_> {
        // Never closed; were it, calls would go out as if there were no window.
        Place { window: self, permit: self.places.acquire().await.ok() }
    }

    pub(crate) fn accepted(&self) {
        if self.lock().accepted(self.places.available_permits()) {
            self.places.add_permits(1);
        }
    }

    pub(crate) fn refused(&self, now: Duration) {
        self.lock().refused(now);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && self.window.lock().ended()
        {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Happens {
        Enters,
        Accepted,
        Refused,
        Broken,
        Waits(u64),
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            6 => Just(Happens::Enters),
            4 => Just(Happens::Accepted),
            1 => Just(Happens::Refused),
            1 => Just(Happens::Broken),
            1 => (1..500_u64).prop_map(Happens::Waits),
        ]
    }

    proptest! {
        /// WI-1 and WI-2
        #[test]
        fn no_more_are_in_flight_than_the_window_is_wide(events in prop::collection::vec(happens(), 0..2_000)) {
            let (window, mut now) = (Window::default(), Duration::ZERO);
            let mut flying = VecDeque::new();
            for event in events {
                match event {
                    Happens::Enters => {
                        if let Some(place) = window.enter().now_or_never() {
                            flying.push_back(place);
                            prop_assert!(flying.len() <= window.lock().calls);
                        } else {
                            prop_assert!(flying.len() >= window.lock().calls, "nobody waits beside a free place");
                        }
                    }
                    Happens::Accepted if !flying.is_empty() => {
                        window.accepted();
                        flying.pop_front();
                    }
                    Happens::Refused if !flying.is_empty() => {
                        window.refused(now);
                        flying.pop_front();
                    }
                    Happens::Broken => drop(flying.pop_front()),
                    Happens::Waits(ms) => now += Duration::from_millis(ms),
                    Happens::Accepted | Happens::Refused => {}
                }
                prop_assert!((WIDTH_FIRST..=WIDTH_MAX).contains(&window.lock().calls));
            }
        }
    }

    #[test]
    fn it_doubles_with_each_round_trip_until_something_is_refused_and_then_grows_slowly() {
        let mut width = Width::new();
        let round = |width: &mut Width| {
            (0..width.calls)
                .for_each(|_| assert!(width.accepted(0) || width.owed > 0 || width.calls >= width.slow_from))
        };
        assert!(!width.accepted(WIDTH_FIRST / 2 + 1), "not for who does not need it");
        for expected in [128, 256, 512] {
            round(&mut width);
            assert_eq!(width.calls, expected);
        }
        // WI-3
        let at = Duration::from_secs(1);
        for nth in 0..300 {
            width.refused(at + HALVED_ONCE_IN.mul_f64(f64::from(nth) / 301.0));
        }
        assert_eq!((width.calls, width.owed), (256, 256));
        round(&mut width);
        assert_eq!(width.calls, 257);
        width.refused(at + HALVED_ONCE_IN);
        assert_eq!(width.calls, 128);
    }

    #[tokio::test]
    async fn who_waits_comes_in_as_soon_as_a_place_is_free() {
        let window = Window::default();
        let mut inside: Vec<_> = (0..WIDTH_FIRST).map(|_| window.enter().now_or_never().expect("room")).collect();
        let mut late = Box::pin(window.enter());
        assert!((&mut late).now_or_never().is_none());
        drop(inside.pop());
        drop(late.await);
    }
}
