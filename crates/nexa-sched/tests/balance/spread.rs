//! Filling nodes that came newly.

use std::collections::BTreeSet;

use nexa_sched::{
    LoadBalanceStrategy, MILLION, MoveReason, NodeState, RebalanceLimits, Resources, SystemLoad, rebalance, spread,
};
use nexa_types::Millis;
use proptest::prelude::*;

use crate::rebalance::{ROUNDING, carry_out};
use crate::world::{Dice, STRATEGIES, World};

/// A cluster of nodes of different size that is more or less even, with agents that are small beside the tolerance, and
/// new nodes at its end. Only the processor is scarce.
fn even(seed: u64, old: usize, new: usize, on_each: u64, skew: bool) -> World {
    let mut dice = Dice(seed);
    let mut world = World::drawn(seed, old + new, 0, 0);
    for node in &mut world.nodes {
        node.capacity.cpu_milli = dice.within(4, 8) * 10_000;
        node.capacity.memory_bytes = 1 << 50;
        node.state = NodeState::Open;
    }
    let strength =
        |world: &World, node: usize| world.nodes[node].capacity.cpu_milli * u64::from(world.nodes[node].speed) / 100;
    let smallest = (0..old + new).map(|node| strength(&world, node)).min().expect("nodes");
    let all: u64 = (0..old).map(|node| strength(&world, node)).sum();
    let sample = World::drawn(1, 1, 1, 0).agents.remove(0);
    let mut used = vec![0u64; old];
    // To 30 to 60 % of the old nodes, by agents of up to a twentieth of the smallest.
    let (mut left, size_max) = (all * dice.within(30, 60) / 100, smallest / 20 * 10 / on_each.max(10));
    while left > 0 {
        // Whole at every speed.
        let size = dice.within(size_max / 40 + 1, size_max / 4) * 4;
        left = left.saturating_sub(size);
        let node = if skew && dice.is_one_in(8) {
            dice.within(0, old as u64 - 1) as usize
        } else {
            (0..old).min_by_key(|node| (used[*node] + size) * 1_000 / strength(&world, *node)).expect("nodes")
        };
        used[node] += size;
        world.uses.push(Resources { cpu_milli: size, ..Resources::default() });
        world.agents.push(nexa_sched::AgentLoad {
            node: node as u32,
            holds: Resources::default(),
            labels: Default::default(),
            gang: None,
            moved_at: None,
            talks_to: Vec::new(),
            weight: dice.within(800, 1_200),
            priority: dice.within(0, 255) as u8,
            move_bytes: dice.within(0, 1 << 30),
            ..sample.clone()
        });
    }
    world
}

/// What is spread: how much each node has, of how much, and how much each agent takes along.
struct Spread {
    nodes: Vec<(f64, f64)>,
    agents: Vec<f64>,
    low: f64,
    high: f64,
}

impl Spread {
    fn of(load: &SystemLoad, uses: &[Resources], limits: &RebalanceLimits) -> Self {
        let strength = |node: usize| {
            let node: &nexa_sched::NodeLoad = &load.nodes[node];
            (node.capacity.cpu_milli * u64::from(node.speed)) as f64 / 100.0
        };
        let (agents, of): (Vec<f64>, Vec<f64>) = match limits.strategy {
            LoadBalanceStrategy::RoundRobin => {
                (load.agents.iter().map(|_| 1.0).collect(), load.nodes.iter().map(|_| 1.0).collect())
            }
            LoadBalanceStrategy::WeightedFair => (
                load.agents.iter().map(|agent| agent.weight as f64).collect(),
                (0..load.nodes.len()).map(strength).collect(),
            ),
            _ => {
                (uses.iter().map(|uses| uses.cpu_milli as f64).collect(), (0..load.nodes.len()).map(strength).collect())
            }
        };
        let mut nodes: Vec<(f64, f64)> = of.into_iter().map(|of| (0.0, of)).collect();
        for (agent, size) in load.agents.iter().zip(&agents) {
            nodes[agent.node as usize].0 += size;
        }
        let mean = nodes.iter().map(|node| node.0).sum::<f64>() / nodes.iter().map(|node| node.1).sum::<f64>();
        let part = limits.tolerance as f64 / MILLION as f64;
        let tolerance = match limits.strategy {
            LoadBalanceStrategy::RoundRobin => (mean * part).max(0.5),
            LoadBalanceStrategy::WeightedFair => mean * part,
            _ => part,
        };
        Self { nodes, agents, low: mean - tolerance, high: mean + tolerance }
    }

