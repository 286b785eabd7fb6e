//! A fact of the log as the checkers look at it: where it stands, and what it says of ends, starts and owners.

use nexa_event::effect::Answer;
use nexa_event::envelope::{Envelope, Fact};
use nexa_event::fact::{AgentEvent, EffectResult, Intent, Program, WorkloadEvent};
use nexa_types::{AgentId, EffectKey, Epoch, GlobalSeq, StreamId, Timestamp, Version, WorkloadId};

/// How an effect ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A tool gave a value.
    Done,
    /// Something else was done: a model has answered, a person has decided.
    Answered,
    /// It failed, and changed nothing.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// What kind of outside effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A request to a model.
    Model,
    /// A call of a tool.
    Tool,
    /// Anything else.
    Other,
}

/// What a fact says, as far as it is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A workload was accepted.
    Submitted,
    /// Its end is wanted.
    CancelRequested,
    /// A workload has ended; whether well.
    WorkloadEnded(bool),
    /// An agent exists: its name, its parent, and of the coordinator of a list what comes after what.
    Spawned {
        /// Its name.
        name: String,
        /// Who started it.
        parent: Option<AgentId>,
        /// Items of a list, each with the indices of those before it.
        items: Vec<(String, Vec<u32>)>,
    },
    /// A node runs it from here on.
    Owned(String),
    /// An outside effect is wanted.
    Intended(EffectKey, Kind),
    /// It is sent: which attempt.
    Started(EffectKey, u32),
    /// It has ended.
    EffectEnded(EffectKey, End),
    /// These children exist.
    Children(Vec<AgentId>),
    /// An agent has ended; whether well.
    AgentEnded(bool),
    /// Anything else.
    Other,
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its place in the reading order.
    pub position: GlobalSeq,
    /// Its stream.
    pub stream: StreamId,
    /// Its place there.
    pub version: Version,
    /// Of its writer, if the stream has an owner.
    pub epoch: Option<Epoch>,
    /// When its writer decided it.
    pub at: Timestamp,
    /// Whose it is.
    pub workload: Option<WorkloadId>,
    /// What it says.
    pub what: What,
}

impl Logged {
    /// A fact as a store gives it.
    pub fn of(position: GlobalSeq, workload: Option<WorkloadId>, envelope: &Envelope) -> Self {
        let header = &envelope.header;
        Self {
            position,
            stream: header.stream.clone(),
            version: header.version,
            epoch: header.epoch,
            at: header.at,
            workload,
            what: what(&header.stream, workload, &envelope.fact),
        }
    }

    /// The agent in whose stream it is.
    pub fn agent(&self) -> Option<AgentId> {
        match &self.stream {
            StreamId::Agent(agent) => Some(*agent),
            StreamId::Workload(_) | StreamId::Cluster(_) => None,
        }
    }
}

fn what(stream: &StreamId, workload: Option<WorkloadId>, fact: &Fact) -> What {
    let event = match fact {
        Fact::Workload(WorkloadEvent::Submitted { .. }) => return What::Submitted,
        Fact::Workload(WorkloadEvent::CancelRequested { .. }) => return What::CancelRequested,
        Fact::Workload(WorkloadEvent::Ended { outcome, .. }) => return What::WorkloadEnded(outcome.is_ok()),
        Fact::Agent(event) => event,
        _ => return What::Other,
    };
    let (StreamId::Agent(agent), Some(workload)) = (stream, workload) else { return What::Other };
    let key = |seq| EffectKey::of(workload, *agent, seq);
    match event {
        AgentEvent::Spawned(spawned) => {
            let items = match &spawned.program {
                Program::List { items, .. } => items.iter().map(|item| (item.id.clone(), item.after.clone())).collect(),
                Program::Function { .. } => Vec::new(),
            };
            let parent = spawned.parent.map(|parent| parent.agent);
            What::Spawned { name: spawned.name.clone(), parent, items }
        }
        AgentEvent::Started { node, .. } | AgentEvent::TakenOver { node, .. } => What::Owned(node.as_str().to_owned()),
        AgentEvent::EffectIntended { seq, intent, .. } => {
            let kind = match intent {
                Intent::Model { .. } => Kind::Model,
                Intent::Tool { .. } => Kind::Tool,
                _ => Kind::Other,
            };
            What::Intended(key(*seq), kind)
        }
        AgentEvent::EffectStarted { seq, attempt, .. } => What::Started(key(*seq), *attempt),
        AgentEvent::EffectEnded { seq, result, .. } => {
            let end = match result {
                EffectResult::Done(Answer::Value(_)) => End::Done,
                EffectResult::Done(_) => End::Answered,
                EffectResult::Failed(_) => End::Failed,
                EffectResult::Unknown(_) => End::Unknown,
            };
            What::EffectEnded(key(*seq), end)
        }
        AgentEvent::EffectLost { seq } => What::EffectEnded(key(*seq), End::Unknown),
        AgentEvent::ChildrenSpawned { children, .. } => {
            What::Children(children.iter().map(|born| born.agent).collect())
        }
        AgentEvent::Ended { outcome, .. } => What::AgentEnded(outcome.is_ok()),
        _ => What::Other,
    }
}
