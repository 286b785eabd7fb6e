//! What a node does when its process has grown large: who sleeps, and how many may be in memory.
//!
//! In:  resident memory as the system measures it, the budget, and how many agents are in memory and idle.
//! Out: a [`Relief`], ten times a second: how many agents may be in memory, and how many of the idle ones leave for that,
//!      the cheapest to bring back first.
//!
//! What is freed does not go back to the system, or late: of 200 MB that ten thousand idle agents had taken, 7 MB were
//! still in use once all were dormant, and 80 to 150 MB still resident; whoever came next used them again. So a process
//! that stays large says nothing, and one that *grows* says that agents do need more. The number of agents is cut in
//! proportion to the excess when memory comes under pressure and whenever it has grown since; otherwise it may rise again,
//! slowly. Memory may also be full of something else than agents, and yet the node must go on: [`LIVE_FLOOR`] agents may
//! come whatever is measured.

/// Above this part of the budget, in percent, idle agents leave early and wake-ups are rationed.
const TIGHT_FROM: u64 = 80;
/// And below this part it is over.
const CALM_BELOW: u64 = 75;
/// Above this part hardly anybody comes but those with an answer to record.
const FULL_FROM: u64 = 90;
/// And below this part it is over.
const TIGHT_BELOW: u64 = 85;
/// Above this part the number of agents does not rise at all.
const NO_MORE_FROM: u64 = 95;
/// Agents that are told to sleep at a time. Each writes a snapshot.
const SLEEPS_PER_BEAT_MAX: usize = 256;
/// How much the number of agents may rise at a time while it is tight: by 200 a second.
const RISE_WHEN_TIGHT: usize = 20;
/// And while it is full.
const RISE_WHEN_FULL: usize = 1;
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
    /// And hardly anybody comes into memory beyond those with an answer to record.
    Full,
}

/// What to do now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Relief {
    pub(crate) pressure: MemoryPressure,
    /// Idle agents that leave.
    pub(crate) sleeps: usize,
    /// Agents that may be in memory; `None` while memory is no concern.
    pub(crate) live_max: Option<usize>,
}

/// What is remembered from one measurement to the next.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    pressure: MemoryPressure,
    live_max: usize,
    /// The part of the budget at which the number of agents was last cut.
    cut_at: u64,
}

impl Gauge {
    /// Decides by what was measured.
    pub(crate) fn measure(&mut self, resident: u64, budget: u64, live: usize, idle: usize) -> Relief {
        let part = u64::try_from(u128::from(resident) * 100 / u128::from(budget.max(1))).unwrap_or(u64::MAX);
        let was = self.pressure;
        self.pressure = level(was, part);
        let rise = match self.pressure {
            MemoryPressure::Calm => return Relief::default(),
            MemoryPressure::Tight => RISE_WHEN_TIGHT,
            MemoryPressure::Full if part < NO_MORE_FROM => RISE_WHEN_FULL,
            MemoryPressure::Full => 0,
        };
        if was == MemoryPressure::Calm || part > self.cut_at {
            let kept = live as u128 * u128::from(CALM_BELOW) / u128::from(part.max(CALM_BELOW));
            self.live_max = usize::try_from(kept).unwrap_or(usize::MAX);
            self.cut_at = part;
        } else if live >= self.live_max {
            self.live_max += rise;
        }
        let sleeps = live.saturating_sub(self.live_max).min(idle).min(SLEEPS_PER_BEAT_MAX);
        Relief { pressure: self.pressure, sleeps, live_max: Some(self.live_max.max(LIVE_FLOOR)) }
    }
}

fn level(was: MemoryPressure, part: u64) -> MemoryPressure {
    match (was, part) {
        (_, FULL_FROM..) | (MemoryPressure::Full, TIGHT_BELOW..) => MemoryPressure::Full,
        (_, TIGHT_FROM..) | (MemoryPressure::Tight | MemoryPressure::Full, CALM_BELOW..) => MemoryPressure::Tight,
        _ => MemoryPressure::Calm,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::MemoryPressure::{Calm, Full, Tight};
    use super::*;

    #[test]
    fn levels_have_a_dead_band() {
        let steps = [(10, Calm), (79, Calm), (80, Tight), (76, Tight), (74, Calm), (91, Full), (86, Full), (84, Tight)];
        let mut gauge = Gauge::default();
        for (resident, expected) in steps {
            assert_eq!(gauge.measure(resident, 100, 0, 0).pressure, expected, "at {resident}");
        }
    }

    #[test]
    fn agents_are_cut_by_the_excess_once_and_again_only_when_memory_grows() {
        let mut gauge = Gauge::default();
        let relief = gauge.measure(90, 100, 900, 900);
        assert_eq!((relief.live_max, relief.sleeps), (Some(750), 150));
        let relief = gauge.measure(90, 100, 750, 750);
        assert_eq!((relief.live_max, relief.sleeps), (Some(751), 0), "what they freed is used again, seen or not");
        let relief = gauge.measure(100, 100, 750, 100);
        assert_eq!((relief.live_max, relief.sleeps), (Some(562), 100));
        let relief = gauge.measure(99, 100, 650, 0);
        assert_eq!((relief.live_max, relief.sleeps), (Some(562), 0), "nobody is idle");
        assert_eq!(gauge.measure(50, 100, 500, 500), Relief::default());
    }

    /// Every agent takes a unit, as many want to come as may, a tenth ends at every beat, and `kept` percent of what was
    /// once taken stay resident. Gives the most that was resident and the mean number of agents in the second half.
    fn under_load(budget: u64, kept: u64) -> (u64, usize) {
        let (mut gauge, mut live, mut peak, mut most, mut sum) = (Gauge::default(), 0_usize, 0_u64, 0_u64, 0_usize);
        const BEATS: usize = 2_000;
        for beat in 0..BEATS {
            peak = peak.max(live as u64);
            let resident = 500 + (live as u64).max(peak * kept / 100);
            most = most.max(resident);
            let relief = gauge.measure(resident, budget, live, live / 2);
            live = live - relief.sleeps - live / 10;
            let room = relief.live_max.unwrap_or(usize::MAX).saturating_sub(live);
            live += room.min(1_000);
            sum += if beat >= BEATS / 2 { live } else { 0 };
        }
        (most, sum / (BEATS / 2))
    }

    #[test]
    fn a_process_stays_below_its_budget_and_full_of_agents_whatever_goes_back_to_the_system() {
        for kept in [0, 50, 80, 100] {
            let (most, mean) = under_load(8_000, kept);
            assert!(most < 8_000, "{most} were resident when {kept} % stay");
            assert!((4_500..7_500).contains(&mean), "{mean} agents when {kept} % stay");
        }
    }

    proptest! {
        #[test]
        fn nobody_is_sent_away_who_is_not_there_and_a_few_may_always_come(
            seen in proptest::collection::vec((0u64..200, 0usize..2_000, 0usize..2_000), 1..50),
        ) {
            let mut gauge = Gauge::default();
            for (resident, live, idle) in seen {
                let relief = gauge.measure(resident, 100, live, idle);
                prop_assert!(relief.sleeps <= idle.min(live).min(SLEEPS_PER_BEAT_MAX));
                prop_assert_eq!(relief.pressure == Calm, relief.live_max.is_none());
                prop_assert!(relief.live_max.is_none_or(|max| max >= LIVE_FLOOR));
            }
        }
    }
}
