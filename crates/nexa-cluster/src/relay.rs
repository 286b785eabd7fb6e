//! What stands between a node and the others. Made first, because both the node and its links need it; given the cluster
//! once that is there. What comes before is dropped: hints are made good by the sweep, and answers are offered again.
//!
//! Hints are gathered while earlier ones are on their way, so many for one node go as one message. At most
//! [`HINTS_MAX`] agents wait for each of at most [`NODES_MAX`] nodes; beyond that a hint is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use futures::future::BoxFuture;
use minicbor::{Decode, Encode};
use nexa_event::asks::Asks;
use nexa_event::fact::EffectResult;
use nexa_member::say::{self, AGENTS_MAX, Hint};
use nexa_ports::neighbours::{Carried, Neighbours};
use nexa_types::{AgentId, EffectKey, Epoch, Generation, NodeId, Seq, Spend};
use tokio::sync::Notify;
use tracing::debug;

use crate::inner::Inner;
use crate::peers::{Class, Handler, Refusal, Service, Why};

/// Agents to be hinted at that wait for one node.
pub const HINTS_MAX: usize = 16_384;
/// Nodes that hints wait for.
pub(crate) const NODES_MAX: usize = 1_024;

/// What is said between nodes about an agent that has moved.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) enum Moving {
    /// The answer of an effect that its sender went on with.
    #[n(0)]
    Carried {
        #[n(0)]
        agent: AgentId,
        #[n(1)]
        key: EffectKey,
        #[n(2)]
        seq: Seq,
        #[n(3)]
        attempt: u32,
        #[n(4)]
        result: EffectResult,
        #[n(5)]
        spend: Spend,
    },
    /// The receiver may forget such an answer.
    #[n(1)]
    Recorded {
        #[n(0)]
        agent: AgentId,
        #[n(1)]
        key: EffectKey,
    },
}

/// How many agents may be born here.
#[derive(Debug, Default)]
struct Room {
    leader: Epoch,
    level: u64,
    /// What the node owned when it was looked at last, and how many births were granted since.
    owned: u64,
    granted: u64,
    /// Births that were asked for since the node began.
    births: u64,
    is_shut: bool,
}

/// A node's way to the others, and theirs to it.
#[derive(Default)]
pub struct Relay {
    cluster: OnceLock<Weak<Inner>>,
    room: Mutex<Room>,
    hints: Mutex<Hints>,
    pub(crate) has_hints: Notify,
}

#[derive(Default)]
struct Hints {
    wake: BTreeMap<NodeId, BTreeSet<AgentId>>,
    unplaced: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    /// One that leads nowhere yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn attach(&self, cluster: Weak<Inner>) -> bool {
        self.cluster.set(cluster).is_ok()
    }

    fn cluster(&self) -> Option<Arc<Inner>> {
        self.cluster.get()?.upgrade()
    }

    /// The leader's word about births here. An older leader's says nothing.
    pub(crate) fn slice(&self, leader: Epoch, level: u64) {
        let mut room = lock(&self.room);
        if leader >= room.leader {
            (room.leader, room.level) = (leader, level);
        }
    }

    /// What the node owns now, and whether it takes nothing new.
    pub(crate) fn owns(&self, agents: u64, is_shut: bool) {
        let mut room = lock(&self.room);
        (room.owned, room.granted, room.is_shut) = (agents, 0, is_shut);
    }

    /// Births that were asked for since the node began, whether there was room or not.
    pub(crate) fn births(&self) -> u64 {
        lock(&self.room).births
    }

    /// Sends what has been gathered. What cannot be sent is dropped.
    pub(crate) fn flush(&self, cluster: &Inner) {
        let Hints { wake, unplaced } = std::mem::take(&mut *lock(&self.hints));
        for (node, agents) in wake {
            let agents: Vec<AgentId> = agents.into_iter().collect();
            for part in agents.chunks(AGENTS_MAX) {
                let body = say::write(&Hint::Wake(part.to_vec())).into();
                if let Err(error) = cluster.peers.tell(&node, Class::Work, Service::Hints, body) {
                    debug!(%node, %error, "hints were dropped");
                    break;
                }
            }
        }
        if unplaced {
            cluster.hint_leader();
        }
    }

    fn move_on(&self, to: &NodeId, message: &Moving) {
        if let Some(cluster) = self.cluster() {
            let body = say::write(message).into();
            if let Err(error) = cluster.peers.tell(to, Class::Work, Service::Moving, body) {
                debug!(node = %to, %error, "what an agent left behind was not sent");
            }
        }
    }
}

