//! What the strategies promise beside capacity and dependencies: fair shares, nobody starved, no worse than HEFT.

mod common;

use std::collections::BTreeMap;

use common::{World, cases, node, worlds};
use nexa_sched::{
    AgentScheduleInfo, Cluster, LoadBalanceStrategy, Network, PlanError, Resources, SchedulePlan, SchedulerConfig,
    TaskGraph, check, plan, upward_ranks,
};
use nexa_types::Millis;
use proptest::prelude::*;

fn world(agents: Vec<AgentScheduleInfo>, nodes: Vec<nexa_sched::NodeInfo>, strategy: LoadBalanceStrategy) -> World {
    World {
        graph: TaskGraph::new(agents).expect("a graph"),
        cluster: Cluster { nodes, network: Network { latency: Millis(0), bytes_per_ms: 0 } },
        config: SchedulerConfig { load_balance_strategy: strategy, ..SchedulerConfig::default() },
        budgets: Vec::new(),
        progress: Vec::new(),
        now: Millis(0),
        seed: 1,
    }
}

fn agent(id: usize, kind: usize, duration: u64, cores: u64) -> AgentScheduleInfo {
    AgentScheduleInfo {
        kind: format!("kind{kind}"),
        estimated_duration: Millis(duration),
        requirements: Resources { cpu_milli: cores * 1_000, memory_bytes: 0, llm_slots: 0 },
        ..AgentScheduleInfo::new(format!("t{id}"))
    }
}

fn planned(world: &World) -> SchedulePlan {
    let plan = plan(&world.problem(), None).expect("everything fits");
    assert_eq!(check(&world.problem(), &plan), Ok(()));
    plan
}

/// Plain HEFT from the paper, one node after the other looked at for each task, without anything of the planner: the
/// earliest gap is found by trying every end. Only cores are looked at.
fn heft(world: &World) -> u64 {
    let (graph, nodes) = (&world.graph, &world.cluster.nodes);
    let agents = graph.agents();
    let on = |task: u32, node: usize| nodes[node].duration(agents[task as usize].estimated_duration).0;
    // Means times nodes, so that nothing is rounded.
    let mean = |task: u32| Millis((0..nodes.len()).map(|node| on(task, node)).sum::<u64>());
    let transfer = |task: u32| world.cluster.network.duration(agents[task as usize].result_bytes).0;
    let ranks = upward_ranks(graph, mean, |task, _| Millis(transfer(task) * nodes.len() as u64));
    let mut order = graph.topological().to_vec();
    order.sort_by_key(|task| std::cmp::Reverse(ranks[*task as usize]));
    let mut slots: BTreeMap<u32, (usize, u64, u64)> = BTreeMap::new();
    for task in order {
        let need = agents[task as usize].requirements.cpu_milli;
        let held = |slots: &BTreeMap<u32, (usize, u64, u64)>, node: usize, at: u64| {
            let there = slots.iter().filter(|(_, slot)| slot.0 == node && slot.1 <= at && at < slot.2);
            there.map(|(task, _)| agents[*task as usize].requirements.cpu_milli).sum::<u64>()
        };
        let earliest = |node: usize| {
            let arrivals = graph.dependencies(task).iter().map(|before| {
                let (from, _, end) = slots[before];
                end + if from == node { 0 } else { transfer(*before) }
            });
            let ready = arrivals.max().unwrap_or(0);
            let mut starts: Vec<u64> = slots.values().map(|slot| slot.2).filter(|end| *end > ready).collect();
            starts.push(ready);
            starts.sort_unstable();
            let span = on(task, node);
            let fits = |start: u64| {
                let begins = slots.values().map(|slot| slot.1).filter(|at| start < *at && *at < start + span);
                let mut moments = begins.chain((span > 0).then_some(start));
                moments.all(|at| held(&slots, node, at) + need <= nodes[node].capacity.cpu_milli)
            };
            let start = starts.into_iter().find(|start| fits(*start)).expect("after all others there is room");
            (start + span, node, start)
        };
        let (end, node, start) = (0..nodes.len()).map(earliest).min().expect("there is a node");
        slots.insert(task, (node, start, end));
    }
    slots.values().map(|slot| slot.2).max().unwrap_or(0)
}

