//! Carries out what agents wish for. An agent never waits in its own turn: it hands a wish over and is nudged.
//!
//! - [`models`]: asks models and calls tools, with slots and waiting lists. Effects in flight live here and not in the
//!   agent's actor, so a restart of the actor loses none of them.
//! - [`tools`]: one call of a tool, and what its end means.
//! - [`slots`]: who may send now and who waits, a [`lane`] for each provider; pure, and so are
//! - [`budget`]: what a provider takes in a minute, [`leased`]: how much of that is this node's where several ask it, and
//!   [`breaker`]: whether it is there at all.
//! - [`timers`]: nudges agents when they are due. Sleeps, deadlines and the expiry of approvals are all due times in
//!   the agent's row, so one timer an agent is enough, and losing this table loses nothing.
//!
//! A question to a person needs no carrier: it stands in the agent's stream, its answer is an input in the inbox, its
//! expiry is a due time. Children are started by the append that records them and need a nudge, nothing more.

mod breaker;
mod budget;
mod lane;
mod leased;
pub(crate) mod models;
pub(crate) mod slices;
pub(crate) mod slots;
pub(crate) mod timers;
pub(crate) mod tools;

use nexa_types::{AgentId, EffectKey, NodeId};

/// Why an agent should look around. A hint: the fact itself is in the store, the dispatcher or the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Its inbox has changed, or it was born.
    Inbox,
    /// An effect of it has ended.
    EffectEnded,
    /// A sending slot is held for it.
    SlotGranted,
    /// Its due time has come.
    Due,
    /// It asked to be called again.
    Again,
}

/// Tells an agent to look around, wherever it is.
pub(crate) trait Nudge: Send + Sync + 'static {
    /// Must not block. Nothing is lost if the hint gets lost; the sweep finds the agent later.
    fn nudge(&self, agent: AgentId, hint: Hint);

    /// Tells another node that the answer, which it carried, is recorded. Must not block; may get lost.
    fn recorded(&self, _carrier: &NodeId, _agent: AgentId, _key: EffectKey) {}
}

#[cfg(test)]
mod leased_sim_tests;
#[cfg(test)]
mod sim_tests;
