//! Whose word counts for a node, and what it has taken up by it.
//!
//! The newest leader that a node has heard of, and no older one ever after. An order that comes twice is counted once.

use std::collections::BTreeSet;

use nexa_types::Epoch;

use crate::say::Adopted;

/// Numbers of orders that are remembered, so that one that comes twice is counted once. Of a leader's orders no more are
/// under way at a time.
const NUMBERS_MAX: usize = 4_096;

/// What was taken up by the word of the newest leader.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Taken {
    leader: Epoch,
    numbers: BTreeSet<u64>,
    agents: u64,
}

impl Taken {
    /// What the node says of it in its heartbeats.
    #[must_use]
    pub fn adopted(&self) -> Adopted {
        Adopted { leader: self.leader, agents: self.agents }
    }

    /// Whether this leader's word counts; from now on no older one's does.
    pub fn obeys(&mut self, leader: Epoch) -> bool {
        if leader > self.leader {
            *self = Self { leader, ..Self::default() };
        }
        leader == self.leader
    }

    /// So many agents were taken up by the order of this number.
    pub fn took(&mut self, leader: Epoch, number: u64, agents: u64) {
        if leader == self.leader && self.numbers.insert(number) {
            self.agents += agents;
            if self.numbers.len() > NUMBERS_MAX {
                self.numbers.pop_first();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_comes_twice_counts_once_and_an_older_leaders_not_at_all() {
        let mut taken = Taken::default();
        assert!(taken.obeys(Epoch(3)));
        for number in [1, 2, 1, 2] {
            taken.took(Epoch(3), number, 10);
        }
        assert_eq!(taken.adopted(), Adopted { leader: Epoch(3), agents: 20 });
        assert!(taken.obeys(Epoch(5)) && !taken.obeys(Epoch(3)) && taken.obeys(Epoch(5)));
        taken.took(Epoch(3), 9, 10);
        assert_eq!(taken.adopted(), Adopted { leader: Epoch(5), agents: 0 });
        for number in 0..2 * NUMBERS_MAX as u64 {
            taken.took(Epoch(5), number, 1);
        }
        assert_eq!((taken.numbers.len(), taken.agents), (NUMBERS_MAX, 2 * NUMBERS_MAX as u64));
    }
}
