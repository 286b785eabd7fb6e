//! The thread that makes vectors, and the queues before it.
//!
//! Two queues, each fair by tenant: queries go before what nobody waits for. Work is done in turns of some
//! [`TURN_PIECES_MAX`] pieces for each core, 60 ms on a slow one, made up of several small calls or of part of a large one;
//! so a query waits for one turn at most, however much else there is. All cores take part in a turn, and no others in
//! anything here.
//!
//! Bounds: [`QUEUE_CALLS_MAX`] calls and [`QUEUE_BYTES_MAX`] bytes of text wait in both queues together; a call beyond that
//! is refused as busy with a hint when to come again. Whoever stops listening (deadline, cancellation, a dropped future)
//! costs at most the turn that has begun. The weights are loaded by the first call, not at start.
//!
//! Without weights every call is [`EmbedError::Absent`], which is logged once; they are looked for again after
//! [`LOOK_AGAIN`], so a pull is noticed without a restart. A thread that dies takes its turn along and is replaced at the
//! next call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
use nexa_ports::embedder::{EmbedCall, EmbedError, Embedded, Embedder, UnitVector, Urgency};
use nexa_types::{Millis, Spend, TenantId, Tokens};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::engine::{Engine, GROUP_PIECES_MAX};
use crate::embedded::ModelStore;
use crate::embedded::fair::FairQueue;
use crate::embedded::weights::WeightsError;

/// Calls that may wait.
pub const QUEUE_CALLS_MAX: usize = 1_024;
/// Bytes of text that may wait.
pub const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Pieces of one turn for each thread.
pub const TURN_PIECES_MAX: usize = GROUP_PIECES_MAX;
/// What a refused caller is asked to wait: about as long as some turns take.
const RETRY_AFTER: Millis = Millis(500);
/// How long it is believed that there are no usable weights.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// No call waits longer than this, whatever it says.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The embedded model for vectors, as others use it. Cheap to make; loads its weights at the first call.
pub struct EmbeddingModel {
    desk: Arc<Desk>,
    name: String,
}

struct Desk {
    store: ModelStore,
    look_again: Duration,
    state: Mutex<DeskState>,
    arrived: Condvar,
}

struct DeskState {
    queries: FairQueue<TenantId, (), Job>,
    background: FairQueue<TenantId, (), Job>,
    /// Of calls that are not answered yet.
    calls: usize,
    bytes: usize,
    has_worker: bool,
    is_closed: bool,
}

struct Job {
    texts: Vec<Arc<str>>,
    bytes: usize,
    tenant: TenantId,
    urgency: Urgency,
    /// Made so far.
    vectors: Vec<UnitVector>,
    pieces_read: u64,
    due: Instant,
    /// Cancelled as soon as nobody waits for the answer.
    over: CancellationToken,
    answer: oneshot::Sender<Result<Embedded, EmbedError>>,
}

impl EmbeddingModel {
    /// A model with the weights of a folder, see [`ModelStore::embedding`].
    pub fn new(store: ModelStore) -> Self {
        Self::looking_again(store, LOOK_AGAIN)
    }

    pub(super) fn looking_again(store: ModelStore, look_again: Duration) -> Self {
        let name = format!("local/{}", store.model());
        let queue = || FairQueue::new(usize::MAX);
        let state = DeskState {
            queries: queue(),
            background: queue(),
            calls: 0,
            bytes: 0,
            has_worker: false,
            is_closed: false,
        };
        Self { desk: Arc::new(Desk { store, look_again, state: Mutex::new(state), arrived: Condvar::new() }), name }
    }

    /// Calls that are not answered yet.
    pub fn calls(&self) -> usize {
        self.desk.state().calls
    }

    async fn answer(&self, call: EmbedCall) -> Result<Embedded, EmbedError> {
        call.check()?;
        let deadline = call.deadline.min(DEADLINE_MAX);
        if call.texts.is_empty() {
            return Ok(Embedded { vectors: Vec::new(), spend: Spend::default() });
        }
        let over = CancellationToken::new();
        let _over_when_dropped = over.clone().drop_guard();
        let (answer, answered) = oneshot::channel();
        self.desk.put(Job {
            bytes: call.texts.iter().map(|text| text.len()).sum(),
            vectors: Vec::with_capacity(call.texts.len()),
            texts: call.texts,
            tenant: call.tenant,
            urgency: call.urgency,
            pieces_read: 0,
            due: Instant::now() + deadline,
            over,
            answer,
        })?;
        tokio::select! {
            biased;
            () = call.cancel.cancelled() => Err(EmbedError::Cancelled),
            reply = answered => reply.unwrap_or_else(|_| Err(broken_off())),
            () = tokio::time::sleep(deadline) => Err(late()),
        }
    }
}

