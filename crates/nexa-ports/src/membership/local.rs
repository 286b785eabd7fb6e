//! Membership of nodes that share a process: the twin of a membership service, and what a cluster of one process uses.
//!
//! A [`LocalCluster`] is the service, each value of [`LocalCluster::member`] one node's connection to it. Leases are kept
//! alive as long as that value lives and is not cut off; whose value is dropped is gone when its lease ends, as a process
//! that was killed would be.
//!
//! Tests can end a lease ([`expire`](LocalCluster::expire)), the leader's right to lead ([`depose`](LocalCluster::depose)),
//! cut a node off ([`cut_off`](LocalCluster::cut_off), [`heal`](LocalCluster::heal)), and take the whole service away
//! ([`set_away`](LocalCluster::set_away)).
//!
//! Decided here where the port leaves room, and the same in every adapter:
//!   - a node that joins while it is a member begins a new run; the earlier one has left
//!   - a node that joins under a name that is there waits for that lease to end, up to its term and [`NAME_WAIT`]
//!   - the wish to lead stays over joining, leaving and losing a lease
//!   - also a node that has not joined sees who is there, and reads and writes settings
//!   - while nobody can ask the service, no lease ends

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use futures::future::BoxFuture;
use nexa_types::{Epoch, Millis, NodeId, Timestamp};
use tokio::sync::watch;

use super::{
    Generation, Leader, Member, Members, Membership, MembershipError, NodeCard, Setting, Standing, check_setting,
    encode_card,
};
use crate::clock::Clock;

/// The term of a lease: how long a node is silent before it is gone.
pub const TERM: Millis = Millis(3_000);
/// [`Standing::valid_until`] is so much earlier than the end of the term.
pub const MARGIN: Millis = Millis(500);
/// How much longer than the term a node waits for its name to become free.
pub const NAME_WAIT: Millis = Millis(2_000);

/// A membership service within the process. Clones are the same service.
#[derive(Clone)]
pub struct LocalCluster {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    term: Millis,
    state: Mutex<State>,
}

/// What the service knows, and how each connection to it stands.
#[derive(Default)]
struct State {
    /// Counts everything that is written; generations, epochs and revisions of settings come from it.
    revision: u64,
    runs: BTreeMap<NodeId, Run>,
    leader: Option<Leader>,
    settings: BTreeMap<String, (u64, Vec<u8>)>,
    list: Arc<Members>,
    seats: BTreeMap<u64, Seat>,
    seats_made: u64,
    /// Grows with each wish to lead; the oldest wish is heard first.
    wishes: u64,
    away: bool,
    /// When all was brought to the present last.
    settled_at: Timestamp,
    /// Keeps leases alive and ends them; made by the first join.
    keeper: Option<watch::Sender<()>>,
}

/// A node's lease.
struct Run {
    card: NodeCard,
    generation: Generation,
    seat: u64,
    renewed: Timestamp,
}

/// A node's connection.
struct Seat {
    /// As what it joined last.
    joined: Option<(NodeId, Generation)>,
    wish: Option<u64>,
    is_cut_off: bool,
    /// Its value was dropped.
    is_gone: bool,
    members: watch::Sender<Arc<Members>>,
    standing: watch::Sender<Standing>,
}

impl Seat {
    fn is_heard(&self) -> bool {
        !self.is_cut_off && !self.is_gone
    }

    /// Whether it keeps this run's lease alive.
    fn keeps(&self, run: &Run) -> bool {
        self.is_heard()
            && self
                .joined
                .as_ref()
                .is_some_and(|(node, generation)| *node == run.card.id && *generation == run.generation)
    }
}

