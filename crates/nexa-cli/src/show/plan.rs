//! Plans and what explains them, as text and as JSON.

use std::fmt::Write as _;

use nexa_sched::{Cluster, Explanation, Outcome, Resource, SchedulePlan, TaskGraph, Wait, WaitReason};
use nexa_types::Millis;
use serde_json::{Value, json};

use super::table::table;

/// The most names of a critical path that a line has.
const PATH_MAX: usize = 12;

/// A plan with what it is about.
pub struct View<'a> {
    /// The tasks.
    pub graph: &'a TaskGraph,
    /// The nodes.
    pub cluster: &'a Cluster,
    /// Where and when.
    pub plan: &'a SchedulePlan,
}

impl View<'_> {
    fn name(&self, task: u32) -> &str {
        self.graph.agents().get(task as usize).map_or("?", |agent| agent.id.as_str())
    }

    fn node(&self, node: u32) -> &str {
        self.cluster.nodes.get(node as usize).map_or("?", |node| node.id.as_str())
    }

    /// The plan as lines: the whole, then each task by stage and start.
    pub fn to_text(&self, explained: &[Explanation]) -> String {
        let plan = self.plan;
        let mut text = String::new();
        let count = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            text,
            "{} on {} in {}: {}; no plan takes less than {}",
            count(self.graph.len(), "task"),
            count(self.cluster.nodes.len(), "node"),
            count(plan.stages.len(), "stage"),
            seconds(plan.estimated_total_time),
            seconds(plan.lower_bound)
        );
        let mut path: Vec<&str> = plan.critical_path.iter().take(PATH_MAX).map(|task| self.name(*task)).collect();
        if plan.critical_path.len() > PATH_MAX {
            path.push("…");
        }
        let _infallible = writeln!(text, "critical path: {}\n", path.join(" → "));
        let mut rows = Vec::new();
        for (number, stage) in plan.stages.iter().enumerate() {
            let mut tasks: Vec<u32> = stage.clone();
            tasks.sort_by_key(|task| plan.allocation.get(*task as usize).map(|slot| (slot.start, *task)));
            for (place, task) in tasks.iter().enumerate() {
                let Some(slot) = plan.allocation.get(*task as usize) else { continue };
                let wait = explained.get(*task as usize).and_then(|explained| explained.waits.last());
                rows.push(vec![
                    if place == 0 { (number + 1).to_string() } else { String::new() },
                    self.name(*task).to_owned(),
                    self.node(slot.node).to_owned(),
                    seconds(slot.start),
                    seconds(slot.end),
                    wait.map(|wait| self.reason(wait, slot.node)).unwrap_or_default(),
                ]);
            }
        }
        text + &table(&["STAGE", "TASK", "NODE", "START", "END", "WAITS LAST FOR"], &rows)
    }

    /// Why a task is where it is, as lines.
    pub fn explanation_to_text(&self, explained: &Explanation) -> String {
        let slot = explained.slot;
        let critical = if explained.is_critical { ", on the critical path" } else { "" };
        let mut text = format!(
            "{} runs on {} from {} to {}{critical}\n",
            self.name(explained.task),
            self.node(slot.node),
            seconds(slot.start),
            seconds(slot.end)
        );
        if explained.has_started {
            return text + "it has started, and stays where it is\n";
        }
        if explained.waits.is_empty() {
            text += "it waits for nothing\n";
        }
        for wait in &explained.waits {
            let (from, until) = (seconds(wait.from), seconds(wait.until));
            let _infallible = writeln!(text, "from {from} to {until} it waits for {}", self.reason(wait, slot.node));
        }
        text += "\n";
        let row = |alternative: &nexa_sched::Alternative| {
            let (start, end, note) = match &alternative.outcome {
                Outcome::Runs { start, end } => {
                    let note = if alternative.node == slot.node { "where it is" } else { "" };
                    (seconds(*start), seconds(*end), note.to_owned())
                }
                Outcome::Cordoned => (String::new(), String::new(), "takes nothing new".to_owned()),
                Outcome::Label { name, value } => (String::new(), String::new(), format!("lacks {name} = {value:?}")),
                Outcome::TooSmall { resource, need, has } => {
                    let (need, has) = (amount(*resource, *need), amount(*resource, *has));
                    (String::new(), String::new(), format!("has {has}, and it needs {need}"))
                }
            };
            vec![self.node(alternative.node).to_owned(), start, end, note]
        };
        let rows: Vec<Vec<String>> = explained.alternatives.iter().map(row).collect();
        text + &table(&["NODE", "WOULD START", "WOULD END", ""], &rows)
    }

    fn reason(&self, wait: &Wait, node: u32) -> String {
        match &wait.reason {
            WaitReason::Dependency { task } => self.name(*task).to_owned(),
            WaitReason::Transfer { task } => format!("the result of {}", self.name(*task)),
            WaitReason::Gang { task } => format!("{} of its gang", self.name(*task)),
            WaitReason::Capacity { resource, holders } => {
                let holders: Vec<&str> = holders.iter().map(|task| self.name(*task)).collect();
                format!("{} of {}, held by {}", word(*resource), self.node(node), holders.join(", "))
            }
            WaitReason::Limit { limit } => format!("its turn: {limit}"),
            WaitReason::Order => "its turn".to_owned(),
        }
    }

    /// The plan as one object.
    pub fn to_json(&self, explained: &[Explanation]) -> Value {
        let plan = self.plan;
        let names = |tasks: &[u32]| tasks.iter().map(|task| self.name(*task)).collect::<Vec<_>>();
        json!({
            "stages": plan.stages.iter().map(|stage| names(stage)).collect::<Vec<_>>(),
            "allocation": explained.iter().map(|one| self.explanation_to_json(one)).collect::<Vec<_>>(),
            "critical_path": names(&plan.critical_path),
            "estimated_total_time_ms": plan.estimated_total_time.0,
            "lower_bound_ms": plan.lower_bound.0,
        })
    }

    /// Where and when a task runs, and why, as an object.
    pub fn explanation_to_json(&self, explained: &Explanation) -> Value {
        let slot = explained.slot;
        json!({
            "id": self.name(explained.task), "node": self.node(slot.node),
            "start_ms": slot.start.0, "end_ms": slot.end.0, "has_started": explained.has_started,
            "is_critical": explained.is_critical,
            "waits": explained.waits.iter().map(|wait| self.wait_to_json(wait)).collect::<Vec<_>>(),
            "alternatives": explained.alternatives.iter().map(|other| self.other_to_json(other)).collect::<Vec<_>>(),
        })
    }

    fn wait_to_json(&self, wait: &Wait) -> Value {
        let (from, until) = (wait.from.0, wait.until.0);
        let of = |reason: &str, task: &u32| json!({ "from_ms": from, "until_ms": until, "reason": reason, "task": self.name(*task) });
        match &wait.reason {
            WaitReason::Dependency { task } => of("dependency", task),
            WaitReason::Transfer { task } => of("transfer", task),
            WaitReason::Gang { task } => of("gang", task),
            WaitReason::Capacity { resource, holders } => json!({
                "from_ms": from, "until_ms": until, "reason": "capacity", "resource": key(*resource),
                "holders": holders.iter().map(|task| self.name(*task)).collect::<Vec<_>>(),
            }),
            WaitReason::Limit { limit } => {
                json!({ "from_ms": from, "until_ms": until, "reason": "limit", "limit": limit })
            }
            WaitReason::Order => json!({ "from_ms": from, "until_ms": until, "reason": "order" }),
        }
    }

    fn other_to_json(&self, other: &nexa_sched::Alternative) -> Value {
        let node = self.node(other.node);
        match &other.outcome {
            Outcome::Runs { start, end } => json!({ "node": node, "start_ms": start.0, "end_ms": end.0 }),
            Outcome::Cordoned => json!({ "node": node, "cannot": "cordoned" }),
            Outcome::Label { name, value } => json!({ "node": node, "cannot": "label", "name": name, "value": value }),
            Outcome::TooSmall { resource, need, has } => {
                json!({ "node": node, "cannot": "too_small", "resource": key(*resource), "need": need, "has": has })
            }
        }
    }
}

fn word(resource: Resource) -> &'static str {
    match resource {
        Resource::Cpu => "cores",
        Resource::Memory => "memory",
        Resource::LlmSlots => "model slots",
    }
}

fn key(resource: Resource) -> &'static str {
    match resource {
        Resource::Cpu => "cpu_milli",
        Resource::Memory => "memory_bytes",
        Resource::LlmSlots => "llm_slots",
    }
}

fn amount(resource: Resource, amount: u64) -> String {
    match resource {
        Resource::Cpu => format!("{}.{:03} cores", amount / 1_000, amount % 1_000),
        Resource::Memory => format!("{} MiB", amount >> 20),
        Resource::LlmSlots => format!("{amount} model slots"),
    }
}

/// Seconds, to the millisecond where that matters: `2.0 s`, `2.001 s`.
pub fn seconds(time: Millis) -> String {
    let text = format!("{}.{:03}", time.0 / 1_000, time.0 % 1_000);
    let short = text.trim_end_matches('0');
    if short.ends_with('.') { format!("{short}0 s") } else { format!("{short} s") }
}
