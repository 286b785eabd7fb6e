//! Writes an anchor each second in which the log has grown.
//!
//! At the start it reads the anchors that are kept and has the log checked against the newest. From then on it looks at each
//! turn whether the fact of the newest anchor is still there, which shows a database that was changed for another one under a
//! running node, and then writes the next anchor if there is more to remember.
//!
//! While the log or the place of the anchors is away nothing is written and nobody waits: the next turn tries again, and the
//! anchors are read anew then, since nobody knows which was the last to be kept. One turn is at most so long as the adapters'
//! own deadlines.

use std::sync::Arc;
use std::time::Duration;

use nexa_event::root::{Anchor, Root, check_chain, in_force};
use nexa_ports::audit::{AnchorError, Anchors, Audit};
use nexa_ports::clock::Clock;
use nexa_ports::store::StoreError;
use nexa_types::{Epoch, Millis, Timestamp};
use tracing::{debug, info, warn};

use crate::check::{Broken, check, fold, still_there};

/// Between two turns.
pub const ANCHOR_EVERY: Millis = Millis(1_000);

/// Why there is no next anchor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// The log is not the one that was anchored.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// It could not be read.
    #[error("the log could not be compared with its anchors")]
    Store(#[from] StoreError),
    /// The anchors could not be read or written.
    #[error(transparent)]
    Anchors(#[from] AnchorError),
}

/// Keeps the anchors of one log.
pub struct Keeper {
    log: Arc<dyn Audit>,
    anchors: Arc<dyn Anchors>,
    leader: Option<Epoch>,
    newest: Option<Anchor>,
    /// The newest may be another one by now.
    is_unsure: bool,
}

impl Keeper {
    /// Nothing is read yet. `leader` is the right to write anchors, as in [`Anchors::keep`].
    pub fn new(log: Arc<dyn Audit>, anchors: Arc<dyn Anchors>, leader: Option<Epoch>) -> Self {
        Self { log, anchors, leader, newest: None, is_unsure: true }
    }

    /// One turn: whether there is a new anchor.
    ///
    /// # Errors
    /// [`KeepError`]; [`KeepError::Broken`] is for good.
    pub async fn turn(&mut self, now: Timestamp) -> Result<bool, KeepError> {
        if self.is_unsure {
            self.read().await?;
        }
        if let Some(anchor) = &self.newest {
            still_there(&*self.log, anchor).await??;
        }
        let root = self.log.root().await?;
        if self.newest.as_ref().map_or(0, |newest| newest.root.position.0) >= root.position.0 {
            return Ok(false);
        }
        self.write(|before, log| Anchor::after(before, log, root, now)).await?;
        Ok(true)
    }

    /// Takes the log as it is, whatever was anchored before. For a person, while no node runs.
    ///
    /// # Errors
    /// [`KeepError`].
    pub async fn accept(
        log: Arc<dyn Audit>,
        anchors: Arc<dyn Anchors>,
        why: String,
        now: Timestamp,
    ) -> Result<Anchor, KeepError> {
        let newest = anchors.kept().await?.pop();
        let mut keeper = Self { log, anchors, leader: None, newest, is_unsure: false };
        let head = keeper.log.log().await?;
        // From the first fact on: what was folded may be of what is given up.
        let root = fold(&*keeper.log, Root::start(), head.newest).await?;
        keeper.write(|before, log| Anchor::after(before, log, root, now).accepting(why)).await
    }

    async fn write(&mut self, next: impl FnOnce(Option<&Anchor>, String) -> Anchor) -> Result<Anchor, KeepError> {
        let head = self.log.log().await?;
        let anchor = next(self.newest.as_ref(), head.id);
        self.is_unsure = true;
        self.anchors.keep(anchor.clone(), self.leader).await?;
        self.is_unsure = false;
        debug!(number = anchor.number, position = %anchor.root.position, "the log was anchored");
        self.newest = Some(anchor.clone());
        Ok(anchor)
    }

    /// Reads the anchors that are kept, and checks the log against the newest. The first turn does it, if nobody did before.
    ///
    /// # Errors
    /// [`KeepError`].
    pub async fn read(&mut self) -> Result<(), KeepError> {
        let kept = self.anchors.kept().await?;
        check_chain(&kept).map_err(Broken::from)?;
        let newest = in_force(&kept).last().cloned();
        if let Some(anchor) = &newest {
            check(&*self.log, anchor).await??;
        }
        self.newest = newest;
        self.is_unsure = false;
        Ok(())
    }

    /// Takes turns until the log turns out to be broken; gives how. Dropping the future ends it, at the latest with the
    /// write under way.
    pub async fn work(&mut self, clock: &dyn Clock) -> Broken {
        let mut is_away = false;
        loop {
            clock.wait_until(clock.now().after(ANCHOR_EVERY)).await;
            match self.turn(clock.now()).await {
                Ok(_) if is_away => {
                    is_away = false;
                    info!("the log is anchored again");
                }
                Ok(_) => {}
                Err(KeepError::Broken(broken)) => return broken,
                // Whoever elected somebody else ends this.
                Err(KeepError::Anchors(AnchorError::NotLeading)) => self.is_unsure = true,
                Err(error) => {
                    self.is_unsure = true;
                    if !is_away {
                        is_away = true;
                        warn!(error = %told(&error), "the log is not anchored until this is over");
                    }
                }
            }
        }
    }
}

/// How long is waited for the newest facts to be folded when a node ends.
const LAST_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks whether they are.
const LAST_PAUSE: Duration = Duration::from_millis(5);

impl Keeper {
    /// One more turn at the end, once the newest facts are folded; says why there is none, if so.
    pub async fn last(&mut self, now: Timestamp) {
        let last = async {
            let head = self.log.log().await?;
            while self.log.root().await?.position < head.newest {
                tokio::time::sleep(LAST_PAUSE).await;
            }
            self.turn(now).await
        };
        match tokio::time::timeout(LAST_WITHIN, last).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!(error = %told(&error), "the newest facts are not anchored"),
            Err(_) => warn!("the newest facts are not anchored: they were not folded in time"),
        }
    }
}

