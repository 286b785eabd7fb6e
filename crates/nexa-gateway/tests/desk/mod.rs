//! A gateway on a real loopback port over the in-memory store. The test itself plays the node: it writes the facts that
//! agents would, so each is where the test wants it.

#![allow(dead_code)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use nexa_client::{Client, ClientError, Options, Patience};
use nexa_event::effect::{Answer, ApprovalRequest, Finish, ModelReply};
use nexa_event::envelope::Fact;
use nexa_event::fact::{AgentEvent, ClusterEvent, EffectResult, Intent, WorkloadEvent};
use nexa_gateway::doors::{DoorConfig, Gateway};
use nexa_gateway::handlers::Handlers;
use nexa_gateway::host::Host;
use nexa_gateway::mediator::{Builder, Mediator};
use nexa_ports::clock::SystemClock;
use nexa_ports::dice::SeededDice;
use nexa_ports::memory::MemoryStore;
use nexa_ports::store::{Append, Guard, RowChange, Stamp, Store};
use nexa_ports::view::MemoryViews;
use nexa_proto::v1;
use nexa_proto::v1::watch_frame::Frame;
use nexa_runtime::{LiveHub, LiveKind, LivePiece, Newborn, NodeStats, ProgramError, programs};
use nexa_types::{
    AgentId, AgentState, ModuleHash, NodeId, Outcome, Payload, PrincipalId, Seq, Spend, StreamId, TenantId, Timestamp,
    Tokens, Version, WorkloadId,
};
use nexa_vm::module::Module;
use nexa_vm::value::Value;
use nexa_vm::vm::Program;
use nexa_vm::{codec, module};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// Longer than anything here takes, and shorter than patience.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A node that runs nothing, and remembers whom it was to wake and what it was told of roots.
pub(crate) struct StillHost {
    id: NodeId,
    store: Arc<MemoryStore>,
    live: LiveHub,
    pub(crate) woken: Mutex<Vec<AgentId>>,
    /// What it was told of roots, in that order.
    pub(crate) births: Mutex<Vec<(AgentId, Said)>>,
    /// How it says that it is doing.
    pub(crate) stats: Mutex<NodeStats>,
    /// Whether it says that no agent has begun.
    pub(crate) are_coming: Mutex<bool>,
    /// Happens when the next agent is woken.
    pub(crate) at_next_wake: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// What a host is told of a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// It is about to be born there; and whether the store has it already.
    Bears {
        /// It has.
        is_stored: bool,
    },
    /// It was not.
    DidNotBear,
}

impl Host for StillHost {
    fn id(&self) -> &NodeId {
        &self.id
    }

    fn wake(&self, agent: AgentId) {
        self.woken.lock().expect("no test panics here").push(agent);
        let happens = self.at_next_wake.lock().expect("no test panics here").take();
        if let Some(happens) = happens {
            happens();
        }
    }

    fn wake_newborn(&self, newborn: Newborn) {
        self.wake(newborn.agent());
    }

    fn program<'a>(
        &'a self,
        tenant: &'a TenantId,
        module: ModuleHash,
    ) -> BoxFuture<'a, Result<Arc<Program>, ProgramError>> {
        Box::pin(async move {
            for recorded in self.store.read(StreamId::Cluster(tenant.clone()), Version(0), usize::MAX).await? {
                if let Fact::Cluster(ClusterEvent::ProgramPut { module: put, blob, .. }) = recorded.envelope.fact
                    && put == module
                {
                    let bytes = self.store.blob(tenant.clone(), blob).await?.ok_or(ProgramError::Missing { module })?;
                    return Ok(Arc::new(Program::load(&bytes).expect("only good modules are put")));
                }
            }
            Err(ProgramError::Unknown { module })
        })
    }

    fn put_program<'a>(
        &'a self,
        tenant: &'a TenantId,
        module: &'a Module,
        name: &'a str,
        stamp: Stamp,
    ) -> BoxFuture<'a, Result<Arc<Program>, ProgramError>> {
        Box::pin(async move {
            let hash = programs::put(&*self.store, tenant, module, name, stamp).await?;
            self.program(tenant, hash).await
        })
    }

    fn live(&self) -> &LiveHub {
        &self.live
    }

    fn stats(&self) -> NodeStats {
        *self.stats.lock().expect("no test panics here")
    }

    fn bears(&self, agent: AgentId) {
        let row = self.store.row(agent).now_or_never().expect("this store answers at once").expect("a store");
        self.births.lock().expect("no test panics here").push((agent, Said::Bears { is_stored: row.is_some() }));
    }

    fn did_not_bear(&self, agent: AgentId) {
        self.births.lock().expect("no test panics here").push((agent, Said::DidNotBear));
    }

    fn is_coming(&self, _: AgentId) -> bool {
        *self.are_coming.lock().expect("no test panics here")
    }
}

