//! A node among others: what it is given, gives away, and hears of the calls that go on between.

use std::sync::Arc;

use nexa_ports::neighbours::Carried;
use nexa_ports::store::StoreError;
use nexa_types::{AgentId, EffectKey, Epoch, NodeId};

use super::{Core, Node};
use crate::config::NodeLoad;
use crate::dispatch::Hint;
use crate::dispatch::slices::Slices;
use crate::dispatch::slots::Finished;
use crate::moving::{self, Given, ReleaseError, Released};
use crate::takeover;

impl Node {
    /// Takes up agents that were placed on this node, or have moved to it. Those with something to do come into memory
    /// by priority, as room allows. What is stale or known already is left aside, so it may be said again.
    ///
    /// # Errors
    /// [`StoreError`] if rows could not be read; then some of them may have been taken up. Say it again.
    pub async fn adopt(&self, given: Vec<Given>) -> Result<(), StoreError> {
        takeover::adopt(self.core(), given).await
    }

    /// An agent is about to be born on this node by somebody else's append, as the root of a workload. To be said before that:
    /// the node takes up no agent that it was not told of. Saying it of one that is not stored after all leaves an entry
    /// that stands for nobody, until [`Self::did_not_bear`].
    pub fn bears(&self, agent: AgentId) {
        self.core().ownership.born(agent);
    }

    /// It was not born here, but elsewhere or not at all.
    pub fn did_not_bear(&self, agent: AgentId) {
        self.core().ownership.forget(agent, Epoch(1));
    }

    /// Gives an agent to another node while it lives: it ends its step, leaves memory with a snapshot, and its row is
    /// changed. A call that it has in flight goes on here, and its answer follows it. The other node is to be told by
    /// [`Self::adopt`], with what this gives. Once begun this goes on to its end, also if the future is dropped.
    ///
    /// # Errors
    /// [`ReleaseError`]; except for [`ReleaseError::Stopped`] the agent is where it was and goes on.
    pub async fn release(&self, agent: AgentId, to: &NodeId) -> Result<Released, ReleaseError> {
        let release = tokio::spawn(moving::release(self.core().clone(), agent, to.clone()));
        release.await.unwrap_or(Err(ReleaseError::Stopped))
    }

    /// The node that an agent was released to says that it has taken it up: an answer that came meanwhile is offered at once,
    /// and not only when its next turn comes. Without this it comes later, and is not lost.
    pub fn has_arrived(&self, agent: AgentId) {
        self.core().models.has_arrived(agent);
    }

    /// An answer from the node that carries it, for an agent that came from there. One for an agent that is not here is
    /// left aside: its carrier offers it again.
    pub fn carried(&self, from: &NodeId, answer: Carried) {
        let core = self.core();
        let Carried { agent, key, seq, attempt, result, spend } = answer;
        let finished = Finished { key, seq, attempt, result, spend };
        // In one with the right, so that nothing is kept for one that leaves meanwhile.
        if core.ownership.holding(agent, || core.models.is_offered(from, agent, finished)) == Some(true) {
            core.hint(agent, Hint::EffectEnded);
        }
    }

    /// The new owner of an agent has the answer, which this node carried, recorded, or does not want it.
    pub fn recorded(&self, agent: AgentId, key: EffectKey) {
        self.core().models.is_recorded(agent, key);
    }

    /// A node is gone: what it carried is sent again, or counts as lost, by the rules of the ledger.
    pub fn gone(&self, node: &NodeId) {
        self.core().models.carrier_is_gone(node);
    }

    /// What the node may use of the providers that it shares with others.
    pub fn slices(&self) -> Slices {
        let core = self.core();
        Slices { models: core.models.clone(), budgets: core.config.leased.clone().into() }
    }

    /// How much the node has to do, for others to compare. Cheap.
    pub fn load(&self) -> NodeLoad {
        self.core().load()
    }

    /// The right to an agent that this node was given last; none if the agent is not its own.
    pub fn holds(&self, agent: AgentId) -> Option<Epoch> {
        self.core().ownership.epoch(agent)
    }

    /// Agents of this node after one, by id, at most `limit`. Complete only for a node among others.
    pub fn owned(&self, after: Option<AgentId>, limit: usize) -> Vec<AgentId> {
        self.core().ownership.list(after, limit)
    }
}

impl Core {
    /// Offers what is carried, as long as the node runs.
    pub(super) fn serve_others(self: &Arc<Self>) {
        if self.config.others {
            let core = self.clone();
            self.keep("deliver", move || moving::deliver(core.clone()));
        }
    }
}
