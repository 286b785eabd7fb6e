//! Whose program computes next, and the threads that compute.
//!
//! Nearly every input needs less than [`QUICK_FUEL`] and is dealt with where its actor runs, because a change of thread
//! costs more. Whoever would go on computing queues here for one slice of fuel after the other: by fair shares over
//! tenants, the fuel really used settled afterwards, and within a tenant by [`Rank`]. So programs that compute for ever
//! take turns with each other, and never with the network or the store, which keep threads of their own.
//!
//! In:  one slice of pure work a time and agent, with its tenant, weight and priority.
//! Out: what it gave; its panic, in the actor that asked, where its supervisor sees it; or [`Dropped`].
//!
//! Holds:
//!   RQ-1  an agent has at most one slice here, so at most as many wait as agents are in memory
//!   RQ-2  a slice whose asker is gone is not begun, and what a begun one gives is dropped; nothing is recorded in here
//!   RQ-3  a thread outlives whatever it runs
//!
//! Not here: what a slice is (`agent::compute`).

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use nexa_types::{AgentId, TenantId, Timestamp};
use tokio::sync::oneshot;

use crate::fair::{FairQueue, Rank};

/// Fuel that an input is given where its actor runs, before the rest of its computing queues up.
pub(crate) const QUICK_FUEL: u64 = 2_000;

/// The stack of a thread: as large as where first slices run.
const STACK_BYTES: usize = 4 << 20;

/// On whose account something computes.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pub(crate) agent: AgentId,
    pub(crate) tenant: TenantId,
    /// The tenant's weight.
    pub(crate) weight: u32,
    pub(crate) priority: u8,
}

/// The node stops, or a later incarnation of the agent has queued up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped;

struct Place {
    tenant: TenantId,
    rank: Rank,
    ticket: u64,
}

struct Entry<T> {
    agent: AgentId,
    weight: u32,
    fuel: u64,
    item: T,
}

/// Who waits, in order. Pure.
struct Line<T> {
    queue: FairQueue<TenantId, Entry<T>>,
    places: HashMap<AgentId, Place>,
    tickets: u64,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { queue: FairQueue::default(), places: HashMap::new(), tickets: 0 }
    }
}

impl<T> Line<T> {
    /// Queues a slice; the ticket withdraws it. What the same agent had here before is given back.
    fn push(&mut self, share: Share, now: Timestamp, fuel: u64, item: T) -> (u64, Option<T>) {
        let Share { agent, tenant, weight, priority } = share;
        let earlier = self.take_out(agent).map(|(_, entry)| entry.item);
        self.tickets += 1;
        let (ticket, rank) = (self.tickets, Rank::new(now, priority, self.tickets));
        self.queue.push(&tenant, weight, rank, fuel, Entry { agent, weight, fuel, item });
        self.places.insert(agent, Place { tenant, rank, ticket });
        (ticket, earlier)
    }

    fn pop(&mut self) -> Option<(TenantId, u64, T)> {
        let (tenant, entry) = self.queue.pop()?;
        self.places.remove(&entry.agent);
        Some((tenant, entry.fuel, entry.item))
    }

    fn take_out(&mut self, agent: AgentId) -> Option<(Place, Entry<T>)> {
        let place = self.places.remove(&agent)?;
        let entry = self.queue.remove(&place.tenant, place.rank)?;
        Some((place, entry))
    }

    fn withdraw(&mut self, agent: AgentId, ticket: u64) -> Option<T> {
        let is_mine = self.places.get(&agent).is_some_and(|place| place.ticket == ticket);
        if is_mine { self.take_out(agent).map(|(_, entry)| entry.item) } else { None }
    }

    /// Gives an agent the place of the highest priority that comes now, if that is an earlier one: it has something to
    /// hear, perhaps that it is cancelled, and hears it between two slices. Whoever has waited longer stays before it.
    fn hurry(&mut self, agent: AgentId, now: Timestamp) {
        let Some(place) = self.places.get(&agent) else { return };
        let rank = Rank::new(now, u8::MAX, place.ticket);
        if rank < place.rank
            && let Some((place, entry)) = self.take_out(agent)
        {
            self.queue.push(&place.tenant, entry.weight, rank, entry.fuel, entry);
            self.places.insert(agent, Place { rank, ..place });
        }
    }
}

