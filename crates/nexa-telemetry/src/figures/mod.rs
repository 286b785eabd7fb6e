//! Every metric that a node serves. `docs/observability.md` lists the same, and a test of whole processes compares both
//! with what is served.

mod cluster;
mod remembering;

use metrics::{Label, counter, gauge};
use nexa_runtime::genai::metric;
use nexa_runtime::{MemoryPressure, NodeStats};

pub(crate) use cluster::put as put_cluster;
pub use cluster::{CLUSTER, CLUSTER_HISTOGRAMS, ClusterFigure};
pub(crate) use remembering::put as put_remembering;
pub use remembering::{REMEMBERING, RememberingFigure};

/// How a figure behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Grows, and starts at nothing with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often something took how much.
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// Its name, as Prometheus has it.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What it means.
    pub help: &'static str,
}

/// One field of [`NodeStats`], as a metric.
pub struct NodeFigure {
    /// The field.
    pub field: &'static str,
    /// The metric.
    pub figure: Figure,
    /// Its value, `None` if it is not known.
    pub read: fn(&NodeStats) -> Option<f64>,
}

/// What fields may be.
trait Number {
    fn number(self) -> Option<f64>;
}

impl Number for u64 {
    fn number(self) -> Option<f64> {
        Some(self as f64)
    }
}

impl Number for usize {
    fn number(self) -> Option<f64> {
        Some(self as f64)
    }
}

impl Number for f64 {
    fn number(self) -> Option<f64> {
        Some(self)
    }
}

impl Number for bool {
    fn number(self) -> Option<f64> {
        Some(f64::from(self))
    }
}

impl Number for Option<u64> {
    fn number(self) -> Option<f64> {
        self.map(|number| number as f64)
    }
}

impl Number for MemoryPressure {
    fn number(self) -> Option<f64> {
        Some(match self {
            Self::Calm => 0.0,
            Self::Tight => 1.0,
            Self::Full => 2.0,
        })
    }
}

macro_rules! node_figures {
    ($($field:ident $(/ $unit:literal)? $kind:ident $name:literal $help:literal;)*) => {
        /// The whole of [`NodeStats`]. A test compares the two: a new field there is a new line here.
        pub const NODE: &[NodeFigure] = &[$(NodeFigure {
            field: stringify!($field),
            figure: Figure { name: $name, kind: Kind::$kind, help: $help },
            read: |stats| stats.$field.number()$(.map(|number| number / $unit))?,
        },)*];
    };
}

