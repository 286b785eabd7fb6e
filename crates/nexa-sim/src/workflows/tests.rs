//! What holds of every policy on every workflow, and examples whose optimum is known.

use nexa_sched::{Cluster, DispatchLimits, Labels, Network, NodeInfo, Resources};
use nexa_types::Millis;
use proptest::prelude::*;

use super::heft::heft_planned;
use super::task::tests::task;
use super::*;
use crate::dice::Dice;

/// A random workflow: each task waits for up to three before it, for up to a megabyte of each, takes up to ten seconds,
/// now and then none, and holds up to three cores.
fn workflows() -> impl Strategy<Value = Workflow> {
    let one = (
        0_u64..10_000,
        0_u8..8,
        1_u64..=3_000,
        proptest::collection::vec((any::<proptest::sample::Index>(), 0_u64..1_000_000), 0..4),
    );
    proptest::collection::vec(one, 1..40).prop_map(|drawn| {
        let tasks = drawn.into_iter().enumerate().map(|(id, (millis, idle, cpu_milli, before))| {
            let needs: Vec<_> =
                before.iter().filter(|_| id > 0).map(|(at, bytes)| (at.index(id) as u32, *bytes)).collect();
            let mut task = task(id, if idle == 0 { 0 } else { millis }, &needs);
            task.requirements.cpu_milli = cpu_milli;
            task.kind = format!("kind{}", id % 3);
            task
        });
        Workflow::new("random", tasks.collect()).expect("each task waits for earlier ones")
    })
}

/// Nodes with one core each, of these speeds.
fn single_cores(speeds: &[u32], latency: u64) -> Cluster {
    let node = |(place, speed): (usize, &u32)| NodeInfo {
        id: format!("n{place}").parse().expect("a name"),
        capacity: Resources { cpu_milli: 1_000, memory_bytes: 0, llm_slots: 0 },
        speed: *speed,
        labels: Labels::new(),
        is_cordoned: false,
    };
    let network = Network { latency: Millis(latency), bytes_per_ms: 100 };
    Cluster { nodes: speeds.iter().enumerate().map(node).collect(), network }
}

fn played(world: &World<'_>, policy: &mut impl Policy) -> Millis {
    let ran = world.play(policy).expect("it goes to the end");
    check(world, &ran).expect("it is within what holds");
    assert!(ran.makespan >= lower_bound(world.workflow, world.cluster), "below the bound");
    ran.makespan
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_policy_keeps_to_capacity_and_dependencies(
        workflow in workflows(), nodes in 1_usize..6, seed in any::<u64>(), percent in prop_oneof![Just(0_u32), Just(100)],
        gap in prop_oneof![Just(0_u64), 1_u64..5_000],
    ) {
        let cluster = cluster(nodes, seed);
        let workflow = workflow.fitted(&cluster);
        let world = World { workflow: &workflow, cluster: &cluster, transfers: Transfers::AtOnce };
        let believed = estimates(&workflow, Noise::Task(percent), seed);
        let count = workflow.tasks().len();
        played(&world, &mut Spread::new(Turn::RoundRobin(0), count));
        played(&world, &mut Spread::new(Turn::Random(Dice::of(&[seed])), count));
        played(&world, &mut heft_fixed(&workflow, &cluster, &believed, Order::Strict));
        played(&world, &mut heft_fixed(&workflow, &cluster, &believed, Order::Conserving));
        played(&world, &mut planned_once(&workflow, &cluster, &believed).expect("everybody fits"));
        let mut planner = Planner::new(&workflow, &believed, DispatchLimits { gap: Millis(gap), ..Default::default() });
        let makespan = played(&world, &mut planner);
        prop_assert!(planner.plans() > 0);
        let late = World { transfers: Transfers::WhenSettled, ..world };
        let fixed = |order| heft_fixed(&workflow, &cluster, &believed, order);
        prop_assert_eq!(played(&late, &mut fixed(Order::Strict)), played(&world, &mut fixed(Order::Strict)));
        played(&late, &mut Planner::new(&workflow, &believed, DispatchLimits::default()));
        played(&late, &mut Spread::new(Turn::RoundRobin(0), count));
        prop_assert!(gap == 0 || planner.plans() as u64 <= 1 + makespan.0 / gap, "{} plans", planner.plans());
    }

    #[test]
    fn a_plan_that_was_right_about_durations_ends_no_later_than_planned(
        workflow in workflows(), nodes in 1_usize..6, seed in any::<u64>(),
    ) {
        let cluster = cluster(nodes, seed);
        let workflow = workflow.fitted(&cluster);
        let world = World { workflow: &workflow, cluster: &cluster, transfers: Transfers::AtOnce };
        let (plan, mut policy) = heft_planned(&workflow, &cluster, &workflow.durations(), Order::Strict);
        let ran = world.play(&mut policy).expect("it goes to the end");
        for (planned, ran) in plan.iter().zip(&ran.slots) {
            prop_assert!(ran.0 == planned.node && ran.1 <= planned.start, "{planned:?} ran {ran:?}");
        }
        let makespan = plan.iter().map(|placed| placed.end).max().unwrap_or_default();
        let planned = Ran { slots: plan.iter().map(|p| (p.node, p.start, p.end)).collect(), makespan };
        prop_assert_eq!(check(&world, &planned), Ok(()));
    }
}

