//! A small cluster that is drawn from a seed, with the truth about what its agents do, and what a scheduler sees of it.

use nexa_sched::{
    AgentLoad, Labels, LoadBalanceStrategy, MILLION, NodeLoad, NodeState, Resources, ScheduleAdjustment, SystemLoad,
};
use nexa_types::{AgentId, Millis};

/// A series of even draws.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    }

    /// From `least` to `most`, both included.
    pub(crate) fn within(&mut self, least: u64, most: u64) -> u64 {
        least + self.draw() % (most - least + 1)
    }

    pub(crate) fn is_one_in(&mut self, many: u64) -> bool {
        self.draw().is_multiple_of(many)
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.within(0, choices.len() as u64 - 1) as usize]
    }

    /// Even in [0, 1).
    pub(crate) fn part(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }
}

pub(crate) const STRATEGIES: [LoadBalanceStrategy; 5] = [
    LoadBalanceStrategy::RoundRobin,
    LoadBalanceStrategy::LeastLoaded,
    LoadBalanceStrategy::WeightedFair,
    LoadBalanceStrategy::PriorityBased,
    LoadBalanceStrategy::Adaptive,
];

/// The truth. Agents use what they use wherever they are; processor in cores of the reference.
pub(crate) struct World {
    pub(crate) nodes: Vec<NodeLoad>,
    pub(crate) agents: Vec<AgentLoad>,
    /// What each agent uses, by its place.
    pub(crate) uses: Vec<Resources>,
    pub(crate) now: Millis,
}

impl World {
    /// A cluster in which all agents together use about `level` millionths of it, more on some nodes than on others.
    pub(crate) fn drawn(seed: u64, nodes: usize, agents: usize, level: u64) -> Self {
        let mut dice = Dice(seed);
        let mut world = Self { nodes: Vec::new(), agents: Vec::new(), uses: Vec::new(), now: Millis(1_000_000) };
        let zone = |dice: &mut Dice| Labels::from([("zone".to_owned(), dice.one_of(&["a", "b"]).to_owned())]);
        for _ in 0..nodes {
            let cores = dice.within(2, 32);
            world.nodes.push(NodeLoad {
                capacity: Resources { cpu_milli: cores * 1_000, memory_bytes: cores << 32, llm_slots: cores * 32 },
                speed: dice.one_of(&[50, 100, 100, 200]),
                mailbox_age: Millis(dice.within(0, 20_000)),
                state: dice.one_of(&[
                    NodeState::Open,
                    NodeState::Open,
                    NodeState::Open,
                    NodeState::Open,
                    NodeState::Cordoned,
                    NodeState::Draining,
                ]),
                labels: zone(&mut dice),
                ..NodeLoad::default()
            });
        }
        if nodes == 0 {
            return world;
        }
        let all = |of: fn(&NodeLoad) -> u64| world.nodes.iter().map(of).sum::<u64>();
        let each = |all: u64| {
            u64::try_from(u128::from(all) * u128::from(level) / 1_000_000).expect("small") / agents.max(1) as u64
        };
        let cpu = each(all(|node| node.capacity.cpu_milli * u64::from(node.speed) / 100));
        let memory = each(all(|node| node.capacity.memory_bytes));
        let slots = each(all(|node| node.capacity.llm_slots));
        let crowded = dice.within(1, nodes as u64) as usize;
        for at in 0..agents {
            // Few large ones and many small ones, with this mean.
            let mut size = |mean: u64| {
                let scale = dice.one_of(&[1, 1, 2, 2, 4, 10]);
                dice.within(0, mean * 2) * scale * 3 / 10
            };
            let uses = Resources { cpu_milli: size(cpu), memory_bytes: size(memory), llm_slots: size(slots) };
            let node =
                if dice.is_one_in(2) { dice.within(0, nodes as u64 - 1) } else { dice.within(0, crowded as u64 - 1) };
            let (talks, bytes_max) = (dice.within(0, 3), 1 << dice.within(10, 31));
            world.uses.push(uses);
            world.agents.push(AgentLoad {
                id: AgentId::from_slice(&(at as u128).to_be_bytes()).expect("sixteen bytes"),
                node: node as u32,
                holds: Resources {
                    cpu_milli: uses.cpu_milli / 2,
                    memory_bytes: uses.memory_bytes,
                    llm_slots: uses.llm_slots,
                },
                uses,
                move_bytes: dice.within(0, bytes_max),
                labels: if dice.is_one_in(5) { zone(&mut dice) } else { Labels::new() },
                priority: dice.within(0, 255) as u8,
                weight: dice.within(0, 4_000),
                gang: dice.is_one_in(4).then(|| dice.within(0, 1 + agents as u64 / 8)),
                moved_at: dice.is_one_in(8).then(|| Millis(dice.within(930_000, 1_000_000))),
                talks_to: (0..talks).map(|_| (dice.within(0, agents as u64) as u32, dice.within(0, MILLION))).collect(),
            });
        }
        world
    }

    /// What is seen now: the truth, and up to so many millionths of it more or less on each node.
    pub(crate) fn seen(&self, noise: u64, dice: &mut Dice) -> SystemLoad {
        let (mut nodes, mut agents) = (self.nodes.clone(), self.agents.clone());
        let mut sums = vec![(Resources::default(), Resources::default()); nodes.len()];
        for (agent, uses) in agents.iter().zip(&self.uses) {
            let sum = &mut sums[agent.node as usize];
            *sum = (sum.0.plus(uses), sum.1.plus(&agent.holds));
        }
        for (node, (uses, holds)) in nodes.iter_mut().zip(sums) {
            let scarce = MILLION - noise + dice.within(0, 2 * noise);
            let seen = |used: u64, of: u64| {
                u64::try_from(u128::from(used) * u128::from(scarce) / u128::from(of.max(1))).expect("small")
            };
            node.cpu = seen(uses.cpu_milli * 100, node.capacity.cpu_milli * u64::from(node.speed));
            node.memory = seen(uses.memory_bytes, node.capacity.memory_bytes);
            node.model_calls = uses.llm_slots;
            node.used = holds;
        }
        for (agent, uses) in agents.iter_mut().zip(&self.uses) {
            let speed = u64::from(nodes[agent.node as usize].speed);
            agent.uses = Resources { cpu_milli: (uses.cpu_milli * 100).div_ceil(speed), ..*uses };
        }
        SystemLoad { nodes, agents }
    }

    pub(crate) fn carry_out(&mut self, moves: &[ScheduleAdjustment]) {
        for made in moves {
            let agent = &mut self.agents[made.agent as usize];
            assert_eq!(agent.node, made.from, "an agent leaves where it is");
            agent.node = made.to;
            agent.moved_at = Some(self.now);
        }
    }
}
