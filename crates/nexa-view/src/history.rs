//! One line a fact that has something to search for.
//!
//! Payloads are values of a VM and stay closed here: what is found is names, questions, reasons, failures and what
//! models wrote.

use nexa_event::effect::Answer;
use nexa_event::envelope::Fact;
use nexa_event::fact::{AgentEvent, ClusterEvent, EffectResult, Intent, WorkloadEvent};
use nexa_types::{AgentId, Failure, GlobalSeq, Outcome, StreamId, TenantId, Timestamp, WorkloadId};

use crate::fold::Seen;

/// The text of a line ends here, at the last whole character.
pub const HISTORY_TEXT_BYTES_MAX: usize = 64 << 10;

/// A line of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    /// The fact's position.
    pub position: GlobalSeq,
    /// When it was decided.
    pub at: Timestamp,
    /// Whose it is.
    pub tenant: TenantId,
    /// The workload that it belongs to.
    pub workload: Option<WorkloadId>,
    /// The agent that it is about.
    pub agent: Option<AgentId>,
    /// What happened, in one word.
    pub kind: String,
    /// What can be searched.
    pub text: String,
}

/// The line of a fact; `None` if it says nothing that anybody would search for.
pub fn line(seen: &Seen<'_>) -> Option<HistoryLine> {
    let (kind, text) = match &seen.envelope.fact {
        Fact::Agent(event) => agent_line(event)?,
        Fact::Workload(WorkloadEvent::Submitted { name, .. }) => ("workload_submitted", name.clone()),
        Fact::Workload(WorkloadEvent::CancelRequested { reason }) => ("cancel_requested", reason.clone()),
        Fact::Workload(WorkloadEvent::Ended { outcome: Outcome::Err(failure), .. }) => {
            ("workload_failed", failed(failure))
        }
        Fact::Workload(WorkloadEvent::Ended { outcome: Outcome::Ok(_), .. }) => return None,
        Fact::Cluster(ClusterEvent::ProgramPut { name, .. }) => ("program_put", name.clone()),
        Fact::Cluster(ClusterEvent::AgentForgotten { agent, .. }) => {
            ("agent_forgotten", format!("{agent} is forgotten, as {} asked", seen.envelope.header.principal))
        }
    };
    let header = &seen.envelope.header;
    let agent = match (&header.stream, &seen.envelope.fact) {
        (StreamId::Agent(agent), _) => Some(*agent),
        (_, Fact::Cluster(ClusterEvent::AgentForgotten { agent, .. })) => Some(*agent),
        _ => None,
    };
    let text = shortened(text);
    let (workload, kind) = (seen.workload, kind.to_owned());
    Some(HistoryLine {
        position: seen.position,
        at: header.at,
        tenant: header.tenant.clone(),
        workload,
        agent,
        kind,
        text,
    })
}

fn agent_line(event: &AgentEvent) -> Option<(&'static str, String)> {
    match event {
        AgentEvent::Spawned(spawned) => Some(("agent_spawned", spawned.name.clone())),
        AgentEvent::EffectIntended { intent: Intent::Approval(request), .. } => {
            let data = request.data.as_deref().unwrap_or_default();
            Some(("approval_asked", format!("{} {data}", request.question)))
        }
        AgentEvent::EffectIntended { intent: Intent::Tool { tool, preview, .. }, .. } => {
            Some(("tool_called", format!("{tool} {preview}")))
        }
        AgentEvent::EffectLost { seq } => {
            Some(("effect_unknown", format!("outcome_unknown: #{seq} was in flight when its owner was lost")))
        }
        AgentEvent::EffectEnded { result, .. } => match result {
            EffectResult::Done(Answer::Model(reply)) => Some(("model_replied", reply.text.clone())),
            EffectResult::Done(Answer::Approval(decision)) => {
                let word = if decision.approved { "approved" } else { "denied" };
                Some(("approval_answered", format!("{word} by {}: {}", decision.by, decision.note)))
            }
            EffectResult::Done(_) => None,
            EffectResult::Failed(failure) => Some(("effect_failed", failed(failure))),
            EffectResult::Unknown(failure) => Some(("effect_unknown", failed(failure))),
        },
        AgentEvent::Emitted { channel, .. } => Some(("emitted", channel.clone())),
        AgentEvent::MemoryStored { entry, .. } => Some(("memory_stored", entry.key.clone())),
        AgentEvent::MessageReceived { from, .. } => Some(("message_received", from.clone())),
        AgentEvent::CancelReceived { reason } => Some(("cancel_received", reason.clone())),
        AgentEvent::Ended { outcome: Outcome::Err(failure), .. } => Some(("agent_failed", failed(failure))),
        AgentEvent::DetachedFailed { name, failure, .. } => {
            Some(("detached_failed", format!("{name}: {}", failed(failure))))
        }
        AgentEvent::Quarantined { reason } => Some(("quarantined", reason.clone())),
        AgentEvent::Started { .. }
        | AgentEvent::EffectIntended { intent: Intent::Model { .. } | Intent::Recall(_), .. }
        | AgentEvent::EffectStarted { .. }
        | AgentEvent::ChildrenSpawned { .. }
        | AgentEvent::ChildEnded { .. }
        | AgentEvent::TimerSet { .. }
        | AgentEvent::TimerFired { .. }
        | AgentEvent::DeadlinePassed
        | AgentEvent::ChildrenCancelled { .. }
        | AgentEvent::Ended { outcome: Outcome::Ok(_), .. }
        | AgentEvent::TakenOver { .. }
        | AgentEvent::WaitBegan { .. }
        | AgentEvent::ScopeExpired { .. }
        | AgentEvent::Interrupted { .. }
        | AgentEvent::MessageSent { .. }
        | AgentEvent::MailTaken { .. }
        | AgentEvent::Detached { .. }
        | AgentEvent::Adopted { .. }
        | AgentEvent::Concluded { .. }
        | AgentEvent::CreditReceived { .. } => None,
    }
}

fn failed(failure: &Failure) -> String {
    failure.to_string()
}

fn shortened(mut text: String) -> String {
    if text.len() > HISTORY_TEXT_BYTES_MAX {
        let end = (0..=HISTORY_TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