node_figures! {
    live_agents Gauge "nexa_agents_live" "Agents in memory.";
    idle_agents Gauge "nexa_agents_idle" "Of the agents in memory, those with nothing to do and nothing in flight.";
    waiting_agents Gauge "nexa_agents_waiting" "Agents that wait for a place in memory.";
    dormant_agents Gauge "nexa_agents_dormant" "Agents of this node that are known to live in the store only.";
    timers Gauge "nexa_timers" "Agents with a timer.";
    agents_at_work Gauge "nexa_agents_at_work" "Agents that compute, or wait for a model or a tool.";
    agents_held_back Gauge "nexa_agents_held_back" "Agents that wait to begin, because as many as may are at work.";
    compute_waiting Gauge "nexa_compute_waiting" "Agents that wait for a thread to compute.";
    compute_slices Counter "nexa_compute_slices_total" "Slices that the threads that compute have begun.";
    runtime_lag_ms / 1e3 Gauge "nexa_runtime_lag_seconds" "How late the runtime was at its last turn, or is by now.";
    resident_bytes Gauge "process_resident_memory_bytes" "Memory that is resident.";
    memory_max Gauge "nexa_memory_budget_bytes" "The budget for it, if there is one.";
    memory_pressure Gauge "nexa_memory_pressure" "How the two stand to each other: 0 calm, 1 tight, 2 full.";
    model_calls_in_flight Gauge "nexa_model_calls_in_flight" "Calls of models and tools in flight.";
    model_calls_waiting Gauge "nexa_model_calls_waiting" "Agents that wait for a sending slot.";
    results_unrecorded Gauge "nexa_results_unrecorded" "Answers that no agent has recorded yet.";
    store_calls Gauge "nexa_store_calls_waiting" "Calls of the store that are not answered yet.";
    store_bytes Gauge "nexa_store_waiting_bytes" "Their bytes.";
    store_oldest_ms / 1e3 Gauge "nexa_store_oldest_seconds" "How long the oldest of them has waited.";
    tool_calls Counter "nexa_tool_calls_total" "Tool calls sent.";
    model_calls Counter "nexa_model_calls_total" "Model calls sent.";
    reused_answers Counter "nexa_reused_answers_total" "Requests to models that an earlier answer did for.";
    reissued_model_calls Counter "nexa_reissued_model_calls_total" "Model calls sent again because their node was lost.";
    model_lanes_paused Gauge "nexa_model_lanes_paused" "Lanes of models that a provider asked to wait.";
    model_breakers_open Gauge "nexa_model_breakers_open" "Lanes of models whose endpoint is left alone because it is away.";
    model_calls_rate_limited Counter "nexa_model_calls_rate_limited_total" "Model calls that a provider refused because they were too many.";
    model_calls_held_back Counter "nexa_model_calls_held_back_total" "Model calls that were not sent because their endpoint is away.";
    model_waits Counter "nexa_model_waits_total" "Model calls that have had their turn.";
    model_waits_ms Counter "nexa_model_wait_milliseconds_total" "How long they waited for it, all together.";
    adapter_panics Counter "nexa_adapter_panics_total" "Panics in adapters of models and tools.";
    steps Counter "nexa_steps_total" "Steps taken and acted on.";
    appends Counter "nexa_appends_total" "Appends that agents sent to the store.";
    panics Counter "nexa_panics_total" "Agent actors and services that died by a panic.";
    faults Counter "nexa_faults_total" "Agent actors that gave up with an error.";
    restarts Counter "nexa_restarts_total" "Restarts of agent actors and services.";
    quarantined Counter "nexa_quarantined_total" "Agents that were quarantined.";
    context_recalls Counter "nexa_context_recalls_total" "Requests to models for which an agent's conversation was searched.";
    page_hits Counter "nexa_page_hits_total" "Pages of conversations that such a request needed and that were active.";
    page_faults Counter "nexa_page_faults_total" "Pages that it needed and that had to be read.";
    page_evictions Counter "nexa_page_evictions_total" "Active pages that left for others.";
    is_draining Gauge "nexa_node_draining" "1 while the node stops and takes no new work.";
    has_failed Gauge "nexa_node_failed" "1 once a service of the node was given up: the process should end.";
}

/// Spans that a collector has taken.
pub(crate) const SPANS_SENT: &str = "nexa_spans_sent_total";
/// Spans that it has not.
pub(crate) const SPANS_LOST: &str = "nexa_spans_lost_total";
pub(crate) const OPEN_FILES: &str = "process_open_fds";
pub(crate) const BUILD: &str = "nexa_build_info";

/// What is known of the process rather than of its node.
pub const PROCESS: &[Figure] = &[
    Figure { name: BUILD, kind: Kind::Gauge, help: "1, with the version as a label." },
    Figure { name: OPEN_FILES, kind: Kind::Gauge, help: "Open files and sockets." },
    Figure { name: SPANS_SENT, kind: Kind::Counter, help: "Spans that the collector has taken." },
    Figure { name: SPANS_LOST, kind: Kind::Counter, help: "Spans that the collector has not taken." },
];

/// From a hundredth of a millisecond to a second: work of the processor.
const STEPS: &[f64] =
    &[1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0];
/// From a tenth of a millisecond to ten seconds: a disk, a call from nearby.
const WAITS: &[f64] =
    &[1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// What the conventions advise for operations of models.
const MODELS: &[f64] = &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// What they advise for tokens.
const TOKENS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0];
/// From a hundredth of a second to a minute: what takes several nodes.
const LONG_WAITS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 8.0, 15.0, 30.0, 60.0];
const BATCHES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// A histogram, and its bounds.
pub struct HistogramFigure {
    /// The metric.
    pub figure: Figure,
    /// The upper bounds of its buckets.
    pub bounds: &'static [f64],
}

