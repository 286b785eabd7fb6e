//! Agents that move from node to node while they live.
//!
//! A migration is one change of a row: `(this node, epoch)` becomes `(that node, epoch + 1)`. Before it the agent leaves
//! memory, between two steps or while it waits, with a snapshot; if the row is then not changed, it goes on here, and
//! once it is, there is no way back. Where the store does not say which, this node claims the row for itself under the
//! same epoch as it gave it away: only one of the two can be stored.
//!
//! A call in flight stays where it was sent. This node goes on with it, and offers its answer to the node that has the
//! agent by then, until that says that it is recorded. Hints for an agent that has left are passed on for a while.
//!
//! Bounds: [`LEFT_MAX`] agents that have left are remembered, for [`LEFT_FOR`] and [`FORWARDS_MAX`] hints each; beyond
//! that a hint is dropped, and the sweep of the agent's node finds it. [`RELEASE_WAIT`] is waited for a step to end.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use nexa_event::envelope::TraceContext;
use nexa_ports::neighbours::Carried;
use nexa_ports::store::{AgentRow, Place, Rows, StoreError};
use nexa_types::planted::{Bug, planted};
use nexa_types::{AgentId, EffectKey, Epoch, Millis, NodeId, Timestamp};
use tracing::{debug, info, warn};

use crate::dispatch::Hint;
use crate::dispatch::slots::carry::{Offer, Sent};
use crate::node::Core;
use crate::residency::Parts;
use crate::supervise::RestartPolicy;
use crate::waits::until_shown;

/// How long an agent that is to move may take to end its step.
pub const RELEASE_WAIT: Millis = Millis(5_000);
/// How long hints for an agent that has left are passed on.
pub const LEFT_FOR: Millis = Millis(30_000);
/// How many of them, so that two nodes of which each takes the other for the owner do not go on for long.
const FORWARDS_MAX: u32 = 64;
/// Agents that have left and are remembered. Above it the one that left first is forgotten.
const LEFT_MAX: usize = 65_536;
/// Pauses while the store does not say whether an agent has left: as while it is away.
const STORE_PAUSES: RestartPolicy = RestartPolicy::SERVICE;

/// An agent that a node is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The agent.
    pub agent: AgentId,
    /// The right to it.
    pub epoch: Epoch,
    /// Who goes on with what it has in flight; without one, that is sent again by the ledger's rules.
    pub carrier: Option<Carrier>,
    /// What led here: the order of a leader, or the agent's last turn on the node that it comes from.
    pub trace: Option<TraceContext>,
}

impl Given {
    /// Whether the agent's row says that it is this node's, by this very right. Else it is not taken up.
    #[must_use]
    pub fn is_meant_by(&self, row: &AgentRow, node: &NodeId) -> bool {
        let is_ours = row.node.as_ref() == Some(node) && !row.state.is_terminal();
        is_ours && self.epoch.covers(row.epoch, row.cancelled)
    }
}

/// Who goes on with an effect of an agent that has moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carrier {
    /// The node that sent it.
    pub node: NodeId,
    /// The effect's key.
    pub key: EffectKey,
    /// Which sending.
    pub attempt: u32,
    /// Nobody waits for the answer after this.
    pub deadline: Timestamp,
}

/// An agent that has left for another node, which is to be told: it is that node's from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// The new owner's right.
    pub epoch: Epoch,
    /// Who goes on with what it has in flight: this node, or one that it came from.
    pub carrier: Option<Carrier>,
    /// Its last turn here, if that is known and exported.
    pub trace: Option<TraceContext>,
}

/// Why an agent has not left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// It belongs to another node or to none, or has ended.
    #[error("the agent is not this node's, or has ended")]
    NotMine,
    /// It is to go where it is.
    #[error("the agent is on {node} already")]
    Here {
        /// This node.
        node: NodeId,
    },
    /// It is in the middle of something that it cannot leave.
    #[error("the agent cannot leave now: {why}; try again later")]
    Busy {
        /// What it is.
        why: &'static str,
    },
    /// The store did not change its row. It goes on here.
    #[error("the agent stays, because its row was not changed")]
    Store(#[from] StoreError),
    /// This node stops, and does not know what became of it. The row says whose it is.
    #[error("this node stops")]
    Stopped,
}

impl ReleaseError {
    /// Which kind of reason, from a closed set.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotMine => "not_mine",
            Self::Here { .. } => "here",
            Self::Busy { .. } => "busy",
            Self::Store(_) => "store",
            Self::Stopped => "stopped",
        }
    }
}

struct Left {
    node: NodeId,
    until: Timestamp,
    forwards: u32,
}

/// Where agents went that have left.
#[derive(Default)]
pub(crate) struct Departed {
    left: Mutex<Leavers>,
}

