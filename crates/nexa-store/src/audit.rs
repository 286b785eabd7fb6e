//! The log as auditors see it, of an open store and of a folder that another process may have open.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;
use nexa_event::envelope::Link;
use nexa_event::root::Root;
use nexa_ports::audit::{Audit, End, Entry, LogHead, fold_on};
use nexa_ports::store::StoreError;
use nexa_types::{GlobalSeq, Version};
use rusqlite::{Connection, Row, params};

use crate::column::{count, counter, link};
use crate::index::Recent;
use crate::open::{OpenError, SqliteStore, check_file, take_lock};
use crate::read::{self, Answer, limited, sql};
use crate::readers::Readers;
use crate::schema;

/// Facts that are folded at once by who catches up.
const CATCH_UP: usize = 4_096;
/// How long whoever asks for the root waits for the newest facts to be folded: many folds, also on a disk that stalls.
const ROOT_WITHIN: Duration = Duration::from_secs(1);

/// The position of the newest fact.
pub(crate) fn newest(connection: &Connection) -> rusqlite::Result<u64> {
    let newest: i64 =
        connection.prepare_cached("SELECT coalesce(max(position), 0) FROM events")?.query_row([], |row| row.get(0))?;
    Ok(newest.unsigned_abs())
}

fn log(connection: &Connection) -> Answer<LogHead> {
    let id = sql(schema::store_id(connection))?;
    Ok(LogHead { id, newest: GlobalSeq(sql(newest(connection))?) })
}

/// See `Audit::entries`.
pub(crate) fn entries(connection: &Connection, after: GlobalSeq, limit: usize) -> Answer<Vec<Entry>> {
    let mut select = sql(connection.prepare_cached(
        "SELECT position, stream, version, link FROM events WHERE position > ?1 ORDER BY position LIMIT ?2",
    ))?;
    let mut rows = sql(select.query(params![count(after.0), limited(limit)]))?;
    let mut found = Vec::new();
    while let Some(row) = sql(rows.next())? {
        let position = GlobalSeq(counter(sql(row.get(0))?)?);
        let (stream, version, link) = place(row, 1)?;
        found.push(Entry { position, stream, version, link });
    }
    Ok(found)
}

/// A stream, a version and a link, from three columns.
fn place(row: &Row<'_>, at: usize) -> Answer<(Vec<u8>, Version, Link)> {
    let chain: Vec<u8> = sql(row.get(at + 2))?;
    Ok((sql(row.get(at))?, Version(counter(sql(row.get(at + 1))?)?), link(&chain)?))
}

fn proven(connection: &Connection, recent: &Recent, after: GlobalSeq, limit: usize) -> Answer<Vec<Entry>> {
    let facts = read::scan_linked(connection, recent, None, after, limit)?;
    let entry = |(fact, link): (nexa_ports::store::Recorded, Link)| {
        let header = fact.envelope.header;
        Entry { position: fact.position, stream: header.stream.key(), version: header.version, link }
    };
    Ok(facts.into_iter().map(entry).collect())
}

/// Agents come before all other streams: so do their keys.
fn ends(connection: &Connection, after: &[u8], limit: usize) -> Answer<Vec<End>> {
    const AGENTS: &str = "SELECT agent, version, link FROM agents WHERE agent > ?1 ORDER BY agent LIMIT ?2";
    const OTHERS: &str = "SELECT stream, version, link FROM streams WHERE stream > ?1 ORDER BY stream LIMIT ?2";
    let list = |statement: &str, after: &[u8], prefix: &[u8], limit: usize| -> Answer<Vec<End>> {
        let mut select = sql(connection.prepare_cached(statement))?;
        let mut rows = sql(select.query(params![after, limited(limit)]))?;
        let mut found = Vec::new();
        while let Some(row) = sql(rows.next())? {
            let (id, version, link) = place(row, 0)?;
            found.push(End { stream: [prefix, &id].concat(), version, link });
        }
        Ok(found)
    };
    let mut found = match after.split_first() {
        None => list(AGENTS, &[], b"a", limit)?,
        Some((b'a', id)) => list(AGENTS, id, b"a", limit)?,
        Some(_) => Vec::new(),
    };
    if found.len() < limit {
        found.extend(list(OTHERS, after, &[], limit - found.len())?);
    }
    Ok(found)
}

