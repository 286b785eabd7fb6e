//! `nexa-recall-bench`: what `cargo xtask bench retrieval` and `cargo xtask bench eviction` run.
//!
//! A binary of its own and not a suite of `nexa-bench`: that one is built with its peers (Lua, Koto, Rhai, PostgreSQL), and this
//! one is built and run again and again while weights are chosen.
//!
//! The data are given by whoever measures (`--data FILE`, in the form of LoCoMo, A. Maharana et al., *Evaluating Very Long-Term
//! Conversational Memory of LLM Agents*, 2024): conversations over months, with questions and the ids of the messages that
//! answer them. Their licence forbids us to bring them along. Without data, nothing is measured: that is *skipped* and said,
//! and no figure comes of it.
//!
//! The study of eviction also takes a conversation that an agent had (`--recorded FILE`), as `nexa memory export` prints it.
//!
//! No model answers questions here. What is measured is whether the evidence is found, so a figure is exact and the same each
//! time.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing"))]

mod baselines;
mod compare;
mod eviction;
mod locomo;
mod measure;
mod recorded;
mod replay;
mod retrieval;
mod trace;
mod tune;
mod vectors;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nexa_types::Tokens;
use serde_json::{Value, json};
use vectors::Vectors;

/// The allocator of the `nexa` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
usage: nexa-recall-bench SUITE --data FILE [--vectors FILE] [--models DIR] [--report FILE]
       nexa-recall-bench eviction [--data FILE …] --recorded FILE [--window TOKENS] [--report FILE]

  retrieval       what is found of the evidence, by messages, pages and days: words, vectors, both, and through the pager
  eviction        how often the pages that are needed are in memory, by policy, beside the best that anybody could do
  tune            weights of the ranking and of eviction, chosen with one conversation left out in turn

  --data FILE     conversations with questions, in the form of LoCoMo; without it everything is skipped
  --vectors FILE  where vectors of texts are kept from run to run
  --models DIR    where the weights of the embedded model are (default: where `nexa models pull` puts them)
  --report FILE   also write the tables there, as Markdown
  --recorded FILE for eviction: also a conversation that an agent had, as `nexa memory export AGENT -o json` prints it
  --window TOKENS the window of that agent (default: that of a declaration that sets none)
";

/// What is given on the command line.
#[derive(Default)]
pub(crate) struct Options {
    data: Option<PathBuf>,
    vectors: Option<PathBuf>,
    models: Option<PathBuf>,
    report: Option<PathBuf>,
    recorded: Option<PathBuf>,
    window: Option<Tokens>,
}

impl Options {
    fn parse(mut words: &[&str]) -> Option<Self> {
        let mut options = Self::default();
        loop {
            words = match words {
                ["--data", path, rest @ ..] => {
                    options.data = Some(PathBuf::from(path));
                    rest
                }
                ["--vectors", path, rest @ ..] => {
                    options.vectors = Some(PathBuf::from(path));
                    rest
                }
                ["--models", path, rest @ ..] => {
                    options.models = Some(PathBuf::from(path));
                    rest
                }
                ["--report", path, rest @ ..] => {
                    options.report = Some(PathBuf::from(path));
                    rest
                }
                ["--recorded", path, rest @ ..] => {
                    options.recorded = Some(PathBuf::from(path));
                    rest
                }
                ["--window", tokens, rest @ ..] => {
                    options.window = Some(Tokens(tokens.parse().ok()?));
                    rest
                }
                [] => return Some(options),
                _ => return None,
            };
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (suite, options) = match words.as_slice() {
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        [suite @ ("retrieval" | "eviction" | "tune"), rest @ ..] => match Options::parse(rest) {
            Some(options) if *suite == "eviction" || options.recorded.is_none() => (*suite, options),
            _ => return usage(),
        },
        _ => return usage(),
    };
    if options.data.is_none() && options.recorded.is_none() {
        eprintln!("{suite}: SKIPPED, no conversations are given: --data FILE");
    }
    let [has_data, has_recorded] = [&options.data, &options.recorded].map(|file| is_there(suite, file.as_deref()));
    if !has_data && !has_recorded {
        println!("{{\"suite\":\"{suite}\",\"skipped\":true}}");
        return ExitCode::SUCCESS;
    }
    match measured(suite, &options, has_data, has_recorded) {
        Ok(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("nexa-recall-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether a file is given and there. One that is not there is said.
fn is_there(suite: &str, file: Option<&Path>) -> bool {
    let is_there = file.is_some_and(Path::is_file);
    if let Some(file) = file.filter(|_| !is_there) {
        eprintln!("{suite}: SKIPPED, there is no file {}", file.display());
    }
    is_there
}

fn measured(suite: &str, options: &Options, has_data: bool, has_recorded: bool) -> Result<Value, String> {
    let (mut page, mut figures) = (String::new(), json!({ "suite": suite }));
    if let Some(data) = options.data.as_ref().filter(|_| has_data) {
        let talks = locomo::read(data)?;
        let vectors = Vectors::open(options, &talks)?;
        (page, figures) = match suite {
            "retrieval" => retrieval::run(&talks, &vectors)?,
            "eviction" => eviction::run(&talks, &vectors)?,
            _ => tune::run(&talks, &vectors)?,
        };
    }
    if let Some(recorded) = options.recorded.as_ref().filter(|_| has_recorded) {
        if has_data {
            page.push('\n');
        }
        figures["recorded"] = recorded::run(&recorded::read(recorded)?, options.window, &mut page)?;
    }
    eprintln!("{page}");
    if let Some(report) = &options.report {
        std::fs::write(report, page).map_err(|error| format!("cannot write {}: {error}", report.display()))?;
    }
    Ok(figures)
}

fn usage() -> ExitCode {
    eprint!("{HELP}");
    ExitCode::from(2)
}
