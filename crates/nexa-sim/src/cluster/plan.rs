//! What goes wrong in a run, and when: drawn from the seed, so that it can be read before it is played.

use std::fmt;

use nexa_types::Millis;

use super::failpoint::{Point, Step};
use super::process::BEGIN;
use super::store::Weather;
use super::trace::shown;
use crate::dice::Dice;

/// Faults of one run.
const FAULTS: (u64, u64) = (3, 7);
/// Things that people do in one run, at most, and how long each lasts.
const PEOPLE_MAX: u64 = 2;
/// See [`PEOPLE_MAX`].
const PEOPLE_TAKE: (u64, u64) = (2_000, 14_000);
/// Times of a bad store in one run, at most, beyond those among the faults.
const STORE_FAULTS_MAX: u64 = 2;
/// Points of one run at which a node dies, at most, and how long each is waited for.
const FAILPOINTS_MAX: u64 = 2;
/// See [`FAILPOINTS_MAX`].
const FAILPOINT_TAKES: (u64, u64) = (1_000, 12_000);
/// Nothing goes wrong before this, so that a run begins with a cluster.
const CALM_AT_FIRST: Millis = Millis(2_000);

/// Whom a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// Whoever leads then.
    Leader,
    /// The node of this number.
    Node(usize),
}

impl fmt::Display for Whom {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => out.write_str("the leader"),
            Self::Node(number) => write!(out, "n{}", number + 1),
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its process is gone, with all that it had in memory; another run of it is started when the fault is over.
    Kill(Whom),
    /// Its process stands still.
    Pause(Whom),
    /// Its process is gone as it starts its next effect.
    KillAtStart(Whom),
    /// Its process stands still as it starts its next effect, and has no word of the membership service from before that on.
    PauseAtStart(Whom),
    /// Its process is gone at that point of its so many-th such step.
    DieAt(Whom, Point, u64),
    /// Nothing gets from it to another.
    OneWay(Whom, usize),
    /// Nothing gets from it to any other, nor back.
    Alone(Whom),
    /// It does not hear of the membership service, nor the service of it.
    Unlisted(Whom),
    /// The same, and nothing gets from it to any other, nor back.
    Lost(Whom),
    /// Nobody reaches the membership service.
    NoMembership,
    /// The leader loses its right to lead.
    Depose,
    /// Messages get lost and are late.
    Links { lost_per_mille: u64, delay_max: Millis },
    /// People have it take nothing new.
    Cordon(usize),
    /// People have it move away what it has.
    Drain(usize),
    /// It leaves in good order, and comes back.
    Leave(usize),
    /// The store is slow, refuses, and leaves answers in doubt.
    Store(Weather),
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(whom) => write!(out, "kill {whom}"),
            Self::Pause(whom) => write!(out, "pause {whom}"),
            Self::KillAtStart(whom) => write!(out, "kill {whom} as it starts an effect"),
            Self::PauseAtStart(whom) => write!(out, "pause {whom} as it starts an effect"),
            Self::DieAt(whom, point, nth) => write!(out, "kill {whom} {point}, the one of number {nth}"),
            Self::OneWay(whom, to) => write!(out, "cut the way from {whom} to n{}", to + 1),
            Self::Alone(whom) => write!(out, "cut {whom} off from all others"),
            Self::Unlisted(whom) => write!(out, "cut {whom} off from the membership service"),
            Self::Lost(whom) => write!(out, "cut {whom} off from all others and from the membership service"),
            Self::NoMembership => out.write_str("take the membership service away"),
            Self::Depose => out.write_str("depose the leader"),
            Self::Cordon(node) => write!(out, "cordon n{}", node + 1),
            Self::Drain(node) => write!(out, "drain n{}", node + 1),
            Self::Leave(node) => write!(out, "have n{} leave and come back", node + 1),
            Self::Links { lost_per_mille, delay_max } => {
                write!(out, "lose {lost_per_mille} of 1000 messages and delay the others by up to {delay_max}")
            }
            Self::Store(Weather { refused_per_mille, doubted_per_mille, delay_max }) => write!(
                out,
                "have the store refuse {refused_per_mille} and doubt {doubted_per_mille} of 1000 calls, up to {delay_max} late"
            ),
        }
    }
}

impl Fault {
    /// Its kind, for counts.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::Pause(_) => "pause",
            Self::KillAtStart(_) => "kill at a start",
            Self::PauseAtStart(_) => "pause at a start",
            Self::DieAt(..) => "failpoint",
            Self::OneWay(..) => "one-way cut",
            Self::Alone(_) => "cut off from nodes",
            Self::Unlisted(_) => "cut off from membership",
            Self::Lost(_) => "cut off from all",
            Self::NoMembership => "membership away",
            Self::Depose => "depose",
            Self::Cordon(_) => "cordon",
            Self::Drain(_) => "drain",
            Self::Leave(_) => "leave",
            Self::Links { .. } => "bad links",
            Self::Store(_) => "bad store",
        }
    }
}

/// A fault and its time, from the beginning of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) from: Millis,
    pub(super) until: Millis,
    pub(super) fault: Fault,
}

