//! `cluster`: plays seeds of whole clusters, and says what broke. `cluster-bugs`: which planted bugs some seed catches.
//!
//! Each hundredth seed, from the first on, is played twice: where the hashes differ, the run is not reproducible, and that fails
//! the command as a violation does.

use std::collections::BTreeMap;
use std::time::Duration;

use nexa_sim::cluster::{Bug, Report, Settings, run};
use nexa_types::Millis;
use serde_json::{Value, json};

use crate::plan_sim::Error;

/// One seed of so many is played twice.
const TWICE_ONE_IN: u64 = 100;
/// Bounds of what can be asked for.
const SEEDS_MAX: u64 = 100_000_000;
const SECONDS: (u64, u64) = (5, 3_600);
const NODES: (u64, u64) = (1, 9);
const WORKLOADS_MAX: u64 = 1_000;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    seed: u64,
    seeds: u64,
    settings: Settings,
    is_json: bool,
    shows_trace: bool,
    always_twice: bool,
}

impl Options {
    pub(crate) fn parse(mut words: &[&str]) -> Result<Self, String> {
        let settings = Settings::default();
        let mut options = Self { seed: 1, seeds: 1, settings, is_json: false, shows_trace: false, always_twice: false };
        loop {
            words = match words {
                [] => return Ok(options),
                ["--seed", number, rest @ ..] => {
                    options.seed = number_of("--seed", number, 0, u64::MAX)?;
                    rest
                }
                ["--seeds", number, rest @ ..] => {
                    options.seeds = number_of("--seeds", number, 1, SEEDS_MAX)?;
                    rest
                }
                ["--seconds", number, rest @ ..] => {
                    options.settings.seconds = number_of("--seconds", number, SECONDS.0, SECONDS.1)?;
                    rest
                }
                ["--nodes", number, rest @ ..] => {
                    let nodes = number_of("--nodes", number, NODES.0, NODES.1)?;
                    options.settings.nodes = usize::try_from(nodes).map_err(|error| error.to_string())?;
                    rest
                }
                ["--workloads", number, rest @ ..] => {
                    options.settings.workloads = number_of("--workloads", number, 1, WORKLOADS_MAX)?;
                    rest
                }
                ["--bug", name, rest @ ..] => {
                    let bug = Bug::ALL.into_iter().find(|bug| bug.name() == *name);
                    options.settings.bug = Some(bug.ok_or_else(|| {
                        let names = Bug::ALL.map(Bug::name).join(", ");
                        format!("there is no bug `{name}`; there are {names}")
                    })?);
                    rest
                }
                ["--calm", rest @ ..] => {
                    options.settings.has_faults = false;
                    rest
                }
                ["--twice", rest @ ..] => {
                    options.always_twice = true;
                    rest
                }
                ["--trace", rest @ ..] => {
                    (options.shows_trace, options.settings.keeps_lines) = (true, true);
                    rest
                }
                ["-o", what @ ("text" | "json"), rest @ ..] => {
                    options.is_json = *what == "json";
                    rest
                }
                [word, ..] => return Err(format!("`{word}` is not understood here")),
            };
        }
    }

    /// The command that plays one seed of these again.
    fn again(&self, seed: u64) -> String {
        let Settings { seconds, nodes, workloads, has_faults, bug, .. } = self.settings;
        let mut command = format!("nexa-sim cluster --seed {seed} --seconds {seconds} --nodes {nodes}");
        if workloads != Settings::default().workloads {
            command += &format!(" --workloads {workloads}");
        }
        if !has_faults {
            command += " --calm";
        }
        if let Some(bug) = bug {
            command += &format!(" --bug {bug}");
        }
        command + " --trace"
    }
}

fn number_of(option: &str, text: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{option} takes a number from {least} to {most}"))
}

/// What came of all seeds.
#[derive(Default)]
struct Sum {
    seeds: u64,
    facts: u64,
    simulated: Duration,
    took: Duration,
    accepted: usize,
    done: usize,
    unknown: usize,
    starts: u64,
    kinds: BTreeMap<&'static str, u64>,
    /// Seeds with violations, and those that were played twice and differed.
    failed: Vec<Value>,
    played_twice: u64,
    differed: Vec<u64>,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.facts += report.facts;
        self.simulated += Duration::from_millis(report.simulated.0);
        self.took += report.took;
        self.accepted += report.accepted;
        self.done += report.done;
        self.unknown += report.unknown;
        self.starts += report.starts;
        for kind in &report.kinds {
            *self.kinds.entry(kind).or_default() += 1;
        }
    }

    /// Simulated seconds a real one.
    fn speed(&self) -> f64 {
        self.simulated.as_secs_f64() / self.took.as_secs_f64().max(f64::EPSILON)
    }

    fn reproducible(&self) -> &'static str {
        match (self.played_twice, self.differed.is_empty()) {
            (0, _) => "not looked at",
            (_, true) => "yes",
            (_, false) => "not reproducible",
        }
    }
}

