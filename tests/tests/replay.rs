//! Every example is one and the same run, however often it is stopped, and whoever reads it again needs no model.
//!
//! Each example is driven here on the pure agent, without a node: with normal fuel, and with fuel 1, where an agent is
//! turned into bytes and back after every step. Then the real thing runs it, and its streams are replayed.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nexa_agent::{Agent, Input, OutsideEffect, Step, describe};
use nexa_event::codec;
use nexa_event::effect::{Answer, ApprovalRequest, Decision, EffectBody, Finish, ModelReply};
use nexa_event::envelope::Fact;
use nexa_event::fact::{self, AgentEvent, ClusterEvent, EffectResult, Intent, Spawned};
use nexa_lang::diagnostic::Colour;
use nexa_lang::{FileLoader, LoadError};
use nexa_llm::script::{Say, Script, Seating};
use nexa_ports::store::{AgentRow, Rows, Store};
use nexa_store::SqliteStore;
use nexa_tests::{Desk, Process, root};
use nexa_types::limits::SLICE_FUEL;
use nexa_types::{
    AgentId, BlobHash, Budget, Epoch, Failure, GlobalSeq, InputId, Millis, ModuleHash, NodeId, Outcome, Payload,
    RequestId, Seq, Spend, StreamId, TenantId, Timestamp, Tokens, Version, Waiting, WorkloadId,
};
use nexa_vm::module::Module;
use nexa_vm::value::{Key, Value};
use nexa_vm::vm::Program;

/// Steps that no example needs.
const STEPS_MAX: usize = 1_000_000;
/// When the driven runs begin.
const DAWN: Timestamp = Timestamp(1_800_000_000_000);

/// One run of an example. Rules answer the same agent the same way, so that no order of branches matters.
struct Job {
    file: &'static str,
    name: &'static str,
    input: &'static str,
    script: &'static str,
    /// What a person says to every question.
    approves: bool,
    succeeds: bool,
}

const JOBS: &[Job] = &[
    Job {
        file: "hello/hello.nx",
        name: "a flow without agents",
        input: r#"{"name":"Ada","text":"one two two three three three"}"#,
        script: "",
        approves: true,
        succeeds: true,
    },
    Job {
        file: "review/review.nx",
        name: "four agents, and a verdict that needs repair",
        input: r#"{"document":"Whoever reads this agrees to what stands below, and below stands nothing.","characters":40}"#,
        script: r#"
            script Clarity => "The second sentence is hard to find, because there is none."
            script Risk => "A reader may agree to nothing."
            script Style => "It could be shorter."
            script Chief => ["no verdict at all", { title: "Nothing", summary: "It says nothing.", points: ["It is short."], score: 3 }]
        "#,
        approves: true,
        succeeds: true,
    },
    Job {
        file: "review/review.nx",
        name: "a reviewer that is refused",
        input: r#"{"document":"A text."}"#,
        script: r#"
            script Clarity => "Clear."
            script Risk => fail("refused")
            script Style => "Fine."
            script Chief => { title: "T", summary: "S", points: [], score: 5 }
        "#,
        approves: true,
        succeeds: false,
    },
    Job {
        file: "batch/batch.nx",
        name: "pairs, and one that is left over",
        input: r#"{"items":["apple","hammer","oak","trout","lamp"]}"#,
        script: r#"script Label => " thing ""#,
        approves: true,
        succeeds: true,
    },
    Job {
        file: "approval/approval.nx",
        name: "a person who agrees",
        input: r#"{"letter":"Shall we meet on Sunday?","cooling_off":5}"#,
        script: r#"script Draft => "Yes, gladly.""#,
        approves: true,
        succeeds: true,
    },
    Job {
        file: "approval/approval.nx",
        name: "a person who does not",
        input: r#"{"letter":"Shall we meet on Sunday?","cooling_off":5}"#,
        script: r#"script Draft => "Yes, gladly.""#,
        approves: false,
        succeeds: true,
    },
];

