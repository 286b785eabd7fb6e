//! What a cluster needs of the node that it stands beside.

use std::sync::Arc;

use futures::future::BoxFuture;
use nexa_ports::neighbours::Carried;
use nexa_ports::store::StoreError;
use nexa_runtime::{Given, LiveHub, Node, NodeLoad, ReleaseError, Released};
use nexa_types::{AgentId, EffectKey, Epoch, NodeId};

use crate::leases::Slicing;

/// A node's side. [`Node`] is one; a test may have another.
pub trait Host: Send + Sync {
    /// See [`Node::adopt`].
    ///
    /// # Errors
    /// [`StoreError`]: to be said again.
    fn adopt(&self, given: Vec<Given>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// See [`Node::release`].
    ///
    /// # Errors
    /// [`ReleaseError`].
    fn release(&self, agent: AgentId, to: NodeId) -> BoxFuture<'_, Result<Released, ReleaseError>>;

    /// See [`Node::has_arrived`].
    fn has_arrived(&self, agent: AgentId);

    /// See [`Node::carried`].
    fn carried(&self, from: &NodeId, answer: Carried);

    /// See [`Node::recorded`].
    fn recorded(&self, agent: AgentId, key: EffectKey);

    /// See [`Node::gone`].
    fn gone(&self, node: &NodeId);

    /// See [`Node::holds`].
    fn holds(&self, agent: AgentId) -> Option<Epoch>;

    /// See [`Node::wake`]. What is refused is found by the node's sweep.
    fn wake(&self, agent: AgentId);

    /// See [`Node::load`].
    fn load(&self) -> NodeLoad;

    /// Where pieces of what agents say come and go. Nothing for one whose agents say nothing.
    fn live(&self) -> Option<LiveHub> {
        None
    }

    /// See [`Node::slices`]. Nothing for one that shares no model provider with others.
    fn slices(&self) -> Option<Arc<dyn Slicing>> {
        None
    }
}

impl Host for Node {
    fn adopt(&self, given: Vec<Given>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(Self::adopt(self, given))
    }

    fn release(&self, agent: AgentId, to: NodeId) -> BoxFuture<'_, Result<Released, ReleaseError>> {
        Box::pin(async move { Self::release(self, agent, &to).await })
    }

    fn has_arrived(&self, agent: AgentId) {
        Self::has_arrived(self, agent);
    }

    fn carried(&self, from: &NodeId, answer: Carried) {
        Self::carried(self, from, answer);
    }

    fn recorded(&self, agent: AgentId, key: EffectKey) {
        Self::recorded(self, agent, key);
    }

    fn gone(&self, node: &NodeId) {
        Self::gone(self, node);
    }

    fn holds(&self, agent: AgentId) -> Option<Epoch> {
        Self::holds(self, agent)
    }

    fn wake(&self, agent: AgentId) {
        if let Err(error) = Self::wake(self, agent) {
            tracing::debug!(%agent, %error, "hint was dropped");
        }
    }

    fn load(&self) -> NodeLoad {
        Self::load(self)
    }

    fn live(&self) -> Option<LiveHub> {
        Some(Self::live(self).clone())
    }

    fn slices(&self) -> Option<Arc<dyn Slicing>> {
        Some(Arc::new(Self::slices(self)))
    }
}
