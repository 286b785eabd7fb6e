//! Stored bytes of every kind, kept for ever: whatever was written by an earlier build must be read by this one.
//!
//! A file in `golden/` is named by the format since which there is such a thing, and what is in it. It is never changed; a new variant gets a new file,
//! which `NEXA_GOLDEN=add cargo test -p nexa-event --test golden` writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;

use minicbor::{Decode, Encode};
use nexa_event::asks::{Asks, Gang};
use nexa_event::codec::{DecodeError, decode, encode};
use nexa_event::effect::{
    ActionStatistics, Answer, ApprovalRequest, ChildSpec, Conversation, ConversationScope, Decision, Finish, Heard,
    Join, MemoryScope, ModelReply, RecallRequest, Remembered, Risk, Role, SearchReply, SearchRequest, SearchSettings,
    SearchStatistics, Source, ToolCall, ToolEffect, Wanted,
};
use nexa_event::envelope::{self, FORMAT, Fact, Header, Link, TraceContext};
use nexa_event::fact::{
    AgentEvent, ChildBorn, ClusterEvent, EffectResult, Input, Intent, ItemSchedule, ListItem, OnFailure, Parent,
    Program, Spawned, WaitOn, WorkloadEvent,
};
use nexa_event::formats::{FORGETTING, Formats};
use nexa_event::inbox;
use nexa_types::{
    AgentId, BlobHash, Budget, EffectKey, Epoch, Failure, InputId, Millis, ModuleHash, NodeId, Outcome, Payload,
    PrincipalId, RequestId, RunCode, Seq, Spend, StreamId, TenantId, Timestamp, Tokens, UsdMicro, Version, WorkloadId,
};

/// Makes a function that names a variant, and the list of all names. A new variant does not compile without a name
/// here, and a name without a sample fails the test.
macro_rules! variants {
    ($($function:ident($type:ident) in $all:ident { $($variant:ident),* $(,)? })*) => {$(
        fn $function(value: &$type) -> &'static str {
            match value { $($type::$variant { .. } => stringify!($variant),)* }
        }
        const $all: &[&str] = &[$(stringify!($variant)),*];
    )*};
}

variants! {
    agent_event(AgentEvent) in AGENT_EVENTS {
        Spawned, Started, EffectIntended, EffectStarted, EffectEnded, ChildrenSpawned, ChildEnded, TimerSet,
        TimerFired, Emitted, MessageReceived, CancelReceived, DeadlinePassed, ChildrenCancelled, Ended, Quarantined,
        TakenOver, EffectLost, WaitBegan, MessageSent, MailTaken, CreditReceived, MemoryStored, ScopeExpired,
        Interrupted, Detached, Adopted, Concluded, DetachedFailed,
    }
    workload_event(WorkloadEvent) in WORKLOAD_EVENTS { Submitted, CancelRequested, Ended }
    cluster_event(ClusterEvent) in CLUSTER_EVENTS { ProgramPut, AgentForgotten }
    fact(Fact) in FACTS { Agent, Workload, Cluster }
    input(Input) in INPUTS { ChildEnded, Answered, Message, Cancel, Passed, Credit, Detached }
    program(Program) in PROGRAMS { Function, List }
    intent(Intent) in INTENTS { Model, Approval, Recall, Tool }
    effect_result(EffectResult) in EFFECT_RESULTS { Done, Failed, Unknown }
    answer(Answer) in ANSWERS { Done, Now, Random, Children, Model, Approval, Tested, Started, Message, Memory, Value }
    outcome(Outcome) in OUTCOMES { Ok, Err }
    stream(StreamId) in STREAMS { Agent, Workload, Cluster }
    source(Source) in SOURCES { Program, Answer, Derived }
    join(Join) in JOINS { All, None, Handle, FirstOk, Detached }
    on_failure(OnFailure) in ON_FAILURES { FailFast, SkipDependents, Continue }
    finish(Finish) in FINISHES { Stop, Length, ToolCalls, Filtered }
}

fn all_named<T>(samples: &[T], name: fn(&T) -> &'static str, all: &[&str]) {
    let found: BTreeSet<&str> = samples.iter().map(name).collect();
    assert_eq!(found, all.iter().copied().collect(), "a variant has no sample");
}

fn payload(text: &str) -> Payload {
    Payload::new([&[0x60 + text.len() as u8], text.as_bytes()].concat())
}