prop_compose! {
    /// Graphs on nodes that differ in speed and cores, with transfers and nothing else.
    fn bare()(
        tasks in prop::collection::vec(
            (1u64..60, 1u64..3, 0u64..40, prop::collection::vec(any::<prop::sample::Index>(), 0..3)), 1..16),
        nodes in prop::collection::vec((1u32..9, 2u64..4), 1..4),
        latency in 0u64..30,
        seed in any::<u64>(),
    ) -> World {
        let agents = tasks.into_iter().enumerate().map(|(task, (duration, cores, bytes, after))| AgentScheduleInfo {
            dependencies: after.iter().filter(|_| task > 0).map(|of| format!("t{}", of.index(task))).collect(),
            result_bytes: bytes,
            ..agent(task, 0, duration, cores)
        });
        let nodes = nodes.into_iter().enumerate().map(|(name, (speed, cores))| node(name, speed * 25, cores, 1, 0, "a"));
        let mut world = world(agents.collect(), nodes.collect(), LoadBalanceStrategy::Adaptive);
        world.cluster.network = Network { latency: Millis(latency), bytes_per_ms: 1 };
        World { seed, ..world }
    }
}

proptest! {
    #![proptest_config(cases(10_000))]

    #[test]
    fn adaptive_is_never_worse_than_heft(world in bare()) {
        prop_assert!(planned(&world).estimated_total_time.0 <= heft(&world));
    }

    /// As long as every kind has somebody waiting, each has had its weight's share of the work.
    #[test]
    fn shares_are_as_weights_while_all_have_work(
        weights in prop::collection::vec(1u32..5, 2..5),
        cores in 1u64..9,
        durations in prop::collection::vec(1u64..5, 2..5),
    ) {
        let mut agents = Vec::new();
        for (kind, weight) in weights.iter().enumerate() {
            let duration = 10 * durations[kind % durations.len()];
            for _ in 0..(240 * u64::from(*weight) / duration + 40) {
                let of = agent(agents.len(), kind, duration, 1);
                agents.push(AgentScheduleInfo { weight: f64::from(*weight), ..of });
            }
        }
        let world = world(agents, vec![node(0, 100, cores, 1, 0, "a")], LoadBalanceStrategy::WeightedFair);
        let plan = planned(&world);
        let kind_of = |task: usize| world.graph.agents()[task].kind.clone();
        // The last start of the kind that has none left first: until then all have work.
        let mut last = BTreeMap::new();
        for (task, slot) in plan.allocation.iter().enumerate() {
            let last = last.entry(kind_of(task)).or_insert(slot.start);
            *last = slot.start.max(*last);
        }
        let until = *last.values().min().expect("there are kinds");
        let mut had: BTreeMap<String, f64> = BTreeMap::new();
        for (task, slot) in plan.allocation.iter().enumerate().filter(|(_, slot)| slot.start < until) {
            let weight = world.graph.agents()[task].weight;
            *had.entry(kind_of(task)).or_default() += (slot.end - slot.start).0 as f64 / weight;
        }
        let (least, most) = had.values().fold((f64::MAX, 0.0f64), |(least, most), had| (least.min(*had), most.max(*had)));
        // What is under way cannot be divided: the longest task of the least weight is what two may be apart by.
        let grain = durations.iter().max().map_or(0, |longest| 10 * longest) as f64;
        prop_assert!(most - least <= 0.05 * most + grain, "{had:?} until {until}");
    }

    /// Nobody is left out, whatever the strategy and however low its priority or weight: `check` wants a place for each.
    #[test]
    fn nobody_starves(world in worlds()) {
        match plan(&world.problem(), None) {
            Ok(plan) => prop_assert_eq!(plan.allocation.len(), world.graph.len()),
            Err(error) => prop_assert!(
                matches!(error, PlanError::DoesNotFit { .. } | PlanError::GangDoesNotFit { .. }), "{}", error),
        }
    }

    /// Of those that could start at the same moment on one node, nobody starts before somebody of a higher priority.
    #[test]
    fn priorities_wait_for_nobody_lower(
        tasks in prop::collection::vec((any::<u8>(), 1u64..50, 1u64..3), 1..30), cores in 2u64..5,
    ) {
        let agents = tasks.iter().enumerate().map(|(id, &(priority, duration, cores))| AgentScheduleInfo {
            priority,
            ..agent(id, 0, duration, cores)
        });
        let world = world(agents.collect(), vec![node(0, 100, cores, 1, 0, "a")], LoadBalanceStrategy::PriorityBased);
        let plan = planned(&world);
        let level = |task: usize| world.config.level(tasks[task].0);
        for (one, slot) in plan.allocation.iter().enumerate() {
            for (other, later) in plan.allocation.iter().enumerate() {
                prop_assert!(level(one) >= level(other) || slot.start >= later.start, "{one} before {other}");
            }
        }
    }

    /// Equal agents on equal nodes: as many on each, and with one after the other in their order.
    #[test]
    fn turns_and_loads_are_even(tasks in 1usize..60, nodes in 1usize..7, is_ring in any::<bool>()) {
        let strategy = if is_ring { LoadBalanceStrategy::RoundRobin } else { LoadBalanceStrategy::LeastLoaded };
        let agents = (0..tasks).map(|id| agent(id, 0, 100, 1)).collect();
        let nodes_of = (0..nodes).map(|name| node(name, 100, 4, 1, 0, "a")).collect();
        let plan = planned(&world(agents, nodes_of, strategy));
        let count = |node: usize| plan.allocation.iter().filter(|slot| slot.node as usize == node).count();
        let counts: Vec<usize> = (0..nodes).map(count).collect();
        prop_assert!(counts.iter().max().expect("a node") - counts.iter().min().expect("a node") <= 1, "{counts:?}");
        if is_ring {
            prop_assert!(plan.allocation.iter().enumerate().all(|(task, slot)| slot.node as usize == task % nodes));
        }
    }
}

