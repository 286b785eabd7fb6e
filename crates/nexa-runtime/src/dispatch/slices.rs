//! A node's slices of what providers take from the whole cluster, from outside of its lanes.
//!
//! Whoever speaks with the leader ([`nexa_sched::lease::Leader`]) hands over what it says and fetches what it should know.
//! Nothing here waits or sends. Without any budget in [`NodeConfig::leased`](crate::NodeConfig::leased) it all does nothing.

use nexa_ports::model::LaneLimits;
use nexa_sched::ProviderBudget;
use nexa_sched::lease::{HolderId, Notice, Report, WaitingTenants};

use super::models::Models;

/// The slices of one node. Clones are the same.
#[derive(Clone)]
pub struct Slices {
    pub(crate) models: Models,
    pub(crate) budgets: std::sync::Arc<[ProviderBudget]>,
}

/// What a provider takes from all nodes together, if these are the limits of its key.
#[must_use]
pub fn budget_of(provider: impl Into<String>, limits: LaneLimits) -> ProviderBudget {
    let LaneLimits { concurrency, requests_per_minute, input_tokens_per_minute, output_tokens_per_minute } = limits;
    let concurrency = Some(concurrency.max(1) as u64);
    let provider = provider.into();
    ProviderBudget { provider, requests_per_minute, input_tokens_per_minute, output_tokens_per_minute, concurrency }
}

/// What the leader should know of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicesReport {
    /// What it holds, keeps, and wants.
    pub report: Report,
    /// By provider: the tenants of whom something waits on the node, and how many requests of each; those of whom most
    /// waits, and at most [`TENANTS_TOLD_MAX`](nexa_sched::lease::TENANTS_TOLD_MAX) of a provider.
    pub tenants: Vec<(String, WaitingTenants)>,
}

impl Slices {
    /// What is split over nodes, as this node's settings say.
    #[must_use]
    pub fn budgets(&self) -> &[ProviderBudget] {
        &self.budgets
    }

    /// This run of the node is a member of the cluster from now on. It has no slices yet. What an earlier run has in flight
    /// counts for that one.
    pub fn begin(&self, run: HolderId) {
        self.models.change(|slots, now| slots.begins(run, now));
    }

    /// The run's lease has ended: nothing more begins, until another run does.
    pub fn end(&self) {
        self.models.change(|slots, now| {
            slots.lease_ends(now);
            Vec::new()
        });
    }

    /// A leader has said how things stand.
    pub fn told(&self, notice: Notice) {
        self.models.change(|slots, now| slots.told(notice, now));
    }

    /// How many requests of tenants wait for a provider on other nodes: so this node counts for its part of them only.
    /// Holds for ten seconds.
    pub fn elsewhere(&self, provider: &str, tenants: &WaitingTenants) {
        self.models.change(|slots, now| {
            slots.elsewhere(provider, tenants, now);
            Vec::new()
        });
    }

    /// Waits until somebody waits whom only a larger slice helps, and much more waits than was last reported: then the leader
    /// should know at once. Cancel-safe; for one who waits.
    pub async fn hungry(&self) {
        self.models.shared.hungry.notified().await;
    }

    /// What the leader should know, about once a second; `None` while this node holds no lease. Takes a look at each lane of a
    /// shared provider, and each tenant in it.
    pub fn report(&self) -> Option<SlicesReport> {
        let (report, tenants) = self.models.with_slots(|slots, now| slots.report(now))?;
        Some(SlicesReport { report, tenants })
    }
}
