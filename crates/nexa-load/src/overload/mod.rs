//! More work than a node takes: how much it finishes all the same.
//!
//! 1. A closed loop finds the rate at which the node finishes small workloads that ask no model.
//! 2. Stages of an open loop offer parts and multiples of that rate ([`STAGES`]), first by clients as they are, which hold
//!    work back that the server would refuse, then by blunt ones, which send everything. Either makes each submission once; a
//!    refused one is not made again, so that what is offered stays what was asked for.
//! 3. After each stage everything that was accepted is waited for, and every output is checked.
//!
//! Goodput is what ended within its stage, by the times that the node recorded, divided by the stage's time. The driver
//! shares the machine with the node: what either takes of the processors is told for each stage, and what the driver could
//! not make in time is counted as missed. It does not give way to the node: then its clock would be late, and a refusal
//! seem slower than it was.
//!
//! A store that holds more takes longer, so the closed loop and each stage have a node of their own, with an empty one.
//!
//! Bounds: [`IN_FLIGHT_MAX`] submissions under way; a further one is not made, and counted as missed.

mod crowd;
mod report;
mod stage;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::LoadError;
use crate::endpoint::limits::KeyLimits;
use crate::figures::{Times, rounded};
use crate::node::{Node, NodePlan};
use crate::sample::{Sample, sample};

pub use crowd::{IN_FLIGHT_MAX, Manner};
pub use report::write;
pub use stage::Stage;

use crowd::Crowd;
use stage::Span;

/// What is offered, as multiples of what the node finishes; the last one is the overload.
pub const STAGES: [f64; 4] = [0.5, 1.0, 2.0, 10.0];

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

/// What came of an overload; the names are those of the JSON object. Those without `blunt` are of clients as they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Figures {
    /// The most that was finished in any stage.
    pub peak_goodput_per_s: f64,
    /// What was finished at ten times the rate.
    pub goodput_at_10x_per_s: f64,
    /// The second as a part of the first.
    pub goodput_ratio: f64,
    /// Of all refusals by the server.
    pub refusal_p99_ms: Option<f64>,
    /// Of all refusals that callers heard: by the server, or by their client, which held the submission back.
    pub told_p99_ms: Option<f64>,
    /// The most memory of the node in the first half of the last stage, and in the second.
    pub rss_first_half_mib: Option<f64>,
    /// See `rss_first_half_mib`.
    pub rss_second_half_mib: Option<f64>,
    /// What was finished at ten times the rate of blunt clients.
    pub blunt_goodput_at_10x_per_s: f64,
    /// The same as a part of the peak.
    pub blunt_goodput_ratio: f64,
    /// Of all refusals of blunt clients.
    pub blunt_refusal_p99_ms: Option<f64>,
    /// See `rss_first_half_mib`.
    pub blunt_rss_first_half_mib: Option<f64>,
    /// See `rss_first_half_mib`.
    pub blunt_rss_second_half_mib: Option<f64>,
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
    /// Each stage with blunt clients.
    pub blunt_stages: Vec<Stage>,
}

impl Figures {
    /// Whether everything that was accepted came out right, and everything else was refused as it should be.
    pub fn is_right(&self) -> bool {
        self.lost == 0 && self.wrong == 0 && self.failed == 0
    }
}

/// Everything that was seen.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// In numbers.
    pub figures: Figures,
    /// What the node used, over time.
    pub samples: Vec<Sample>,
    /// When each stage began, and what it was.
    pub began: Vec<(Duration, String)>,
}

/// Runs it. `told` hears in words what happens.
///
/// # Errors
/// [`LoadError`] if it cannot be run to its end.
pub async fn run(settings: Settings, stop: CancellationToken, told: &dyn Fn(&str)) -> Result<Outcome, LoadError> {
    let mut temporary = None;
    let folder = match &settings.folder {
        Some(folder) => folder.clone(),
        None => {
            let made = tempfile::Builder::new().prefix("nexa-overload").tempdir();
            let made = made.map_err(|source| LoadError::Folder { folder: std::env::temp_dir(), source })?;
            temporary.insert(made).path().to_path_buf()
        }
    };
    let outcome = tokio::select! {
        () = stop.cancelled() => Err(LoadError::Interrupted),
        outcome = carry_out(&settings, &folder, told) => outcome,
    };
    drop(temporary);
    outcome
}

/// A node of its own for each stage, since a store that holds more takes longer; and those who submit to it.
struct Trial {
    node: Node,
    crowd: Arc<Crowd>,
}

impl Trial {
    async fn begin(exe: &Path, folder: PathBuf, pids: &watch::Sender<Vec<u32>>) -> Result<Self, LoadError> {
        let plan = NodePlan {
            exe: exe.to_owned(),
            folder,
            // Nobody asks it.
            endpoint: "http://127.0.0.1:9/v1".to_owned(),
            concurrency: 1,
            limits: KeyLimits::default(),
            tokens: Vec::new(),
            member: None,
        };
        let node = plan.start().await?;
        pids.send_replace(node.pid().into_iter().collect());
        let crowd = Crowd::gather(node.address()).await?;
        Ok(Self { node, crowd })
    }

