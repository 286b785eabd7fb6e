//! The metrics of what a node's agents remember.

use metrics::Label;
use nexa_remember::Standing;

use super::{Figure, Kind};

/// One field of [`Standing`], as a metric.
pub struct RememberingFigure {
    /// The metric.
    pub figure: Figure,
    /// Its value.
    pub read: fn(&Standing) -> f64,
}

const fn of(name: &'static str, kind: Kind, help: &'static str, read: fn(&Standing) -> f64) -> RememberingFigure {
    RememberingFigure { figure: Figure { name, kind, help }, read }
}

/// What a node makes of the log for those who look for what was said.
pub const REMEMBERING: &[RememberingFigure] = &[
    of("nexa_pages_lag_facts", Kind::Gauge, "Facts that pages are behind the log.", |standing| {
        standing.lag_facts as f64
    }),
    of("nexa_pages_lag_seconds", Kind::Gauge, "For how long they have been behind it.", |standing| {
        standing.lag_ms as f64 / 1e3
    }),
    of("nexa_pages_waiting", Kind::Gauge, "Pages that wait to be stored.", |standing| standing.waiting as f64),
    of("nexa_pages_waiting_bytes", Kind::Gauge, "Bytes of the texts in them.", |standing| {
        standing.waiting_bytes as f64
    }),
    of("nexa_pages_made_total", Kind::Counter, "Pages that were made of what was said.", |standing| {
        standing.sealed as f64
    }),
    of("nexa_pages_stored_total", Kind::Counter, "Pages that were stored, again with vectors included.", |standing| {
        standing.rows as f64
    }),
    of("nexa_pages_batches_total", Kind::Counter, "Batches that they were stored in.", |standing| {
        standing.batches as f64
    }),
    of("nexa_pages_failures_total", Kind::Counter, "Times that the store of pages took no change.", |standing| {
        standing.failures as f64
    }),
    of("nexa_pages_shards_emptied_total", Kind::Counter, "Damaged shards that were written again.", |standing| {
        standing.emptied as f64
    }),
    of("nexa_pages_embedded_total", Kind::Counter, "Messages in pages that have got a vector.", |standing| {
        standing.embedded as f64
    }),
    of("nexa_recalls_total", Kind::Counter, "Queries for what agents remember that were answered.", |standing| {
        standing.recalls as f64
    }),
    of("nexa_recall_pages_total", Kind::Counter, "Pages that were ranked for them.", |standing| standing.ranked as f64),
];

/// Puts what a node counts where it is read.
pub(crate) fn put(standing: &Standing, labels: &[Label]) {
    for known in REMEMBERING {
        super::put(&known.figure, (known.read)(standing), labels.to_vec());
    }
}
