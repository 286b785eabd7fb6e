//! What children that end leave of the budget.
//!
//! A child that was told to end has its share until it has ended, as nobody knows before what it used. What its parent
//! wants meanwhile may be short of just that: after a block that ran out of time, after the first of several branches,
//! after a cancel. It waits for them, and they are quick: they were told, and have [`crate::GRACE`] for what they
//! deferred. The wait is recorded, and it ends with the recorded end of a child, so a replay decides with the same rest.
//!
//! A model request waits if it does not fit now. Children are born with their whole share, so a birth waits if a share
//! would be larger. What fits, and what has no cap, never waits.
//!
//! An agent that cleans up has told all of its children to end and starts none. If it is short of something while none
//! is ending, it stays so, and needs no record of it.

use nexa_event::effect::{EffectBody, Join};
use nexa_types::{Budget, Seq, Timestamp};

use crate::agent::Agent;
use crate::brain::Brain;
use crate::children::Families;
use crate::ledger::Pending;
use crate::meter::Meter;
use crate::replay::Foretold;
use crate::step::Draft;

/// A child that runs beside its parent gets one of so many parts of what is left, or less if it has caps of its own: the
/// parent and those that it starts later need something too.
pub(crate) const HANDLE_SHARES: u64 = 4;

impl Families {
    /// Whether there are children that were told to end and have not.
    pub(crate) fn has_ending(&self) -> bool {
        self.ending().next().is_some()
    }

    /// What those hold of the budget.
    fn ending(&self) -> impl Iterator<Item = &Budget> {
        let children = self.0.values().flat_map(|family| &family.children);
        children.filter(|child| child.told_to_end && !child.ended).map(|child| &child.granted)
    }
}

impl Agent {
    /// The most that each of so many children gets that are born now, by a meter.
    pub(crate) fn share(&self, meter: &Meter, join: Join, born: usize) -> Budget {
        let count = born as u64;
        match join {
            Join::Handle => meter.grant(Budget::default(), HANDLE_SHARES, Some(count)),
            // Those that detach need something too, and so do branches that are detached later.
            Join::Detached => meter.grant(Budget::default(), count + HANDLE_SHARES - 1, None),
            Join::All | Join::None | Join::FirstOk(_) => {
                meter.grant(Budget::default(), self.brain.shares(born), Some(count))
            }
        }
    }

    /// Whether an effect is not decided on before children that end have ended.
    pub(crate) fn waits_for_budget(&self, seq: Seq, body: &EffectBody) -> bool {
        let families = &self.life.families;
        if !matches!(self.brain, Brain::Vm(_)) || !families.has_ending() {
            return false;
        }
        if self.foretold.is_some_and(|foretold| foretold != Foretold::Settling(seq)) {
            return false;
        }
        let now = &self.life.meter;
        match body {
            EffectBody::Model(request) => {
                let mut request = request.clone();
                let _unread = self.join_turns(&mut request);
                now.fits(&self.worst_case(&request)).is_err()
            }
            EffectBody::Children { branches, join } if !self.cleans_up() => {
                let later = now.once_back(families.ending());
                let [now, later] = [now, &later].map(|meter| self.share(meter, *join, branches.len()));
                branches.iter().any(|branch| branch.budget.tighter(now) != branch.budget.tighter(later))
            }
            _ => false,
        }
    }

    /// A child has ended: what waits for the budget is decided on, unless it waits for more of them.
    pub(crate) fn settle(&mut self, at: Timestamp, draft: &mut Draft) {
        let Some(Pending::Budget { seq }) = self.life.pending else { return };
        let Some(request) = self.brain.pending() else { return };
        if self.waits_for_budget(seq, &request.body) {
            return;
        }
        self.life.pending = None;
        self.life.moment = at;
        self.life.computing = true;
        self.carry_out(request, draft);
    }
}
