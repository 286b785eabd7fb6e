//! Agents that wait to be placed: by priority, and among equals by who waited first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use nexa_types::{AgentId, Epoch};

/// An agent that needs an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) agent: AgentId,
    /// The epoch that its row has.
    pub(super) from: Epoch,
    pub(super) priority: u8,
}

type Turn = (Reverse<u8>, u64);

/// Those who wait, each once.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    turns: BTreeMap<Turn, Wish>,
    waiting: BTreeMap<AgentId, Turn>,
    tickets: u64,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.turns.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Puts an agent at the end of those of its priority. One who waits already keeps its turn; the later epoch counts.
    pub(super) fn add(&mut self, wish: Wish) {
        if let Some(turn) = self.waiting.get(&wish.agent)
            && let Some(before) = self.turns.get_mut(turn)
        {
            before.from = before.from.max(wish.from);
            return;
        }
        self.tickets += 1;
        let turn = (Reverse(wish.priority), self.tickets);
        self.waiting.insert(wish.agent, turn);
        self.turns.insert(turn, wish);
    }

    /// Takes out who is next.
    pub(super) fn next(&mut self) -> Option<Wish> {
        let (_, wish) = self.turns.pop_first()?;
        self.waiting.remove(&wish.agent);
        Some(wish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_priority_is_next_and_among_equals_who_waited_first() {
        let wish = |n: u8, priority, from| Wish {
            agent: AgentId::from_slice(&[n; 16]).expect("sixteen bytes"),
            from: Epoch(from),
            priority,
        };
        let mut queue = Queue::default();
        for wish in [wish(9, 1, 0), wish(3, 5, 0), wish(1, 5, 0), wish(3, 5, 2), wish(2, 200, 0)] {
            queue.add(wish);
        }
        assert_eq!(queue.len(), 4);
        let order: Vec<Wish> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(order, [wish(2, 200, 0), wish(3, 5, 2), wish(1, 5, 0), wish(9, 1, 0)]);
        assert!(queue.is_empty() && queue.waiting.is_empty());
    }
}
