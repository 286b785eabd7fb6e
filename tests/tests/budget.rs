//! One budget of a provider, for all nodes of a cluster together, also while leadership changes hands.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nexa_testkit::{etcd, postgres};
use nexa_tests::{Desk, Process, wait_until};
use serde_json::Value;

/// The key under which the leader of a cluster called `nexa` stands in etcd, `/nexa/nexa/members/leader`, as its gateway takes
/// names.
const LEADER: &str = "L25leGEvbmV4YS9tZW1iZXJzL2xlYWRlcg==";
/// How long a load may take.
const PATIENCE: Duration = Duration::from_secs(400);

/// A load by tenants with one key, which ends when all of it has.
fn start(desk: &Desk, args: &[&str]) -> Process {
    let mut command = desk.nexa(&["load", "--nodes", "3", "--latency-ms", "300", "-o", "json", "--data"]);
    command.arg(desk.path("load")).args(args);
    Process::start(command)
}

#[track_caller]
fn figures(mut load: Process) -> Value {
    let began = Instant::now();
    while !load.has_ended() {
        assert!(began.elapsed() < PATIENCE, "the load does not end: {}", load.said_so_far());
        std::thread::sleep(Duration::from_millis(20));
    }
    let (out, err) = (load.rest_of_out(), load.rest_of_err());
    let figures: Value =
        serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{err}"));
    eprintln!("{figures}");
    for name in ["lost", "wrong", "repeated_effects", "not_accepted"] {
        assert_eq!(figures[name], 0, "{name}: {figures}\n{err}");
    }
    figures
}

#[track_caller]
fn figure(figures: &Value, name: &str) -> f64 {
    figures[name].as_f64().unwrap_or_else(|| panic!("{name} is missing: {figures}"))
}

/// Ends the leadership of whoever leads, with its lease as it is: the key is free for anybody. Gives what etcd says of it.
fn depose(etcd: &str) -> String {
    let mut stream = TcpStream::connect(etcd).expect("etcd is there");
    let body = format!("{{\"key\":\"{LEADER}\"}}");
    write!(
        stream,
        "POST /v3/kv/deleterange HTTP/1.1\r\nHost: {etcd}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("etcd listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("etcd answers");
    answer
}

/// How often somebody is to lead no more, and how long after the one before.
const DEPOSED: [u64; 2] = [8, 12];

#[test]
#[ignore = "takes a minute of a machine that does little else: cargo xtask test --slow"]
fn a_key_is_used_up_and_never_beyond_while_leadership_ends_again_and_again() {
    if postgres::Server::shared().is_none() || etcd::Server::start().is_none() {
        return;
    }
    let desk = Desk::new();
    let load = start(&desk, &["--agents", "2000", "--tenants", "6", "--key-rpm", "3000"]);
    let mut told = String::new();
    wait_until("the nodes to serve", || {
        told = load.said_so_far();
        told.contains("n3 is process")
    });
    let etcd = told.split("etcd answers at ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("it says");
    for after in DEPOSED {
        let began = Instant::now();
        wait_until("some time to pass", || began.elapsed() > Duration::from_secs(after));
        let mut answer = String::new();
        wait_until("somebody to lead", || {
            answer = depose(etcd);
            answer.contains("\"deleted\":\"1\"")
        });
    }
    let figures = figures(load);
    assert!(figure(&figures, "rate_limited_share") <= 0.001, "{figures}");
    assert!(figure(&figures, "budget_used") >= 0.95, "{figures}");
    assert!(figure(&figures, "jain_index") >= 0.98, "{figures}");
    // Nobody's node was lost, and nobody's agents were moved.
    assert_eq!(figures["reissued_model_calls"], 0, "{figures}");
}

#[test]
#[ignore = "takes minutes: cargo xtask test --slow"]
fn a_key_is_shared_evenly_and_never_used_beyond_when_the_leading_node_is_killed() {
    if postgres::Server::shared().is_none() || etcd::Server::start().is_none() {
        return;
    }
    let desk = Desk::new();
    let args = ["--agents", "6000", "--tenants", "20", "--key-rpm", "3000", "--kill-leader-at", "40%"];
    let figures = figures(start(&desk, &args));
    assert!(figure(&figures, "rate_limited_share") <= 0.001, "{figures}");
    assert!(figure(&figures, "jain_index") >= 0.98, "{figures}");
    // What a lost node may have begun counts until its requests are a minute old: of a third of the key, what it gives in the
    // ten or fifteen seconds in which the node may have gone on unseen. Nine tenths, about; the rest is room for a busy machine.
    assert!(figure(&figures, "budget_used") >= 0.8, "{figures}");
}
