//! What a program does with the handles of what it started: waits for it, passes it messages, ends it, forgets it.
//!
//! A handle is of use to the agent that started the child, and until the call that started it has ended; after that it
//! is dead. Where a wish is answered at once, nothing is recorded but what it changes outside: a replay, which hands
//! out inputs before it computes, never knows less than life did. Where it has to wait, that is recorded.

use nexa_event::effect::{Answer, EffectBody, Handle, Join};
use nexa_event::fact::{self, AgentEvent, WaitOn};
use nexa_types::limits::{HANDLES_MAX, KEPT_RESULTS_BYTES_MAX};
use nexa_types::{AgentId, Epoch, Failure, InputId, Millis, Outcome, Payload, RunCode, Seq, Timestamp};

use crate::agent::Agent;
use crate::children::{Families, cancelled_by_parent};
use crate::ledger::Pending;
use crate::step::Draft;

/// What a handle stands for now.
pub(crate) enum Standing {
    /// A child that runs.
    Running(AgentId),
    /// A child that was told to end and has not.
    Ending,
    /// A child that has ended.
    Ended(Outcome),
    /// A moment.
    Moment(Timestamp),
    /// Nothing any more, or something of another agent.
    Dead,
}

impl Families {
    /// The ending of a child as it is recorded: one whose handle is held has room beside the others, or fails.
    pub(crate) fn kept(&self, seq: Seq, outcome: Outcome) -> Outcome {
        let is_held = self.held(seq).is_some();
        let fits = || self.kept_bytes() + outcome_bytes(&outcome) <= KEPT_RESULTS_BYTES_MAX;
        if !is_held || fits() { outcome } else { Outcome::Err(too_much_kept()) }
    }

    /// Bytes of the endings that are kept for handles.
    fn kept_bytes(&self) -> usize {
        let held = self.0.values().filter(|family| family.join == Join::Handle);
        let outcomes = held.flat_map(|family| &family.children).filter_map(|child| child.outcome.as_ref());
        outcomes.map(outcome_bytes).sum()
    }
}

impl Agent {
    fn standing(&self, handle: Handle) -> Standing {
        match handle.agent {
            None => self.life.timers.get(&handle.seq).map_or(Standing::Dead, |due| Standing::Moment(*due)),
            Some(agent) => self.life.families.standing(handle.seq, agent),
        }
    }

    /// Why no further handle may be made, if so.
    pub(crate) fn too_many_handles(&self) -> Option<Failure> {
        let held = self.life.timers.len() + self.life.families.handles();
        (held >= HANDLES_MAX).then(|| {
            let message = format!(
                "an agent holds at most {HANDLES_MAX} handles at a time: start children and timers in flows of their \
                 own, whose end lets go of them"
            );
            Failure::new(RunCode::Failed, message)
        })
    }

    pub(crate) fn set_timer(&mut self, seq: Seq, span: Millis) {
        let moment = self.life.moment;
        let answer = match self.too_many_handles() {
            Some(failure) => Err(failure),
            None => {
                self.life.timers.insert(seq, moment.after(span));
                Ok(Answer::Done)
            }
        };
        self.resume(seq, answer, moment);
    }

    pub(crate) fn await_handle(&mut self, seq: Seq, handle: Handle, draft: &mut Draft) {
        let moment = self.life.moment;
        match self.standing(handle) {
            Standing::Ended(outcome) => self.resume(seq, ending(outcome), moment),
            Standing::Running(_) | Standing::Ending => {
                let child = handle.seq;
                self.begin_wait(seq, WaitOn::Child(child), None, Pending::Ending { seq, child }, draft);
            }
            Standing::Moment(due) if due <= moment => self.resume(seq, Ok(Answer::Done), moment),
            Standing::Moment(due) => {
                self.begin_wait(seq, WaitOn::Timer, Some(due), Pending::Timer { seq, due }, draft);
            }
            Standing::Dead => self.resume(seq, Err(dead()), moment),
        }
    }

    pub(crate) fn begin_wait(
        &mut self,
        seq: Seq,
        on: WaitOn,
        due: Option<Timestamp>,
        pending: Pending,
        draft: &mut Draft,
    ) {
        draft.facts.push(AgentEvent::WaitBegan { seq, on, due });
        self.wait(pending, draft);
    }

    pub(crate) fn receive(&mut self, seq: Seq, timeout: Option<Millis>, draft: &mut Draft) {
        let moment = self.life.moment;
        match self.life.mailbox.take() {
            Some((value, is_from_outside)) => {
                if is_from_outside {
                    draft.facts.push(AgentEvent::MailTaken { seq, count: 1 });
                }
                self.resume(seq, Ok(Answer::Message(value)), moment);
            }
            None => {
                let due = timeout.map(|timeout| moment.after(timeout));
                self.begin_wait(seq, WaitOn::Message, due, Pending::Message { seq, due }, draft);
            }
        }
    }

    /// A message has come.
    pub(crate) fn take_in(&mut self, value: &Payload, number: Option<u64>, at: Timestamp, draft: &mut Draft) {
        if !self.brain.reads_mail() {
            return;
        }
        if !self.life.mailbox.put(value, number) {
            draft
                .logs
                .push("a message from outside was not delivered: 1,024 others, or 16 MiB, are not read".to_owned());
            return;
        }
        match &self.life.pending {
            Some(Pending::Message { seq, .. }) => {
                let seq = *seq;
                if let Some((value, _)) = self.life.mailbox.take() {
                    self.resume(seq, Ok(Answer::Message(value)), at);
                }
            }
            Some(_) => self.tell_what_was_read(draft),
            None => {}
        }
    }

