//! The agent between two states: kept as bytes, and every step of it made by the code that runs, once for all states that ask for
//! the same.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use nexa_agent::{Agent, Input, OutsideEffect};
use nexa_event::fact::{self, AgentEvent, Spawned};
use nexa_runtime::resume;
use nexa_types::{AgentId, Budget, EffectKey, Epoch, InputId, NodeId, Seq, Timestamp, Version, WorkloadId};
use nexa_vm::codec;
use nexa_vm::value::Value;
use nexa_vm::vm::Program;

use crate::frozen::Frozen;

/// It stands still: nothing here waits for time.
pub(super) const NOW: Timestamp = Timestamp(1_000_000);

const PROGRAM: &str = r#"
tool pay(what: str) -> str { source: builtin("sink.pay"), risk: "low", effect: "write", idempotent: IDEMPOTENT }

flow main() -> str uses pay {
    let paid = try pay("once")
    RECEIVE
    return match paid { ok(_) => "paid", err(error) => error.code }
}
"#;

/// What came of steps that were taken before, by the agent and what it heard.
type Known = HashMap<(Frozen<Vec<u8>>, String), Made>;

/// A program and the agent that runs it, from its first event on.
#[derive(Debug)]
pub(super) struct Job {
    program: Arc<Program>,
    first: Spawned,
    known: Mutex<Known>,
    said: Mutex<HashMap<Frozen<Vec<u8>>, Says>>,
}

/// Its id.
pub(super) fn agent() -> AgentId {
    AgentId::root(WorkloadId::from_bytes([1; 16]))
}

/// What came of a step.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) agent: Frozen<Vec<u8>>,
    pub(super) facts: Vec<Frozen<AgentEvent>>,
    pub(super) wish: Option<Seq>,
    pub(super) more: bool,
    /// Whether its message is dealt with by that.
    pub(super) takes: bool,
}

/// What an agent says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Says {
    pub(super) epoch: Epoch,
    pub(super) version: Version,
    /// What is started and has not ended: key, attempt, and under which epoch.
    pub(super) sent: Option<(EffectKey, u32, Epoch)>,
}

/// An effect that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sending {
    pub(super) seq: Seq,
    pub(super) key: EffectKey,
    pub(super) attempt: u32,
}

impl From<OutsideEffect> for Sending {
    fn from(effect: OutsideEffect) -> Self {
        Self { seq: effect.seq, key: effect.key, attempt: effect.attempt }
    }
}

impl Job {
    /// By whether its tool may be called twice, and whether it waits for a message.
    pub(super) fn of(is_idempotent: bool, receives: bool) -> &'static Self {
        static JOBS: LazyLock<[[Job; 2]; 2]> = LazyLock::new(|| {
            [false, true].map(|is_idempotent| [false, true].map(|mail| Job::new(is_idempotent, mail)))
        });
        &JOBS[usize::from(is_idempotent)][usize::from(receives)]
    }

    fn new(is_idempotent: bool, receives: bool) -> Self {
        let text = PROGRAM.replace("IDEMPOTENT", if is_idempotent { "true" } else { "false" });
        let text = text.replace("RECEIVE", if receives { "let word: str = receive()" } else { "" });
        let module = nexa_lang::compile_text("ledger.nx", &text).module.expect("the text above compiles");
        let entry = module.entries.iter().find(|entry| entry.name == "main").expect("it has a main").function;
        let program = Arc::new(Program::new(module).expect("the compiler's modules are verified"));
        let args = codec::encode(&Value::List(Arc::new(Vec::new())));
        let first = Spawned {
            workload: WorkloadId::from_bytes([1; 16]),
            name: "main".to_owned(),
            parent: None,
            program: fact::Program::Function { module: program.hash(), entry, args },
            budget: Budget::default(),
            deadline: None,
            seed: 42,
            depth: 0,
            priority: 100,
            asks: None,
        };
        Self { program, first, known: Mutex::default(), said: Mutex::default() }
    }

    fn thaw(&self, bytes: &[u8]) -> Agent {
        Agent::restore(bytes, &self.first, Arc::clone(&self.program)).expect("its own snapshot can be restored")
    }

    /// What is made of an agent by `change`, which `what` names: once.
    fn once(&self, agent: &Frozen<Vec<u8>>, what: String, change: impl FnOnce(&mut Agent) -> Made) -> Made {
        let place = (agent.clone(), what);
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = lock().get(&place) {
            return made.clone();
        }
        let mut thawed = self.thaw(agent);
        let made = change(&mut thawed);
        lock().insert(place, made.clone());
        made
    }

    /// A step of it.
    pub(super) fn step(&self, agent: &Frozen<Vec<u8>>, input: Input) -> Made {
        self.once(agent, format!("{input:?}"), |agent| {
            let step = agent.step(input, NOW, nexa_types::limits::SLICE_FUEL);
            Made {
                agent: Frozen::new(agent.snapshot()),
                facts: step.facts.into_iter().map(Frozen::new).collect(),
                wish: step.wish.map(|wish| wish.seq),
                more: step.more,
                takes: !step.takes.is_empty(),
            }
        })
    }

    /// The ticket of an effect that it wishes for.
    pub(super) fn start_effect(&self, agent: &Frozen<Vec<u8>>, seq: Seq) -> Made {
        self.once(agent, format!("start {seq}"), |agent| {
            let facts = agent.start_effect(seq).into_iter().map(Frozen::new).collect();
            Made { agent: Frozen::new(agent.snapshot()), facts, wish: None, more: false, takes: false }
        })
    }

    /// What it wishes to send.
    pub(super) fn wish(&self, agent: &Frozen<Vec<u8>>) -> Option<Sending> {
        self.thaw(agent).wish(NOW).map(Sending::from)
    }

    /// Whether an attempt is later than all that it knows of.
    pub(super) fn is_ahead(&self, agent: &Frozen<Vec<u8>>, seq: Seq, attempt: u32) -> bool {
        self.thaw(agent).is_ahead(seq, attempt)
    }

    /// What is started and has not ended.
    pub(super) fn in_flight(&self, agent: &Frozen<Vec<u8>>) -> Option<Sending> {
        self.thaw(agent).in_flight(NOW).map(Sending::from)
    }

    pub(super) fn says(&self, agent: &Frozen<Vec<u8>>) -> Says {
        let lock = || self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(says) = lock().get(agent) {
            return *says;
        }
        let thawed = self.thaw(agent);
        let says = Says { epoch: thawed.epoch(), version: thawed.version(), sent: thawed.sent() };
        lock().insert(agent.clone(), says);
        says
    }

    /// What it hears first under a row's epoch, after it was read.
    pub(super) fn first_input(
        &self,
        agent: &Frozen<Vec<u8>>,
        row: Epoch,
        node: &NodeId,
        carried: Option<NodeId>,
    ) -> Input {
        resume::first_input(&self.thaw(agent), row, node, || carried)
    }

    /// The message that it waits for, as its inbox has it.
    pub(super) fn mail(&self) -> Input {
        let value = codec::encode(&Value::Str("word".into()));
        Input::Inbox(InputId::credit(agent(), 1), fact::Input::Message { from: "somebody".to_owned(), value })
    }

    /// Reads it from its stream; nothing if that cannot be gone on with.
    pub(super) fn read<'a>(&self, log: impl Iterator<Item = &'a AgentEvent>) -> Option<Frozen<Vec<u8>>> {
        let mut agent = Agent::born(agent(), &self.first, Arc::clone(&self.program)).ok()?;
        for event in log {
            agent.replay(event, NOW).ok()?;
        }
        Some(Frozen::new(agent.snapshot()))
    }
}
