//! An agent that remembers, the whole way: a program with `memory` on a real node, a conversation of six hundred turns of which the
//! model is shown a window, pages made of the log, and what a client finds there through a real door.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

mod desk;

use std::sync::{Arc, Mutex};

use desk::{SOON, connect};
use futures::StreamExt;
use futures::future::BoxFuture;
use nexa_client::Client;
use nexa_event::effect::{Finish, ModelReply, ToolCall};
use nexa_gateway::doors::{DoorConfig, Gateway};
use nexa_gateway::handlers::Handlers;
use nexa_gateway::mediator::{Access, Identity, Mediator, Tokens as Bearers};
use nexa_ports::clock::{Clock, SystemClock};
use nexa_ports::dice::SeededDice;
use nexa_ports::formats::{Formats, Writing};
use nexa_ports::memory::MemoryStore;
use nexa_ports::model::{Chunks, LaneLimits, Model, ModelCall, ModelError};
use nexa_ports::pages::{MemoryPages, Shards};
use nexa_ports::view::MemoryViews;
use nexa_proto::v1;
use nexa_remember::{Outside, Remembrance};
use nexa_runtime::{Node, NodeConfig, Ports};
use nexa_types::{NodeId, PrincipalId, Reason, Spend, TenantId, Tokens};
use tokio_util::sync::CancellationToken;

/// Reads a diary entry by entry, then answers.
const SOURCE: &str = r#"
flow entry(number: int) -> str { return "Day #{number}: we saw animal#{number * 7 % 301} near town#{number}." }
agent Reader(question: str) -> str uses entry {
    role: "You read a diary.", prompt: "Read all of it, then answer."
    max_tool_calls: 1_000, retry: { max: 0 }
    memory: { scope: "tenant", window: 1_500, page_size: 8, max_pages: 8 }
}
flow main(question: str) -> str { return Reader.run(question) }
"#;
const ENTRIES: usize = 300;
/// The tokens of the window, in bytes.
const WINDOW_BYTES: usize = 1_500 * 4;

/// Asks for one entry after the other, and then answers with every message that it is shown of the town in question.
#[derive(Default)]
struct Diligent {
    /// The bytes of each request, and its messages.
    asked: Mutex<Vec<(usize, usize)>>,
}

impl Model for Diligent {
    fn ask<'a>(&'a self, call: ModelCall, _: &'a dyn Chunks) -> BoxFuture<'a, Result<ModelReply, ModelError>> {
        let messages = &call.request.messages;
        let mut asked = self.asked.lock().unwrap();
        asked.push((messages.iter().map(|message| message.text.len()).sum(), messages.len()));
        let next = asked.len();
        let (text, tool_calls) = if next <= ENTRIES {
            let arguments = format!("{{\"number\":{next}}}");
            (String::new(), vec![ToolCall { id: format!("c{next}"), name: "entry".into(), arguments }])
        } else {
            let shown = messages.iter().filter(|message| message.text.contains("town17."));
            (shown.map(|message| message.text.clone()).collect::<Vec<_>>().join("|"), Vec::new())
        };
        let finish = if tool_calls.is_empty() { Finish::Stop } else { Finish::ToolCalls };
        let spend = Spend { tokens_in: Tokens(1), tokens_out: Tokens(1), calls: 1, ..Spend::default() };
        let (model, tokens_left_out) = ("test/diligent".to_owned(), Tokens(0));
        Box::pin(async move { Ok(ModelReply { text, finish, model, spend, tokens_left_out, tool_calls }) })
    }

    fn limits(&self, _: &str) -> LaneLimits {
        LaneLimits::at_once(8)
    }

    fn lane(&self, _: &str) -> String {
        "test".into()
    }
}

struct House {
    node: Node,
    model: Arc<Diligent>,
    remembrance: Remembrance,
    address: String,
    shutdown: CancellationToken,
}

