//! A load from its start to its figures.
//!
//! 1. The endpoint starts, then the node, and the program is put.
//! 2. Everything is submitted. Where all agents ask a model at once, the endpoint holds the first answers until all have,
//!    at most [`HOLD_MAX`].
//! 3. The lists are swept, rarely as long as the endpoint's counts say that it cannot be over yet; at the wanted share the
//!    node is killed and started again.
//! 4. Outputs are compared, histories read, and the node is stopped.
//!
//! It ends without the rest if nothing changes for [`Settings::patience`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nexa_client::{Client, Options, Patience};
use nexa_proto::v1;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::LoadError;
use crate::drive::{Arrivals, Board, Driver, Submitted};
use crate::endpoint::limits::KeyLimits;
use crate::endpoint::{Config, Endpoint};
use crate::figures::{Figures, Times, rounded};
use crate::node::{Node, NodePlan};
use crate::observe::{self, Seen};
use crate::sample::{Sample, sample};
use crate::shape::{Plan, Shape};

/// How long first answers are held.
pub const HOLD_MAX: Duration = Duration::from_secs(30);
/// Between two looks at the endpoint's counts.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two sweeps while the endpoint says that it cannot be over yet.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Syncs that are measured before the run.
const SYNCS: usize = 100;
/// A call of the driver is tried for as long as a node may be away.
const PATIENCE: Patience = Patience {
    deadline: Duration::from_secs(60),
    attempts_max: 200,
    first_wait: Duration::from_millis(20),
    wait_max: Duration::from_secs(1),
};

/// Who runs the agents.
#[derive(Debug, Clone)]
pub enum Server {
    /// A node of this binary, started for the purpose; in this folder, or in a temporary one.
    Own {
        /// The binary.
        exe: PathBuf,
        /// The folder.
        folder: Option<PathBuf>,
    },
    /// A server that runs already, whose models are at the endpoint's address.
    Target {
        /// As `--server` takes it.
        address: String,
        /// Its token, if it wants one.
        token: Option<String>,
    },
}

/// Everything about a load.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is submitted.
    pub plan: Plan,
    /// When.
    pub arrivals: Arrivals,
    /// To whom.
    pub server: Server,
    /// The share of the work after which the node is killed.
    pub kill_at: Option<f64>,
    /// Model calls that the node makes at once.
    pub concurrency: usize,
    /// What the model's key may do.
    pub limits: KeyLimits,
    /// The endpoint's port; 0 for any.
    pub port: u16,
    /// How long nothing may change.
    pub patience: Duration,
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
    /// When the node was killed.
    pub killed: Option<Duration>,
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
        port: settings.port,
    });
    let endpoint = endpoint.await.map_err(LoadError::Endpoint)?;
    // Gone when this function returns, unless the data was asked to stay.
    let mut temporary = None;
    let (mut node, token, address) = match &settings.server {
        Server::Own { exe, folder } => {
            let folder = match folder {
                Some(folder) => folder.clone(),
                None => {
                    let made = tempfile::Builder::new().prefix("nexa-load").tempdir();
                    let made = made.map_err(|source| LoadError::Folder { folder: std::env::temp_dir(), source })?;
                    temporary.insert(made).path().to_path_buf()
                }
            };
            let node = NodePlan {
                exe: exe.clone(),
                folder,
                endpoint: endpoint.url(),
                concurrency: settings.concurrency,
                limits: settings.limits,
            };
            let node = node.start().await?;
            let address = node.address().to_owned();
            let pid = node.pid().unwrap_or_default();
            told(&format!("the node is process {pid} and serves at {address}, from {}", node.folder().display()));
            (Some(node), None, address)
        }
        Server::Target { address, token } => {
            told(&format!("the models of {address} must be at {}", endpoint.url()));
            (None, token.clone(), address.clone())
        }
    };
    let fsync = node.as_ref().and_then(|node| fsync_p50(node.folder()));
    let client = Client::connect(&address, Options { token, patience: PATIENCE }).await;
    let client = client.map_err(|source| LoadError::Client { doing: "connecting", source })?;
    let mut load = Load { settings, plan, endpoint, client, stop, start: Instant::now(), began: SystemTime::now() };
    let result = load.carry_out(&mut node, fsync, told).await;
    if let Some(node) = node {
        node.stop().await;
    }
    drop(temporary);
    result
}

struct Load {
    settings: Settings,
    plan: Arc<Plan>,
    endpoint: Endpoint,
    client: Client,
    stop: CancellationToken,
    start: Instant,
    began: SystemTime,
}

