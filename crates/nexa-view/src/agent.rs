//! An agent as people see it.

use minicbor::{Decode, Encode};
use nexa_event::asks::Asks;
use nexa_event::effect::Join;
use nexa_event::fact::{AgentEvent, EffectResult, Intent, Program, WaitOn};
use nexa_types::{
    AgentId, AgentState, Epoch, Failure, GlobalSeq, NodeId, Outcome, PrincipalId, RunCode, Seq, Spend, TenantId,
    Timestamp, Version, Waiting, WorkloadId,
};

use crate::fold::Seen;

/// What an agent waits for, as far as its facts tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Pending {
    /// A model.
    #[n(0)]
    Model {
        /// The effect.
        #[n(0)]
        seq: Seq,
    },
    /// A person.
    #[n(1)]
    Approval {
        /// The effect.
        #[n(0)]
        seq: Seq,
    },
    /// A moment.
    #[n(2)]
    Timer {
        /// The effect.
        #[n(0)]
        seq: Seq,
    },
    /// All children of one effect.
    #[n(3)]
    Children {
        /// The effect.
        #[n(0)]
        seq: Seq,
        /// How many have not ended.
        #[n(1)]
        left: u32,
    },
    /// A message.
    #[n(4)]
    Message {
        /// The wait.
        #[n(0)]
        seq: Seq,
    },
    /// Room for a message in a child's mailbox.
    #[n(5)]
    Room {
        /// The effect that started the child.
        #[n(0)]
        child: Seq,
    },
    /// A tool.
    #[n(6)]
    Tool {
        /// The effect.
        #[n(0)]
        seq: Seq,
    },
    /// Detached branches; its program has ended.
    #[n(7)]
    Detached,
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AgentView {
    /// Its id.
    #[n(0)]
    pub agent: AgentId,
    /// Its workload.
    #[n(1)]
    pub workload: WorkloadId,
    /// Whose it is.
    #[n(2)]
    pub tenant: TenantId,
    /// On whose behalf it runs.
    #[n(3)]
    pub principal: PrincipalId,
    /// The name that people see.
    #[n(4)]
    pub name: String,
    /// Who started it; `None` for a root.
    #[n(5)]
    pub parent: Option<AgentId>,
    /// Where it is in its life.
    #[n(6)]
    pub state: AgentState,
    /// Where it ran last.
    #[n(7)]
    pub node: Option<NodeId>,
    /// The epoch of its newest fact.
    #[n(8)]
    pub epoch: Epoch,
    /// How many facts it has.
    #[n(9)]
    pub version: Version,
    /// What it used by itself; once it has ended, what it and its children used.
    #[n(10)]
    pub spend: Spend,
    /// When it was born.
    #[n(11)]
    pub created_at: Timestamp,
    /// When it began to run for the first time.
    #[n(12)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[n(13)]
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    #[n(14)]
    pub outcome: Option<Outcome>,
    /// The newest failure of one of its effects or children, in one line. It may have gone on since.
    #[n(15)]
    pub last_failure: Option<String>,
    /// What it waits for.
    #[n(16)]
    pub pending: Option<Pending>,
    /// Whether it coordinates a list, and so waits for children whenever it waits.
    #[n(17)]
    pub coordinates: bool,
    /// Why nobody runs it, if so.
    #[n(18)]
    pub quarantined: Option<String>,
    /// The position of its first fact; lists are ordered by it.
    #[n(19)]
    pub born_seq: GlobalSeq,
    /// The position of the newest fact in it.
    #[n(20)]
    pub applied: GlobalSeq,
    /// What it asks of its node, if anything.
    #[n(21)]
    pub asks: Option<Asks>,
}

impl AgentView {
    /// The approval that it waits for.
    pub fn asking(&self) -> Option<Seq> {
        match self.pending {
            Some(Pending::Approval { seq }) => Some(seq),
            _ => None,
        }
    }

    /// The view after one more fact of the agent's stream; `None` as long as it was not born.
    pub(crate) fn apply(before: Option<Self>, agent: AgentId, event: &AgentEvent, seen: &Seen<'_>) -> Option<Self> {
        let mut view = match (before, event) {
            (Some(view), _) if view.applied >= seen.position => return Some(view),
            (Some(view), _) => view,
            (None, AgentEvent::Spawned(spawned)) => Self {
                agent,
                workload: spawned.workload,
                tenant: seen.envelope.header.tenant.clone(),
                principal: seen.envelope.header.principal.clone(),
                name: spawned.name.clone(),
                parent: spawned.parent.map(|parent| parent.agent),
                state: AgentState::Ready,
                node: None,
                epoch: Epoch(0),
                version: Version(0),
                spend: Spend::default(),
                created_at: seen.envelope.header.at,
                started_at: None,
                ended_at: None,
                outcome: None,
                last_failure: None,
                pending: None,
                coordinates: matches!(spawned.program, Program::List { .. }),
                quarantined: None,
                born_seq: seen.position,
                asks: spawned.asks.clone(),
                applied: seen.position,
            },
            (None, _) => return None,
        };
        let header = &seen.envelope.header;
        view.applied = seen.position;
        view.version = header.version;
        view.epoch = header.epoch.unwrap_or(view.epoch);
        view.learn(event, header.at);
        view.state = view.derived_state();
        Some(view)
    }

