//! `plan-sim`: reads the traces of a folder, plays them, and shows what came of it.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use nexa_sim::workflows::{Noise, Settings, read_all, report, study};

/// The most nodes of a cluster, clusters of a study and percent of noise.
const NODES_MAX: usize = 1_000;
const SEEDS_MAX: u64 = 1_000;
const PERCENT_MAX: u32 = 1_000;

/// What goes wrong: told, and the run ends.
pub(crate) type Error = Box<dyn std::error::Error>;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    folder: PathBuf,
    nodes: Vec<usize>,
    percents: Vec<u32>,
    seeds: u64,
    is_json: bool,
    report: Option<PathBuf>,
}

impl Options {
    pub(crate) fn parse(mut words: &[&str]) -> Result<Self, String> {
        let mut folder = None;
        let (mut nodes, mut percents, mut seeds) = (vec![2, 4, 8, 16, 32, 64], vec![0, 30, 100], 5);
        let (mut is_json, mut report) = (false, None);
        loop {
            words = match words {
                ["--nodes", list, rest @ ..] => {
                    nodes = numbers("--nodes", list, 1, NODES_MAX)?;
                    rest
                }
                ["--noise", list, rest @ ..] => {
                    percents = numbers("--noise", list, 0, PERCENT_MAX)?;
                    rest
                }
                ["--seeds", number, rest @ ..] => {
                    seeds = numbers("--seeds", number, 1, SEEDS_MAX)?[0];
                    rest
                }
                ["-o", what @ ("table" | "json"), rest @ ..] => {
                    is_json = *what == "json";
                    rest
                }
                ["--report", path, rest @ ..] => {
                    report = Some(PathBuf::from(path));
                    rest
                }
                [word, rest @ ..] if folder.is_none() && !word.starts_with('-') => {
                    folder = Some(PathBuf::from(word));
                    rest
                }
                [] => break,
                [word, ..] => return Err(format!("`{word}` is not understood here")),
            };
        }
        let folder = folder.ok_or("which folder has the traces?")?;
        Ok(Self { folder, nodes, percents, seeds, is_json, report })
    }
}

/// Numbers between commas, each within its bounds, rising, none twice.
fn numbers<N>(option: &str, list: &str, min: N, max: N) -> Result<Vec<N>, String>
where
    N: std::str::FromStr + Ord + std::fmt::Display,
{
    let number = |word: &str| word.parse().ok().filter(|number| *number >= min && *number <= max);
    let numbers: Option<Vec<N>> = list.split(',').map(number).collect();
    let mut numbers =
        numbers.ok_or_else(|| format!("`{option}` takes whole numbers from {min} to {max}, and not `{list}`"))?;
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let workflows = read_all(&options.folder).map_err(|error| chain(&error))?;
    let settings = Settings { nodes: options.nodes.clone(), seeds: options.seeds, noises: noises(&options.percents) };
    let is_terminal = std::io::stderr().is_terminal();
    let cells = study(&workflows, &settings, |done, of| {
        // A line that writes over itself for a person, and now and then a line for a log.
        if is_terminal {
            eprint!("\r{done} of {of} runs");
        } else if done == of || done % (of / 10).max(1) == 0 {
            eprintln!("{done} of {of} runs");
        }
    })?;
    if is_terminal {
        eprintln!();
    }
    let out = if options.is_json { serde_json::to_string(&report::json(&cells))? } else { report::table(&cells) };
    writeln!(std::io::stdout(), "{}", out.trim_end())?;
    if let Some(path) = &options.report {
        let chart = path.with_extension("svg");
        let name = chart.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        write(path, &report::markdown(&cells, &workflows, &settings, &name))?;
        write(&chart, &report::chart(&cells))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

/// The truth once, and each noise of each extent.
fn noises(percents: &[u32]) -> Vec<Noise> {
    let mut noises = Vec::new();
    for &percent in percents {
        noises.extend(match percent {
            0 => [Noise::True, Noise::Learned(0)].to_vec(),
            percent => [Noise::Task(percent), Noise::Kind(percent), Noise::Learned(percent)].to_vec(),
        });
    }
    noises.sort_unstable();
    noises
}

/// An error with those that caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_what_is_wrong_is_said() {
        let of = |words: &str| Options::parse(&words.split_whitespace().collect::<Vec<_>>());
        let all = of("traces --nodes 8,2 --noise 100,0,0 --seeds 3 -o json --report r.md").expect("all of it is right");
        assert_eq!((all.nodes, all.percents, all.seeds, all.is_json), (vec![2, 8], vec![0, 100], 3, true));
        assert_eq!(of("traces").map(|options| options.nodes), Ok(vec![2, 4, 8, 16, 32, 64]));
        for (words, said) in [
            ("", "which folder"),
            ("a b", "`b` is not understood"),
            ("a --nodes", "`--nodes` is not understood"),
            ("a --nodes 0", "from 1 to 1000, and not `0`"),
            ("a --seeds x", "from 1 to 1000, and not `x`"),
            ("a -o xml", "`-o` is not understood"),
        ] {
            let error = of(words).expect_err(words);
            assert!(error.contains(said), "{words}: {error}");
        }
    }

    #[test]
    fn the_truth_is_played_once() {
        let noises = noises(&[0, 30]);
        assert_eq!(noises, [Noise::True, Noise::Task(30), Noise::Kind(30), Noise::Learned(0), Noise::Learned(30)]);
    }
}