/// Folds a root on up to a position over what lies there. Ends early where a fact is missing.
pub(crate) fn fold(connection: &Connection, mut root: Root, to: GlobalSeq) -> Answer<Root> {
    while root.position < to {
        let left = usize::try_from(to.0 - root.position.0).unwrap_or(CATCH_UP).min(CATCH_UP);
        let page = entries(connection, root.position, left)?;
        let reached = fold_on(root, &page);
        if reached.position == root.position {
            return Ok(root);
        }
        root = reached;
    }
    Ok(root)
}

impl Audit for SqliteStore {
    fn log(&self) -> BoxFuture<'_, Result<LogHead, StoreError>> {
        Box::pin(self.readers.read(log))
    }

    fn root(&self) -> BoxFuture<'_, Result<Root, StoreError>> {
        let newest = *self.head.borrow();
        let mut root = self.projector.root.clone();
        self.projector.want(newest);
        Box::pin(async move {
            // One that stays behind, or belongs to a store that was closed, is told as it is.
            let _ = tokio::time::timeout(ROOT_WITHIN, root.wait_for(|root| root.position >= newest)).await;
            let told = *root.borrow();
            Ok(told)
        })
    }

    fn entries(&self, after: GlobalSeq, limit: usize) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        Box::pin(self.readers.read(move |connection| entries(connection, after, limit)))
    }

    fn proven(&self, after: GlobalSeq, limit: usize) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        let recent = self.recent.clone();
        Box::pin(self.readers.read(move |connection| proven(connection, &recent, after, limit)))
    }

    fn ends(&self, after: Vec<u8>, limit: usize) -> BoxFuture<'_, Result<Vec<End>, StoreError>> {
        Box::pin(self.readers.read(move |connection| ends(connection, &after, limit)))
    }
}

/// The log in a folder, to look at only: also while another process works with it. Its root is folded from the first fact by
/// whoever asks.
pub struct SqliteLog {
    readers: Readers,
    directory: PathBuf,
    /// Held by who wants nobody else to work with it.
    lock: Option<File>,
}

impl SqliteLog {
    /// Opens the log in a folder.
    ///
    /// # Errors
    /// [`OpenError`] if there is none, or none that this build knows.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        let directory = directory.as_ref().to_owned();
        let path = directory.join("nexa.db");
        if !path.exists() {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(OpenError::Io { doing: "open", path, source });
        }
        check_file(&path)?;
        Ok(Self { readers: Readers::new(&path), directory, lock: None })
    }

    /// The same while no process works with it, nor may until this is dropped.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if a process has it.
    pub fn alone(directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        let log = Self::open(&directory)?;
        Ok(Self { lock: Some(take_lock(directory.as_ref())?), ..log })
    }

    /// Removes the read models, which are folded again by whoever opens the store. Does nothing unless it is [`alone`](Self::alone).
    ///
    /// # Errors
    /// [`OpenError::Io`].
    pub fn forget_views(&self) -> Result<(), OpenError> {
        let files = ["views.db", "views.db-wal", "views.db-shm"].map(|name| self.directory.join(name));
        for path in files.into_iter().filter(|path| self.lock.is_some() && path.exists()) {
            let failed = |source| OpenError::Io { doing: "remove", path: path.clone(), source };
            std::fs::remove_file(&path).map_err(failed)?;
        }
        Ok(())
    }
}

impl Audit for SqliteLog {
    fn log(&self) -> BoxFuture<'_, Result<LogHead, StoreError>> {
        Box::pin(self.readers.read(log))
    }

    fn root(&self) -> BoxFuture<'_, Result<Root, StoreError>> {
        Box::pin(async { Ok(Root::start()) })
    }

    fn entries(&self, after: GlobalSeq, limit: usize) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        Box::pin(self.readers.read(move |connection| entries(connection, after, limit)))
    }

    fn proven(&self, after: GlobalSeq, limit: usize) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        Box::pin(self.readers.read(move |connection| proven(connection, &Recent::nothing(), after, limit)))
    }

    fn ends(&self, after: Vec<u8>, limit: usize) -> BoxFuture<'_, Result<Vec<End>, StoreError>> {
        Box::pin(self.readers.read(move |connection| ends(connection, &after, limit)))
    }
}
