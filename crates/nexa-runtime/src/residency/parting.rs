//! Agents that leave for another node: nobody brings them into memory until that is decided.

use std::sync::atomic::{AtomicBool, Ordering};

use nexa_types::AgentId;
use tokio::sync::oneshot;

use super::{Residency, Seat, Told};
use crate::bounded::Lane;

/// What an actor looks for before each step.
#[derive(Debug, Default)]
pub(crate) struct Signs {
    /// Its agent is to go to another node.
    parts: AtomicBool,
    /// Its agent was on another node since it was read.
    outdated: AtomicBool,
}

impl Signs {
    pub(crate) fn parts(&self) -> bool {
        self.parts.load(Ordering::Acquire)
    }

    /// Whether all is to be read again.
    pub(crate) fn says_outdated(&self) -> bool {
        self.outdated.load(Ordering::Acquire)
    }

    /// The same. Asking takes the sign away.
    pub(crate) fn is_outdated(&self) -> bool {
        self.outdated.swap(false, Ordering::AcqRel)
    }
}

/// An agent on its way to another node.
#[derive(Default)]
pub(super) struct Parting {
    /// A hint has come for it meanwhile.
    pub(super) was_called: bool,
    /// It was in memory; told once it has left.
    pub(super) left: Option<oneshot::Sender<()>>,
}

/// An agent is to go to another node.
pub(crate) enum Parts {
    /// Nobody runs it.
    Out,
    /// Its actor was told: an answer comes once it has left, and none if it stays.
    Told(oneshot::Receiver<()>),
}

impl Residency {
    /// From now on nobody brings this agent into memory, and its actor is told to leave at its next step. `None` if it is
    /// on its way already.
    pub(crate) fn part(&self, agent: AgentId) -> Option<Parts> {
        let mut state = self.lock();
        if state.parting.contains_key(&agent) {
            return None;
        }
        let mut parting = Parting { was_called: state.queued.contains_key(&agent), left: None };
        state.give_up_waiting(agent);
        let parts = match state.seated.get(&agent) {
            Some(seated) => {
                let (left, has_left) = oneshot::channel();
                parting.left = Some(left);
                seated.seat.signs.parts.store(true, Ordering::Release);
                // Refused only if other orders wait, and the sign is seen before any.
                let _ = seated.seat.address.tell(Lane::Control, 0, Told::Look);
                Parts::Told(has_left)
            }
            None => Parts::Out,
        };
        state.busy(agent);
        state.parting.insert(agent, parting);
        Some(parts)
    }

    /// The agent cannot leave now, as its actor finds.
    pub(crate) fn stays(&self, seat: &Seat) {
        let mut state = self.lock();
        if state.mine(seat).is_some() {
            seat.signs.parts.store(false, Ordering::Release);
            state.parting.remove(&seat.agent);
        }
    }

    /// The agent does not leave after all. Whether it is to be called.
    pub(crate) fn comes_back(&self, agent: AgentId) -> bool {
        let mut state = self.lock();
        let parting = state.parting.remove(&agent);
        match state.seated.get(&agent) {
            Some(seated) => seated.seat.signs.parts.store(false, Ordering::Release),
            None => drop(state.asleep.insert(agent)),
        }
        parting.is_some_and(|parting| parting.was_called)
    }

    /// The agent is another node's.
    pub(crate) fn has_parted(&self, agent: AgentId) {
        let mut state = self.lock();
        state.parting.remove(&agent);
        state.asleep.remove(&agent);
    }

    /// What is in memory of an agent, if it is there, is not what another node has left of it.
    pub(crate) fn outdate(&self, agent: AgentId) {
        let state = self.lock();
        if let Some(seated) = state.seated.get(&agent) {
            seated.seat.signs.outdated.store(true, Ordering::Release);
            // Refused only if a `Look` waits already.
            let _ = seated.seat.address.tell(Lane::Work, 0, Told::Look);
        }
    }
}
