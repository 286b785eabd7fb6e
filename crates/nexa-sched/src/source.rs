//! Where the agents of a plan come from: an entry of a module, or a submitted list.
//!
//! Of an entry's tasks those are planned that take time or a place. What only says in which order the others come is left
//! out, and whoever came after it comes after what it came after; unless that is many and many, when it stays as a task
//! that takes nothing.

use std::collections::BTreeMap;

use nexa_event::fact::ListItem;
use nexa_types::{Millis, Tokens};
use nexa_vm::module::tasks::{Task, TaskKind};
use nexa_vm::module::{Entry, Module, Schedule};

use crate::{AgentScheduleInfo, Labels, ModelNeed, Resources};

/// Dependencies that leaving one task out may make; a task for which there would be more stays.
const EDGES_OF_ONE_MAX: usize = 64;
/// What a request is taken to read, in tokens, as nobody knows it before its text is there.
pub const INPUT_TOKENS_EXPECTED: u64 = 1_000;

/// The agents, tools and questions of an entry, in an order in which each comes after its dependencies. There is at least
/// one. `default_model` is the model of agents that name none, as `provider/name`; empty if it is not known.
#[must_use]
pub fn agents_of_entry(module: &Module, entry: &Entry, default_model: &str) -> Vec<AgentScheduleInfo> {
    let tasks = module.tasks(entry);
    let mut dependents = vec![0_usize; tasks.len()];
    for dep in tasks.iter().flat_map(|task| &task.deps) {
        if let Some(count) = dependents.get_mut(*dep as usize) {
            *count += 1;
        }
    }
    // For each task, the planned ones after which it has ended.
    let mut ends: Vec<Vec<u32>> = Vec::with_capacity(tasks.len());
    let mut planned: Vec<u32> = Vec::new();
    for (number, task) in (0u32..).zip(&tasks) {
        let mut after: Vec<u32> =
            task.deps.iter().filter_map(|dep| ends.get(*dep as usize)).flatten().copied().collect();
        after.sort_unstable();
        after.dedup();
        let makes = after.len().saturating_mul(dependents[number as usize]);
        if takes_something(task) || makes > EDGES_OF_ONE_MAX {
            planned.push(number);
            ends.push(vec![number]);
        } else {
            ends.push(after);
        }
    }
    if planned.is_empty() {
        planned.extend(0..tasks.len().min(1) as u32);
    }
    let models = Models::of(module, default_model);
    let name = |number: &u32| tasks.get(*number as usize).map(|task| task.id.clone());
    let agent = |number: u32| {
        let task = tasks.get(number as usize)?;
        let mut after: Vec<u32> =
            task.deps.iter().filter_map(|dep| ends.get(*dep as usize)).flatten().copied().collect();
        after.sort_unstable();
        after.dedup();
        Some(AgentScheduleInfo { dependencies: after.iter().filter_map(name).collect(), ..agent_of(&models, task) })
    };
    planned.into_iter().filter_map(agent).collect()
}

/// The agents of a list, in its order.
#[must_use]
pub fn agents_of_list(module: &Module, items: &[ListItem], default_model: &str) -> Vec<AgentScheduleInfo> {
    let models = Models::of(module, default_model);
    let by_function: BTreeMap<u32, u32> =
        (0u32..).zip(&module.agents).map(|(number, agent)| (agent.function, number)).collect();
    let info = |item: &ListItem| {
        let agent = by_function.get(&item.entry).copied();
        let kind = agent.and_then(|agent| module.agents.get(agent as usize)).map_or(&item.id, |agent| &agent.name);
        let after = item.after.iter().filter_map(|after| items.get(*after as usize));
        let usual = with(module.schedule_of(item.entry));
        let said = item.schedule.clone().unwrap_or_default();
        AgentScheduleInfo {
            id: item.id.clone(),
            kind: kind.clone(),
            dependencies: after.map(|item| item.id.clone()).collect(),
            model: agent.map(|agent| models.need(agent, 1)),
            priority: said.priority.unwrap_or(usual.priority),
            weight: said.weight_milli.map_or(usual.weight, |weight| f64::from(weight) / 1_000.0),
            estimated_duration: said.estimate.unwrap_or(usual.estimated_duration),
            requirements: Resources {
                cpu_milli: said.cpu_milli.map_or(usual.requirements.cpu_milli, u64::from),
                memory_bytes: said.memory_bytes.unwrap_or(usual.requirements.memory_bytes),
                llm_slots: said.llm_slots.map_or(usual.requirements.llm_slots, u64::from),
            },
            labels: said.labels.unwrap_or_default(),
            gang: said.gang,
            ..usual
        }
    };
    items.iter().map(info).collect()
}

