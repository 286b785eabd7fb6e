//! How many durable steps a second a node takes: an outside effect requested, answered and recorded.
//!
//! `cargo run --release -p nexa-runtime --example steps_speed -- [memory | sqlite DIR] [AGENTS] [CALLS]`
//!
//! The model answers at once, so what is left is the node, the machine and the store. Prints one line of figures.

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use nexa_event::effect::{Finish, ModelReply};
use nexa_ports::clock::SystemClock;
use nexa_ports::dice::SystemDice;
use nexa_ports::model::{Chunks, LaneLimits, Model, ModelCall, ModelError};
use nexa_ports::store::Rows;
use nexa_runtime::{Node, NodeConfig, Ports};
use nexa_types::{AgentId, NodeId, Spend, Tokens};

use support::model::FakeModel;
use support::{Desk, program};

/// Answers at once.
#[derive(Default)]
struct Quick {
    asked: AtomicU64,
}

impl Model for Quick {
    fn ask<'a>(&'a self, _: ModelCall, _: &'a dyn Chunks) -> BoxFuture<'a, Result<ModelReply, ModelError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let spend = Spend { calls: 1, ..Spend::default() };
        let text = "an answer of some length, as a short one would be".to_owned();
        Box::pin(async move {
            Ok(ModelReply {
                text,
                finish: Finish::Stop,
                model: "quick".into(),
                spend,
                tokens_left_out: Tokens(0),
                tool_calls: Vec::new(),
            })
        })
    }

    fn limits(&self, _: &str) -> LaneLimits {
        LaneLimits::at_once(1_000)
    }

    fn lane(&self, _: &str) -> String {
        String::new()
    }
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let kind = args.next().unwrap_or_else(|| "memory".into());
    let folder = if kind == "sqlite" { args.next() } else { None };
    let mut number = |default: u32| args.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (agents, calls) = (number(64), number(200));

    let mut desk = Desk::new(FakeModel::echo(1));
    if let Some(folder) = &folder {
        let options = nexa_store::Options::default();
        let store =
            nexa_store::SqliteStore::open(std::path::Path::new(folder), options).expect("the folder can be used");
        desk.store = Arc::new(store);
    }
    let (store, model) = (desk.store.clone(), Arc::new(Quick::default()));
    let ports = Ports {
        store: store.clone(),
        memories: Arc::new(nexa_ports::view::MemoryViews::new(store.clone())),
        model: model.clone(),
        tools: Arc::new(nexa_ports::tool::NoTools),
        clock: Arc::new(SystemClock::default()),
        dice: Arc::new(SystemDice),
    };
    let node = NodeConfig::new(NodeId::new("n1").expect("a good name"));
    let node = Node::start(node, ports).await.expect("a node on an empty store starts");
    let module = program::calls(calls);
    let mut workloads = Vec::new();
    for number in 0..agents {
        workloads.push(desk.submit(number as u8, &module).await);
    }
    let begin = Instant::now();
    for workload in &workloads {
        node.wake(AgentId::root(*workload)).expect("there is room");
    }
    while !store.rows(Rows::Live, None, 1).await.expect("the store answers").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begin.elapsed();
    let steps = model.asked.load(Ordering::Relaxed);
    println!(
        "{kind}: {agents} agents, {steps} steps in {:.3} s: {:.0} steps/s, {} appends",
        took.as_secs_f64(),
        steps as f64 / took.as_secs_f64(),
        node.stats().appends
    );
}