impl House {
    async fn open() -> Self {
        let store = Arc::new(MemoryStore::new());
        let views = Arc::new(MemoryViews::new(store.clone()));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let dice = Arc::new(SeededDice::new(7));
        let model = Arc::new(Diligent::default());
        let ports = Ports {
            store: store.clone(),
            memories: views.clone(),
            model: model.clone(),
            tools: Arc::new(nexa_ports::tool::NoTools),
            clock: clock.clone(),
            dice: dice.clone(),
            neighbours: Arc::new(nexa_ports::neighbours::Alone),
            fence: Arc::new(nexa_runtime::fence::Always),
        };
        let node = Node::start(NodeConfig::new(NodeId::new("n1").unwrap()), ports).await.expect("the node starts");
        let pages = Arc::new(MemoryPages::new(Shards::new(4).unwrap()));
        let writing = Writing::oldest(Formats::THIS_BUILD);
        writing.raise(Formats::THIS_BUILD.newest).expect("it reads that");
        let outside = Outside { store: store.clone(), pages, embedder: None, clock: clock.clone(), writing };
        let remembrance = Remembrance::start(outside);
        let handlers = Handlers::new(store, views, Arc::new(node.clone()), clock.clone());
        let handlers = handlers.remembering(remembrance.clone());
        let closing = handlers.closing().clone();
        let people = ["ada", "bob"].map(|name| {
            let principal = PrincipalId::new(&format!("user:{name}")).unwrap();
            let tenant = TenantId::new(&format!("team-{name}")).unwrap();
            Bearers::line(name, &Identity { principal, tenant, access: Access::Full })
        });
        let tokens = Arc::new(Bearers::parse(&people.join("\n")).expect("a good file"));
        let mediator = Mediator::builder(handlers.into_end(), clock, dice).tokens(tokens).build();
        let shutdown = CancellationToken::new();
        let listen = "127.0.0.1:0".parse().expect("an address");
        let gateway = Gateway::new(mediator, closing);
        let served = gateway.serve(&listen, DoorConfig::default(), shutdown.clone()).await.expect("a free port");
        Self { node, model, remembrance, address: served.address, shutdown }
    }

    async fn client(&self, name: &str) -> Client {
        connect(&self.address, Some(name)).await
    }

    async fn close(self) {
        self.shutdown.cancel();
        self.node.drain(SOON).await;
        self.remembrance.stop(SOON).await;
    }
}

/// Runs the diary; gives the agent that read it, and its answer.
async fn read_the_diary(client: &Client) -> (String, String) {
    use v1::workload_service_submit_request::Program;
    let request = v1::WorkloadServiceSubmitRequest {
        program: Some(Program::Source(v1::Source { name: "diary.nx".into(), text: SOURCE.into() })),
        entry: "main".into(),
        input_json: r#"{"question":"What did we see near town17?"}"#.into(),
        ..Default::default()
    };
    let submitted = client.submit(request).await.expect("accepted");
    let watch = client.watch_workload(&submitted.workload_id, nexa_client::From::Snapshot, false);
    let _frames: Vec<_> = desk::frames(watch).await;
    let request = v1::WorkloadServiceGetRequest { workload_id: submitted.workload_id.clone() };
    let workload = client.workload(request).await.unwrap().workload.unwrap();
    let answer = match workload.outcome.unwrap().result.unwrap() {
        v1::outcome::Result::ValueJson(json) => json.trim_matches('"').to_owned(),
        v1::outcome::Result::Failure(failure) => panic!("{failure:?}"),
    };
    let mut page_token = String::new();
    loop {
        let workload_id = submitted.workload_id.clone();
        let request = v1::AgentServiceListRequest { workload_id, page_size: 500, page_token, ..Default::default() };
        let listed = client.agents(request).await.unwrap();
        if let Some(reader) = listed.agents.iter().find(|agent| agent.name == "Reader") {
            return (reader.agent_id.clone(), answer);
        }
        assert!(!listed.next_page_token.is_empty(), "there is a reader");
        page_token = listed.next_page_token;
    }
}

