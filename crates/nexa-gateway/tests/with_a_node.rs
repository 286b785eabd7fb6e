//! The whole way: source text in, agents on a real node, facts and text out, through a real door.

mod desk;

use std::sync::Arc;
use std::time::Duration;

use desk::{connect, frames, next, reason, word};
use futures::StreamExt;
use futures::future::BoxFuture;
use nexa_client::{Client, From};
use nexa_event::effect::{Finish, ModelReply};
use nexa_event::envelope::Fact;
use nexa_event::fact::{self, AgentEvent};
use nexa_gateway::doors::{DoorConfig, Gateway};
use nexa_gateway::handlers::Handlers;
use nexa_gateway::mediator::Mediator;
use nexa_ports::clock::{Clock, SystemClock};
use nexa_ports::dice::{Dice, SeededDice};
use nexa_ports::memory::MemoryStore;
use nexa_ports::model::{Chunks, LaneLimits, Model, ModelCall, ModelError};
use nexa_ports::store::Store;
use nexa_ports::view::{MemoryViews, Views};
use nexa_proto::v1;
use nexa_proto::v1::watch_frame::Frame;
use nexa_runtime::{Node, NodeConfig, Ports};
use nexa_sched::SchedulerConfig;
use nexa_store::{Options, SqliteStore};
use nexa_types::{AgentId, NodeId, RunCode, Spend, StreamId, Tokens, Version};
use tokio_util::sync::CancellationToken;

const SOURCE: &str = r#"
agent Writer(topic: str) -> str {
    role: "Writer", prompt: "Write a line.", stream: true
}

flow main(topic: str) -> str {
    return topic >> Writer
}

flow careful(topic: str) -> str {
    let verdict = approve("Publish?", data: topic)
    let text = match verdict { approved(by, note) => "yes, says #{by}: #{note}", denied(by, note) => "no, says #{by}" }
    return text
}

flow patient(topic: str) -> str {
    sleep(1h)
    return topic
}

flow listening(topic: str) -> str {
    let first: str = receive()
    let second: int = receive(timeout: 1m)
    return "of #{topic}: #{first} #{second}"
}

flow counting(topic: str) -> str {
    for each number in [1, 2, 3, 4, 5, 6] {
        emit(number)
        sleep(5ms)
    }
    return topic
}
"#;

/// Writes a line in two pieces, once the gate is open.
struct Echo {
    open: tokio::sync::watch::Sender<bool>,
}

impl Model for Echo {
    fn ask<'a>(&'a self, call: ModelCall, chunks: &'a dyn Chunks) -> BoxFuture<'a, Result<ModelReply, ModelError>> {
        Box::pin(async move {
            let mut open = self.open.subscribe();
            tokio::select! {
                _ = open.wait_for(|open| *open) => {}
                () = call.cancel.cancelled() => return Err(ModelError::new(RunCode::Cancelled, "cancelled")),
            }
            chunks.piece(0, "a line ");
            chunks.piece(7, "about it");
            let spend = Spend { tokens_in: Tokens(9), tokens_out: Tokens(4), calls: 1, ..Spend::default() };
            let text = "a line about it".to_owned();
            Ok(ModelReply {
                text,
                finish: Finish::Stop,
                model: "echo/echo".into(),
                spend,
                tokens_left_out: Tokens(0),
                tool_calls: Vec::new(),
            })
        })
    }

    fn limits(&self, _: &str) -> LaneLimits {
        LaneLimits::at_once(8)
    }

    fn lane(&self, _: &str) -> String {
        "echo".into()
    }
}

struct House {
    store: Arc<dyn Store>,
    client: Client,
    echo: Arc<Echo>,
    node: Node,
    shutdown: CancellationToken,
}

impl House {
    async fn open() -> Self {
        let store = Arc::new(MemoryStore::new());
        Self::over(store.clone(), Arc::new(MemoryViews::new(store))).await
    }

