//! How far facts and read models are, whoever of the nodes has moved them.
//!
//! One question to two small rows, again and again: every `LOOK_EVERY`. PostgreSQL's own notifications are not used: each would wake every node at every commit, and whoever sends one
//! commits alone in the whole server. What this node writes itself it knows at once.
//!
//! When the server is away it tries again after `RETRY_AFTER`; numbers only grow, but for read models that are folded again.

use std::time::Duration;

use nexa_ports::store::StoreError;
use nexa_types::GlobalSeq;
use sqlx::Row;
use tokio::sync::watch;

use crate::column::counter;
use crate::dial::{Dial, Open, Role};
use crate::trouble::Fault;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The pause after a failure.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// What it saw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) newest: GlobalSeq,
    pub(crate) applied: GlobalSeq,
}

/// Looks once.
pub(crate) async fn look(dial: &Dial, open: &mut Open) -> Result<Seen, StoreError> {
    let looking = async {
        let row = sqlx::query("SELECT h.position, v.applied FROM head AS h, view_meta AS v")
            .fetch_one(&mut open.connection)
            .await?;
        Ok(Seen { newest: GlobalSeq(counter(row.try_get(0)?)?), applied: GlobalSeq(counter(row.try_get(1)?)?) })
    };
    dial.within(looking).await.map_err(Fault::refusal)
}

/// The task that looks.
pub(crate) struct Follower {
    dial: Dial,
    open: Option<Open>,
    head: watch::Sender<GlobalSeq>,
    applied: watch::Sender<GlobalSeq>,
}

impl Follower {
    pub(crate) fn new(
        dial: Dial,
        open: Open,
        head: watch::Sender<GlobalSeq>,
        applied: watch::Sender<GlobalSeq>,
    ) -> Self {
        Self { dial, open: Some(open), head, applied }
    }

    /// Looks until the store is closed.
    pub(crate) async fn work(mut self, mut closed: watch::Receiver<bool>) {
        loop {
            let pause = match self.look().await {
                Ok(()) => LOOK_EVERY,
                Err(_) => {
                    self.open = None;
                    RETRY_AFTER
                }
            };
            tokio::select! {
                // Also when the store was dropped without being closed.
                _ = closed.changed() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        let mut open = match self.open.take() {
            Some(open) if self.dial.is_of_now(&open) => open,
            _ => self.dial.open(Role::Follow).await?,
        };
        let seen = look(&self.dial, &mut open).await?;
        self.open = Some(open);
        self.head.send_if_modified(|head| {
            let is_news = *head < seen.newest;
            *head = seen.newest.max(*head);
            is_news
        });
        self.applied.send_if_modified(|applied| std::mem::replace(applied, seen.applied) != seen.applied);
        Ok(())
    }
}
