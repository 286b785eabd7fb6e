//! A node among others: ties together the node, its membership, its links, and the leader's actor if it is elected.
//!
//! ```text
//! Membership ─► who is there, who leads ─┬─► links: whom to meet
//!                                        ├─► detector: whom to listen for
//! heartbeats of others ─► Relay ─────────┼─► leader's actor ─► store, orders to nodes
//! hints, orders, answers ─► Relay ───────┴─► node: wake, adopt, release, carried
//! ```
//!
//! Order at the start: join the membership, make the [`Relay`], start the node with it, then this.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use nexa_member::detector::Detector;
use nexa_member::leader::{Input, Limits, Mark};
use nexa_member::say::{self, Answered, Command, Load, Refused};
use nexa_ports::clock::Clock;
use nexa_ports::dice::Dice;
use nexa_ports::formats::{Floor, Formats, Unreadable, Writing};
use nexa_ports::leadership::Leadership;
use nexa_ports::membership::{Member, Membership, MembershipError, NodeCard, Standing};
use nexa_ports::neighbours::Neighbours;
use nexa_ports::store::{Store, StoreError};
use nexa_runtime::bounded::{Address, Bound, Bounds, Lane};
use nexa_runtime::supervise::{SuperviseCounters, Supervisor};
use nexa_sched::lease::BudgetsError;
use nexa_types::planted::{Bug, planted};
use nexa_types::{AgentId, Generation, Millis, NodeId, PrincipalId};
use tokio::runtime::Handle as Runtime;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::formats::{self, FormatsError};
use crate::heartbeat;
use crate::host::Host;
use crate::inner::{Inner, Office, lock};
use crate::leader::{self, Message};
use crate::live;
use crate::peers::{AskError, Class, Peers, Service};
use crate::relay::Relay;
use crate::stats::Counters;

/// Between two looks of the leader's actor at the time.
pub(crate) const TICK: Millis = Millis(50);
/// How long a person's command may take.
pub(crate) const COMMAND_WITHIN: Duration = Duration::from_secs(15);
/// How long is waited for somebody to lead.
const LEADER_WITHIN: Millis = Millis(5_000);
/// Between two looks who leads.
const LEADER_PAUSE: Millis = Millis(50);
/// Between two looks whether a node that leaves is empty.
const LEAVE_PAUSE: Millis = Millis(20);

/// What is set about a node among others.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// What it says of itself. Its name is the node's.
    pub card: NodeCard,
    /// Whether it leads if it is elected.
    pub may_lead: bool,
    /// What it keeps to when it leads.
    pub limits: Limits,
    /// Where its signs of life come from.
    pub heart: Heart,
}

/// Where signs of life come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Heart {
    /// A thread of their own: a busy node does not look dead.
    #[default]
    Thread,
    /// A task of the runtime that does not look at the process: a simulation has all of it in one thread.
    Task,
}

/// What it works with.
#[derive(Clone)]
pub struct ClusterPorts {
    /// The node beside which it stands; started with this [`Relay`] as its neighbours.
    pub host: Arc<dyn Host>,
    /// The relay that node and links were made with.
    pub relay: Arc<Relay>,
    /// Streams and rows.
    pub store: Arc<dyn Store>,
    /// What only a leader writes.
    pub leadership: Arc<dyn Leadership>,
    /// Who is there.
    pub membership: Arc<dyn Membership>,
    /// The links.
    pub peers: Arc<dyn Peers>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for placing.
    pub dice: Arc<dyn Dice>,
    /// What the store reads, and in which format it writes.
    pub writing: Writing,
}