/// An open gateway with a client.
pub(crate) struct Desk {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) host: Arc<StillHost>,
    pub(crate) client: Client,
    pub(crate) address: String,
    /// The door, without a connection.
    pub(crate) beside: Routes,
    /// Behind the door, for further ones.
    pub(crate) gateway: Gateway,
    pub(crate) shutdown: CancellationToken,
}

/// A program that takes a text and gives nothing back.
pub(crate) fn program() -> Module {
    use nexa_vm::op::{Op, word_a};
    let main = module::Function {
        name: "main".into(),
        arity: 1,
        locals: 1,
        stack: 1,
        code: vec![word_a(Op::Unit, 0), word_a(Op::Return, 0)],
        ..module::Function::default()
    };
    let topic = module::EntryParam { name: "topic".into(), ty: 0, default: None };
    let times = module::EntryParam {
        name: "times".into(),
        ty: 1,
        default: Some(codec::encode(&Value::Int(3)).as_bytes().to_vec()),
    };
    let mut two = main.clone();
    two.name = "repeat".into();
    two.arity = 2;
    two.locals = 2;
    let entry = |name: &str, function, params| module::Entry {
        name: name.into(),
        is_agent: false,
        function,
        params,
        result: 2,
        budget: nexa_types::Budget { tokens: Some(Tokens(1_000)), ..Default::default() },
    };
    Module {
        types: vec![module::Type::Str, module::Type::Int, module::Type::Unit],
        functions: vec![main, two],
        entries: vec![entry("main", 0, vec![topic.clone()]), entry("repeat", 1, vec![topic, times])],
        ..Module::default()
    }
}

impl Desk {
    pub(crate) async fn open() -> Self {
        Self::with(|builder| builder).await
    }

    pub(crate) async fn with(configure: impl FnOnce(Builder) -> Builder) -> Self {
        Self::over(Arc::new(MemoryStore::new()), "127.0.0.1:0", configure).await
    }

    pub(crate) async fn over(
        store: Arc<MemoryStore>,
        listen: &str,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        Self::over_all(store, listen, |handlers| handlers, |_, builder| configure(builder)).await
    }

    /// The same for handlers with something of their own, such as other nodes.
    pub(crate) async fn arranged(
        arrange: impl FnOnce(Handlers) -> Handlers,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let store = Arc::new(MemoryStore::new());
        Self::over_all(store, "127.0.0.1:0", arrange, |_, builder| configure(builder)).await
    }

    /// The same for what is configured by the host.
    pub(crate) async fn with_host(configure: impl FnOnce(Arc<StillHost>, Builder) -> Builder) -> Self {
        Self::over_host(Arc::new(MemoryStore::new()), configure).await
    }

    pub(crate) async fn over_host(
        store: Arc<MemoryStore>,
        configure: impl FnOnce(Arc<StillHost>, Builder) -> Builder,
    ) -> Self {
        Self::over_all(store, "127.0.0.1:0", |handlers| handlers, configure).await
    }

    async fn over_all(
        store: Arc<MemoryStore>,
        listen: &str,
        arrange: impl FnOnce(Handlers) -> Handlers,
        configure: impl FnOnce(Arc<StillHost>, Builder) -> Builder,
    ) -> Self {
        let host = Arc::new(StillHost {
            id: NodeId::new("n1").expect("a good name"),
            store: store.clone(),
            live: LiveHub::default(),
            woken: Mutex::default(),
            births: Mutex::default(),
            stats: Mutex::default(),
            are_coming: Mutex::default(),
            at_next_wake: Mutex::default(),
        });
        let clock = Arc::new(SystemClock::default());
        let views = Arc::new(MemoryViews::new(store.clone()));
        let handlers = arrange(Handlers::new(store.clone(), views, host.clone(), clock.clone()));
        let closing = handlers.closing().clone();
        let builder = Mediator::builder(handlers.into_end(), clock, Arc::new(SeededDice::new(1)));
        let gateway = Gateway::new(configure(host.clone(), builder).build(), closing);
        let shutdown = CancellationToken::new();
        let config = DoorConfig { grace: Duration::from_secs(2), ..DoorConfig::default() };
        let listen = listen.parse().expect("a good address");
        let served = gateway.serve(&listen, config, shutdown.clone()).await.expect("a free port");
        let client = connect(&served.address, None).await;
        Self { store, host, client, address: served.address, beside: served.beside, gateway, shutdown }
    }

