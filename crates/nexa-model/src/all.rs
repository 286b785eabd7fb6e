//! Every model, in the order in which something is learned soonest: within small bounds, which must be seen whole; with each rule
//! left out in turn, which must be missed; within larger bounds, as far as there is time.

use std::time::{Duration, Instant};

use nexa_model::ledger::{self, Ledger};
use nexa_model::ownership::{self, Ownership};
use nexa_model::{Effort, Report, check};
use serde_json::{Value, json};

use crate::Options;

/// What is looked at.
#[derive(Debug, Clone, Copy)]
enum Subject {
    Ownership(Ownership),
    Ledger(Ledger),
}

impl Subject {
    fn look(self, name: &'static str, effort: Effort) -> Report {
        match self {
            Self::Ownership(model) => check(name, model, effort),
            Self::Ledger(model) => check(name, model, effort),
        }
    }
}

fn ownership(bounds: ownership::Bounds, plant: Option<ownership::Plant>) -> Subject {
    Subject::Ownership(Ownership { bounds, plant })
}

fn ledger(bounds: ledger::Bounds, plant: Option<ledger::Plant>) -> Subject {
    Subject::Ledger(Ledger { bounds, plant })
}

fn small() -> Vec<(&'static str, Subject)> {
    let twice = ledger::Bounds { is_idempotent: true, ..ledger::Bounds::SMALL };
    vec![
        ("ownership", ownership(ownership::Bounds::SMALL, None)),
        ("ledger", ledger(ledger::Bounds::SMALL, None)),
        ("ledger of what may be called twice", ledger(twice, None)),
        ("migration", ledger(ledger::Bounds::MOVING_SMALL, None)),
    ]
}

fn large() -> Vec<(&'static str, Subject)> {
    let twice = ledger::Bounds { is_idempotent: true, ..ledger::Bounds::LARGE };
    vec![
        ("ledger, larger", ledger(ledger::Bounds::LARGE, None)),
        ("ledger of what may be called twice, larger", ledger(twice, None)),
        ("migration, twice", ledger(ledger::Bounds::MOVING_TWICE, None)),
        ("migration, larger", ledger(ledger::Bounds::MOVING_LARGE, None)),
        ("ownership, larger", ownership(ownership::Bounds::LARGE, None)),
    ]
}

/// Each rule that can be left out, within bounds in which that shows.
fn plants() -> Vec<(&'static str, Subject)> {
    let of_nodes = ownership::Plant::ALL.into_iter().map(|(name, plant)| {
        let is_late = plant == ownership::Plant::OldNews;
        let bounds = ownership::Bounds { faults: if is_late { 2 } else { 1 }, ..ownership::Bounds::SMALL };
        (name, ownership(bounds, Some(plant)))
    });
    let of_calls = ledger::Plant::ALL.into_iter().map(|(name, plant)| {
        let bounds = if plant.is_of_moves() { ledger::Bounds::MOVING_SMALL } else { ledger::Bounds::SMALL };
        (name, ledger(bounds, Some(plant)))
    });
    of_nodes.chain(of_calls).collect()
}

/// What came of all of it.
#[derive(Debug, Default)]
struct Sum {
    reports: Vec<Report>,
    /// Models that were not seen whole, and need not be.
    partly: Vec<&'static str>,
    /// Models that do not hold, or were not seen whole and have to be.
    broken: Vec<&'static str>,
    noticed: usize,
    missed: Vec<&'static str>,
    /// Planted for which there was no time.
    left: Vec<&'static str>,
    took: Duration,
}

/// Looks at all of it and shows what was found; gives whether all holds that was looked at.
pub(crate) fn look(options: &Options) -> bool {
    let began = Instant::now();
    let ends = began + options.effort.within;
    let effort = |within: Duration| Effort { within, ..options.effort };
    let left = || ends.saturating_duration_since(Instant::now());
    let mut sum = Sum::default();
    for (name, subject) in small() {
        let report = subject.look(name, effort(left()));
        if !report.holds() {
            sum.broken.push(name);
        }
        sum.add(options, report);
    }
    for (name, subject) in plants() {
        let report = subject.look(name, effort(left()));
        match (report.broken().next(), report.is_exhausted) {
            (Some(by), _) => {
                sum.noticed += 1;
                if options.is_text {
                    println!("left out: {name:14} noticed by “{}”", by.name);
                }
            }
            (None, true) => sum.missed.push(name),
            (None, false) => sum.left.push(name),
        }
    }
    let larger = if options.is_small { Vec::new() } else { large() };
    for (place, (name, subject)) in larger.iter().copied().enumerate() {
        let share = left() / u32::try_from(larger.len() - place).unwrap_or(u32::MAX);
        let report = subject.look(name, effort(share));
        if report.broken().next().is_some() || (report.is_exhausted && !report.holds()) {
            sum.broken.push(name);
        } else if !report.is_exhausted {
            sum.partly.push(name);
        }
        sum.add(options, report);
    }
    sum.took = began.elapsed();
    if options.is_text {
        println!("{}", sum.text());
    }
    if options.is_json {
        println!("{}", sum.json());
    }
    sum.holds()
}

impl Sum {
    fn add(&mut self, options: &Options, report: Report) {
        if options.is_text {
            print!("{report}");
        }
        self.reports.push(report);
    }

    fn holds(&self) -> bool {
        self.broken.is_empty() && self.missed.is_empty()
    }

    fn states(&self) -> usize {
        self.reports.iter().map(|report| report.states).sum()
    }

    fn text(&self) -> String {
        let named = |names: &[&str]| if names.is_empty() { "none".to_owned() } else { names.join("; ") };
        let Self { reports, partly, broken, noticed, missed, left, took } = self;
        format!(
            "models         {} in {:.0} s: {} states, each once\n\
             broken         {}\n\
             only in part   {}\n\
             rules left out {noticed} noticed; missed: {}; not tried for want of time: {}",
            reports.len(),
            took.as_secs_f64(),
            self.states(),
            named(broken),
            named(partly),
            named(missed),
            named(left),
        )
    }

    fn json(&self) -> Value {
        json!({
            "holds": self.holds(),
            "states": self.states(),
            "transitions": self.reports.iter().map(|report| report.transitions).sum::<usize>(),
            "broken": self.broken,
            "seen_in_part_for_want_of_time": self.partly,
            "rules_left_out_noticed": self.noticed,
            "rules_left_out_missed": self.missed,
            "rules_left_out_not_tried": self.left,
            "models": self.reports.iter().map(Report::json).collect::<Vec<_>>(),
            "seconds": self.took.as_secs_f64(),
        })
    }
}
