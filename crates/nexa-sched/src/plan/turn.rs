//! Who is next, and where: what the strategies differ in.

use std::collections::BTreeMap;

use nexa_types::Millis;

use super::setting::Setting;
use crate::rank::upward_ranks;
use crate::{LoadBalanceStrategy, Resources};

/// How a node is chosen of those with room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spot {
    /// The next after the last that was chosen.
    NextInRing,
    /// That of which the least is used.
    LeastUsed,
    /// Where it ends earliest, which may be one that has room soon.
    EarliestEnd,
}

/// Who is next of those that could start.
pub(crate) struct Turn {
    /// By unit; the larger first.
    pub(crate) values: Vec<u64>,
    pub(crate) spot: Spot,
    /// Whether a task may use all the time that is to spare on the way behind it, or only its part.
    pub(crate) may_use_all: bool,
    /// Whether nobody starts where somebody of a higher level, the upper bits of a value, waits for room.
    pub(crate) is_strict: bool,
    /// Where whoever has had least for its weight is next; values then only decide within a kind.
    pub(crate) fair: Option<Fair>,
}

/// The bits of a value below its priority level.
pub(crate) const LEVEL_SHIFT: u32 = 48;

/// What each kind has had for its weight.
pub(crate) struct Fair {
    /// The kind of each task.
    pub(crate) kind_of: Vec<u32>,
    /// Dominant share of all nodes times milliseconds over weight, by kind.
    pub(crate) had: Vec<u64>,
    /// The dominant share of each task, in millionths of all nodes, over its weight.
    rate_of: Vec<u64>,
}

impl Fair {
    fn new(setting: &Setting) -> Self {
        let agents = setting.problem.graph.agents();
        let nodes = setting.problem.cluster.nodes.iter().filter(|node| !node.is_cordoned);
        let all = nodes.fold(Resources::default(), |sum, node| sum.plus(&node.capacity));
        let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
        let kind_of: Vec<u32> = agents
            .iter()
            .map(|agent| {
                let next = kinds.len() as u32;
                *kinds.entry(&agent.kind).or_insert(next)
            })
            .collect();
        let rate = |agent: &crate::AgentScheduleInfo| {
            // A weight that is no positive number counts as the smallest.
            let weight = (agent.weight * 1_000.0).clamp(1.0, 1e9) as u64;
            (agent.requirements.dominant_share(&all).max(1) * 1_000_000 / weight).max(1)
        };
        Self { had: vec![0; kinds.len()], kind_of, rate_of: agents.iter().map(rate).collect() }
    }

    pub(crate) fn charge(&mut self, task: u32, span: u64) {
        let had = &mut self.had[self.kind_of[task as usize] as usize];
        *had = had.saturating_add(self.rate_of[task as usize].saturating_mul(span) / 1_000);
    }
}

impl Turn {
    pub(crate) fn new(setting: &Setting, strategy: LoadBalanceStrategy) -> Self {
        let as_they_came = |spot, fair| Self {
            values: setting.unit_values(|task| u64::from(u32::MAX - task)),
            spot,
            may_use_all: false,
            is_strict: false,
            fair,
        };
        match strategy {
            LoadBalanceStrategy::RoundRobin => as_they_came(Spot::NextInRing, None),
            LoadBalanceStrategy::LeastLoaded => as_they_came(Spot::LeastUsed, None),
            LoadBalanceStrategy::WeightedFair => as_they_came(Spot::LeastUsed, Some(Fair::new(setting))),
            LoadBalanceStrategy::PriorityBased => Self::by_priority(setting),
            LoadBalanceStrategy::Adaptive => Self::by_rank(setting),
        }
    }

    /// The longest way to the end first.
    fn by_rank(setting: &Setting) -> Self {
        let values = setting.unit_values(mean_ranks(setting));
        Self { values, spot: Spot::EarliestEnd, may_use_all: false, is_strict: false, fair: None }
    }

    /// The highest level first, and within it the longest way to the end. A task is of the level of the highest that
    /// waits for it, also through others: else that one would wait for somebody lower.
    fn by_priority(setting: &Setting) -> Self {
        let graph = setting.problem.graph;
        let mut levels: Vec<u64> =
            (0..graph.len() as u32).map(|task| u64::from(setting.tasks.get(task).level)).collect();
        for unit in (0..setting.units.len() as u32).rev() {
            let members = setting.units.row(unit);
            let after = members.iter().flat_map(|&task| graph.dependents(task)).chain(members);
            let highest = after.map(|&task| levels[task as usize]).max().unwrap_or(0);
            members.iter().for_each(|&task| levels[task as usize] = highest);
        }
        let ranks = mean_ranks(setting);
        let least = (1u64 << LEVEL_SHIFT) - 1;
        let values = setting.unit_values(|task| (levels[task as usize] << LEVEL_SHIFT) | ranks(task).min(least));
        Self { values, spot: Spot::EarliestEnd, may_use_all: false, is_strict: true, fair: None }
    }
}

/// Upward ranks, half as much again for the highest priority and half for the lowest.
pub(crate) fn mean_ranks(setting: &Setting) -> impl Fn(u32) -> u64 {
    let top = u64::from(setting.problem.config.priority_levels.max(2)) - 1;
    let ranks = upward_ranks(
        setting.problem.graph,
        |task| Millis(setting.mean_duration(task)),
        |task, _| Millis(setting.transfer(task)),
    );
    move |task| {
        let level = u64::from(setting.tasks.get(task).level);
        ranks[task as usize].0.saturating_mul(top + 2 * level) / (2 * top)
    }
}
