//! The ledger: what the brain waits for, and the rules by which it is sent, answered, sent again or given up.
//!
//!   intended   with the step's facts; a new owner sends it
//!   started    the ticket, recorded before sending; a new owner sends again under the same key, with the next attempt
//!   ended      with the first answer to arrive, of whichever attempt; later ones change nothing
//!
//! The key is the same for every attempt, so whoever answers can tell a second sending from a second request; that is
//! why sending again takes no second reserve, and a run's result does not depend on which nodes were lost. A brain
//! waits for one thing at a time, so all that came before it has ended.
//!
//! An effect whose agent moves while it is in flight may be *carried*: the node that sent it waits for its answer and
//! hands that over. Then it stays started under the epoch it was sent under, and is not sent again unless its carrier is
//! gone; what happens then is as with any owner that is lost.
//!
//! A call of a tool that changes something and is not idempotent is sent once. When its owner is lost while it is in
//! flight, its outcome is unknown, and the program sees `outcome_unknown`; what the tool's `on_unknown` says then is code
//! of the program. A call that changes something and is idempotent is sent again; if that is refused, its outcome is
//! unknown as well, because the sending before may have done it.

use minicbor::{Decode, Encode};
use nexa_event::effect::{Answer, EffectBody, RecallRequest, TestRequest, ToolEffect};
use nexa_event::fact::{self, AgentEvent, EffectResult};
use nexa_types::planted::{Bug, planted};
use nexa_types::{EffectKey, Epoch, Failure, RunCode, Seq, Spend, Timestamp};

use crate::agent::Agent;
use crate::invariant;
use crate::step::{Draft, Input, OutsideEffect};

/// What the brain waits for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Pending {
    /// A model, a person or a tool.
    #[n(0)]
    Outside(#[n(0)] Outside),
    /// A moment.
    #[n(1)]
    Timer {
        #[n(0)]
        seq: Seq,
        #[n(1)]
        due: Timestamp,
    },
    /// The children that this effect started.
    #[n(2)]
    Children {
        #[n(0)]
        seq: Seq,
    },
    /// The harness of the test that it is.
    #[n(7)]
    Test {
        #[n(0)]
        seq: Seq,
    },
    /// The end of a child that has a handle.
    #[n(3)]
    Ending {
        #[n(0)]
        seq: Seq,
        /// The effect that started it.
        #[n(1)]
        child: Seq,
    },
    /// A message.
    #[n(4)]
    Message {
        #[n(0)]
        seq: Seq,
        #[n(1)]
        due: Option<Timestamp>,
    },
    /// Room for a message in a child's mailbox. The message itself stands in the brain's request.
    #[n(5)]
    Room {
        #[n(0)]
        seq: Seq,
        /// The effect that started the child.
        #[n(1)]
        child: Seq,
    },
    /// What children that end have left of the budget. The request itself stands in the brain.
    #[n(6)]
    Budget {
        #[n(0)]
        seq: Seq,
    },
}

/// An outside effect that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Outside {
    #[n(0)]
    pub(crate) seq: Seq,
    #[n(1)]
    pub(crate) kind: Kind,
    /// Held until the answer.
    #[n(2)]
    pub(crate) reserved: Spend,
    /// How often it was started.
    #[n(3)]
    pub(crate) attempt: u32,
    /// The epoch it was started under; `None` while it waits for a sending slot.
    #[n(4)]
    pub(crate) started: Option<Epoch>,
    /// When it was wanted.
    #[n(5)]
    pub(crate) since: Timestamp,
    /// When a question counts as unanswered.
    #[n(6)]
    pub(crate) expires: Option<Timestamp>,
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(crate) enum Kind {
    /// A model: may be asked again under the same key.
    #[n(0)]
    Model,
    /// A person: the question stays asked, whoever owns the agent.
    #[n(1)]
    Approval,
    /// A memory beyond the agent: looked into as soon as the question is recorded, and again whenever it gets lost.
    #[n(3)]
    Memory,
    /// A tool: whether it may be called again under the same key, its declaration says.
    #[n(2)]
    Tool,
}

impl Kind {
    /// Whether an answer is one to such a question.
    fn fits(self, result: &EffectResult) -> bool {
        match result {
            EffectResult::Done(answer) => {
                matches!(
                    (self, answer),
                    (Self::Model, Answer::Model(_))
                        | (Self::Approval, Answer::Approval(_))
                        | (Self::Memory, Answer::Memory(_))
                        | (Self::Tool, Answer::Value(_))
                )
            }
            EffectResult::Failed(_) | EffectResult::Unknown(_) => true,
        }
    }
}

impl Agent {
    /// The key of one of its effects.
    pub fn effect_key(&self, seq: Seq) -> EffectKey {
        EffectKey::of(self.spawned().workload, self.id(), seq)
    }