impl LocalCluster {
    /// A service without nodes, whose leases have the usual [`TERM`] by this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_term(clock, TERM)
    }

    /// A service with another term, longer than [`MARGIN`].
    pub fn with_term(clock: Arc<dyn Clock>, term: Millis) -> Self {
        let term = term.max(Millis(MARGIN.0 + 1));
        Self { shared: Arc::new(Shared { clock, term, state: Mutex::new(State::default()) }) }
    }

    /// A connection for one node. [`Membership::join`] on it needs a tokio runtime.
    pub fn member(&self) -> Arc<dyn Membership> {
        let mut state = self.shared.lock();
        state.seats_made += 1;
        let seat = state.seats_made;
        let value = Seat {
            joined: None,
            wish: None,
            is_cut_off: false,
            is_gone: false,
            members: watch::Sender::new(if state.away { Arc::default() } else { state.list.clone() }),
            standing: watch::Sender::new(Standing::Outside),
        };
        state.seats.insert(seat, value);
        Arc::new(LocalMember { shared: self.shared.clone(), seat })
    }

    /// Ends a node's lease now: everybody learns of it, also the node if it is not cut off. `false` if it is not there.
    ///
    /// As with [`Membership::end_lease`], the node may have been told a later [`Standing::valid_until`].
    pub fn expire(&self, node: &NodeId) -> bool {
        let mut state = self.shared.lock();
        let was_there = state.runs.remove(node).is_some();
        self.shared.settle(&mut state);
        was_there
    }

    /// Takes the right to lead from who has it. The longest waiting of those who want to lead is next; if there is nobody else,
    /// that is the same node, with another epoch.
    pub fn depose(&self) -> Option<Leader> {
        let mut state = self.shared.lock();
        let deposed = state.leader.take()?;
        state.wishes += 1;
        let wishes = state.wishes;
        if let Some(run) = state.runs.get(&deposed.node).map(|run| run.seat) {
            let wish = state.seats.get_mut(&run).and_then(|seat| seat.wish.as_mut());
            if let Some(wish) = wish {
                *wish = wishes;
            }
        }
        self.shared.settle(&mut state);
        Some(deposed)
    }

    /// From now on the node, whoever joined last under this name, and the service do not hear of each other. `false` if nobody
    /// did.
    pub fn cut_off(&self, node: &NodeId) -> bool {
        self.set_cut_off(node, true)
    }

    /// Undoes [`cut_off`](Self::cut_off): the node sees the list as it is now, and whether it lost its lease.
    pub fn heal(&self, node: &NodeId) -> bool {
        self.set_cut_off(node, false)
    }

    fn set_cut_off(&self, node: &NodeId, is_cut_off: bool) -> bool {
        let mut state = self.shared.lock();
        // What was renewed up to now stays so.
        self.shared.settle(&mut state);
        let generation =
            |seat: &Seat| seat.joined.as_ref().filter(|(name, _)| name == node).map(|(_, generation)| *generation);
        let joined = state.seats.values_mut().filter(|seat| !seat.is_gone && generation(seat).is_some());
        let Some(seat) = joined.max_by_key(|seat| generation(seat)) else {
            return false;
        };
        seat.is_cut_off = is_cut_off;
        self.shared.settle(&mut state);
        state.wake_keeper();
        true
    }

    /// Takes the service away from everybody, or brings it back. Meanwhile no lease ends.
    pub fn set_away(&self, is_away: bool) {
        let mut state = self.shared.lock();
        self.shared.settle(&mut state);
        if state.away && !is_away {
            // A service that comes back gives every lease its whole term again.
            let now = self.shared.clock.now();
            state.runs.values_mut().for_each(|run| run.renewed = now);
        }
        state.away = is_away;
        self.shared.settle(&mut state);
        state.wake_keeper();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock can panic")
    }

    /// Brings everything to the present: leases are renewed or end, somebody leads, and whoever is connected learns of it.
    fn settle(&self, state: &mut State) {
        let now = self.clock.now();
        state.settled_at = now;
        if state.away {
            return;
        }
        let State { runs, seats, leader, list, revision, .. } = state;
        for run in runs.values_mut().filter(|run| seats[&run.seat].keeps(run)) {
            run.renewed = now;
        }
        runs.retain(|_, run| now < run.renewed.after(self.term));
        let still_leads = |leader: &Leader| {
            let run = runs.get(&leader.node).filter(|run| run.generation == leader.generation);
            run.is_some_and(|run| seats[&run.seat].wish.is_some() || !seats[&run.seat].is_heard())
        };
        if !leader.as_ref().is_some_and(still_leads) {
            let wishes = runs.iter().filter(|(_, run)| seats[&run.seat].keeps(run));
            let next = wishes.filter_map(|(node, run)| Some((seats[&run.seat].wish?, node, run.generation))).min();
            *leader = next.map(|(_, node, generation)| {
                *revision += 1;
                Leader { node: node.clone(), generation, epoch: Epoch(*revision) }
            });
        }
        let member = |run: &Run| Member { card: run.card.clone(), generation: run.generation };
        let is_same = list.leader == *leader
            && list.nodes.len() == runs.len()
            && list.nodes.values().zip(runs.values()).all(|(one, other)| one.generation == other.generation);
        if !is_same {
            *revision += 1;
            let nodes = runs.iter().map(|(node, run)| (node.clone(), member(run))).collect();
            *list = Arc::new(Members { revision: *revision, nodes, leader: leader.clone() });
        }
        for seat in seats.values().filter(|seat| seat.is_heard()) {
            self.tell(seat, runs, list);
        }
        seats.retain(|id, seat| !seat.is_gone || runs.values().any(|run| run.seat == *id));
    }

    fn tell(&self, seat: &Seat, runs: &BTreeMap<NodeId, Run>, list: &Arc<Members>) {
        seat.members.send_if_modified(|known| {
            let is_newer = known.revision < list.revision;
            if is_newer {
                known.clone_from(list);
            }
            is_newer
        });
        let standing = match &seat.joined {
            None => Standing::Outside,
            Some((node, generation)) => match runs.get(node).filter(|run| run.generation == *generation) {
                Some(run) => Standing::Member {
                    generation: *generation,
                    valid_until: run.renewed.after(Millis(self.term.0 - MARGIN.0)),
                },
                None => Standing::Lost,
            },
        };
        seat.standing.send_if_modified(|known| {
            let is_other = *known != standing;
            *known = standing;
            is_other
        });
    }

    /// When [`Shared::settle`] is due again: a third of the term after the last time, or when the first lease ends.
    fn due(&self, state: &State) -> Timestamp {
        let regular = state.settled_at.after(Millis(self.term.0.div_ceil(3)));
        let silent = state.runs.values().filter(|run| !state.away && !state.seats[&run.seat].keeps(run));
        silent.map(|run| run.renewed.after(self.term)).min().map_or(regular, |first| first.min(regular))
    }

    /// What is written from here on is later than all that was written before.
    fn next_revision(state: &mut State) -> u64 {
        state.revision += 1;
        state.revision
    }
}

