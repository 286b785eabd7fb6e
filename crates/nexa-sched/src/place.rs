//! Where one agent goes that starts now.
//!
//! In:  what each node has free, what the agent needs, a number (a throw of dice, or a turn).
//! Out: a node with room and the labels asked for, if there is one.
//!
//! Two nodes with room are drawn and the better one is taken: "the power of two choices" (Mitzenmacher, "The Power of Two
//! Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001), which fills nodes nearly as evenly as taking the best of
//! all, in constant time. It is also safer than the best of all where figures are old: the best one would get everything
//! until the next figures come (Mitzenmacher, "How Useful Is Old Information?", IEEE TPDS 11(1), 2000).
//!
//! | strategy | which of the two |
//! |---|---|
//! | `RoundRobin` | no drawing: the first with room from `dice` on; the caller passes the last answer plus one |
//! | `LeastLoaded`, `WeightedFair` | where the least is held afterwards, of what is scarcest there |
//! | `PriorityBased` | where it has its first turn soonest: fewest waiting for a core, fast cores counting more |
//! | `Adaptive` | where [cost](crate::NodeLoad::cost) and what is held afterwards, together, are least |
//!
//! Nothing is allocated and nothing sorted. Not here: several that must start together ([`place_gang`](crate::place_gang)).

use crate::load::part;
use crate::{Labels, LoadBalanceStrategy, Resources};

/// How many draws are made for two nodes with room before they are looked for one after the other.
const DRAWS: u32 = 8;

/// A node's side of placing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeFree<'a> {
    /// What nobody holds.
    pub free: Resources,
    /// What it has in all.
    pub capacity: Resources,
    /// How fast it computes, in percent of the reference. 0 is taken for 1.
    pub speed: u32,
    /// What it costs to be there, in millionths; see [`NodeLoad::cost`](crate::NodeLoad::cost).
    pub cost: u64,
    /// Agents that wait for a turn there.
    pub run_queue: u64,
    /// Whether it takes new agents.
    pub is_open: bool,
    /// What may be asked of it.
    pub labels: &'a Labels,
}

impl NodeFree<'_> {
    /// Whether it takes the agent.
    #[must_use]
    pub fn takes(&self, demand: &Resources, labels: &Labels) -> bool {
        self.is_open
            && demand.fits(&self.free)
            && labels.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }

    /// How bad it would be for the agent, by the strategy.
    fn badness(&self, demand: &Resources, strategy: LoadBalanceStrategy) -> u64 {
        let held = || {
            let left = self.free.minus(demand);
            let of = |left: u64, all: u64| if all == 0 { 0 } else { part(all.saturating_sub(left), all) };
            of(left.cpu_milli, self.capacity.cpu_milli)
                .max(of(left.memory_bytes, self.capacity.memory_bytes))
                .max(of(left.llm_slots, self.capacity.llm_slots))
        };
        match strategy {
            LoadBalanceStrategy::RoundRobin => 0,
            LoadBalanceStrategy::LeastLoaded | LoadBalanceStrategy::WeightedFair => held(),
            LoadBalanceStrategy::PriorityBased => {
                let turns = self.capacity.cpu_milli.saturating_mul(u64::from(self.speed.max(1)));
                // A core at speed 100 is 100,000 of these turns.
                part(self.run_queue.saturating_add(1).saturating_mul(100_000), turns)
            }
            LoadBalanceStrategy::Adaptive => self.cost.saturating_add(held()),
        }
    }
}

