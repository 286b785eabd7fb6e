//! The main job in one command: agents review a real text with a real model, on this machine, without a key.

use std::time::Instant;

use crate::process::{self, Outcome, binary, root};
use crate::setup;

/// Builds, fetches the weights if they are not there, and runs `examples/review` on a file.
pub(crate) fn run(file: &str) -> Outcome {
    let started = Instant::now();
    setup::install(setup::Scope::Build)?;
    process::run("cargo", &["build", "--quiet", "--profile", "fast", "--package", "nexa"])?;
    let nexa = binary("nexa");
    process::run(&nexa, &["models", "pull", "smollm2-135m-instruct"])?;
    let built = started.elapsed();
    let data = root().join("target/demo");
    let data = data.to_string_lossy();
    // `run` goes on with an unfinished review of the same file; a finished one is done anew.
    process::run(&nexa, &["run", "examples/review/review.nx", "--input-file", file, "--data", &data])?;
    eprintln!(
        "demo: ready to run after {:.0} s, reviewed in {:.0} s",
        built.as_secs_f64(),
        (started.elapsed() - built).as_secs_f64()
    );
    Ok(())
}
