//! Pages as rows of a dataset, and back with every checksum looked at.
//!
//! The columns of a row are in three groups, each with a checksum that begins with the page's id, so that each can be read
//! without the others: the *key* says whether the page counts and who may find it, the *search* part is what finds it, and
//! the *rest* is what is read then. One more checksum covers the agents of all rows of a fragment, for the directory by
//! which rows are found at all.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, FixedSizeBinaryBuilder, StringBuilder};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, Float32Array, RecordBatch, StringArray,
    UInt8Array, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema};
use nexa_ports::embedder::UnitVector;
use nexa_ports::pages::{PageKind, PageVector, Reach, StoredPage};
use nexa_types::{AgentId, Epoch, PageId, TenantId, Timestamp, Version, WorkloadId};

/// What says whether a page counts and who may find it.
pub(crate) const KEY: &[&str] = &[
    "page_id",
    "agent",
    "tenant",
    "workload",
    "epoch",
    "seq_first",
    "kind",
    "reach",
    "supersedes",
    "has_vector",
    "bytes",
    "key_crc",
];
/// What finds it.
pub(crate) const SEARCH: &[&str] = &["text", "embed_model", "embedding", "search_crc"];
/// What is read then.
pub(crate) const REST: &[&str] =
    &["seq_last", "first_ts", "last_ts", "n_msgs", "n_tokens", "importance", "body", "msg_vecs", "rest_crc"];
/// What the directory of a fragment is made of.
pub(crate) const DIRECTORY: &[&str] = &["agent", "directory_crc"];

const ID_BYTES: i32 = 16;

/// The columns of every dataset here.
pub(crate) fn schema() -> Arc<Schema> {
    let id = || DataType::FixedSizeBinary(ID_BYTES);
    let column = |name: &str, of: DataType| Field::new(name, of, false);
    Arc::new(Schema::new(vec![
        column("page_id", id()),
        column("agent", id()),
        column("tenant", DataType::Utf8),
        column("workload", id()),
        column("epoch", DataType::UInt64),
        column("seq_first", DataType::UInt64),
        column("kind", DataType::UInt8),
        column("reach", DataType::UInt8),
        Field::new("supersedes", DataType::Binary, true),
        column("has_vector", DataType::Boolean),
        column("bytes", DataType::UInt32),
        column("key_crc", DataType::UInt32),
        column("text", DataType::Utf8),
        Field::new("embed_model", DataType::Utf8, true),
        Field::new("embedding", DataType::Binary, true),
        column("search_crc", DataType::UInt32),
        column("seq_last", DataType::UInt64),
        column("first_ts", DataType::UInt64),
        column("last_ts", DataType::UInt64),
        column("n_msgs", DataType::UInt32),
        column("n_tokens", DataType::UInt32),
        column("importance", DataType::Float32),
        column("body", DataType::Binary),
        column("msg_vecs", DataType::Binary),
        column("rest_crc", DataType::UInt32),
        column("directory_crc", DataType::UInt32),
    ]))
}

/// What says whether a page counts and who may find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) id: PageId,
    pub(crate) agent: AgentId,
    pub(crate) tenant: TenantId,
    pub(crate) workload: WorkloadId,
    pub(crate) epoch: Epoch,
    pub(crate) first: Version,
    pub(crate) kind: PageKind,
    pub(crate) reach: Reach,
    pub(crate) supersedes: Option<PageId>,
    pub(crate) has_vector: bool,
    pub(crate) bytes: u32,
}

/// What finds a page.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) text: String,
    pub(crate) vector: Option<PageVector>,
}

impl Key {
    fn of(page: &StoredPage, epoch: Epoch) -> Self {
        Self {
            id: page.id,
            agent: page.agent,
            tenant: page.tenant.clone(),
            workload: page.workload,
            epoch,
            first: page.first,
            kind: page.kind,
            reach: page.reach,
            supersedes: page.supersedes,
            has_vector: page.vector.is_some(),
            bytes: u32::try_from(page.bytes()).unwrap_or(u32::MAX),
        }
    }

