//! One agent: who it is, what decides for it, what it waits for, and what it may use.
//!
//! `born` and everything in [`Life`] together are the agent; the brain's own state stands beside them as bytes when the
//! agent is frozen. There is nothing else, so equal parts make agents that go on equally.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use minicbor::{Decode, Encode};
use nexa_event::fact::{AgentEvent, Spawned};
use nexa_types::{
    AgentId, AgentState, Epoch, Failure, Millis, ModuleHash, Outcome, RunCode, Seq, Spend, Timestamp, Version, Waiting,
};
use nexa_vm::vm::Program;

use crate::brain::Brain;
use crate::children::Families;
use crate::conversation::Recollection;
use crate::ledger::{Kind, Pending};
use crate::mailbox::Mailbox;
use crate::meter::Meter;
use crate::replay::Foretold;
use crate::step::End;
use crate::turns::Turns;

/// One agent. See the crate's header for what it does.
#[derive(Debug)]
pub struct Agent {
    pub(crate) id: AgentId,
    pub(crate) born: Spawned,
    pub(crate) brain: Brain,
    pub(crate) life: Life,
    /// The epoch that a cancel raised. Only the end can be appended under it, so it is no part of the life.
    pub(crate) raised: Epoch,
    /// While a replay makes a decision again: what the log says of it.
    pub(crate) foretold: Option<Foretold>,
    /// Decisions that a replay has made again and not yet found in the log.
    pub(crate) expected: VecDeque<AgentEvent>,
    /// While a replay makes a request again of an agent that remembers: which messages were sent.
    pub(crate) foretold_sent: Option<Option<Vec<u32>>>,
    /// The pages of its conversation, once it has outgrown its window. Made anew where the agent comes into memory.
    pub(crate) recollection: Option<Box<Recollection>>,
}

/// What changes in an agent's life but its brain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Life {
    #[n(0)]
    pub(crate) epoch: Epoch,
    #[n(1)]
    pub(crate) version: Version,
    /// When it began to run.
    #[n(2)]
    pub(crate) started: Option<Timestamp>,
    /// The time of the input that the brain computes on: its `now`.
    #[n(3)]
    pub(crate) moment: Timestamp,
    /// Whether the brain has something to do without an input.
    #[n(4)]
    pub(crate) computing: bool,
    #[n(5)]
    pub(crate) pending: Option<Pending>,
    #[n(6)]
    pub(crate) families: Families,
    #[n(7)]
    pub(crate) meter: Meter,
    /// How long people were waited for: no timeout counts it.
    #[n(8)]
    pub(crate) waited: Millis,
    /// Model requests sent again because their owner was lost.
    #[n(9)]
    pub(crate) reissued: u32,
    #[n(10)]
    pub(crate) quarantined: bool,
    #[n(11)]
    pub(crate) end: Option<End>,
    #[n(12)]
    #[cbor(skip_if = "Mailbox::is_untouched")]
    pub(crate) mailbox: Mailbox,
    /// Moments that the program holds a handle of, by the effect that made them.
    #[n(13)]
    #[cbor(skip_if = "BTreeMap::is_empty")]
    pub(crate) timers: BTreeMap<Seq, Timestamp>,
    /// It ends with this at its next effect.
    #[n(14)]
    pub(crate) stopping: Option<Failure>,
    /// It ends, and has until then for what was deferred.
    #[n(15)]
    pub(crate) grace: Option<Timestamp>,
    /// How often branches of other agents were adopted.
    #[n(16)]
    #[cbor(skip_if = "is_default")]
    pub(crate) adoptions: u64,
    /// Its program has ended with this, and it waits for detached branches.
    #[n(17)]
    pub(crate) concluded: Option<Outcome>,
    /// Messages that have become part of its conversation with a model.
    #[n(22)]
    #[cbor(skip_if = "Turns::is_empty")]
    pub(crate) turns: Turns,
    /// The messages of its last request, by their hashes, if it remembers.
    #[n(23)]
    #[cbor(skip_if = "Vec::is_empty")]
    pub(crate) heard: Vec<u64>,
    /// The places of the messages of its last request that are sent, if not all are.
    #[n(24)]
    pub(crate) sent: Option<Vec<u32>>,
    /// Messages of its conversation so far, if it remembers.
    #[n(25)]
    #[cbor(skip_if = "is_default")]
    pub(crate) said: u32,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Why an agent cannot be brought to life here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BirthError {
    /// The module is not the one that the agent was born with.
    #[error("the agent runs module {wanted}, and was given {given}")]
    WrongModule {
        /// The module that its first event names.
        wanted: ModuleHash,
        /// The module at hand.
        given: ModuleHash,
    },
}

impl Agent {
    /// The agent right after its first event, version 1 of its stream. A list takes the module that it was compiled to.
    ///
    /// # Errors
    /// [`BirthError::WrongModule`]. Arguments that do not fit are no error here: the agent ends with a failure once it
    /// is started.
    pub fn born(id: AgentId, spawned: &Spawned, program: Arc<Program>) -> Result<Self, BirthError> {
        check_module(spawned, &program)?;
        let brain = Brain::new(&spawned.program, program);
        let life = Life { version: Version(1), meter: Meter::new(spawned.budget), ..Life::default() };
        Ok(Self::assemble(id, spawned.clone(), brain, life))
    }

