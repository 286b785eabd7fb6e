//! Anchors of the log of this process: the check before anything is done with it, and the task that writes the next ones.

use std::path::Path;
use std::sync::Arc;

use nexa_audit::{Broken, KeepError, Keeper};
use nexa_cli::failure::Failure;
use nexa_ports::audit::{AnchorError, Anchors, Audit};
use nexa_ports::clock::Clock;
use nexa_ports::membership::{Generation, Members, Membership};
use nexa_store::FileAnchors;
use nexa_types::NodeId;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::chain;

/// The log of a cluster, and where its anchors are.
#[derive(Clone)]
pub(crate) struct ClusterLog {
    pub(crate) log: Arc<dyn Audit>,
    pub(crate) anchors: Arc<dyn Anchors>,
    pub(crate) membership: Arc<dyn Membership>,
    /// The cluster's name, for people.
    pub(crate) name: String,
}

impl ClusterLog {
    /// Checks the log against its anchors, before anything is done with it.
    pub(crate) async fn check(&self) -> Result<(), Failure> {
        let mut keeper = Keeper::new(Arc::clone(&self.log), Arc::clone(&self.anchors), None);
        let how = format!("nexa audit accept --cluster {} --why WORDS, while no node runs", self.name);
        checked(keeper.read().await, &how)
    }
}

/// The task that anchors a log.
pub(crate) struct Anchoring {
    broken: watch::Receiver<Option<Broken>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Anchoring {
    /// Checks the log of a node by itself against the anchors beside its folder, and goes on writing them there.
    pub(crate) async fn beside(data: &Path, log: Arc<dyn Audit>, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        let how = format!("nexa audit accept --data {} --why WORDS", data.display());
        let Some(anchors) = FileAnchors::beside(data) else {
            return Err(Failure::error(format!("{} cannot hold data: there is nothing beside it", data.display())));
        };
        let anchors = Arc::new(anchors);
        let mut keeper = Keeper::new(Arc::clone(&log), Arc::clone(&anchors) as _, None);
        let read = keeper.read().await;
        match read {
            Err(KeepError::Broken(Broken::Foreign { .. })) if is_empty(&*log).await? => {
                // Somebody removed the folder to begin anew.
                anchors.put_away().map_err(|error| {
                    Failure::error(format!("cannot put away {}: {error}", anchors.path().display()))
                })?;
                tracing::info!(path = %anchors.path().display(), "the anchors there are of another log and were put away");
            }
            read => checked(read, &how)?,
        }
        Ok(Self::start(keeper, clock))
    }

    /// Writes anchors of a cluster's log whenever this run of a node leads.
    pub(crate) fn of_leader(cluster: ClusterLog, node: NodeId, generation: Generation, clock: Arc<dyn Clock>) -> Self {
        let (say, broken) = watch::channel(None);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut members = cluster.membership.members();
            let leads = |list: &Arc<Members>| {
                let leader = list.leader.as_ref();
                leader
                    .filter(|leader| leader.node == node && leader.generation == generation)
                    .map(|leader| leader.epoch)
            };
            let terms = async {
                loop {
                    let Ok(epoch) = members.wait_for(|list| leads(list).is_some()).await.map(|list| leads(&list))
                    else {
                        return None;
                    };
                    let mut keeper = Keeper::new(Arc::clone(&cluster.log), Arc::clone(&cluster.anchors), epoch);
                    tokio::select! {
                        broken = keeper.work(&*clock) => return Some(broken),
                        ended = members.wait_for(|list| leads(list) != epoch) => if ended.is_err() { return None },
                    }
                }
            };
            tokio::select! {
                Some(broken) = terms => drop(say.send_replace(Some(broken))),
                () = stopped.cancelled() => {}
            }
        });
        Self { broken, stop, task }
    }

    fn start(mut keeper: Keeper, clock: Arc<dyn Clock>) -> Self {
        let (say, broken) = watch::channel(None);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let found = tokio::select! {
                broken = keeper.work(&*clock) => Some(broken),
                () = stopped.cancelled() => None,
            };
            match found {
                Some(broken) => drop(say.send_replace(Some(broken))),
                None => keeper.last(clock.now()).await,
            }
        });
        Self { broken, stop, task }
    }

    /// Waits until the log turns out not to be the one that was anchored; gives what to tell the user.
    pub(crate) async fn broken(&self) -> Failure {
        let mut broken = self.broken.clone();
        let found = broken.wait_for(Option::is_some).await.ok().map(|found| found.clone());
        let Some(found) = found else {
            // The task was stopped: it finds nothing any more.
            return std::future::pending().await;
        };
        let found = found.map_or_else(String::new, |broken| chain(&broken));
        Failure::error(found).hint("the log was changed under this node; `nexa audit verify` says more")
    }

    /// Anchors the newest facts, and ends.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // A panic there has been printed.
        let _ = self.task.await;
    }
}

async fn is_empty(log: &dyn Audit) -> Result<bool, Failure> {
    let head = log.log().await.map_err(|error| Failure::error(chain(&error)))?;
    Ok(head.newest.0 == 0)
}

/// What a check at the start came to. Where the anchors cannot be reached the node starts all the same; `how` accepts the log as
/// it is.
pub(crate) fn checked(read: Result<(), KeepError>, how: &str) -> Result<(), Failure> {
    match read {
        Ok(()) => Ok(()),
        Err(KeepError::Anchors(error @ AnchorError::Unavailable { .. })) => {
            tracing::warn!(%error, "the log was not compared with its anchors; it will be when they can be read");
            Ok(())
        }
        Err(KeepError::Broken(broken)) => Err(Failure::error(chain(&broken))
            .hint(format!("put back the newest copy; or, to go on from what is there: {how}"))),
        Err(error @ KeepError::Anchors(AnchorError::Damaged { .. })) => Err(Failure::error(chain(&error))
            .hint(format!("whether the log is whole cannot be told by them; to go on from what is there: {how}"))),
        Err(error) => Err(Failure::error(chain(&error))),
    }
}
