//! What the doors need of the cluster that their node belongs to.
//!
//! A narrow trait, as [`crate::host::Host`] is for the node itself: doors know neither links nor leaders. Whoever implements
//! it passes what it cannot decide here on to whoever can, and answers when that one has answered.
//!
//! [`Lone`] is the fleet of a node without others.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use nexa_event::envelope::FORMAT;
use nexa_event::formats::{Floor, Formats};
use nexa_ports::store::StoreError;
use nexa_types::{AgentId, NodeId, PrincipalId};

use crate::host::Host;

/// How a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It works and takes agents.
    Ready,
    /// It works and takes no new agents.
    Cordoned,
    /// Its agents are being moved away.
    Draining,
    /// It has none left and takes none.
    Drained,
    /// It has not been heard of for a while.
    Suspected,
    /// It crashed too often of late to be given anything.
    Resting,
}

/// A node, as the node that answers knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub id: NodeId,
    /// Which of its runs this is.
    pub generation: u64,
    /// How it stands.
    pub state: NodeState,
    /// Whether it decides which agents go where.
    pub is_leader: bool,
    /// Whether it is the node that answers.
    pub is_self: bool,
    /// Where clients reach it; empty if it does not say.
    pub door: String,
    /// Where other nodes reach it; empty without others.
    pub link: String,
    /// The version of its program.
    pub build: String,
    /// What it says of itself.
    pub labels: BTreeMap<String, String>,
    /// Its cores, in thousandths.
    pub cpu_milli: u64,
    /// Its memory in bytes; 0 without a limit.
    pub memory_bytes: u64,
    /// What it does, as it told last.
    pub load: Option<NodeLoad>,
}

/// What a node does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeLoad {
    /// Agents that it owns and that have not ended.
    pub agents: u64,
    /// Of these, in memory.
    pub live: u64,
    /// Of these, that compute or wait for a model or a tool.
    pub at_work: u64,
    /// Of these, that wait for a thread to compute.
    pub compute_waiting: u64,
    /// Model calls under way.
    pub model_calls: u64,
    /// Resident memory in bytes; 0 where the system does not tell.
    pub resident_bytes: u64,
    /// How late its runtime is, in milliseconds.
    pub lag_ms: u64,
}

/// In which format a cluster writes what it stores, and which formats its nodes read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatsView {
    /// What is written, and announced.
    pub floor: Floor,
    /// What each node reads.
    pub reads: BTreeMap<NodeId, Formats>,
}

impl FormatsView {
    /// The newest that every node reads, or what is written already.
    #[must_use]
    pub fn newest(&self) -> u16 {
        let read = self.reads.values().map(|reads| reads.newest).min();
        read.unwrap_or_default().max(self.floor.written)
    }
}

/// Why a cluster did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// No member has that name.
    #[error("there is no node `{node}`")]
    NoSuchNode {
        /// The name.
        node: NodeId,
    },
    /// No row has that id.
    #[error("there is no such agent")]
    NoSuchAgent,
    /// It has ended meanwhile.
    #[error("the agent has ended")]
    Ended,
    /// There are no other nodes.
    #[error("this node runs alone, so there is no other")]
    Alone,
    /// There are, and none will do.
    #[error("no node can take it: {why}")]
    Unfit {
        /// Why not.
        why: String,
    },
    /// Nobody decides at the moment.
    #[error("the cluster has no leader at the moment")]
    NoLeader,
    /// Whoever decides did not answer, so nobody knows whether it was done.
    #[error("the node that leads did not answer; it may have been done")]
    NoAnswer,
    /// It has too much to do to do this, too.
    #[error("{what}")]
    Busy {
        /// What is full.
        what: String,
    },
    /// A node does not read what is to be written.
    #[error("not every node reads format {format}: {why}")]
    Unread {
        /// The format.
        format: u16,
        /// Which node reads what.
        why: String,
    },
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The nodes behind the doors.
pub trait Fleet: Send + Sync {
    /// All nodes, by name.
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<NodeView>, FleetError>>;

    /// Keeps new agents away from a node, or lets them come again.
    fn cordon<'a>(&'a self, node: &'a NodeId, undo: bool) -> BoxFuture<'a, Result<(), FleetError>>;

