//! `cargo xtask prove`: shows that Nexa keeps its promises while things go wrong, in lanes, and writes a page about it.
//!
//! A lane is one of [`lanes::LANES`]: what it shows, what it needs, what is built for it, what runs, and for how long at most. Its
//! program prints what came of it for people, and as its last line one JSON object; both go onto the page as they are. It ends
//! with an error if anything broke. A lane whose means are missing here is *skipped*, and the page says what is missing: that is
//! never the same as passed.
//!
//! | tier | for |
//! |---|---|
//! | `--short` | a look while you work: minutes |
//! | (none) | before a release: half an hour |
//! | `--nightly` | hours |

mod lanes;
mod page;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use self::lanes::LANES;
use crate::process::{self, Outcome, command, root, target_dir};

/// Where the page goes if nobody says where.
const PAGE: &str = "docs/reports/proof.md";
/// How much longer than its budget a lane may take before it is ended: it should end itself.
const GRACE: Duration = Duration::from_secs(60);
/// Between two looks whether a lane has ended.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of a lane that are kept for the page.
const LINES_MAX: usize = 200;

/// How long is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    Short,
    Full,
    Nightly,
}

/// One way to show something.
struct Lane {
    name: &'static str,
    /// In one sentence, for the page.
    shows: &'static str,
    /// What is missing on this machine, if anything is.
    missing: fn() -> Option<String>,
    /// What is built first: arguments of cargo. Does not count against the budget.
    build: &'static [&'static str],
    /// The program that runs, within the target directory, and its arguments.
    program: &'static str,
    args: fn(Tier, budget_s: u64) -> Vec<String>,
    /// Seconds that it may take: short, full, nightly. Those of all lanes are at most half an hour for the full tier.
    budget_s: [u64; 3],
}

/// How a lane ended.
enum Result {
    Passed,
    Failed(String),
    Skipped(String),
}

/// What came of a lane.
struct Ended {
    lane: &'static Lane,
    result: Result,
    took: Duration,
    budget: Duration,
    /// What it was called with, for people.
    command: String,
    /// What it printed for people.
    lines: Vec<String>,
    /// Its JSON object.
    figures: Option<String>,
}

/// What was asked for.
struct Options<'a> {
    tier: Tier,
    page: &'a str,
    only: Vec<&'a str>,
}

impl<'a> Options<'a> {
    fn parse(mut words: &[&'a str]) -> Outcome<Self> {
        let mut options = Self { tier: Tier::Full, page: PAGE, only: Vec::new() };
        loop {
            words = match words {
                [] => return Ok(options),
                ["--short", rest @ ..] => {
                    options.tier = Tier::Short;
                    rest
                }
                ["--nightly", rest @ ..] => {
                    options.tier = Tier::Nightly;
                    rest
                }
                ["--page", file, rest @ ..] => {
                    options.page = file;
                    rest
                }
                ["--lane", name, rest @ ..] => {
                    if !LANES.iter().any(|lane| lane.name == *name) {
                        let names: Vec<&str> = LANES.iter().map(|lane| lane.name).collect();
                        return Err(format!("there is no lane `{name}`; there are: {}", names.join(", ")));
                    }
                    options.only.push(name);
                    rest
                }
                [word, ..] => return Err(format!("`{word}` is not understood here")),
            };
        }
    }
}

/// Runs the lanes, writes the page, and prints one JSON object as the last line; an error if any lane failed.
pub(crate) fn run(words: &[&str]) -> Outcome {
    let options = Options::parse(words)?;
    let began = Instant::now();
    let lanes = LANES.iter().filter(|lane| options.only.is_empty() || options.only.contains(&lane.name));
    let ended: Vec<Ended> = lanes.map(|lane| play(lane, options.tier)).collect();
    let file = root().join(options.page);
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
    }
    let text = page::page(&ended, options.tier, began.elapsed());
    std::fs::write(&file, text).map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
    for Ended { lane, result, took, .. } in &ended {
        eprintln!("{:12} {} in {:.0} s", lane.name, page::said(result), took.as_secs_f64());
    }
    eprintln!("the page is {}", file.display());
    println!("{}", page::json(&ended, options.tier, began.elapsed()));
    let failed = ended.iter().filter(|ended| matches!(ended.result, Result::Failed(_))).count();
    if failed == 0 { Ok(()) } else { Err(format!("{failed} of {} lanes failed", ended.len())) }
}

/// A command for people: where this machine keeps what it builds is nobody's business.
fn shown(program: &str, args: &[String], target: &str) -> String {
    format!("{} {}", program.rsplit('/').next().unwrap_or_default(), args.join(" ").replace(target, "target"))
}