/// What was seen while it ran.
#[derive(Default)]
struct Course {
    seen: BTreeMap<String, Seen>,
    killed: Option<Kill>,
}

struct Kill {
    at: Duration,
    share: f64,
    restart: Duration,
    /// What had ended before, and so was not in flight.
    ended: Vec<String>,
}

impl Load {
    async fn carry_out(
        &mut self,
        node: &mut Option<Node>,
        fsync: Option<f64>,
        told: &dyn Fn(&str),
    ) -> Result<Outcome, LoadError> {
        let module = self.put_program().await?;
        if self.plan.all_ask_at_once() {
            self.endpoint.hold();
        }
        (self.start, self.began) = (Instant::now(), SystemTime::now());
        let over = CancellationToken::new();
        let _over = over.clone().drop_guard();
        let (pid, pids) = watch::channel(node.as_ref().and_then(Node::pid));
        let sampler = tokio::spawn(sample(pids, self.start, over.clone()));
        let board = Arc::new(Board::default());
        let driver = Driver {
            client: self.client.clone(),
            plan: Arc::clone(&self.plan),
            module: module.into(),
            arrivals: self.settings.arrivals,
            stop: over.child_token(),
        };
        let (submitting, start) = (Arc::clone(&board), self.start);
        tokio::spawn(async move { driver.submit_all(start, submitting).await });

        let course = self.watch_it_run(node, &board, &pid, told).await?;
        over.cancel();
        let samples = sampler.await.unwrap_or_default();
        told("checking every output");
        let mut outcome = self.judge(&board.rows(), &course, samples).await?;
        outcome.figures.fsync_p50_us = fsync;
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
        let put = self.client.put_program(request).await;
        let put = put.map_err(|source| LoadError::Client { doing: "putting the program", source })?;
        Ok(put.program.unwrap_or_default().module_hash)
    }