    /// Begins to move every agent of a node away.
    fn drain<'a>(&'a self, node: &'a NodeId) -> BoxFuture<'a, Result<(), FleetError>>;

    /// Moves an agent to a node, or to whichever has the most room; ends when it is there.
    fn migrate(&self, agent: AgentId, to: Option<NodeId>) -> BoxFuture<'_, Result<(), FleetError>>;

    /// Begins to even out the load.
    fn rebalance(&self) -> BoxFuture<'_, Result<(), FleetError>>;

    /// In which format is written what is stored, and which formats each node reads.
    fn formats(&self) -> BoxFuture<'_, Result<FormatsView, FleetError>>;

    /// Has a format be written, at somebody's wish; ends when it is announced.
    fn raise_format(&self, format: u16, by: PrincipalId) -> BoxFuture<'_, Result<(), FleetError>>;
}

/// A node without others has a file of its own, in the one format that its build writes.
const ITS_OWN: Formats = Formats { oldest: FORMAT, newest: FORMAT };

/// A node without others: it lists itself, and there is nowhere to move anything to.
pub struct Lone {
    host: Arc<dyn Host>,
    door: String,
}

impl Lone {
    /// The fleet of this node, which clients reach at `door`.
    pub fn new(host: Arc<dyn Host>, door: String) -> Self {
        Self { host, door }
    }

    fn known(&self, node: &NodeId) -> Result<(), FleetError> {
        if node == self.host.id() { Ok(()) } else { Err(FleetError::NoSuchNode { node: node.clone() }) }
    }
}

impl Fleet for Lone {
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<NodeView>, FleetError>> {
        let stats = self.host.stats();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let load = NodeLoad {
            agents: (stats.live_agents + stats.waiting_agents + stats.dormant_agents) as u64,
            live: stats.live_agents as u64,
            at_work: stats.agents_at_work as u64,
            compute_waiting: stats.compute_waiting as u64,
            model_calls: stats.model_calls_in_flight as u64,
            resident_bytes: stats.resident_bytes.unwrap_or_default(),
            lag_ms: stats.runtime_lag_ms,
        };
        let only = NodeView {
            id: self.host.id().clone(),
            generation: 0,
            state: NodeState::Ready,
            is_leader: true,
            is_self: true,
            door: self.door.clone(),
            link: String::new(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            labels: BTreeMap::new(),
            cpu_milli: cores as u64 * 1_000,
            memory_bytes: stats.memory_max.unwrap_or_default(),
            load: Some(load),
        };
        futures::future::ready(Ok(vec![only])).boxed()
    }

    fn cordon<'a>(&'a self, node: &'a NodeId, undo: bool) -> BoxFuture<'a, Result<(), FleetError>> {
        let answer = self.known(node).and(if undo { Ok(()) } else { Err(FleetError::Alone) });
        futures::future::ready(answer).boxed()
    }

    fn drain<'a>(&'a self, node: &'a NodeId) -> BoxFuture<'a, Result<(), FleetError>> {
        futures::future::ready(self.known(node).and(Err(FleetError::Alone))).boxed()
    }

    fn migrate(&self, _: AgentId, to: Option<NodeId>) -> BoxFuture<'_, Result<(), FleetError>> {
        let answer = match to {
            Some(node) => self.known(&node),
            None => Err(FleetError::Alone),
        };
        futures::future::ready(answer).boxed()
    }

    fn rebalance(&self) -> BoxFuture<'_, Result<(), FleetError>> {
        futures::future::ready(Ok(())).boxed()
    }

    fn formats(&self) -> BoxFuture<'_, Result<FormatsView, FleetError>> {
        let reads = BTreeMap::from([(self.host.id().clone(), ITS_OWN)]);
        futures::future::ready(Ok(FormatsView { floor: Floor::of(FORMAT), reads })).boxed()
    }

    fn raise_format(&self, format: u16, _: PrincipalId) -> BoxFuture<'_, Result<(), FleetError>> {
        let why = || format!("node {} reads formats up to {FORMAT}", self.host.id());
        let answer = if format <= FORMAT { Ok(()) } else { Err(FleetError::Unread { format, why: why() }) };
        futures::future::ready(answer).boxed()
    }
}
