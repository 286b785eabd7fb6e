//! The one thread that folds facts into `views.db`.
//!
//! It follows the head: reads a batch of facts with their chains checked, folds them, and commits views together with
//! the position that they have seen. After a restart it goes on from there.
//!
//! Wishes: one place in the channel says that there is news; more say nothing new and are dropped.
//! When the facts cannot be read or the views not be kept, it stands still, says so, and tries again after
//! `RETRY_AFTER`; answers then say how far they have seen.
//!
//! Damaged views, met here or by a reader, are no damage of the facts. The file is then made again and folded from the
//! first fact: nothing is written into a damaged file any more, not even to empty it. So it is when views could not be
//! kept `TRIES_MAX` times for a reason that is no lack of room. What readers report within `REMAKE_PAUSE` after that is
//! dropped, so that a fault which a new file does not cure keeps nobody busy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nexa_event::codec;
use nexa_event::root::Root;
use nexa_ports::store::StoreError;
use nexa_types::GlobalSeq;
use nexa_view::{HistoryLine, Key, MemoryEntry, MemoryPlace, Seen, Shelf, View, fold};
use rusqlite::{Connection, OptionalExtension, ToSql, params};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use crate::audit;
use crate::column::{count, counter, damaged, moment};
use crate::index::Recent;
use crate::memories;
use crate::read;
use crate::readers::Readers;
use crate::trouble::refusal;
use crate::views_file::{FORGET, make, open_or_make, read_applied, read_root, write_root};

/// Facts of one transaction.
const BATCH_FACTS: usize = 2_048;
/// How long after a fold facts gather for the next, unless somebody waits for them: many of a batch change the same views,
/// each of which is read and written once.
const GATHER: Duration = Duration::from_millis(40);
/// As many facts in one fold, and it is taken that more are about to come, so that gathering them is worth their delay.
const STREAM_FACTS: usize = 32;
/// The pause after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Failures in a row to keep views, after which their file is taken for damaged.
const TRIES_MAX: u32 = 3;
/// How long after the file was made again readers cannot have it made again.
const REMAKE_PAUSE: Duration = Duration::from_secs(10);

type Rebuilds = Arc<Mutex<Vec<oneshot::Sender<()>>>>;

/// What keeps facts from gathering.
#[derive(Default)]
struct Demand {
    wanted: Mutex<Wanted>,
    bell: Condvar,
}

#[derive(Default)]
struct Wanted {
    /// Somebody waits until this position is folded.
    position: GlobalSeq,
    /// There is something else to do than to fold.
    at_once: bool,
}

impl Demand {
    fn tell(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.wanted.lock().expect("no holder of this lock can panic"));
        self.bell.notify_all();
    }

    /// Waits for so long, or until something beyond `applied` is wanted.
    fn wait(&self, at_most: Duration, applied: GlobalSeq) {
        let wanted = self.wanted.lock().expect("no holder of this lock can panic");
        let may_wait = |wanted: &mut Wanted| wanted.position <= applied && !wanted.at_once;
        let waited = self.bell.wait_timeout_while(wanted, at_most, may_wait);
        waited.expect("no holder of this lock can panic").0.at_once = false;
    }
}

/// The store's end.
pub(crate) struct Handle {
    /// Wakes the thread; it ends when all copies of this are gone.
    wake: Option<SyncSender<()>>,
    /// How far the views have seen.
    pub(crate) applied: watch::Receiver<GlobalSeq>,
    /// The root of the log, as far as it is folded.
    pub(crate) root: watch::Receiver<Root>,
    rebuilds: Rebuilds,
    damaged: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    demand: Arc<Demand>,
}

impl Handle {
    /// Has everything up to a position folded as soon as it is there.
    pub(crate) fn want(&self, position: GlobalSeq) {
        self.demand.tell(|wanted| wanted.position = wanted.position.max(position));
    }

    /// For the writer, to say that there is news.
    pub(crate) fn wake(&self) -> Option<SyncSender<()>> {
        self.wake.clone()
    }

