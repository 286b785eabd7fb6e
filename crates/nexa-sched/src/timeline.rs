//! What is held over time, of several resources at once.
//!
//! A step function: from each step's moment on so much is held, until the next step's. Gaps between what is held are
//! found and filled (insertion: Topcuoglu et al. 2002, §4.1).
//!
//! Looking is a binary search and a walk over the steps from the wanted moment to the found one. Holding moves the steps
//! behind it, which is nothing where work is held in the order of time.

use crate::count::{Look, looks, ordered};

/// Resources counted on each timeline: cores, memory and model slots of a node, or one ledger and two zeros.
pub(crate) const KINDS: usize = 3;

/// An amount of each resource.
pub(crate) type Amounts = [u64; KINDS];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    at: u64,
    held: Amounts,
}

/// What is held over time. Nothing before its first step, nothing after its last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Timeline {
    steps: Vec<Step>,
}

/// How much may be held beside a need: of what is not needed any amount, of what is needed what its capacity leaves.
/// Nothing if the need alone is over the capacity.
pub(crate) fn room(need: &Amounts, capacity: &Amounts) -> Option<Amounts> {
    let mut room = [u64::MAX; KINDS];
    for kind in 0..KINDS {
        if need[kind] > 0 {
            room[kind] = capacity[kind].checked_sub(need[kind])?;
        }
    }
    Some(room)
}

fn within(held: &Amounts, room: &Amounts) -> bool {
    held[0] <= room[0] && held[1] <= room[1] && held[2] <= room[2]
}

