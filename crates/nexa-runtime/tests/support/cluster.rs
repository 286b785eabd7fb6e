//! Several nodes on one store in one process, the network between them, and whoever leads.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use futures::future::BoxFuture;
use nexa_event::effect::ToolSource;
use nexa_event::fact::AgentEvent;
use nexa_ports::dice::{Dice, SeededDice};
use nexa_ports::neighbours::{Carried, Neighbours};
use nexa_ports::store::{Place, Rows, Store};
use nexa_ports::tool::{NoTool, ToolCall, ToolError, Tools};
use nexa_runtime::fence::Fence;
use nexa_runtime::{Carrier, Given, Node, NodeConfig, Ports, ReleaseError, Released, programs};
use nexa_types::*;
use nexa_vm::module::Module;
use nexa_vm::value::Value;
use tokio::sync::{mpsc, watch};

use super::model::FakeModel;
use super::{Desk, config, soon};

/// Whether a node may send, as a test says; not at first.
#[derive(Default)]
pub struct Switch(AtomicBool);

impl Switch {
    pub fn allow(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Fence for Switch {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn may_send(&self, _: Option<Timestamp>) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A tool that has an effect: each call is counted by its key.
pub struct Sink {
    calls: watch::Sender<BTreeMap<EffectKey, Vec<u32>>>,
    /// How many calls may end, the first ones first.
    may_end: watch::Sender<usize>,
}

impl Sink {
    pub fn hold(&self, hold: bool) {
        self.lets(if hold { 0 } else { usize::MAX });
    }

    /// So many of its calls end, from the first on.
    pub fn lets(&self, calls: usize) {
        self.may_end.send_replace(calls);
    }

    /// Attempts by key.
    pub fn calls(&self) -> BTreeMap<EffectKey, Vec<u32>> {
        self.calls.borrow().clone()
    }

    pub async fn was_called(&self, times: usize) {
        let mut calls = self.calls.subscribe();
        soon("a call of a tool", calls.wait_for(|calls| calls.values().map(Vec::len).sum::<usize>() >= times))
            .await
            .unwrap();
    }
}

impl Tools for Sink {
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Result<String, ToolError>> {
        Box::pin(async move {
            self.calls.send_modify(|calls| calls.entry(call.key).or_default().push(call.attempt));
            let nth = self.calls.borrow().values().map(Vec::len).sum::<usize>();
            let mut may_end = self.may_end.subscribe();
            tokio::select! {
                _ = may_end.wait_for(|calls| *calls >= nth) => {}
                () = call.cancel.cancelled() => return Err(ToolError::Cancelled),
            }
            Ok(format!("\"done {}\"", call.request.args.len()))
        })
    }

    fn find(&self, _: &TenantId, _: &ToolSource, _: &[String]) -> Result<(), NoTool> {
        Ok(())
    }

    fn slots(&self, _: &ToolSource) -> usize {
        4
    }

    fn lane(&self, source: &ToolSource) -> String {
        source.to_string()
    }
}

enum Letter {
    Wake { to: NodeId, agents: Vec<AgentId> },
    Deliver { from: NodeId, to: NodeId, answer: Carried },
    Recorded { to: NodeId, agent: AgentId, key: EffectKey },
}

/// What lies between the nodes.
pub struct Net {
    nodes: Mutex<BTreeMap<NodeId, Node>>,
    post: mpsc::UnboundedSender<Letter>,
    /// Letters are lost, or come twice, by the dice.
    pub lossy: AtomicBool,
    /// No answer and no receipt gets through while set.
    pub cut: AtomicBool,
    /// How many may be born where their parent is.
    pub room: AtomicUsize,
    /// Hints that were sent, by whom.
    pub wakes: AtomicUsize,
    dice: SeededDice,
}

struct Hook {
    net: Weak<Net>,
    me: NodeId,
}

impl Hook {
    fn send(&self, letter: Letter) {
        if let Some(net) = self.net.upgrade() {
            let _ = net.post.send(letter);
        }
    }
}

impl Neighbours for Hook {
    fn wake(&self, node: &NodeId, agents: &[AgentId]) {
        self.send(Letter::Wake { to: node.clone(), agents: agents.to_vec() });
    }

    // Whoever leads looks at the store.
    fn unplaced(&self, _: &[AgentId]) {}

    fn room(&self, wanted: usize) -> usize {
        self.net.upgrade().map_or(wanted, |net| wanted.min(net.room.load(Ordering::SeqCst)))
    }

    fn deliver(&self, node: &NodeId, answer: &Carried) {
        self.send(Letter::Deliver { from: self.me.clone(), to: node.clone(), answer: answer.clone() });
    }

    fn recorded(&self, carrier: &NodeId, agent: AgentId, key: EffectKey) {
        self.send(Letter::Recorded { to: carrier.clone(), agent, key });
    }
}

impl Net {
    pub fn node(&self, name: &NodeId) -> Option<Node> {
        self.nodes.lock().unwrap().get(name).cloned()
    }

    pub fn names(&self) -> Vec<NodeId> {
        self.nodes.lock().unwrap().keys().cloned().collect()
    }

    fn carry(&self, letter: &Letter) {
        match letter {
            Letter::Wake { to, agents } => {
                self.wakes.fetch_add(1, Ordering::SeqCst);
                if let Some(node) = self.node(to) {
                    agents.iter().for_each(|agent| node.wake(*agent).unwrap());
                }
            }
            Letter::Deliver { from, to, answer } => {
                if let Some(node) = self.node(to).filter(|_| !self.cut.load(Ordering::SeqCst)) {
                    node.carried(from, answer.clone());
                }
            }
            Letter::Recorded { to, agent, key } => {
                if let Some(node) = self.node(to).filter(|_| !self.cut.load(Ordering::SeqCst)) {
                    node.recorded(*agent, *key);
                }
            }
        }
    }
}

pub fn name(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub struct Town {
    pub desk: Desk,
    pub net: Arc<Net>,
    pub sink: Arc<Sink>,
}

impl Town {
    pub fn of(desk: Desk) -> Self {
        let (post, mut letters) = mpsc::unbounded_channel::<Letter>();
        let net = Arc::new(Net {
            nodes: Mutex::default(),
            post,
            lossy: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            room: AtomicUsize::new(usize::MAX),
            wakes: AtomicUsize::new(0),
            dice: SeededDice::new(11),
        });
        let between = Arc::downgrade(&net);
        tokio::spawn(async move {
            while let Some(letter) = letters.recv().await {
                let Some(net) = between.upgrade() else { return };
                let times = if net.lossy.load(Ordering::SeqCst) { net.dice.roll() % 3 } else { 1 };
                (0..times).for_each(|_| net.carry(&letter));
            }
        });
        let sink = Arc::new(Sink { calls: watch::Sender::default(), may_end: watch::Sender::new(usize::MAX) });
        Self { desk, net, sink }
    }

    pub fn new(model: Arc<FakeModel>) -> Self {
        Self::of(Desk::new(model))
    }

    pub fn config(node: &str) -> NodeConfig {
        NodeConfig { others: true, sweep_every: Millis(50), ..config(node) }
    }

    pub fn ports(&self, node: &str, store: Arc<dyn Store>) -> Ports {
        let neighbours = Arc::new(Hook { net: Arc::downgrade(&self.net), me: name(node) });
        Ports { neighbours, tools: self.sink.clone(), ..self.desk.ports(store) }
    }

    pub async fn start(&self, node: &str) -> Node {
        self.start_on(node, self.desk.store.clone()).await
    }

    pub async fn start_on(&self, node: &str, store: Arc<dyn Store>) -> Node {
        self.start_with(Self::config(node), self.ports(node, store)).await
    }

    pub async fn start_fenced(&self, node: &str, fence: Arc<dyn Fence>) -> Node {
        let ports = Ports { fence, ..self.ports(node, self.desk.store.clone()) };
        self.start_with(Self::config(node), ports).await
    }

    pub async fn start_with(&self, config: NodeConfig, ports: Ports) -> Node {
        let node = Node::start(config, ports).await.unwrap();
        self.net.nodes.lock().unwrap().insert(node.id().clone(), node.clone());
        node
    }

    /// A node is gone at once. Whoever else holds it has to let go.
    pub fn kill(&self, node: &str) {
        self.net.nodes.lock().unwrap().remove(&name(node));
    }

    /// Puts a program and bears the root of a workload, whose it is nobody's.
    pub async fn submit(&self, number: u8, module: &Module, args: Vec<Value>) -> WorkloadId {
        let tenant = TenantId::local();
        let hash = programs::put(&*self.desk.store, &tenant, module, "test", self.desk.stamp()).await.unwrap();
        let main = module.entries.iter().find(|entry| entry.name == "main").unwrap();
        self.desk.submit_program("", number, hash, main.function, args).await
    }

    /// Places an agent, whoever has it, and tells its node.
    pub async fn place(&self, agent: AgentId, node: &NodeId) -> Epoch {
        loop {
            let from = self.desk.store.row(agent).await.unwrap().unwrap().epoch;
            let place = Place { agent, from, node: node.clone() };
            if let Ok(epoch) = self.desk.store.place(vec![place]).await.unwrap()[0] {
                self.tell(node, Given { agent, epoch, carrier: None, trace: None }).await;
                return epoch;
            }
        }
    }

    pub async fn tell(&self, node: &NodeId, given: Given) {
        if let Some(node) = self.net.node(node) {
            node.adopt(vec![given]).await.unwrap();
        }
    }

    /// Runs a workload from a node on.
    pub async fn run_on(&self, node: &str, number: u8, module: &Module, args: Vec<Value>) -> WorkloadId {
        let workload = self.submit(number, module, args).await;
        self.place(AgentId::root(workload), &name(node)).await;
        workload
    }

    /// Places whoever is nobody's, or was a node's that is gone, for as long as it is polled.
    pub async fn leads(&self) -> ! {
        let mut head = self.desk.store.head();
        let dice = SeededDice::new(5);
        loop {
            head.mark_unchanged();
            let names = self.net.names();
            for row in self.desk.store.rows(Rows::Live, None, 10_000).await.unwrap() {
                if row.node.is_none_or(|node| !names.contains(&node)) && !names.is_empty() {
                    let node = &names[usize::try_from(dice.roll() % names.len() as u64).unwrap()];
                    let place = Place { agent: row.agent, from: row.epoch, node: node.clone() };
                    if let Ok(epoch) = self.desk.store.place(vec![place]).await.unwrap()[0] {
                        self.tell(node, Given { agent: row.agent, epoch, carrier: None, trace: None }).await;
                    }
                }
            }
            tokio::task::yield_now().await;
            tokio::select! {
                _ = head.changed() => {}
                () = tokio::time::sleep(std::time::Duration::from_millis(5)) => {}
            }
        }
    }

    /// Says yes to every question, for as long as it is polled.
    pub async fn approves(&self, workload: WorkloadId) -> ! {
        let mut head = self.desk.store.head();
        loop {
            head.mark_unchanged();
            for row in self.desk.store.rows(Rows::Workload(workload), None, 10_000).await.unwrap() {
                if row.state == AgentState::Waiting(Waiting::Approval) {
                    let asked = self.desk.events(row.agent).await.iter().rev().find_map(|event| match event {
                        AgentEvent::EffectStarted { seq, .. } => Some(*seq),
                        _ => None,
                    });
                    self.desk.approve_in_silence(workload, row.agent, asked.unwrap()).await;
                    if let Some(node) = row.node.and_then(|node| self.net.node(&node)) {
                        node.wake(row.agent).unwrap();
                    }
                }
            }
            head.changed().await.unwrap();
        }
    }

    pub async fn owner(&self, agent: AgentId) -> Option<NodeId> {
        self.desk.store.row(agent).await.unwrap().unwrap().node
    }

    /// Moves an agent from wherever it is.
    pub async fn migrate(&self, agent: AgentId, to: &str) -> Result<Released, ReleaseError> {
        let owner = self.owner(agent).await.and_then(|node| self.net.node(&node)).ok_or(ReleaseError::NotMine)?;
        let Released { epoch, carrier, trace } = owner.release(agent, &name(to)).await?;
        self.tell(&name(to), Given { agent, epoch, carrier: carrier.clone(), trace }).await;
        Ok(Released { epoch, carrier, trace })
    }

    /// The same, until it works; `None` if the agent has ended.
    pub async fn migrates(&self, agent: AgentId, to: &str) -> Option<Option<Carrier>> {
        soon("a migration", async {
            loop {
                match self.migrate(agent, to).await {
                    Ok(released) => return Some(released.carrier),
                    Err(ReleaseError::Here { .. }) => return Some(None),
                    Err(_) if self.desk.state(agent).await.is_terminal() => return None,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        })
        .await
    }

    /// What an agent decided and heard, but for where it was.
    pub async fn story(&self, agent: AgentId) -> Vec<String> {
        let told = self.desk.events(agent).await;
        let told = told.iter().filter_map(|event| match event {
            AgentEvent::TakenOver { .. } => None,
            AgentEvent::Started { .. } => Some("started".to_owned()),
            AgentEvent::EffectStarted { seq, attempt, .. } => Some(format!("effect_started #{seq} attempt {attempt}")),
            AgentEvent::TimerSet { seq, .. } => Some(format!("timer_set #{seq}")),
            event => Some(nexa_agent::describe(event)),
        });
        let mut told: Vec<String> = told.collect();
        // A child that runs beside its parent ends when it ends.
        told.sort();
        told
    }

    /// The stories of all agents of a workload.
    pub async fn stories(&self, workload: WorkloadId) -> BTreeMap<AgentId, Vec<String>> {
        let mut stories = BTreeMap::new();
        for row in self.desk.store.rows(Rows::Workload(workload), None, 10_000).await.unwrap() {
            stories.insert(row.agent, self.story(row.agent).await);
        }
        stories
    }
}