fn examples() -> PathBuf {
    root().join("examples")
}

struct Folder(PathBuf);

impl FileLoader for Folder {
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        std::fs::read(self.0.join(path)).map_err(|_| LoadError::NotFound)
    }
}

/// The module of an example.
fn compile(file: &Path) -> Module {
    let folder = Folder(file.parent().expect("a file lies in a folder").to_path_buf());
    let name = file.file_name().expect("a file has a name").to_string_lossy();
    let result = nexa_lang::compile(&name, &folder);
    let told = result.render(Colour::Never);
    result.module.unwrap_or_else(|| panic!("{} does not compile:\n{told}", file.display()))
}

impl Job {
    fn path(&self) -> PathBuf {
        examples().join(self.file)
    }

    fn script(&self) -> Script {
        Script::parse(self.script).unwrap_or_else(|error| panic!("the script of `{}`: {error}", self.name))
    }

    fn decision(&self) -> Decision {
        let note = if self.approves { "" } else { "not in this tone" };
        Decision { approved: self.approves, by: "ann".to_owned(), note: note.to_owned() }
    }

    /// The first event of the run, as a node would write it.
    fn birth(&self, program: &Program, workload: WorkloadId) -> Spawned {
        let module = program.module();
        let main = module.entries.iter().find(|entry| entry.name == "main").expect("an example has a main");
        let Ok(Value::Dict(given)) = nexa_vm::json::from_json(self.input) else { panic!("{}: no object", self.name) };
        let value = |param: &nexa_vm::module::EntryParam| {
            let found = given.entries.iter().find(|(key, _)| matches!(key, Key::Str(name) if **name == *param.name));
            match (found, &param.default) {
                (Some((_, value)), _) => nexa_vm::json::validate(module, param.ty, value).expect("the input fits"),
                (None, default) => {
                    let default = default.as_ref().expect("a parameter without a value has a default");
                    nexa_vm::codec::decode_bytes(default).expect("a default is a value")
                }
            }
        };
        let values: Vec<Value> = main.params.iter().map(value).collect();
        let args: Payload = nexa_vm::codec::encode(&Value::List(values.into()));
        Spawned {
            workload,
            name: "main".to_owned(),
            parent: None,
            program: fact::Program::Function { module: program.hash(), entry: main.function, args },
            budget: Budget::default(),
            deadline: None,
            seed: 7,
            depth: 0,
            priority: 128,
        }
    }
}

/// One agent of a driven run.
struct Seat {
    agent: Agent,
    stream: Vec<(AgentEvent, Timestamp)>,
    logs: Vec<String>,
    inbox: VecDeque<(InputId, fact::Input)>,
    flying: Option<OutsideEffect>,
    due: Option<Timestamp>,
    more: bool,
}

/// All agents of a driven run, and everybody who answers them. Time passes with every input and in no other way.
struct Stage<'j> {
    job: &'j Job,
    program: Arc<Program>,
    script: Script,
    seating: Seating,
    fuel: u64,
    /// Whether an agent becomes bytes and is made of them again after every step.
    freezes: bool,
    freezes_done: usize,
    now: Timestamp,
    seats: BTreeMap<AgentId, Seat>,
    births: Vec<AgentId>,
}

/// What brings a run further.
enum Act {
    GoOn,
    Begin,
    Read,
    Answer,
    Decide(Seq),
    Wait(Timestamp),
}

impl<'j> Stage<'j> {
    fn new(job: &'j Job, program: &Arc<Program>, fuel: u64, freezes: bool) -> Self {
        let workload = WorkloadId::of(&TenantId::local(), RequestId::from_bytes([1; 16]));
        let mut stage = Self {
            job,
            program: Arc::clone(program),
            script: job.script(),
            seating: Seating::default(),
            fuel,
            freezes,
            freezes_done: 0,
            now: DAWN,
            seats: BTreeMap::new(),
            births: Vec::new(),
        };
        stage.seat(AgentId::root(workload), job.birth(program, workload));
        stage
    }

