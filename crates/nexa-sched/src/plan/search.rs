//! The best of several plans, made better by trying.
//!
//! In:  a setting, a seed, and how many places may be chosen in all.
//! Out: slots that end no later than those of plain HEFT.
//!
//! First a few known ways are taken, HEFT itself among them; then the best of them is changed again and again where it is
//! *tight*, that is along the chain of tasks that each start when another ends or its result arrives, up to the last end:
//! one is put on another node, or before another, or left free again (simulated annealing: Kirkpatrick, Gelatt, Vecchi,
//! "Optimization by simulated annealing", Science 1983). Everybody who is not put anywhere goes where it ends earliest.
//! The search ends at the lower bound, or after [`LOOKS_MAX`] looks: never by time, so that it is the same everywhere.

use nexa_types::Millis;

use super::Slot;
use super::dice::Dice;
use super::forward::both_ways;
use super::serial::{Place, Serial};
use super::setting::Setting;
use crate::graph::NONE;
use crate::rank::upward_ranks;

/// Looks for room on a node in one search, all tries together.
const LOOKS_MAX: u64 = 400_000;

/// The part of that for a plan on the way: it will soon be made again.
const ON_THE_WAY_PART: u64 = 8;

/// Tries for each unit, in one search: a small graph is searched through long before [`LOOKS_MAX`].
const TRIES_PER_UNIT: usize = 50;

/// How much worse a try may be at first to be gone on from, in thousandths of the whole time.
const WARMTH_PERMILLE: u64 = 20;

/// What is better is smaller: the last end, and then the ends of all, those of higher priority counting more.
type Cost = (u64, u128);

struct Best {
    cost: Cost,
    slots: Vec<Slot>,
    values: Vec<u64>,
    forced: Vec<u32>,
}

/// One search.
pub(crate) struct Search<'s> {
    setting: &'s Setting<'s>,
    serial: Serial<'s>,
    best: Option<Best>,
    bound: u64,
}

impl<'s> Search<'s> {
    /// `bound` is the earliest end that is possible.
    pub(crate) fn new(setting: &'s Setting<'s>, bound: u64) -> Self {
        let is_on_the_way = setting.units.len() < setting.problem.graph.len() && !setting.problem.progress.is_empty();
        let looks = if is_on_the_way { LOOKS_MAX / ON_THE_WAY_PART } else { LOOKS_MAX };
        Self { setting, serial: Serial::new(setting, looks), best: None, bound }
    }

    /// The slots of the best plan.
    pub(crate) fn run(mut self) -> (u64, Vec<Slot>) {
        self.known_ways();
        let units = self.setting.units.len();
        // Once agents run, plans are made again and again, from durations that turned out wrong: trying is not worth it.
        let has_started = self.setting.problem.progress.iter().any(|progress| *progress != super::Progress::Waiting);
        if units > 1 && !has_started {
            self.anneal((TRIES_PER_UNIT * units).min(LOOKS_MAX as usize / units));
        }
        let best = self.best.expect("at least one way is known");
        (best.cost.0, best.slots)
    }

    fn is_over(&self) -> bool {
        !self.serial.has_looks() || self.best.as_ref().is_some_and(|best| best.cost.0 <= self.bound)
    }

    fn cost(&self, end: u64, slots: &[Slot]) -> Cost {
        let (agents, now) = (self.setting.problem.graph.agents(), self.setting.now());
        let each = slots.iter().zip(agents);
        let sum =
            each.map(|(slot, agent)| u128::from(slot.end.0.saturating_sub(now)) * (1 + u128::from(agent.priority)));
        (end, sum.sum())
    }

    /// Nothing if there were not enough looks left.
    fn attempt(&mut self, values: &[u64], place: &Place) -> Option<Cost> {
        let order = self.setting.order_by(values);
        let end = self.serial.run(&order, place)?;
        let cost = self.cost(end, self.serial.slots());
        if self.best.as_ref().is_none_or(|best| cost < best.cost) {
            let slots = self.serial.slots().to_vec();
            self.best = Some(match place {
                Place::Cost(_) => self.as_placed(cost, slots),
                Place::Kept(forced) => Best { cost, slots, values: values.to_vec(), forced: forced.to_vec() },
                _ => {
                    Best { cost, slots, values: values.to_vec(), forced: vec![NONE; self.setting.problem.graph.len()] }
                }
            });
        }
        Some(cost)
    }