    async fn over(store: Arc<dyn Store>, views: Arc<dyn Views>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let dice: Arc<dyn Dice> = Arc::new(SeededDice::new(7));
        let echo = Arc::new(Echo { open: tokio::sync::watch::Sender::new(false) });
        let memories = Arc::new(MemoryViews::new(store.clone()));
        let (model, clock, dice) = (echo.clone(), clock.clone(), dice.clone());
        let tools = Arc::new(nexa_ports::tool::NoTools);
        let (neighbours, fence) = (Arc::new(nexa_ports::neighbours::Alone), Arc::new(nexa_runtime::fence::Always));
        let ports = Ports {
            store: store.clone(),
            memories,
            model,
            tools,
            clock: clock.clone(),
            dice: dice.clone(),
            neighbours,
            fence,
        };
        let scheduler = SchedulerConfig { max_concurrent_agents: 40, ..SchedulerConfig::default() };
        let config = NodeConfig { scheduler, ..NodeConfig::new(NodeId::new("n1").expect("a good name")) };
        let node = Node::start(config, ports).await.expect("the node starts");
        let handlers = Handlers::new(store.clone(), views, Arc::new(node.clone()), clock.clone());
        let closing = handlers.closing().clone();
        let mediator = Mediator::builder(handlers.into_end(), clock, dice).build();
        let shutdown = CancellationToken::new();
        let listen = "127.0.0.1:0".parse().expect("an address");
        let gateway = Gateway::new(mediator, closing);
        let served = gateway.serve(&listen, DoorConfig::default(), shutdown.clone()).await.expect("a free port");
        let client = connect(&served.address, None).await;
        Self { store, client, echo, node, shutdown }
    }

    async fn submit(&self, entry: &str) -> v1::WorkloadServiceSubmitResponse {
        use v1::workload_service_submit_request::Program;
        let request = v1::WorkloadServiceSubmitRequest {
            program: Some(Program::Source(v1::Source { name: "house.nx".into(), text: SOURCE.into() })),
            entry: entry.into(),
            input_json: r#"{"topic":"rain"}"#.into(),
            ..Default::default()
        };
        self.client.submit(request).await.expect("accepted")
    }

    async fn close(self) {
        self.shutdown.cancel();
        self.node.drain(desk::SOON).await;
    }

    /// Stops without waiting for calls in flight.
    async fn stop(self) {
        self.shutdown.cancel();
        self.node.drain(Duration::ZERO).await;
    }
}

