//! One dataset at one version, with a directory of who is where in it.
//!
//! Every fragment is sorted by agent, so an agent's rows are one range of it, and a directory of ranges is all that must be
//! known to read them. Nothing is ever deleted within a dataset, and none is compacted in place: a shard is compacted by
//! writing another dataset. So the number of a row in its fragment never changes.

use std::collections::HashMap;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow_array::{FixedSizeBinaryArray, RecordBatch, UInt32Array};
use futures::future::FutureExt;
use futures::stream::{StreamExt, TryStreamExt};
use lance::Dataset;
use lance::dataset::builder::DatasetBuilder;
use lance::dataset::fragment::FragReadConfig;
use lance::dataset::{InsertBuilder, WriteMode, WriteParams};
use nexa_ports::pages::Shard;
use nexa_types::{AgentId, GlobalSeq};

use crate::claim::Sealed;
use crate::rows;
use crate::storage::Storage;
use crate::trouble::Trouble;

/// Rows that are decoded at once.
const READ_ROWS: u32 = 4_096;
/// Decoding steps of one read that run at once.
const READ_AHEAD: usize = 2;
/// What a transaction says of itself: the position that the shard is applied up to with it, and how many rows the dataset has
/// then, for a manifest has no checksum.
const STATE: &str = "nexa.state";
/// What a transaction says of the epoch it was made under; for who looks at a dataset by hand.
const EPOCH: &str = "nexa.epoch";

/// One dataset at one version.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) name: Arc<str>,
    pub(crate) version: u64,
    pub(crate) fragments: Vec<Arc<Fragment>>,
    dataset: Arc<Dataset>,
}

/// A directory of one fragment.
pub(crate) struct Fragment {
    pub(crate) id: u64,
    pub(crate) rows: u32,
    /// Each agent with its rows, sorted by agent.
    agents: Vec<(AgentId, Range<u32>)>,
}

/// Where rows are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) part: Arc<str>,
    pub(crate) fragment: u64,
    pub(crate) rows: Range<u32>,
}

impl Fragment {
    /// A directory of rows whose agents are these.
    fn of<'a>(id: u64, agents: impl Iterator<Item = &'a [u8]>) -> Result<Self, String> {
        let mut ranges: Vec<(AgentId, Range<u32>)> = Vec::new();
        let mut rows = 0;
        for agent in agents {
            let agent = AgentId::from_slice(agent).ok_or("an id has another length")?;
            match ranges.last_mut() {
                Some((last, range)) if *last == agent => range.end += 1,
                Some((last, _)) if *last > agent => return Err(format!("fragment {id} is not sorted by agent")),
                _ => ranges.push((agent, rows..rows + 1)),
            }
            rows += 1;
        }
        Ok(Self { id, rows, agents: ranges })
    }

    /// The rows of an agent.
    pub(crate) fn rows_of(&self, agent: AgentId) -> Option<Range<u32>> {
        let at = self.agents.binary_search_by_key(&agent, |(agent, _)| *agent).ok()?;
        self.agents.get(at).map(|(_, range)| range.clone())
    }
}

impl Part {
    /// Makes a dataset without rows.
    pub(crate) async fn create(storage: &Storage, shard: Shard, name: &str) -> Result<Self, Trouble> {
        let url = storage.part_url(shard, name);
        let params =
            WriteParams { mode: WriteMode::Create, session: Some(storage.session()), ..WriteParams::default() };
        let empty = vec![RecordBatch::new_empty(rows::schema())];
        let dataset =
            guarded(async { Ok(InsertBuilder::new(url.as_str()).with_params(&params).execute(empty).await?) }).await?;
        Ok(Self {
            name: name.into(),
            version: dataset.version().version,
            fragments: Vec::new(),
            dataset: Arc::new(dataset),
        })
    }

