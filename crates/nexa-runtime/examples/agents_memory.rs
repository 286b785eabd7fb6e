//! How long ten thousand agents take until each waits, what they weigh then, and what is left of it once they are dormant.
//!
//! `cargo run --release -p nexa-runtime --example agents_memory -- [memory | sqlite DIR]` has them wait for a model.
//! `cargo run --release -p nexa-runtime --example agents_memory -- dormant DIR` has them wait for a person, on SQLite, and
//! sends them to sleep by a memory budget.
//!
//! The in-memory store lies in the same process, so with `memory` its facts are weighed too. Allocates as the product does.
//! Linux only.

#![allow(clippy::unwrap_used, reason = "an example that unwraps says enough by failing")]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use nexa_event::effect::ModelReply;
use nexa_ports::clock::SystemClock;
use nexa_ports::dice::SystemDice;
use nexa_ports::model::{Chunks, LaneLimits, Model, ModelCall, ModelError};
use nexa_runtime::{Node, NodeConfig, Ports};
use nexa_types::{AgentId, Millis, NodeId};
use nexa_vm::module::Module;

use support::model::FakeModel;
use support::{Desk, program};

const WORKLOADS: u8 = 40;
const BRANCHES: u8 = 250;

/// Never answers.
struct Silent;

impl Model for Silent {
    fn ask<'a>(&'a self, _: ModelCall, _: &'a dyn Chunks) -> BoxFuture<'a, Result<ModelReply, ModelError>> {
        Box::pin(std::future::pending())
    }

    fn limits(&self, _: &str) -> LaneLimits {
        LaneLimits::at_once(100_000)
    }

    fn lane(&self, _: &str) -> String {
        String::new()
    }
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut desk = Desk::new(FakeModel::echo(1));
    if let Some(folder) = args.get(1) {
        desk.store = Arc::new(nexa_store::SqliteStore::open(folder, nexa_store::Options::default()).unwrap());
    }
    match args.first().map(String::as_str) {
        Some("dormant") => falling_asleep(&desk).await,
        _ => waiting_for_a_model(&desk).await,
    }
}

async fn start(desk: &Desk, config: NodeConfig) -> Node {
    let ports = Ports {
        store: desk.store.clone(),
        memories: Arc::new(nexa_ports::view::MemoryViews::new(desk.store.clone())),
        model: Arc::new(Silent),
        tools: Arc::new(nexa_ports::tool::NoTools),
        clock: Arc::new(SystemClock::default()),
        dice: Arc::new(SystemDice),
    };
    Node::start(config, ports).await.unwrap()
}

fn node_config() -> NodeConfig {
    NodeConfig::new(NodeId::new("n1").unwrap())
}

async fn wake(desk: &Desk, node: &Node, module: &Module) {
    let mut workloads = Vec::new();
    for number in 0..WORKLOADS {
        workloads.push(desk.submit(number, module).await);
    }
    for workload in workloads {
        node.wake(AgentId::root(workload)).unwrap();
    }
}

async fn until(mut is_true: impl FnMut() -> bool) {
    while !is_true() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn waiting_for_a_model(desk: &Desk) {
    let node = start(desk, node_config()).await;
    let (before, begin) = (resident_kib(), Instant::now());
    wake(desk, &node, &program::fork(BRANCHES)).await;
    let wanted = usize::from(WORKLOADS) * usize::from(BRANCHES);
    until(|| node.stats().model_calls_in_flight >= wanted).await;
    let took = begin.elapsed();
    let weight = resident_kib() - before;
    println!(
        "{wanted} agents wait for a model after {:.2} s; {} agents in memory weigh {weight} KiB, {:.1} KiB each",
        took.as_secs_f64(),
        node.stats().live_agents,
        weight as f64 / node.stats().live_agents as f64,
    );
}

async fn falling_asleep(desk: &Desk) {
    let module = program::fork_of_approvals(BRANCHES);
    let wanted = usize::from(WORKLOADS) * (usize::from(BRANCHES) + 1);
    let node = start(desk, NodeConfig { idle_before_dormant: Millis(4_000), ..node_config() }).await;
    let before = resident_kib();
    wake(desk, &node, &module).await;
    until(|| node.stats().idle_agents == wanted).await;
    let awake = resident_kib();
    println!("{wanted} idle agents weigh {:.1} KiB each", (awake - before) as f64 / wanted as f64);
    let begin = Instant::now();
    for seconds in [0, 1, 2, 4, 6, 8, 10, 15] {
        tokio::time::sleep((begin + Duration::from_secs(seconds)).saturating_duration_since(Instant::now())).await;
        let (now, live) = (resident_kib(), node.stats().live_agents);
        println!("after {seconds:2} s: {live:5} live, {:6} KiB more than before them", now as i64 - before as i64);
    }
    node.drain(Duration::from_secs(10)).await;
    drop(node);
    for budget_kib in [before + (awake - before) * 2 / 3, before + (awake - before) / 3] {
        under_a_budget(desk, budget_kib).await;
    }
}

/// Wakes all of them again at once, as after a restart.
async fn under_a_budget(desk: &Desk, budget_kib: usize) {
    let config = NodeConfig { memory_max: Some((budget_kib as u64) << 10), ..node_config() };
    let node = start(desk, config).await;
    let mut agents = Vec::new();
    for row in desk.store.rows(nexa_ports::store::Rows::Live, None, 100_000).await.unwrap() {
        agents.push(row.agent);
        node.wake(row.agent).unwrap();
    }
    let (begin, mut most, mut most_live) = (Instant::now(), 0, 0);
    while begin.elapsed() < Duration::from_secs(20) && (node.stats().waiting_agents > 0 || most_live == 0) {
        let stats = node.stats();
        (most, most_live) = (most.max(resident_kib()), most_live.max(stats.live_agents));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stats = node.stats();
    println!(
        "{} agents woken within {budget_kib} KiB: at most {most} KiB and {most_live} live; after {:.1} s {} KiB, {} live, {} waiting, {:?}",
        agents.len(),
        begin.elapsed().as_secs_f64(),
        resident_kib(),
        stats.live_agents,
        stats.waiting_agents,
        stats.memory_pressure,
    );
    node.drain(Duration::from_secs(10)).await;
}
