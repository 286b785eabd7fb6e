//! Detached branches: they belong to the workload, whoever started them.
//!
//! The root of the workload bears them, so that they have a parent for as long as they run: their grant comes out of its
//! budget and their deadline is its own. Another agent sends them to the root's inbox, in the append that records that it
//! did; whatever is lost after that, they start once. Nobody waits for what they give. One that fails leaves
//! [`AgentEvent::DetachedFailed`] in the root's stream.
//!
//! A root whose program has ended while they run has concluded ([`AgentEvent::Concluded`]): it ends with what its program
//! gave when the last of them has ended, or when its time is over, which ends those that still run. Whatever else ends
//! the root ends them too.
//!
//! An adoption depends on nothing but what the log says, as the root may be computing when it comes.

use nexa_event::effect::{Answer, ChildSpec, Join};
use nexa_event::fact::{self, AgentEvent};
use nexa_types::limits::DETACHED_MAX;
use nexa_types::{AgentId, Failure, InputId, Outcome, RunCode, Seq, Timestamp};

use crate::agent::Agent;
use crate::brain::Brain;
use crate::children::{Birth, Families, too_long_together};
use crate::ending::fitted;
use crate::handles::cancel;
use crate::step::Draft;

/// Adopted branches are numbered from here. A program that makes a million effects in a second would take 140 years to
/// have one with such a number, and every client can still count so far.
const ADOPTED: u64 = 1 << 52;

impl Families {
    /// Whether detached branches run that were not told to end.
    pub(crate) fn has_detached(&self) -> bool {
        self.0.values().any(|family| family.join == Join::Detached && !family.released)
    }

    fn detached(&self) -> usize {
        let detached = self.0.values().filter(|family| family.join == Join::Detached);
        detached.map(|family| family.unfinished as usize).sum()
    }

    fn running_detached(&self) -> Vec<(String, AgentId)> {
        let detached = self.0.values().filter(|family| family.join == Join::Detached && !family.released);
        let running = detached.flat_map(|family| &family.children).filter(|child| !child.ended);
        running.map(|child| (child.name.clone(), child.agent)).collect()
    }
}

impl Agent {
    /// Whether it is the root of its workload.
    pub(crate) fn is_root(&self) -> bool {
        self.spawned().parent.is_none()
    }

    /// Starts branches that nobody waits for, or sends them to the root, which does.
    pub(crate) fn detach(&mut self, seq: Seq, branches: Vec<ChildSpec>, draft: &mut Draft) {
        let moment = self.life.moment;
        let refused = self.too_deep().or_else(|| self.starts_none()).or_else(|| too_long_together(&branches));
        if let Some(failure) = refused {
            return self.resume(seq, Err(failure), moment);
        }
        let depth = self.spawned().depth + 1;
        if self.is_root() {
            self.bear_detached(seq, branches, depth, moment, draft);
        } else {
            self.send_to_root(seq, branches, depth, draft);
        }
        self.resume(seq, Ok(Answer::Done), moment);
    }

    /// None of them may use more than its share of what this agent has left.
    fn send_to_root(&mut self, seq: Seq, branches: Vec<ChildSpec>, depth: u32, draft: &mut Draft) {
        let share = self.share(&self.life.meter, Join::Detached, branches.len());
        let capped = |branch: ChildSpec| ChildSpec { budget: branch.budget.tighter(share), ..branch };
        let branches: Vec<ChildSpec> = branches.into_iter().map(capped).collect();
        branches.iter().for_each(|branch| self.life.meter.hand_over(&branch.budget));
        draft.bytes += branches.iter().map(|branch| branch.args.len()).sum::<usize>();
        let names = branches.iter().map(|branch| branch.name.clone()).collect();
        draft.facts.push(AgentEvent::Detached { seq, branches: names });
        let root = AgentId::root(self.spawned().workload);
        let input = fact::Input::Detached { from: self.id(), depth, branches };
        draft.posts.push((root, InputId::detached(self.id(), seq), input));
    }

    /// An agent of the workload has detached branches.
    pub(crate) fn adopt(&mut self, depth: u32, branches: Vec<ChildSpec>, at: Timestamp, draft: &mut Draft) {
        let seq = Seq(ADOPTED + self.life.adoptions);
        self.life.adoptions += 1;
        self.bear_detached(seq, branches, depth, at, draft);
    }

    fn bear_detached(&mut self, seq: Seq, mut branches: Vec<ChildSpec>, depth: u32, at: Timestamp, draft: &mut Draft) {
        let room = DETACHED_MAX.saturating_sub(self.life.families.detached());
        let refused = branches.split_off(room.min(branches.len()));
        if !branches.is_empty() {
            self.bear(seq, branches, Birth { join: Join::Detached, depth, at }, draft);
        }
        for branch in refused {
            let message = format!("{DETACHED_MAX} detached branches of the workload run already");
            let failure = Failure::new(RunCode::Failed, message);
            draft.facts.push(AgentEvent::DetachedFailed { name: branch.name, agent: None, failure });
        }
    }

    /// The program of a root has ended, and detached branches run.
    pub(crate) fn conclude(&mut self, outcome: Outcome, draft: &mut Draft) {
        let outcome = fitted(outcome);
        let attached = self.life.families.let_go_of(|_, family| family.join != Join::Detached);
        if !attached.is_empty() {
            cancel(attached, "its parent ended", draft);
        }
        draft.facts.push(AgentEvent::Concluded { outcome: outcome.clone() });
        self.life.concluded = Some(outcome);
        self.life.computing = false;
        self.brain = Brain::Gone;
    }

    /// A root that has concluded ends with the last of its detached branches.
    pub(crate) fn end_if_alone(&mut self, draft: &mut Draft) {
        if !self.life.families.has_detached()
            && let Some(outcome) = self.life.concluded.take()
        {
            self.finish(outcome, draft);
        }
    }

    /// The time of the workload is over, and its program had ended before.
    pub(crate) fn end_detached(&mut self, draft: &mut Draft) {
        for (name, agent) in self.life.families.running_detached() {
            let failure = Failure::new(RunCode::Timeout, "the time of the workload was over before it ended");
            draft.facts.push(AgentEvent::DetachedFailed { name, agent: Some(agent), failure });
        }
        if let Some(outcome) = self.life.concluded.take() {
            self.finish(outcome, draft);
        }
    }
}

/// Records that a detached branch failed, if it did.
pub(crate) fn detached_failed(name: &str, agent: AgentId, outcome: &Outcome, draft: &mut Draft) {
    if let Outcome::Err(failure) = outcome {
        let (name, failure) = (name.to_owned(), failure.clone());
        draft.facts.push(AgentEvent::DetachedFailed { name, agent: Some(agent), failure });
    }
}
