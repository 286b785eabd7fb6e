//! What can be set about scheduling.

use nexa_types::Millis;

/// How a scheduler decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Agents that run at the same time, over all nodes. Further ones wait.
    pub max_concurrent_agents: usize,
    /// Into how many levels the 256 priorities fall; priorities of one level are equal. 1 to 255; 0 is taken for 1.
    pub priority_levels: u8,
    /// How long an agent computes before another has its turn.
    pub time_slice: Millis,
    /// Who is next, and where.
    pub load_balance_strategy: LoadBalanceStrategy,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            max_concurrent_agents: 20_000,
            priority_levels: 255,
            time_slice: Millis(10),
            load_balance_strategy: LoadBalanceStrategy::Adaptive,
        }
    }
}

impl SchedulerConfig {
    /// The level of a priority: `0..priority_levels`, higher first.
    #[must_use]
    pub fn level(&self, priority: u8) -> u8 {
        let levels = u16::from(self.priority_levels.max(1));
        u8::try_from(u16::from(priority) * levels / 256).unwrap_or(u8::MAX)
    }
}

/// Who is next, and on which node. All of them keep to capacity, dependencies, gangs and the budget of moves; they differ
/// in the order of what is ready and in what a place costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoadBalanceStrategy {
    /// In the order in which they came, on one node after the other.
    RoundRobin,
    /// In the order in which they came, where the least is used.
    LeastLoaded,
    /// Whoever has had least for its weight is next; where the least is used.
    WeightedFair,
    /// The highest priority is next, and waits for nobody lower; where it ends earliest.
    PriorityBased,
    /// Whoever most depends on is next, sooner the higher its priority; where it ends earliest.
    #[default]
    Adaptive,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_fall_into_levels() {
        let level =
            |levels, priority| SchedulerConfig { priority_levels: levels, ..Default::default() }.level(priority);
        assert_eq!([0, 127, 128, 255].map(|priority| level(2, priority)), [0, 0, 1, 1]);
        assert_eq!((level(0, 255), level(1, 255), level(255, 255), level(255, 0)), (0, 0, 254, 0));
    }
}
