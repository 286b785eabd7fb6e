//! A question to a person, and what became of it.

use minicbor::{Decode, Encode};
use nexa_event::effect::{Answer, Decision};
use nexa_event::fact::{AgentEvent, EffectResult, Intent};
use nexa_types::{AgentId, EffectKey, Failure, GlobalSeq, Seq, TenantId, Timestamp, WorkloadId};

use crate::agent::AgentView;
use crate::fold::Seen;

/// A question to a person.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ApprovalView {
    /// The key of the effect, which is also the approval's id.
    #[n(0)]
    pub key: EffectKey,
    /// Who asks.
    #[n(1)]
    pub agent: AgentId,
    /// The asking agent's name.
    #[n(2)]
    pub agent_name: String,
    /// Its workload.
    #[n(3)]
    pub workload: WorkloadId,
    /// Whose it is.
    #[n(4)]
    pub tenant: TenantId,
    /// The effect's number.
    #[n(5)]
    pub seq: Seq,
    /// What is asked.
    #[n(6)]
    pub question: String,
    /// What it is about, as canonical JSON text.
    #[n(7)]
    pub data: Option<String>,
    /// When it was asked.
    #[n(8)]
    pub asked_at: Timestamp,
    /// When it counts as unanswered.
    #[n(9)]
    pub expires_at: Option<Timestamp>,
    /// What became of it; `None` while it waits.
    #[n(10)]
    pub closed: Option<Closed>,
    /// The position of the question; lists are ordered by it.
    #[n(11)]
    pub asked_seq: GlobalSeq,
    /// The position of the newest fact in it.
    #[n(12)]
    pub applied: GlobalSeq,
}

/// The end of a question.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Closed {
    /// When.
    #[n(0)]
    pub at: Timestamp,
    /// How.
    #[n(1)]
    pub how: Closing,
}

/// How a question ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Closing {
    /// Somebody answered.
    #[n(0)]
    Decided(#[n(0)] Decision),
    /// Nobody answered in time, or it failed otherwise.
    #[n(1)]
    Failed(#[n(0)] Failure),
    /// Its agent ended first.
    #[n(2)]
    Withdrawn,
}

impl ApprovalView {
    /// The view after one more fact of the asking agent, whose own view is `asker`; `None` if it was never asked.
    pub(crate) fn apply(
        before: Option<Self>,
        key: EffectKey,
        event: &AgentEvent,
        asker: &AgentView,
        seen: &Seen<'_>,
    ) -> Option<Self> {
        let at = seen.envelope.header.at;
        let mut view = match (before, event) {
            (Some(view), _) if view.applied >= seen.position || view.closed.is_some() => return Some(view),
            (Some(view), _) => view,
            (None, AgentEvent::EffectIntended { seq, intent: Intent::Approval(request), .. }) => {
                return Some(Self {
                    key,
                    agent: asker.agent,
                    agent_name: asker.name.clone(),
                    workload: asker.workload,
                    tenant: asker.tenant.clone(),
                    seq: *seq,
                    question: request.question.clone(),
                    data: request.data.clone(),
                    asked_at: at,
                    expires_at: request.timeout.map(|timeout| at.after(timeout)),
                    closed: None,
                    asked_seq: seen.position,
                    applied: seen.position,
                });
            }
            (None, _) => return None,
        };
        view.applied = seen.position;
        view.closed = match event {
            AgentEvent::EffectEnded { seq, result, .. } if *seq == view.seq => {
                Some(Closed { at, how: closing(result) })
            }
            // Nobody waits for the answer any more.
            AgentEvent::Ended { .. }
            | AgentEvent::CancelReceived { .. }
            | AgentEvent::DeadlinePassed
            | AgentEvent::ScopeExpired { .. } => Some(Closed { at, how: Closing::Withdrawn }),
            _ => None,
        };
        Some(view)
    }
}

fn closing(result: &EffectResult) -> Closing {
    match result {
        EffectResult::Done(Answer::Approval(decision)) => Closing::Decided(decision.clone()),
        // No other answer fits a question; the agent refuses it before it becomes a fact.
        EffectResult::Done(_) => Closing::Withdrawn,
        EffectResult::Failed(failure) | EffectResult::Unknown(failure) => Closing::Failed(failure.clone()),
    }
}
