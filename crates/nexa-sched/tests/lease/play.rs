//! Histories of slices from a seed: what the tests here play, and what a proof of the simulation plays with bugs.

use nexa_sched::ProviderBudget;
use nexa_sched::lease::Cost;

use super::dice::Dice;
use super::world::World;

pub(crate) const STEPS: u64 = 300;

pub(crate) fn budget(provider: &str, limits: [Option<u64>; 4]) -> ProviderBudget {
    let [requests_per_minute, input_tokens_per_minute, output_tokens_per_minute, concurrency] = limits;
    let provider = provider.to_owned();
    ProviderBudget { provider, requests_per_minute, input_tokens_per_minute, output_tokens_per_minute, concurrency }
}

pub(crate) fn world(seed: u64, is_roomy: bool) -> World {
    let mut dice = Dice::new(!seed);
    let nodes = dice.between(2, 6);
    let mut limits = || {
        let mut limit = |choices: &[u64], least: u64| {
            let choice = dice.pick(choices);
            let choice = if is_roomy { choice.max(least * nodes * 2) } else { choice };
            (!dice.percent(30)).then_some(choice)
        };
        [
            limit(&[0, 3, 10, 100, 600, 600], 20),
            limit(&[90, 1_000, 10_000, 50_000], 100),
            limit(&[50, 600, 5_000, 25_000], 50),
            limit(&[1, 5, 40, 100], 20),
        ]
    };
    let budgets = vec![budget("near", limits()), budget("far", limits())];
    let mut world = World::new(seed, usize::try_from(nodes).expect("a few"), budgets);
    world.has_faults = true;
    let costs = if is_roomy { &[(100, 50)][..] } else { &[(100, 50), (20, 5), (90, 1)] };
    let (input_tokens, output_tokens) = dice.pick(costs);
    world.cost_max = Cost { input_tokens, output_tokens };
    for node in &mut world.nodes {
        node.appetite = dice.pick(&[0, 1, 100, 100]);
    }
    world
}

/// Everything goes wrong that can.
pub(crate) fn troubles(world: &mut World) {
    for _ in 0..STEPS {
        let millis = world.dice.between(100, 1_000);
        world.pass(millis);
        world.check();
        if world.dice.percent(12) {
            world.trouble();
        }
        if world.has_no_leader() && world.dice.percent(10) {
            world.elect();
        }
    }
}

/// Nodes that want all they can get, and lose their leases again and again without knowing it for a while.
pub(crate) fn stubborn(seed: u64) -> World {
    let mut world = World::new(2 * seed, 3, vec![budget("near", [Some(600), None, None, None])]);
    world.nodes.iter_mut().for_each(|node| node.appetite = 100);
    world.are_stubborn = true;
    for _ in 0..2 * STEPS {
        let millis = world.dice.between(100, 400);
        world.pass(millis);
        world.check();
        if world.dice.percent(2) {
            world.lease_ends();
        } else if world.dice.percent(1) {
            world.elect();
        }
    }
    world
}
