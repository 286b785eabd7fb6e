//! `nexa graph`.

use std::io::{ErrorKind, Write as _};
use std::path::Path;

use nexa_lang::project::nodes;
use nexa_lang::{Options, Prices};
use nexa_proto::v1;
use nexa_sched::{AgentScheduleInfo, Explainer, Problem, Resources, SchedulerConfig, TaskGraph, agents_of_entry};
use nexa_types::Millis;
use nexa_vm::module::Schedule;

use super::check::is_colored;
use super::submit::{Compilation, Folder, read_list};
use crate::args::{Color, GraphArgs, Output};
use crate::failure::{Exit, Failure};
use crate::nodes::Nodes;
use crate::program;
use crate::show::graph::{Shown, of_list, of_nodes, to_json, to_text};
use crate::show::plan;

/// How many ids are named when one is not found.
const IDS_TOLD_MAX: usize = 10;

/// `nexa graph`: the nodes of an entry or a list, and the plan for them. `prices_of` gives what the models of a project
/// cost, by its folder.
pub fn graph(
    args: &GraphArgs,
    prices_of: impl Fn(&Path) -> Result<Prices, Failure>,
    output: Output,
    color: Color,
) -> Result<(), Failure> {
    let text = graph_text(args, prices_of, output, color)?;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads it has seen enough: `nexa graph … | head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Failure::error(format!("cannot write the graph: {error}"))),
    }
}

/// What `nexa graph` prints.
pub fn graph_text(
    args: &GraphArgs,
    prices_of: impl Fn(&Path) -> Result<Prices, Failure>,
    output: Output,
    color: Color,
) -> Result<String, Failure> {
    let is_list = args.file.extension().is_some_and(|extension| extension == "json");
    let (shown, agents) = if is_list { list(&args.file)? } else { of_program(args, prices_of, color)? };
    if args.plan {
        let nodes = args.nodes.as_deref().map_or_else(|| Ok(Nodes::this_machine()), Nodes::read)?;
        return plan_text(agents, &nodes, args.why.as_deref(), output);
    }
    Ok(match output {
        Output::Json => shown.iter().map(|node| format!("{}\n", to_json(node, &shown))).collect(),
        Output::Table => to_text(&shown),
    })
}

fn of_program(
    args: &GraphArgs,
    prices_of: impl Fn(&Path) -> Result<Prices, Failure>,
    color: Color,
) -> Result<(Vec<Shown>, Vec<AgentScheduleInfo>), Failure> {
    let (folder, path) = program::project_of(&args.file)?;
    let options = Options { prices: prices_of(&folder)?, ..Options::default() };
    let (result, costs) = nexa_lang::compile_with_costs(&path, &Folder(folder), &options);
    let compilation = Compilation::from(result);
    let is_colored = is_colored(color);
    for diagnostic in &compilation.diagnostics {
        eprintln!("{}", compilation.text(diagnostic, is_colored));
    }
    let (Some(module), Some(costs)) = (compilation.module, costs) else { return Err(Failure::told(Exit::Error)) };
    let entry = program::entry(&module, &args.entry)?;
    Ok((of_nodes(nodes(&module, &costs, entry)), agents_of_entry(&module, entry, "")))
}

fn list(file: &Path) -> Result<(Vec<Shown>, Vec<AgentScheduleInfo>), Failure> {
    let agents: Vec<AgentScheduleInfo> = read_list(file)?.agents.iter().map(agent).collect();
    let graph = graph_of(agents)?;
    Ok((of_list(&graph), graph.agents().to_vec()))
}

/// An agent of a list as a scheduler takes it.
fn agent(spec: &v1::AgentSpec) -> AgentScheduleInfo {
    let (known, usual) = (AgentScheduleInfo::new(spec.id.clone()), Schedule::default());
    let needs = spec.needs.unwrap_or_default();
    AgentScheduleInfo {
        kind: if spec.name.is_empty() { spec.id.clone() } else { spec.name.clone() },
        priority: spec.priority.and_then(|priority| u8::try_from(priority).ok()).unwrap_or(known.priority),
        weight: spec.weight.unwrap_or(known.weight),
        estimated_duration: spec.estimated_duration_ms.map_or(known.estimated_duration, Millis),
        dependencies: spec.after.clone(),
        requirements: Resources {
            cpu_milli: needs.cpu_milli.unwrap_or(usual.cpu_milli).into(),
            memory_bytes: needs.memory_mib.map_or(usual.memory_bytes, |mib| mib.saturating_mul(1 << 20)),
            llm_slots: needs.llm_slots.unwrap_or(usual.llm_slots).into(),
        },
        labels: spec.labels.clone().into_iter().collect(),
        gang: (!spec.gang.is_empty()).then(|| spec.gang.clone()),
        ..known
    }
}

fn graph_of(agents: Vec<AgentScheduleInfo>) -> Result<TaskGraph, Failure> {
    TaskGraph::new(agents).map_err(|error| Failure::error(format!("it has no graph: {error}")))
}

fn plan_text(
    agents: Vec<AgentScheduleInfo>,
    nodes: &Nodes,
    why: Option<&str>,
    output: Output,
) -> Result<String, Failure> {
    let graph = graph_of(agents)?;
    let config = SchedulerConfig::default();
    let problem = Problem {
        graph: &graph,
        cluster: &nodes.cluster,
        config: &config,
        budgets: &nodes.budgets,
        progress: &[],
        now: Millis(0),
        seed: 0,
    };
    let no_plan = |error: &dyn std::fmt::Display| Failure::error(format!("there is no plan: {error}"));
    let made = nexa_sched::plan(&problem, None).map_err(|error| no_plan(&error))?;
    let mut explainer = Explainer::new(&problem, &made).map_err(|error| no_plan(&error))?;
    let view = plan::View { graph: &graph, cluster: &nodes.cluster, plan: &made };
    let tasks: Vec<u32> = match why {
        None => (0..graph.len() as u32).collect(),
        Some(id) => vec![task(&graph, id)?],
    };
    let explained = tasks.into_iter().map(|task| explainer.explain(task)).collect::<Result<Vec<_>, _>>();
    let explained = explained.map_err(|error| no_plan(&error))?;
    Ok(match (output, why) {
        (Output::Table, None) => view.to_text(&explained),
        (Output::Table, Some(_)) => explained.iter().map(|one| view.explanation_to_text(one)).collect(),
        (Output::Json, None) => format!("{}\n", view.to_json(&explained)),
        (Output::Json, Some(_)) => explained.iter().map(|one| format!("{}\n", view.explanation_to_json(one))).collect(),
    })
}

fn task(graph: &TaskGraph, id: &str) -> Result<u32, Failure> {
    graph.task(id).ok_or_else(|| {
        let mut ids: Vec<&str> = graph.agents().iter().take(IDS_TOLD_MAX).map(|agent| agent.id.as_str()).collect();
        if graph.len() > IDS_TOLD_MAX {
            ids.push("…");
        }
        Failure::usage(format!("nothing in the plan is called `{id}`")).hint(format!("there are {}", ids.join(", ")))
    })
}
