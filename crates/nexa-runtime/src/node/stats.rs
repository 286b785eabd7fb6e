//! How a node is doing, asked of all its parts.

use std::sync::atomic::Ordering;

use super::Core;
use crate::config::{Counters, NodeLoad, NodeStats};

impl Core {
    pub(super) fn stats(&self) -> NodeStats {
        let counts = self.residency.counts();
        let (load, models) = (self.models.load(), self.models.counters());
        let (supervised, backlog) = (&self.supervised, self.store.backlog());
        let (agents_at_work, agents_held_back) = self.beginning.counts();
        NodeStats {
            live_agents: counts.live,
            idle_agents: counts.idle,
            waiting_agents: counts.waiting,
            dormant_agents: counts.asleep,
            agents_at_work,
            agents_held_back,
            timers: self.timers.len(),
            compute_waiting: self.run_queue.waiting(),
            compute_slices: self.run_queue.slices(),
            runtime_lag_ms: self.vitals.lag_ms(),
            resident_bytes: self.vitals.resident(),
            memory_max: self.config.memory_max,
            memory_pressure: counts.pressure,
            model_calls_in_flight: load.in_flight,
            model_calls_waiting: load.waiting,
            results_unrecorded: load.held,
            store_calls: backlog.calls,
            store_bytes: backlog.bytes,
            store_oldest_ms: u64::try_from(backlog.oldest.as_millis()).unwrap_or(u64::MAX),
            tool_calls: models.tools.load(Ordering::Relaxed),
            model_calls: models.sent.load(Ordering::Relaxed),
            reused_answers: models.reused.load(Ordering::Relaxed),
            reissued_model_calls: models.reissued.load(Ordering::Relaxed),
            model_lanes_paused: load.lanes_paused,
            model_breakers_open: load.breakers_open,
            model_calls_rate_limited: models.rate_limited.load(Ordering::Relaxed),
            model_calls_held_back: models.held_back.load(Ordering::Relaxed),
            model_waits: models.waits.load(Ordering::Relaxed),
            model_waits_ms: models.waited_ms.load(Ordering::Relaxed),
            adapter_panics: models.panics.load(Ordering::Relaxed),
            steps: Counters::read(&self.counters.steps),
            appends: Counters::read(&self.counters.appends),
            panics: Counters::read(&supervised.panics),
            faults: Counters::read(&supervised.faults),
            restarts: Counters::read(&supervised.restarts),
            quarantined: Counters::read(&self.counters.quarantined),
            context_recalls: Counters::read(&self.counters.context_recalls),
            page_hits: Counters::read(&self.counters.page_hits),
            page_faults: Counters::read(&self.counters.page_faults),
            page_evictions: Counters::read(&self.counters.page_evictions),
            is_draining: self.residency.is_draining() || self.stop.is_cancelled(),
            has_failed: self.failed.is_cancelled(),
        }
    }

    pub(super) fn load(&self) -> NodeLoad {
        let (counts, models) = (self.residency.counts(), self.models.load());
        let (at_work, _) = self.beginning.counts();
        let known =
            if self.config.others { self.ownership.len() } else { counts.live + counts.waiting + counts.asleep };
        NodeLoad {
            agents: known,
            live: counts.live,
            coming: counts.waiting,
            at_work,
            run_queue: self.run_queue.waiting(),
            calls_in_flight: models.in_flight,
            calls_waiting: models.waiting,
            results_unrecorded: models.held,
            carried: models.carried,
            resident_bytes: self.vitals.resident(),
            memory_max: self.config.memory_max,
            runtime_lag_ms: self.vitals.lag_ms(),
            appends: Counters::read(&self.counters.appends),
            steps: Counters::read(&self.counters.steps),
            is_draining: self.residency.is_draining() || self.stop.is_cancelled(),
        }
    }
}
