//! Wall clocks of machines: each is ahead of the true time or behind it, and drifts. What is measured by the membership service's
//! own time, as leases are, does not depend on them.

use futures::future::BoxFuture;
use nexa_ports::clock::Clock;
use nexa_types::{Millis, NodeId, Timestamp};

use super::process::BEGIN;
use crate::dice::Dice;

/// How far a clock may be from the true time when a run begins.
const OFF_MAX: Millis = Millis(3_000);
/// How much it may gain or lose in a million: ten times what a clock does that nobody disciplines.
const DRIFT_MAX: u64 = 1_000;

/// What a machine's clock makes of the true time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wall {
    /// Milliseconds that it is ahead when a run begins.
    ahead: i64,
    /// Milliseconds that it gains in a million.
    gains: i64,
}

impl Wall {
    /// The clock of a machine, in a run by that seed.
    pub(super) fn of(seed: u64, node: &NodeId) -> Self {
        let mut dice = Dice::of(&[0xc10c, seed, node.as_str().bytes().map(u64::from).sum()]);
        let mut around = |most: u64| i64::try_from(dice.below(2 * most + 1)).unwrap_or_default() - most.cast_signed();
        Self { ahead: around(OFF_MAX.0), gains: around(DRIFT_MAX) }
    }

    /// What it shows at this time.
    pub(super) fn shows(self, now: Timestamp) -> Timestamp {
        let passed = now.since(BEGIN).0.cast_signed();
        Timestamp(BEGIN.0.saturating_add_signed(passed + self.ahead + passed * self.gains / 1_000_000))
    }
}

impl std::fmt::Display for Wall {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:+} ms and {:+} ppm", self.ahead, self.gains)
    }
}

/// A clock that shows what such a machine's does. It waits for a span, as machines do, and not for a moment.
pub(super) struct WallClock<C> {
    pub(super) clock: C,
    pub(super) wall: Wall,
}

impl<C: Clock> Clock for WallClock<C> {
    fn now(&self) -> Timestamp {
        self.wall.shows(self.clock.now())
    }

    fn wait_until(&self, due: Timestamp) -> BoxFuture<'static, ()> {
        let left = due.since(self.now());
        self.clock.wait_until(self.clock.now().after(left))
    }
}

#[cfg(test)]
mod tests {
    use nexa_ports::clock::SimClock;

    use super::*;

    #[tokio::test]
    async fn a_clock_is_off_drifts_and_waits_for_a_span() {
        let wall = Wall { ahead: -2_000, gains: 500 };
        let clock = WallClock { clock: SimClock::new(BEGIN), wall };
        assert_eq!(clock.now(), Timestamp(BEGIN.0 - 2_000));
        let waits = tokio::spawn(clock.wait_until(Timestamp(BEGIN.0 - 1_000)));
        clock.clock.advance(Millis(1_000));
        waits.await.unwrap();
        clock.clock.advance(Millis(9_000));
        assert_eq!(clock.now(), Timestamp(BEGIN.0 + 8_005));
    }

    #[test]
    fn machines_differ_and_a_seed_is_the_same_clocks_each_time() {
        let node = |name: &str| NodeId::new(name).unwrap();
        let walls: Vec<Wall> = (0..100).map(|seed| Wall::of(seed, &node("n1"))).collect();
        assert_eq!(walls[7], Wall::of(7, &node("n1")));
        assert_ne!(walls[7], Wall::of(7, &node("n2")));
        let furthest = walls.iter().map(|wall| wall.ahead.unsigned_abs()).max().unwrap();
        assert!((2_000..=OFF_MAX.0).contains(&furthest), "{furthest}");
        assert!(walls.iter().all(|wall| wall.gains.unsigned_abs() <= DRIFT_MAX));
    }
}
