//! The one thread that writes, and group commit.
//!
//! It takes what is in the queue, and what comes in while it does so, into one transaction, commits, and answers. What
//! arrives during the commit forms the next batch, so that a slow disk makes larger batches and no timer is needed.
//!
//! Queue: at most `QUEUE_JOBS_MAX` calls and `QUEUE_BYTES_MAX` bytes, those of the batch included; a further caller
//! waits, and in the order in which callers came.
//! What waits is told to whoever asks ([`Queue::backlog`]), so that new work can be refused before it would wait here.
//! Batch: closed at `BATCH_APPENDS_MAX` appends or `BATCH_BYTES_MAX` bytes written; one call is never split.
//!
//! Holds:
//!   WR-1  nobody gets an `Ok` before the commit that holds it has been synced
//!   WR-2  a full disk refuses calls with [`StoreError::DiskFull`], keeps nothing of them, and is asked again by the next
//!   WR-3  after any other failure of a write nothing is written through this descriptor any more: the kernel may
//!         have dropped what it could not write and would report the next sync as a success. Whoever waits for that
//!         ([`Queue::stopped`]) is told, so that the process ends and is started anew

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use metrics::{Histogram, histogram};
use nexa_ports::store::{Backlog, StoreError};
use nexa_types::GlobalSeq;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tracing::{error, warn};

use crate::append::Desk;
use crate::checkpoint;
use crate::command::Command;
use crate::index::Indexer;
use crate::trouble::{Trouble, refusal, trouble};

/// Calls that may wait for the writer.
const QUEUE_JOBS_MAX: usize = 4_096;
/// Bytes of calls that wait for the writer or are being written. One that is longer by itself waits for all the others.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Appends of one commit.
const BATCH_APPENDS_MAX: usize = 1_024;
/// Bytes of one commit, counted as headers, payloads, inbox entries, snapshots and blobs.
const BATCH_BYTES_MAX: u64 = 1 << 20;

/// A call in the queue, whatever its answer.
trait Job: Send {
    fn run(&mut self, desk: &mut Desk<'_>) -> rusqlite::Result<()>;
    fn appends(&self) -> usize;
    fn since(&self) -> Instant;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Pending<C: Command> {
    command: C,
    output: Option<C::Output>,
    waits: Waits,
    /// Its place in the queue, until it is answered.
    _room: OwnedSemaphorePermit,
    caller: oneshot::Sender<Result<C::Output, StoreError>>,
}

impl<C: Command> Job for Pending<C> {
    fn run(&mut self, desk: &mut Desk<'_>) -> rusqlite::Result<()> {
        self.output = Some(self.command.run(desk)?);
        Ok(())
    }

    fn appends(&self) -> usize {
        self.command.appends()
    }

    fn since(&self) -> Instant {
        self.waits.since
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { output, caller, .. } = *self;
        let answer = committed.map(|()| output.expect("a batch is committed after each of its jobs has run"));
        // An error means that the caller is gone; what it asked for is stored all the same.
        let _ = caller.send(answer);
    }
}

/// What others may see of the queue, without a lock.
struct Sight {
    opened: Instant,
    /// Calls that are not answered yet, those that wait for room among them.
    calls: AtomicUsize,
    /// When the first of the jobs that the writer has in hand came, in microseconds after `opened`; 0 if it has none. Jobs
    /// come in their order, so nobody waits longer.
    first_came: AtomicU64,
}

impl Sight {
    fn new() -> Arc<Self> {
        Arc::new(Self { opened: Instant::now(), calls: AtomicUsize::new(0), first_came: AtomicU64::new(0) })
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.opened).as_micros()).unwrap_or(u64::MAX).max(1)
    }

    fn in_hand(&self, first: Option<&dyn Job>) {
        self.first_came.store(first.map_or(0, |job| self.micros(job.since())), Ordering::Relaxed);
    }

    fn oldest(&self) -> Duration {
        match self.first_came.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            came => Duration::from_micros(self.micros(Instant::now()).saturating_sub(came)),
        }
    }
}

/// A call that waits, from when it came until it is answered or given up.
struct Waits {
    since: Instant,
    sight: Arc<Sight>,
}