/// Settles again and again until the service is gone.
async fn keep(shared: Weak<Shared>, clock: Arc<dyn Clock>, mut stop: watch::Receiver<()>) {
    while let Some(due) = shared.upgrade().map(|shared| shared.due(&shared.lock())) {
        tokio::select! {
            biased;
            () = clock.wait_until(due) => {}
            // Either something has changed that is due earlier, or the service is gone.
            changed = stop.changed() => if changed.is_err() { return },
        }
        let Some(shared) = shared.upgrade() else { return };
        let mut state = shared.lock();
        shared.settle(&mut state);
    }
}

struct LocalMember {
    shared: Arc<Shared>,
    seat: u64,
}

impl Drop for LocalMember {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        self.shared.settle(&mut state);
        if let Some(seat) = state.seats.get_mut(&self.seat) {
            seat.is_gone = true;
        }
        self.shared.settle(&mut state);
        state.wake_keeper();
    }
}

impl State {
    fn seat(&mut self, seat: u64) -> &mut Seat {
        self.seats.get_mut(&seat).expect("a seat stays as long as its member lives")
    }

    fn wake_keeper(&self) {
        if let Some(keeper) = &self.keeper {
            let _ = keeper.send(());
        }
    }
}

impl LocalMember {
    /// The state, if the service can be asked.
    fn reach(&self) -> Result<MutexGuard<'_, State>, MembershipError> {
        let mut state = self.shared.lock();
        if state.away || state.seat(self.seat).is_cut_off {
            let detail = if state.away { "it is away" } else { "this node is cut off from it" };
            return Err(MembershipError::Unavailable { detail: detail.into() });
        }
        self.shared.settle(&mut state);
        Ok(state)
    }

    /// Ends the run that this connection joined with, if it still stands.
    fn end_own(state: &mut State, seat: u64) {
        if let Some((node, generation)) = state.seat(seat).joined.take()
            && state.runs.get(&node).is_some_and(|run| run.generation == generation)
        {
            state.runs.remove(&node);
        }
    }

    /// Joins if the name is free.
    fn try_join(&self, card: &NodeCard) -> Result<Option<Generation>, MembershipError> {
        let mut state = self.reach()?;
        Self::end_own(&mut state, self.seat);
        if state.runs.contains_key(&card.id) {
            self.shared.settle(&mut state);
            return Ok(None);
        }
        let generation = Generation(Shared::next_revision(&mut state));
        let run = Run { card: card.clone(), generation, seat: self.seat, renewed: self.shared.clock.now() };
        state.runs.insert(card.id.clone(), run);
        state.seat(self.seat).joined = Some((card.id.clone(), generation));
        if state.keeper.as_ref().is_none_or(watch::Sender::is_closed) {
            let (keeper, stop) = watch::channel(());
            state.keeper = Some(keeper);
            tokio::spawn(keep(Arc::downgrade(&self.shared), self.shared.clock.clone(), stop));
        }
        self.shared.settle(&mut state);
        Ok(Some(generation))
    }
}