impl Embedder for EmbeddingModel {
    fn model(&self) -> &str {
        &self.name
    }

    fn dimension(&self) -> usize {
        self.desk.store.dimension()
    }

    fn embed(&self, call: EmbedCall) -> BoxFuture<'_, Result<Embedded, EmbedError>> {
        self.answer(call).boxed()
    }
}

impl Drop for EmbeddingModel {
    fn drop(&mut self) {
        self.desk.state().is_closed = true;
        self.desk.arrived.notify_all();
    }
}

impl DeskState {
    fn queue(&mut self, urgency: Urgency) -> &mut FairQueue<TenantId, (), Job> {
        match urgency {
            Urgency::Query => &mut self.queries,
            Urgency::Background => &mut self.background,
        }
    }

    fn push(&mut self, job: Job) {
        let tenant = job.tenant.clone();
        let pushed = self.queue(job.urgency).push(tenant, (), job);
        assert!(pushed.is_ok(), "the queues have no bound of their own");
    }

    /// The call whose turn it is.
    fn pop(&mut self) -> Option<Job> {
        self.queries.pop().or_else(|| self.background.pop())
    }

    /// Gives up the places of calls that nobody waits for any more.
    fn sweep(&mut self) {
        let (mut calls, mut bytes) = (0, 0);
        for urgency in [Urgency::Query, Urgency::Background] {
            self.queue(urgency).retain(|job| {
                let is_over = job.over.is_cancelled();
                if is_over {
                    (calls, bytes) = (calls + 1, bytes + job.bytes);
                }
                !is_over
            });
        }
        (self.calls, self.bytes) = (self.calls - calls, self.bytes - bytes);
    }
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, DeskState> {
        self.state.lock().expect("no holder of this lock can panic")
    }

