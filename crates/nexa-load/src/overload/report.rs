//! A page about an overload and a picture beside it: clients as they are in one column, blunt ones in the other.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::{Manner, Outcome, Stage};
use crate::LoadError;
use crate::chart::{self, Line, Panel};
use crate::report;

/// Writes `FILE.md` and `FILE.svg`.
///
/// # Errors
/// [`LoadError::Folder`] if they cannot be written.
pub fn write(file: &Path, command: &str, outcome: &Outcome) -> Result<(), LoadError> {
    report::put(file, &svg(outcome), |picture| markdown(command, picture, outcome))
}

/// A number, or that there is none.
fn told(value: Option<f64>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

/// The page.
fn markdown(command: &str, picture: &str, outcome: &Outcome) -> String {
    let figures = &outcome.figures;
    let verdict = if figures.is_right() {
        "Everything that was accepted came out right, and everything else was refused with a time to come back."
    } else {
        "Something is wrong: see the figures."
    };
    let mut page = format!("# Ten times what a node takes\n\n    {command}\n\n{verdict}\n\n");
    let (as_they_are, blunt) = (Manner::AsTheyAre.text(), Manner::Blunt.text());
    // A string takes everything that is written to it.
    let _ = writeln!(page, "| figure | {as_they_are} | {blunt} |\n|---|---|---|");
    let mut row = |name: &str, left: String, right: String| {
        let _ = writeln!(page, "| {name} | {left} | {right} |");
    };
    let (left, right) = (figures.goodput_at_10x_per_s, figures.blunt_goodput_at_10x_per_s);
    row("finished at ten times the rate, a second", left.to_string(), right.to_string());
    let (left, right) = (figures.goodput_ratio, figures.blunt_goodput_ratio);
    row("the same as a part of the peak", left.to_string(), right.to_string());
    let (left, right) = (figures.refusal_p99_ms, figures.blunt_refusal_p99_ms);
    row("a refusal by the server, 99th percentile, ms", told(left), told(right));
    row(
        "a refusal as callers heard it, by their client or the server, 99th percentile, ms",
        told(figures.told_p99_ms),
        told(right),
    );
    let (left, right) = (figures.rss_first_half_mib, figures.blunt_rss_first_half_mib);
    row("most memory (RSS) in the first half of the overload, MiB", told(left), told(right));
    let (left, right) = (figures.rss_second_half_mib, figures.blunt_rss_second_half_mib);
    row("most memory (RSS) in its second half, MiB", told(left), told(right));
    let _ = write!(
        page,
        "\nThe peak is {} a second, the most of any stage and of a closed loop, which finished {} a second. Lost: {}, wrong: \
         {}, failed: {}. Seed {}.\n",
        figures.peak_goodput_per_s,
        figures.closed_loop_per_s,
        figures.lost,
        figures.wrong,
        figures.failed,
        figures.seed
    );
    for (manner, stages) in [(as_they_are, &figures.stages), (blunt, &figures.blunt_stages)] {
        let _ = write!(
            page,
            "\n## With {manner}\n\n| offered | made a second | finished a second | accepted | refused | held back | missed | \
             refusal p99, ms | run p99, ms | processors: node | driver |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
        );
        for stage in stages {
            let Stage { offered, sent_per_s, goodput_per_s, accepted, refused, held_back, missed, .. } = stage;
            let _ = writeln!(
                page,
                "| {offered}× | {sent_per_s} | {goodput_per_s} | {accepted} | {refused} | {held_back} | {missed} | {} | {} \
                 | {} | {} |",
                told(stage.refusal_p99_ms),
                told(stage.run_p99_ms),
                told(stage.node_cpu),
                told(stage.driver_cpu)
            );
        }
        let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
        for (why, count) in stages.iter().flat_map(|stage| &stage.refused_for) {
            *reasons.entry(why).or_default() += count;
        }
        if !reasons.is_empty() {
            page += "\nWhy the server refused, and how often:\n\n";
        }
        for (why, count) in reasons {
            let _ = writeln!(page, "- {why}: {count}");
        }
    }
    let machine = std::thread::available_parallelism().map_or(0, usize::from);
    let _ = write!(
        page,
        "\n![Memory over time, and what was finished]({picture})\n\nThe node and the driver shared {machine} processors. Each submission is made once. What clients held back was refused by them at once, because the \
         server had no room for most of what they asked for; what is missed was not made at all.\n"
    );
    page
}

/// The picture.
fn svg(outcome: &Outcome) -> String {
    let marks: Vec<(f64, String)> = outcome.began.iter().map(|(at, what)| (at.as_secs_f64(), what.clone())).collect();
    let memory = outcome.samples.iter().map(|sample| (sample.at.as_secs_f64(), sample.rss_mib)).collect();
    let line = |name: &str, points| Line { name: name.to_owned(), points };
    let finished = |manner: Manner, stages: &[Stage]| {
        line(manner.text(), stages.iter().map(|stage| (stage.offered, stage.goodput_per_s)).collect())
    };
    let panel = |title: &str, across: &str, lines, marks| Panel {
        title: title.to_owned(),
        across: across.to_owned(),
        lines,
        marks,
    };
    chart::svg(&[
        panel(
            "Memory of the node (RSS), MiB: clients as they are, then blunt ones",
            "seconds from the start",
            vec![line("", memory)],
            marks,
        ),
        panel(
            "Finished a second",
            "offered, in multiples of what a closed loop finishes",
            vec![
                finished(Manner::AsTheyAre, &outcome.figures.stages),
                finished(Manner::Blunt, &outcome.figures.blunt_stages),
            ],
            Vec::new(),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::overload::Figures;
    use crate::sample::Sample;

    #[test]
    fn a_page_has_both_columns_and_the_picture_the_memory_over_time() {
        let stage = |offered, goodput_per_s| Stage { offered, goodput_per_s, ..Stage::default() };
        let figures = Figures {
            goodput_ratio: 0.95,
            blunt_goodput_ratio: 0.61,
            blunt_refusal_p99_ms: Some(40.5),
            stages: vec![stage(0.5, 1_500.0), stage(10.0, 2_900.0)],
            blunt_stages: vec![Stage {
                refused_for: [("there is no room".to_owned(), 7)].into(),
                ..stage(10.0, 1_800.0)
            }],
            ..Figures::default()
        };
        let sample = |at, rss_mib| Sample { at: Duration::from_secs(at), pss_mib: 0.0, rss_mib, cpu_s: 0.0 };
        let outcome = Outcome {
            figures,
            samples: vec![sample(0, 90.0), sample(9, 130.0)],
            began: vec![(Duration::from_secs(4), "10×".to_owned())],
        };
        let page = markdown("nexa load --shape overload", "x.svg", &outcome);
        assert!(page.contains("| the same as a part of the peak | 0.95 | 0.61 |"), "{page}");
        assert!(page.contains("99th percentile, ms | none | 40.5 |"), "{page}");
        assert!(page.contains("## With blunt clients") && page.contains("| 10× | 0 | 1800 |"), "{page}");
        assert!(page.ends_with("missed was not made at all.\n") && page.contains("- there is no room: 7\n"), "{page}");
        assert!(page.contains("(x.svg)"), "{page}");
        let picture = svg(&outcome);
        assert!(picture.contains("10×") && picture.contains("blunt clients"), "{picture}");
        let figures = Figures { lost: 1, ..outcome.figures.clone() };
        assert!(markdown("", "", &Outcome { figures, ..outcome }).contains("Something is wrong"));
    }
}
