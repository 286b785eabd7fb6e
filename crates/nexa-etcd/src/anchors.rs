//! Anchors of a cluster's log: a ring of the newest, and the hash of the very newest, by which the next one is let in.
//!
//! One transaction writes both keys, if who writes leads and the hash is that of the anchor before. So two leaders cannot both
//! write, and a write without an answer is found by reading again. A turn writes some hundred bytes; etcd keeps old revisions of them
//! until it is compacted, as it is by `--auto-compaction-retention=1h`.

use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp, TxnOpResponse};
use futures::future::BoxFuture;
use nexa_event::codec;
use nexa_event::root::Anchor;
use nexa_ports::audit::{AnchorError, Anchors};
use nexa_ports::membership::MembershipError;
use nexa_types::Epoch;
use tokio::time::Instant;

use crate::{ASK_WITHIN, Core, EtcdMembership};

/// Anchors that are kept: a minute of uninterrupted work.
pub const ANCHORS_MAX: u64 = 64;

/// The place of the hash of the newest, beside the ring.
const NEWEST: &str = "newest";

/// What an adapter's own errors are to who keeps anchors.
fn unavailable(error: MembershipError) -> AnchorError {
    AnchorError::Unavailable { detail: error.to_string() }
}

impl Core {
    async fn anchors(&self) -> Result<Result<Vec<Anchor>, AnchorError>, MembershipError> {
        let prefix = self.keys.anchors("");
        let found = self
            .pool
            .insist(Instant::now() + ASK_WITHIN, &self.dice, |client| {
                let prefix = prefix.clone();
                async move { client.kv_client().get(prefix, Some(GetOptions::new().with_prefix())).await }
            })
            .await?;
        let newest = self.keys.anchors(NEWEST);
        let ring = found.kvs().iter().filter(|kv| kv.key() != newest.as_bytes());
        let read: Result<Vec<Anchor>, _> = ring.map(|kv| codec::decode(kv.value())).collect();
        let damaged = |detail: String| AnchorError::Damaged { place: format!("etcd below {prefix}"), detail };
        Ok(match read {
            Ok(mut anchors) => {
                anchors.sort_by_key(|anchor| anchor.number);
                let told = found.kvs().iter().find(|kv| kv.key() == newest.as_bytes()).map(|kv| kv.value().to_vec());
                match told == anchors.last().map(|anchor| anchor.hash().to_vec()) {
                    true => Ok(anchors),
                    false => Err(damaged("the newest is missing".to_owned())),
                }
            }
            Err(error) => Err(damaged(error.to_string())),
        })
    }

    async fn keep_anchor(
        &self,
        anchor: Anchor,
        leader: Option<Epoch>,
    ) -> Result<Result<(), AnchorError>, MembershipError> {
        // Nobody leads: the key is not there.
        let leads = i64::try_from(leader.map_or(0, |epoch| epoch.0)).unwrap_or(i64::MAX);
        let (leading, newest) = (self.keys.leader(), self.keys.anchors(NEWEST));
        let follows = match anchor.number {
            1 => Compare::create_revision(newest.clone(), CompareOp::Equal, 0),
            _ => Compare::value(newest.clone(), CompareOp::Equal, anchor.before.to_vec()),
        };
        let slot = self.keys.anchors(&format!("{:02}", anchor.number % ANCHORS_MAX));
        let write = Txn::new()
            .when([Compare::create_revision(leading.clone(), CompareOp::Equal, leads), follows])
            .and_then([
                TxnOp::put(slot, codec::encode(&anchor), None),
                TxnOp::put(newest, anchor.hash().to_vec(), None),
            ])
            .or_else([TxnOp::get(leading, None)]);
        let answer = self.pool.call(|client| async move { client.kv_client().txn(write).await }).await?;
        if answer.succeeded() {
            return Ok(Ok(()));
        }
        let found = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(found) => Some(found),
            _ => None,
        });
        let now = found.and_then(|found| found.kvs().first().map(|kv| kv.create_revision())).unwrap_or(0);
        Ok(Err(if now == leads { AnchorError::Overtaken { number: anchor.number } } else { AnchorError::NotLeading }))
    }
}

impl Anchors for EtcdMembership {
    fn kept(&self) -> BoxFuture<'_, Result<Vec<Anchor>, AnchorError>> {
        let core = self.core.clone();
        Box::pin(async move { self.ask(async move { core.anchors().await }).await.map_err(unavailable)? })
    }

    fn keep(&self, anchor: Anchor, leader: Option<Epoch>) -> BoxFuture<'_, Result<(), AnchorError>> {
        let core = self.core.clone();
        Box::pin(
            async move { self.ask(async move { core.keep_anchor(anchor, leader).await }).await.map_err(unavailable)? },
        )
    }
}
