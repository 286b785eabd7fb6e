//! What came of all seeds: a line that grows while they are played, and figures at the end, for people or as one JSON object.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use nexa_sim::cluster::{Report, points};
use serde_json::{Value, json};

use super::{Options, Played};

/// Between two looks of a person at the line.
const SHOWN_EVERY: Duration = Duration::from_millis(500);
/// Ticks a second of `/proc/self/stat`: fixed by the kernel's interface on every platform that Linux runs on here.
const TICKS_PER_SECOND: f64 = 100.0;

/// How long it all took, in seconds; how many simulated ones passed in each; and processor time.
#[derive(Clone, Copy)]
struct Time {
    took: f64,
    speed: f64,
    computed: Option<f64>,
}

/// Figures of all seeds so far.
#[derive(Default)]
pub(super) struct Sum {
    pub(super) seeds: u64,
    facts: u64,
    simulated: Duration,
    accepted: usize,
    effects: usize,
    done: usize,
    unknown: usize,
    starts: u64,
    faults: u64,
    in_flight: u64,
    kinds: BTreeMap<&'static str, u64>,
    points: BTreeMap<&'static str, u64>,
    fewest_faults: Option<usize>,
    violations: usize,
    /// Seeds with violations, and those that were played twice and differed.
    pub(super) failed: Vec<Value>,
    played_twice: u64,
    pub(super) differed: Vec<u64>,
    hash: String,
}

impl Sum {
    pub(super) fn add(&mut self, options: &Options, Played { report, is_same }: &Played) {
        self.seeds += 1;
        self.facts += report.facts;
        self.simulated += Duration::from_millis(report.simulated.0);
        self.accepted += report.accepted;
        self.effects += report.effects;
        self.done += report.done;
        self.unknown += report.unknown;
        self.starts += report.starts;
        self.faults += report.kinds.len() as u64;
        self.in_flight += report.in_flight;
        for kind in &report.kinds {
            *self.kinds.entry(kind).or_default() += 1;
        }
        for point in &report.points {
            *self.points.entry(point).or_default() += 1;
        }
        self.fewest_faults = Some(self.fewest_faults.map_or(report.kinds.len(), |least| least.min(report.kinds.len())));
        self.played_twice += u64::from(is_same.is_some());
        if *is_same == Some(false) {
            self.differed.push(report.seed);
        }
        if !report.violations.is_empty() {
            self.violations += report.violations.len();
            self.failed.push(failure(options, report));
        }
        self.hash.clone_from(&report.hash);
    }

    /// How often each point was reached at which a node dies; also those that were not.
    fn points(&self) -> BTreeMap<&'static str, u64> {
        points().into_iter().map(|point| (point, self.points.get(point).copied().unwrap_or_default())).collect()
    }

    fn reproducible(&self) -> &'static str {
        match (self.played_twice, self.differed.is_empty()) {
            (0, _) => "not looked at",
            (_, true) => "yes",
            (_, false) => "not reproducible",
        }
    }

    pub(super) fn show(&self, options: &Options, took: Duration, was_interrupted: bool) {
        let took = took.as_secs_f64();
        let time = Time { took, speed: self.simulated.as_secs_f64() / took.max(f64::EPSILON), computed: computed() };
        if options.is_text {
            self.show_text(options, time);
        }
        if options.is_json {
            println!("{}", self.json(options, time, was_interrupted));
        }
    }

    fn json(&self, options: &Options, Time { took, speed, computed }: Time, was_interrupted: bool) -> Value {
        let simulated = self.simulated.as_secs_f64();
        json!({
            "seeds": self.seeds,
            "first_seed": options.seed,
            "seeds_wanted": options.seeds,
            "interrupted": was_interrupted,
            "failed": self.failed,
            "violations": self.violations,
            "reproducible": self.reproducible(),
            "played_twice": self.played_twice,
            "differed": self.differed,
            "hash_of_last": self.hash,
            "jobs": options.jobs,
            "simulated_s": simulated,
            "real_s": took,
            "cpu_s": computed,
            "simulated_s_per_real_s": speed,
            "simulated_s_per_cpu_s": computed.map(|computed| simulated / computed.max(f64::EPSILON)),
            "faults": self.kinds,
            "failpoints": self.points(),
            "faults_all": self.faults,
            "faults_of_a_seed_at_least": self.fewest_faults,
            "faults_with_effects_in_flight": self.in_flight,
            "facts": self.facts,
            "workloads": self.accepted,
            "effects": self.effects,
            "calls_done": self.done,
            "calls_unknown": self.unknown,
            "node_starts": self.starts,
        })
    }

    fn show_text(&self, options: &Options, Time { took, speed, computed }: Time) {
        let simulated = self.simulated.as_secs_f64();
        let of = if self.seeds < options.seeds { format!(" of {}", options.seeds) } else { String::new() };
        println!("seeds          {}{of} from {}, {} of them broken", self.seeds, options.seed, self.failed.len());
        println!("trace hash     {} (the last seed's)", self.hash);
        println!("reproducible   {} ({} played twice)", self.reproducible(), self.played_twice);
        println!(
            "time           {simulated:.0} simulated seconds in {took:.1} real ones by {} jobs: {speed:.0} a second{}",
            options.jobs,
            computed.map_or(String::new(), |computed| {
                format!(", {:.0} a second of a processor", simulated / computed.max(f64::EPSILON))
            })
        );
        println!("work           {} workloads, {} facts, {} node starts", self.accepted, self.facts, self.starts);
        println!(
            "effects        {} started; tools: {} done, {} of unknown outcome",
            self.effects, self.done, self.unknown
        );
        let listed = |counts: &BTreeMap<&'static str, u64>| {
            counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        println!("faults         {}, {} of them with effects in flight", self.faults, self.in_flight);
        println!("  by kind      {}", listed(&self.kinds));
        println!("  failpoints   {} reached: {}", self.points.values().sum::<u64>(), listed(&self.points()));
        println!("violations     {}", self.violations);
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

/// Processor time of this process, in seconds.
fn computed() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Fields 14 and 15, after the name in parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some((next()? + next()?) / TICKS_PER_SECOND)
}

/// A line on a terminal that says how far it is; nothing anywhere else.
pub(super) struct Progress {
    seeds: u64,
    is_wanted: bool,
    is_there: bool,
    shown_at: Duration,
}

impl Progress {
    pub(super) fn new(seeds: u64) -> Self {
        Self {
            seeds,
            is_wanted: seeds > 1 && std::io::stderr().is_terminal(),
            is_there: false,
            shown_at: Duration::ZERO,
        }
    }

    /// Before anything else is printed.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_there) {
            eprint!("\r\x1b[K");
        }
    }

    pub(super) fn show(&mut self, sum: &Sum, took: Duration) {
        if !self.is_wanted || took < self.shown_at + SHOWN_EVERY {
            return;
        }
        self.shown_at = took;
        self.is_there = true;
        let speed = sum.simulated.as_secs_f64() / took.as_secs_f64().max(f64::EPSILON);
        let left = took.as_secs_f64() / sum.seeds.max(1) as f64 * self.seeds.saturating_sub(sum.seeds) as f64;
        let broken = sum.failed.len();
        eprint!(
            "\r\x1b[K{} of {} seeds, {speed:.0} simulated s a second, {broken} broken, {left:.0} s left",
            sum.seeds, self.seeds
        );
        // A line that is not seen is no harm.
        let _ = std::io::stderr().flush();
    }
}
