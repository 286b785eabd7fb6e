//! A report: a page of figures and a picture beside it.
//!
//! In:  an [`Outcome`] and the command that made it. Out: Markdown and SVG, and both as one page of HTML that needs nothing
//! else; writing them is left to [`write`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::LoadError;
use crate::chart::{self, Line, Panel};
use crate::figures::{Figures, Times};
use crate::run::Outcome;

/// Points of a distribution.
const QUANTILES: u32 = 200;
/// How the page looks, in light and dark.
const STYLE: &str = "body{font:15px sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color-scheme:light dark}\
    td{padding:.15em 1em .15em 0;border-bottom:1px solid #8884}pre{overflow:auto}svg{width:100%;height:auto}";
/// The figures that a reader looks for first, and what they say.
const FIRST: [(&str, &str); 9] = [
    ("agents", "agents"),
    ("all_running_s", "all running after, seconds"),
    ("total_pss_mib", "most memory of all nodes (PSS), MiB"),
    ("lost", "lost"),
    ("wrong", "wrong"),
    ("repeated_effects", "effects repeated"),
    ("reissued_model_calls", "calls made again that were in flight at a kill"),
    ("submit_to_first_step_p99_ms", "from submission to first step, 99th percentile, ms"),
    ("steps_per_s", "steps a second"),
];

/// Writes `FILE.md`, `FILE.svg` and `FILE.html`.
///
/// # Errors
/// [`LoadError::Folder`] if they cannot be written.
pub fn write(file: &Path, command: &str, outcome: &Outcome) -> Result<(), LoadError> {
    let svg = svg(outcome);
    put(file, &svg, |picture| markdown(command, picture, outcome))?;
    let page = file.with_extension("html");
    let folder = file.parent().unwrap_or(Path::new(".")).to_path_buf();
    std::fs::write(page, html(command, &svg, outcome)).map_err(|source| LoadError::Folder { folder, source })
}

/// Writes a picture and, with its name, the page beside it.
pub(crate) fn put(file: &Path, svg: &str, page: impl FnOnce(&str) -> String) -> Result<(), LoadError> {
    let picture = file.with_extension("svg");
    let name = picture.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = file.parent().unwrap_or(Path::new("."));
    let written = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(&picture, svg)?;
        std::fs::write(file.with_extension("md"), page(&name))
    };
    written().map_err(|source| LoadError::Folder { folder: folder.to_path_buf(), source })
}

/// What a report says before its figures: its heading, and whether all went right.
fn heading(outcome: &Outcome) -> (String, &'static str) {
    let Figures { agents, shape, nodes, .. } = &outcome.figures;
    let where_ = if *nodes > 1 { format!(" on {nodes} nodes") } else { String::new() };
    let verdict = if outcome.figures.is_right() {
        "Every output is what it must be; nothing was lost and nothing done twice."
    } else {
        "Something is wrong: see the figures."
    };
    (format!("{agents} agents, {shape}{where_}"), verdict)
}

