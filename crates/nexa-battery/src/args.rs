//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use crate::scene::{self, Scene};

const HELP: &str = "\
usage: nexa-battery [--scene NAME|all] [--kills N] [--cuts N] [--postgres-cuts N] [--times N]
                    [--nexa PATH] [--seed N] [--rate N] [--within SECONDS] [--folder DIR] [--keep]
                    [--report FILE] [-o text|json|both]

Plays faults on a cluster of real processes, each in a network namespace of its own, and checks
that nothing that was acknowledged is lost, nothing is done twice, and all of it goes on after each
heal. Wants root. What this machine cannot do is skipped. Rows of kills and of cuts come first.

  --scene NAME    one scene, several with commas, or all (default: all, if no row is asked for)
  --kills N       N times kill -9 in a row, every 3 s, of nodes, members of etcd and PostgreSQL; the
                  nightly form has 300
  --cuts N        N power cuts of a node by itself, with its data on SQLite
  --postgres-cuts N
                  N power cuts of PostgreSQL below a cluster
  --times N       how often the fault of each named scene comes (default: as --list says)
  --nexa PATH     the binary of the nodes (default: NEXA_BIN, or target/release/nexa)
  --seed N        where all chance comes from (default: 1)
  --rate N        workloads a second, each of four agents or more (default: 8)
  --within SECONDS
                  take no longer: shorter rows and fewer scenes, and it is said which
  --folder DIR    below which everything is kept meanwhile (default: the temporary folder)
  --keep          keep it: logs, and each scene's history.jsonl
  --report FILE   write the table there
  -o text|json|both
                  text: a table and a sum (default); json: an object a line and scene, and one with
                  the sum as the last line; both: text, and that last line
  --list          say which scenes there are
";

/// What was typed.
#[derive(Debug, Clone)]
pub(crate) struct Args {
    scenes: Vec<Scene>,
    /// The binary of the nodes.
    pub(crate) nexa: PathBuf,
    /// Where all chance comes from.
    pub(crate) seed: u64,
    /// Workloads a second.
    pub(crate) rate: f64,
    /// Below which everything is kept.
    pub(crate) folder: PathBuf,
    /// Whether it stays.
    pub(crate) keep: bool,
    /// Where the table goes.
    pub(crate) report: Option<PathBuf>,
    /// After so long all is to be over.
    pub(crate) within: Option<Duration>,
    /// Whether results are for people.
    pub(crate) is_text: bool,
    /// Whether the sum is for programs.
    pub(crate) is_json: bool,
}

impl Args {
    /// Reads them; `None` if there is nothing to do but what was printed.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut args = Self {
            scenes: Vec::new(),
            nexa: std::env::var_os("NEXA_BIN").map_or_else(|| PathBuf::from("target/release/nexa"), PathBuf::from),
            seed: 1,
            rate: 8.0,
            folder: std::env::temp_dir(),
            keep: false,
            report: None,
            within: None,
            is_text: true,
            is_json: false,
        };
        let (mut words, mut times, mut rows) = (words, None, Vec::new());
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("`{word}` wants a value"));
            match word.as_str() {
                "--help" | "-h" => {
                    print!("{HELP}");
                    return Ok(None);
                }
                "--list" => {
                    scene::all()
                        .iter()
                        .for_each(|scene| println!("{:18}{} x {}", scene.name, scene.times, scene.about));
                    return Ok(None);
                }
                "--scene" => args.scenes = named(&value()?)?,
                "--kills" => rows.push(scene::kills(number(&value()?)?)),
                "--cuts" => rows.push(scene::cuts(number(&value()?)?)),
                "--postgres-cuts" => rows.push(scene::postgres_cuts(number(&value()?)?)),
                "--times" => times = Some(number(&value()?)?),
                "--nexa" => args.nexa = PathBuf::from(value()?),
                "--seed" => args.seed = number(&value()?)?,
                "--rate" => args.rate = number(&value()?)?,
                "--folder" => args.folder = PathBuf::from(value()?),
                "--keep" => args.keep = true,
                "--report" => args.report = Some(PathBuf::from(value()?)),
                "--within" => args.within = Some(Duration::from_secs(number(&value()?)?)),
                "-o" | "--output" => {
                    (args.is_text, args.is_json) = match value()?.as_str() {
                        "text" => (true, false),
                        "json" => (false, true),
                        "both" => (true, true),
                        other => return Err(format!("`{other}` is no kind of output")),
                    }
                }
                other => return Err(format!("`{other}` is not known")),
            }
        }
        if args.scenes.is_empty() && rows.is_empty() {
            args.scenes = scene::all();
        }
        args.scenes.iter_mut().for_each(|scene| scene.times = times.unwrap_or(scene.times));
        args.scenes.splice(..0, rows);
        args.nexa = args.nexa.canonicalize().map_err(|error| format!("{}: {error}", args.nexa.display()))?;
        if !(args.rate > 0.0 && args.rate.is_finite()) {
            return Err("`--rate` is more than 0".to_owned());
        }
        Ok(Some(args))
    }

    /// What is to be played.
    pub(crate) fn scenes(&self) -> Vec<Scene> {
        self.scenes.clone()
    }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("`{text}` is no number that fits"))
}

fn named(text: &str) -> Result<Vec<Scene>, String> {
    if text == "all" {
        return Ok(scene::all());
    }
    let find = |name: &str| {
        let found = scene::all().into_iter().find(|scene| scene.name == name);
        found.ok_or_else(|| format!("there is no scene `{name}`: --list says which there are"))
    };
    text.split(',').map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_are_chosen_by_name_and_unknown_ones_are_refused() {
        let names = |text| named(text).map(|scenes| scenes.iter().map(|scene| scene.name).collect::<Vec<_>>());
        assert_eq!(names("node-kill,rolling"), Ok(vec!["node-kill", "rolling"]));
        assert_eq!(names("all").map(|all| all.len()), Ok(scene::all().len()));
        assert!(names("node-hug").is_err());
    }
}
