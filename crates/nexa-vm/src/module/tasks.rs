//! The task graph of an entry: the outlines of its flows, put together.
//!
//! A flow that is run through in place is expanded into its caller, a flow that leads back to itself is one task. Ids are
//! made of names: `main/Briefer`, the second call of the same `main/Briefer#2`, below a flow `main/gather/Reader`, and
//! `main/fork#1` for what has no name of its own. They depend on no line.
//!
//! Both ways of a condition are there, and what a loop does is there once. So the graph says what may have to be done, and
//! has no circle.
//!
//! Bounded: an entry has at most [`TASKS_MAX`] tasks, and a flow for which there is no more room is one task; a graph with
//! more than [`EDGES_MAX`] dependencies is one task as a whole. What flows that run as agents of their own take is looked
//! at as long as that is [`LOOKED_AT_MAX`] tasks in all; beyond, each takes what it says.

use std::collections::BTreeMap;

use nexa_types::Millis;

use super::outline::{Act, Outline, Pinned};
use super::{Entry, Module, Schedule};

/// Tasks of one entry.
pub const TASKS_MAX: usize = 10_000;
/// Dependencies of one entry.
pub const EDGES_MAX: usize = 1 << 18;
/// Flows inside of each other that are expanded.
const LEVELS_MAX: usize = 64;
/// Tasks that are looked at to know how long flows take that run as agents of their own.
const LOOKED_AT_MAX: usize = 100_000;

/// What a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskKind {
    /// An agent runs.
    Agent,
    /// A tool is called.
    Tool,
    /// One of several ways is taken.
    Condition,
    /// Branches start side by side.
    Fork,
    /// Results of branches become one.
    Merge,
    /// Something is computed, or a flow is run of which nothing further is told.
    Transform,
}

impl TaskKind {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            TaskKind::Agent => "agent",
            TaskKind::Tool => "tool",
            TaskKind::Condition => "condition",
            TaskKind::Fork => "fork",
            TaskKind::Merge => "merge",
            TaskKind::Transform => "transform",
        }
    }
}

/// Something that an entry may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its name in the graph.
    pub id: String,
    /// What it is.
    pub kind: TaskKind,
    /// The agent or the tool, by its index; the function of a flow of which nothing further is told.
    pub of: Option<u32>,
    /// The tasks that must have ended, earlier ones all, in ascending order.
    pub deps: Vec<u32>,
    /// How often it is done at most; `None` if nobody knows before it runs.
    pub rounds: Option<u64>,
    /// What it needs, and how long one round of it takes.
    pub schedule: Schedule,
}

impl Task {
    /// How long all its rounds take; one, if nobody knows how many there are.
    #[must_use]
    pub fn estimate(&self) -> Millis {
        Millis(self.schedule.estimate.0.saturating_mul(self.rounds.unwrap_or(1)))
    }
}

impl Module {
    /// The task graph of an entry. Every entry has one, and it has at least one task.
    #[must_use]
    pub fn tasks(&self, entry: &Entry) -> Vec<Task> {
        let mut expansion = Expansion::new(self);
        if entry.is_agent {
            let agent = (0u32..).zip(&self.agents).find(|(_, agent)| agent.function == entry.function);
            let name = self.agent_name(agent.map(|(number, _)| number), &entry.name);
            let task = expansion.own(Act::Agent(agent.map_or(u32::MAX, |(number, _)| number)));
            expansion.push(Task { id: name, ..task });
            return expansion.tasks;
        }
        let name = self.flow_name(entry.function, &entry.name);
        expansion.flow(entry.function, &name, &[], Some(1), 0);
        if expansion.edges > EDGES_MAX || expansion.tasks.is_empty() {
            let schedule = Schedule { llm_slots: 0, ..self.schedule_of(entry.function) };
            let whole = expansion.own(Act::Transform);
            return vec![Task { id: format!("{name}/transform#1"), schedule, ..whole }];
        }
        expansion.tasks
    }

    fn agent_name(&self, agent: Option<u32>, otherwise: &str) -> String {
        let pin = agent.and_then(|agent| self.graph.pin(Pinned::Agent(agent)));
        let name = agent.and_then(|agent| self.agents.get(agent as usize)).map(|agent| agent.name.as_str());
        pin.or(name).unwrap_or(otherwise).to_owned()
    }

