//! Nodes of two releases side by side. The later one is a build of this one that knows a further format of stored bytes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nexa_ports::formats::{Formats, Writing};
use nexa_ports::store::Store;
use nexa_postgres::{PostgresStore, Settings};
use nexa_testkit::{etcd, postgres};
use nexa_tests::{Cluster, Desk, Finished, Server, next_path, root, wait_until};
use nexa_types::{GlobalSeq, NodeId};
use serde_json::Value;

/// Longer than it takes from the announcement of a format until it is written: a wait of ten seconds, and looks around it.
const LONGER_THAN_IT_TAKES: Duration = Duration::from_secs(15);
/// What this build writes, and what the later one can.
const THIS: u16 = Formats::THIS_BUILD.newest;
const NEXT: u16 = THIS + 1;
/// Asks a person, and goes on in another step.
const PROGRAM: &str = r#"
flow main(text: str) -> str {
    return match approve("Send it?", data: text, timeout: 1h) {
        approved(_by, _note) => "sent: #{text}"
        denied(_by, _note) => "kept: #{text}"
    }
}
"#;

/// In which formats facts are stored.
fn stored(url: &str) -> BTreeSet<u16> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let writing = Writing::oldest(Formats { oldest: 1, newest: NEXT });
        let settings = Settings { writing, ..Settings::new(url, NodeId::new("test").expect("a name")) };
        let store = PostgresStore::connect(settings).await.expect("it is there");
        let (mut formats, mut after) = (BTreeSet::new(), GlobalSeq(0));
        loop {
            let facts = store.scan(None, after, 1_000).await.expect("facts are read");
            let Some(last) = facts.last() else { break };
            after = last.position;
            formats.extend(facts.iter().map(|fact| fact.envelope.header.format));
        }
        store.close().await;
        formats
    })
}

fn json(desk: &Desk, server: &Server, args: &[&str]) -> Vec<Value> {
    let mut all = args.to_vec();
    all.extend(["-o", "json", "--server", &server.address]);
    let out = desk.run(&all).good();
    out.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

/// Waits until so many nodes are there, all ready; gives who leads.
fn settled(desk: &Desk, server: &Server, count: usize) -> String {
    let mut leads = None;
    wait_until("the nodes to be one cluster", || {
        let listed = json(desk, server, &["nodes"]);
        let ready = listed.iter().all(|node| node["state"] == "ready" && !node["load"].is_null());
        let leader = listed.iter().find(|node| node["is_leader"] == true);
        leads = leader.and_then(|node| node["node"].as_str()).map(str::to_owned);
        listed.len() == count && ready && leads.is_some()
    });
    leads.expect("somebody leads")
}

/// Tells a node to go, and waits until it has gone well.
fn goes(server: Server) {
    let mut process = server.process;
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0), "{}", process.rest_of_err());
}

