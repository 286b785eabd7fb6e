//! One moment after the other: whoever is next starts as soon as there is room (parallel list scheduling: Kelley, "The
//! critical-path method: resources planning and scheduling", 1963).
//!
//! In:  a setting, and a [`Turn`]: who is next, and where.
//! Out: slots.
//!
//! Nothing is looked for in the past or the future, so that the time grows with n log n. Units that need the same stand
//! in one *line*; of each only the head is looked at, since the others find no room where it finds none. A head that finds
//! none is looked at again only on nodes where something ended.
//!
//! Whoever has time takes the slowest node on which the whole still ends by the goal, so that the fast ones are left to
//! those that have none. Whoever has none waits for a faster node that has room soon, where it ends earlier there: one
//! unit for each node, so that the others take what is free.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Bound;

use nexa_types::Millis;

use super::Slot;
use super::lines::{Head, Lines};
use super::setting::Setting;
use super::turn::{LEVEL_SHIFT, Spot, Turn};
use crate::LoadBalanceStrategy;
use crate::count::{Look, looks, ordered};
use crate::gang;
use crate::graph::NONE;
use crate::timeline::{Amounts, KINDS};

/// Heads that may find no room at one moment before the others wait for the next.
const HEADS_TRIED_MAX: usize = 16;

/// Gangs of these.
const GANGS_TRIED_MAX: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A task ends.
    End(u32),
    /// What is held of a ledger beyond a task's end is given back: a place in `gives`.
    Give(u32),
    /// All results are on the node of the last of them.
    Here(u32),
    /// All results are everywhere.
    Everywhere(u32),
}

pub(crate) struct Forward<'s> {
    setting: &'s Setting<'s>,
    turn: Turn,
    now: u64,
    slots: Vec<Slot>,
    waits: Vec<u32>,
    held: Vec<Amounts>,
    /// The dominant share of what is held, by node.
    used: Vec<u64>,
    /// When what runs ends, by node.
    ends: Vec<BinaryHeap<Reverse<u64>>>,
    /// The first of these; never, if nothing runs.
    next_end: Vec<u64>,
    ledgers: Vec<u64>,
    gives: Vec<(u32, u64)>,
    /// Whether somebody found no room in a ledger since something was last given back.
    is_ledger_full: bool,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    lines: Lines,
    /// The unit that waits for room on each node.
    booked: Vec<u32>,
    /// Nodes where something ended at this moment.
    touched: Vec<u32>,
    /// Units of a strict turn that found no room at this moment.
    blocked: Vec<u32>,
    ring: u32,
    /// The longest way from the end of each task to the end of all, everything on the fastest node.
    tails: Vec<u64>,
    /// When all is expected to be over: the earliest moment possible, and later once somebody is too late for that.
    goal: u64,
}

/// The better of two plans by rank: one in which tasks use all the time that is to spare, and one in which each uses its
/// part. Either can be the worse one by a third.
pub(crate) fn both_ways(setting: &Setting, bound: u64) -> (u64, Vec<Slot>) {
    let by_rank = |may_use_all| Turn { may_use_all, ..Turn::new(setting, LoadBalanceStrategy::Adaptive) };
    let part = forward(setting, by_rank(false), bound);
    if part.0 <= bound {
        return part;
    }
    let all = forward(setting, by_rank(true), bound);
    if all.0 < part.0 { all } else { part }
}

/// The plan of a turn: the last end, or now, and slots by task. `bound` is the earliest end that is possible.
pub(crate) fn forward(setting: &Setting, turn: Turn, bound: u64) -> (u64, Vec<Slot>) {
    let mut forward = Forward::new(setting, turn, bound);
    forward.run();
    let end = forward.slots.iter().map(|slot| slot.end.0).fold(setting.now(), u64::max);
    (end, forward.slots)
}

