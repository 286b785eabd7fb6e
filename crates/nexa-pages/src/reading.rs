//! Reads a shard: an agent's pages, and what all of a tenant share.
//!
//! Three things are kept in memory, in one cache of a stated size: of agents that were asked about, their rows without the
//! bodies; of fragments, the keys of all rows; of shards, the rows that others than their agents may find. The first and the
//! last are looked at anew when the shard changed, and only what is new is read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::stream::{StreamExt, TryStreamExt};
use nexa_ports::pages::{Reach, Shard, StoredPage};
use nexa_types::{AgentId, PageId, Version};

use crate::claim::Claim;
use crate::compact::ranges;
use crate::counts::judge;
use crate::part::{Part, Place};
use crate::rows::{self, Found, Key};
use crate::search::Row;
use crate::seen::Seen;
use crate::shard::ShardStore;
use crate::storage::Stamp;
use crate::trouble::Trouble;

/// Fragments that one question reads at once.
const READS_AT_ONCE: usize = 8;

/// Where one row is, among the parts of a [`Seen`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) part: usize,
    pub(crate) fragment: u64,
    pub(crate) row: u32,
}

/// The keys of all rows of a fragment of a part.
type FragmentKeys = (Arc<Part>, u64, Arc<Vec<Key>>);

/// What is in the cache, by what it is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Of {
    Agent(AgentId),
    Keys(Arc<str>, u64),
    Shared(Shard),
}

/// What is in the cache.
#[derive(Clone)]
pub(crate) enum Held {
    Agent(Arc<AgentRows>),
    Keys(Arc<Vec<Key>>),
    Shared(Arc<SharedRows>),
}

/// The cache of a process.
pub(crate) type Memory = moka::sync::Cache<Of, Held>;

/// An agent's rows, as they were when they were in these places.
#[derive(Default)]
pub(crate) struct AgentRows {
    places: Vec<Place>,
    rows: Vec<Arc<Row>>,
    /// Up to where they were gone for good.
    gone_up_to: Option<Version>,
    /// Those that count, in the order of their messages.
    pub(crate) pages: Vec<Arc<Row>>,
}

/// Rows of a shard that others than their agents may find.
#[derive(Default)]
pub(crate) struct SharedRows {
    stamp: Stamp,
    pub(crate) pages: Vec<Arc<Row>>,
}

/// A cache of so many bytes.
pub(crate) fn memory(bytes_max: u64) -> Memory {
    let weigh = |_: &Of, held: &Held| u32::try_from(held.weight() >> 10).unwrap_or(u32::MAX).saturating_add(1);
    moka::sync::Cache::builder().max_capacity(bytes_max >> 10).weigher(weigh).build()
}

impl Held {
    fn weight(&self) -> usize {
        let rows = |rows: &[Arc<Row>]| rows.iter().map(|row| row.weight() + size_of::<Arc<Row>>()).sum::<usize>();
        match self {
            Self::Agent(of) => rows(&of.rows) + size_of_val(&*of.places) + size_of_val(&*of.pages),
            Self::Keys(keys) => size_of_val(keys.as_slice()),
            Self::Shared(of) => rows(&of.pages),
        }
    }
}

