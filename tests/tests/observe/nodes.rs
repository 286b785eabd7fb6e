//! Spans of several nodes: from a client's call over the leader to the agents on their nodes, and along when they move.
//! And what those nodes count of that.

use std::collections::{BTreeMap, BTreeSet};

use nexa_tests::{Desk, Server, finish, wait_until};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::Value;

use crate::collector::{Collector, attribute};
use crate::{Figures, documented, page};

/// Asks a model, waits for a person, and asks again.
const PROGRAM: &str = r#"
agent Reader(text: str) { prompt: "Read it." }
agent Writer(text: str) { prompt: "Write it." }

flow main(text: str) -> str {
    let read = text >> Reader
    return match approve("Go on?", data: read, timeout: 1h) {
        approved(_by, _note) => read >> Writer
        denied(_by, _note) => read
    }
}
"#;

const SCRIPT: &str = r#"
script Reader => "read"
script Writer => "written"
"#;

/// What the client is a part of.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

pub(crate) fn json(desk: &Desk, server: &str, args: &[&str]) -> Vec<Value> {
    let mut all = args.to_vec();
    all.extend(["-o", "json", "--server", server]);
    desk.run(&all).good().lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The doors of three nodes, once those are one cluster.
pub(crate) fn doors(desk: &Desk, server: &Server) -> Vec<String> {
    let doors: Vec<String> = (server.ready["nodes"].as_array().expect("a list of nodes").iter())
        .map(|node| node["grpc"].as_str().expect("each has a door").to_owned())
        .collect();
    wait_until("the nodes to be one cluster", || {
        let nodes = json(desk, &doors[0], &["nodes"]);
        nodes.len() == 3
            && nodes.iter().all(|node| node["state"] == "ready" && !node["load"].is_null())
            && nodes.iter().any(|node| node["is_leader"] == true)
    });
    doors
}

/// Runs it on three nodes, the waiting agent being moved in between; gives which it was, where it was first, and where it went.
fn run(desk: &Desk, server: &mut Server) -> (String, String, String) {
    let doors = doors(desk, server);
    let program = desk.write("two.nx", PROGRAM);
    // So that the node that is asked does not keep it, once it knows.
    desk.run(&["cordon", "n1", "--server", &doors[1]]).good();
    let mut workload = String::new();
    let root =
        |workload: &str| json(desk, &doors[1], &["ps", workload]).into_iter().find(|agent| agent["name"] == "main");
    wait_until("one to be placed elsewhere", || {
        let mut command = desk.nexa(&["submit", program.to_str().expect("a plain path"), "--input", "\"x\""]);
        command.args(["--server", &doors[0]]).env("TRACEPARENT", format!("00-{TRACE}-{CALLER}-01"));
        workload = finish(command).good().trim().to_owned();
        let asks = || root(&workload).is_some_and(|agent| agent["state"] == "waiting(approval)");
        wait_until("the flow to ask", asks);
        let is_elsewhere = root(&workload).is_some_and(|agent| agent["node"] != "n1");
        if !is_elsewhere {
            desk.run(&["cancel", &workload, "--server", &doors[0]]).good();
        }
        is_elsewhere
    });
    let root = || root(&workload);
    let agent = root().expect("it is listed");
    let (agent, from) = (agent["agent_id"].as_str().expect("an id"), agent["node"].as_str().expect("it has a node"));
    let to = ["n2", "n3"].into_iter().find(|node| *node != from).expect("there are two");
    desk.run(&["migrate", agent, "--to", to, "--server", &doors[2]]).good();
    let asks = desk.run(&["approve", "--server", &doors[0]]).good();
    let approval = asks.split_whitespace().find(|word| word.starts_with(agent)).expect("it asks");
    desk.run(&["approve", approval, "--server", &doors[1]]).good();
    wait_until("the end", || json(desk, &doors[2], &["ps"]).iter().any(|listed| listed["state"] == "succeeded"));
    let places = (workload.clone(), from.to_owned(), to.to_owned());
    figures_agree(server.ready["metrics"].as_str().expect("the address of metrics"));
    // What waits is sent before the process ends.
    server.process.signal("TERM");
    assert!(server.process.wait().success(), "{}", server.process.rest_of_err());
    places
}

/// What all of them serve at one address.
fn figures_agree(metrics: &str) {
    let figures = || {
        let (status, text) = page(metrics, "/metrics");
        assert_eq!(status, 200);
        Figures::parse(&text)
    };
    let of =
        |figures: &Figures, name: &str| ["n1", "n2", "n3"].map(|node| figures.sum(name, &format!("node=\"{node}\"")));
    wait_until("links both ways", || of(&figures(), "nexa_cluster_links_up") == [2.0; 3]);
    let figures = figures();
    let mut documented = documented(&["nexa_cluster_", "nexa_link_"]);
    // Only with limits of providers, and after a node was lost.
    for name in ["budget_held", "budget_wanted", "failover_seconds"] {
        assert!(documented.remove(&format!("nexa_cluster_{name}")), "{name}");
    }
    let of_nodes = |name: &&String| name.starts_with("nexa_cluster_") || name.starts_with("nexa_link_");
    let served: BTreeSet<String> = figures.families.keys().filter(of_nodes).cloned().collect();
    assert_eq!(served, documented, "left: served, right: docs/observability.md");
    assert_eq!(of(&figures, "nexa_cluster_members"), [3.0; 3]);
    assert_eq!(figures.sum("nexa_cluster_is_leader", ""), 1.0);
    assert_eq!(figures.sum("nexa_cluster_migrations_total", ""), 1.0);
    assert_eq!(figures.sum("nexa_cluster_migration_seconds_count", ""), 1.0);
    assert_eq!(figures.sum("nexa_cluster_failovers_total", ""), 0.0);
    assert!(figures.sum("nexa_cluster_agents_placed_total", "") >= 1.0);
    assert_eq!(figures.sum("nexa_link_queue_full_total", ""), 0.0);
    let (sent, received) = ("nexa_link_messages_sent_total", "nexa_link_messages_received_total");
    for name in [sent, received, "nexa_link_bytes_sent_total", "nexa_link_bytes_received_total"] {
        assert!(of(&figures, name).iter().all(|count| *count > 0.0), "{name}");
        assert!(figures.sum(name, "class=\"work\"") > 0.0, "{name}");
    }
    // What one node has is said of that one, and what the process has is said once.
    assert!(of(&figures, "nexa_steps_total").iter().any(|steps| *steps > 0.0));
    assert_eq!(of(&figures, "process_resident_memory_bytes"), [0.0; 3]);
    assert!(figures.sum("process_resident_memory_bytes", "") > 1e6);
    assert_eq!(page(metrics, "/healthz").0, 200);
    assert_eq!(page(metrics, "/readyz").0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_trace_leads_to_agents_on_other_nodes_and_goes_along_when_they_move() {
    let collector = Collector::default();
    let (address, closed) = collector.open().await;
    let (workload, from, to) = tokio::task::block_in_place(|| {
        let desk = Desk::new();
        let script = desk.write("script.nx", SCRIPT);
        let script = script.to_str().expect("a plain path");
        let mut server =
            desk.dev(&["--nodes", "3", "--script", script, "--metrics", "127.0.0.1:0", "--otlp", &address]);
        run(&desk, &mut server)
    });
    closed.cancel();
    let spans = collector.spans();
    let by_id: BTreeMap<&[u8], &Span> = spans.iter().map(|span| (span.span_id.as_slice(), span)).collect();
    // Calls and what nodes did, and of agents those of this workload.
    let is_of = |span: &&Span| attribute(span, "nexa.workload.id").is_none_or(|of| of == workload);
    let of = |start: &'static str| spans.iter().filter(is_of).filter(move |span| span.name.starts_with(start));
    let node = |span: &Span| attribute(span, "nexa.node.id").expect("every span says where");
    let led = |span: &Span| -> Vec<&Span> {
        span.links.iter().filter_map(|link| by_id.get(link.span_id.as_slice()).copied()).collect()
    };

    // The client's own span is the parent of the call's, on the node that was asked.
    let submit = of("nexa.v1/Submit").max_by_key(|call| call.start_time_unix_nano).expect("the call has a span");
    assert_eq!((hex(&submit.trace_id), hex(&submit.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
    assert_eq!(node(submit), "n1");

    // The flow's first turn follows the call, and the leader's order that gave it to its node.
    let mut turns: Vec<&Span> = of("invoke_agent main").collect();
    turns.sort_by_key(|turn| turn.start_time_unix_nano);
    let first = turns.first().expect("the flow took a turn");
    assert!(node(first) == from && from != "n1", "{first:?}");
    assert!(led(first).contains(&submit), "{first:?}");
    let placed = led(first).into_iter().find(|span| span.name == format!("place_agents on {from}"));
    let placed = placed.unwrap_or_else(|| panic!("{first:?} does not follow the order that placed it: {spans:?}"));
    assert_eq!(attribute(placed, "nexa.to_node.id"), Some(from.clone()));

    // Where it went, its first turn follows its last one before; so does the move.
    let last = turns.iter().rfind(|turn| node(turn) == from).expect("it was there");
    let after = turns.iter().find(|turn| node(turn) == to).expect("it went on there");
    assert!(led(after).contains(last), "{after:?} does not follow {last:?}");
    let moved = of("migrate_agent").next().expect("the move has a span");
    assert_eq!((node(moved), attribute(moved, "nexa.to_node.id")), (from.clone(), Some(to.clone())));
    assert!(led(moved).contains(last));

    // Each call of a model is a child of a turn on the same node, and what a turn gave birth to follows it.
    let nodes: BTreeSet<String> = of("chat ").map(node).collect();
    assert_eq!(of("chat ").count(), 2);
    for chat in of("chat ") {
        let turn = by_id.get(chat.parent_span_id.as_slice()).expect("a call has a turn");
        assert_eq!((node(turn), &turn.trace_id), (node(chat), &chat.trace_id));
        assert!(led(turn).iter().any(|before| before.name.starts_with("invoke_agent main")), "{turn:?}");
    }
    assert!(!nodes.is_empty());

    // Whichever turn one looks at, links lead back to the client's call.
    for turn in of("invoke_agent ") {
        let (mut reached, mut next) = (BTreeSet::new(), vec![turn]);
        while let Some(span) = next.pop() {
            if reached.insert(span.span_id.as_slice()) {
                next.extend(led(span));
            }
        }
        assert!(reached.contains(submit.span_id.as_slice()), "{turn:?}");
    }
}
