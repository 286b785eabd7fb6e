//! A row of the table `events`, and the facts in it.
//!
//! Since format [`PACKING`] the facts that one append adds to one stream lie in one row, as far as they fit; why is told in
//! `docs/adr/0011`. Each column of such a row has the bytes of all its facts, one after another: headers and payloads are values
//! that end by themselves, a link has 32 bytes. Position and version are those of the last fact, so that "after this one" finds
//! the row of the next fact by any index, also from its middle. A row of one fact is what rows of earlier formats are.
//!
//! Bounds: `ROW_FACTS_MAX` facts, which readers rely on, and `ROW_BYTES_MAX` bytes a row; what does not fit begins the next row.
//! A fact whose bytes are a blob has a row for itself.

use nexa_event::codec;
use nexa_event::envelope::Link;
use nexa_event::formats::PACKING;
use nexa_types::WorkloadId;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::column::{counter, damaged, link};
use crate::read::{Answer, Stored};

/// Facts of a row.
pub(crate) const ROW_FACTS_MAX: usize = 16;
/// Bytes of a row of several facts: so many PostgreSQL keeps in the row itself, and not in a second table.
const ROW_BYTES_MAX: usize = 1_800;
/// Bytes of a link.
const LINK_BYTES: usize = 32;

/// A row on its way into the table.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) stream: Vec<u8>,
    /// That of the last fact.
    pub(crate) version: u64,
    pub(crate) workload: Option<WorkloadId>,
    pub(crate) header: Vec<u8>,
    pub(crate) payload: Body,
    pub(crate) links: Vec<u8>,
    /// In which all its facts are written.
    pub(crate) format: u16,
}

/// Where a fact's bytes go.
#[derive(Debug)]
pub(crate) enum Body {
    /// Into its row.
    Inline(Vec<u8>),
    /// To the blobs of a tenant.
    Blob(String, [u8; 32], Vec<u8>),
}

impl Event {
    /// How many facts it has.
    pub(crate) fn facts(&self) -> usize {
        self.links.len() / LINK_BYTES
    }

    /// Takes the fact after its last one in, or gives it back if it does not fit.
    pub(crate) fn join(&mut self, next: Self) -> Result<(), Self> {
        let (Body::Inline(bytes), Body::Inline(more)) = (&mut self.payload, &next.payload) else { return Err(next) };
        let size = |header: &[u8], payload: &[u8], links: &[u8]| header.len() + payload.len() + links.len();
        let size = size(&self.header, bytes, &self.links) + size(&next.header, more, &next.links);
        let fits = size <= ROW_BYTES_MAX && self.links.len() / LINK_BYTES < ROW_FACTS_MAX;
        if !fits || self.format != next.format || next.format < PACKING {
            return Err(next);
        }
        bytes.extend_from_slice(more);
        self.header.extend_from_slice(&next.header);
        self.links.extend_from_slice(&next.links);
        self.version = next.version;
        Ok(())
    }
}

/// The columns of [`facts_of`], of `events AS e`. Few facts have their bytes in a blob, so a join would look for nothing in most
/// rows.
macro_rules! event_columns {
    () => {
        "e.position, e.stream, e.version, e.workload, e.header,
         CASE WHEN e.blob IS NULL THEN e.payload
              ELSE (SELECT b.bytes FROM blobs AS b WHERE b.tenant = e.tenant AND b.hash = e.blob) END, e.link"
    };
}
pub(crate) use event_columns;

/// Adds the facts of a row to others, from `event_columns!`.
pub(crate) fn facts_of(row: &PgRow, facts: &mut Vec<Stored>) -> Answer<()> {
    let workload: Option<&[u8]> = row.try_get(3)?;
    let bad = || damaged("a fact", "its workload does not have 16 bytes");
    let workload = workload.map(|bytes| WorkloadId::from_slice(bytes).ok_or_else(bad)).transpose()?;
    let stream: &[u8] = row.try_get(1)?;
    let (header, payload): (&[u8], Option<&[u8]>) = (row.try_get(4)?, row.try_get(5)?);
    let places = Places::of(row.try_get(0)?, row.try_get(2)?, row.try_get(6)?)?;
    let stored = |(position, version, link): (u64, u64, Link), header: &[u8], payload: Option<&[u8]>| Stored {
        position,
        stream: stream.to_vec(),
        version,
        workload,
        header: header.to_vec(),
        payload: payload.map(<[u8]>::to_vec),
        link,
    };
    if places.count == 1 {
        facts.push(stored(places.nth(0)?, header, payload));
        return Ok(());
    }
    let cut = |bytes| codec::items(bytes, places.count).map_err(|error| damaged(&places.name(), &error.to_string()));
    let missing = || damaged(&places.name(), "its payload is missing");
    let (headers, payloads) = (cut(header)?, cut(payload.ok_or_else(missing)?)?);
    for (nth, (header, payload)) in headers.into_iter().zip(payloads).enumerate() {
        facts.push(stored(places.nth(nth)?, header, Some(payload)));
    }
    Ok(())
}

/// Where the facts of a row stand.
pub(crate) struct Places<'a> {
    /// Of the last fact.
    position: u64,
    version: u64,
    links: &'a [u8],
    pub(crate) count: usize,
}

impl<'a> Places<'a> {
    pub(crate) fn of(position: i64, version: i64, links: &'a [u8]) -> Answer<Self> {
        let (position, version) = (counter(position)?, counter(version)?);
        let places = Self { position, version, links, count: links.len() / LINK_BYTES };
        let most = position.min(version);
        if !links.len().is_multiple_of(LINK_BYTES) || places.count == 0 || most < places.count as u64 {
            return Err(damaged(&places.name(), "its links do not fit its place").into());
        }
        Ok(places)
    }

    fn name(&self) -> String {
        format!("the row of facts that ends at position {}", self.position)
    }

    /// Position, version and link of one of its facts, counted from 0.
    pub(crate) fn nth(&self, nth: usize) -> Answer<(u64, u64, Link)> {
        let after = (self.count - 1 - nth) as u64;
        let link = link(&self.links[nth * LINK_BYTES..(nth + 1) * LINK_BYTES])?;
        Ok((self.position - after, self.version - after, link))
    }

    /// The link of the fact with a version, if that is in this row.
    pub(crate) fn link_at(&self, version: u64) -> Answer<Option<Link>> {
        let after = self.version.checked_sub(version).and_then(|after| usize::try_from(after).ok());
        match after.filter(|after| *after < self.count) {
            Some(after) => Ok(Some(self.nth(self.count - 1 - after)?.2)),
            None => Ok(None),
        }
    }
}
