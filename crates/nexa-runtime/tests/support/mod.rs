//! What the tests of this crate share: one desk that touches the API, so that the tests need not.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod clock;
pub mod cluster;
pub mod job;
pub mod model;
pub mod program;
pub mod store;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nexa_event::effect::{Answer, Decision};
use nexa_event::envelope::Fact;
use nexa_event::fact::{AgentEvent, EffectResult, Input, Program, Spawned, WorkloadEvent};
use nexa_ports::clock::{Clock, SimClock, SystemClock};
use nexa_ports::dice::SeededDice;
use nexa_ports::memory::MemoryStore;
use nexa_ports::neighbours::Alone;
use nexa_ports::store::{AgentRow, Append, Birth, Cancelled, Guard, Post, Posted, Stamp, Store};
use nexa_ports::view::MemoryViews;
use nexa_runtime::fence::Always;
use nexa_runtime::{Newborn, Node, NodeConfig, Ports, programs};
use nexa_types::*;
use nexa_vm::codec;
use nexa_vm::module::Module;
use nexa_vm::value::Value;

use self::model::FakeModel;
use self::store::{Death, Way};

/// A test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Desk {
    pub store: Arc<dyn Store>,
    /// The same store, for its faults.
    pub memory: Arc<MemoryStore>,
    pub model: Arc<FakeModel>,
    pub clock: Arc<dyn Clock>,
    pub sim: Option<Arc<SimClock>>,
}

/// Ends a test that hangs.
pub async fn soon<T>(what: &str, wish: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, wish).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long for {what}"),
    }
}

