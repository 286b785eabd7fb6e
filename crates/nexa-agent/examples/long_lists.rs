//! What the longest lists cost their coordinator: time of a step, bytes of its log and of its snapshots, time to go on
//! after a restart. `cargo run --profile fast -p nexa-agent --example long_lists [RESULT_BYTES]`
//!
//! Only the root is run; its children end as soon as they are born, oldest first, each with a text of so many bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexa_agent::{Agent, Input, snapshot_is_due};
use nexa_event::fact::{self, AgentEvent, ListItem, OnFailure, Spawned};
use nexa_lang::AgentSpec;
use nexa_types::limits::{LIST_AGENTS_MAX, SLICE_FUEL};
use nexa_types::{
    AgentId, Budget, Epoch, InputId, Millis, NodeId, Outcome, Payload, Seq, Spend, Timestamp, Tokens, WorkloadId,
};
use nexa_vm::codec;
use nexa_vm::value::Value;
use nexa_vm::vm::Program;

fn text(bytes: usize) -> Payload {
    codec::encode(&Value::Str("x".repeat(bytes).into()))
}

fn shape(name: &str) -> Vec<Vec<u32>> {
    let count = LIST_AGENTS_MAX as u32;
    let after = |n: u32| match name {
        "chain" => n.checked_sub(1).into_iter().collect(),
        "layered" if n >= 100 => (0..10).map(|k| n - n % 100 - 100 + (n % 100 + 7 * k) % 100).collect(),
        "sink" if n == count - 1 => (0..n).collect(),
        _ => Vec::new(),
    };
    (0..count).map(after).collect()
}

fn main() {
    let bytes = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(200);
    println!("{LIST_AGENTS_MAX} agents, inputs of 200 bytes, results of {bytes} bytes");
    for name in ["independent", "chain", "layered", "sink"] {
        run(name, bytes);
    }
}

fn run(name: &str, bytes: usize) {
    let spec = AgentSpec { id: "a".to_owned(), prompt: "Say it.".to_owned(), ..AgentSpec::default() };
    let list = nexa_lang::compile_list(&[spec]).expect("it compiles");
    let program = Arc::new(Program::new(list.module).expect("it verifies"));
    let item = |(n, after)| ListItem {
        id: format!("item-{n:05}"),
        entry: list.functions[0],
        input: text(200),
        after,
        budget: Budget::default(),
        timeout: Some(Millis(60_000)),
        schedule: None,
    };
    let items: Vec<ListItem> = shape(name).into_iter().enumerate().map(item).collect();
    let workload = WorkloadId::from_bytes([1; 16]);
    let first = Spawned {
        workload,
        name: "list".to_owned(),
        parent: None,
        program: fact::Program::List { module: program.hash(), items, on_failure: OnFailure::FailFast, turns: None },
        budget: Budget { tokens: Some(Tokens(100_000_000)), ..Budget::default() },
        deadline: None,
        seed: 1,
        depth: 0,
        priority: 128,
        asks: None,
    };
    let id = AgentId::root(workload);
    let mut agent = Agent::born(id, &first, Arc::clone(&program)).expect("the module is its own");
    let node = NodeId::new("n1").expect("a good name");
    let mut input = Input::Start { node, epoch: Epoch(1) };
    let mut log: Vec<(AgentEvent, Timestamp)> = Vec::new();
    let mut running: VecDeque<(AgentId, Seq, u32)> = VecDeque::new();
    let (mut now, mut took, mut slowest) = (Timestamp(1_000), Duration::ZERO, Duration::ZERO);
    let (mut births_max, mut log_bytes, mut last_seen) = (0, 0, 0);
    let (mut snapshots, mut snapshot_bytes, mut longest, mut last) = (0, 0, 0, (1, 0));
    let mut half: Option<(usize, Vec<u8>)> = None;
    loop {
        now = now.after(Millis(1));
        let begun = Instant::now();
        let step = agent.step(input, now, SLICE_FUEL);
        let spent = begun.elapsed();
        (took, slowest) = (took + spent, slowest.max(spent));
        births_max = births_max.max(step.births.len());
        log.extend(step.facts.into_iter().map(|event| (event, now)));
        for (child, born) in step.births {
            let parent = born.parent.expect("a child has a parent");
            running.push_back((child, parent.seq, parent.branch));
        }
        log_bytes += log[last_seen..].iter().map(|(event, _)| nexa_event::codec::encode(event).len()).sum::<usize>();
        last_seen = log.len();
        if snapshot_is_due(agent.version().0 - last.0, last.1) {
            let frozen = agent.snapshot();
            (snapshots, snapshot_bytes, longest) =
                (snapshots + 1, snapshot_bytes + frozen.len(), longest.max(frozen.len()));
            last = (agent.version().0, frozen.len());
            if log.len() < LIST_AGENTS_MAX / 2 {
                half = Some((log.len(), frozen));
            }
        }
        if step.ended.is_some() {
            break;
        }
        input = if step.more {
            Input::Continue
        } else {
            let (child, seq, branch) = running.pop_front().expect("a list that has not ended has children");
            let (outcome, spend) = (Outcome::Ok(text(bytes)), Spend { calls: 1, ..Spend::default() });
            let ended = fact::Input::ChildEnded { seq, branch, outcome, spend, handed_over: None };
            Input::Inbox(InputId::child_ended(child), ended)
        };
    }
    let middle = LIST_AGENTS_MAX / 2;
    let begun = Instant::now();
    let (from, mut twin) = match &half {
        Some((from, frozen)) => {
            (*from, Agent::restore(frozen, &first, Arc::clone(&program)).expect("its own snapshot"))
        }
        None => (0, Agent::born(id, &first, Arc::clone(&program)).expect("the module is its own")),
    };
    let restored = begun.elapsed();
    for (event, at) in &log[from..middle.max(from)] {
        twin.replay(event, *at).expect("it decides the same");
    }
    println!(
        "{name:>12}: {:>6.1} us a step, slowest {:>6.1} ms; births in one append {births_max}; log {:.1} MB; {snapshots} \
         snapshots, {:.1} MB together, longest {:.1} MB; at half restored in {:.0} ms and {} events replayed, {:.0} ms together",
        took.as_secs_f64() * 1e6 / LIST_AGENTS_MAX as f64,
        slowest.as_secs_f64() * 1e3,
        log_bytes as f64 / 1e6,
        snapshot_bytes as f64 / 1e6,
        longest as f64 / 1e6,
        restored.as_secs_f64() * 1e3,
        middle.saturating_sub(from),
        begun.elapsed().as_secs_f64() * 1e3,
    );
}