    fn seat(&mut self, id: AgentId, first: Spawned) {
        let agent = Agent::born(id, &first, Arc::clone(&self.program)).expect("it is the right module");
        let stream = vec![(AgentEvent::Spawned(first), self.now)];
        let inbox = VecDeque::new();
        let seat = Seat { agent, stream, logs: Vec::new(), inbox, flying: None, due: None, more: false };
        assert!(self.seats.insert(id, seat).is_none(), "{id} is born twice");
        self.births.push(id);
    }

    /// Runs all agents to their ends.
    fn play(mut self) -> Self {
        for _ in 0..STEPS_MAX {
            let Some((id, act)) = self.next() else { return self };
            if !matches!(act, Act::GoOn) {
                self.now = self.now.after(Millis(1));
            }
            let input = match act {
                Act::GoOn => Input::Continue,
                Act::Begin => Input::Start { node: NodeId::new("stage").expect("a name"), epoch: Epoch(1) },
                Act::Read => {
                    let (entry, input) = self.at(id).inbox.pop_front().expect("the inbox has an entry");
                    Input::Inbox(entry, input)
                }
                Act::Answer => self.answer(id),
                Act::Decide(seq) => {
                    let key = self.at(id).agent.effect_key(seq);
                    let result = EffectResult::Done(Answer::Approval(self.job.decision()));
                    Input::Inbox(InputId::answer(key), fact::Input::Answered { seq, key, result })
                }
                Act::Wait(due) => {
                    self.now = self.now.max(due);
                    Input::Due
                }
            };
            self.step(id, input);
        }
        panic!("`{}` does not end", self.job.name);
    }

    fn at(&mut self, id: AgentId) -> &mut Seat {
        self.seats.get_mut(&id).expect("the agent was born")
    }

    /// Who computes goes on first, so that the order of all else is the same whatever the fuel.
    fn next(&self) -> Option<(AgentId, Act)> {
        let computing = self.seats.iter().find(|(_, seat)| seat.more).map(|(id, _)| (*id, Act::GoOn));
        computing.or_else(|| self.seats.iter().find_map(|(id, seat)| Some((*id, seat.next()?))))
    }

    fn step(&mut self, id: AgentId, input: Input) {
        let (now, fuel) = (self.now, self.fuel);
        let seat = self.at(id);
        let Step { facts, births, posts, wish, logs, ended, due, more, .. } = seat.agent.step(input, now, fuel);
        seat.stream.extend(facts.into_iter().map(|event| (event, now)));
        seat.logs.extend(logs);
        (seat.due, seat.more) = (due, more);
        assert_eq!(ended.is_some(), seat.agent.end().is_some(), "`ended` is said with the step that ends");
        self.freeze(id);
        for (child, first) in births {
            self.seat(child, first);
        }
        for (to, entry, input) in posts {
            self.at(to).inbox.push_back((entry, input));
        }
        if let Some(wish) = wish {
            let seat = self.at(id);
            let ticket = seat.agent.start_effect(wish.seq).expect("what is wished for can be started");
            seat.stream.push((ticket, now));
            seat.flying = Some(wish);
            self.freeze(id);
        }
    }

    /// Stops the agent, and goes on with another one made of its bytes.
    fn freeze(&mut self, id: AgentId) {
        if !self.freezes {
            return;
        }
        let program = Arc::clone(&self.program);
        self.freezes_done += 1;
        let seat = self.at(id);
        let bytes = seat.agent.snapshot();
        seat.agent = Agent::restore(&bytes, program).expect("what was just written can be read");
        assert_eq!(seat.agent.snapshot(), bytes, "equal agents make equal bytes");
    }