pub(crate) fn play(options: &Options) -> Result<(), Error> {
    let mut sum = Sum::default();
    let mut hash = String::new();
    for seed in (0..options.seeds).map(|number| options.seed.wrapping_add(number)) {
        let report = run(seed, &options.settings)?;
        sum.add(&report);
        if options.always_twice || (seed.wrapping_sub(options.seed)).is_multiple_of(TWICE_ONE_IN) {
            sum.played_twice += 1;
            if run(seed, &options.settings)?.hash != report.hash {
                sum.differed.push(seed);
                eprintln!("seed {seed}: not reproducible: two runs of it differ");
            }
        }
        if options.shows_trace {
            report.lines.iter().for_each(|line| println!("{line}"));
        }
        if !report.violations.is_empty() {
            sum.failed.push(failure(options, &report));
            show_failure(options, &report);
        }
        hash = report.hash;
    }
    show(options, &sum, &hash);
    match (sum.failed.len(), sum.differed.len()) {
        (0, 0) => Ok(()),
        (failed, differed) => Err(format!("{failed} seeds broke a property, {differed} are not reproducible").into()),
    }
}

fn failure(options: &Options, report: &Report) -> Value {
    let violations: Vec<Value> = report.violations.iter().map(|it| json!({ "id": it.id, "text": it.text })).collect();
    json!({
        "seed": report.seed,
        "violations": violations,
        "faults": report.faults,
        "again": options.again(report.seed),
    })
}

fn show_failure(options: &Options, report: &Report) {
    eprintln!("seed {} breaks a property:", report.seed);
    report.violations.iter().for_each(|it| eprintln!("  {:5} {}", it.id, it.text));
    eprintln!("  its faults:");
    report.faults.iter().for_each(|fault| eprintln!("    {fault}"));
    eprintln!("  again: {}", options.again(report.seed));
}

fn show(options: &Options, sum: &Sum, hash: &str) {
    let (simulated, took) = (sum.simulated.as_secs_f64(), sum.took.as_secs_f64());
    if options.is_json {
        let shown = json!({
            "seeds": sum.seeds,
            "first_seed": options.seed,
            "failed": sum.failed,
            "reproducible": sum.reproducible(),
            "played_twice": sum.played_twice,
            "differed": sum.differed,
            "hash_of_last": hash,
            "simulated_s": simulated,
            "real_s": took,
            "simulated_s_per_real_s": sum.speed(),
            "faults": sum.kinds,
            "facts": sum.facts,
            "workloads": sum.accepted,
            "calls_done": sum.done,
            "calls_unknown": sum.unknown,
            "node_starts": sum.starts,
        });
        println!("{shown}");
        return;
    }
    println!("seeds          {} from {}, {} of them broken", sum.seeds, options.seed, sum.failed.len());
    println!("trace hash     {hash} (the last seed's)");
    println!("reproducible   {} ({} played twice)", sum.reproducible(), sum.played_twice);
    println!("time           {simulated:.0} simulated seconds in {took:.1} real ones: {:.0} a second", sum.speed());
    println!("work           {} workloads, {} facts, {} node starts", sum.accepted, sum.facts, sum.starts);
    println!("effects        {} done, {} of unknown outcome", sum.done, sum.unknown);
    let kinds: Vec<String> = sum.kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    println!("faults         {}", kinds.join(", "));
}

/// Plays each planted bug until a seed catches it.
pub(crate) fn bugs(options: &Options) -> Result<(), Error> {
    let mut escaped = Vec::new();
    for bug in Bug::ALL {
        let settings = Settings { bug: Some(bug), ..options.settings };
        let (mut caught, mut simulated) = (None, Millis(0));
        for seed in (0..options.seeds).map(|number| options.seed.wrapping_add(number)) {
            let report = run(seed, &settings)?;
            simulated = Millis(simulated.0 + report.simulated.0);
            if let Some(violation) = report.violations.into_iter().next() {
                caught = Some((seed, violation));
                break;
            }
        }
        match caught {
            Some((seed, it)) => {
                println!("{bug:12} caught by seed {seed} after {simulated} of simulated time: {} {}", it.id, it.text);
            }
            None => {
                println!("{bug:12} escaped {} seeds", options.seeds);
                escaped.push(bug.name());
            }
        }
    }
    if escaped.is_empty() { Ok(()) } else { Err(format!("escaped: {}", escaped.join(", ")).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_understood_and_can_be_asked_for_again() {
        let options = Options::parse(&["--seed", "7", "--seeds", "3", "--bug", "early-ack", "-o", "json"]).unwrap();
        assert_eq!((options.seed, options.seeds, options.is_json), (7, 3, true));
        let again = options.again(9);
        assert_eq!(again, "nexa-sim cluster --seed 9 --seconds 60 --nodes 3 --bug early-ack --trace");
        let words: Vec<&str> = again.split(' ').skip(2).collect();
        assert_eq!(Options::parse(&words).unwrap().settings.bug, Some(Bug::EarlyAck));
        for wrong in [&["--nodes", "0"][..], &["--bug", "none"], &["--seed"], &["more"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