impl Waits {
    fn from_now(sight: &Arc<Sight>) -> Self {
        sight.calls.fetch_add(1, Ordering::Relaxed);
        Self { since: Instant::now(), sight: Arc::clone(sight) }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.sight.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The callers' end of the queue.
pub(crate) struct Queue {
    jobs: mpsc::Sender<Box<dyn Job>>,
    sight: Arc<Sight>,
    /// One permit a byte.
    room: Arc<Semaphore>,
    /// Why nothing is written any more.
    stopped: watch::Sender<Option<String>>,
    /// The disk was full at the latest write.
    full: Arc<AtomicBool>,
}

impl Queue {
    /// Why the next write may be refused, as far as the latest one tells.
    pub(crate) fn trouble(&self) -> Option<StoreError> {
        match &*self.stopped.borrow() {
            Some(why) => Some(unusable(why)),
            None => self.full.load(Ordering::Relaxed).then_some(StoreError::DiskFull),
        }
    }

    /// Has a command done and waits until it is durable.
    ///
    /// Dropping the future leaves open whether it is done.
    pub(crate) async fn submit<C: Command>(&self, command: C) -> Result<C::Output, StoreError> {
        let (caller, answer) = oneshot::channel();
        let waits = Waits::from_now(&self.sight);
        let bytes = command.bytes().min(QUEUE_BYTES_MAX) as u32;
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await.map_err(|_| self.gone())?;
        let job = Box::new(Pending { command, output: None, waits, _room: room, caller });
        if self.jobs.send(job).await.is_err() {
            return Err(self.gone());
        }
        // The queue was taken down after the job went in: nobody can say how far it came.
        answer.await.unwrap_or_else(|_| Err(StoreError::Ambiguous { detail: "the writer ended".into() }))
    }

    /// What waits to be written.
    pub(crate) fn backlog(&self) -> Backlog {
        Backlog {
            calls: self.sight.calls.load(Ordering::Relaxed),
            bytes: QUEUE_BYTES_MAX.saturating_sub(self.room.available_permits()),
            oldest: self.sight.oldest(),
        }
    }

    fn gone(&self) -> StoreError {
        match &*self.stopped.borrow() {
            Some(why) => unusable(why),
            None => StoreError::Unavailable { detail: "the store was closed".into() },
        }
    }

    /// Why nothing is written any more, once that is so.
    pub(crate) fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.stopped.subscribe()
    }
}

fn unusable(why: &str) -> StoreError {
    StoreError::Unavailable { detail: format!("an earlier write failed ({why}); restart the process") }
}

thread_local! {
    /// Pages in the write-ahead log after the latest commit of this thread.
    static LOG_PAGES: Cell<u64> = const { Cell::new(0) };
}

/// What the writer tells others after a commit.
pub(crate) struct Listeners {
    pub(crate) head: watch::Sender<GlobalSeq>,
    /// Wakes the projector. Holds one wish: a second one while it is busy says nothing new.
    pub(crate) projector: Option<SyncSender<()>>,
    pub(crate) checkpoints: checkpoint::Handle,
}

/// Starts the writer on its own connection. It ends when the queue is dropped, and closes the connection.
pub(crate) fn start(
    connection: Connection,
    newest: u64,
    indexer: Indexer,
    listeners: Listeners,
) -> std::io::Result<(Queue, std::thread::JoinHandle<()>)> {
    let (jobs, waiting) = mpsc::channel(QUEUE_JOBS_MAX);
    let stopped = watch::Sender::new(None);
    let (sight, full, measures) = (Sight::new(), Arc::new(AtomicBool::new(false)), Measures::new());
    let (told, seen, known) = (stopped.clone(), Arc::clone(&sight), Arc::clone(&full));
    let writer = Writer { connection, newest, indexer, listeners, stopped: told, sight: seen, full: known, measures };
    let thread = std::thread::Builder::new().name("nexa-store-write".into()).spawn(move || writer.work(waiting))?;
    Ok((Queue { jobs, sight, room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)), stopped, full }, thread))
}

/// The writer's end of the queue.
struct Incoming {
    waiting: mpsc::Receiver<Box<dyn Job>>,
    /// One that did not fit into the last batch, and is the first of the next.
    held: Option<Box<dyn Job>>,
}

impl Incoming {
    /// Waits for a job; `None` once the queue is gone and empty.
    fn wait(&mut self) -> Option<Box<dyn Job>> {
        self.held.take().or_else(|| self.waiting.blocking_recv())
    }

    /// A job that is there already and has no more appends than that.
    fn more(&mut self, appends_max: usize) -> Option<Box<dyn Job>> {
        let job = self.held.take().or_else(|| self.waiting.try_recv().ok())?;
        if job.appends() > appends_max {
            self.held = Some(job);
            return None;
        }
        Some(job)
    }
}

struct Writer {
    connection: Connection,
    newest: u64,
    indexer: Indexer,
    listeners: Listeners,
    stopped: watch::Sender<Option<String>>,
    sight: Arc<Sight>,
    full: Arc<AtomicBool>,
    measures: Measures,
}

