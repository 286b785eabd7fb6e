//! The writer of one shard: takes it over, appends, deletes. Everything here runs under one lock a shard.
//!
//! A commit whose outcome is not known ends the right to write: whoever wants to go on takes the shard over again, under the
//! same epoch, and reads what is there. That writes a claim of its own, so that the commit, should it still be on its way to a
//! store far away, comes too late for anybody to read it.

use std::collections::BTreeSet;
use std::sync::Arc;

use nexa_ports::pages::{PageBatch, PagesError, Shard, StoredPage};
use nexa_types::{AgentId, Epoch, GlobalSeq, TenantId, Version};
use tracing::warn;

use crate::Settings;
use crate::claim::{Claim, Retired, Sealed};
use crate::counts::judge;
use crate::part::Part;
use crate::rows;
use crate::seen::{Seen, View};
use crate::storage::{Storage, now_ms};
use crate::trouble::Trouble;

/// How often a take-over begins again because another was faster.
const TAKES_MAX: usize = 8;
/// Fragments of the part that is appended to; with so many the shard is compacted.
const FRAGMENTS_MAX: usize = 64;
/// Parts of a shard, as each take-over leaves one; with so many it is compacted as well.
const PARTS_MAX: usize = 32;
/// Claims that are kept: readers may be about to read one that was the newest just now.
const CLAIMS_KEPT: usize = 4;

/// One shard.
pub(crate) struct ShardStore {
    pub(crate) shard: Shard,
    pub(crate) storage: Arc<Storage>,
    pub(crate) settings: Settings,
    pub(crate) view: View,
    /// Held by whoever writes.
    mine: tokio::sync::Mutex<Mine>,
}

/// What a handle has of a shard.
#[derive(Debug, Clone, Copy, Default)]
struct Mine {
    /// Under which epoch this handle took the shard over, 0 if it did not.
    epoch: Epoch,
    /// Whether something that it wrote may still come.
    doubts: bool,
}

impl Mine {
    fn under(epoch: Epoch) -> Self {
        Self { epoch, doubts: false }
    }

    /// The right to write ends, until the shard is taken over again.
    fn end(&mut self, doubts: bool) {
        *self = Self { epoch: Epoch(0), doubts: self.doubts || doubts };
    }
}

/// The right to write a shard, for the time of one operation.
pub(crate) struct Writing<'a> {
    pub(crate) store: &'a ShardStore,
    pub(crate) seen: Arc<Seen>,
    mine: tokio::sync::MutexGuard<'a, Mine>,
}

impl ShardStore {
    pub(crate) fn new(storage: Arc<Storage>, shard: Shard, settings: Settings) -> Self {
        let view = View::new(Arc::clone(&storage), shard);
        Self { shard, storage, settings, view, mine: tokio::sync::Mutex::default() }
    }

    /// Makes this handle the writer.
    pub(crate) async fn take_over(&self, epoch: Epoch) -> Result<GlobalSeq, PagesError> {
        let mut mine = self.mine.lock().await;
        for _ in 0..TAKES_MAX {
            let seen = self.view.now().await.map_err(|trouble| trouble.of(self.shard))?;
            let current = seen.claim.epoch;
            if epoch < current || epoch == Epoch(0) {
                return Err(PagesError::Fenced { given: epoch, current });
            }
            mine.end(false);
            if epoch == current && !mine.doubts {
                *mine = Mine::under(epoch);
                return Ok(seen.applied);
            }
            let empty = seen.parts.last().filter(|open| open.rows() == 0).map(|open| open.name.to_string());
            let retired = self.retired(&seen.claim.retired, empty.into_iter());
            let (sealed, open) = (sealed(&seen), String::new());
            let next = Claim { epoch, applied: seen.applied, sealed, open, retired, ..seen.claim.clone() };
            let claimed = self.claim(&seen, next).await;
            // Also this one may still come, and is then taken over from as well.
            mine.doubts |= claimed.is_err();
            if let Some(seen) = claimed? {
                *mine = Mine::under(epoch);
                return Ok(seen.applied);
            }
        }
        Err(PagesError::Unavailable("others take the shard over at the same time, again and again".to_owned()))
    }

