//! The tasks that append, and group commit.
//!
//! Each has a connection of its own and one commit in flight. It takes what is in its queue into one batch: reads the rows
//! that the batch needs and it does not remember ([`crate::known`]), judges in memory ([`crate::batch`]), has it stored by one
//! call ([`crate::write`]), and answers. What arrives meanwhile forms the next batch, so that a slow disk makes larger batches
//! and no timer is needed. An agent's appends always go to the same task, by the hash of its id.
//!
//! Callers come again once they are answered. So that neither they nor the server wait for each other, a batch takes no more
//! than half of what the latest one had and what waits ([`most_jobs`]): callers part into two halves, of which one thinks while
//! the other is stored. And answers are given by a task of their own, beside the next call to the server.
//!
//! Queue: at most `QUEUE_JOBS_MAX` calls a task, and `QUEUE_BYTES_MAX` bytes in all; a further caller waits, in order.
//! Batch: closed at that half if it is more than `BATCH_JOBS_MIN` calls, at `BATCH_APPENDS_MAX` appends or at `BATCH_BYTES_MAX`
//! bytes; one call is never split.
//! A row that others changed between reading and storing: the batch is judged again, at most `TRIES_MAX` times.
//! Without a connection: everything in the queue is refused, and so is what comes until the next try, after a pause that
//! doubles from `PAUSE_MIN` to `PAUSE_MAX`: callers know better than this queue how long to wait.
//!
//! Holds:
//!   PW-1  nobody gets an `Ok` before the server has said that the commit is done
//!   PW-2  whoever was on the way to the server when the connection was lost is told that the result is unknown; whoever was
//!         not is told that nothing was stored

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use metrics::{Histogram, histogram};
use nexa_ports::store::{AppendError, Appended, Backlog, StoreError};
use nexa_types::{AgentId, GlobalSeq, NodeId, StreamId};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::batch::{Accepted, Agent, Ready, Wanted};
use crate::dial::{Dial, Open, Role};
use crate::known::Known;
use crate::pool::closed;
use crate::trouble::Fault;
use crate::write::{self, Stored};

/// Calls that may wait for one task.
const QUEUE_JOBS_MAX: usize = 4_096;
/// Bytes of calls that wait or are being written. One that is longer by itself waits for all the others.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Appends of one commit.
const BATCH_APPENDS_MAX: usize = 1_024;
/// So many calls are stored together, however few came before.
const BATCH_JOBS_MIN: usize = 8;
/// Bytes of one commit, counted as payloads and inbox entries.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How often a batch is judged, when others keep changing its rows.
const TRIES_MAX: u32 = 16;
/// The first pause after a connection could not be made.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);

type Answers = Vec<Result<Appended, AppendError>>;

/// A call in the queue.
struct Job {
    appends: Vec<Ready>,
    bytes: usize,
    waits: Waits,
    /// Its place in the queue, until it is answered.
    _room: OwnedSemaphorePermit,
    caller: oneshot::Sender<Answers>,
}

impl Job {
    fn answer(self, answers: Answers) {
        // An error means that the caller is gone; what it asked for is stored all the same.
        let _ = self.caller.send(answers);
    }

    fn refuse(self, error: &StoreError) {
        let answers = self.appends.iter().map(|_| Err(error.clone().into())).collect();
        self.answer(answers);
    }
}

/// What others may see of the queues, without a lock.
struct Sight {
    opened: Instant,
    /// Calls that are not answered yet, those that wait for room among them.
    calls: AtomicUsize,
    /// For each task, when the first job that it has in hand came, in microseconds after `opened`; 0 if it has none.
    first_came: Vec<AtomicU64>,
    /// What the latest call to the server met.
    trouble: Mutex<Option<StoreError>>,
}

impl Sight {
    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.opened).as_micros()).unwrap_or(u64::MAX).max(1)
    }

    fn note(&self, trouble: Option<StoreError>) {
        let mut kept = self.trouble.lock().expect("no holder of this lock can panic");
        if let (None, Some(trouble)) = (&*kept, &trouble) {
            warn!(%trouble, "nothing can be stored until this is over");
        }
        *kept = trouble;
    }
}

