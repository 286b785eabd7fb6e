//! Who waits for room: units that need the same in one line, and the heads of all lines in the order of their turn.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Bound;

use super::setting::Setting;
use super::turn::Turn;
use crate::count::{Look, looks, ordered};
use crate::graph::NONE;
use crate::timeline::Amounts;

/// Units that need the same of a node, of the same ledgers, and are of one kind where kinds take turns.
#[derive(Default)]
struct Line {
    waiting: BinaryHeap<(u64, Reverse<u32>)>,
    /// Whether its head has not been looked at on all nodes.
    is_new: bool,
    kind: u32,
    /// What each of them needs of a node; nothing for a gang.
    demand: Amounts,
}

/// Head of a line: its turn, its unit, its line. What is smaller is next.
pub(crate) type Head = (Reverse<u64>, u32, u32);

/// All lines.
pub(crate) struct Lines {
    lines: Vec<Line>,
    line_of: Vec<u32>,
    of_kind: Vec<Vec<u32>>,
    heads: BTreeSet<Head>,
}

impl Lines {
    /// Empty lines for all units; each gang is a line of its own.
    pub(crate) fn new(setting: &Setting, turn: &Turn) -> Self {
        // Most units hold nothing of ledgers, and mostly kinds take no turns: then their shape says their line.
        let mut of_shape = vec![NONE; setting.tasks.shapes().len()];
        let mut known: BTreeMap<(u32, u32, Vec<u32>), u32> = BTreeMap::new();
        let of_kind = vec![Vec::new(); turn.fair.as_ref().map_or(0, |fair| fair.had.len())];
        let line_of = Vec::with_capacity(setting.units.len());
        let mut it = Self { lines: Vec::new(), line_of, of_kind, heads: BTreeSet::new() };
        for unit in 0..setting.units.len() as u32 {
            let members = setting.units.row(unit);
            let kind = turn.fair.as_ref().map_or(0, |fair| fair.kind_of[members[0] as usize]);
            let next = it.lines.len() as u32;
            let line = match members {
                &[task] => {
                    let (shape, holds) = (setting.tasks.get(task).shape, setting.ledgers.holds(task));
                    let ledgers = || holds.iter().map(|hold| hold.ledger).collect();
                    let line = match holds.is_empty() && turn.fair.is_none() {
                        true => &mut of_shape[shape as usize],
                        false => known.entry((shape, kind, ledgers())).or_insert(NONE),
                    };
                    if *line == NONE {
                        *line = next;
                    }
                    *line
                }
                _ => next,
            };
            if line == next {
                let demand = if let &[task] = members { *setting.demand(task) } else { Amounts::default() };
                it.lines.push(Line { kind, demand, ..Line::default() });
                if let Some(lines) = it.of_kind.get_mut(kind as usize) {
                    lines.push(line);
                }
            }
            it.line_of.push(line);
        }
        it
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// The next head after another.
    pub(crate) fn next(&self, from: Bound<Head>) -> Option<Head> {
        ordered(Look::Waiting, self.heads.len());
        self.heads.range((from, Bound::Unbounded)).next().copied()
    }

    /// What each unit of the head's line needs of a node; nothing for a gang.
    pub(crate) fn demand(&self, head: Head) -> &Amounts {
        &self.lines[head.2 as usize].demand
    }

    pub(crate) fn is_new(&self, head: Head) -> bool {
        self.lines[head.2 as usize].is_new
    }

    /// It found no room anywhere, and will not before something ends.
    pub(crate) fn looked_at(&mut self, head: Head) {
        self.lines[head.2 as usize].is_new = false;
    }

    /// The line of a unit is to be looked at on all nodes.
    pub(crate) fn renew(&mut self, unit: u32) {
        self.lines[self.line_of[unit as usize] as usize].is_new = true;
    }

    pub(crate) fn renew_all(&mut self) {
        looks(Look::Waiting, self.lines.len());
        self.lines.iter_mut().for_each(|line| line.is_new = true);
    }

    fn head(&self, line: u32, turn: &Turn) -> Option<Head> {
        let of = &self.lines[line as usize];
        let &(value, Reverse(unit)) = of.waiting.peek()?;
        let value = turn.fair.as_ref().map_or(value, |fair| u64::MAX - fair.had[of.kind as usize]);
        Some((Reverse(value), unit, line))
    }

    pub(crate) fn enqueue(&mut self, unit: u32, turn: &Turn) {
        let line = self.line_of[unit as usize];
        let before = self.head(line, turn);
        ordered(Look::Waiting, self.lines[line as usize].waiting.len());
        self.lines[line as usize].waiting.push((turn.values[unit as usize], Reverse(unit)));
        let after = self.head(line, turn);
        if before.is_none() {
            self.lines[line as usize].is_new = true;
        }
        if before != after {
            ordered(Look::Waiting, self.heads.len());
            before.map(|head| self.heads.remove(&head));
            self.heads.extend(after);
        }
    }

    pub(crate) fn dequeue(&mut self, head: Head, turn: &Turn) {
        ordered(Look::Waiting, self.heads.len());
        ordered(Look::Waiting, self.lines[head.2 as usize].waiting.len());
        self.heads.remove(&head);
        self.lines[head.2 as usize].waiting.pop();
        let next = self.head(head.2, turn);
        self.heads.extend(next);
    }

    /// Where kinds take turns: what a task has had counts, and the heads of its kind stand farther behind.
    pub(crate) fn charge(&mut self, task: u32, span: u64, turn: &mut Turn) {
        let Some(kind) = turn.fair.as_ref().map(|fair| fair.kind_of[task as usize] as usize) else { return };
        let lines = std::mem::take(&mut self.of_kind[kind]);
        for &line in &lines {
            ordered(Look::Waiting, self.heads.len());
            self.head(line, turn).map(|head| self.heads.remove(&head));
        }
        if let Some(fair) = &mut turn.fair {
            fair.charge(task, span);
        }
        for &line in &lines {
            let head = self.head(line, turn);
            self.heads.extend(head);
        }
        self.of_kind[kind] = lines;
    }
}
