//! The lanes: what each shows, what it needs, and how much of it each tier has.

use super::{Lane, Tier};
use crate::process::{is_on_path, succeeds, target_dir};

/// In the order in which they run: what is exact first, what takes the machine for itself last.
pub(super) const LANES: &[Lane] = &[
    Lane {
        name: "models",
        shows: "every state of a small cluster that owns an agent, and of a call that is made for it, decided by the code that runs; \
                and that each rule of these is missed when it is left out",
        missing: nothing,
        build: &["build", "--profile", "sim", "--package", "nexa-model"],
        program: "sim/nexa-model",
        args: models,
        budget_s: [60, 180, 3_600],
    },
    Lane {
        name: "simulation",
        shows: "whole clusters of three nodes on virtual time, from a seed each: agents with children, timers, models and tools, at \
                least three faults, and everything that must hold checked at each fact, each call, and the end",
        missing: nothing,
        build: &["build", "--profile", "sim", "--package", "nexa-sim"],
        program: "sim/nexa-sim",
        args: simulation,
        budget_s: [120, 600, 3 * 3_600],
    },
    Lane {
        name: "bugs",
        shows: "whether the simulation would notice: bugs planted in Nexa's own code, each of which some seed must catch",
        missing: nothing,
        build: &["build", "--profile", "fast", "--package", "nexa-sim", "--features", "planted-bugs"],
        program: "fast/nexa-sim",
        args: bugs,
        budget_s: [60, 300, 3_600],
    },
    Lane {
        name: "processes",
        shows: "clusters of real processes in network namespaces, with etcd and PostgreSQL, under kills, power cuts, partitions and \
                full disks: nothing acknowledged lost, nothing done twice, everything placed again after each heal",
        missing: what_processes_lack,
        build: &["build", "--profile", "sim", "--package", "nexa", "--package", "nexa-battery"],
        program: "sim/nexa-battery",
        args: processes,
        budget_s: [180, 720, 2 * 3_600],
    },
];

/// For a lane that needs nothing but a compiler.
pub(super) fn nothing() -> Option<String> {
    None
}

fn models(tier: Tier, budget_s: u64) -> Vec<String> {
    let small: &[&str] = if tier == Tier::Short { &["--small"] } else { &[] };
    words(&[&["all", "--within", &budget_s.to_string(), "-o", "both"][..], small].concat())
}

/// On a slow machine fewer seeds, and it says so.
fn simulation(tier: Tier, budget_s: u64) -> Vec<String> {
    let seeds = match tier {
        Tier::Short => "500",
        Tier::Full => "10000",
        Tier::Nightly => "150000",
    };
    words(&["cluster", "--seed", "1", "--seeds", seeds, "--within", &budget_s.to_string(), "-o", "both"])
}

/// The seed that caught a bug last is played first, so few are enough.
fn bugs(tier: Tier, budget_s: u64) -> Vec<String> {
    let seeds = match tier {
        Tier::Short => "3",
        Tier::Full => "10",
        Tier::Nightly => "100",
    };
    words(&["cluster-bugs", "--seeds", seeds, "--within", &budget_s.to_string(), "-o", "both"])
}

fn processes(tier: Tier, budget_s: u64) -> Vec<String> {
    let what: &[&str] = match tier {
        Tier::Short => &["--cuts", "5", "--scene", "node-kill,cut-one-way", "--times", "1"],
        Tier::Full => &[
            "--kills",
            "60",
            "--cuts",
            "12",
            "--postgres-cuts",
            "8",
            "--scene",
            "leader-pause,cut-one-way,etcd-majority,cut-postgres,workers,slow-disk,full-disk,rolling",
            "--times",
            "1",
        ],
        Tier::Nightly => &["--kills", "300", "--cuts", "50", "--postgres-cuts", "50", "--scene", "all"],
    };
    let nexa = target_dir().join("sim/nexa").display().to_string();
    words(&[&["--nexa", &nexa, "--within", &budget_s.to_string(), "-o", "both"][..], what].concat())
}

/// What is not on this machine of all that processes need in any scene. What only some need the battery says itself.
fn what_processes_lack() -> Option<String> {
    if !succeeds("sh", &["-c", "test \"$(id -u)\" = 0"]) {
        return Some("network namespaces and mounts want root".to_owned());
    }
    let programs = ["unshare", "nsenter", "ip", "mkfs.ext4", "mount", "perl", "etcd"];
    if let Some(program) = programs.into_iter().find(|program| !is_on_path(program)) {
        return Some(format!("there is no `{program}`; see `cargo xtask setup`"));
    }
    if !succeeds("sh", &["-c", "ls /usr/lib/postgresql/*/bin/postgres"]) {
        return Some("PostgreSQL is not installed; see `cargo xtask setup`".to_owned());
    }
    if !succeeds("unshare", &["--net", "--pid", "--mount", "--fork", "true"]) {
        return Some("the system lets nobody make network namespaces here".to_owned());
    }
    if !succeeds("losetup", &["--find"]) {
        return Some("there is no loop device for a disk of its own".to_owned());
    }
    None
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_AN_HOUR_S: u64 = 1_800;

    #[test]
    fn all_lanes_together_take_half_an_hour_at_most() {
        let full: u64 = LANES.iter().map(|lane| lane.budget_s[Tier::Full as usize]).sum();
        assert!(full <= HALF_AN_HOUR_S, "{full} s");
        for lane in LANES {
            let [short, full, nightly] = lane.budget_s;
            assert!(0 < short && short <= full && full <= nightly, "{}", lane.name);
        }
    }

    #[test]
    fn each_lane_knows_how_long_it_may_take_and_says_what_came_of_it_for_people_and_programs() {
        for lane in LANES {
            for tier in [Tier::Short, Tier::Full, Tier::Nightly] {
                let args = (lane.args)(tier, 77);
                let has = |pair: [&str; 2]| args.windows(2).any(|words| words == pair);
                assert!(has(["--within", "77"]) && has(["-o", "both"]), "{}: {args:?}", lane.name);
            }
        }
    }

    #[test]
    fn a_night_has_hundreds_of_kills_and_fifty_power_cuts_of_each_store() {
        let night = processes(Tier::Nightly, 1);
        let number = |option: &str| -> u32 {
            let at = night.iter().position(|word| word == option).expect("it is asked for");
            night[at + 1].parse().expect("a number")
        };
        assert!(number("--kills") >= 300 && number("--cuts") >= 50 && number("--postgres-cuts") >= 50);
    }
}
