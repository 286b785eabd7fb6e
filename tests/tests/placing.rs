//! Agents of lists in a cluster of processes: where they run by what they ask for, and gangs that start whole.

use nexa_llm::script::Script;
use nexa_testkit::endpoint::Endpoint;
use nexa_testkit::{etcd, postgres};
use nexa_tests::{Cluster, Desk, Server, wait_until};
use serde_json::{Value, json};

fn listed(desk: &Desk, server: &Server, args: &[&str]) -> Vec<Value> {
    let mut all = args.to_vec();
    all.extend(["-o", "json", "--server", &server.address]);
    let out = desk.run(&all).good();
    out.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

/// Waits until so many nodes are there and were heard, and somebody leads.
fn settled(desk: &Desk, server: &Server, count: usize) {
    wait_until("the nodes to be one cluster", || {
        let nodes = listed(desk, server, &["nodes"]);
        nodes.len() == count
            && nodes.iter().all(|node| node["state"] == "ready" && !node["load"].is_null())
            && nodes.iter().any(|node| node["is_leader"] == true)
    });
}

/// An agent of a workload by its name: one of its fields.
fn of(agents: &[Value], name: &str, field: &str) -> String {
    let agent = agents.iter().find(|agent| agent["name"] == name);
    agent.and_then(|agent| agent[field].as_str()).unwrap_or_default().to_owned()
}

#[test]
fn agents_run_where_they_get_what_they_ask_for_and_a_gang_starts_whole() {
    let (Some(database), Some(etcd)) = (postgres::Server::shared(), etcd::Server::start()) else { return };
    let names = ["plain", "disk", "card", "one", "two", "three", "four"];
    let said: String = names.iter().map(|name| format!("script {name} => \"{name} was here\"\n")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let script = Script::parse(&said).expect("the script is right");
    let endpoint = runtime.block_on(Endpoint::start(script)).expect("loopback has a free port");
    let at = format!("sim={}", endpoint.url());
    let cluster = Cluster::new(database.database(), etcd.endpoint(), &["a", "b", "c"]);
    let desk = &cluster.desk;
    let serve = |name: &str, labels: &[&str]| {
        let mut args = vec!["--model", "sim/any", "--endpoint", &at];
        labels.iter().for_each(|label| args.extend(["--label", label]));
        cluster.serve(name, &args)
    };
    let (a, _b) = (serve("a", &[]), serve("b", &["zone=eu", "disk=ssd"]));
    settled(desk, &a, 2);
    let table = desk.run(&["nodes", "--server", &a.address]).good();
    let last: Vec<&str> = table.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(last, ["LABELS", "-", "disk=ssd,zone=eu"], "{table}");

    let agent = |id: &str, gang: &str, labels: Value| json!({ "id": id, "prompt": "Say who you are.", "timeout_ms": 600_000, "gang": gang, "labels": labels });
    let list = json!({ "agents": [
        agent("card", "", json!({ "gpu": "yes" })),
        agent("plain", "", json!({})),
        agent("disk", "", json!({ "disk": "ssd" })),
        agent("one", "readers", json!({ "disk": "ssd", "zone": "eu" })),
        agent("two", "readers", json!({})),
        agent("three", "writers", json!({ "gpu": "yes" })),
        agent("four", "writers", json!({})),
    ] });
    let file = desk.write("list.json", &list.to_string());
    let args = ["submit", file.to_str().expect("a plain path"), "--server", &a.address];
    let workload = desk.run(&args).good().trim().to_owned();

    // Those that a node suits go on, and nobody else does, not even one whom any node would suit.
    let goes_on = ["plain", "disk", "one", "two"];
    let mut agents = Vec::new();
    wait_until("all that can to end", || {
        agents = listed(desk, &a, &["ps", &workload]);
        goes_on.iter().all(|name| of(&agents, name, "state") == "succeeded")
            && ["card", "three", "four"].iter().all(|name| agents.iter().any(|agent| agent["name"] == *name))
    });
    for (name, field, told) in [
        ("disk", "node", "b"),
        ("one", "node", "b"),
        ("card", "waits_for_node", "gpu=yes"),
        ("card", "waits_for_gang", ""),
        ("three", "waits_for_node", "gpu=yes"),
        ("three", "waits_for_gang", "writers (2 agents)"),
        ("four", "waits_for_node", ""),
        ("four", "waits_for_gang", "writers (2 agents)"),
        ("four", "node", ""),
    ] {
        assert_eq!(of(&agents, name, field), told, "{field} of {name}: {agents:?}");
    }
    let shown = desk.run(&["ps", &workload, "--server", &a.address]).good();
    assert!(shown.contains("waits for a node with gpu=yes, and room for all of writers (2 agents)"), "{shown}");
    let (_, refused) = desk.run(&["plan", &workload, "--server", &a.address]).bad();
    assert!(refused.contains("no node has gpu"), "{refused}");
    assert_eq!(endpoint.requests(), goes_on.len());

    let c = serve("c", &["gpu=yes"]);
    let ended = listed(desk, &c, &["watch", &workload]);
    let outcome = &ended.last().expect("a watch ends")["workload"]["outcome"]["ok"];
    names.iter().for_each(|name| assert_eq!(outcome[*name], format!("{name} was here"), "{outcome}"));
    wait_until("the list of agents to follow", || {
        agents = listed(desk, &a, &["ps", &workload]);
        names.iter().all(|name| of(&agents, name, "state") == "succeeded")
    });
    assert_eq!(["card", "three"].map(|name| of(&agents, name, "node")), ["c", "c"], "{agents:?}");
    assert_eq!(endpoint.requests(), names.len(), "each was asked once");
    let plan = listed(desk, &a, &["plan", &workload]);
    assert!(plan[0].to_string().contains("\"c\""), "{}", plan[0]);
}
