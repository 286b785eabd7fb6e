//! Whole clusters on virtual time: a seed is one run, faults break nothing, and planted bugs are noticed.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

use nexa_sim::cluster::{Bug, Report, Settings, points, run};

/// Short runs, so that some fit into each test run.
fn short() -> Settings {
    Settings { seconds: 30, workloads: 8, ..Settings::default() }
}

fn sound(report: &Report) {
    assert!(report.violations.is_empty(), "seed {}: {:#?} {:#?}", report.seed, report.violations, report.faults);
}

#[test]
fn without_faults_everything_ends_and_nothing_is_unknown() {
    let report = run(1, &Settings { has_faults: false, ..short() }).unwrap();
    sound(&report);
    assert_eq!((report.accepted, report.unknown), (8, 0));
    // People have nodes leave and come back.
    assert!(report.starts >= 3);
    assert!(report.simulated.0 >= 30_000 && report.facts > 200, "{report:?}");
}

/// The node that leaves gave an agent away and was gone before it had told the new owner, which the leader's patrol found after a
/// minute.
#[test]
fn an_agent_that_a_leaving_node_gives_away_last_goes_on_at_once() {
    sound(&run(4, &Settings { has_faults: false, ..Settings::default() }).unwrap());
}

/// A step that was in doubt was refused for its version, because its first try had come to the store just before the second.
#[test]
fn steps_that_the_store_takes_late_do_not_quarantine_their_agent() {
    sound(&run(50_414, &Settings { nodes: 5, workloads: 24, ..Settings::default() }).unwrap());
}

#[test]
fn a_seed_is_the_same_run_each_time_and_another_seed_another() {
    let hashes: Vec<String> = [7, 7, 8].map(|seed| run(seed, &short()).unwrap().hash).into();
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[0], hashes[2]);
}

#[test]
fn faults_break_nothing() {
    for seed in 0..6 {
        let report = run(seed, &short()).unwrap();
        sound(&report);
        assert_eq!(report.accepted, 8, "seed {seed}");
        assert!(report.kinds.len() >= 3);
    }
}

/// So many seeds come to every point at which a node dies.
const POINTS_WITHIN: u64 = 300;

#[test]
#[ignore = "takes minutes: cargo xtask test --slow"]
fn nodes_die_before_and_after_each_kind_of_step_and_that_breaks_nothing() {
    let mut missing = points();
    assert_eq!(missing.len(), 8);
    for seed in 0..POINTS_WITHIN {
        let report = run(seed, &short()).unwrap();
        sound(&report);
        missing.retain(|point| !report.points.contains(point));
        if missing.is_empty() {
            return;
        }
    }
    panic!("in {POINTS_WITHIN} seeds nobody died {missing:?}");
}

/// So many seeds from the one that caught a planted bug last: another change may have moved it.
const SEEDS: u64 = 60;

fn is_noticed(bug: Bug, first: u64) {
    let settings = Settings { seconds: 30, bug: Some(bug), ..Settings::default() };
    let caught = (first..first + SEEDS).find(|seed| !run(*seed, &settings).unwrap().violations.is_empty());
    assert!(caught.is_some(), "{bug:?} escapes {SEEDS} seeds from {first}");
}

#[test]
fn a_store_that_takes_anybody_for_the_owner_is_noticed() {
    is_noticed(Bug::StoreFence, 0);
}

#[test]
fn a_node_that_sends_without_a_lease_is_noticed() {
    is_noticed(Bug::LeaseFence, 102);
}

#[test]
fn a_store_that_acknowledges_what_it_has_not_stored_is_noticed() {
    is_noticed(Bug::EarlyAck, 0);
}

#[test]
fn an_adapter_that_does_a_call_twice_is_noticed() {
    is_noticed(Bug::ToolRetry, 0);
}

#[test]
fn a_call_of_unknown_outcome_that_is_made_again_is_noticed() {
    is_noticed(Bug::BlindRetry, 1);
}
