//! What came of a load, in numbers. Each is measured or absent.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest time that is told apart, in microseconds: an hour. Longer ones count as that.
const MICROS_MAX: u64 = 3_600_000_000;

/// The figures of a run; their names are those of the JSON object.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Agents that were to run.
    pub agents: usize,
    /// From the first submission sent until the first request of the last agent reached the endpoint, which is after its
    /// `started` was recorded; of sleepers, until the last one is recorded as begun. Absent if some never did.
    pub all_running_s: Option<f64>,
    /// The highest memory of the processes of all nodes together, sampled each second.
    pub total_pss_mib: Option<f64>,
    /// How that memory grows, over the last two thirds of the run; absent for a run of less than a minute.
    pub memory_slope_mib_per_min: Option<f64>,
    /// Accepted workloads that are not at a right end.
    pub lost: usize,
    /// Workloads that ended well with another output than they should have.
    pub wrong: usize,
    /// Requests to the model beyond the attempts that are recorded: an answer was asked for again.
    pub repeated_effects: u64,
    /// Attempts above the first: calls that were in flight when the node was killed.
    pub reissued_model_calls: u64,
    /// Histories that were read and checked: of what may have been sent twice or ran at a kill, or of everything.
    pub histories: usize,
    /// What was found in them that must not happen.
    pub violations: usize,
    /// From when a workload was to be submitted until its first step: its first request reached the endpoint, or, of
    /// sleepers, its first agent began.
    pub submit_to_first_step_p99_ms: Option<f64>,
    /// Outside effects that were asked for, answered and recorded, divided by the time of the run.
    pub steps_per_s: f64,
    /// What kind of work.
    pub shape: String,
    /// Workloads that were accepted.
    pub workloads: usize,
    /// Submissions that were given up.
    pub not_accepted: usize,
    /// How often the server had no room for a submission, which was tried again or, if wanted, given up.
    pub refused: u64,
    /// How long the server took to say so, for all but the slowest hundredth.
    pub refusal_p99_ms: Option<f64>,
    /// From when a workload was to be submitted until it was durable.
    pub submit_p50_ms: f64,
    /// The same for all but the slowest hundredth.
    pub submit_p99_ms: f64,
    /// From when a workload was to be submitted until it had ended, as recorded.
    pub run_p50_ms: Option<f64>,
    /// The same for all but the slowest hundredth.
    pub run_p99_ms: Option<f64>,
    /// From the first submission sent until the last recorded end.
    pub wall_s: f64,
    /// Outside effects.
    pub steps: u64,
    /// Requests that the endpoint has seen.
    pub model_requests: u64,
    /// The most that waited for an answer at once.
    pub in_flight_peak: u64,
    /// Requests that were answered with 429, as a share of all.
    pub rate_limited_share: f64,
    /// How much of the key's tightest limit was used while every tenant had work left; absent without a limit.
    pub budget_used: Option<f64>,
    /// Jain's index of the tokens that tenants got meanwhile: 1 if all got the same, 1/n if one got all.
    pub jain_index: Option<f64>,
    /// Requests that went wrong on purpose.
    pub faults: u64,
    /// Processor time of the node's processes.
    pub node_cpu_s: Option<f64>,
    /// How often the node was killed.
    pub kills: u32,
    /// The share of the work that was recorded as ended at the kill.
    pub ended_at_kill: Option<f64>,
    /// Nodes that were restarted one after the other.
    pub restarts: u32,
    /// From the kill until the node served again; or, of nodes that were restarted one after the other, the longest from
    /// SIGTERM until the others saw it ready again.
    pub restart_s: Option<f64>,
    /// The longest from SIGTERM until the node had let go of everything and ended.
    pub drain_s: Option<f64>,
    /// Submissions and questions of clients while nodes were restarted.
    pub requests: Option<u64>,
    /// How often clients sent one of them once more by themselves, at the same door or at another.
    pub requests_retried: Option<u64>,
    /// How many of them failed for good.
    pub requests_failed: Option<u64>,
    /// The nodes.
    pub nodes: usize,
    /// Agents that had not ended on each node, when there were most of them.
    pub placement: BTreeMap<String, u64>,
    /// The node that was killed and not started again.
    pub killed_node: Option<String>,
    /// Agents that were on it and went on elsewhere.
    pub failed_over: u64,
    /// From the kill until half of these had recorded something on another node.
    pub failover_p50_s: Option<f64>,
    /// The same for nine tenths.
    pub failover_p90_s: Option<f64>,
    /// The same for the last of them.
    pub failover_max_s: Option<f64>,
    /// How long one sync to the disk takes, measured before the run in the same folder.
    pub fsync_p50_us: Option<f64>,
    /// Where all chance comes from.
    pub seed: u64,
    /// Why the first of those that failed did.
    pub first_failure: Option<String>,
}

impl Figures {
    /// Whether everything came out as it must.
    pub fn is_right(&self) -> bool {
        self.lost == 0
            && self.wrong == 0
            && self.repeated_effects == 0
            && self.violations == 0
            && self.not_accepted == 0
            && self.requests_failed.unwrap_or(0) == 0
    }
}

/// Times, in a histogram that keeps three digits of each.
#[derive(Debug, Clone)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, MICROS_MAX, 3);
        Self(histogram.expect("the bounds are constants that are allowed"))
    }
}

impl Times {
    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(MICROS_MAX);
        self.0.saturating_record(micros.clamp(1, MICROS_MAX));
    }

    /// Adds all of others.
    pub fn add_all(&mut self, others: &Self) {
        self.0.add(&others.0).expect("all have the same bounds");
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time, in milliseconds, that this share is not above; `None` if there are none.
    pub fn ms(&self, share: f64) -> Option<f64> {
        (!self.is_empty()).then(|| rounded(self.0.value_at_quantile(share) as f64 / 1e3))
    }
}

impl FromIterator<Duration> for Times {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut all = Self::default();
        times.into_iter().for_each(|time| all.add(time));
        all
    }
}

/// Three digits behind the point.
pub fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_all_times() {
        let times: Times = (1..=1_000).map(Duration::from_millis).collect();
        let near = |share, wanted: f64| times.ms(share).is_some_and(|ms| (ms / wanted - 1.0).abs() < 2e-3);
        assert!(near(0.5, 500.0) && near(0.99, 990.0) && near(1.0, 1_000.0), "{:?}", times.ms(0.5));
        assert_eq!(Times::default().ms(0.5), None);
    }

    #[test]
    fn the_names_that_others_read_are_there() {
        let json = serde_json::to_value(Figures::default()).expect("numbers");
        for key in [
            "agents",
            "all_running_s",
            "total_pss_mib",
            "lost",
            "wrong",
            "repeated_effects",
            "reissued_model_calls",
            "submit_to_first_step_p99_ms",
            "steps_per_s",
            "refused",
            "submit_p50_ms",
            "wall_s",
            "fsync_p50_us",
            "seed",
        ] {
            assert!(json.get(key).is_some(), "{key}");
        }
    }
}