/// Why a node is not among others.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It could not join.
    #[error("the node could not join the cluster")]
    Join(#[from] MembershipError),
    /// The system gives no more threads.
    #[error("the thread for signs of life could not be started")]
    Thread(#[source] std::io::Error),
    /// The leader's actor could not be started.
    #[error("the supervisor of the leader's actor could not be started: {0}")]
    Supervisor(String),
    /// What the cluster writes is not for this node.
    #[error(transparent)]
    Formats(#[from] FormatsError),
    /// The relay belongs to another cluster.
    #[error("the relay is in use: make one for each node")]
    RelayInUse,
    /// What model providers take is not said as it should be.
    #[error("the limits of model providers cannot be shared out")]
    Budgets(#[from] BudgetsError),
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Nobody leads.
    #[error("nobody leads the cluster at the moment; try again in a few seconds")]
    NoLeader,
    /// The one who leads did not answer. Whether it was done is open: look before trying again.
    #[error("the leading node did not answer; look whether it was done before trying again")]
    NoAnswer,
    /// There is no such live agent with an owner.
    #[error("the agent does not exist, has ended, or has no node yet")]
    NoSuchAgent,
    /// Whoever leads refuses.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A node as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// What it says of itself, and which run it is.
    pub member: Member,
    /// Whether it takes agents.
    pub mark: Mark,
    /// What it said last that it has to do; none before it was heard.
    pub load: Option<Load>,
    /// Whether it leads.
    pub leads: bool,
    /// Whether the node that was asked has not heard it for too long.
    pub is_suspected: bool,
    /// Whether it takes itself for cut off.
    pub is_lonely: bool,
}

/// A node among others. Clones are the same one. When the last is dropped it is silent at once, as if it had crashed.
#[derive(Clone)]
pub struct Cluster {
    handle: Arc<Handle>,
}

struct Handle {
    inner: Arc<Inner>,
    supervisor: Supervisor,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.stop.cancel();
        self.supervisor.stop();
    }
}

impl Cluster {
    /// Makes a node one among others. Joins if that was not done before. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: ClusterConfig, ports: ClusterPorts) -> Result<Self, StartError> {
        let ClusterPorts { host, relay, store, leadership, membership, peers, clock, dice, writing } = ports;
        let standing = *membership.standing().borrow();
        let generation = match standing {
            Standing::Member { generation, .. } => generation,
            Standing::Outside | Standing::Lost => membership.join(config.card.clone()).await?,
        };
        formats::agree(&*leadership, &writing).await?;
        let supervisor = Supervisor::start(clock.clone(), dice.clone(), Arc::new(SuperviseCounters::default())).await;
        let supervisor = supervisor.map_err(|error| StartError::Supervisor(error.to_string()))?;
        let me = config.card.id.clone();
        let many = Bound { count_max: 8_192, bytes_max: usize::MAX };
        let inner = Arc::new(Inner {
            me: config.card.id.clone(),
            generation,
            card: config.card,
            limits: config.limits,
            may_lead: config.may_lead,
            detector: Mutex::new(Detector::new(me, clock.now())),
            host,
            relay: relay.clone(),
            store,
            leadership,
            membership,
            peers,
            clock,
            dice,
            writing,
            raising: tokio::sync::Mutex::default(),
            leader: Address::new(Bounds { replies: many, ..Bounds::default() }),
            office: Office::default(),
            runtime: Runtime::current(),
            stop: CancellationToken::new(),
            taken: Mutex::default(),
            counters: Counters::default(),
            live: Mutex::default(),
            seen: Mutex::default(),
            levels: Mutex::default(),
            leases: OnceLock::new(),
            is_leaving: AtomicBool::new(false),
            parting: AtomicUsize::new(0),
            lost: CancellationToken::new(),
            failed: CancellationToken::new(),
            outdated: OnceLock::new(),
            too_old: CancellationToken::new(),
        });
        if !relay.attach(Arc::downgrade(&inner)) {
            return Err(StartError::RelayInUse);
        }
        // From here on a failure stops what was started.
        let cluster = Self { handle: Arc::new(Handle { inner: inner.clone(), supervisor }) };
        let list = inner.membership.members().borrow().clone();
        inner.take_in(&list);
        let weak = Arc::downgrade(&inner);
        cluster.handle.supervisor.serve(&inner.leader, move || leader::Actor::new(weak.clone()), inner.failed.clone());
        inner.lease_budgets()?;
        heartbeat::start(&inner, config.heart).map_err(StartError::Thread)?;
        tokio::spawn(watch(inner.clone()));
        tokio::spawn(tick(inner.clone()));
        tokio::spawn(send_hints(inner.clone()));
        if let Some(hub) = inner.host.live() {
            tokio::spawn(live::run(inner.clone(), hub));
        }
        tokio::spawn(formats::keep(inner.clone()));
        inner.membership.campaign(inner.may_lead);
        info!(node = %inner.me, %generation, "node is among others");
        Ok(cluster)
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.handle.inner
    }

    /// The node's name.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.inner().me
    }

    /// Which run it is.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.inner().generation
    }

    /// How agents of this node reach the others.
    #[must_use]
    pub fn neighbours(&self) -> Arc<dyn Neighbours> {
        self.inner().relay.clone()
    }

    /// Whether this node leads, and works already: the store knows.
    #[must_use]
    pub fn leads(&self) -> bool {
        !lock(&self.inner().levels).is_empty()
    }

    /// Whether this node may start nothing more on the strength of its lease; see [`nexa_runtime::fence::Leased`] for what
    /// the store's word still allows.
    #[must_use]
    pub fn fenced(&self) -> bool {
        self.inner().is_fenced()
    }

    /// Waits until this run is over, because its lease has ended, or because the leader's actor was given up. The process
    /// should end then, and come back as another run. Cancel-safe.
    pub async fn over(&self) {
        tokio::select! {
            biased;
            () = self.inner().lost.cancelled() => {}
            () = self.inner().failed.cancelled() => {}
        }
    }

    /// Waits until others write what this node does not read, because it is of an older release; gives what they write. What it
    /// has is to move away then. Cancel-safe.
    pub async fn is_outdated(&self) -> Unreadable {
        let inner = self.inner();
        inner.too_old.cancelled().await;
        *inner.outdated.get().expect("it is set before anybody is told")
    }

    /// All nodes, by name.
    ///
    /// # Errors
    /// [`StoreError`] if what is to be done with them could not be read.
    pub async fn nodes(&self) -> Result<Vec<NodeView>, StoreError> {
        let inner = self.inner();
        let marks = inner.marks().await?;
        let members = inner.membership.members().borrow().clone();
        let now = inner.clock.now();
        let seen = lock(&inner.seen);
        let view = |(node, member): (&NodeId, &Member)| {
            let beat = seen.beats.get(node).filter(|(generation, _)| *generation == member.generation);
            let is_led = |leader: &nexa_ports::membership::Leader| {
                leader.node == *node && leader.generation == member.generation
            };
            NodeView {
                member: member.clone(),
                mark: marks.get(node).map_or(Mark::Open, |(_, mark)| mark.by(now)),
                load: beat.map(|(_, beat)| beat.load),
                leads: members.leader.as_ref().is_some_and(is_led),
                is_suspected: seen.look.suspects.contains(&(node.clone(), member.generation)),
                is_lonely: beat.is_some_and(|(_, beat)| beat.is_lonely),
            }
        };
        Ok(members.nodes.iter().map(view).collect())
    }

    /// Has a node take nothing new, or take agents again.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn cordon(&self, node: NodeId, on: bool) -> Result<(), ClusterError> {
        self.command(Command::Cordon { node, on }).await
    }

    /// Has a node take nothing new, and what it has move away. Returns when that has begun; the node is empty when its load
    /// says so. Undone by [`cordon`](Self::cordon) with `false`.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn drain(&self, node: NodeId) -> Result<(), ClusterError> {
        self.command(Command::Drain { node }).await
    }

    /// Moves an agent while it lives, to a node or to one of the leader's choice. Returns when it is there.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn migrate(&self, agent: AgentId, to: Option<NodeId>) -> Result<(), ClusterError> {
        let row = self.inner().store.row(agent).await?.filter(|row| !row.state.is_terminal());
        let (from, asks) = row.and_then(|row| Some((row.node?, row.asks))).ok_or(ClusterError::NoSuchAgent)?;
        self.command(Command::Migrate { agent, from, to, asks }).await
    }

    /// Has agents move from nodes with more than their share to those with less. Returns when that has begun.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn rebalance(&self) -> Result<(), ClusterError> {
        self.command(Command::Rebalance).await
    }

    /// In which format the cluster writes what it stores, and which formats each node reads.
    ///
    /// # Errors
    /// [`StoreError`] if what the store keeps of it could not be read.
    pub async fn formats(&self) -> Result<(Floor, BTreeMap<NodeId, Formats>), StoreError> {
        formats::list(self.inner()).await
    }

    /// Has the cluster write a newer format: from then on there is no way back to releases that do not read it. Returns when
    /// it is announced; it is written a [`WAIT`](nexa_member::floor::WAIT) later. Asked again, it is as it was.
    ///
    /// # Errors
    /// [`ClusterError`]; [`Refused::Unread`] if a node does not read it.
    pub async fn raise_format(&self, format: u16, by: PrincipalId) -> Result<(), ClusterError> {
        self.command(Command::RaiseFormat { format, by }).await
    }

    /// Gives a command to whoever leads, and waits a while for somebody to.
    async fn command(&self, command: Command) -> Result<(), ClusterError> {
        let inner = self.inner();
        let until = inner.clock.now().after(LEADER_WITHIN);
        loop {
            let leader = inner.membership.members().borrow().leader.clone();
            let answer = match leader {
                Some(leader) if leader.node == inner.me && leader.generation == inner.generation => {
                    inner.ask_leader(command.clone()).await
                }
                Some(leader) => self.ask(&leader.node, &command).await,
                None => Err(ClusterError::Refused(Refused::NotLeading)),
            };
            match answer {
                Err(ClusterError::Refused(Refused::NotLeading)) if inner.clock.now() < until => {
                    inner.clock.wait_until(inner.clock.now().after(LEADER_PAUSE)).await;
                }
                Err(ClusterError::Refused(Refused::NotLeading)) => return Err(ClusterError::NoLeader),
                answer => return answer,
            }
        }
    }

    async fn ask(&self, leader: &NodeId, command: &Command) -> Result<(), ClusterError> {
        let body = say::write(command).into();
        match self.inner().peers.ask(leader, Class::Control, Service::Queries, body, COMMAND_WITHIN).await {
            Ok(answer) => match say::read::<Answered>(&answer) {
                Ok(Answered { refused: None }) => Ok(()),
                Ok(Answered { refused: Some(why) }) => Err(why.into()),
                Err(_) => Err(ClusterError::NoAnswer),
            },
            // It was not sent, or it was refused unread: it may be asked again.
            Err(AskError::NotSent(_) | AskError::Refused(_)) => Err(Refused::NotLeading.into()),
            Err(AskError::NoAnswer) => Err(ClusterError::NoAnswer),
        }
    }

    /// Leaves in good order: resigns, has its agents move to the others and waits until those have them, and for the answers
    /// of calls that they left in flight; and gives its lease back; at the latest after `within`. The node itself is to be drained then.
    ///
    /// # Errors
    /// [`MembershipError`] if the lease could not be given back: it ends by itself.
    pub async fn leave(&self, within: Duration) -> Result<(), MembershipError> {
        let inner = self.inner();
        let until = inner.clock.now().after(Millis(u64::try_from(within.as_millis()).unwrap_or(u64::MAX)));
        inner.is_leaving.store(true, Ordering::Relaxed);
        inner.membership.campaign(false);
        let has_others = || inner.membership.members().borrow().nodes.len() > 1;
        let is_needed = || {
            let load = inner.host.load();
            load.agents > 0 || load.carried > 0 || inner.parting.load(Ordering::Relaxed) > 0
        };
        while is_needed() && has_others() && inner.clock.now() < until {
            inner.clock.wait_until(inner.clock.now().after(LEAVE_PAUSE)).await;
        }
        info!(node = %inner.me, left = inner.host.load().agents, "node leaves");
        inner.membership.leave().await
    }
}