    fn flow_name(&self, function: u32, otherwise: &str) -> String {
        let name = self.functions.get(function as usize).map(|function| function.name.as_str());
        self.graph.pin(Pinned::Flow(function)).or(name).unwrap_or(otherwise).to_owned()
    }
}

/// A graph on its way.
struct Expansion<'m> {
    module: &'m Module,
    tasks: Vec<Task>,
    edges: usize,
    /// Tasks that there will be, as far as is known.
    reserved: usize,
    /// The flows that are being expanded.
    open: Vec<u32>,
    /// Flows that run as agents of their own around this one.
    levels: usize,
    /// What such flows take, once it is known.
    spans: BTreeMap<u32, Schedule>,
    looked_at: usize,
}

impl<'m> Expansion<'m> {
    fn new(module: &'m Module) -> Self {
        Expansion {
            module,
            tasks: Vec::new(),
            edges: 0,
            reserved: 0,
            open: Vec::new(),
            levels: 0,
            spans: BTreeMap::new(),
            looked_at: 0,
        }
    }

    fn push(&mut self, task: Task) -> u32 {
        self.edges += task.deps.len();
        self.tasks.push(task);
        self.tasks.len() as u32 - 1
    }

    /// Adds a flow's tasks behind these; gives those after which it ends.
    fn flow(&mut self, function: u32, prefix: &str, behind: &[u32], rounds: Option<u64>, depth: usize) -> Vec<u32> {
        let module = self.module;
        let Some(outline) = module.graph.outline(function) else { return behind.to_vec() };
        self.open.push(function);
        self.reserved += room(outline);
        let ends = self.steps(outline, prefix, behind, rounds, depth);
        self.open.pop();
        ends
    }

    fn steps(
        &mut self,
        outline: &Outline,
        prefix: &str,
        behind: &[u32],
        rounds: Option<u64>,
        depth: usize,
    ) -> Vec<u32> {
        let mut met: BTreeMap<String, u32> = BTreeMap::new();
        // After which tasks each step has ended.
        let mut ended: Vec<Vec<u32>> = Vec::with_capacity(outline.steps.len());
        let after = |ended: &[Vec<u32>], places: &[u32]| {
            if places.is_empty() {
                return behind.to_vec();
            }
            let mut deps: Vec<u32> =
                places.iter().filter_map(|place| ended.get(*place as usize)).flatten().copied().collect();
            deps.sort_unstable();
            deps.dedup();
            deps
        };
        for step in &outline.steps {
            let deps = after(&ended, &step.after);
            if self.edges.saturating_add(deps.len()) > EDGES_MAX {
                self.edges = EDGES_MAX + 1;
                return Vec::new();
            }
            let rounds = rounds.zip(step.rounds).map(|(around, own)| around.saturating_mul(own));
            let (word, is_callee) = self.word(step.act);
            let count = met.entry(word.clone()).and_modify(|count| *count += 1).or_insert(1);
            let id =
                if is_callee && *count == 1 { format!("{prefix}/{word}") } else { format!("{prefix}/{word}#{count}") };
            let ends = match step.act {
                Act::Flow(function) if self.expands(function, depth) => {
                    let ends = self.flow(function, &id, &deps, rounds, depth + 1);
                    // Several ends become one, so that what follows need not wait for each.
                    if let [_, _, ..] = ends.as_slice() {
                        let output = self.own(Act::Transform);
                        vec![self.push(Task { id, deps: ends, rounds, ..output })]
                    } else {
                        ends
                    }
                }
                act => {
                    let task = self.own(act);
                    vec![self.push(Task { id, deps, rounds, ..task })]
                }
            };
            ended.push(ends);
        }
        after(&ended, &outline.ends)
    }

    /// What a step is called, and whether that is the name of what it calls.
    fn word(&self, act: Act) -> (String, bool) {
        let unknown = || ("transform".to_owned(), false);
        match act {
            Act::Agent(agent) => (self.module.agent_name(Some(agent), "agent"), true),
            Act::Tool(tool) => {
                let pin = self.module.graph.pin(Pinned::Tool(tool));
                let name = self.module.tools.get(tool as usize).map(|tool| tool.name.as_str());
                pin.or(name).map_or_else(unknown, |name| (name.to_owned(), true))
            }
            Act::Flow(function) => (self.module.flow_name(function, "flow"), true),
            Act::Condition(_) => ("condition".to_owned(), false),
            Act::Fork => ("fork".to_owned(), false),
            Act::Merge => ("merge".to_owned(), false),
            Act::Transform => unknown(),
        }
    }

