//! The scheduler input: an entry's tasks with what they may cost.

use nexa_types::Budget;
use nexa_vm::module::tasks::{Task, TaskKind};
use nexa_vm::module::{Entry, Module};

use crate::check::cost::{Amounts, Costs};

/// A node of the task graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it is, when it may run, and what it needs.
    pub task: Task,
    /// Caps of its own.
    pub budget: Budget,
    /// The tools that it may call, by name.
    pub tools: Vec<String>,
    /// What it takes of models at least each time that it ends with a value, all rounds together if it is known how many
    /// there are.
    pub cost_min: Amounts,
    /// What it takes at most, all rounds together; `None` if that is not known.
    pub cost_max: Option<Amounts>,
}

/// The nodes of an entry, in an order in which each comes after those that it waits for. `costs` are those of the program
/// that the module was made of.
#[must_use]
pub fn nodes(module: &Module, costs: &Costs, entry: &Entry) -> Vec<Node> {
    module.tasks(entry).into_iter().map(|task| node(module, costs, task)).collect()
}

fn node(module: &Module, costs: &Costs, task: Task) -> Node {
    let nothing = (Amounts::NOTHING, Some(Amounts::NOTHING));
    let agent = task.of.filter(|_| task.kind == TaskKind::Agent);
    let known = agent.and_then(|agent| module.agents.get(agent as usize));
    let (least, most) = match (task.kind, agent.map(|agent| agent as usize)) {
        (TaskKind::Agent, Some(agent)) => {
            let apart = agent.checked_sub(costs.agents.len()).and_then(|place| costs.apart.get(place));
            match costs.agents.get(agent).or(apart) {
                Some((_, bounds)) => (bounds.least, bounds.most.clone().ok()),
                None => (Amounts::NOTHING, None),
            }
        }
        (TaskKind::Condition, _) if task.schedule.llm_slots > 0 => {
            (Amounts { requests: 1, ..Amounts::NOTHING }, Some(costs.question))
        }
        // A flow that is told as a whole may do anything.
        (TaskKind::Transform, _) if task.of.is_some() => (Amounts::NOTHING, None),
        _ => nothing,
    };
    let cost_max = most.and_then(|most| match task.rounds {
        Some(rounds) => Some(most.times(rounds)),
        None => (most.requests == 0).then_some(most),
    });
    let granted = known.and_then(|agent| module.grants.iter().find(|grant| grant.function == agent.function));
    let tools = granted.map(|grant| grant.tools.as_slice()).unwrap_or_default();
    let tools =
        tools.iter().filter_map(|tool| module.tools.get(*tool as usize)).map(|tool| tool.name.clone()).collect();
    let budget = known.map(|agent| agent.budget).unwrap_or_default();
    Node { cost_min: least, cost_max, budget, tools, task }
}
