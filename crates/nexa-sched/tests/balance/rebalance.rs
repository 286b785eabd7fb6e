//! Relieving and emptying nodes.

use std::collections::{BTreeMap, BTreeSet};

use nexa_sched::{
    LoadBalanceStrategy, MILLION, MoveReason, NodeState, RebalanceLimits, ScheduleAdjustment, SystemLoad, rebalance,
};
use nexa_types::Millis;
use proptest::prelude::*;

use crate::world::{Dice, STRATEGIES, World};

/// What rounding may add to a pressure: an agent's use is rounded up on each node that it comes to.
pub(crate) const ROUNDING: u64 = 5_000;

fn limits(strategy: LoadBalanceStrategy) -> RebalanceLimits {
    RebalanceLimits { strategy, ..RebalanceLimits::default() }
}

/// Asks what to move, checks the rules and carries the moves out.
fn play(world: &mut World, seen: &SystemLoad, limits: &RebalanceLimits) -> Vec<ScheduleAdjustment> {
    let moves = rebalance(seen, limits, world.now);
    assert_eq!(moves, rebalance(seen, limits, world.now), "the same question has the same answer");
    for made in &moves {
        let from = &seen.nodes[made.from as usize];
        match made.why {
            MoveReason::Draining => assert_eq!(from.state, NodeState::Draining),
            MoveReason::Overloaded { from: before, to: after } => {
                assert!(from.pressure() > limits.overload && from.state != NodeState::Draining);
                assert!(before > limits.relieved.min(limits.overload), "it is relieved no further than need be");
                assert!(before >= after + limits.margin || limits.strategy == LoadBalanceStrategy::Adaptive, "RB-5");
            }
            MoveReason::Joined { .. } => panic!("nothing joined"),
        }
    }
    carry_out(world, seen, limits, &moves);
    moves
}