    /// Puts the program and submits it.
    pub(crate) async fn submitted(&self, name: &str) -> Workload {
        self.submitted_by(&self.client, name).await
    }

    pub(crate) async fn submitted_by(&self, client: &Client, name: &str) -> Workload {
        let answer = client.submit(submission(name)).await.expect("accepted");
        Workload {
            id: answer.workload_id.parse().expect("a workload id"),
            root: answer.root_agent_id.parse().expect("an agent id"),
        }
    }

    /// Writes facts as the owner of an agent.
    pub(crate) async fn writes(&self, agent: AgentId, events: Vec<AgentEvent>) {
        self.appends(agent, events, AgentState::Running, None).await;
    }

    /// Ends a workload by its root.
    pub(crate) async fn ends(&self, workload: Workload, value: &str) {
        self.ends_with(workload, Outcome::Ok(text(value))).await;
    }

    /// Ends a workload by its root, in whatever way.
    pub(crate) async fn ends_with(&self, workload: Workload, outcome: Outcome) {
        let state = if outcome.is_ok() { AgentState::Succeeded } else { AgentState::Failed };
        let spend = Spend { tokens_in: Tokens(5), tokens_out: Tokens(7), ..Spend::default() };
        let also = (
            StreamId::Workload(workload.id),
            vec![Fact::Workload(WorkloadEvent::Ended { outcome: outcome.clone(), spend })],
        );
        let ended = vec![AgentEvent::Ended { outcome, spend }];
        self.appends(workload.root, ended, state, Some(also)).await;
    }

    async fn appends(
        &self,
        agent: AgentId,
        events: Vec<AgentEvent>,
        state: AgentState,
        also: Option<(StreamId, Vec<Fact>)>,
    ) {
        append_as_owner(&self.store, agent, events, state, also).await;
    }

    /// Says a piece of a model's answer.
    pub(crate) fn says(&self, workload: Workload, seq: u64, offset: u64, text: &str) {
        self.host.live.publish(workload.id, || LivePiece {
            agent: workload.root,
            name: "main".into(),
            seq: Seq(seq),
            attempt: 1,
            offset,
            kind: LiveKind::Text,
            text: text.into(),
        });
    }
}

/// Writes facts as the owner of an agent.
pub(crate) async fn append_as_owner(
    store: &MemoryStore,
    agent: AgentId,
    events: Vec<AgentEvent>,
    state: AgentState,
    also: Option<(StreamId, Vec<Fact>)>,
) {
    let row = store.row(agent).await.expect("a row").expect("the agent exists");
    let append = Append {
        stream: StreamId::Agent(agent),
        guard: Guard::Owner(row.epoch),
        expected: row.version,
        stamp: Stamp { at: Timestamp(1_000), tenant: row.tenant, principal: PrincipalId::local(), trace: None },
        facts: events.into_iter().map(Fact::Agent).collect(),
        row: Some(RowChange { state, due: None }),
        takes: Vec::new(),
        posts: Vec::new(),
        births: Vec::new(),
        also,
    };
    for answer in store.append(vec![append]).await {
        answer.expect("the test owns the agent");
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) id: WorkloadId,
    pub(crate) root: AgentId,
}

pub(crate) async fn connect(address: &str, token: Option<&str>) -> Client {
    let patience = Patience { deadline: SOON, ..Patience::default() };
    let options = Options { token: token.map(str::to_owned), patience, ..Options::default() };
    Client::connect(address, options).await.expect("the door is open")
}

/// A submission of the program by its bytes; another name makes another request.
pub(crate) fn submission(name: &str) -> v1::WorkloadServiceSubmitRequest {
    use v1::workload_service_submit_request::Program;
    v1::WorkloadServiceSubmitRequest {
        name: name.to_owned(),
        program: Some(Program::Source(v1::Source { name: "main.nx".into(), text: SOURCE.into() })),
        input_json: r#"{"topic":"rain"}"#.into(),
        ..Default::default()
    }
}