/// A call that waits, from when it came until it is answered or given up.
struct Waits {
    since: Instant,
    sight: Arc<Sight>,
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.sight.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The callers' end of the queues.
pub(crate) struct Queue {
    tasks: Mutex<Option<Vec<mpsc::Sender<Job>>>>,
    sight: Arc<Sight>,
    /// One permit a byte.
    room: Arc<Semaphore>,
}

impl Queue {
    /// Starts so many tasks, on the threads of `home`. They end when the queue is closed and empty.
    pub(crate) fn start(
        dial: &Dial,
        tasks: usize,
        head: &watch::Sender<GlobalSeq>,
        home: &Handle,
    ) -> (Self, Vec<JoinHandle<()>>) {
        let sight = Arc::new(Sight {
            opened: Instant::now(),
            calls: AtomicUsize::new(0),
            first_came: (0..tasks).map(|_| AtomicU64::new(0)).collect(),
            trouble: Mutex::default(),
        });
        let (mut ends, mut running) = (Vec::new(), Vec::new());
        for number in 0..tasks {
            let (jobs, waiting) = mpsc::channel(QUEUE_JOBS_MAX);
            let writer = Writer {
                number,
                dial: dial.clone(),
                open: None,
                head: head.clone(),
                sight: Arc::clone(&sight),
                pause: PAUSE_MIN,
                not_before: None,
                measures: Measures::new(),
                known: Known::default(),
                answering: None,
            };
            ends.push(jobs);
            running.push(home.spawn(writer.work(waiting)));
        }
        let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
        (Self { tasks: Mutex::new(Some(ends)), sight, room }, running)
    }

    /// Lets nobody in any more; what is in the queues is still done.
    pub(crate) fn close(&self) {
        *self.tasks.lock().expect("no holder of this lock can panic") = None;
    }

    /// Why the next append may be refused, as far as the latest one tells.
    pub(crate) fn trouble(&self) -> Option<StoreError> {
        self.sight.trouble.lock().expect("no holder of this lock can panic").clone()
    }

    /// Has appends stored and waits until they are durable, or refused.
    ///
    /// Dropping the future leaves open whether they are.
    pub(crate) async fn submit(&self, appends: Vec<Ready>) -> Answers {
        let asked = appends.len();
        let refused = |error: StoreError| vec![Err(error.into()); asked];
        let bytes: usize = appends.iter().map(Ready::bytes).sum();
        self.sight.calls.fetch_add(1, Ordering::Relaxed);
        let waits = Waits { since: Instant::now(), sight: Arc::clone(&self.sight) };
        let permits = bytes.clamp(1, QUEUE_BYTES_MAX) as u32;
        let Ok(room) = Arc::clone(&self.room).acquire_many_owned(permits).await else { return refused(closed()) };
        let Some(task) = self.task_of(appends.first().map(Ready::stream)) else { return refused(closed()) };
        let (caller, answer) = oneshot::channel();
        if task.send(Job { appends, bytes, waits, _room: room, caller }).await.is_err() {
            return refused(closed());
        }
        // The task ended after the job went in: nobody can say how far it came.
        let lost = || refused(StoreError::Ambiguous { detail: "the task that appends has ended".into() });
        answer.await.unwrap_or_else(|_| lost())
    }

    fn task_of(&self, stream: Option<&StreamId>) -> Option<mpsc::Sender<Job>> {
        let tasks = self.tasks.lock().expect("no holder of this lock can panic");
        let tasks = tasks.as_ref()?;
        // Ids are hashes already.
        let byte = match stream {
            Some(StreamId::Agent(agent)) => agent.as_bytes()[15],
            Some(StreamId::Workload(workload)) => workload.as_bytes()[15],
            Some(StreamId::Cluster(_)) | None => 0,
        };
        tasks.get(usize::from(byte) % tasks.len()).cloned()
    }

    /// What waits to be written.
    pub(crate) fn backlog(&self) -> Backlog {
        let now = self.sight.micros(Instant::now());
        let came = self.sight.first_came.iter().map(|came| came.load(Ordering::Relaxed)).filter(|came| *came > 0);
        Backlog {
            calls: self.sight.calls.load(Ordering::Relaxed),
            bytes: QUEUE_BYTES_MAX.saturating_sub(self.room.available_permits()),
            oldest: came.min().map_or(Duration::ZERO, |came| Duration::from_micros(now.saturating_sub(came))),
        }
    }
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

/// Why a batch was not stored, or may not have been.
struct Failed {
    error: StoreError,
    /// Whether a part of it alone may do better.
    alone: bool,
}

/// One task.
struct Writer {
    number: usize,
    dial: Dial,
    open: Option<Open>,
    head: watch::Sender<GlobalSeq>,
    sight: Arc<Sight>,
    pause: Duration,
    /// No connection is tried before.
    not_before: Option<(Instant, StoreError)>,
    measures: Measures,
    known: Known,
    /// Gives the latest answers.
    answering: Option<JoinHandle<()>>,
}

impl Writer {
    async fn work(mut self, mut waiting: mpsc::Receiver<Job>) {
        let mut held = None;
        let mut latest = 0;
        loop {
            let first = match held.take() {
                Some(job) => job,
                None => match waiting.recv().await {
                    Some(job) => job,
                    None => break,
                },
            };
            let most = most_jobs(latest, 1 + waiting.len());
            let mut batch = vec![first];
            held = fill(&mut batch, &mut waiting, most);
            latest = batch.len();
            self.in_hand(batch.first());
            if let Err(error) = self.connect().await {
                self.sight.note(Some(error.clone()));
                batch.into_iter().chain(held.take()).for_each(|job| job.refuse(&error));
                while let Ok(job) = waiting.try_recv() {
                    job.refuse(&error);
                }
            } else {
                self.store(batch).await;
            }
            self.in_hand(None);
        }
        self.answered().await;
    }

