//! What goes on for agents that move, as [`super::super::slots::carry`] decides it.

use nexa_types::{AgentId, EffectKey, NodeId};

use super::super::Hint;
use super::super::slots::carry::{Offer, Round, Sent};
use super::super::slots::{Finished, Slots};
use super::Models;

impl Models {
    /// An agent has gone to another node: gives up its wish, and goes on for it with what it waits for. Gives that, and who
    /// is to be told that it has a slot now.
    pub(crate) fn hand_over(&self, agent: AgentId, to: &NodeId) -> (Option<Sent>, Vec<AgentId>) {
        self.with_slots(|slots, now| slots.hand_over(agent, to, now))
    }

    /// An agent has come, with what is said to go on for it.
    pub(crate) fn take_up(&self, agent: AgentId, sent: Option<Sent>) {
        self.with_slots(|slots, _| slots.take_up(agent, sent));
    }

    /// Who goes on with an effect of an agent: `Some(None)` is this node, `None` nobody that is known here.
    pub(crate) fn carrier(&self, agent: AgentId, key: EffectKey) -> Option<Option<NodeId>> {
        self.lock().carrier(agent, key)
    }

    /// An answer has come from the node that carries it, for an agent of this node. Whether that is to be told.
    pub(crate) fn is_offered(&self, from: &NodeId, agent: AgentId, finished: Finished) -> bool {
        self.with_slots(|slots, _| slots.is_offered(from, agent, finished))
    }

    /// An answer that has come says nothing to the agent as it is known here: forgotten, so that its carrier offers it again.
    /// Whether it came from a carrier.
    pub(crate) fn turn_away(&self, agent: AgentId, key: EffectKey) -> bool {
        self.with_slots(|slots, _| slots.turn_away(agent, key))
    }

    /// The answer of a carried effect is recorded by its agent's node, or not wanted there.
    pub(crate) fn is_recorded(&self, agent: AgentId, key: EffectKey) {
        self.change(|slots, now| slots.is_recorded(agent, key, now));
    }

    /// A node is gone; those whose answers it carried look what to do.
    pub(crate) fn carrier_is_gone(&self, node: &NodeId) {
        for agent in self.with_slots(|slots, _| slots.carrier_is_gone(node)) {
            self.shared.nudge.nudge(agent, Hint::Again);
        }
    }

    /// Waits until something is due for agents that have moved, and gives what is to be offered. Cancel-safe.
    pub(crate) async fn offers(&self) -> Vec<Offer> {
        loop {
            let due = self.lock().round_due();
            let clock = &self.shared.clock;
            match due {
                Some(due) if due <= clock.now() => {
                    let Round { offers, given_up, granted } = self.with_slots(Slots::round);
                    self.tell(granted);
                    for agent in given_up {
                        self.shared.nudge.nudge(agent, Hint::Again);
                    }
                    if !offers.is_empty() {
                        return offers;
                    }
                }
                Some(due) => tokio::select! {
                    biased;
                    () = clock.wait_until(due) => {}
                    () = self.shared.carry.notified() => {}
                },
                None => self.shared.carry.notified().await,
            }
        }
    }

    /// The node that an agent went to has it.
    pub(crate) fn has_arrived(&self, agent: AgentId) {
        self.with_slots(|slots, now| slots.has_arrived(agent, now));
    }

    /// The agent of a carried effect has moved on.
    pub(crate) fn redirect(&self, agent: AgentId, key: EffectKey, node: NodeId) {
        self.with_slots(|slots, _| slots.redirect(agent, key, node));
    }

    /// Waits until nothing is carried for agents that have left. Cancel-safe.
    pub(crate) async fn delivered(&self) {
        loop {
            let fewer = self.shared.fewer_carried.notified();
            tokio::pin!(fewer);
            fewer.as_mut().enable();
            if self.lock().carried() == 0 {
                return;
            }
            fewer.await;
        }
    }
}