/// A program in the language; what it does when it runs does not matter here.
pub(crate) const SOURCE: &str = "flow main(topic: str) -> str {\n    return topic\n}\n";

pub(crate) fn text(text: &str) -> Payload {
    codec::encode(&Value::Str(text.into()))
}

pub(crate) fn started() -> AgentEvent {
    AgentEvent::Started { node: NodeId::new("n1").expect("a good name"), epoch: nexa_types::Epoch(1) }
}

pub(crate) fn asks_model(seq: u64) -> Vec<AgentEvent> {
    vec![
        AgentEvent::EffectIntended {
            seq: Seq(seq),
            intent: Intent::Model {
                model: "local/small".into(),
                sources: vec![],
                reserved: Spend::default(),
                conversation: None,
            },
            fingerprint: [0; 32],
        },
        AgentEvent::EffectStarted { seq: Seq(seq), attempt: 1, epoch: nexa_types::Epoch(1) },
    ]
}

pub(crate) fn model_answers(seq: u64, text: &str) -> AgentEvent {
    let spend = Spend { tokens_in: Tokens(2), tokens_out: Tokens(3), calls: 1, ..Spend::default() };
    let reply = ModelReply {
        text: text.into(),
        finish: Finish::Stop,
        model: "local/small".into(),
        spend,
        tokens_left_out: Tokens(0),
        tool_calls: Vec::new(),
    };
    AgentEvent::EffectEnded { seq: Seq(seq), result: EffectResult::Done(Answer::Model(reply)), spend }
}

pub(crate) fn asks_person(seq: u64, question: &str) -> Vec<AgentEvent> {
    let request = ApprovalRequest { question: question.into(), data: Some("{\"cost\":3}".into()), timeout: None };
    vec![
        AgentEvent::EffectIntended { seq: Seq(seq), intent: Intent::Approval(request), fingerprint: [0; 32] },
        AgentEvent::EffectStarted { seq: Seq(seq), attempt: 1, epoch: nexa_types::Epoch(1) },
    ]
}

pub(crate) fn emits(seq: u64, value: &str) -> AgentEvent {
    AgentEvent::Emitted { seq: Seq(seq), channel: "main".into(), value: text(value) }
}

/// The reason of a refusal.
pub(crate) fn reason<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> &'static str {
    match answer {
        Ok(answer) => panic!("expected a refusal, got {answer:?}"),
        Err(error) => error.reason().unwrap_or_else(|| panic!("no reason in {error:?}")).as_str(),
    }
}

/// Every frame of a watch until its end.
pub(crate) async fn frames(watch: nexa_client::Watched) -> Vec<Frame> {
    tokio::time::timeout(SOON, watch.map(|frame| frame.expect("a frame")).collect()).await.expect("the watch ends")
}

/// The next frame that is no bookmark.
pub(crate) async fn next(watch: &mut nexa_client::Watched) -> Frame {
    loop {
        let frame =
            tokio::time::timeout(SOON, watch.next()).await.expect("in time").expect("a frame").expect("no error");
        if !matches!(frame, Frame::Bookmark(_)) {
            return frame;
        }
    }
}

/// One word a frame.
pub(crate) fn word(frame: &Frame) -> String {
    use v1::watch_event::Event;
    match frame {
        Frame::Snapshot(_) => "snapshot".into(),
        Frame::Bookmark(_) => "bookmark".into(),
        Frame::Lagged(lagged) => format!("lagged {}", lagged.chunks),
        Frame::Chunk(chunk) => format!("chunk {}+{} {}", chunk.effect_seq, chunk.offset, chunk.text),
        Frame::Event(event) => match event.event.as_ref().expect("a fact") {
            Event::WorkloadSubmitted(_) => "workload submitted".into(),
            Event::WorkloadCancelRequested(_) => "cancel requested".into(),
            Event::WorkloadEnded(_) => "workload ended".into(),
            Event::AgentSpawned(_) => "spawned".into(),
            Event::AgentStarted(_) => "started".into(),
            Event::AgentEnded(_) => "ended".into(),
            Event::EffectIntended(effect) => format!("intended {}", effect.effect_seq),
            Event::EffectStarted(effect) => format!("effect {} started", effect.effect_seq),
            Event::EffectEnded(effect) => format!("effect {} ended", effect.effect_seq),
            Event::ValueEmitted(value) => format!("emitted {}", value.value_json),
            Event::ApprovalRequested(approval) => format!("asked {}", approval.question),
            other => format!("{other:?}"),
        },
    }
}
