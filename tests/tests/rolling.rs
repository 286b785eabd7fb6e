//! Nodes that are restarted one after the other while clients go on, and how long what a driver started outlives it.

use std::path::Path;
use std::time::{Duration, Instant};

use nexa_testkit::{etcd, postgres};
use nexa_tests::{Cluster, Desk, Process, Server, wait_until};
use serde_json::Value;

/// The figures of a load, from its last line.
fn figures(out: &str) -> Value {
    serde_json::from_str(out.lines().last().expect("figures")).expect("the last line is JSON")
}

/// What must hold of every rolling restart of three nodes.
#[track_caller]
fn nothing_was_noticed(figures: &Value) {
    for name in ["lost", "wrong", "repeated_effects", "not_accepted", "requests_failed"] {
        assert_eq!(figures[name], 0, "{name}: {figures}");
    }
    assert_eq!((&figures["nodes"], &figures["restarts"]), (&3.into(), &3.into()), "{figures}");
    assert!(figures["requests_retried"].as_u64() > Some(0), "nobody met a node that was away: {figures}");
    // Within the grace, which is 25 seconds by itself.
    assert!(figures["drain_s"].as_f64() < Some(25.0), "a node was not let go by its agents: {figures}");
}

#[test]
fn three_nodes_are_restarted_in_turn_and_clients_do_not_notice() {
    if postgres::Server::shared().is_none() || etcd::Server::start().is_none() {
        return;
    }
    let desk = Desk::new();
    let mut command = desk.nexa(&["load", "--agents", "150", "--nodes", "3", "--rolling-restart", "--rate", "10"]);
    command.args(["--calls", "3", "--latency-ms", "800", "-o", "json", "--data"]).arg(desk.path("load"));
    nothing_was_noticed(&figures(&nexa_tests::finish(command).good()));
}

#[test]
fn three_nodes_become_nodes_of_the_next_release_and_clients_do_not_notice() {
    let Some(next) = nexa_tests::next_path() else { return };
    if postgres::Server::shared().is_none() || etcd::Server::start().is_none() {
        return;
    }
    let desk = Desk::new();
    let mut command = desk.nexa(&["load", "--agents", "150", "--nodes", "3", "--rolling-restart", "--rate", "10"]);
    command.args(["--calls", "3", "--latency-ms", "800", "-o", "json", "--data"]).arg(desk.path("load"));
    command.arg("--restart-with").arg(next);
    nothing_was_noticed(&figures(&nexa_tests::finish(command).good()));
}

#[test]
fn a_rolling_restart_needs_several_nodes() {
    let desk = Desk::new();
    let (code, told) = desk.run(&["load", "--rolling-restart"]).bad();
    assert!(code == 2 && told.contains("several nodes") && told.contains("--nodes 3"), "{code}: {told}");
    let args = ["load", "--nodes", "3", "--rolling-restart", "--restart-with", "no/such/binary"];
    let (code, told) = desk.run(&args).bad();
    assert!(code == 2 && told.contains("is no file"), "{code}: {told}");
}

/// The processes that work below a folder.
fn at_work_in(folder: &Path) -> usize {
    let all = std::fs::read_dir("/proc").expect("processes are listed");
    let places = all.filter_map(|entry| std::fs::read_link(entry.ok()?.path().join("cwd")).ok());
    places.filter(|place| place.starts_with(folder)).count()
}

#[test]
fn nothing_stays_behind_of_a_driver_that_is_killed() {
    if postgres::Server::shared().is_none() || etcd::Server::start().is_none() {
        return;
    }
    let desk = Desk::new();
    let folder = desk.path("load");
    let mut command = desk.nexa(&["load", "--agents", "40", "--nodes", "2", "--latency-ms", "60000", "--data"]);
    command.arg(&folder);
    let mut driver = Process::start(command);
    wait_until("both nodes to serve", || driver.said_so_far().matches(" is process ").count() == 2);
    assert!(at_work_in(&folder) >= 4, "two nodes, PostgreSQL and etcd");
    driver.kill();
    wait_until("everything to end", || at_work_in(&folder) == 0);
}

const ASKS: &str = r#"
flow main() -> bool {
    return match approve("Go on?", timeout: 1h) {
        approved(_by, _note) => true
        denied(_by, _note) => false
    }
}
"#;

/// Each node's state and how many agents it has, as one of them tells.
fn states(desk: &Desk, server: &Server) -> Vec<(String, u64)> {
    let listed = desk.run(&["nodes", "-o", "json", "--server", &server.address]).good();
    let nodes = listed.lines().map(|line| serde_json::from_str::<Value>(line).expect("one object a line"));
    let told = |node: Value| (node["state"].as_str().map(str::to_owned), node["load"]["agents"].as_u64());
    nodes.map(told).map(|(state, agents)| (state.expect("a state"), agents.unwrap_or(u64::MAX))).collect()
}

/// Whether they are two that stand so.
fn stand(desk: &Desk, server: &Server, wanted: [(&str, u64); 2]) -> bool {
    states(desk, server) == wanted.map(|(state, agents)| (state.to_owned(), agents))
}

#[test]
fn a_node_that_was_drained_goes_at_once_and_stays_drained_until_it_is_let_in_again() {
    let (Some(database), Some(etcd)) = (postgres::Server::start(), etcd::Server::start()) else { return };
    let cluster = Cluster::new(database.database(), etcd.endpoint(), &["a", "b"]);
    let desk = &cluster.desk;
    let program = desk.write("asks.nx", ASKS);
    let [a, b] = ["a", "b"].map(|name| cluster.serve(name, &[]));
    wait_until("two nodes", || stand(desk, &a, [("ready", 0), ("ready", 0)]));
    let submit = |server: &Server| {
        desk.run(&["submit", program.to_str().expect("a plain path"), "--server", &server.address]).good();
    };
    [&a, &b, &a, &b, &a, &b].into_iter().for_each(submit);
    wait_until("agents on both", || states(desk, &a).iter().map(|(_, agents)| *agents).sum::<u64>() == 6);

    // Everything leaves it, and it goes on to take calls.
    desk.run(&["drain", "b", "--wait", "--server", &b.address]).good();
    wait_until("all of them to be on the other", || stand(desk, &b, [("ready", 6), ("drained", 0)]));
    submit(&b);
    wait_until("the other to have that, too", || stand(desk, &b, [("ready", 7), ("drained", 0)]));
    let (mut process, told) = (b.process, Instant::now());
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0), "{}", process.rest_of_err());
    // Without waiting for its grace, which is 25 seconds by itself.
    assert!(told.elapsed() < Duration::from_secs(20), "it had nothing to let go of: {:?}", told.elapsed());

    // Whoever comes under its name is drained as well, until somebody says otherwise.
    let b = cluster.serve("b", &[]);
    wait_until("it to be there again", || stand(desk, &a, [("ready", 7), ("drained", 0)]));
    submit(&b);
    wait_until("the other to have that, too", || stand(desk, &a, [("ready", 8), ("drained", 0)]));
    desk.run(&["uncordon", "b", "--server", &a.address]).good();
    wait_until("it to be let in", || states(desk, &b).iter().all(|(state, _)| state == "ready"));
}