    /// What the script says to the request in flight.
    fn answer(&mut self, id: AgentId) -> Input {
        let OutsideEffect { seq, key, attempt, body, .. } = self.at(id).flying.take().expect("a request is in flight");
        let EffectBody::Model(request) = body else { panic!("only models have wishes") };
        let turn = self.script.next_turn(&mut self.seating, &request.agent, key);
        let turn = turn.unwrap_or_else(|miss| panic!("`{}`: {miss}", self.job.name));
        let spend = Spend { tokens_in: Tokens(3), tokens_out: Tokens(2), calls: 1, ..Spend::default() };
        let result = match &turn.say {
            Say::Text(text) => EffectResult::Done(Answer::Model(ModelReply {
                text: text.clone(),
                finish: Finish::Stop,
                model: "script/script".to_owned(),
                spend,
                tokens_left_out: Tokens(0),
            })),
            Say::Fail(code) => EffectResult::Failed(Failure::new(*code, "the script says so")),
        };
        Input::EffectEnded { seq, attempt, result, spend }
    }

    /// All facts of all agents as bytes, in order of birth, and what they logged.
    fn trace(&self) -> Vec<(AgentId, Vec<u8>, Vec<String>)> {
        let trace = |id: &AgentId| {
            let seat = &self.seats[id];
            let bytes = seat.stream.iter().flat_map(|(event, _)| codec::encode(event)).collect();
            (*id, bytes, seat.logs.clone())
        };
        self.births.iter().map(trace).collect()
    }

    /// The same for people, shown when traces differ.
    fn told(&self) -> String {
        let line = |id, (event, at): &(AgentEvent, Timestamp)| format!("{id} {at} {}\n", describe(event));
        self.births.iter().flat_map(|id| self.seats[id].stream.iter().map(move |entry| line(id, entry))).collect()
    }

    fn outcome(&self) -> Outcome {
        self.seats[&self.births[0]].agent.end().expect("the run has ended").outcome.clone()
    }
}

impl Seat {
    fn next(&self) -> Option<Act> {
        let state = self.agent.state();
        if state.is_terminal() {
            return None;
        }
        if !self.inbox.is_empty() {
            return Some(Act::Read);
        }
        if state == nexa_types::AgentState::Placed {
            return Some(Act::Begin);
        }
        if self.flying.is_some() {
            return Some(Act::Answer);
        }
        match state {
            nexa_types::AgentState::Waiting(Waiting::Approval) => self.asked().map(|(seq, _)| Act::Decide(seq)),
            nexa_types::AgentState::Waiting(Waiting::Timer) => self.due.map(Act::Wait),
            _ => None,
        }
    }

    fn asked(&self) -> Option<(Seq, &ApprovalRequest)> {
        self.stream.iter().rev().find_map(|(event, _)| match event {
            AgentEvent::EffectIntended { seq, intent: Intent::Approval(request), .. } => Some((*seq, request)),
            _ => None,
        })
    }
}

/// Makes an agent from its stream, with no model in reach.
fn replayed(id: AgentId, stream: &[(AgentEvent, Timestamp)], program: &Arc<Program>) -> Agent {
    let Some(((AgentEvent::Spawned(first), _), rest)) = stream.split_first() else {
        panic!("the stream of {id} does not begin with its birth");
    };
    let mut agent = Agent::born(id, first, Arc::clone(program)).expect("it is the right module");
    for (event, at) in rest {
        agent.replay(event, *at).unwrap_or_else(|error| panic!("{id}: {error}"));
    }
    agent
}