fn told(error: &KeepError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use nexa_ports::audit::MemoryAnchors;
    use nexa_ports::clock::SimClock;

    use super::*;
    use crate::fake::Log;

    struct Desk {
        log: Arc<Log>,
        anchors: Arc<MemoryAnchors>,
    }

    impl Desk {
        fn of(facts: u64) -> Self {
            Self { log: Arc::new(Log::of(facts)), anchors: Arc::new(MemoryAnchors::new(4)) }
        }

        async fn keeper(&self) -> Result<Keeper, KeepError> {
            self.led(None).await
        }

        async fn led(&self, leader: Option<Epoch>) -> Result<Keeper, KeepError> {
            let mut keeper = Keeper::new(Arc::clone(&self.log) as _, Arc::clone(&self.anchors) as _, leader);
            keeper.read().await?;
            Ok(keeper)
        }

        async fn positions(&self) -> Vec<u64> {
            self.anchors.kept().await.unwrap().iter().map(|anchor| anchor.root.position.0).collect()
        }
    }

    #[tokio::test]
    async fn an_anchor_is_written_each_second_in_which_the_log_grew() {
        let desk = Desk::of(0);
        let clock = SimClock::new(Timestamp(0));
        let mut keeper = desk.keeper().await.unwrap();
        let mut work = Box::pin(keeper.work(&clock));
        let mut second = |facts: u64| {
            desk.log.append(facts);
            clock.advance(ANCHOR_EVERY);
            assert_eq!((&mut work).now_or_never(), None);
        };
        for facts in [0, 5, 0, 0, 2, 1, 1, 1] {
            second(facts);
        }
        assert_eq!(desk.positions().await, [7, 8, 9, 10], "the newest are kept");
        assert_eq!(check_chain(&desk.anchors.kept().await.unwrap()), Ok(()));
    }

    #[tokio::test]
    async fn while_the_place_is_away_work_goes_on_and_the_next_anchor_covers_it() {
        let desk = Desk::of(3);
        let clock = SimClock::new(Timestamp(0));
        let mut keeper = desk.keeper().await.unwrap();
        let mut work = Box::pin(keeper.work(&clock));
        assert_eq!((&mut work).now_or_never(), None);
        let mut second = |is_away: bool| {
            desk.anchors.set_away(is_away);
            desk.log.append(1);
            clock.advance(ANCHOR_EVERY);
            assert_eq!((&mut work).now_or_never(), None);
            desk.anchors.set_away(false);
        };
        for is_away in [false, true, true, false] {
            second(is_away);
        }
        assert_eq!(desk.positions().await, [4, 7]);
    }

    #[tokio::test]
    async fn a_log_that_lost_its_end_is_noticed_while_a_node_runs_and_at_the_next_start() {
        let desk = Desk::of(9);
        let clock = SimClock::new(Timestamp(0));
        let mut keeper = desk.keeper().await.unwrap();
        let mut work = Box::pin(keeper.work(&clock));
        assert_eq!((&mut work).now_or_never(), None);
        clock.advance(ANCHOR_EVERY);
        assert_eq!((&mut work).now_or_never(), None);
        desk.log.truncate(8);
        desk.log.append(4);
        clock.advance(ANCHOR_EVERY);
        assert_eq!((&mut work).now_or_never(), Some(Broken::Differs { position: 9 }));
        drop(work);
        assert_eq!(desk.keeper().await.err(), Some(Broken::Differs { position: 9 }.into()));

        let why = "the disk broke".to_owned();
        let accepted =
            Keeper::accept(Arc::clone(&desk.log) as _, Arc::clone(&desk.anchors) as _, why.clone(), Timestamp(5)).await;
        assert_eq!(accepted.unwrap().accepted, Some(why));
        desk.keeper().await.unwrap().turn(Timestamp(6)).await.unwrap();
        desk.log.append(1);
        desk.keeper().await.unwrap().turn(Timestamp(7)).await.unwrap();
        assert_eq!(desk.positions().await, [9, 12, 13]);
    }

    #[tokio::test]
    async fn who_no_longer_leads_writes_none() {
        let desk = Desk::of(4);
        desk.anchors.elect(Some(Epoch(7)));
        let mut before = desk.led(Some(Epoch(7))).await.unwrap();
        assert_eq!(before.turn(Timestamp(1)).await, Ok(true));
        desk.anchors.elect(Some(Epoch(9)));
        desk.log.append(1);
        assert_eq!(before.turn(Timestamp(2)).await, Err(AnchorError::NotLeading.into()));
        assert_eq!(desk.led(Some(Epoch(9))).await.unwrap().turn(Timestamp(2)).await, Ok(true));
        assert_eq!(desk.positions().await, [4, 5]);
    }
}
