//! Follows the log, and stores pages in batches.
//!
//! One task. As soon as the log is to be followed it takes all shards over, folds from where the least of them is applied, and
//! from then on whatever comes. Pages are
//! stored every [`APPEND_EVERY`], or once [`APPEND_ROWS`] wait: one batch a shard that has some. A shard without any is told its
//! position only once it is [`LAG_FACTS_MAX`] behind, so that a start does not read the whole log again.
//!
//! What the log tells to be forgotten is deleted before anything is stored, and no shard is told of a position behind it until
//! that is done: so it is told again to whoever goes on from there.
//!
//! A shard that is damaged is emptied, and the log is folded again from its first fact, for that shard alone.
//!
//! When the store of pages fails, pages stay in memory and are offered again after a pause; at [`WAITING_PAGES_MAX`] the log is
//! followed no further until some are stored. Of a batch that it refuses, every page is offered but the one that is refused by
//! itself. When the log cannot be read, it is tried again after a pause.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nexa_ports::pages::{PagesError, Shard};
use nexa_types::{Epoch, GlobalSeq, Millis, Timestamp};
use tracing::{debug, error, info, warn};

use crate::state::Deletion;
use crate::{Shared, add};

/// How often pages are stored.
pub const APPEND_EVERY: Millis = Millis(15_000);
/// Pages that are stored sooner.
pub const APPEND_ROWS: usize = 512;
/// Pages in memory after which the log is followed no further.
pub const WAITING_PAGES_MAX: usize = 16_384;
/// Bytes of texts in waiting pages that are stored sooner, and after which the log is followed no further.
pub const APPEND_BYTES: usize = 16 << 20;
/// See [`APPEND_BYTES`].
pub const WAITING_BYTES_MAX: usize = 64 << 20;
/// Facts that a shard without pages may be behind.
pub const LAG_FACTS_MAX: u64 = 1 << 16;
/// Facts that are read at once.
const SCAN_FACTS: usize = 512;
/// How long facts gather before the next look, unless somebody waits.
const GATHER: Millis = Millis(100);
/// Epochs that are tried before a pause: another process may be taking over at the same time.
const TAKE_OVERS_MAX: usize = 4;
/// The pause after a failure.
const RETRY_AFTER: Millis = Millis(1_000);

pub(crate) async fn run(shared: Arc<Shared>) {
    let stop = shared.stop.clone();
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = follow(&shared) => {}
    }
    // What waits is stored if that is quick; the log has it in any case.
    store_waiting(&shared).await;
}

async fn follow(shared: &Shared) {
    let clock = &shared.outside.clock;
    while !shared.follows.load(Ordering::Acquire) {
        shared.wanted.notified().await;
    }
    while let Err(error) = take_over(shared).await {
        warn!(%error, "pages cannot be written; what is said is not stored until this is over");
        clock.wait_until(clock.now().after(RETRY_AFTER)).await;
    }
    shared.state().whole_at = clock.now();
    let mut head = shared.outside.store.head();
    let mut due = clock.now().after(APPEND_EVERY);
    loop {
        rewrite_damaged(shared).await;
        head.mark_unchanged();
        let is_whole = fold(shared).await;
        if is_due_now(shared) || clock.now() >= due {
            store_waiting(shared).await;
            due = clock.now().after(APPEND_EVERY);
        }
        if !is_whole {
            clock.wait_until(clock.now().after(RETRY_AFTER)).await;
            continue;
        }
        rest(shared, &mut head, due).await;
    }
}

/// Waits for news, for a while so that facts gather, or until somebody waits or pages are due.
async fn rest(shared: &Shared, head: &mut tokio::sync::watch::Receiver<GlobalSeq>, due: Timestamp) {
    let clock = &shared.outside.clock;
    tokio::select! {
        biased;
        () = shared.wanted.notified() => return,
        changed = head.changed() => if changed.is_err() {
            // The store is gone: nothing comes any more.
            return std::future::pending().await;
        },
        () = clock.wait_until(due) => return,
    }
    tokio::select! {
        biased;
        () = shared.wanted.notified() => {}
        () = clock.wait_until(clock.now().after(GATHER)) => {}
    }
}