/// A million gangs, a thousand in each problem, that want more nodes together than are free: all of them start in the end.
#[test]
#[ignore = "takes a quarter of a minute optimised, and minutes if not: cargo xtask test --slow"]
fn a_million_gangs_do_not_wait_for_each_other() {
    let mut dice = 0x9E37_79B9_7F4A_7C15u64;
    let mut below = |below: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice % below
    };
    for round in 0..1_000 {
        let mut agents: Vec<AgentScheduleInfo> = Vec::new();
        for gang in 0..1_000 {
            for _ in 0..2 + below(3) {
                let id = agents.len();
                let mut of = agent(id, 0, 1 + below(100), 1 + below(3));
                // Gangs wait for earlier gangs, so that none waits for itself.
                let earlier = |id: u64| agents.get(id as usize).filter(|agent| agent.gang != Some(format!("g{gang}")));
                if below(2) == 0
                    && let Some(agent) = earlier(below(id as u64 + 1))
                {
                    of.dependencies.push(agent.id.clone());
                }
                agents.push(AgentScheduleInfo { gang: Some(format!("g{gang}")), ..of });
            }
        }
        let nodes = (0..4 + below(5) as usize).map(|name| node(name, 50 + below(150) as u32, 4, 1, 0, "a")).collect();
        let strategies = [
            LoadBalanceStrategy::Adaptive,
            LoadBalanceStrategy::RoundRobin,
            LoadBalanceStrategy::LeastLoaded,
            LoadBalanceStrategy::WeightedFair,
            LoadBalanceStrategy::PriorityBased,
        ];
        planned(&world(agents, nodes, strategies[round % strategies.len()]));
    }
}
