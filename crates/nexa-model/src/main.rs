//! `nexa-model`: looks at every state of a protocol, within bounds that are too large for each test run.

mod all;

use std::process::ExitCode;
use std::time::Duration;

use nexa_model::ledger::{self, Ledger};
use nexa_model::ownership::{self, Ownership};
use nexa_model::{Effort, Report, check};
use nexa_types::Timestamp;

const HELP: &str = "\
usage: nexa-model MODEL [OPTIONS]

  ownership              leases, the election, the leader's placing, rights of nodes, and the store's fence
    --nodes N            nodes (default: 2)
    --restarts N         processes that are started in place of others (default: 1)
    --faults N           how often anything goes wrong (default: 2)
    --calm MS            from then on nothing does
    --ends MS            when everything must be in order

  ledger                 intent, started, done, failed without effect or unknown, with a death at every step
    --faults N           how often anything goes wrong (default: 3)
    --epochs N           how often the agent may be given to somebody (default: 4)
    --idempotent         its tool may be called twice under the same key

  migration              the same of an agent that moves while it lives, and waits for a message
    --faults N           how often anything goes wrong (default: 2)
    --epochs N           how often the agent may be given to somebody (default: 3)
    --moves N            how often it is told to move (default: 1)

  all                    every model within its small bounds, whether each rule that is left out is missed, and every
                         model within its larger bounds, for as long as there is time: what was not seen is said
    --small              the small bounds only

  --small                the bounds of the test run
  --plant NAME           leave something out, to see that it is missed
  --threads N            threads that look (default: 2)
  --within SECONDS       give up after so long, of `all` all of it (default: 3600)
  -o text|json|both      what is printed (default: text); JSON is one object as the last line
";

/// What was typed.
#[derive(Debug)]
struct Options {
    ownership: Ownership,
    ledger: Ledger,
    migration: Ledger,
    effort: Effort,
    is_small: bool,
    is_text: bool,
    is_json: bool,
}

/// A number that was typed after a word.
fn number(word: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("{word} needs a number, not `{value}`"))
}

fn planted<P: Copy>(all: &[(&'static str, P)], name: &str) -> Result<Option<P>, String> {
    let known = all.iter().find(|(known, _)| *known == name);
    known.map(|(_, plant)| Some(*plant)).ok_or_else(|| format!("there is no `{name}` to leave out"))
}

impl Options {
    fn parse(model: &str, words: &[&str]) -> Result<Self, String> {
        let mut options = Self {
            ownership: Ownership { bounds: ownership::Bounds::LARGE, plant: None },
            ledger: Ledger { bounds: ledger::Bounds::LARGE, plant: None },
            migration: Ledger { bounds: ledger::Bounds::MOVING_LARGE, plant: None },
            effort: Effort { threads: 2, within: Duration::from_secs(3_600) },
            is_small: false,
            is_text: true,
            is_json: false,
        };
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            let (of_nodes, of_ledger) = (&mut options.ownership.bounds, &mut options.ledger.bounds);
            let of_moves = &mut options.migration.bounds;
            match word {
                "--idempotent" => of_ledger.is_idempotent = true,
                "--small" => {
                    (*of_nodes, *of_ledger) = (ownership::Bounds::SMALL, ledger::Bounds::SMALL);
                    *of_moves = ledger::Bounds::MOVING_SMALL;
                    options.is_small = true;
                }
                _ => {
                    let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
                    let few = || number(word, value).map(|number| usize::try_from(number).unwrap_or(usize::MAX));
                    match (model, word) {
                        ("ownership", "--nodes") => of_nodes.nodes = few()?.clamp(1, 3),
                        ("ownership", "--restarts") => of_nodes.restarts = few()?,
                        ("ownership", "--calm") => of_nodes.calm_at = Timestamp(number(word, value)?),
                        ("ownership", "--ends") => of_nodes.ends_at = Timestamp(number(word, value)?),
                        ("ownership", "--plant") => options.ownership.plant = planted(&ownership::Plant::ALL, value)?,
                        ("ledger", "--epochs") => of_ledger.epochs = number(word, value)?,
                        ("ledger", "--plant") => options.ledger.plant = planted(&ledger::Plant::ALL, value)?,
                        ("migration", "--epochs") => of_moves.epochs = number(word, value)?,
                        ("migration", "--moves") => {
                            of_moves.moves = u8::try_from(number(word, value)?).unwrap_or(u8::MAX);
                        }
                        ("migration", "--plant") => options.migration.plant = planted(&ledger::Plant::ALL, value)?,
                        ("ownership" | "ledger" | "migration", "--faults") => {
                            let faults = u8::try_from(number(word, value)?).unwrap_or(u8::MAX);
                            (of_nodes.faults, of_ledger.faults, of_moves.faults) = (faults, faults, faults);
                        }
                        (_, "--threads") => options.effort.threads = few()?.max(1),
                        (_, "--within") => options.effort.within = Duration::from_secs(number(word, value)?),
                        (_, "-o") if ["text", "json", "both"].contains(&value) => {
                            (options.is_text, options.is_json) = (value != "json", value != "text");
                        }
                        _ => return Err(format!("`{model}` has no option {word} {value}")),
                    }
                }
            }
        }
        Ok(options)
    }

    fn show(&self, report: &Report) -> bool {
        if self.is_text {
            print!("{report}");
        }
        if self.is_json {
            println!("{}", report.json());
        }
        report.holds()
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let Some((model, words)) = words.split_first() else { return usage("which model?") };
    let options = match Options::parse(model, words) {
        Ok(options) => options,
        Err(why) => return usage(&why),
    };
    let holds = match *model {
        "ownership" => options.show(&check("ownership", options.ownership, options.effort)),
        "ledger" => options.show(&check("ledger", options.ledger, options.effort)),
        "migration" => options.show(&check("migration", options.migration, options.effort)),
        "all" => all::look(&options),
        _ => return usage("there is no such model"),
    };
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage(why: &str) -> ExitCode {
    eprint!("nexa-model: {why}\n\n{HELP}");
    ExitCode::from(2)
}
