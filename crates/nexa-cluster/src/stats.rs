//! What a node among others counts, for monitors.

use std::sync::atomic::{AtomicU64, Ordering};

use nexa_sched::lease::Sizes;
use nexa_types::Millis;

use crate::cluster::Cluster;
use crate::inner::{Inner, lock};
use crate::peers::Traffic;

/// How long it took to move an agent to another node, in seconds.
pub const MIGRATION: &str = "nexa_cluster_migration_seconds";
/// How long it took until all agents of a lost node had another, in seconds.
pub const FAILOVER: &str = "nexa_cluster_failover_seconds";

/// The classes of [`Traffic`], in its order.
pub const CLASSES: [&str; 4] = ["control", "work", "bulk", "reads"];

/// How a node does as one of several. Counters start with the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterStats {
    /// Nodes that are there, as this one knows.
    pub members: usize,
    /// Of these, silent ones.
    pub suspects: usize,
    /// Of the others, those to which messages can be handed over now.
    pub links_up: usize,
    /// Whether this one leads, and works already.
    pub leads: bool,
    /// Agents that the store gave to nodes at this node's word as leader.
    pub agents_placed: u64,
    /// Agents that moved from this node to others while they lived.
    pub migrations: u64,
    /// Agents that were to, and did not.
    pub migrations_failed: u64,
    /// Nodes that were lost while this one led, all of whose agents have other owners.
    pub failovers: u64,
    /// What went over its links.
    pub traffic: Traffic,
    /// What it has of the budgets of model providers, by provider.
    pub budgets: Vec<BudgetStats>,
}

/// A slice of a provider's budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetStats {
    /// Whose.
    pub provider: String,
    /// What this node keeps.
    pub held: Sizes,
    /// What counts now and what waits, together.
    pub wanted: Sizes,
}

/// What is counted where it happens.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) agents_placed: AtomicU64,
    pub(crate) migrations: AtomicU64,
    pub(crate) migrations_failed: AtomicU64,
    pub(crate) failovers: AtomicU64,
}

impl Counters {
    /// The store has given so many agents to nodes.
    pub(crate) fn placed(&self, agents: usize) {
        self.agents_placed.fetch_add(agents as u64, Ordering::Relaxed);
    }

    /// An agent has moved to another node, which took so long until that had taken it up; or it has not.
    pub(crate) fn moved(&self, took: Option<Millis>) {
        let Some(took) = took else {
            self.migrations_failed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.migrations.fetch_add(1, Ordering::Relaxed);
        metrics::histogram!(MIGRATION).record(seconds(took));
    }

    /// Every agent of a lost node has another owner.
    pub(crate) fn failed_over(&self, took: Millis) {
        self.failovers.fetch_add(1, Ordering::Relaxed);
        metrics::histogram!(FAILOVER).record(seconds(took));
    }
}

fn seconds(took: Millis) -> f64 {
    took.0 as f64 / 1e3
}

impl Cluster {
    /// How this node does as one of several. Takes locks for a moment; for monitors, not for each call.
    #[must_use]
    pub fn stats(&self) -> ClusterStats {
        let inner: &Inner = self.inner();
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let budgets = inner.leases.get().map(|leases| leases.budgets()).unwrap_or_default();
        ClusterStats {
            members: inner.membership.members().borrow().nodes.len(),
            suspects: lock(&inner.seen).look.suspects.len(),
            links_up: inner.peers.links().borrow().values().filter(|state| state.is_up).count(),
            leads: self.leads(),
            agents_placed: of(&inner.counters.agents_placed),
            migrations: of(&inner.counters.migrations),
            migrations_failed: of(&inner.counters.migrations_failed),
            failovers: of(&inner.counters.failovers),
            traffic: inner.peers.traffic(),
            budgets,
        }
    }
}
