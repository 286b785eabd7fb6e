//! A load from its start to its figures.
//!
//! 1. The endpoint starts, then the node or nodes, and the program is put.
//! 2. Everything is submitted. Where all agents ask a model at once, the endpoint holds the first answers until all have,
//!    at most [`HOLD_MAX`].
//! 3. The lists are swept, rarely as long as the endpoint's counts say that it cannot be over yet; at the wanted share a
//!    node is killed; one by itself is started again. Or nodes are restarted one after the other, see [`rolling`].
//! 4. Outputs are compared, histories read and checked, and everything is stopped. Histories are read where something may
//!    have been sent twice: of what ran when a node was killed, and of keys that the endpoint saw more than once; or all.
//!
//! It ends without the rest if nothing changes for [`Settings::patience`].

mod judge;
pub mod rolling;
mod victim;

pub use self::victim::Victim;
pub use crate::crew::Server;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures::{StreamExt, stream};
use nexa_client::{Client, Options, Patience, Throttling};
use nexa_history::{Call, Operation, Told};
use nexa_proto::v1;
use nexa_types::WorkloadId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::LoadError;
use crate::crew::{Common, Crew, Killed};
use crate::drive::{Arrivals, Board, Driver};
use crate::endpoint::limits::KeyLimits;
use crate::endpoint::{Config, Endpoint};
use crate::figures::{Figures, Times, rounded};
use crate::observe::{self, Seen, standing};
use crate::sample::{Sample, sample};
use crate::shape::{Plan, Shape};
use crate::shares;
use rolling::{Askers, Restart, Rolling, round};

/// How long first answers are held.
pub const HOLD_MAX: Duration = Duration::from_secs(30);
/// Between two looks at the endpoint's counts.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the endpoint must have been quiet before lists are swept although it cannot be over yet, and between two such
/// sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// The longest pause after a sweep: one that took long because the server was away says nothing about the next.
const SWEEP_PAUSE_MAX: Duration = Duration::from_secs(15);
/// Between two looks at how many agents each node has.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Such looks; then nobody looks any more.
const COUNTS_MAX: usize = 86_400;
/// Workloads that are asked for to learn which share has ended: quicker than lists, which may show an older state.
const PROBES: usize = 100;
/// How long a node may take to tell.
const PROBE_PATIENCE: Duration = Duration::from_millis(150);
/// Of them at once.
const PROBES_AT_ONCE: usize = 16;
/// The most questions about one workload that its history keeps; the first ones.
const ASKED_MAX: usize = 1_000;
/// How long a node may take to let its agents go at the end of a load: there is nobody left to move, or nobody to move to.
const END_GRACE: Duration = Duration::from_secs(5);
/// Syncs that are measured before the run.
const SYNCS: usize = 100;
/// A call of the driver is tried for as long as a node may be away.
const PATIENCE: Patience = Patience {
    deadline: Duration::from_secs(60),
    attempts_max: 200,
    first_wait: Duration::from_millis(20),
    wait_max: Duration::from_secs(1),
};

/// Everything about a load.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is submitted.
    pub plan: Plan,
    /// When.
    pub arrivals: Arrivals,
    /// To whom.
    pub server: Server,
    /// Whether a submission that the server has no room for is not tried again.
    pub gives_up: bool,
    /// The share of the work after which a node is killed.
    pub kill_at: Option<f64>,
    /// Which of several.
    pub victim: Victim,
    /// Whether the nodes are restarted one after the other, and how.
    pub rolling: Option<Rolling>,
    /// Model calls that the node makes at once.
    pub concurrency: usize,
    /// What the model's key may do.
    pub limits: KeyLimits,
    /// The endpoint's port; 0 for any.
    pub port: u16,
    /// How long nothing may change.
    pub patience: Duration,
    /// Where the histories of all workloads go; they are all read then.
    pub history: Option<PathBuf>,
}

