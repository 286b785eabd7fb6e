//! Agents of a cluster that remember: a node is lost with its share of them, and everything is recalled as before, by whoever is
//! asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use nexa_client::{Client, Options, Patience};
use nexa_llm::script::{Say, Turn};
use nexa_proto::v1;
use nexa_proto::v1::workload_service_submit_request::Program;
use nexa_testkit::endpoint::Endpoint;
use nexa_testkit::{etcd, minio, postgres};
use nexa_tests::Cluster;
use nexa_types::{AgentId, WorkloadId};
use serde_json::{Value, json};

/// Who reads three pages, and answers: eight messages, more than fit into what a model is shown.
const PROGRAM: &str = r#"
flow page(number: int) -> str {
    return "Page #{number} is about the gate with the number #{number * 7 % 13}, through which nobody has gone for years."
}

agent Keeper(name: str) -> str uses page {
    role: "You keep a book."
    prompt: "Your name is #{name}. Read three pages of the book, and say that you have."
    max_tool_calls: 20
    memory: { window: 800, page_size: 4, max_pages: 2 }
}
"#;
/// How many pages each reads.
const PAGES: u64 = 3;
/// What each of them says and hears.
const MESSAGES: usize = 8;
/// What an agent says when it has read them.
const LAST_SAID: &str = "All is read.";
/// Requests at once.
const AT_ONCE: usize = 16;
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is found, the best first: text, fact and number of each message, and how well it fits.
type Found = Vec<(String, u64, u32, u64)>;

/// A door of the cluster; whoever is behind with its log is asked again.
async fn connect(address: &str) -> Client {
    let patience = Patience { deadline: PATIENCE, attempts_max: 1_000, ..Patience::default() };
    Client::connect(address, Options { patience, ..Options::default() }).await.expect("it is reachable")
}

fn name(number: usize) -> String {
    format!("keeper-{number}")
}

async fn submit(client: &Client, module: &str, number: usize) -> String {
    let request = v1::WorkloadServiceSubmitRequest {
        program: Some(Program::ModuleHash(module.to_owned())),
        entry: "Keeper".to_owned(),
        input_json: json!({ "name": name(number) }).to_string(),
        name: name(number),
        ..v1::WorkloadServiceSubmitRequest::default()
    };
    client.submit(request).await.expect("it is accepted").workload_id
}

async fn has_succeeded(client: &Client, workload_id: &str) -> bool {
    let request = v1::WorkloadServiceGetRequest { workload_id: workload_id.to_owned() };
    let workload = client.workload(request).await.expect("a node answers").workload.expect("it was accepted");
    let state = workload.state();
    assert!(!matches!(state, v1::WorkloadState::Failed | v1::WorkloadState::Cancelled), "{:?}", workload.outcome);
    state == v1::WorkloadState::Succeeded
}

fn root_of(workload_id: &str) -> String {
    AgentId::root(workload_id.parse::<WorkloadId>().expect("an id")).to_string()
}