    /// The outside effect that waits for a sending slot, with its deadline as of `now`.
    pub fn wish(&self, now: Timestamp) -> Option<OutsideEffect> {
        match self.outside()? {
            outside if outside.started.is_none() => self.outside_effect(outside, outside.attempt + 1, now),
            _ => None,
        }
    }

    /// The model request or tool call that was started and has not ended, for a dispatcher that lost it.
    pub fn in_flight(&self, now: Timestamp) -> Option<OutsideEffect> {
        match self.outside()? {
            outside if outside.started.is_some() => self.outside_effect(outside, outside.attempt, now),
            _ => None,
        }
    }

    /// Which model request or tool call was started and has not ended: its key, its attempt, and the epoch under which
    /// it was started. An owner under a later epoch did not send it.
    pub fn sent(&self) -> Option<(EffectKey, u32, Epoch)> {
        let outside = self.outside().filter(|outside| matches!(outside.kind, Kind::Model | Kind::Tool))?;
        Some((self.effect_key(outside.seq), outside.attempt, outside.started?))
    }

    /// Whether an attempt of an effect is later than all that is known here: another owner has gone on with the agent since.
    pub fn is_ahead(&self, seq: Seq, attempt: u32) -> bool {
        match self.outside() {
            Some(outside) if outside.seq == seq => attempt > outside.attempt,
            _ => self.brain.next().is_some_and(|next| seq >= next),
        }
    }

    /// The look into a memory that waits for its answer, and its attempt.
    pub fn recall(&self) -> Option<(Seq, u32, RecallRequest)> {
        let outside = self.outside().filter(|outside| outside.kind == Kind::Memory && outside.started.is_some())?;
        match self.brain.pending()?.body {
            EffectBody::Recall(request) => Some((outside.seq, outside.attempt, request)),
            _ => None,
        }
    }

    fn outside_effect(&self, outside: &Outside, attempt: u32, now: Timestamp) -> Option<OutsideEffect> {
        let mut body = self.brain.pending()?.body;
        if let EffectBody::Model(request) = &mut body {
            self.life.turns.join(request);
            self.keep_sent(request);
        }
        let timeout = match &body {
            EffectBody::Model(request) => request.timeout,
            EffectBody::Tool(request) => request.timeout,
            _ => return None,
        };
        let own = now.after(timeout);
        let deadline = self.deadline().map_or(own, |deadline| own.min(deadline));
        Some(OutsideEffect { seq: outside.seq, key: self.effect_key(outside.seq), attempt, body, deadline })
    }

    /// What it asks the harness of the test that it is. Answered by [`Input::EffectEnded`] with an answer to attempt 0,
    /// which is recorded like any other, so a replay needs no harness.
    pub fn test_request(&self) -> Option<(Seq, TestRequest)> {
        match (&self.life.pending, self.brain.pending()?.body) {
            (Some(Pending::Test { seq }), EffectBody::Test(request)) => Some((*seq, request)),
            _ => None,
        }
    }

    /// The ticket to send an effect that was wished for: record the event, then send. `None` if that effect does not
    /// wait for a slot, because it was started, answered or given up meanwhile.
    pub fn start_effect(&mut self, seq: Seq) -> Option<AgentEvent> {
        let event = self.ticket(seq)?;
        self.life.version = self.life.version.next();
        Some(event)
    }

    /// Starts an effect without counting the event.
    pub(crate) fn ticket(&mut self, seq: Seq) -> Option<AgentEvent> {
        let epoch = self.epoch();
        let Some(Pending::Outside(outside)) = &mut self.life.pending else { return None };
        if outside.seq != seq || outside.started.is_some() {
            return None;
        }
        let attempt = if planted(Bug::AttemptNotCounted) { 1 } else { outside.attempt + 1 };
        outside.attempt = attempt;
        outside.started = Some(epoch);
        let is_model = outside.kind == Kind::Model;
        self.life.reissued += u32::from(attempt > 1 && is_model);
        invariant!(AG1, self.life.end.is_none() && epoch >= self.life.epoch);
        Some(AgentEvent::EffectStarted { seq, attempt, epoch })
    }

    pub(crate) fn outside(&self) -> Option<&Outside> {
        match &self.life.pending {
            Some(Pending::Outside(outside)) => Some(outside),
            _ => None,
        }
    }

    /// Whether an inbox entry is dealt with by a step now, or must stay where it is.
    pub(crate) fn takes_inbox(&self, input: &Input) -> bool {
        let is_cancel = matches!(input, Input::Inbox(_, fact::Input::Cancel { .. }));
        self.end().is_none() && (!self.life.quarantined || is_cancel)
    }