impl ShardStore {
    /// An agent's rows.
    pub(crate) async fn agent(&self, seen: &Seen, memory: &Memory, agent: AgentId) -> Result<Arc<AgentRows>, Trouble> {
        let (places, gone_up_to) = (seen.places_of(agent), seen.claim.gone_up_to(agent));
        let known = match memory.get(&Of::Agent(agent)) {
            Some(Held::Agent(known)) if known.places == places && known.gone_up_to == gone_up_to => return Ok(known),
            Some(Held::Agent(known)) if places.starts_with(&known.places) => known,
            _ => Arc::default(),
        };
        let new = futures::stream::iter(places[known.places.len()..].to_vec())
            .map(|place| async move {
                let part = seen.part(&place.part)?;
                let rows = place.rows.clone().collect();
                part_rows(part, place.fragment, rows).await
            })
            .buffered(READS_AT_ONCE)
            .try_concat()
            .await?;
        let claim = seen.claim.clone();
        let read = tokio::task::spawn_blocking(move || {
            let rows: Vec<Arc<Row>> = known.rows.iter().cloned().chain(new).collect();
            let counted = judge(&claim, &rows.iter().map(|row| &row.key).collect::<Vec<_>>());
            let mut pages: Vec<Arc<Row>> = counted.pages.into_iter().map(|at| Arc::clone(&rows[at])).collect();
            pages.sort_by_key(|row| (row.key.first, row.key.id));
            Arc::new(AgentRows { places, rows, gone_up_to, pages })
        });
        let read = read.await.map_err(|error| Trouble::Damaged(error.to_string()))?;
        if read.rows.iter().any(|row| row.key.agent != agent) {
            return Err(Trouble::Damaged(format!("among the rows of {agent} are another's")));
        }
        memory.insert(Of::Agent(agent), Held::Agent(Arc::clone(&read)));
        Ok(read)
    }

    /// Whole pages by where they are, in the order of the rows.
    pub(crate) async fn pages(&self, seen: &Seen, wanted: &[Arc<Row>]) -> Result<Vec<StoredPage>, Trouble> {
        let mut by_fragment = BTreeMap::<(Arc<str>, u64), Vec<(u32, usize)>>::new();
        for (at, row) in wanted.iter().enumerate() {
            let place = &row.place;
            by_fragment.entry((Arc::clone(&place.part), place.fragment)).or_default().push((place.rows.start, at));
        }
        let read: Vec<Vec<(usize, StoredPage)>> = futures::stream::iter(by_fragment)
            .map(|((part, fragment), mut rows)| async move {
                rows.sort_unstable();
                rows.dedup_by_key(|(row, _)| *row);
                let columns = [rows::KEY, rows::SEARCH, rows::REST];
                let batch = seen.part(&part)?.read(fragment, &columns, ranges(&rows).into_iter()).await?;
                let pages = tokio::task::spawn_blocking(move || rows::pages(&batch)).await;
                let pages =
                    pages.map_err(|error| error.to_string()).and_then(|pages| pages).map_err(Trouble::Damaged)?;
                let pages = pages.into_iter().map(|(_, page)| page);
                Ok::<_, Trouble>(rows.into_iter().map(|(_, at)| at).zip(pages).collect())
            })
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        let mut by_id: HashMap<PageId, StoredPage> =
            read.into_iter().flatten().map(|(_, page)| (page.id, page)).collect();
        let lost = || Trouble::Damaged("a page is not where its key is".to_owned());
        let mut pages: Vec<StoredPage> = Vec::with_capacity(wanted.len());
        for row in wanted {
            let before = || pages.iter().find(|page| page.id == row.key.id).cloned();
            pages.push(by_id.remove(&row.key.id).or_else(before).ok_or_else(lost)?);
        }
        Ok(pages)
    }

    /// The keys of all rows but those of agents all of whose pages are gone for good, in the order they were written.
    pub(crate) async fn keys(&self, seen: &Seen) -> Result<Vec<(Key, Spot)>, Trouble> {
        let mut all = Vec::new();
        for (at, part) in seen.parts.iter().enumerate() {
            for fragment in &part.fragments {
                let keys = fragment_keys(part, fragment.id, fragment.rows).await?;
                let spot = |row| Spot { part: at, fragment: fragment.id, row };
                let keys = keys.into_iter().zip(0..).map(|(key, row)| (key, spot(row)));
                all.extend(keys.filter(|(key, _)| !seen.claim.is_gone(key.agent, Version(u64::MAX))));
            }
        }
        Ok(all)
    }

