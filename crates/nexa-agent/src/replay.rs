//! Feeds stored events and checks that the same decisions follow from them.
//!
//! An input changes the state as it did then; the brain runs no further than the next decision in the log demands.
//! Between two decisions it was perhaps stopped in mid-slice when the next input came, and where it was stopped is
//! nowhere recorded, nor does anything depend on it.

use nexa_event::fact::{AgentEvent, Intent, WaitOn};
use nexa_types::limits::SLICE_FUEL;
use nexa_types::{Epoch, Seq, Timestamp, Version};

use crate::advance::Misfit;
use crate::agent::Agent;
use crate::describe::describe;
use crate::ledger::Pending;
use crate::step::Draft;

/// How many slices a replay computes for one decision before it says that the decision will never come.
pub const SLICES_PER_DECISION_MAX: u32 = 10_000_000;

/// How far a replay has come with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// The event is taken in.
    Done,
    /// The machine computes and has not come to the event: hand in the same one again.
    More,
}

/// The next decision in the log, as far as it is for the log to say.
///
/// That an agent was stopped at an effect hangs on when it was told to end, so the log says at which. The others are
/// decided again; but logs of earlier builds have none of them, and are read as they were meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foretold {
    /// It stops at this effect.
    Stop(Seq),
    /// It waits at this effect for what ending children leave of the budget.
    Settling(Seq),
    /// Neither.
    Other,
}

impl Foretold {
    fn of(event: &AgentEvent) -> Self {
        match event {
            AgentEvent::Interrupted { seq, .. } => Self::Stop(*seq),
            AgentEvent::WaitBegan { seq, on: WaitOn::Budget, .. } => Self::Settling(*seq),
            _ => Self::Other,
        }
    }
}

/// Which messages of its conversation were sent, if the event is a request of an agent that remembers.
fn sent(event: &AgentEvent) -> Option<Option<Vec<u32>>> {
    match event {
        AgentEvent::EffectIntended { intent: Intent::Model { conversation: Some(of), .. }, .. } => {
            Some(of.sent.clone())
        }
        _ => None,
    }
}

/// Why a stream cannot be continued from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The log has one decision and the machine makes another.
    #[error(
        "at version {version} the log has `{}` and the machine decides `{}`: the program or the machine is not the one that wrote this log",
        describe(recorded),
        decided.as_deref().map_or_else(|| "nothing".to_owned(), describe)
    )]
    DecisionDiffers {
        /// Where.
        version: Version,
        /// What the log has.
        recorded: Box<AgentEvent>,
        /// What follows from the inputs; `None` if nothing does.
        decided: Option<Box<AgentEvent>>,
    },
    /// An input that could not have been recorded in this state.
    #[error("at version {version} the log has `{}`, which does not fit: {why}", describe(recorded))]
    Misfit {
        /// Where.
        version: Version,
        /// What the log has.
        recorded: Box<AgentEvent>,
        /// Why it cannot be.
        why: &'static str,
    },
}

impl Agent {
    /// Takes the next event of its stream, recorded at `at`.
    ///
    /// # Errors
    /// [`ReplayError`]; the agent is of no use afterwards.
    pub fn replay(&mut self, event: &AgentEvent, at: Timestamp) -> Result<(), ReplayError> {
        match self.replay_for(SLICES_PER_DECISION_MAX, event, at)? {
            Replayed::Done => Ok(()),
            Replayed::More => {
                let (version, recorded) = (self.life.version.next(), Box::new(event.clone()));
                Err(ReplayError::DecisionDiffers { version, recorded, decided: None })
            }
        }
    }

    /// The same, but computes at most `slices_max` slices, so that others can have their turn before it goes on.
    ///
    /// # Errors
    /// [`ReplayError`]; the agent is of no use afterwards.
    pub fn replay_for(&mut self, slices_max: u32, event: &AgentEvent, at: Timestamp) -> Result<Replayed, ReplayError> {
        let version = self.life.version.next();
        let misfit = |why| ReplayError::Misfit { version, recorded: Box::new(event.clone()), why };
        if self.end().is_some() && self.expected.is_empty() {
            return Err(misfit("the agent has ended"));
        }
        if event.is_input() {
            if matches!(event, AgentEvent::EffectEnded { .. }) && self.reach_question(slices_max) == Replayed::More {
                return Ok(Replayed::More);
            }
            if let Some(decided) = self.expected.front() {
                let (recorded, decided) = (Box::new(event.clone()), Some(Box::new(decided.clone())));
                return Err(ReplayError::DecisionDiffers { version, recorded, decided });
            }
            let mut draft = Draft::default();
            self.apply(event, at, &mut draft).map_err(|Misfit(why)| misfit(why))?;
            self.expected.extend(draft.facts);
        } else {
            self.foretold = Some(Foretold::of(event));
            self.foretold_sent = sent(event);
            let replayed = self.replay_decision(slices_max, event, version);
            (self.foretold, self.foretold_sent) = (None, None);
            if replayed? == Replayed::More {
                return Ok(Replayed::More);
            }
        }
        self.life.version = version;
        Ok(Replayed::Done)
    }

    /// A question of a test to its harness leaves no decision in the log, only its answer: computes until it is asked.
    /// All else that ends was intended, so nothing computes when its end is read.
    fn reach_question(&mut self, slices_max: u32) -> Replayed {
        let mut slices = 0;
        while self.is_computing() && self.expected.is_empty() {
            if slices == slices_max {
                return Replayed::More;
            }
            let mut draft = Draft::default();
            self.advance(SLICE_FUEL, &mut draft);
            self.expected.extend(draft.facts);
            slices += 1;
        }
        Replayed::Done
    }

    /// A cancel raises the epoch beside the log, which shows it where an agent that cleans up starts something under it.
    fn learn_epoch(&mut self, epoch: Epoch, decided: Option<&mut AgentEvent>) {
        if !self.is_stopping() || epoch <= self.epoch() {
            return;
        }
        self.raised = epoch;
        if let Some(AgentEvent::EffectStarted { epoch: decided, .. }) = decided
            && let Some(Pending::Outside(outside)) = &mut self.life.pending
        {
            *decided = epoch;
            outside.started = Some(epoch);
        }
    }

    fn replay_decision(
        &mut self,
        slices_max: u32,
        event: &AgentEvent,
        version: Version,
    ) -> Result<Replayed, ReplayError> {
        let mut decided = self.expected.pop_front();
        if let AgentEvent::EffectStarted { epoch, .. } = event {
            self.learn_epoch(*epoch, decided.as_mut());
        }
        // The ticket of a model request depends on a sending slot, so it is checked and not foretold.
        if decided.is_none()
            && let AgentEvent::EffectStarted { seq, .. } = event
        {
            decided = self.ticket(*seq);
        }
        let mut slices = 0;
        while decided.is_none() && self.is_computing() {
            if slices == slices_max {
                return Ok(Replayed::More);
            }
            let mut draft = Draft::default();
            self.advance(SLICE_FUEL, &mut draft);
            self.expected.extend(draft.facts);
            decided = self.expected.pop_front();
            slices += 1;
        }
        if decided.as_ref() == Some(event) {
            return Ok(Replayed::Done);
        }
        let (recorded, decided) = (Box::new(event.clone()), decided.map(Box::new));
        Err(ReplayError::DecisionDiffers { version, recorded, decided })
    }
}
