//! `cluster-bugs`: plays each planted bug until a seed catches it, and says which escaped. `cargo xtask prove --bugs` runs it.
//!
//! At least [`CAUGHT_PERCENT`] of those that this build can plant must be caught, or the command fails. Those for which there was
//! no time are named and count for neither.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nexa_sim::bugs::{Hunt, PLANTS, Plant, Scene};
use serde_json::{Value, json};

use crate::plan_sim::Error;

/// Seeds that are played for one bug unless something else is asked for.
const SEEDS: u64 = 40;
const SEEDS_MAX: u64 = 1_000_000;
/// Of a hundred bugs so many must be caught.
const CAUGHT_PERCENT: usize = 95;
const WITHIN_S_MAX: u64 = 86_400;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    seeds: u64,
    only: BTreeSet<String>,
    /// After so long no further seed is begun.
    within: Option<Duration>,
    is_text: bool,
    is_json: bool,
}

impl Options {
    pub(crate) fn parse(mut words: &[&str]) -> Result<Self, String> {
        let mut options = Self { seeds: SEEDS, only: BTreeSet::new(), within: None, is_text: true, is_json: false };
        loop {
            words = match words {
                [] => return Ok(options),
                ["--seeds", number, rest @ ..] => {
                    let number = number.parse().ok().filter(|number| (1..=SEEDS_MAX).contains(number));
                    options.seeds = number.ok_or_else(|| format!("--seeds takes a number from 1 to {SEEDS_MAX}"))?;
                    rest
                }
                ["--bug", name, rest @ ..] => {
                    let plant = Plant::named(name).filter(|plant| plant.scene.is_here());
                    plant.ok_or_else(|| format!("this build has no bug `{name}`"))?;
                    options.only.insert((*name).to_owned());
                    rest
                }
                ["--within", number, rest @ ..] => {
                    let number = number.parse().ok().filter(|number| (1..=WITHIN_S_MAX).contains(number));
                    let number = number.ok_or_else(|| format!("--within takes a number from 1 to {WITHIN_S_MAX}"))?;
                    options.within = Some(Duration::from_secs(number));
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

    fn wants(&self, plant: &Plant) -> bool {
        plant.scene.is_here() && (self.only.is_empty() || self.only.contains(plant.name))
    }
}

/// Plays them all.
pub(crate) fn all(options: &Options) -> Result<(), Error> {
    // A bug that breaks an invariant panics, which is how it is caught; nobody needs to read of it.
    std::panic::set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let until = options.within.map(|within| began + within);
    let (mut hunts, mut left) = (Vec::new(), Vec::new());
    for plant in PLANTS.iter().filter(|plant| options.wants(plant)) {
        let hunt = plant.hunt(options.seeds, until)?;
        if hunt.is_cut_short {
            left.push(plant.name);
            continue;
        }
        if options.is_text {
            println!("{}", line(plant, &hunt));
            hunt.unsound
                .iter()
                .for_each(|(seed, it)| println!("{:20} seed {seed} breaks without it: {} {}", "", it.id, it.text));
        }
        hunts.push((plant, hunt));
    }
    let escaped: Vec<&str> =
        hunts.iter().filter(|(_, hunt)| hunt.caught.is_none()).map(|(plant, _)| plant.name).collect();
    let (took, caught) = (began.elapsed(), hunts.len() - escaped.len());
    let real = hunts.iter().filter(|(plant, _)| plant.scene != Scene::Simulated).count();
    if options.is_text {
        println!(
            "\n{caught} of {} caught, {real} of them in the product's own code, in {:.0} s",
            hunts.len(),
            took.as_secs_f64()
        );
        let named = |names: &[&str]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        println!("escaped: {}", named(&escaped));
        println!("not looked for, or not to the end, as the time was over: {}", named(&left));
    }
    if options.is_json {
        let bugs: Vec<Value> = hunts.iter().map(|(plant, hunt)| told(plant, hunt)).collect();
        println!(
            "{}",
            json!({
                "bugs": bugs,
                "planted": hunts.len(),
                "of_the_product": real,
                "caught": caught,
                "escaped": escaped,
                "left_for_want_of_time": left,
                "seeds_each": options.seeds,
                "seconds": seconds(took),
            })
        );
    }
    let unsound = hunts.iter().filter(|(_, hunt)| !hunt.unsound.is_empty()).count();
    if unsound > 0 {
        Err(format!("for {unsound} bugs a seed breaks a property without them").into())
    } else if hunts.is_empty() {
        Err("there was no time to look for any".into())
    } else if caught * 100 >= hunts.len() * CAUGHT_PERCENT {
        Ok(())
    } else {
        Err(format!("{} of {} escaped", escaped.len(), hunts.len()).into())
    }
}

fn line(plant: &Plant, hunt: &Hunt) -> String {
    let Plant { name, after, scene, .. } = plant;
    let (took, scene) = (hunt.took.as_secs_f64(), scene.name());
    match &hunt.caught {
        Some((seed, it)) => {
            let text: String = it.text.chars().take(100).collect();
            format!("{name:20} {scene:12} seed {seed:<4} {:5} {took:6.1} s  {after}\n{:20} {text}", it.id, "")
        }
        None => format!("{name:20} {scene:12} escaped {} seeds {took:6.1} s  {after}", hunt.played),
    }
}

fn told(plant: &Plant, hunt: &Hunt) -> Value {
    let caught = hunt.caught.as_ref();
    json!({
        "bug": plant.name,
        "does": plant.does,
        "stands_for": plant.after,
        "scene": plant.scene.name(),
        "is_caught": caught.is_some(),
        "seed": caught.map(|(seed, _)| seed),
        "property": caught.map(|(_, it)| it.id),
        "text": caught.map(|(_, it)| &it.text),
        "broken_without": hunt.unsound.iter().map(|(seed, _)| seed).collect::<Vec<_>>(),
        "seeds_played": hunt.played,
        "seconds": seconds(hunt.took),
    })
}

fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_understood() {
        let words = ["--seeds", "3", "--bug", "early-ack", "--within", "9", "-o", "both"];
        let (only, within) = (BTreeSet::from(["early-ack".to_owned()]), Some(Duration::from_secs(9)));
        let options = Options { seeds: 3, only, within, is_text: true, is_json: true };
        assert_eq!(Options::parse(&words).unwrap(), options);
        for wrong in [&["--seeds", "0"][..], &["--within", "0"], &["--bug", "none"], &["--seeds"], &["more"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
