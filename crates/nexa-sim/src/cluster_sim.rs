//! `cluster`: plays seeds of whole clusters, and says what broke.
//!
//! Seeds are played by several jobs at once, each a thread with a runtime of its own, and shown in their order ([`jobs`]); the
//! last thing printed is what came of all of them ([`sum`]). An interrupt ([`interrupt`]), or the time that was given being over,
//! ends that early with what there is.
//!
//! Each hundredth seed, from the first on, is played twice: where the hashes differ, the run is not reproducible, and that fails
//! the command as a violation does.

mod interrupt;
mod jobs;
mod sum;

use std::num::NonZero;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use nexa_sim::bugs::Plant;
use nexa_sim::cluster::{Report, Settings, run};

use self::sum::{Progress, Sum};
use crate::plan_sim::Error;

/// One seed of so many is played twice.
const TWICE_ONE_IN: u64 = 100;
/// Bounds of what can be asked for.
const SEEDS_MAX: u64 = 100_000_000;
const SECONDS: (u64, u64) = (5, 3_600);
const NODES: (u64, u64) = (1, 9);
const WORKLOADS_MAX: u64 = 1_000;
const JOBS_MAX: u64 = 1_024;
const WITHIN_S_MAX: u64 = 86_400 * 7;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    seed: u64,
    seeds: u64,
    settings: Settings,
    jobs: usize,
    /// After so long no further seed is begun.
    within: Option<Duration>,
    is_text: bool,
    is_json: bool,
    always_twice: bool,
}

impl Options {
    pub(crate) fn parse(mut words: &[&str]) -> Result<Self, String> {
        let settings = Settings::default();
        let jobs = thread::available_parallelism().map_or(1, NonZero::get);
        let mut options = Self {
            seed: 1,
            seeds: 1,
            settings,
            jobs,
            within: None,
            is_text: true,
            is_json: false,
            always_twice: false,
        };
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
                ["--jobs", number, rest @ ..] => {
                    let jobs = number_of("--jobs", number, 1, JOBS_MAX)?;
                    options.jobs = usize::try_from(jobs).map_err(|error| error.to_string())?;
                    rest
                }
                ["--within", number, rest @ ..] => {
                    options.within = Some(Duration::from_secs(number_of("--within", number, 1, WITHIN_S_MAX)?));
                    rest
                }
                ["--bug", name, rest @ ..] => {
                    let plant = Plant::named(name).filter(|plant| plant.scene.is_here());
                    let plant = plant.ok_or_else(|| format!("this build has no bug `{name}`"))?;
                    options.settings.bug = Some(plant.bug);
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
                    options.settings.keeps_lines = true;
                    rest
                }
                ["-o", what @ ("text" | "json" | "both"), rest @ ..] => {
                    (options.is_text, options.is_json) = (*what != "json", *what != "text");
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
            command += &format!(" --bug {}", Plant::name_of(bug));
        }
        command + " --trace"
    }
}

fn number_of(option: &str, text: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{option} takes a number from {least} to {most}"))
}

pub(crate) fn play(options: &Options) -> Result<(), Error> {
    let began = Instant::now();
    let stop = interrupt::watch()?;
    let mut sum = Sum::default();
    let mut progress = Progress::new(options.seeds);
    let mut broken_off = None;
    jobs::in_order(
        0..options.seeds,
        options.jobs,
        stop,
        |number| Played::of(options, number),
        |_, played| match played {
            Ok(played) => {
                if played.says_something() {
                    progress.clear();
                    played.show(options);
                }
                sum.add(options, &played);
                progress.show(&sum, began.elapsed());
                if options.within.is_some_and(|within| began.elapsed() >= within) {
                    stop.store(true, Ordering::Relaxed);
                }
                ControlFlow::Continue(())
            }
            Err(why) => {
                broken_off = Some(why);
                ControlFlow::Break(())
            }
        },
    );
    progress.clear();
    if let Some(why) = broken_off {
        return Err(why.into());
    }
    sum.show(options, began.elapsed(), interrupt::was());
    match (sum.failed.len(), sum.differed.len()) {
        (0, 0) if interrupt::was() => Err(format!("interrupted after {} of {} seeds", sum.seeds, options.seeds).into()),
        (0, 0) => Ok(()),
        (failed, differed) => Err(format!("{failed} seeds broke a property, {differed} are not reproducible").into()),
    }
}

/// One seed, played.
struct Played {
    report: Report,
    /// Whether a second run was the same; none if there was none.
    is_same: Option<bool>,
}

impl Played {
    fn of(options: &Options, number: u64) -> Result<Self, String> {
        let seed = options.seed.wrapping_add(number);
        let report = run(seed, &options.settings)?;
        let is_twice = options.always_twice || number.is_multiple_of(TWICE_ONE_IN);
        // On a thread of its own: what a thread keeps from earlier seeds must not count.
        let again = || thread::scope(|scope| scope.spawn(|| run(seed, &options.settings)).join());
        let again = is_twice.then(again).transpose().map_err(|_| format!("seed {seed} could not be played twice"))?;
        let is_same = again.transpose()?.map(|again| again.hash == report.hash);
        Ok(Self { report, is_same })
    }

    fn says_something(&self) -> bool {
        self.is_same == Some(false) || !self.report.lines.is_empty() || !self.report.violations.is_empty()
    }

    fn show(&self, options: &Options) {
        let Self { report, is_same } = self;
        if *is_same == Some(false) {
            eprintln!("seed {}: not reproducible: two runs of it differ", report.seed);
        }
        report.lines.iter().for_each(|line| println!("{line}"));
        if !report.violations.is_empty() {
            show_failure(options, report);
        }
    }
}

fn show_failure(options: &Options, report: &Report) {
    eprintln!("seed {} breaks a property:", report.seed);
    report.violations.iter().for_each(|it| eprintln!("  {:5} {}", it.id, it.text));
    eprintln!("  its faults:");
    report.faults.iter().for_each(|fault| eprintln!("    {fault}"));
    eprintln!("  again: {}", options.again(report.seed));
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
        assert_eq!(Options::parse(&words).unwrap().settings.bug, Some(nexa_sim::bugs::Bug::EarlyAck));
        for wrong in [&["--nodes", "0"][..], &["--bug", "none"], &["--seed"], &["more"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
