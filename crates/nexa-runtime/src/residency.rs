//! Which agents are in memory, and who may come next.
//!
//! An agent is a record; it becomes an actor while it has something to do. This table decides when: it admits, makes
//! the cheapest idle one leave when there is no room, and lets the others wait their turn. It starts and stops
//! nothing itself: it hands out a [`Seat`] and the caller runs an actor on it.
//!
//! Holds:
//!   RE-1  at most `live_max` agents are seated, at most `loading_max` of them read their history at the same time
//!   RE-2  a hint for a seated agent reaches that incarnation, or the agent refuses to leave
//!   RE-3  an agent has at most one seat; what an earlier incarnation still says is ignored by its generation
//!
//! Under memory pressure ([`crate::memory`]) idle agents leave before their time, and those who wait come as far as the
//! number of agents that it allows; but whoever has an answer to record comes.
//!
//! Bound: `waiting_max` agents wait for a seat, each once however often it is called; a further one is refused with
//! [`Overloaded`], and the sweep finds it.

mod parting;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nexa_types::{AgentId, Millis, Timestamp};
use tokio::sync::Notify;

use self::parting::Parting;
pub(crate) use self::parting::{Parts, Signs};
use crate::bounded::{Address, Bound, Bounds, Lane, Overloaded};
use crate::dispatch::Hint;
use crate::memory::{MemoryPressure, Relief};

/// What an agent's actor is told. All of it is a hint; the facts are elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// Something may have changed.
    Look,
    /// Leave memory, unless there is something to do.
    Sleep,
    /// Begin nothing new, record what is in flight, then leave.
    Drain,
}

/// A second `Look` or `Sleep` says nothing new, so a full lane that refuses it loses nothing.
const LANES: Bounds = Bounds {
    control: Bound { count_max: 4, bytes_max: 0 },
    replies: Bound { count_max: 0, bytes_max: 0 },
    work: Bound { count_max: 2, bytes_max: 0 },
};

/// Limits of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeatLimits {
    pub(crate) live_max: usize,
    pub(crate) loading_max: usize,
    pub(crate) waiting_max: usize,
}

/// The right to run one incarnation of an agent.
#[derive(Clone)]
pub(crate) struct Seat {
    pub(crate) agent: AgentId,
    pub(crate) generation: u64,
    pub(crate) address: Address<Told>,
    /// Set when the inbox has changed since the actor last read it.
    pub(crate) inbox_changed: Arc<AtomicBool>,
    pub(crate) signs: Arc<Signs>,
}

struct Seated {
    seat: Seat,
    loading: bool,
    idle: Option<Idle>,
}

#[derive(Debug, Clone, Copy)]
struct Idle {
    since: Timestamp,
    /// Events to replay at the next wake-up.
    cost: u64,
}

/// A place among those who wait: those with an answer to record or a slot to use go before all others, and among equals
/// whoever came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    can_wait: bool,
    ticket: u64,
}

#[derive(Default)]
struct State {
    seated: HashMap<AgentId, Seated>,
    /// The idle ones, the cheapest to bring back first.
    idle: BTreeSet<(u64, AgentId)>,
    /// The same, the one that has been idle for longest first.
    idle_since: BTreeSet<(Timestamp, AgentId)>,
    loading: usize,
    /// Who waits, the next one first.
    queue: BTreeMap<Turn, AgentId>,
    /// The same by agent: each waits once.
    queued: HashMap<AgentId, Turn>,
    tickets: u64,
    asleep: HashSet<AgentId>,
    /// Nobody brings these into memory.
    parting: HashMap<AgentId, Parting>,
    generation: u64,
    closed: bool,
    pressure: MemoryPressure,
    /// Agents that memory allows, beyond those with an answer to record.
    live_max: Option<usize>,
}

pub(crate) struct Residency {
    state: Mutex<State>,
    limits: SeatLimits,
    draining: AtomicBool,
    someone_left: Notify,
}

/// What a table counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// In memory.
    pub(crate) live: usize,
    /// Of these, idle.
    pub(crate) idle: usize,
    /// Wait for a seat.
    pub(crate) waiting: usize,
    /// Known to live in the store only.
    pub(crate) asleep: usize,
    pub(crate) pressure: MemoryPressure,
}