    pub(crate) fn pass(&mut self, seq: Seq, to: Handle, value: Payload, draft: &mut Draft) {
        let moment = self.life.moment;
        match self.standing(to) {
            Standing::Running(child) if self.life.families.has_room(to.seq) => {
                self.send(seq, to.seq, child, value, moment, draft);
            }
            Standing::Running(_) => {
                let child = to.seq;
                self.begin_wait(seq, WaitOn::Room(child), None, Pending::Room { seq, child }, draft);
            }
            Standing::Moment(_) => {
                let failure = Failure::new(RunCode::DeadHandle, "a timer takes no messages");
                self.resume(seq, Err(failure), moment);
            }
            Standing::Ending | Standing::Ended(_) | Standing::Dead => self.resume(seq, Err(dead()), moment),
        }
    }

    fn send(&mut self, seq: Seq, family: Seq, child: AgentId, value: Payload, at: Timestamp, draft: &mut Draft) {
        draft.bytes += value.len();
        let number = self.life.families.count_message(family, value.len());
        draft.facts.push(AgentEvent::MessageSent { seq, to: child, number });
        draft.posts.push((child, InputId::passed(child, number), fact::Input::Passed { number, value }));
        self.resume(seq, Ok(Answer::Done), at);
    }

    /// A child has read messages: what waits for room goes out.
    pub(crate) fn credit(&mut self, family: Seq, branch: u32, taken: u64, at: Timestamp, draft: &mut Draft) -> bool {
        if !self.life.families.note_taken(family, branch, taken) {
            return false;
        }
        if let Some(Pending::Room { seq, child }) = self.life.pending
            && child == family
            && self.life.families.has_room(family)
            && let Some(EffectBody::Send { to, value }) = self.brain.pending().map(|request| request.body)
            && let Some(agent) = to.agent
        {
            self.send(seq, family, agent, value, at, draft);
        }
        true
    }

    /// A child with a handle has ended: whoever waits for it, or for room in its mailbox, goes on.
    pub(crate) fn handle_ended(&mut self, family: Seq, at: Timestamp) {
        match self.life.pending {
            Some(Pending::Ending { seq, child }) if child == family => {
                if let Some(outcome) = self.life.families.outcome(family) {
                    self.resume(seq, ending(outcome), at);
                }
            }
            Some(Pending::Room { seq, child }) if child == family => self.resume(seq, Err(dead()), at),
            _ => {}
        }
    }

    pub(crate) fn cancel_handle(&mut self, seq: Seq, handle: Handle, draft: &mut Draft) {
        match self.standing(handle) {
            Standing::Running(child) => {
                self.life.families.tell_to_end(handle.seq);
                cancel(vec![child], "its parent cancelled it", draft);
            }
            Standing::Moment(_) => {
                self.life.timers.remove(&handle.seq);
            }
            Standing::Ending | Standing::Ended(_) | Standing::Dead => {}
        }
        self.resume(seq, Ok(Answer::Done), self.life.moment);
    }

    /// The call that started these has ended.
    pub(crate) fn release(&mut self, seq: Seq, from: Seq, draft: &mut Draft) {
        self.life.timers.split_off(&from);
        let running = self.life.families.release(from);
        if !running.is_empty() {
            cancel(running, "the call that started it has ended", draft);
        }
        self.resume(seq, Ok(Answer::Done), self.life.moment);
    }
}

/// Tells children to end, and records it.
pub(crate) fn cancel(children: Vec<AgentId>, reason: &str, draft: &mut Draft) {
    for child in &children {
        // Nobody raised its epoch, and 0 raises none.
        let input = fact::Input::Cancel { reason: reason.to_owned(), epoch: Epoch(0) };
        draft.posts.push((*child, cancelled_by_parent(*child), input));
    }
    draft.facts.push(AgentEvent::ChildrenCancelled { children });
}

/// How an ended child looks to whoever waits for it. That it was cancelled is no cancel of its parent.
fn ending(outcome: Outcome) -> Result<Answer, Failure> {
    match outcome {
        Outcome::Err(failure) if failure.code == RunCode::Cancelled => {
            let mut seen = Failure::new(RunCode::DeadHandle, "the child was cancelled");
            seen.cause = Some(Box::new(failure));
            Err(seen)
        }
        outcome => Ok(Answer::Children(vec![outcome])),
    }
}

fn dead() -> Failure {
    let message = "the handle is dead: the child has ended, the call that started it has, or another agent started it";
    Failure::new(RunCode::DeadHandle, message)
}

/// What is long in an ending, in bytes.
pub(crate) fn outcome_bytes(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Ok(value) => value.len(),
        Outcome::Err(failure) => failure.message.len() + failure.data.as_ref().map_or(0, |data| data.len()),
    }
}

fn too_much_kept() -> Failure {
    let message = format!(
        "the results of children that nobody let go of have more than {KEPT_RESULTS_BYTES_MAX} bytes together: start \
         children in a flow of their own, whose end lets go of them, or have them give less"
    );
    Failure::new(RunCode::Failed, message)
}
