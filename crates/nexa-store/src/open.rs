//! Opening a data directory: its lock, its file, its schema.
//!
//! One process at a time. The lock is the operating system's, so that it goes with the process however that ends;
//! the number in the lock file is only for the text that people see.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nexa_event::envelope::FORMAT;
use nexa_types::GlobalSeq;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::watch;
use tracing::info;

use crate::index::{Indexer, RUN_FACTS, Recent};
use crate::readers::{Readers, STATEMENTS_MAX};
use crate::schema::{self, Found};
use crate::tables::SCHEMA_VERSION;
use crate::trouble::{Trouble, trouble};
use crate::{audit, checkpoint, image, projector, views_file, writer};

/// How long a connection waits for another one of this process, as during a checkpoint.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Pages that the writer keeps in memory at most: its indices are written all over.
const WRITER_CACHE_KIB: i64 = 16 << 10;

/// What may be chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The file never grows beyond so many pages of 4 KiB; a write that needs more is told that the disk is full.
    /// `None`: as far as the disk goes.
    pub pages_max: Option<u32>,
    /// So many facts come into the indices together; `None`: as many as are good for a disk. Tests see more with few.
    pub run_facts: Option<usize>,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file operation failed.
    #[error("could not {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("the data directory {path} is in use by process {process}; stop it or choose another directory")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The number of the process, or `unknown`.
        process: String,
    },
    /// A newer build has written it.
    #[error("{path} was written by a newer build ({what} {found}, this build knows up to {known}); upgrade this build")]
    Newer {
        /// The file.
        path: PathBuf,
        /// What is newer.
        what: &'static str,
        /// The number in the file.
        found: i64,
        /// The newest number that this build knows.
        known: i64,
    },
    /// It is no database, or it is damaged.
    #[error("{path} is damaged or no database of this program; restore it from a copy or choose another directory")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Facts are gone, or too many.
    #[error("{path} is damaged: its streams have {told} facts and {found} are there; restore it from a copy")]
    Lost {
        /// The file.
        path: PathBuf,
        /// How many facts the rows of all streams tell of.
        told: u64,
        /// The position of the newest fact.
        found: u64,
    },
    /// The end of the log is gone.
    #[error(
        "{path} is damaged: it ends after {found} facts and {seen} were there before; restore it from a copy, or, if an \
         older copy was put back on purpose, remove views.db beside it"
    )]
    Ended {
        /// The file.
        path: PathBuf,
        /// How many facts the read models have seen.
        seen: GlobalSeq,
        /// The position of the newest fact.
        found: GlobalSeq,
    },
    /// It is another program's database.
    #[error("{path} is the database of another program; choose another directory")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// SQLite failed in another way, a full disk among them.
    #[error("could not open {path}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
}

/// A store in a directory. Dropping it waits for what is in the queue, closes the files and gives the lock back.
pub struct SqliteStore {
    pub(crate) queue: Option<writer::Queue>,
    pub(crate) readers: Readers,
    pub(crate) views: Arc<Readers>,
    pub(crate) projector: projector::Handle,
    pub(crate) head: watch::Receiver<GlobalSeq>,
    pub(crate) recent: Recent,
    /// From asking for appends until they are durable.
    pub(crate) appending: metrics::Histogram,
    threads: Vec<JoinHandle<()>>,
    directory: PathBuf,
    // Declared last: the lock is held until everything above is gone.
    _lock: File,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "SqliteStore({})", self.directory.display())
    }
}

impl SqliteStore {
    /// Opens the store in a directory, and makes both if they are not there. Blocks for some file operations.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed then but that the directory and an empty lock file may exist.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let directory = directory.as_ref();
        make_directory(directory)?;
        let lock = take_lock(directory)?;
        let path = directory.join("nexa.db");
        let connection = open_file(&path, &options)?;

