//! The file of the read models: its tables, and when it is made again.
//!
//! It is made again if it is damaged, of another version, belongs to another store, or has seen facts that are gone.
//! Its commits are not synced one by one, since all of it can be folded again.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nexa_event::codec;
use nexa_event::root::Root;
use nexa_types::GlobalSeq;
use rusqlite::ffi::{SQLITE_FULL, SQLITE_IOERR};
use rusqlite::{Connection, OptionalExtension};
use tracing::warn;

use crate::column::{hex, unhex};
use crate::image;
use crate::open::connect;
use crate::tables::VIEWS_VERSION;
use crate::trouble::{Trouble, trouble};

/// Empties the tables.
pub(crate) const FORGET: &str = "
DELETE FROM workloads;
DELETE FROM agents;
DELETE FROM approvals;
DELETE FROM programs;
DELETE FROM memories;
DELETE FROM history;
INSERT INTO history_words (history_words) VALUES ('delete-all');
UPDATE meta SET value = '0' WHERE key = 'applied';
";

/// Opens `views.db` of the store with this id, or makes it, if it is not there or cannot go on from where it is.
pub(crate) fn open_or_make(path: &Path, store_id: &str, newest: GlobalSeq) -> rusqlite::Result<Connection> {
    match usable(path, store_id, newest) {
        Ok(Some(views)) => return Ok(views),
        Ok(None) => {}
        Err(error) if matches!(trouble(&error), Trouble::Full | Trouble::Busy) => return Err(error),
        Err(error) => warn!(%error, path = %path.display(), "the read models are damaged and are folded again"),
    }
    make(path, store_id)
}

/// Makes the file, in place of whatever is there. Nobody else may have it open.
pub(crate) fn make(path: &Path, store_id: &str) -> rusqlite::Result<Connection> {
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        // What is not there need not be removed; what cannot be removed shows below.
        let _ = std::fs::remove_file(PathBuf::from(file));
    }
    // A power cut now leaves a damaged file, which is made again.
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(&image::views(store_id))).map_err(unwritten)?;
    let views = connect(path)?;
    relax(&views)?;
    Ok(views)
}

/// A failure of the file system, as SQLite would have told it.
fn unwritten(error: std::io::Error) -> rusqlite::Error {
    let code = if error.kind() == std::io::ErrorKind::StorageFull { SQLITE_FULL } else { SQLITE_IOERR };
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some(error.to_string()))
}

/// How many facts the read models of this store have seen; `None` where the file cannot tell.
///
/// They only ever see what is durable. So if they have seen more than there is, the end of the log is gone: SQLite takes a
/// damaged write-ahead log for one that ends before the damage, without a word.
pub(crate) fn seen(path: &Path, store_id: &str) -> Option<GlobalSeq> {
    // Whatever is wrong with the file is found, and told, when it is used.
    let views = usable(path, store_id, GlobalSeq(u64::MAX)).ok().flatten()?;
    read_applied(&views).ok()
}

/// The file, if it can go on from where it is.
fn usable(path: &Path, store_id: &str, newest: GlobalSeq) -> rusqlite::Result<Option<Connection>> {
    if !path.exists() {
        return Ok(None);
    }
    let views = connect(path)?;
    let tables: i64 =
        views.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'", [], |row| row.get(0))?;
    if tables == 0 {
        return Ok(None);
    }
    let value = |key: &str| -> rusqlite::Result<Option<String>> {
        views.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
    };
    let ours = value("version")?.as_deref() == Some(VIEWS_VERSION.to_string().as_str())
        && value("store_id")?.as_deref() == Some(store_id);
    let seen = read_applied(&views)?;
    relax(&views)?;
    Ok((ours && seen <= newest).then_some(views))
}

/// Commits need not be durable one by one, and SQLite may tidy up the log by itself.
fn relax(views: &Connection) -> rusqlite::Result<()> {
    views.pragma_update(None, "synchronous", "NORMAL")?;
    views.pragma_update(None, "wal_autocheckpoint", 1_000)
}

/// How far the views of a connection's moment have seen.
pub(crate) fn read_applied(views: &Connection) -> rusqlite::Result<GlobalSeq> {
    let applied: i64 = views
        .prepare_cached("SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'applied'")?
        .query_row([], |row| row.get(0))?;
    Ok(GlobalSeq(applied.unsigned_abs()))
}

/// The root of the log, as far as it was folded into this file; that of no facts where the file has none.
pub(crate) fn read_root(views: &Connection) -> rusqlite::Result<Root> {
    let kept: Option<String> =
        views.query_row("SELECT value FROM meta WHERE key = 'root'", [], |row| row.get(0)).optional()?;
    let bytes = kept.and_then(|text| unhex(&text));
    Ok(bytes.and_then(|bytes| codec::decode(&bytes).ok()).unwrap_or_else(Root::start))
}

/// Keeps it, beside how far the views have seen.
pub(crate) fn write_root(views: &Connection, root: &Root) -> rusqlite::Result<()> {
    views
        .prepare_cached("INSERT INTO meta (key, value) VALUES ('root', ?1) ON CONFLICT (key) DO UPDATE SET value = ?1")?
        .execute([hex(&codec::encode(root))])?;
    Ok(())
}
