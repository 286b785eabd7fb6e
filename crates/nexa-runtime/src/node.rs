//! One node: takes agents over from the store, runs them, and stops.
//!
//! In:  [`Node::wake`], a hint that an agent was born here or that its inbox has changed.
//! Out: facts in the store, pieces on the [`LiveHub`], counts in [`NodeStats`].
//!
//! Everything hangs off the value: no process-wide names, so several nodes fit into one process. Dropping the last
//! clone stops the node where it stands, as a crash would; [`Node::drain`] stops it in good order.

pub(crate) mod leaving;
mod moving;
mod quarantine;
mod stats;

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use nexa_ports::clock::Clock;
use nexa_ports::dice::Dice;
use nexa_ports::memories::Memories;
use nexa_ports::model::Model;
use nexa_ports::neighbours::Neighbours;
use nexa_ports::store::{Stamp, Store, StoreError};
use nexa_ports::tool::Tools;
use nexa_sched::SchedulerConfig;
use nexa_types::{AgentId, EffectKey, Millis, ModuleHash, NodeId, TenantId};
use nexa_vm::module::Module;
use nexa_vm::vm::Program;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::agent::{AgentChild, RECALLS_MAX};
use crate::begin::{Beginning, Wish};
use crate::bounded::Overloaded;
use crate::config::{Counters, NodeConfig, NodeStats};
use crate::dispatch::models::Models;
use crate::dispatch::slots::ModelLimits;
use crate::dispatch::timers::Timers;
use crate::dispatch::{Hint, Nudge};
use crate::fence::Fence;
use crate::line::{Share, parts};
use crate::live::LiveHub;
use crate::liveness::{self, Vitals};
use crate::memory::Gauge;
use crate::moving::Departed;
use crate::newborn::{AT_BIRTH, Newborn};
use crate::ownership::Ownership;
use crate::programs::{ProgramError, Programs};
use crate::residency::{Counts, Residency, Seat, SeatLimits};
use crate::run_queue::RunQueue;
use crate::supervise::{SuperviseCounters, Supervisor, keep_running};
use crate::takeover;
use crate::trace::Leads;

/// Supervisors that share the agents, because ractor links and unlinks under one lock a tree.
const SHARDS: usize = 16;

/// The world outside a node.
#[derive(Clone)]
pub struct Ports {
    /// Streams, rows, inboxes, snapshots, blobs.
    pub store: Arc<dyn Store>,
    /// What workloads and tenants remember: a fold of what is in the store.
    pub memories: Arc<dyn Memories>,
    /// Language models.
    pub model: Arc<dyn Model>,
    /// Tools.
    pub tools: Arc<dyn Tools>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for pauses.
    pub dice: Arc<dyn Dice>,
    /// The other nodes; [`nexa_ports::neighbours::Alone`] if there are none.
    pub neighbours: Arc<dyn Neighbours>,
    /// Whether effects may still be sent; [`crate::fence::Always`] if there are no other nodes.
    pub fence: Arc<dyn Fence>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The agents could not be taken over.
    #[error("the agents of the store could not be taken over: {0}")]
    Store(#[from] StoreError),
    /// The supervisors could not be started.
    #[error("the supervisors could not be started: {0}")]
    Supervisor(String),
    /// The system gives no more threads.
    #[error("the threads that compute could not be started")]
    Threads(#[source] std::io::Error),
}

/// A running node. Clones are the same node.
#[derive(Clone)]
pub struct Node {
    handle: Arc<Handle>,
}

/// Stops the node when nobody holds it any more.
struct Handle {
    core: Arc<Core>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.stop();
    }
}

/// What the actors and services of a node share.
pub(crate) struct Core {
    pub(crate) config: NodeConfig,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) memories: Arc<dyn Memories>,
    /// Turns to look into a memory.
    pub(crate) recalls: Arc<Semaphore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dice: Arc<dyn Dice>,
    pub(crate) live: LiveHub,
    pub(crate) programs: Programs,
    pub(crate) residency: Residency,
    beginning: Beginning,
    pub(crate) models: Models,
    pub(crate) timers: Arc<Timers>,
    pub(crate) run_queue: RunQueue,
    vitals: Arc<Vitals>,
    pub(crate) ownership: Ownership,
    pub(crate) neighbours: Arc<dyn Neighbours>,
    pub(crate) fence: Arc<dyn Fence>,
    pub(crate) departed: Departed,
    pub(crate) leads: Leads,
    pub(crate) counters: Counters,
    pub(crate) stop: CancellationToken,
    supervisors: Vec<Supervisor>,
    supervised: Arc<SuperviseCounters>,
    failed: CancellationToken,
}