/// Checks the rules that hold of all moves, on the world as it is before them, and carries them out.
pub(crate) fn carry_out(world: &mut World, seen: &SystemLoad, limits: &RebalanceLimits, moves: &[ScheduleAdjustment]) {
    assert!(moves.len() as u64 <= limits.moves_left, "RB-3");
    let mut moved = BTreeMap::new();
    let mut together: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
    for made in moves {
        let agent = &seen.agents[made.agent as usize];
        let to = &seen.nodes[made.to as usize];
        assert!(moved.insert(made.agent, made.to).is_none(), "RB-3: an agent moves once");
        assert!(agent.moved_at.is_none_or(|at| world.now - at >= limits.cool_down), "RB-3");
        assert!(to.state == NodeState::Open && made.from != made.to, "RB-2");
        assert!(to.has(&agent.labels), "RB-1: labels");
    }
    for (at, agent) in seen.agents.iter().enumerate() {
        if let Some(gang) = agent.gang {
            let now_at = moved.get(&(at as u32)).copied().unwrap_or(agent.node);
            together.entry((gang, agent.node)).or_default().insert(now_at);
        }
    }
    assert!(together.values().all(|nodes| nodes.len() == 1), "RB-4");
    world.carry_out(moves);
    let after = world.seen(0, &mut Dice(0));
    for node in moved.values() {
        let node = &after.nodes[*node as usize];
        assert!(node.used.fits(&node.capacity), "RB-1: capacity");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Without a bound on moves: each agent moves at most once, no node is filled too far, and it ends.
    #[test]
    fn rebalancing_ends_and_keeps_to_its_rules(
        seed: u64, nodes in 0usize..12, agents in 0usize..80, level in 100_000u64..1_300_000, strategy in 0usize..5,
    ) {
        let mut world = World::drawn(seed, nodes, if nodes == 0 { 0 } else { agents }, level);
        let limits = limits(STRATEGIES[strategy]);
        let sources = (world.seen(0, &mut Dice(0)).nodes.iter())
            .filter(|node| node.pressure() > limits.overload || node.state == NodeState::Draining)
            .count();
        let (mut rounds, mut ever) = (0, BTreeSet::new());
        loop {
            let seen = world.seen(0, &mut Dice(0));
            let moves = play(&mut world, &seen, &limits);
            let after = world.seen(0, &mut Dice(0));
            for made in &moves {
                prop_assert!(ever.insert(made.agent), "no agent moves a second time when nothing changes");
                prop_assert!(after.nodes[made.to as usize].pressure() <= limits.relieved + ROUNDING, "RB-1");
            }
            rounds += 1;
            // Those that moved before this began may move a minute later.
            if moves.is_empty() && world.now >= Millis(1_060_000) {
                break;
            }
            world.now += Millis(60_000);
            prop_assert!(rounds <= 3 + sources, "{rounds} rounds for {sources} nodes");
        }
    }

    /// Figures that are off by less than half of the gap between the two marks change nothing about that.
    #[test]
    fn noise_within_the_hysteresis_moves_no_agent_twice(
        seed: u64, nodes in 2usize..12, agents in 0usize..80, level in 300_000u64..1_000_000, strategy in 0usize..5,
    ) {
        let mut world = World::drawn(seed, nodes, agents, level);
        let limits = limits(STRATEGIES[strategy]);
        let (mut dice, mut ever) = (Dice(seed ^ 1), BTreeSet::new());
        for _ in 0..12 {
            let seen = world.seen(40_000, &mut dice);
            for made in play(&mut world, &seen, &limits) {
                prop_assert!(ever.insert(made.agent), "it moved before");
            }
            world.now += Millis(60_000);
        }
    }

    /// Whatever the figures do, an agent stays where it came to for a minute, and a minute has its budget.
    #[test]
    fn wild_figures_are_bounded_by_the_budget_and_the_cool_down(
        seed: u64, nodes in 2usize..12, agents in 1usize..80, level in 300_000u64..1_000_000, strategy in 0usize..5,
    ) {
        let mut world = World::drawn(seed, nodes, agents, level);
        let mut dice = Dice(seed ^ 2);
        let mut moved: Vec<Millis> = Vec::new();
        for _ in 0..20 {
            let seen = world.seen(500_000, &mut dice);
            let limits = RebalanceLimits { moves_left: seen.moves_left(10, world.now), ..limits(STRATEGIES[strategy]) };
            let moves = play(&mut world, &seen, &limits);
            moved.extend(moves.iter().map(|_| world.now));
            let in_a_minute = moved.iter().filter(|at| (world.now - **at).0 < 60_000).count();
            prop_assert!(in_a_minute <= agents.div_ceil(10));
            world.now += Millis(7_000);
        }
    }
}

/// Four nodes of ten cores, agents of a quarter of a core, so many on each.
fn plain(on_each: &[usize], state: &[NodeState]) -> World {
    let mut world = World::drawn(1, on_each.len(), 0, 0);
    for (node, state) in world.nodes.iter_mut().zip(state) {
        node.capacity.cpu_milli = 10_000;
        node.capacity.memory_bytes = 64 << 30;
        node.speed = 100;
        node.mailbox_age = Millis(0);
        node.state = *state;
    }
    let sample = World::drawn(1, 1, 1, 0).agents.remove(0);
    for (node, count) in on_each.iter().enumerate() {
        for _ in 0..*count {
            world.uses.push(nexa_sched::Resources { cpu_milli: 250, ..Default::default() });
            world.agents.push(nexa_sched::AgentLoad {
                node: node as u32,
                holds: nexa_sched::Resources { cpu_milli: 100, ..Default::default() },
                labels: Default::default(),
                gang: None,
                moved_at: None,
                talks_to: Vec::new(),
                move_bytes: 0,
                ..sample.clone()
            });
        }
    }
    world
}

const OPEN: NodeState = NodeState::Open;

#[test]
fn an_overloaded_node_is_relieved_to_the_lower_mark_and_no_further() {
    for strategy in STRATEGIES {
        let mut world = plain(&[36, 10, 10, 10], &[OPEN; 4]);
        let seen = world.seen(0, &mut Dice(0));
        let moves = play(&mut world, &seen, &limits(strategy));
        assert_eq!(moves.len(), 8, "{strategy:?}: from 90 % to 70 %, 2.5 % each");
        let seen = world.seen(0, &mut Dice(0));
        assert_eq!(seen.nodes[0].pressure(), 700_000);
        assert!(seen.nodes.iter().all(|node| node.pressure() <= 700_000));
    }
}

#[test]
fn between_the_marks_nothing_moves_in_any_direction() {
    for strategy in STRATEGIES {
        for count in [29, 30, 31, 32] {
            let mut world = plain(&[count, 0, 0, 0], &[OPEN; 4]);
            let seen = world.seen(0, &mut Dice(0));
            assert!(play(&mut world, &seen, &limits(strategy)).is_empty());
        }
    }
}

#[test]
fn where_all_are_overloaded_or_there_is_one_node_or_none_nothing_moves() {
    for strategy in STRATEGIES {
        for on_each in [&[38usize, 39, 40, 36][..], &[40], &[]] {
            let mut world = plain(on_each, &[OPEN; 4]);
            let seen = world.seen(0, &mut Dice(0));
            assert!(play(&mut world, &seen, &limits(strategy)).is_empty(), "{strategy:?} {on_each:?}");
        }
    }
}

#[test]
fn a_draining_node_is_emptied_by_priority_as_far_as_the_budget_goes() {
    for strategy in STRATEGIES {
        let mut world = plain(&[10, 4, 0, 0], &[NodeState::Draining, OPEN, NodeState::Cordoned, OPEN]);
        for (at, agent) in world.agents.iter_mut().enumerate() {
            agent.priority = at as u8;
        }
        let mut left = limits(strategy);
        left.moves_left = 3;
        let mut gone = Vec::new();
        loop {
            let seen = seen_of(&world);
            let moves = play(&mut world, &seen, &left);
            if moves.is_empty() {
                break;
            }
            gone.extend(moves.iter().map(|made| made.agent));
        }
        assert_eq!(gone, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0], "{strategy:?}");
        assert!(world.agents.iter().all(|agent| agent.node == 1 || agent.node == 3));
    }
}

