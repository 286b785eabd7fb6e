//! Children: born with a grant and a deadline, accounted for until each has ended, cancelled when their parent ends.
//!
//! Their ids, seeds, grants and deadlines follow from the parent's state, so a replay bears the same children.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use nexa_event::asks::Asks;
use nexa_event::effect::{Answer, ChildSpec, Join};
use nexa_event::fact::{AgentEvent, ChildBorn, Parent, Program, Spawned};
use nexa_types::limits::AGENT_DEPTH_MAX;
use nexa_types::{AgentId, Budget, Failure, InputId, Outcome, Payload, RunCode, Seq, Spend, Timestamp};
use nexa_vm::codec::VALUE_BYTES_MAX;

use crate::agent::Agent;
use crate::detached::detached_failed;
use crate::dice::seed_of_child;
use crate::handles::{Standing, cancel};
use crate::ledger::Pending;
use crate::mailbox::Outgoing;
use crate::shortage;
use crate::step::Draft;

/// Arguments of the branches that start together, in bytes. More is answered with a failure that the program can catch:
/// all of them are stored in one append, each in its own first event and in its parent's. One alone always fits.
pub const BRANCHES_BYTES_MAX: usize = VALUE_BYTES_MAX;

/// One child, as its parent keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Child {
    #[n(0)]
    pub(crate) agent: AgentId,
    #[n(1)]
    pub(crate) granted: Budget,
    #[n(2)]
    pub(crate) ended: bool,
    /// Kept only until the call that waits for it has all, or lets go of its handle.
    #[n(3)]
    pub(crate) outcome: Option<Outcome>,
    /// The messages that were passed to it.
    #[n(4)]
    #[cbor(skip_if = "Outgoing::is_unused")]
    outgoing: Outgoing,
    /// It was told to end.
    #[n(5)]
    #[cbor(skip_if = "is_false")]
    pub(crate) told_to_end: bool,
    /// The caps that it brought.
    #[n(6)]
    #[cbor(skip_if = "is_open")]
    own: Budget,
    /// What people call it, if somebody may want to hear how it failed.
    #[n(7)]
    #[cbor(skip_if = "String::is_empty")]
    pub(crate) name: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the encoder asks so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

fn is_open(budget: &Budget) -> bool {
    *budget == Budget::default()
}

/// The children that one effect started, by branch.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Family {
    #[n(0)]
    pub(crate) join: Join,
    #[n(1)]
    pub(crate) children: Vec<Child>,
    #[n(2)]
    pub(crate) unfinished: u32,
    /// Nobody has a handle any more; it is kept until it has ended, for the budget.
    #[n(3)]
    #[cbor(skip_if = "is_false")]
    pub(crate) released: bool,
    /// The branch that was the first to end ok, while some are waited for that do.
    #[n(4)]
    first_ok: Option<u32>,
}

impl Family {
    fn keeps_outcomes(&self) -> bool {
        !matches!(self.join, Join::None | Join::Detached) && !self.released
    }

    /// Whether the effect that started them waits for them together.
    fn is_waited_for(&self) -> bool {
        matches!(self.join, Join::All | Join::FirstOk(_)) && !self.released
    }

    /// What the effect that started them is answered, if it is known by now.
    fn answer(&self) -> Option<Answer> {
        match self.join {
            _ if self.released => None,
            Join::All if self.unfinished == 0 => Some(Answer::Children(self.outcomes())),
            Join::FirstOk(wanted) => {
                let wanted = usize::from(wanted).max(1);
                let is_ok = |child: &&Child| matches!(child.outcome, Some(Outcome::Ok(_)));
                let ok = self.children.iter().filter(is_ok).count();
                match self.first_value() {
                    Some(value) if ok >= wanted => Some(Answer::Value(value)),
                    _ if ok + (self.unfinished as usize) < wanted => Some(Answer::Children(self.outcomes())),
                    _ => None,
                }
            }
            Join::All | Join::None | Join::Handle | Join::Detached => None,
        }
    }