    /// Waits for all that was accepted, and checks every output.
    async fn end(self, figures: &mut Figures) -> Result<Vec<(SystemTime, SystemTime)>, LoadError> {
        self.crowd.drain().await?;
        let lives = judge(&self.crowd, figures).await?;
        self.node.stop().await;
        Ok(lives)
    }
}

async fn carry_out(settings: &Settings, folder: &Path, told: &dyn Fn(&str)) -> Result<Outcome, LoadError> {
    let start = Instant::now();
    let over = CancellationToken::new();
    let _over = over.clone().drop_guard();
    let (pid, pids) = watch::channel(Vec::new());
    let (_same, own) = watch::channel(vec![std::process::id()]);
    let of_node = tokio::spawn(sample(pids, start, over.clone()));
    let of_driver = tokio::spawn(sample(own, start, over.clone()));

    told("finding out how much the node finishes");
    let mut outcome = Outcome::default();
    let trial = Trial::begin(&settings.exe, folder.join("closed-loop"), &pid).await?;
    let closed_loop = trial.crowd.closed_loop(settings.stage).await;
    trial.end(&mut outcome.figures).await?;
    let (mut spans, mut lives): ([Vec<Span>; 2], _) = (Default::default(), Vec::new());
    for (manner, spans) in [Manner::AsTheyAre, Manner::Blunt].into_iter().zip(&mut spans) {
        for offered in STAGES {
            told(&format!("offering {offered} times {closed_loop:.0} a second, {}", manner.text()));
            let trial = Trial::begin(&settings.exe, folder.join(format!("{}-{offered}", manner.name())), &pid).await?;
            outcome.began.push((start.elapsed(), format!("{offered}×")));
            spans.push(trial.crowd.open_loop(manner, offered, closed_loop, settings, start).await);
            lives.extend(trial.end(&mut outcome.figures).await?);
        }
    }
    over.cancel();
    outcome.samples = of_node.await.unwrap_or_default();
    let driver = of_driver.await.unwrap_or_default();

    let figures = &mut outcome.figures;
    let [stages, blunt] =
        spans.each_ref().map(|spans| spans.iter().map(|span| span.stage(&lives, &outcome.samples, &driver)).collect());
    (figures.stages, figures.blunt_stages) = (stages, blunt);
    let all = figures.stages.iter().chain(&figures.blunt_stages);
    let best = all.map(|stage| stage.goodput_per_s).fold(closed_loop, f64::max);
    let last = |stages: &[Stage]| stages.last().map_or(0.0, |stage| stage.goodput_per_s);
    let ratio = |last: f64| rounded(last / best.max(f64::MIN_POSITIVE));
    let p99 = |spans: &[Span], of: fn(&Span) -> Times| {
        let mut all = Times::default();
        spans.iter().for_each(|span| all.add_all(&of(span)));
        all.ms(0.99)
    };
    let memory = |spans: &[Span]| spans.last().map_or((None, None), |span| span.memory(&outcome.samples));
    figures.peak_goodput_per_s = rounded(best);
    figures.goodput_at_10x_per_s = last(&figures.stages);
    figures.goodput_ratio = ratio(figures.goodput_at_10x_per_s);
    figures.refusal_p99_ms = p99(&spans[0], |span| span.refusals.clone());
    figures.told_p99_ms = p99(&spans[0], Span::told);
    (figures.rss_first_half_mib, figures.rss_second_half_mib) = memory(&spans[0]);
    figures.blunt_goodput_at_10x_per_s = last(&figures.blunt_stages);
    figures.blunt_goodput_ratio = ratio(figures.blunt_goodput_at_10x_per_s);
    figures.blunt_refusal_p99_ms = p99(&spans[1], |span| span.refusals.clone());
    (figures.blunt_rss_first_half_mib, figures.blunt_rss_second_half_mib) = memory(&spans[1]);
    figures.closed_loop_per_s = rounded(closed_loop);
    figures.seed = settings.seed;
    Ok(outcome)
}

/// When each of those was accepted and ended that ended well; the others are counted.
async fn judge(crowd: &Arc<Crowd>, figures: &mut Figures) -> Result<Vec<(SystemTime, SystemTime)>, LoadError> {
    let accepted = crowd.accepted();
    let seen = crowd.settled(&accepted).await?;
    let mut lives = Vec::with_capacity(seen.len());
    for (id, number) in accepted {
        let workload = seen.get(&id).cloned().unwrap_or_default();
        match (&workload.value_json, workload.submitted_at, workload.ended_at) {
            (Some(value), Some(from), Some(to)) if *value == crowd::output(number) => lives.push((from, to)),
            (Some(_), ..) => figures.wrong += 1,
            _ => figures.lost += 1,
        }
    }
    let (failed, first_failure) = crowd.failures();
    figures.failed += failed;
    figures.first_failure = figures.first_failure.take().or(first_failure);
    Ok(lives)
}
