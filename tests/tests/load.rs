//! `nexa load`: what it says of a node is true, also when the node is killed, and it leaves nothing behind.

use nexa_tests::{Desk, Process, wait_until};
use serde_json::Value;

/// Runs `nexa load ARGS` and gives its last line.
#[track_caller]
fn load(args: &[&str]) -> Value {
    let desk = Desk::new();
    let folder = desk.path("load");
    let mut all = vec!["load", "-o", "json", "--data", folder.to_str().expect("a plain path")];
    all.extend(args);
    let out = desk.run(&all).good();
    serde_json::from_str(out.lines().last().expect("it prints something")).expect("the last line is JSON")
}

#[track_caller]
fn all_went_right(figures: &Value) {
    for name in ["lost", "wrong", "repeated_effects", "violations", "not_accepted"] {
        assert_eq!(figures[name], 0, "{name}: {figures}");
    }
    assert!(figures["all_running_s"].as_f64().is_some_and(|seconds| seconds > 0.0), "{figures}");
}

#[test]
fn three_hundred_agents_are_all_right_and_asked_for_once() {
    let figures = load(&["--agents", "300", "--latency-ms", "200"]);
    all_went_right(&figures);
    assert_eq!(
        (&figures["steps"], &figures["model_requests"], &figures["workloads"]),
        (&300.into(), &300.into(), &300.into())
    );
    assert_eq!((&figures["in_flight_peak"], &figures["reissued_model_calls"]), (&300.into(), &0.into()));
    assert!(figures["total_pss_mib"].as_f64().is_some_and(|mib| mib > 1.0), "{figures}");
}

#[test]
fn a_kill_at_half_time_loses_nothing_and_repeats_nothing() {
    let figures = load(&["--agents", "300", "--latency-ms", "1500", "--kill-at", "50%"]);
    all_went_right(&figures);
    assert!(figures["histories"].as_u64().is_some_and(|read| read > 0), "{figures}");
    assert_eq!((&figures["kills"], &figures["steps"]), (&1.into(), &300.into()));
    let share = figures["ended_at_kill"].as_f64().expect("it was killed");
    assert!((0.1..0.95).contains(&share), "{figures}");
    // What was asked for again was in flight at the kill, and is recorded as asked for again.
    let again = figures["model_requests"].as_u64().expect("a number") - 300;
    assert!(
        again > 0 && figures["reissued_model_calls"].as_u64().is_some_and(|recorded| recorded >= again),
        "{figures}"
    );
}

#[test]
fn every_shape_has_the_output_that_it_must_have() {
    for shape in ["layers", "pipelines", "sleepers"] {
        let figures = load(&["--agents", "120", "--shape", shape, "--latency-ms", "30", "--pause-ms", "100"]);
        all_went_right(&figures);
        assert_eq!(figures["shape"], shape);
    }
}

#[test]
fn every_history_is_checked_and_written_where_that_is_wanted() {
    let desk = Desk::new();
    let file = desk.path("histories/all.jsonl");
    let args = ["--agents", "40", "--shape", "layers", "--latency-ms", "30", "--errors", "0.1"];
    let figures = load(&[&args[..], &["--history", file.to_str().expect("a plain path")]].concat());
    all_went_right(&figures);
    assert_eq!(figures["histories"], figures["workloads"]);
    let written = std::fs::read_to_string(file).expect("the histories are there");
    let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |name: &str, value: &str| lines.iter().filter(|line| line[name] == value).count();
    assert_eq!((of("op", "submit"), of("fact", "submitted"), of("fact", "workload_ended")), (1, 1, 1));
    assert_eq!((of("fact", "spawned"), of("fact", "agent_ended")), (41, 41));
}

#[test]
fn an_endpoint_that_fails_is_asked_again_by_the_programs() {
    let figures = load(&["--agents", "60", "--latency-ms", "20", "--errors", "0.1", "--drops", "0.1", "--rate", "200"]);
    all_went_right(&figures);
    assert!(figures["faults"].as_u64().is_some_and(|faults| faults > 0), "{figures}");
    assert!(figures["steps"].as_u64().is_some_and(|steps| steps > 60), "{figures}");
}

#[test]
fn an_interrupted_load_leaves_no_node_behind() {
    let desk = Desk::new();
    let process =
        Process::start(desk.nexa(&["load", "--agents", "20", "--latency-ms", "60000", "--latency-spread", "0"]));
    let mut node = String::new();
    wait_until("the node to serve and the agents to ask", || {
        let said = process.said_so_far();
        node = said.split("process ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned();
        said.contains("20 agents wait for an answer")
    });
    process.signal("INT");
    let mut process = process;
    assert_eq!(process.wait().code(), Some(130));
    assert!(!std::path::Path::new(&format!("/proc/{node}")).exists(), "process {node} still runs");
}

#[test]
fn a_number_of_nodes_that_makes_no_sense_is_refused() {
    let (code, said) = Desk::new().run(&["load", "--nodes", "0"]).bad();
    assert_eq!(code, 2);
    assert!(said.contains("--nodes 0 is not between 1 and 16"), "{said}");
}

#[test]
fn tenants_share_a_key_and_a_report_says_how() {
    let desk = Desk::new();
    let report = desk.path("reports/tenants");
    let report = report.to_str().expect("a plain path");
    let args = ["--agents", "90", "--tenants", "3", "--key-rpm", "1200", "--latency-ms", "50", "--report", report];
    let figures = load(&args);
    all_went_right(&figures);
    assert_eq!(figures["workloads"], 90);
    // 90 requests at 20 a second take four seconds: long enough to say how they were shared out.
    assert!(figures["budget_used"].as_f64().is_some_and(|used| used > 0.0), "{figures}");
    assert!(figures["jain_index"].as_f64().is_some_and(|index| index > 0.0), "{figures}");
    let page = std::fs::read_to_string(format!("{report}.md")).expect("the report is there");
    assert!(page.contains("Every output is what it must be") && page.contains("(tenants.svg)"), "{page}");
    assert!(std::fs::read_to_string(format!("{report}.svg")).is_ok_and(|picture| picture.ends_with("</svg>\n")));
}