#[test]
fn an_upgrade_can_be_undone_until_an_operator_has_the_new_format_written_and_then_old_nodes_are_refused() {
    let Some(next) = next_path() else { return };
    let (Some(database), Some(etcd)) = (postgres::Server::start(), etcd::Server::start()) else { return };
    let url = database.database();
    let cluster = Cluster::new(url.clone(), etcd.endpoint(), &["a", "b", "c"]);
    let desk = &cluster.desk;
    let program = desk.write("ask.nx", PROGRAM);
    let submit = |server: &Server, text: &str| {
        let input = format!("\"{text}\"");
        let args = ["submit", program.to_str().expect("a plain path"), "--input", &input, "--server", &server.address];
        (desk.run(&args).good().trim().to_owned(), text.to_owned())
    };

    // An old node makes the database. The new one leads from then on, and there are two old ones beside it.
    let a = cluster.serve("a", &[]);
    let c = cluster.serve_from(&next, "c", &[]);
    assert_eq!(settled(desk, &c, 2), "a");
    goes(a);
    let [a, b] = ["a", "b"].map(|name| cluster.serve(name, &[]));
    assert_eq!(settled(desk, &c, 3), "c");
    let builds: BTreeSet<String> = json(desk, &a, &["nodes"]).iter().map(|node| node["build"].to_string()).collect();
    assert!(builds.len() == 2 && builds.iter().any(|build| build.contains("next")), "{builds:?}");
    let mut workloads: Vec<_> =
        (0..9).map(|number| submit([&a, &b, &c][number % 3], &format!("early {number}"))).collect();
    let (code, told) = desk.run(&["formats", "raise", "--to", &NEXT.to_string(), "--server", &b.address]).bad();
    assert!(code == 1 && told.contains(&format!("node a reads formats up to {THIS}")), "{code}: {told}");
    assert_eq!(json(desk, &b, &["formats", "raise"])[0]["format"], THIS);

    // One after the other becomes new, and nothing new is written for that.
    goes(a);
    let a = cluster.serve_from(&next, "a", &[]);
    settled(desk, &c, 3);
    goes(b);
    let b = cluster.serve_from(&next, "b", &[]);
    settled(desk, &c, 3);
    let all_new = Instant::now();
    wait_until("nothing to happen by itself", || all_new.elapsed() > LONGER_THAN_IT_TAKES);
    workloads.push(submit(&c, "when all are new"));
    // So one of them can go back.
    goes(b);
    let b = cluster.serve("b", &[]);
    settled(desk, &c, 3);
    workloads.push(submit(&b, "when one is old again"));
    wait_until("every agent to ask", || asking(desk, &b).len() == workloads.len());
    goes(b);
    let b = cluster.serve_from(&next, "b", &[]);
    settled(desk, &c, 3);
    assert_eq!(stored(&url), BTreeSet::from([THIS]), "nothing that an old node does not read");

    // Somebody says that it is to stay, as the page about clusters has it.
    let page = std::fs::read_to_string(root().join("docs/cluster.md")).expect("the page can be read");
    let shown = page.split("```console upgrade\n").nth(1).and_then(|rest| rest.split("```").next());
    let shown = shown.expect("it shows an upgrade");
    let mut told = String::new();
    for line in shown.lines().filter_map(|line| line.strip_prefix("$ nexa ")) {
        let args: Vec<&str> = line.split(' ').chain(["--server", &a.address]).collect();
        let Finished { out, err, .. } = desk.run(&args);
        told += &format!("$ nexa {line}\n{err}{out}");
    }
    assert_eq!(told, shown);
    // The other nodes hear of it within moments.
    wait_until("the new format to be stored", || {
        workloads.push(submit(&b, &format!("late {}", workloads.len())));
        stored(&url).contains(&NEXT)
    });

    // Agents that have both in their histories end as they must.
    wait_until("every agent to ask", || asking(desk, &c).len() == workloads.len());
    for id in asking(desk, &b) {
        desk.run(&["approve", &id, "--server", &a.address]).good();
    }
    for (workload, text) in &workloads {
        let ended = json(desk, &c, &["watch", workload]);
        assert_eq!(ended.last().expect("a watch ends")["workload"]["outcome"]["ok"], format!("sent: {text}"));
    }

    // There is no way back.
    goes(a);
    let mut old = cluster.start("a", &[]);
    assert_eq!(old.wait().code(), Some(1), "{}", old.rest_of_err());
    let told = old.rest_of_err();
    let (newer, known) = (format!("format {NEXT}"), format!("up to {THIS}"));
    assert!(told.contains(&newer) && told.contains(&known) && told.contains("upgrade this build"), "{told}");
    settled(desk, &b, 2);
}

/// What asks a person.
fn asking(desk: &Desk, server: &Server) -> Vec<String> {
    let listed = desk.run(&["approve", "--server", &server.address]).good();
    let lines = listed.lines().filter(|line| line.contains(" asks: "));
    lines.map(|line| line.split_whitespace().next().expect("an id").to_owned()).collect()
}
