//! Makes few large parts of many small ones, without what nobody can read any more (PG-7).
//!
//! A part is written again if it holds a row that does not count, or is small beside what is written anyway: so a row is
//! moved a logarithm of times, as in any log-structured merge. The new part is complete before a claim names it, and the old
//! ones stay for a while for those who still read them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use nexa_ports::pages::{Compacted, PageKind, PagesError, StoredPage};
use nexa_types::Epoch;

use crate::claim::Claim;
use crate::counts::judge;
use crate::part::Part;
use crate::reading::Spot;
use crate::rows::{self, Key};
use crate::seen::Seen;
use crate::shard::{Writing, sealed};
use crate::trouble::Trouble;

/// A part joins what is written again unless it is more than so many times as large.
const TIER: usize = 4;
/// Rows that are in memory at once, and in one fragment.
const GROUP_ROWS: usize = 4_096;
/// What they hold, in bytes.
const GROUP_BYTES: usize = 32 << 20;

/// A row that stays.
struct Kept {
    key: Key,
    spot: Spot,
    is_hollow: bool,
}

impl Writing<'_> {
    /// Compacts the shard.
    pub(crate) async fn compact(&mut self) -> Result<Compacted, PagesError> {
        let shard = self.store.shard;
        let of = |trouble: Trouble| trouble.of(shard);
        let seen = Arc::clone(&self.seen);
        let rows_before = seen.rows();
        let keys = self.store.keys(&seen).await.map_err(of)?;
        let claim = seen.claim.clone();
        let kept = tokio::task::spawn_blocking(move || kept(&claim, keys)).await;
        let mut kept = kept.map_err(|error| PagesError::Unavailable(error.to_string()))?;
        let merged = merged(&seen, &kept);
        if merged.is_empty() {
            return Ok(Compacted { rows_before, rows_after: rows_before });
        }
        kept.retain(|row| merged.contains(&row.spot.part));
        let part = self.write(&seen, kept).await.map_err(|trouble| match trouble {
            // It was read or written for the first time: nothing that counts was touched.
            Trouble::Lost(what) | Trouble::Damaged(what) => PagesError::Damaged { shard, what },
            Trouble::Unreachable(what) => PagesError::Unavailable(what),
        })?;
        let names: HashSet<&str> = merged.iter().map(|part| &*seen.parts[*part].name).collect();
        let mut sealed = sealed(&seen);
        sealed.retain(|sealed| !names.contains(sealed.part.as_str()));
        sealed.extend(part.map(|part| part.sealed()));
        // The part that was appended to does not count any more as such, whether it had rows or none.
        let open = seen.parts.last().map(|open| open.name.to_string());
        let old: HashSet<String> = names.into_iter().map(ToOwned::to_owned).chain(open).collect();
        let old = old.into_iter().filter(|name| sealed.iter().all(|sealed| sealed.part != *name));
        let retired = self.store.retired(&seen.claim.retired, old);
        let next = Claim { applied: seen.applied, sealed, open: String::new(), retired, ..seen.claim.clone() };
        self.claim(next).await?;
        Ok(Compacted { rows_before, rows_after: self.seen.rows() })
    }

    /// Writes rows as a part of their own; `None` if there are none.
    async fn write(&self, seen: &Seen, kept: Vec<Kept>) -> Result<Option<Part>, Trouble> {
        if kept.is_empty() {
            return Ok(None);
        }
        let name = Claim::part_name(seen.claim.number + 1, seen.claim.epoch);
        let mut part = Part::create(&self.store.storage, self.store.shard, &name).await?;
        let (mut rest, count) = (kept.as_slice(), kept.len());
        while !rest.is_empty() {
            let mut bytes = 0;
            let in_group = rest.iter().take(GROUP_ROWS).take_while(|row| {
                let fits = bytes == 0 || bytes + row.key.bytes as usize <= GROUP_BYTES;
                bytes += row.key.bytes as usize;
                fits
            });
            let (group, next) = rest.split_at(in_group.count().max(1));
            let rows = read(seen, group).await?;
            let encoded = tokio::task::spawn_blocking(move || rows::encode(&rows)).await;
            let encoded = encoded.map_err(|error| error.to_string()).and_then(|encoded| encoded);
            let encoded = encoded.map_err(Trouble::Damaged)?;
            part = part.append(&self.store.storage, encoded, seen.applied, seen.claim.epoch).await?;
            rest = next;
        }
        if part.rows() != count {
            return Err(Trouble::Damaged(format!("{} rows were written of {count}", part.rows())));
        }
        Ok(Some(part))
    }
}