    /// The event by which an input is recorded; `None` if it means nothing any more. Takes over what is no event: a
    /// raised epoch, and an in-flight sending that an earlier one has beaten.
    pub(crate) fn admit(&mut self, input: Input, now: Timestamp, draft: &mut Draft) -> Option<AgentEvent> {
        if self.end().is_some() {
            return None;
        }
        match input {
            Input::Start { epoch, .. } | Input::TakeOver { epoch, .. } if epoch < self.life.epoch => None,
            Input::Start { node, epoch } => Some(match self.life.started {
                None => AgentEvent::Started { node, epoch },
                Some(_) => AgentEvent::TakenOver { node, epoch, carried: None },
            }),
            Input::TakeOver { node, epoch, carried } => Some(match self.life.started {
                None => AgentEvent::Started { node, epoch },
                Some(_) => AgentEvent::TakenOver { node, epoch, carried },
            }),
            Input::Inbox(_, fact::Input::Cancel { reason, epoch }) => {
                self.raised = epoch.max(self.raised);
                (!self.is_stopping()).then_some(AgentEvent::CancelReceived { reason })
            }
            _ if self.life.quarantined => None,
            Input::Inbox(_, fact::Input::ChildEnded { seq, branch, outcome, spend, handed_over }) => {
                let known = self.life.families.is_unfinished(seq, branch);
                // Decided here and recorded: a replay does not know yet of what was let go of meanwhile.
                let outcome = self.life.families.kept(seq, outcome);
                known.then_some(AgentEvent::ChildEnded { seq, branch, outcome, spend, handed_over })
            }
            Input::Inbox(_, fact::Input::Answered { seq, key, result }) => {
                let outside = self.outside()?;
                let wanted = outside.seq == seq
                    && outside.kind == Kind::Approval
                    && key == self.effect_key(seq)
                    && outside.kind.fits(&result);
                wanted.then(|| AgentEvent::EffectEnded { seq, result, spend: Spend::default() })
            }
            Input::Inbox(input, fact::Input::Message { from, value }) => {
                Some(AgentEvent::MessageReceived { input, from, value, number: None })
            }
            Input::Inbox(input, fact::Input::Passed { number, value }) => {
                let from = self.spawned().parent.map(|parent| parent.agent.to_string()).unwrap_or_default();
                let is_next = number == self.life.mailbox.received() + 1;
                is_next.then_some(AgentEvent::MessageReceived { input, from, value, number: Some(number) })
            }
            Input::Inbox(_, fact::Input::Detached { from, depth, branches }) => {
                self.is_root().then_some(AgentEvent::Adopted { from, depth, branches })
            }
            Input::Inbox(_, fact::Input::Credit { seq, branch, taken }) => {
                let is_news = self.life.families.taken_of(seq, branch).is_some_and(|known| known < taken);
                is_news.then_some(AgentEvent::CreditReceived { seq, branch, taken })
            }
            Input::EffectEnded { seq, attempt, result, spend } => self.admit_answer(seq, attempt, result, spend, draft),
            Input::Due => self.whats_due(now),
            Input::Continue => None,
            Input::Quarantine { reason } => Some(AgentEvent::Quarantined { reason }),
        }
    }

    fn admit_answer(
        &self,
        seq: Seq,
        attempt: u32,
        result: EffectResult,
        spend: Spend,
        draft: &mut Draft,
    ) -> Option<AgentEvent> {
        if matches!(self.life.pending, Some(Pending::Test { seq: asked }) if asked == seq) {
            return Some(AgentEvent::EffectEnded { seq, result, spend });
        }
        let outside = self.outside()?;
        let was_sent = (1..=outside.attempt).contains(&attempt);
        if outside.seq != seq || outside.kind == Kind::Approval || !was_sent {
            return None;
        }
        if attempt < outside.attempt && outside.started.is_some() {
            draft.abandoned.push(self.effect_key(seq));
        }
        let result = if outside.kind.fits(&result) {
            result
        } else {
            let message = "the dispatcher gave an answer to another kind of question";
            EffectResult::Failed(Failure::new(RunCode::Unavailable, message))
        };
        let result = match result {
            EffectResult::Failed(refusal) if self.was_perhaps_done(outside) => EffectResult::Unknown(refusal),
            result => result,
        };
        Some(AgentEvent::EffectEnded { seq, result, spend })
    }

    /// Whether an earlier sending of a call that changes something may have done it: nobody heard what came of that.
    fn was_perhaps_done(&self, outside: &Outside) -> bool {
        let changes_something = || {
            let request = self.brain.pending().map(|request| request.body);
            matches!(request, Some(EffectBody::Tool(request)) if request.effect == ToolEffect::Write)
        };
        outside.kind == Kind::Tool && outside.attempt > 1 && changes_something()
    }

