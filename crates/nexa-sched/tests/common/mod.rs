//! Random problems: small graphs on small clusters, with everything that a problem may have.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use nexa_sched::{
    AgentScheduleInfo, Cluster, GraphError, LoadBalanceStrategy, ModelNeed, Network, NodeInfo, Problem, Progress,
    ProviderBudget, Resources, SchedulePlan, SchedulerConfig, TaskGraph,
};
use nexa_types::{Millis, Tokens};
use proptest::prelude::*;

/// What a [`Problem`] borrows.
#[derive(Debug, Clone)]
pub struct World {
    pub graph: TaskGraph,
    pub cluster: Cluster,
    pub config: SchedulerConfig,
    pub budgets: Vec<ProviderBudget>,
    pub progress: Vec<Progress>,
    pub now: Millis,
    pub seed: u64,
}

impl World {
    pub fn problem(&self) -> Problem<'_> {
        Problem {
            graph: &self.graph,
            cluster: &self.cluster,
            config: &self.config,
            budgets: &self.budgets,
            progress: &self.progress,
            now: self.now,
            seed: self.seed,
        }
    }

    /// The same a while later, everything having gone as planned.
    pub fn later(&self, plan: &SchedulePlan, permille: u64) -> Self {
        let now = self.now + Millis(plan.estimated_total_time.0 * permille / 1_000);
        let progress = plan.allocation.iter().map(|slot| match () {
            () if slot.end <= now => Progress::Ended { node: slot.node, at: slot.end },
            () if slot.start < now => Progress::Running { node: slot.node, since: slot.start },
            () => Progress::Waiting,
        });
        Self { progress: progress.collect(), now, ..self.clone() }
    }
}

pub fn node(name: usize, speed: u32, cores: u64, memory: u64, slots: u64, zone: &str) -> NodeInfo {
    NodeInfo {
        id: format!("n{name}").parse().expect("a name"),
        capacity: Resources { cpu_milli: cores * 1_000, memory_bytes: memory << 30, llm_slots: slots },
        speed,
        labels: [("zone".to_owned(), zone.to_owned())].into(),
        is_cordoned: false,
    }
}

prop_compose! {
    fn agents()(
        tasks in prop::collection::vec(
            (
                (0u64..60, 0u64..4, 0u64..4, 0u64..3, 0u64..8),
                prop::collection::vec(any::<prop::sample::Index>(), 0..3),
                (any::<u8>(), 1u32..5, 0u8..6, 0u8..10, 0u8..3),
                (0u64..4, 0u64..300, 0u64..300),
            ),
            1..14,
        ),
    ) -> Vec<AgentScheduleInfo> {
        tasks.into_iter().enumerate().map(|(task, (size, after, kind, need))| {
            let (duration, cores, memory, slots, bytes) = size;
            let (priority, weight, gang, zone, model) = kind;
            AgentScheduleInfo {
                kind: format!("kind{model}"),
                priority,
                weight: f64::from(weight),
                estimated_duration: Millis(duration * 10),
                dependencies: after.iter().filter(|_| task > 0).map(|of| format!("t{}", of.index(task))).collect(),
                requirements: Resources { cpu_milli: cores * 500, memory_bytes: memory << 30, llm_slots: slots },
                labels: if zone == 0 { [("zone".to_owned(), "a".to_owned())].into() } else { [].into() },
                model: (model > 0).then(|| ModelNeed {
                    provider: format!("p{model}"),
                    requests: need.0,
                    input_tokens: Tokens(need.1),
                    output_tokens: Tokens(need.2),
                }),
                result_bytes: bytes * 1_000,
                gang: (gang < 2).then(|| format!("gang{gang}")),
                ..AgentScheduleInfo::new(format!("t{task}"))
            }
        }).collect()
    }
}

prop_compose! {
    fn cluster()(
        others in prop::collection::vec((1u32..5, 1u64..4, 1u64..5, 0u64..4, any::<bool>(), 0u8..5), 0..5),
        latency in 0u64..20,
        bytes_per_ms in prop::sample::select(vec![0u64, 100, 1_000]),
    ) -> Cluster {
        let mut nodes = vec![node(0, 100, 4, 8, 6, "a")];
        for (speed, cores, memory, slots, zone, cordon) in others {
            let zone = if zone { "a" } else { "b" };
            let of = node(nodes.len(), speed * 50, cores, memory, slots, zone);
            nodes.push(NodeInfo { is_cordoned: cordon == 0, ..of });
        }
        Cluster { nodes, network: Network { latency: Millis(latency), bytes_per_ms } }
    }
}

pub fn strategies() -> impl Strategy<Value = LoadBalanceStrategy> {
    prop::sample::select(vec![
        LoadBalanceStrategy::Adaptive,
        LoadBalanceStrategy::RoundRobin,
        LoadBalanceStrategy::LeastLoaded,
        LoadBalanceStrategy::WeightedFair,
        LoadBalanceStrategy::PriorityBased,
    ])
}

/// A gang that waits for itself becomes single tasks: graphs are made so that nothing else is wrong with them.
fn graph(agents: Vec<AgentScheduleInfo>) -> TaskGraph {
    match TaskGraph::new(agents.clone()) {
        Err(GraphError::GangWaitsForItself { .. }) => {
            let alone = agents.into_iter().map(|agent| AgentScheduleInfo { gang: None, ..agent });
            TaskGraph::new(alone.collect()).expect("a graph without gangs")
        }
        graph => graph.expect("every task waits for earlier ones"),
    }
}

prop_compose! {
    /// Anything: labels, gangs, budgets, a limit to agents at once, any strategy.
    pub fn worlds()(
        agents in agents(),
        cluster in cluster(),
        strategy in strategies(),
        at_once in prop::sample::select(vec![1usize, 2, 3, 5, 20_000]),
        levels in 1u8..4,
        budgets in prop::collection::vec((1u64..20, 200u64..900, 200u64..900, 2u64..12, 0u8..16), 0..3),
        now in 0u64..1_000,
        seed in any::<u64>(),
    ) -> World {
        let budgets = budgets.into_iter().enumerate().map(|(provider, (requests, input, output, at_once, which))| {
            let of = |bit: u8, amount: u64| (which & bit != 0).then_some(amount);
            ProviderBudget {
                provider: format!("p{}", provider + 1),
                requests_per_minute: of(1, requests),
                input_tokens_per_minute: of(2, input),
                output_tokens_per_minute: of(4, output),
                concurrency: of(8, at_once),
            }
        });
        World {
            graph: graph(agents),
            cluster,
            config: SchedulerConfig {
                max_concurrent_agents: at_once,
                priority_levels: levels,
                load_balance_strategy: strategy,
                ..SchedulerConfig::default()
            },
            budgets: budgets.collect(),
            progress: Vec::new(),
            now: Millis(now),
            seed,
        }
    }
}

/// For a property over random worlds: as many as are asked for, and no file beside the tests.
pub fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}