/// What a load leaves behind: the figures, and what charts are drawn from.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The numbers.
    pub figures: Figures,
    /// What the node used, over time.
    pub samples: Vec<Sample>,
    /// From submission to end of each workload, both from the start of the load.
    pub lives: Vec<(Duration, Duration)>,
    /// Answers of the endpoint in each second from the start of the load.
    pub answers: Vec<u32>,
    /// From when a workload was to be submitted until its first step.
    pub first_steps: Times,
    /// From when a workload was to be submitted until its recorded end.
    pub runs: Times,
    /// When a node was killed.
    pub killed: Option<Duration>,
    /// How many agents each of several nodes had that had not ended, over time.
    pub placements: Vec<(Duration, BTreeMap<String, u64>)>,
}

/// Runs a load. `told` hears in words what happens.
///
/// # Errors
/// [`LoadError`] if it cannot be run to its end; what it started is ended then.
pub async fn run(settings: Settings, stop: CancellationToken, told: &dyn Fn(&str)) -> Result<Outcome, LoadError> {
    let plan = Arc::new(settings.plan.clone());
    let endpoint = Endpoint::start(Config {
        profile: plan.profile.clone(),
        limits: settings.limits,
        tags: plan.tags(),
        answers_per_tag: plan.answers_per_tag(),
        host: Ipv4Addr::LOCALHOST,
        port: settings.port,
    });
    let endpoint = endpoint.await.map_err(LoadError::Endpoint)?;
    let tokens = match (&settings.server, plan.tenants) {
        (Server::Own { .. }, 2..) => (0..plan.tenants).map(|tenant| shares::token(plan.profile.seed, tenant)).collect(),
        _ => Vec::new(),
    };
    let common = Common {
        endpoint: endpoint.url(),
        concurrency: settings.concurrency,
        limits: settings.limits,
        tokens: tokens.clone(),
        grace: settings.rolling.as_ref().map_or(END_GRACE, |_| rolling::GRACE),
    };
    let mut crew = tokio::select! {
        () = stop.cancelled() => return Err(LoadError::Interrupted),
        crew = Box::pin(Crew::gather(&settings.server, common, told)) => crew?,
    };
    let fsync = crew.folder().and_then(fsync_p50);
    let tokens = match (&settings.server, tokens.is_empty()) {
        (_, false) => tokens.into_iter().map(Some).collect(),
        (Server::Target { token, .. }, true) => vec![token.clone(); plan.tenants],
        (Server::Own { .. }, true) => vec![None],
    };
    let first_token = tokens.first().cloned().flatten();
    let is_rolling = settings.rolling.is_some();
    let found = match is_rolling {
        true => rounds(crew.addresses(), tokens).await,
        false => doors(crew.addresses(), tokens, victim::by_chance(&settings, &crew)).await,
    };
    let result = match found {
        Ok((clients, submitters)) => {
            let (start, began) = (Instant::now(), SystemTime::now());
            let asked = Mutex::default();
            let mut load =
                Load { settings, plan, endpoint, clients, submitters, first_token, stop, start, began, asked };
            load.carry_out(&mut crew, fsync, told).await
        }
        Err(error) => Err(error),
    };
    crew.stop().await;
    result
}

/// By tenant: who looks on, at a door that is not the victim's, or another one if it turns out to be; and who submits, at
/// every door.
async fn doors(
    addresses: &[String],
    tokens: Vec<Option<String>>,
    victim: usize,
) -> Result<(Arc<[Client]>, Arc<[Vec<Client>]>), LoadError> {
    let (mut clients, mut submitters) = (Vec::new(), Vec::new());
    let failed = |source| LoadError::Client { doing: "connecting", source };
    for token in tokens {
        let connect = |address, patience, throttling| {
            let token = token.clone();
            async move {
                Client::connect(address, Options { token, patience, throttling, ..Options::default() })
                    .await
                    .map_err(failed)
            }
        };
        let seen_from = round(addresses, (victim + 1) % addresses.len());
        clients.push(connect(&seen_from, PATIENCE, Throttling::Adaptive).await?);
        let mut every = Vec::new();
        for address in addresses {
            every.push(connect(address, Patience { attempts_max: 1, ..PATIENCE }, Throttling::Off).await?);
        }
        submitters.push(every);
    }
    Ok((clients.into(), submitters.into()))
}

