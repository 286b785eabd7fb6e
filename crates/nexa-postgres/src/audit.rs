//! The log as auditors see it, and its root.
//!
//! The root is folded by whoever folds the read models, and kept in the table `meta`, moved in the transaction that moves them. It
//! stays where it is when they are folded again: the log is the same. One that a build without it has left behind is folded on
//! from where it stands.

use futures::future::BoxFuture;
use nexa_event::codec;
use nexa_event::root::Root;
use nexa_ports::audit::{Audit, End, Entry, LogHead, fold_on};
use nexa_ports::store::{Recorded, StoreError};
use nexa_types::{GlobalSeq, Version};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::column::{count, counter, damaged, link};
use crate::open::PostgresStore;
use crate::read::{Answer, LIMIT_MAX, limited};
use crate::row::Places;
use crate::scan::{self, Streams, up_to};

/// Facts that are folded at once by who catches up.
const CATCH_UP: usize = 4_096;

/// A root as it stands in a column of text.
pub(crate) fn written(root: &Root) -> String {
    codec::encode(root).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// And back. None is that of no facts: nothing was folded yet.
pub(crate) fn root_of(column: Option<&str>) -> Answer<Root> {
    let Some(text) = column else { return Ok(Root::start()) };
    let digit = |digit: char| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits: Option<Vec<u8>> = text.chars().map(digit).collect();
    let bytes: Option<Vec<u8>> = digits
        .map(|digits| digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect());
    let root = bytes.and_then(|bytes| codec::decode(&bytes).ok());
    Ok(root.ok_or_else(|| damaged("the root in the table `meta`", "it cannot be read"))?)
}

/// Folds a root on up to a position over what lies there. Ends early where a fact is missing.
pub(crate) async fn fold(connection: &mut PgConnection, mut root: Root, to: GlobalSeq) -> Answer<Root> {
    while root.position < to {
        let left = usize::try_from(to.0 - root.position.0).unwrap_or(CATCH_UP).min(CATCH_UP);
        let page = entries(connection, root.position, left).await?;
        let reached = fold_on(root, &page);
        if reached.position == root.position {
            return Ok(root);
        }
        root = reached;
    }
    Ok(root)
}

async fn log(connection: &mut PgConnection) -> Answer<LogHead> {
    let row = sqlx::query(
        "SELECT (SELECT value FROM meta WHERE key = 'store_id'), (SELECT coalesce(max(position), 0) FROM events)",
    )
    .fetch_one(connection)
    .await?;
    Ok(LogHead { id: row.try_get(0)?, newest: GlobalSeq(counter(row.try_get(1)?)?) })
}

async fn root(connection: &mut PgConnection) -> Answer<Root> {
    let kept: Option<String> =
        sqlx::query_scalar("SELECT value FROM meta WHERE key = 'root'").fetch_optional(connection).await?;
    root_of(kept.as_deref())
}

/// A version and a link, from two columns.
fn place(row: &PgRow, at: usize) -> Answer<(Version, nexa_event::envelope::Link)> {
    Ok((Version(counter(row.try_get(at)?)?), link(row.try_get(at + 1)?)?))
}

/// See `Audit::entries`.
async fn entries(connection: &mut PgConnection, after: GlobalSeq, limit: usize) -> Answer<Vec<Entry>> {
    let wanted = limit.min(LIMIT_MAX);
    let rows = sqlx::query(concat!(
        "SELECT position, stream, version, link FROM events WHERE ",
        up_to!("position", "$3"),
        " ORDER BY position LIMIT $2"
    ))
    .bind(count(after.0))
    .bind(limited(wanted))
    .bind(scan::last(after, wanted))
    .fetch_all(connection)
    .await?;
    let mut entries = Vec::with_capacity(wanted.min(2 * rows.len()));
    for row in &rows {
        let places = Places::of(row.try_get(0)?, row.try_get(2)?, row.try_get(3)?)?;
        for nth in 0..places.count {
            let (position, version, link) = places.nth(nth)?;
            let (position, version) = (GlobalSeq(position), Version(version));
            entries.push(Entry { position, stream: row.try_get(1)?, version, link });
        }
    }
    // The first row may begin before.
    entries.retain(|entry| entry.position > after);
    entries.truncate(wanted);
    Ok(entries)
}

/// Agents come before all other streams: so do their keys.
async fn ends(connection: &mut PgConnection, after: &[u8], limit: usize) -> Answer<Vec<End>> {
    let rows = sqlx::query(
        "SELECT stream, version, link FROM (
             (SELECT 'a'::bytea || agent AS stream, version, link FROM agents
              WHERE agent > $1 AND $2 ORDER BY agent LIMIT $4)
             UNION ALL (SELECT stream, version, link FROM streams WHERE stream > $3 ORDER BY stream LIMIT $4)) AS e
         ORDER BY stream LIMIT $4",
    )
    .bind(after.split_first().map_or(&[] as &[u8], |(_, id)| id))
    .bind(after.first().is_none_or(|kind| *kind == b'a'))
    .bind(after)
    .bind(limited(limit))
    .fetch_all(connection)
    .await?;
    let end = |row: &PgRow| {
        let (version, link) = place(row, 1)?;
        Ok(End { stream: row.try_get(0)?, version, link })
    };
    rows.iter().map(end).collect()
}

impl Audit for PostgresStore {
    fn log(&self) -> BoxFuture<'_, Result<LogHead, StoreError>> {
        Box::pin(self.readers.read(|connection| Box::pin(log(connection))))
    }

    fn root(&self) -> BoxFuture<'_, Result<Root, StoreError>> {
        Box::pin(self.readers.read(|connection| Box::pin(root(connection))))
    }

    fn entries(&self, after: GlobalSeq, limit: usize) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        Box::pin(self.readers.read(move |connection| Box::pin(entries(connection, after, limit))))
    }

    fn proven(&self, after: GlobalSeq, limit: usize) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        let reads = self.writing.reads();
        Box::pin(async move {
            let facts = self
                .readers
                .read(move |connection| {
                    Box::pin(async move {
                        scan::scan_linked(connection, reads, None, after, limit, &mut Streams::default()).await
                    })
                })
                .await?;
            let entry = |(fact, link): (Recorded, nexa_event::envelope::Link)| {
                let header = fact.envelope.header;
                Entry { position: fact.position, stream: header.stream.key(), version: header.version, link }
            };
            Ok(facts.into_iter().map(entry).collect())
        })
    }

    fn ends(&self, after: Vec<u8>, limit: usize) -> BoxFuture<'_, Result<Vec<End>, StoreError>> {
        Box::pin(self.readers.read(move |connection| {
            let after = after.clone();
            Box::pin(async move { ends(connection, &after, limit).await })
        }))
    }
}

impl PostgresStore {
    /// Forgets the root that was folded, so that it is folded again from the first fact: for a log that was accepted as it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_root(&self) -> Result<(), StoreError> {
        self.callers
            .write(|connection| {
                Box::pin(async move {
                    sqlx::query("DELETE FROM meta WHERE key = 'root'").execute(connection).await?;
                    Ok(())
                })
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use nexa_event::envelope::Link;

    use super::*;

    #[test]
    fn a_root_is_read_as_it_was_written() {
        let root = Root::start().next(Version(1), Link([7; 32]));
        assert_eq!(root_of(Some(&written(&root))).ok(), Some(root));
        assert_eq!(root_of(None).ok(), Some(Root::start()));
        for text in ["", "zz", "8", "80"] {
            assert!(root_of(Some(text)).is_err(), "{text:?}");
        }
    }
}