    /// The deadline comes first: when a node was away for long, all may have passed.
    fn whats_due(&self, now: Timestamp) -> Option<AgentEvent> {
        if self.limit().is_some_and(|(limit, _)| limit <= now) {
            return Some(AgentEvent::DeadlinePassed);
        }
        let own = match &self.life.pending {
            Some(Pending::Timer { due, .. } | Pending::Message { due: Some(due), .. }) => Some(*due),
            _ => None,
        };
        // A scope ends before what would end together with it.
        if self.next_scope().is_some_and(|(_, due)| own.is_none_or(|own| due <= own))
            && let Some(event) = self.scope_is_over(now)
        {
            return Some(event);
        }
        match &self.life.pending {
            Some(Pending::Timer { seq, due } | Pending::Message { seq, due: Some(due) }) if *due <= now => {
                Some(AgentEvent::TimerFired { seq: *seq })
            }
            Some(Pending::Outside(Outside { seq, expires: Some(expires), .. })) if *expires <= now => {
                let failure = Failure::new(RunCode::ApprovalTimeout, "nobody answered the approval in time");
                let result = EffectResult::Failed(failure);
                Some(AgentEvent::EffectEnded { seq: *seq, result, spend: Spend::default() })
            }
            _ => None,
        }
    }

    /// An outside effect has ended: settles its reserve and hands the brain its answer. False if none was waited for.
    pub(crate) fn end_effect(&mut self, seq: Seq, result: &EffectResult, spend: &Spend, at: Timestamp) -> bool {
        if matches!(self.life.pending, Some(Pending::Test { seq: asked }) if asked == seq) {
            self.resume(seq, answer_of(result), at);
            return true;
        }
        let Some(outside) = self.outside().filter(|outside| outside.seq == seq && outside.attempt > 0).cloned() else {
            return false;
        };
        if outside.kind == Kind::Approval {
            self.life.waited += at.since(outside.since);
        }
        self.life.meter.settle(&outside.reserved, Some(spend));
        self.resume(seq, answer_of(result), at);
        true
    }

    /// A new owner deals with what was in flight: a model is asked again, a question stays asked, a memory is looked into
    /// again by itself, a tool is called again if that changes nothing or is as good as once. Any other call of a tool
    /// counts as ended, and nobody can say how.
    pub(crate) fn take_over_pending(&mut self, at: Timestamp, draft: &mut Draft) {
        let Some(outside) = self.outside().filter(|outside| outside.started.is_some()) else { return };
        let (seq, kind) = (outside.seq, outside.kind);
        let is_sent_again = match kind {
            Kind::Model => true,
            Kind::Approval | Kind::Memory => return,
            Kind::Tool => match self.brain.pending().map(|request| request.body) {
                Some(EffectBody::Tool(request)) => request.may_be_repeated() || planted(Bug::ToolAgain),
                _ => false,
            },
        };
        if is_sent_again {
            if let Some(Pending::Outside(outside)) = &mut self.life.pending {
                outside.started = None;
            }
            return;
        }
        draft.facts.push(AgentEvent::EffectLost { seq });
        let message = "the tool was called, and its owner was lost before the answer came: it may have done its work";
        let lost = EffectResult::Unknown(Failure::new(RunCode::OutcomeUnknown, message));
        self.end_effect(seq, &lost, &Spend::default(), at);
    }

    /// Gives up what is pending because the agent ends. A request in flight is billed at its worst case: nobody will
    /// hear what it used, and the parent's cap must hold all the same.
    pub(crate) fn give_up_pending(&mut self, draft: &mut Draft) {
        if let Some(Pending::Outside(outside)) = self.life.pending.take() {
            let sent = outside.attempt > 0;
            let bill = (sent && outside.kind == Kind::Model).then_some(outside.reserved);
            self.life.meter.settle(&outside.reserved, bill.as_ref());
            if sent {
                draft.abandoned.push(self.effect_key(outside.seq));
            }
        }
    }
}

/// What the program sees of how an effect ended.
fn answer_of(result: &EffectResult) -> Result<Answer, Failure> {
    match result {
        EffectResult::Done(answer) => Ok(answer.clone()),
        EffectResult::Failed(failure) => Err(failure.clone()),
        EffectResult::Unknown(failure) if planted(Bug::UnknownIsFailed) => {
            Err(Failure::new(RunCode::Unavailable, failure.message.clone()))
        }
        EffectResult::Unknown(failure) => Err(unknown(failure)),
    }
}

/// What the program sees when nobody can say how an effect ended.
fn unknown(failure: &Failure) -> Failure {
    if failure.code == RunCode::OutcomeUnknown {
        return failure.clone();
    }
    let mut seen = Failure::new(RunCode::OutcomeUnknown, "the call was sent and nobody can say how it ended");
    seen.cause = Some(Box::new(failure.clone()));
    seen
}