fn workload() -> WorkloadId {
    WorkloadId::from_bytes([1; 16])
}

fn agent() -> AgentId {
    AgentId::root(workload())
}

fn node() -> NodeId {
    NodeId::new("node-1").expect("a good name")
}

fn spend() -> Spend {
    Spend { tokens_in: Tokens(900), tokens_out: Tokens(70), cost: UsdMicro(1_234), calls: 2, steps: 3 }
}

fn budget() -> Budget {
    Budget {
        tokens: Some(Tokens(10_000)),
        cost: Some(UsdMicro(500_000)),
        time: Some(Millis(60_000)),
        calls: None,
        steps: Some(8),
    }
}

fn failure() -> Failure {
    Failure {
        code: RunCode::OutputInvalid,
        message: "the answer is no record".into(),
        at: "review.nx:12".into(),
        data: Some(payload("more")),
        cause: Some(Box::new(Failure::new(RunCode::RateLimited, "slow down"))),
    }
}

fn outcomes() -> Vec<Outcome> {
    let samples = vec![Outcome::Ok(payload("value")), Outcome::Err(failure())];
    all_named(&samples, outcome, OUTCOMES);
    samples
}

fn child_spec() -> ChildSpec {
    ChildSpec {
        name: "Reviewer".into(),
        entry: 4,
        args: payload("args"),
        budget: budget(),
        timeout: Some(Millis(30_000)),
        asks: None,
    }
}

fn approval() -> ApprovalRequest {
    ApprovalRequest { question: "Send it?".into(), data: Some("{\"to\":\"all\"}".into()), timeout: Some(Millis(9_000)) }
}

fn answers() -> Vec<Answer> {
    let finishes = [Finish::Stop, Finish::Length, Finish::ToolCalls, Finish::Filtered];
    all_named(&finishes, finish, FINISHES);
    let reply = |finish| {
        Answer::Model(ModelReply {
            text: "Dear reader,".into(),
            finish,
            model: "embedded/smol".into(),
            spend: spend(),
            tokens_left_out: Tokens(5),
            tool_calls: vec![],
        })
    };
    let mut samples = vec![
        Answer::Done,
        Answer::Now(Timestamp(1_700_000_000_000)),
        Answer::Random(-7),
        Answer::Children(outcomes()),
        Answer::Approval(Decision { approved: true, by: "ada".into(), note: "fine".into() }),
    ];
    samples.extend(finishes.map(reply));
    let all: Vec<Answer> = samples.iter().cloned().chain(later_answers()).collect();
    all_named(&all, answer, ANSWERS);
    samples
}

/// Answers that came after files were numbered; theirs stand after all others. Add at the end.
fn later_answers() -> Vec<Answer> {
    vec![
        Answer::Tested(payload("value")),
        Answer::Started(agent()),
        Answer::Message(payload("hi")),
        Answer::Memory(Some(payload("kept"))),
        Answer::Memory(None),
        Answer::Value(payload("value")),
    ]
}

fn effect_results() -> Vec<EffectResult> {
    let mut samples: Vec<EffectResult> = answers().into_iter().map(EffectResult::Done).collect();
    samples.extend([EffectResult::Failed(failure()), EffectResult::Unknown(failure())]);
    all_named(&samples, effect_result, EFFECT_RESULTS);
    samples
}

