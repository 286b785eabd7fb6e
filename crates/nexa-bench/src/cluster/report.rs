//! The report of the suite: its figures, beside what they are measured against, and how long failovers took.

use std::fmt::Write as _;
use std::path::Path;

use super::failover::{Kill, histogram};
use crate::measure::{Error, Figures};

/// The figures that a reader looks for first, and what they say.
const FIRST: [(&str, &str); 15] = [
    ("durable_steps_per_s_postgres", "durable steps a second on PostgreSQL, 64 agents at a time"),
    ("steps_vs_fsync", "by what one sync for all of them allows"),
    ("durable_messages_per_s", "durable messages a second between agents"),
    ("messages_vs_raw", "by rows that are only inserted, in batches of 256"),
    ("oneway_msgs_per_s", "messages a second between two nodes, 256 bytes"),
    ("oneway_vs_stream", "by a bare stream of batches"),
    ("ask_p50_us", "question and answer between two nodes at 10,000 a second, median, µs"),
    ("ask_p99_us", "99th percentile, µs"),
    ("ask_vs_unary", "median by that of a bare call"),
    ("migration_pause_p99_ms", "pause of an agent of 64 KiB that moves, 99th percentile, ms"),
    ("failover_p50_s", "node killed until each of its agents works elsewhere, median, s"),
    ("failover_p90_s", "of nine in ten kills, s"),
    ("failover_max_s", "of all, s"),
    ("scheduler_failover_p90_s", "leading node killed until a new agent begins, of nine in ten, s"),
    ("fsync_p50_us", "one write and sync meanwhile, µs"),
];

/// Writes it.
pub(crate) fn write(file: &Path, figures: &Figures, kills: &[Kill]) -> Result<(), Error> {
    let text = page(figures, kills, std::thread::available_parallelism()?.get());
    std::fs::write(file, text).map_err(|error| format!("{} cannot be written: {error}", file.display()).into())
}

fn page(figures: &Figures, kills: &[Kill], processors: usize) -> String {
    let mut text = "# What nodes do together\n\n    cargo xtask bench cluster --report docs/reports/cluster.md\n\n\
                    | figure | value |\n|---|---|\n"
        .to_owned();
    let all = figures.to_json();
    let all: Vec<(&str, String)> =
        all.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value.to_string())).collect();
    let value = |key: &str| all.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_str());
    // A string takes everything that is written to it.
    for (key, what) in FIRST {
        if let Some(value) = value(key) {
            let _ = writeln!(text, "| {what} | {value} |");
        }
    }
    for (key, value) in all.iter().filter(|(key, _)| FIRST.iter().all(|(first, _)| first != key)) {
        let _ = writeln!(text, "| `{key}` | {value} |");
    }
    let _ = writeln!(
        text,
        "\nEverything that was measured ran on {processors} processors at once: nodes, PostgreSQL, etcd, the simulated \
         models and whoever looked on. `_min` and `_max` are the best and the worst round."
    );
    if !kills.is_empty() {
        let _ = writeln!(
            text,
            "\n## From `kill -9` of a node until each of its agents has recorded a step elsewhere\n\n\
             One mark a kill: `L` where the node led, `#` where it did not.\n\n```text\n{}```",
            histogram(kills)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_begins_with_what_is_looked_for_and_has_everything() {
        let mut figures = Figures::default();
        figures.count("links", 2.0);
        figures.count("failover_p90_s", 2.25);
        let page = page(&figures, &[], 2);
        let row = |row: &str| page.find(row).unwrap_or_else(|| panic!("no {row} in {page}"));
        assert!(row("| of nine in ten kills, s | 2.25 |") < row("| `links` | 2.0 |"));
    }
}
