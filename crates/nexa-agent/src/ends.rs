//! Ends from outside: of a scope whose time is over, and of the whole agent, which still runs what was deferred.
//!
//! Both reach the brain only where the log says where it is. An agent that waits is at a place that stands in the log.
//! One that computes goes on to its next effect, and that it was stopped there is recorded ([`AgentEvent::Interrupted`]);
//! if none comes before the grace is over, it ends without its deferred blocks. An agent that stops by itself records it
//! too, at the effect that its budget is short of, or at the first that was deferred: when its grace began hangs on that.
//!
//! A scope whose time is over has the same grace for what was deferred inside of it. Until then scopes around it wait;
//! then whatever still waits is given up, each time.
//!
//! Children are told to end first. A request in flight is given up and billed at its worst case. An agent that ends
//! starts no children: nobody would take them over.

use nexa_event::fact::AgentEvent;
use nexa_types::{Failure, Millis, Outcome, RunCode, Seq, Timestamp};

use crate::agent::Agent;
use crate::brain::Brain;
use crate::handles::cancel;
use crate::ledger::{Kind, Pending};
use crate::replay::Foretold;
use crate::step::Draft;

/// How long an agent may take for everything that was deferred, when it is cancelled or its time or budget is over, and
/// for what was deferred in a block whose time is over.
pub const GRACE: Millis = Millis(5_000);

impl Agent {
    /// Ends the agent, as soon as what was deferred has run.
    pub(crate) fn stop(&mut self, failure: Failure, at: Timestamp, draft: &mut Draft) {
        if self.is_stopping() {
            return;
        }
        let Brain::Vm(vm) = &self.brain else { return self.finish(Outcome::Err(failure), draft) };
        let computes = self.life.pending.is_none() && self.life.computing;
        if self.life.quarantined || (computes && !vm.may_defer()) {
            return self.finish(Outcome::Err(failure), draft);
        }
        if computes {
            self.life.stopping = Some(failure);
            self.life.grace = Some(at.after(GRACE));
        } else {
            self.interrupt(failure, at, draft);
        }
    }

    /// Whether it only cleans up any more.
    pub(crate) fn is_stopping(&self) -> bool {
        self.life.grace.is_some()
    }

    /// The same, and no effect of what it did before can come any more: while a replay has heard that it was told to end
    /// and not come to where it was stopped, that is not so yet.
    pub(crate) fn cleans_up(&self) -> bool {
        self.is_stopping() && self.life.stopping.is_none()
    }

    /// What it ends with if it only cleans up any more.
    fn stopped_by(&self) -> Option<Failure> {
        let closing = match &self.brain {
            Brain::Vm(vm) => vm.closing().cloned(),
            _ => None,
        };
        self.life.stopping.clone().or(closing)
    }

    /// The grace is over.
    pub(crate) fn cut_short(&mut self, draft: &mut Draft) {
        let failure = self.stopped_by().unwrap_or_else(|| Failure::new(RunCode::Cancelled, "it was to end"));
        self.finish(Outcome::Err(failure), draft);
    }

    /// The brain has ended.
    pub(crate) fn ended_by_itself(&mut self, outcome: Outcome, draft: &mut Draft) {
        match self.stopped_by() {
            Some(failure) => self.finish(Outcome::Err(failure), draft),
            None if self.life.families.has_detached() => self.conclude(outcome, draft),
            None => self.finish(outcome, draft),
        }
    }

    /// Ends the agent here: its brain waits, or wants an effect that it does not get.
    pub(crate) fn interrupt(&mut self, failure: Failure, at: Timestamp, draft: &mut Draft) {
        let Brain::Vm(vm) = &mut self.brain else { return self.finish(Outcome::Err(failure), draft) };
        // What was deferred may run already, after a failure that nothing catches.
        if !vm.has_deferred() && vm.closing().is_none() {
            return self.finish(Outcome::Err(failure), draft);
        }
        vm.interrupt(failure);
        self.give_up_pending(draft);
        self.life.stopping = None;
        self.clean_up(at, draft);
    }

