//! What a scheduler believes about durations, made from the true ones.
//!
//! Every noise is a factor of the lognormal distribution with mean 1 and a standard deviation of so many percent: work
//! rarely takes a tenth of what was thought, and now and then ten times as much.
//!
//! - *per task*: every task has its own factor. Nothing can be learned while the workflow runs.
//! - *per kind*: all tasks of a kind have the same factor, as where last month's data were larger than today's. The order
//!   within a kind is right, and its scale is wrong.
//! - *history*: the median of the kind's true durations, times the factor of the kind: what is known of a kind and not of
//!   its members, as a history of runs gives it. Even without noise this is not the truth.

use std::collections::BTreeMap;

use nexa_types::Millis;

use super::Workflow;
use crate::dice::Dice;

/// How estimates differ from the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Noise {
    /// Not at all.
    True,
    /// Each task by its own factor, that spreads by so many percent.
    Task(u32),
    /// All tasks of a kind by the same factor.
    Kind(u32),
    /// The median of the kind for each of its tasks, by the kind's factor.
    History(u32),
}

impl std::fmt::Display for Noise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::True => f.write_str("true"),
            Self::Task(percent) => write!(f, "task {percent} %"),
            Self::Kind(percent) => write!(f, "kind {percent} %"),
            Self::History(percent) => write!(f, "history {percent} %"),
        }
    }
}

/// Estimates of the durations of a workflow's tasks, by task.
#[must_use]
pub fn estimates(workflow: &Workflow, noise: Noise, seed: u64) -> Vec<Millis> {
    let mut kinds: BTreeMap<&str, Vec<Millis>> = BTreeMap::new();
    for task in workflow.tasks() {
        kinds.entry(&task.kind).or_default().push(task.duration);
    }
    let mut of_kind = BTreeMap::new();
    for (ordinal, (kind, mut durations)) in (0..).zip(kinds) {
        durations.sort_unstable();
        let median = durations[durations.len() / 2];
        let percent = match noise {
            Noise::Kind(percent) | Noise::History(percent) => percent,
            Noise::True | Noise::Task(_) => 0,
        };
        of_kind.insert(kind, (median, Dice::of(&[0x4b, seed, ordinal]).lognormal(percent)));
    }
    let mut dice = Dice::of(&[0x7a, seed]);
    let estimate = |task: &super::Task| {
        let (median, factor) = of_kind[task.kind.as_str()];
        match noise {
            Noise::True => task.duration,
            Noise::Task(percent) => scaled(task.duration, dice.lognormal(percent)),
            Noise::Kind(_) => scaled(task.duration, factor),
            Noise::History(_) => scaled(median, factor),
        }
    };
    workflow.tasks().iter().map(estimate).collect()
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
        let history = estimates(&workflow, Noise::History(0), 1);
        assert_eq!((history[0], history[19], history[20]), (Millis(11_000), Millis(11_000), Millis(31_000)));
        assert_ne!(estimates(&workflow, Noise::Task(30), 1), estimates(&workflow, Noise::Task(30), 2));
    }
}
