//! What the parts of a node among others share, and where messages of other nodes go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use nexa_member::detector::{Detector, Look};
use nexa_member::leader::{Input, Limits, Mark};
use nexa_member::live::Subscribers;
use nexa_member::say::{self, Adopted, Answered, Command, Heartbeat, Hint, Load, Slice};
use nexa_ports::clock::Clock;
use nexa_ports::dice::Dice;
use nexa_ports::formats::{Unreadable, Writing};
use nexa_ports::leadership::{Leadership, Record};
use nexa_ports::membership::{Leader, Members, Membership, NodeCard, Standing};
use nexa_ports::neighbours::Carried;
use nexa_ports::store::{Store, StoreError};
use nexa_runtime::bounded::{Address, Lane};
use nexa_sched::lease::{BudgetsError, HolderId, LeaderSettings};
use nexa_types::{Epoch, Generation, Millis, NodeId, Timestamp, Version};
use tokio::runtime::Handle as Runtime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cluster::{COMMAND_WITHIN, ClusterError, TICK};
use crate::formats;
use crate::host::Host;
use crate::leader::{self, Message};
use crate::leases::{AHEAD, Leases, LeasesPorts};
use crate::live;
use crate::orders;
use crate::peers::{Class, Peers, Refusal, Service, Why};
use crate::relay::{Moving, Relay};
use crate::stats::Counters;
use nexa_member::taken::Taken;

/// After so long the leader's actor is told of a node's load also if that is the same.
const HEARD_AGAIN: Millis = Millis(1_000);
/// For how long a leader that has stepped down does not stand again.
const STAND_BACK: Millis = Millis(1_000);
/// What records of marks are called.
pub(crate) const MARK_PREFIX: &str = "cordon/";

pub(crate) struct Inner {
    pub(crate) me: NodeId,
    pub(crate) generation: Generation,
    pub(crate) card: NodeCard,
    pub(crate) limits: Limits,
    pub(crate) may_lead: bool,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) relay: Arc<Relay>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) leadership: Arc<dyn Leadership>,
    pub(crate) membership: Arc<dyn Membership>,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dice: Arc<dyn Dice>,
    pub(crate) writing: Writing,
    /// What this node knows of the cluster's formats while it leads. Held while the store is asked.
    pub(crate) raising: tokio::sync::Mutex<Option<formats::Led>>,
    pub(crate) leader: Address<Message>,
    pub(crate) office: Office,
    pub(crate) runtime: Runtime,
    pub(crate) stop: CancellationToken,
    pub(crate) taken: Mutex<Taken>,
    pub(crate) counters: Counters,
    /// Who listens where to what agents say here.
    pub(crate) live: Mutex<Subscribers>,
    pub(crate) detector: Mutex<Detector>,
    pub(crate) seen: Mutex<Seen>,
    pub(crate) levels: Mutex<BTreeMap<NodeId, Slice>>,
    pub(crate) leases: OnceLock<Leases>,
    pub(crate) is_leaving: AtomicBool,
    /// Agents that are given away: until the nodes that they go to have them.
    pub(crate) parting: AtomicUsize,
    pub(crate) lost: CancellationToken,
    pub(crate) failed: CancellationToken,
    /// What others write and this node does not read; set before `too_old` is told.
    pub(crate) outdated: OnceLock<Unreadable>,
    pub(crate) too_old: CancellationToken,
}

/// What was heard and noticed last.
#[derive(Default)]
pub(crate) struct Seen {
    /// Who is there: of whom that was there before and is not, it was said that they are gone.
    pub(crate) members: Arc<Members>,
    pub(crate) beats: BTreeMap<NodeId, (Generation, Heartbeat)>,
    pub(crate) look: Look,
    /// What the leader's actor was told of each node, and when.
    told: BTreeMap<NodeId, ((Generation, Load, Adopted), Timestamp)>,
}

/// Whether the leader's actor is elected.
#[derive(Default)]
pub(crate) struct Office {
    is_taken: AtomicBool,
    changed: Notify,
}

impl Office {
    pub(crate) fn set(&self, is_taken: bool) {
        if self.is_taken.swap(is_taken, Ordering::Relaxed) != is_taken {
            self.changed.notify_one();
        }
    }