/// An answer with calls, which answers from before there were tools do not have.
fn calling() -> Answer {
    let call = |id: &str, arguments: &str| ToolCall { id: id.into(), name: "find".into(), arguments: arguments.into() };
    Answer::Model(ModelReply {
        text: String::new(),
        finish: Finish::ToolCalls,
        model: "acme/large".into(),
        spend: spend(),
        tokens_left_out: Tokens(0),
        tool_calls: vec![call("call-1", "{}"), call("call-2", r#"{"q":"cats"}"#)],
    })
}

fn programs() -> Vec<Program> {
    let module = ModuleHash::from_bytes([2; 32]);
    let rules = [OnFailure::FailFast, OnFailure::SkipDependents, OnFailure::Continue];
    all_named(&rules, on_failure, ON_FAILURES);
    let item = |id: &str, after: Vec<u32>| ListItem {
        id: id.into(),
        entry: 1,
        input: payload("in"),
        after,
        budget: budget(),
        timeout: None,
        schedule: None,
    };
    let items = || vec![item("a", vec![]), item("b", vec![0])];
    let list = |on_failure| Program::List { module, items: items(), on_failure, turns: None };
    let mut samples = vec![Program::Function { module, entry: 3, args: payload("args") }];
    samples.extend(rules.map(list));
    all_named(&samples, program, PROGRAMS);
    samples
}

/// A list whose items say what a scheduler wants to know, and start by turn.
fn scheduled_list() -> Program {
    let item = |id: &str, schedule| ListItem {
        id: id.into(),
        entry: 1,
        input: payload("in"),
        after: vec![],
        budget: Budget::default(),
        timeout: Some(Millis(60_000)),
        schedule,
    };
    let schedule = ItemSchedule {
        priority: Some(200),
        estimate: Some(Millis(5_000)),
        weight_milli: Some(2_500),
        gang: Some("readers".into()),
        cpu_milli: Some(500),
        memory_bytes: Some(16 << 20),
        llm_slots: Some(2),
        labels: Some(BTreeMap::from([("zone".into(), "eu".into())])),
    };
    let estimate = ItemSchedule { estimate: Some(Millis(1)), ..ItemSchedule::default() };
    Program::List {
        module: ModuleHash::from_bytes([2; 32]),
        items: vec![item("a", None), item("b", Some(schedule)), item("c", Some(estimate))],
        on_failure: OnFailure::FailFast,
        turns: Some(vec![2, 0, 1]),
    }
}

fn spawned(program: Program) -> AgentEvent {
    AgentEvent::Spawned(Spawned {
        workload: workload(),
        name: "main".into(),
        parent: Some(Parent { agent: agent(), seq: Seq(2), branch: 1 }),
        program,
        budget: budget(),
        deadline: Some(Timestamp(1_700_000_100_000)),
        seed: 42,
        depth: 1,
        priority: 200,
        asks: None,
    })
}

fn asks() -> Asks {
    Asks {
        labels: BTreeMap::from([("gpu".into(), "yes".into()), ("zone".into(), "eu".into())]),
        cpu_milli: Some(4_000),
        memory_bytes: Some(64 << 20),
        gang: Some(Gang { name: "readers".into(), members: 3 }),
        until: Some(Timestamp(1_700_000_200_000)),
    }
}

/// An agent that asks for something of its node.
fn asking(program: Program) -> AgentEvent {
    match spawned(program) {
        AgentEvent::Spawned(first) => AgentEvent::Spawned(Spawned { asks: Some(asks()), ..first }),
        other => other,
    }
}

/// The first fact of an agent as builds knew it that did not know what agents ask for.
#[derive(Debug, PartialEq, Decode)]
struct SpawnedBefore {
    #[n(0)]
    workload: WorkloadId,
    #[n(1)]
    name: String,
    #[n(7)]
    depth: u32,
    #[n(8)]
    priority: u8,
}

#[test]
fn builds_that_do_not_know_what_agents_ask_for_pass_over_it() {
    let first = |asks| match spawned(programs().remove(0)) {
        AgentEvent::Spawned(first) => Spawned { asks, ..first },
        other => panic!("not a birth: {other:?}"),
    };
    let (plain, asking) = (encode(&first(None)), encode(&first(Some(asks()))));
    assert!(asking.len() > plain.len());
    let [plain, asking] = [plain, asking].map(|bytes| decode::<SpawnedBefore>(&bytes));
    assert_eq!(plain.expect("it is read"), asking.expect("it is read as well"));
}

fn intents() -> Vec<Intent> {
    let sources = vec![Source::Program, Source::Answer(Seq(1)), Source::Derived];
    all_named(&sources, source, SOURCES);
    let model = Intent::Model { model: "embedded/smol".into(), sources, reserved: spend(), conversation: None };
    let samples = vec![model, Intent::Approval(approval())];
    let all: Vec<Intent> = samples.iter().cloned().chain(later_intents()).collect();
    all_named(&all, intent, INTENTS);
    samples
}

fn conversation() -> Conversation {
    let heard = |role, text: &str| Heard { role, text: text.into() };
    Conversation {
        scope: ConversationScope::Workload,
        name: "Guide".into(),
        page_size: 8,
        heard: vec![heard(Role::User, "hi"), heard(Role::Tool, "{\"n\":1}")],
        sent: Some(vec![0, 3, 4]),
        before: 5,
    }
}

fn remembered(conversation: Option<Conversation>) -> Intent {
    Intent::Model { model: "local/small".into(), sources: vec![Source::Program], reserved: spend(), conversation }
}

/// The intent of a request as builds knew it that did not know of memory.
#[derive(Debug, PartialEq, Decode)]
enum IntentBefore {
    #[n(0)]
    Model {
        #[n(0)]
        model: String,
        #[n(1)]
        sources: Vec<Source>,
        #[n(2)]
        reserved: Spend,
    },
}

#[test]
fn builds_that_do_not_know_of_memory_pass_over_it() {
    let (plain, kept) = (encode(&remembered(None)), encode(&remembered(Some(conversation()))));
    assert!(kept.len() > plain.len());
    let [plain, kept] = [plain, kept].map(|bytes| decode::<IntentBefore>(&bytes));
    assert_eq!(plain.expect("it is read"), kept.expect("it is read as well"));
}

/// Intents that came after files were numbered. Add at the end.
fn later_intents() -> Vec<Intent> {
    let best = Wanted::Best { query: "tea".into(), count: 5 };
    vec![
        Intent::Recall(RecallRequest { scope: MemoryScope::Workload, what: Wanted::Key("who".into()) }),
        Intent::Recall(RecallRequest { scope: MemoryScope::Tenant, what: best }),
        Intent::Tool {
            tool: "find".into(),
            source: "mcp(\"docs\", name: \"find\")".into(),
            preview: "{\"q\":\"cats\"}".into(),
            risk: Risk::High,
            effect: ToolEffect::Read,
            key: Some("cats".into()),
        },
    ]
}

fn agent_events() -> Vec<AgentEvent> {
    let (seq, branch, epoch, spend) = (Seq(3), 1, Epoch(2), spend());
    let joins = [Join::All, Join::None];
    all_named(&[Join::All, Join::None, Join::Handle, Join::FirstOk(2), Join::Detached], join, JOINS);
    let born = || vec![ChildBorn { agent: AgentId::child(agent(), Seq(3), 0), spec: child_spec(), granted: budget() }];
    let mut samples: Vec<AgentEvent> = programs().into_iter().map(spawned).collect();
    samples.push(AgentEvent::Started { node: node(), epoch });
    samples.extend(intents().into_iter().map(|intent| AgentEvent::EffectIntended {
        seq,
        intent,
        fingerprint: [9; 32],
    }));
    samples.push(AgentEvent::EffectStarted { seq, attempt: 1, epoch });
    samples.extend(effect_results().into_iter().map(|result| AgentEvent::EffectEnded { seq, result, spend }));
    samples.extend(joins.map(|join| AgentEvent::ChildrenSpawned { seq, join, children: born() }));
    samples.extend(outcomes().into_iter().map(|outcome| AgentEvent::ChildEnded {
        seq,
        branch,
        outcome,
        spend,
        handed_over: None,
    }));
    samples.extend([
        AgentEvent::TimerSet { seq, due: Timestamp(1_700_000_000_500) },
        AgentEvent::TimerFired { seq },
        AgentEvent::Emitted { seq, channel: "main".into(), value: payload("value") },
        AgentEvent::MessageReceived {
            input: InputId::from_bytes([5; 16]),
            from: "user:ada".into(),
            value: payload("hi"),
            number: None,
        },
        AgentEvent::CancelReceived { reason: "enough".into() },
        AgentEvent::DeadlinePassed,
        AgentEvent::ChildrenCancelled { children: vec![AgentId::child(agent(), Seq(3), 0)] },
        AgentEvent::Quarantined { reason: "it ended two nodes".into() },
        AgentEvent::TakenOver { node: node(), epoch, carried: None },
    ]);
    samples.extend(outcomes().into_iter().map(|outcome| AgentEvent::Ended { outcome, spend }));
    samples.push(AgentEvent::EffectEnded { seq, result: EffectResult::Done(calling()), spend });
    let later = later_answers().into_iter().map(EffectResult::Done);
    samples.extend(later.map(|result| AgentEvent::EffectEnded { seq, result, spend }));
    samples.push(AgentEvent::ChildrenSpawned { seq, join: Join::Handle, children: born() });
    let waits = [WaitOn::Child(Seq(2)), WaitOn::Timer, WaitOn::Message, WaitOn::Room(Seq(2))];
    samples.extend(waits.map(|on| AgentEvent::WaitBegan { seq, on, due: None }));
    samples.extend([
        AgentEvent::WaitBegan { seq, on: WaitOn::Message, due: Some(Timestamp(1_700_000_000_500)) },
        AgentEvent::MessageReceived {
            input: InputId::from_bytes([5; 16]),
            from: agent().to_string(),
            value: payload("hi"),
            number: Some(7),
        },
        AgentEvent::MessageSent { seq, to: agent(), number: 7 },
        AgentEvent::EffectLost { seq },
        AgentEvent::MailTaken { seq, count: 2 },
        AgentEvent::CreditReceived { seq, branch, taken: 512 },
        AgentEvent::ScopeExpired { seq },
        AgentEvent::Interrupted { seq, code: None },
        AgentEvent::Interrupted { seq, code: Some(RunCode::BudgetExceeded) },
        AgentEvent::WaitBegan { seq, on: WaitOn::Budget, due: None },
    ]);
    let fingerprint = [9; 32];
    samples.extend(later_intents().into_iter().map(|intent| AgentEvent::EffectIntended { seq, intent, fingerprint }));
    samples.extend([Some(payload("value")), None].map(|value| AgentEvent::MemoryStored {
        seq,
        entry: Remembered { scope: MemoryScope::Workload, key: "who".into(), value },
    }));
    samples.push(AgentEvent::ChildrenSpawned { seq, join: Join::FirstOk(2), children: born() });
    samples.push(AgentEvent::ChildrenSpawned { seq, join: Join::Detached, children: born() });
    let (outcome, handed_over) = (Outcome::Ok(payload("hi")), Some(budget()));
    samples.push(AgentEvent::ChildEnded { seq, branch, outcome, spend, handed_over });
    let (from, name) = (AgentId::child(agent(), Seq(3), 0), "Writer".to_owned());
    samples.extend([
        AgentEvent::Detached { seq, branches: vec![name.clone()] },
        AgentEvent::Adopted { from, depth: 2, branches: vec![child_spec()] },
        AgentEvent::Concluded { outcome: Outcome::Ok(payload("hi")) },
        AgentEvent::DetachedFailed { name, agent: Some(from), failure: failure() },
        spawned(scheduled_list()),
        AgentEvent::TakenOver { node: node(), epoch, carried: Some(NodeId::new("n1").expect("a good name")) },
    ]);
    let spec = ChildSpec { asks: Some(asks()), ..child_spec() };
    let children = vec![ChildBorn { agent: from, spec, granted: budget() }];
    samples.extend([AgentEvent::ChildrenSpawned { seq, join: Join::None, children }, asking(scheduled_list())]);
    let intent = remembered(Some(conversation()));
    samples.push(AgentEvent::EffectIntended { seq, intent, fingerprint });
    all_named(&samples, agent_event, AGENT_EVENTS);
    samples
}

fn workload_events() -> Vec<WorkloadEvent> {
    let mut samples = vec![
        WorkloadEvent::Submitted {
            request: RequestId::from_bytes([3; 16]),
            request_hash: [4; 32],
            name: "review".into(),
            root: agent(),
            budget: budget(),
            priority: 100,
        },
        WorkloadEvent::CancelRequested { reason: "enough".into() },
    ];
    samples.extend(outcomes().into_iter().map(|outcome| WorkloadEvent::Ended { outcome, spend: spend() }));
    all_named(&samples, workload_event, WORKLOAD_EVENTS);
    samples
}

fn cluster_events() -> Vec<ClusterEvent> {
    let (module, blob) = (ModuleHash::from_bytes([2; 32]), BlobHash::from_bytes([6; 32]));
    let samples = vec![ClusterEvent::ProgramPut { module, blob, name: "review".into() }, forgotten()];
    all_named(&samples, cluster_event, CLUSTER_EVENTS);
    samples
}

fn forgotten() -> ClusterEvent {
    ClusterEvent::AgentForgotten { agent: agent(), up_to: Version(12) }
}

/// What concerns a tenant as builds knew it that read format 1.
#[derive(Debug, PartialEq, Decode)]
enum ClusterEventBefore {
    #[n(0)]
    ProgramPut {
        #[n(2)]
        name: String,
    },
}

#[test]
fn builds_of_format_1_say_that_they_are_older_than_what_says_that_an_agent_is_forgotten() {
    let put = cluster_events().remove(0);
    assert_eq!(decode(&encode(&put)), Ok(ClusterEventBefore::ProgramPut { name: "review".into() }));
    assert!(decode::<ClusterEventBefore>(&encode(&forgotten())).is_err(), "so it needs a new format");
    let header = Header { format: FORGETTING, ..headers().pop().expect("that of a tenant is the last") };
    let sealed = envelope::seal(Link::START, &header, &Fact::Cluster(forgotten()));
    let opened = |newest| {
        let reads = Formats { oldest: 1, newest };
        envelope::open_of(reads, Link::START, &sealed.header, &sealed.payload, sealed.link)
    };
    assert_eq!(opened(1), Err(DecodeError::NewerFormat { found: 2, known: 1 }));
    assert_eq!(opened(FORMAT).map(|envelope| envelope.fact), Ok(Fact::Cluster(forgotten())));
}

fn inputs() -> Vec<Input> {
    let (seq, branch, spend) = (Seq(3), 1, spend());
    let key = EffectKey::of(workload(), agent(), seq);
    let mut samples: Vec<Input> = outcomes()
        .into_iter()
        .map(|outcome| Input::ChildEnded { seq, branch, outcome, spend, handed_over: None })
        .collect();
    samples.extend([
        Input::Answered { seq, key, result: EffectResult::Failed(failure()) },
        Input::Message { from: "user:ada".into(), value: payload("hi") },
        Input::Cancel { reason: "enough".into(), epoch: Epoch(3) },
        Input::Passed { number: 7, value: payload("hi") },
        Input::Credit { seq, branch, taken: 512 },
        Input::ChildEnded { seq, branch, outcome: Outcome::Ok(payload("hi")), spend, handed_over: Some(budget()) },
        Input::Detached { from: AgentId::child(agent(), seq, 0), depth: 2, branches: vec![child_spec()] },
    ]);
    all_named(&samples, input, INPUTS);
    samples
}

/// An input as it waits in an inbox, with the trace of whoever sent it.
#[derive(Debug, PartialEq)]
struct Waiting(Input);

fn sender() -> TraceContext {
    TraceContext { trace: [7; 16], span: [8; 8] }
}

impl Encode<()> for Waiting {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut (),
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.writer_mut().write_all(&inbox::encode(&self.0, Some(&sender()))).map_err(minicbor::encode::Error::write)
    }
}

impl<'b> Decode<'b, ()> for Waiting {
    fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut ()) -> Result<Self, minicbor::decode::Error> {
        let bytes = decoder.input();
        decoder.skip()?;
        let (input, trace) = inbox::decode(bytes).map_err(minicbor::decode::Error::custom)?;
        assert_eq!(trace, Some(sender()));
        Ok(Self(input))
    }
}