/// What is measured of commits.
struct Measures {
    commit: Histogram,
    appends: Histogram,
}

impl Measures {
    fn new() -> Self {
        Self { commit: histogram!("nexa_store_commit_seconds"), appends: histogram!("nexa_store_batch_appends") }
    }
}

/// Why a batch, or a part of it, was not stored.
enum Failed {
    /// Nothing of it was kept, and the next one may do better.
    Now(StoreError),
    /// The writer must not go on.
    ForGood { told: StoreError, why: String },
}

impl Writer {
    fn work(mut self, waiting: mpsc::Receiver<Box<dyn Job>>) {
        self.connection.wal_hook(Some(|_, pages| {
            LOG_PAGES.set(u64::from(pages.unsigned_abs()));
            Ok(())
        }));
        let mut batch = Vec::new();
        let mut incoming = Incoming { waiting, held: None };
        while let Some(first) = incoming.wait() {
            batch.push(first);
            self.store(&mut batch, &mut incoming);
            self.sight.in_hand(None);
        }
        if self.stopped.borrow().is_none() {
            checkpoint::last(&self.connection, LOG_PAGES.get());
        }
    }

    /// Stores a batch in as few commits as its bytes allow, and answers each of its jobs.
    fn store(&mut self, batch: &mut Vec<Box<dyn Job>>, incoming: &mut Incoming) {
        // Where a batch does not fit, a small job of it may, so each is tried alone.
        let mut alone = false;
        while let Some(first) = batch.first() {
            self.sight.in_hand(Some(&**first));
            if let Some(why) = &*self.stopped.borrow() {
                batch.drain(..).for_each(|job| job.answer(Err(unusable(why))));
                return;
            }
            let newest_before = self.newest;
            match self.try_store(batch, if alone { None } else { Some(&mut *incoming) }) {
                Ok(stored) => {
                    self.full.store(false, Ordering::Relaxed);
                    // First the head, so that who gets an answer finds its facts below it.
                    self.tell(newest_before);
                    batch.drain(..stored).for_each(|job| job.answer(Ok(())));
                    self.listeners.checkpoints.after_commit(&self.connection, LOG_PAGES.get());
                }
                Err(Failed::Now(error)) => {
                    self.newest = newest_before;
                    if error == StoreError::DiskFull && !self.full.swap(true, Ordering::Relaxed) {
                        warn!("the disk is full: nothing is stored until there is room");
                    }
                    if alone || batch.len() == 1 {
                        batch.drain(..1).for_each(|job| job.answer(Err(error.clone())));
                    }
                    alone = true;
                }
                Err(Failed::ForGood { told, why }) => {
                    self.newest = newest_before;
                    error!(why, "writing to the store failed: it takes no more writes until a restart");
                    let tried = if alone { 1 } else { batch.len() };
                    batch.drain(..tried).for_each(|job| job.answer(Err(told.clone())));
                    // There is no second reason, since nothing is written after this one.
                    self.stopped.send_replace(Some(why));
                }
            }
        }
    }