    fn learn(&mut self, event: &AgentEvent, at: Timestamp) {
        match event {
            AgentEvent::Started { node, .. } => {
                self.node = Some(node.clone());
                self.started_at = self.started_at.or(Some(at));
            }
            AgentEvent::TakenOver { node, .. } => {
                self.node = Some(node.clone());
                self.quarantined = None;
            }
            AgentEvent::EffectIntended { seq, intent, .. } => {
                self.pending = match intent {
                    Intent::Model { .. } => Some(Pending::Model { seq: *seq }),
                    Intent::Approval(_) => Some(Pending::Approval { seq: *seq }),
                    Intent::Tool { .. } => Some(Pending::Tool { seq: *seq }),
                    // Its node looks at once.
                    Intent::Recall(_) => None,
                };
            }
            AgentEvent::EffectEnded { result, spend, .. } => {
                self.spend += *spend;
                self.pending = None;
                if let EffectResult::Failed(failure) | EffectResult::Unknown(failure) = result {
                    self.last_failure = Some(one_line(failure));
                }
            }
            AgentEvent::ChildrenSpawned { seq, join: Join::All | Join::FirstOk(_), children } => {
                let left = children.len() as u32;
                self.pending = (left > 0).then_some(Pending::Children { seq: *seq, left });
            }
            AgentEvent::ChildEnded { seq, outcome, .. } => {
                match self.pending {
                    Some(Pending::Children { seq: waited, left }) if waited == *seq => {
                        self.pending =
                            (left > 1).then_some(Pending::Children { seq: waited, left: left.saturating_sub(1) });
                    }
                    Some(Pending::Room { child }) if child == *seq => self.pending = None,
                    _ => {}
                }
                if let Outcome::Err(failure) = outcome {
                    self.last_failure = Some(one_line(failure));
                }
            }
            AgentEvent::TimerSet { seq, .. } => self.pending = Some(Pending::Timer { seq: *seq }),
            AgentEvent::EffectLost { seq } => {
                self.pending = None;
                self.last_failure =
                    Some(format!("outcome_unknown: effect #{seq} was in flight when its owner was lost"));
            }
            AgentEvent::WaitBegan { seq, on, .. } => {
                self.pending = Some(match on {
                    WaitOn::Child(child) => Pending::Children { seq: *child, left: 1 },
                    WaitOn::Timer => Pending::Timer { seq: *seq },
                    WaitOn::Message => Pending::Message { seq: *seq },
                    WaitOn::Room(child) => Pending::Room { child: *child },
                    WaitOn::Budget => Pending::Children { seq: *seq, left: 0 },
                });
            }
            // What it waited for is given up, or has come.
            AgentEvent::TimerFired { .. }
            | AgentEvent::MessageSent { .. }
            | AgentEvent::ScopeExpired { .. }
            | AgentEvent::CancelReceived { .. }
            | AgentEvent::DeadlinePassed
            | AgentEvent::Interrupted { .. } => self.pending = None,
            // Enough of those that it waited for have ended.
            AgentEvent::ChildrenCancelled { .. } => {
                if matches!(self.pending, Some(Pending::Children { .. })) {
                    self.pending = None;
                }
            }
            AgentEvent::MessageReceived { .. } => {
                if matches!(self.pending, Some(Pending::Message { .. })) {
                    self.pending = None;
                }
            }
            AgentEvent::Concluded { .. } => self.pending = Some(Pending::Detached),
            AgentEvent::DetachedFailed { failure, .. } => self.last_failure = Some(one_line(failure)),
            AgentEvent::Quarantined { reason } => self.quarantined = Some(reason.clone()),
            AgentEvent::Ended { outcome, spend } => {
                self.spend = *spend;
                self.pending = None;
                self.ended_at = Some(at);
                self.outcome = Some(outcome.clone());
            }
            // It may have waited for what others left of the budget.
            AgentEvent::ChildrenSpawned { join: Join::Handle, .. } => self.pending = None,
            AgentEvent::Spawned(_)
            | AgentEvent::EffectStarted { .. }
            | AgentEvent::ChildrenSpawned { join: Join::None | Join::Detached, .. }
            | AgentEvent::Detached { .. }
            | AgentEvent::Adopted { .. }
            | AgentEvent::Emitted { .. }
            | AgentEvent::MailTaken { .. }
            | AgentEvent::CreditReceived { .. }
            | AgentEvent::MemoryStored { .. } => {}
        }
    }

    fn derived_state(&self) -> AgentState {
        match &self.outcome {
            Some(Outcome::Ok(_)) => return AgentState::Succeeded,
            Some(Outcome::Err(failure)) if failure.code == RunCode::Cancelled => return AgentState::Cancelled,
            Some(Outcome::Err(_)) => return AgentState::Failed,
            None => {}
        }
        if self.quarantined.is_some() {
            return AgentState::Quarantined;
        }
        if self.started_at.is_none() {
            // Epoch 0 is the right of nobody: it was born without a node.
            return if self.epoch == Epoch(0) { AgentState::Ready } else { AgentState::Placed };
        }
        match self.pending {
            Some(Pending::Model { .. }) => AgentState::Waiting(Waiting::Model),
            Some(Pending::Approval { .. }) => AgentState::Waiting(Waiting::Approval),
            Some(Pending::Timer { .. }) => AgentState::Waiting(Waiting::Timer),
            Some(Pending::Tool { .. }) => AgentState::Waiting(Waiting::Tool),
            Some(Pending::Children { .. } | Pending::Detached) => AgentState::Waiting(Waiting::Children),
            Some(Pending::Message { .. } | Pending::Room { .. }) => AgentState::Waiting(Waiting::Message),
            None if self.coordinates => AgentState::Waiting(Waiting::Children),
            None => AgentState::Running,
        }
    }
}

/// A failure for a list: its first line, at most 200 characters.
fn one_line(failure: &Failure) -> String {
    let text = failure.to_string();
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}