    /// Opens a dataset at a version, or the newest. What is known of an earlier version is used.
    pub(crate) async fn open(
        storage: &Storage,
        shard: Shard,
        name: &str,
        version: Option<u64>,
        known: Option<&Self>,
    ) -> Result<Self, Trouble> {
        let mut builder = DatasetBuilder::from_uri(storage.part_url(shard, name)).with_session(storage.session());
        if let Some(version) = version {
            builder = builder.with_version(version);
        }
        let dataset = guarded(async { Ok(builder.load().await?) }).await?;
        Self::of(name, dataset, known, None).await
    }

    /// A dataset, with the directories of those fragments that are not known yet. `new` is that of one which was just written.
    async fn of(name: &str, dataset: Dataset, known: Option<&Self>, new: Option<Fragment>) -> Result<Self, Trouble> {
        let mut part = Self {
            name: name.into(),
            version: dataset.version().version,
            fragments: Vec::new(),
            dataset: Arc::new(dataset),
        };
        let old: HashMap<u64, &Arc<Fragment>> =
            known.iter().flat_map(|part| &part.fragments).map(|fragment| (fragment.id, fragment)).collect();
        let mut new = new;
        let there: Vec<(u64, Option<usize>)> =
            part.dataset.fragments().iter().map(|fragment| (fragment.id, fragment.physical_rows)).collect();
        let unknown = there.iter().filter(|(id, _)| !old.contains_key(id)).count();
        for (id, rows) in there {
            let fragment = match (old.get(&id), new.take()) {
                (Some(known), untaken) => {
                    new = untaken;
                    Arc::clone(known)
                }
                (None, Some(written)) if unknown == 1 && rows == Some(written.rows as usize) => {
                    Arc::new(Fragment { id, ..written })
                }
                _ => Arc::new(part.directory(id).await?),
            };
            part.fragments.push(fragment);
        }
        Ok(part)
    }

    async fn directory(&self, fragment: u64) -> Result<Fragment, Trouble> {
        let rows = self.rows_in(fragment)?;
        let batch = self.read(fragment, &[rows::DIRECTORY], std::iter::once(0..rows)).await?;
        let agents: &FixedSizeBinaryArray = rows::column(&batch, "agent").map_err(Trouble::Damaged)?;
        let crcs: &UInt32Array = rows::column(&batch, "directory_crc").map_err(Trouble::Damaged)?;
        let crc = rows::directory_crc(agents.iter().flatten());
        if crcs.iter().any(|stored| stored != Some(crc)) {
            return Err(Trouble::Damaged(format!("the agents of fragment {fragment} have another checksum")));
        }
        Fragment::of(fragment, agents.iter().flatten()).map_err(Trouble::Damaged)
    }

    fn rows_in(&self, fragment: u64) -> Result<u32, Trouble> {
        let rows = self.dataset.fragments().iter().find(|of| of.id == fragment).and_then(|of| of.physical_rows);
        let damaged = || Trouble::Damaged(format!("fragment {fragment} does not say how many rows it has"));
        rows.and_then(|rows| u32::try_from(rows).ok()).ok_or_else(damaged)
    }

    /// Appends rows, sorted as [`rows::sort`] does, as one fragment; gives the part with it.
    pub(crate) async fn append(
        &self,
        storage: &Storage,
        batch: RecordBatch,
        applied: GlobalSeq,
        epoch: nexa_types::Epoch,
    ) -> Result<Self, Trouble> {
        let agents: &FixedSizeBinaryArray = rows::column(&batch, "agent").map_err(Trouble::Damaged)?;
        let written = Fragment::of(0, agents.iter().flatten()).map_err(Trouble::Damaged)?;
        let count = self.dataset.fragments().len();
        let state = state(&self.name, applied, self.rows() + written.rows as usize);
        let properties = [(STATE, state), (EPOCH, epoch.0.to_string())].map(|(name, value)| (name.to_owned(), value));
        let params = WriteParams {
            mode: WriteMode::Append,
            session: Some(storage.session()),
            transaction_properties: Some(Arc::new(HashMap::from(properties))),
            skip_auto_cleanup: true,
            ..WriteParams::default()
        };
        let destination = Arc::clone(&self.dataset);
        let dataset =
            guarded(async { Ok(InsertBuilder::new(destination).with_params(&params).execute(vec![batch]).await?) })
                .await?;
        if dataset.fragments().len() <= count || dataset.version().version <= self.version {
            return Err(Trouble::Damaged("a commit that was reported is not there".to_owned()));
        }
        Self::of(&self.name, dataset, Some(self), Some(written)).await
    }