/// Looks again and again until it is true.
pub async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    soon(what, async {
        while !is_true() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

pub fn config(name: &str) -> NodeConfig {
    NodeConfig::new(NodeId::new(name).unwrap())
}

impl Desk {
    pub fn new(model: Arc<FakeModel>) -> Self {
        let memory = Arc::new(MemoryStore::new());
        Self { store: memory.clone(), memory, model, clock: Arc::new(SystemClock::default()), sim: None }
    }

    pub fn with_still_clock(model: Arc<FakeModel>) -> Self {
        let sim = Arc::new(SimClock::new(Timestamp(1_000_000)));
        Self { clock: sim.clone(), sim: Some(sim), ..Self::new(model) }
    }

    pub fn ports(&self, store: Arc<dyn Store>) -> Ports {
        let memories = Arc::new(MemoryViews::new(store.clone()));
        let (clock, dice) = (self.clock.clone(), Arc::new(SeededDice::new(7)));
        let tools = Arc::new(nexa_ports::tool::NoTools);
        let (neighbours, fence) = (Arc::new(Alone), Arc::new(Always));
        Ports { store, memories, model: self.model.clone(), tools, clock, dice, neighbours, fence }
    }

    pub async fn start(&self, config: NodeConfig) -> Node {
        Node::start(config, self.ports(self.store.clone())).await.unwrap()
    }

    /// A node that will die at a point of its work.
    pub async fn start_mortal(&self, death: Option<Death>) -> (Node, Arc<Way>) {
        let way = Way::to(&self.store, death);
        (Node::start(config("n1"), self.ports(way.clone())).await.unwrap(), way)
    }

    pub fn stamp(&self) -> Stamp {
        Stamp { at: self.clock.now(), tenant: TenantId::local(), principal: PrincipalId::local(), trace: None }
    }

    /// Puts a program and submits a workload that runs its `main` on node `n1`.
    pub async fn submit(&self, number: u8, module: &Module) -> WorkloadId {
        self.submit_to("n1", number, module).await
    }

    pub async fn submit_to(&self, node: &str, number: u8, module: &Module) -> WorkloadId {
        let tenant = TenantId::local();
        let hash = programs::put(&*self.store, &tenant, module, "test", self.stamp()).await.unwrap();
        self.submit_program(node, number, hash, module.entries[0].function, Vec::new()).await
    }

    /// Submits a workload that runs a function of a module, put or not. Without a name of a node its root is nobody's.
    pub async fn submit_program(
        &self,
        node: &str,
        number: u8,
        hash: ModuleHash,
        entry: u32,
        args: Vec<Value>,
    ) -> WorkloadId {
        let tenant = TenantId::local();
        let request = RequestId::from_bytes([number; 16]);
        let workload = WorkloadId::of(&tenant, request);
        let root = AgentId::root(workload);
        let spawned = Spawned {
            workload,
            name: "main".into(),
            parent: None,
            program: Program::Function { module: hash, entry, args: codec::encode(&Value::List(Arc::new(args))) },
            budget: Budget::default(),
            deadline: None,
            seed: 1,
            depth: 0,
            priority: 100,
            asks: None,
        };
        let submitted = WorkloadEvent::Submitted {
            request,
            request_hash: [0; 32],
            name: "test".into(),
            root,
            budget: Budget::default(),
            priority: 100,
        };
        let birth = Birth {
            agent: root,
            workload,
            node: NodeId::new(node).ok(),
            priority: 100,
            first: Fact::Agent(AgentEvent::Spawned(spawned)),
        };
        let append = Append {
            stream: StreamId::Workload(workload),
            guard: Guard::Version,
            expected: Version(0),
            stamp: self.stamp(),
            facts: vec![Fact::Workload(submitted)],
            row: None,
            takes: vec![],
            posts: vec![],
            births: vec![birth],
            also: None,
        };
        self.store.append(vec![append]).await.pop().unwrap().unwrap();
        workload
    }

    /// Writes an event into an agent's stream behind its back.
    pub async fn write_as_owner(&self, row: &AgentRow, event: AgentEvent) {
        let append = Append {
            stream: StreamId::Agent(row.agent),
            guard: Guard::Owner(row.epoch),
            expected: row.version,
            stamp: self.stamp(),
            facts: vec![Fact::Agent(event)],
            row: None,
            takes: vec![],
            posts: vec![],
            births: vec![],
            also: None,
        };
        self.store.append(vec![append]).await.pop().unwrap().unwrap();
    }

    /// What whoever submitted a workload knows of its root.
    pub async fn newborn(&self, workload: WorkloadId) -> Newborn {
        let root = AgentId::root(workload);
        let first = self.store.read(StreamId::Agent(root), Version(0), 1).await.unwrap().remove(0).envelope;
        let AgentRow { node, priority, .. } = self.store.row(root).await.unwrap().unwrap();
        Newborn::of(&Birth { agent: root, workload, node, priority, first: first.fact }, &self.stamp()).unwrap()
    }

    /// Submits to a running node and tells it.
    pub async fn run(&self, node: &Node, number: u8, module: &Module) -> WorkloadId {
        let workload = self.submit_to(node.id().as_str(), number, module).await;
        node.wake(AgentId::root(workload)).unwrap();
        workload
    }

    /// How a workload ended.
    pub async fn outcome(&self, workload: WorkloadId) -> Outcome {
        let mut head = self.store.head();
        soon("the end of a workload", async {
            loop {
                head.mark_unchanged();
                for recorded in self.store.read(StreamId::Workload(workload), Version(0), 100).await.unwrap() {
                    if let Fact::Workload(WorkloadEvent::Ended { outcome, .. }) = recorded.envelope.fact {
                        return outcome;
                    }
                }
                head.changed().await.unwrap();
            }
        })
        .await
    }

    /// The text that a workload ended with.
    pub async fn text(&self, workload: WorkloadId) -> String {
        match self.outcome(workload).await {
            Outcome::Ok(payload) => match codec::decode(&payload).unwrap() {
                Value::Str(text) => text.to_string(),
                other => panic!("ended with {other:?}"),
            },
            Outcome::Err(failure) => panic!("ended with {failure}"),
        }
    }

    /// The failure that a workload ended with.
    pub async fn failure(&self, workload: WorkloadId) -> Failure {
        match self.outcome(workload).await {
            Outcome::Err(failure) => failure,
            Outcome::Ok(_) => panic!("ended well"),
        }
    }

    pub async fn state(&self, agent: AgentId) -> AgentState {
        self.store.row(agent).await.unwrap().unwrap().state
    }

    pub async fn reaches(&self, agent: AgentId, state: AgentState) {
        let mut head = self.store.head();
        soon(&format!("state {state}"), async {
            loop {
                head.mark_unchanged();
                if self.store.row(agent).await.unwrap().is_some_and(|row| row.state == state) {
                    return;
                }
                head.changed().await.unwrap();
            }
        })
        .await;
    }

    pub async fn events(&self, agent: AgentId) -> Vec<AgentEvent> {
        let facts = self.store.read(StreamId::Agent(agent), Version(0), 10_000).await.unwrap();
        facts
            .into_iter()
            .map(|recorded| match recorded.envelope.fact {
                Fact::Agent(event) => event,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    /// The keys of the effects whose answers are recorded, over all agents.
    pub async fn recorded_answers(&self) -> Vec<EffectKey> {
        let facts = self.store.scan(None, GlobalSeq(0), 100_000).await.unwrap();
        let ended =
            facts.into_iter().filter_map(|recorded| match (recorded.envelope.fact, recorded.envelope.header.stream) {
                (Fact::Agent(AgentEvent::EffectEnded { seq, .. }), StreamId::Agent(agent)) => {
                    Some(EffectKey::of(recorded.workload.unwrap(), agent, seq))
                }
                _ => None,
            });
        ended.collect()
    }

    pub async fn cancel(&self, node: &Node, workload: WorkloadId) {
        let cancelled = self.store.cancel(workload, "a test wants it".into(), self.stamp()).await.unwrap();
        let Cancelled::Accepted { agents } = cancelled else { panic!("{cancelled:?}") };
        for (agent, _) in agents {
            node.wake(agent).unwrap();
        }
    }

    pub async fn approve(&self, node: &Node, workload: WorkloadId, agent: AgentId, seq: Seq) {
        self.approve_in_silence(workload, agent, seq).await;
        node.wake(agent).unwrap();
    }

    /// Approves, and nobody tells the node.
    pub async fn approve_in_silence(&self, workload: WorkloadId, agent: AgentId, seq: Seq) {
        let key = EffectKey::of(workload, agent, seq);
        let decision = Decision { approved: true, by: "ada".into(), note: String::new() };
        let result = EffectResult::Done(Answer::Approval(decision));
        let input = Input::Answered { seq, key, result };
        let post = Post { to: agent, id: InputId::answer(key), input, trace: None };
        assert!(matches!(self.store.post(post, self.stamp()).await.unwrap(), Posted::Accepted { .. }));
    }

    /// Every way that the model was asked follows the rules: attempts count up, and each above 1 is a reissue.
    pub fn asks_are_in_order(&self) {
        for (key, attempts) in self.model.asked() {
            let expected: Vec<u32> = (attempts[0]..).take(attempts.len()).collect();
            assert_eq!(attempts, expected, "{key} was sent in a strange order");
        }
    }

    pub fn appends(way: &Way) -> u64 {
        way.appends.load(Ordering::SeqCst)
    }
}