#[test]
fn builds_that_do_not_know_of_traces_in_inboxes_pass_over_them() {
    for input in inputs() {
        let (plain, traced) = (inbox::encode(&input, None), inbox::encode(&input, Some(&sender())));
        assert_eq!(plain, encode(&input), "without a trace they are the bytes that those builds write");
        assert_eq!(inbox::decode(&plain), Ok((input.clone(), None)), "and theirs are read");
        assert!(traced.len() > plain.len());
        // What those builds do with what waits in an inbox.
        assert_eq!(decode::<Input>(&traced), Ok(input));
    }
}

fn headers() -> Vec<Header> {
    let tenant = TenantId::new("team-a").expect("a good name");
    let streams = [StreamId::Agent(agent()), StreamId::Workload(workload()), StreamId::Cluster(tenant.clone())];
    all_named(&streams, stream, STREAMS);
    let header = |stream: StreamId| Header {
        format: 1,
        epoch: matches!(stream, StreamId::Agent(_)).then_some(Epoch(2)),
        trace: matches!(stream, StreamId::Agent(_)).then_some(TraceContext { trace: [7; 16], span: [8; 8] }),
        stream,
        version: Version(12),
        at: Timestamp(1_700_000_000_000),
        tenant: tenant.clone(),
        principal: PrincipalId::new("user:ada").expect("a good name"),
    };
    streams.into_iter().map(header).collect()
}

