//! How far facts and read models are, whoever of the nodes has moved them.
//!
//! One question to two small rows, again and again: every `LOOK_EVERY`, and every `LOOK_EAGERLY` while somebody waits for read
//! models. PostgreSQL's own notifications are not used: each would wake every node at every commit, and whoever sends one
//! commits alone in the whole server. What this node writes itself it knows at once.
//!
//! When the server is away it tries again after `RETRY_AFTER`; numbers only grow, but for read models that are folded again.

use std::sync::Arc;
use std::time::Duration;

use nexa_ports::store::StoreError;
use nexa_types::GlobalSeq;
use sqlx::Row;
use tokio::sync::{Notify, watch};

use crate::column::counter;
use crate::dial::{Dial, Open, Role};
use crate::trouble::Fault;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often it looks while somebody waits.
const LOOK_EAGERLY: Duration = Duration::from_millis(3);
/// The pause after a failure.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Who waits for read models.
#[derive(Clone, Default)]
pub(crate) struct Eager {
    waiting: watch::Sender<usize>,
    come: Arc<Notify>,
}

/// Somebody who waits, until it is dropped.
pub(crate) struct Waits(watch::Sender<usize>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

impl Eager {
    /// Has it look more often until the value is dropped.
    pub(crate) fn wait(&self) -> Waits {
        self.waiting.send_modify(|waiting| *waiting += 1);
        self.come.notify_one();
        Waits(self.waiting.clone())
    }

    /// Returns as soon as somebody waits on this node. Cancel-safe.
    pub(crate) async fn is_waited_for(&self) {
        // The sender lives as long as this value.
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await;
    }
}

/// How far read models are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Models {
    /// The position that they have seen.
    pub(crate) applied: GlobalSeq,
    /// How often they were made again because somebody asked for it.
    pub(crate) made: u64,
}

/// What it saw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) newest: GlobalSeq,
    pub(crate) models: Models,
}

/// Looks once.
pub(crate) async fn look(dial: &Dial, open: &mut Open) -> Result<Seen, StoreError> {
    let looking = async {
        let row = sqlx::query("SELECT h.position, v.applied, v.made FROM head AS h, view_meta AS v")
            .fetch_one(&mut open.connection)
            .await?;
        let models = Models { applied: GlobalSeq(counter(row.try_get(1)?)?), made: counter(row.try_get(2)?)? };
        Ok(Seen { newest: GlobalSeq(counter(row.try_get(0)?)?), models })
    };
    dial.within(looking).await.map_err(Fault::refusal)
}

/// The task that looks.
pub(crate) struct Follower {
    dial: Dial,
    open: Option<Open>,
    head: watch::Sender<GlobalSeq>,
    models: watch::Sender<Models>,
    eager: Eager,
}

impl Follower {
    pub(crate) fn new(
        dial: Dial,
        open: Open,
        head: watch::Sender<GlobalSeq>,
        models: watch::Sender<Models>,
        eager: Eager,
    ) -> Self {
        Self { dial, open: Some(open), head, models, eager }
    }

    /// Looks until the store is closed.
    pub(crate) async fn work(mut self, mut closed: watch::Receiver<bool>) {
        loop {
            let pause = match self.look().await {
                Ok(()) if *self.eager.waiting.borrow() > 0 => LOOK_EAGERLY,
                Ok(()) => LOOK_EVERY,
                Err(_) => {
                    self.open = None;
                    RETRY_AFTER
                }
            };
            tokio::select! {
                // Also when the store was dropped without being closed.
                _ = closed.changed() => return,
                () = self.eager.come.notified() => {}
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
        self.models.send_if_modified(|models| std::mem::replace(models, seen.models) != seen.models);
        Ok(())
    }
}
