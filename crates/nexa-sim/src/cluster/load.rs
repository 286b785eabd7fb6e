//! The work that a simulated cluster is given: workloads with children, forks, messages, timers, models, and a tool that has an
//! effect.
//!
//! A client submits until the store says that it has taken it in, and looks where the answer is in doubt; from then on the
//! workload counts as accepted.

use std::sync::Arc;

use nexa_event::envelope::Fact;
use nexa_event::fact::{AgentEvent, Input, Program, Spawned, WorkloadEvent};
use nexa_ports::clock::Clock;
use nexa_ports::store::{Append, AppendError, Birth, Cancelled, Guard, Post, Stamp, Store};
use nexa_runtime::programs;
use nexa_types::*;
use nexa_vm::codec;
use nexa_vm::value::Value;

use super::Bug;
use super::process::VirtualClock;

/// Between two tries of a client.
const TRY_AGAIN: Millis = Millis(300);

/// What is left out is how often a call of the tool may be repeated.
const PROGRAM: &str = r##"
tool pay(what: str) -> str { source: builtin("sink.pay"), risk: "low", effect: "write", IDEMPOTENT }
agent Clerk { prompt: "Say it." }

fn word(paid: Result[str]) -> str => match paid { ok(_) => "paid", err(error) => error.code }

flow helper(name: str) -> str uses pay {
    let got = 0
    let n = 0
    while (n < 3) {
        n += 1
        let next: int = receive()
        got = got * 10 + next
    }
    let paid = try pay("#{name} helper #{got}")
    return "#{got + 1}:#{word(paid)}"
}

flow main(name: str, nap: int, rounds: int) -> str uses pay {
    let draft = name >> Clerk
    let first = try pay("#{name} first")
    let child = spawn helper(name)
    sleep(1ms * nap)
    pass 1 to child
    pass 2 to child
    pass 3 to child
    let mail = 0
    let m = 0
    while (m < 3) {
        m += 1
        let next: int = receive()
        mail = mail * 10 + next
    }
    let helped = await child
    let _ = draft |>> [Clerk, Clerk]
    let said = ""
    let n = 0
    while (n < rounds) {
        n += 1
        sleep(1ms * nap)
        let paid = try pay("#{name} round #{n}")
        said = "#{said} #{word(paid)}"
    }
    return "#{draft} #{mail} #{word(first)} #{helped}#{said}"
}
"##;

/// How long a workload takes beyond its naps at most where nothing goes wrong, for each of its calls and in all: a call waits
/// for others in its lane, is up to 600 ms on its way, and the store is asked a few times for each.
const CALL_MAX: Millis = Millis(900);
/// See [`CALL_MAX`].
const BEYOND_MAX: Millis = Millis(4_000);

/// What a program says of a call that was made.
const PAID: &str = "paid";
/// What it says of one of which nobody knows.
const UNKNOWN: &str = "outcome_unknown";

/// One workload: what it is asked, by which its end is judged.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) nap: Millis,
    pub(super) rounds: i64,
    /// So long after it was accepted its client wants it to end.
    pub(super) cancelled_after: Option<Millis>,
}

impl Job {
    pub(super) fn workload(&self) -> WorkloadId {
        WorkloadId::of(&TenantId::local(), self.request())
    }

    fn request(&self) -> RequestId {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        RequestId::from_bytes(bytes)
    }

    fn name(&self) -> String {
        format!("w{}", self.number)
    }

    /// In so much time it has ended where nothing goes wrong.
    pub(super) fn takes_at_most(&self) -> Millis {
        let rounds = self.rounds.unsigned_abs();
        Millis((1 + MAIL.len() as u64 + rounds) * self.nap.0 + (3 + rounds) * CALL_MAX.0 + BEYOND_MAX.0)
    }

    /// Its calls of the tool: what is asked for, and what it says has become of it; an error says how its end is wrong.
    pub(super) fn calls(&self, outcome: &Outcome) -> Result<Vec<(String, bool)>, String> {
        let payload = match outcome {
            Outcome::Ok(payload) => payload,
            Outcome::Err(failure) if failure.code == RunCode::Cancelled && self.cancelled_after.is_some() => {
                return Ok(Vec::new());
            }
            Outcome::Err(failure) => return Err(failure.to_string()),
        };
        let Ok(Value::Str(text)) = codec::decode(payload) else { return Err("its value is no text".to_owned()) };
        let name = self.name();
        let wrong = || format!("`{text}`");
        let mut words = text.split(' ');
        if words.next() != Some(format!("<{name}>").as_str()) {
            return Err(wrong());
        }
        // Each message of its client once, and in order.
        if words.next() != Some("456") {
            return Err(wrong());
        }
        let mut calls = vec![(format!("{name} first"), words.next())];
        calls.push((format!("{name} helper 123"), words.next().and_then(|word| word.strip_prefix("124:"))));
        calls.extend((1..=self.rounds).map(|n| (format!("{name} round {n}"), words.next())));
        let judged = calls.into_iter().map(|(what, word)| match word {
            Some(PAID) => Ok((what, true)),
            Some(UNKNOWN) => Ok((what, false)),
            _ => Err(wrong()),
        });
        let judged: Result<Vec<_>, _> = judged.collect();
        if words.next().is_some() { Err(wrong()) } else { judged }
    }
}

