//! How much the simulation notices: bugs that are planted, each of which some seed must catch.
//!
//! Here is the list: what each bug is called, what it does, which incident or rule it stands for, where it is looked for, and
//! a seed that has caught it, which is played first. The bugs themselves sit in the code that they spoil, as
//! `planted(Bug::…)`; see [`nexa_types::planted`]. Those of a simulated layer are there in every build, the others in one
//! with the feature `planted-bugs`, as `cargo xtask prove --bugs` makes.

mod list;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

pub use nexa_types::planted::Bug;

use crate::cluster::{self, Settings, Violation};

pub use self::list::PLANTS;

/// Simulated seconds of a cluster, at least.
const SECONDS: u64 = 30;
/// One cluster of so many has one node.
const ALONE_ONE_IN: u64 = 4;
/// Ids of what is told by a panic.
const IDS: [&str; 18] = [
    "LE-1", "LE-2", "LE-3", "LE-4", "LE-5", "LE-6", "LE-7", "LS-1", "LS-2", "LS-3", "LS-4", "LS-6", "LS-7", "LK-1",
    "LK-2", "LK-3", "LK-4", "LK-5",
];

/// Where a bug is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// In whole clusters with faults; the bug is in a simulated layer.
    Simulated,
    /// In whole clusters with faults.
    Faults,
    /// In whole clusters in which nothing goes wrong: nodes leave and come, agents move.
    Calm,
    /// In the world of a leader.
    Leader,
    /// In the world of slices.
    Leases,
    /// In the world of a link.
    Links,
}

impl Scene {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Simulated | Self::Faults => "cluster",
            Self::Calm => "calm cluster",
            Self::Leader => "leader",
            Self::Leases => "slices",
            Self::Links => "link",
        }
    }

    /// Whether this build can plant it.
    #[must_use]
    pub fn is_here(self) -> bool {
        cfg!(feature = "planted-bugs") || self == Self::Simulated
    }
}

/// One of the list.
#[derive(Debug, Clone, Copy)]
pub struct Plant {
    /// Which.
    pub bug: Bug,
    /// What it is called.
    pub name: &'static str,
    /// What it does.
    pub does: &'static str,
    /// Which incident or rule it stands for.
    pub after: &'static str,
    /// Where it is looked for.
    pub scene: Scene,
    /// The seed that is played first.
    pub seed: u64,
}

impl Plant {
    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PLANTS.iter().find(|plant| plant.name == name)
    }

    /// What a bug is called.
    #[must_use]
    pub fn name_of(bug: Bug) -> &'static str {
        PLANTS.iter().find(|plant| plant.bug == bug).map_or("unlisted", |plant| plant.name)
    }

    /// Plays its seed and then the first others, up to so many, until one catches it; begins none after `until`. A seed that
    /// something breaks in also without the bug catches nothing.
    ///
    /// # Errors
    /// What kept a run from beginning.
    pub fn hunt(&self, seeds: u64, until: Option<Instant>) -> Result<Hunt, String> {
        let began = Instant::now();
        let others = (0..seeds).filter(|seed| *seed != self.seed);
        let mut hunt = Hunt { caught: None, unsound: Vec::new(), played: 0, is_cut_short: false, took: Duration::ZERO };
        for seed in std::iter::once(self.seed).chain(others).take(usize::try_from(seeds).unwrap_or(usize::MAX)) {
            if until.is_some_and(|until| Instant::now() >= until) {
                hunt.is_cut_short = true;
                break;
            }
            hunt.played += 1;
            let Some(violation) = self.play(seed, true)? else { continue };
            match self.play(seed, false)? {
                None => {
                    hunt.caught = Some((seed, violation));
                    break;
                }
                Some(violation) => hunt.unsound.push((seed, violation)),
            }
        }
        hunt.took = began.elapsed();
        Ok(hunt)
    }

    /// Plays one seed where it is looked for, with it or without; gives what broke first.
    ///
    /// # Errors
    /// What kept the run from beginning.
    pub fn play(&self, seed: u64, is_planted: bool) -> Result<Option<Violation>, String> {
        let (has_faults, bug) = (self.scene != Scene::Calm, is_planted.then_some(self.bug));
        // A node by itself takes over from nobody but its own earlier run.
        let nodes = if seed % ALONE_ONE_IN == ALONE_ONE_IN - 1 { 1 } else { Settings::default().nodes };
        let settings = Settings { seconds: SECONDS, nodes, has_faults, bug, ..Settings::default() };
        let mut found = Ok(None);
        let broken = guarded(|| {
            found = match self.scene {
                Scene::Simulated | Scene::Faults | Scene::Calm => {
                    cluster::run(seed, &settings).map(|report| report.violations.into_iter().next())
                }
                #[cfg(feature = "planted-bugs")]
                scene => Ok(planting(bug, || match scene {
                    Scene::Leader => crate::lanes::leader(seed),
                    Scene::Leases => crate::lanes::leases(seed),
                    _ => crate::lanes::links(seed),
                })),
                #[cfg(not(feature = "planted-bugs"))]
                _ => Err("this build has no planted bugs".to_owned()),
            };
            Ok(())
        });
        if broken.is_some() { Ok(broken) } else { found }
    }
}

/// Plays it; a panic is as good an answer as another.
pub(crate) fn guarded(play: impl FnOnce() -> Result<(), String>) -> Option<Violation> {
    let why = match catch_unwind(AssertUnwindSafe(play)) {
        Ok(Ok(())) => return None,
        Ok(Err(why)) => why,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
        }
    };
    let id = IDS.into_iter().find(|id| why.starts_with(id)).unwrap_or("panic");
    let text = why.strip_prefix(id).map_or(why.as_str(), |rest| rest.trim_start_matches(": ")).to_owned();
    Some(Violation { id, text })
}

/// Plays it with a bug, if this build can plant it.
pub(crate) fn planting<T>(bug: Option<Bug>, play: impl FnOnce() -> T) -> T {
    #[cfg(feature = "planted-bugs")]
    nexa_types::planted::plant(bug);
    let played = play();
    #[cfg(feature = "planted-bugs")]
    nexa_types::planted::plant(None);
    #[cfg(not(feature = "planted-bugs"))]
    let _ = bug;
    played
}

/// What came of looking for a bug.
#[derive(Debug, Clone)]
pub struct Hunt {
    /// The seed that caught it, and by what.
    pub caught: Option<(u64, Violation)>,
    /// Seeds in which something broke also without it: the simulation, or Nexa, has a bug that nobody planted.
    pub unsound: Vec<(u64, Violation)>,
    /// Seeds that were played.
    pub played: u64,
    /// Whether there were more to play, and no time.
    pub is_cut_short: bool,
    /// How long that took.
    pub took: Duration,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_bug_is_listed_once_and_told_in_full() {
        let bugs: BTreeSet<Bug> = PLANTS.iter().map(|plant| plant.bug).collect();
        let names: BTreeSet<&str> = PLANTS.iter().map(|plant| plant.name).collect();
        assert_eq!((bugs.len(), names.len()), (PLANTS.len(), PLANTS.len()));
        assert!(PLANTS.iter().all(|plant| !plant.does.is_empty() && !plant.after.is_empty()));
        let real = PLANTS.iter().filter(|plant| plant.scene != Scene::Simulated).count();
        assert!(real >= 40, "{real} bugs are in the product's own code");
    }
}