    /// Rows that others than their agents may find.
    pub(crate) async fn shared(&self, seen: &Seen, memory: &Memory) -> Result<Arc<SharedRows>, Trouble> {
        let known = match memory.get(&Of::Shared(self.shard)) {
            Some(Held::Shared(known)) if known.stamp == seen.stamp => return Ok(known),
            Some(Held::Shared(known)) => known,
            _ => Arc::default(),
        };
        let mut fragments: Vec<FragmentKeys> = Vec::new();
        for part in &seen.parts {
            for fragment in &part.fragments {
                let of = Of::Keys(Arc::clone(&part.name), fragment.id);
                let keys = match memory.get(&of) {
                    Some(Held::Keys(keys)) => keys,
                    _ => {
                        let keys = Arc::new(fragment_keys(part, fragment.id, fragment.rows).await?);
                        memory.insert(of, Held::Keys(Arc::clone(&keys)));
                        keys
                    }
                };
                fragments.push((Arc::clone(part), fragment.id, keys));
            }
        }
        let claim = seen.claim.clone();
        let chosen = tokio::task::spawn_blocking(move || {
            let chosen = shared_rows(&fragments, &claim);
            (fragments, chosen)
        });
        let (fragments, chosen) = chosen.await.map_err(|error| Trouble::Damaged(error.to_string()))?;
        let by_place: HashMap<&Place, &Arc<Row>> = known.pages.iter().map(|row| (&row.place, row)).collect();
        let mut pages = Vec::new();
        for ((part, fragment, _), rows) in fragments.iter().zip(chosen) {
            let place = |row: u32| Place { part: Arc::clone(&part.name), fragment: *fragment, rows: row..row + 1 };
            let (old, new): (Vec<u32>, Vec<u32>) =
                rows.into_iter().partition(|row| by_place.contains_key(&place(*row)));
            pages.extend(old.into_iter().filter_map(|row| by_place.get(&place(row)).map(|row| Arc::clone(row))));
            if !new.is_empty() {
                pages.extend(part_rows(part, *fragment, new).await?);
            }
        }
        let shared = Arc::new(SharedRows { stamp: seen.stamp, pages });
        memory.insert(Of::Shared(self.shard), Held::Shared(Arc::clone(&shared)));
        Ok(shared)
    }
}

/// Of each fragment, the rows that count and that others than their agents may find.
fn shared_rows(fragments: &[FragmentKeys], claim: &Claim) -> Vec<Vec<u32>> {
    let all = fragments
        .iter()
        .enumerate()
        .flat_map(|(at, (_, _, keys))| keys.iter().zip(0_u32..).map(move |(key, row)| (key, (at, row))));
    let (keys, spots): (Vec<&Key>, Vec<(usize, u32)>) = all.unzip();
    let mut chosen = vec![Vec::new(); fragments.len()];
    let mut pages = judge(claim, &keys).pages;
    pages.retain(|at| keys[*at].reach >= Reach::Workload);
    for at in pages {
        let (fragment, row) = spots[at];
        chosen[fragment].push(row);
    }
    chosen
}

/// The keys of all rows of a fragment.
async fn fragment_keys(part: &Part, fragment: u64, rows: u32) -> Result<Vec<Key>, Trouble> {
    let batch = part.read(fragment, &[rows::KEY], std::iter::once(0..rows)).await?;
    let keys = tokio::task::spawn_blocking(move || rows::keys(&batch)).await;
    keys.map_err(|error| error.to_string()).and_then(|keys| keys).map_err(Trouble::Damaged)
}

/// Some rows of a fragment, sorted, as a search needs them.
async fn part_rows(part: &Arc<Part>, fragment: u64, rows: Vec<u32>) -> Result<Vec<Arc<Row>>, Trouble> {
    let wanted: Vec<(u32, ())> = rows.iter().map(|row| (*row, ())).collect();
    let batch = part.read(fragment, &[rows::KEY, rows::SEARCH], ranges(&wanted).into_iter()).await?;
    let name = Arc::clone(&part.name);
    let read = tokio::task::spawn_blocking(move || {
        let keys = rows::keys(&batch)?;
        let found: Vec<Found> = rows::found(&batch, &keys)?;
        let place = |row: u32| Place { part: Arc::clone(&name), fragment, rows: row..row + 1 };
        let made = keys.into_iter().zip(found).zip(&rows).map(|((key, found), row)| Row::new(key, found, place(*row)));
        Ok(made.map(Arc::new).collect())
    });
    let read = read.await.map_err(|error| error.to_string()).and_then(|read| read);
    read.map_err(Trouble::Damaged)
}
