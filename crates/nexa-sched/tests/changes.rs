//! Plans for a cluster that changes between them: nodes come, go, shrink, grow, are cordoned, opened and labelled anew, and
//! become faster or slower, while a part of the agents has run.

mod common;

use common::{World, cases, node, worlds};
use nexa_sched::{Cluster, KEEP_MARGIN_PERCENT, NodeInfo, PlanError, Progress, SchedulePlan, check, plan};
use nexa_types::Millis;
use proptest::prelude::*;

/// What happens to a cluster.
#[derive(Debug, Clone)]
enum Change {
    Added { speed: u32, cores: u64, zone: bool },
    Lost,
    Resized { cores: u64, memory: u64 },
    Cordoned,
    Opened,
    Labelled { zone: bool },
    Paced { speed: u32 },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (1u32..5, 1u64..5, any::<bool>()).prop_map(|(speed, cores, zone)| Change::Added {
            speed: speed * 50,
            cores,
            zone
        }),
        Just(Change::Lost),
        (1u64..4, 1u64..5).prop_map(|(cores, memory)| Change::Resized { cores, memory }),
        Just(Change::Cordoned),
        Just(Change::Opened),
        any::<bool>().prop_map(|zone| Change::Labelled { zone }),
        (1u32..5).prop_map(|speed| Change::Paced { speed: speed * 50 }),
    ]
}

fn zone(is_a: bool) -> &'static str {
    if is_a { "a" } else { "b" }
}

/// A world some time later, everything having gone as planned until its cluster changed; and the plan from before, with
/// the nodes' new numbers. `added` counts nodes that came, so that each has a new name.
fn changed(
    world: &World,
    plan: &SchedulePlan,
    permille: u64,
    changes: &[(prop::sample::Index, Change)],
    added: &mut usize,
) -> (World, SchedulePlan) {
    let later = world.later(plan, permille);
    let mut nodes = later.cluster.nodes.clone();
    for (of, change) in changes {
        let place = of.index(nodes.len());
        match *change {
            Change::Added { speed, cores, zone: is_a } => {
                nodes.insert(place, node(100 + *added, speed, cores, 4, 2, zone(is_a)));
                *added += 1;
            }
            Change::Lost if nodes.len() > 1 => drop(nodes.remove(place)),
            Change::Lost => {}
            Change::Resized { cores, memory } => {
                nodes[place].capacity.cpu_milli = cores * 1_000;
                nodes[place].capacity.memory_bytes = memory << 30;
            }
            Change::Cordoned => nodes[place].is_cordoned = true,
            Change::Opened => nodes[place].is_cordoned = false,
            Change::Labelled { zone: is_a } => {
                nodes[place].labels.insert("zone".to_owned(), zone(is_a).to_owned());
            }
            Change::Paced { speed } => nodes[place].speed = speed,
        }
    }
    let cluster = Cluster { nodes, ..later.cluster.clone() };
    let previous = plan.renumbered(&later.cluster, &cluster);
    // What ran on a node that is gone has to start again; the results of what has ended are not lost.
    let progress = later.progress.iter().zip(&previous.allocation).map(|(progress, slot)| match *progress {
        Progress::Running { .. } if slot.node == u32::MAX => Progress::Waiting,
        Progress::Running { since, .. } => Progress::Running { node: slot.node, since },
        Progress::Ended { at, .. } => Progress::Ended { node: if slot.node == u32::MAX { 0 } else { slot.node }, at },
        Progress::Waiting => Progress::Waiting,
    });
    let progress = progress.collect();
    (World { cluster, progress, ..later }, previous)
}

/// Whether nothing changed for what has not ended: each is on a node that is as good for it as before, and nothing else
/// has to be started again.
fn is_as_before(before: &World, now: &World, previous: &SchedulePlan) -> bool {
    let old = |node: &NodeInfo| before.cluster.nodes.iter().find(|old| old.id == node.id);
    let has = |more: &NodeInfo, less: &NodeInfo| less.capacity.fits(&more.capacity) && more.speed >= less.speed;
    now.progress.iter().zip(&previous.allocation).zip(now.graph.agents()).all(|((progress, slot), agent)| {
        let node = now.cluster.nodes.get(slot.node as usize);
        let as_good = |node: &NodeInfo| old(node).is_some_and(|old| has(node, old));
        match progress {
            // When it started, from which on what it took of a provider counts, is told by its node's speed.
            Progress::Ended { .. } => node.is_some_and(|node| old(node).is_some_and(|old| node.speed == old.speed)),
            // What is over its time is expected to take ever longer.
            Progress::Running { since, .. } => {
                node.is_some_and(|node| as_good(node) && *since + node.duration(agent.estimated_duration) > now.now)
            }
            Progress::Waiting => node.is_some_and(|node| as_good(node) && !node.is_cordoned && node.has(&agent.labels)),
        }
    })
}

fn nodes(plan: &SchedulePlan) -> Vec<u32> {
    plan.allocation.iter().map(|slot| slot.node).collect()
}

