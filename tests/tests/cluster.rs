//! Clusters: the page about them word for word, nodes that are killed, stopped, told to go, and that stood still.

use std::time::{Duration, Instant};

use nexa_testkit::{etcd, postgres};
use nexa_tests::{Cluster, Desk, Server, normalised, root, wait_until};
use serde_json::Value;

/// Longer than a lease of 3 s lives after its node fell silent, by whatever etcd takes to notice.
const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(6);

fn page() -> String {
    std::fs::read_to_string(root().join("docs/cluster.md")).expect("the page can be read")
}

/// The blocks of a page with this fence.
fn blocks<'a>(page: &'a str, fence: &str) -> Vec<&'a str> {
    let fence = format!("```{fence}\n");
    page.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// What differs from run to run replaced, and columns one space apart: ids by their order, figures of memory and lag, ports.
fn comparable(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut out = Vec::new();
        for (at, word) in words.iter().enumerate() {
            let unit = words.get(at + 1).copied().unwrap_or_default();
            let is_figure = word.parse::<f64>().is_ok() && ["MiB", "ms"].contains(&unit);
            match word.split_once("127.0.0.1:") {
                Some((before, _)) => out.push(format!("{before}127.0.0.1:PORT")),
                None if is_figure => out.push("N".to_owned()),
                None => out.push((*word).to_owned()),
            }
        }
        out.join(" ")
    };
    text.lines().map(line).filter(|line| !line.is_empty()).collect()
}

