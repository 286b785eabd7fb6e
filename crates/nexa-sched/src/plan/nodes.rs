//! The nodes at one moment: what is held on each, what ends there next, and who waits for that.
//!
//! Nodes are asked for room more often than anything else is done, so what is asked of one is one line of the caches.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::setting::Setting;
use crate::count::{Look, looks, ordered};
use crate::graph::NONE;
use crate::timeline::{Amounts, KINDS};

#[derive(Debug, Clone)]
#[repr(align(64))]
struct Node {
    held: Amounts,
    capacity: Amounts,
    /// When the first of what runs ends; never, if nothing runs.
    next_end: u64,
    /// The unit that waits for that, or [`NONE`].
    booked: u32,
    speed: u32,
}

/// All nodes of a setting.
pub(crate) struct Nodes {
    each: Vec<Node>,
    /// When what runs ends, by node.
    ends: Vec<BinaryHeap<Reverse<u64>>>,
}

impl Nodes {
    /// Empty ones.
    pub(crate) fn new(setting: &Setting) -> Self {
        let node = |(place, capacity): (u32, &Amounts)| Node {
            held: [0; KINDS],
            capacity: *capacity,
            next_end: u64::MAX,
            booked: NONE,
            speed: setting.speed(place),
        };
        let each: Vec<Node> = (0..).zip(&setting.capacity).map(node).collect();
        Self { ends: vec![BinaryHeap::new(); each.len()], each }
    }

    /// Whether there is room for so much.
    pub(crate) fn has_free(&self, need: &Amounts, node: u32) -> bool {
        looks(Look::Node, 1);
        let Node { held, capacity, .. } = &self.each[node as usize];
        (0..KINDS).all(|kind| need[kind] == 0 || held[kind].saturating_add(need[kind]) <= capacity[kind])
    }

    /// What is free on each.
    pub(crate) fn free(&self) -> Vec<Amounts> {
        let free = |node: &Node| std::array::from_fn(|kind| node.capacity[kind].saturating_sub(node.held[kind]));
        self.each.iter().map(free).collect()
    }

    /// What is held on a node.
    pub(crate) fn held(&self, node: u32) -> &Amounts {
        &self.each[node as usize].held
    }

    /// Something is held until then, whether there is room or not.
    pub(crate) fn take(&mut self, node: u32, need: &Amounts, until: u64) {
        let (of, ends) = (&mut self.each[node as usize], &mut self.ends[node as usize]);
        of.held.iter_mut().zip(need).for_each(|(held, need)| *held = held.saturating_add(*need));
        ordered(Look::Moment, ends.len());
        ends.push(Reverse(until));
        of.next_end = of.next_end.min(until);
    }

    /// What ends next on a node is over, and was holding so much.
    pub(crate) fn end(&mut self, node: u32, need: &Amounts) {
        let (of, ends) = (&mut self.each[node as usize], &mut self.ends[node as usize]);
        of.held.iter_mut().zip(need).for_each(|(held, need)| *held = held.saturating_sub(*need));
        ordered(Look::Moment, ends.len());
        ends.pop();
        of.next_end = ends.peek().map_or(u64::MAX, |end| end.0);
    }

    pub(crate) fn is_booked(&self, node: u32) -> bool {
        self.each[node as usize].booked != NONE
    }

    /// A unit waits for what ends next on a node.
    pub(crate) fn book(&mut self, node: u32, unit: u32) {
        self.each[node as usize].booked = unit;
    }

    /// The unit that waited on a node, which waits no more.
    pub(crate) fn unbook(&mut self, node: u32) -> Option<u32> {
        let unit = std::mem::replace(&mut self.each[node as usize].booked, NONE);
        (unit != NONE).then_some(unit)
    }

    /// Of nodes in the order of speed: one that is faster than `node`, where what ends next leaves room for a task so early
    /// that it is over before `end`; where it is over first, and of these the first.
    pub(crate) fn sooner(&self, setting: &Setting, task: u32, node: u32, end: u64) -> Option<u32> {
        let (speed, least) = (self.each[node as usize].speed, setting.fastest(task));
        let mut best = None;
        let mut best_end = end;
        for &other in setting.nodes_for(task) {
            let of = &self.each[other as usize];
            if of.speed <= speed {
                break;
            }
            looks(Look::Node, 1);
            // Most are left here, before the division that a duration takes.
            if of.booked != NONE || of.next_end.saturating_add(least) > best_end {
                continue;
            }
            let over = of.next_end.saturating_add(setting.duration(task, other));
            if over < best_end || (over == best_end && best.is_some_and(|best| other < best)) {
                (best, best_end) = (Some(other), over);
            }
        }
        best
    }
}
