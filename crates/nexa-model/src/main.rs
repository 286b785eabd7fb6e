//! `nexa-model`: looks at every state of a protocol, within bounds that are too large for each test run.

use std::process::ExitCode;
use std::time::Duration;

use nexa_model::ownership::{Bounds, Ownership, Plant};
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
    --new-runs           ask everything of restarted nodes too, which shows a known gap

  all                    every model, within its larger bounds

  --plant NAME           leave something out, to see that it is missed
  --threads N            threads that look (default: 2)
  --within SECONDS       give up after so long (default: 3600)
  -o text|json           what is printed (default: text)
";

/// What was typed.
#[derive(Debug)]
struct Options {
    bounds: Bounds,
    plant: Option<Plant>,
    new_runs: bool,
    effort: Effort,
    is_json: bool,
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self, String> {
        let effort = Effort { threads: 2, within: Duration::from_secs(3_600) };
        let mut options = Self { bounds: Bounds::LARGE, plant: None, new_runs: false, effort, is_json: false };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if *word == "--new-runs" {
                options.new_runs = true;
                continue;
            }
            let value = words.next().ok_or(format!("{word} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{word} needs a number, not `{value}`"));
            let few = || Ok::<_, String>(usize::try_from(number()?).unwrap_or(usize::MAX));
            let bounds = &mut options.bounds;
            match *word {
                "--nodes" => bounds.nodes = few()?.clamp(1, 3),
                "--restarts" => bounds.restarts = few()?,
                "--faults" => bounds.faults = u8::try_from(number()?).unwrap_or(u8::MAX),
                "--calm" => bounds.calm_at = Timestamp(number()?),
                "--ends" => bounds.ends_at = Timestamp(number()?),
                "--threads" => options.effort.threads = few()?.max(1),
                "--within" => options.effort.within = Duration::from_secs(number()?),
                "--plant" => {
                    let known = Plant::ALL.into_iter().find(|(name, _)| name == value);
                    options.plant = Some(known.ok_or(format!("there is no `{value}` to leave out"))?.1);
                }
                "-o" if *value == "json" => options.is_json = true,
                "-o" if *value == "text" => options.is_json = false,
                _ => return Err(format!("there is no option {word} {value}")),
            }
        }
        Ok(options)
    }

    fn show(&self, report: &Report) -> bool {
        if self.is_json {
            println!("{}", report.json());
        } else {
            print!("{report}");
        }
        report.holds()
    }

    fn ownership(&self) -> bool {
        let model = Ownership { bounds: self.bounds, plant: self.plant, new_runs: self.new_runs };
        self.show(&check("ownership", model, self.effort))
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let Some((model, words)) = words.split_first() else { return usage("which model?") };
    let options = match Options::parse(words) {
        Ok(options) => options,
        Err(why) => return usage(&why),
    };
    let holds = match *model {
        "ownership" => options.ownership(),
        "all" => options.ownership(),
        _ => return usage("there is no such model"),
    };
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage(why: &str) -> ExitCode {
    eprint!("nexa-model: {why}\n\n{HELP}");
    ExitCode::from(2)
}