/// Files below a folder that end so.
fn files_below(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            files_below(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

#[test]
fn every_example_is_in_the_table() {
    let mut found = Vec::new();
    files_below(&examples(), "nx", &mut found);
    assert!(!found.is_empty());
    for file in found {
        let module = compile(&file);
        let is_program = module.entries.iter().any(|entry| entry.name == "main");
        let is_listed = JOBS.iter().any(|job| job.path() == file);
        assert!(
            !is_program || is_listed,
            "{} is not tested: give it an input and a script in the table of this file",
            file.display()
        );
    }
}

#[test]
fn an_agent_stopped_at_every_safepoint_leaves_the_same_trace() {
    for job in JOBS {
        let program = Arc::new(Program::load(&compile(&job.path()).encode()).expect("a compiled module loads"));
        let whole = Stage::new(job, &program, SLICE_FUEL, false).play();
        let pieces = Stage::new(job, &program, 1, true).play();
        assert_eq!(pieces.told(), whole.told(), "`{}` differs", job.name);
        assert_eq!(pieces.trace(), whole.trace(), "`{}` differs in its bytes", job.name);
        assert_eq!(matches!(whole.outcome(), Outcome::Ok(_)), job.succeeds, "`{}`: {:?}", job.name, whole.outcome());
        for (id, seat) in &whole.seats {
            assert!(seat.agent.end().is_some(), "`{}`: {id} has not ended", job.name);
            assert_eq!(pieces.seats[id].agent.snapshot(), seat.agent.snapshot());
        }
        println!("{}: {} agents, stopped {} times: {}", job.file, whole.seats.len(), pieces.freezes_done, job.name);
    }
}

#[test]
fn a_stream_is_replayed_without_a_model() {
    for job in JOBS {
        let program = Arc::new(Program::load(&compile(&job.path()).encode()).expect("a compiled module loads"));
        let stage = Stage::new(job, &program, SLICE_FUEL, false).play();
        for (id, seat) in &stage.seats {
            let again = replayed(*id, &seat.stream, &program);
            assert_eq!(again.snapshot(), seat.agent.snapshot(), "`{}`: {id}", job.name);
        }
    }
}

/// Runs a job with the binary, answers its questions, and gives its value.
fn run_for_real(job: &Job, desk: &Desk) -> serde_json::Value {
    let script = desk.write("script.nx", job.script);
    let file = job.path();
    let data = desk.path("data");
    let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
    let (file, script, data_text) = (text(&file), text(&script), text(&data));
    let args = ["run", &file, "--script", &script, "--input", job.input, "--data", &data_text, "-o", "json"];
    let mut process = Process::start(desk.nexa(&args));
    loop {
        let line = process.wait_for_line(|line| line.contains("approval_requested") || line.contains("\"end\""));
        let frame: serde_json::Value = serde_json::from_str(&line).expect("every line is JSON");
        if frame["frame"] == "end" {
            let status = process.wait();
            assert_eq!(status.success(), job.succeeds, "`{}`: {}", job.name, process.rest_of_err());
            return frame["workload"]["outcome"].clone();
        }
        if frame["event"] == "approval_requested" {
            let server = format!("unix:{}", data.join("nexa.sock").display());
            let id = frame["approval_id"].as_str().expect("a question has an id");
            let decision = job.decision();
            let mut args = vec!["approve", id, "--server", &server, "--note", &decision.note];
            args.extend(["--deny"].iter().filter(|_| !decision.approved));
            desk.run(&args).good();
        }
    }
}

/// What a data folder holds.
struct Kept {
    rows: Vec<AgentRow>,
    streams: BTreeMap<AgentId, Vec<(AgentEvent, Timestamp)>>,
    snapshots: BTreeMap<AgentId, (Version, Vec<u8>)>,
    programs: BTreeMap<ModuleHash, Arc<Program>>,
}

/// Reads all that a node left behind, as a node that knows nothing else would.
async fn kept(data: &Path) -> Kept {
    let store = SqliteStore::open(data, nexa_store::Options::default()).expect("the data can be opened");
    let mut blobs: BTreeMap<ModuleHash, BlobHash> = BTreeMap::new();
    let mut workloads = Vec::new();
    let mut after = GlobalSeq(0);
    loop {
        let facts = store.scan(None, after, 500).await.expect("the log can be read");
        let Some(last) = facts.last() else { break };
        after = last.position;
        for fact in facts {
            match (fact.envelope.fact, fact.envelope.header.stream) {
                (Fact::Cluster(ClusterEvent::ProgramPut { module, blob, .. }), _) => drop(blobs.insert(module, blob)),
                (Fact::Workload(fact::WorkloadEvent::Submitted { .. }), StreamId::Workload(id)) => workloads.push(id),
                _ => {}
            }
        }
    }
    let mut kept =
        Kept { rows: Vec::new(), streams: BTreeMap::new(), snapshots: BTreeMap::new(), programs: BTreeMap::new() };
    for (module, blob) in blobs {
        let bytes = store.blob(TenantId::local(), blob).await.expect("blobs can be read").expect("the blob is there");
        kept.programs.insert(module, Arc::new(Program::load(&bytes).expect("a stored module loads")));
    }
    for workload in workloads {
        kept.rows.extend(store.rows(Rows::Workload(workload), None, 10_000).await.expect("rows can be read"));
    }
    for row in &kept.rows {
        let facts = store.read(StreamId::Agent(row.agent), Version(0), 100_000).await.expect("streams can be read");
        let events = facts.into_iter().map(|fact| match fact.envelope.fact {
            Fact::Agent(event) => (event, fact.envelope.header.at),
            other => panic!("{other:?} in the stream of an agent"),
        });
        kept.streams.insert(row.agent, events.collect());
        if let Some(snapshot) = store.snapshot(row.agent).await.expect("snapshots can be read") {
            kept.snapshots.insert(row.agent, snapshot);
        }
    }
    kept
}

/// An outcome as `-o json` shows it: only what must not differ from run to run.
fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok(value) => nexa_vm::json::to_json(&nexa_vm::codec::decode(value).expect("an outcome has a value")),
        Outcome::Err(failure) => failure.code.to_string(),
    }
}