impl Neighbours for Relay {
    fn wake(&self, node: &NodeId, agents: &[AgentId]) {
        let mut hints = lock(&self.hints);
        if hints.wake.len() < NODES_MAX || hints.wake.contains_key(node) {
            let waiting = hints.wake.entry(node.clone()).or_default();
            let room = HINTS_MAX.saturating_sub(waiting.len());
            waiting.extend(agents.iter().take(room));
        }
        drop(hints);
        self.has_hints.notify_one();
    }

    fn unplaced(&self, _: &[AgentId]) {
        lock(&self.hints).unplaced = true;
        self.has_hints.notify_one();
    }

    fn room(&self, wanted: usize) -> usize {
        let mut room = lock(&self.room);
        room.births += wanted as u64;
        if room.is_shut {
            return 0;
        }
        let left = room.level.saturating_sub(room.owned + room.granted);
        let granted = left.min(wanted as u64);
        room.granted += granted;
        usize::try_from(granted).unwrap_or(usize::MAX)
    }

    fn suits(&self, asks: &Asks) -> bool {
        self.cluster().is_some_and(|cluster| {
            let members = cluster.membership.members().borrow().clone();
            let me = members.nodes.get(&cluster.me).filter(|member| member.generation == cluster.generation);
            me.is_some_and(|me| asks.is_met_by(&me.card.labels, me.card.cpu_milli, me.card.memory_bytes))
        })
    }

    fn deliver(&self, node: &NodeId, answer: &Carried) {
        let Carried { agent, key, seq, attempt, result, spend } = answer.clone();
        self.move_on(node, &Moving::Carried { agent, key, seq, attempt, result, spend });
    }

    fn recorded(&self, carrier: &NodeId, agent: AgentId, key: EffectKey) {
        self.move_on(carrier, &Moving::Recorded { agent, key });
    }
}

impl Handler for Relay {
    fn told(&self, from: &NodeId, generation: Generation, service: Service, body: Bytes) {
        if let Some(cluster) = self.cluster()
            && let Err(error) = cluster.told(from, generation, service, &body)
        {
            debug!(%from, ?service, error, "a message was not understood");
        }
    }

    fn asked(
        &self,
        from: &NodeId,
        _: Generation,
        service: Service,
        body: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        let from = from.clone();
        Box::pin(async move {
            let cluster = self.cluster().ok_or_else(|| Refusal::new(Why::Busy, "the node is not ready yet"))?;
            cluster.asked(&from, service, &body).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn births_are_granted_up_to_the_slice_and_by_the_newest_leader() {
        let relay = Relay::new();
        assert_eq!(relay.room(5), 0, "nobody has said anything yet");
        relay.slice(Epoch(3), 10);
        relay.owns(4, false);
        assert_eq!((relay.room(5), relay.room(5), relay.room(5)), (5, 1, 0));
        assert_eq!(relay.births(), 20);
        relay.slice(Epoch(2), 1_000);
        assert_eq!(relay.room(1), 0);
        relay.owns(8, false);
        assert_eq!(relay.room(5), 2);
        relay.slice(Epoch(4), 20);
        relay.owns(8, true);
        assert_eq!(relay.room(5), 0, "it takes nothing new");
    }
}