/// Takes all shards over under one epoch, later than any before: by the clock or, where that has gone back, by the store.
async fn take_over(shared: &Shared) -> Result<(), PagesError> {
    let mut epoch = Epoch(shared.outside.clock.now().0.max(1));
    let mut tries = 1;
    loop {
        match take_over_under(shared, epoch).await {
            Ok(applied) => {
                shared.state().take_over(epoch, applied, shared.outside.embedder.is_some());
                return Ok(());
            }
            Err(PagesError::Fenced { current, .. }) if tries < TAKE_OVERS_MAX => {
                epoch = Epoch(current.0.saturating_add(1));
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Takes all shards over, and empties those that are damaged, or ahead of the log: they are of another one, or of what was lost
/// when a copy of it was put back. Gives how far each is applied.
async fn take_over_under(shared: &Shared, epoch: Epoch) -> Result<Vec<GlobalSeq>, PagesError> {
    let (pages, head) = (&shared.outside.pages, *shared.outside.store.head().borrow());
    let mut applied = Vec::new();
    for shard in pages.shards().all() {
        applied.push(match pages.take_over(shard, epoch).await {
            Err(error @ PagesError::Damaged { .. }) => {
                empty(shared, shard, epoch, &error.to_string()).await?;
                GlobalSeq(0)
            }
            Ok(position) if position > head => {
                empty(shared, shard, epoch, "its pages are of facts that the log does not have").await?;
                GlobalSeq(0)
            }
            taken => taken?,
        });
    }
    Ok(applied)
}

async fn empty(shared: &Shared, shard: Shard, epoch: Epoch, why: &str) -> Result<(), PagesError> {
    shared.outside.pages.drop_pages(shard, epoch).await?;
    add(&shared.counters.emptied, 1);
    error!(shard = shard.0, why, "a shard is emptied; its pages are made again from the log");
    Ok(())
}

/// Empties shards that were found to be damaged, and has the log folded again for them.
async fn rewrite_damaged(shared: &Shared) {
    let (damaged, epoch) = {
        let mut state = shared.state();
        (std::mem::take(&mut state.damaged), state.epoch)
    };
    for shard in damaged {
        match empty(shared, shard, epoch, "found while it was read or written").await {
            Ok(()) => {
                let mut state = shared.state();
                state.begin_again_for(shard);
                // Under the lock, as in `fold`.
                shared.folded.send_replace(state.folded);
            }
            Err(error) => {
                warn!(shard = shard.0, %error, "a damaged shard cannot be emptied until this is over");
                shared.state().damaged.insert(shard);
            }
        }
    }
}

/// Folds until there is nothing new. False if it has to be tried again later.
async fn fold(shared: &Shared) -> bool {
    loop {
        if is_due_now(shared) {
            store_waiting(shared).await;
        }
        let (waiting, bytes) = waiting(shared);
        if waiting >= WAITING_PAGES_MAX || bytes >= WAITING_BYTES_MAX {
            warn!(waiting, bytes, "too much waits to be stored: the log is followed no further until some of it is");
            return false;
        }
        let after = shared.state().folded;
        let facts = match shared.outside.store.scan(None, after, SCAN_FACTS).await {
            Ok(facts) => facts,
            Err(error) => {
                warn!(%error, "the log cannot be read; pages stand still until this is over");
                return false;
            }
        };
        let (mut sealed, is_last) = (0, facts.len() < SCAN_FACTS);
        {
            let mut state = shared.state();
            // Somebody wants the log read from its beginning.
            if state.folded != after {
                continue;
            }
            for recorded in &facts {
                sealed += state.fold(recorded);
            }
            // Under the lock: whoever has the log read again must not be told of the reading before.
            shared.folded.send_replace(state.folded);
        }
        add(&shared.counters.sealed, sealed);
        if sealed > 0 {
            shared.unembedded.notify_one();
        }
        if is_last {
            shared.state().whole_at = shared.outside.clock.now();
            return true;
        }
        tokio::task::yield_now().await;
    }
}

/// Pages that wait, and the bytes of their texts.
fn waiting(shared: &Shared) -> (usize, usize) {
    let state = shared.state();
    (state.waiting.len(), state.waiting_bytes())
}

/// Whether so much waits that it is stored at once, or something is to be deleted, unless that has failed a moment ago.
fn is_due_now(shared: &Shared) -> bool {
    let (waiting, bytes) = waiting(shared);
    let is_due = waiting >= APPEND_ROWS || bytes >= APPEND_BYTES || !shared.state().deletions().is_empty();
    is_due && shared.outside.clock.now() >= shared.state().retry_at
}

/// Has the store delete what the log tells to be forgotten.
async fn delete_forgotten(shared: &Shared) {
    let deletions = shared.state().deletions();
    for deletion in deletions {
        let Deletion { tenant, agent, up_to, .. } = deletion.clone();
        let epoch = shared.state().epoch;
        match shared.outside.pages.delete_agent(epoch, tenant, agent, up_to).await {
            Ok(pages) => {
                debug!(%agent, pages, "pages of an agent that is forgotten are deleted");
                shared.state().deleted(&deletion);
            }
            Err(error) => {
                add(&shared.counters.failures, 1);
                shared.state().retry_at = shared.outside.clock.now().after(RETRY_AFTER);
                failed(shared, shared.outside.pages.shards().of(agent), &error).await;
            }
        }
    }
}

/// Offers every waiting page to the store.
async fn store_waiting(shared: &Shared) {
    delete_forgotten(shared).await;
    let mut batches = VecDeque::from(shared.state().batches());
    let mut left = BTreeSet::new();
    while let Some(taken) = batches.pop_front() {
        let (shard, rows) = (taken.batch.shard, taken.batch.pages.len());
        // The last batch of a shard says that all before it are there.
        if left.contains(&shard) {
            continue;
        }
        match shared.outside.pages.append(taken.batch.clone()).await {
            Ok(()) => {
                shared.state().applied(&taken);
                add(&shared.counters.batches, 1);
                add(&shared.counters.rows, rows);
                shared.unembedded.notify_one();
            }
            Err(PagesError::Refused(why)) => {
                add(&shared.counters.failures, 1);
                let mut state = shared.state();
                match state.halves(taken) {
                    Ok([first, second]) => {
                        batches.push_front(second);
                        batches.push_front(first);
                    }
                    Err(taken) => {
                        let page = taken.batch.pages.first().map(|page| page.id.to_string());
                        error!(shard = shard.0, page, why, "a page that the store refuses is given up; the log has it");
                        state.give_up(&taken);
                    }
                }
            }
            Err(error) => {
                left.insert(shard);
                add(&shared.counters.failures, 1);
                shared.state().retry_at = shared.outside.clock.now().after(RETRY_AFTER);
                failed(shared, shard, &error).await;
                debug!(shard = shard.0, rows, "pages wait on");
            }
        }
    }
}

async fn failed(shared: &Shared, shard: Shard, error: &PagesError) {
    match error {
        PagesError::Fenced { .. } | PagesError::Unknown(_) => {
            info!(shard = shard.0, %error, "the shard is taken over again");
            let epoch = shared.state().epoch;
            if let Err(error) = shared.outside.pages.take_over(shard, epoch).await {
                warn!(shard = shard.0, %error, "pages of a shard cannot be written until this is over");
            }
        }
        PagesError::Damaged { shard, .. } => {
            warn!(shard = shard.0, %error, "a shard is damaged");
            shared.state().damaged.insert(*shard);
            shared.wanted.notify_one();
        }
        PagesError::Unavailable(_) | PagesError::Refused(_) => {
            warn!(shard = shard.0, %error, "pages of a shard cannot be written until this is over");
        }
    }
}
