//! The thread that writes answers, and the queue before it.
//!
//! One answer at a time, on a thread of its own: the network keeps every core busy, and liveness must not wait for it.
//! Queue: [`QUEUE_LEN_MAX`] calls, fair by tenant and then by workload; a call beyond that is refused as
//! `rate_limited` with a hint when to come again. Pieces on their way to a slow reader are joined, never waited for.
//! The weights are loaded by the first call, not at start. Whoever stops listening (deadline, cancellation,
//! a dropped future) ends the answer at its next token. A thread that dies takes its one answer along and
//! is replaced at the next call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
use nexa_event::effect::ModelReply;
use nexa_ports::model::{Chunks, LaneLimits, Model, ModelCall, ModelError};
use nexa_types::{Millis, RunCode, TenantId, WorkloadId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::engine::{Engine, Listener};
use super::fair::FairQueue;
use super::weights::ModelStore;

/// Calls that may wait.
pub const QUEUE_LEN_MAX: usize = 256;
/// Calls that a dispatcher sends at once: one that is written and one that waits, so that there is no gap.
pub const SLOTS: usize = 2;
/// What a refused caller is asked to wait: about as long as a short answer takes.
const RETRY_AFTER: Millis = Millis(2_000);
/// No call waits longer than this, whatever it says.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Pieces on their way; beyond that they are joined.
const PIECES_MAX: usize = 64;

/// The embedded model, as others use it. Cheap to make; loads its weights at the first call.
pub struct EmbeddedModel {
    desk: Arc<Desk>,
}

struct Desk {
    store: ModelStore,
    state: Mutex<DeskState>,
    arrived: Condvar,
}

struct DeskState {
    queue: FairQueue<TenantId, WorkloadId, Job>,
    has_worker: bool,
    is_closed: bool,
}

struct Job {
    call: ModelCall,
    due: Instant,
    /// Cancelled as soon as nobody waits for the answer.
    over: CancellationToken,
    pieces: mpsc::Sender<(u64, String)>,
    answer: oneshot::Sender<Result<ModelReply, ModelError>>,
}

impl EmbeddedModel {
    /// A model with the weights of a folder.
    pub fn new(store: ModelStore) -> Self {
        let queue = FairQueue::new(QUEUE_LEN_MAX);
        let state = Mutex::new(DeskState { queue, has_worker: false, is_closed: false });
        Self { desk: Arc::new(Desk { store, state, arrived: Condvar::new() }) }
    }

    /// Calls that wait for their turn now.
    pub fn queue_len(&self) -> usize {
        self.desk.state().queue.len()
    }

    /// `local/` and the model's name.
    pub fn name(&self) -> String {
        self.desk.name()
    }

    async fn answer(&self, call: ModelCall, chunks: &dyn Chunks) -> Result<ModelReply, ModelError> {
        let deadline = call.deadline.min(DEADLINE_MAX);
        let cancel = call.cancel.clone();
        if cancel.is_cancelled() {
            return Err(cancelled());
        }
        let (wanted, own) = (call.request.model.as_str(), self.name());
        if !wanted.is_empty() && wanted != own {
            return Err(ModelError::new(
                RunCode::Refused,
                format!("there is no embedded model `{wanted}`, only `{own}`"),
            ));
        }
        if call.request.has_tools() {
            return Err(ModelError::new(RunCode::Refused, "the embedded model cannot call tools; use an endpoint"));
        }
        let over = CancellationToken::new();
        let _over_when_dropped = over.clone().drop_guard();
        let (pieces, mut arriving) = mpsc::channel(PIECES_MAX);
        let (answer, answered) = oneshot::channel();
        self.desk.put(Job { due: Instant::now() + deadline, call, over, pieces, answer })?;
        let relay = async {
            while let Some((offset, text)) = arriving.recv().await {
                chunks.piece(offset, &text);
            }
            // The sender is dropped before the answer is sent, so every piece has been passed on by now.
            answered.await.unwrap_or_else(|_| {
                Err(ModelError::new(RunCode::Unavailable, "the embedded model broke off; ask again"))
            })
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(cancelled()),
            reply = relay => reply,
            () = tokio::time::sleep(deadline) => Err(late()),
        }
    }
}

impl Model for EmbeddedModel {
    fn ask<'a>(&'a self, call: ModelCall, chunks: &'a dyn Chunks) -> BoxFuture<'a, Result<ModelReply, ModelError>> {
        self.answer(call, chunks).boxed()
    }

    fn limits(&self, _: &str) -> LaneLimits {
        LaneLimits::at_once(SLOTS)
    }

    fn lane(&self, _: &str) -> String {
        "local".to_owned()
    }
}

impl Drop for EmbeddedModel {
    fn drop(&mut self) {
        self.desk.state().is_closed = true;
        self.desk.arrived.notify_all();
    }
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, DeskState> {
        self.state.lock().expect("no holder of this lock can panic")
    }

    fn name(&self) -> String {
        format!("local/{}", self.store.model())
    }

    fn put(self: &Arc<Self>, job: Job) -> Result<(), ModelError> {
        let mut state = self.state();
        if state.queue.len() == QUEUE_LEN_MAX {
            state.queue.retain(|job| !job.over.is_cancelled());
        }
        let (tenant, workload) = (job.call.tenant.clone(), job.call.workload);
        state.queue.push(tenant, workload, job).map_err(|_| ModelError {
            code: RunCode::RateLimited,
            message: format!("{QUEUE_LEN_MAX} calls wait for the embedded model already; ask later or use an endpoint"),
            retry_after: Some(RETRY_AFTER),
        })?;
        if !state.has_worker {
            let desk = self.clone();
            let started = std::thread::Builder::new().name("nexa-embedded-model".to_owned()).spawn(move || desk.work());
            match started {
                Ok(_) => state.has_worker = true,
                // The call stays in the queue until its deadline; a later call tries to start the thread again.
                Err(error) => tracing::error!(%error, "cannot start the embedded model's thread"),
            }
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// The thread's life: take a call, answer it, until the model is dropped.
    fn work(&self) {
        let mut engine = None;
        while let Some(job) = self.next() {
            if job.over.is_cancelled() {
                continue;
            }
            let Job { call, due, over, pieces, answer } = job;
            let mut listener = Relay { due, over, pieces, waiting: None };
            let written = catch_unwind(AssertUnwindSafe(|| self.write(&mut engine, &call, &mut listener)));
            let reply = written.unwrap_or_else(|_| {
                engine = None;
                tracing::error!(agent = %call.request.agent, key = %call.key, "the embedded model panicked");
                Err(ModelError::new(
                    RunCode::Unavailable,
                    "the embedded model failed on this request; the log says where",
                ))
            });
            listener.finish();
            drop(listener);
            // An error means that nobody waits for the answer any more.
            let _ = answer.send(reply);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if state.is_closed {
                state.has_worker = false;
                return None;
            }
            if let Some(job) = state.queue.pop() {
                return Some(job);
            }
            state = self.arrived.wait(state).expect("no holder of this lock can panic");
        }
    }

    fn write(
        &self,
        engine: &mut Option<Engine>,
        call: &ModelCall,
        listener: &mut Relay,
    ) -> Result<ModelReply, ModelError> {
        let loaded = match engine.take() {
            Some(loaded) => loaded,
            None => self.load()?,
        };
        let engine = engine.insert(loaded);
        // Without a seed the effect's key is one: a call sent again after a crash is answered alike.
        let key = call.key.as_bytes();
        let own = key.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        engine.answer(&call.request, call.request.sampling.seed.unwrap_or(own), listener)
    }

    fn load(&self) -> Result<Engine, ModelError> {
        let began = Instant::now();
        // Weights do not come back by themselves: asking again would only hide what to do.
        let refused = |error: &dyn std::error::Error| {
            let mut message = error.to_string();
            let mut source = error.source();
            while let Some(reason) = source {
                message.push_str(&format!(": {reason}"));
                source = reason.source();
            }
            ModelError::new(RunCode::Refused, message)
        };
        let weights = self.store.verify().map_err(|error| refused(&error))?;
        let verified = began.elapsed();
        let engine = Engine::load(&weights.path, &self.name()).map_err(|error| refused(&error))?;
        tracing::info!(
            path = %weights.path.display(),
            verify_ms = verified.as_millis() as u64,
            load_ms = began.elapsed().as_millis() as u64,
            "embedded model loaded"
        );
        Ok(engine)
    }
}

/// Passes pieces on, and asks before each token whether anybody still wants the next.
struct Relay {
    due: Instant,
    over: CancellationToken,
    pieces: mpsc::Sender<(u64, String)>,
    waiting: Option<(u64, String)>,
}

impl Relay {
    /// Nothing more comes: what waits is sent even if that means waiting, as long as somebody listens.
    fn finish(&mut self) {
        if let Some(piece) = self.waiting.take() {
            // An error means that the listener has gone.
            let _ = self.pieces.blocking_send(piece);
        }
    }
}

impl Listener for Relay {
    fn go_on(&self) -> Result<(), ModelError> {
        if self.over.is_cancelled() {
            return Err(cancelled());
        }
        if Instant::now() >= self.due { Err(late()) } else { Ok(()) }
    }

    fn piece(&mut self, offset: usize, text: &str) {
        let mut piece = self.waiting.take().unwrap_or((offset as u64, String::new()));
        piece.1.push_str(text);
        if let Err(mpsc::error::TrySendError::Full(piece)) = self.pieces.try_send(piece) {
            self.waiting = Some(piece);
        }
    }
}

fn cancelled() -> ModelError {
    ModelError::new(RunCode::Cancelled, "the call was cancelled")
}

fn late() -> ModelError {
    ModelError::new(
        RunCode::Timeout,
        "the embedded model did not finish in time; give it more time, a shorter prompt or a lower `max_tokens`",
    )
}

/// What a person should know about this machine before the first answer, if anything.
pub fn processor_note() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return None;
    }
    if !cfg!(target_feature = "avx2") {
        return Some(
            "this program was built without AVX2, so the embedded model is some ten times slower than it could be; \
             build it with `-Ctarget-cpu=x86-64-v3`"
                .to_owned(),
        );
    }
    // Asking the compiler's detection would be no use: a program built for AVX2 is told that it is there.
    let lines = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    missing_features(&lines)
}

fn missing_features(cpuinfo: &str) -> Option<String> {
    const NEEDED: [&str; 4] = ["avx2", "fma", "f16c", "bmi2"];
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")?.split_once(':'))?.1;
    let has = |feature: &str| flags.split_whitespace().any(|flag| flag == feature);
    let missing: Vec<&str> = NEEDED.into_iter().filter(|feature| !has(feature)).collect();
    if missing.is_empty() {
        return None;
    }
    Some(format!(
        "this program was built for processors of x86-64-v3 and this one lacks {}; the embedded model may stop the \
         program. Build it for this processor, or use an endpoint",
        missing.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::missing_features;

    #[test]
    fn an_old_processor_is_named_for_what_it_lacks() {
        assert_eq!(missing_features("flags\t\t: fpu avx avx2 fma f16c bmi1 bmi2\n"), None);
        let note = missing_features("processor: 0\nflags\t: fpu avx f16c bmi2\n").expect("two are missing");
        assert!(note.contains("lacks avx2, fma"), "{note}");
        assert_eq!(missing_features("Features: asimd"), None);
    }
}