    fn clean_up(&mut self, at: Timestamp, draft: &mut Draft) {
        let running = self.life.families.tell_all_to_end();
        if !running.is_empty() {
            cancel(running, "its parent ends", draft);
        }
        self.life.grace.get_or_insert(at.after(GRACE));
        self.life.moment = at;
        self.life.computing = true;
    }

    /// Whether an effect is not carried out because the agent was stopped meanwhile, or stops by itself.
    pub(crate) fn is_stopped_at(&mut self, seq: Seq, draft: &mut Draft) -> bool {
        let moment = self.life.moment;
        if let Some(failure) = self.life.stopping.clone()
            && self.is_told_of_stop(seq)
        {
            draft.facts.push(AgentEvent::Interrupted { seq, code: None });
            self.interrupt(failure, moment, draft);
            return true;
        }
        // What nobody may catch was raised inside: it cleans up, and the effect is part of that.
        if !self.is_stopping()
            && let Brain::Vm(vm) = &self.brain
            && let Some(code) = vm.closing().map(|failure| failure.code)
        {
            if self.is_told_of_stop(seq) {
                draft.facts.push(AgentEvent::Interrupted { seq, code: Some(code) });
            }
            self.clean_up(moment, draft);
        }
        false
    }

    /// Whether the log has it stopped at this effect. In life it is.
    fn is_told_of_stop(&self, seq: Seq) -> bool {
        self.foretold.is_none_or(|foretold| foretold == Foretold::Stop(seq))
    }

    /// It stops by itself at an effect. If nothing is deferred it ends at once, which is record enough.
    pub(crate) fn record_stop(&self, seq: Seq, code: RunCode, draft: &mut Draft) {
        if matches!(&self.brain, Brain::Vm(vm) if vm.has_deferred()) && self.is_told_of_stop(seq) {
            draft.facts.push(AgentEvent::Interrupted { seq, code: Some(code) });
        }
    }

    /// The scope whose time is over first, and when. Only an agent that waits learns of it; while a person is waited
    /// for no time passes, and the harness of a test takes none to answer.
    pub(crate) fn next_scope(&self) -> Option<(Seq, Timestamp)> {
        let Brain::Vm(vm) = &self.brain else { return None };
        match &self.life.pending {
            None => None,
            Some(Pending::Test { .. }) => None,
            Some(Pending::Outside(outside)) if outside.kind == Kind::Approval => None,
            Some(_) => vm.next_scope().map(|(seq, due)| (seq, due.after(self.life.waited))),
        }
    }

    /// The event of a scope whose time is over.
    pub(crate) fn scope_is_over(&self, now: Timestamp) -> Option<AgentEvent> {
        let (seq, _) = self.next_scope().filter(|(_, due)| *due <= now)?;
        Some(AgentEvent::ScopeExpired { seq })
    }

    /// The time of a scope is over: gives up what the brain waits for. False if there is no such scope.
    pub(crate) fn expire(&mut self, scope: Seq, at: Timestamp, draft: &mut Draft) -> bool {
        let failure = Failure::new(RunCode::Timeout, "the time of the block was over before it ended");
        // As with any scope's end, time that people took before does not count for it.
        let grace = Timestamp(at.after(GRACE).0.saturating_sub(self.life.waited.0));
        let Brain::Vm(vm) = &mut self.brain else { return false };
        if self.life.pending.is_none() || !vm.expire(scope, failure, grace) {
            return false;
        }
        if let Some(Pending::Children { seq }) = self.life.pending {
            let running = self.life.families.let_go(seq);
            if !running.is_empty() {
                cancel(running, "the time of its block was over", draft);
            }
        }
        self.give_up_pending(draft);
        self.life.moment = at;
        self.life.computing = true;
        true
    }
}
