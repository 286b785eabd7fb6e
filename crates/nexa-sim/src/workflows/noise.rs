//! What a scheduler believes about durations, made from the true ones.
//!
//! Every noise is a factor of the lognormal distribution with mean 1 and a standard deviation of so many percent: work
//! rarely takes a tenth of what was thought, and now and then ten times as much.
//!
//! - *per task*: every task has its own factor. Nothing can be learned while the workflow runs.
//! - *per kind*: all tasks of a kind have the same factor, as where last month's data were larger than today's. The order
//!   within a kind is right, and its scale is wrong.
//! - *learned*: what `nexa_sched::Estimates` has learned of each kind from twenty earlier runs, in which each task took its
//!   true duration times a factor of its own. Nothing is known of what tells the members of a kind apart, so that even
//!   without noise this is not the truth.

use std::collections::{BTreeMap, BTreeSet};

use nexa_sched::Estimates;
use nexa_types::Millis;

use super::Workflow;
use crate::dice::Dice;

/// Earlier runs that durations are learned from, and how long lies between two of them.
const RUNS: u64 = 20;
const RUN_EVERY: Millis = Millis(3_600_000);
/// What is believed of an agent of which nothing is said: the default of the language.
const DECLARED: Millis = Millis(2_000);

/// How estimates differ from the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Noise {
    /// Not at all.
    True,
    /// Each task by its own factor, that spreads by so many percent.
    Task(u32),
    /// All tasks of a kind by the same factor.
    Kind(u32),
    /// What was learned of its kind from runs in which each task differed by its own factor.
    Learned(u32),
}

impl std::fmt::Display for Noise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::True => f.write_str("true"),
            Self::Task(percent) => write!(f, "task {percent} %"),
            Self::Kind(percent) => write!(f, "kind {percent} %"),
            Self::Learned(percent) => write!(f, "learned {percent} %"),
        }
    }
}

/// Estimates of the durations of a workflow's tasks, by task.
#[must_use]
pub fn estimates(workflow: &Workflow, noise: Noise, seed: u64) -> Vec<Millis> {
    let tasks = workflow.tasks();
    match noise {
        Noise::True => workflow.durations(),
        Noise::Task(percent) => {
            let mut dice = Dice::of(&[0x7a, seed]);
            tasks.iter().map(|task| scaled(task.duration, dice.lognormal(percent))).collect()
        }
        Noise::Kind(percent) => {
            let kinds: BTreeSet<&str> = tasks.iter().map(|task| task.kind.as_str()).collect();
            let factor = |ordinal| Dice::of(&[0x4b, seed, ordinal]).lognormal(percent);
            let factors: BTreeMap<&str, f64> = kinds.into_iter().zip((0..).map(factor)).collect();
            tasks.iter().map(|task| scaled(task.duration, factors[task.kind.as_str()])).collect()
        }
        Noise::Learned(percent) => {
            let (mut dice, mut learned) = (Dice::of(&[0x1e, seed]), Estimates::default());
            for run in 0..RUNS {
                let now = Millis(run * RUN_EVERY.0);
                for task in tasks {
                    learned.observe(&task.kind, scaled(task.duration, dice.lognormal(percent)), now);
                }
            }
            tasks.iter().map(|task| learned.estimate(&task.kind, DECLARED)).collect()
        }
    }
}

/// A duration times a factor, rounded, at least 1 ms; a float ends at the largest number.
fn scaled(duration: Millis, factor: f64) -> Millis {
    Millis((duration.0 as f64 * factor).round().max(1.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::super::task::tests::task;
    use super::*;

    #[test]
    fn each_noise_keeps_what_it_says_it_keeps() {
        let mut tasks: Vec<_> = (0..40).map(|id| task(id, 1_000 * (id as u64 + 1), &[])).collect();
        tasks[20..].iter_mut().for_each(|task| task.kind = "other".to_owned());
        let workflow = Workflow::new("w", tasks).expect("it is one");
        let truth = workflow.durations();
        for none in [Noise::True, Noise::Task(0), Noise::Kind(0)] {
            assert_eq!(estimates(&workflow, none, 1), truth);
        }
        let ratio = |noise| -> Vec<i64> {
            let estimates = estimates(&workflow, noise, 1);
            estimates.iter().zip(&truth).map(|(estimate, truth)| (1_000 * estimate.0 / truth.0) as i64).collect()
        };
        let is_constant = |of: &[i64]| of.iter().all(|ratio| (ratio - of[0]).abs() <= 1);
        let (by_task, by_kind) = (ratio(Noise::Task(30)), ratio(Noise::Kind(30)));
        assert!(!is_constant(&by_task[..20]));
        assert!(is_constant(&by_kind[..20]) && is_constant(&by_kind[20..]) && !is_constant(&by_kind));
        // The medians of 1 to 20 and of 21 to 40 seconds, as well as a histogram knows them, whatever a task takes.
        for percent in [0, 30] {
            let learned = estimates(&workflow, Noise::Learned(percent), 1);
            assert_eq!((learned[0], learned[20]), (learned[19], learned[39]));
            let is_near = |at: usize, median: u64| learned[at].0.abs_diff(median) < median / 5;
            assert!(is_near(0, 10_500) && is_near(20, 30_500), "{learned:?}");
        }
        assert_ne!(estimates(&workflow, Noise::Task(30), 1), estimates(&workflow, Noise::Task(30), 2));
    }
}