/// Whether it takes time or a place.
fn takes_something(task: &Task) -> bool {
    matches!(task.kind, TaskKind::Agent | TaskKind::Tool) || task.estimate() > Millis(0)
}

fn with(schedule: Schedule) -> AgentScheduleInfo {
    AgentScheduleInfo {
        priority: schedule.priority,
        weight: schedule.weight,
        estimated_duration: schedule.estimate,
        requirements: Resources {
            cpu_milli: u64::from(schedule.cpu_milli),
            memory_bytes: schedule.memory_bytes,
            llm_slots: u64::from(schedule.llm_slots),
        },
        labels: Labels::new(),
        ..AgentScheduleInfo::new("")
    }
}

fn agent_of(models: &Models<'_>, task: &Task) -> AgentScheduleInfo {
    let module = models.module;
    let rounds = task.rounds.unwrap_or(1);
    let (kind, model) = match (task.kind, task.of) {
        (TaskKind::Agent, Some(agent)) => {
            let name = module.agents.get(agent as usize).map(|agent| agent.name.clone());
            (name, Some(models.need(agent, rounds)))
        }
        (TaskKind::Tool, Some(tool)) => (module.tools.get(tool as usize).map(|tool| tool.name.clone()), None),
        (TaskKind::Condition, _) if task.schedule.llm_slots > 0 => (None, Some(need(models.default_model, rounds, 0))),
        _ => (None, None),
    };
    AgentScheduleInfo {
        id: task.id.clone(),
        kind: kind.unwrap_or_else(|| task.kind.as_str().to_owned()),
        estimated_duration: task.estimate(),
        model,
        ..with(task.schedule)
    }
}

/// What the agents of a module ask of which models.
struct Models<'m> {
    module: &'m Module,
    default_model: &'m str,
    /// The longest answer of a request, by the name of the agent that makes it.
    answers: BTreeMap<&'m str, u64>,
}

impl<'m> Models<'m> {
    fn of(module: &'m Module, default_model: &'m str) -> Self {
        let answer = |request: &'m nexa_vm::module::ModelRequestSpec| (request.agent.as_str(), request.max_tokens.0);
        Models { module, default_model, answers: module.requests.iter().map(answer).collect() }
    }

    /// What an agent asks of the model that it asks first: one request a round.
    fn need(&self, agent: u32, rounds: u64) -> ModelNeed {
        let model = match self.module.graph.model(agent) {
            "" => self.default_model,
            named => named,
        };
        let name = self.module.agents.get(agent as usize).map(|agent| agent.name.as_str());
        let answer = name.and_then(|name| self.answers.get(name)).copied().unwrap_or(0);
        need(model, rounds, answer)
    }
}

fn need(model: &str, requests: u64, answer_tokens: u64) -> ModelNeed {
    ModelNeed {
        provider: model.split('/').next().unwrap_or_default().to_owned(),
        requests,
        input_tokens: Tokens(INPUT_TOKENS_EXPECTED.saturating_mul(requests)),
        output_tokens: Tokens(answer_tokens.saturating_mul(requests)),
    }
}