/// Nothing asks for a search yet; whoever does will find these bytes.
fn search() -> (SearchRequest, SearchReply) {
    let settings = SearchSettings::default();
    let weights = settings.score;
    let sum = weights.progress + weights.safety + weights.efficiency + weights.reversibility;
    assert!((sum - 1.0).abs() < 1e-12, "the weights are parts of one");
    let request = SearchRequest {
        goal: "tidy up".into(),
        state: payload("now"),
        actions: vec![payload("a"), payload("b")],
        tools: vec!["files.read".into()],
        settings,
    };
    let tried = |action, visits, mean| ActionStatistics { action: payload(action), visits, mean };
    let statistics =
        SearchStatistics { iterations: 32, nodes: 41, actions: vec![tried("a", 20, 0.75), tried("b", 12, 0.5)] };
    (request, SearchReply { action: payload("a"), statistics })
}

/// The format since which there is something of this name.
fn since(name: &str) -> u16 {
    match name {
        "AgentForgotten" => FORGETTING,
        _ => 1,
    }
}

/// Compares samples with their files, which are numbered by their order among those of the same name.
fn check<T>(kind: &str, samples: &[T], name: fn(&T) -> &'static str, used: &mut BTreeSet<String>)
where
    T: Debug + PartialEq + Encode<()> + for<'b> Decode<'b, ()>,
{
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut counts = std::collections::BTreeMap::new();
    for sample in samples {
        let count = counts.entry(name(sample)).or_insert(0);
        *count += 1;
        let file = format!("{}-{kind}-{}-{count}.hex", since(name(sample)), name(sample));
        let path = directory.join(&file);
        let written: String = encode(sample).iter().map(|byte| format!("{byte:02x}")).collect();
        if !path.exists() && std::env::var_os("NEXA_GOLDEN").is_some_and(|wish| wish == "add") {
            std::fs::write(&path, format!("{written}\n")).expect("the directory is there");
        }
        let stored = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{file}: {error}; a new variant needs its file, see the header"));
        let stored = stored.trim();
        let bytes: Vec<u8> = (0..stored.len() / 2)
            .map(|at| u8::from_str_radix(&stored[2 * at..2 * at + 2], 16).expect("hex digits"))
            .collect();
        let read: T = decode(&bytes).unwrap_or_else(|error| panic!("{file} cannot be read any more: {error}"));
        assert_eq!(&read, sample, "{file} means something else now");
        assert_eq!(format!("{read:?}"), format!("{sample:?}"), "{file}");
        assert_eq!(written, stored, "{file}: the same value is written in other bytes now; that needs a new format");
        used.insert(file);
    }
}

#[test]
fn what_earlier_builds_wrote_is_read_and_written_the_same() {
    assert_eq!(FORMAT, 3, "a new format keeps these files and gets files of its own");
    let mut used = BTreeSet::new();
    let facts: Vec<Fact> = (agent_events().into_iter().map(Fact::Agent))
        .chain(workload_events().into_iter().map(Fact::Workload))
        .chain(cluster_events().into_iter().map(Fact::Cluster))
        .collect();
    all_named(&facts, fact, FACTS);
    check("fact", &facts, fact_name, &mut used);
    check("input", &inputs(), input, &mut used);
    let waiting: Vec<Waiting> = inputs().into_iter().map(Waiting).collect();
    check("waiting", &waiting, |waiting| input(&waiting.0), &mut used);
    check("header", &headers(), |header| stream(&header.stream), &mut used);
    let (request, reply) = search();
    check("search", &[request], |_| "request", &mut used);
    check("search", &[reply], |_| "reply", &mut used);
    check("codes", &[RunCode::ALL.to_vec()], |_| "all", &mut used);

    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let there: BTreeSet<String> = std::fs::read_dir(directory)
        .expect("the directory is there")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(there, used, "each file belongs to a sample and is never removed");
}

fn fact_name(value: &Fact) -> &'static str {
    match value {
        Fact::Agent(event) => agent_event(event),
        Fact::Workload(WorkloadEvent::Submitted { .. }) => "WorkloadSubmitted",
        Fact::Workload(WorkloadEvent::CancelRequested { .. }) => "WorkloadCancelRequested",
        Fact::Workload(WorkloadEvent::Ended { .. }) => "WorkloadEnded",
        Fact::Cluster(event) => cluster_event(event),
    }
}
