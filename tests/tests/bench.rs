//! The suites `core` and `cluster` of the benches, as small as they can be: that each figure can be measured, and nothing
//! about how large it is.

use std::process::{Command, Stdio};

use nexa_tests::{Desk, finish, nexa_path};
use serde_json::Value;

/// In the order in which they are given.
const KEYS: [&str; 15] = [
    "durable_steps_per_s",
    "fsync_p50_us",
    "raw_insert_rows_per_s",
    "durable_messages_per_s",
    "step_p50_ms",
    "step_p99_ms",
    "live_agents",
    "live_agents_start_s",
    "live_agent_kib",
    "total_pss_mib",
    "dormant_agent_bytes",
    "start_to_exit_ms",
    "start_peak_mib",
    "embedded_tokens_per_s",
    "local_tell_ratio",
];

#[test]
fn every_figure_of_the_core_can_be_measured() {
    let desk = Desk::new();
    let bench = nexa_path().with_file_name("nexa-bench");
    assert!(bench.is_file(), "{} is not there: run `cargo build --profile fast -p nexa-bench` first", bench.display());
    let mut command = Command::new(bench);
    command
        .args(["core", "--quick", "--nexa"])
        .arg(nexa_path())
        .arg("--folder")
        .arg(desk.path("bench"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let out = finish(command).good();
    let figures: Value = serde_json::from_str(out.lines().last().expect("it says something")).expect("one object");
    for key in KEYS {
        // The embedded model's is null where nobody has fetched its weights.
        let is_measured = figures[key].as_f64().is_some_and(|figure| figure > 0.0);
        let may_be_null = key == "embedded_tokens_per_s" && figures.get(key) == Some(&Value::Null);
        assert!(is_measured || may_be_null, "{key} is {} in {out}", figures[key]);
    }
    assert_eq!(std::fs::read_dir(desk.path("bench")).expect("its folder stays").count(), 0, "it cleans up");
}

/// One part of the suite `cluster`, and its figures.
fn cluster_gives(part: &str, keys: &[&str]) {
    let bench = nexa_path().with_file_name("nexa-bench");
    assert!(bench.is_file(), "{} is not there: run `cargo build --profile fast -p nexa-bench` first", bench.display());
    let mut command = Command::new(bench);
    command
        .args(["cluster", "--quick", "--only", part, "--nexa"])
        .arg(nexa_path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let out = finish(command).good();
    let figures: Value = serde_json::from_str(out.lines().last().expect("it says something")).expect("one object");
    for key in keys {
        assert!(figures[key].as_f64().is_some_and(|figure| figure > 0.0), "{key} is {} in {out}", figures[key]);
    }
}

#[test]
fn every_figure_of_links_can_be_measured() {
    let keys = [
        "oneway_msgs_per_s",
        "tonic_stream_msgs_per_s",
        "oneway_vs_stream",
        "ask_p50_us",
        "ask_p99_us",
        "tonic_unary_p50_us",
        "tonic_unary_rps",
        "ask_vs_unary",
    ];
    cluster_gives("link", &keys);
}

#[test]
fn every_figure_of_steps_on_postgresql_can_be_measured() {
    let keys = ["durable_steps_per_s_postgres", "durable_messages_per_s", "raw_insert_rows_per_s", "fsync_p50_us"];
    cluster_gives("durable", &keys);
}

#[test]
fn every_figure_of_agents_that_move_can_be_measured() {
    cluster_gives("migration", &["migration_pause_p99_ms", "migration_in_flight_p99_ms", "migration_snapshot_kib"]);
}