    /// A plan that was made in another way: everybody is put where it is, in the order of starts.
    fn as_placed(&self, cost: Cost, slots: Vec<Slot>) -> Best {
        let values = self.setting.unit_values(|task| u64::MAX - slots[task as usize].start.0);
        let forced = slots.iter().map(|slot| slot.node).collect();
        Best { cost, slots, values, forced }
    }

    fn known_ways(&mut self) {
        let setting = self.setting;
        let graph = setting.problem.graph;
        let transfer = |task: u32| setting.transfer(task);
        let mean = |task: u32| Millis(setting.mean_duration(task));
        let (end, slots) = both_ways(setting, self.bound);
        let cost = self.cost(end, &slots);
        if self.best.as_ref().is_none_or(|best| cost < best.cost) {
            self.best = Some(self.as_placed(cost, slots));
        }
        let heft = heft_ranks(setting);
        let values = setting.unit_values(|task| heft[task as usize].0);
        self.attempt(&values, &Place::Textbook);
        let shared = upward_ranks(graph, mean, |task, _| Millis(setting.mean_transfer(task)));
        let bare = upward_ranks(graph, mean, |_, _| Millis(0));
        for ranks in [heft, shared, bare] {
            if self.is_over() {
                return;
            }
            let values = setting.unit_values(|task| ranks[task as usize].0);
            self.attempt(&values, &Place::Earliest);
        }
        if setting.cells() <= CELLS_MAX {
            let table = optimistic(setting);
            let nodes = setting.capacity.len();
            let values = setting.unit_values(|task| {
                let row = &table[task as usize * nodes..][..nodes];
                row.iter().map(|&cost| cost.min(1 << 40)).sum::<u64>() / nodes as u64
            });
            self.attempt(&values, &Place::Cost(&table));
            let ranks = upward_ranks(graph, mean, |task, _| Millis(transfer(task)));
            let values = setting.unit_values(|task| ranks[task as usize].0);
            self.attempt(&values, &Place::Cost(&table));
        }
        // Ranks by the durations of the places found so far.
        for _ in 0..3 {
            if self.is_over() {
                return;
            }
            let best = self.best.as_ref().expect("a way was tried");
            let ranks = ranks_as_placed(setting, &best.slots);
            self.attempt(&ranks, &Place::Earliest);
        }
    }

    fn anneal(&mut self, tries: usize) {
        let setting = self.setting;
        let mut dice = Dice::new(setting.problem.seed);
        let best = self.best.as_ref().expect("a way was tried");
        let mut values = setting.order_values(&setting.order_by(&best.values));
        let mut forced = best.forced.clone();
        let (mut cost, mut slots) = (best.cost, best.slots.clone());
        let span = cost.0 - setting.now();
        for done in 0..tries {
            if self.is_over() {
                return;
            }
            let tight = tight(setting, &slots, &mut dice);
            let Some(&(task, before)) = dice.pick(&tight) else { return };
            let unit = setting.unit_of[task as usize] as usize;
            let (mut new_values, mut new_forced) = (None, None);
            match dice.below(8) {
                0..=3 => {
                    let nodes = setting.nodes_for(task);
                    let node = nodes[dice.below(nodes.len() as u64) as usize];
                    let mut changed = forced.clone();
                    changed[task as usize] = node;
                    new_forced = Some(changed);
                }
                4 | 5 if before != NONE && setting.unit_of[before as usize] != NONE => {
                    let mut changed = values.clone();
                    let other = setting.unit_of[before as usize] as usize;
                    changed[unit] = values[other].saturating_add(1);
                    new_values = Some(changed);
                }
                6 => {
                    let mut changed = values.clone();
                    let other = dice.below(values.len() as u64) as usize;
                    changed[unit] = values[other].saturating_add(1);
                    new_values = Some(changed);
                }
                _ => {
                    let mut changed = forced.clone();
                    changed[task as usize] = NONE;
                    if before != NONE {
                        changed[before as usize] = NONE;
                    }
                    new_forced = Some(changed);
                }
            }
            let tried_values = new_values.as_ref().unwrap_or(&values);
            let tried_forced = new_forced.as_ref().unwrap_or(&forced);
            let Some(tried) = self.attempt(tried_values, &Place::Kept(tried_forced)) else { return };
            let warmth = span / 1_000 * WARMTH_PERMILLE * (tries - done) as u64 / tries as u64;
            let allowed = dice.below(warmth + 1) * dice.below(1024) / 1024;
            if tried <= cost || tried.0 <= cost.0.saturating_add(allowed) {
                cost = tried;
                slots.copy_from_slice(self.serial.slots());
                if let Some(new) = new_values {
                    values = setting.order_values(&setting.order_by(&new));
                }
                if let Some(new) = new_forced {
                    forced = new;
                }
            }
        }
    }
}