fn seen_of(world: &World) -> SystemLoad {
    world.seen(0, &mut Dice(0))
}

#[test]
fn what_is_cheap_to_move_and_relieves_most_goes_first() {
    let mut world = plain(&[36, 10], &[OPEN; 2]);
    for agent in &mut world.agents {
        agent.move_bytes = 256 << 20;
    }
    world.uses[7].cpu_milli = 1_000;
    world.agents[9].move_bytes = 0;
    let seen = seen_of(&world);
    let moves = play(&mut world, &seen, &limits(LoadBalanceStrategy::LeastLoaded));
    assert_eq!(moves.iter().map(|made| made.agent).take(3).collect::<Vec<_>>(), [9, 7, 0]);
}

#[test]
fn talkers_stay_together_if_they_can() {
    let mut world = plain(&[34, 10, 10], &[OPEN; 3]);
    for at in 0..34u32 {
        // All but the last three talk to each other; those talk to one on node 2.
        world.agents[at as usize].talks_to = vec![if at < 31 { ((at + 1) % 31, MILLION) } else { (50, MILLION) }];
    }
    let seen = seen_of(&world);
    let moves = play(&mut world, &seen, &limits(LoadBalanceStrategy::Adaptive));
    let first: Vec<(u32, u32)> = moves.iter().map(|made| (made.agent, made.to)).take(3).collect();
    assert_eq!(first, [(31, 2), (32, 2), (33, 2)]);
    assert_eq!(moves.len(), 6);
}

#[test]
fn a_gang_goes_together_or_stays() {
    let mut world = plain(&[36, 24, 20], &[OPEN; 3]);
    for agent in &mut world.agents[..6] {
        agent.gang = Some(1);
        agent.priority = 0;
    }
    for agent in &mut world.agents[6..] {
        agent.priority = 9;
    }
    let seen = seen_of(&world);
    let moves = play(&mut world, &seen, &limits(LoadBalanceStrategy::PriorityBased));
    let gang: Vec<u32> = moves.iter().filter(|made| made.agent < 6).map(|made| made.to).collect();
    assert_eq!(gang, [2; 6], "node 1 has room for four more, node 2 for all six");
    assert_eq!(moves.len(), 8);
    let mut world = plain(&[36, 24], &[OPEN; 2]);
    world.agents[..6].iter_mut().for_each(|agent| agent.gang = Some(1));
    let seen = seen_of(&world);
    let moves = play(&mut world, &seen, &limits(LoadBalanceStrategy::LeastLoaded));
    assert!(moves.len() == 4 && moves.iter().all(|made| made.agent >= 6), "{moves:?}");
}

#[test]
fn a_slower_node_is_known_to_be_filled_sooner() {
    let mut world = plain(&[40, 0], &[OPEN; 2]);
    world.nodes[1].speed = 25;
    let seen = seen_of(&world);
    let moves = play(&mut world, &seen, &limits(LoadBalanceStrategy::LeastLoaded));
    assert_eq!(moves.len(), 7, "each takes a tenth of the slow node");
    assert_eq!(seen_of(&world).nodes[1].pressure(), 700_000);
}
