//! What a scheduler may know of a program before it runs: which agents and tools each flow runs, in which order.
//!
//! An [`Outline`] is told once for each flow, without what the flows it calls do; [`super::tasks`] puts them together for an
//! entry. It advises and never runs: it has a section of its own behind the debug section, and is no part of the module's
//! hash. A module without outlines is planned as one task.
//!
//! Holds, whoever made the bytes: functions come in ascending order, a step names only earlier steps of its outline, and
//! every agent, tool and function that is named is there.

use crate::module::Module;
use crate::wire::{Reader, WireError, Writer};

/// Steps of one outline.
pub const STEPS_MAX: usize = 4_096;
/// Steps that one step waits for.
pub const AFTER_MAX: usize = 1_024;
/// The longest name of a node or a model, in bytes.
const NAME_BYTES_MAX: usize = 1_024;

/// What a scheduler may know of a program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Graph {
    /// The flows about which there is something to say, in ascending order of their functions.
    pub outlines: Vec<Outline>,
    /// Names of nodes that were pinned, in ascending order.
    pub pins: Vec<(Pinned, String)>,
    /// The model that an agent asks first, as `provider/name`, in ascending order of the agents. One that is not listed
    /// asks the default model.
    pub models: Vec<(u32, String)>,
}

/// What a pinned name is the name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pinned {
    /// An agent, by its index.
    Agent(u32),
    /// A tool, by its index.
    Tool(u32),
    /// A flow, by its function.
    Flow(u32),
}

/// What one flow does, and in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The flow's function.
    pub function: u32,
    /// Its steps; each comes after those that it waits for.
    pub steps: Vec<Step>,
    /// The steps after one of which the flow ends.
    pub ends: Vec<u32>,
}

/// A step of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub act: Act,
    /// The steps that have ended by then, in ascending order.
    pub after: Vec<u32>,
    /// How often it is done at most, by the loops around it; `None` if nobody knows before it runs.
    pub rounds: Option<u64>,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// An agent runs, by its index: a declared one, or a flow that runs as an agent of its own.
    Agent(u32),
    /// A tool is called, by its index.
    Tool(u32),
    /// A flow is run through in place, by its function.
    Flow(u32),
    /// One of several ways is taken, after so many questions to a model.
    Condition(u32),
    /// Branches start side by side.
    Fork,
    /// Results of branches become one.
    Merge,
    /// Something is computed.
    Transform,
}

impl Graph {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outlines.is_empty() && self.pins.is_empty() && self.models.is_empty()
    }

    /// The outline of a flow.
    #[must_use]
    pub fn outline(&self, function: u32) -> Option<&Outline> {
        let place = self.outlines.binary_search_by_key(&function, |outline| outline.function);
        place.ok().and_then(|place| self.outlines.get(place))
    }

    /// The name that a node was given.
    #[must_use]
    pub fn pin(&self, pinned: Pinned) -> Option<&str> {
        let place = self.pins.binary_search_by_key(&pinned, |(known, _)| *known);
        place.ok().and_then(|place| self.pins.get(place)).map(|(_, name)| name.as_str())
    }

    /// The model that an agent asks first; empty is the default model.
    #[must_use]
    pub fn model(&self, agent: u32) -> &str {
        let place = self.models.binary_search_by_key(&agent, |(known, _)| *known);
        place.ok().and_then(|place| self.models.get(place)).map_or("", |(_, name)| name.as_str())
    }

    /// Refuses what names something that the module does not have.
    pub(super) fn check(&self, module: &Module) -> Result<(), WireError> {
        let bad = |what| Err(Reader::new(&[]).bad(what));
        let has_function = |function: u32| (function as usize) < module.functions.len();
        let has_agent = |agent: u32| (agent as usize) < module.agents.len();
        let has_tool = |tool: u32| (tool as usize) < module.tools.len();
        for outline in &self.outlines {
            let acts = outline.steps.iter().all(|step| match step.act {
                Act::Agent(agent) => has_agent(agent),
                Act::Tool(tool) => has_tool(tool),
                Act::Flow(function) => has_function(function),
                Act::Condition(_) | Act::Fork | Act::Merge | Act::Transform => true,
            });
            if !acts || !has_function(outline.function) {
                return bad("steps of what the module has");
            }
        }
        let is_there = |pinned: &Pinned| match *pinned {
            Pinned::Agent(agent) => has_agent(agent),
            Pinned::Tool(tool) => has_tool(tool),
            Pinned::Flow(function) => has_function(function),
        };
        if !self.pins.iter().all(|(pinned, _)| is_there(pinned)) {
            return bad("names of what the module has");
        }
        if !self.models.iter().all(|(agent, _)| has_agent(*agent)) {
            return bad("models of agents that the module has");
        }
        let is_sorted = self.outlines.is_sorted_by(|a, b| a.function < b.function)
            && self.pins.is_sorted_by(|a, b| a.0 < b.0)
            && self.models.is_sorted_by(|a, b| a.0 < b.0);
        if is_sorted { Ok(()) } else { bad("numbers in ascending order") }
    }
}

