//! One unit after the other, each into the earliest gap (list scheduling with insertion: Topcuoglu, Hariri, Wu 2002,
//! §4.2).
//!
//! In:  an order of units, each after those it waits for, and how a place is chosen.
//! Out: slots, and the end of the last.

use nexa_types::Millis;

use super::Slot;
use super::setting::{Arrivals, Setting};
use crate::gang;
use crate::graph::NONE;
use crate::timeline::{Amounts, KINDS, Timeline, room};

/// How a node is chosen.
pub(crate) enum Place<'p> {
    /// Where it ends earliest; of equally good nodes the first.
    Textbook,
    /// Where it ends earliest; of equally good nodes the one with its last result, then the fastest.
    Earliest,
    /// Where its end and a cost, in milliseconds by task and node, are least together.
    Cost(&'p [u64]),
    /// On this node, by task; where it ends earliest if that is [`NONE`].
    Kept(&'p [u32]),
    /// As that, and nobody starts before whoever is before it in the order.
    InTurn(&'p [u32]),
    /// On this node, by task, unless it ends so much earlier, in milliseconds, on another.
    Loyal(&'p [u32], u64),
}

impl Place<'_> {
    fn kept(&self) -> Option<&[u32]> {
        match self {
            Self::Kept(nodes) | Self::InTurn(nodes) | Self::Loyal(nodes, _) => Some(nodes),
            Self::Textbook | Self::Earliest | Self::Cost(_) => None,
        }
    }
}

/// The desk on which plans are made: it keeps its memory from one to the next.
pub(crate) struct Serial<'s> {
    setting: &'s Setting<'s>,
    nodes: Vec<Timeline>,
    ledgers: Vec<Timeline>,
    slots: Vec<Slot>,
    free: Vec<Amounts>,
    /// Nobody starts before this.
    floor: u64,
    looks_left: u64,
}

impl<'s> Serial<'s> {
    /// A desk at which for so many times a node may be looked at for room, in all plans together.
    pub(crate) fn new(setting: &'s Setting<'s>, looks: u64) -> Self {
        Self {
            setting,
            nodes: setting.busy.clone(),
            ledgers: setting.ledgers.busy.clone(),
            slots: setting.started.clone(),
            free: setting.capacity.clone(),
            floor: 0,
            looks_left: looks,
        }
    }

    pub(crate) fn has_looks(&self) -> bool {
        self.looks_left > 0
    }

    /// Where and when, by task, as of the last run.
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Plans all units in this order. Gives the last end, or now if nothing ends after it; nothing if that takes more
    /// looks than are left.
    pub(crate) fn run(&mut self, order: &[u32], place: &Place) -> Option<u64> {
        for (line, busy) in self.nodes.iter_mut().zip(&self.setting.busy) {
            line.copy_from(busy);
        }
        for (line, busy) in self.ledgers.iter_mut().zip(&self.setting.ledgers.busy) {
            line.copy_from(busy);
        }
        self.slots.copy_from_slice(&self.setting.started);
        self.floor = 0;
        for &unit in order {
            if self.looks_left == 0 {
                return None;
            }
            match self.setting.units.row(unit) {
                &[task] => self.one(task, place),
                members => self.together(members, place),
            }
        }
        Some(self.slots.iter().map(|slot| slot.end.0).fold(self.setting.now(), u64::max))
    }

    fn one(&mut self, task: u32, place: &Place) {
        let arrivals = self.setting.arrivals(task, &self.slots).not_before(self.floor);
        let kept = place.kept().map_or(NONE, |nodes| nodes[task as usize]);
        let (mut node, mut start) = match place {
            Place::Kept(_) | Place::InTurn(_) if kept != NONE => (kept, self.start_on(task, kept, arrivals.on(kept))),
            Place::Cost(costs) => self.least(task, &arrivals, costs),
            Place::Textbook => self.textbook(task, &arrivals),
            _ => self.earliest(task, &arrivals),
        };
        if let &Place::Loyal(_, gain) = place
            && kept != NONE
            && kept != node
        {
            let there = self.start_on(task, kept, arrivals.on(kept));
            let end = start.saturating_add(self.setting.duration(task, node));
            if there.saturating_add(self.setting.duration(task, kept)) <= end.saturating_add(gain) {
                (node, start) = (kept, there);
            }
        }
        if matches!(place, Place::InTurn(_)) {
            self.floor = start;
        }
        self.take(task, node, start);
    }

    fn textbook(&mut self, task: u32, arrivals: &Arrivals) -> (u32, u64) {
        let (mut best, mut best_end) = ((NONE, 0), u64::MAX);
        for &node in self.setting.nodes_for(task) {
            let (span, arrival) = (self.setting.duration(task, node), arrivals.on(node));
            if best.0 == NONE || arrival.saturating_add(span) <= best_end {
                let start = self.start_until(task, node, arrival, best_end - span);
                let end = start.saturating_add(span);
                if (end, node) < (best_end, best.0) {
                    (best, best_end) = ((node, start), end);
                }
            }
        }
        best
    }

    /// Where it ends earliest; of equally good nodes the one with its last result, then the fastest, then the first.
    fn earliest(&mut self, task: u32, arrivals: &Arrivals) -> (u32, u64) {
        let setting = self.setting;
        let (mut best, mut best_end) = ((NONE, 0), u64::MAX);
        if setting.fits_on(task, arrivals.node) {
            let start = self.start_on(task, arrivals.node, arrivals.there);
            best = (arrivals.node, start);
            best_end = start.saturating_add(setting.duration(task, arrivals.node));
        }
        for &node in setting.nodes_for(task) {
            let span = setting.duration(task, node);
            if arrivals.elsewhere.saturating_add(span) >= best_end && best.0 != NONE {
                break; // Those that follow are no faster.
            }
            if node != arrivals.node {
                let start = self.start_until(task, node, arrivals.elsewhere, best_end - span);
                if start.saturating_add(span) < best_end || best.0 == NONE {
                    best = (node, start);
                    best_end = start.saturating_add(span);
                }
            }
        }
        best
    }

    fn least(&mut self, task: u32, arrivals: &Arrivals, costs: &[u64]) -> (u32, u64) {
        let setting = self.setting;
        let row = &costs[task as usize * self.nodes.len()..][..self.nodes.len()];
        let (mut best, mut best_cost) = ((NONE, 0), u64::MAX);
        for &node in setting.nodes_for(task) {
            let beside = setting.duration(task, node).saturating_add(row[node as usize]);
            if arrivals.on(node).saturating_add(beside) < best_cost || best.0 == NONE {
                let start = self.start_on(task, node, arrivals.on(node));
                if start.saturating_add(beside) < best_cost || best.0 == NONE {
                    best = (node, start);
                    best_cost = start.saturating_add(beside);
                }
            }
        }
        best
    }

    /// The earliest start on a node, from a moment on.
    fn start_on(&mut self, task: u32, node: u32, from: u64) -> u64 {
        self.start_until(task, node, from, u64::MAX)
    }

    /// The same if that is not after `latest`; otherwise some moment after `latest`.
    fn start_until(&mut self, task: u32, node: u32, from: u64, latest: u64) -> u64 {
        let setting = self.setting;
        self.looks_left = self.looks_left.saturating_sub(1);
        let span = setting.duration(task, node);
        let capacity = &setting.capacity[node as usize];
        let room_there = room(setting.demand(task), capacity).expect("a task is placed where it fits alone");
        let line = &self.nodes[node as usize];
        let mut start = line.earliest_until(from, span, &room_there, latest);
        let holds = setting.ledgers.holds(task);
        while !holds.is_empty() && start <= latest {
            let mut shared = start;
            for hold in holds {
                let room =
                    [setting.ledgers.each[hold.ledger as usize].0.saturating_sub(hold.amount), u64::MAX, u64::MAX];
                shared = self.ledgers[hold.ledger as usize].earliest(shared, hold.span.unwrap_or(span), &room);
            }
            if shared == start {
                break;
            }
            start = line.earliest_until(shared, span, &room_there, latest);
        }
        start
    }

    fn take(&mut self, task: u32, node: u32, start: u64) {
        let end = start.saturating_add(self.setting.duration(task, node));
        self.nodes[node as usize].hold(start, end, self.setting.demand(task));
        for hold in self.setting.ledgers.holds(task) {
            let until = hold.span.map_or(end, |span| start.saturating_add(span));
            self.ledgers[hold.ledger as usize].hold(start, until, &[hold.amount, 0, 0]);
        }
        self.slots[task as usize] = Slot { node, start: Millis(start), end: Millis(end) };
    }

    /// At the earliest moment at which all find room: moments at which anything changes are tried one after the other.
    fn together(&mut self, members: &[u32], place: &Place) {
        let arrivals = members.iter().map(|&task| self.setting.arrivals(task, &self.slots).not_before(self.floor));
        let arrivals: Vec<Arrivals> = arrivals.collect();
        let kept = place.kept().map(|nodes| members.iter().map(|&task| nodes[task as usize]).collect::<Vec<u32>>());
        let kept = kept.filter(|kept| !kept.contains(&NONE) && self.fit_alone(members, kept));
        let mut at = self.setting.now();
        for arrivals in &arrivals {
            at = at.max(arrivals.there.min(arrivals.elsewhere));
        }
        let nodes = loop {
            let found = match &kept {
                Some(kept) => self.can_all_start(at, members, &arrivals, kept).then(|| kept.clone()),
                None => self.all_at(at, members, &arrivals),
            };
            if let Some(nodes) = found {
                break nodes;
            }
            let lines = self.nodes.iter().chain(&self.ledgers).filter_map(|line| line.next_change(at));
            let results = arrivals.iter().flat_map(|of| [of.there, of.elsewhere]).filter(|&moment| moment > at);
            match lines.chain(results).min() {
                Some(next) => at = next,
                // Nothing is held any more and everything has arrived, so that it fits as on empty nodes.
                None => break self.on_empty(members),
            }
        };
        for (&task, node) in members.iter().zip(nodes) {
            self.take(task, node, at);
        }
        if matches!(place, Place::InTurn(_)) {
            self.floor = at;
        }
    }

    fn on_empty(&self, members: &[u32]) -> Vec<u32> {
        gang::pack(self.setting, members, &mut self.setting.capacity.clone(), |_, _| true)
            .expect("a gang that fits nowhere is refused before")
    }

    fn fit_alone(&self, members: &[u32], nodes: &[u32]) -> bool {
        nodes.iter().all(|&node| {
            let mut need = [0u64; KINDS];
            for (&task, _) in members.iter().zip(nodes).filter(|&(_, &other)| other == node) {
                for (need, more) in need.iter_mut().zip(self.setting.demand(task)) {
                    *need = need.saturating_add(*more);
                }
            }
            room(&need, &self.setting.capacity[node as usize]).is_some()
        })
    }

    /// Whether all members can start at this moment on these nodes. Each takes its place to see whether the next finds
    /// one; then all give it back.
    fn can_all_start(&mut self, at: u64, members: &[u32], arrivals: &[Arrivals], nodes: &[u32]) -> bool {
        if arrivals.iter().zip(nodes).any(|(arrivals, &node)| arrivals.on(node) > at) {
            return false;
        }
        let placed = members.iter().zip(nodes).take_while(|&(&task, &node)| {
            let can = self.start_on(task, node, at) == at;
            if can {
                self.take(task, node, at);
            }
            can
        });
        let placed = placed.count();
        for &task in &members[..placed] {
            self.give_back(task);
        }
        placed == members.len()
    }

    fn give_back(&mut self, task: u32) {
        let Slot { node, start, end } = self.slots[task as usize];
        self.nodes[node as usize].give_back(start.0, end.0, self.setting.demand(task));
        for hold in self.setting.ledgers.holds(task) {
            let until = hold.span.map_or(end.0, |span| start.0.saturating_add(span));
            self.ledgers[hold.ledger as usize].give_back(start.0, until, &[hold.amount, 0, 0]);
        }
    }

    /// The nodes of all members if they find room at this moment, each for as long as the longest of them.
    fn all_at(&mut self, at: u64, members: &[u32], arrivals: &[Arrivals]) -> Option<Vec<u32>> {
        let setting = self.setting;
        self.looks_left = self.looks_left.saturating_sub(self.nodes.len() as u64);
        let longest = |node: u32| members.iter().map(|&task| setting.duration(task, node)).max().unwrap_or(0);
        let mut held = vec![(0u64, 0u64); self.ledgers.len()];
        for &task in members {
            for hold in setting.ledgers.holds(task) {
                let slowest = || setting.nodes_for(task).iter().map(|&node| setting.duration(task, node)).max();
                let span = || slowest().unwrap_or(0);
                let (amount, longest) = &mut held[hold.ledger as usize];
                *amount = amount.saturating_add(hold.amount);
                *longest = (*longest).max(hold.span.unwrap_or_else(span));
            }
        }
        for (ledger, &(amount, span)) in held.iter().enumerate().filter(|(_, (amount, _))| *amount > 0) {
            let room = [setting.ledgers.each[ledger].0.saturating_sub(amount), u64::MAX, u64::MAX];
            if self.ledgers[ledger].earliest(at, span, &room) > at {
                return None;
            }
        }
        let mut free = std::mem::take(&mut self.free);
        for (node, free) in (0u32..).zip(&mut free) {
            let most = self.nodes[node as usize].most(at, longest(node));
            for ((free, capacity), most) in free.iter_mut().zip(&setting.capacity[node as usize]).zip(most) {
                *free = capacity.saturating_sub(most);
            }
        }
        let of = |task: u32| members.iter().position(|&member| member == task).expect("one of the members");
        let arrived = |task: u32, node: u32| arrivals[of(task)].on(node) <= at;
        let found = gang::pack(setting, members, &mut free, arrived);
        self.free = free;
        found
    }
}