/// How dispatchers reach agents: weakly, so that the node can end.
struct Bell(Weak<Core>);

impl Nudge for Bell {
    fn nudge(&self, agent: AgentId, hint: Hint) {
        if let Some(core) = self.0.upgrade() {
            core.hint(agent, hint);
        }
    }

    fn recorded(&self, carrier: &NodeId, agent: AgentId, key: EffectKey) {
        if let Some(core) = self.0.upgrade() {
            core.neighbours.recorded(carrier, agent, key);
        }
    }
}

impl Node {
    /// Starts a node: takes over every agent of the store that has not ended, or only those of an earlier run of it if
    /// there are other nodes, and wakes those with something to do. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]. What was taken over until then is taken over again by the next start.
    pub async fn start(config: NodeConfig, ports: Ports) -> Result<Self, StartError> {
        let supervised = Arc::new(SuperviseCounters::default());
        let mut supervisors = Vec::with_capacity(SHARDS);
        for _ in 0..SHARDS {
            let shard = Supervisor::start(ports.clock.clone(), ports.dice.clone(), supervised.clone()).await;
            supervisors.push(shard.map_err(|error| StartError::Supervisor(error.to_string()))?);
        }
        let SchedulerConfig { load_balance_strategy, time_slice, .. } = config.scheduler;
        let run_queue =
            RunQueue::start(config.compute_threads, load_balance_strategy, time_slice).map_err(StartError::Threads)?;
        let core = Core::new(config, ports, run_queue, supervisors, supervised);
        // From here on a failure stops what was started.
        let node = Self { handle: Arc::new(Handle { core: core.clone() }) };
        let taken = takeover::take_over(&core).await?;
        // Only now: whoever runs before all are placed would run under a right that is about to be raised.
        core.serve().map_err(StartError::Threads)?;
        taken.wake(&core);
        info!(node = %core.config.node, "node runs");
        Ok(node)
    }

    fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    /// The node's name.
    pub fn id(&self) -> &NodeId {
        &self.core().config.node
    }

    /// Tells an agent to look around: it was born on this node, or its inbox has changed. For one that has left, its node
    /// is told for a while; a node among others does nothing about one that it was not given.
    ///
    /// # Errors
    /// [`Overloaded`] if too many agents wait for a place in memory. Nothing is lost: the store has the fact, and the
    /// sweep finds it.
    pub fn wake(&self, agent: AgentId) -> Result<(), Overloaded> {
        self.core().call(agent, Hint::Inbox)
    }

    /// The same for an agent that was born on this node just now; nothing of it is read then.
    ///
    /// # Errors
    /// [`Overloaded`], as for [`Self::wake`].
    pub fn wake_newborn(&self, newborn: Newborn) -> Result<(), Overloaded> {
        self.core().call_newborn(newborn)
    }

    /// A program by its hash, loaded and verified once.
    ///
    /// # Errors
    /// [`ProgramError`]: nobody put it, its bytes are damaged, a tool of it does not exist here, or the store failed.
    pub async fn program(&self, tenant: &TenantId, module: ModuleHash) -> Result<Arc<Program>, ProgramError> {
        let program = self.core().programs.get(tenant, module).await?;
        self.core().programs.check_tools(tenant, &program)?;
        Ok(program)
    }

    /// Keeps a program of a tenant under a name. Putting the same again writes nothing; puts of one tenant take turns.
    /// Dropping the future leaves open whether it was stored.
    ///
    /// # Errors
    /// [`ProgramError`]: the verifier refuses it, a tool of it does not exist here, or the store failed.
    pub async fn put_program(
        &self,
        tenant: &TenantId,
        module: &Module,
        name: &str,
        stamp: Stamp,
    ) -> Result<Arc<Program>, ProgramError> {
        self.core().programs.put(tenant, module, name, stamp).await
    }