    /// Lets the thread end after its batch.
    pub(crate) fn stop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.demand.tell(|wanted| wanted.at_once = true);
        self.wake = None;
    }

    /// Asks for a rebuild; the receiver tells when the views have caught up again.
    pub(crate) fn rebuild(&self) -> oneshot::Receiver<()> {
        let (done, wait) = oneshot::channel();
        self.rebuilds.lock().expect("no holder of this lock can panic").push(done);
        self.nudge();
        wait
    }

    /// Says that a reader has met a damaged view.
    pub(crate) fn report_damage(&self) {
        self.damaged.store(true, Ordering::Relaxed);
        self.nudge();
    }

    fn nudge(&self) {
        self.demand.tell(|wanted| wanted.at_once = true);
        if let Some(wake) = &self.wake {
            // Full means that it will look in any case.
            let _ = wake.try_send(());
        }
    }
}

/// Where facts are read.
pub(crate) struct Facts {
    pub(crate) connection: Connection,
    pub(crate) recent: Recent,
}

struct Projector {
    facts: Facts,
    /// `None` while the file waits to be made again.
    views: Option<Connection>,
    path: PathBuf,
    store_id: String,
    /// Who else has the file open.
    readers: Arc<Readers>,
    remade: Option<Instant>,
    applied: watch::Sender<GlobalSeq>,
    root: watch::Sender<Root>,
    rebuilds: Rebuilds,
    damaged: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    demand: Arc<Demand>,
    /// When so many facts were folded at once that more are expected; none after a fold of a few.
    folded_many: Option<Instant>,
}

/// Why folding stopped.
enum Halt {
    /// The facts cannot be read.
    Facts(StoreError),
    /// The views cannot be read or kept.
    Views(StoreError),
}

impl Halt {
    fn views(error: &rusqlite::Error) -> Self {
        Self::Views(refusal(error))
    }
}

/// Opens or makes `views.db` for the store with this id, and starts the thread.
pub(crate) fn start(
    facts: Facts,
    path: &Path,
    store_id: &str,
    newest: GlobalSeq,
    readers: Arc<Readers>,
) -> rusqlite::Result<(Handle, std::io::Result<JoinHandle<()>>)> {
    let views = open_or_make(path, store_id, newest)?;
    let applied = watch::Sender::new(read_applied(&views)?);
    let root = watch::Sender::new(read_root(&views)?);
    let (wake, woken) = sync_channel(1);
    let rebuilds = Rebuilds::default();
    let damaged = Arc::new(AtomicBool::new(false));
    let stopping = Arc::new(AtomicBool::new(false));
    let demand = Arc::new(Demand::default());
    let handle = Handle {
        wake: Some(wake),
        applied: applied.subscribe(),
        root: root.subscribe(),
        rebuilds: Arc::clone(&rebuilds),
        damaged: Arc::clone(&damaged),
        stopping: Arc::clone(&stopping),
        demand: Arc::clone(&demand),
    };
    let (path, store_id) = (path.to_owned(), store_id.to_owned());
    let projector = Projector {
        facts,
        views: Some(views),
        path,
        store_id,
        readers,
        remade: None,
        applied,
        root,
        rebuilds,
        damaged,
        stopping,
        demand,
        folded_many: None,
    };
    let thread = std::thread::Builder::new().name("nexa-store-project".into()).spawn(move || projector.work(woken));
    Ok((handle, thread))
}