impl<'s> Forward<'s> {
    fn new(setting: &'s Setting<'s>, turn: Turn, bound: u64) -> Self {
        let nodes = setting.capacity.len();
        let mut it = Self {
            now: setting.now(),
            slots: setting.started.clone(),
            waits: setting.waits.clone(),
            held: vec![[0; KINDS]; nodes],
            used: vec![0; nodes],
            ends: vec![BinaryHeap::new(); nodes],
            next_end: vec![u64::MAX; nodes],
            ledgers: vec![0; setting.ledgers.each.len()],
            gives: Vec::new(),
            is_ledger_full: false,
            events: BinaryHeap::with_capacity(setting.units.len()),
            lines: Lines::new(setting, &turn),
            booked: vec![NONE; nodes],
            touched: Vec::new(),
            blocked: Vec::new(),
            ring: 0,
            tails: if turn.spot == Spot::EarliestEnd { setting.tails() } else { Vec::new() },
            goal: bound,
            turn,
            setting,
        };
        for task in 0..it.slots.len() as u32 {
            let slot = it.slots[task as usize];
            if slot.node != NONE {
                it.take(task, slot.node);
            }
        }
        for unit in 0..setting.units.len() as u32 {
            if it.waits[unit as usize] == 0 {
                it.expect(unit);
            }
        }
        it
    }

    fn run(&mut self) {
        loop {
            self.touched.clear();
            self.blocked.clear();
            match self.events.peek() {
                Some(&Reverse((at, _))) => self.now = at,
                // Whoever is left was behind too many others to be looked at.
                None if self.lines.is_empty() => break,
                None => self.lines.renew_all(),
            }
            while let Some(&Reverse((at, event))) = self.events.peek().filter(|next| next.0.0 == self.now) {
                debug_assert_eq!(at, self.now);
                ordered(Look::Moment, self.events.len());
                self.events.pop();
                self.happen(event);
            }
            self.start_booked();
            self.start_heads();
        }
    }

