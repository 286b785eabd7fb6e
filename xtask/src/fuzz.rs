//! Very many damaged inputs, made from a seed, through what must bear them. Built for release; slow, so no part of the tests.

use crate::process::{self, Outcome};

/// What can be fuzzed: a name, the package and its example that does it.
const TARGETS: &[(&str, &str, &str)] = &[("lang", "nexa-lang", "fuzz_programs"), ("vm", "nexa-vm", "fuzz_modules")];

/// Runs a target with its own options, such as `--cases 1000000 --seed 1`.
pub(crate) fn run(target: &str, options: &[&str]) -> Outcome {
    let Some((_, package, example)) = TARGETS.iter().find(|(name, ..)| *name == target) else {
        let names: Vec<&str> = TARGETS.iter().map(|(name, ..)| *name).collect();
        return Err(format!("there is no fuzz target `{target}`; there are: {}", names.join(", ")));
    };
    let mut args = vec!["run", "--quiet", "--release", "--package", package, "--example", example, "--"];
    args.extend(options);
    process::run("cargo", &args)
}