#[test]
fn what_cannot_start_is_refused_and_who_stops_early_is_told() {
    struct Stubborn(Option<Start>);
    impl Policy for Stubborn {
        fn node_of(&self, _: u32) -> Option<u32> {
            None
        }

        fn happened(&mut self, _: &Seen<'_>, _: &[u32]) -> Result<(), String> {
            Ok(())
        }

        fn next(&mut self, _: &Seen<'_>) -> Option<Start> {
            self.0
        }
    }
    let workflow = Workflow::new("w", vec![task(0, 5, &[]), task(1, 5, &[(0, 1)])]).expect("it is one");
    let cluster = single_cores(&[100], 1);
    let world = World { workflow: &workflow, cluster: &cluster, transfers: Transfers::AtOnce };
    let fault = |start| world.play(&mut Stubborn(start)).expect_err("it cannot be").to_string();
    for (task, node) in [(1, 0), (0, 7), (9, 0)] {
        assert!(fault(Some(Start { task, node })).contains("cannot start"), "{task} on {node}");
    }
    assert!(fault(Some(Start { task: 0, node: 0 })).contains("`t0`"), "twice the same");
    assert_eq!(fault(None), "the policy starts nothing more at 0 ms, and 2 tasks are left");
}

#[test]
fn what_a_run_says_is_checked_without_the_world() {
    let workflow = Workflow::new("w", vec![task(0, 10, &[]), task(1, 10, &[(0, 100)])]).expect("it is one");
    let cluster = single_cores(&[100, 100], 4);
    let world = World { workflow: &workflow, cluster: &cluster, transfers: Transfers::AtOnce };
    let told = |slots: &[(u32, u64, u64)]| {
        let slots: Vec<_> = slots.iter().map(|&(node, start, end)| (node, Millis(start), Millis(end))).collect();
        let makespan = slots.iter().map(|slot| slot.2).max().unwrap_or_default();
        check(&world, &Ran { slots, makespan })
    };
    // The result is on the way for 4 ms and 1 ms for its 100 bytes.
    assert_eq!((told(&[(0, 0, 10), (0, 10, 20)]), told(&[(0, 0, 10), (1, 15, 25)])), (Ok(()), Ok(())));
    assert_eq!(told(&[(0, 0, 10), (1, 14, 24)]), Err("t1 started before it had the result of t0".to_owned()));
    assert_eq!(told(&[(0, 0, 10), (0, 10, 21)]), Err("t1 took 11 ms".to_owned()));
    assert_eq!(told(&[(0, 0, 10)]), Err("1 of 2 tasks ran".to_owned()));
    let apart = Workflow::new("w", vec![task(0, 10, &[]), task(1, 10, &[])]).expect("it is one");
    let slots = vec![(0, Millis(0), Millis(10)), (0, Millis(9), Millis(19))];
    let ran = Ran { slots, makespan: Millis(19) };
    let over = check(&World { workflow: &apart, cluster: &cluster, transfers: Transfers::AtOnce }, &ran);
    assert_eq!(over, Err("n0 holds more than it has at 9 ms".to_owned()));
}