const fn histogram(name: &'static str, bounds: &'static [f64], help: &'static str) -> HistogramFigure {
    HistogramFigure { figure: Figure { name, kind: Kind::Histogram, help }, bounds }
}

/// How long things take, and how large they are. One that nothing has been recorded for is not served.
pub const HISTOGRAMS: &[HistogramFigure] = &[
    histogram(metric::STEP, STEPS, "What deciding one step of an agent took, without the store."),
    histogram("nexa_store_append_seconds", WAITS, "From asking for an append until it is durable."),
    histogram("nexa_store_commit_seconds", WAITS, "What a commit took, its sync included."),
    histogram("nexa_store_batch_appends", BATCHES, "Appends of one commit."),
    histogram(
        "nexa_rpc_seconds",
        WAITS,
        "What answering a call took, by its name and code; of a watch, until it began.",
    ),
    histogram(
        metric::OPERATION_DURATION,
        MODELS,
        "What a call of a model took, by provider and model; failures by their code.",
    ),
    histogram(metric::TIME_TO_FIRST_CHUNK, MODELS, "How long the first piece of a streamed answer took."),
    histogram(metric::TOKEN_USAGE, TOKENS, "Tokens of a call, read (input) or written (output)."),
    histogram(metric::TOOL_DURATION, MODELS, "What a call of a tool took; failures by their code."),
    histogram(nexa_remember::RECALL_SECONDS, WAITS, "What finding what an agent remembers took."),
];

/// Every figure.
pub fn all() -> impl Iterator<Item = Figure> {
    let node = NODE.iter().map(|known| known.figure);
    let node = node.chain(REMEMBERING.iter().map(|known| known.figure));
    let alone = node.chain(PROCESS.iter().copied()).chain(HISTOGRAMS.iter().map(|known| known.figure));
    alone.chain(cluster::all())
}

/// Sets a figure to a value, for whoever reads it next.
fn put(figure: &Figure, value: f64, labels: Vec<Label>) {
    match figure.kind {
        // Whole numbers up to 2^53, which no count of a process reaches.
        Kind::Counter => counter!(figure.name, labels).absolute(value as u64),
        Kind::Gauge | Kind::Histogram => gauge!(figure.name, labels).set(value),
    }
}

/// Puts what a node says of itself where it is read. What is the process's has no label: several nodes of it would say
/// the same.
pub(crate) fn put_node(stats: &NodeStats, labels: &[Label]) {
    for known in NODE {
        let Some(value) = (known.read)(stats) else { continue };
        let is_of_process = PROCESS_PREFIXES.iter().any(|prefix| known.figure.name.starts_with(prefix));
        put(&known.figure, value, if is_of_process { Vec::new() } else { labels.to_vec() });
    }
}

/// What is the process's, however many nodes it has.
const PROCESS_PREFIXES: &[&str] = &["process_", "nexa_memory_"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names of the fields of a struct of numbers, as `Debug` tells them.
    fn fields(stats: &NodeStats) -> BTreeSet<String> {
        let told = format!("{stats:#?}");
        let names = told.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(": "));
        names.filter(|(name, _)| !name.starts_with(' ')).map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn every_field_of_the_stats_is_a_metric() {
        let known: BTreeSet<String> = NODE.iter().map(|known| known.field.to_owned()).collect();
        assert_eq!(known, fields(&NodeStats::default()), "add a line to `node_figures!`");
    }

    #[test]
    fn names_are_those_of_prometheus() {
        let mut names = BTreeSet::new();
        for figure in all() {
            let Figure { name, kind, help } = figure;
            assert!(names.insert(name), "{name} is there twice");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            assert!(["nexa_", "gen_ai_", "process_"].iter().any(|prefix| name.starts_with(prefix)), "{name}");
            assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(help.ends_with('.'), "{name}: {help}");
        }
        for known in HISTOGRAMS.iter().chain(CLUSTER_HISTOGRAMS) {
            assert!(known.bounds.is_sorted(), "{}", known.figure.name);
        }
    }
}