impl Projector {
    fn work(mut self, woken: Receiver<()>) {
        let mut failures = 0;
        loop {
            let asked = std::mem::take(&mut *self.rebuilds.lock().expect("no holder of this lock can panic"));
            let wait = match self.follow(!asked.is_empty()) {
                Ok(()) => {
                    failures = 0;
                    for done in asked {
                        // An error means that nobody waits for it any more.
                        let _ = done.send(());
                    }
                    let news = woken.recv().map_err(|_| RecvTimeoutError::Disconnected);
                    self.gather();
                    news
                }
                Err(halt) => {
                    failures += 1;
                    self.rebuilds.lock().expect("no holder of this lock can panic").extend(asked);
                    let was_whole = self.views.is_some();
                    self.note(halt, failures);
                    let pause = if was_whole && self.views.is_none() { Duration::ZERO } else { RETRY_AFTER };
                    woken.recv_timeout(pause)
                }
            };
            if wait == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    /// Lets facts gather after a fold of many; not those of a store that is being closed.
    fn gather(&self) {
        if self.stopping.load(Ordering::Relaxed) {
            return;
        }
        let since = self.folded_many.map_or(GATHER, |folded| folded.elapsed());
        if let Some(left) = GATHER.checked_sub(since).filter(|left| !left.is_zero()) {
            self.demand.wait(left, *self.applied.borrow());
        }
    }

    /// Says why it stands still, and gives the file up if that is the reason.
    fn note(&mut self, halt: Halt, failures: u32) {
        let (error, is_damaged) = match halt {
            Halt::Facts(error) => (error, false),
            Halt::Views(error @ StoreError::Corrupt { .. }) => (error, true),
            Halt::Views(error @ StoreError::DiskFull) => (error, false),
            Halt::Views(error) => (error, failures >= TRIES_MAX),
        };
        if is_damaged && self.views.take().is_some() {
            warn!(%error, path = %self.path.display(), "the read models are damaged and are folded again");
        } else if failures == 1 {
            warn!(%error, "read models stand still until this is over");
        }
    }

    fn follow(&mut self, rebuild: bool) -> Result<(), Halt> {
        let is_reported = self.damaged.swap(false, Ordering::Relaxed);
        if is_reported && self.remade.is_none_or(|at| at.elapsed() > REMAKE_PAUSE) && self.views.take().is_some() {
            warn!(path = %self.path.display(), "a reader met damaged read models: they are folded again");
        }
        if self.views.is_none() {
            self.remake()?;
        } else if rebuild {
            self.forget()?;
        }
        self.catch_up()
    }

    /// Makes the file again while nobody reads it.
    fn remake(&mut self) -> Result<(), Halt> {
        let made = self.readers.renew(|| make(&self.path, &self.store_id));
        self.views = Some(made.map_err(|error| Halt::views(&error))?);
        self.remade = Some(Instant::now());
        self.applied.send_replace(GlobalSeq(0));
        self.root.send_replace(Root::start());
        Ok(())
    }

    fn forget(&mut self) -> Result<(), Halt> {
        info!("read models are folded again from the first fact");
        let Some(views) = &mut self.views else { return Ok(()) };
        let change = views.transaction().map_err(|error| Halt::views(&error))?;
        change.execute_batch(FORGET).and_then(|()| change.commit()).map_err(|error| Halt::views(&error))?;
        self.applied.send_replace(GlobalSeq(0));
        Ok(())
    }

    /// Folds batch after batch until there is nothing new.
    ///
    /// The root is folded with the views and kept beside them, but stays when they are forgotten: the log is the same.
    fn catch_up(&mut self) -> Result<(), Halt> {
        let Some(views) = &mut self.views else { return Ok(()) };
        let applied = *self.applied.borrow();
        // Views that an earlier build has folded have none.
        let mut root = audit::fold(&self.facts.connection, *self.root.borrow(), applied).map_err(Halt::Facts)?;
        loop {
            let applied = *self.applied.borrow();
            let facts = read::scan_linked(&self.facts.connection, &self.facts.recent, None, applied, BATCH_FACTS);
            let facts = facts.map_err(Halt::Facts)?;
            let Some((last, _)) = facts.last() else { return Ok(()) };
            let last = last.position;
            let change = views.transaction().map_err(|error| Halt::views(&error))?;
            let mut shelf = SqlShelf { views: &change, loaded: BTreeMap::new(), changed: BTreeSet::new() };
            for (fact, link) in &facts {
                if fact.position.0 == root.position.0 + 1 {
                    root = root.next(fact.envelope.header.version, *link);
                }
                let seen = Seen { position: fact.position, workload: fact.workload, envelope: &fact.envelope };
                fold(&mut shelf, &seen).map_err(Halt::Views)?;
            }
            shelf.flush().map_err(Halt::Views)?;
            change
                .execute("UPDATE meta SET value = ?1 WHERE key = 'applied'", [last.0.to_string()])
                .and_then(|_| write_root(&change, &root))
                .and_then(|()| change.commit())
                .map_err(|error| Halt::views(&error))?;
            self.applied.send_replace(last);
            self.root.send_replace(root);
            self.folded_many = (facts.len() >= STREAM_FACTS).then(Instant::now);
            if facts.len() < BATCH_FACTS {
                return Ok(());
            }
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

    fn keep_memory(&mut self, entry: MemoryEntry) -> Result<(), StoreError> {
        memories::keep(self.views, &entry).map_err(|error| refusal(&error))
    }

    fn forget_memory(&mut self, place: &MemoryPlace) -> Result<(), StoreError> {
        memories::forget(self.views, place).map_err(|error| refusal(&error))
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
                view.state.word(),
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
