//! Benches: each suite measures what it is about, beside a peer in the same run where there is one, and prints one JSON
//! object as its last line.
//!
//! `cargo xtask bench NAME` builds what a suite needs and runs it. A figure is the median of its rounds; `*_min` and
//! `*_max` are the best and the worst round. Machines are noisy, so what is compared is measured in turn, round by
//! round, and nothing here passes or fails: gates are for people who read the figures.

mod language;
mod measure;
mod peers;
mod programs;

use std::path::PathBuf;
use std::process::ExitCode;

/// The allocator of the `nexa` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
usage: nexa-bench SUITE [--nexa PATH]

  language        compiler, machine and snapshots; loops beside Koto, Rhai and Lua 5.4

  --nexa PATH     the `nexa` binary whose start and checks are measured
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["language", "--nexa", path] => language::run(&PathBuf::from(path)),
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(figures) => {
            println!("{}", figures.to_json());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("nexa-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