fn json(desk: &Desk, server: &Server, args: &[&str]) -> Vec<Value> {
    let mut all = args.to_vec();
    all.extend(["-o", "json", "--server", &server.address]);
    let out = desk.run(&all).good();
    out.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

/// The nodes as one of them lists them: name, state, agents.
fn nodes(desk: &Desk, server: &Server) -> Vec<(String, String, u64)> {
    let listed = json(desk, server, &["nodes"]);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let agents = |node: &Value| node["load"]["agents"].as_u64().unwrap_or(u64::MAX);
    listed.iter().map(|node| (text(&node["node"]), text(&node["state"]), agents(node))).collect()
}

/// Waits until so many nodes are there, all ready, with a leader, and have been heard.
fn settled(desk: &Desk, server: &Server, count: usize) {
    wait_until("the nodes to be one cluster", || {
        let listed = json(desk, server, &["nodes"]);
        listed.len() == count
            && listed.iter().all(|node| node["state"] == "ready" && !node["load"].is_null())
            && listed.iter().any(|node| node["is_leader"] == true)
    });
}

/// Where the only agent of a workload is, and what it does.
fn whereabouts(desk: &Desk, server: &Server, workload: &str) -> (String, String) {
    let agents = json(desk, server, &["ps", workload]);
    let of = |name: &str| agents[0][name].as_str().unwrap_or_default().to_owned();
    (of("node"), of("state"))
}

#[test]
fn the_page_about_clusters_shows_what_happens() {
    let page = page();
    let desk = Desk::new();
    desk.write("ask.nx", blocks(&page, "nexa")[0]);
    let server = desk.dev(&["--nodes", "3"]);
    let doors: Vec<String> = (server.ready["nodes"].as_array().expect("a list of nodes").iter())
        .map(|node| node["grpc"].as_str().expect("each has a door").to_owned())
        .collect();
    assert_eq!(doors.len(), 3);
    settled(&desk, &server, 3);
    let (mut told, mut ids, mut turn) = (String::new(), Vec::<String>::new(), 0);
    let shown = blocks(&page, "console").join("");
    for line in shown.lines().filter_map(|line| line.strip_prefix("$ nexa ")).filter(|line| !line.starts_with("dev")) {
        // Ids on the page stand for those that were told, in the order in which they came up.
        let real = ids.iter().enumerate().fold(line.to_owned(), |line, (number, id)| {
            ["w", "a"].iter().fold(line, |line, kind| match id.starts_with(*kind) {
                true => line.replace(&format!("{kind}-{}", number + 1), id),
                false => line,
            })
        });
        let ask = desk.path("ask.nx");
        let words = real.split_whitespace().map(|word| match word {
            "ask.nx" => ask.to_str().expect("a plain path"),
            // As a shell takes it.
            word => word.trim_matches('\''),
        });
        // Each command goes to the next door.
        let mut args: Vec<&str> = words.collect();
        args.extend(["--server", &doors[turn % doors.len()]]);
        turn += 1;
        if args[0] == "ps" {
            // The list is a read model, which follows.
            wait_until("the list to show it", || desk.run(&args).good().contains("waiting(approval)"));
        }
        let out = desk.run(&args).good();
        told += &format!("$ nexa {real}\n{out}");
        if args[0] == "submit" {
            let workload = out.trim().to_owned();
            wait_until("the agent to ask", || {
                let agents = json(&desk, &server, &["ps", &workload]);
                agents.first().is_some_and(|agent| agent["state"] == "waiting(approval)")
            });
            let agents = json(&desk, &server, &["ps", &workload]);
            ids = vec![workload, agents[0]["agent_id"].as_str().expect("an id").to_owned()];
        }
    }
    let shown: String =
        shown.lines().filter(|line| !line.contains("nexa dev")).map(|line| format!("{line}\n")).collect();
    assert_eq!(comparable(&normalised(&told)), comparable(&shown), "{told}");
}

#[test]
fn commands_on_the_page_have_flags_that_exist() {
    let (page, desk) = (page(), Desk::new());
    let mut seen = 0;
    for line in blocks(&page, "sh").join("\n").lines().filter(|line| line.starts_with("nexa ")) {
        let command = line.split_whitespace().nth(1).expect("a command follows `nexa`");
        let help = desk.run(&[command, "--help"]).good();
        for flag in line.split_whitespace().filter(|word| word.starts_with("--")) {
            assert!(help.contains(flag), "`nexa {command}` has no {flag}: {line}");
            seen += 1;
        }
    }
    assert!(seen >= 9, "the page's commands were not found");
}

#[test]
fn three_processes_are_one_cluster_and_let_a_node_go() {
    let (Some(database), Some(etcd)) = (postgres::Server::start(), etcd::Server::start()) else { return };
    let store = database.database();
    let cluster = Cluster::new(store, etcd.endpoint(), &["a", "b", "c"]);
    let desk = &cluster.desk;
    let ask = desk.write("ask.nx", blocks(&page(), "nexa")[0]);
    let [a, b, c] = ["a", "b", "c"].map(|name| cluster.serve(name, &[]));
    settled(desk, &a, 3);

    let submit = |server: &Server| {
        let args = ["submit", ask.to_str().expect("a plain path"), "--input", "\"x\"", "--server", &server.address];
        desk.run(&args).good().trim().to_owned()
    };
    let workloads: Vec<String> = [&a, &b, &c].into_iter().cycle().take(12).map(submit).collect();
    wait_until("every agent to ask", || {
        desk.run(&["approve", "--server", &b.address]).good().matches(" asks: ").count() == 12
    });
    let agent = json(desk, &a, &["ps", &workloads[0]])[0]["agent_id"].as_str().expect("an id").to_owned();
    desk.run(&["migrate", &agent, "--to", "c", "--server", &b.address]).good();
    wait_until("the list to show the move", || whereabouts(desk, &a, &workloads[0]).0 == "c");

    // SIGTERM: its agents go to the others, and it ends well.
    let mut c = c.process;
    c.signal("TERM");
    assert_eq!(c.wait().code(), Some(0), "{}", c.rest_of_err());
    wait_until("it to be gone", || nodes(desk, &a).len() == 2);
    wait_until("no agent to be there", || {
        workloads.iter().all(|workload| ["a", "b"].contains(&whereabouts(desk, &b, workload).0.as_str()))
    });
    let history = desk.run(&["logs", &workloads[0], "--server", &a.address]).good();
    assert!(!history.contains("failed"), "{history}");

    // A node that stood still for longer than its lease is not what it was.
    let held = workloads.iter().find(|workload| whereabouts(desk, &a, workload).0 == "b");
    let held = held.expect("half of them are there").clone();
    let mut b = b.process;
    b.signal("STOP");
    let stopped = Instant::now();
    wait_until("its agents to be elsewhere", || whereabouts(desk, &a, &held).0 == "a");
    wait_until("its lease to have ended for long", || stopped.elapsed() > LONGER_THAN_A_LEASE);
    b.signal("CONT");
    assert_eq!(b.wait().code(), Some(7), "{}", b.rest_of_err());
    let said = b.rest_of_err();
    assert!(said.contains("lease has ended") && said.contains("start it again"), "{said}");

    // It comes again as another run, and everything ends as it must.
    let b = cluster.serve("b", &[]);
    settled(desk, &a, 2);
    for line in desk.run(&["approve", "--server", &b.address]).good().lines().filter(|line| line.contains(" asks: ")) {
        let id = line.split_whitespace().next().expect("an id");
        desk.run(&["approve", id, "--server", &b.address]).good();
    }
    for workload in &workloads {
        let ended = json(desk, &a, &["watch", workload]);
        let outcome = &ended.last().expect("a watch ends")["workload"]["outcome"]["ok"];
        assert_eq!(outcome, "sent: x", "{workload}");
    }
}

#[test]
fn a_node_of_three_is_killed_under_load_and_nothing_is_lost_or_repeated() {
    if postgres::Server::shared().is_none() || etcd::Server::start().is_none() {
        return;
    }
    let desk = Desk::new();
    let folder = desk.path("load");
    let mut command = desk.nexa(&["load", "--agents", "200", "--nodes", "3", "--kill-node-at", "50%"]);
    command.args(["--latency-ms", "1500", "-o", "json", "--data"]).arg(&folder);
    let out = nexa_tests::finish(command).good();
    let figures: Value = serde_json::from_str(out.lines().last().expect("figures")).expect("the last line is JSON");
    for name in ["lost", "wrong", "repeated_effects", "not_accepted"] {
        assert_eq!(figures[name], 0, "{name}: {figures}");
    }
    assert_eq!(
        (&figures["nodes"], &figures["kills"], &figures["steps"]),
        (&3.into(), &1.into(), &200.into()),
        "{figures}"
    );
    let placed = figures["placement"].as_object().expect("how many were where");
    assert!(placed.len() == 3 && placed.values().all(|agents| agents.as_u64() > Some(0)), "{figures}");
    assert!(figures["failed_over"].as_u64() > Some(0), "{figures}");
    assert!(figures["failover_max_s"].as_f64().is_some_and(|seconds| seconds < 30.0), "{figures}");
}
