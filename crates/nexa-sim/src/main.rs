//! `nexa-sim`: what `cargo xtask plan-sim` and `cargo xtask bench scheduler` run, and whole clusters from a seed.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing"))]

mod bench;
mod cluster_sim;
mod hunt;
mod plan_sim;

use std::process::ExitCode;

/// The allocator of the `nexa` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
usage: nexa-sim COMMAND

  cluster [OPTIONS]        play whole clusters on virtual time, with faults from a seed, and check what must hold
    --seed S               the first seed (default: 1)
    --seeds N              how many (default: 1)
    --seconds N            simulated seconds of each, at least (default: 60)
    --nodes N              nodes of each (default: 3)
    --workloads N          workloads of each (default: 12)
    --jobs N               seeds that are played at once (default: as many as there are cores)
    --within N             begin no seed after so many real seconds
    --calm                 without faults
    --twice                play each seed twice and compare, and not only one of a hundred
    --trace                print all that happened
    --bug NAME             plant a bug of those that `cluster-bugs` lists
    -o text|json|both      what is printed (default: text); JSON is one object as the last line

  cluster-bugs [OPTIONS]   play each planted bug until a seed catches it
    --seeds N              how many seeds for each at most (default: 40)
    --bug NAME             only this one, and others that are named so
    --within N             begin no seed after so many real seconds, and say which bugs were not looked for
    -o text|json|both      what is printed (default: text); JSON is one object as the last line

  plan-sim DIR [OPTIONS]   play the workflow traces of a folder (WfFormat 1.5, *.json) on modelled clusters
    --nodes N,N,…          sizes of clusters (default: 2,4,8,16,32,64)
    --noise P,P,…          how far estimates are off, in percent (default: 0,30,100)
    --seeds N              clusters and noises of each size (default: 5)
    -o table|json          what is printed (default: table)
    --report FILE          also write the tables as Markdown, and a chart beside them

  bench [--workflows DIR]  measure the scheduler; the last line is one JSON object
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["cluster", words @ ..] => match cluster_sim::Options::parse(words) {
            Ok(options) => cluster_sim::play(&options),
            Err(why) => return usage(&why),
        },
        ["cluster-bugs", words @ ..] => match hunt::Options::parse(words) {
            Ok(options) => hunt::all(&options),
            Err(why) => return usage(&why),
        },
        ["plan-sim", words @ ..] => match plan_sim::Options::parse(words) {
            Ok(options) => plan_sim::run(&options),
            Err(why) => return usage(&why),
        },
        ["bench"] => bench::run(None).map(|figures| println!("{figures}")),
        ["bench", "--workflows", folder] => bench::run(Some(folder.as_ref())).map(|figures| println!("{figures}")),
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => return usage("there is no such command"),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nexa-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage(why: &str) -> ExitCode {
    eprint!("nexa-sim: {why}\n\n{HELP}");
    ExitCode::from(2)
}
