//! What the turns of agents that talk to each other are linked to, as whoever exports spans sees it.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

mod support;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{LazyLock, Mutex, MutexGuard, Once, PoisonError};

use nexa_event::envelope::TraceContext;
use nexa_event::fact::Input;
use nexa_ports::store::{Post, Posted, Rows};
use nexa_runtime::genai::{TARGET, attribute};
use nexa_runtime::trace::{self, Exporter, LINKS_MAX};
use nexa_runtime::{Node, programs};
use nexa_types::*;
use nexa_vm::codec;
use nexa_vm::value::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Span, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use support::model::FakeModel;
use support::{Desk, config, until};

const RELAY: &str = r"
flow helper() -> int { let n: int = receive(); return n }
flow main() -> int {
    let child = spawn helper()
    let n: int = receive()
    pass n to child
    return await child
}
";

const LISTENS: &str = r"
flow main(count: int) -> int {
    let i = 0
    while (i < count) { let n: int = receive(); i += 1 }
    return i
}
";

/// The workload with this number is not exported.
const QUIET: u8 = 2;

/// A span: what it is of, and what it is linked to, in order.
#[derive(Debug, Clone, Default)]
struct Seen {
    agent: String,
    workload: String,
    links: Vec<TraceContext>,
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == attribute::LINK {
            self.links.push(trace::context(value).unwrap());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            attribute::AGENT_ID => self.agent = format!("{value:?}"),
            attribute::WORKLOAD_ID => self.workload = format!("{value:?}"),
            _ => {}
        }
    }
}

/// Every span of this process, and which of them those are that live.
#[derive(Default)]
struct Spans {
    all: Vec<Seen>,
    live: HashMap<u64, usize>,
}

static SPANS: LazyLock<Mutex<Spans>> = LazyLock::new(Mutex::default);

fn spans() -> MutexGuard<'static, Spans> {
    SPANS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a span with this number is known by elsewhere.
fn known_by(number: usize) -> TraceContext {
    TraceContext { trace: (number as u128 + 1).to_be_bytes(), span: (number as u64 + 1).to_be_bytes() }
}

struct Watcher;

impl<S: Subscriber> Layer<S> for Watcher {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target() == TARGET
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut seen = Seen::default();
        attributes.record(&mut seen);
        let mut spans = spans();
        let number = spans.all.len();
        spans.all.push(seen);
        spans.live.insert(id.into_u64(), number);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut spans = spans();
        let number = spans.live[&id.into_u64()];
        values.record(&mut spans.all[number]);
    }
}

fn context_of(span: &Span) -> Option<TraceContext> {
    let spans = spans();
    let number = *spans.live.get(&span.id()?.into_u64())?;
    (spans.all[number].workload != workload(QUIET).to_string()).then(|| known_by(number))
}

/// Sees every span from now on.
fn watch() {
    static WATCHES: Once = Once::new();
    WATCHES.call_once(|| {
        tracing::subscriber::set_global_default(Registry::default().with(Watcher)).unwrap();
        trace::exported_by(Exporter { context_of, put_under: |_, _| {} });
    });
}

fn workload(number: u8) -> WorkloadId {
    WorkloadId::of(&TenantId::local(), RequestId::from_bytes([number; 16]))
}

/// The turns of an agent: what each is known by, and what it is linked to.
fn turns(agent: AgentId) -> Vec<(TraceContext, Vec<TraceContext>)> {
    let of = agent.to_string();
    let all = spans().all.clone().into_iter().enumerate();
    all.filter(|(_, seen)| seen.agent == of).map(|(number, seen)| (known_by(number), seen.links)).collect()
}

/// The one turn of an agent that is linked to something, once.
fn linked(agent: AgentId, to: TraceContext) -> TraceContext {
    let turns = turns(agent);
    let linked: Vec<_> = turns.iter().filter(|(_, links)| links.contains(&to)).collect();
    let [(turn, links)] = linked[..] else { panic!("not one of {turns:?} is linked to {to:?}") };
    assert_eq!(links.iter().filter(|link| **link == to).count(), 1, "{links:?}");
    *turn
}

