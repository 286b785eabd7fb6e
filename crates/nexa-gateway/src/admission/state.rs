//! What admission remembers: who enters, which workloads have not begun, who asked lately, what was accepted.
//!
//! Bounds: entering and unstarted work by the limits that admission judges by; tenants of a window at [`TENANTS_MAX`],
//! above it one that is not noted counts as itself only; accepted requests at [`ACCEPTED_KEPT_MAX`], then the oldest goes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use nexa_runtime::NodeStats;
use nexa_types::{AgentId, Millis, TenantId, Timestamp, WorkloadId};

use super::ACCEPTED_KEPT_MAX;
use super::judge::{Demand, Excess, Pressure};

/// Half of what counts as lately.
const WINDOW: Millis = Millis(1_000);
/// Tenants that are noted in one window.
const TENANTS_MAX: usize = 1_024;
/// Between two looks at which workloads have begun: one takes a moment for each.
const LOOK_EVERY: Millis = Millis(20);

/// What was asked for in one window.
#[derive(Default)]
struct Window {
    admitted: u64,
    refused: u64,
    tenants: BTreeSet<TenantId>,
}

#[derive(Default)]
pub(super) struct State {
    entering: usize,
    entering_agents: usize,
    /// Accepted roots that had not begun at the last look.
    unstarted: Vec<(AgentId, TenantId)>,
    next_look: Timestamp,
    /// Of each tenant, workloads that enter or have not begun. None is kept at zero.
    of_tenant: HashMap<TenantId, usize>,
    accepted: HashSet<WorkloadId>,
    accepted_order: VecDeque<WorkloadId>,
    window: Window,
    before: Window,
    window_ends: Timestamp,
    pub(super) refused: BTreeMap<Excess, u64>,
}

impl State {
    /// Whether this request was accepted.
    pub(super) fn knows(&self, workload: WorkloadId) -> bool {
        self.accepted.contains(&workload)
    }

    /// Notes who asks, and lets go of what has begun.
    pub(super) fn look(&mut self, now: Timestamp, tenant: &TenantId, is_coming: impl Fn(AgentId) -> bool) {
        if now >= self.window_ends {
            let idle = now.since(self.window_ends) >= WINDOW;
            self.before = std::mem::take(&mut self.window);
            if idle {
                self.before = Window::default();
            }
            self.window_ends = now.after(WINDOW);
        }
        if !self.window.tenants.contains(tenant) && self.window.tenants.len() < TENANTS_MAX {
            self.window.tenants.insert(tenant.clone());
        }
        if now >= self.next_look {
            self.next_look = now.after(LOOK_EVERY);
            let (still, begun) =
                std::mem::take(&mut self.unstarted).into_iter().partition(|(root, _)| is_coming(*root));
            self.unstarted = still;
            let begun: Vec<_> = begun;
            begun.iter().for_each(|(_, tenant)| self.release(tenant));
        }
    }

    /// How things stand for a tenant who asks.
    pub(super) fn pressure(&self, tenant: &TenantId, node: &NodeStats) -> Pressure {
        let others = self.before.tenants.union(&self.window.tenants).filter(|other| *other != tenant).count();
        let (live, waiting) = (node.live_agents, node.waiting_agents);
        let entering = self.entering_agents;
        Pressure {
            entering: self.entering,
            unstarted: entering + self.unstarted.len(),
            unstarted_of_tenant: self.of_tenant.get(tenant).copied().unwrap_or(0),
            tenants: 1 + others,
            present: live + waiting + entering,
            waiting,
            unfinished: live + waiting + node.dormant_agents + entering,
            store_oldest_ms: node.store_oldest_ms,
            unrecorded: node.results_unrecorded,
            memory_permille: match (node.resident_bytes, node.memory_max) {
                (Some(resident), Some(max)) => resident.saturating_mul(1_000) / max.max(1),
                _ => 0,
            },
            lag_ms: node.runtime_lag_ms,
            admitted_lately: self.before.admitted + self.window.admitted,
            refused_lately: self.before.refused + self.window.refused,
        }
    }

    pub(super) fn enter(&mut self, tenant: &TenantId, demand: Demand) {
        self.window.admitted += 1;
        self.entering += 1;
        if demand == Demand::Agents {
            self.entering_agents += 1;
            *self.of_tenant.entry(tenant.clone()).or_default() += 1;
        }
    }

    pub(super) fn refuse(&mut self, reason: Excess) {
        self.window.refused += 1;
        *self.refused.entry(reason).or_default() += 1;
    }

