//! The node's own lease: joining and leaving, and the keeper that renews it.
//!
//! A renewal counts when etcd has *answered* that the lease has time left, and from the moment at which it was *asked*: etcd counted
//! the term anew no earlier than that. Each renewal is a call of its own with an answer of its own: a stream of them does not come
//! back after a restart of etcd, and something that was put into a stream is no renewal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use nexa_ports::membership::{Generation, MembershipError, Standing};
use nexa_types::{Millis, NodeId, Timestamp};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use crate::pool::Backoff;
use crate::{ASK_WITHIN, Core, MARGIN, NAME_WAIT, now};

/// Between two looks at a name that is taken.
const NAME_EVERY: Duration = Duration::from_millis(200);

/// What is said of an etcd that has forgotten what it said before.
pub(crate) const SET_BACK: &str =
    "etcd has an earlier state than before; a cluster whose etcd was set back needs another name";

/// The run that this node is.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) node: NodeId,
    pub(crate) generation: Generation,
    pub(crate) lease: i64,
    /// The term that etcd gave.
    term: Millis,
    /// When the renewal that was answered last was asked for.
    renewed: Timestamp,
}

/// Until when a lease counts that was renewed by a question sent at `asked`.
pub(crate) fn valid_until(asked: Timestamp, term: Millis) -> Timestamp {
    asked.after(Millis(term.0.saturating_sub(millis(MARGIN).0)))
}