/// What an agent that has ended recalls about its name. A node may hear of what others have written a moment later than
/// somebody who asks elsewhere; until it has, it is asked again.
async fn recall(client: &Client, workload_id: &str, number: usize) -> Found {
    let request = v1::ContextServiceRecallRequest {
        agent_id: root_of(workload_id),
        query: format!("What is the name {}?", name(number)),
        messages_max: 200,
        ..v1::ContextServiceRecallRequest::default()
    };
    let until = Instant::now() + PATIENCE;
    loop {
        let found = client.recall(request.clone()).await.expect("it is answered").messages.into_iter();
        let found = found.map(|message| {
            let from = message.provenance.unwrap_or_default();
            (message.text, from.version, from.number, from.score.to_bits())
        });
        let found: Found = found.collect();
        if found.iter().any(|(text, ..)| text == LAST_SAID) {
            return found;
        }
        assert!(Instant::now() < until, "{} does not recall what it said last: {found:?}", name(number));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything that an agent remembers.
async fn export(client: &Client, workload_id: &str) -> Vec<String> {
    let parts = client.export_memory(&root_of(workload_id)).await.expect("it is answered");
    let parts: Vec<Vec<v1::RememberedMessage>> = parts.try_collect().await.expect("all of it");
    parts.into_iter().flatten().map(|message| message.text).collect()
}

/// Reads the page after the last one that the agent has read, or says that it has read them all.
fn answer(request: &Value) -> Turn {
    let texts = request["messages"].as_array().into_iter().flatten().filter_map(|message| message["content"].as_str());
    let read = (1..=PAGES).rev().find(|page| texts.clone().any(|text| text.contains(&format!("Page {page} is"))));
    let next = read.map_or(1, |page| page + 1);
    let say = if next > PAGES {
        Say::Text(LAST_SAID.to_owned())
    } else {
        Say::Call { tool: "page".to_owned(), arguments: json!({ "number": next }).to_string() }
    };
    Turn { after: Duration::from_millis(200), say }
}

/// Loses one node of three while so many agents are at work. Pages are in a bucket, in each node's folder if this build can, or in
/// memory.
fn a_node_is_lost(agents: usize, bucket: Option<&minio::Server>) {
    let (Some(database), Some(etcd)) = (postgres::Server::shared(), etcd::Server::start()) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let endpoint = runtime.block_on(Endpoint::start_by(answer)).expect("loopback has a free port");
    let mut cluster = Cluster::new(database.database(), etcd.endpoint(), &["a", "b", "c"]);
    // Vectors come when there is time for them, and then there are other scores.
    let mut settings = format!(
        "model = \"sim/any\"\n\n[providers.sim]\nurl = \"{}\"\nconcurrency = 64\n\n[embedding]\nmodel = \"none\"\n",
        endpoint.url()
    );
    if let Some(bucket) = bucket {
        settings.push_str(&format!("\n[pages]\nfolder = \"{}\"\n", bucket.url("nodes")));
        cluster.variables.extend(bucket.access());
    } else if std::env::var_os("NEXA_TEST_LANCE").is_some() {
        settings.push_str("\n[pages]\nfolder = \"pages\"\n");
    }
    cluster.desk.write("nexa.toml", &settings);
    cluster.folder = cluster.desk.path("");
    cluster.variables.push(("SIM_API_KEY".to_owned(), "any".to_owned()));
    let [mut a, mut b, c] = ["a", "b", "c"].map(|name| cluster.serve(name, &[]));
    runtime.block_on(async {
        let [at_a, at_b, at_c] = [connect(&a.address).await, connect(&b.address).await, connect(&c.address).await];
        let source = v1::Source { name: "keeper.nx".to_owned(), text: PROGRAM.to_owned() };
        let put = v1::ProgramServicePutRequest {
            program: Some(v1::program_service_put_request::Program::Source(source)),
            ..v1::ProgramServicePutRequest::default()
        };
        let module =
            at_a.put_program(put).await.expect("the program is right").program.expect("it is kept").module_hash;
        let doors = [&at_a, &at_b, &at_c];
        let submitted = stream::iter(0..agents).map(|number| submit(doors[number % 3], &module, number));
        let workloads: Vec<String> = submitted.buffered(AT_ONCE).collect().await;

        // Some have ended, and what they recall is known; others are in the middle of it.
        let mut before = BTreeMap::new();
        let until = Instant::now() + PATIENCE;
        while before.len() * 5 < agents {
            assert!(Instant::now() < until, "a fifth of {agents} should have ended, and {} have", before.len());
            for (number, workload) in workloads.iter().enumerate().take(agents / 3) {
                if !before.contains_key(&number) && has_succeeded(&at_a, workload).await {
                    before.insert(number, recall(&at_b, workload, number).await);
                }
            }
        }
        b.process.kill();

        let all = stream::iter(workloads.iter().enumerate()).map(|(number, workload)| {
            let (at_a, at_c, before) = (&at_a, &at_c, before.get(&number));
            async move {
                while !has_succeeded(at_c, workload).await {
                    assert!(Instant::now() < until + PATIENCE, "{} does not end", name(number));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                let found = recall(at_a, workload, number).await;
                let is_named = found.iter().any(|(text, ..)| *text == name(number));
                assert!(is_named, "{}: {found:?}", name(number));
                assert_eq!(found, recall(at_c, workload, number).await, "{}: at another node", name(number));
                assert!(before.is_none_or(|before| *before == found), "{}: as before", name(number));
                let remembered = export(at_a, workload).await;
                assert_eq!(remembered.len(), MESSAGES, "{}: {remembered:?}", name(number));
                assert_eq!(remembered, export(at_c, workload).await, "{}: at another node", name(number));
            }
        });
        assert_eq!(all.buffer_unordered(AT_ONCE).count().await, agents);
    });
    if let Some(bucket) = bucket {
        // What waits is stored when a node ends in good order.
        a.process.signal("TERM");
        assert!(a.process.wait().success());
        assert!(bucket.has("nodes/a/shards"), "its pages are in the bucket");
    }
}

#[test]
fn what_agents_remember_is_recalled_as_before_when_a_node_is_lost() {
    a_node_is_lost(60, None);
}

/// Of a build that keeps pages on disk, as `cargo xtask test --apart` makes it.
#[test]
fn what_agents_remember_in_a_bucket_is_recalled_as_before_when_a_node_is_lost() {
    if std::env::var_os("NEXA_TEST_LANCE").is_none() {
        eprintln!("skipped: this build keeps pages in memory; `cargo xtask test --apart` has one that does not");
        return;
    }
    let Some(bucket) = minio::Server::start() else { return };
    a_node_is_lost(30, Some(&bucket));
}

#[test]
#[ignore = "takes a minute of a machine that does little else: cargo xtask test --slow"]
fn what_a_thousand_agents_remember_is_recalled_as_before_when_a_node_is_lost() {
    a_node_is_lost(1_000, None);
}