#[derive(Default)]
struct Leavers {
    by_agent: HashMap<AgentId, Left>,
    /// Whoever left first is first.
    in_order: VecDeque<(Timestamp, AgentId)>,
}

impl Departed {
    fn note(&self, agent: AgentId, node: NodeId, now: Timestamp) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let Leavers { by_agent, in_order } = &mut *left;
        while let Some((until, first)) = in_order.front().copied()
            && (until <= now || in_order.len() >= LEFT_MAX)
        {
            in_order.pop_front();
            // It may have come back and left again since.
            if by_agent.get(&first).is_some_and(|left| left.until == until) {
                by_agent.remove(&first);
            }
        }
        let until = now.after(LEFT_FOR);
        in_order.push_back((until, agent));
        by_agent.insert(agent, Left { node, until, forwards: 0 });
    }

    fn forget(&self, agent: AgentId) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).by_agent.remove(&agent);
    }

    /// Whom to pass a hint on to.
    fn forward(&self, agent: AgentId, now: Timestamp) -> Option<NodeId> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let left = left.by_agent.get_mut(&agent).filter(|left| left.until > now && left.forwards < FORWARDS_MAX)?;
        left.forwards += 1;
        Some(left.node.clone())
    }
}

/// Gives an agent to another node. Goes on to its end once begun.
pub(crate) async fn release(core: Arc<Core>, agent: AgentId, to: NodeId) -> Result<Released, ReleaseError> {
    if to == core.config.node {
        return Err(ReleaseError::Here { node: to });
    }
    let known = core.ownership.epoch(agent).filter(|_| core.config.others);
    let from = known.ok_or(ReleaseError::NotMine)?;
    let parts = core.residency.part(agent).ok_or(ReleaseError::Busy { why: "it leaves already" })?;
    let was_seated = matches!(parts, Parts::Told(_));
    let given_away = match out_of_memory(&core, parts).await {
        Ok(()) => give_away(&core, agent, from, &to).await,
        Err(error) => Err(error),
    };
    match given_away {
        Ok(epoch) => Ok(core.part(agent, to, epoch)),
        Err(error) => {
            debug!(%agent, %to, %error, "agent stays");
            let was_called = core.residency.comes_back(agent);
            if core.ownership.epoch(agent).is_none() {
                // It may be given anew by now.
                core.lose(agent, Epoch(0));
            } else if was_called || was_seated {
                core.hint(agent, Hint::Inbox);
            }
            Err(error)
        }
    }
}

async fn out_of_memory(core: &Core, parts: Parts) -> Result<(), ReleaseError> {
    let Parts::Told(left) = parts else { return Ok(()) };
    let until = core.clock.now().after(RELEASE_WAIT);
    tokio::select! {
        biased;
        left = left => left.map_err(|_| ReleaseError::Busy { why: "it has a step that the store has not confirmed" }),
        () = core.stop.cancelled() => Err(ReleaseError::Stopped),
        () = until_shown(&*core.clock, until) => Err(ReleaseError::Busy { why: "its step takes long" }),
    }
}

