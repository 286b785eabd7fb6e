//! More work than a node takes: how much it finishes all the same.
//!
//! 1. A closed loop finds the rate at which the node finishes small workloads that ask no model.
//! 2. Stages of an open loop offer parts and multiples of that rate ([`STAGES`]). Each submission is sent once; a refused
//!    one is not sent again, so that what is offered stays what was asked for.
//! 3. After each stage everything that was accepted is waited for, and at the end every output is checked.
//!
//! Goodput is what ended within its stage, by the times that the node recorded, divided by the stage's time. The driver
//! shares the machine with the node, so at ten times the rate it takes its part of the processors.
//!
//! Bounds: [`IN_FLIGHT_MAX`] submissions under way; a further one is not sent, and counted as missed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nexa_client::{Client, ClientError, Options, Patience};
use nexa_proto::v1;
use nexa_types::Reason;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::LoadError;
use crate::drive::Arrivals;
use crate::endpoint::limits::KeyLimits;
use crate::figures::{Times, rounded};
use crate::node::{Node, NodePlan};
use crate::observe::{self, Seen};
use crate::sample::{Sample, sample};

/// What is offered, as multiples of what the node finishes; the last one is the overload.
pub const STAGES: [f64; 4] = [0.5, 1.0, 2.0, 10.0];
/// Submissions under way at once: fewer than the connections take, so that none waits on this side.
pub const IN_FLIGHT_MAX: usize = 1_920;
/// Connections. A server takes 256 calls at once on each.
const CONNECTIONS: usize = 8;
/// Callers of the closed loop.
const CALLERS: usize = 64;
/// How long the rest of a stage may take.
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// Between two looks at whether all has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The program: each output differs and can be told beforehand.
const PROGRAM: &str = "flow main(n: int) -> int { return n * 2 + 1 }\n";

/// Everything about an overload.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The binary whose node is loaded.
    pub exe: PathBuf,
    /// Where its settings, data and log stay; without it in a temporary folder.
    pub folder: Option<PathBuf>,
    /// How long each stage is.
    pub stage: Duration,
    /// Where all chance comes from.
    pub seed: u64,
}

/// What came of one stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stage {
    /// The multiple of the rate that was found.
    pub offered: f64,
    /// Submissions sent a second.
    pub sent_per_s: f64,
    /// Workloads that ended well a second.
    pub goodput_per_s: f64,
    /// Accepted submissions.
    pub accepted: u64,
    /// Refused ones that were told when to come back.
    pub refused: u64,
    /// Those that were not sent because too many were under way.
    pub missed: u64,
    /// From when one was sent until it was refused, for all but the slowest hundredth.
    pub refusal_p99_ms: Option<f64>,
    /// From acceptance to end of the accepted ones, for all but the slowest hundredth.
    pub run_p99_ms: Option<f64>,
}

/// What came of an overload; the names are those of the JSON object.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Figures {
    /// The most that was finished in any stage.
    pub peak_goodput_per_s: f64,
    /// What was finished at ten times the rate.
    pub goodput_at_10x_per_s: f64,
    /// The second as a part of the first.
    pub goodput_ratio: f64,
    /// Of all refusals.
    pub refusal_p99_ms: Option<f64>,
    /// The most memory of the node in the first half of the last stage, and in the second.
    pub rss_first_half_mib: Option<f64>,
    /// See `rss_first_half_mib`.
    pub rss_second_half_mib: Option<f64>,
    /// What a closed loop of callers got done.
    pub closed_loop_per_s: f64,
    /// Accepted workloads that did not end well.
    pub lost: u64,
    /// Those that ended with another output than they should have.
    pub wrong: u64,
    /// Submissions that failed otherwise than by a refusal with a time to come back.
    pub failed: u64,
    /// Why the first of these did.
    pub first_failure: Option<String>,
    /// Where all chance comes from.
    pub seed: u64,
    /// Each stage.
    pub stages: Vec<Stage>,
}

impl Figures {
    /// Whether everything that was accepted came out right, and everything else was refused as it should be.
    pub fn is_right(&self) -> bool {
        self.lost == 0 && self.wrong == 0 && self.failed == 0
    }
}

/// Runs it. `told` hears in words what happens.
///
/// # Errors
/// [`LoadError`] if it cannot be run to its end.
pub async fn run(settings: Settings, stop: CancellationToken, told: &dyn Fn(&str)) -> Result<Figures, LoadError> {
    let mut temporary = None;
    let folder = match &settings.folder {
        Some(folder) => folder.clone(),
        None => {
            let made = tempfile::Builder::new().prefix("nexa-overload").tempdir();
            let made = made.map_err(|source| LoadError::Folder { folder: std::env::temp_dir(), source })?;
            temporary.insert(made).path().to_path_buf()
        }
    };
    let node = NodePlan {
        exe: settings.exe.clone(),
        folder,
        // Nobody asks it.
        endpoint: "http://127.0.0.1:9/v1".to_owned(),
        concurrency: 1,
        limits: KeyLimits::default(),
        tokens: Vec::new(),
    };
    let node = node.start().await?;
    let figures = tokio::select! {
        () = stop.cancelled() => Err(LoadError::Interrupted),
        figures = carry_out(&settings, &node, told) => figures,
    };
    node.stop().await;
    drop(temporary);
    figures
}

