//! Agents that are not run here any more, and who comes in their place.

use std::sync::Arc;

use nexa_types::{AgentId, Epoch};

use super::Core;
use crate::dispatch::Hint;
use crate::residency::Seat;

/// Who comes in the place of an agent that has gone.
pub(crate) struct Next {
    /// These have got a slot of a model or a tool.
    granted: Vec<AgentId>,
    /// These may begin.
    begin: Vec<AgentId>,
}

impl Core {
    /// An agent is not run any more, for now: it is still this node's, which hears of a cancel. If it was given to this
    /// node anew since it was looked at, that was not about the right that it is run by from now on: it is called again.
    pub(crate) fn gone(self: &Arc<Self>, seat: &Seat) {
        let agent = seat.agent;
        let (is_renewed, calls, next) = self.ownership.still(|| {
            let is_renewed = self.residency.is_seated(seat) && seat.signs.says_outdated();
            let is_over = self.residency.is_seated(seat) && !is_renewed;
            let calls = if is_over { Some(self.let_go(agent)) } else { None };
            (is_renewed, calls, self.residency.gone(seat))
        });
        self.start(next);
        calls.into_iter().for_each(|calls| self.tell_next(calls));
        if is_renewed {
            self.hint(agent, Hint::Inbox);
        }
    }

    /// Nothing goes on here for an agent any more, but for what it has left to another node. Gives who is to be told by
    /// [`Self::tell_next`].
    pub(crate) fn let_go(&self, agent: AgentId) -> Next {
        self.timers.set(agent, None);
        self.next_after(agent, self.models.forget(agent))
    }

    /// Who comes in the place of an agent that works here no more, and gave up slots to these.
    pub(crate) fn next_after(&self, agent: AgentId, granted: Vec<AgentId>) -> Next {
        Next { granted, begin: self.beginning.stops(agent) }
    }

    /// Calls those who come in the place of one that has gone.
    pub(crate) fn tell_next(self: &Arc<Self>, next: Next) {
        self.models.tell(next.granted);
        next.begin.into_iter().for_each(|agent| self.hint(agent, Hint::Again));
    }

    /// An agent has ended or is not this node's any more, under this epoch or an earlier one.
    pub(crate) fn gone_for_good(self: &Arc<Self>, seat: &Seat, epoch: Epoch) {
        if self.residency.is_seated(seat) {
            self.ownership.forget(seat.agent, epoch);
        }
        self.gone(seat);
    }
}
