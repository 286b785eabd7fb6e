//! Runs programs with a scripted model, so that tests read as a script and what came of it.
//!
//! Children run inside the call that started them, so a whole program runs in one go. With [`Desk::stepping`] every
//! instruction ends a slice, and at each the VM goes through a snapshot: what the program does must not change.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::sync::Arc;

use nexa_event::effect::{
    Answer, Decision, EffectBody, Finish, Join, MemoryScope, ModelReply, ModelRequest, Purpose, Role,
};
use nexa_lang::diagnostic::Colour;
use nexa_lang::{CompileResult, compile, compile_text};
use nexa_types::{Failure, Millis, Outcome, Payload, RunCode, Spend, Timestamp, Tokens};
use nexa_vm::module::Module;
use nexa_vm::value::Value;
use nexa_vm::{Limits, Program, Stop, Vm};

/// Slices of one run; far more than any of these programs needs.
const SLICES_MAX: u32 = 1_000_000;

/// What a scripted model answers.
#[derive(Clone, Debug)]
pub(crate) enum Turn {
    Says(String),
    Fails(RunCode),
}

/// Several turns are used one a request; a single one is used for every request.
#[derive(Debug, Default)]
struct Script {
    turns: Vec<Turn>,
    used: usize,
}

/// A program on the desk: its script, and what it did.
pub(crate) struct Desk {
    program: Arc<Program>,
    scripts: BTreeMap<String, Script>,
    decisions: Vec<Decision>,
    is_stepping: bool,
    /// Agents in the order in which they were asked, with what they were asked.
    pub(crate) calls: Vec<String>,
    pub(crate) inputs: Vec<(String, String)>,
    /// Questions to the model that no agent asks, by what they are scripted under.
    pub(crate) asks: Vec<String>,
    pub(crate) requests: Vec<ModelRequest>,
    /// Everything that happened, a line each.
    pub(crate) trace: Vec<String>,
    pub(crate) logs: Vec<String>,
    pub(crate) emitted: Vec<String>,
    /// The names of children, in the order in which they were started.
    pub(crate) children: Vec<String>,
    pub(crate) clock: u64,
    memories: BTreeMap<MemoryScope, BTreeMap<String, Payload>>,
}

/// The shared file of the conformance programs.
pub(crate) const COMMON: &str = r#"
agent A { prompt: "First view." }
agent B { prompt: "Second view." }
agent C { prompt: "Third view.", retry: { max: 0 } }
agent M(parts: list[str]) { prompt: "Combine the parts." }
protocol Ruling { agreed: bool, value: str, reason: str }
agent J(parts: list[str]) -> Ruling { prompt: "Do they agree?" }
"#;

/// Compiles a program that uses `common.nx`.
pub(crate) fn with_common(text: &str) -> CompileResult {
    let files = BTreeMap::from([
        ("main.nx".to_owned(), format!("use \"common.nx\"\n{text}").into_bytes()),
        ("common.nx".to_owned(), COMMON.as_bytes().to_vec()),
    ]);
    compile("main.nx", &files)
}

impl Desk {
    /// A program that uses the shared file.
    pub(crate) fn common(text: &str) -> Self {
        Self::of(with_common(text))
    }

    /// A program of one file.
    pub(crate) fn program(text: &str) -> Self {
        Self::of(compile_text("main.nx", text))
    }

    fn of(result: CompileResult) -> Self {
        assert!(!result.has_errors(), "{}", result.render(Colour::Off));
        Self::module(result.module.expect("no error, so a module"))
    }

    pub(crate) fn module(module: Module) -> Self {
        let bytes = module.encode();
        let program = Program::load(&bytes).unwrap_or_else(|error| panic!("{error:?}\n{}", module.dump()));
        Desk {
            program: Arc::new(program),
            scripts: BTreeMap::new(),
            decisions: Vec::new(),
            is_stepping: false,
            calls: Vec::new(),
            inputs: Vec::new(),
            asks: Vec::new(),
            requests: Vec::new(),
            trace: Vec::new(),
            logs: Vec::new(),
            emitted: Vec::new(),
            children: Vec::new(),
            clock: 0,
            memories: BTreeMap::new(),
        }
    }

    /// From now on every instruction ends a slice, and every slice goes through a snapshot.
    pub(crate) fn stepping(mut self) -> Self {
        self.is_stepping = true;
        self
    }