fn millis(duration: Duration) -> Millis {
    Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

impl Core {
    /// Registers the node under a lease of its own, as soon as the name is free.
    pub(crate) async fn join(&self, node: NodeId, card: Vec<u8>) -> Result<Generation, MembershipError> {
        let _turn = self.turn.lock().await;
        self.give_back().await?;
        let deadline = Instant::now() + self.term + NAME_WAIT;
        let key = self.keys.node(&node);
        loop {
            let asking = Instant::now() + ASK_WITHIN;
            let known = self.members.borrow().revision;
            if self.registration(&node, asking).await?.is_some() {
                if Instant::now() >= deadline {
                    return Err(MembershipError::NameTaken { node });
                }
                sleep(NAME_EVERY).await;
                continue;
            }
            let seconds = i64::try_from(self.term.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX).max(1);
            // Whatever is granted without our hearing of it ends by itself.
            let (granted, asked) = self
                .pool
                .insist(asking, &self.dice, |client| async move {
                    let asked = now();
                    Ok((client.lease_client().grant(seconds, None).await?, asked))
                })
                .await?;
            let lease = granted.id();
            let term = Millis(u64::try_from(granted.ttl()).unwrap_or(0).saturating_mul(1_000));
            let put = Txn::new()
                .when([Compare::create_revision(key.clone(), CompareOp::Equal, 0)])
                .and_then([TxnOp::put(key.clone(), card.clone(), Some(PutOptions::new().with_lease(lease)))]);
            match self.register(&node, put, lease, asking).await {
                Ok(Some(generation)) if generation.0 <= known => {
                    drop(self.revoke(lease, Instant::now() + ASK_WITHIN).await);
                    return Err(MembershipError::Unavailable { detail: SET_BACK.into() });
                }
                Ok(Some(generation)) => {
                    let own = Own { node, generation, lease, term, renewed: asked };
                    info!(node = %own.node, %generation, lease, "joined the cluster");
                    self.begin(own);
                    return Ok(generation);
                }
                // Somebody else was faster.
                Ok(None) => drop(self.revoke(lease, Instant::now() + ASK_WITHIN).await),
                Err(error) => {
                    // It may be registered, and must not stay so.
                    drop(self.revoke(lease, Instant::now() + ASK_WITHIN).await);
                    return Err(error);
                }
            }
        }
    }

    /// Writes the registration, and tells by its lease whether it is this one that stands there.
    async fn register(
        &self,
        node: &NodeId,
        put: Txn,
        lease: i64,
        deadline: Instant,
    ) -> Result<Option<Generation>, MembershipError> {
        self.pool.insist(deadline, &self.dice, |client| client_txn(client, put.clone())).await?;
        let stands = self.registration(node, deadline).await?;
        Ok(stands.filter(|stands| stands.lease == lease).map(|stands| stands.generation))
    }

    /// Who stands under a name now.
    async fn registration(&self, node: &NodeId, deadline: Instant) -> Result<Option<Registration>, MembershipError> {
        let key = self.keys.node(node);
        let found = self
            .pool
            .insist(deadline, &self.dice, |client| {
                let key = key.clone();
                async move { client.kv_client().get(key, None).await }
            })
            .await?;
        Ok(found.kvs().first().map(|kv| Registration {
            lease: kv.lease(),
            generation: Generation(u64::try_from(kv.create_revision()).unwrap_or(0)),
        }))
    }

    /// Leaves, whether etcd hears of it or not: what it does not hear of ends by itself.
    pub(crate) async fn leave(&self) -> Result<(), MembershipError> {
        let _turn = self.turn.lock().await;
        self.give_back().await
    }

    async fn give_back(&self) -> Result<(), MembershipError> {
        let Some(own) = self.end(Standing::Outside, |_| true) else {
            // Who has lost its lease and leaves is outside as well.
            self.standing.send_if_modified(|known| std::mem::replace(known, Standing::Outside) != Standing::Outside);
            return Ok(());
        };
        info!(node = %own.node, generation = %own.generation, "leaves the cluster");
        self.revoke(own.lease, Instant::now() + ASK_WITHIN).await?;
        Ok(())
    }

    /// Ends a lease; `false` if it had ended already, as far as anybody can tell.
    async fn revoke(&self, lease: i64, deadline: Instant) -> Result<bool, MembershipError> {
        let mut was_asked = false;
        let mut backoff = Backoff::default();
        loop {
            let failed = match self.pool.call(|client| async move { client.lease_client().revoke(lease).await }).await {
                Ok(_) => break,
                Err(failed) => failed,
            };
            if failed.is_no_such_lease() {
                self.hint.notify_one();
                return Ok(was_asked);
            }
            was_asked = true;
            let wait = backoff.next(crate::pool::BACKOFF_MAX, &self.dice);
            if failed.is_an_answer() || Instant::now() + wait >= deadline {
                return Err(failed.into());
            }
            sleep(wait).await;
        }
        self.hint.notify_one();
        Ok(true)
    }

    /// Ends the lease of that run, if it stands. A lease belongs to one run only, so no later one can be hit.
    pub(crate) async fn end_lease(&self, node: &NodeId, generation: Generation) -> Result<bool, MembershipError> {
        let deadline = Instant::now() + ASK_WITHIN;
        match self.registration(node, deadline).await? {
            Some(stands) if stands.generation == generation => {
                let ended = self.revoke(stands.lease, deadline).await?;
                info!(%node, %generation, ended, "ended the lease of a node");
                Ok(ended)
            }
            _ => Ok(false),
        }
    }

    /// Which run of a node is entered now: etcd answers by what a majority of its members has.
    pub(crate) async fn run_of(&self, node: &NodeId) -> Result<Option<Generation>, MembershipError> {
        let stands = self.registration(node, Instant::now() + ASK_WITHIN).await?;
        Ok(stands.map(|stands| stands.generation))
    }

    fn begin(&self, own: Own) {
        let mut slot = self.own();
        self.publish(&own);
        *slot = Some(own);
        drop(slot);
        self.own_changed.notify_one();
        self.hint.notify_one();
    }

    /// Takes note of a renewal that was asked for at `asked`.
    fn renew(&self, lease: i64, asked: Timestamp) {
        let mut slot = self.own();
        if let Some(own) = slot.as_mut().filter(|own| own.lease == lease) {
            own.renewed = own.renewed.max(asked);
            self.publish(own);
        }
    }

    /// Must be called with the lock on the own run held, so that no earlier standing replaces a later one.
    fn publish(&self, own: &Own) {
        let valid_until = valid_until(own.renewed, own.term);
        self.valid_until.store(valid_until.0, Ordering::Release);
        self.standing.send_replace(Standing::Member { generation: own.generation, valid_until });
    }

    /// The run is over for this node, if it is the one that is meant.
    pub(crate) fn end(&self, standing: Standing, is_meant: impl FnOnce(&Own) -> bool) -> Option<Own> {
        let mut slot = self.own();
        let ended = slot.take_if(|own| is_meant(own))?;
        self.valid_until.store(0, Ordering::Release);
        self.standing.send_replace(standing);
        drop(slot);
        self.own_changed.notify_one();
        Some(ended)
    }

    pub(crate) fn lose(&self, generation: Generation) {
        if let Some(own) = self.end(Standing::Lost, |own| own.generation == generation) {
            warn!(node = %own.node, %generation, lease = own.lease, "the lease of this node has ended; it is a member no more");
        }
    }
}

struct Registration {
    lease: i64,
    generation: Generation,
}

async fn client_txn(client: etcd_client::Client, txn: Txn) -> Result<etcd_client::TxnResponse, etcd_client::Error> {
    client.kv_client().txn(txn).await
}

/// Renews the lease of whatever run this node is, for ever.
pub(crate) async fn keep(core: Arc<Core>) {
    let mut backoff = Backoff::default();
    let mut failures = 0;
    loop {
        let Some(own) = core.own().clone() else {
            core.own_changed.notified().await;
            failures = 0;
            continue;
        };
        let every = Duration::from_millis(own.term.0 / 3);
        let wait = match failures {
            0 => Duration::from_millis((own.renewed.0 + own.term.0 / 3).saturating_sub(now().0)),
            // Every other endpoint is asked at once.
            tried if tried % core.pool.len() != 0 => Duration::ZERO,
            // Also after a long time without etcd not longer than this: when it is back, the term begins anew, and once only.
            _ => backoff.next(every, &core.dice),
        };
        if timeout(wait, core.own_changed.notified()).await.is_ok() {
            failures = 0;
            continue;
        }
        let asked = now();
        match core.pool.call(|client| async move { client.lease_client().keep_alive(own.lease).await }).await {
            Ok(_) => {
                if failures > 0 {
                    info!(node = %own.node, failures, "the lease is renewed again");
                }
                core.renew(own.lease, asked);
                backoff.reset();
                failures = 0;
            }
            Err(failed) => {
                failures += 1;
                if failed.is_no_such_lease() {
                    // The list tells whether it is so: an endpoint that has just started may not know the lease yet.
                    core.hint.notify_one();
                }
                debug!(node = %own.node, failures, error = %failed, "the lease was not renewed");
                if failures == core.pool.len() {
                    warn!(node = %own.node, error = %failed, "no endpoint of etcd renews the lease");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_from_the_question_and_ends_a_margin_before_its_term() {
        assert_eq!(valid_until(Timestamp(10_000), Millis(3_000)), Timestamp(12_500));
        assert_eq!(
            valid_until(Timestamp(10_000), Millis(100)),
            Timestamp(10_000),
            "a term within the margin never counts"
        );
    }
}