    /// Has jobs answered while the server is at the next ones.
    async fn answer(&mut self, jobs: Vec<Job>, answers: Vec<Answers>) {
        self.answered().await;
        let answering = async move { jobs.into_iter().zip(answers).for_each(|(job, answers)| job.answer(answers)) };
        self.answering = Some(tokio::spawn(answering));
    }

    /// Waits until the latest answers are given.
    async fn answered(&mut self) {
        if let Some(answering) = self.answering.take() {
            // Whoever was not answered learns that the result is unknown.
            let _ = answering.await;
        }
    }

    fn in_hand(&self, first: Option<&Job>) {
        let came = first.map_or(0, |job| self.sight.micros(job.waits.since));
        self.sight.first_came[self.number].store(came, Ordering::Relaxed);
    }

    /// Makes sure that there is a connection that answered not long ago, or says why not.
    async fn connect(&mut self) -> Result<(), StoreError> {
        if self.open.as_ref().is_some_and(|open| self.dial.is_of_now(open)) {
            return Ok(());
        }
        self.open = None;
        if let Some((at, error)) = &self.not_before
            && *at > Instant::now()
        {
            return Err(error.clone());
        }
        match self.dial.open(Role::Append).await {
            Ok(open) => {
                self.open = Some(open);
                (self.pause, self.not_before) = (PAUSE_MIN, None);
                Ok(())
            }
            Err(error) => {
                self.not_before = Some((Instant::now() + self.pause, error.clone()));
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                Err(error)
            }
        }
    }

    /// Stores a batch, or what of it can be stored, and answers each of its jobs.
    async fn store(&mut self, mut batch: Vec<Job>) {
        match self.try_store(&batch).await {
            Ok(answers) => {
                self.sight.note(None);
                self.answer(batch, answers).await;
            }
            Err(Failed { error, alone }) => {
                self.sight.note(Some(error.clone()));
                // Where a batch is refused, a job of it may not be, so each is tried alone.
                if !alone || batch.len() == 1 {
                    return batch.into_iter().for_each(|job| job.refuse(&error));
                }
                for job in batch.drain(..) {
                    if let Err(error) = self.connect().await {
                        job.refuse(&error);
                        continue;
                    }
                    let one = [job];
                    let outcome = self.try_store(&one).await.map_err(|failed| failed.error);
                    let [job] = one;
                    self.sight.note(outcome.as_ref().err().cloned());
                    match outcome {
                        Ok(mut answers) => job.answer(answers.pop().unwrap_or_default()),
                        Err(error) => job.refuse(&error),
                    }
                }
            }
        }
    }

    /// Judges and stores jobs in one transaction; the answers of each. A lost connection is given up.
    async fn try_store(&mut self, jobs: &[Job]) -> Result<Vec<Answers>, Failed> {
        let mut wanted = Wanted::default();
        jobs.iter().flat_map(|job| &job.appends).for_each(|ready| wanted.add(ready));
        for attempt in 0..TRIES_MAX {
            let remembered = if attempt == 0 { self.known.batch(&wanted) } else { None };
            let is_guess = remembered.is_some();
            let Some(open) = &mut self.open else { return Err(Failed { error: closed(), alone: false }) };
            let mut batch = match remembered {
                Some(batch) => batch,
                None => match self.dial.within(write::read_rows(&mut open.connection, &wanted)).await {
                    Ok(batch) => batch,
                    Err(fault) => return Err(self.give_up(fault, Fault::refusal)),
                },
            };
            let judge = |job: &Job| -> Vec<_> { job.appends.iter().map(|ready| batch.append(ready)).collect() };
            let judged: Vec<Vec<Result<Accepted, AppendError>>> = jobs.iter().map(judge).collect();
            // Nobody is refused by what is remembered.
            if is_guess && judged.iter().flatten().any(Result::is_err) {
                self.known.forget(&wanted);
                continue;
            }
            let began = Instant::now();
            let stored = if batch.is_empty() {
                Ok(None)
            } else {
                match self.dial.within(write::store(&mut open.connection, &batch)).await {
                    Ok(None) => {
                        self.known.forget(&wanted);
                        continue;
                    }
                    Err(fault) if fault.is_again() => {
                        self.known.forget(&wanted);
                        continue;
                    }
                    other => other,
                }
            };
            match stored {
                Err(fault) => return Err(self.give_up(fault, Fault::outcome)),
                Ok(stored) => {
                    if let Some(stored) = &stored {
                        self.measures.commit.record(began.elapsed().as_secs_f64());
                        self.measures.appends.record(judged.len() as f64);
                        // First the head, so that who gets an answer finds its facts below it.
                        self.tell(GlobalSeq(stored.base + batch.facts));
                    }
                    let answers =
                        |job: Vec<_>| job.into_iter().map(|one| answer(one, stored.as_ref(), &batch.agents)).collect();
                    let answers = judged.into_iter().map(answers).collect();
                    self.known.keep(batch);
                    return Ok(answers);
                }
            }
        }
        let detail = format!("others changed the same rows {TRIES_MAX} times in a row");
        Err(Failed { error: StoreError::Unavailable { detail }, alone: false })
    }

