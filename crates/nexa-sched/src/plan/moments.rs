//! What happens next.
//!
//! A heap in the order of time; of what happens at one time all ends come first, then what is given back, then arrivals,
//! each in the order of numbers. An entry is one number of 128 bits, since comparing numbers takes no branches: time,
//! what, and the number of the task, unit or place.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::count::{Look, ordered};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A task ends.
    End(u32),
    /// What is held of a ledger beyond a task's end is given back: a place in a list of that.
    Give(u32),
    /// All results that a unit waits for are on the node of the last of them.
    Here(u32),
    /// They are everywhere.
    Everywhere(u32),
}

/// What will happen, and when.
#[derive(Default)]
pub(crate) struct Moments(BinaryHeap<Reverse<u128>>);

impl Moments {
    pub(crate) fn push(&mut self, at: u64, event: Event) {
        ordered(Look::Moment, self.0.len());
        let (what, number) = match event {
            Event::End(task) => (0u64, task),
            Event::Give(place) => (1, place),
            Event::Here(unit) => (2, unit),
            Event::Everywhere(unit) => (3, unit),
        };
        self.0.push(Reverse(u128::from(at) << 64 | u128::from(what << 32 | u64::from(number))));
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.0.peek().map(|&Reverse(entry)| (entry >> 64) as u64)
    }

    /// The next thing that happens at this moment, if anything does.
    pub(crate) fn pop_at(&mut self, at: u64) -> Option<Event> {
        if self.next_at() != Some(at) {
            return None;
        }
        ordered(Look::Moment, self.0.len());
        let Reverse(entry) = self.0.pop()?;
        let number = entry as u32;
        Some(match entry as u64 >> 32 {
            0 => Event::End(number),
            1 => Event::Give(number),
            2 => Event::Here(number),
            _ => Event::Everywhere(number),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_come_first_and_arrivals_last_and_all_by_their_numbers() {
        let mut moments = Moments::default();
        let largest = u32::MAX;
        let of_nine = [Event::End(1), Event::End(largest), Event::Give(0), Event::Here(7), Event::Everywhere(2)];
        for event in of_nine.into_iter().rev() {
            moments.push(9, event);
        }
        moments.push(u64::MAX, Event::End(0));
        moments.push(8, Event::Everywhere(largest));
        assert_eq!((moments.next_at(), moments.pop_at(7)), (Some(8), None));
        assert_eq!((moments.pop_at(8), moments.pop_at(8)), (Some(Event::Everywhere(largest)), None));
        let popped: Vec<Event> = std::iter::from_fn(|| moments.pop_at(9)).collect();
        assert_eq!(popped, of_nine);
        assert_eq!((moments.pop_at(u64::MAX), moments.next_at()), (Some(Event::End(0)), None));
    }
}
