//! Whether the simulation notices what it is for: bugs that are planted in Nexa's own code, each of which some seed must catch.
//!
//! They are there only in what is built here, with the feature `planted-bugs`. With debug-assertions, so that a broken
//! invariant of an agent is noticed where it breaks.

use crate::process::{self, Outcome, target_dir};

/// Plays them, with the options of `nexa-sim cluster-bugs`.
pub(crate) fn run(options: &[&str]) -> Outcome {
    process::run("cargo", &["build", "--profile", "fast", "--package", "nexa-sim", "--features", "planted-bugs"])?;
    let args: Vec<&str> = std::iter::once("cluster-bugs").chain(options.iter().copied()).collect();
    process::run(target_dir().join("fast/nexa-sim"), &args)
}
