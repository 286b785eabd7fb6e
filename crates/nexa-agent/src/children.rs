//! Children: born with a grant and a deadline, accounted for until each has ended, cancelled when their parent ends.
//!
//! Their ids, seeds, grants and deadlines follow from the parent's state, so a replay bears the same children.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use nexa_event::effect::{Answer, ChildSpec, Join};
use nexa_event::fact::{self, AgentEvent, ChildBorn, Parent, Program, Spawned};
use nexa_types::limits::AGENT_DEPTH_MAX;
use nexa_types::{AgentId, Budget, Epoch, Failure, InputId, Outcome, RunCode, Seq, Spend, Timestamp};
use nexa_vm::codec::VALUE_BYTES_MAX;

use crate::agent::Agent;
use crate::ledger::Pending;
use crate::step::Draft;

/// Arguments of the branches that start together, in bytes. More is answered with a failure that the program can catch:
/// all of them are stored in one append, each in its own first event and in its parent's. One alone always fits.
pub const BRANCHES_BYTES_MAX: usize = VALUE_BYTES_MAX;

/// One child, as its parent keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Child {
    #[n(0)]
    agent: AgentId,
    #[n(1)]
    granted: Budget,
    #[n(2)]
    ended: bool,
    /// Kept only until the call that waits for it has all.
    #[n(3)]
    outcome: Option<Outcome>,
}

/// The children that one effect started, by branch.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Family {
    #[n(0)]
    join: Join,
    #[n(1)]
    children: Vec<Child>,
    #[n(2)]
    unfinished: u32,
}

/// All children that have not all ended, by the effect that started them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct Families(#[n(0)] BTreeMap<Seq, Family>);

impl Families {
    /// Whether there is such a child and it has not ended.
    pub(crate) fn is_unfinished(&self, seq: Seq, branch: u32) -> bool {
        self.0.get(&seq).and_then(|family| family.children.get(branch as usize)).is_some_and(|child| !child.ended)
    }

    /// Whether an effect waits for all of so many children, and not all have ended.
    pub(crate) fn has_unfinished_of(&self, seq: Seq, count: usize) -> bool {
        let family = self.0.get(&seq);
        family.is_some_and(|family| family.join == Join::All && family.children.len() == count && family.unfinished > 0)
    }

    /// Whether each family counts its children rightly and has the outcomes that it keeps.
    pub(crate) fn are_sound(&self) -> bool {
        self.0.values().all(|family| {
            let unfinished = family.children.iter().filter(|child| !child.ended).count();
            let kept = |child: &Child| child.outcome.is_some() == (child.ended && family.join == Join::All);
            unfinished == family.unfinished as usize && family.children.iter().all(kept)
        })
    }

    /// Those that have not ended, in order of birth.
    fn unfinished(&self) -> Vec<AgentId> {
        let children = self.0.values().flat_map(|family| &family.children);
        children.filter(|child| !child.ended).map(|child| child.agent).collect()
    }
}

impl Agent {
    /// Bears children, or tells the brain why not.
    pub(crate) fn spawn(&mut self, seq: Seq, branches: Vec<ChildSpec>, join: Join, draft: &mut Draft) {
        let moment = self.life.moment;
        if self.spawned().depth >= AGENT_DEPTH_MAX {
            let message = format!("agents start agents more than {AGENT_DEPTH_MAX} deep");
            return self.resume(seq, Err(Failure::new(RunCode::StackOverflow, message)), moment);
        }
        if branches.is_empty() {
            return self.resume(seq, Ok(Answer::Children(Vec::new())), moment);
        }
        let bytes = branches.iter().map(|branch| branch.args.len()).sum::<usize>();
        if bytes > BRANCHES_BYTES_MAX {
            let failure = too_long_together(branches.len(), bytes);
            return self.resume(seq, Err(failure), moment);
        }
        // Once in this agent's fact and once in the births.
        draft.bytes += 2 * bytes;
        let shares = self.brain.shares(branches.len());
        let share = self.life.meter.grant(Budget { time: self.time_left(), ..Budget::default() }, shares);
        let mut born = Vec::with_capacity(branches.len());
        let mut children = Vec::with_capacity(branches.len());
        for (branch, spec) in (0..).zip(branches) {
            let agent = AgentId::child(self.id(), seq, branch);
            let granted = spec.budget.tighter(share);
            self.life.meter.set_aside(&granted);
            draft
                .births
                .push((agent, self.first_event(agent, Parent { agent: self.id(), seq, branch }, &spec, granted)));
            children.push(Child { agent, granted, ended: false, outcome: None });
            born.push(ChildBorn { agent, spec, granted });
        }
        let unfinished = children.len() as u32;
        self.life.families.0.insert(seq, Family { join, children, unfinished });
        draft.facts.push(AgentEvent::ChildrenSpawned { seq, join, children: born });
        match join {
            Join::All => {
                self.life.pending = Some(Pending::Children { seq });
                self.life.computing = false;
            }
            Join::None => self.resume(seq, Ok(Answer::Done), moment),
        }
    }