    /// Forgets all pages of the shard, whatever state it is in, so that it is written again from the log. That agents were
    /// deleted is kept for as long as any claim can be read.
    pub(crate) async fn drop_pages(&self, epoch: Epoch) -> Result<(), PagesError> {
        let mut mine = self.mine.lock().await;
        let of = |trouble: Trouble| trouble.of(self.shard);
        let numbers = self.storage.claims(self.shard).await.map_err(of)?;
        let mut last = None;
        for number in &numbers {
            let bytes = self.storage.claim(self.shard, *number).await.map_err(of)?.unwrap_or_default();
            match Claim::decode(&bytes, *number) {
                Ok(claim) => {
                    last = Some(claim);
                    break;
                }
                Err(what) => warn!(shard = self.shard.0, number, what, "a claim cannot be read"),
            }
        }
        let last = last.unwrap_or_default();
        if epoch < last.epoch || epoch == Epoch(0) {
            return Err(PagesError::Fenced { given: epoch, current: last.epoch });
        }
        let number = numbers.first().copied().unwrap_or_default();
        let mut retired = last.retired;
        retired.extend(last.sealed.into_iter().map(|sealed| Retired { part: sealed.part, at_ms: now_ms() }));
        let next = Claim {
            epoch,
            applied: GlobalSeq(0),
            sealed: vec![],
            open: String::new(),
            gone: last.gone,
            gone_up_to: last.gone_up_to,
            retired,
            number,
        };
        mine.end(true);
        let empty = Seen { claim: Claim { number, ..Claim::default() }, ..Seen::default() };
        match self.claim(&empty, next).await? {
            Some(_) => *mine = Mine::under(epoch),
            None => return Err(PagesError::Unknown("another took the shard over".to_owned())),
        }
        Ok(())
    }

    /// The right to write under an epoch.
    pub(crate) async fn writing(&self, epoch: Epoch) -> Result<Writing<'_>, PagesError> {
        let mine = self.mine.lock().await;
        let seen = self.view.now().await.map_err(|trouble| trouble.of(self.shard))?;
        let current = seen.claim.epoch;
        if epoch == Epoch(0) || current != epoch || mine.epoch != epoch {
            return Err(PagesError::Fenced { given: epoch, current });
        }
        Ok(Writing { store: self, seen, mine })
    }

    /// Puts a claim into force, with a new part to append to if it names none. `None` if another took its number, and then
    /// nothing changed.
    pub(crate) async fn claim(&self, seen: &Seen, next: Claim) -> Result<Option<Arc<Seen>>, PagesError> {
        let number = seen.claim.number + 1;
        let mut next = Claim { number, ..next };
        let is_new = next.open.is_empty();
        if is_new {
            next.open = Claim::part_name(number, next.epoch);
            let made = Part::create(&self.storage, self.shard, &next.open).await;
            made.map_err(|trouble| PagesError::Unavailable(trouble.to_string()))?;
        }
        let put = self.storage.put_claim(self.shard, number, next.encode()).await;
        if !put.map_err(|trouble| PagesError::Unknown(trouble.to_string()))? {
            if is_new && let Err(trouble) = self.storage.remove_part(self.shard, &next.open).await {
                warn!(shard = self.shard.0, %trouble, "a part that nobody knows is still there");
            }
            return Ok(None);
        }
        // From here on it holds. What else goes wrong is found out when it is read.
        let seen = self.view.now().await.map_err(|trouble| PagesError::Unknown(trouble.to_string()))?;
        self.sweep(&seen.claim).await;
        Ok(Some(seen))
    }

    /// Removes parts that nobody reads any more, and old claims.
    async fn sweep(&self, claim: &Claim) {
        let swept = async {
            for part in self.storage.parts(self.shard).await? {
                // One of a later number may be about to count.
                let is_past = Claim::number_in(&part).is_some_and(|number| number <= claim.number);
                if is_past && !claim.knows(&part) {
                    self.storage.remove_part(self.shard, &part).await?;
                }
            }
            for number in self.storage.claims(self.shard).await?.into_iter().skip(CLAIMS_KEPT) {
                self.storage.remove_claim(self.shard, number).await?;
            }
            Ok::<_, Trouble>(())
        };
        if let Err(trouble) = swept.await {
            warn!(shard = self.shard.0, %trouble, "what nobody reads any more is still there");
        }
    }

    /// What retires now, with what retired before and may still be read.
    pub(crate) fn retired(&self, before: &[Retired], now: impl Iterator<Item = String>) -> Vec<Retired> {
        let at_ms = now_ms();
        let kept_ms = u64::try_from(self.settings.retired_kept.as_millis()).unwrap_or(u64::MAX);
        let young = before.iter().filter(|retired| at_ms.saturating_sub(retired.at_ms) < kept_ms).cloned();
        let now = now.map(|part| Retired { part, at_ms }).filter(|_| kept_ms > 0);
        young.chain(now).collect()
    }
}