    /// Waits until it is. For one task.
    pub(crate) async fn taken(&self) {
        while !self.is_taken.load(Ordering::Relaxed) {
            self.changed.notified().await;
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    /// Begins to hold slices of providers' budgets, and to hand them out when this node leads.
    pub(crate) fn lease_budgets(&self) -> Result<(), BudgetsError> {
        let Some(slices) = self.host.slices() else { return Ok(()) };
        let run = HolderId { node: self.me.clone(), generation: self.generation };
        let settings = LeaderSettings { ahead: Some(AHEAD), ..LeaderSettings::default() };
        let ports = LeasesPorts {
            slices,
            leadership: self.leadership.clone(),
            membership: self.membership.clone(),
            peers: self.peers.clone(),
            clock: self.clock.clone(),
        };
        let leases = Leases::start(run, settings, ports, self.stop.child_token())?;
        // Nobody else sets it.
        let _ = self.leases.set(leases);
        Ok(())
    }

    /// Takes in a list of members.
    pub(crate) fn take_in(&self, list: &Arc<Members>) {
        let now = self.clock.now();
        let runs: BTreeMap<NodeId, Generation> =
            list.nodes.iter().map(|(node, member)| (node.clone(), member.generation)).collect();
        let leader = list.leader.as_ref().map(|leader| leader.node.clone());
        lock(&self.detector).members(runs.clone(), leader, now);
        let met: Vec<(NodeId, Generation, String)> =
            (list.nodes.values()).map(|it| (it.card.id.clone(), it.generation, it.card.link.clone())).collect();
        self.peers.meet(&met);
        let gone = {
            let mut seen = lock(&self.seen);
            let before = seen.members.nodes.iter().map(|(node, member)| (node, member.generation));
            // Also one that was in no list that was seen. One that is in none yet is not gone.
            let heard = seen.beats.iter().map(|(node, (generation, _))| (node, *generation));
            let is_gone = |(node, generation): &(&NodeId, Generation)| list.is_over(node, *generation);
            let gone: BTreeSet<NodeId> = before.chain(heard).filter(is_gone).map(|(node, _)| node.clone()).collect();
            seen.beats.retain(|node, (generation, _)| !list.is_over(node, *generation));
            gone
        };
        for node in gone.iter().filter(|node| **node != self.me) {
            lock(&self.live).gone(node);
            info!(%node, "node is gone");
            self.host.gone(node);
        }
        for input in leader::inputs_of(list, &self.me, self.generation) {
            self.tell_leader(Lane::Control, input);
        }
        let mut seen = lock(&self.seen);
        seen.members = list.clone();
        // Of those who are new to it, it has heard nothing, whatever it was told.
        seen.told.clear();
    }

    /// Tells the leader's actor what it must hear of.
    pub(crate) fn tell_leader(&self, lane: Lane, input: Input) {
        let Err(overloaded) = self.leader.tell(lane, 0, Message::Input(input.clone())) else { return };
        warn!(%overloaded, "the leader's actor is behind");
        let (address, clock, stop) = (self.leader.clone(), self.clock.clone(), self.stop.clone());
        self.runtime.spawn(async move {
            while !stop.is_cancelled() && address.tell(lane, 0, Message::Input(input.clone())).is_err() {
                clock.wait_until(clock.now().after(TICK)).await;
            }
        });
    }

    pub(crate) async fn ask_leader(&self, command: Command) -> Result<(), ClusterError> {
        if let Command::RaiseFormat { format, by } = command {
            return Ok(formats::raise(self, format, &by).await?);
        }
        let asked = self.leader.ask(Lane::Work, 0, COMMAND_WITHIN, |reply| Message::Command(command, reply)).await;
        Ok(asked.map_err(|_| ClusterError::NoAnswer)??)
    }

    /// Somebody was born without an owner: whoever leads should look.
    pub(crate) fn hint_leader(&self) {
        let leader = self.membership.members().borrow().leader.clone();
        match leader {
            Some(leader) if leader.node == self.me => {
                let _ = self.leader.tell(Lane::Work, 0, Message::Input(Input::Unplaced));
            }
            Some(leader) => {
                let body = say::write(&Hint::Unplaced).into();
                // The next leader looks by itself.
                let _ = self.peers.tell(&leader.node, Class::Work, Service::Hints, body);
            }
            None => {}
        }
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    pub(crate) fn is_fenced(&self) -> bool {
        let standing = *self.membership.standing().borrow();
        match standing {
            Standing::Member { valid_until, generation } => {
                generation != self.generation || self.membership.now() >= valid_until
            }
            Standing::Outside | Standing::Lost => true,
        }
    }

    /// Looks who is silent.
    pub(crate) fn look(&self, now: Timestamp, lag: Millis, renewed_at: Timestamp) -> Look {
        let links = self.peers.links().borrow().clone();
        let mut detector = lock(&self.detector);
        for (peer, state) in links.iter() {
            detector.dialled(peer, state.is_refused);
        }
        detector.look(now, lag, renewed_at)
    }

    pub(crate) fn targets(&self) -> BTreeSet<NodeId> {
        lock(&self.detector).targets()
    }

    /// Keeps what a look found and how this node does, and tells the leader's actor.
    pub(crate) fn noticed(&self, look: &Look, load: Load) {
        let beat = Heartbeat { load, is_lonely: look.is_lonely, adopted: self.adopted(), ..Heartbeat::default() };
        let is_new = {
            let mut seen = lock(&self.seen);
            seen.beats.insert(self.me.clone(), (self.generation, beat.clone()));
            let is_new = seen.look.suspects != look.suspects;
            seen.look = look.clone();
            is_new
        };
        if is_new {
            let suspects = look.suspects.iter().map(|(node, _)| node.clone()).collect();
            self.tell_leader(Lane::Control, Input::Suspects(suspects));
        }
        self.heard(&self.me, self.generation, &beat);
    }

    /// Tells the leader's actor what a node has to do, if that is other than before; and now and then whatever it is.
    pub(crate) fn heard(&self, node: &NodeId, generation: Generation, beat: &Heartbeat) {
        let (load, adopted, now) = (beat.load, beat.adopted, self.clock.now());
        let what = (generation, load, adopted);
        let is_known =
            |(told, at): &((Generation, Load, Adopted), Timestamp)| *told == what && now.since(*at) < HEARD_AGAIN;
        if lock(&self.seen).told.get(node).is_some_and(is_known) {
            return;
        }
        let heard = Input::Heard { node: node.clone(), generation, load, adopted };
        // If it is refused, the next one comes soon.
        if self.leader.tell(Lane::Work, 0, Message::Input(heard)).is_ok() {
            lock(&self.seen).told.insert(node.clone(), (what, now));
        }
    }

    pub(crate) fn adopted(&self) -> Adopted {
        lock(&self.taken).adopted()
    }

    /// Slices for the nodes; empty unless this node leads.
    pub(crate) fn levels(&self) -> BTreeMap<NodeId, Slice> {
        lock(&self.levels).clone()
    }

    pub(crate) fn set_levels(&self, leader: Option<Epoch>, levels: BTreeMap<NodeId, u64>) {
        let slices = |leader: Epoch| levels.into_iter().map(move |(node, level)| (node, Slice { leader, level }));
        *lock(&self.levels) = leader.map(|leader| slices(leader).collect()).unwrap_or_default();
    }

    /// Ends the lease of a run whose process is gone.
    pub(crate) fn end_lease(&self, node: NodeId, generation: Generation) {
        let membership = self.membership.clone();
        self.runtime.spawn(async move {
            match membership.end_lease(node.clone(), generation).await {
                Ok(true) => warn!(%node, %generation, "node is dead: its lease was ended"),
                Ok(false) => {}
                Err(error) => warn!(%node, %generation, %error, "the lease of a dead node was not ended"),
            }
        });
    }

    /// What the store says is to be done with nodes.
    pub(crate) async fn marks(&self) -> Result<BTreeMap<NodeId, (Version, Mark)>, StoreError> {
        let records = self.leadership.records(MARK_PREFIX.to_owned()).await?;
        let mark = |record: Record| {
            let node: NodeId = record.name.strip_prefix(MARK_PREFIX)?.parse().ok()?;
            // What a newer build has written and this one does not know is at least no invitation.
            let mark =
                if record.value.is_empty() { Mark::Open } else { say::read(&record.value).unwrap_or(Mark::Cordoned) };
            Some((node, (record.version, mark)))
        };
        Ok(records.into_iter().filter_map(mark).collect())
    }

    /// Stops leading, and stands again a little later, when the membership service has heard of it: whoever stands before that
    /// has never resigned, is still the leader by the list, and does nothing.
    pub(crate) fn step_down(self: &Arc<Self>, why: &'static str) {
        warn!(node = %self.me, why, "steps down");
        self.membership.campaign(false);
        let inner = self.clone();
        self.runtime.spawn(async move {
            let mut members = inner.membership.members();
            let is_me = |leader: &Leader| leader.node == inner.me && leader.generation == inner.generation;
            let stands_back = async {
                inner.clock.wait_until(inner.clock.now().after(STAND_BACK)).await;
                members.wait_for(|list| !list.leader.as_ref().is_some_and(is_me)).await.is_ok()
            };
            tokio::select! {
                biased;
                is_heard = stands_back => {
                    inner.membership.campaign(is_heard && inner.may_lead && !inner.is_leaving());
                }
                () = inner.stop.cancelled() => {}
            }
        });
    }

    /// A message of another node.
    pub(crate) fn told(
        &self,
        from: &NodeId,
        generation: Generation,
        service: Service,
        body: &[u8],
    ) -> Result<(), String> {
        match service {
            Service::Heartbeat => {
                let beat: Heartbeat = say::read(body)?;
                let now = self.clock.now();
                lock(&self.detector).heard(from, generation, beat.suspects.clone(), beat.is_lonely, now);
                if let Some(Slice { leader, level }) = beat.slice {
                    self.relay.slice(leader, level);
                }
                if let Some(format) = beat.format {
                    self.hears(format);
                }
                self.heard(from, generation, &beat);
                let mut seen = lock(&self.seen);
                if seen.beats.get(from).is_none_or(|(known, _)| *known <= generation) {
                    seen.beats.insert(from.clone(), (generation, beat));
                }
            }
            Service::Hints => match say::read(body)? {
                Hint::Wake(agents) => agents.into_iter().for_each(|agent| self.host.wake(agent)),
                Hint::Unplaced => {
                    let _ = self.leader.tell(Lane::Work, 0, Message::Input(Input::Unplaced));
                }
            },
            Service::Moving => match say::read(body)? {
                Moving::Carried { agent, key, seq, attempt, result, spend } => {
                    self.host.carried(from, Carried { agent, key, seq, attempt, result, spend });
                }
                Moving::Recorded { agent, key } => self.host.recorded(agent, key),
            },
            Service::Leases => {
                if let Some(leases) = self.leases.get() {
                    leases.told(from, generation, body)?;
                }
            }
            Service::Live => live::told(self, from, generation, body)?,
            Service::Placing | Service::Queries => {
                return Err(format!("nothing is told about {service:?}, it is asked"));
            }
        }
        Ok(())
    }

    /// A question of another node.
    pub(crate) async fn asked(&self, _: &NodeId, service: Service, body: &[u8]) -> Result<Bytes, Refusal> {
        let malformed = |detail: String| Refusal::new(Why::Malformed, detail);
        match service {
            Service::Placing => {
                let order = say::read(body).map_err(malformed)?;
                Ok(say::write(&orders::obey(self, order).await?).into())
            }
            Service::Moving => {
                let moved = say::read(body).map_err(malformed)?;
                orders::take_up(self, moved).await?;
                Ok(Bytes::new())
            }
            Service::Queries => {
                let command = say::read(body).map_err(malformed)?;
                let refused = match self.ask_leader(command).await {
                    Ok(()) => None,
                    Err(ClusterError::Refused(why)) => Some(why),
                    Err(error) => return Err(Refusal::new(Why::Failed, error.to_string())),
                };
                Ok(say::write(&Answered { refused }).into())
            }
            Service::Heartbeat | Service::Hints | Service::Leases | Service::Live => {
                Err(malformed(format!("nothing is asked about {service:?}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn only_who_is_elected_waits_no_more_for_its_office() {
        let office = Office::default();
        {
            let mut taken = pin!(office.taken());
            assert!(poll!(taken.as_mut()).is_pending());
            // Over before it was noticed.
            office.set(true);
            office.set(false);
            assert!(poll!(taken.as_mut()).is_pending());
            office.set(true);
            assert!(poll!(taken.as_mut()).is_ready());
        }
        assert!(poll!(pin!(office.taken())).is_ready());
        office.set(false);
        assert!(poll!(pin!(office.taken())).is_pending());
    }
}
