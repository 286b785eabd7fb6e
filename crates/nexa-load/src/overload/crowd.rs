//! Those who submit, and how: the closed loop and the open one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use nexa_client::{Client, ClientError, Options, Patience, Throttling};
use nexa_proto::v1;
use nexa_types::Reason;
use tokio::sync::Semaphore;

use super::Settings;
use super::stage::Span;
use crate::LoadError;
use crate::drive::Arrivals;
use crate::figures::Times;
use crate::observe::{self, Seen};

/// Submissions under way at once: fewer than the connections take, so that none waits on this side.
pub const IN_FLIGHT_MAX: usize = 1_920;
/// Connections of each manner. A server takes 256 calls at once on each.
const CONNECTIONS: usize = 8;
/// Callers of the closed loop.
const CALLERS: usize = 64;
/// How long the rest of a stage may take.
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// Between two looks at whether all has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Reasons for refusals that are told apart; further ones count as others.
const REASONS_MAX: usize = 16;
/// The program: each output differs and can be told beforehand.
const PROGRAM: &str = "flow main(n: int) -> int { return n * 2 + 1 }\n";

/// What the program makes of a number.
pub(super) fn output(number: u64) -> String {
    (2 * number + 1).to_string()
}

/// How clients behave. Either makes a submission once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// They hold back what the server would refuse, as every client does by default.
    AsTheyAre,
    /// They send everything.
    Blunt,
}

impl Manner {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::AsTheyAre => "default",
            Self::Blunt => "blunt",
        }
    }

    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::AsTheyAre => "clients as they are",
            Self::Blunt => "blunt clients",
        }
    }
}

/// Those who submit.
pub(super) struct Crowd {
    /// One a connection.
    as_they_are: Vec<Client>,
    blunt: Vec<Client>,
    /// Tries again, for what must be known.
    steady: Client,
    module: String,
    next: AtomicU64,
    accepted: Mutex<Vec<(String, u64)>>,
    failures: Mutex<(u64, Option<String>)>,
}

/// What became of one submission.
enum Told {
    Accepted,
    Refused(Duration, String),
    HeldBack(Duration),
    Failed,
}

/// What became of those of one stage.
#[derive(Default)]
struct Tally {
    accepted: u64,
    held_back: Times,
    refused_for: BTreeMap<String, u64>,
    refusals: Times,
}

