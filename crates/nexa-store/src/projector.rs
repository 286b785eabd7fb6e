//! The one thread that folds facts into `views.db`.
//!
//! It follows the head: reads a batch of facts with their chains checked, folds them, and commits views together with
//! the position that they have seen. After a restart it goes on from there. The file is made again if it is damaged,
//! of another version, or belongs to another store; its commits are not synced one by one, since all of it can be
//! folded again.
//!
//! Wishes: one place in the channel says that there is news; more say nothing new and are dropped.
//! When the facts cannot be read or the views not be kept, it stands still, says so, and tries again after
//! `RETRY_AFTER`; answers then say how far they have seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nexa_event::codec;
use nexa_ports::store::StoreError;
use nexa_types::GlobalSeq;
use nexa_view::{HistoryLine, Key, Seen, Shelf, View, fold};
use rusqlite::{Connection, OptionalExtension, ToSql, params};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use crate::column::{count, counter, damaged, moment, state_word};
use crate::open::connect;
use crate::read;
use crate::trouble::{Trouble, refusal, trouble};

/// Grows with every change of the tables or of what the folds mean; the file is then made again.
const VIEWS_VERSION: i64 = 1;
/// Facts of one transaction.
const BATCH_FACTS: usize = 512;
/// The pause after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);

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
CREATE TABLE history (
    position INTEGER PRIMARY KEY, at INTEGER NOT NULL, tenant TEXT NOT NULL, workload BLOB, agent BLOB,
    kind TEXT NOT NULL, text TEXT NOT NULL
) STRICT;
CREATE VIRTUAL TABLE history_words USING fts5 (
    text, content = 'history', content_rowid = 'position', tokenize = 'unicode61 remove_diacritics 0'
);
";

const FORGET: &str = "
DELETE FROM workloads;
DELETE FROM agents;
DELETE FROM approvals;
DELETE FROM programs;
DELETE FROM history;
INSERT INTO history_words (history_words) VALUES ('delete-all');
UPDATE meta SET value = '0' WHERE key = 'applied';
";

type Rebuilds = Arc<Mutex<Vec<oneshot::Sender<()>>>>;

/// The store's end.
pub(crate) struct Handle {
    /// Wakes the thread; it ends when all copies of this are gone.
    wake: Option<SyncSender<()>>,
    /// How far the views have seen.
    pub(crate) applied: watch::Receiver<GlobalSeq>,
    rebuilds: Rebuilds,
    stopping: Arc<AtomicBool>,
}

impl Handle {
    /// For the writer, to say that there is news.
    pub(crate) fn wake(&self) -> Option<SyncSender<()>> {
        self.wake.clone()
    }

    /// Lets the thread end after its batch.
    pub(crate) fn stop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.wake = None;
    }

    /// Asks for a rebuild; the receiver tells when the views have caught up again.
    pub(crate) fn rebuild(&self) -> oneshot::Receiver<()> {
        let (done, wait) = oneshot::channel();
        self.rebuilds.lock().expect("no holder of this lock can panic").push(done);
        if let Some(wake) = &self.wake {
            // Full means that it will look in any case.
            let _ = wake.try_send(());
        }
        wait
    }
}

struct Projector {
    facts: Connection,
    views: Connection,
    applied: watch::Sender<GlobalSeq>,
    rebuilds: Rebuilds,
    stopping: Arc<AtomicBool>,
}

/// Opens or makes `views.db` for the store with this id, and starts the thread.
pub(crate) fn start(
    facts: Connection,
    path: &Path,
    store_id: &str,
    newest: GlobalSeq,
) -> rusqlite::Result<(Handle, std::io::Result<JoinHandle<()>>)> {
    let views = open_views(path, store_id, newest)?;
    let applied = watch::Sender::new(read_applied(&views)?);
    let (wake, woken) = sync_channel(1);
    let rebuilds = Rebuilds::default();
    let stopping = Arc::new(AtomicBool::new(false));
    let handle = Handle {
        wake: Some(wake),
        applied: applied.subscribe(),
        rebuilds: Arc::clone(&rebuilds),
        stopping: Arc::clone(&stopping),
    };
    let projector = Projector { facts, views, applied, rebuilds, stopping };
    let thread = std::thread::Builder::new().name("nexa-store-project".into()).spawn(move || projector.work(woken));
    Ok((handle, thread))
}