    /// Those that are kept, in the order of the branches.
    fn outcomes(&self) -> Vec<Outcome> {
        self.children.iter().filter_map(|child| child.outcome.clone()).collect()
    }

    fn first_value(&self) -> Option<Payload> {
        match &self.children.get(self.first_ok? as usize)?.outcome {
            Some(Outcome::Ok(value)) => Some(value.clone()),
            _ => None,
        }
    }

    /// Whether the first that ended ok is known just when there is one, and is one that did.
    fn knows_its_first(&self) -> bool {
        let counts = matches!(self.join, Join::FirstOk(_)) && !self.released;
        let has_ok = self.children.iter().any(|child| matches!(child.outcome, Some(Outcome::Ok(_))));
        self.first_ok.is_some() == (counts && has_ok) && self.first_value().is_some() == self.first_ok.is_some()
    }
}

/// All children that have not all ended, and those that a handle is held of, by the effect that started them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct Families(#[n(0)] pub(crate) BTreeMap<Seq, Family>);

impl Families {
    /// Whether there is such a child and it has not ended.
    pub(crate) fn is_unfinished(&self, seq: Seq, branch: u32) -> bool {
        self.0.get(&seq).and_then(|family| family.children.get(branch as usize)).is_some_and(|child| !child.ended)
    }

    /// Whether an effect waits for all of so many children, and not all have ended.
    pub(crate) fn has_unfinished_of(&self, seq: Seq, count: usize) -> bool {
        let family = self.0.get(&seq);
        family.is_some_and(|family| family.is_waited_for() && family.children.len() == count && family.unfinished > 0)
    }

    /// Whether each family counts its children rightly and has the outcomes that it keeps.
    pub(crate) fn are_sound(&self) -> bool {
        self.0.values().all(|family| {
            let unfinished = family.children.iter().filter(|child| !child.ended).count();
            let kept = |child: &Child| child.outcome.is_some() == (child.ended && family.keeps_outcomes());
            let is_one = family.join != Join::Handle || family.children.len() == 1;
            let is_needed = unfinished > 0 || (family.join == Join::Handle && !family.released);
            let is_sound = |child: &Child| kept(child) && child.outgoing.is_sound();
            let is_open = family.knows_its_first() && family.answer().is_none();
            let is_counted = unfinished == family.unfinished as usize;
            is_counted && is_one && is_needed && is_open && family.children.iter().all(is_sound)
        })
    }

    /// What the handle of an effect stands for.
    pub(crate) fn standing(&self, seq: Seq, agent: AgentId) -> Standing {
        let Some(child) = self.held(seq).filter(|child| child.agent == agent) else { return Standing::Dead };
        match &child.outcome {
            Some(outcome) => Standing::Ended(outcome.clone()),
            None if child.told_to_end => Standing::Ending,
            None => Standing::Running(agent),
        }
    }

    /// The child that a handle is held of.
    pub(crate) fn held(&self, seq: Seq) -> Option<&Child> {
        let family = self.0.get(&seq).filter(|family| family.join == Join::Handle && !family.released);
        family?.children.first()
    }

    /// How many handles are held.
    pub(crate) fn handles(&self) -> usize {
        self.0.values().filter(|family| family.join == Join::Handle && !family.released).count()
    }

    pub(crate) fn outcome(&self, seq: Seq) -> Option<Outcome> {
        self.held(seq)?.outcome.clone()
    }

    pub(crate) fn has_room(&self, seq: Seq) -> bool {
        self.held(seq).is_some_and(|child| child.outgoing.has_room())
    }

    /// How many messages a child that runs has read, as far as is known.
    pub(crate) fn taken_of(&self, seq: Seq, branch: u32) -> Option<u64> {
        let child = self.0.get(&seq)?.children.get(branch as usize)?;
        (!child.ended).then_some(child.outgoing.taken())
    }

