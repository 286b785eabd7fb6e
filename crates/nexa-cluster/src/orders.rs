//! What a node does at a leader's word, and at the word of a node that an agent comes from.
//!
//! An order counts for the run that it names, and by the newest leader that the node has heard of. The second time it
//! changes nothing, so it is repeated until it is answered.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nexa_member::say::{self, Done, Held, Moved, Order};
use nexa_ports::membership::Members;
use nexa_runtime::{Carrier, Given, Released, trace};
use nexa_types::{AgentId, Millis, NodeId};
use tracing::{debug, warn};

use crate::inner::Inner;
use crate::peers::{Class, Refusal, Service, Why};

/// How long a node may take to take up an agent that has moved to it, before it is told again.
const MOVED_WITHIN: Duration = Duration::from_secs(1);
/// For how long it is told. Afterwards the leader's patrol finds that it lacks the agent.
const MOVED_FOR: Millis = Millis(8_000);
/// Between two tries.
const MOVED_PAUSE: Millis = Millis(50);

/// Does what a leader wants of this node.
pub(crate) async fn obey(inner: &Inner, order: Order) -> Result<Done, Refusal> {
    let leader = order.leader();
    let lock = || inner.taken.lock().unwrap_or_else(PoisonError::into_inner);
    if order.run() != inner.generation {
        return Err(Refusal::new(Why::NotFound, "that run of the node is over"));
    }
    if !lock().obeys(leader) {
        return Err(Refusal::new(Why::NotMe, format!("the node knows a later leader than that of epoch {leader}")));
    }
    match order {
        Order::Placed { number, agents, trace, .. } => {
            let count = agents.len() as u64;
            let given = agents.into_iter().map(|(agent, epoch)| Given { agent, epoch, carrier: None, trace }).collect();
            adopt(inner, given).await?;
            lock().took(leader, number, count);
            Ok(Done::Adopted)
        }
        Order::Check { agents, .. } => {
            let missing = agents.into_iter().filter(|held| !holds(inner, held)).map(|held| held.agent);
            Ok(Done::Missing(missing.collect()))
        }
        Order::Release { agent, to, .. } => {
            let seen = trace::migrate(agent, &inner.me, &to);
            let _parting = Parting::begin(inner);
            let since = inner.clock.now();
            // Read before: what is still awaited of a run in it then was not heard to be over.
            let members = crate::inner::lock(&inner.seen).members.clone();
            match inner.host.release(agent, to.clone()).await {
                Ok(released) => {
                    trace::follows(&seen, released.trace);
                    if bring(inner, &members, agent, &to, released).await {
                        inner.counters.moved(Some(inner.clock.now().since(since)));
                    } else {
                        // It is the other node's all the same, and is found there.
                        inner.counters.moved(None);
                        trace::failed(&seen, "not_told");
                    }
                    Ok(Done::Released)
                }
                Err(error) => {
                    debug!(%agent, %to, %error, "agent does not move");
                    inner.counters.moved(None);
                    trace::failed(&seen, error.kind());
                    Err(Refusal::new(Why::Busy, error.to_string()))
                }
            }
        }
    }
}

/// An agent is given away until this is dropped. A node that leaves waits for that: it is the other's as soon as its row says
/// so, and nobody but this node tells the other.
struct Parting<'a>(&'a AtomicUsize);

impl<'a> Parting<'a> {
    fn begin(inner: &'a Inner) -> Self {
        inner.parting.fetch_add(1, Ordering::Relaxed);
        Self(&inner.parting)
    }
}

impl Drop for Parting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn holds(inner: &Inner, held: &Held) -> bool {
    inner.host.holds(held.agent).is_some_and(|right| right.covers(held.epoch, held.is_cancelled))
}

async fn adopt(inner: &Inner, given: Vec<Given>) -> Result<(), Refusal> {
    inner.host.adopt(given).await.map_err(|error| {
        warn!(%error, "agents were not taken up");
        Refusal::new(Why::Failed, error.to_string())
    })
}

/// Tells a node of an agent that has moved to it, until it has taken it up; says whether it has.
async fn bring(inner: &Inner, members: &Members, agent: AgentId, to: &NodeId, released: Released) -> bool {
    let Released { epoch, carrier, trace } = released;
    let carrier = carrier.map(|Carrier { node, key, attempt, deadline }| {
        let other = || members.nodes.get(&node).map(|member| member.generation);
        let run = if node == inner.me { Some(inner.generation) } else { other() };
        say::Carrier { node, key, attempt, deadline, run }
    });
    let until = inner.clock.now().after(MOVED_FOR);
    let run = || inner.membership.members().borrow().nodes.get(to).map(|member| member.generation);
    let Some(first) = run() else { return false };
    let body = bytes::Bytes::from(say::write(&Moved { agent, epoch, carrier, run: first, trace }));
    // A later run of it takes over what is its own by itself, and a node that is gone has it taken from it.
    while run() == Some(first) && inner.clock.now() < until {
        match inner.peers.ask(to, Class::Work, Service::Moving, body.clone(), MOVED_WITHIN).await {
            Ok(_) => {
                inner.host.has_arrived(agent);
                return true;
            }
            Err(error) => debug!(%agent, %to, %error, "the new node of an agent was not told"),
        }
        inner.clock.wait_until(inner.clock.now().after(MOVED_PAUSE)).await;
    }
    warn!(%agent, %to, "the new node of an agent was not told; the leader's patrol will find it");
    false
}

/// An agent has moved here. Who is known to be gone brings no answer, and is not waited for: whoever gave the agent away may
/// not have heard of it.
pub(crate) async fn take_up(inner: &Inner, moved: Moved) -> Result<(), Refusal> {
    let Moved { agent, epoch, carrier, run, trace } = moved;
    if run != inner.generation {
        return Err(Refusal::new(Why::NotFound, "that run of the node is over"));
    }
    let is_over = |carrier: &say::Carrier| {
        let members = inner.membership.members();
        let members = members.borrow();
        carrier.run.is_some_and(|run| members.is_over(&carrier.node, run))
    };
    let said = carrier.filter(|carrier| !is_over(carrier));
    let carrier =
        said.clone().map(|say::Carrier { node, key, attempt, deadline, .. }| Carrier { node, key, attempt, deadline });
    adopt(inner, vec![Given { agent, epoch, carrier, trace }]).await?;
    // It may have gone while the agent's row was read, when nothing was awaited of it yet.
    if let Some(carrier) = said.filter(is_over) {
        inner.host.gone(&carrier.node);
    }
    Ok(())
}