/// What counts by a claim if nobody appends to its open part any more.
pub(crate) fn sealed(seen: &Seen) -> Vec<Sealed> {
    let open = seen.parts.last().filter(|open| open.rows() > 0);
    let open = open.map(|open| open.sealed());
    seen.claim.sealed.iter().cloned().chain(open).collect()
}

impl Writing<'_> {
    /// Adds a batch that was checked.
    pub(crate) async fn append(&mut self, batch: PageBatch) -> Result<(), PagesError> {
        let applied = self.seen.applied.max(batch.applied);
        let epoch = batch.epoch;
        let claim = &self.seen.claim;
        // Of what is gone, only that it supersedes something is kept.
        let pages = batch.pages.into_iter().filter_map(|page| match claim.is_gone(page.agent, page.first) {
            true => page.supersedes.map(|_| page.hollow()),
            false => Some(page),
        });
        let rows: Vec<(Epoch, StoredPage)> = pages.map(|page| (epoch, page)).collect();
        if rows.is_empty() {
            if applied == self.seen.applied {
                return Ok(());
            }
            return self.claim(Claim { applied, ..self.seen.claim.clone() }).await;
        }
        let encoded = tokio::task::spawn_blocking(move || {
            let mut rows = rows;
            rows::sort(&mut rows);
            rows::encode(&rows)
        });
        let encoded = encoded.await.map_err(|error| error.to_string()).and_then(|encoded| encoded);
        let encoded = encoded.map_err(PagesError::Unavailable)?;
        let open = self.open()?;
        let part = match open.append(&self.store.storage, encoded, applied, epoch).await {
            Ok(part) => part,
            Err(trouble) => return Err(self.unknown(trouble.to_string())),
        };
        let mut seen = (*self.seen).clone();
        seen.stamp.version = part.version;
        seen.applied = applied;
        seen.parts.pop();
        seen.parts.push(Arc::new(part));
        // Whoever took the shard over meanwhile may or may not have seen this commit.
        let newest = match self.store.storage.stamp(self.store.shard, None).await {
            Ok(stamp) if stamp.claim == seen.claim.number => Ok(self.seen.claim.clone()),
            Ok(_) => self.store.view.newest_claim().await,
            Err(trouble) => Err(trouble),
        };
        match newest {
            Ok(newest) if newest.number == seen.claim.number => {}
            Ok(newest) if newest.epoch > epoch => {
                self.mine.end(false);
                return Err(PagesError::Fenced { given: epoch, current: newest.epoch });
            }
            Ok(_) => return Err(self.unknown("another wrote under the same epoch".to_owned())),
            Err(trouble) => return Err(self.unknown(trouble.to_string())),
        }
        let is_long = seen.parts.last().is_some_and(|open| open.fragments.len() >= FRAGMENTS_MAX);
        let is_due = is_long || seen.parts.len() >= PARTS_MAX;
        self.store.view.set(seen.clone());
        self.seen = Arc::new(seen);
        if is_due && let Err(error) = self.compact().await {
            warn!(shard = self.store.shard.0, %error, "what was appended is stored, and was not compacted");
        }
        Ok(())
    }

    /// Deletes an agent's pages up to those that begin at a message.
    pub(crate) async fn delete_agent(
        &mut self,
        tenant: &TenantId,
        agent: AgentId,
        up_to: Version,
    ) -> Result<usize, PagesError> {
        if self.seen.claim.is_gone(agent, up_to) {
            return Ok(0);
        }
        let mut keys = Vec::new();
        for place in self.seen.places_of(agent) {
            let part = self.seen.part(&place.part).map_err(|trouble| trouble.of(self.store.shard))?;
            let batch = part.read(place.fragment, &[rows::KEY], std::iter::once(place.rows.clone())).await;
            let batch = batch.and_then(|batch| rows::keys(&batch).map_err(Trouble::Damaged));
            keys.extend(batch.map_err(|trouble| trouble.of(self.store.shard))?);
        }
        if keys.iter().any(|key| key.tenant != *tenant) {
            return Ok(0);
        }
        let pages = judge(&self.seen.claim, &keys.iter().collect::<Vec<_>>()).pages;
        let count = pages.into_iter().filter(|at| keys[*at].first <= up_to).count();
        let mut next = self.next();
        next.delete_up_to(agent, up_to);
        self.claim(next).await?;
        Ok(count)
    }

    /// Deletes a tenant's pages.
    pub(crate) async fn delete_tenant(&mut self, tenant: &TenantId) -> Result<usize, PagesError> {
        let keys = self.store.keys(&self.seen).await.map_err(|trouble| trouble.of(self.store.shard))?;
        let keys: Vec<_> = keys.iter().map(|(key, _)| key).collect();
        let pages = judge(&self.seen.claim, &keys).pages;
        let count = pages.into_iter().filter(|at| keys[*at].tenant == *tenant).count();
        let agents: BTreeSet<AgentId> = keys.iter().filter(|key| key.tenant == *tenant).map(|key| key.agent).collect();
        if !agents.is_empty() {
            let mut next = self.next();
            next.gone.extend(agents);
            next.gone.sort_unstable();
            next.gone.dedup();
            self.claim(next).await?;
        }
        Ok(count)
    }

    /// A claim that says what the one in force does.
    fn next(&self) -> Claim {
        let retired = self.store.retired(&self.seen.claim.retired, std::iter::empty());
        Claim { applied: self.seen.applied, retired, ..self.seen.claim.clone() }
    }

    /// Puts a claim into force.
    pub(crate) async fn claim(&mut self, next: Claim) -> Result<(), PagesError> {
        match self.store.claim(&self.seen, next).await {
            Ok(Some(seen)) => self.seen = seen,
            Ok(None) => {
                let newest = self.store.view.newest_claim().await.map_err(|trouble| trouble.of(self.store.shard))?;
                let given = self.mine.epoch;
                if newest.epoch > given {
                    return Err(PagesError::Fenced { given, current: newest.epoch });
                }
                return Err(self.unknown("another wrote under the same epoch".to_owned()));
            }
            Err(error) => {
                self.mine.end(true);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The part that is appended to.
    fn open(&self) -> Result<Arc<Part>, PagesError> {
        let open = self.seen.parts.last().cloned();
        open.ok_or_else(|| PagesError::Unavailable("the shard was never taken over".to_owned()))
    }

    /// Ends the right to write, since it is not known what was written.
    pub(crate) fn unknown(&mut self, what: String) -> PagesError {
        self.mine.end(true);
        PagesError::Unknown(what)
    }
}