    pub(crate) fn count_message(&mut self, seq: Seq, bytes: usize) -> u64 {
        let child = self.0.get_mut(&seq).and_then(|family| family.children.first_mut());
        child.map_or(0, |child| child.outgoing.send(bytes))
    }

    pub(crate) fn note_taken(&mut self, seq: Seq, branch: u32, taken: u64) -> bool {
        let family = self.0.get_mut(&seq);
        let child = family.and_then(|family| family.children.get_mut(branch as usize)).filter(|child| !child.ended);
        child.map(|child| child.outgoing.note(taken)).is_some()
    }

    pub(crate) fn tell_to_end(&mut self, seq: Seq) {
        if let Some(child) = self.0.get_mut(&seq).and_then(|family| family.children.first_mut()) {
            child.told_to_end = true;
        }
    }

    /// Lets go of the handles of this and later effects; gives the children that are still to be told to end.
    pub(crate) fn release(&mut self, from: Seq) -> Vec<AgentId> {
        self.let_go_of(|seq, family| *seq >= from && family.join == Join::Handle)
    }

    /// Nobody waits for the children of an effect any more; gives those that are still to be told to end.
    pub(crate) fn let_go(&mut self, seq: Seq) -> Vec<AgentId> {
        self.let_go_of(|known, _| *known == seq)
    }

    /// The agent ends: gives all children that are still to be told so.
    pub(crate) fn tell_all_to_end(&mut self) -> Vec<AgentId> {
        self.let_go_of(|_, _| true)
    }

    pub(crate) fn let_go_of(&mut self, is_meant: impl Fn(&Seq, &Family) -> bool) -> Vec<AgentId> {
        let mut running = Vec::new();
        for (seq, family) in &mut self.0 {
            if !is_meant(seq, family) {
                continue;
            }
            family.released = true;
            family.first_ok = None;
            for child in &mut family.children {
                child.outcome = None;
                if !child.ended && !std::mem::replace(&mut child.told_to_end, true) {
                    running.push(child.agent);
                }
            }
        }
        self.0.retain(|_, family| !family.released || family.unfinished > 0);
        running
    }

    /// Drops the children of an effect if all have ended and no handle is held.
    fn forget_ended(&mut self, seq: Seq) {
        let is_over = |family: &Family| family.unfinished == 0 && (family.released || family.join != Join::Handle);
        if self.0.get(&seq).is_some_and(is_over) {
            self.0.remove(&seq);
        }
    }

    /// Those that have not ended, in order of birth.
    fn unfinished(&self) -> Vec<AgentId> {
        let children = self.0.values().flat_map(|family| &family.children);
        children.filter(|child| !child.ended && !child.told_to_end).map(|child| child.agent).collect()
    }
}

/// What an ended child took of its grant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used<'e> {
    pub(crate) spend: &'e Spend,
    pub(crate) handed_over: Option<&'e Budget>,
}

/// How children are born.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Birth {
    pub(crate) join: Join,
    /// How many agents are above them.
    pub(crate) depth: u32,
    pub(crate) at: Timestamp,
}

impl Agent {
    /// Bears children, or tells the brain why not.
    pub(crate) fn spawn(&mut self, seq: Seq, branches: Vec<ChildSpec>, join: Join, draft: &mut Draft) {
        let moment = self.life.moment;
        if let Some(failure) = self.too_deep() {
            return self.resume(seq, Err(failure), moment);
        }
        if branches.is_empty() {
            return self.resume(seq, Ok(Answer::Children(Vec::new())), moment);
        }
        if let Some(failure) = self.starts_none() {
            return self.resume(seq, Err(failure), moment);
        }
        if join == Join::Handle
            && let Some(failure) = self.too_many_handles()
        {
            return self.resume(seq, Err(failure), moment);
        }
        if let Some(failure) = too_long_together(&branches) {
            return self.resume(seq, Err(failure), moment);
        }
        let depth = self.spawned().depth + 1;
        let first = self.bear(seq, branches, Birth { join, depth, at: moment }, draft);
        match (join, first) {
            (Join::All | Join::FirstOk(_), _) => self.wait(Pending::Children { seq }, draft),
            (Join::Handle, Some(child)) => self.resume(seq, Ok(Answer::Started(child)), moment),
            (Join::None | Join::Handle | Join::Detached, _) => self.resume(seq, Ok(Answer::Done), moment),
        }
    }

