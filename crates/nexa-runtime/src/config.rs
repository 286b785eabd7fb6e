//! The limits of a node, by name, and what it counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use nexa_agent::PagingCounts;
use nexa_sched::{ProviderBudget, SchedulerConfig};
use nexa_types::{Millis, NodeId, TenantId};

use crate::memory::MemoryPressure;

/// Who a node is and how much it takes on. What happens at each limit stands beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// The node's name in agent rows. Two running nodes on one store need two names.
    pub node: NodeId,
    /// Whether there are other nodes on the same store: then agents are this node's only if they were left by an earlier
    /// run of it, were born here, or were given to it.
    pub others: bool,
    /// What providers take from this node and all others together. To a provider that is named here, by the name of its
    /// lane, the node sends only what its slices allow: see [`Slices`](crate::Slices) and [`budget_of`](crate::budget_of). None on a node without others.
    pub leased: Vec<ProviderBudget>,
    /// Agents in memory. Above it the cheapest idle one leaves for the next, which waits meanwhile.
    pub live_agents_max: usize,
    /// Agents that read their history at the same time, after a start as ever. The others wait.
    pub loading_agents_max: usize,
    /// Agents that wait for a place in memory. A further one is refused with `Overloaded`; the sweep finds it later. And
    /// agents that wait to begin: a further one does so when the sweep finds it.
    pub waiting_agents_max: usize,
    /// An agent that waits this long with nothing in flight leaves memory.
    pub idle_before_dormant: Millis,
    /// Who is next, and for how long. What it says of many nodes means this one.
    pub scheduler: SchedulerConfig,
    /// Fuel between two looks at other agents; without it, as much as the scheduler's time slice is worth by what slices
    /// took of late.
    pub slice_fuel: Option<u64>,
    /// Threads that compute. Who computes for longer than a moment waits for one, by fair shares over tenants. With 0 the
    /// node has no threads of its own: programs compute in tasks of the runtime, and nobody looks how late that is and how
    /// large the process, so that a simulation has all of it in one thread.
    pub compute_threads: usize,
    /// Resident memory of the process, in bytes, that the node tries to stay below: above 80 % of it idle agents leave
    /// memory before their time and wake-ups are rationed, above 90 % hardly anybody comes into memory.
    pub memory_max: Option<u64>,
    /// Agents that wait for a sending slot of one model lane. A further one asks again after `reservation_retry`.
    pub model_reservations_max: usize,
    /// See `model_reservations_max`.
    pub reservation_retry: Millis,
    /// Ended effects that no agent has recorded yet, as when the store is away. At the limit nothing new is sent.
    pub unrecorded_results_max: usize,
    /// Agents with a timer. The latest above it are left to the sweep.
    pub timers_max: usize,
    /// Between two looks for agents whose hint got lost.
    pub sweep_every: Millis,
    /// Rows that one look goes through; the next one goes on where it ended.
    pub sweep_rows_max: usize,
    /// Shares of tenants in what is scarce: the budgets of models, processor time. A tenant that is not named weighs 1.
    pub tenant_weights: BTreeMap<TenantId, u32>,
}

impl NodeConfig {
    /// The usual limits for a node of this name.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            others: false,
            leased: Vec::new(),
            live_agents_max: 20_000,
            loading_agents_max: 64,
            waiting_agents_max: 1_000_000,
            idle_before_dormant: Millis(10_000),
            scheduler: SchedulerConfig::default(),
            slice_fuel: None,
            compute_threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_max: None,
            model_reservations_max: 100_000,
            reservation_retry: Millis(1_000),
            unrecorded_results_max: 4_096,
            timers_max: 1_000_000,
            sweep_every: Millis(5_000),
            sweep_rows_max: 256,
            tenant_weights: BTreeMap::new(),
        }
    }
}

impl NodeConfig {
    /// The priority of a level: the least for the lowest level, the highest for the highest, evenly between.
    pub(crate) fn leveled(&self, priority: u8) -> u8 {
        let top = u16::from(self.scheduler.priority_levels.max(1)) - 1;
        let level = u16::from(self.scheduler.level(priority));
        // All priorities of one level are equal; a single level is that of a workload that says nothing.
        (level * u16::from(u8::MAX)).checked_div(top).map_or(128, |leveled| u8::try_from(leveled).unwrap_or(u8::MAX))
    }
}