impl Residency {
    pub(crate) fn new(limits: SeatLimits) -> Self {
        Self { state: Mutex::default(), limits, draining: AtomicBool::new(false), someone_left: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a hint to an agent; gives the seat to start if the agent has to come into memory first.
    pub(crate) fn call(&self, agent: AgentId, hint: Hint) -> Result<Option<Seat>, Overloaded> {
        let mut state = self.lock();
        if let Some(seated) = state.seated.get_mut(&agent) {
            if hint == Hint::Inbox {
                seated.seat.inbox_changed.store(true, Ordering::Release);
            }
            // Refused only if a `Look` waits already.
            let _ = seated.seat.address.tell(Lane::Work, 0, Told::Look);
            state.busy(agent);
            return Ok(None);
        }
        if let Some(parting) = state.parting.get_mut(&agent) {
            parting.was_called = true;
            return Ok(None);
        }
        let is_urgent = matches!(hint, Hint::EffectEnded | Hint::SlotGranted);
        let waits = state.queued.contains_key(&agent);
        if self.is_draining() || state.closed || (waits && !is_urgent) {
            return Ok(None);
        }
        let is_next = is_urgent || (state.queued.is_empty() && state.may_wake());
        if is_next && state.has_room(&self.limits) {
            return Ok(Some(state.seat(agent)));
        }
        if !waits && state.queued.len() >= self.limits.waiting_max {
            let count = state.queued.len();
            return Err(Overloaded { what: "the list of agents that wait to be loaded", count, bytes: 0 });
        }
        state.wait(agent, is_urgent);
        state.make_room(&self.limits);
        Ok(None)
    }

    /// The same for an agent that was born here just now. Its seat expects nothing in the inbox that it is not told of; an agent
    /// that is not seated by this call is brought in as any other, for whoever called it before may have left something there.
    pub(crate) fn call_newborn(&self, agent: AgentId) -> Result<Option<Seat>, Overloaded> {
        {
            let mut state = self.lock();
            let is_known = state.seated.contains_key(&agent) || state.parting.contains_key(&agent);
            let is_next = !is_known && state.queued.is_empty() && state.may_wake() && state.has_room(&self.limits);
            if is_next && !self.is_draining() && !state.closed {
                let seat = state.seat(agent);
                // Nobody else has it before the lock is given up.
                seat.inbox_changed.store(false, Ordering::Release);
                return Ok(Some(seat));
            }
        }
        self.call(agent, Hint::Inbox)
    }

    /// Acts on how much memory there is: sends the cheapest idle ones to sleep, and gives the seats of those who may
    /// come.
    pub(crate) fn relieve(&self, relief: Relief) -> Vec<Seat> {
        let mut state = self.lock();
        (state.pressure, state.live_max) = (relief.pressure, relief.live_max);
        for _ in 0..relief.sleeps {
            let Some((_, cheapest)) = state.idle.first().copied() else { break };
            state.tell_to_sleep(cheapest);
        }
        state.admit(&self.limits)
    }

    /// An agent has read its history; gives the seats of those who may come now.
    pub(crate) fn loaded(&self, seat: &Seat) -> Vec<Seat> {
        let mut state = self.lock();
        if let Some(seated) = state.mine(seat)
            && std::mem::take(&mut seated.loading)
        {
            state.loading -= 1;
        }
        state.admit(&self.limits)
    }

    /// An agent has nothing to do. Under pressure the cheapest idle one is told to leave.
    pub(crate) fn idle(&self, seat: &Seat, cost: u64, now: Timestamp) {
        let mut state = self.lock();
        if let Some(seated) = state.mine(seat)
            && seated.idle.is_none()
        {
            seated.idle = Some(Idle { since: now, cost });
            state.idle.insert((cost, seat.agent));
            state.idle_since.insert((now, seat.agent));
            if !state.queued.is_empty() {
                state.make_room(&self.limits);
            }
        }
    }

    /// Whether the incarnation may leave now: only if no hint has come meanwhile. Gives the seats of those who follow.
    pub(crate) fn leave(&self, seat: &Seat) -> Result<Vec<Seat>, StillWanted> {
        let mut state = self.lock();
        if state.mine(seat).is_none() {
            return Ok(Vec::new());
        }
        if !seat.address.is_empty() || seat.inbox_changed.load(Ordering::Acquire) {
            return Err(StillWanted);
        }
        state.remove(seat.agent);
        state.asleep.insert(seat.agent);
        self.someone_left.notify_waiters();
        Ok(state.admit(&self.limits))
    }

    /// The agent has ended, has another owner, or was given up: it leaves whatever is said.
    pub(crate) fn gone(&self, seat: &Seat) -> Vec<Seat> {
        let mut state = self.lock();
        if state.mine(seat).is_some() {
            state.remove(seat.agent);
            self.someone_left.notify_waiters();
        }
        state.admit(&self.limits)
    }

    /// Whether this incarnation is the one that counts.
    pub(crate) fn is_seated(&self, seat: &Seat) -> bool {
        let mut state = self.lock();
        !state.closed && state.mine(seat).is_some()
    }

    /// Tells everybody who has been idle for long to leave.
    pub(crate) fn send_to_sleep(&self, now: Timestamp, idle_max: Millis) {
        let mut state = self.lock();
        while let Some((since, agent)) = state.idle_since.first().copied()
            && now.since(since) >= idle_max
        {
            state.tell_to_sleep(agent);
        }
    }

    /// Notes an agent that lives in the store only.
    pub(crate) fn note_asleep(&self, agent: AgentId) {
        let mut state = self.lock();
        if !state.seated.contains_key(&agent) && !state.queued.contains_key(&agent) {
            state.asleep.insert(agent);
        }
    }

    /// From now on nobody comes, and everybody leaves once what is in flight is recorded.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        // Under the lock, so that nobody is given a seat who is not told.
        self.draining.store(true, Ordering::Release);
        state.forget_the_queue();
        for seated in state.seated.values() {
            let _ = seated.seat.address.tell(Lane::Control, 0, Told::Drain);
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Waits until nobody is in memory. Cancel-safe.
    pub(crate) async fn emptied(&self) {
        loop {
            let left = self.someone_left.notified();
            if self.lock().seated.is_empty() {
                return;
            }
            left.await;
        }
    }

    /// From now on no incarnation counts.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.forget_the_queue();
    }

    /// Whether the agent is in memory, or about to be or to leave for another node.
    pub(crate) fn holds(&self, agent: AgentId) -> bool {
        let state = self.lock();
        state.seated.contains_key(&agent) || state.queued.contains_key(&agent) || state.parting.contains_key(&agent)
    }

    /// Whether the agent waits to be in memory, or reads its history.
    pub(crate) fn is_coming(&self, agent: AgentId) -> bool {
        let state = self.lock();
        state.queued.contains_key(&agent) || state.seated.get(&agent).is_some_and(|seated| seated.loading)
    }

    /// How many there are. Takes no longer the more there are.
    pub(crate) fn counts(&self) -> Counts {
        let state = self.lock();
        Counts {
            live: state.seated.len(),
            idle: state.idle.len(),
            waiting: state.queued.len(),
            asleep: state.asleep.len(),
            pressure: state.pressure,
        }
    }
}

/// A hint has come since the agent decided to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StillWanted;

impl State {
    fn mine(&mut self, seat: &Seat) -> Option<&mut Seated> {
        self.seated.get_mut(&seat.agent).filter(|seated| seated.seat.generation == seat.generation)
    }

    fn has_room(&self, limits: &SeatLimits) -> bool {
        self.seated.len() < limits.live_max && self.loading < limits.loading_max
    }

    /// Whether memory allows one more that could as well come later.
    fn may_wake(&self) -> bool {
        self.live_max.is_none_or(|max| self.seated.len() < max)
    }

    fn forget_the_queue(&mut self) {
        self.queue.clear();
        self.queued.clear();
    }

    /// Gives an agent a place at the end of those who wait, or at the end of the urgent ones among them if it has none
    /// there yet.
    fn wait(&mut self, agent: AgentId, is_urgent: bool) {
        let before = self.queued.get(&agent).copied();
        if before.is_none_or(|turn| turn.can_wait && is_urgent) {
            self.give_up_waiting(agent);
            self.tickets += 1;
            let turn = Turn { can_wait: !is_urgent, ticket: self.tickets };
            self.queue.insert(turn, agent);
            self.queued.insert(agent, turn);
        }
    }

    fn give_up_waiting(&mut self, agent: AgentId) {
        if let Some(turn) = self.queued.remove(&agent) {
            self.queue.remove(&turn);
        }
    }

    /// Who is next, if memory allows one that could as well come later or this one cannot.
    fn next_up(&self) -> Option<AgentId> {
        let (turn, agent) = self.queue.first_key_value()?;
        (!turn.can_wait || self.may_wake()).then_some(*agent)
    }

    fn seat(&mut self, agent: AgentId) -> Seat {
        self.give_up_waiting(agent);
        self.generation += 1;
        let seat = Seat {
            agent,
            generation: self.generation,
            address: Address::new(LANES),
            inbox_changed: Arc::new(AtomicBool::new(true)),
            signs: Arc::default(),
        };
        self.loading += 1;
        self.asleep.remove(&agent);
        self.seated.insert(agent, Seated { seat: seat.clone(), loading: true, idle: None });
        seat
    }

    fn admit(&mut self, limits: &SeatLimits) -> Vec<Seat> {
        let mut seats = Vec::new();
        while !self.closed
            && self.has_room(limits)
            && let Some(agent) = self.next_up()
        {
            seats.push(self.seat(agent));
        }
        if !self.queued.is_empty() {
            self.make_room(limits);
        }
        seats
    }

    /// One seat for the next in the queue, if all are taken and somebody is idle.
    fn make_room(&mut self, limits: &SeatLimits) {
        if self.seated.len() >= limits.live_max
            && let Some((_, cheapest)) = self.idle.first().copied()
        {
            self.tell_to_sleep(cheapest);
        }
    }

    fn tell_to_sleep(&mut self, agent: AgentId) {
        self.busy(agent);
        if let Some(seated) = self.seated.get(&agent) {
            let _ = seated.seat.address.tell(Lane::Control, 0, Told::Sleep);
        }
    }

    fn busy(&mut self, agent: AgentId) {
        if let Some(seated) = self.seated.get_mut(&agent)
            && let Some(idle) = seated.idle.take()
        {
            self.idle.remove(&(idle.cost, agent));
            self.idle_since.remove(&(idle.since, agent));
        }
    }

    fn remove(&mut self, agent: AgentId) {
        self.busy(agent);
        if let Some(seated) = self.seated.remove(&agent)
            && seated.loading
        {
            self.loading -= 1;
        }
        if let Some(left) = self.parting.get_mut(&agent).and_then(|parting| parting.left.take()) {
            // Nobody waits for it any more: then it is called again.
            let _ = left.send(());
        }
        self.asleep.remove(&agent);
    }
}

#[cfg(test)]
#[path = "residency_tests.rs"]
mod tests;
