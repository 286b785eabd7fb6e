//! What can be typed.

use std::path::PathBuf;

use crate::scene::{self, Scene};

const HELP: &str = "\
usage: nexa-battery [--scene NAME|all] [--kills N] [--nexa PATH] [--seed N] [--rate N]
                    [--cuts N] [--times N] [--folder DIR] [--keep] [--report FILE] [-o json]

Plays faults on a cluster of real processes, each in a network namespace of its own, and checks
that nothing that was acknowledged is lost, nothing is done twice, and all of it goes on after each
heal. Wants root. What this machine cannot do is skipped.

  --scene NAME    one scene, several with commas, or all (default: all)
  --kills N       in the place of scenes: N times kill -9 in a row, every 3 s, of nodes, members of
                  etcd and PostgreSQL; the nightly form has 300
  --cuts N        in the place of scenes: N power cuts of a node by itself, with its data on SQLite
  --times N       how often the fault of each scene comes (default: as --list says)
  --nexa PATH     the binary of the nodes (default: NEXA_BIN, or target/release/nexa)
  --seed N        where all chance comes from (default: 1)
  --rate N        workloads a second, each of four agents or more (default: 8)
  --folder DIR    below which everything is kept meanwhile (default: the temporary folder)
  --keep          keep it: logs, and each scene's history.jsonl
  --report FILE   write the table there
  -o json         one JSON object a line and scene on standard output
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
    /// Whether results are for programs.
    pub(crate) is_json: bool,
}

impl Args {
    /// Reads them; `None` if there is nothing to do but what was printed.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut args = Self {
            scenes: scene::all(),
            nexa: std::env::var_os("NEXA_BIN").map_or_else(|| PathBuf::from("target/release/nexa"), PathBuf::from),
            seed: 1,
            rate: 8.0,
            folder: std::env::temp_dir(),
            keep: false,
            report: None,
            is_json: false,
        };
        let (mut words, mut times) = (words, None);
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
                "--kills" => args.scenes = vec![scene::kills(number(&value()?)?)],
                "--cuts" => args.scenes = vec![scene::cuts(number(&value()?)?)],
                "--times" => times = Some(number(&value()?)?),
                "--nexa" => args.nexa = PathBuf::from(value()?),
                "--seed" => args.seed = number(&value()?)?,
                "--rate" => args.rate = number(&value()?)?,
                "--folder" => args.folder = PathBuf::from(value()?),
                "--keep" => args.keep = true,
                "--report" => args.report = Some(PathBuf::from(value()?)),
                "-o" | "--output" => args.is_json = value()? == "json",
                other => return Err(format!("`{other}` is not known")),
            }
        }
        args.scenes.iter_mut().for_each(|scene| scene.times = times.unwrap_or(scene.times));
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
