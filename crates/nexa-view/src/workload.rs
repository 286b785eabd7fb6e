//! A workload as people see it.

use minicbor::{Decode, Encode};
use nexa_event::envelope::Fact;
use nexa_event::fact::{AgentEvent, WorkloadEvent};
use nexa_types::{
    AgentId, Budget, GlobalSeq, Outcome, PrincipalId, RunCode, Spend, StreamId, TenantId, Timestamp, WorkloadId,
    WorkloadState,
};

use crate::fold::Seen;

/// A workload.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct WorkloadView {
    /// Its id.
    #[n(0)]
    pub workload: WorkloadId,
    /// Whose it is.
    #[n(1)]
    pub tenant: TenantId,
    /// On whose behalf it runs.
    #[n(2)]
    pub principal: PrincipalId,
    /// The name that people see.
    #[n(3)]
    pub name: String,
    /// Where it is in its life.
    #[n(4)]
    pub state: WorkloadState,
    /// Its root agent.
    #[n(5)]
    pub root: AgentId,
    /// Its caps.
    #[n(6)]
    pub budget: Budget,
    /// 0 to 255, higher first.
    #[n(7)]
    pub priority: u8,
    /// What its agents have used so far.
    #[n(8)]
    pub spend: Spend,
    /// How many agents it has, ended ones too.
    #[n(9)]
    pub agents: u64,
    /// How many of them have ended.
    #[n(10)]
    pub agents_ended: u64,
    /// When it was accepted.
    #[n(11)]
    pub submitted_at: Timestamp,
    /// When it ended.
    #[n(12)]
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    #[n(13)]
    pub outcome: Option<Outcome>,
    /// Whether somebody wants it to end.
    #[n(14)]
    pub cancel_requested: bool,
    /// The position of the fact that made it; lists are ordered by it.
    #[n(15)]
    pub submitted_seq: GlobalSeq,
    /// The position of the newest fact in it.
    #[n(16)]
    pub applied: GlobalSeq,
}

impl WorkloadView {
    /// The view after one more fact of the workload or of one of its agents; `None` as long as it was not submitted.
    pub(crate) fn apply(before: Option<Self>, workload: WorkloadId, seen: &Seen<'_>) -> Option<Self> {
        let header = &seen.envelope.header;
        let mut view = match (before, &seen.envelope.fact) {
            (Some(view), _) if view.applied >= seen.position => return Some(view),
            (Some(view), _) => view,
            (None, Fact::Workload(WorkloadEvent::Submitted { name, root, budget, priority, .. })) => {
                return Some(Self {
                    workload,
                    tenant: header.tenant.clone(),
                    principal: header.principal.clone(),
                    name: name.clone(),
                    state: WorkloadState::Submitted,
                    root: *root,
                    budget: *budget,
                    priority: *priority,
                    spend: Spend::default(),
                    agents: 0,
                    agents_ended: 0,
                    submitted_at: header.at,
                    ended_at: None,
                    outcome: None,
                    cancel_requested: false,
                    submitted_seq: seen.position,
                    applied: seen.position,
                });
            }
            (None, _) => return None,
        };
        view.applied = seen.position;
        match (&header.stream, &seen.envelope.fact) {
            (StreamId::Agent(agent), Fact::Agent(event)) => view.learn_from_agent(*agent, event),
            (_, Fact::Workload(event)) => view.learn(event, header.at),
            _ => {}
        }
        Some(view)
    }

    fn learn_from_agent(&mut self, agent: AgentId, event: &AgentEvent) {
        match event {
            AgentEvent::Spawned(_) => self.agents += 1,
            AgentEvent::Ended { .. } => self.agents_ended += 1,
            AgentEvent::EffectEnded { spend, .. } if self.ended_at.is_none() => self.spend += *spend,
            AgentEvent::Started { .. } if agent == self.root && self.state == WorkloadState::Submitted => {
                self.state = WorkloadState::Running;
            }
            _ => {}
        }
    }

    fn learn(&mut self, event: &WorkloadEvent, at: Timestamp) {
        match event {
            WorkloadEvent::Submitted { .. } => {}
            WorkloadEvent::CancelRequested { .. } => self.cancel_requested = true,
            WorkloadEvent::Ended { outcome, spend } => {
                self.state = match outcome {
                    Outcome::Ok(_) => WorkloadState::Succeeded,
                    Outcome::Err(failure) if failure.code == RunCode::Cancelled => WorkloadState::Cancelled,
                    Outcome::Err(_) => WorkloadState::Failed,
                };
                self.ended_at = Some(at);
                self.outcome = Some(outcome.clone());
                self.spend = *spend;
            }
        }
    }
}