impl Timeline {
    /// Takes over what another holds, keeping its own memory.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.steps.clear();
        self.steps.extend_from_slice(&other.steps);
    }

    /// The first moment from `from` on at which no more than `room` is held for a whole `span`.
    pub(crate) fn earliest(&self, from: u64, span: u64, room: &Amounts) -> u64 {
        self.earliest_until(from, span, room, u64::MAX)
    }

    /// The same if that is not after `latest`; otherwise some moment after `latest`.
    pub(crate) fn earliest_until(&self, from: u64, span: u64, room: &Amounts, latest: u64) -> u64 {
        let steps = &self.steps[..];
        let last = match steps.last() {
            Some(last) if last.at > from && span > 0 => last,
            _ => return from,
        };
        debug_assert_eq!(last.held, [0; KINDS], "whatever is held is given back");
        ordered(Look::Step, steps.len());
        let mut at = steps.partition_point(|step| step.at <= from);
        let mut start = from;
        if at > 0 && !within(&steps[at - 1].held, room) {
            start = steps[at].at;
        }
        // Invariant: from `start` to `steps[at].at` there is room.
        while let Some(step) = steps.get(at) {
            if step.at >= start.saturating_add(span) || start > latest {
                break;
            }
            at += 1;
            looks(Look::Step, 1);
            if !within(&step.held, room) {
                start = steps.get(at).map_or(u64::MAX, |next| next.at);
            }
        }
        start
    }

    /// The most that is held of each resource within a span.
    pub(crate) fn most(&self, from: u64, span: u64) -> Amounts {
        let mut most = [0; KINDS];
        let first = self.steps.partition_point(|step| step.at <= from).saturating_sub(1);
        ordered(Look::Step, self.steps.len());
        for step in &self.steps[first..] {
            looks(Look::Step, 1);
            if step.at >= from.saturating_add(span) {
                break;
            }
            for (most, held) in most.iter_mut().zip(step.held) {
                *most = (*most).max(held);
            }
        }
        most
    }

    /// The first moment after `from` at which anything changes.
    pub(crate) fn next_change(&self, from: u64) -> Option<u64> {
        self.steps.get(self.steps.partition_point(|step| step.at <= from)).map(|step| step.at)
    }

    /// Holds `need` from `from` until `until`, whether there is room or not.
    pub(crate) fn hold(&mut self, from: u64, until: u64, need: &Amounts) {
        self.change(from, until, need, u64::saturating_add);
    }

    /// Undoes [`Self::hold`].
    pub(crate) fn give_back(&mut self, from: u64, until: u64, need: &Amounts) {
        let Some((first, end)) = self.change(from, until, need, u64::saturating_sub) else { return };
        // A step that changes nothing would be a moment to look at for nothing, and looking makes more of them.
        for place in [end, first] {
            let before = if place == 0 { [0; KINDS] } else { self.steps[place - 1].held };
            if self.steps[place].held == before {
                self.steps.remove(place);
            }
        }
    }

    /// Changes what is held by `need`; gives the places of the steps at both ends, or nothing for no time.
    fn change(&mut self, from: u64, until: u64, need: &Amounts, by: fn(u64, u64) -> u64) -> Option<(usize, usize)> {
        if from >= until {
            return None;
        }
        let first = self.step_at(from);
        let end = self.step_at(until);
        looks(Look::Step, end - first);
        for step in &mut self.steps[first..end] {
            for (held, need) in step.held.iter_mut().zip(need) {
                *held = by(*held, *need);
            }
        }
        Some((first, end))
    }

    /// The place of the step of this moment, put there if there is none.
    fn step_at(&mut self, at: u64) -> usize {
        let place = match self.steps.last() {
            Some(last) if last.at < at => self.steps.len(),
            _ => {
                ordered(Look::Step, self.steps.len());
                self.steps.partition_point(|step| step.at < at)
            }
        };
        if self.steps.get(place).is_none_or(|step| step.at != at) {
            let held = if place == 0 { [0; KINDS] } else { self.steps[place - 1].held };
            looks(Look::Step, self.steps.len() - place);
            self.steps.insert(place, Step { at, held });
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_is_found_and_filled() {
        let mut line = Timeline::default();
        let room = room(&[2, 0, 0], &[3, 0, 0]).expect("it fits alone");
        line.hold(0, 10, &[2, 0, 0]);
        line.hold(15, 20, &[2, 9, 0]);
        assert_eq!((line.earliest(0, 5, &room), line.earliest(0, 6, &room), line.earliest(12, 4, &room)), (10, 20, 20));
        line.hold(10, 15, &[2, 0, 0]);
        assert_eq!((line.earliest(0, 1, &room), line.earliest(0, 0, &room)), (20, 0));
        assert_eq!((line.most(12, 5), line.next_change(10)), ([2, 9, 0], Some(15)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Against looking at every millisecond.
        #[test]
        fn the_earliest_moment_is_that_of_looking_at_each(
            held in prop::collection::vec((0u64..40, 0u64..12, 0u64..4, 0u64..4), 0..10),
            (from, span, need) in (0u64..60, 0u64..10, [0u64..4, 0u64..4]),
        ) {
            let capacity = [6, 5, 0];
            let need = [need[0], need[1], 0];
            let mut line = Timeline::default();
            for &(from, span, first, second) in &held {
                line.hold(from, from + span, &[first, second, 0]);
            }
            let at = |moment: u64, kind: usize| held.iter()
                .filter(|&&(from, span, ..)| from <= moment && moment < from + span)
                .map(|&(_, _, first, second)| [first, second, 0][kind]).sum::<u64>();
            let fits = |start: u64| (start..start + span)
                .all(|moment| (0..KINDS).all(|kind| need[kind] == 0 || at(moment, kind) + need[kind] <= capacity[kind]));
            let expected = (from..200).find(|&start| fits(start)).expect("nothing is held for ever");
            let room = room(&need, &capacity).expect("it fits alone");
            prop_assert_eq!(line.earliest(from, span, &room), expected);
            for latest in from..70 {
                let found = line.earliest_until(from, span, &room, latest);
                prop_assert!(if expected <= latest { found == expected } else { found > latest }, "{} by {}", found, latest);
            }
        }
    }
}
