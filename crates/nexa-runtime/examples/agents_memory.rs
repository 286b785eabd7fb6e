//! How long ten thousand agents take until each waits for a model, and what they weigh then.
//!
//! `cargo run --release -p nexa-runtime --example agents_memory -- [memory | sqlite DIR]`
//!
//! The in-memory store lies in the same process, so with `memory` its facts are weighed too. Linux only.

#![allow(clippy::unwrap_used, reason = "an example that unwraps says enough by failing")]

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
use nexa_types::{AgentId, NodeId};

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
    let mut desk = Desk::new(FakeModel::echo(1));
    if let (Some("sqlite"), Some(folder)) = (std::env::args().nth(1).as_deref(), std::env::args().nth(2)) {
        desk.store = Arc::new(nexa_store::SqliteStore::open(folder, nexa_store::Options::default()).unwrap());
    }
    let ports = Ports {
        store: desk.store.clone(),
        memories: Arc::new(nexa_ports::view::MemoryViews::new(desk.store.clone())),
        model: Arc::new(Silent),
        tools: Arc::new(nexa_ports::tool::NoTools),
        clock: Arc::new(SystemClock::default()),
        dice: Arc::new(SystemDice),
    };
    let node = Node::start(NodeConfig::new(NodeId::new("n1").unwrap()), ports).await.unwrap();
    let module = program::fork(BRANCHES);
    let mut workloads = Vec::new();
    for number in 0..WORKLOADS {
        workloads.push(desk.submit(number, &module).await);
    }
    let (before, begin) = (resident_kib(), Instant::now());
    for workload in workloads {
        node.wake(AgentId::root(workload)).unwrap();
    }
    let wanted = usize::from(WORKLOADS) * usize::from(BRANCHES);
    while node.stats().model_calls_in_flight < wanted {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begin.elapsed();
    let weight = resident_kib() - before;
    println!(
        "{wanted} agents wait for a model after {:.2} s; {} agents in memory weigh {weight} KiB, {:.1} KiB each",
        took.as_secs_f64(),
        node.stats().live_agents,
        weight as f64 / node.stats().live_agents as f64,
    );
}
