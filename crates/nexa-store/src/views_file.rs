//! The file of the read models: its tables, and when it is made again.
//!
//! It is made again if it is damaged, of another version, belongs to another store, or has seen facts that are gone.
//! Its commits are not synced one by one, since all of it can be folded again.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nexa_event::codec;
use nexa_event::root::Root;
use nexa_types::GlobalSeq;
use rusqlite::{Connection, OptionalExtension};
use tracing::warn;

use crate::column::{hex, unhex};
use crate::open::connect;
use crate::trouble::{Trouble, trouble};

/// Grows with every change of the tables or of what the folds mean; the file is then made again.
const VIEWS_VERSION: i64 = 2;

const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;
CREATE TABLE workloads (
    id BLOB PRIMARY KEY, tenant TEXT NOT NULL, seq INTEGER NOT NULL, state TEXT NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE INDEX workloads_by_tenant ON workloads (tenant, seq);
CREATE TABLE agents (
    id BLOB PRIMARY KEY, tenant TEXT NOT NULL, workload BLOB NOT NULL, seq INTEGER NOT NULL, state TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX agents_by_tenant ON agents (tenant, seq);
CREATE INDEX agents_by_workload ON agents (workload, seq);
CREATE TABLE approvals (
    id BLOB PRIMARY KEY, tenant TEXT NOT NULL, workload BLOB NOT NULL, seq INTEGER NOT NULL, open INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX approvals_by_tenant ON approvals (tenant, seq);
CREATE INDEX approvals_open ON approvals (tenant, seq) WHERE open = 1;
CREATE TABLE programs (
    tenant TEXT NOT NULL, name TEXT NOT NULL, module BLOB NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (tenant, name, module)
) STRICT;
CREATE INDEX programs_by_tenant ON programs (tenant, seq);
CREATE TABLE memories (
    tenant TEXT NOT NULL, workload BLOB NOT NULL, key TEXT NOT NULL, seq INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (tenant, workload, key)
) STRICT;
CREATE INDEX memories_by_age ON memories (tenant, workload, seq);
CREATE TABLE history (
    position INTEGER PRIMARY KEY, at INTEGER NOT NULL, tenant TEXT NOT NULL, workload BLOB, agent BLOB,
    kind TEXT NOT NULL, text TEXT NOT NULL
) STRICT;
CREATE VIRTUAL TABLE history_words USING fts5 (
    text, content = 'history', content_rowid = 'position', tokenize = 'unicode61 remove_diacritics 0'
);
";

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
    // Made here and not by SQLite, for its permissions; a failure shows when it is opened.
    let _ = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let mut views = connect(path)?;
    // A power cut now leaves a damaged file, which is made again.
    views.pragma_update(None, "synchronous", "OFF")?;
    views.pragma_update(None, "journal_mode", "MEMORY")?;
    let change = views.transaction()?;
    change.execute_batch(TABLES)?;
    for (key, value) in [("version", VIEWS_VERSION.to_string().as_str()), ("store_id", store_id), ("applied", "0")] {
        change.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", [key, value])?;
    }
    change.commit()?;
    views.pragma_update(None, "journal_mode", "WAL")?;
    relax(&views)?;
    Ok(views)
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
