//! One fact at a time: which views it touches, and what they say afterwards.

use nexa_event::effect::MemoryScope;
use nexa_event::envelope::{Envelope, Fact};
use nexa_event::fact::{AgentEvent, ClusterEvent, Intent, WorkloadEvent};
use nexa_types::{AgentId, EffectKey, GlobalSeq, ModuleHash, Seq, StreamId, TenantId, WorkloadId};

use crate::agent::AgentView;
use crate::approval::ApprovalView;
use crate::history::{HistoryLine, line};
use crate::memory::{MemoryEntry, MemoryPlace};
use crate::program::ProgramView;
use crate::workload::WorkloadView;

/// A fact and where it stands in the reading order.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Its position.
    pub position: GlobalSeq,
    /// The workload that it belongs to, if any.
    pub workload: Option<WorkloadId>,
    /// Header and fact.
    pub envelope: &'a Envelope,
}

/// What a view is kept under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A workload.
    Workload(WorkloadId),
    /// An agent.
    Agent(AgentId),
    /// An approval, by its effect.
    Approval(EffectKey),
    /// A module under a name of a tenant.
    Program(TenantId, String, ModuleHash),
}

/// A view of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    /// A workload.
    Workload(WorkloadView),
    /// An agent.
    Agent(AgentView),
    /// An approval.
    Approval(ApprovalView),
    /// A program.
    Program(ProgramView),
}

impl View {
    /// What it is kept under.
    pub fn key(&self) -> Key {
        match self {
            Self::Workload(view) => Key::Workload(view.workload),
            Self::Agent(view) => Key::Agent(view.agent),
            Self::Approval(view) => Key::Approval(view.key),
            Self::Program(view) => Key::Program(view.tenant.clone(), view.name.clone(), view.module),
        }
    }
}

/// Where views are kept. All that one [`fold`] saves must become visible together.
pub trait Shelf {
    /// Why it did not work.
    type Error;

    /// A view, if there is one.
    ///
    /// # Errors
    /// If it cannot be read.
    fn load(&mut self, key: &Key) -> Result<Option<View>, Self::Error>;

    /// Keeps a view in place of the one with the same key.
    ///
    /// # Errors
    /// If it cannot be kept.
    fn save(&mut self, view: View) -> Result<(), Self::Error>;

    /// Keeps a line. No two have the same position.
    ///
    /// # Errors
    /// If it cannot be kept.
    fn save_line(&mut self, line: HistoryLine) -> Result<(), Self::Error>;

    /// Takes over one more entry of a memory, or forgets its key, and keeps the memory within its bound.
    ///
    /// # Errors
    /// If it cannot be kept.
    fn keep_memory(&mut self, entry: MemoryEntry) -> Result<(), Self::Error>;

    /// Forgets all of a memory.
    ///
    /// # Errors
    /// If it cannot be forgotten.
    fn forget_memory(&mut self, place: &MemoryPlace) -> Result<(), Self::Error>;
}

/// Brings every view up to one more fact.
///
/// # Errors
/// Those of the shelf.
pub fn fold<S: Shelf>(shelf: &mut S, seen: &Seen<'_>) -> Result<(), S::Error> {
    if let Some(line) = line(seen) {
        shelf.save_line(line)?;
    }
    match (&seen.envelope.header.stream, &seen.envelope.fact) {
        (StreamId::Agent(agent), Fact::Agent(event)) => fold_agent(shelf, *agent, event, seen),
        (StreamId::Workload(workload), Fact::Workload(event)) => {
            if matches!(event, WorkloadEvent::Ended { .. }) {
                let tenant = seen.envelope.header.tenant.clone();
                shelf.forget_memory(&MemoryPlace { tenant, workload: Some(*workload) })?;
            }
            fold_workload(shelf, *workload, seen)
        }
        (StreamId::Cluster(tenant), Fact::Cluster(event)) => {
            // What is remembered of agents is no view: see `nexa-remember`.
            let ClusterEvent::ProgramPut { module, name, .. } = event else { return Ok(()) };
            let before = match shelf.load(&Key::Program(tenant.clone(), name.clone(), *module))? {
                Some(View::Program(view)) => Some(view),
                _ => None,
            };
            ProgramView::apply(before, event, seen).map_or(Ok(()), |view| shelf.save(View::Program(view)))
        }
        // A fact in a stream of another kind: no writer makes one, and no view is about it.
        _ => Ok(()),
    }
}

fn fold_workload<S: Shelf>(shelf: &mut S, workload: WorkloadId, seen: &Seen<'_>) -> Result<(), S::Error> {
    let before = match shelf.load(&Key::Workload(workload))? {
        Some(View::Workload(view)) => Some(view),
        _ => None,
    };
    WorkloadView::apply(before, workload, seen).map_or(Ok(()), |view| shelf.save(View::Workload(view)))
}

fn fold_agent<S: Shelf>(shelf: &mut S, agent: AgentId, event: &AgentEvent, seen: &Seen<'_>) -> Result<(), S::Error> {
    let before = match shelf.load(&Key::Agent(agent))? {
        Some(View::Agent(view)) => Some(view),
        _ => None,
    };
    let is_new = before.as_ref().is_none_or(|view| view.applied < seen.position);
    let asked_before = before.as_ref().and_then(AgentView::asking);
    let Some(view) = AgentView::apply(before, agent, event, seen) else { return Ok(()) };
    if let Some(seq) = question(event, asked_before) {
        let key = EffectKey::of(view.workload, agent, seq);
        let approval = match shelf.load(&Key::Approval(key))? {
            Some(View::Approval(approval)) => Some(approval),
            _ => None,
        };
        if let Some(approval) = ApprovalView::apply(approval, key, event, &view, seen) {
            shelf.save(View::Approval(approval))?;
        }
    }
    let workload = view.workload;
    if let AgentEvent::MemoryStored { entry, .. } = event
        && is_new
        && (entry.scope == MemoryScope::Tenant || !has_ended(shelf, workload)?)
    {
        shelf.keep_memory(MemoryEntry::new(entry, view.tenant.clone(), workload, seen.position))?;
    }
    shelf.save(View::Agent(view))?;
    match event {
        AgentEvent::Spawned(_)
        | AgentEvent::Started { .. }
        | AgentEvent::EffectEnded { .. }
        | AgentEvent::Ended { .. } => fold_workload(shelf, workload, seen),
        _ => Ok(()),
    }
}

/// Whether a workload is over, and its memory with it. Those below may still have something deferred to do.
fn has_ended<S: Shelf>(shelf: &mut S, workload: WorkloadId) -> Result<bool, S::Error> {
    let view = shelf.load(&Key::Workload(workload))?;
    Ok(matches!(view, Some(View::Workload(view)) if view.ended_at.is_some()))
}

/// The question that a fact is about: a new one, or the one that its agent waited for.
fn question(event: &AgentEvent, asked_before: Option<Seq>) -> Option<Seq> {
    match event {
        AgentEvent::EffectIntended { seq, intent: Intent::Approval(_), .. } => Some(*seq),
        AgentEvent::EffectEnded { .. }
        | AgentEvent::Ended { .. }
        | AgentEvent::CancelReceived { .. }
        | AgentEvent::DeadlinePassed
        | AgentEvent::ScopeExpired { .. } => asked_before,
        _ => None,
    }
}