    fn crc(&self) -> u32 {
        let mut crc = Crc::of(self.id);
        crc.bytes(self.agent.as_bytes());
        crc.bytes(self.tenant.as_str().as_bytes());
        crc.bytes(self.workload.as_bytes());
        crc.number(self.epoch.0);
        crc.number(self.first.0);
        crc.bytes(&[self.kind as u8, self.reach as u8, u8::from(self.has_vector)]);
        crc.optional(self.supersedes.as_ref().map(|id| &id.as_bytes()[..]));
        crc.number(u64::from(self.bytes));
        crc.done()
    }
}

fn search_crc(id: PageId, text: &str, vector: Option<(&str, &[u8])>) -> u32 {
    let mut crc = Crc::of(id);
    crc.bytes(text.as_bytes());
    crc.optional(vector.map(|(model, _)| model.as_bytes()));
    crc.optional(vector.map(|(_, numbers)| numbers));
    crc.done()
}

fn rest_crc(page: &StoredPage) -> u32 {
    let mut crc = Crc::of(page.id);
    for number in [page.last.0, page.first_at.0, page.last_at.0, u64::from(page.messages), u64::from(page.tokens)] {
        crc.number(number);
    }
    crc.number(u64::from(page.importance.to_bits()));
    crc.bytes(&page.body);
    crc.bytes(&page.message_vectors);
    crc.done()
}

/// Over the agents of all rows of a fragment, in their order.
pub(crate) fn directory_crc<'a>(agents: impl Iterator<Item = &'a [u8]>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    agents.for_each(|agent| hasher.update(agent));
    hasher.finalize()
}

/// A checksum over parts; the length before each keeps them apart.
struct Crc(crc32fast::Hasher);

impl Crc {
    fn of(id: PageId) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(id.as_bytes());
        Self(hasher)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn optional(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bytes(bytes),
            None => self.number(u64::MAX),
        }
    }

    fn done(self) -> u32 {
        self.0.finalize()
    }
}

/// The order of rows in a fragment: an agent's pages are together, and in the order of what they say.
pub(crate) fn sort(rows: &mut [(Epoch, StoredPage)]) {
    rows.sort_by_key(|(_, page)| (page.agent, page.first));
}

/// Rows, sorted as [`sort`] does, as Lance takes them.
pub(crate) fn encode(rows: &[(Epoch, StoredPage)]) -> Result<RecordBatch, String> {
    let keys: Vec<Key> = rows.iter().map(|(epoch, page)| Key::of(page, *epoch)).collect();
    let pages = || rows.iter().map(|(_, page)| page);
    let ids = |of: &dyn Fn(&StoredPage) -> [u8; 16]| -> Result<ArrayRef, String> {
        let mut ids = FixedSizeBinaryBuilder::with_capacity(rows.len(), ID_BYTES);
        pages().try_for_each(|page| ids.append_value(of(page))).map_err(|error| error.to_string())?;
        Ok(Arc::new(ids.finish()))
    };
    let vectors: Vec<Option<(&str, Vec<u8>)>> = pages()
        .map(|page| page.vector.as_ref().map(|of| (of.model.as_str(), numbers_to_bytes(of.vector.numbers()))))
        .collect();
    let search_crcs = pages().zip(&vectors).map(|(page, vector)| {
        search_crc(page.id, &page.text, vector.as_ref().map(|(model, numbers)| (*model, numbers.as_slice())))
    });
    let directory = directory_crc(pages().map(|page| page.agent.as_bytes().as_slice()));
    let columns: Vec<ArrayRef> = vec![
        ids(&|page| *page.id.as_bytes())?,
        ids(&|page| *page.agent.as_bytes())?,
        texts(keys.iter().map(|key| Some(key.tenant.as_str()))),
        ids(&|page| *page.workload.as_bytes())?,
        Arc::new(UInt64Array::from_iter_values(keys.iter().map(|key| key.epoch.0))),
        Arc::new(UInt64Array::from_iter_values(keys.iter().map(|key| key.first.0))),
        Arc::new(UInt8Array::from_iter_values(keys.iter().map(|key| key.kind as u8))),
        Arc::new(UInt8Array::from_iter_values(keys.iter().map(|key| key.reach as u8))),
        binary(keys.iter().map(|key| key.supersedes.as_ref().map(|id| &id.as_bytes()[..]))),
        Arc::new(BooleanArray::from_iter(keys.iter().map(|key| Some(key.has_vector)))),
        Arc::new(UInt32Array::from_iter_values(keys.iter().map(|key| key.bytes))),
        Arc::new(UInt32Array::from_iter_values(keys.iter().map(Key::crc))),
        texts(pages().map(|page| Some(page.text.as_str()))),
        texts(vectors.iter().map(|vector| vector.as_ref().map(|(model, _)| *model))),
        binary(vectors.iter().map(|vector| vector.as_ref().map(|(_, numbers)| numbers.as_slice()))),
        Arc::new(UInt32Array::from_iter_values(search_crcs)),
        Arc::new(UInt64Array::from_iter_values(pages().map(|page| page.last.0))),
        Arc::new(UInt64Array::from_iter_values(pages().map(|page| page.first_at.0))),
        Arc::new(UInt64Array::from_iter_values(pages().map(|page| page.last_at.0))),
        Arc::new(UInt32Array::from_iter_values(pages().map(|page| page.messages))),
        Arc::new(UInt32Array::from_iter_values(pages().map(|page| page.tokens))),
        Arc::new(Float32Array::from_iter_values(pages().map(|page| page.importance))),
        binary(pages().map(|page| Some(page.body.as_slice()))),
        binary(pages().map(|page| Some(page.message_vectors.as_slice()))),
        Arc::new(UInt32Array::from_iter_values(pages().map(rest_crc))),
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|_| directory))),
    ];
    RecordBatch::try_new(schema(), columns).map_err(|error| error.to_string())
}

fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    let mut column = StringBuilder::new();
    values.for_each(|value| column.append_option(value));
    Arc::new(column.finish())
}

fn binary<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> ArrayRef {
    let mut column = BinaryBuilder::new();
    values.for_each(|value| column.append_option(value));
    Arc::new(column.finish())
}

fn numbers_to_bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn vector_of(bytes: &[u8]) -> Option<UnitVector> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    let numbers = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    if rest.is_empty() { UnitVector::stored(numbers) } else { None }
}

/// A column by name and type.
pub(crate) fn column<'b, T: 'static>(batch: &'b RecordBatch, name: &str) -> Result<&'b T, String> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("the column {name} is missing"))?;
    column
        .as_any()
        .downcast_ref()
        .ok_or_else(|| format!("the column {name} is of another type: {}", column.data_type()))
}

/// The value of a column that always has one.
fn id_at(column: &FixedSizeBinaryArray, row: usize) -> Result<[u8; 16], String> {
    column.value(row).try_into().map_err(|_| "an id has another length".to_owned())
}

/// The keys of rows.
pub(crate) fn keys(batch: &RecordBatch) -> Result<Vec<Key>, String> {
    let (id, agent, workload) = (column(batch, "page_id")?, column(batch, "agent")?, column(batch, "workload")?);
    let (epoch, first): (&UInt64Array, &UInt64Array) = (column(batch, "epoch")?, column(batch, "seq_first")?);
    let (kind, reach): (&UInt8Array, &UInt8Array) = (column(batch, "kind")?, column(batch, "reach")?);
    let (bytes, crc): (&UInt32Array, &UInt32Array) = (column(batch, "bytes")?, column(batch, "key_crc")?);
    let tenant: &StringArray = column(batch, "tenant")?;
    let supersedes: &BinaryArray = column(batch, "supersedes")?;
    let has_vector: &BooleanArray = column(batch, "has_vector")?;
    let mut tenants: Option<TenantId> = None;
    (0..batch.num_rows())
        .map(|row| {
            // Nearly all rows are of the tenant of the one before.
            let name = tenant.value(row);
            let tenant = match tenants.take().filter(|tenant| tenant.as_str() == name) {
                Some(tenant) => tenant,
                None => TenantId::new(name).map_err(|error| error.to_string())?,
            };
            tenants = Some(tenant.clone());
            let key = Key {
                id: PageId::from_bytes(id_at(id, row)?),
                agent: AgentId::from_bytes(id_at(agent, row)?),
                tenant,
                workload: WorkloadId::from_bytes(id_at(workload, row)?),
                epoch: Epoch(epoch.value(row)),
                first: Version(first.value(row)),
                kind: kind_of(kind.value(row))?,
                reach: reach_of(reach.value(row))?,
                supersedes: match supersedes.is_null(row) {
                    true => None,
                    false => Some(PageId::from_slice(supersedes.value(row)).ok_or("an id has another length")?),
                },
                has_vector: has_vector.value(row),
                bytes: bytes.value(row),
            };
            if key.crc() == crc.value(row) {
                Ok(key)
            } else {
                Err(format!("the key of {} has another checksum", key.id))
            }
        })
        .collect()
}

