//! Whose program computes next, and the threads that compute.
//!
//! Nearly every input needs less than [`QUICK_FUEL`] and is dealt with where its actor runs, because a change of thread
//! costs more. Whoever would go on computing queues here for one slice of fuel after the other, in a [`Line`] of the node's
//! strategy, the fuel really used settled afterwards. So programs that compute for ever take turns with each other, and
//! never with the network or the store, which keep threads of their own.
//!
//! In:  one slice of pure work a time and agent, with its tenant, weights and priority.
//! Out: what it gave; its panic, in the actor that asked, where its supervisor sees it; or [`Dropped`].
//!
//! Holds:
//!   RQ-1  an agent has at most one slice here, so at most as many wait as agents are in memory
//!   RQ-2  a slice whose asker is gone is not begun, and what a begun one gives is dropped; nothing is recorded in here
//!   RQ-3  a thread outlives whatever it runs
//!
//! Not here: what a slice is (`agent::compute`), who is next (`line`).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use nexa_sched::LoadBalanceStrategy;
use nexa_types::{AgentId, Millis, Timestamp};
use tokio::sync::oneshot;

use crate::line::{Line, Share, Turn};
use crate::pace::Pace;

/// Fuel that an input is given where its actor runs, before the rest of its computing queues up.
pub(crate) const QUICK_FUEL: u64 = 2_000;

/// The stack of a thread: as large as where first slices run.
const STACK_BYTES: usize = 4 << 20;

/// The node stops, or a later incarnation of the agent has queued up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped;

/// One slice; gives the fuel that it used.
type Slice = Box<dyn FnOnce() -> u64 + Send>;

#[derive(Default)]
struct State {
    line: Line<Slice>,
    pace: Pace,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    waiting: AtomicUsize,
    slices: AtomicU64,
    /// The fuel of a slice, by now.
    slice_fuel: AtomicU64,
    time_slice: Millis,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is complete before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, state: &State) {
        self.waiting.store(state.line.len(), Ordering::Relaxed);
    }

    /// The next slice; waits for one. `None` once the queue is closed.
    fn next(&self) -> Option<Turn<Slice>> {
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
        while let Some(turn) = self.next() {
            self.compute_one(turn);
        }
    }

    fn compute_one(&self, Turn { agent, tenant, fuel, item: slice }: Turn<Slice>) {
        // Before, so that whoever has the result finds it counted.
        self.slices.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        let used = catch_unwind(AssertUnwindSafe(slice)).unwrap_or(fuel);
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut state = self.lock();
        state.pace.note(used, nanos);
        self.slice_fuel.store(state.pace.slice(self.time_slice), Ordering::Relaxed);
        if used != fuel {
            state.line.settle(&tenant, agent, fuel, used);
        }
    }

    /// Whoever is next by now, if anybody still is; for a task of the runtime.
    fn compute_next(&self) {
        let mut state = self.lock();
        let next = if state.closed { None } else { state.line.pop() };
        self.count(&state);
        drop(state);
        if let Some(turn) = next {
            self.compute_one(turn);
        }
    }
}

/// The threads that compute, and who waits for them. Dropping it ends them after the slice in hand.
pub(crate) struct RunQueue {
    shared: Arc<Shared>,
    has_threads: bool,
}

impl RunQueue {
    /// Starts this many threads for slices of about this time. With none each slice has a task of the runtime, which does
    /// whatever is next when its turn comes.
    pub(crate) fn start(threads: usize, strategy: LoadBalanceStrategy, time_slice: Millis) -> io::Result<Self> {
        let state = State { line: Line::new(strategy), ..State::default() };
        let slice_fuel = AtomicU64::new(state.pace.slice(time_slice));
        let shared = Shared { state: Mutex::new(state), slice_fuel, time_slice, ..Shared::default() };
        let queue = Self { shared: Arc::new(shared), has_threads: threads > 0 };
        for number in 0..threads {
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
        if self.has_threads {
            self.shared.work.notify_one();
        } else {
            let shared = self.shared.clone();
            tokio::spawn(async move { shared.compute_next() });
        }
        Ok(Waiting { shared: &self.shared, agent, ticket })
    }

    /// The agent has something to hear: if it waits here, it waits less.
    pub(crate) fn hurry(&self, agent: AgentId, now: Timestamp) {
        // One that queues up at this moment hears it before its next slice.
        if self.waiting() > 0 {
            self.shared.lock().line.hurry(agent, now);
        }
    }

    /// The fuel of a slice, going by what slices took of late.
    pub(crate) fn slice_fuel(&self) -> u64 {
        self.shared.slice_fuel.load(Ordering::Relaxed)
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