    pub(crate) fn assemble(id: AgentId, born: Spawned, brain: Brain, life: Life) -> Self {
        Self {
            id,
            born,
            brain,
            life,
            raised: Epoch::default(),
            foretold: None,
            expected: VecDeque::new(),
            foretold_sent: None,
            recollection: None,
        }
    }

    /// Its id.
    pub fn id(&self) -> AgentId {
        self.id
    }

    /// Its first event.
    pub fn spawned(&self) -> &Spawned {
        &self.born
    }

    /// The epoch under which to append: the highest that it was told of.
    pub fn epoch(&self) -> Epoch {
        self.life.epoch.max(self.raised)
    }

    /// How many events its stream has.
    pub fn version(&self) -> Version {
        self.life.version
    }

    /// What it and its ended children have used so far.
    pub fn spend(&self) -> Spend {
        self.life.meter.spent()
    }

    /// How often a model request was sent again because its owner was lost.
    pub fn reissued_model_calls(&self) -> u32 {
        self.life.reissued
    }

    /// How it ended, if it has.
    pub fn end(&self) -> Option<&End> {
        self.life.end.as_ref()
    }

    /// Whether it would compute without an input, so that a new owner should give `Continue` after `TakeOver`.
    pub fn is_computing(&self) -> bool {
        self.life.computing && !self.life.quarantined && self.life.end.is_none()
    }

    /// How people see it.
    pub fn state(&self) -> AgentState {
        if let Some(end) = &self.life.end {
            return match &end.outcome {
                Outcome::Ok(_) => AgentState::Succeeded,
                Outcome::Err(failure) if failure.code == RunCode::Cancelled => AgentState::Cancelled,
                Outcome::Err(_) => AgentState::Failed,
            };
        }
        if self.life.quarantined {
            return AgentState::Quarantined;
        }
        match &self.life.pending {
            _ if self.life.started.is_none() => AgentState::Placed,
            _ if self.life.computing => AgentState::Running,
            Some(Pending::Outside(outside)) => match outside.kind {
                Kind::Model => AgentState::Waiting(Waiting::Model),
                Kind::Approval => AgentState::Waiting(Waiting::Approval),
                Kind::Tool => AgentState::Waiting(Waiting::Tool),
                // Its node looks at once.
                Kind::Memory => AgentState::Running,
            },
            Some(Pending::Timer { .. }) => AgentState::Waiting(Waiting::Timer),
            // Its harness answers at once.
            Some(Pending::Test { .. }) => AgentState::Running,
            Some(Pending::Message { .. } | Pending::Room { .. }) => AgentState::Waiting(Waiting::Message),
            // A list waits for its children without a wish of its own.
            Some(Pending::Children { .. } | Pending::Ending { .. } | Pending::Budget { .. }) | None => {
                AgentState::Waiting(Waiting::Children)
            }
        }
    }

    /// When it must have ended, people's time not counted. Waiting for a person stops it for this agent; an ancestor's
    /// own deadline goes on.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.born.deadline.map(|deadline| deadline.after(self.life.waited))
    }

    /// When its time is over and by which rule. None while a person is waited for: that time counts for neither.
    pub(crate) fn limit(&self) -> Option<(Timestamp, RunCode)> {
        if let Some(grace) = self.life.grace {
            return Some((grace, RunCode::Cancelled));
        }
        if self.outside().is_some_and(|outside| outside.kind == Kind::Approval) {
            return None;
        }
        let deadline = self.deadline().map(|at| (at, RunCode::Timeout));
        let time = match (self.life.started, self.born.budget.time) {
            (Some(started), Some(time)) => Some((started.after(time).after(self.life.waited), RunCode::BudgetExceeded)),
            _ => None,
        };
        deadline.into_iter().chain(time).min_by_key(|(at, _)| *at)
    }

    /// What is left of its budget of time.
    pub(crate) fn time_left(&self, now: Timestamp) -> Option<Millis> {
        let used = self.life.started.map_or(Millis(0), |started| now.since(started));
        self.born.budget.time.map(|time| time + self.life.waited - used)
    }

    /// When it must be given [`crate::Input::Due`] unless something else comes first.
    pub fn due(&self) -> Option<Timestamp> {
        if self.life.end.is_some() || self.life.quarantined {
            return None;
        }
        let own = match &self.life.pending {
            Some(Pending::Timer { due, .. }) => Some(*due),
            Some(Pending::Message { due, .. }) => *due,
            Some(Pending::Outside(outside)) => outside.expires,
            Some(
                Pending::Children { .. }
                | Pending::Ending { .. }
                | Pending::Room { .. }
                | Pending::Test { .. }
                | Pending::Budget { .. },
            )
            | None => None,
        };
        let scope = self.next_scope().map(|(_, due)| due);
        own.into_iter().chain(self.limit().map(|(at, _)| at)).chain(scope).min()
    }
}

pub(crate) fn check_module(spawned: &Spawned, program: &Program) -> Result<(), BirthError> {
    let (wanted, given) = (spawned.program.module(), program.hash());
    if wanted == given { Ok(()) } else { Err(BirthError::WrongModule { wanted, given }) }
}