impl Tally {
    fn note(&mut self, told: Told) {
        match told {
            Told::Accepted => self.accepted += 1,
            Told::Refused(after, why) => {
                self.refusals.add(after);
                let is_told = self.refused_for.len() < REASONS_MAX || self.refused_for.contains_key(&why);
                *self.refused_for.entry(if is_told { why } else { "others".to_owned() }).or_default() += 1;
            }
            Told::HeldBack(after) => self.held_back.add(after),
            Told::Failed => {}
        }
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crowd {
    pub(super) async fn gather(address: &str) -> Result<Arc<Self>, LoadError> {
        let failed = |doing| move |source| LoadError::Client { doing, source };
        let once = Patience { deadline: Duration::from_secs(60), attempts_max: 1, ..Patience::default() };
        let connect = async |throttling| {
            let mut clients = Vec::with_capacity(CONNECTIONS);
            for _ in 0..CONNECTIONS {
                let client =
                    Client::connect(address, Options { patience: once, throttling, ..Options::default() }).await;
                clients.push(client.map_err(failed("connecting"))?);
            }
            Ok::<_, LoadError>(clients)
        };
        let (as_they_are, blunt) = (connect(Throttling::default()).await?, connect(Throttling::Off).await?);
        let steady = Client::connect(address, Options::default()).await.map_err(failed("connecting"))?;
        let source = v1::Source { name: "overload.nx".to_owned(), text: PROGRAM.to_owned() };
        let put = v1::ProgramServicePutRequest {
            program: Some(v1::program_service_put_request::Program::Source(source)),
            ..Default::default()
        };
        let put = steady.put_program(put).await.map_err(failed("putting the program"))?;
        let module = put.program.unwrap_or_default().module_hash;
        Ok(Arc::new(Self {
            as_they_are,
            blunt,
            steady,
            module,
            next: AtomicU64::new(0),
            accepted: Mutex::default(),
            failures: Mutex::default(),
        }))
    }

    pub(super) fn accepted(&self) -> Vec<(String, u64)> {
        lock(&self.accepted).clone()
    }

    /// How many submissions failed otherwise than by a refusal, and why the first one did.
    pub(super) fn failures(&self) -> (u64, Option<String>) {
        lock(&self.failures).clone()
    }

    /// Submits the next workload, once.
    async fn submit(&self, manner: Manner) -> Told {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let request = v1::WorkloadServiceSubmitRequest {
            program: Some(v1::workload_service_submit_request::Program::ModuleHash(self.module.clone())),
            input_json: format!("{{\"n\":{number}}}"),
            ..Default::default()
        };
        let clients = match manner {
            Manner::AsTheyAre => &self.as_they_are,
            Manner::Blunt => &self.blunt,
        };
        let client = &clients[usize::try_from(number).unwrap_or_default() % clients.len()];
        let sent = Instant::now();
        match client.submit(request).await {
            Ok(answer) => {
                lock(&self.accepted).push((answer.workload_id, number));
                Told::Accepted
            }
            Err(ClientError::HeldBack(_)) => Told::HeldBack(sent.elapsed()),
            Err(error) if is_refusal(&error) => Told::Refused(sent.elapsed(), error.to_string()),
            Err(error) => {
                let mut failures = lock(&self.failures);
                failures.0 += 1;
                failures.1.get_or_insert_with(|| error.to_string());
                Told::Failed
            }
        }
    }

    /// Workloads a second that are accepted and ended when each caller waits for one before it submits the next.
    pub(super) async fn closed_loop(self: &Arc<Self>, time: Duration) -> f64 {
        let (start, ended) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..CALLERS {
            let (crowd, ended) = (Arc::clone(self), Arc::clone(&ended));
            callers.spawn(async move {
                while start.elapsed() < time {
                    if matches!(crowd.submit(Manner::Blunt).await, Told::Accepted) {
                        ended.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        while callers.join_next().await.is_some() {}
        // What was accepted and has not ended is no work that is done.
        if self.drain().await.is_err() {
            return 1.0;
        }
        (ended.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()).max(1.0)
    }

    /// One stage: so many times the rate, by chance, whatever becomes of them.
    pub(super) async fn open_loop(
        self: &Arc<Self>,
        manner: Manner,
        offered: f64,
        rate: f64,
        settings: &Settings,
        start: Instant,
    ) -> Span {
        let per_second = offered * rate;
        let count = (per_second * settings.stage.as_secs_f64()).ceil() as usize;
        let times = Arrivals::Random(per_second).times(count, settings.seed);
        let (from, began, first) = (start.elapsed(), SystemTime::now(), Instant::now());
        let (room, tally) = (Arc::new(Semaphore::new(IN_FLIGHT_MAX)), Arc::new(Mutex::new(Tally::default())));
        let (mut sent, mut missed) = (0, 0);
        for at in times.into_iter().take_while(|at| *at < settings.stage) {
            if let Some(wait) = at.checked_sub(first.elapsed()) {
                tokio::time::sleep(wait).await;
            }
            // Whoever has been late for longer than the stage has nothing to offer any more.
            if first.elapsed() >= settings.stage {
                missed += 1;
                continue;
            }
            let Ok(place) = room.clone().try_acquire_owned() else {
                missed += 1;
                // Those under way need this thread, too.
                tokio::task::yield_now().await;
                continue;
            };
            sent += 1;
            let crowd = Arc::clone(self);
            let mut submission = Box::pin(async move { crowd.submit(manner).await });
            // What is held back is known at once, and needs no task.
            if let Poll::Ready(told) = futures::poll!(&mut submission) {
                lock(&tally).note(told);
                continue;
            }
            let tally = Arc::clone(&tally);
            tokio::spawn(async move {
                let told = submission.await;
                lock(&tally).note(told);
                drop(place);
            });
        }
        tokio::time::sleep(settings.stage.saturating_sub(first.elapsed())).await;
        let (to, ended) = (start.elapsed(), SystemTime::now());
        // All places are free when none is under way; the calls have deadlines.
        let _ = room.acquire_many(IN_FLIGHT_MAX as u32).await;
        let Tally { accepted, held_back, refused_for, refusals } = std::mem::take(&mut *lock(&tally));
        Span { offered, from, to, began, ended, sent, accepted, held_back, missed, refused_for, refusals }
    }

    /// How all of it ended. Lists lag a little behind the facts, so it looks until it sees all ends, for a while.
    pub(super) async fn settled(&self, accepted: &[(String, u64)]) -> Result<BTreeMap<String, Seen>, LoadError> {
        let until = Instant::now() + DRAIN_MAX;
        loop {
            let seen = observe::sweep(&self.steady).await?;
            let all = accepted.iter().all(|(id, _)| seen.get(id).is_some_and(Seen::has_ended));
            if all || Instant::now() >= until {
                return Ok(seen);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until nothing runs any more.
    pub(super) async fn drain(&self) -> Result<(), LoadError> {
        let until = Instant::now() + DRAIN_MAX;
        for state in [v1::WorkloadState::Submitted, v1::WorkloadState::Running] {
            loop {
                let list = v1::WorkloadServiceListRequest { page_size: 1, state: state.into(), ..Default::default() };
                let listed = self.steady.workloads(list).await;
                let listed = listed.map_err(|source| LoadError::Client { doing: "listing workloads", source })?;
                if listed.workloads.is_empty() || Instant::now() >= until {
                    break;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }
}

/// Refused as it should be: with a time to come back.
fn is_refusal(error: &ClientError) -> bool {
    error.refusal().is_some_and(|refusal| refusal.reason == Reason::Overloaded && refusal.retry_after.is_some())
}