    fn give_up(&mut self, fault: Fault, told: impl FnOnce(Fault) -> StoreError) -> Failed {
        if fault.is_loss() {
            self.open = None;
        }
        self.known = Known::default();
        Failed { alone: fault.may_be_one_call_s(), error: told(fault) }
    }

    fn tell(&self, newest: GlobalSeq) {
        self.head.send_if_modified(|head| {
            let is_news = *head < newest;
            *head = newest.max(*head);
            is_news
        });
    }
}

/// The jobs of a batch at most, by those of the latest one and those that wait now.
fn most_jobs(latest: usize, waiting: usize) -> usize {
    (latest + waiting).div_ceil(2).max(BATCH_JOBS_MIN)
}

/// Takes more jobs into a batch, up to so many, as they are there and fit; one that does not is the first of the next.
fn fill(batch: &mut Vec<Job>, waiting: &mut mpsc::Receiver<Job>, most: usize) -> Option<Job> {
    let mut appends: usize = batch.iter().map(|job| job.appends.len()).sum();
    let mut bytes: usize = batch.iter().map(|job| job.bytes).sum();
    while batch.len() < most && appends < BATCH_APPENDS_MAX && bytes < BATCH_BYTES_MAX {
        let job = waiting.try_recv().ok()?;
        if appends + job.appends.len() > BATCH_APPENDS_MAX {
            return Some(job);
        }
        appends += job.appends.len();
        bytes += job.bytes;
        batch.push(job);
    }
    None
}

/// What one append is told.
fn answer(
    judged: Result<Accepted, AppendError>,
    stored: Option<&Stored>,
    agents: &BTreeMap<AgentId, Agent>,
) -> Result<Appended, AppendError> {
    let accepted = judged?;
    // Something was accepted, so something was stored.
    let base = stored.map_or(0, |stored| stored.base);
    let owner_of = |agent: AgentId| -> Option<NodeId> {
        match stored.and_then(|stored| stored.owners.get(&agent)) {
            Some(owner) => owner.clone(),
            None => agents.get(&agent).and_then(|row| row.node.clone()),
        }
    };
    let elsewhere = match accepted.posted {
        None => Vec::new(),
        Some((here, posted)) => posted
            .into_iter()
            .filter_map(|agent| {
                owner_of(agent).filter(|there| Some(there) != here.as_ref()).map(|there| (agent, there))
            })
            .collect(),
    };
    Ok(Appended { version: accepted.version, position: GlobalSeq(base + accepted.facts), elsewhere })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Jobs of each batch where so many callers come again as soon as the batch after theirs is on its way.
    fn batches(callers: usize, rounds: usize) -> Vec<usize> {
        let (mut waiting, mut latest) = (callers, 0);
        let round = |_| {
            let batch = most_jobs(latest, waiting).min(waiting);
            waiting = waiting - batch + latest;
            latest = batch;
            batch
        };
        (0..rounds).map(round).collect()
    }

    #[test]
    fn callers_part_into_two_halves() {
        for callers in [16, 17, 64, 1_001] {
            let batches = batches(callers, 16);
            assert!(batches.iter().all(|batch| batch.abs_diff(callers / 2) <= 1), "{callers}: {batches:?}");
        }
    }

    #[test]
    fn uneven_parts_become_even() {
        let (mut stored, mut waiting) = (60, 4);
        for _ in 0..8 {
            let batch = most_jobs(stored, waiting).min(waiting);
            (stored, waiting) = (batch, waiting - batch + stored);
        }
        assert!(stored.abs_diff(32) <= 1 && waiting.abs_diff(32) <= 1, "{stored} are stored and {waiting} wait");
    }

    #[test]
    fn few_callers_are_stored_together_and_a_long_queue_in_long_batches() {
        assert_eq!(most_jobs(0, 1), BATCH_JOBS_MIN);
        assert_eq!(batches(BATCH_JOBS_MIN, 3), [BATCH_JOBS_MIN, 0, BATCH_JOBS_MIN]);
        assert!(most_jobs(1, QUEUE_JOBS_MAX) > BATCH_APPENDS_MAX);
    }
}
