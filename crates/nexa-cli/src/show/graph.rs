//! Task graphs as tables and as JSON.

use nexa_lang::Amounts;
use nexa_lang::project::Node;
use nexa_sched::{AgentScheduleInfo, Resources, TaskGraph};
use nexa_types::Budget;
use serde_json::{Value, json};

use super::table::table;
use super::words;

/// A node as it is shown.
pub struct Shown {
    id: String,
    kind: &'static str,
    deps: Vec<usize>,
    /// How often at most; `None` if nobody knows before it runs.
    rounds: Option<u64>,
    info: AgentScheduleInfo,
    budget: Budget,
    tools: Vec<String>,
    cost: Option<(Amounts, Option<Amounts>)>,
}

/// The nodes of an entry, in their order.
pub fn of_nodes(nodes: Vec<Node>) -> Vec<Shown> {
    let shown = |node: Node| {
        let Node { task, budget, tools, cost_min, cost_max } = node;
        let schedule = task.schedule;
        let info = AgentScheduleInfo {
            priority: schedule.priority,
            weight: schedule.weight,
            estimated_duration: task.estimate(),
            requirements: Resources {
                cpu_milli: schedule.cpu_milli.into(),
                memory_bytes: schedule.memory_bytes,
                llm_slots: schedule.llm_slots.into(),
            },
            ..AgentScheduleInfo::new(task.id.clone())
        };
        Shown {
            id: task.id,
            kind: task.kind.as_str(),
            deps: task.deps.iter().map(|dep| *dep as usize).collect(),
            rounds: task.rounds,
            info,
            budget,
            tools,
            cost: Some((cost_min, cost_max)),
        }
    };
    nodes.into_iter().map(shown).collect()
}

/// The agents of a list, each after those that it waits for.
pub fn of_list(graph: &TaskGraph) -> Vec<Shown> {
    let mut places = vec![0; graph.len()];
    for (place, task) in graph.topological().iter().enumerate() {
        places[*task as usize] = place;
    }
    let node = |task: &u32| {
        let info = graph.agents()[*task as usize].clone();
        let mut deps: Vec<usize> = graph.dependencies(*task).iter().map(|dep| places[*dep as usize]).collect();
        deps.sort_unstable();
        let budget = Budget::default();
        Shown { id: info.id.clone(), kind: "agent", deps, rounds: Some(1), info, budget, tools: Vec::new(), cost: None }
    };
    graph.topological().iter().map(node).collect()
}

/// The stage of each node: how many others come before it, one after the other.
fn stages(nodes: &[Shown]) -> Vec<usize> {
    let mut stages: Vec<usize> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let before = node.deps.iter().filter_map(|dep| stages.get(*dep)).max();
        stages.push(before.map_or(0, |before| before + 1));
    }
    stages
}

/// A graph as a table, stage by stage.
pub fn to_text(nodes: &[Shown]) -> String {
    let stages = stages(nodes);
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|place| (stages[*place], *place));
    let has_rounds = nodes.iter().any(|node| node.rounds != Some(1));
    let has_costs = nodes.iter().any(|node| node.cost.is_some());
    let mut head = vec!["STAGE", "NODE", "KIND", "AFTER", "ESTIMATE"];
    if has_rounds {
        head.push("ROUNDS");
    }
    if has_costs {
        head.push("COST");
    }
    let mut rows = Vec::new();
    let mut last = None;
    for place in order {
        let node = &nodes[place];
        let stage = if last == Some(stages[place]) { String::new() } else { (stages[place] + 1).to_string() };
        last = Some(stages[place]);
        let mut row = vec![stage, node.id.clone(), node.kind.to_owned(), names(nodes, &node.deps), estimate(node)];
        if has_rounds {
            row.push(match node.rounds {
                Some(1) => String::new(),
                Some(rounds) => rounds.to_string(),
                None => "?".to_owned(),
            });
        }
        if has_costs {
            row.push(node.cost.as_ref().map(cost).unwrap_or_default());
        }
        rows.push(row);
    }
    table(&head, &rows)
}

/// The most names that a line has.
const NAMES_MAX: usize = 6;

fn names(nodes: &[Shown], places: &[usize]) -> String {
    let mut names: Vec<&str> =
        places.iter().take(NAMES_MAX).filter_map(|place| nodes.get(*place)).map(|node| node.id.as_str()).collect();
    let more = places.len().saturating_sub(NAMES_MAX);
    let more = format!("{more} more");
    if places.len() > NAMES_MAX {
        names.push(&more);
    }
    names.join(", ")
}

fn estimate(node: &Shown) -> String {
    match node.info.estimated_duration.0 {
        0 => String::new(),
        millis => words::span(i64::try_from(millis).unwrap_or(i64::MAX)),
    }
}

fn cost((least, most): &(Amounts, Option<Amounts>)) -> String {
    let requests = |count: u64| format!("{count} request{}", if count == 1 { "" } else { "s" });
    match most {
        Some(most) if most.requests == 0 => String::new(),
        Some(most) => {
            let money = most.cost.map(|cost| format!(", {}", words::dollars(cost.0))).unwrap_or_default();
            let least = if least.requests == most.requests { String::new() } else { format!("{} to ", least.requests) };
            format!("{least}{}, up to {} tokens{money}", requests(most.requests), most.tokens)
        }
        None => format!("{} or more", requests(least.requests)),
    }
}

/// A node as a scheduler takes it.
pub fn to_json(node: &Shown, nodes: &[Shown]) -> Value {
    let needs = &node.info.requirements;
    let (least, most) = match &node.cost {
        Some((least, most)) => (amounts(least), most.as_ref().map_or(Value::Null, amounts)),
        None => (Value::Null, Value::Null),
    };
    let deps: Vec<&str> = node.deps.iter().filter_map(|dep| nodes.get(*dep)).map(|node| node.id.as_str()).collect();
    let budget = &node.budget;
    json!({
        "id": node.id, "kind": node.kind, "deps": deps,
        "priority": node.info.priority, "weight": node.info.weight,
        "estimate_ms": node.info.estimated_duration.0, "rounds": node.rounds,
        "cpu_milli": needs.cpu_milli, "memory_bytes": needs.memory_bytes, "llm_slots": needs.llm_slots,
        "budget": {
            "tokens": budget.tokens.map(|tokens| tokens.0), "cost_usd_micro": budget.cost.map(|cost| cost.0),
            "time_ms": budget.time.map(|time| time.0), "calls": budget.calls, "steps": budget.steps,
        },
        "tools": node.tools, "cost_min": least, "cost_max": most,
    })
}

fn amounts(amounts: &Amounts) -> Value {
    json!({
        "requests": amounts.requests, "tokens": amounts.tokens, "cost_usd_micro": amounts.cost.map(|cost| cost.0),
    })
}