async fn carry_out(settings: &Settings, node: &Node, told: &dyn Fn(&str)) -> Result<Figures, LoadError> {
    let start = Instant::now();
    let over = CancellationToken::new();
    let _over = over.clone().drop_guard();
    let (_pid, pids) = watch::channel(node.pid());
    let sampler = tokio::spawn(sample(pids, start, over.clone()));
    let crowd = Crowd::gather(node.address()).await?;

    told("finding out how much the node finishes");
    let closed_loop = crowd.closed_loop(settings.stage).await;
    crowd.drain().await?;
    let mut figures = Figures { closed_loop_per_s: rounded(closed_loop), seed: settings.seed, ..Figures::default() };
    let (mut spans, mut refusals) = (Vec::new(), Vec::new());
    for offered in STAGES {
        told(&format!("offering {offered} times {closed_loop:.0} a second"));
        let span = crowd.open_loop(offered, closed_loop, settings, start).await;
        crowd.drain().await?;
        refusals.extend(span.refusals.iter().copied());
        spans.push(span);
    }
    over.cancel();
    let samples = sampler.await.unwrap_or_default();

    told("checking every output");
    let accepted = crowd.accepted();
    let seen = crowd.settled(&accepted).await?;
    let mut lives = Vec::with_capacity(seen.len());
    for (id, number) in accepted {
        let workload = seen.get(&id).cloned().unwrap_or_default();
        match (&workload.value_json, workload.submitted_at, workload.ended_at) {
            (Some(value), Some(from), Some(to)) if *value == (2 * number + 1).to_string() => lives.push((from, to)),
            (Some(_), ..) => figures.wrong += 1,
            _ => figures.lost += 1,
        }
    }
    figures.stages = spans.iter().map(|span| span.figures(&lives)).collect();
    let best = figures.stages.iter().map(|stage| stage.goodput_per_s).fold(closed_loop, f64::max);
    let last = figures.stages.last().map_or(0.0, |stage| stage.goodput_per_s);
    figures.peak_goodput_per_s = rounded(best);
    figures.goodput_at_10x_per_s = last;
    figures.goodput_ratio = rounded(last / best.max(f64::MIN_POSITIVE));
    figures.refusal_p99_ms = refusals.into_iter().collect::<Times>().ms(0.99);
    if let Some(span) = spans.last() {
        let middle = span.from + (span.to - span.from) / 2;
        figures.rss_first_half_mib = most_memory(&samples, span.from, middle);
        figures.rss_second_half_mib = most_memory(&samples, middle, span.to);
    }
    let failures = crowd.failures.lock().unwrap_or_else(PoisonError::into_inner);
    (figures.failed, figures.first_failure) = (failures.0, failures.1.clone());
    Ok(figures)
}

fn most_memory(samples: &[Sample], from: Duration, to: Duration) -> Option<f64> {
    let within = samples.iter().filter(|sample| from <= sample.at && sample.at < to);
    within.map(|sample| rounded(sample.rss_mib)).reduce(f64::max)
}

/// One stage as it was driven. `from` and `to` count from the start.
struct Span {
    offered: f64,
    from: Duration,
    to: Duration,
    began: SystemTime,
    ended: SystemTime,
    sent: u64,
    accepted: u64,
    missed: u64,
    refusals: Vec<Duration>,
}

impl Span {
    /// `lives` are of all workloads that ended well: from acceptance to end.
    fn figures(&self, lives: &[(SystemTime, SystemTime)]) -> Stage {
        let seconds = (self.to - self.from).as_secs_f64();
        let within = |at: &SystemTime| self.began <= *at && *at < self.ended;
        let good = lives.iter().filter(|(_, to)| within(to)).count();
        let runs = lives.iter().filter(|(from, _)| within(from));
        let runs: Times = runs.map(|(from, to)| to.duration_since(*from).unwrap_or_default()).collect();
        Stage {
            offered: self.offered,
            sent_per_s: rounded(self.sent as f64 / seconds),
            goodput_per_s: rounded(good as f64 / seconds),
            accepted: self.accepted,
            refused: self.refusals.len() as u64,
            missed: self.missed,
            refusal_p99_ms: self.refusals.iter().copied().collect::<Times>().ms(0.99),
            run_p99_ms: runs.ms(0.99),
        }
    }
}

/// Those who submit.
struct Crowd {
    /// Each sends a call once.
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
    Refused(Duration),
    Failed,
}

