//! Shared settings, written by comparing with the revision that was read.
//!
//! Each value begins with 16 random bytes that name the write. If a write has no answer, reading again tells: these bytes stand
//! there, so it was done; the expected revision stands there, so it was not, and is tried again; or something else does, and then
//! nobody can tell whether it was done and replaced since.

use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use nexa_ports::dice::Dice;
use nexa_ports::membership::{MembershipError, Setting};
use tokio::time::{Instant, sleep};

use crate::pool::{BACKOFF_MAX, Backoff};
use crate::{ASK_WITHIN, Core};

/// Bytes in front of a value that name its write.
const NAME_LEN: usize = 16;

/// A setting as it stands in etcd.
struct Stands {
    revision: u64,
    value: Vec<u8>,
}

impl Core {
    pub(crate) async fn setting(&self, name: &str) -> Result<Setting, MembershipError> {
        let found = self.stands(name, Instant::now() + ASK_WITHIN).await?;
        Ok(found.map(|found| (found.revision, found.value.get(NAME_LEN..).unwrap_or_default().to_vec())))
    }

    pub(crate) async fn put_setting(
        &self,
        name: &str,
        expected: u64,
        value: &[u8],
    ) -> Result<Option<u64>, MembershipError> {
        let deadline = Instant::now() + ASK_WITHIN;
        let Ok(compared) = i64::try_from(expected) else { return Ok(None) };
        let key = self.keys.setting(name);
        let write = self.dice.bytes();
        let bytes = [write.as_slice(), value].concat();
        let put = Txn::new()
            .when([Compare::mod_revision(key.clone(), CompareOp::Equal, compared)])
            .and_then([TxnOp::put(key, bytes, None)]);
        let mut backoff = Backoff::default();
        let mut is_unsure = false;
        loop {
            let attempt = put.clone();
            let failed = match self.pool.call(|client| async move { client.kv_client().txn(attempt).await }).await {
                Ok(answer) if answer.succeeded() => {
                    let revision = answer.header().map_or(0, |header| header.revision());
                    return Ok(Some(u64::try_from(revision).unwrap_or(0)));
                }
                Ok(_) if !is_unsure => return Ok(None),
                // An earlier attempt without an answer may be why it is refused now.
                Ok(_) => None,
                Err(failed) if failed.is_an_answer() => return Err(failed.into()),
                Err(failed) => Some(failed),
            };
            is_unsure = true;
            let stands = self.stands(name, deadline).await?;
            match stands {
                Some(stands) if stands.value.starts_with(&write) => return Ok(Some(stands.revision)),
                stands if stands.as_ref().map_or(0, |stands| stands.revision) == expected => {}
                _ => {
                    let detail = format!("the setting `{name}` has changed while a write of it had no answer");
                    return Err(MembershipError::Unavailable { detail });
                }
            }
            let wait = backoff.next(BACKOFF_MAX, &self.dice);
            if Instant::now() + wait >= deadline {
                let detail =
                    failed.map_or_else(|| "it refuses and accepts by turns".into(), |failed| failed.to_string());
                return Err(MembershipError::Unavailable { detail });
            }
            sleep(wait).await;
        }
    }

    async fn stands(&self, name: &str, deadline: Instant) -> Result<Option<Stands>, MembershipError> {
        let key = self.keys.setting(name);
        let found = self
            .pool
            .insist(deadline, &self.dice, |client| {
                let key = key.clone();
                async move { client.kv_client().get(key, None).await }
            })
            .await?;
        Ok(found
            .kvs()
            .first()
            .map(|kv| Stands { revision: u64::try_from(kv.mod_revision()).unwrap_or(0), value: kv.value().to_vec() }))
    }
}
