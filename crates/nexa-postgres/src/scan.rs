//! Facts of all streams in the reading order, a page at a time.
//!
//! Each fact is checked against the link before it in its stream. That one is mostly on the same page, or was on an earlier one
//! that its reader remembers ([`Streams`]); for the others the server is asked, once a page. Facts never change, so that it does not
//! matter that these are two questions.
//!
//! Holds:
//!   PR-4  no position is left out between the facts of a page
//!   PR-5  a fact is filed under the workload that its stream belongs to
//!
//! Bound: `STREAMS_KNOWN_MAX` streams; beyond that all are forgotten.

use std::collections::HashMap;

use nexa_event::envelope::Link;
use nexa_event::formats::Formats;
use nexa_ports::store::Recorded;
use nexa_types::{GlobalSeq, WorkloadId};
use sqlx::{PgConnection, Row};

use crate::column::{count, damaged};
use crate::read::{Answer, LIMIT_MAX, Stored, limited};
use crate::row::{Places, ROW_FACTS_MAX, event_columns, facts_of};

/// Streams that a reader remembers; beyond that it forgets all of them.
const STREAMS_KNOWN_MAX: usize = 32_768;

/// Rows after the position `$1` and up to another, or only the next one if that ends later: then something is missing before it.
macro_rules! up_to {
    ($position:literal, $last:literal) => {
        concat!(
            $position,
            " > $1 AND ",
            $position,
            " <= greatest(",
            $last,
            ", (SELECT min(position) FROM events WHERE position > $1))"
        )
    };
}
pub(crate) use up_to;

/// How far the facts of streams were read and found to be in order.
#[derive(Default)]
pub(crate) struct Streams(HashMap<Vec<u8>, End>);

/// The newest fact of a stream that was read.
#[derive(Clone, Copy)]
struct End {
    version: u64,
    link: Link,
    workload: Option<WorkloadId>,
}

impl Streams {
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }

    /// Which facts of a page have nothing before them here, by their places on it.
    fn unknown(&self, page: &[Stored]) -> Vec<usize> {
        let mut newest: HashMap<&[u8], u64> = HashMap::new();
        let mut unknown = Vec::new();
        for (place, fact) in page.iter().enumerate() {
            let before = newest.insert(&fact.stream, fact.version);
            let before = before.or_else(|| self.0.get(&fact.stream).map(|end| end.version));
            if before.is_none_or(|version| version + 1 != fact.version) {
                unknown.push(place);
            }
        }
        unknown
    }
}

/// See `Store::scan`.
pub(crate) async fn scan(
    connection: &mut PgConnection,
    reads: Formats,
    workload: Option<WorkloadId>,
    after: GlobalSeq,
    limit: usize,
) -> Answer<Vec<Recorded>> {
    let facts = scan_linked(connection, reads, workload, after, limit, &mut Streams::default()).await?;
    Ok(facts.into_iter().map(|(fact, _)| fact).collect())
}

/// The same with each fact's link, for a reader who goes on from page to page.
pub(crate) async fn scan_linked(
    connection: &mut PgConnection,
    reads: Formats,
    workload: Option<WorkloadId>,
    after: GlobalSeq,
    limit: usize,
    streams: &mut Streams,
) -> Answer<Vec<(Recorded, Link)>> {
    macro_rules! page {
        ($condition:expr) => {
            concat!(
                "SELECT ",
                event_columns!(),
                " FROM events AS e WHERE ",
                $condition,
                " ORDER BY e.position LIMIT $2"
            )
        };
    }
    let wanted = limit.min(LIMIT_MAX);
    let rows = match &workload {
        None => sqlx::query(page!(up_to!("e.position", "$3")))
            .bind(count(after.0))
            .bind(limited(wanted))
            .bind(last(after, wanted)),
        Some(workload) => sqlx::query(page!("e.workload = $3 AND e.position > $1"))
            .bind(count(after.0))
            .bind(limited(wanted))
            .bind(workload.as_bytes().as_slice()),
    };
    let rows = rows.fetch_all(&mut *connection).await?;
    let mut page = Vec::with_capacity(wanted.min(2 * rows.len()));
    for row in &rows {
        facts_of(row, &mut page)?;
        if page.len() >= wanted + ROW_FACTS_MAX {
            break;
        }
    }
    // The first row may begin before.
    page.retain(|fact| fact.position > after.0);
    page.truncate(wanted);
    if workload.is_none() {
        for (expected, fact) in (after.0 + 1..).zip(&page) {
            if fact.position != expected {
                return Err(damaged(&format!("position {expected}"), "a fact is missing").into());
            }
        }
    }
    if streams.0.len() > STREAMS_KNOWN_MAX {
        streams.forget();
    }
    let unknown = streams.unknown(&page);
    let mut asked = unknown.iter().copied().zip(ends_before(connection, &page, &unknown).await?).peekable();
    let mut facts = Vec::with_capacity(page.len());
    for (place, fact) in page.into_iter().enumerate() {
        let before = match asked.next_if(|(asked, _)| *asked == place) {
            Some((_, before)) => before,
            None => *streams.0.get(&fact.stream).ok_or_else(|| damaged(&fact.place(), "nothing is before it"))?,
        };
        if fact.workload != before.workload {
            return Err(damaged(&fact.place(), "it is filed under another workload than its stream").into());
        }
        let now = End { version: fact.version, link: fact.link, ..before };
        match streams.0.get_mut(&fact.stream) {
            Some(end) => *end = now,
            None => drop(streams.0.insert(fact.stream.clone(), now)),
        }
        facts.push((fact.open(before.link, reads)?, now.link));
    }
    Ok(facts)
}

