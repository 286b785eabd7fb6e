//! What is played on models and not on nodes. Built for release: it is arithmetic, and much of it.

use crate::process::{self, Outcome, target_dir};

/// Plays workflow traces on modelled clusters, with the options of `nexa-sim plan-sim`.
pub(crate) fn plan(options: &[&str]) -> Outcome {
    run("plan-sim", options)
}

/// Measures the scheduler, with the options of `nexa-sim bench`.
pub(crate) fn bench(options: &[&str]) -> Outcome {
    run("bench", options)
}

fn run(command: &str, options: &[&str]) -> Outcome {
    process::run("cargo", &["build", "--quiet", "--release", "--package", "nexa-sim"])?;
    let args: Vec<&str> = std::iter::once(command).chain(options.iter().copied()).collect();
    process::run(target_dir().join("release/nexa-sim"), &args)
}