fn play(lane: &'static Lane, tier: Tier) -> Ended {
    let budget = Duration::from_secs(lane.budget_s[tier as usize]);
    let args = (lane.args)(tier, budget.as_secs());
    let command = shown(lane.program, &args, &target_dir().display().to_string());
    let mut ended =
        Ended { lane, result: Result::Passed, took: Duration::ZERO, budget, command, lines: Vec::new(), figures: None };
    eprintln!("lane `{}`: {} s at most", lane.name, budget.as_secs());
    if let Some(missing) = (lane.missing)() {
        ended.result = Result::Skipped(missing);
        return ended;
    }
    if let Err(error) = process::run("cargo", lane.build) {
        ended.result = Result::Failed(error);
        return ended;
    }
    let began = Instant::now();
    if let Err(error) = watched(lane, &args, budget, &mut ended) {
        ended.result = Result::Failed(error);
    }
    ended.took = began.elapsed();
    ended
}

/// Runs a lane's program, shows what it prints, and keeps that; ends it when its time is over.
fn watched(lane: &Lane, args: &[String], budget: Duration, ended: &mut Ended) -> Outcome {
    let program = target_dir().join(lane.program);
    let mut child = command(program.as_os_str())
        .args(args)
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    let (said, lines) = mpsc::channel();
    let out = child.stdout.take().expect("it was asked for");
    let reader = thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(std::io::Result::ok) {
            eprintln!("{line}");
            if said.send(line).is_err() {
                return;
            }
        }
    });
    let until = Instant::now() + budget + GRACE;
    let status = loop {
        match child.try_wait().map_err(|error| format!("`{}` is lost: {error}", lane.program))? {
            Some(status) => break Some(status),
            None if Instant::now() >= until => break None,
            None => thread::sleep(LOOK),
        }
    };
    if status.is_none() {
        // One that has just ended by itself is as well.
        let _ = child.kill();
        let _ = child.wait();
    }
    let _ = reader.join();
    for line in lines.try_iter() {
        if line.starts_with('{') && line.ends_with('}') {
            ended.figures = Some(line);
        } else if ended.lines.len() < LINES_MAX {
            ended.lines.push(line);
        }
    }
    match status {
        None => Err(format!("it did not end within {} s", (budget + GRACE).as_secs())),
        Some(status) if !status.success() => Err(format!("it ended with {status}")),
        Some(_) if ended.figures.is_none() => Err("it said nothing about what came of it".to_owned()),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_understood() {
        let options = Options::parse(&["--short", "--page", "x.md", "--lane", "simulation"]).expect("understood");
        assert_eq!((options.tier, options.page, options.only), (Tier::Short, "x.md", vec!["simulation"]));
        assert!(Options::parse(&["--lane", "none"]).is_err() && Options::parse(&["--page"]).is_err());
    }

    fn lane(program: &'static str) -> Lane {
        let args = |_, _| Vec::new();
        Lane { name: "test", shows: "", missing: lanes::nothing, build: &[], program, args, budget_s: [1, 1, 1] }
    }

    fn ended(lane: &'static Lane) -> Ended {
        let (took, command) = (Duration::ZERO, String::new());
        Ended { lane, result: Result::Passed, took, budget: took, command, lines: Vec::new(), figures: None }
    }

    #[test]
    fn a_command_is_shown_without_the_folders_of_this_machine() {
        let args = ["--nexa".to_owned(), "/home/me/cache/sim/nexa".to_owned()];
        assert_eq!(shown("sim/nexa-battery", &args, "/home/me/cache"), "nexa-battery --nexa target/sim/nexa");
    }

    #[test]
    fn a_lane_must_succeed_and_say_what_came_of_it() {
        static ECHO: std::sync::LazyLock<Lane> = std::sync::LazyLock::new(|| lane("/bin/echo"));
        static FALSE: std::sync::LazyLock<Lane> = std::sync::LazyLock::new(|| lane("/bin/false"));
        let say = |text: &str| {
            let mut it = ended(&ECHO);
            let outcome = watched(&ECHO, &["-e".to_owned(), text.to_owned()], Duration::from_secs(60), &mut it);
            (outcome.is_ok(), it.lines, it.figures)
        };
        let both = say("for people\n{\"for\":\"machines\"}");
        assert_eq!(both, (true, vec!["for people".to_owned()], Some("{\"for\":\"machines\"}".to_owned())));
        assert!(!say("for people").0);
        assert!(watched(&FALSE, &[], Duration::from_secs(60), &mut ended(&FALSE)).is_err());
    }
}