/// The rows that stay, in the order of a part.
fn kept(claim: &Claim, keys: Vec<(Key, Spot)>) -> Vec<Kept> {
    let counted = judge(claim, &keys.iter().map(|(key, _)| key).collect::<Vec<_>>());
    let hollow: HashSet<usize> = counted.hollow.into_iter().collect();
    let pages: HashSet<usize> = counted.pages.into_iter().collect();
    let mut kept: Vec<Kept> = keys
        .into_iter()
        .enumerate()
        .filter(|(at, _)| hollow.contains(at) || pages.contains(at))
        .map(|(at, (key, spot))| Kept { key, spot, is_hollow: hollow.contains(&at) })
        .collect();
    kept.sort_by_key(|row| (row.key.agent, row.key.first));
    kept
}

/// The parts that are written again.
fn merged(seen: &Seen, kept: &[Kept]) -> HashSet<usize> {
    let mut staying = vec![0; seen.parts.len()];
    let mut merged = HashSet::new();
    for row in kept {
        staying[row.spot.part] += 1;
        // Its content does not count any more, and only that it supersedes something does.
        if row.is_hollow && row.key.kind != PageKind::Tombstone {
            merged.insert(row.spot.part);
        }
    }
    let open = seen.parts.len().saturating_sub(1);
    for (at, part) in seen.parts.iter().enumerate() {
        if part.rows() > staying[at] || (at == open && part.rows() > 0) {
            merged.insert(at);
        }
    }
    let mut rows: usize = merged.iter().map(|at| seen.parts[*at].rows()).sum();
    for (at, part) in seen.parts.iter().enumerate().rev() {
        if part.rows() > 0 && !merged.contains(&at) && part.rows() <= TIER * rows {
            rows += part.rows();
            merged.insert(at);
        }
    }
    merged
}

/// Reads rows whole, in their order.
async fn read(seen: &Seen, group: &[Kept]) -> Result<Vec<(Epoch, StoredPage)>, Trouble> {
    let mut wanted: BTreeMap<(usize, u64), Vec<(u32, usize)>> = BTreeMap::new();
    for (at, row) in group.iter().enumerate() {
        wanted.entry((row.spot.part, row.spot.fragment)).or_default().push((row.spot.row, at));
    }
    let mut read: HashMap<usize, (Epoch, StoredPage)> = HashMap::with_capacity(group.len());
    for ((part, fragment), mut rows) in wanted {
        rows.sort_unstable();
        let batch =
            seen.parts[part].read(fragment, &[rows::KEY, rows::SEARCH, rows::REST], ranges(&rows).into_iter()).await?;
        let pages = tokio::task::spawn_blocking(move || rows::pages(&batch)).await;
        let pages = pages.map_err(|error| error.to_string()).and_then(|pages| pages).map_err(Trouble::Damaged)?;
        read.extend(rows.into_iter().map(|(_, at)| at).zip(pages));
    }
    let row = |(at, kept): (usize, &Kept)| {
        let (epoch, page) = read.remove(&at).filter(|(_, page)| page.id == kept.key.id)?;
        Some((epoch, if kept.is_hollow { page.hollow() } else { page }))
    };
    let rows: Option<Vec<_>> = group.iter().enumerate().map(row).collect();
    rows.ok_or_else(|| Trouble::Damaged("rows are not where they were".to_owned()))
}

/// Rows as ranges; sorted, each once.
pub(crate) fn ranges<T>(rows: &[(u32, T)]) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for (row, _) in rows {
        match ranges.last_mut() {
            Some(range) if range.end == *row => range.end += 1,
            _ => ranges.push(*row..row + 1),
        }
    }
    ranges
}