    fn schedule(&mut self, event: (u64, Event)) {
        ordered(Look::Moment, self.events.len());
        self.events.push(Reverse(event));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::End(task) => self.end(task),
            Event::Give(place) => {
                let (ledger, amount) = self.gives[place as usize];
                self.give(ledger, amount);
            }
            Event::Here(unit) => self.start_here(unit),
            Event::Everywhere(unit) => self.lines.enqueue(unit, &self.turn),
        }
    }

    fn end(&mut self, task: u32) {
        let setting = self.setting;
        let node = self.slots[task as usize].node;
        for (held, need) in self.held[node as usize].iter_mut().zip(&setting.demand[task as usize]) {
            *held = held.saturating_sub(*need);
        }
        ordered(Look::Moment, self.ends[node as usize].len());
        self.ends[node as usize].pop();
        self.next_end[node as usize] = self.ends[node as usize].peek().map_or(u64::MAX, |end| end.0);
        self.update_used(node);
        self.touched.push(node);
        for hold in setting.ledgers.holds(task).iter().filter(|hold| hold.span.is_none()) {
            self.give(hold.ledger, hold.amount);
        }
    }

    fn give(&mut self, ledger: u32, amount: u64) {
        let held = &mut self.ledgers[ledger as usize];
        *held = held.saturating_sub(amount);
        if std::mem::take(&mut self.is_ledger_full) {
            self.lines.renew_all();
        }
    }

    /// Says when all that a unit waits for is there: everything it waits for has a slot.
    fn expect(&mut self, unit: u32) {
        let members = self.setting.units.row(unit);
        let arrivals = members.iter().map(|&task| self.setting.arrivals(task, &self.slots));
        let event =
            match (members, arrivals.reduce(|one, other| if one.elsewhere >= other.elsewhere { one } else { other })) {
                (&[task], Some(of))
                    if of.there < of.elsewhere
                        && self.turn.spot == Spot::EarliestEnd
                        && self.setting.fits_on(task, of.node) =>
                {
                    (of.there, Event::Here(unit))
                }
                (_, of) => (of.map_or(self.now, |of| of.elsewhere), Event::Everywhere(unit)),
            };
        self.schedule(event);
    }

    /// Starts where the last result is, if that is no later than on the fastest node once all results are there.
    fn start_here(&mut self, unit: u32) {
        let task = self.setting.units.row(unit)[0];
        let of = self.setting.arrivals(task, &self.slots);
        let fastest = self.setting.nodes_for(task)[0];
        let here = self.now.saturating_add(self.setting.duration(task, of.node));
        let there = of.elsewhere.saturating_add(self.setting.duration(task, fastest));
        let has_turn = !self.turn.is_strict && self.booked[of.node as usize] == NONE;
        if (here <= there || here <= self.latest(task))
            && has_turn
            && self.has_room(task, of.node)
            && self.has_shared(&[task])
        {
            self.start(task, of.node);
        } else {
            self.schedule((of.elsewhere, Event::Everywhere(unit)));
        }
    }

    fn start_booked(&mut self) {
        for place in 0..self.touched.len() {
            let node = self.touched[place];
            let unit = std::mem::replace(&mut self.booked[node as usize], NONE);
            if unit == NONE {
                continue;
            }
            let task = self.setting.units.row(unit)[0];
            if !self.turn.is_strict && self.has_room(task, node) && self.has_shared(&[task]) {
                self.start(task, node);
            } else {
                self.lines.enqueue(unit, &self.turn);
                self.lines.renew(unit);
            }
        }
    }

    fn start_heads(&mut self) {
        (0..self.touched.len()).for_each(|_| ordered(Look::Node, self.touched.len()));
        self.touched.sort_unstable_by_key(|&node| (Reverse(self.setting.speed(node)), node));
        self.touched.dedup();
        let (mut failed, mut gangs_failed) = (0, 0);
        let mut from = Bound::Unbounded;
        while let Some(head) = self.lines.next(from) {
            let unit = head.1;
            let members = self.setting.units.row(unit);
            let is_new = self.lines.is_new(head);
            let is_started = match members {
                // Most that wait are left here, at the price of the line's own row.
                [_] if !is_new && !self.touched.iter().any(|&node| self.has_free(self.lines.demand(head), node)) => {
                    false
                }
                _ if !is_new && self.touched.is_empty() => false,
                &[task] => self.start_one(unit, task, is_new, head),
                _ if gangs_failed >= GANGS_TRIED_MAX => false,
                _ => self.start_gang(members, head),
            };
            if is_started {
                continue;
            }
            self.lines.looked_at(head);
            from = Bound::Excluded(head);
            failed += 1;
            gangs_failed += usize::from(members.len() > 1);
            if self.turn.is_strict {
                self.blocked.push(unit);
            }
            if failed >= HEADS_TRIED_MAX {
                break;
            }
        }
    }

    /// Whether it is off its line: started, or booked for a node that has room soon.
    fn start_one(&mut self, unit: u32, task: u32, is_new: bool, head: Head) -> bool {
        let setting = self.setting;
        let may = |node: u32| self.has_room(task, node) && !self.is_wanted(unit, node);
        let touched = self.touched.iter().copied().filter(|&node| self.fits_on(task, node));
        let found = match (self.turn.spot, is_new) {
            (Spot::EarliestEnd, true) => {
                let nodes = setting.nodes_for(task);
                ordered(Look::Node, nodes.len());
                let (in_time, late) = nodes.split_at(setting.in_time(task, self.latest(task).saturating_sub(self.now)));
                in_time.iter().rev().chain(late).copied().find(|&node| may(node))
            }
            (Spot::EarliestEnd, false) => touched.into_iter().find(|&node| may(node)),
            (Spot::NextInRing, false) => {
                let nodes = setting.capacity.len() as u32;
                touched.filter(|&node| may(node)).min_by_key(|node| (node + nodes - self.ring) % nodes)
            }
            (Spot::NextInRing, true) => {
                let nodes = setting.capacity.len() as u32;
                let ring = (self.ring..nodes).chain(0..self.ring);
                ring.filter(|&node| self.fits_on(task, node)).find(|&node| may(node))
            }
            (Spot::LeastUsed, true) => {
                self.least_used(setting.nodes_for(task).iter().copied().filter(|&node| may(node)))
            }
            (Spot::LeastUsed, false) => self.least_used(touched.filter(|&node| may(node))),
        };
        let Some(node) = found else { return false };
        if !self.has_shared(&[task]) {
            self.is_ledger_full = true;
            return false;
        }
        self.lines.dequeue(head, &self.turn);
        if self.turn.spot == Spot::EarliestEnd
            && self.now.saturating_add(setting.duration(task, node)) > self.latest(task)
            && let Some(better) = self.better_soon(task, node)
        {
            self.booked[better as usize] = unit;
            return true;
        }
        self.ring = (node + 1) % setting.capacity.len() as u32;
        self.start(task, node);
        true
    }

    /// When a task should end for all to be over by the goal: by then less the longest way behind it, or, of the time
    /// that is to spare, everybody on that way has a part as large as what it takes at least.
    fn latest(&self, task: u32) -> u64 {
        let tail = self.tails[task as usize];
        if self.turn.may_use_all {
            return self.goal.saturating_sub(tail);
        }
        let least = u128::from(self.setting.fastest(task));
        let span = least * u128::from(self.goal.saturating_sub(self.now)) / (least + u128::from(tail)).max(1);
        self.now.saturating_add(u64::try_from(span).unwrap_or(u64::MAX))
    }

    fn least_used(&self, nodes: impl Iterator<Item = u32>) -> Option<u32> {
        nodes.min_by_key(|&node| (self.used[node as usize], node))
    }

    /// A faster node on which it ends earlier, if what ends there next leaves room for it.
    fn better_soon(&self, task: u32, node: u32) -> Option<u32> {
        let setting = self.setting;
        let end = self.now.saturating_add(setting.duration(task, node));
        let faster =
            setting.nodes_for(task).iter().copied().take_while(|&other| setting.speed(other) > setting.speed(node));
        let faster = faster.inspect(|_| looks(Look::Node, 1));
        let soon = faster.filter(|&other| self.next_end[other as usize] < end && self.booked[other as usize] == NONE);
        let ends = soon.map(|other| {
            let free = self.next_end[other as usize];
            (free.saturating_add(setting.duration(task, other)), other)
        });
        ends.filter(|&(other, _)| other < end).min().map(|(_, other)| other)
    }

    fn start_gang(&mut self, members: &'s [u32], head: Head) -> bool {
        if !self.has_shared(members) {
            self.is_ledger_full = true;
            return false;
        }
        let free = self.held.iter().zip(&self.setting.capacity).map(|(held, capacity)| {
            let mut free = *capacity;
            free.iter_mut().zip(held).for_each(|(free, held)| *free = free.saturating_sub(*held));
            free
        });
        let mut free: Vec<Amounts> = free.collect();
        let found = gang::pack(self.setting, members, &mut free, |_, node| !self.is_wanted(head.1, node));
        let Some(nodes) = found else { return false };
        self.lines.dequeue(head, &self.turn);
        for (&task, node) in members.iter().zip(nodes) {
            self.start(task, node);
        }
        true
    }

    /// Whether somebody of a higher level waits for room there.
    fn is_wanted(&self, unit: u32, node: u32) -> bool {
        let level = |unit: u32| self.turn.values[unit as usize] >> LEVEL_SHIFT;
        self.blocked.iter().any(|&other| {
            let mut members = self.setting.units.row(other).iter();
            looks(Look::Waiting, 1);
            level(other) > level(unit) && members.any(|&task| self.fits_on(task, node))
        })
    }

    fn fits_on(&self, task: u32, node: u32) -> bool {
        looks(Look::Node, 1);
        self.setting.fits_on(task, node)
    }

    fn has_room(&self, task: u32, node: u32) -> bool {
        self.has_free(&self.setting.demand[task as usize], node)
    }

    fn has_free(&self, need: &Amounts, node: u32) -> bool {
        looks(Look::Node, 1);
        let (held, capacity) = (&self.held[node as usize], &self.setting.capacity[node as usize]);
        (0..KINDS).all(|kind| need[kind] == 0 || held[kind].saturating_add(need[kind]) <= capacity[kind])
    }

    fn has_shared(&self, members: &[u32]) -> bool {
        let ledgers = &self.setting.ledgers;
        if let &[task] = members
            && let [hold] = ledgers.holds(task)
        {
            let sum = self.ledgers[hold.ledger as usize].saturating_add(hold.amount);
            return sum <= ledgers.each[hold.ledger as usize].0;
        }
        let holds = members.iter().flat_map(|&task| ledgers.holds(task));
        holds.clone().all(|hold| {
            let of_it = holds.clone().filter(|other| other.ledger == hold.ledger);
            let amount = of_it.fold(self.ledgers[hold.ledger as usize], |sum, hold| sum.saturating_add(hold.amount));
            amount <= ledgers.each[hold.ledger as usize].0
        })
    }

    fn start(&mut self, task: u32, node: u32) {
        let setting = self.setting;
        let span = setting.duration(task, node);
        let end = self.now.saturating_add(span);
        self.slots[task as usize] = Slot { node, start: Millis(self.now), end: Millis(end) };
        if let Some(tail) = self.tails.get(task as usize) {
            self.goal = self.goal.max(end.saturating_add(*tail));
        }
        self.take(task, node);
        self.lines.charge(task, span, &mut self.turn);
        for &after in setting.problem.graph.dependents(task) {
            looks(Look::Waiting, 1);
            let unit = setting.unit_of[after as usize];
            if unit != NONE {
                self.waits[unit as usize] -= 1;
                if self.waits[unit as usize] == 0 {
                    self.expect(unit);
                }
            }
        }
    }

    /// Takes what a task holds from its start to its end, as far as that is from now on.
    fn take(&mut self, task: u32, node: u32) {
        let setting = self.setting;
        let slot = self.slots[task as usize];
        for hold in setting.ledgers.holds(task) {
            let until = hold.span.map_or(slot.end.0, |span| slot.start.0.saturating_add(span));
            if until > self.now || (slot.end.0 == self.now && setting.unit_of[task as usize] != NONE) {
                let held = &mut self.ledgers[hold.ledger as usize];
                *held = held.saturating_add(hold.amount);
                if hold.span.is_some() {
                    self.schedule((until, Event::Give(self.gives.len() as u32)));
                    self.gives.push((hold.ledger, hold.amount));
                }
            }
        }
        if slot.end.0 > self.now || setting.unit_of[task as usize] != NONE {
            for (held, need) in self.held[node as usize].iter_mut().zip(&setting.demand[task as usize]) {
                *held = held.saturating_add(*need);
            }
            ordered(Look::Moment, self.ends[node as usize].len());
            self.ends[node as usize].push(Reverse(slot.end.0));
            self.next_end[node as usize] = self.next_end[node as usize].min(slot.end.0);
            self.update_used(node);
            self.schedule((slot.end.0, Event::End(task)));
        }
    }

    fn update_used(&mut self, node: u32) {
        if self.turn.spot == Spot::LeastUsed {
            let [cpu_milli, memory_bytes, llm_slots] = self.held[node as usize];
            let held = crate::Resources { cpu_milli, memory_bytes, llm_slots };
            self.used[node as usize] = held.dominant_share(&self.setting.problem.cluster.nodes[node as usize].capacity);
        }
    }
}