fn value(frame: &Frame) -> Option<String> {
    let Frame::Event(event) = frame else { return None };
    let Some(v1::watch_event::Event::WorkloadEnded(ended)) = &event.event else { return None };
    match ended.outcome.as_ref()?.result.as_ref()? {
        v1::outcome::Result::ValueJson(json) => Some(json.clone()),
        v1::outcome::Result::Failure(failure) => Some(format!("{}: {}", failure.code, failure.message)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_is_submitted_watched_and_found_again() {
    let house = House::open().await;
    let submitted = house.submit("main").await;
    let mut watch = house.client.watch_workload(&submitted.workload_id, From::Start, true);
    let mut seen = Vec::new();
    loop {
        let frame = next(&mut watch).await;
        let is_waiting = word(&frame).ends_with("started") && word(&frame).starts_with("effect");
        seen.push(frame);
        if is_waiting {
            break;
        }
    }
    house.echo.open.send_replace(true);
    seen.extend(frames(watch).await);
    let text: String = seen
        .iter()
        .filter_map(|frame| if let Frame::Chunk(chunk) = frame { Some(chunk.text.as_str()) } else { None })
        .collect();
    assert_eq!(text, "a line about it", "{:?}", seen.iter().map(word).collect::<Vec<_>>());
    assert_eq!(seen.last().and_then(value).as_deref(), Some("\"a line about it\""));

    let agents = v1::AgentServiceListRequest { workload_id: submitted.workload_id.clone(), ..Default::default() };
    let agents = house.client.agents(agents).await.expect("a list").agents;
    let names: Vec<_> = agents.iter().map(|agent| (agent.name.as_str(), agent.state())).collect();
    assert_eq!(names, [("main", v1::AgentState::Succeeded), ("Writer", v1::AgentState::Succeeded)]);
    let query = v1::HistoryServiceSearchRequest { query: "line about".into(), ..Default::default() };
    assert_eq!(house.client.search(query).await.expect("an answer").hits.len(), 1);
    let get = v1::WorkloadServiceGetRequest { workload_id: submitted.workload_id };
    let workload = house.client.workload(get).await.expect("found").workload.expect("one");
    assert_eq!((workload.state(), workload.agents_ended), (v1::WorkloadState::Succeeded, 2));
    assert_eq!(workload.spend.expect("a spend").tokens_out, 4);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_answers_and_the_flow_goes_on() {
    let house = House::open().await;
    let submitted = house.submit("careful").await;
    let mut watch = house.client.watch_workload(&submitted.workload_id, From::Start, false);
    let approval_id = loop {
        if let Frame::Event(event) = next(&mut watch).await
            && let Some(v1::watch_event::Event::ApprovalRequested(asked)) = event.event
        {
            assert_eq!(asked.question, "Publish?");
            break asked.approval_id;
        }
    };
    let answer =
        v1::ApprovalServiceAnswerRequest { approval_id, approved: true, note: "fine".into(), ..Default::default() };
    house.client.answer(answer.clone()).await.expect("accepted");
    let rest = frames(watch).await;
    assert_eq!(rest.last().and_then(value).as_deref(), Some("\"yes, says local: fine\""));
    house.client.answer(answer.clone()).await.expect("told again after the end");
    let other = v1::ApprovalServiceAnswerRequest { approved: false, ..answer };
    assert_eq!(reason(house.client.answer(other).await), "NOT_WAITING");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_from_outside_are_received_by_the_program_in_their_order_and_once() {
    let house = House::open().await;
    let submitted = house.submit("listening").await;
    let agents = v1::AgentServiceListRequest { workload_id: submitted.workload_id.clone(), ..Default::default() };
    let agents = house.client.agents(agents).await.expect("a list").agents;
    let agent_id = agents.first().expect("the root").agent_id.clone();
    let send = |request_id: &str, value_json: &str| {
        let (request_id, value_json) = (request_id.to_owned(), value_json.to_owned());
        house.client.send(v1::AgentServiceSendRequest { request_id, agent_id: agent_id.clone(), value_json })
    };
    let (first, second) = ("00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002");
    send(first, "\"hello\"").await.expect("accepted");
    send(first, "\"hello\"").await.expect("the same message again is no other message");
    send(second, "7").await.expect("accepted");
    let seen = frames(house.client.watch_workload(&submitted.workload_id, From::Start, false)).await;
    assert_eq!(seen.last().and_then(value).as_deref(), Some("\"of rain: hello 7\""));
    let taken = seen.iter().filter(|frame| word(frame).starts_with("MessageReceived")).count();
    assert_eq!(taken, 2, "{:?}", seen.iter().map(word).collect::<Vec<_>>());
    let third = send("00000000-0000-4000-8000-000000000003", "1").await;
    assert_eq!(reason(third), "ALREADY_ENDED");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_reaches_a_sleeper_and_a_model_call() {
    let house = House::open().await;
    for entry in ["patient", "main"] {
        let submitted = house.submit(entry).await;
        let mut watch = house.client.watch_workload(&submitted.workload_id, From::Start, false);
        loop {
            if let Frame::Event(event) = next(&mut watch).await
                && event.agent_state() == v1::AgentState::Waiting
                && event.waiting_for() != v1::WaitingFor::Children
            {
                break;
            }
        }
        let cancel = v1::WorkloadServiceCancelRequest {
            workload_id: submitted.workload_id.clone(),
            reason: "changed my mind".into(),
            ..Default::default()
        };
        house.client.cancel(cancel).await.expect("cancelled");
        let rest = frames(watch).await;
        let last = rest.last().and_then(value).expect("an end");
        assert!(last.starts_with("cancelled"), "{last}");
        let get = v1::WorkloadServiceGetRequest { workload_id: submitted.workload_id };
        let workload = house.client.workload(get).await.expect("found").workload.expect("one");
        assert_eq!(workload.state(), v1::WorkloadState::Cancelled);
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_cut_at_any_fact_of_a_running_workload_has_no_gap_and_no_repeat() {
    let house = House::open().await;
    let submitted = house.submit("counting").await;
    let mut pieced = Vec::new();
    let mut from = From::Start;
    loop {
        let mut watch = house.client.watch_workload(&submitted.workload_id, from.clone(), false);
        // One fact a connection: every place is cut at.
        let fact = loop {
            match watch.next().await.expect("the end comes as a fact first").expect("a frame") {
                Frame::Event(event) => break event,
                Frame::Bookmark(_) => {}
                other => panic!("{other:?}"),
            }
        };
        from = From::Cursor(fact.cursor.clone());
        let is_end = matches!(fact.event, Some(v1::watch_event::Event::WorkloadEnded(_)));
        pieced.push(*fact);
        if is_end {
            break;
        }
    }
    let whole: Vec<_> = frames(house.client.watch_workload(&submitted.workload_id, From::Start, false))
        .await
        .into_iter()
        .filter_map(|frame| if let Frame::Event(event) = frame { Some(*event) } else { None })
        .collect();
    assert_eq!(pieced, whole);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_holds_over_a_restart_on_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let events = |frames: Vec<Frame>| -> Vec<v1::WatchEvent> {
        frames
            .into_iter()
            .filter_map(|frame| if let Frame::Event(event) = frame { Some(*event) } else { None })
            .collect()
    };
    let store = Arc::new(SqliteStore::open(folder.path(), Options::default()).expect("the store opens"));
    let house = House::over(store.clone(), store).await;
    let submitted = house.submit("main").await;
    let mut watch = house.client.watch_workload(&submitted.workload_id, From::Start, false);
    let mut before = Vec::new();
    // Up to the model call, which nobody answers in this life.
    while before.last().is_none_or(|fact| !word(fact).starts_with("effect")) {
        before.push(next(&mut watch).await);
    }
    drop(watch);
    house.stop().await;

    // The lock on the folder goes with the last user of the old store.
    let store = loop {
        match SqliteStore::open(folder.path(), Options::default()) {
            Ok(store) => break Arc::new(store),
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let house = House::over(store.clone(), store).await;
    house.echo.open.send_replace(true);
    let before = events(before);
    let from = From::Cursor(before.last().expect("some").cursor.clone());
    let after = events(frames(house.client.watch_workload(&submitted.workload_id, from, false)).await);
    let whole = events(frames(house.client.watch_workload(&submitted.workload_id, From::Start, false)).await);
    assert_eq!([before, after].concat(), whole);
    assert!(matches!(whole.last().expect("an end").event, Some(v1::watch_event::Event::WorkloadEnded(_))));
    let list = v1::WorkloadServiceListRequest { min_seq: 1, ..Default::default() };
    let listed = house.client.workloads(list).await.expect("a list").workloads;
    assert_eq!(listed.len(), 1);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_agents_runs_in_the_order_of_its_dependencies() {
    use v1::workload_service_submit_request::Program;
    let house = House::open().await;
    house.echo.open.send_replace(true);
    let agent = |id: &str, after: &[&str]| v1::AgentSpec {
        id: id.into(),
        role: "Writer".into(),
        prompt: "Write.".into(),
        input_json: "\"rain\"".into(),
        after: after.iter().map(|id| (*id).to_owned()).collect(),
        ..Default::default()
    };
    let list = |agents: Vec<v1::AgentSpec>| v1::WorkloadServiceSubmitRequest {
        program: Some(Program::AgentList(v1::AgentList { agents, on_failure: 0 })),
        ..Default::default()
    };
    let in_gang = |agent| v1::AgentSpec { gang: "g".into(), ..agent };
    let good = list(vec![agent("last", &["left", "right"]), agent("left", &[]), agent("right", &["left"])]);
    let submitted = house.client.submit(good).await.expect("accepted");
    let shown = frames(house.client.watch_workload(&submitted.workload_id, From::Start, false)).await;
    let ended: Vec<_> = shown
        .iter()
        .filter_map(|frame| match frame {
            Frame::Event(event) if matches!(event.event, Some(v1::watch_event::Event::AgentEnded(_))) => {
                Some(event.agent_name.as_str())
            }
            _ => None,
        })
        .collect();
    assert_eq!(ended[..3], ["left", "right", "last"]);
    let state = shown.iter().rev().find_map(|frame| match frame {
        Frame::Event(event) => match &event.event {
            Some(v1::watch_event::Event::WorkloadEnded(ended)) => Some(ended.state()),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(state, Some(v1::WorkloadState::Succeeded));

    // Whoever is farthest from the end is born first, and what is said for scheduling comes back.
    let lasting = |ms, agent| v1::AgentSpec { estimated_duration_ms: Some(ms), ..agent };
    let needs = Some(v1::AgentNeeds { llm_slots: Some(1), ..Default::default() });
    let labels = [("zone".to_owned(), "eu".to_owned())].into();
    let said = v1::AgentSpec { weight: Some(2.5), needs, labels, ..in_gang(lasting(20, agent("slow", &[]))) };
    let ranked =
        list(vec![lasting(10, agent("quick", &[])), said, lasting(900, agent("end", &["head"])), agent("head", &[])]);
    let submitted = house.client.submit(ranked).await.expect("accepted");
    frames(house.client.watch_workload(&submitted.workload_id, From::Start, false)).await;
    let root: AgentId = submitted.root_agent_id.parse().expect("an id");
    let facts = house.store.read(StreamId::Agent(root), Version(0), 3).await.expect("it can be read");
    let (mut born, mut schedules) = (Vec::new(), Vec::new());
    for recorded in facts {
        match recorded.envelope.fact {
            Fact::Agent(AgentEvent::ChildrenSpawned { children, .. }) => {
                born.extend(children.into_iter().map(|child| child.spec.name));
            }
            Fact::Agent(AgentEvent::Spawned(spawned)) => {
                let fact::Program::List { items, turns, .. } = spawned.program else { panic!("a list") };
                assert_eq!(turns, Some(vec![3, 2, 1, 0]));
                schedules.extend(items.into_iter().map(|item| item.schedule));
            }
            _ => {}
        }
    }
    assert_eq!(schedules[1].as_ref().and_then(|said| said.weight_milli), Some(2_500));
    assert_eq!(schedules[1].as_ref().and_then(|said| said.gang.as_deref()), Some("g"));
    assert_eq!(schedules[3], None);
    assert_eq!(born, ["head", "slow", "quick"]);

    for (agents, told) in [
        (vec![agent("a", &["b"]), agent("b", &["a"])], "wait for each other"),
        (vec![agent("a", &["c"])], "there is no agent `c`"),
        (vec![agent("a", &[]), agent("a", &[])], "two agents"),
        (vec![v1::AgentSpec { temperature: Some(9.0), ..agent("a", &[]) }], "temperature"),
        (vec![v1::AgentSpec { input_json: "{".into(), ..agent("a", &[]) }], "input_json"),
        (vec![v1::AgentSpec { weight: Some(-1.0), ..agent("a", &[]) }], "weight"),
        ((0..41).map(|n| in_gang(agent(&n.to_string(), &[]))).collect(), "has more members than the 40 agents"),
        (vec![in_gang(agent("a", &[])), in_gang(agent("b", &["a"]))], "can never start together: b → a = b"),
    ] {
        let error = house.client.submit(list(agents)).await.expect_err("refused");
        assert_eq!(error.reason().expect("a reason").as_str(), "INVALID_ARGUMENT");
        assert!(error.to_string().contains(told), "{error}");
    }
    house.close().await;
}