/// The figures with what they are called: those that a reader looks for first, then all others that were measured.
fn rows(outcome: &Outcome) -> Vec<(String, String)> {
    let figures = serde_json::to_value(&outcome.figures).unwrap_or_default();
    let shown = |value: &Value| match value {
        Value::Null => "not measured".to_owned(),
        Value::Object(parts) => {
            parts.iter().map(|(name, count)| format!("{name}: {count}")).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    let mut rows: Vec<_> = FIRST.iter().map(|(key, name)| ((*name).to_owned(), shown(&figures[key]))).collect();
    for (key, value) in figures.as_object().into_iter().flatten() {
        let says_something = !value.is_null() && value.as_object().is_none_or(|parts| !parts.is_empty());
        if !FIRST.iter().any(|(first, _)| first == key) && says_something {
            rows.push((format!("`{key}`"), shown(value)));
        }
    }
    rows
}

/// What shared the machine, and what the floor of the disk was.
fn circumstances() -> String {
    let machine = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "The nodes and what they need, the simulated endpoint and whoever submits shared {machine} processors. \
         `fsync_p50_us` is the time of one sync to the same disk, measured before the run."
    )
}

/// The page as HTML, with the picture inside.
pub fn html(command: &str, svg: &str, outcome: &Outcome) -> String {
    let (heading, verdict) = heading(outcome);
    let mut table = String::new();
    for (name, value) in rows(outcome) {
        let name = name.trim_matches('`');
        table += &format!("<tr><td>{}</td><td>{}</td></tr>\n", escaped(name), escaped(&value));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{heading}</title>\n<style>{STYLE}</style>\
         </head><body>\n<h1>{heading}</h1>\n<pre>{}</pre>\n<p><b>{verdict}</b></p>\n{svg}\n<table>\n{table}</table>\n\
         <p>{}</p>\n</body></html>\n",
        escaped(command),
        escaped(&circumstances()),
        heading = escaped(&heading),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The page.
pub fn markdown(command: &str, picture: &str, outcome: &Outcome) -> String {
    let (heading, verdict) = heading(outcome);
    let mut page = format!("# {heading}\n\n    {command}\n\n{verdict}\n\n| figure | value |\n|---|---|\n");
    for (name, value) in rows(outcome) {
        // A string takes everything that is written to it.
        let _ = writeln!(page, "| {name} | {value} |");
    }
    let _ = write!(page, "\n![Workloads under way, memory, times and answers]({picture})\n\n{}\n", circumstances());
    page
}

/// The picture.
pub fn svg(outcome: &Outcome) -> String {
    let seconds = "seconds from the first submission";
    let marks: Vec<(f64, String)> = outcome.killed.iter().map(|at| (at.as_secs_f64(), "kill -9".to_owned())).collect();
    let panel = |title: &str, across: &str, lines: Vec<Line>, marks: &[(f64, String)]| Panel {
        title: title.to_owned(),
        across: across.to_owned(),
        lines,
        marks: marks.to_vec(),
    };
    let line = |name: &str, points: Vec<(f64, f64)>| Line { name: name.to_owned(), points };
    let sampled = |of: fn(&crate::sample::Sample) -> f64| {
        outcome.samples.iter().map(|sample| (sample.at.as_secs_f64(), of(sample))).collect()
    };
    let answers = outcome.answers.iter().enumerate().map(|(second, count)| (second as f64, f64::from(*count)));
    let mut panels = vec![
        panel("Workloads under way", seconds, vec![line("", under_way(&outcome.lives))], &marks),
        panel(
            "Memory of all nodes, MiB",
            seconds,
            vec![line("PSS", sampled(|sample| sample.pss_mib)), line("RSS", sampled(|sample| sample.rss_mib))],
            &marks,
        ),
        panel(
            "Share of workloads, %, that took at most",
            "seconds from when it was to be submitted",
            vec![line("to the first step", shares(&outcome.first_steps)), line("to the end", shares(&outcome.runs))],
            &[],
        ),
        panel("Answers of the model, a second", seconds, vec![line("", answers.collect())], &marks),
    ];
    if !outcome.placements.is_empty() {
        panels.push(panel("Agents of each node that have not ended", seconds, placements(outcome), &marks));
    }
    chart::svg(&panels)
}

/// A line for each node.
fn placements(outcome: &Outcome) -> Vec<Line> {
    let names: BTreeSet<&String> = outcome.placements.iter().flat_map(|(_, nodes)| nodes.keys()).collect();
    let points = |name: &String| {
        let count = |(at, nodes): &(Duration, BTreeMap<String, u64>)| {
            (at.as_secs_f64(), nodes.get(name).copied().unwrap_or_default() as f64)
        };
        outcome.placements.iter().map(count).collect()
    };
    names.into_iter().take(chart::LINES_MAX).map(|name| Line { name: name.clone(), points: points(name) }).collect()
}

/// How many lives are under way, at each moment at which that changes.
fn under_way(lives: &[(Duration, Duration)]) -> Vec<(f64, f64)> {
    let begins = lives.iter().map(|(begin, _)| (*begin, 1.0));
    let mut changes: Vec<(Duration, f64)> = begins.chain(lives.iter().map(|(_, end)| (*end, -1.0))).collect();
    changes.sort_by_key(|(at, _)| *at);
    let mut count = 0.0;
    changes
        .into_iter()
        .map(|(at, change)| {
            count += change;
            (at.as_secs_f64(), count)
        })
        .collect()
}

fn shares(times: &Times) -> Vec<(f64, f64)> {
    let share = |step: u32| f64::from(step) / f64::from(QUANTILES);
    (0..=QUANTILES).filter_map(|step| Some((times.ms(share(step))? / 1e3, share(step) * 100.0))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_under_way_rises_and_falls() {
        let at = Duration::from_secs;
        let lives = [(at(1), at(5)), (at(2), at(3))];
        assert_eq!(under_way(&lives), [(1.0, 1.0), (2.0, 2.0), (3.0, 1.0), (5.0, 0.0)]);
    }

    #[test]
    fn a_page_says_what_was_measured_and_what_was_not() {
        let figures = Figures { agents: 12, shape: "layers".to_owned(), steps_per_s: 7.5, ..Figures::default() };
        let outcome = Outcome {
            figures,
            samples: Vec::new(),
            lives: Vec::new(),
            answers: vec![3, 4],
            first_steps: Times::default(),
            runs: Times::default(),
            killed: Some(Duration::from_secs(1)),
            placements: Vec::new(),
        };
        let page = markdown("nexa load --agents 12", "x.svg", &outcome);
        assert!(page.starts_with("# 12 agents, layers\n\n    nexa load --agents 12\n"), "{page}");
        assert!(page.contains("| steps a second | 7.5 |") && page.contains("(x.svg)"), "{page}");
        assert!(page.contains("| all running after, seconds | not measured |"), "{page}");
        assert!(svg(&outcome).contains("kill -9"));
        let at = Duration::from_secs(1);
        let placements = vec![(at, BTreeMap::from([("n1".to_owned(), 4), ("n2".to_owned(), 8)]))];
        let cluster = Figures { nodes: 2, placement: placements[0].1.clone(), ..outcome.figures.clone() };
        let cluster = Outcome { figures: cluster, placements, ..outcome.clone() };
        let html = html("nexa load <x>", &svg(&cluster), &cluster);
        assert!(
            html.contains("<h1>12 agents, layers on 2 nodes</h1>") && html.contains("nexa load &lt;x&gt;"),
            "{html}"
        );
        assert!(html.contains("<td>placement</td><td>n1: 4, n2: 8</td>") && html.contains(">n2<"), "{html}");
        let wrong = Outcome { figures: Figures { wrong: 1, ..outcome.figures.clone() }, ..outcome };
        assert!(markdown("", "", &wrong).contains("Something is wrong"));
    }
}