/// Follows who is there and who leads, and how this node stands.
async fn watch(inner: Arc<Inner>) {
    let (mut members, mut standing) = (inner.membership.members(), inner.membership.standing());
    let mut is_other = true;
    loop {
        // Who is there changes seldom, and the standing with each renewal of the lease.
        if std::mem::take(&mut is_other) {
            let list = members.borrow_and_update().clone();
            inner.take_in(&list);
        }
        let is_lost = *standing.borrow_and_update() == Standing::Lost && !planted(Bug::LostLeaseIgnored);
        if is_lost && !inner.lost.is_cancelled() {
            error!(node = %inner.me, generation = %inner.generation, "the node's lease has ended: this run of it is over");
            inner.lost.cancel();
        }
        tokio::select! {
            biased;
            changed = members.changed() => if changed.is_ok() { is_other = true } else { return },
            changed = standing.changed() => if changed.is_err() { return },
            () = inner.stop.cancelled() => return,
        }
    }
}

/// Tells the leader's actor that time passes. One that is not elected has no use for that.
async fn tick(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            biased;
            () = inner.office.taken() => {}
            () = inner.stop.cancelled() => return,
        }
        tokio::select! {
            biased;
            () = inner.clock.wait_until(inner.clock.now().after(TICK)) => {}
            () = inner.stop.cancelled() => return,
        }
        // One that has not taken in the last ones needs no more of them.
        let _ = inner.leader.tell(Lane::Work, 0, Message::Input(Input::Tick));
    }
}

/// Sends hints as they come, many at once if many came.
async fn send_hints(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            biased;
            () = inner.relay.has_hints.notified() => inner.relay.flush(&inner),
            () = inner.stop.cancelled() => return,
        }
    }
}