    /// Why an agent at the end of a long line has no children.
    pub(crate) fn too_deep(&self) -> Option<Failure> {
        (self.spawned().depth >= AGENT_DEPTH_MAX).then(|| {
            let message = format!("agents start agents more than {AGENT_DEPTH_MAX} deep");
            Failure::new(RunCode::StackOverflow, message)
        })
    }

    /// Why an agent that only cleans up has no children.
    pub(crate) fn starts_none(&self) -> Option<Failure> {
        self.cleans_up().then(|| Failure::new(RunCode::Unavailable, "an agent that ends starts no children"))
    }

    /// Bears children; gives the first.
    pub(crate) fn bear(
        &mut self,
        seq: Seq,
        branches: Vec<ChildSpec>,
        birth: Birth,
        draft: &mut Draft,
    ) -> Option<AgentId> {
        let join = birth.join;
        // Once in this agent's fact and once in the births.
        draft.bytes += 2 * branches.iter().map(|branch| branch.args.len()).sum::<usize>();
        let share = Budget { time: self.time_left(birth.at), ..self.share(&self.life.meter, join, branches.len()) };
        let mut born = Vec::with_capacity(branches.len());
        let mut children = Vec::with_capacity(branches.len());
        for (branch, spec) in (0..).zip(branches) {
            let agent = AgentId::child(self.id(), seq, branch);
            let granted = spec.budget.tighter(share);
            self.life.meter.set_aside(&granted);
            let parent = Parent { agent: self.id(), seq, branch };
            draft.births.push((agent, self.first_event(agent, parent, &spec, granted, birth)));
            let name = if join == Join::Detached { spec.name.clone() } else { String::new() };
            let (outgoing, own) = (Outgoing::default(), spec.budget);
            let child = Child { agent, granted, ended: false, outcome: None, outgoing, told_to_end: false, own, name };
            children.push(child);
            born.push(ChildBorn { agent, spec, granted });
        }
        let unfinished = children.len() as u32;
        let first = children.first().map(|child| child.agent);
        self.life.families.0.insert(seq, Family { join, children, unfinished, released: false, first_ok: None });
        draft.facts.push(AgentEvent::ChildrenSpawned { seq, join, children: born });
        first
    }

    fn first_event(&self, agent: AgentId, parent: Parent, spec: &ChildSpec, granted: Budget, birth: Birth) -> Spawned {
        let me = self.spawned();
        let own = spec.timeout.map(|timeout| birth.at.after(timeout));
        let deadline = match (own, self.deadline()) {
            (Some(own), Some(parents)) => Some(own.min(parents)),
            (own, parents) => own.or(parents),
        };
        Spawned {
            workload: me.workload,
            name: spec.name.clone(),
            parent: Some(parent),
            program: Program::Function { module: me.program.module(), entry: spec.entry, args: spec.args.clone() },
            budget: granted,
            deadline,
            seed: seed_of_child(me.seed, agent),
            depth: birth.depth,
            priority: me.priority,
            asks: spec.asks.clone().map(|asks| Asks { until: deadline, ..asks }),
        }
    }