/// Draws the faults of a run and what people do in it, by the time that they begin. The last is over at `end`. Without faults,
/// people do one thing after the other.
pub(super) fn draw(seed: u64, nodes: usize, end: Millis, has_faults: bool) -> Vec<Planned> {
    let mut dice = Dice::of(&[0xfa17, seed]);
    if !has_faults {
        return calm(&mut dice, nodes, end);
    }
    let count = dice.between(FAULTS.0, FAULTS.1);
    let mut plan: Vec<Planned> = (0..count).map(|_| one(&mut dice, nodes, end)).collect();
    // Whatever else goes wrong is worse while nobody knows what was stored.
    plan.extend((0..dice.below(STORE_FAULTS_MAX + 1)).map(|_| {
        let (fault, lasts) = bad_store(&mut dice);
        at_some_time(&mut dice, fault, (lasts, lasts), end)
    }));
    plan.extend((0..dice.below(FAILPOINTS_MAX + 1)).map(|_| {
        let fault = failpoint(&mut dice, nodes);
        at_some_time(&mut dice, fault, FAILPOINT_TAKES, end)
    }));
    plan.extend((0..dice.below(PEOPLE_MAX + 1)).map(|_| {
        let fault = by_people(&mut dice, nodes);
        at_some_time(&mut dice, fault, PEOPLE_TAKE, end)
    }));
    plan.sort_by_key(|planned| (planned.from, planned.until));
    plan
}

/// Only a leader comes to where a leader writes.
fn failpoint(dice: &mut Dice, nodes: usize) -> Fault {
    let (point, most) = Point::ALL[usize::try_from(dice.below(Point::ALL.len() as u64)).unwrap_or_default()];
    let node = usize::try_from(dice.below(nodes as u64)).unwrap_or_default();
    let whom = if point.step == Step::Lead { Whom::Leader } else { Whom::Node(node) };
    Fault::DieAt(whom, point, dice.between(1, most))
}

fn by_people(dice: &mut Dice, nodes: usize) -> Fault {
    let node = usize::try_from(dice.below(nodes as u64)).unwrap_or_default();
    [Fault::Cordon(node), Fault::Drain(node), Fault::Leave(node)][usize::try_from(dice.below(3)).unwrap_or_default()]
}

fn at_some_time(dice: &mut Dice, fault: Fault, (least, most): (u64, u64), end: Millis) -> Planned {
    let lasts = dice.between(least, most);
    let from = dice.between(CALM_AT_FIRST.0, end.0.saturating_sub(1).max(CALM_AT_FIRST.0));
    Planned { from: Millis(from), until: Millis((from + lasts).min(end.0.max(from))), fault }
}

/// One thing after the other, so that there is always room.
fn calm(dice: &mut Dice, nodes: usize, end: Millis) -> Vec<Planned> {
    let (mut plan, mut from) = (Vec::new(), CALM_AT_FIRST.0);
    loop {
        from += dice.between(1_000, 4_000);
        let until = from + dice.between(PEOPLE_TAKE.0, PEOPLE_TAKE.1);
        if nodes < 2 || until > end.0 {
            return plan;
        }
        plan.push(Planned { from: Millis(from), until: Millis(until), fault: by_people(dice, nodes) });
        from = until;
    }
}

fn bad_store(dice: &mut Dice) -> (Fault, u64) {
    let refused_per_mille = [0, 50, 300, 1_000][usize::try_from(dice.below(4)).unwrap_or_default()];
    let (doubted_per_mille, delay_max) = (dice.between(0, 400), Millis(dice.between(5, 1_500)));
    (Fault::Store(Weather { refused_per_mille, doubted_per_mille, delay_max }), dice.between(1_000, 8_000))
}

fn one(dice: &mut Dice, nodes: usize, end: Millis) -> Planned {
    let node = |dice: &mut Dice| usize::try_from(dice.below(nodes as u64)).unwrap_or_default();
    let whom = |dice: &mut Dice| if dice.below(3) == 0 { Whom::Leader } else { Whom::Node(node(dice)) };
    let (fault, lasts) = match dice.below(12) {
        0 | 1 => (Fault::Kill(whom(dice)), dice.between(200, 6_000)),
        2 => (Fault::KillAtStart(whom(dice)), dice.between(500, 6_000)),
        3 => (Fault::Pause(whom(dice)), dice.between(500, 9_000)),
        4 => (Fault::PauseAtStart(whom(dice)), dice.between(2_000, 9_000)),
        5 => (Fault::OneWay(whom(dice), node(dice)), dice.between(500, 9_000)),
        6 => (Fault::Alone(whom(dice)), dice.between(500, 9_000)),
        7 => (Fault::Unlisted(whom(dice)), dice.between(500, 9_000)),
        8 => (Fault::Lost(whom(dice)), dice.between(500, 9_000)),
        9 => match dice.below(2) {
            0 => (Fault::NoMembership, dice.between(500, 6_000)),
            _ => (Fault::Depose, 0),
        },
        10 => {
            let (lost_per_mille, delay_max) = (dice.between(10, 400), Millis(dice.between(5, 800)));
            (Fault::Links { lost_per_mille, delay_max }, dice.between(2_000, 12_000))
        }
        _ => bad_store(dice),
    };
    at_some_time(dice, fault, (lasts, lasts), end)
}

/// A plan, for people.
pub(super) fn shown_plan(plan: &[Planned]) -> Vec<String> {
    let line = |planned: &Planned| {
        let at = |millis: Millis| shown(BEGIN.after(millis)).trim().to_owned();
        format!("{} s to {} s: {}", at(planned.from), at(planned.until), planned.fault)
    };
    plan.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_plan_that_ends_in_time_and_all_kinds_come() {
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let plan = draw(seed, 3, Millis(40_000), true);
            assert_eq!(plan, draw(seed, 3, Millis(40_000), true));
            assert!(plan.len() >= 3 && plan.iter().all(|planned| planned.until <= Millis(40_000)));
            kinds.extend(plan.iter().map(|planned| planned.fault.kind()));
        }
        assert_eq!(kinds.len(), 16, "{kinds:?}");
    }
}