/// A node for one agent, by its place in `nodes`; none if none has room and labels. `dice` is drawn anew for each question,
/// but for `RoundRobin`, where it is the place to begin at.
#[must_use]
pub fn place_one(
    nodes: &[NodeFree<'_>],
    demand: &Resources,
    labels: &Labels,
    strategy: LoadBalanceStrategy,
    dice: u64,
) -> Option<u32> {
    let count = nodes.len() as u64;
    if count == 0 {
        return None;
    }
    let takes = |at: &u64| nodes[*at as usize].takes(demand, labels);
    let from = |begin: u64| (0..count).map(move |turn| (begin % count + turn) % count);
    if strategy == LoadBalanceStrategy::RoundRobin {
        return from(dice).find(takes).map(|at| at as u32);
    }
    let mut draw = dice;
    let mut first = None;
    for _ in 0..DRAWS {
        draw = mixed(draw);
        // The upper half of the product: as even as the draw, without a division (Lemire, ACM TOMACS 29(1), 2019).
        let at = ((u128::from(draw) * u128::from(count)) >> 64) as u64;
        if first == Some(at) || !takes(&at) {
            continue;
        }
        match first {
            None => first = Some(at),
            Some(other) => return Some(better(nodes, demand, strategy, other, at)),
        }
    }
    // Few have room. Looking through all of them from a drawn one still spreads, and finds the only one.
    let mut rest = from(mixed(draw)).filter(|at| first != Some(*at)).filter(takes);
    match (first.or_else(|| rest.next()), rest.next()) {
        (Some(one), Some(other)) => Some(better(nodes, demand, strategy, one, other)),
        (one, _) => one.map(|at| at as u32),
    }
}

/// The better of two nodes; the one drawn first if they are equal.
fn better(nodes: &[NodeFree<'_>], demand: &Resources, strategy: LoadBalanceStrategy, one: u64, other: u64) -> u32 {
    let badness = |at: u64| nodes[at as usize].badness(demand, strategy);
    (if badness(other) < badness(one) { other } else { one }) as u32
}

/// From one draw's seed to the next.
pub(crate) const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

/// The next of a series of even draws (SplitMix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators",
/// OOPSLA 2014, fig. 16).
pub(crate) fn mixed(seed: u64) -> u64 {
    let seed = seed.wrapping_add(STRIDE);
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Resources = Resources { cpu_milli: 100_000, memory_bytes: 1 << 40, llm_slots: 1_000 };
    const ONE: Resources = Resources { cpu_milli: 100, memory_bytes: 1 << 20, llm_slots: 1 };

    fn idle(labels: &Labels) -> NodeFree<'_> {
        NodeFree { free: CAPACITY, capacity: CAPACITY, speed: 100, cost: 0, run_queue: 0, is_open: true, labels }
    }

    const ALL: [LoadBalanceStrategy; 5] = [
        LoadBalanceStrategy::RoundRobin,
        LoadBalanceStrategy::LeastLoaded,
        LoadBalanceStrategy::WeightedFair,
        LoadBalanceStrategy::PriorityBased,
        LoadBalanceStrategy::Adaptive,
    ];

    #[test]
    fn the_only_node_with_room_is_found_and_none_is_made_up() {
        let none = Labels::new();
        let eu = Labels::from([("zone".to_owned(), "eu".to_owned())]);
        for strategy in ALL {
            for only in 0..100 {
                let mut nodes = vec![NodeFree { free: ONE.minus(&ONE), ..idle(&none) }; 100];
                nodes[only] = idle(&eu);
                let place = |labels| place_one(&nodes, &ONE, labels, strategy, mixed(only as u64));
                assert_eq!((place(&none), place(&eu)), (Some(only as u32), Some(only as u32)), "{strategy:?}");
                assert_eq!(place(&Labels::from([("zone".to_owned(), "us".to_owned())])), None);
                nodes[only].is_open = false;
                assert_eq!(place_one(&nodes, &ONE, &none, strategy, 7), None);
            }
            assert_eq!(place_one(&[], &ONE, &none, strategy, 7), None);
        }
    }

    #[test]
    fn taking_turns_visits_every_node_with_room() {
        let none = Labels::new();
        let mut nodes = vec![idle(&none); 4];
        nodes[2].is_open = false;
        let mut cursor = 0;
        let places: Vec<u32> = (0..6)
            .map(|_| {
                let at = place_one(&nodes, &ONE, &none, LoadBalanceStrategy::RoundRobin, cursor).expect("room");
                cursor = u64::from(at) + 1;
                at
            })
            .collect();
        assert_eq!(places, [0, 1, 3, 0, 1, 3]);
    }

    /// With n agents on n nodes the fullest has about ln n / ln ln n of them by one draw, and ln ln n / ln 2 by two.
    #[test]
    fn two_choices_fill_nodes_far_more_evenly_than_one() {
        let none = Labels::new();
        let mut nodes = vec![idle(&none); 1_000];
        let mut one_draw = vec![0u64; 1_000];
        for turn in 0..10_000u64 {
            let at = place_one(&nodes, &ONE, &none, LoadBalanceStrategy::LeastLoaded, mixed(turn)).expect("room");
            nodes[at as usize].free = nodes[at as usize].free.minus(&ONE);
            one_draw[(mixed(turn) % 1_000) as usize] += 1;
        }
        let fullest = nodes.iter().map(|node| CAPACITY.llm_slots - node.free.llm_slots).max().expect("nodes");
        assert!(fullest <= 13, "ten each is even; the fullest has {fullest}");
        assert!(*one_draw.iter().max().expect("nodes") > 18, "one draw is worse, or this shows nothing");
    }

    #[test]
    fn strategies_look_at_different_things() {
        let none = Labels::new();
        let held = NodeFree { free: ONE, ..idle(&none) };
        let queued = NodeFree { run_queue: 1_000, ..idle(&none) };
        let costly = NodeFree { cost: 900_000, run_queue: 1, ..idle(&none) };
        let place = |nodes: &[NodeFree<'_>], strategy| place_one(nodes, &ONE, &none, strategy, 3).expect("room");
        assert_eq!(place(&[held, queued], LoadBalanceStrategy::LeastLoaded), 1);
        assert_eq!(place(&[held, queued], LoadBalanceStrategy::PriorityBased), 0);
        assert_eq!(place(&[costly, queued], LoadBalanceStrategy::Adaptive), 1);
        let (slow, fast) =
            (NodeFree { run_queue: 4, ..idle(&none) }, NodeFree { run_queue: 5, speed: 400, ..idle(&none) });
        assert_eq!(place(&[slow, fast], LoadBalanceStrategy::PriorityBased), 1);
    }
}