    /// Waits until a service of the node was given up, because it failed too often. Agents are stranded then: the
    /// process should end and be started again. Does not keep the node alive. Cancel-safe.
    pub fn failed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.core().failed.clone().cancelled_owned()
    }

    /// What agents say while they work.
    pub fn live(&self) -> &LiveHub {
        &self.core().live
    }

    /// Whether an agent was called and has not begun yet: it waits for a place in memory, or reads its history.
    pub fn is_coming(&self, agent: AgentId) -> bool {
        self.core().residency.is_coming(agent)
    }

    /// Who is next on it, and for how long.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.core().config.scheduler
    }

    /// How the node is doing.
    pub fn stats(&self) -> NodeStats {
        self.core().stats()
    }

    /// Stops in good order: no agent begins anything new, answers in flight are waited for and recorded until
    /// `deadline`, agents leave with a snapshot. Then the node stands still for good, whether all was done or not.
    /// What was in flight at the deadline is sent again by the next owner, under the same key. Answers for agents that have
    /// left are waited for, and offered, until then too.
    pub async fn drain(&self, deadline: Duration) {
        let core = self.core();
        let until = core.clock.now().after(Millis(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX)));
        core.residency.drain();
        let done = async {
            core.residency.emptied().await;
            core.models.delivered().await;
        };
        tokio::select! {
            biased;
            () = done => info!(node = %core.config.node, "node is drained"),
            () = core.clock.wait_until(until) => {
                let left = core.residency.counts().live;
                warn!(node = %core.config.node, left, "node stops with agents in flight");
            }
        }
        core.stop();
    }
}

impl Core {
    fn new(
        config: NodeConfig,
        ports: Ports,
        run_queue: RunQueue,
        supervisors: Vec<Supervisor>,
        supervised: Arc<SuperviseCounters>,
    ) -> Arc<Self> {
        let Ports { store, memories, model, tools, clock, dice, neighbours, fence } = ports;
        Arc::new_cyclic(|core| {
            let (live, stop) = (LiveHub::default(), CancellationToken::new());
            let limits = ModelLimits {
                reservations_max: config.model_reservations_max,
                held_results_max: config.unrecorded_results_max,
            };
            let bell = Arc::new(Bell(core.clone()));
            let shares = (limits, config.tenant_weights.clone());
            let models = Models::new((model, tools.clone()), clock.clone(), live.clone(), bell, shares, stop.clone());
            models.lease(&config.leased);
            Self {
                programs: Programs::new(store.clone(), tools),
                residency: Residency::new(SeatLimits {
                    live_max: config.live_agents_max.max(1),
                    loading_max: config.loading_agents_max.max(1),
                    waiting_max: config.waiting_agents_max,
                }),
                beginning: Beginning::new(config.scheduler.max_concurrent_agents, config.waiting_agents_max),
                models,
                timers: Arc::new(Timers::new(config.timers_max)),
                run_queue,
                vitals: Arc::new(if config.compute_threads > 0 { Vitals::default() } else { Vitals::unwatched() }),
                ownership: Ownership::new(config.others),
                neighbours,
                fence,
                departed: Departed::default(),
                leads: Leads::default(),
                counters: Counters::default(),
                failed: CancellationToken::new(),
                config,
                store,
                memories,
                recalls: Arc::new(Semaphore::new(RECALLS_MAX)),
                clock,
                dice,
                live,
                stop,
                supervisors,
                supervised,
            }
        })
    }

    /// Starts the services: timers, turns to ask models, the sweep, and the look at the process.
    fn serve(self: &Arc<Self>) -> io::Result<()> {
        let bell: Arc<dyn Nudge> = Arc::new(Bell(Arc::downgrade(self)));
        let (timers, clock) = (self.timers.clone(), self.clock.clone());
        self.keep("timers", move || timers.clone().run(clock.clone(), bell.clone()));
        let models = self.models.clone();
        self.keep("models", move || models.clone().run());
        let core = self.clone();
        self.keep("sweep", move || takeover::sweep(core.clone()));
        self.serve_others();
        if self.config.compute_threads == 0 {
            return Ok(());
        }
        // Held by the watcher only while there is a budget to act on, so that a node that was dropped is gone.
        let acts = if self.config.memory_max.is_some() { Arc::downgrade(self) } else { Weak::new() };
        liveness::watch(self.vitals.clone(), acts, self.stop.clone())
    }

    /// Has idle agents sleep, and others wake, as the memory budget allows.
    pub(crate) fn look_at_memory(self: &Arc<Self>, gauge: &mut Gauge) {
        if let (Some(budget), Some(resident)) = (self.config.memory_max, self.vitals.resident()) {
            let Counts { live, idle, pressure, .. } = self.residency.counts();
            let relief = gauge.measure(resident, budget, live, idle);
            if relief.pressure != pressure {
                info!(resident, budget, from = ?pressure, to = ?relief.pressure, "memory pressure has changed");
            }
            self.start(self.residency.relieve(relief));
        }
    }

    /// On whose account an agent computes.
    pub(crate) fn share(&self, agent: AgentId, tenant: &TenantId, priority: u8) -> Share {
        let tenant_weight = self.config.tenant_weights.get(tenant).copied().unwrap_or(1);
        Share { agent, tenant: tenant.clone(), tenant_weight, weight: parts(1.0), priority, computed: 0 }
    }

