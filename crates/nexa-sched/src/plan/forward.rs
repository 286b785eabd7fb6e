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
use std::ops::Bound;

use nexa_types::Millis;

use super::Slot;
use super::lines::{Head, Lines};
use super::moments::{Event, Moments};
use super::nodes::Nodes;
use super::setting::Setting;
use super::turn::{LEVEL_SHIFT, Spot, Turn};
use crate::LoadBalanceStrategy;
use crate::count::{Look, looks, ordered};
use crate::gang;
use crate::graph::NONE;

/// Heads that may find no room at one moment before the others wait for the next.
const HEADS_TRIED_MAX: usize = 16;

/// Gangs of these.
const GANGS_TRIED_MAX: usize = 4;

pub(crate) struct Forward<'s> {
    setting: &'s Setting<'s>,
    turn: Turn,
    now: u64,
    slots: Vec<Slot>,
    waits: Vec<u32>,
    nodes: Nodes,
    /// The dominant share of what is held, by node.
    used: Vec<u64>,
    ledgers: Vec<u64>,
    gives: Vec<(u32, u64)>,
    /// Whether somebody found no room in a ledger since something was last given back.
    is_ledger_full: bool,
    moments: Moments,
    lines: Lines,
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
    let mut forward = Forward::new(setting, Turn::new(setting, LoadBalanceStrategy::Adaptive));
    let part = forward.run(bound);
    if part.0 <= bound {
        return part;
    }
    forward.turn.may_use_all = true;
    let all = forward.run(bound);
    if all.0 < part.0 { all } else { part }
}

/// The plan of a turn: the last end, or now, and slots by task. `bound` is the earliest end that is possible.
pub(crate) fn forward(setting: &Setting, turn: Turn, bound: u64) -> (u64, Vec<Slot>) {
    Forward::new(setting, turn).run(bound)
}

impl<'s> Forward<'s> {
    fn new(setting: &'s Setting<'s>, turn: Turn) -> Self {
        Self {
            now: setting.now(),
            slots: Vec::new(),
            waits: Vec::new(),
            nodes: Nodes::new(setting),
            used: Vec::new(),
            ledgers: Vec::new(),
            gives: Vec::new(),
            is_ledger_full: false,
            moments: Moments::default(),
            lines: Lines::new(setting, &turn),
            touched: Vec::new(),
            blocked: Vec::new(),
            ring: 0,
            tails: if turn.spot == Spot::EarliestEnd { setting.tails() } else { Vec::new() },
            goal: 0,
            turn,
            setting,
        }
    }

    /// Makes the plan: its last end, or now, and its slots. Everything that was made for an earlier one is as new, but for
    /// what kinds of a fair turn have had.
    fn run(&mut self, bound: u64) -> (u64, Vec<Slot>) {
        self.begin(bound);
        self.play();
        let slots = std::mem::take(&mut self.slots);
        (slots.iter().map(|slot| slot.end.0).fold(self.setting.now(), u64::max), slots)
    }

    /// Takes what has started, and expects what waits for nothing else.
    fn begin(&mut self, bound: u64) {
        let setting = self.setting;
        (self.now, self.goal, self.ring, self.is_ledger_full) = (setting.now(), bound, 0, false);
        self.slots.clone_from(&setting.started);
        self.waits.clone_from(&setting.waits);
        self.nodes = Nodes::new(setting);
        self.used = vec![0; setting.capacity.len()];
        self.ledgers = vec![0; setting.ledgers.each.len()];
        self.gives.clear();
        for task in 0..self.slots.len() as u32 {
            let node = self.slots[task as usize].node;
            if node != NONE {
                self.take(task, node);
            }
        }
        for unit in 0..setting.units.len() as u32 {
            if self.waits[unit as usize] == 0 {
                self.expect(unit);
            }
        }
    }

    fn play(&mut self) {
        loop {
            self.touched.clear();
            self.blocked.clear();
            match self.moments.next_at() {
                Some(at) => self.now = at,
                // Whoever is left was behind too many others to be looked at.
                None if self.lines.is_empty() => break,
                None => self.lines.renew_all(),
            }
            while let Some(event) = self.moments.pop_at(self.now) {
                self.happen(event);
            }
            self.start_booked();
            self.start_heads();
        }
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
        self.nodes.end(node, setting.demand(task));
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
        let (at, event) =
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
        self.moments.push(at, event);
    }

