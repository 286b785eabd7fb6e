//! `cargo xtask NAME`: set-up, the demo, the tests, the checks. Everything a newcomer or a CI machine calls.
//!
//! No dependencies: this is the first thing that is compiled on a clean machine, before anything is installed.
//!
//! - [`setup`]: finds what the build needs from the system and installs it, or says exactly what to install.
//! - [`demo`]: the main job on the embedded model.
//! - [`test`]: everything that must pass before a change lands.
//! - [`bench`]: figures, beside those of peers.
//! - [`bugs`]: whether planted bugs are noticed.
//! - [`sim`]: decisions played on models of the world.
//! - [`prove`]: promises while things go wrong, in lanes, with a page about it.
//! - [`start`]: which functions a start uses, for the linker.
//! - [`fuzz`]: damaged inputs from a seed.
//! - [`tidy`]: what a compiler does not check: names in documents, lengths of files, words that must not appear.

mod bench;
mod bugs;
mod demo;
mod fuzz;
mod process;
mod prove;
mod setup;
mod sim;
mod start;
mod test;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
usage: cargo xtask COMMAND

  setup           install what the build and the tests need from the system
  setup --check   only say what is missing
  demo [FILE]     let agents review FILE (default: LICENSE) on the embedded model
  test            format, tidy, lints, unit and process tests
  test --quick    the same without lints and without tests of whole processes
  test --slow     tests that take too long for that, optimised: a million gangs
  test --apart    lints and tests of what keeps pages in Lance, which takes as long to build as all the rest
  bench NAME [OPTION…]
                  build for release and measure: cluster, context, core, eviction, language, retrieval, scheduler; the last
                  line is one JSON object
  plan-sim DIR [--nodes N,…] [--seeds N] [-o table|json] [--report FILE]
                  play the workflow traces of a folder (WfFormat) on modelled clusters, beside HEFT
  prove [--short|--nightly] [--lane NAME]… [--page FILE]
                  show that Nexa keeps its promises while things go wrong, at most half an hour, and write a page about
                  it (default: docs/reports/proof.md); the last line is one JSON object.
                  Lanes: models, simulation, bugs, processes
  prove --bugs [--seeds N] [--bug NAME] [-o text|json]
                  plant bugs, one after the other, and see whether the simulation catches them
  fuzz NAME [--cases N] [--seed N] [--first N]
                  damaged inputs from a seed: lang
  start-order     see which functions a start uses, for the linker to put side by side
  tidy            check documents and files against the rules of CONTRIBUTING.md
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["setup"] => setup::install(setup::Scope::Tests),
        ["setup", "--check"] => setup::check(setup::Scope::Tests),
        ["demo"] => demo::run("LICENSE"),
        ["demo", file] => demo::run(file),
        ["test"] => test::run(test::Tier::Full),
        ["test", "--quick"] => test::run(test::Tier::Quick),
        ["test", "--slow"] => test::run(test::Tier::Slow),
        ["test", "--apart"] => test::run(test::Tier::Apart),
        ["fuzz", target, options @ ..] => fuzz::run(target, options),
        ["prove", "--bugs", options @ ..] => bugs::run(options),
        ["plan-sim", options @ ..] => sim::plan(options),
        ["bench", "scheduler", options @ ..] => sim::bench(options),
        ["bench", "context", options @ ..] => bench::context(options),
        ["bench", suite @ ("retrieval" | "eviction"), options @ ..] => bench::recall(suite, options),
        ["bench", suite, options @ ..] => bench::run(suite, options),
        ["prove", options @ ..] => prove::run(options),
        ["start-order"] => start::order(),
        ["tidy"] => tidy::run(),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("xtask: unknown command `{}`\n\n{HELP}", other.join(" "));
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