/// One slice; gives the fuel that it used.
type Slice = Box<dyn FnOnce() -> u64 + Send>;

#[derive(Default)]
struct State {
    line: Line<Slice>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    waiting: AtomicUsize,
    slices: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is complete before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, state: &State) {
        self.waiting.store(state.line.queue.len(), Ordering::Relaxed);
    }

    /// The next slice; waits for one. `None` once the queue is closed.
    fn next(&self) -> Option<(TenantId, u64, Slice)> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(next) = state.line.pop() {
                self.count(&state);
                return Some(next);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn compute(&self) {
        while let Some((tenant, fuel, slice)) = self.next() {
            // Before, so that whoever has the result finds it counted.
            self.slices.fetch_add(1, Ordering::Relaxed);
            let used = catch_unwind(AssertUnwindSafe(slice)).unwrap_or(fuel);
            if used != fuel {
                self.lock().line.queue.settle(&tenant, fuel, used);
            }
        }
    }
}

/// The threads that compute, and who waits for them. Dropping it ends them after the slice in hand.
pub(crate) struct RunQueue {
    shared: Arc<Shared>,
}

impl RunQueue {
    /// Starts this many threads, at least one.
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let queue = Self { shared: Arc::default() };
        for number in 0..threads.max(1) {
            let shared = queue.shared.clone();
            let thread = thread::Builder::new().name(format!("nexa-compute-{number}")).stack_size(STACK_BYTES);
            thread.spawn(move || shared.compute())?;
        }
        Ok(queue)
    }

    /// Has `work` done when it is its turn; it tells what it gives and the fuel that it used, at most `fuel` or so.
    /// A panic of it goes on in here. Dropping the future withdraws it.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        share: Share,
        now: Timestamp,
        fuel: u64,
        work: impl FnOnce() -> (R, u64) + Send + 'static,
    ) -> Result<R, Dropped> {
        let (done, answer) = oneshot::channel();
        let slice = move || match catch_unwind(AssertUnwindSafe(work)) {
            Ok((result, used)) => {
                let _ = done.send(Ok(result));
                used
            }
            Err(panic) => {
                let _ = done.send(Err(panic));
                fuel
            }
        };
        let _place = self.push(share, now, fuel, Box::new(slice))?;
        match answer.await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => Err(Dropped),
        }
    }

    fn push(&self, share: Share, now: Timestamp, fuel: u64, slice: Slice) -> Result<Waiting<'_>, Dropped> {
        let agent = share.agent;
        let mut state = self.shared.lock();
        if state.closed {
            return Err(Dropped);
        }
        let (ticket, earlier) = state.line.push(share, now, fuel, slice);
        self.shared.count(&state);
        drop(state);
        drop(earlier);
        self.shared.work.notify_one();
        Ok(Waiting { shared: &self.shared, agent, ticket })
    }

    /// The agent has something to hear: if it waits here, it waits less.
    pub(crate) fn hurry(&self, agent: AgentId, now: Timestamp) {
        // One that queues up at this moment hears it before its next slice.
        if self.waiting() > 0 {
            self.shared.lock().line.hurry(agent, now);
        }
    }

    /// Agents that wait for a thread.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Slices that were begun.
    pub(crate) fn slices(&self) -> u64 {
        self.shared.slices.load(Ordering::Relaxed)
    }

    /// Drops what waits; from now on nothing is begun.
    pub(crate) fn close(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let line = std::mem::take(&mut state.line);
        self.shared.count(&state);
        drop(state);
        drop(line);
        self.shared.work.notify_all();
    }
}

impl Drop for RunQueue {
    fn drop(&mut self) {
        self.close();
    }
}

/// A place in the queue; given up when whoever asked is gone.
struct Waiting<'a> {
    shared: &'a Shared,
    agent: AgentId,
    ticket: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let withdrawn = state.line.withdraw(self.agent, self.ticket);
        self.shared.count(&state);
        drop(state);
        drop(withdrawn);
    }
}

#[cfg(test)]
#[path = "run_queue_tests.rs"]
mod tests;