    fn first_event(&self, agent: AgentId, parent: Parent, spec: &ChildSpec, granted: Budget) -> Spawned {
        let me = self.spawned();
        let own = spec.timeout.map(|timeout| self.life.moment.after(timeout));
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
            depth: me.depth + 1,
            priority: me.priority,
        }
    }

    /// A child has ended: takes its grant back, and lets the brain know once it has what it waits for. False if there
    /// is no such child, or it had ended.
    pub(crate) fn end_child(&mut self, seq: Seq, branch: u32, outcome: &Outcome, spend: &Spend, at: Timestamp) -> bool {
        let Some(family) = self.life.families.0.get_mut(&seq) else { return false };
        let Some(child) = family.children.get_mut(branch as usize).filter(|child| !child.ended) else { return false };
        child.ended = true;
        family.unfinished = family.unfinished.saturating_sub(1);
        self.life.meter.give_back(&child.granted, spend);
        let (join, complete) = (family.join, family.unfinished == 0);
        if join == Join::All {
            child.outcome = Some(outcome.clone());
        } else {
            self.child_news(seq, branch, outcome, at);
        }
        if complete
            && let Some(family) = self.life.families.0.remove(&seq)
            && join == Join::All
        {
            let outcomes = family.children.into_iter().filter_map(|child| child.outcome).collect();
            self.resume(seq, Ok(Answer::Children(outcomes)), at);
        }
        true
    }

    /// Cancels the children that the agent leaves behind. They may have been told already, which does no harm.
    pub(crate) fn leave_children(&mut self, draft: &mut Draft) {
        let children = self.life.families.unfinished();
        self.life.families = Families::default();
        if children.is_empty() {
            return;
        }
        for child in &children {
            // Nobody raised its epoch, and 0 raises none.
            let input = fact::Input::Cancel { reason: "its parent ended".to_owned(), epoch: Epoch(0) };
            draft.posts.push((*child, cancelled_by_parent(*child), input));
        }
        draft.facts.push(AgentEvent::ChildrenCancelled { children });
    }
}

/// The one input by which a parent cancels a child. Another than the workload's cancel, whose raised epoch must arrive.
fn cancelled_by_parent(child: AgentId) -> InputId {
    let mut bytes = [0; 16];
    let mut hasher = blake3::Hasher::new_derive_key("nexa.v1 input cancel by parent");
    hasher.update(child.as_bytes()).finalize_xof().fill(&mut bytes);
    InputId::from_bytes(bytes)
}

fn too_long_together(branches: usize, bytes: usize) -> Failure {
    let message = format!(
        "the arguments of {branches} branches have {bytes} bytes together, more than the {BRANCHES_BYTES_MAX} that can \
         start at once: start fewer branches at a time, or hand less to each"
    );
    Failure::new(RunCode::Failed, message)
}

fn seed_of_child(seed: u64, child: AgentId) -> u64 {
    draw("nexa.v1 seed of child", seed, child.as_bytes())
}

/// A repeatable number from a seed and what it is for.
pub(crate) fn draw(domain: &'static str, seed: u64, what_for: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let mut hasher = blake3::Hasher::new_derive_key(domain);
    hasher.update(&seed.to_le_bytes()).update(what_for).finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