    /// Until everything has ended, or nothing changes any more.
    async fn watch_it_run(
        &self,
        node: &mut Option<Node>,
        board: &Board,
        pid: &watch::Sender<Option<u32>>,
        told: &dyn Fn(&str),
    ) -> Result<Course, LoadError> {
        let mut course = Course::default();
        let mut is_held = self.plan.all_ask_at_once();
        let (mut next_sweep, mut state, mut changed) = (self.start + SWEEP_EVERY, (0, 0, 0, 0), Instant::now());
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(LoadError::Interrupted),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Some(failure) = node.as_mut().and_then(Node::has_failed) {
                return Err(failure);
            }
            let totals = self.endpoint.totals();
            if is_held && (totals.tags_arrived == self.plan.tags() || self.start.elapsed() > HOLD_MAX) {
                is_held = false;
                told(&format!("{} agents wait for an answer; now they come", totals.tags_arrived));
                self.endpoint.release();
            }
            let goal = self.settings.kill_at.filter(|_| course.killed.is_none());
            let worth_it = totals.tags_finished as f64 >= goal.unwrap_or(1.0) * self.plan.tags() as f64;
            if !(worth_it && board.over() > 0 && !is_held) && Instant::now() < next_sweep {
                continue;
            }
            let began = Instant::now();
            course.seen = observe::sweep(&self.client).await?;
            // A node that keeps answering lists has no time for agents: at most a fifth of it.
            next_sweep = Instant::now() + SWEEP_EVERY;
            tokio::time::sleep(began.elapsed() * 4).await;
            let (ended, share) = self.ended(&course.seen);
            if let (Some(goal), Some(node)) = (goal, node.as_mut())
                && share >= goal
            {
                told(&format!("{:.0} % have ended: kill -9, and start again", share * 100.0));
                course.killed = Some(self.kill(node, &course.seen, share, pid).await?);
                told("the node serves again");
            } else if board.over() == self.plan.workloads() && self.all_have_ended(board, &course.seen) {
                return Ok(course);
            }
            let now = (board.over(), ended, totals.requests, totals.answered);
            if now != state {
                (state, changed) = (now, Instant::now());
            } else if changed.elapsed() > self.settings.patience {
                told(&format!("nothing has changed for {:?}; the rest counts as lost", self.settings.patience));
                return Ok(course);
            }
        }
    }

    async fn kill(
        &self,
        node: &mut Node,
        seen: &BTreeMap<String, Seen>,
        share: f64,
        pid: &watch::Sender<Option<u32>>,
    ) -> Result<Kill, LoadError> {
        let ended = seen.iter().filter(|(_, seen)| seen.has_ended()).map(|(id, _)| id.clone()).collect();
        pid.send_replace(None);
        let at = self.start.elapsed();
        node.kill().await?;
        node.restart().await?;
        pid.send_replace(node.pid());
        Ok(Kill { at, share, restart: self.start.elapsed().saturating_sub(at), ended })
    }

    /// How many have ended, and which share of all that is: of workloads, or of agents where a workload has many.
    fn ended(&self, seen: &BTreeMap<String, Seen>) -> (u64, f64) {
        let agents = match self.plan.shape {
            Shape::Independent | Shape::Pipelines => {
                let ended = seen.values().filter(|seen| seen.has_ended()).count() as u64;
                return (ended, ended as f64 / self.plan.workloads() as f64);
            }
            Shape::Layers => self.plan.agents + self.plan.workloads(),
            Shape::Sleepers => self.plan.agents,
        };
        let ended = seen.values().map(|seen| seen.agents_ended).sum();
        (ended, ended as f64 / agents as f64)
    }

    fn all_have_ended(&self, board: &Board, seen: &BTreeMap<String, Seen>) -> bool {
        let has_ended = |id: &String| seen.get(id).is_some_and(Seen::has_ended);
        board.rows().iter().all(|row| row.accepted.as_ref().is_none_or(|(_, id)| has_ended(id)))
    }

    /// Compares what came out with what must have.
    async fn judge(&self, rows: &[Submitted], course: &Course, samples: Vec<Sample>) -> Result<Outcome, LoadError> {
        let mut figures = Figures {
            agents: self.plan.agents,
            shape: self.plan.shape.name().to_owned(),
            seed: self.plan.profile.seed,
            ..Figures::default()
        };
        let (mut lives, mut runs) = (Vec::new(), Times::default());
        for (workload, row) in rows.iter().enumerate() {
            figures.refused += u64::from(row.refused);
            let Some((_, id)) = &row.accepted else {
                figures.not_accepted += 1;
                let why = row.error.clone().unwrap_or_else(|| "it was not sent before the end".to_owned());
                figures.first_failure.get_or_insert(format!("submitting: {why}"));
                continue;
            };
            figures.workloads += 1;
            let seen = course.seen.get(id).cloned().unwrap_or_default();
            if let Some(ended) = seen.ended_at.map(|at| self.since_start(at)) {
                lives.push((seen.submitted_at.map(|at| self.since_start(at)).unwrap_or_default(), ended));
                runs.add(ended.saturating_sub(row.intended));
            }
            if seen.state != v1::WorkloadState::Succeeded {
                figures.lost += 1;
                let why = seen.failure.unwrap_or_else(|| format!("it is {}", seen.state.as_str_name()));
                figures.first_failure.get_or_insert(format!("{id}: {why}"));
                continue;
            }
            let value = match seen.value_json {
                Some(value) => value,
                None => observe::whole(&self.client, id).await?.value_json.unwrap_or_default(),
            };
            if !self.plan.is_right(workload, &value) {
                figures.wrong += 1;
                let shown: String = value.chars().take(200).collect();
                figures.first_failure.get_or_insert(format!("{id}: another output than it should have: {shown}"));
            }
        }
        self.count_effects(rows, course, &mut figures).await?;
        let first_steps = self.count_starts(rows, &mut figures).await?;

        let accepted = |row: &Submitted| row.accepted.as_ref().map(|(at, _)| at.saturating_sub(row.intended));
        let submits: Times = rows.iter().filter_map(accepted).collect();
        figures.submit_p50_ms = submits.ms(0.5).unwrap_or_default();
        figures.submit_p99_ms = submits.ms(0.99).unwrap_or_default();
        (figures.run_p50_ms, figures.run_p99_ms) = (runs.ms(0.5), runs.ms(0.99));
        let first_sent = rows.iter().map(|row| row.sent).min().unwrap_or_default();
        let last_end = lives.iter().map(|(_, ended)| *ended).max().unwrap_or_else(|| self.start.elapsed());
        let wall = last_end.saturating_sub(first_sent).as_secs_f64();
        figures.wall_s = rounded(wall);
        figures.steps_per_s = rounded(figures.steps as f64 / wall.max(1e-3));
        figures.total_pss_mib = samples.iter().map(|sample| sample.pss_mib).reduce(f64::max).map(rounded);
        figures.node_cpu_s = samples.last().map(|sample| rounded(sample.cpu_s));
        if let Some(kill) = &course.killed {
            figures.kills = 1;
            figures.ended_at_kill = Some(rounded(kill.share));
            figures.restart_s = Some(rounded(kill.restart.as_secs_f64()));
        }
        let lead = self.start.saturating_duration_since(self.endpoint.started()).as_secs() as usize;
        let answers = self.endpoint.answers_by_second().into_iter().skip(lead).collect();
        let killed = course.killed.as_ref().map(|kill| kill.at);
        Ok(Outcome { figures, samples, lives, answers, first_steps, runs, killed })
    }

    /// What was sent, how often, and whether that is what is recorded.
    async fn count_effects(&self, rows: &[Submitted], course: &Course, figures: &mut Figures) -> Result<(), LoadError> {
        let totals = self.endpoint.totals();
        figures.model_requests = totals.requests;
        figures.in_flight_peak = totals.in_flight_peak;
        figures.faults = totals.faults;
        figures.rate_limited_share = totals.rate_limited as f64 / totals.requests.max(1) as f64;
        // When everything has ended, every effect that was sent is recorded as ended.
        figures.steps = if figures.lost == 0 { totals.keys } else { totals.answered };

        let id_of =
            |workload: usize| rows.get(workload).and_then(|row| row.accepted.as_ref()).map(|(_, id)| id.clone());
        let again = self.endpoint.sent_again();
        let mut suspects: Vec<String> = again
            .iter()
            .filter_map(|(_, key)| key.tag)
            .filter_map(|tag| id_of(self.plan.workload_of_tag(tag as usize)))
            .collect();
        if let Some(kill) = &course.killed {
            let before: std::collections::BTreeSet<&String> = kill.ended.iter().collect();
            suspects.extend((0..rows.len()).filter_map(id_of).filter(|id| !before.contains(id)));
        }
        suspects.sort_unstable();
        suspects.dedup();
        suspects.retain(|id| course.seen.get(id).is_some_and(Seen::has_ended));
        let mut unexplained: u64 = again.iter().map(|(_, key)| u64::from(key.sent - 1)).sum();
        for effect in observe::attempts(&self.client, &suspects).await? {
            let again = u64::from(self.endpoint.key(&effect.key).sent.saturating_sub(1));
            let recorded = u64::from(effect.attempts.saturating_sub(1));
            figures.reissued_model_calls += recorded;
            unexplained -= again.min(recorded).min(unexplained);
        }
        figures.repeated_effects = unexplained;
        Ok(())
    }

    /// When the first step of each workload was, and of the last one.
    async fn count_starts(&self, rows: &[Submitted], figures: &mut Figures) -> Result<Times, LoadError> {
        let mut first: Vec<Option<Duration>> = vec![None; rows.len()];
        let (mut last, mut begun) = (Duration::ZERO, 0);
        let mut note = |workload: usize, at: Duration| {
            (last, begun) = (last.max(at), begun + 1);
            if let Some(first) = first.get_mut(workload) {
                *first = Some(first.map_or(at, |known| known.min(at)));
            }
        };
        let expected = if self.plan.shape == Shape::Sleepers {
            let ids: BTreeMap<&str, usize> = (0..)
                .zip(rows)
                .filter_map(|(workload, row)| row.accepted.as_ref().map(|(_, id)| (id.as_str(), workload)))
                .collect();
            for (id, at) in observe::starts(&self.client).await? {
                if let Some(workload) = ids.get(id.as_str()) {
                    note(*workload, self.since_start(at));
                }
            }
            self.plan.agents
        } else {
            let lead = self.start.saturating_duration_since(self.endpoint.started());
            for tag in 0..self.plan.tags() {
                if let Some(at) = self.endpoint.first_of_tag(tag) {
                    note(self.plan.workload_of_tag(tag), at.saturating_sub(lead));
                }
            }
            self.plan.tags()
        };
        let first_sent = rows.iter().map(|row| row.sent).min().unwrap_or_default();
        if begun == expected {
            figures.all_running_s = Some(rounded(last.saturating_sub(first_sent).as_secs_f64()));
        }
        let pairs = first.iter().zip(rows).filter_map(|(first, row)| Some((*first)?.saturating_sub(row.intended)));
        let times: Times = pairs.collect();
        figures.submit_to_first_step_p99_ms = times.ms(0.99);
        Ok(times)
    }

    fn since_start(&self, at: SystemTime) -> Duration {
        at.duration_since(self.began).unwrap_or_default()
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