    /// An agent's answers, or those to a question: `semantic …`, `intent`, `judge`, `reflect`.
    pub(crate) fn script(mut self, agent: &str, turns: &[&str]) -> Self {
        let script = self.scripts.entry(agent.to_owned()).or_default();
        script.turns.extend(turns.iter().map(|turn| match turn.strip_prefix("fail:") {
            Some(code) => Turn::Fails(code.parse().expect("a run-time code")),
            None => Turn::Says((*turn).to_owned()),
        }));
        self
    }

    pub(crate) fn decide(mut self, approved: bool, by: &str, note: &str) -> Self {
        self.decisions.push(Decision { approved, by: by.to_owned(), note: note.to_owned() });
        self
    }

    /// Runs an entry and gives its value as JSON, or its failure as `code: message`.
    pub(crate) fn run(&mut self, entry: &str, args: &[Value]) -> String {
        let module = self.program.module();
        let entry = module.entries.iter().find(|known| known.name == entry).expect("there is such an entry");
        let mut args = args.to_vec();
        for param in entry.params.iter().skip(args.len()) {
            let default = param.default.as_ref().expect("a parameter without an argument has a default");
            args.push(nexa_vm::codec::decode_bytes(default).expect("a default is an encoded value"));
        }
        let outcome = self.drive(entry.function, args, 0);
        shown(&outcome)
    }

    fn drive(&mut self, function: u32, args: Vec<Value>, depth: usize) -> Outcome {
        let mut vm = Vm::start(Arc::clone(&self.program), function, args, Limits::default()).expect("it starts");
        for _ in 0..SLICES_MAX {
            let stop = vm.run(if self.is_stepping { 1 } else { 10_000 });
            if self.is_stepping {
                let bytes = vm.snapshot();
                vm = Vm::restore(Arc::clone(&self.program), &bytes).expect("a snapshot can be restored");
                assert_eq!(vm.snapshot(), bytes, "equal states make equal snapshots");
            }
            match stop {
                Stop::OutOfFuel => {}
                Stop::Ended(outcome) => return outcome,
                Stop::Effect(request) => {
                    let answer = self.answer(request.body, request.seq, depth);
                    vm.resume(request.seq, answer).expect("the answer fits");
                }
            }
        }
        panic!("the program does not end");
    }

