//! What a handle knows of a shard: a claim, and the parts that count by it.
//!
//! It is looked at anew before each use. Two listings of short folders tell whether anything was written since, whoever
//! wrote it; then only what is new is read.

use std::sync::{Arc, Mutex};

use nexa_ports::pages::Shard;
use nexa_types::{AgentId, GlobalSeq, Version};

use crate::claim::Claim;
use crate::part::{Part, Place};
use crate::storage::{Stamp, Storage};
use crate::trouble::Trouble;

/// How often a shard is read again that others compact meanwhile.
const LOADS_MAX: usize = 8;

/// A shard at one moment.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub(crate) stamp: Stamp,
    pub(crate) claim: Claim,
    /// Up to where the shard is applied.
    pub(crate) applied: GlobalSeq,
    /// What counts, oldest first; the last one is appended to.
    pub(crate) parts: Vec<Arc<Part>>,
}

impl Seen {
    /// Where an agent's rows are, in the order they were written; nowhere, if all of its pages are gone for good.
    pub(crate) fn places_of(&self, agent: AgentId) -> Vec<Place> {
        if self.claim.is_gone(agent, Version(u64::MAX)) {
            return Vec::new();
        }
        self.parts.iter().flat_map(|part| part.places_of(agent)).collect()
    }

    /// A part by name.
    pub(crate) fn part(&self, name: &str) -> Result<&Arc<Part>, Trouble> {
        let part = self.parts.iter().find(|part| &*part.name == name);
        part.ok_or_else(|| Trouble::Lost(format!("the part {name} does not count any more")))
    }

    /// All rows of all parts.
    pub(crate) fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows()).sum()
    }
}

/// A shard as one handle sees it.
pub(crate) struct View {
    storage: Arc<Storage>,
    shard: Shard,
    seen: Mutex<Arc<Seen>>,
    /// Held while it is read, so that it is read once.
    loading: tokio::sync::Mutex<()>,
}

impl View {
    pub(crate) fn new(storage: Arc<Storage>, shard: Shard) -> Self {
        Self { storage, shard, seen: Mutex::default(), loading: tokio::sync::Mutex::default() }
    }

    fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen.lock().expect("no holder of this lock can panic"))
    }

    /// What was just written by this handle, and is therefore known.
    pub(crate) fn set(&self, seen: Seen) {
        *self.seen.lock().expect("no holder of this lock can panic") = Arc::new(seen);
    }

    /// The shard as it is now.
    pub(crate) async fn now(&self) -> Result<Arc<Seen>, Trouble> {
        let seen = self.seen();
        if self.is_new(&seen).await? {
            return Ok(seen);
        }
        let _one = self.loading.lock().await;
        let seen = self.seen();
        if self.is_new(&seen).await? {
            return Ok(seen);
        }
        self.load(&seen).await
    }

    /// Whether nothing was written since.
    pub(crate) async fn is_new(&self, seen: &Seen) -> Result<bool, Trouble> {
        let open = (seen.claim.number > 0).then_some(seen.claim.open.as_str());
        Ok(self.storage.stamp(self.shard, open).await? == seen.stamp)
    }

    /// Reads the newest claim, without the parts; the empty one if there is none.
    pub(crate) async fn newest_claim(&self) -> Result<Claim, Trouble> {
        for _ in 0..LOADS_MAX {
            let number = self.storage.stamp(self.shard, None).await?.claim;
            if number == 0 {
                return Ok(Claim::default());
            }
            // It may be gone again because there are newer ones.
            if let Some(bytes) = self.storage.claim(self.shard, number).await? {
                return Claim::decode(&bytes, number).map_err(Trouble::Damaged);
            }
        }
        Err(Trouble::Lost("the newest claim is not there".to_owned()))
    }

    async fn load(&self, before: &Seen) -> Result<Arc<Seen>, Trouble> {
        let mut trouble = Trouble::Lost("the shard changes faster than it is read".to_owned());
        for _ in 0..LOADS_MAX {
            let claim = self.newest_claim().await?;
            match self.load_parts(claim, before).await {
                Ok(seen) => {
                    self.set(seen);
                    return Ok(self.seen());
                }
                Err((claim, other)) => {
                    trouble = other;
                    let is_same = self.storage.stamp(self.shard, None).await?.claim == claim;
                    if is_same || matches!(trouble, Trouble::Unreachable(_)) {
                        break;
                    }
                }
            }
        }
        Err(trouble)
    }

    async fn load_parts(&self, claim: Claim, before: &Seen) -> Result<Seen, (u64, Trouble)> {
        let number = claim.number;
        if number == 0 {
            return Ok(Seen::default());
        }
        let named = |trouble| (number, trouble);
        let known = |name: &str| before.parts.iter().find(|part| &*part.name == name);
        let mut parts = Vec::with_capacity(claim.sealed.len() + 1);
        for sealed in &claim.sealed {
            let known = known(&sealed.part);
            parts.push(match known.filter(|part| part.version == sealed.version) {
                Some(part) => Arc::clone(part),
                None => {
                    let known = known.map(|part| &**part);
                    let part = Part::open(&self.storage, self.shard, &sealed.part, Some(sealed.version), known);
                    let part = part.await.map_err(named)?;
                    if part.rows() as u64 != sealed.rows {
                        let what = format!("{} has {} rows instead of {}", sealed.part, part.rows(), sealed.rows);
                        return Err(named(Trouble::Damaged(what)));
                    }
                    Arc::new(part)
                }
            });
        }
        let open =
            Part::open(&self.storage, self.shard, &claim.open, None, known(&claim.open).map(|part| &**part)).await;
        let open = open.map_err(named)?;
        let applied = open.applied().await.map_err(named)?.unwrap_or_default().max(claim.applied);
        let stamp = Stamp { claim: number, version: open.version };
        parts.push(Arc::new(open));
        Ok(Seen { stamp, claim, applied, parts })
    }
}