/// The ranks of HEFT itself, times the number of nodes, so that no mean is rounded.
fn heft_ranks(setting: &Setting) -> Vec<Millis> {
    let nodes = setting.capacity.len() as u64;
    let all_nodes = |task: u32| Millis(setting.summed_duration(task));
    let transfer = |task: u32, _| Millis(setting.transfer(task).saturating_mul(nodes));
    upward_ranks(setting.problem.graph, all_nodes, transfer)
}

/// The plan of HEFT, unless it takes more looks than this.
pub(crate) fn heft(setting: &Setting, looks: u64) -> Option<(u64, Vec<Slot>)> {
    let ranks = heft_ranks(setting);
    let order = setting.order_by(&setting.unit_values(|task| ranks[task as usize].0));
    let mut serial = Serial::new(setting, looks);
    let end = serial.run(&order, &Place::Textbook)?;
    Some((end, serial.slots().to_vec()))
}

/// The chain of waiting tasks up to the last end, each with what ends when it starts: one it waits for, or one that held
/// its node; [`NONE`] if nothing does.
fn tight(setting: &Setting, slots: &[Slot], dice: &mut Dice) -> Vec<(u32, u32)> {
    let is_waiting = |task: u32| setting.unit_of[task as usize] != NONE;
    let last = (0..slots.len() as u32).filter(|&task| is_waiting(task)).max_by_key(|&task| slots[task as usize].end);
    let mut chain = Vec::new();
    let mut next = last;
    while let Some(task) = next {
        let slot = &slots[task as usize];
        let graph = setting.problem.graph;
        let arrival = |before: u32| {
            let of = &slots[before as usize];
            of.end.0 + if of.node == slot.node { 0 } else { setting.transfer(before) }
        };
        let needed = graph.dependencies(task).iter().copied().find(|&before| arrival(before) == slot.start.0);
        let held = || {
            let others = (0..slots.len() as u32).filter(|&other| {
                let of = &slots[other as usize];
                of.end == slot.start && of.node == slot.node && of.start < of.end && other != task
            });
            let others: Vec<u32> = others.collect();
            dice.pick(&others).copied()
        };
        next = needed.or_else(held);
        chain.push((task, next.unwrap_or(NONE)));
        next = next.filter(|&before| is_waiting(before) && slots[before as usize].end.0 > setting.now());
        if chain.len() > slots.len() {
            break;
        }
    }
    chain
}

fn ranks_as_placed(setting: &Setting, slots: &[Slot]) -> Vec<u64> {
    let graph = setting.problem.graph;
    let duration = |task: u32| slots[task as usize].end - slots[task as usize].start;
    let transfer = |task: u32, after: u32| match slots[task as usize].node == slots[after as usize].node {
        true => Millis(0),
        false => Millis(setting.transfer(task)),
    };
    let ranks = upward_ranks(graph, duration, transfer);
    setting.unit_values(|task| ranks[task as usize].0)
}

/// Tasks times nodes up to which a cost for each pair is computed.
const CELLS_MAX: usize = 200_000;

/// What is left at least after a task that is on a node, every later task being on its best one (optimistic cost table:
/// Arabnejad, Barbosa, "List scheduling algorithm for heterogeneous systems by an optimistic cost table", IEEE TPDS
/// 25(3), 2014, §4.1). By task and node, in milliseconds.
fn optimistic(setting: &Setting) -> Vec<u64> {
    let nodes = setting.capacity.len();
    let graph = setting.problem.graph;
    let mut table = vec![0u64; graph.len() * nodes];
    for &task in graph.topological().iter().rev() {
        for &after in graph.dependents(task) {
            if setting.unit_of[after as usize] == NONE {
                continue;
            }
            let row =
                |node: u32| table[after as usize * nodes + node as usize].saturating_add(setting.duration(after, node));
            let anywhere = setting.nodes_for(after).iter().map(|&node| row(node)).min().unwrap_or(0);
            let moved = anywhere.saturating_add(setting.transfer(task));
            let own = task as usize * nodes;
            let stays: Vec<u64> = (0..nodes as u32)
                .map(|node| if setting.fits_on(after, node) { row(node).min(moved) } else { moved })
                .collect();
            for (cell, cost) in table[own..own + nodes].iter_mut().zip(stays) {
                *cell = (*cell).max(cost);
            }
        }
    }
    table
}