    fn put(self: &Arc<Self>, job: Job) -> Result<(), EmbedError> {
        let mut state = self.state();
        let fits = |state: &DeskState| state.calls < QUEUE_CALLS_MAX && state.bytes + job.bytes <= QUEUE_BYTES_MAX;
        if !fits(&state) {
            state.sweep();
        }
        if !fits(&state) {
            let message = format!("{} calls wait for the embedded model for vectors already; ask later", state.calls);
            return Err(EmbedError::Busy { message, retry_after: RETRY_AFTER });
        }
        state.calls += 1;
        state.bytes += job.bytes;
        state.push(job);
        if !state.has_worker {
            let desk = self.clone();
            let started = std::thread::Builder::new().name("nexa-embeddings".to_owned()).spawn(move || desk.work());
            match started {
                Ok(_) => state.has_worker = true,
                // The call stays in the queue until its deadline; a later call tries to start the thread again.
                Err(error) => tracing::error!(%error, "cannot start the thread of the embedded model for vectors"),
            }
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// The thread's life: take a turn's worth of calls, make their vectors, until the model is dropped.
    fn work(&self) {
        let mut shelf = Shelf::default();
        while let Some(first) = self.wait() {
            let mut turn = vec![first];
            let done = catch_unwind(AssertUnwindSafe(|| self.turn(&mut shelf, &mut turn)));
            let done = done.unwrap_or_else(|_| {
                shelf.engine = None;
                tracing::error!("the embedded model for vectors panicked");
                let told = "the embedded model for vectors failed on this call or one beside it; the log says where";
                Err(EmbedError::Unavailable(told.to_owned()))
            });
            for job in turn {
                self.settle(job, &done);
            }
        }
    }

    /// The next call whose answer somebody waits for.
    fn wait(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if state.is_closed {
                state.has_worker = false;
                return None;
            }
            match state.pop() {
                Some(job) if job.over.is_cancelled() => {
                    (state.calls, state.bytes) = (state.calls - 1, state.bytes - job.bytes);
                }
                Some(job) => return Some(job),
                None => state = self.arrived.wait(state).expect("no holder of this lock can panic"),
            }
        }
    }

    /// Makes vectors for the calls of a turn, and takes further calls into it while there is room.
    fn turn(&self, shelf: &mut Shelf, turn: &mut Vec<Job>) -> Result<(), EmbedError> {
        let engine = shelf.engine(&self.store, self.look_again)?;
        let room = TURN_PIECES_MAX * rayon::current_num_threads();
        let (mut texts, mut counts, mut len) = (Vec::new(), Vec::new(), 0);
        loop {
            let job = turn.last().expect("a turn begins with a call");
            let before = texts.len();
            for text in &job.texts[job.vectors.len()..] {
                if len >= room {
                    break;
                }
                let pieces = engine.pieces(text);
                len += pieces.len();
                texts.push(pieces);
            }
            counts.push(texts.len() - before);
            if len >= room {
                break;
            }
            let Some(next) = self.state().pop() else { break };
            turn.push(next);
        }
        let mut lens = texts.iter().map(Vec::len).collect::<Vec<_>>().into_iter();
        let mut vectors = engine.vectors(&texts).into_iter();
        for (job, count) in turn.iter_mut().zip(counts) {
            for (vector, len) in vectors.by_ref().zip(lens.by_ref()).take(count) {
                let nowhere =
                    || EmbedError::Invalid("the weights give a text no direction; pull them again".to_owned());
                job.vectors.push(vector.ok_or_else(nowhere)?);
                job.pieces_read += len as u64;
            }
        }
        Ok(())
    }

    /// Answers a call, or puts it back if it has texts left.
    fn settle(&self, job: Job, done: &Result<(), EmbedError>) {
        let is_whole = job.vectors.len() == job.texts.len();
        let is_over = job.over.is_cancelled() || Instant::now() >= job.due;
        let mut state = self.state();
        if done.is_ok() && !is_whole && !is_over {
            state.push(job);
            return;
        }
        (state.calls, state.bytes) = (state.calls - 1, state.bytes - job.bytes);
        drop(state);
        let spend = Spend { tokens_in: Tokens(job.pieces_read), calls: 1, ..Spend::default() };
        let reply = match done {
            Ok(()) if is_whole => Ok(Embedded { vectors: job.vectors, spend }),
            Ok(()) => Err(late()),
            Err(error) => Err(error.clone()),
        };
        // An error means that nobody waits for the answer any more.
        let _ = job.answer.send(reply);
    }
}

/// The loaded weights, or when they were last found missing.
#[derive(Default)]
struct Shelf {
    engine: Option<Engine>,
    missing: Option<(Instant, EmbedError)>,
}

impl Shelf {
    fn engine(&mut self, store: &ModelStore, look_again: Duration) -> Result<&Engine, EmbedError> {
        if self.engine.is_none() {
            if let Some((since, error)) = &self.missing
                && since.elapsed() < look_again
            {
                return Err(error.clone());
            }
            match load(store) {
                Ok(engine) => self.engine = Some(engine),
                Err(error) => {
                    if self.missing.is_none() {
                        tracing::warn!(%error, "texts are found by their words alone");
                    }
                    self.missing = Some((Instant::now(), error.clone()));
                    return Err(error);
                }
            }
            self.missing = None;
        }
        Ok(self.engine.as_ref().expect("it was loaded above"))
    }
}

fn load(store: &ModelStore) -> Result<Engine, EmbedError> {
    let began = Instant::now();
    let told = |error: &dyn std::error::Error| {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(reason) = source {
            message.push_str(&format!(": {reason}"));
            source = reason.source();
        }
        message
    };
    let weights = store.verify().map_err(|error| match error {
        WeightsError::Missing { .. } => EmbedError::Absent(format!(
            "there are no weights of {} in {}; run `nexa models pull`",
            store.model(),
            store.dir().display()
        )),
        error => EmbedError::Absent(told(&error)),
    })?;
    let verified = began.elapsed();
    let engine = Engine::load(&weights.path).map_err(|error| EmbedError::Absent(told(&error)))?;
    if engine.dimension() != store.dimension() {
        let message = format!("the weights make vectors of {} numbers, not {}", engine.dimension(), store.dimension());
        return Err(EmbedError::Absent(message));
    }
    tracing::info!(
        path = %weights.path.display(),
        verify_ms = verified.as_millis() as u64,
        load_ms = began.elapsed().as_millis() as u64,
        "embedded model for vectors loaded"
    );
    Ok(engine)
}

fn late() -> EmbedError {
    EmbedError::Timeout("the vectors were not there in time; give them more time, or send fewer texts".to_owned())
}

fn broken_off() -> EmbedError {
    EmbedError::Unavailable("the embedded model for vectors broke off; ask again".to_owned())
}