fn recall(agent_id: &str, query: &str) -> v1::ContextServiceRecallRequest {
    let (agent_id, query) = (agent_id.to_owned(), query.to_owned());
    v1::ContextServiceRecallRequest { agent_id, query, messages_max: 5, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_hundred_turns_are_remembered_a_window_is_sent_and_a_client_finds_what_was_said() {
    let house = House::open().await;
    let (ada, bob) = (house.client("ada").await, house.client("bob").await);
    let (agent, answer) = read_the_diary(&ada).await;

    // What the model was shown.
    assert_eq!(answer, "Day 17: we saw animal119 near town17.", "{answer}");
    let asked = house.model.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), ENTRIES + 1);
    assert!(asked.iter().all(|(bytes, _)| *bytes <= WINDOW_BYTES), "{:?}", asked.iter().max());

    // What a client finds.
    let found = ada.recall(recall(&agent, "Who was near town250?")).await.unwrap();
    let best = &found.messages[0];
    assert_eq!(best.text, "Day 250: we saw animal245 near town250.");
    let from = best.provenance.clone().unwrap();
    assert_eq!((from.agent_id.as_str(), best.role.as_str()), (agent.as_str(), "tool"));
    assert!(!from.page_id.is_empty() && from.version > 0 && from.score > 0.0 && from.keywords > 0.0, "{from:?}");
    let stats = ada.memory_stats(v1::ContextServiceStatsRequest { agent_id: agent.clone() }).await.unwrap();
    assert_eq!(stats.messages, 2 * ENTRIES as u64 + 2, "the question, calls and results, and the answer");
    assert_eq!(stats.pages, stats.messages.div_ceil(8));
    assert_eq!((stats.node_waiting, stats.node_recalls), (None, None), "what all tenants do is for operators");

    // Page by page, and all of it.
    let (mut pages, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ContextServiceListPagesRequest { agent_id: agent.clone(), page_size: 30, page_token };
        let listed = ada.memory_pages(request).await.unwrap();
        pages.extend(listed.pages);
        page_token = listed.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages.len() as u64, stats.pages);
    assert!(pages.is_sorted_by_key(|page| page.first_version));
    let parts: Vec<_> = ada.export_memory(&agent).await.unwrap().collect().await;
    let all: Vec<v1::RememberedMessage> = parts.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(all.len() as u64, stats.messages);
    assert_eq!(all[0].text, "What did we see near town17?");

    // Nobody else sees any of it.
    let refused = bob.recall(recall(&agent, "town250")).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::NotFound));
    assert_eq!(bob.export_memory(&agent).await.map(|_| ()).unwrap_err().reason(), Some(Reason::NotFound));
    let forget = v1::ContextServiceForgetRequest { agent_id: agent.clone() };
    assert_eq!(bob.forget_memory(forget.clone()).await.unwrap_err().reason(), Some(Reason::NotFound));
    let rebuild = bob.rebuild_memory(v1::ContextServiceRebuildRequest {}).await.unwrap_err();
    assert_eq!(rebuild.reason(), Some(Reason::PermissionDenied), "it is for operators");
    let (others, _) = read_nothing(&bob).await;
    let wide = |agent: &str| v1::ContextServiceRecallRequest {
        reach: v1::RecallReach::Tenant.into(),
        ..recall(agent, "Who was near town250?")
    };
    assert_eq!(ada.recall(wide(&agent)).await.unwrap().messages[0].text, best.text, "her tenant shares it");
    assert!(bob.recall(wide(&others)).await.unwrap().messages.is_empty());

    // And what is forgotten is gone.
    assert_eq!(ada.forget_memory(forget.clone()).await.unwrap().pages, stats.pages);
    assert!(ada.recall(recall(&agent, "town250")).await.unwrap().messages.is_empty());
    assert_eq!(ada.forget_memory(forget).await.unwrap().pages, 0);
    for wrong in [recall("a-nonsense", "x"), recall(&agent, "  "), recall(&agent, &"x".repeat(20_000))] {
        assert_eq!(ada.recall(wrong).await.unwrap_err().reason(), Some(Reason::InvalidArgument));
    }
    house.close().await;
}

/// An agent that remembers nothing.
async fn read_nothing(client: &Client) -> (String, String) {
    use v1::workload_service_submit_request::Program;
    let text = "flow main() -> str { return \"nothing\" }";
    let request = v1::WorkloadServiceSubmitRequest {
        program: Some(Program::Source(v1::Source { name: "nothing.nx".into(), text: text.into() })),
        entry: "main".into(),
        input_json: "{}".into(),
        ..Default::default()
    };
    let submitted = client.submit(request).await.expect("accepted");
    let watch = client.watch_workload(&submitted.workload_id, nexa_client::From::Snapshot, false);
    let _frames: Vec<_> = desk::frames(watch).await;
    (submitted.root_agent_id, submitted.workload_id)
}