    fn answer(&mut self, body: EffectBody, seq: nexa_types::Seq, depth: usize) -> Result<Answer, Failure> {
        let indent = "  ".repeat(depth);
        let mut note = |line: String| self.trace.push(format!("{indent}{seq} {line}"));
        match body {
            EffectBody::Now => Ok(Answer::Now(Timestamp(self.clock))),
            EffectBody::Random { low, .. } => Ok(Answer::Random(low)),
            EffectBody::Log(line) => {
                note(format!("log {line}"));
                self.logs.push(line);
                Ok(Answer::Done)
            }
            EffectBody::Emit { channel, value } => {
                let value = nexa_vm::codec::decode(&value).expect("an emitted value");
                let line = format!("{channel}: {}", nexa_vm::json::to_json(&value));
                note(format!("emit {line}"));
                self.emitted.push(line);
                Ok(Answer::Done)
            }
            EffectBody::Remember(entry) => {
                note(format!("remember {}", entry.key));
                let memory = self.memories.entry(entry.scope).or_default();
                match entry.value {
                    Some(value) => drop(memory.insert(entry.key, value)),
                    None => drop(memory.remove(&entry.key)),
                }
                Ok(Answer::Done)
            }
            EffectBody::Recall(request) => {
                note(format!("recall {:?}", request.what));
                let memory = self.memories.entry(request.scope).or_default();
                let entries = memory.iter().map(|(key, value)| (key.as_str(), value));
                Ok(Answer::Memory(nexa_vm::recall::look_up(&request.what, entries)))
            }
            EffectBody::Sleep(Millis(span)) => {
                note(format!("sleep {span}"));
                self.clock += span;
                Ok(Answer::Done)
            }
            EffectBody::Test(_) => panic!("tests run in nexa-harness"),
            EffectBody::Approval(request) => {
                note(format!("approve {} {}", request.question, request.data.unwrap_or_default()));
                assert!(!self.decisions.is_empty(), "a decision for {}", request.question);
                Ok(Answer::Approval(self.decisions.remove(0)))
            }
            EffectBody::Children { branches, join } => {
                let mut outcomes = Vec::new();
                if join == Join::Detached {
                    for child in branches {
                        self.trace.push(format!("{indent}{seq} detached {}", child.name));
                    }
                    return Ok(Answer::Done);
                }
                let wanted = if let Join::FirstOk(wanted) = join { usize::from(wanted) } else { usize::MAX };
                for child in branches {
                    // Those that nobody waits for any more have not begun.
                    if outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Ok(_))).count() == wanted {
                        break;
                    }
                    self.trace.push(format!("{indent}{seq} child {}", child.name));
                    self.children.push(child.name.clone());
                    let Value::List(args) = nexa_vm::codec::decode(&child.args).expect("encoded arguments") else {
                        panic!("arguments are a list")
                    };
                    outcomes.push(self.drive(child.entry, args.to_vec(), depth + 1));
                }
                let mut ok = outcomes.iter().filter_map(|outcome| match outcome {
                    Outcome::Ok(value) => Some(value.clone()),
                    Outcome::Err(_) => None,
                });
                let first = ok.next();
                match first {
                    Some(first) if 1 + ok.count() >= wanted => Ok(Answer::Value(first)),
                    _ => Ok(Answer::Children(outcomes)),
                }
            }
            EffectBody::Tool(request) => {
                note(format!("call {} {}", request.tool, request.args));
                self.calls.push(request.tool.clone());
                match self.turn(&request.tool)? {
                    Answer::Model(reply) => {
                        let value = nexa_vm::json::from_json(&reply.text).expect("a tool is scripted with JSON");
                        Ok(Answer::Value(nexa_vm::codec::encode(&value)))
                    }
                    other => Ok(other),
                }
            }
            EffectBody::Deadline(_)
            | EffectBody::Await(_)
            | EffectBody::Send { .. }
            | EffectBody::Receive { .. }
            | EffectBody::Cancel(_)
            | EffectBody::Timer(_)
            | EffectBody::Release(_) => panic!("this desk runs nobody beside the program"),
            EffectBody::Model(request) => {
                let target = match &request.purpose {
                    Purpose::Agent => request.agent.clone(),
                    Purpose::Semantic { question } => format!("semantic {question}"),
                    Purpose::Intent => "intent".to_owned(),
                    Purpose::Judge => "judge".to_owned(),
                    Purpose::Reflect => "reflect".to_owned(),
                };
                let last = request.messages.last().expect("a message");
                assert!(matches!(last.role, Role::User | Role::Tool), "the last word is the user's or a tool's");
                note(format!(
                    "{}ask {target} [{}] {}",
                    if request.stream { "stream " } else { "" },
                    request.model,
                    last.text
                ));
                if request.purpose == Purpose::Agent {
                    self.calls.push(target.clone());
                    self.inputs.push((target.clone(), last.text.clone()));
                } else {
                    self.asks.push(target.clone());
                }
                self.requests.push(*request);
                self.turn(&target)
            }
        }
    }

    fn turn(&mut self, agent: &str) -> Result<Answer, Failure> {
        let script = self.scripts.get_mut(agent).unwrap_or_else(|| panic!("a script for {agent}"));
        let turn = match script.turns.as_slice() {
            [only] => Some(only.clone()),
            turns => turns.get(script.used).cloned(),
        };
        script.used += 1;
        match turn {
            None => Err(Failure::new(RunCode::ScriptExhausted, "the script has ended")),
            Some(Turn::Fails(code)) => Err(Failure::new(code, "as scripted")),
            Some(Turn::Says(text)) => Ok(Answer::Model(ModelReply {
                text,
                finish: Finish::Stop,
                model: "script/script".to_owned(),
                spend: Spend { calls: 1, ..Spend::default() },
                tokens_left_out: Tokens(0),
                tool_calls: Vec::new(),
            })),
        }
    }
}

/// A text as a value.
pub(crate) fn str(text: &str) -> Value {
    Value::Str(text.into())
}

fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok(payload) => nexa_vm::json::to_json(&nexa_vm::codec::decode(payload).expect("an encoded result")),
        Outcome::Err(failure) => format!("{}: {}", failure.code, failure.message),
    }
}

/// Runs a program twice, once instruction by instruction through snapshots; both do the same.
pub(crate) fn both_ways(make: impl Fn() -> Desk, entry: &str, args: &[Value]) -> (String, Desk) {
    let (mut whole, mut stepped) = (make(), make().stepping());
    let outcome = whole.run(entry, args);
    assert_eq!(stepped.run(entry, args), outcome, "stepping changes nothing");
    assert_eq!(stepped.trace, whole.trace, "stepping changes nothing");
    (outcome, whole)
}
