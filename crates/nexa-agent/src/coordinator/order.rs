//! Which items start together, and which of those that may start is first.
//!
//! A *unit* is a gang, or an item of none. In what order units start is chosen once, when the list is submitted, and
//! recorded with it as a turn for each item. So a replay asks nobody for ranks, and a later build may choose otherwise.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use nexa_event::asks::{Asks, Gang};
use nexa_event::fact::{ItemSchedule, ListItem};
use nexa_types::Millis;
use nexa_vm::module::Schedule;

use super::list::{dependents, distinct};

/// The items of a list by what starts together.
#[derive(Debug)]
pub(super) struct Units {
    /// The unit of each item.
    pub(super) of: Vec<u32>,
    /// The items of each unit, in submission order. Units stand in the order of their first items.
    pub(super) members: Vec<Vec<u32>>,
}

impl Units {
    pub(super) fn new(items: &[ListItem]) -> Self {
        let mut gangs: BTreeMap<&str, u32> = BTreeMap::new();
        let mut units = Self { of: Vec::with_capacity(items.len()), members: Vec::new() };
        for (index, item) in (0u32..).zip(items) {
            let next = units.members.len() as u32;
            let unit = gang(item).map_or(next, |gang| *gangs.entry(gang).or_insert(next));
            if unit == next {
                units.members.push(Vec::new());
            }
            units.members[unit as usize].push(index);
            units.of.push(unit);
        }
        units
    }

    /// Units in an order in which each stands after those that its items wait for, and for each how many of its items'
    /// dependencies were in none of them: all are 0 unless some wait for each other.
    pub(super) fn sorted(&self, items: &[ListItem]) -> (Vec<u32>, Vec<u32>) {
        let mut left = vec![0u32; self.members.len()];
        for (item, unit) in items.iter().zip(&self.of) {
            left[*unit as usize] += distinct(&item.after).len() as u32;
        }
        let dependents = dependents(items);
        let mut sorted: Vec<u32> = (0..left.len() as u32).filter(|unit| left[*unit as usize] == 0).collect();
        let mut at = 0;
        while let Some(unit) = sorted.get(at).copied() {
            at += 1;
            for dependent in self.members[unit as usize].iter().flat_map(|item| &dependents[*item as usize]) {
                let unit = self.of[*dependent as usize];
                left[unit as usize] -= 1;
                if left[unit as usize] == 0 {
                    sorted.push(unit);
                }
            }
        }
        (sorted, left)
    }
}

/// The gang of an item, if it is in one.
pub(super) fn gang(item: &ListItem) -> Option<&str> {
    item.schedule.as_ref()?.gang.as_deref()
}

/// What an item asks of its node, if anything; `members` start together with it, itself included.
pub(super) fn asks(item: &ListItem, members: usize) -> Option<Asks> {
    let ItemSchedule { labels, cpu_milli, memory_bytes, gang, .. } = item.schedule.as_ref()?;
    let together = |name: &String| Gang { name: name.clone(), members: members as u32 };
    let asks = Asks {
        labels: labels.clone().unwrap_or_default(),
        cpu_milli: *cpu_milli,
        memory_bytes: *memory_bytes,
        gang: gang.as_ref().filter(|_| members > 1).map(together),
        until: None,
    };
    (!asks.is_nothing()).then_some(asks)
}

/// How long an item is expected to take.
fn estimate(item: &ListItem) -> Millis {
    item.schedule.as_ref().and_then(|schedule| schedule.estimate).unwrap_or(Schedule::default().estimate)
}

/// For each item its turn among those that may start, 0 first: the highest level first, and within a level the one with
/// the longest way behind it to the end of the list, itself included (upward rank: Topcuoglu, Hariri, Wu, "Performance-
/// effective and low-complexity task scheduling for heterogeneous computing", IEEE TPDS 13(3), 2002, §4.1; results take
/// no time on the way). Who waits for one of a gang waits for the member that is farthest from the end, as all of them start together.
/// Equals keep the order of submission. `level` gives the level of a priority, higher first.
///
/// The list must be one that [`super::validate`] lets pass; of another one, items that wait for each other come last.
pub fn turns(items: &[ListItem], level: impl Fn(u8) -> u8) -> Vec<u32> {
    let (units, dependents) = (Units::new(items), dependents(items));
    let mut ranks = vec![Millis(0); items.len()];
    let mut of_unit = vec![Millis(0); units.members.len()];
    for unit in units.sorted(items).0.into_iter().rev() {
        for index in units.members[unit as usize].iter().map(|index| *index as usize) {
            let after = dependents[index].iter().map(|after| of_unit[units.of[*after as usize] as usize]).max();
            ranks[index] = estimate(&items[index]) + after.unwrap_or_default();
            of_unit[unit as usize] = of_unit[unit as usize].max(ranks[index]);
        }
    }
    let level_of = |item: &ListItem| {
        let priority = item.schedule.as_ref().and_then(|schedule| schedule.priority);
        level(priority.unwrap_or(Schedule::default().priority))
    };
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|index| (Reverse(level_of(&items[*index])), Reverse(ranks[*index]), *index));
    let mut turns = vec![0; items.len()];
    for (turn, index) in (0..).zip(order) {
        turns[index] = turn;
    }
    turns
}