impl Crowd {
    async fn gather(address: &str) -> Result<Arc<Self>, LoadError> {
        let failed = |doing| move |source| LoadError::Client { doing, source };
        let once = Patience { deadline: Duration::from_secs(60), attempts_max: 1, ..Patience::default() };
        let mut blunt = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            let client = Client::connect(address, Options { token: None, patience: once }).await;
            blunt.push(client.map_err(failed("connecting"))?);
        }
        let steady = Client::connect(address, Options::default()).await.map_err(failed("connecting"))?;
        let source = v1::Source { name: "overload.nx".to_owned(), text: PROGRAM.to_owned() };
        let put = v1::ProgramServicePutRequest {
            program: Some(v1::program_service_put_request::Program::Source(source)),
            ..Default::default()
        };
        let put = steady.put_program(put).await.map_err(failed("putting the program"))?;
        let module = put.program.unwrap_or_default().module_hash;
        Ok(Arc::new(Self {
            blunt,
            steady,
            module,
            next: AtomicU64::new(0),
            accepted: Mutex::default(),
            failures: Mutex::default(),
        }))
    }

    fn accepted(&self) -> Vec<(String, u64)> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Submits the next workload, once.
    async fn submit(&self) -> Told {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let request = v1::WorkloadServiceSubmitRequest {
            program: Some(v1::workload_service_submit_request::Program::ModuleHash(self.module.clone())),
            input_json: format!("{{\"n\":{number}}}"),
            ..Default::default()
        };
        let client = &self.blunt[usize::try_from(number).unwrap_or_default() % self.blunt.len()];
        let sent = Instant::now();
        match client.submit(request).await {
            Ok(answer) => {
                self.accepted.lock().unwrap_or_else(PoisonError::into_inner).push((answer.workload_id, number));
                Told::Accepted
            }
            Err(error) if is_refusal(&error) => Told::Refused(sent.elapsed()),
            Err(error) => {
                let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.0 += 1;
                failures.1.get_or_insert_with(|| error.to_string());
                Told::Failed
            }
        }
    }

    /// Workloads a second that are accepted and ended when each caller waits for one before it submits the next.
    async fn closed_loop(self: &Arc<Self>, time: Duration) -> f64 {
        let (start, ended) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..CALLERS {
            let (crowd, ended) = (Arc::clone(self), Arc::clone(&ended));
            callers.spawn(async move {
                while start.elapsed() < time {
                    if matches!(crowd.submit().await, Told::Accepted) {
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

    async fn open_loop(self: &Arc<Self>, offered: f64, rate: f64, settings: &Settings, start: Instant) -> Span {
        let per_second = offered * rate;
        let count = (per_second * settings.stage.as_secs_f64()).ceil() as usize;
        let times = Arrivals::Random(per_second).times(count, settings.seed);
        let (from, began, first) = (start.elapsed(), SystemTime::now(), Instant::now());
        let room = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let mut under_way = tokio::task::JoinSet::new();
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
                continue;
            };
            sent += 1;
            let crowd = Arc::clone(self);
            under_way.spawn(async move {
                let _place = place;
                crowd.submit().await
            });
        }
        tokio::time::sleep(settings.stage.saturating_sub(first.elapsed())).await;
        let (to, ended) = (start.elapsed(), SystemTime::now());
        let (mut accepted, mut refusals) = (0, Vec::new());
        while let Some(told) = under_way.join_next().await {
            match told {
                Ok(Told::Accepted) => accepted += 1,
                Ok(Told::Refused(after)) => refusals.push(after),
                Ok(Told::Failed) | Err(_) => {}
            }
        }
        Span { offered, from, to, began, ended, sent, accepted, missed, refusals }
    }

    /// How all of it ended. Lists lag a little behind the facts, so it looks until it sees all ends, for a while.
    async fn settled(&self, accepted: &[(String, u64)]) -> Result<BTreeMap<String, Seen>, LoadError> {
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
    async fn drain(&self) -> Result<(), LoadError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goodput_counts_what_ended_within_its_stage() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let span = Span {
            offered: 10.0,
            from: Duration::from_secs(3),
            to: Duration::from_secs(13),
            began: at(100),
            ended: at(110),
            sent: 40,
            accepted: 3,
            missed: 1,
            refusals: vec![Duration::from_millis(4); 37],
        };
        let stage = span.figures(&[(at(99), at(100)), (at(100), at(109)), (at(105), at(110)), (at(50), at(51))]);
        assert_eq!((stage.goodput_per_s, stage.sent_per_s, stage.refused), (0.2, 4.0, 37));
        let near = |ms: Option<f64>, wanted: f64| ms.is_some_and(|ms| (ms / wanted - 1.0).abs() < 2e-3);
        assert!(near(stage.run_p99_ms, 9_000.0) && near(stage.refusal_p99_ms, 4.0), "{stage:?}");
    }

    #[test]
    fn memory_is_the_most_of_each_half() {
        let samples: Vec<Sample> = (0..10)
            .map(|second| Sample {
                at: Duration::from_secs(second),
                pss_mib: 0.0,
                rss_mib: 100.0 + second as f64,
                cpu_s: 0.0,
            })
            .collect();
        let most = |from, to| most_memory(&samples, Duration::from_secs(from), Duration::from_secs(to));
        assert_eq!((most(0, 5), most(5, 10), most(20, 30)), (Some(104.0), Some(109.0), None));
    }
}