pub(super) fn write_graph(writer: &mut Writer, graph: &Graph) {
    writer.count(graph.outlines.len());
    for outline in &graph.outlines {
        writer.u32(outline.function);
        writer.count(outline.steps.len());
        for step in &outline.steps {
            let (tag, of) = match step.act {
                Act::Agent(agent) => (0, Some(agent)),
                Act::Tool(tool) => (1, Some(tool)),
                Act::Flow(function) => (2, Some(function)),
                Act::Condition(questions) => (3, Some(questions)),
                Act::Fork => (4, None),
                Act::Merge => (5, None),
                Act::Transform => (6, None),
            };
            writer.u8(tag);
            of.into_iter().for_each(|of| writer.u32(of));
            writer.count(step.after.len());
            step.after.iter().for_each(|after| writer.u32(*after));
            writer.option(step.rounds, Writer::u64);
        }
        writer.count(outline.ends.len());
        outline.ends.iter().for_each(|end| writer.u32(*end));
    }
    writer.count(graph.pins.len());
    for (pinned, name) in &graph.pins {
        let (tag, of) = match *pinned {
            Pinned::Agent(agent) => (0, agent),
            Pinned::Tool(tool) => (1, tool),
            Pinned::Flow(function) => (2, function),
        };
        writer.u8(tag);
        writer.u32(of);
        writer.str(name);
    }
    writer.count(graph.models.len());
    for (agent, model) in &graph.models {
        writer.u32(*agent);
        writer.str(model);
    }
}

pub(super) fn read_graph(reader: &mut Reader<'_>, functions_max: usize) -> Result<Graph, WireError> {
    let outlines = reader.list(functions_max, read_outline)?;
    let pins = reader.list(functions_max, |reader| {
        let tag = reader.u8()?;
        let of = reader.u32()?;
        let pinned = match tag {
            0 => Pinned::Agent(of),
            1 => Pinned::Tool(of),
            2 => Pinned::Flow(of),
            _ => return Err(reader.bad("what a name is pinned to")),
        };
        Ok((pinned, read_name(reader)?))
    })?;
    let models = reader.list(functions_max, |reader| Ok((reader.u32()?, read_name(reader)?)))?;
    let graph = Graph { outlines, pins, models };
    if graph.is_empty() { Err(reader.bad("a section that says something")) } else { Ok(graph) }
}

fn read_name(reader: &mut Reader<'_>) -> Result<String, WireError> {
    let name = reader.string()?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX { Err(reader.bad("a name of this length")) } else { Ok(name) }
}

fn read_outline(reader: &mut Reader<'_>) -> Result<Outline, WireError> {
    let function = reader.u32()?;
    let mut next = 0;
    let steps = reader.list(STEPS_MAX, |reader| {
        let act = match reader.u8()? {
            0 => Act::Agent(reader.u32()?),
            1 => Act::Tool(reader.u32()?),
            2 => Act::Flow(reader.u32()?),
            3 => Act::Condition(reader.u32()?),
            4 => Act::Fork,
            5 => Act::Merge,
            6 => Act::Transform,
            _ => return Err(reader.bad("what a step does")),
        };
        let after = read_places(reader, next)?;
        next += 1;
        Ok(Step { act, after, rounds: reader.option(Reader::u64)? })
    })?;
    let ends = read_places(reader, next)?;
    Ok(Outline { function, steps, ends })
}

/// Places below a number, in ascending order.
fn read_places(reader: &mut Reader<'_>, below: u32) -> Result<Vec<u32>, WireError> {
    let places = reader.list(AFTER_MAX, Reader::u32)?;
    let is_good = places.is_sorted_by(|a, b| a < b) && places.last().is_none_or(|last| *last < below);
    if is_good { Ok(places) } else { Err(reader.bad("earlier steps in ascending order")) }
}
