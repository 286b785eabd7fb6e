//! What a node does when its process has grown large: who sleeps, and how many may wake.
//!
//! In:  resident memory as the system measures it, the budget, and how many agents are idle.
//! Out: a [`Relief`], ten times a second: so many of the idle ones leave memory, the cheapest to bring back first, and so
//!      many of those who wait may come.
//!
//! Measured memory lags behind what is done about it: a dormant agent's pages go back to the system a moment later, and
//! some stay with the allocator. So only a part of the idle ones leaves at a time, and the levels have a dead band.
//! Memory may also be full of something else than agents. Then sleep frees nothing, and yet the node must go on:
//! [`LIVE_FLOOR`] agents are in memory whatever is measured.

/// Above this part of the budget, in percent, idle agents leave early and wake-ups are rationed.
const TIGHT_FROM: u64 = 80;
/// And below this part it is over.
const CALM_BELOW: u64 = 75;
/// Above this part nobody comes but those with an answer to record.
const FULL_FROM: u64 = 90;
/// And below this part it is over.
const TIGHT_BELOW: u64 = 85;
/// Agents that are told to sleep at a time. Each writes a snapshot.
const SLEEPS_PER_BEAT_MAX: usize = 256;
/// Agents that come into memory at a time while it is tight: 200 a second.
const WAKES_PER_BEAT: usize = 20;
/// Agents that may be in memory however little of it there is.
pub(crate) const LIVE_FLOOR: usize = 16;

/// How a process stands against its memory budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryPressure {
    /// There is enough, or no budget was given, or nobody can tell.
    #[default]
    Calm,
    /// Idle agents sleep before their time, and wake-ups are rationed.
    Tight,
    /// And nobody comes into memory but those with an answer to record, beyond a few.
    Full,
}

/// What to do now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Relief {
    pub(crate) pressure: MemoryPressure,
    /// Idle agents that leave.
    pub(crate) sleeps: usize,
    /// Agents that may come until the next time; means nothing while it is calm.
    pub(crate) wakes: usize,
}

/// Decides by what was measured; `was` is how it stood before.
pub(crate) fn relieve(was: MemoryPressure, resident: u64, budget: u64, idle: usize) -> Relief {
    let part = u64::try_from(u128::from(resident) * 100 / u128::from(budget.max(1))).unwrap_or(u64::MAX);
    let pressure = match (was, part) {
        (_, FULL_FROM..) | (MemoryPressure::Full, TIGHT_BELOW..) => MemoryPressure::Full,
        (_, TIGHT_FROM..) | (MemoryPressure::Tight | MemoryPressure::Full, CALM_BELOW..) => MemoryPressure::Tight,
        _ => MemoryPressure::Calm,
    };
    match pressure {
        MemoryPressure::Calm => Relief::default(),
        MemoryPressure::Tight => Relief { pressure, sleeps: sleeps(part, idle), wakes: WAKES_PER_BEAT },
        MemoryPressure::Full => Relief { pressure, sleeps: sleeps(part, idle), wakes: 0 },
    }
}

/// The part of the idle ones that memory is above what is wanted; at least one, while there is one.
fn sleeps(part: u64, idle: usize) -> usize {
    let over = u128::from(part.saturating_sub(CALM_BELOW).max(1));
    let share = (idle as u128 * over).div_ceil(u128::from(part.max(1)));
    usize::try_from(share).unwrap_or(usize::MAX).min(SLEEPS_PER_BEAT_MAX).min(idle)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::MemoryPressure::{Calm, Full, Tight};
    use super::*;

    #[test]
    fn levels_have_a_dead_band() {
        let steps = [(10, Calm), (79, Calm), (80, Tight), (76, Tight), (74, Calm), (91, Full), (86, Full), (84, Tight)];
        let mut now = Calm;
        for (resident, expected) in steps {
            now = relieve(now, resident, 100, 0).pressure;
            assert_eq!(now, expected, "at {resident}");
        }
    }

    #[test]
    fn the_larger_the_excess_the_more_of_the_idle_ones_leave() {
        let sleeps = |resident| relieve(Calm, resident, 100, 1_000).sleeps;
        assert_eq!((sleeps(50), sleeps(80), sleeps(90)), (0, 63, 167));
        assert_eq!(sleeps(1_000), SLEEPS_PER_BEAT_MAX);
        assert_eq!(relieve(Tight, 75, 100, 3).sleeps, 1, "even a little is worth something");
    }

    /// A process of which every agent takes one unit and half of what leaves comes back to the system late.
    #[test]
    fn a_process_settles_below_its_budget_and_does_not_swing() {
        let (mut idle, mut lagging, mut now, mut levels) = (10_000_u64, 0_u64, Calm, Vec::new());
        for _ in 0..200 {
            let resident = 500 + idle + lagging;
            let relief = relieve(now, resident, 8_000, usize::try_from(idle).unwrap());
            now = relief.pressure;
            levels.push(now);
            let left = relief.sleeps as u64;
            idle -= left;
            lagging = lagging / 2 + left / 2;
        }
        levels.dedup();
        assert_eq!(levels, [Full, Tight, Calm]);
        assert!((4_000..=5_500).contains(&idle), "{idle} stay");
    }

    proptest! {
        #[test]
        fn nobody_is_sent_away_who_is_not_there(
            resident: u64, budget: u64, idle in 0usize..2_000, was in prop_oneof![Just(Calm), Just(Tight), Just(Full)],
        ) {
            let relief = relieve(was, resident, budget, idle);
            prop_assert!(relief.sleeps <= idle.min(SLEEPS_PER_BEAT_MAX));
            prop_assert_eq!(relief.pressure == Calm, relief == Relief::default());
            prop_assert!(relief.pressure == Calm || idle == 0 || relief.sleeps > 0);
        }
    }
}