impl Membership for LocalMember {
    fn join(&self, card: NodeCard) -> BoxFuture<'_, Result<Generation, MembershipError>> {
        Box::pin(async move {
            encode_card(&card)?;
            let deadline = self.shared.clock.now().after(Millis(self.shared.term.0 + NAME_WAIT.0));
            let mut members = self.members();
            loop {
                members.mark_unchanged();
                if let Some(generation) = self.try_join(&card)? {
                    return Ok(generation);
                }
                tokio::select! {
                    biased;
                    () = self.shared.clock.wait_until(deadline) => {
                        return self.try_join(&card)?.ok_or(MembershipError::NameTaken { node: card.id });
                    }
                    _ = members.changed() => {}
                }
            }
        })
    }

    fn leave(&self) -> BoxFuture<'_, Result<(), MembershipError>> {
        Box::pin(async move {
            let unheard = match self.reach() {
                Ok(mut state) => {
                    Self::end_own(&mut state, self.seat);
                    self.shared.settle(&mut state);
                    return Ok(());
                }
                Err(unheard) => unheard,
            };
            let mut state = self.shared.lock();
            let seat = state.seat(self.seat);
            seat.standing.send_replace(Standing::Outside);
            // Who has nothing to give back needs nobody to hear it.
            if seat.joined.take().is_some() { Err(unheard) } else { Ok(()) }
        })
    }

    fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.shared.lock().seat(self.seat).members.subscribe()
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.shared.lock().seat(self.seat).standing.subscribe()
    }

    fn now(&self) -> Timestamp {
        // So that a clock that was moved far at once does not outrun leases that nothing keeps from being renewed.
        let mut state = self.shared.lock();
        let now = self.shared.clock.now();
        if now >= self.shared.due(&state) {
            self.shared.settle(&mut state);
        }
        now
    }

    fn campaign(&self, wants: bool) {
        let mut state = self.shared.lock();
        state.wishes += 1;
        let wish = state.wishes;
        let seat = state.seat(self.seat);
        seat.wish = wants.then(|| seat.wish.unwrap_or(wish));
        self.shared.settle(&mut state);
    }

    fn end_lease(&self, node: NodeId, generation: Generation) -> BoxFuture<'_, Result<bool, MembershipError>> {
        Box::pin(async move {
            let mut state = self.reach()?;
            let stands = state.runs.get(&node).is_some_and(|run| run.generation == generation);
            if stands {
                state.runs.remove(&node);
            }
            self.shared.settle(&mut state);
            Ok(stands)
        })
    }

    fn run_of(&self, node: NodeId) -> BoxFuture<'_, Result<Option<Generation>, MembershipError>> {
        Box::pin(async move { Ok(self.reach()?.runs.get(&node).map(|run| run.generation)) })
    }

    fn setting(&self, name: String) -> BoxFuture<'_, Result<Setting, MembershipError>> {
        Box::pin(async move {
            check_setting(&name, &[])?;
            Ok(self.reach()?.settings.get(&name).cloned())
        })
    }

    fn put_setting(
        &self,
        name: String,
        expected: u64,
        value: Vec<u8>,
    ) -> BoxFuture<'_, Result<Option<u64>, MembershipError>> {
        Box::pin(async move {
            check_setting(&name, &value)?;
            let mut state = self.reach()?;
            if state.settings.get(&name).map_or(0, |(revision, _)| *revision) != expected {
                return Ok(None);
            }
            let revision = Shared::next_revision(&mut state);
            state.settings.insert(name, (revision, value));
            Ok(Some(revision))
        })
    }
}

#[cfg(test)]
mod churn;
#[cfg(test)]
mod tests;
