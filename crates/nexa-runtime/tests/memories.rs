//! What is remembered beyond one agent: through a node's death, and by whom it is seen.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nexa_ports::memories::{Memories, MemoryPlace};
use nexa_ports::store::Store;
use nexa_ports::view::Answer;
use nexa_runtime::{Node, Ports, RECALLS_MAX};
use nexa_store::{Options, SqliteStore};
use nexa_types::{AgentId, GlobalSeq, Outcome, Payload, TenantId, WorkloadId};
use nexa_vm::module::Module;
use nexa_vm::{codec, json};
use support::model::FakeModel;
use support::{Desk, config, until};
use tokio::sync::watch;

const PROGRAM: &str = r#"
    agent Echo { prompt: "Say it again.", model: "fake/model" }
    flow inner() -> any { return memory.load("shared", scope: "workload") }
    flow main() -> any uses memory.tenant {
        let before = memory.load("runs", scope: "tenant") ?? 0
        memory.store("shared", { at: "start" }, scope: "workload")
        memory.store("own", "mine")
        memory.store("tea", "green tea", scope: "workload")
        memory.store("bread", "rye bread", scope: "workload")
        let own = memory.load("shared", scope: "workload")
        Echo.run("anything")
        let seen = fork [inner(), inner()]
        let hits = memory.recall("rye", scope: "workload").map(fn(hit) => hit.key)
        memory.store("runs", [before, "one more"], scope: "tenant")
        return { before: before, own: own, seen: seen[1]?, hits: hits, mine: memory.load("own") }
    }"#;

fn module() -> Module {
    let compiled = nexa_lang::compile_text("main.nx", PROGRAM);
    compiled.module.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics))
}

fn text(outcome: Outcome) -> String {
    match outcome {
        Outcome::Ok(value) => json::to_json(&codec::decode(&value).unwrap()),
        Outcome::Err(failure) => failure.to_string(),
    }
}

async fn submitted(desk: &Desk, number: u8) -> WorkloadId {
    let module = module();
    let tenant = TenantId::local();
    let hash = nexa_runtime::programs::put(&*desk.store, &tenant, &module, "test", desk.stamp()).await.unwrap();
    let entry = module.entries.iter().find(|entry| entry.name == "main").unwrap().function;
    desk.submit_program("n1", number, hash, entry, Vec::new()).await
}

const FIRST: &str = r#"{"before":0,"own":{"at":"start"},"seen":{"at":"start"},"hits":["bread"],"mine":"mine"}"#;
const SECOND: &str =
    r#"{"before":[0,"one more"],"own":{"at":"start"},"seen":{"at":"start"},"hits":["bread"],"mine":"mine"}"#;

#[tokio::test]
async fn a_memory_survives_the_node_and_ends_with_its_workload() {
    let folder = std::env::temp_dir().join(format!("nexa-memories-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let mut desk = Desk::new(FakeModel::echo(1));
    let first = {
        let store = Arc::new(SqliteStore::open(&folder, Options::default()).unwrap());
        desk.store = store.clone();
        let ports = Ports { memories: store, ..desk.ports(desk.store.clone()) };
        let node = Node::start(config("n1"), ports).await.unwrap();
        desk.model.hold(true);
        let workload = submitted(&desk, 1).await;
        node.wake(AgentId::root(workload)).unwrap();
        desk.model.was_asked(1).await;
        drop(node);
        workload
    };
    // Another process: nothing but the folder is left.
    desk.store = Desk::new(FakeModel::echo(1)).store;
    until("the store to be closed", || SqliteStore::open(&folder, Options::default()).is_ok()).await;
    let store = Arc::new(SqliteStore::open(&folder, Options::default()).unwrap());
    desk.store = store.clone();
    let ports = Ports { memories: store.clone(), ..desk.ports(desk.store.clone()) };
    desk.model.hold(false);
    let node = Node::start(config("n1"), ports).await.unwrap();
    assert_eq!(text(desk.outcome(first).await), FIRST);
    let second = submitted(&desk, 2).await;
    node.wake(AgentId::root(second)).unwrap();
    assert_eq!(text(desk.outcome(second).await), SECOND, "the tenant's memory goes from run to run");

    let seen = *store.head().borrow();
    let of = |tenant: TenantId, workload: Option<WorkloadId>| {
        store.entries(MemoryPlace { tenant, workload }, None, seen, Duration::from_secs(5))
    };
    let stranger = TenantId::new("stranger").unwrap();
    assert_eq!(of(TenantId::local(), None).await.unwrap().len(), 1);
    assert_eq!(of(stranger.clone(), None).await.unwrap(), [], "another tenant sees nothing");
    assert_eq!(of(stranger, Some(first)).await.unwrap(), []);
    assert_eq!(of(TenantId::local(), Some(first)).await.unwrap(), [], "the workload's has ended with it");
    drop(node);
    let _ = std::fs::remove_dir_all(&folder);
}

/// Counts who looks into a memory at the same time, and lets nobody see anything until it is told to.
struct Slow {
    memories: Arc<dyn Memories>,
    looking: watch::Sender<usize>,
    most: AtomicUsize,
    go: watch::Sender<bool>,
}

impl Memories for Slow {
    fn entries(
        &self,
        place: MemoryPlace,
        key: Option<String>,
        seen: GlobalSeq,
        deadline: Duration,
    ) -> Answer<'_, Vec<(String, Payload)>> {
        Box::pin(async move {
            self.looking.send_modify(|looking| *looking += 1);
            self.most.fetch_max(*self.looking.borrow(), Ordering::SeqCst);
            self.go.subscribe().wait_for(|go| *go).await.unwrap();
            let entries = self.memories.entries(place, key, seen, deadline).await;
            self.looking.send_modify(|looking| *looking -= 1);
            entries
        })
    }
}

#[tokio::test]
async fn only_so_many_look_into_memories_at_the_same_time() {
    let desk = Desk::new(FakeModel::echo(1));
    let ports = desk.ports(desk.store.clone());
    let (looking, go) = (watch::Sender::new(0), watch::Sender::new(false));
    let slow = Arc::new(Slow { memories: ports.memories.clone(), looking, most: AtomicUsize::new(0), go });
    let node = Node::start(config("n1"), Ports { memories: slow.clone(), ..ports }).await.unwrap();
    let mut workloads = Vec::new();
    for number in 1..=3 * RECALLS_MAX as u8 {
        let workload = submitted(&desk, number).await;
        node.wake(AgentId::root(workload)).unwrap();
        workloads.push(workload);
    }
    until("as many as may to look", || *slow.looking.borrow() == RECALLS_MAX).await;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    slow.go.send_replace(true);
    for workload in workloads {
        assert!(matches!(desk.outcome(workload).await, Outcome::Ok(_)));
    }
    assert_eq!(slow.most.load(Ordering::SeqCst), RECALLS_MAX);
}

#[tokio::test]
async fn the_twin_remembers_the_same() {
    let desk = Desk::new(FakeModel::echo(1));
    let node = desk.start(config("n1")).await;
    for (number, expected) in [(1, FIRST), (2, SECOND)] {
        let workload = submitted(&desk, number).await;
        node.wake(AgentId::root(workload)).unwrap();
        assert_eq!(text(desk.outcome(workload).await), expected);
    }
}