    /// Whether a flow is expanded where it is called.
    fn expands(&self, function: u32, depth: usize) -> bool {
        let outline = self.module.graph.outline(function);
        let has_room = outline.is_some_and(|outline| self.reserved + room(outline) <= TASKS_MAX);
        has_room && depth < LEVELS_MAX && !self.open.contains(&function)
    }

    /// A task without its name and place.
    fn own(&mut self, act: Act) -> Task {
        let each = Schedule::default().estimate.0;
        let task =
            |kind, of, schedule| Task { id: String::new(), kind, of, deps: Vec::new(), rounds: Some(1), schedule };
        match act {
            Act::Agent(agent) => {
                let function = self.module.agents.get(agent as usize).map(|agent| agent.function);
                let schedule = function.map_or_else(Schedule::default, |function| self.span_of(function));
                task(TaskKind::Agent, Some(agent), schedule)
            }
            // It runs beside its caller, which waits for it and keeps its own place.
            Act::Tool(tool) => task(TaskKind::Tool, Some(tool), Schedule { estimate: Millis(each), ..NOTHING }),
            Act::Flow(function) => {
                // Without an outline it runs nobody.
                let outline = self.module.graph.outline(function);
                let estimate = outline.map_or(Millis(0), |_| self.module.schedule_of(function).estimate);
                task(TaskKind::Transform, outline.map(|_| function), Schedule { estimate, ..NOTHING })
            }
            Act::Condition(questions) => {
                let estimate = Millis(each.saturating_mul(u64::from(questions)));
                let llm_slots = u32::from(questions > 0);
                task(TaskKind::Condition, None, Schedule { estimate, llm_slots, ..NOTHING })
            }
            Act::Fork => task(TaskKind::Fork, None, NOTHING),
            Act::Merge => task(TaskKind::Merge, None, NOTHING),
            Act::Transform => task(TaskKind::Transform, None, NOTHING),
        }
    }

    /// What a flow that runs as an agent of its own takes: as long as it says, or, if it does not say, as long as the
    /// longest way through it.
    fn span_of(&mut self, function: u32) -> Schedule {
        if let Some(known) = self.spans.get(&function) {
            return *known;
        }
        let said = self.module.schedule_of(function);
        // A flow that leads back to itself takes what it says.
        self.spans.insert(function, said);
        let outline = self.module.graph.outline(function);
        let is_told = said.estimate != Schedule::default().estimate;
        if is_told || outline.is_none() || self.levels >= LEVELS_MAX || self.looked_at > LOOKED_AT_MAX {
            return said;
        }
        let mut inner = Expansion::new(self.module);
        inner.levels = self.levels + 1;
        inner.looked_at = self.looked_at;
        inner.spans = std::mem::take(&mut self.spans);
        inner.flow(function, "", &[], Some(1), 0);
        self.spans = inner.spans;
        self.looked_at = inner.looked_at + inner.tasks.len();
        if inner.edges > EDGES_MAX {
            return said;
        }
        let mut ends: Vec<u64> = Vec::with_capacity(inner.tasks.len());
        for task in &inner.tasks {
            let start = task.deps.iter().filter_map(|dep| ends.get(*dep as usize)).max().copied().unwrap_or(0);
            ends.push(start.saturating_add(task.estimate().0));
        }
        let span = Schedule { estimate: Millis(ends.into_iter().max().unwrap_or(0)), ..said };
        self.spans.insert(function, span);
        span
    }
}

/// The tasks that an outline needs room for: its steps, and one where its ways come together.
fn room(outline: &Outline) -> usize {
    outline.steps.len() + 1
}

/// What takes no time and no place.
const NOTHING: Schedule =
    Schedule { priority: 128, weight: 1.0, estimate: Millis(0), cpu_milli: 0, memory_bytes: 0, llm_slots: 0 };
