//! A bounded queue in which nobody waits for somebody else's crowd.
//!
//! Tenants take turns; the workloads of one tenant take turns among themselves; within a workload the first
//! comes first. At the limit a new entry is refused and given back.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

/// The queue. `O` and `I` tell the outer and the inner lanes apart.
pub(crate) struct FairQueue<O, I, T> {
    lanes: BTreeMap<O, BTreeMap<I, VecDeque<T>>>,
    last: Option<O>,
    last_inner: BTreeMap<O, I>,
    len: usize,
    len_max: usize,
}

impl<O: Ord + Clone, I: Ord + Clone, T> FairQueue<O, I, T> {
    pub(crate) fn new(len_max: usize) -> Self {
        Self { lanes: BTreeMap::new(), last: None, last_inner: BTreeMap::new(), len: 0, len_max }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds an entry, or gives it back if the queue is full.
    pub(crate) fn push(&mut self, outer: O, inner: I, entry: T) -> Result<(), T> {
        if self.len == self.len_max {
            return Err(entry);
        }
        self.lanes.entry(outer).or_default().entry(inner).or_default().push_back(entry);
        self.len += 1;
        Ok(())
    }

    /// Takes the entry whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let outer = after(&self.lanes, self.last.as_ref())?;
        let lane = self.lanes.get_mut(&outer)?;
        let inner = after(lane, self.last_inner.get(&outer))?;
        let queue = lane.get_mut(&inner)?;
        let entry = queue.pop_front()?;
        if queue.is_empty() {
            lane.remove(&inner);
        }
        if lane.is_empty() {
            self.lanes.remove(&outer);
            self.last_inner.remove(&outer);
        } else {
            self.last_inner.insert(outer.clone(), inner);
        }
        self.last = Some(outer);
        self.len -= 1;
        Some(entry)
    }

    /// Drops entries that nobody waits for any more.
    pub(crate) fn retain(&mut self, mut is_wanted: impl FnMut(&T) -> bool) {
        self.lanes.retain(|_, lane| {
            lane.retain(|_, queue| {
                queue.retain(&mut is_wanted);
                !queue.is_empty()
            });
            !lane.is_empty()
        });
        self.last_inner.retain(|outer, _| self.lanes.contains_key(outer));
        self.len = self.lanes.values().flat_map(BTreeMap::values).map(VecDeque::len).sum();
    }
}

/// The key after the last one, round about.
fn after<K: Ord + Clone, V>(map: &BTreeMap<K, V>, last: Option<&K>) -> Option<K> {
    let next = last.and_then(|last| map.range((Excluded(last), Unbounded)).next());
    next.or_else(|| map.iter().next()).map(|(key, _)| key.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lone_request_does_not_wait_for_a_crowd() {
        let mut queue = FairQueue::new(100);
        for number in 0..50 {
            queue.push("crowd", number % 2, format!("crowd {number}")).expect("room");
        }
        queue.push("lone", 0, "lone".to_owned()).expect("room");
        let first: Vec<String> = std::iter::from_fn(|| queue.pop()).take(4).collect();
        assert_eq!(first, ["crowd 0", "lone", "crowd 1", "crowd 2"]);
    }

    #[test]
    fn a_full_queue_gives_the_entry_back_until_the_unwanted_are_dropped() {
        let mut queue = FairQueue::new(2);
        assert_eq!(queue.push(1, 1, "a"), Ok(()));
        assert_eq!(queue.push(1, 2, "b"), Ok(()));
        assert_eq!(queue.push(2, 1, "c"), Err("c"));
        queue.retain(|entry| *entry != "a");
        assert_eq!(queue.push(2, 1, "c"), Ok(()));
        assert_eq!(queue.len(), 2);
    }

    proptest! {
        #[test]
        fn everything_comes_out_once_in_order_within_its_lane_and_no_lane_waits_two_rounds(
            entries in prop::collection::vec((0..4_u8, 0..3_u8), 0..60),
        ) {
            let mut queue = FairQueue::new(60);
            for (number, (outer, inner)) in entries.iter().enumerate() {
                prop_assert!(queue.push(*outer, *inner, (number, *outer, *inner)).is_ok());
            }
            let out: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
            prop_assert_eq!(out.len(), entries.len());
            for (index, (number, outer, inner)) in out.iter().enumerate() {
                let later = &out[index + 1..];
                prop_assert!(later.iter().all(|it| (it.1, it.2) != (*outer, *inner) || it.0 > *number));
                // Between two of one tenant, every waiting tenant has had a turn.
                if let Some(gap) = later.iter().position(|it| it.1 == *outer) {
                    for other in later[gap..].iter().map(|it| it.1).filter(|other| other != outer) {
                        prop_assert!(later[..gap].iter().any(|it| it.1 == other));
                    }
                }
            }
        }
    }
}