    /// Up to where the shard was applied with the last commit; `None` if that one said nothing, as the first does.
    pub(crate) async fn applied(&self) -> Result<Option<GlobalSeq>, Trouble> {
        let transaction = guarded(async { Ok(self.dataset.read_transaction().await?) }).await?;
        let said = transaction.and_then(|transaction| transaction.transaction_properties.as_ref()?.get(STATE).cloned());
        let Some(said) = said else {
            return match self.fragments.is_empty() && self.version == 1 {
                true => Ok(None),
                false => {
                    Err(Trouble::Damaged(format!("version {} of {} says nothing of itself", self.version, self.name)))
                }
            };
        };
        let applied = said.split(' ').next().and_then(|applied| applied.parse().ok()).map(GlobalSeq);
        match applied.filter(|applied| state(&self.name, *applied, self.rows()) == said) {
            Some(applied) => Ok(Some(applied)),
            None => Err(Trouble::Damaged(format!("version {} of {} is not what it says", self.version, self.name))),
        }
    }

    /// This version, as a claim names it.
    pub(crate) fn sealed(&self) -> Sealed {
        Sealed { part: self.name.to_string(), version: self.version, rows: self.rows() as u64 }
    }

    /// All its rows.
    pub(crate) fn rows(&self) -> usize {
        self.fragments.iter().map(|fragment| fragment.rows as usize).sum()
    }

    /// Where an agent's rows are.
    pub(crate) fn places_of(&self, agent: AgentId) -> impl Iterator<Item = Place> + '_ {
        self.fragments.iter().filter_map(move |fragment| {
            let rows = fragment.rows_of(agent)?;
            Some(Place { part: Arc::clone(&self.name), fragment: fragment.id, rows })
        })
    }

    /// Some columns of some rows of a fragment; ranges are sorted and do not overlap.
    pub(crate) async fn read(
        &self,
        fragment: u64,
        columns: &[&[&str]],
        ranges: impl Iterator<Item = Range<u32>>,
    ) -> Result<RecordBatch, Trouble> {
        let ranges: Arc<[Range<u64>]> = ranges.map(|range| u64::from(range.start)..u64::from(range.end)).collect();
        let wanted: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let lost = || Trouble::Damaged(format!("{} has no fragment {fragment}", self.name));
        let batch = guarded(async {
            let file = self.dataset.get_fragment(usize::try_from(fragment).unwrap_or(usize::MAX)).ok_or_else(lost)?;
            let projection = self.dataset.schema().project(&columns.concat())?;
            let reader = file.open(&projection, FragReadConfig::default()).await?;
            let batches = reader.read_ranges(ranges, READ_ROWS).await?.buffered(READ_AHEAD);
            let batches: Vec<RecordBatch> = batches.try_collect().await?;
            let schema = Arc::new(arrow_schema::Schema::from(&projection));
            Ok(arrow_select::concat::concat_batches(&schema, &batches).map_err(lance::Error::from)?)
        })
        .await?;
        let read = batch.num_rows() as u64;
        let short = || Trouble::Damaged(format!("fragment {fragment} of {} gave {read} rows of {wanted}", self.name));
        if read == wanted { Ok(batch) } else { Err(short()) }
    }
}

/// What a transaction says of itself.
fn state(part: &str, applied: GlobalSeq, rows: usize) -> String {
    let said = format!("{applied} {rows}");
    let crc = crc32fast::hash(format!("{part} {said}").as_bytes());
    format!("{said} {crc:08x}")
}

/// Runs what calls into Lance. Of a file that is damaged badly enough, Lance panics.
async fn guarded<T>(work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    match AssertUnwindSafe(Box::pin(work)).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
            Err(Trouble::Damaged(format!("reading panicked: {}", said.unwrap_or_default())))
        }
    }
}