fn from_outside(number: u8) -> TraceContext {
    TraceContext { trace: [number; 16], span: [0xEE; 8] }
}

async fn submits(desk: &Desk, number: u8, text: &str, args: Vec<Value>) -> AgentId {
    let module = nexa_lang::compile_text("test.nx", text).module.unwrap();
    let entry = module.entries.iter().find(|entry| entry.name == "main").unwrap().function;
    let hash = programs::put(&*desk.store, &TenantId::local(), &module, "test", desk.stamp()).await.unwrap();
    AgentId::root(desk.submit_program("n1", number, hash, entry, args).await)
}

async fn post(desk: &Desk, agent: AgentId, number: u8, trace: Option<TraceContext>) {
    let input = Input::Message { from: "a test".to_owned(), value: codec::encode(&Value::Int(7)) };
    let post = Post { to: agent, id: InputId::from_bytes([number; 16]), input, trace };
    assert!(matches!(desk.store.post(post, desk.stamp()).await.unwrap(), Posted::Accepted { .. }));
}

/// Waits for a workload's end, and until its agents have acted on it.
async fn ends(desk: &Desk, node: &Node, root: AgentId, with: i64) {
    let outcome = desk.outcome(workload_of(desk, root).await).await;
    assert_eq!(outcome, Outcome::Ok(codec::encode(&Value::Int(with))));
    until("its agents to leave", || node.load().live == 0).await;
}

async fn workload_of(desk: &Desk, agent: AgentId) -> WorkloadId {
    desk.store.row(agent).await.unwrap().unwrap().workload
}

/// Runs [`RELAY`]; gives the sender and its child.
async fn relays(number: u8, trace: Option<TraceContext>) -> (AgentId, AgentId) {
    watch();
    let desk = Desk::new(FakeModel::echo(1));
    let node = desk.start(config("n1")).await;
    let main = submits(&desk, number, RELAY, Vec::new()).await;
    node.wake(main).unwrap();
    desk.reaches(main, AgentState::Waiting(Waiting::Message)).await;
    let rows = desk.store.rows(Rows::Workload(workload(number)), None, 10).await.unwrap();
    let child = rows.iter().map(|row| row.agent).find(|agent| *agent != main).unwrap();
    desk.reaches(child, AgentState::Waiting(Waiting::Message)).await;
    post(&desk, main, 1, trace).await;
    node.wake(main).unwrap();
    ends(&desk, &node, main, 7).await;
    (main, child)
}

#[tokio::test]
async fn a_message_and_an_end_lead_from_turn_to_turn() {
    let (main, child) = relays(1, Some(from_outside(1))).await;
    let sends = linked(main, from_outside(1));
    let takes = linked(child, sends);
    let first = turns(main)[0].0;
    assert_ne!(first, sends, "it bore its child in a turn before");
    assert!(turns(child).iter().all(|(_, links)| links.contains(&first)), "each of its turns goes back to its birth");
    let ends = linked(main, takes);
    assert_ne!(ends, sends);
}

#[tokio::test]
async fn a_turn_that_is_not_exported_leads_nowhere() {
    let (main, child) = relays(QUIET, None).await;
    for agent in [main, child] {
        let turns = turns(agent);
        assert!(turns.len() >= 2 && turns.iter().all(|(_, links)| links.is_empty()), "{turns:?}");
    }
}

#[tokio::test]
async fn a_turn_is_linked_once_to_each_and_to_no_more_than_so_many() {
    watch();
    let desk = Desk::new(FakeModel::echo(1));
    let node = desk.start(config("n1")).await;
    let count = 2 * LINKS_MAX as u8 + 20;
    let main = submits(&desk, 3, LISTENS, vec![Value::Int(count.into())]).await;
    for number in 0..count {
        // Two messages of each turn.
        post(&desk, main, number, Some(from_outside(number / 2 + 1))).await;
    }
    node.wake(main).unwrap();
    ends(&desk, &node, main, count.into()).await;
    let expected: Vec<TraceContext> = (1..=LINKS_MAX as u8).map(from_outside).collect();
    assert_eq!(turns(main).into_iter().map(|(_, links)| links).collect::<Vec<_>>(), [expected]);
}