    /// A workload that enters is durable.
    pub(super) fn accepted(&mut self, workload: WorkloadId, root: AgentId, tenant: &TenantId) {
        if !self.accepted.insert(workload) {
            return;
        }
        self.accepted_order.push_back(workload);
        if self.accepted_order.len() > ACCEPTED_KEPT_MAX
            && let Some(oldest) = self.accepted_order.pop_front()
        {
            self.accepted.remove(&oldest);
        }
        self.unstarted.push((root, tenant.clone()));
        *self.of_tenant.entry(tenant.clone()).or_default() += 1;
    }

    /// Work that entered is carried out, or has failed.
    pub(super) fn leave(&mut self, tenant: &TenantId, demand: Demand) {
        self.entering = self.entering.saturating_sub(1);
        if demand == Demand::Agents {
            self.entering_agents = self.entering_agents.saturating_sub(1);
            self.release(tenant);
        }
    }

    fn release(&mut self, tenant: &TenantId) {
        if let Some(count) = self.of_tenant.get_mut(tenant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_tenant.remove(tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).expect("a good name")
    }

    fn agent(n: u8) -> AgentId {
        AgentId::from_bytes([n; 16])
    }

    fn workload(n: u8) -> WorkloadId {
        WorkloadId::from_bytes([n; 16])
    }

    fn seen(state: &State, of: &TenantId) -> (usize, usize, usize, usize) {
        let load = state.pressure(of, &NodeStats { live_agents: 5, waiting_agents: 2, ..NodeStats::default() });
        (load.entering, load.unstarted, load.unstarted_of_tenant, load.present)
    }

    #[test]
    fn a_workload_counts_from_its_entrance_until_it_has_begun() {
        let (mut state, ann) = (State::default(), tenant("ann"));
        state.enter(&ann, Demand::Agents);
        state.enter(&ann, Demand::Program);
        assert_eq!(seen(&state, &ann), (2, 1, 1, 8));
        assert!(!state.knows(workload(1)));
        state.accepted(workload(1), agent(1), &ann);
        state.leave(&ann, Demand::Agents);
        state.leave(&ann, Demand::Program);
        assert_eq!(seen(&state, &ann), (0, 1, 1, 7));
        assert!(state.knows(workload(1)));
        state.look(Timestamp(1), &ann, |_| true);
        assert_eq!(seen(&state, &ann), (0, 1, 1, 7));
        state.look(Timestamp(20), &ann, |_| false);
        assert_eq!(seen(&state, &ann), (0, 1, 1, 7), "not at every request");
        state.look(Timestamp(21), &ann, |_| false);
        assert_eq!(seen(&state, &ann), (0, 0, 0, 7));
        assert!(state.of_tenant.is_empty() && state.knows(workload(1)));
    }

    #[test]
    fn who_asked_lately_counts_as_a_tenant_and_is_forgotten_after_a_while() {
        let mut state = State::default();
        let tenants = |state: &State| state.pressure(&tenant("ann"), &NodeStats::default()).tenants;
        assert_eq!(tenants(&state), 1);
        state.look(Timestamp(10), &tenant("ann"), |_| false);
        state.look(Timestamp(20), &tenant("bob"), |_| false);
        state.refuse(Excess::Present);
        assert_eq!(tenants(&state), 2);
        state.look(Timestamp(1_500), &tenant("ann"), |_| false);
        assert_eq!(tenants(&state), 2, "lately is two windows");
        assert_eq!(state.pressure(&tenant("ann"), &NodeStats::default()).refused_lately, 1);
        state.look(Timestamp(9_000), &tenant("ann"), |_| false);
        assert_eq!(tenants(&state), 1);
        assert_eq!(state.pressure(&tenant("ann"), &NodeStats::default()).refused_lately, 0);
        assert_eq!(state.refused[&Excess::Present], 1);
    }

    #[test]
    fn what_was_accepted_long_ago_goes_first() {
        let (mut state, ann) = (State::default(), tenant("ann"));
        let id = |n: usize| WorkloadId::from_bytes((n as u128).to_be_bytes());
        for n in 0..=ACCEPTED_KEPT_MAX {
            state.accepted(id(n), agent(1), &ann);
        }
        assert!(!state.knows(id(0)) && state.knows(id(1)) && state.knows(id(ACCEPTED_KEPT_MAX)));
        assert_eq!(state.accepted.len(), ACCEPTED_KEPT_MAX);
    }
}
