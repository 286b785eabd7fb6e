//! The recorder: where histograms and counters of this process are kept, and how they are read.
//!
//! What is recorded waits in memory until it is read or [`UPKEEP_EVERY`] is over, whichever comes first.

use std::time::Duration;

use metrics::{Label, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::door::Probes;
use crate::figures::{self, Figure, Kind};
use crate::process;

/// Between two times at which what was recorded is put into buckets.
pub(crate) const UPKEEP_EVERY: Duration = Duration::from_secs(2);

/// Where figures are kept.
#[derive(Clone)]
pub(crate) struct Recorder {
    handle: PrometheusHandle,
}

impl Recorder {
    /// Makes one and installs it for the whole process. `Err` says why not: there is one already, or bounds are wrong.
    pub(crate) fn install() -> Result<Self, String> {
        let mut builder = PrometheusBuilder::new();
        for known in figures::HISTOGRAMS.iter().chain(figures::CLUSTER_HISTOGRAMS) {
            let name = Matcher::Full(known.figure.name.to_owned());
            builder = builder.set_buckets_for_metric(name, known.bounds).map_err(|error| error.to_string())?;
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|error| error.to_string())?;
        for Figure { name, kind, help } in figures::all() {
            match kind {
                Kind::Counter => describe_counter!(name, help),
                Kind::Gauge => describe_gauge!(name, help),
                Kind::Histogram => describe_histogram!(name, help),
            }
        }
        gauge!(figures::BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        counter!(figures::SPANS_SENT).increment(0);
        counter!(figures::SPANS_LOST).increment(0);
        Ok(Self { handle })
    }

    /// Everything, as Prometheus reads it.
    pub(crate) fn read(&self, nodes: &[Probes]) -> String {
        for node in nodes {
            // One node needs no name: who reads it knows whom it asked.
            let labels = node.name.iter().filter(|_| nodes.len() > 1).map(|name| Label::new("node", name.clone()));
            let labels: Vec<Label> = labels.collect();
            figures::put_node(&(node.stats)(), &labels);
            figures::put_remembering(&(node.remembering)(), &labels);
            if let Some(cluster) = &node.cluster {
                figures::put_cluster(&cluster(), &labels);
            }
        }
        if let Some(open) = process::open_files() {
            gauge!(figures::OPEN_FILES).set(open as f64);
        }
        self.handle.render()
    }

    /// Keeps what was recorded from piling up, for ever.
    pub(crate) async fn upkeep(self) {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            self.handle.run_upkeep();
        }
    }
}