#[test]
fn examples_of_known_optimum() {
    // A chain belongs on the fastest node, and its result stays there.
    let chain = vec![task(0, 100, &[]), task(1, 100, &[(0, 1_000)]), task(2, 100, &[(1, 1_000)])];
    let chain = Workflow::new("chain", chain).expect("it is one");
    let cluster = single_cores(&[50, 200, 100], 10);
    let world = World { workflow: &chain, cluster: &cluster, transfers: Transfers::AtOnce };
    assert_eq!(lower_bound(&chain, &cluster), Millis(150));
    assert_eq!(played(&world, &mut heft_fixed(&chain, &cluster, &chain.durations(), Order::Strict)), Millis(150));
    // In turns over three nodes: 200, then 20 of way, 50, 20, 100.
    assert_eq!(played(&world, &mut Spread::new(Turn::RoundRobin(0), 3)), Millis(390));

    // Six equal tasks on three equal cores: two rounds, which is all the work over all the cores.
    let bag = Workflow::new("bag", (0..6).map(|id| task(id, 100, &[])).collect()).expect("it is one");
    let cluster = single_cores(&[100; 3], 10);
    let world = World { workflow: &bag, cluster: &cluster, transfers: Transfers::AtOnce };
    assert_eq!(lower_bound(&bag, &cluster), Millis(200));
    assert_eq!(played(&world, &mut heft_fixed(&bag, &cluster, &bag.durations(), Order::Strict)), Millis(200));

    // A fork and join: 100 before, four of 100 on two cores, 100 behind.
    let mut tasks = vec![task(0, 100, &[])];
    tasks.extend((1..5).map(|id| task(id, 100, &[(0, 0)])));
    tasks.push(task(5, 100, &[(1, 0), (2, 0), (3, 0), (4, 0)]));
    let fork = Workflow::new("fork", tasks).expect("it is one");
    assert_eq!(lower_bound(&fork, &single_cores(&[100; 2], 0)), Millis(400));
}

#[test]
fn a_result_that_sets_out_when_its_reader_is_settled_comes_later() {
    /// Means to run the second task beside the first, and changes its mind when the third ends.
    struct Fickle(u32);
    impl Policy for Fickle {
        fn happened(&mut self, _: &Seen<'_>, ended: &[u32]) -> Result<(), String> {
            self.0 |= u32::from(ended.contains(&2));
            Ok(())
        }
        fn node_of(&self, task: u32) -> Option<u32> {
            Some([0, self.0, 1][task as usize])
        }
        fn next(&mut self, seen: &Seen<'_>) -> Option<Start> {
            let may = |task: &u32| *task != 1 || self.0 == 1;
            let node = |task: u32| [0, 1, 1][task as usize];
            let task = (0..3).filter(may).find(|task| seen.can_start(*task, node(*task)))?;
            Some(Start { task, node: node(task) })
        }
    }
    // The result is ready at 100, and takes 15 ms; the third task ends at 104.
    let tasks = vec![task(0, 100, &[]), task(1, 100, &[(0, 1_000)]), task(2, 104, &[])];
    let workflow = Workflow::new("late", tasks).expect("it is one");
    let cluster = single_cores(&[100, 100], 5);
    let ends = |transfers| played(&World { workflow: &workflow, cluster: &cluster, transfers }, &mut Fickle(0));
    assert_eq!((ends(Transfers::AtOnce), ends(Transfers::WhenSettled)), (Millis(215), Millis(219)));
}

#[test]
fn a_strict_plan_waits_for_the_late_and_a_conserving_one_does_not() {
    // The first task of the plan is late by far; the second could go first.
    let workflow = vec![task(0, 100, &[]), task(1, 10, &[(0, 0)]), task(2, 50, &[])];
    let workflow = Workflow::new("late", workflow).expect("it is one");
    let cluster = single_cores(&[100, 100], 0);
    let world = World { workflow: &workflow, cluster: &cluster, transfers: Transfers::AtOnce };
    let slots = [(0, Millis(0)), (1, Millis(5)), (1, Millis(20))];
    let plan = |order| Fixed::new(&slots, workflow.topological(), 2, order);
    assert_eq!(played(&world, &mut plan(Order::Strict)), Millis(160));
    assert_eq!(played(&world, &mut plan(Order::Conserving)), Millis(110));
}

#[test]
fn the_textbook_beats_chance_on_real_workflows_and_is_above_the_bound() {
    let Some(folder) = usual_folder() else {
        eprintln!("skipped: there are no workflow traces here (set NEXA_WORKFLOWS_DIR to a folder that has some)");
        return;
    };
    let workflows = read_all(&folder).expect("traces can be read");
    let settings = Settings { nodes: vec![8], seeds: 1, noises: vec![Noise::True] };
    let cells = study(&workflows, &settings, |_, _| ()).expect("it goes to the end");
    assert!(cells.iter().all(|cell| cell.ratio(Contender::Bound) <= 1.0));
    assert!(mean_ratio(&cells, Contender::Random) > Some(1.2));
    assert!(report::markdown(&cells, &workflows, &settings, "c.svg").contains(workflows[0].name()));
}
