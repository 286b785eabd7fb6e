//! The benches, by the name of their suite. Built for release, run one at a time, the figures on the last line as JSON.

use crate::process::{self, Outcome, target_dir};
use crate::start;
use crate::test::APART;

/// The suites that `nexa-bench` has.
const SUITES: &[&str] = &["cluster", "core", "language"];

/// Builds what a suite measures and runs it, with whatever options of its own.
pub(crate) fn run(suite: &str, options: &[&str]) -> Outcome {
    if !SUITES.contains(&suite) {
        return Err(format!(
            "there is no suite `{suite}`; there are: {}, context, eviction, retrieval, scheduler",
            SUITES.join(", ")
        ));
    }
    // One by one, as `nexa` is built for use: together they would share features.
    for package in ["nexa", "nexa-bench"] {
        process::run("cargo", &["build", "--quiet", "--release", "--package", package])?;
    }
    let release = target_dir().join("release");
    let nexa = release.join("nexa");
    let (nexa, folder) = (nexa.to_string_lossy(), target_dir().join("bench"));
    let folder = folder.to_string_lossy();
    let mut args = vec![suite, "--nexa", &nexa];
    if suite == "core" {
        // Build results lie on a disk, which cannot be said of the folder for temporary files.
        args.extend(["--folder", &folder]);
        match start::found(&release.join("nexa")) {
            Ok((found, named)) if found * 10 < named * 9 => {
                eprintln!("bench: {found} of {named} functions of a start are where they were: cargo xtask start-order")
            }
            Ok(_) => {}
            Err(error) => eprintln!("bench: whether functions of a start lie side by side is not known: {error}"),
        }
    }
    args.extend(options);
    process::run(release.join("nexa-bench"), &args)
}

/// Measures what is found of what was said, with the options of `nexa-recall-bench`.
pub(crate) fn recall(suite: &str, options: &[&str]) -> Outcome {
    process::run("cargo", &["build", "--quiet", "--release", "--package", "nexa-recall-bench"])?;
    let args: Vec<&str> = std::iter::once(suite).chain(options.iter().copied()).collect();
    process::run(target_dir().join("release/nexa-recall-bench"), &args)
}

/// Measures the store of context pages; see `crates/nexa-pages/examples/context.rs`.
pub(crate) fn context(options: &[&str]) -> Outcome {
    // Build results lie on a disk, which cannot be said of the folder for temporary files.
    let folder = target_dir().join("bench");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let folder = folder.to_string_lossy();
    // Optimised as a release is, but not the whole program at once: with Lance in it that takes more than half an hour.
    let run =
        ["run", "--quiet", "--profile", "sim", "--package", APART, "--features", "s3", "--example", "context", "--"];
    process::run("cargo", &[&run[..], &["--folder", &folder], options].concat())
}