/// The last position at which a row may end that has one of so many facts.
pub(crate) fn last(after: GlobalSeq, facts: usize) -> i64 {
    count(after.0.saturating_add((facts + ROW_FACTS_MAX) as u64))
}

/// What came before some facts of a page in their streams, in their order, by what the server says.
async fn ends_before(connection: &mut PgConnection, page: &[Stored], wanted: &[usize]) -> Answer<Vec<End>> {
    let facts: Vec<&Stored> = wanted.iter().filter_map(|place| page.get(*place)).collect();
    if facts.is_empty() {
        return Ok(Vec::new());
    }
    // An empty id is nobody's.
    let agent = |stream: &'_ [u8]| match stream.split_first() {
        Some((b'a', id)) => id.to_vec(),
        _ => Vec::new(),
    };
    let rows = sqlx::query(
        "SELECT p.position, p.version, p.link, (SELECT a.workload FROM agents AS a WHERE a.agent = w.agent)
         FROM unnest($1::bytea[], $2::bigint[], $3::bytea[]) WITH ORDINALITY AS w (stream, version, agent, nth)
         LEFT JOIN LATERAL (SELECT position, version, link FROM events WHERE stream = w.stream AND version >= w.version
                            ORDER BY version LIMIT 1) AS p ON true
         ORDER BY w.nth",
    )
    .bind(facts.iter().map(|fact| fact.stream.as_slice()).collect::<Vec<_>>())
    .bind(facts.iter().map(|fact| count(fact.version) - 1).collect::<Vec<_>>())
    .bind(facts.iter().map(|fact| agent(&fact.stream)).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let mut ends = Vec::with_capacity(facts.len());
    for (fact, row) in facts.into_iter().zip(&rows) {
        let link = match fact.version {
            ..=1 => Link::START,
            version => {
                let missing = || damaged(&fact.place(), "the fact before it in its stream is missing");
                let position: Option<i64> = row.try_get(0)?;
                let places = Places::of(position.ok_or_else(missing)?, row.try_get(1)?, row.try_get(2)?)?;
                places.link_at(version - 1)?.ok_or_else(missing)?
            }
        };
        let owner: Option<&[u8]> = row.try_get(3)?;
        let workload = match fact.stream.split_first() {
            Some((b'w', id)) => WorkloadId::from_slice(id),
            _ => owner.and_then(WorkloadId::from_slice),
        };
        ends.push(End { version: fact.version.saturating_sub(1), link, workload });
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(facts: &[(&str, u64)]) -> Vec<Stored> {
        facts.iter().map(|(stream, version)| Stored::empty(stream.as_bytes(), *version)).collect()
    }

    fn read_up_to(ends: &[(&str, u64)]) -> Streams {
        let end = |version| End { version, link: Link::START, workload: None };
        Streams(ends.iter().map(|(stream, version)| (stream.as_bytes().to_vec(), end(*version))).collect())
    }

    #[test]
    fn only_what_is_neither_on_the_page_nor_remembered_is_asked_for() {
        let some = page(&[("a", 6), ("b", 1), ("a", 7), ("b", 2), ("c", 9)]);
        assert_eq!(read_up_to(&[]).unknown(&some), [0, 1, 4]);
        assert_eq!(read_up_to(&[("a", 5), ("c", 8)]).unknown(&some), [1]);
        let elsewhere = read_up_to(&[("a", 4), ("b", 3), ("c", 9)]);
        assert_eq!(elsewhere.unknown(&some), [0, 1, 4], "these end elsewhere in their streams");
        assert_eq!(read_up_to(&[]).unknown(&page(&[("a", 1), ("a", 3)])), [0, 1], "the page leaves one out");
    }
}