/// A program, put where every node finds it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Put {
    module: ModuleHash,
    entry: u32,
}

/// Puts the program.
pub(super) async fn put(store: &dyn Store, now: Timestamp, bug: Option<Bug>) -> Result<Put, String> {
    let may_repeat = bug == Some(Bug::BlindRetry);
    let text = PROGRAM.replace("IDEMPOTENT", if may_repeat { "idempotent: true" } else { "idempotent: false" });
    let compiled = nexa_lang::compile_text("load.nx", &text);
    let module = compiled.module.ok_or_else(|| format!("the load does not compile: {:?}", compiled.diagnostics))?;
    let main = module.entries.iter().find(|entry| entry.name == "main").ok_or("the load has no `main`")?;
    let put = programs::put(store, &TenantId::local(), &module, "load", stamp(now)).await;
    Ok(Put { module: put.map_err(|error| error.to_string())?, entry: main.function })
}

fn stamp(at: Timestamp) -> Stamp {
    Stamp { at, tenant: TenantId::local(), principal: PrincipalId::local(), trace: None }
}

/// Submits a workload until it is accepted.
pub(super) async fn submit(store: Arc<dyn Store>, clock: Arc<VirtualClock>, put: Put, job: &Job) {
    let workload = job.workload();
    let root = AgentId::root(workload);
    let args = vec![
        Value::Str(job.name().into()),
        Value::Int(i64::try_from(job.nap.0).unwrap_or(i64::MAX)),
        Value::Int(job.rounds),
    ];
    let spawned = Spawned {
        workload,
        name: "main".into(),
        parent: None,
        program: Program::Function {
            module: put.module,
            entry: put.entry,
            args: codec::encode(&Value::List(Arc::new(args))),
        },
        budget: Budget::default(),
        deadline: None,
        seed: job.number,
        depth: 0,
        priority: 100,
        asks: None,
    };
    let submitted = WorkloadEvent::Submitted {
        request: job.request(),
        request_hash: [0; 32],
        name: job.name(),
        root,
        budget: Budget::default(),
        priority: 100,
    };
    let birth =
        Birth { agent: root, workload, node: None, priority: 100, first: Fact::Agent(AgentEvent::Spawned(spawned)) };
    loop {
        let append = Append {
            stream: StreamId::Workload(workload),
            guard: Guard::Version,
            expected: Version(0),
            stamp: stamp(clock.now()),
            facts: vec![Fact::Workload(submitted.clone())],
            row: None,
            takes: Vec::new(),
            posts: Vec::new(),
            births: vec![birth.clone()],
            also: None,
        };
        match store.append(vec![append]).await.pop() {
            // A conflict says that an earlier try was stored.
            Some(Ok(_) | Err(AppendError::VersionConflict { .. })) => return,
            _ => clock.wait_until(clock.now().after(TRY_AGAIN)).await,
        }
    }
}

/// What a client sends to a workload, in order.
pub(super) const MAIL: [i64; 3] = [4, 5, 6];

/// Sends a workload its mail, each until the store says that it has it or nobody is there any more.
pub(super) async fn mail(store: Arc<dyn Store>, clock: Arc<VirtualClock>, job: &Job) {
    let root = AgentId::root(job.workload());
    for number in MAIL {
        let request = RequestId::from_bytes(u128::from(number.unsigned_abs()).to_be_bytes());
        let value = codec::encode(&Value::Int(number));
        let input = Input::Message { from: "its client".into(), value };
        let post = Post { to: root, id: InputId::message(root, request), input, trace: None };
        while store.post(post.clone(), stamp(clock.now())).await.is_err() {
            clock.wait_until(clock.now().after(TRY_AGAIN)).await;
        }
        clock.wait_until(clock.now().after(job.nap)).await;
    }
}

/// Has a workload cancelled, until the store says that it is, or has ended; gives whether it is.
pub(super) async fn cancel(store: Arc<dyn Store>, clock: Arc<VirtualClock>, workload: WorkloadId) -> bool {
    loop {
        match store.cancel(workload, "its client wants it".into(), stamp(clock.now())).await {
            Ok(Cancelled::Accepted { .. } | Cancelled::Already) => return true,
            Ok(Cancelled::Ended | Cancelled::NoSuchWorkload) => return false,
            Err(_) => clock.wait_until(clock.now().after(TRY_AGAIN)).await,
        }
    }
}
