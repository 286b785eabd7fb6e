//! A node on a store, and programs submitted to it as a door would submit them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nexa_event::envelope::Fact;
use nexa_event::fact::{AgentEvent, Program, Spawned, WorkloadEvent};
use nexa_ports::clock::{Clock, SystemClock};
use nexa_ports::dice::SystemDice;
use nexa_ports::memories::Memories;
use nexa_ports::model::Model;
use nexa_ports::store::{Append, Birth, Guard, Rows, Stamp, Store};
use nexa_ports::tool::NoTools;
use nexa_ports::view::Views;
use nexa_runtime::{Node, NodeConfig, Ports};
use nexa_store::{Options, SqliteStore};
use nexa_types::{
    AgentId, Budget, ModuleHash, NodeId, Outcome, PrincipalId, RequestId, StreamId, TenantId, Version, WorkloadId,
};
use nexa_vm::codec;
use nexa_vm::module::Module;
use nexa_vm::value::Value;

use crate::measure::Error;

/// Workloads that are submitted in one call.
const SUBMITTED_AT_ONCE: usize = 256;
/// Between two looks whether all have ended.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long the read models may take to see everything.
const CATCH_UP_MAX: Duration = Duration::from_secs(600);

/// A store without a node.
pub(crate) struct Ground {
    pub(crate) store: Arc<dyn Store>,
    views: Arc<dyn Views>,
    memories: Arc<dyn Memories>,
    pub(crate) name: NodeId,
    /// Whether agents are born on the node; otherwise they are nobody's, until somebody places them.
    pub(crate) is_alone: bool,
    pub(crate) clock: Arc<SystemClock>,
}

/// A node that runs on it.
pub(crate) struct Running {
    pub(crate) ground: Ground,
    pub(crate) node: Node,
}

/// A program that a node has.
pub(crate) struct Put {
    hash: ModuleHash,
    module: Module,
}

/// Runs something to its end on the threads that a node has.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

impl Ground {
    /// On SQLite, in a folder.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        let store = Arc::new(SqliteStore::open(folder, Options::default())?);
        Self::on(store.clone(), store)
    }

    pub(crate) fn on(store: Arc<dyn Store>, views: Arc<impl Views + Memories + 'static>) -> Result<Self, Error> {
        let name = NodeId::new("bench")?;
        Ok(Self { store, views: views.clone(), memories: views, name, is_alone: true, clock: Arc::default() })
    }

    pub(crate) async fn start(self, model: Arc<dyn Model>) -> Result<Running, Error> {
        let node = Node::start(NodeConfig::new(self.name.clone()), self.ports(model)).await?;
        Ok(Running { ground: self, node })
    }

    /// What a node by itself is started with.
    pub(crate) fn ports(&self, model: Arc<dyn Model>) -> Ports {
        Ports {
            store: self.store.clone(),
            memories: self.memories.clone(),
            model,
            tools: Arc::new(NoTools),
            clock: self.clock.clone(),
            dice: Arc::new(SystemDice),
            neighbours: Arc::new(nexa_ports::neighbours::Alone),
            fence: Arc::new(nexa_runtime::fence::Always),
        }
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { at: self.clock.now(), tenant: TenantId::local(), principal: PrincipalId::local(), trace: None }
    }

    /// What stores one workload, whose root agent is born on the node.
    pub(crate) fn submission(&self, number: usize, program: Program) -> Append {
        let mut request = [0x40; 16];
        request[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let request = RequestId::from_bytes(request);
        let workload = WorkloadId::of(&TenantId::local(), request);
        let root = AgentId::root(workload);
        let (budget, priority) = (Budget::default(), 100);
        let spawned = Spawned {
            workload,
            name: "bench".into(),
            parent: None,
            program,
            budget,
            deadline: None,
            seed: 1,
            depth: 0,
            priority,
            asks: None,
        };
        let submitted =
            WorkloadEvent::Submitted { request, request_hash: [0; 32], name: "bench".into(), root, budget, priority };
        let birth = Birth {
            agent: root,
            workload,
            node: self.is_alone.then(|| self.name.clone()),
            priority,
            first: Fact::Agent(AgentEvent::Spawned(spawned)),
        };
        Append {
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
        }
    }
}

impl Running {
    pub(crate) async fn put(&self, text: &str) -> Result<Put, Error> {
        let compiled = nexa_lang::compile_text("bench.nx", text).into_compiled();
        let module = compiled.map_err(|failed| failed.to_json_lines())?.module;
        self.node.put_program(&TenantId::local(), &module, "bench", self.ground.stamp()).await?;
        Ok(Put { hash: module.hash(), module })
    }

    /// Submits workloads, each with its own arguments, and gives their roots. Nobody is woken.
    pub(crate) async fn submit(
        &self,
        put: &Put,
        entry: &str,
        count: usize,
        args: impl Fn(usize) -> Vec<Value>,
    ) -> Result<Vec<AgentId>, Error> {
        let entry = put.module.entries.iter().find(|known| known.name == entry).ok_or("no such entry")?.function;
        let mut roots = Vec::with_capacity(count);
        for first in (0..count).step_by(SUBMITTED_AT_ONCE) {
            let numbers = first..count.min(first + SUBMITTED_AT_ONCE);
            let batch: Vec<Append> = numbers
                .map(|number| {
                    let args = codec::encode(&Value::List(Arc::new(args(number))));
                    self.ground.submission(number, Program::Function { module: put.hash, entry, args })
                })
                .collect();
            roots.extend(batch.iter().flat_map(|append| &append.births).map(|birth| birth.agent));
            for answer in self.ground.store.append(batch).await {
                answer?;
            }
        }
        Ok(roots)
    }

    pub(crate) fn wake(&self, roots: &[AgentId]) -> Result<(), Error> {
        roots.iter().try_for_each(|root| self.node.wake(*root).map_err(Error::from))
    }

    /// Waits until no agent lives.
    pub(crate) async fn all_ended(&self) -> Result<(), Error> {
        while !self.ground.store.rows(Rows::Live, None, 1).await?.is_empty() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Waits until the read models have seen everything.
    pub(crate) async fn all_seen(&self) -> Result<(), Error> {
        let head = *self.ground.store.head().borrow();
        Ok(self.ground.views.wait_applied(head, CATCH_UP_MAX).await?)
    }

    /// How a workload ended, by its root; what it gave if it ended well.
    pub(crate) async fn result(&self, root: AgentId) -> Result<Value, Error> {
        for recorded in self.ground.store.read(StreamId::Agent(root), Version(0), usize::MAX >> 1).await? {
            if let Fact::Agent(AgentEvent::Ended { outcome, .. }) = recorded.envelope.fact {
                return match outcome {
                    Outcome::Ok(payload) => Ok(codec::decode(&payload)?),
                    other => Err(format!("an agent ended with {other:?}").into()),
                };
            }
        }
        Err("an agent has not ended".into())
    }
}