    /// Starts where the last result is, if that is no later than on the fastest node once all results are there.
    fn start_here(&mut self, unit: u32) {
        let task = self.setting.units.row(unit)[0];
        let of = self.setting.arrivals(task, &self.slots);
        let fastest = self.setting.nodes_for(task)[0];
        let here = self.now.saturating_add(self.setting.duration(task, of.node));
        let there = of.elsewhere.saturating_add(self.setting.duration(task, fastest));
        let has_turn = !self.turn.is_strict && !self.nodes.is_booked(of.node);
        if (here <= there || here <= self.latest(task))
            && has_turn
            && self.has_room(task, of.node)
            && self.has_shared(&[task])
        {
            self.start(task, of.node);
        } else {
            self.moments.push(of.elsewhere, Event::Everywhere(unit));
        }
    }

    fn start_booked(&mut self) {
        for place in 0..self.touched.len() {
            let node = self.touched[place];
            let Some(unit) = self.nodes.unbook(node) else { continue };
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
                [_] if !is_new
                    && !self.touched.iter().any(|&node| self.nodes.has_free(self.lines.demand(head), node)) =>
                {
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
        let need = setting.demand(task);
        let latest = if self.turn.spot == Spot::EarliestEnd { self.latest(task) } else { u64::MAX };
        let may = |node: u32| self.nodes.has_free(need, node) && !self.is_wanted(unit, node);
        let touched = self.touched.iter().copied().filter(|&node| self.fits_on(task, node));
        let found = match (self.turn.spot, is_new) {
            (Spot::EarliestEnd, true) => {
                let nodes = setting.nodes_for(task);
                ordered(Look::Node, nodes.len());
                let (in_time, late) = nodes.split_at(setting.in_time(task, latest.saturating_sub(self.now)));
                let slowest = in_time.iter().rev().copied().find(|&node| may(node));
                slowest.or_else(|| late.iter().copied().find(|&node| may(node)))
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
        let end = self.now.saturating_add(setting.duration(task, node));
        if end > latest
            && let Some(better) = self.nodes.sooner(setting, task, node, end)
        {
            self.nodes.book(better, unit);
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
        let (least, left) = (self.setting.fastest(task), self.goal.saturating_sub(self.now));
        let span = match (least.checked_mul(left), least.checked_add(tail)) {
            (Some(part), Some(way)) => part / way.max(1),
            _ => {
                let span = u128::from(least) * u128::from(left) / (u128::from(least) + u128::from(tail)).max(1);
                u64::try_from(span).unwrap_or(u64::MAX)
            }
        };
        self.now.saturating_add(span)
    }

    fn least_used(&self, nodes: impl Iterator<Item = u32>) -> Option<u32> {
        nodes.min_by_key(|&node| (self.used[node as usize], node))
    }

    fn start_gang(&mut self, members: &'s [u32], head: Head) -> bool {
        if !self.has_shared(members) {
            self.is_ledger_full = true;
            return false;
        }
        let mut free = self.nodes.free();
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
        self.nodes.has_free(self.setting.demand(task), node)
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
            if until > self.now || (slot.end.0 == self.now && !setting.has_started(task)) {
                let held = &mut self.ledgers[hold.ledger as usize];
                *held = held.saturating_add(hold.amount);
                if hold.span.is_some() {
                    self.moments.push(until, Event::Give(self.gives.len() as u32));
                    self.gives.push((hold.ledger, hold.amount));
                }
            }
        }
        if slot.end.0 > self.now || !setting.has_started(task) {
            self.nodes.take(node, setting.demand(task), slot.end.0);
            self.update_used(node);
            self.moments.push(slot.end.0, Event::End(task));
        }
    }

    fn update_used(&mut self, node: u32) {
        if self.turn.spot == Spot::LeastUsed {
            let [cpu_milli, memory_bytes, llm_slots] = *self.nodes.held(node);
            let held = crate::Resources { cpu_milli, memory_bytes, llm_slots };
            self.used[node as usize] = held.dominant_share(&self.setting.problem.cluster.nodes[node as usize].capacity);
        }
    }
}
