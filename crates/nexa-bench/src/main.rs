//! Benches: each suite measures what it is about, beside a peer in the same run where there is one, and prints one JSON
//! object as its last line.
//!
//! `cargo xtask bench NAME` builds what a suite needs and runs it. A figure is the median of its rounds; `*_min` and
//! `*_max` are the best and the worst round. Machines are noisy, so what is compared is measured in turn, round by
//! round, and nothing here passes or fails: gates are for people who read the figures.

mod cluster;
mod core;
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
usage: nexa-bench SUITE [--nexa PATH] [--folder PATH] [--quick] [--only PART] [--report FILE]

  language        compiler, machine and snapshots; loops beside Koto, Rhai and Lua 5.4
  core            steps, messages and agents of one node beside what its disk does; starts of the binary
  cluster         messages between nodes beside bare tonic; steps on PostgreSQL; agents that move;
                  nodes that are killed

  --nexa PATH     the `nexa` binary whose start and checks are measured
  --folder PATH   where `core` stores meanwhile; its file system is what is measured (default: this folder)
  --quick         only whether everything of `core` or `cluster` can be measured: its figures mean nothing
  --only PART     one part of `cluster`: link, durable, migration, failover
  --report FILE   where `cluster` writes a page of what it has measured
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["language", "--nexa", path] => language::run(&PathBuf::from(path)).map(|figures| figures.to_json()),
        ["core", options @ ..] => match Options::parse(options) {
            Some(Options { nexa, folder, is_quick, only: None, report: None }) => {
                let scale = if is_quick { core::Scale::QUICK } else { core::Scale::FULL };
                core::run(&nexa, &folder, scale).map(|figures| figures.to_json())
            }
            _ => return usage(),
        },
        ["cluster", options @ ..] => match Options::parse(options) {
            Some(Options { nexa, is_quick, only, report, .. }) => {
                let scale = if is_quick { cluster::Scale::QUICK } else { cluster::Scale::FULL };
                cluster::run(scale, &nexa, only.as_deref(), report.as_deref()).map(|figures| figures.to_json())
            }
            None => return usage(),
        },
        // Not for people: what `core` measures in processes of their own.
        ["part", words @ ..] => core::part(words),
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => return usage(),
    };
    match result {
        Ok(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("nexa-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprint!("{HELP}");
    ExitCode::from(2)
}

/// What `core` and `cluster` are given.
struct Options {
    nexa: PathBuf,
    folder: PathBuf,
    is_quick: bool,
    only: Option<String>,
    report: Option<PathBuf>,
}

impl Options {
    fn parse(mut words: &[&str]) -> Option<Self> {
        let (mut nexa, mut folder, mut is_quick) = (None, PathBuf::from("."), false);
        let (mut only, mut report) = (None, None);
        loop {
            words = match words {
                ["--nexa", path, rest @ ..] => {
                    nexa = Some(PathBuf::from(path));
                    rest
                }
                ["--folder", path, rest @ ..] => {
                    folder = PathBuf::from(path);
                    rest
                }
                ["--quick", rest @ ..] => {
                    is_quick = true;
                    rest
                }
                ["--only", part, rest @ ..] => {
                    only = Some((*part).to_owned());
                    rest
                }
                ["--report", path, rest @ ..] => {
                    report = Some(PathBuf::from(path));
                    rest
                }
                [] => return Some(Self { nexa: nexa?, folder, is_quick, only, report }),
                _ => return None,
            };
        }
    }
}