    /// The fuel of one slice, by now.
    pub(crate) fn slice_fuel(&self) -> u64 {
        self.config.slice_fuel.unwrap_or_else(|| self.run_queue.slice_fuel())
    }

    /// Whether an agent may begin, or waits until it is called.
    pub(crate) fn begins(&self, agent: AgentId, tenant: &TenantId, priority: u8) -> bool {
        let Share { tenant, tenant_weight, .. } = self.share(agent, tenant, priority);
        self.beginning.begins(&Wish { agent, tenant, tenant_weight, priority }, self.clock.now())
    }

    /// An agent that has begun is at work, or is not; calls those who may begin in its place.
    pub(crate) fn is_at_work(self: &Arc<Self>, agent: AgentId, is_at_work: bool) {
        if is_at_work {
            return self.beginning.goes_on(agent);
        }
        for next in self.beginning.stops(agent) {
            self.hint(next, Hint::Again);
        }
    }

    /// Whether an agent waits to begin.
    pub(crate) fn holds_back(&self, agent: AgentId) -> bool {
        self.beginning.waits(agent)
    }

    fn keep<F>(&self, name: &'static str, service: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let ports = (self.clock.clone(), self.dice.clone());
        let (stop, failed) = (self.stop.clone(), self.failed.clone());
        tokio::spawn(keep_running(name, ports, self.supervised.clone(), stop, failed, service));
    }

    /// Hands a hint to an agent and brings it into memory if need be.
    pub(crate) fn call(self: &Arc<Self>, agent: AgentId, hint: Hint) -> Result<(), Overloaded> {
        if self.config.others && self.ownership.epoch(agent).is_none() {
            self.pass_on(agent);
            return Ok(());
        }
        let seat = self.residency.call(agent, hint)?;
        if hint == Hint::Inbox && seat.is_none() {
            self.run_queue.hurry(agent, self.clock.now());
        }
        self.start(seat);
        Ok(())
    }

    /// Brings an agent into memory that was born here just now, from what is known of it. If there is no room at the moment, or
    /// it was called before, it is read as any other.
    pub(crate) fn call_newborn(self: &Arc<Self>, newborn: Newborn) -> Result<(), Overloaded> {
        if self.ownership.epoch(newborn.agent()) != Some(AT_BIRTH) {
            return self.call(newborn.agent(), Hint::Inbox);
        }
        if let Some(seat) = self.residency.call_newborn(newborn.agent())? {
            self.adopt(AgentChild::newborn(self.clone(), seat, newborn));
        }
        Ok(())
    }

    /// The same for a hint whose loss is made good by the sweep.
    pub(crate) fn hint(self: &Arc<Self>, agent: AgentId, hint: Hint) {
        if let Err(error) = self.call(agent, hint) {
            debug!(%agent, ?hint, %error, "hint was dropped");
        }
    }

    fn start(self: &Arc<Self>, seats: impl IntoIterator<Item = Seat>) {
        for seat in seats {
            self.adopt(AgentChild::new(self.clone(), seat));
        }
    }

    /// The same for one whose loss is made good by the sweep.
    pub(crate) fn bring_up(self: &Arc<Self>, newborn: Newborn) {
        let agent = newborn.agent();
        if let Err(error) = self.call_newborn(newborn) {
            debug!(%agent, %error, "an agent that was born waits for the sweep");
        }
    }

    fn adopt(&self, child: AgentChild) {
        let shard = usize::from(child.agent().as_bytes()[0]) % self.supervisors.len();
        self.supervisors[shard].adopt(Box::new(child));
    }

    /// An agent has read its history.
    pub(crate) fn loaded(self: &Arc<Self>, seat: &Seat) {
        self.start(self.residency.loaded(seat));
    }

    /// Whether an agent with nothing to do may leave memory.
    pub(crate) fn leave(self: &Arc<Self>, seat: &Seat) -> bool {
        self.residency.leave(seat).map(|next| self.start(next)).is_ok()
    }

    /// An agent leaves memory whatever comes.
    pub(crate) fn leave_now(self: &Arc<Self>, seat: &Seat) {
        self.start(self.residency.gone(seat));
    }

    /// Stops everything where it stands.
    fn stop(&self) {
        self.residency.close();
        self.stop.cancel();
        self.run_queue.close();
        for supervisor in &self.supervisors {
            supervisor.stop();
        }
    }
}