    /// Runs jobs in one transaction and commits: those of the batch and what comes in meanwhile, or, without
    /// `incoming`, the first one alone. How many were done.
    fn try_store(
        &mut self,
        batch: &mut Vec<Box<dyn Job>>,
        mut incoming: Option<&mut Incoming>,
    ) -> Result<usize, Failed> {
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| self.give_up(&error))?;
        let mut desk = Desk { connection: &self.connection, newest: self.newest, bytes: 0, arrivals: Vec::new() };
        let (mut done, mut appends) = (0, 0);
        while let Some(job) = batch.get_mut(done) {
            if let Err(error) = job.run(&mut desk) {
                return Err(self.give_up(&error));
            }
            done += 1;
            appends += job.appends();
            let Some(incoming) = &mut incoming else { break };
            if desk.bytes >= BATCH_BYTES_MAX || appends >= BATCH_APPENDS_MAX {
                break;
            }
            if done == batch.len() {
                batch.extend(incoming.more(BATCH_APPENDS_MAX - appends));
            }
        }
        let Desk { newest, arrivals, .. } = desk;
        let sliced = self.indexer.slice(&self.connection, arrivals.len()).map_err(|error| self.give_up(&error))?;
        self.indexer.expect(&arrivals);
        self.newest = newest;
        let began = Instant::now();
        match self.connection.execute_batch("COMMIT") {
            Ok(()) => {
                self.indexer.committed(arrivals.len(), newest, sliced);
                self.measures.commit.record(began.elapsed().as_secs_f64());
                self.measures.appends.record(appends as f64);
                Ok(done)
            }
            Err(error) => match trouble(&error) {
                Trouble::Full | Trouble::Busy | Trouble::Refused => {
                    self.indexer.give_up(&arrivals);
                    Err(self.give_up(&error))
                }
                Trouble::Damaged | Trouble::Broken => {
                    let why = error.to_string();
                    let told = StoreError::Ambiguous { detail: format!("{why}; restart the process") };
                    Err(Failed::ForGood { told, why })
                }
            },
        }
    }

    /// Rolls back after an error before the commit took place.
    fn give_up(&self, error: &rusqlite::Error) -> Failed {
        let why = error.to_string();
        // After some errors SQLite has rolled back by itself.
        if !self.connection.is_autocommit()
            && let Err(second) = self.connection.execute_batch("ROLLBACK")
        {
            let why = format!("{why}, and it could not be rolled back: {second}");
            return Failed::ForGood { told: unusable(&why), why };
        }
        match trouble(error) {
            Trouble::Full | Trouble::Busy | Trouble::Refused => Failed::Now(refusal(error)),
            Trouble::Damaged => Failed::ForGood { told: refusal(error), why },
            Trouble::Broken => Failed::ForGood { told: unusable(&why), why },
        }
    }

    /// Tells who waits for news that there are some.
    fn tell(&self, newest_before: u64) {
        if self.newest != newest_before {
            self.listeners.head.send_replace(GlobalSeq(self.newest));
            if let Some(projector) = &self.listeners.projector {
                // Full means that it has been told and has not looked yet; gone means that the store is being closed.
                let _ = projector.try_send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::PutBlob;
    use futures::FutureExt;
    use nexa_types::TenantId;

    #[test]
    fn a_caller_waits_while_too_many_bytes_are_in_the_queue() {
        let (jobs, mut waiting) = mpsc::channel(QUEUE_JOBS_MAX);
        let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
        let queue = Queue { jobs, sight: Sight::new(), room, stopped: watch::Sender::default(), full: Arc::default() };
        let blob = |len| PutBlob { tenant: TenantId::local(), hash: [0; 32], bytes: vec![0; len] };
        let mut calls = [
            Box::pin(queue.submit(blob(QUEUE_BYTES_MAX - 1))),
            Box::pin(queue.submit(blob(1))),
            Box::pin(queue.submit(blob(2 * QUEUE_BYTES_MAX))),
            Box::pin(queue.submit(blob(1))),
        ];
        let mut come = |calls: &mut [_]| {
            calls.iter_mut().for_each(|call| assert!(FutureExt::now_or_never(call).is_none()));
            std::iter::from_fn(|| waiting.try_recv().ok()).collect::<Vec<_>>()
        };
        let mut first = come(&mut calls);
        assert_eq!(first.len(), 2, "the third is too long, and the fourth does not overtake it");
        first.pop();
        assert_eq!(come(&mut calls[2..]).len(), 0, "one that is longer than the queue waits for all");
        assert_eq!(queue.backlog().calls, 3, "who waits for room waits, too");
        assert_eq!(queue.backlog().bytes, QUEUE_BYTES_MAX);
        first.pop();
        assert_eq!(come(&mut calls[2..]).len(), 1);
        drop(calls);
        assert_eq!(queue.backlog(), Backlog::default());
    }

    #[test]
    fn the_oldest_is_the_first_in_the_writer_s_hand() {
        let (jobs, mut waiting) = mpsc::channel(QUEUE_JOBS_MAX);
        let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
        let queue = Queue { jobs, sight: Sight::new(), room, stopped: watch::Sender::default(), full: Arc::default() };
        let blob = PutBlob { tenant: TenantId::local(), hash: [0; 32], bytes: vec![0; 5] };
        let mut call = Box::pin(queue.submit(blob));
        assert!(FutureExt::now_or_never(&mut call).is_none());
        let job = waiting.try_recv().expect("it came");
        assert_eq!(queue.backlog(), Backlog { calls: 1, bytes: 5, oldest: Duration::ZERO });
        queue.sight.in_hand(Some(&*job));
        let until = Instant::now() + Duration::from_millis(2);
        while Instant::now() < until {
            std::thread::yield_now();
        }
        assert!(queue.backlog().oldest >= Duration::from_millis(2));
        queue.sight.in_hand(None);
        job.answer(Err(StoreError::DiskFull));
        assert_eq!(queue.backlog(), Backlog::default());
    }
}