/// A plan, or nothing where somebody fits nowhere.
fn planned(world: &World, previous: Option<&SchedulePlan>) -> Option<SchedulePlan> {
    match plan(&world.problem(), previous) {
        Ok(plan) => Some(plan),
        Err(PlanError::DoesNotFit { .. } | PlanError::GangDoesNotFit { .. }) => None,
        Err(other) => panic!("{other}"),
    }
}

/// How much later a plan may end that was made again with nothing changed, where providers have budgets by the minute. Two of a
/// thousand were seen, once in some hundred thousand cases; why is not known yet.
const MINUTES_PERMILLE: u64 = 5;

proptest! {
    #![proptest_config(cases(10_000))]

    #[test]
    fn a_plan_goes_with_its_cluster(
        world in worlds(),
        rounds in prop::collection::vec(
            (0u64..1_000, prop::collection::vec((any::<prop::sample::Index>(), change()), 1..4)), 1..4),
    ) {
        let Some(mut made) = planned(&world, None) else { return Ok(()) };
        let (mut world, mut added) = (world, 0);
        for (permille, changes) in rounds {
            let (now, previous) = changed(&world, &made, permille, &changes, &mut added);
            // Whether there is a plan at all is up to the cluster, and not to the plan before.
            let fresh = planned(&now, None);
            let again = planned(&now, Some(&previous));
            prop_assert_eq!(again.is_some(), fresh.is_some());
            let (Some(again), Some(fresh)) = (again, fresh) else { return Ok(()) };

            prop_assert_eq!(check(&now.problem(), &again), Ok(()));
            // What is kept may cost a little, and no more than that.
            let (takes, at_best) = (again.estimated_total_time.0, fresh.estimated_total_time.0);
            prop_assert!(takes * 100 <= at_best * (100 + KEEP_MARGIN_PERCENT), "{} for {}", takes, at_best);
            // Where everything can stay and nothing takes longer, it stays, unless moving gains enough.
            if is_as_before(&world, &now, &previous) {
                let left = (world.now + made.estimated_total_time).0.saturating_sub(now.now.0);
                // What a provider takes by the minute is counted from another moment then, which may cost a little.
                let by_minutes = if world.budgets.is_empty() { 0 } else { left * MINUTES_PERMILLE / 1_000 };
                prop_assert!(takes <= left + by_minutes, "{} of {}", takes, left);
                prop_assert!(
                    nodes(&again) == nodes(&previous) || takes * (100 + KEEP_MARGIN_PERCENT) < left * 100,
                    "moved for {} of {}", takes, left);
            }
            let twice = planned(&now, Some(&again)).expect("it fitted before");
            prop_assert_eq!(nodes(&twice), nodes(&again));
            prop_assert!(twice.estimated_total_time <= again.estimated_total_time);
            (world, made) = (now, twice);
        }
    }
}

/// Twelve agents of a second on four nodes of one core: three on each.
fn even() -> (World, SchedulePlan) {
    let agents = (0..12).map(|id| nexa_sched::AgentScheduleInfo {
        estimated_duration: Millis(1_000),
        requirements: nexa_sched::Resources { cpu_milli: 1_000, memory_bytes: 0, llm_slots: 0 },
        ..nexa_sched::AgentScheduleInfo::new(format!("t{id}"))
    });
    let world = World {
        graph: nexa_sched::TaskGraph::new(agents.collect()).expect("a graph"),
        cluster: Cluster {
            nodes: (0..4).map(|name| node(name, 100, 1, 1, 0, "a")).collect(),
            network: nexa_sched::Network { latency: Millis(0), bytes_per_ms: 0 },
        },
        config: nexa_sched::SchedulerConfig::default(),
        budgets: Vec::new(),
        progress: Vec::new(),
        now: Millis(0),
        seed: 1,
    };
    let plan = planned(&world, None).expect("everybody fits");
    (world, plan)
}

fn moved(before: &SchedulePlan, after: &SchedulePlan) -> usize {
    nodes(before).iter().zip(nodes(after)).filter(|(before, after)| **before != *after).count()
}

#[test]
fn only_what_was_on_a_lost_node_moves() {
    let (mut world, before) = even();
    let cluster = world.cluster.clone();
    world.cluster.nodes.remove(1);
    let previous = before.renumbered(&cluster, &world.cluster);
    assert_eq!(nodes(&previous).iter().filter(|node| **node == u32::MAX).count(), 3);
    let after = planned(&world, Some(&previous)).expect("everybody fits");
    assert_eq!((moved(&previous, &after), after.estimated_total_time), (3, Millis(4_000)));
}

#[test]
fn a_node_more_takes_what_it_is_worth_and_nobody_else_moves() {
    let (mut world, before) = even();
    world.cluster.nodes.extend([4, 5].map(|name| node(name, 100, 1, 1, 0, "a")));
    let after = planned(&world, Some(&before)).expect("everybody fits");
    assert_eq!((moved(&before, &after), after.estimated_total_time), (4, Millis(2_000)));
}