/// What finds the pages of rows.
pub(crate) fn found(batch: &RecordBatch, keys: &[Key]) -> Result<Vec<Found>, String> {
    let (text, model): (&StringArray, &StringArray) = (column(batch, "text")?, column(batch, "embed_model")?);
    let embedding: &BinaryArray = column(batch, "embedding")?;
    let crc: &UInt32Array = column(batch, "search_crc")?;
    keys.iter()
        .enumerate()
        .map(|(row, key)| {
            let stored = (!model.is_null(row)).then(|| (model.value(row), embedding.value(row)));
            let text = text.value(row);
            if search_crc(key.id, text, stored) != crc.value(row) || stored.is_some() != key.has_vector {
                return Err(format!("what finds {} has another checksum", key.id));
            }
            let vector = match stored {
                None => None,
                Some((model, bytes)) => {
                    let vector = vector_of(bytes).ok_or_else(|| format!("the vector of {} is none", key.id))?;
                    Some(PageVector { model: model.to_owned(), vector })
                }
            };
            Ok(Found { text: text.to_owned(), vector })
        })
        .collect()
}

/// Whole pages, each with the epoch it was written under.
pub(crate) fn pages(batch: &RecordBatch) -> Result<Vec<(Epoch, StoredPage)>, String> {
    let keys = keys(batch)?;
    let found = found(batch, &keys)?;
    let (last, first_at): (&UInt64Array, &UInt64Array) = (column(batch, "seq_last")?, column(batch, "first_ts")?);
    let last_at: &UInt64Array = column(batch, "last_ts")?;
    let (messages, tokens): (&UInt32Array, &UInt32Array) = (column(batch, "n_msgs")?, column(batch, "n_tokens")?);
    let importance: &Float32Array = column(batch, "importance")?;
    let (body, message_vectors): (&BinaryArray, &BinaryArray) = (column(batch, "body")?, column(batch, "msg_vecs")?);
    let crc: &UInt32Array = column(batch, "rest_crc")?;
    keys.into_iter()
        .zip(found)
        .enumerate()
        .map(|(row, (key, found))| {
            let page = StoredPage {
                id: key.id,
                tenant: key.tenant,
                workload: key.workload,
                agent: key.agent,
                reach: key.reach,
                kind: key.kind,
                first: key.first,
                last: Version(last.value(row)),
                first_at: Timestamp(first_at.value(row)),
                last_at: Timestamp(last_at.value(row)),
                supersedes: key.supersedes,
                messages: messages.value(row),
                tokens: tokens.value(row),
                body: body.value(row).to_vec(),
                text: found.text,
                message_vectors: message_vectors.value(row).to_vec(),
                vector: found.vector,
                importance: importance.value(row),
            };
            let is_whole = rest_crc(&page) == crc.value(row);
            if is_whole { Ok((key.epoch, page)) } else { Err(format!("the page {} has another checksum", page.id)) }
        })
        .collect()
}

fn kind_of(number: u8) -> Result<PageKind, String> {
    [PageKind::Raw, PageKind::Summary, PageKind::Tombstone]
        .into_iter()
        .find(|kind| *kind as u8 == number)
        .ok_or_else(|| format!("{number} is no kind of page"))
}

fn reach_of(number: u8) -> Result<Reach, String> {
    [Reach::Agent, Reach::Workload, Reach::Tenant]
        .into_iter()
        .find(|reach| *reach as u8 == number)
        .ok_or_else(|| format!("{number} is no reach"))
}