#[tokio::test]
async fn what_a_node_left_behind_is_replayed_without_a_model() {
    for job in JOBS {
        let desk = Desk::new();
        let outcome = run_for_real(job, &desk);
        let kept = kept(&desk.path("data")).await;
        let program = kept.programs.values().next().expect("the program was kept");
        let driven = Stage::new(job, program, SLICE_FUEL, false).play();
        assert_eq!(kept.rows.len(), driven.seats.len(), "`{}` has another number of agents", job.name);
        for row in &kept.rows {
            let stream = &kept.streams[&row.agent];
            let agent = replayed(row.agent, stream, program);
            let Some((AgentEvent::Ended { outcome, spend }, _)) = stream.last() else {
                panic!("`{}`: the last event of {} is not its end", job.name, row.agent);
            };
            let end = agent.end().expect("a replayed agent has ended too");
            assert_eq!((&end.outcome, &end.spend), (outcome, spend));
            assert_eq!((agent.state(), agent.version(), agent.due()), (row.state, row.version, row.due));
            if let Some((version, bytes)) = kept.snapshots.get(&row.agent) {
                let mut later = Agent::restore(bytes, Arc::clone(program)).expect("a kept snapshot can be restored");
                assert_eq!(later.version(), *version);
                for (event, at) in &stream[version.0 as usize..] {
                    later.replay(event, *at).expect("what came after the snapshot follows from it");
                }
                assert_eq!(later.snapshot(), agent.snapshot(), "the snapshot leads elsewhere than the stream");
            }
        }
        let root = kept.rows.iter().find(|row| matches!(&kept.streams[&row.agent][0].0, AgentEvent::Spawned(first) if first.parent.is_none()));
        let root = replayed(root.expect("one agent is the root").agent, &kept.streams[&root.expect("it was found").agent], program);
        let real = root.end().expect("it has ended").outcome.clone();
        let said = |outcome: &Outcome| shown(outcome).replace("local", "ann");
        assert_eq!(said(&real), said(&driven.outcome()), "`{}` ends differently on a node: {outcome}", job.name);
    }
}