fn open_views(path: &Path, store_id: &str, newest: GlobalSeq) -> rusqlite::Result<Connection> {
    match usable(path, store_id, newest) {
        Ok(Some(views)) => return Ok(views),
        Ok(None) => {}
        Err(error) if trouble(&error) == Trouble::Damaged => {
            warn!(%error, path = %path.display(), "the read models are damaged and are folded again");
        }
        Err(error) => return Err(error),
    }
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
    views.pragma_update(None, "journal_mode", "WAL")?;
    let change = views.transaction()?;
    change.execute_batch(TABLES)?;
    for (key, value) in [("version", VIEWS_VERSION.to_string().as_str()), ("store_id", store_id), ("applied", "0")] {
        change.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", [key, value])?;
    }
    change.commit()?;
    relax(&views)?;
    Ok(views)
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
    if ours && seen > newest {
        // SQLite takes a damaged write-ahead log for one that ends before the damage, without a word.
        warn!(
            %seen,
            %newest,
            "the end of the log is gone: facts that were read before are not there any more; unless an older copy was \
             put back on purpose, the data folder was damaged, and what it lost is done again"
        );
    }
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

impl Projector {
    fn work(mut self, woken: Receiver<()>) {
        let mut standing = false;
        loop {
            let asked = std::mem::take(&mut *self.rebuilds.lock().expect("no holder of this lock can panic"));
            let outcome = if asked.is_empty() { Ok(()) } else { self.forget() }.and_then(|()| self.catch_up());
            let wait = match outcome {
                Ok(()) => {
                    standing = false;
                    for done in asked {
                        // An error means that nobody waits for it any more.
                        let _ = done.send(());
                    }
                    woken.recv().map_err(|_| RecvTimeoutError::Disconnected)
                }
                Err(error) => {
                    if !std::mem::replace(&mut standing, true) {
                        warn!(%error, "read models stand still until this is over");
                    }
                    self.rebuilds.lock().expect("no holder of this lock can panic").extend(asked);
                    woken.recv_timeout(RETRY_AFTER)
                }
            };
            if wait == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    fn forget(&mut self) -> Result<(), StoreError> {
        info!("read models are folded again from the first fact");
        let change = self.views.transaction().map_err(|error| refusal(&error))?;
        change.execute_batch(FORGET).and_then(|()| change.commit()).map_err(|error| refusal(&error))?;
        self.applied.send_replace(GlobalSeq(0));
        Ok(())
    }

    /// Folds batch after batch until there is nothing new.
    fn catch_up(&mut self) -> Result<(), StoreError> {
        loop {
            let applied = *self.applied.borrow();
            let facts = read::scan(&self.facts, None, applied, BATCH_FACTS)?;
            let Some(last) = facts.last() else { return Ok(()) };
            let last = last.position;
            let change = self.views.transaction().map_err(|error| refusal(&error))?;
            let mut shelf = SqlShelf { views: &change, loaded: BTreeMap::new(), changed: BTreeSet::new() };
            for fact in &facts {
                let seen = Seen { position: fact.position, workload: fact.workload, envelope: &fact.envelope };
                fold(&mut shelf, &seen)?;
            }
            shelf.flush()?;
            change
                .execute("UPDATE meta SET value = ?1 WHERE key = 'applied'", [last.0.to_string()])
                .and_then(|_| change.commit())
                .map_err(|error| refusal(&error))?;
            self.applied.send_replace(last);
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }
}

/// Views of one batch: each is read once and written once.
struct SqlShelf<'a> {
    views: &'a Connection,
    loaded: BTreeMap<Key, Option<View>>,
    changed: BTreeSet<Key>,
}

impl Shelf for SqlShelf<'_> {
    type Error = StoreError;

    fn load(&mut self, key: &Key) -> Result<Option<View>, StoreError> {
        if let Some(known) = self.loaded.get(key) {
            return Ok(known.clone());
        }
        let found = load(self.views, key)?;
        self.loaded.insert(key.clone(), found.clone());
        Ok(found)
    }

    fn save(&mut self, view: View) -> Result<(), StoreError> {
        let key = view.key();
        self.changed.insert(key.clone());
        self.loaded.insert(key, Some(view));
        Ok(())
    }

    fn save_line(&mut self, line: HistoryLine) -> Result<(), StoreError> {
        self.save_line_sql(&line).map_err(|error| refusal(&error))
    }
}

impl SqlShelf<'_> {
    fn save_line_sql(&self, line: &HistoryLine) -> rusqlite::Result<()> {
        let position = count(line.position.0);
        let fresh = self
            .views
            .prepare_cached(
                "INSERT INTO history (position, at, tenant, workload, agent, kind, text)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (position) DO NOTHING",
            )?
            .execute(params![
                position,
                moment(line.at),
                line.tenant.as_str(),
                line.workload.as_ref().map(|id| &id.as_bytes()[..]),
                line.agent.as_ref().map(|id| &id.as_bytes()[..]),
                line.kind,
                line.text
            ])?;
        if fresh == 1 {
            self.views
                .prepare_cached("INSERT INTO history_words (rowid, text) VALUES (?1, ?2)")?
                .execute(params![position, line.text])?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        for key in std::mem::take(&mut self.changed) {
            if let Some(Some(view)) = self.loaded.get(&key) {
                save(self.views, view).map_err(|error| refusal(&error))?;
            }
        }
        Ok(())
    }
}

fn body(connection: &Connection, statement: &str, values: &[&dyn ToSql]) -> Result<Option<Vec<u8>>, StoreError> {
    connection
        .prepare_cached(statement)
        .and_then(|mut select| select.query_row(values, |row| row.get(0)).optional())
        .map_err(|error| refusal(&error))
}

/// A view's bytes as a view.
pub(crate) fn decode<T: for<'b> minicbor::Decode<'b, ()>>(bytes: &[u8]) -> Result<T, StoreError> {
    codec::decode(bytes).map_err(|error| damaged("a read model", &error.to_string()))
}

/// A view by its key.
pub(crate) fn load(views: &Connection, key: &Key) -> Result<Option<View>, StoreError> {
    let bytes = match key {
        Key::Workload(id) => body(views, "SELECT body FROM workloads WHERE id = ?1", &[id.as_bytes()]),
        Key::Agent(id) => body(views, "SELECT body FROM agents WHERE id = ?1", &[id.as_bytes()]),
        Key::Approval(id) => body(views, "SELECT body FROM approvals WHERE id = ?1", &[id.as_bytes()]),
        Key::Program(tenant, name, module) => body(
            views,
            "SELECT body FROM programs WHERE tenant = ?1 AND name = ?2 AND module = ?3",
            &[&tenant.as_str(), name, module.as_bytes()],
        ),
    }?;
    let Some(bytes) = bytes else { return Ok(None) };
    Ok(Some(match key {
        Key::Workload(_) => View::Workload(decode(&bytes)?),
        Key::Agent(_) => View::Agent(decode(&bytes)?),
        Key::Approval(_) => View::Approval(decode(&bytes)?),
        Key::Program(..) => View::Program(decode(&bytes)?),
    }))
}

fn save(views: &Connection, view: &View) -> rusqlite::Result<usize> {
    match view {
        View::Workload(view) => views
            .prepare_cached(
                "INSERT INTO workloads (id, tenant, seq, state, body) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (id) DO UPDATE SET state = ?4, body = ?5",
            )?
            .execute(params![
                view.workload.as_bytes(),
                view.tenant.as_str(),
                count(view.submitted_seq.0),
                view.state.to_string(),
                codec::encode(view)
            ]),
        View::Agent(view) => views
            .prepare_cached(
                "INSERT INTO agents (id, tenant, workload, seq, state, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (id) DO UPDATE SET state = ?5, body = ?6",
            )?
            .execute(params![
                view.agent.as_bytes(),
                view.tenant.as_str(),
                view.workload.as_bytes(),
                count(view.born_seq.0),
                state_word(view.state),
                codec::encode(view)
            ]),
        View::Approval(view) => views
            .prepare_cached(
                "INSERT INTO approvals (id, tenant, workload, seq, open, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (id) DO UPDATE SET open = ?5, body = ?6",
            )?
            .execute(params![
                view.key.as_bytes(),
                view.tenant.as_str(),
                view.workload.as_bytes(),
                count(view.asked_seq.0),
                view.closed.is_none(),
                codec::encode(view)
            ]),
        View::Program(view) => views
            .prepare_cached(
                "INSERT INTO programs (tenant, name, module, seq, body) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (tenant, name, module) DO UPDATE SET seq = ?4, body = ?5",
            )?
            .execute(params![
                view.tenant.as_str(),
                view.name,
                view.module.as_bytes(),
                count(view.applied.0),
                codec::encode(view)
            ]),
    }
}

/// A line from `position, at, tenant, workload, agent, kind, text`.
pub(crate) fn line(row: &rusqlite::Row<'_>) -> Result<HistoryLine, StoreError> {
    let sql = |error: rusqlite::Error| refusal(&error);
    let bad = |what: &str| damaged("a line of history", what);
    let tenant: String = row.get(2).map_err(sql)?;
    let workload: Option<Vec<u8>> = row.get(3).map_err(sql)?;
    let agent: Option<Vec<u8>> = row.get(4).map_err(sql)?;
    Ok(HistoryLine {
        position: GlobalSeq(counter(row.get(0).map_err(sql)?)?),
        at: nexa_types::Timestamp(counter(row.get(1).map_err(sql)?)?),
        tenant: nexa_types::TenantId::new(&tenant).map_err(|error| bad(&error.to_string()))?,
        workload: workload.as_deref().and_then(nexa_types::WorkloadId::from_slice),
        agent: agent.as_deref().and_then(nexa_types::AgentId::from_slice),
        kind: row.get(5).map_err(sql)?,
        text: row.get(6).map_err(sql)?,
    })
}
