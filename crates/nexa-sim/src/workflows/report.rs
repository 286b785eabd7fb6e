//! What came of a study, for people and for programs.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{Cell, Contender, Noise, Settings, Workflow, chart, mean_ratio};

/// A table: its title, its columns, its rows.
struct Table {
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

/// The values of `of`, each once, in their order.
fn distinct<T: PartialEq>(cells: &[Cell], of: impl Fn(&Cell) -> T) -> Vec<T> {
    let mut all = Vec::new();
    for value in cells.iter().map(of) {
        if !all.contains(&value) {
            all.push(value);
        }
    }
    all
}

/// The mean ratios of everybody but HEFT, which is 1.
fn ratios(cells: &[&Cell]) -> Vec<String> {
    let ratio = |of| mean_ratio(cells.iter().copied(), of).map_or_else(|| "-".to_owned(), |mean| format!("{mean:.3}"));
    others().map(ratio).collect()
}

fn others() -> impl Iterator<Item = Contender> {
    Contender::ALL.into_iter().filter(|of| *of != Contender::Heft)
}

fn columns(first: &[&'static str]) -> Vec<&'static str> {
    first.iter().copied().chain(others().map(Contender::name)).collect()
}

fn tables(cells: &[Cell]) -> Vec<Table> {
    let mut tables = Vec::new();
    let noises = distinct(cells, |cell| cell.noise);
    // In full for the truth, or for the first noise where that was not asked for.
    if let Some(noise) = noises.iter().find(|noise| **noise == Noise::True).or(noises.first()) {
        let mut rows = Vec::new();
        for workflow in distinct(cells, |cell| cell.workflow.clone()) {
            for nodes in distinct(cells, |cell| cell.nodes) {
                let is_here = |cell: &&Cell| cell.workflow == workflow && cell.nodes == nodes && cell.noise == *noise;
                let here: Vec<&Cell> = cells.iter().filter(is_here).collect();
                let sum: f64 = here.iter().map(|cell| cell.makespan(Contender::Heft).0 as f64 / 1_000.0).sum();
                let mut row = vec![workflow.clone(), nodes.to_string(), format!("{:.1}", sum / here.len() as f64)];
                row.extend(ratios(&here));
                rows.push(row);
            }
        }
        let title = format!("Makespan / that of HEFT, durations: {noise}");
        tables.push(Table { title, columns: columns(&["workflow", "nodes", "HEFT, s"]), rows });
    }
    let row = |first: String, is_here: &dyn Fn(&Cell) -> bool| {
        let here: Vec<&Cell> = cells.iter().filter(|cell| is_here(cell)).collect();
        std::iter::once(first).chain(ratios(&here)).collect::<Vec<_>>()
    };
    let rows = noises.iter().map(|noise| row(noise.to_string(), &|cell| cell.noise == *noise)).collect();
    tables.push(Table { title: "Geometric means, by durations".to_owned(), columns: columns(&["durations"]), rows });
    tables.push(Table {
        title: "Single runs of ours beside HEFT".to_owned(),
        columns: vec!["durations", "better", "equal", "worse", "best", "worst"],
        rows: noises.iter().map(|noise| single_runs(cells, *noise)).collect(),
    });
    for noise in &noises {
        let of_size = |nodes: usize| row(nodes.to_string(), &|cell| cell.nodes == nodes && cell.noise == *noise);
        let rows = distinct(cells, |cell| cell.nodes).into_iter().map(of_size).collect();
        let title = format!("Geometric means, by nodes, durations: {noise}");
        tables.push(Table { title, columns: columns(&["nodes"]), rows });
    }
    for noise in &noises {
        let of_name = |name: String| row(name.clone(), &|cell| cell.workflow == name && cell.noise == *noise);
        let rows = distinct(cells, |cell| cell.workflow.clone()).into_iter().map(of_name).collect();
        let title = format!("Geometric means, by workflow, durations: {noise}");
        tables.push(Table { title, columns: columns(&["workflow"]), rows });
    }
    tables
}

/// How many runs of ours were better than, equal to and worse than those of HEFT, and the ratios of the best and the worst.
fn single_runs(cells: &[Cell], noise: Noise) -> Vec<String> {
    let here = cells.iter().filter(|cell| cell.noise == noise);
    let mut ratios: Vec<f64> = here.map(|cell| cell.ratio(Contender::Ours)).collect();
    ratios.sort_by(f64::total_cmp);
    let count = |is: fn(&f64) -> bool| ratios.iter().filter(|ratio| is(ratio)).count().to_string();
    let written = |ratio: Option<&f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
    let (best, worst) = (written(ratios.first()), written(ratios.last()));
    let [better, equal, worse] = [count(|it| *it < 1.0), count(|it| *it == 1.0), count(|it| *it > 1.0)];
    vec![noise.to_string(), better, equal, worse, best, worst]
}

/// All tables, for a terminal.
#[must_use]
pub fn table(cells: &[Cell]) -> String {
    let mut out = String::new();
    for Table { title, columns, rows } in tables(cells) {
        let width = |at: usize| {
            let cells = rows.iter().map(|row| row[at].chars().count());
            cells.chain([columns[at].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns.len()).map(width).collect();
        let line = |row: &[&str]| {
            let cell = |(at, (cell, width)): (usize, (&&str, &usize))| match at {
                0 => format!("{cell:width$}"),
                _ => format!("  {cell:>width$}"),
            };
            row.iter().zip(&widths).enumerate().map(cell).collect::<String>().trim_end().to_owned() + "\n"
        };
        out += &format!("{title}\n\n{}", line(&columns));
        for row in &rows {
            out += &line(&row.iter().map(String::as_str).collect::<Vec<_>>());
        }
        out.push('\n');
    }
    out
}

/// All cells, and the geometric means by durations.
#[must_use]
pub fn json(cells: &[Cell]) -> Value {
    let named = |of: &dyn Fn(Contender) -> Value| {
        Contender::ALL.into_iter().map(|who| (who.name().to_owned(), of(who))).collect::<Map<_, _>>()
    };
    let means = distinct(cells, |cell| cell.noise).into_iter().map(|noise| {
        let mean = |of| mean_ratio(cells.iter().filter(|cell| cell.noise == noise), of).into();
        (noise.to_string(), named(&mean).into())
    });
    let runs = cells.iter().map(|cell| {
        let makespans = named(&|of| cell.makespan(of).0.into());
        json!({
            "workflow": cell.workflow, "nodes": cell.nodes, "durations": cell.noise.to_string(), "seed": cell.seed,
            "makespan_ms": makespans,
        })
    });
    let means: Map<String, Value> = means.collect();
    json!({ "makespan_over_heft": means, "runs": runs.collect::<Vec<_>>() })
}

/// The report: what was played and how, and all tables.
#[must_use]
pub fn markdown(cells: &[Cell], workflows: &[Workflow], settings: &Settings, chart: &str) -> String {
    let mut out = format!(
        "# Plans of real workflows\n\n\
         \x20   cargo xtask plan-sim DIR --seeds {} --report FILE\n\n\
         DIR has the traces; nodes: {}; seeds of clusters and noises: 1 to {}; {} runs.\n\n\
         {HOW}\n\
         {}\n\
         ![Makespan over that of HEFT, by nodes]({chart})\n\n\
         | workflow | tasks | dependencies | work, s | longest path, s |\n|---|---|---|---|---|\n",
        settings.seeds,
        settings.nodes.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
        settings.seeds,
        cells.len(),
        verdict(cells),
    );
    for workflow in workflows {
        let needs: usize = workflow.tasks().iter().map(|task| task.needs.len()).sum();
        let work: f64 = workflow.durations().iter().map(|duration| duration.0 as f64 / 1_000.0).sum();
        let longest = workflow.longest_path().0 as f64 / 1_000.0;
        let (name, tasks) = (workflow.name(), workflow.tasks().len());
        put(&mut out, format_args!("| {name} | {tasks} | {needs} | {work:.1} | {longest:.1} |\n"));
    }
    let mut tables = tables(cells);
    // What it comes to before what it is made of.
    tables.sort_by_key(|table| !(table.title.ends_with("by durations") || table.title.starts_with("Single")));
    for Table { title, columns, rows } in tables {
        put(&mut out, format_args!("\n## {title}\n\n| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len())));
        for row in rows {
            put(&mut out, format_args!("| {} |\n", row.join(" | ")));
        }
    }
    out
}

/// What it comes to, in a sentence for each of the durations.
fn verdict(cells: &[Cell]) -> String {
    let sentence = |noise: &Noise| {
        let mean = |of| mean_ratio(cells.iter().filter(|cell| cell.noise == *noise), of).unwrap_or(1.0);
        let [ours, random, turns, bound] =
            [Contender::Ours, Contender::Random, Contender::RoundRobin, Contender::Bound].map(mean);
        let beside = match ours {
            better if better < 1.0 => "better than HEFT",
            1.0 => "as good as HEFT",
            _ => "worse than HEFT",
        };
        format!(
            "- durations {noise}: ours takes **{ours:.3}** of HEFT's time, {beside}; random {random:.3}, round robin \
             {turns:.3}, and nobody can be below {bound:.3}.\n"
        )
    };
    distinct(cells, |cell| cell.noise).iter().map(sentence).collect()
}

const HOW: &str = "\
Traces of WfCommons (<https://wfcommons.org>), played on modelled clusters. Nodes have 50 to 200 % of the speed at which a\n\
trace was recorded and 1 to 8 cores of 4 GiB each; between any two of them lie a gigabit a second and a millisecond. A task\n\
starts when all that it depends on has ended and the results have arrived, holds its cores and memory for as long as it\n\
runs, and is not moved while it does. What a task reads that no task wrote is everywhere from the beginning. A result is\n\
with every other node one transfer after its end, and links are not shared; what that is worth to who decides late is seen in\n\
*ours_settled*, where a result sets out only when it is settled where it is read. Each size is played with several clusters\n\
and, where durations are not true, another noise on each.\n\
\n\
Figures are makespans over that of HEFT (Topcuoglu, Hariri and Wu 2002, with insertion) on the same cluster with the same\n\
estimates, as geometric means: below 1 is better than the textbook. *heft* keeps its assignment and its order, and times\n\
follow the truth; *heft_conserving* lets a task pass those of its node that cannot start yet. *random* and *round_robin*\n\
give each task that is ready a node by chance and by turns. *plan* is that of `nexa_sched::plan` made before the first task\n\
starts and kept as HEFT's is; *ours* is that plan carried out by `nexa_sched::Dispatch`, which plans again what has not\n\
started when a task ends away from its time, and learns how far off each kind is. *bound* is what no schedule can be below.\n\
\n\
Estimates are the true durations, or differ from them by factors of the lognormal distribution with mean 1 and a standard\n\
deviation of 30 or 100 %: *task*, each task by its own; *kind*, all tasks of a kind by the same; *learned*, what the learner\n\
of durations knows of the kind after twenty earlier runs, in which each task was off by its own.\n";

/// A chart: the mean ratios by size, a panel for each noise.
#[must_use]
pub fn chart(cells: &[Cell]) -> String {
    let sizes = distinct(cells, |cell| cell.nodes);
    let panel = |noise: Noise| {
        let line = |of: Contender| {
            let mean = |nodes: &usize| {
                let here = cells.iter().filter(|cell| cell.noise == noise && cell.nodes == *nodes);
                mean_ratio(here, of).unwrap_or(1.0)
            };
            (of.name(), sizes.iter().map(mean).collect())
        };
        chart::Panel { title: format!("durations: {noise}"), lines: Contender::ALL.into_iter().map(line).collect() }
    };
    let panels: Vec<chart::Panel> = distinct(cells, |cell| cell.noise).into_iter().map(panel).collect();
    chart::svg(&sizes, &panels)
}

/// A string takes everything that is written to it.
fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(what);
}
