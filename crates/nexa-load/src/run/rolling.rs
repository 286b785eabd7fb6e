//! Nodes that are restarted one after the other, as an upgrade does it, while clients go on.
//!
//! Each gets SIGTERM, lets its agents go and ends; it is started again under its name and addresses, and the next one follows
//! when the others see it ready. Clients meanwhile do what the client library does by itself, at every door: a call that
//! fails for good counts as failed. Beside submissions, askers keep asking.
//!
//! Waiting: a node's grace for its end, [`START_PATIENCE`](crate::node::START_PATIENCE) for its start, [`READY_PATIENCE`]
//! until others see it ready; what takes longer ends the load with an error.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nexa_client::{Client, Options};
use nexa_proto::v1;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Course;
use crate::LoadError;
use crate::crew::Crew;
use crate::figures::{Figures, rounded};

/// How long a node that serves may take until the others see it ready.
pub const READY_PATIENCE: Duration = Duration::from_secs(60);
/// How long a node may take to let its agents go, as `nexa serve` has it by itself.
pub const GRACE: Duration = Duration::from_secs(25);
/// The share of the work that is accepted when the first node is told to go.
pub const BEGINS_AT: f64 = 0.1;
/// Between two looks whether a node is ready.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between two questions of one asker.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// How nodes are restarted in turn.
#[derive(Debug, Clone, Default)]
pub struct Rolling {
    /// What they are started from then; the same binary if nothing is said.
    pub exe: Option<PathBuf>,
}

/// One node's turn.
#[derive(Debug, Clone)]
pub struct Restart {
    /// When it was told to go, from the start of the load.
    pub at: Duration,
    /// From then until it had ended.
    pub drain: Duration,
    /// From then until the others saw it ready again.
    pub whole: Duration,
}

/// Restarts a node of several.
///
/// # Errors
/// [`LoadError`] if it does not end well, or does not come back in time.
pub(super) async fn restart(
    crew: &mut Crew,
    which: usize,
    rolling: &Rolling,
    eyes: &Client,
    start: Instant,
    told: &dyn Fn(&str),
) -> Result<Restart, LoadError> {
    let began = Instant::now();
    let name = crew.node(which).name().unwrap_or_default().to_owned();
    crew.let_go(which).await?;
    let drain = began.elapsed();
    if let Some(exe) = &rolling.exe {
        crew.node(which).becomes(exe);
    }
    crew.bring_back().await?;
    is_ready(eyes, &name).await?;
    let whole = began.elapsed();
    told(&format!("{name} let go in {drain:.1?} and was ready again after {whole:.1?}"));
    Ok(Restart { at: began - start, drain, whole })
}

/// Waits until a node is listed as one that takes agents and has said how it does.
async fn is_ready(eyes: &Client, name: &str) -> Result<(), LoadError> {
    let until = Instant::now() + READY_PATIENCE;
    loop {
        let listed = eyes.nodes(v1::ClusterServiceListNodesRequest {}).await;
        let listed = listed.map_err(|source| LoadError::Client { doing: "listing nodes", source })?;
        let found = listed.nodes.iter().find(|node| node.name == name);
        if found.is_some_and(|node| node.state() == v1::NodeState::Ready && node.load.is_some()) {
            return Ok(());
        }
        if Instant::now() > until {
            let state = found.map_or("not listed", |node| node.state().as_str_name());
            let why = format!("{name} serves again, and for the others it is {state} after {READY_PATIENCE:?}");
            return Err(LoadError::Node { why, log: String::new() });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The doors of a cluster in one text, as a client takes them, beginning with one of them.
pub(super) fn round(addresses: &[String], first: usize) -> String {
    let (before, after) = addresses.split_at(first % addresses.len());
    [after, before].concat().join(",")
}

/// Who asks at every door while nodes come and go.
pub(super) struct Askers {
    tasks: JoinSet<()>,
    clients: Vec<Client>,
    said: Arc<Said>,
}

#[derive(Default)]
struct Said {
    asked: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<String>>,
}

impl Askers {
    /// One for each door, each with the patience that clients have by themselves.
    ///
    /// # Errors
    /// [`LoadError::Client`] if nobody answers.
    pub(super) async fn start(
        addresses: &[String],
        token: Option<String>,
        stop: CancellationToken,
    ) -> Result<Self, LoadError> {
        let (mut tasks, mut clients, said) = (JoinSet::new(), Vec::new(), Arc::<Said>::default());
        for first in 0..addresses.len() {
            let options = Options { token: token.clone(), ..Options::default() };
            let client = Client::connect(&round(addresses, first), options).await;
            let client = client.map_err(|source| LoadError::Client { doing: "connecting", source })?;
            clients.push(client.clone());
            let (said, stop) = (Arc::clone(&said), stop.clone());
            tasks.spawn(async move { while stop.run_until_cancelled(ask(&client, &said)).await.is_some() {} });
        }
        Ok(Self { tasks, clients, said })
    }

    /// Ends them, and adds what they saw, and what those who submitted had to repeat.
    pub(super) fn tell(mut self, submitters: &[Vec<Client>], course: &Course, figures: &mut Figures) {
        self.tasks.abort_all();
        let failed = self.said.failed.load(Ordering::Relaxed) + figures.not_accepted as u64;
        let clients = self.clients.iter().chain(submitters.iter().flatten());
        figures.requests = Some(self.said.asked.load(Ordering::Relaxed) + figures.workloads as u64);
        figures.requests_retried = Some(clients.map(Client::sent_again).sum());
        figures.requests_failed = Some(failed);
        figures.restarts = u32::try_from(course.restarts.len()).unwrap_or(u32::MAX);
        let longest =
            |of: fn(&Restart) -> Duration| course.restarts.iter().map(of).max().map(|time| rounded(time.as_secs_f64()));
        figures.drain_s = longest(|restart| restart.drain);
        figures.restart_s = longest(|restart| restart.whole);
        let first_failure = self.said.first_failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(failure) = first_failure {
            figures.first_failure.get_or_insert(format!("asking: {failure}"));
        }
    }
}

/// Asks once, and waits a little.
async fn ask(client: &Client, said: &Said) {
    let request = v1::WorkloadServiceListRequest { page_size: 1, ..Default::default() };
    let answer = client.workloads(request).await;
    said.asked.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = answer {
        said.failed.fetch_add(1, Ordering::Relaxed);
        let mut first = said.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error.to_string());
    }
    tokio::time::sleep(ASK_EVERY).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_all_doors_and_begins_with_another() {
        let doors = ["a:1", "b:2", "c:3"].map(str::to_owned);
        assert_eq!(
            [0, 1, 2, 3].map(|first| round(&doors, first)),
            ["a:1,b:2,c:3", "b:2,c:3,a:1", "c:3,a:1,b:2", "a:1,b:2,c:3"]
        );
    }
}