/// The same where nodes come and go: whoever looks on knows all doors, and so do those who submit, each beginning with another
/// one, with the patience that clients have by themselves.
async fn rounds(
    addresses: &[String],
    tokens: Vec<Option<String>>,
) -> Result<(Arc<[Client]>, Arc<[Vec<Client>]>), LoadError> {
    let (mut clients, mut submitters) = (Vec::new(), Vec::new());
    let failed = |source| LoadError::Client { doing: "connecting", source };
    for token in tokens {
        let options = Options { token, ..Options::default() };
        let patient = Options { patience: PATIENCE, ..options.clone() };
        clients.push(Client::connect(&round(addresses, 0), patient).await.map_err(failed)?);
        let mut every = Vec::new();
        for first in 0..addresses.len() {
            every.push(Client::connect(&round(addresses, first), options.clone()).await.map_err(failed)?);
        }
        submitters.push(every);
    }
    Ok((clients.into(), submitters.into()))
}

struct Load {
    settings: Settings,
    plan: Arc<Plan>,
    endpoint: Endpoint,
    /// By tenant.
    clients: Arc<[Client]>,
    /// The same at every door, for submissions: whether the server refused one is counted, so that the client may not try
    /// again, or hold one back, by itself.
    submitters: Arc<[Vec<Client>]>,
    /// Of the first tenant, if it has one.
    first_token: Option<String>,
    stop: CancellationToken,
    start: Instant,
    began: SystemTime,
    /// What clients asked about workloads.
    asked: Mutex<BTreeMap<WorkloadId, Vec<Call>>>,
}

/// What was seen while it ran.
#[derive(Default)]
struct Course {
    seen: BTreeMap<String, Seen>,
    killed: Option<Kill>,
    restarts: Vec<Restart>,
    placements: Vec<(Duration, BTreeMap<String, u64>)>,
}

struct Kill {
    at: Duration,
    share: f64,
    what: Killed,
}

impl Load {
    async fn carry_out(
        &mut self,
        crew: &mut Crew,
        fsync: Option<f64>,
        told: &dyn Fn(&str),
    ) -> Result<Outcome, LoadError> {
        let module = self.put_program().await?;
        if self.holds() {
            self.endpoint.hold();
        }
        (self.start, self.began) = (Instant::now(), SystemTime::now());
        let over = CancellationToken::new();
        let _over = over.clone().drop_guard();
        let (pid, pids) = watch::channel(crew.pids());
        let sampler = tokio::spawn(sample(pids, self.start, over.clone()));
        let board = Arc::new(Board::default());
        let driver = Driver {
            clients: Arc::clone(&self.submitters),
            gives_up: self.settings.gives_up,
            leaves_it_to_clients: self.settings.rolling.is_some(),
            plan: Arc::clone(&self.plan),
            module: module.into(),
            arrivals: self.settings.arrivals,
            stop: over.child_token(),
        };
        let (submitting, start) = (Arc::clone(&board), self.start);
        tokio::spawn(async move { driver.submit_all(start, submitting).await });

        let askers = match &self.settings.rolling {
            None => None,
            Some(_) => Some(Askers::start(crew.addresses(), self.first_token.clone(), over.child_token()).await?),
        };
        let course = self.watch_it_run(crew, &board, &pid, told).await?;
        over.cancel();
        let samples = sampler.await.unwrap_or_default();
        told("checking every output");
        let mut outcome = self.judge(&board.rows(), &course, samples).await?;
        outcome.figures.fsync_p50_us = fsync;
        outcome.figures.nodes = crew.addresses().len();
        if let Some(askers) = askers {
            askers.tell(&self.submitters, &course, &mut outcome.figures);
        }
        Ok(outcome)
    }

    async fn put_program(&self) -> Result<String, LoadError> {
        let Some(text) = self.plan.program() else { return Ok(String::new()) };
        let source = v1::Source { name: format!("{}.nx", self.plan.shape.name()), text: text.to_owned() };
        let request = v1::ProgramServicePutRequest {
            name: format!("load {}", self.plan.shape.name()),
            program: Some(v1::program_service_put_request::Program::Source(source)),
            ..Default::default()
        };
        let mut module = String::new();
        for client in self.clients.iter() {
            let put = client.put_program(request.clone()).await;
            let put = put.map_err(|source| LoadError::Client { doing: "putting the program", source })?;
            module = put.program.unwrap_or_default().module_hash;
        }
        Ok(module)
    }