/// How a node is doing. Counts are since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Agents in memory.
    pub live_agents: usize,
    /// Of these, with nothing to do and nothing in flight.
    pub idle_agents: usize,
    /// Agents that wait for a place in memory.
    pub waiting_agents: usize,
    /// Agents of this node that are known to live in the store only.
    pub dormant_agents: usize,
    /// Agents that compute, or wait for a model or a tool.
    pub agents_at_work: usize,
    /// Agents that wait to begin, because as many as may are at work.
    pub agents_held_back: usize,
    /// Agents with a timer.
    pub timers: usize,
    /// Agents that wait for a thread to compute.
    pub compute_waiting: usize,
    /// Slices that the threads have begun.
    pub compute_slices: u64,
    /// How late the runtime was at its last turn, or is by now, in milliseconds. Seen from a thread of its own.
    pub runtime_lag_ms: u64,
    /// Resident memory of the process, a tenth of a second old at most; `None` where the system does not tell.
    pub resident_bytes: Option<u64>,
    /// The budget for it.
    pub memory_max: Option<u64>,
    /// How the two stand to each other.
    pub memory_pressure: MemoryPressure,
    /// Model calls in flight.
    pub model_calls_in_flight: usize,
    /// Agents that wait for a sending slot.
    pub model_calls_waiting: usize,
    /// Answers that no agent has recorded yet.
    pub results_unrecorded: usize,
    /// Calls to the store that wait to be written.
    pub store_calls: usize,
    /// Their bytes.
    pub store_bytes: usize,
    /// How long the oldest of them has waited, in milliseconds.
    pub store_oldest_ms: u64,
    /// Tool calls sent.
    pub tool_calls: u64,
    /// Model calls sent.
    pub model_calls: u64,
    /// Requests to models that an earlier answer did for, so that nothing was sent.
    pub reused_answers: u64,
    /// Of the model calls, sent with an attempt above 1: an earlier one was in flight when its node was lost.
    pub reissued_model_calls: u64,
    /// Lanes of models that pause because their provider asked for it.
    pub model_lanes_paused: usize,
    /// Lanes of models whose endpoint is away, so that calls are held back.
    pub model_breakers_open: usize,
    /// Model calls that a provider refused because there were too many.
    pub model_calls_rate_limited: u64,
    /// Model calls that were not sent, and failed, because their endpoint was away for longer than they could wait.
    pub model_calls_held_back: u64,
    /// Model calls that have got their turn.
    pub model_waits: u64,
    /// How long these waited for it, in milliseconds, all together.
    pub model_waits_ms: u64,
    /// Panics in model adapters.
    pub adapter_panics: u64,
    /// Steps taken and acted on.
    pub steps: u64,
    /// Appends sent to the store.
    pub appends: u64,
    /// Agent actors and services that died by a panic.
    pub panics: u64,
    /// Agent actors that gave up with an error.
    pub faults: u64,
    /// Restarts of agent actors and services.
    pub restarts: u64,
    /// Agents that were quarantined.
    pub quarantined: u64,
    /// Requests to models for which an agent's conversation was searched, because it has outgrown its window.
    pub context_recalls: u64,
    /// Pages of conversations that such a request needed and that were active.
    pub page_hits: u64,
    /// Pages that it needed and that had to be read.
    pub page_faults: u64,
    /// Active pages that left for others.
    pub page_evictions: u64,
    /// Whether the node stops and takes no new work.
    pub is_draining: bool,
    /// Whether a service of the node was given up; the process should end.
    pub has_failed: bool,
}

/// How much a node has to do, for others to compare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeLoad {
    /// Its agents, in memory or not. Of a node without others, those that it knows of.
    pub agents: usize,
    /// Of these, in memory.
    pub live: usize,
    /// That wait for a place in memory.
    pub coming: usize,
    /// That compute, or wait for a model or a tool.
    pub at_work: usize,
    /// That wait for a thread to compute.
    pub run_queue: usize,
    /// Model and tool calls in flight.
    pub calls_in_flight: usize,
    /// Agents that wait for a sending slot.
    pub calls_waiting: usize,
    /// Answers that no agent has recorded yet.
    pub results_unrecorded: usize,
    /// Calls that go on, or whose answers are kept, for agents that have left.
    pub carried: usize,
    /// Resident memory of the process, where the system tells it.
    pub resident_bytes: Option<u64>,
    /// The budget for it.
    pub memory_max: Option<u64>,
    /// How late the runtime is, in milliseconds.
    pub runtime_lag_ms: u64,
    /// Appends sent to the store since the start.
    pub appends: u64,
    /// Steps taken and acted on since the start.
    pub steps: u64,
    /// Whether it takes no new work.
    pub is_draining: bool,
}

/// What agents count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) steps: AtomicU64,
    pub(crate) appends: AtomicU64,
    pub(crate) quarantined: AtomicU64,
    pub(crate) context_recalls: AtomicU64,
    pub(crate) page_hits: AtomicU64,
    pub(crate) page_faults: AtomicU64,
    pub(crate) page_evictions: AtomicU64,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what paging did for an agent between two moments.
    pub(crate) fn count_paging(&self, before: PagingCounts, after: PagingCounts) {
        if before == after {
            return;
        }
        let add = |counter: &AtomicU64, before: u64, after: u64| {
            counter.fetch_add(after.saturating_sub(before), Ordering::Relaxed);
        };
        add(&self.context_recalls, before.recalls, after.recalls);
        add(&self.page_hits, before.hits, after.hits);
        add(&self.page_faults, before.faults, after.faults);
        add(&self.page_evictions, before.evictions, after.evictions);
    }

    pub(crate) fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_of_one_level_are_equal_and_levels_go_from_end_to_end() {
        let leveled = |levels, priority| {
            let scheduler = SchedulerConfig { priority_levels: levels, ..SchedulerConfig::default() };
            NodeConfig { scheduler, ..NodeConfig::new(NodeId::new("n1").unwrap()) }.leveled(priority)
        };
        assert_eq!([0, 127, 128, 255].map(|priority| leveled(2, priority)), [0, 0, 255, 255]);
        assert_eq!([0, 100, 128, 255].map(|priority| leveled(3, priority)), [0, 127, 127, 255]);
        assert_eq!([leveled(255, 0), leveled(255, 255), leveled(1, 0), leveled(0, 255)], [0, 255, 128, 128]);
        for levels in 1..=u8::MAX {
            let all: Vec<u8> = (0..=u8::MAX).map(|priority| leveled(levels, priority)).collect();
            assert!(all.is_sorted(), "{levels} levels");
        }
    }
}
