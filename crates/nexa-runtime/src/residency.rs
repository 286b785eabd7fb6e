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
//! Bound: `waiting_max` agents wait for a seat; a further one is refused with [`Overloaded`], and the sweep finds it.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nexa_types::{AgentId, Millis, Timestamp};
use tokio::sync::Notify;

use crate::bounded::{Address, Bound, Bounds, Lane, Overloaded};
use crate::dispatch::Hint;

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

#[derive(Default)]
struct State {
    seated: HashMap<AgentId, Seated>,
    /// The idle ones, the cheapest to bring back first.
    idle: BTreeSet<(u64, AgentId)>,
    loading: usize,
    queue: VecDeque<AgentId>,
    queued: HashSet<AgentId>,
    asleep: HashSet<AgentId>,
    generation: u64,
    draining: bool,
    closed: bool,
}

pub(crate) struct Residency {
    state: Mutex<State>,
    limits: SeatLimits,
    someone_left: Notify,
}

impl Residency {
    pub(crate) fn new(limits: SeatLimits) -> Self {
        Self { state: Mutex::default(), limits, someone_left: Notify::new() }
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
        if state.draining || state.closed || state.queued.contains(&agent) {
            return Ok(None);
        }
        if state.has_room(&self.limits) && state.queue.is_empty() {
            return Ok(Some(state.seat(agent)));
        }
        if state.queue.len() >= self.limits.waiting_max {
            let count = state.queue.len();
            return Err(Overloaded { what: "the list of agents that wait to be loaded", count, bytes: 0 });
        }
        state.queue.push_back(agent);
        state.queued.insert(agent);
        state.make_room(&self.limits);
        Ok(None)
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
            if !state.queue.is_empty() {
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
        let late: Vec<AgentId> = state
            .idle
            .iter()
            .filter(|(_, agent)| {
                let idle = state.seated.get(agent).and_then(|seated| seated.idle);
                idle.is_some_and(|idle| now.since(idle.since) >= idle_max)
            })
            .map(|(_, agent)| *agent)
            .collect();
        for agent in late {
            state.tell_to_sleep(agent);
        }
    }

    /// Notes an agent that lives in the store only.
    pub(crate) fn note_asleep(&self, agent: AgentId) {
        let mut state = self.lock();
        if !state.seated.contains_key(&agent) && !state.queued.contains(&agent) {
            state.asleep.insert(agent);
        }
    }

    /// From now on nobody comes, and everybody leaves once what is in flight is recorded.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        state.queue.clear();
        state.queued.clear();
        for seated in state.seated.values() {
            let _ = seated.seat.address.tell(Lane::Control, 0, Told::Drain);
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.lock().draining
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
        state.queue.clear();
        state.queued.clear();
    }

    /// Whether the agent is in memory or about to be.
    pub(crate) fn holds(&self, agent: AgentId) -> bool {
        let state = self.lock();
        state.seated.contains_key(&agent) || state.queued.contains(&agent)
    }

    /// How many are in memory, wait to be, and are known to live in the store only.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let state = self.lock();
        (state.seated.len(), state.queue.len(), state.asleep.len())
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

    fn seat(&mut self, agent: AgentId) -> Seat {
        self.generation += 1;
        let seat = Seat {
            agent,
            generation: self.generation,
            address: Address::new(LANES),
            inbox_changed: Arc::new(AtomicBool::new(true)),
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
            && let Some(agent) = self.queue.pop_front()
        {
            self.queued.remove(&agent);
            seats.push(self.seat(agent));
        }
        if !self.queue.is_empty() {
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
        }
    }

    fn remove(&mut self, agent: AgentId) {
        self.busy(agent);
        if let Some(seated) = self.seated.remove(&agent)
            && seated.loading
        {
            self.loading -= 1;
        }
        self.asleep.remove(&agent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SeatLimits = SeatLimits { live_max: 2, loading_max: 2, waiting_max: 2 };

    fn agent(n: u8) -> AgentId {
        AgentId::from_bytes([n; 16])
    }

    fn seated(table: &Residency, n: u8) -> Seat {
        let seat = table.call(agent(n), Hint::Inbox).unwrap().expect("there is room");
        assert!(table.loaded(&seat).is_empty());
        seat.inbox_changed.store(false, Ordering::Release);
        seat
    }

    #[test]
    fn agents_wait_for_a_seat_and_too_many_are_refused() {
        let table = Residency::new(LIMITS);
        let first = seated(&table, 1);
        seated(&table, 2);
        assert!(table.call(agent(3), Hint::Inbox).unwrap().is_none());
        assert!(table.call(agent(4), Hint::Inbox).unwrap().is_none());
        assert!(table.call(agent(4), Hint::Due).unwrap().is_none(), "waiting once is enough");
        assert_eq!(table.call(agent(5), Hint::Inbox).map(|_| ()).unwrap_err().count, 2);
        assert_eq!(table.counts(), (2, 2, 0));
        let next = table.gone(&first);
        assert_eq!(next.iter().map(|seat| seat.agent).collect::<Vec<_>>(), [agent(3)]);
        assert!(table.gone(&first).is_empty(), "leaving twice frees one seat");
    }

    #[test]
    fn the_cheapest_idle_agent_makes_room() {
        let table = Residency::new(LIMITS);
        let dear = seated(&table, 1);
        let cheap = seated(&table, 2);
        table.idle(&dear, 200, Timestamp(0));
        table.idle(&cheap, 3, Timestamp(0));
        assert!(table.call(agent(3), Hint::Inbox).unwrap().is_none());
        assert!(dear.address.is_empty());
        assert!(!cheap.address.is_empty(), "it was told to sleep");
    }

    #[test]
    fn an_agent_with_a_fresh_hint_does_not_leave() {
        let table = Residency::new(LIMITS);
        let seat = seated(&table, 1);
        table.call(agent(1), Hint::Due).unwrap();
        assert_eq!(table.leave(&seat).map(|_| ()), Err(StillWanted));
        let seat = seated(&table, 2);
        assert!(table.leave(&seat).is_ok());
        assert_eq!(table.counts(), (1, 0, 1));
        let again = seated(&table, 2);
        assert!(!table.is_seated(&seat), "the old incarnation counts no more");
        assert!(table.leave(&seat).is_ok() && table.is_seated(&again));
    }

    #[test]
    fn few_read_their_history_at_the_same_time() {
        let table = Residency::new(SeatLimits { live_max: 10, loading_max: 1, waiting_max: 10 });
        let first = table.call(agent(1), Hint::Inbox).unwrap().unwrap();
        assert!(table.call(agent(2), Hint::Inbox).unwrap().is_none());
        assert!(table.call(agent(3), Hint::Inbox).unwrap().is_none());
        let next = table.loaded(&first);
        assert_eq!(next.len(), 1);
        assert!(table.loaded(&first).is_empty(), "being loaded twice admits nobody twice");
        assert_eq!(table.gone(&next[0]).len(), 1);
    }

    #[test]
    fn who_is_idle_for_long_is_told_to_sleep() {
        let table = Residency::new(LIMITS);
        let seat = seated(&table, 1);
        table.idle(&seat, 1, Timestamp(1_000));
        table.send_to_sleep(Timestamp(10_999), Millis(10_000));
        assert!(seat.address.is_empty());
        table.send_to_sleep(Timestamp(11_000), Millis(10_000));
        assert!(!seat.address.is_empty());
    }

    #[test]
    fn a_draining_table_admits_nobody() {
        let table = Residency::new(LIMITS);
        let seat = seated(&table, 1);
        table.drain();
        assert!(!seat.address.is_empty());
        assert!(table.call(agent(2), Hint::Inbox).unwrap().is_none());
        assert_eq!(table.counts().0, 1);
    }
}