    /// A key with limits does not take the requests of all at once, and nodes that come and go are to be seen at work.
    fn holds(&self) -> bool {
        let is_plain = self.settings.limits == KeyLimits::default() && self.settings.rolling.is_none();
        is_plain && self.plan.all_ask_at_once()
    }

    async fn sweep(&self) -> Result<BTreeMap<String, Seen>, LoadError> {
        let mut all = BTreeMap::new();
        for client in self.clients.iter() {
            all.append(&mut observe::sweep(client).await?);
        }
        Ok(all)
    }

    /// Until everything has ended, or nothing changes any more.
    async fn watch_it_run(
        &self,
        crew: &mut Crew,
        board: &Board,
        pids: &watch::Sender<Vec<u32>>,
        told: &dyn Fn(&str),
    ) -> Result<Course, LoadError> {
        let mut course = Course::default();
        let mut is_held = self.holds();
        let (mut next_sweep, mut state, mut changed) = (self.start, (0, 0, 0, 0), Instant::now());
        let (mut ended, mut next_count) = (0, self.start);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(LoadError::Interrupted),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Some(failure) = crew.have_failed() {
                return Err(failure);
            }
            let totals = self.endpoint.totals();
            let lets_go = is_held && (totals.tags_arrived == self.plan.tags() || self.start.elapsed() > HOLD_MAX);
            let is_time = lets_go || Instant::now() >= next_count;
            if crew.addresses().len() > 1 && is_time && course.placements.len() < COUNTS_MAX {
                next_count = Instant::now() + COUNT_EVERY;
                // Whoever is too busy to say is asked again.
                let counted = tokio::time::timeout(COUNT_EVERY, observe::nodes(&self.clients[0])).await;
                course.placements.extend(counted.ok().and_then(Result::ok).map(|nodes| (self.start.elapsed(), nodes)));
            }
            if lets_go {
                is_held = false;
                told(&format!("{} agents wait for an answer; now they come", totals.tags_arrived));
                self.endpoint.release();
            }
            let is_under_way = board.over() as f64 >= rolling::BEGINS_AT * self.plan.workloads() as f64;
            if let Some(rolling) = self.settings.rolling.as_ref().filter(|_| is_under_way && !is_held) {
                let turn = course.restarts.len();
                if turn < crew.started() {
                    let restarted = rolling::restart(crew, turn, rolling, &self.clients[0], self.start, told);
                    let restarted = self.stop.run_until_cancelled(restarted).await.ok_or(LoadError::Interrupted)??;
                    course.restarts.push(restarted);
                    pids.send_replace(crew.pids());
                    changed = Instant::now();
                    continue;
                }
            }
            let goal = self.settings.kill_at.filter(|_| course.killed.is_none());
            let worth_it = totals.tags_finished as f64 >= goal.unwrap_or(1.0) * self.plan.tags() as f64;
            let now = (board.over(), ended, totals.requests, totals.answered);
            if now != state {
                (state, changed) = (now, Instant::now());
            }
            let may_be_over = worth_it && board.over() > 0 && !is_held;
            if Instant::now() < next_sweep || !(may_be_over || changed.elapsed() > SWEEP_EVERY) {
                continue;
            }
            if let (Some(goal), true) = (goal, may_be_over && crew.started() > 0) {
                // A node that is too busy to say is killed by what the endpoint knows; what it had recorded is seen later.
                let answered = totals.tags_finished as f64 / self.plan.tags().max(1) as f64;
                let probed = tokio::time::timeout(PROBE_PATIENCE, self.probe(board)).await;
                let share = probed.unwrap_or(Ok(answered))?;
                if share >= goal
                    && let Some(victim) = self.point_out(crew).await?
                {
                    told("kill -9");
                    let at = self.start.elapsed();
                    let what = crew.kill(victim).await?;
                    pids.send_replace(crew.pids());
                    told(match what.node.as_deref() {
                        Some(_) => "one node less",
                        None => "the node serves again",
                    });
                    course.killed = Some(Kill { at, share, what });
                }
                continue;
            }
            let began = Instant::now();
            course.seen = self.sweep().await?;
            // A node that keeps answering lists has no time for agents: at most a fifth of it.
            let pause = if may_be_over { Duration::ZERO } else { SWEEP_EVERY };
            next_sweep = Instant::now() + pause.max((began.elapsed() * 4).min(SWEEP_PAUSE_MAX));
            ended = course.seen.values().map(|seen| seen.agents_ended).sum();
            if board.over() == self.plan.workloads() && self.all_have_ended(board, &course.seen) {
                return Ok(course);
            } else if changed.elapsed() > self.settings.patience {
                told(&format!("nothing has changed for {:?}; the rest counts as lost", self.settings.patience));
                return Ok(course);
            }
        }
    }

    /// Which share has ended by now: of workloads, or of agents where a workload has many. From a sample, evenly spread.
    async fn probe(&self, board: &Board) -> Result<f64, LoadError> {
        let rows = board.rows();
        let probed = (0..rows.len()).step_by(rows.len().div_ceil(PROBES).max(1));
        let probed: Vec<(usize, Option<String>)> =
            probed.map(|workload| (workload, rows[workload].accepted.as_ref().map(|(_, id)| id.clone()))).collect();
        let asked = stream::iter(probed).map(|(workload, id)| async move {
            let agents = self.plan.agents_of(workload);
            let Some(id) = id else { return Ok((0.0, agents)) };
            let seen = self.ask(workload, &id).await?;
            let ended = if seen.has_ended() { agents } else { (seen.agents_ended as f64).min(agents) };
            // Where the agents of a workload come one after the other, what counts is that it has ended.
            let counts = seen.has_ended() || !matches!(self.plan.shape, Shape::Independent | Shape::Pipelines);
            Ok((if counts { ended } else { 0.0 }, agents))
        });
        let mut asked = asked.buffer_unordered(PROBES_AT_ONCE);
        let (mut ended, mut all) = (0.0, 0.0);
        while let Some(probe) = asked.next().await {
            let (of_it, agents) = probe?;
            (ended, all) = (ended + of_it, all + agents);
        }
        Ok(ended / f64::max(all, 1.0))
    }

    /// Asks how a workload stands. What was said goes into its history.
    async fn ask(&self, workload: usize, id: &str) -> Result<Seen, LoadError> {
        let invoked = self.start.elapsed().as_micros() as u64;
        let seen = observe::whole(&self.clients[self.plan.tenant(workload)], id).await?;
        if let Ok(workload) = id.parse() {
            let (returned, told) = (self.start.elapsed().as_micros() as u64, Told::Ok(Some(standing(seen.state))));
            let call = Call { operation: Operation::Get, workload, invoked, returned, told };
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let of_it = asked.entry(workload).or_default();
            if of_it.len() < ASKED_MAX {
                of_it.push(call);
            }
        }
        Ok(seen)
    }

    fn asked_about(&self, workload: WorkloadId) -> Vec<Call> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&workload).unwrap_or_default()
    }

    fn all_have_ended(&self, board: &Board, seen: &BTreeMap<String, Seen>) -> bool {
        let has_ended = |id: &String| seen.get(id).is_some_and(Seen::has_ended);
        board.rows().iter().all(|row| row.accepted.as_ref().is_none_or(|(_, id)| has_ended(id)))
    }
}

/// How long a small append and its sync take in a folder, in microseconds.
fn fsync_p50(folder: &Path) -> Option<f64> {
    use std::io::Write;
    let path = folder.join("fsync.probe");
    let mut file = std::fs::File::create(&path).ok()?;
    let mut times: Vec<Duration> = (0..SYNCS)
        .map_while(|_| {
            let began = Instant::now();
            file.write_all(&[0; 256]).and_then(|()| file.sync_data()).ok()?;
            Some(began.elapsed())
        })
        .collect();
    // It is small, and the folder may stay.
    let _ = std::fs::remove_file(&path);
    times.sort_unstable();
    times.get(times.len() / 2).map(|time| rounded(time.as_secs_f64() * 1e6))
}
