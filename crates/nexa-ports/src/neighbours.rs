//! The port from a node to the others, as its agents need it.
//!
//! What agents say to each other stands in the store's inboxes; here go only hints that somebody should look, and the
//! answers of effects that went on while their agent moved. A hint that is lost delays, and loses nothing: its receiver's
//! sweep finds what it was about. So nothing here waits or fails.

use nexa_event::asks::Asks;
use nexa_event::fact::EffectResult;
use nexa_types::{AgentId, EffectKey, NodeId, Seq, Spend};

/// The answer of an effect that was sent by a node before its agent moved to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Carried {
    /// Whose effect it is.
    pub agent: AgentId,
    /// The effect's key.
    pub key: EffectKey,
    /// Its number in its agent's brain.
    pub seq: Seq,
    /// Which attempt was answered.
    pub attempt: u32,
    /// The answer.
    pub result: EffectResult,
    /// What it took.
    pub spend: Spend,
}

/// How a node reaches the others.
pub trait Neighbours: Send + Sync {
    /// Agents of another node have something to do.
    fn wake(&self, node: &NodeId, agents: &[AgentId]);

    /// These agents were born without an owner: whoever leads should place them.
    fn unplaced(&self, agents: &[AgentId]);

    /// How many of `wanted` agents may be born on this node, now. What is beyond is born without an owner.
    fn room(&self, wanted: usize) -> usize;

    /// Whether this node has what an agent asks for. One that it does not suit is born without an owner. A node alone
    /// suits all.
    fn suits(&self, _asks: &Asks) -> bool {
        true
    }

    /// An answer for an agent that has moved to another node. It is offered again until the node says that it has it
    /// recorded, so it may be offered more than once.
    fn deliver(&self, node: &NodeId, answer: &Carried);

    /// The answer of an effect, which this node was given by a carrier, is recorded.
    fn recorded(&self, carrier: &NodeId, agent: AgentId, key: EffectKey);
}

/// A node without others: all agents are its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Neighbours for Alone {
    fn wake(&self, _: &NodeId, _: &[AgentId]) {}

    fn unplaced(&self, _: &[AgentId]) {}

    fn room(&self, wanted: usize) -> usize {
        wanted
    }

    fn deliver(&self, _: &NodeId, _: &Carried) {}

    fn recorded(&self, _: &NodeId, _: AgentId, _: EffectKey) {}
}