    /// A child has ended: takes its grant back, and lets the brain know once it has what it waits for. False if there
    /// is no such child, or it had ended.
    pub(crate) fn end_child(
        &mut self,
        seq: Seq,
        branch: u32,
        outcome: &Outcome,
        used: Used<'_>,
        at: Timestamp,
        draft: &mut Draft,
    ) -> bool {
        let Some(family) = self.life.families.0.get_mut(&seq) else { return false };
        let (keeps, is_released) = (family.keeps_outcomes(), family.released);
        let Some(child) = family.children.get_mut(branch as usize).filter(|child| !child.ended) else { return false };
        child.ended = true;
        family.unfinished = family.unfinished.saturating_sub(1);
        self.life.meter.give_back(&child.granted, used.spend);
        // A root has set aside itself what detached branches may use.
        let handed_over = used.handed_over.filter(|_| self.born.parent.is_some());
        handed_over.into_iter().for_each(|handed_over| self.life.meter.hand_over(handed_over));
        let join = family.join;
        if keeps {
            child.outcome = Some(outcome.clone());
        }
        if keeps && matches!(join, Join::FirstOk(_)) && matches!(outcome, Outcome::Ok(_)) {
            family.first_ok.get_or_insert(branch);
        }
        let answer = family.answer();
        let child = &family.children[branch as usize];
        match join {
            Join::None if !is_released => self.child_news(seq, branch, outcome, at),
            Join::Handle if keeps => {
                self.handle_ended(seq, at);
                return true;
            }
            Join::Detached if !is_released => detached_failed(&child.name, child.agent, outcome, draft),
            Join::All | Join::None | Join::Handle | Join::FirstOk(_) | Join::Detached => {}
        }
        if let Some(answer) = answer {
            let shortage = self.shortage_of(seq);
            let running = self.life.families.let_go(seq);
            if !running.is_empty() {
                cancel(running, "enough of the branches beside it have ended", draft);
            }
            match shortage {
                Some(failure) => self.interrupt(failure, at, draft),
                None => self.resume(seq, Ok(answer), at),
            }
        }
        self.life.families.forget_ended(seq);
        self.end_if_alone(draft);
        true
    }

    /// What this agent ends with because a lone child needed more than it has left.
    fn shortage_of(&self, seq: Seq) -> Option<Failure> {
        let family = self.life.families.0.get(&seq).filter(|family| family.join == Join::All && !self.is_stopping())?;
        let [Child { agent, granted, own, outcome: Some(Outcome::Err(failure)), .. }] = family.children.as_slice()
        else {
            return None;
        };
        shortage::of_parent(self.id(), *agent, own, granted, failure)
    }

    /// Cancels the children that the agent leaves behind. They may have been told already, which does no harm. All of them
    /// with the end itself, up to `LIST_AGENTS_MAX` and without a payload: whoever has ended says nothing more, so one
    /// who was left for a later record would never hear of it if the node were lost in between.
    pub(crate) fn leave_children(&mut self, draft: &mut Draft) {
        let children = self.life.families.unfinished();
        self.life.families = Families::default();
        if children.is_empty() {
            return;
        }
        cancel(children, "its parent ended", draft);
    }
}

/// The one input by which a parent cancels a child. Another than the workload's cancel, whose raised epoch must arrive.
pub(crate) fn cancelled_by_parent(child: AgentId) -> InputId {
    let mut bytes = [0; 16];
    let mut hasher = blake3::Hasher::new_derive_key("nexa.v1 input cancel by parent");
    hasher.update(child.as_bytes()).finalize_xof().fill(&mut bytes);
    InputId::from_bytes(bytes)
}

/// Why branches cannot start at once, if they cannot.
pub(crate) fn too_long_together(branches: &[ChildSpec]) -> Option<Failure> {
    let bytes = branches.iter().map(|branch| branch.args.len()).sum::<usize>();
    (bytes > BRANCHES_BYTES_MAX).then(|| {
        let message = format!(
            "the arguments of {} branches have {bytes} bytes together, more than the {BRANCHES_BYTES_MAX} that can \
             start at once: start fewer branches at a time, or hand less to each",
            branches.len()
        );
        Failure::new(RunCode::Failed, message)
    })
}