/// Changes the row; gives the new owner's epoch.
async fn give_away(core: &Core, agent: AgentId, from: Epoch, to: &NodeId) -> Result<Epoch, ReleaseError> {
    let (first, place) = (from, |from| vec![Place { agent, from, node: to.clone() }]);
    let mut from = from;
    loop {
        match core.store.place(place(from)).await.map(|mut answers| answers.pop()) {
            Ok(Some(Ok(epoch))) => return Ok(epoch),
            // A cancel that came meanwhile has raised the epoch, and is the next owner's to carry out.
            Ok(_) => match core.store.row(agent).await? {
                Some(row) if core.owns(&row) && !row.state.is_terminal() && row.epoch != from && from == first => {
                    from = row.epoch;
                }
                row => {
                    core.ownership.forget(agent, row.map_or(Epoch(u64::MAX), |row| row.epoch));
                    return Err(ReleaseError::NotMine);
                }
            },
            Err(error @ StoreError::Ambiguous { .. }) => return claim(core, agent, from, to, error).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Nobody knows whether the row was changed, or still will be: takes the right that was given away, unless it is taken.
async fn claim(
    core: &Core,
    agent: AgentId,
    from: Epoch,
    to: &NodeId,
    doubt: StoreError,
) -> Result<Epoch, ReleaseError> {
    warn!(%agent, %to, %doubt, "nobody knows whether the agent has left");
    for tries in 1.. {
        let claim = Place { agent, from, node: core.config.node.clone() };
        match core.store.place(vec![claim]).await.map(|mut answers| answers.pop()) {
            Ok(Some(Ok(epoch))) => {
                core.ownership.given(agent, epoch);
                return Err(doubt.into());
            }
            Ok(_) => match core.store.row(agent).await {
                Ok(Some(row)) if row.node.as_ref() == Some(&core.config.node) => {
                    // An earlier claim was stored after all, or a cancel has raised the epoch.
                    if !core.ownership.covers(&row) {
                        core.ownership.given(agent, from.next());
                    }
                    return Err(doubt.into());
                }
                Ok(Some(row)) if row.node.as_ref() == Some(to) && row.epoch >= from.next() => return Ok(from.next()),
                Ok(_) => return Err(ReleaseError::NotMine),
                Err(error) => debug!(%agent, %error, "nobody knows yet"),
            },
            Err(error) => debug!(%agent, %error, "nobody knows yet"),
        }
        let pause = STORE_PAUSES.pause(tries, core.dice.roll());
        tokio::select! {
            biased;
            () = until_shown(&*core.clock, core.clock.now().after(pause)) => {}
            () = core.stop.cancelled() => break,
        }
    }
    Err(ReleaseError::Stopped)
}

/// Whom a carried answer is offered to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Nobody: its agent has ended.
    Nobody,
    /// The node that the agent went to from here, or that it went on to from there.
    Node(NodeId),
}

impl Address {
    /// By the agent's row, if that was read, and the node that was offered it before.
    #[must_use]
    pub fn of(row: Option<&AgentRow>, before: &NodeId, here: &NodeId) -> Self {
        match row {
            Some(row) if row.state.is_terminal() => Self::Nobody,
            Some(row) => Self::Node(row.node.clone().filter(|node| node != here).unwrap_or_else(|| before.clone())),
            None => Self::Node(before.clone()),
        }
    }
}

/// Offers the answers of carried effects to the nodes that have their agents. Runs until the node stops.
pub(crate) async fn deliver(core: Arc<Core>) {
    loop {
        let offers = core.models.offers().await;
        // The row says where an agent went on to from where it went; the first time nobody can know better than this node.
        let mut doubtful: Vec<AgentId> =
            offers.iter().filter(|offer| offer.offered > 0).map(|offer| offer.agent).collect();
        doubtful.dedup();
        let limit = doubtful.len();
        let rows = match limit {
            0 => Vec::new(),
            // While the store is away nothing can be recorded either.
            _ => core.store.rows(Rows::Agents(doubtful), None, limit).await.unwrap_or_default(),
        };
        let rows: BTreeMap<AgentId, AgentRow> = rows.into_iter().map(|row| (row.agent, row)).collect();
        offers.into_iter().for_each(|offer| core.offer(offer.agent, rows.get(&offer.agent), offer));
    }
}

impl Core {
    fn offer(&self, agent: AgentId, row: Option<&AgentRow>, offer: Offer) {
        let Offer { to: before, finished, offered, .. } = offer;
        let Address::Node(to) = Address::of(row, &before, &self.config.node) else {
            return self.models.is_recorded(agent, finished.key);
        };
        if to != before {
            self.models.redirect(agent, finished.key, to.clone());
        }
        debug!(%agent, %to, offered, "answer of a carried effect is offered");
        let crate::dispatch::slots::Finished { key, seq, attempt, result, spend } = finished;
        self.neighbours.deliver(&to, &Carried { agent, key, seq, attempt, result, spend });
    }

    /// The agent is another node's: forgets it, but for what is in flight.
    fn part(self: &Arc<Self>, agent: AgentId, to: NodeId, epoch: Epoch) -> Released {
        let left = self.ownership.lose(agent, Epoch(epoch.0.saturating_sub(1)), || {
            self.departed.note(agent, to.clone(), self.clock.now());
            self.timers.set(agent, None);
            let (sent, granted) = self.models.hand_over(agent, &to);
            self.residency.has_parted(agent);
            (sent, self.next_after(agent, granted))
        });
        let Some((sent, next)) = left else {
            // It was taken from there and given to this node again, with all that it has in flight.
            self.residency.comes_back(agent);
            self.hint(agent, Hint::Inbox);
            return Released { epoch, carrier: None, trace: None };
        };
        self.tell_next(next);
        info!(%agent, %to, %epoch, carried = sent.is_some(), "agent has moved");
        let carrier = sent.map(|Sent { key, attempt, deadline, by }| Carrier {
            node: by.unwrap_or_else(|| self.config.node.clone()),
            key,
            attempt,
            deadline,
        });
        Released { epoch, carrier, trace: self.leads.take(agent) }
    }

    /// The agent is another node's, which this one was not asked about, or has ended elsewhere.
    pub(crate) fn lose(self: &Arc<Self>, agent: AgentId, epoch: Epoch) {
        // Whoever is in memory, or leaves, finds out by itself.
        if self.residency.holds(agent) {
            return;
        }
        debug!(%agent, %epoch, "agent is another node's");
        let lost = self.ownership.lose(agent, epoch, || {
            self.leads.take(agent);
            self.residency.has_parted(agent);
            self.let_go(agent)
        });
        lost.into_iter().for_each(|next| self.tell_next(next));
    }

    /// Takes the right to an agent, if its row says so and it is news.
    pub(crate) fn is_given(&self, given: &Given, row: &AgentRow) -> bool {
        if !given.is_meant_by(row, &self.config.node) {
            debug!(agent = %row.agent, given = %given.epoch, current = %row.epoch, "agent is not taken up: that is stale");
            return false;
        }
        let sent = given.carrier.clone().map(|Carrier { node, key, attempt, deadline }| {
            let by = (node != self.config.node).then_some(node);
            Sent { key, attempt, deadline, by }
        });
        self.ownership.take(row.agent, given.epoch, || {
            self.departed.forget(row.agent);
            self.leads.note(row.agent, given.trace);
            self.models.take_up(row.agent, sent);
            self.residency.outdate(row.agent);
        })
    }

    /// Whether a row is this node's, under the right that it was given.
    pub(crate) fn owns(&self, row: &AgentRow) -> bool {
        row.node.as_ref() == Some(&self.config.node) && self.ownership.covers(row)
    }

    /// Passes a hint on for an agent that has left; drops any other.
    pub(crate) fn pass_on(&self, agent: AgentId) {
        if let Some(node) = self.departed.forward(agent, self.clock.now()) {
            self.neighbours.wake(&node, &[agent]);
        }
    }

    /// Tells those whose inboxes have changed: here, or at the nodes that have them.
    pub(crate) fn tell_posted(self: &Arc<Self>, posted: &[AgentId], elsewhere: &[(AgentId, NodeId)]) {
        let mut by_node: BTreeMap<&NodeId, Vec<AgentId>> = BTreeMap::new();
        for (agent, node) in elsewhere {
            by_node.entry(node).or_default().push(*agent);
        }
        for (node, agents) in by_node.into_iter().filter(|_| !planted(Bug::HintsStayHome)) {
            self.neighbours.wake(node, &agents);
        }
        for agent in posted {
            if !elsewhere.iter().any(|(other, _)| other == agent) {
                self.hint(*agent, Hint::Inbox);
            }
        }
    }

    /// Of these agents those that other nodes have, when the store's own word was lost. A hint may get lost, so may this.
    pub(crate) async fn owners_elsewhere(&self, posted: &[AgentId]) -> Vec<(AgentId, NodeId)> {
        if posted.is_empty() || !self.config.others {
            return Vec::new();
        }
        let rows = self.store.rows(Rows::Agents(posted.to_vec()), None, posted.len()).await.unwrap_or_default();
        let owner = |row: AgentRow| row.node.filter(|node| *node != self.config.node).map(|node| (row.agent, node));
        rows.into_iter().filter_map(owner).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(n: usize) -> AgentId {
        AgentId::from_bytes((n as u128).to_be_bytes())
    }

    #[test]
    fn hints_follow_an_agent_for_a_while_and_not_for_ever() {
        let (departed, n2, n3) = (Departed::default(), NodeId::new("n2").unwrap(), NodeId::new("n3").unwrap());
        departed.note(agent(1), n2.clone(), Timestamp(0));
        assert_eq!(departed.forward(agent(1), Timestamp(29_999)), Some(n2.clone()));
        assert_eq!(departed.forward(agent(1), Timestamp(30_000)), None);
        departed.note(agent(2), n2.clone(), Timestamp(0));
        let forwards = (0..100).filter(|_| departed.forward(agent(2), Timestamp(1)).is_some()).count();
        assert_eq!(forwards, 64);
        departed.note(agent(2), n3.clone(), Timestamp(10));
        assert_eq!(departed.forward(agent(2), Timestamp(30_001)), Some(n3), "it came back and left again");
        departed.note(agent(3), n2.clone(), Timestamp(20));
        departed.forget(agent(3));
        assert_eq!(departed.forward(agent(3), Timestamp(21)), None);
    }

    #[test]
    fn whoever_left_first_is_forgotten_first() {
        let (departed, n2) = (Departed::default(), NodeId::new("n2").unwrap());
        for n in 0..=LEFT_MAX {
            departed.note(agent(n), n2.clone(), Timestamp(n as u64 / 100_000));
        }
        assert_eq!(departed.forward(agent(0), Timestamp(1)), None);
        assert_eq!(departed.forward(agent(1), Timestamp(1)), Some(n2));
        let Leavers { by_agent, in_order } = &*departed.left.lock().unwrap();
        assert_eq!((by_agent.len(), in_order.len()), (LEFT_MAX, LEFT_MAX));
    }
}
