//! A desk to run programs on: fixed programs, and a driver that answers effects by a rule.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod damage;
pub(crate) mod programs;

use std::sync::Arc;

use nexa_event::effect::{Answer, Decision, EffectBody, Finish, Handle, Join, ModelReply};
use nexa_types::{AgentId, Failure, Outcome, RunCode, Spend, Timestamp, Tokens};
use nexa_vm::value::Value;
use nexa_vm::{Limits, Program, Stop, Vm, codec, json};

/// How a run looked from outside.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trace {
    pub(crate) effects: Vec<String>,
    pub(crate) outcome: Outcome,
}

/// Where a run is snapshotted and restored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Restore {
    Never,
    AtEverySafepoint,
}

/// Runs a function to its end, answering every effect as [`answer`] says.
pub(crate) fn run(program: &Arc<Program>, function: u32, args: Vec<Value>, fuel: u64, restore: Restore) -> Trace {
    let mut vm = Vm::start(Arc::clone(program), function, args, Limits::default()).unwrap();
    let mut effects = Vec::new();
    for _ in 0..200_000 {
        let stop = vm.run(fuel);
        if restore == Restore::AtEverySafepoint {
            let bytes = vm.snapshot();
            let restored = Vm::restore(Arc::clone(program), &bytes).unwrap();
            assert_eq!(restored.snapshot(), bytes, "a restored machine has another snapshot");
            assert_eq!(restored.pending(), vm.pending());
            assert_eq!(restored.next_seq(), vm.next_seq());
            vm = restored;
        }
        match stop {
            Stop::Ended(outcome) => return Trace { effects, outcome },
            Stop::OutOfFuel => {}
            Stop::Effect(request) => {
                assert_eq!(vm.pending().as_ref(), Some(&request));
                effects.push(format!("{} {:?}", request.seq, request.body));
                let answer = answer(program, &request.body, request.seq.0);
                vm.resume(request.seq, answer).unwrap();
            }
        }
    }
    panic!("the program does not end");
}

/// What the world answers: children are really run, a model says what it was asked last, a person approves.
pub(crate) fn answer(program: &Arc<Program>, body: &EffectBody, seq: u64) -> Result<Answer, Failure> {
    Ok(match body {
        EffectBody::Now => Answer::Now(Timestamp(1_000 * seq)),
        EffectBody::Random { low, .. } => Answer::Random(*low),
        EffectBody::Log(_) | EffectBody::Emit { .. } | EffectBody::Sleep(_) | EffectBody::Remember(_) => Answer::Done,
        EffectBody::Children { branches, join: Join::Handle } => {
            Answer::Started(AgentId::from_bytes([branches.len() as u8; 16]))
        }
        EffectBody::Await(Handle { agent: Some(_), .. }) => {
            Answer::Children(vec![Outcome::Ok(codec::encode(&Value::Int(seq as i64)))])
        }
        EffectBody::Receive { .. } => Answer::Message(codec::encode(&Value::Int(seq as i64))),
        EffectBody::Deadline(_) => Answer::Now(Timestamp(seq)),
        EffectBody::Await(_)
        | EffectBody::Send { .. }
        | EffectBody::Cancel(_)
        | EffectBody::Timer(_)
        | EffectBody::Release(_) => Answer::Done,
        // A memory that has the same whatever was stored in it.
        EffectBody::Recall(request) => {
            let kept = codec::encode(&Value::Str("kept".into()));
            Answer::Memory(nexa_vm::recall::look_up(&request.what, [("key", &kept)]))
        }
        EffectBody::Children { branches, join: Join::Detached } => {
            for branch in branches {
                let Ok(Value::List(args)) = codec::decode(&branch.args) else { panic!("arguments that are no list") };
                run(program, branch.entry, args.to_vec(), 10_000, Restore::Never);
            }
            Answer::Done
        }
        EffectBody::Children { branches, join } => {
            let outcomes = branches.iter().map(|branch| {
                let Ok(Value::List(args)) = codec::decode(&branch.args) else { panic!("arguments that are no list") };
                run(program, branch.entry, args.to_vec(), 10_000, Restore::Never).outcome
            });
            let outcomes: Vec<Outcome> = outcomes.collect();
            let mut ok = outcomes.iter().filter_map(|outcome| match outcome {
                Outcome::Ok(value) => Some(value.clone()),
                Outcome::Err(_) => None,
            });
            match (join, ok.next()) {
                (Join::FirstOk(wanted), Some(first)) if 1 + ok.count() >= usize::from(*wanted) => Answer::Value(first),
                _ => Answer::Children(outcomes),
            }
        }
        EffectBody::Model(request) => {
            let last = request.messages.last().map(|message| message.text.clone()).unwrap_or_default();
            if last == "fail" {
                return Err(Failure::new(RunCode::Unavailable, "no route"));
            }
            let spend = Spend { tokens_in: Tokens(7), tokens_out: Tokens(3), calls: 1, ..Spend::default() };
            Answer::Model(ModelReply {
                text: format!("re: {last}"),
                finish: Finish::Stop,
                model: "test/echo".to_owned(),
                spend,
                tokens_left_out: Tokens(0),
                tool_calls: Vec::new(),
            })
        }
        EffectBody::Test(_) => panic!("nobody tests here"),
        EffectBody::Approval(_) => {
            Answer::Approval(Decision { approved: true, by: "ada".to_owned(), note: String::new() })
        }
        EffectBody::Tool(request) if request.args.contains("fail") => {
            return Err(Failure::new(RunCode::ToolFailed, "it says no"));
        }
        EffectBody::Tool(request) => {
            Answer::Value(codec::encode(&text(&format!("{}: {}", request.tool, request.args))))
        }
    })
}

/// The value that a trace ended with, as JSON, or its failure's code and place.
pub(crate) fn end(trace: &Trace) -> String {
    match &trace.outcome {
        Outcome::Ok(payload) => json::to_json(&codec::decode(payload).unwrap()),
        Outcome::Err(failure) => format!("{failure}"),
    }
}

pub(crate) fn text(text: &str) -> Value {
    Value::Str(text.into())
}

pub(crate) fn list(values: impl IntoIterator<Item = Value>) -> Value {
    Value::List(Arc::new(values.into_iter().collect()))
}

/// What holds of the task graph of every entry, whoever made the module.
#[allow(dead_code, reason = "not every test looks at graphs")]
pub(crate) fn check_tasks(module: &nexa_vm::module::Module) {
    for entry in module.entries.iter().take(16) {
        let tasks = module.tasks(entry);
        assert!((1..=nexa_vm::module::tasks::TASKS_MAX).contains(&tasks.len()), "{} tasks", tasks.len());
        let mut ids = std::collections::BTreeSet::new();
        for (place, task) in tasks.iter().enumerate() {
            assert!(ids.insert(task.id.as_str()), "{} is there twice", task.id);
            assert!(task.deps.iter().all(|dep| (*dep as usize) < place), "{} waits for what comes later", task.id);
        }
    }
}
