//! Dice from a seed: the same throws everywhere.

use crate::place::{STRIDE, mixed};

pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        let word = mixed(self.0);
        self.0 = self.0.wrapping_add(STRIDE);
        word
    }

    /// A number below `below`; 0 if that is 0.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(below)) >> 64) as u64
    }

    pub(crate) fn pick<'i, T>(&mut self, items: &'i [T]) -> Option<&'i T> {
        items.get(self.below(items.len() as u64) as usize)
    }
}