        let sqlite = |source| OpenError::Sqlite { path: path.clone(), source };
        let newest = audit::newest(&connection).map_err(|source| sorted(&path, source))?;
        let told: i64 =
            connection.query_row(schema::FACTS_TOLD, [], |row| row.get(0)).map_err(|source| sorted(&path, source))?;
        if told.unsigned_abs() != newest {
            return Err(OpenError::Lost { path, told: told.unsigned_abs(), found: newest });
        }
        let thread = |source| OpenError::Io { doing: "start a thread for", path: path.clone(), source };
        let (checkpoints, checkpointer) = checkpoint::start(&path).map_err(thread)?;
        let head_sender = watch::Sender::new(GlobalSeq(newest));
        let head = head_sender.subscribe();
        let store_id = schema::store_id(&connection).map_err(|source| sorted(&path, source))?;
        let views_path = directory.join("views.db");
        let found = GlobalSeq(newest);
        if let Some(seen) = views_file::seen(&views_path, &store_id).filter(|seen| *seen > found) {
            return Err(OpenError::Ended { path, seen, found });
        }
        let indexer = Indexer::open(&connection, options.run_facts.unwrap_or(RUN_FACTS));
        let indexer = indexer.map_err(|source| sorted(&path, source))?;
        let recent = indexer.recent();
        let facts = projector::Facts { connection: connect(&path).map_err(sqlite)?, recent: recent.clone() };
        let views = Arc::new(Readers::new(&views_path));
        let (projector, projecting) =
            projector::start(facts, &views_path, &store_id, GlobalSeq(newest), Arc::clone(&views))
                .map_err(|source| sorted(&views_path, source))?;
        let listeners = writer::Listeners { head: head_sender, projector: projector.wake(), checkpoints };
        let (queue, writing) = writer::start(connection, newest, indexer, listeners).map_err(thread)?;
        Ok(Self {
            queue: Some(queue),
            readers: Readers::new(&path),
            views,
            projector,
            head,
            recent,
            appending: metrics::histogram!("nexa_store_append_seconds"),
            threads: vec![writing, checkpointer, projecting.map_err(thread)?],
            directory: directory.to_owned(),
            _lock: lock,
        })
    }

    /// Where it lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The writer ends when its queue does, and drops what keeps the other threads going.
        self.queue = None;
        self.projector.stop();
        for thread in self.threads.drain(..) {
            // A panic there has been printed, and there is nothing left to do about it here.
            let _ = thread.join();
        }
    }
}

/// Readable by its owner only: it holds everything that agents read and wrote.
fn make_directory(directory: &Path) -> Result<(), OpenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|source| OpenError::Io {
        doing: "create the directory",
        path: directory.to_owned(),
        source,
    })
}

/// Takes the lock of a directory, for as long as the file is open.
pub(crate) fn take_lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join("lock");
    let io = |doing| {
        let path = path.clone();
        move |source| OpenError::Io { doing, path, source }
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io("open the lock file"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            // The number is for people; without it the text says so.
            let _ = file.take(20).read_to_string(&mut process);
            let known = !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit());
            let process = if known { process } else { "unknown".to_owned() };
            return Err(OpenError::InUse { path: directory.to_owned(), process });
        }
        Err(TryLockError::Error(source)) => return Err(io("lock")(source)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| write!(file, "{}", std::process::id()))
        .map_err(io("write the lock file"))?;
    Ok(file)
}

fn sorted(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match trouble(&source) {
        Trouble::Damaged => OpenError::Damaged { path, source },
        _ => OpenError::Sqlite { path, source },
    }
}

/// Opens the file for writing, after a look at whether it may be written at all.
fn open_file(path: &Path, options: &Options) -> Result<Connection, OpenError> {
    if std::fs::metadata(path).map_or(0, |file| file.len()) == 0 {
        make_file(path)?;
    }
    let fail = |source| sorted(path, source);
    let (mut connection, schema, format) = check_file(path)?;
    if schema < SCHEMA_VERSION || format < i64::from(FORMAT) {
        schema::upgrade(&mut connection, schema, FORMAT).map_err(fail)?;
        info!(path = %path.display(), schema, format, "the store of an earlier build was brought up to date");
    }
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB).map_err(fail)?;
    if let Some(pages) = options.pages_max {
        connection.pragma_update(None, "max_page_count", pages).map_err(fail)?;
    }
    Ok(connection)
}

/// A connection to a file that exists and is one that this build knows, its schema and its format.
pub(crate) fn check_file(path: &Path) -> Result<(Connection, i64, i64), OpenError> {
    let fail = |source| sorted(path, source);
    let connection = connect(path).map_err(fail)?;
    let newer = |what, found, known| OpenError::Newer { path: path.to_owned(), what, found, known };
    match schema::inspect(&connection).map_err(fail)? {
        Found::Foreign => Err(OpenError::Foreign { path: path.to_owned() }),
        Found::Ours { schema, .. } if schema > SCHEMA_VERSION => Err(newer("schema", schema, SCHEMA_VERSION)),
        Found::Ours { format, .. } if format > i64::from(FORMAT) => Err(newer("format", format, i64::from(FORMAT))),
        Found::Ours { schema, format } => Ok((connection, schema, format)),
    }
}

/// Makes the file under another name and gives it its own when it is complete and durable: a power cut leaves either
/// nothing or all of it. The name is durable with the first commit, before which nothing is acknowledged: a process's first
/// sync of a log also syncs the directory, whoever made the log (`UNIXFILE_DIRSYNC` in SQLite's `os_unix.c`).
fn make_file(path: &Path) -> Result<(), OpenError> {
    let draft = path.with_extension("db.new");
    let io = |source| OpenError::Io { doing: "create", path: path.to_owned(), source };
    let bytes = image::log(&image::new_store_id().map_err(io)?, FORMAT);
    // Whatever an earlier try left is written over.
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft);
    file.and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&draft, path))
        .map_err(io)
}

/// A connection to a file that exists.
pub(crate) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    prepare(&connection)?;
    Ok(connection)
}

/// Settings that every connection has.
pub(crate) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // After a failed sync nothing may be written through any descriptor, not even when it is closed.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // A damaged schema must not be able to call functions, and damaged cells are noticed while they are read.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(())
}