    /// A number of moves that no plan can do with less: each old node gives what it has above the band, by its largest, and
    /// the new nodes get what they still lack from the largest that are left, no old node giving more than it has above the
    /// band's lower end. Agents may be cut for this, which makes it a bound: the least of the relaxed problem. Its band is
    /// narrower by what a scheduler's figures are rounded by.
    fn least(&self, load: &SystemLoad, old: usize) -> usize {
        let mut largest: Vec<(f64, usize, f64)> =
            self.agents.iter().zip(&load.agents).map(|(size, agent)| (*size, agent.node as usize, 1.0)).collect();
        largest.sort_by(|one, other| other.0.total_cmp(&one.0));
        let rounding = 1e-5 * (self.low + self.high);
        let (low, high) = (self.low + rounding, self.high - rounding);
        let mut excess: Vec<f64> = self.nodes[..old].iter().map(|(has, of)| (has - high * of).max(0.0)).collect();
        let mut spare: Vec<f64> = self.nodes[..old].iter().map(|(has, of)| (has - low * of).max(0.0)).collect();
        let mut lacking: f64 = self.nodes[old..].iter().map(|(has, of)| (low * of - has).max(0.0)).sum();
        let mut moves = 0.0;
        for is_forced in [true, false] {
            for (size, node, left) in &mut largest {
                let wanted = if is_forced { excess[*node] } else { lacking.max(0.0).min(spare[*node]) };
                let taken = wanted.min(*size * *left);
                excess[*node] -= taken;
                spare[*node] -= taken;
                lacking -= taken;
                *left -= taken / *size;
                moves += taken / *size;
            }
        }
        (moves - 1e-9).ceil() as usize
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn a_new_node_is_filled_with_at_most_a_fifth_more_moves_than_the_least(
        seed: u64, old in 1usize..8, new in 1usize..3, on_each in 10u64..20, skew: bool, strategy in 0usize..5,
    ) {
        let mut world = even(seed, old, new, on_each, skew);
        let limits = RebalanceLimits { strategy: STRATEGIES[strategy], ..RebalanceLimits::default() };
        let joined: Vec<u32> = (old as u32..(old + new) as u32).collect();
        let seen = world.seen(0, &mut Dice(0));
        let before = Spread::of(&seen, &world.uses, &limits);
        let least = before.least(&seen, old);
        let mut moved = BTreeSet::new();
        // Figures are rounded, so that a node that is as full as may be can have room for one more when it is asked again.
        for round in 0.. {
            let seen = world.seen(0, &mut Dice(0));
            let moves = spread(&seen, &joined, &limits, world.now);
            prop_assert_eq!(&moves, &spread(&seen, &joined, &limits, world.now));
            for made in &moves {
                prop_assert!(made.to as usize >= old && matches!(made.why, MoveReason::Joined { .. }), "{:?}", made);
                prop_assert!(moved.insert(made.agent), "it moved before");
            }
            prop_assert_eq!(rebalance(&seen, &limits, world.now), vec![], "relieving leaves it alone");
            world.carry_out(&moves);
            world.now += Millis(60_000);
            prop_assert!(round < 3, "it ends");
            if moves.is_empty() {
                break;
            }
        }
        let seen = world.seen(0, &mut Dice(0));
        let after = Spread::of(&seen, &world.uses, &limits);
        // Agents are whole, and their uses are rounded up on each node.
        let about = |of: f64| 2e-3 * of * (after.high + after.low);
        for (node, (has, of)) in after.nodes.iter().enumerate() {
            if limits.strategy == LoadBalanceStrategy::RoundRobin || limits.strategy == LoadBalanceStrategy::WeightedFair {
                // Sizes are not small beside the tolerance there.
                continue;
            }
            prop_assert!(node >= old || *has <= after.high * of + about(*of), "old node {node} is above: {has} of {of}");
            let kept_enough = *has >= after.low * of - about(*of) || *has >= before.nodes[node].0;
            prop_assert!(node >= old || kept_enough, "old node {node} gave too much: {has} of {of}");
            prop_assert!(node < old || *has >= after.low * of - about(*of), "new node {node} is below: {has} of {of}");
        }
        // The bound fills new nodes with parts of agents. Whole ones may be one more for each node but the first, and a fifth
        // more of them is rounded up.
        let allowed = (least * 12).div_ceil(10) + new - 1;
        prop_assert!(moved.len() <= allowed, "{} moves, {least} would do", moved.len());
    }

    /// On any cluster, however uneven, full and restricted, whatever its strategy.
    #[test]
    fn spreading_ends_and_keeps_to_the_rules(
        seed: u64, nodes in 1usize..12, agents in 0usize..80, level in 50_000u64..1_000_000, strategy in 0usize..5,
    ) {
        let mut world = World::drawn(seed, nodes, agents, level);
        let mut dice = Dice(seed ^ 3);
        // Some are new and empty, some are named that are old, and one that is not there.
        let new: Vec<u32> = (0..nodes as u32).filter(|_| dice.is_one_in(3)).collect();
        let home = (0..nodes as u32).find(|node| !new.contains(node));
        for agent in &mut world.agents {
            if let (Some(home), true) = (home, new.contains(&agent.node) && !dice.is_one_in(4)) {
                agent.node = home;
            }
        }
        let joined: Vec<u32> = new.iter().copied().chain([nodes as u32]).collect();
        let mut ever = BTreeSet::new();
        for round in 0.. {
            let seen = world.seen(0, &mut Dice(0));
            let limits = RebalanceLimits {
                strategy: STRATEGIES[strategy],
                moves_left: seen.moves_left(20, world.now),
                ..RebalanceLimits::default()
            };
            let moves = spread(&seen, &joined, &limits, world.now);
            carry_out(&mut world, &seen, &limits, &moves);
            let after = world.seen(0, &mut Dice(0));
            for made in &moves {
                prop_assert!(joined.contains(&made.to) && !joined.contains(&made.from));
                prop_assert!(ever.insert(made.agent), "it moved before");
                prop_assert!(after.nodes[made.to as usize].pressure() <= limits.relieved + ROUNDING, "RB-1");
            }
            if moves.is_empty() && world.now >= Millis(1_060_000) {
                break;
            }
            world.now += Millis(60_000);
            prop_assert!(round <= agents + 1, "it ends");
        }
    }
}
