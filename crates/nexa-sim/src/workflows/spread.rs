//! Those who do not plan: each task goes to a node when it is ready, by turns or by chance, and waits there for room.

use super::{Policy, Seen, Start};
use crate::dice::Dice;

/// How a node is chosen.
#[derive(Debug, Clone)]
pub enum Turn {
    /// One after the other.
    RoundRobin(usize),
    /// Any.
    Random(Dice),
}

/// Gives each task a node as soon as it is ready, among those that are large enough. There it starts as soon as there is
/// room, in the order in which tasks came, those that do not fit being passed.
#[derive(Debug, Clone)]
pub struct Spread {
    turn: Turn,
    node: Vec<Option<u32>>,
}

impl Spread {
    /// For a workflow of so many tasks.
    #[must_use]
    pub fn new(turn: Turn, tasks: usize) -> Self {
        Self { turn, node: vec![None; tasks] }
    }
}

impl Policy for Spread {
    fn node_of(&self, task: u32) -> Option<u32> {
        self.node[task as usize]
    }

    fn happened(&mut self, seen: &Seen<'_>, _: &[u32]) -> Result<(), String> {
        let nodes = &seen.world.cluster.nodes;
        for task in seen.ready {
            let needs = &seen.world.workflow.tasks()[*task as usize].requirements;
            let large: Vec<u32> =
                (0..).zip(nodes).filter(|(_, node)| needs.fits(&node.capacity)).map(|(place, _)| place).collect();
            let node = &mut self.node[*task as usize];
            if node.is_none() && !large.is_empty() {
                let choice = match &mut self.turn {
                    Turn::RoundRobin(next) => {
                        *next += 1;
                        (*next - 1) % large.len()
                    }
                    Turn::Random(dice) => dice.below(large.len() as u64) as usize,
                };
                *node = Some(large[choice]);
            }
        }
        Ok(())
    }

    fn next(&mut self, seen: &Seen<'_>) -> Option<Start> {
        seen.ready.iter().find_map(|task| {
            let node = self.node[*task as usize]?;
            seen.can_start(*task, node).then_some(Start { task: *task, node })
        })
    }
}
