//! Opening a database: its schema, the connections, the tasks; [`PostgresStore`] itself.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::Instant;

use nexa_ports::formats::{Formats, Unreadable, Writing};
use nexa_ports::store::StoreError;
use nexa_types::{GlobalSeq, NodeId};
use sqlx::postgres::PgConnectOptions;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::dial::{Dial, Role};
use crate::follow::{self, Models};
use crate::pool::Pool;
use crate::projector::Projector;
use crate::schema;
use crate::trouble::told;
use crate::writer::Queue;

/// How to reach a database, and with how many connections. A node has so many as these say, one that folds, and one that
/// follows.
#[derive(Clone)]
pub struct Settings {
    /// `postgres://user:password@host:port/database`, with `sslmode`, `sslrootcert` and the like as parameters. Never shown.
    pub url: String,
    /// Whose connections they are; the server shows it.
    pub node: NodeId,
    /// Tasks that append, each with a connection; at least one.
    pub writers: usize,
    /// Connections for questions.
    pub readers: usize,
    /// Connections for posts, cancels, owners, snapshots and blobs.
    pub callers: usize,
    /// The formats that are read, and the one that is written: what the database was written in before, until it is raised.
    pub writing: Writing,
}

impl Settings {
    /// A database, by its address, for a node, with the usual numbers of connections.
    pub fn new(url: impl Into<String>, node: NodeId) -> Self {
        let writing = Writing::oldest(Formats::THIS_BUILD);
        Self { url: url.into(), node, writers: WRITERS_DEFAULT, readers: 4, callers: 4, writing }
    }
}

/// Tasks that append unless told otherwise. Commits with facts follow each other, so that a second task mostly waits for the
/// first, and makes its batches smaller.
const WRITERS_DEFAULT: usize = 1;

impl fmt::Debug for Settings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url: _, node, writers, readers, callers, writing: _ } = self;
        write!(out, "Settings({node}, {writers} writers, {readers} readers, {callers} callers)")
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is none.
    #[error("the database's address is not of the form postgres://user:password@host:port/database: {detail}")]
    Address {
        /// What is wrong, without the address.
        detail: String,
    },
    /// The server is not there, or lets nobody in.
    #[error("could not reach the database at {place}: {source}; check that it runs and takes connections")]
    Unreachable {
        /// Its host and port.
        place: String,
        /// Why not.
        source: StoreError,
    },
    /// A newer build has written it.
    #[error(
        "the database was written by a newer build ({what} {found}, this build knows up to {known}); upgrade this build"
    )]
    Newer {
        /// What is newer.
        what: &'static str,
        /// The number in the database.
        found: i64,
        /// The newest number that this build knows.
        known: i64,
    },
    /// An older build has written it.
    #[error("the database is of another release: {error}")]
    Format {
        /// How they differ.
        error: Unreadable,
    },
    /// Facts are gone, or too many.
    #[error("the database is damaged: {told} facts were stored and the newest is {found}; restore it from a copy")]
    Lost {
        /// How many there must be.
        told: u64,
        /// The position of the newest fact.
        found: u64,
    },
    /// The schema is another program's.
    #[error("the schema `nexa` of the database has the tables of another program; choose another database")]
    Foreign,
    /// The server refused something.
    #[error("the database refused to be prepared: {detail}")]
    Refused {
        /// What the server says.
        detail: String,
    },
}

impl OpenError {
    pub(crate) fn sql(error: sqlx::Error) -> Self {
        Self::Refused { detail: told(&error) }
    }
}

/// A store in a database. Dropping it lets what is in its queues be done and its connections go; [`PostgresStore::close`]
/// waits for that.
pub struct PostgresStore {
    pub(crate) queue: Queue,
    pub(crate) readers: Pool,
    pub(crate) callers: Pool,
    pub(crate) models: watch::Receiver<Models>,
    pub(crate) head: watch::Sender<GlobalSeq>,
    pub(crate) eager: follow::Eager,
    pub(crate) writing: Writing,
    /// When a reader last had damaged read models made again.
    pub(crate) damage: Mutex<Option<Instant>>,
    /// From asking for appends until they are durable.
    pub(crate) appending: metrics::Histogram,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    place: String,
    closing: watch::Sender<bool>,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PostgresStore({})", self.place)
    }
}

impl PostgresStore {
    /// Opens the store in a database, and makes its tables if they are not there. Its tasks run on the threads of the
    /// runtime that this is called on.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed then.
    pub async fn connect(settings: Settings) -> Result<Self, OpenError> {
        let options = PgConnectOptions::from_str(&settings.url)
            .map_err(|error| OpenError::Address { detail: address_fault(&error) })?;
        let place = match options.get_socket() {
            Some(path) => path.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let dial = Dial::new(options, settings.node.as_str());
        let unreachable = |source| OpenError::Unreachable { place: place.clone(), source };
        let mut open = dial.open(Role::Follow).await.map_err(unreachable)?;
        let prepared =
            tokio::time::timeout(PREPARE_DEADLINE, schema::prepare(&mut open.connection, &settings.writing)).await;
        let late = || StoreError::Unavailable { detail: format!("it was not ready within {PREPARE_DEADLINE:?}") };
        prepared.map_err(|_| unreachable(late()))??;
        let at = follow::look(&dial, &mut open).await.map_err(unreachable)?;

        let home = Handle::current();
        let (head, models) = (watch::Sender::new(at.newest), watch::Sender::new(at.models));
        let (closing, closed) = watch::channel(false);
        let eager = follow::Eager::default();
        let (queue, mut tasks) = Queue::start(&dial, settings.writers.max(1), &head, &home);
        let readers = Pool::new(dial.clone(), Role::Read, settings.readers.max(1), home.clone());
        let callers = Pool::new(dial.clone(), Role::Write, settings.callers.max(1), home.clone());
        let follower = follow::Follower::new(dial.clone(), open, head.clone(), models.clone(), eager.clone());
        tasks.push(home.spawn(follower.work(closed.clone())));
        let reads = settings.writing.reads();
        let projector = Projector::new(dial, reads, head.subscribe(), models.clone(), eager.clone());
        tasks.push(home.spawn(projector.work(closed)));
        Ok(Self {
            queue,
            readers,
            callers,
            models: models.subscribe(),
            damage: Mutex::default(),
            head,
            eager,
            writing: settings.writing,
            appending: metrics::histogram!("nexa_store_append_seconds"),
            tasks: Mutex::new(tasks),
            place,
            closing,
        })
    }

    /// Lets nobody in any more, does what is in the queues, and waits until every task has ended.
    pub async fn close(&self) {
        self.queue.close();
        self.closing.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().expect("no holder of this lock can panic"));
        for task in tasks {
            // A panic there has been printed, and there is nothing left to do about it here.
            let _ = task.await;
        }
        self.readers.close();
        self.callers.close();
    }

    /// Why the next write may be refused, as far as the latest one tells.
    pub fn trouble(&self) -> Option<StoreError> {
        self.queue.trouble()
    }
}

/// How long the schema may take to be looked at or made, others who do so included.
const PREPARE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);

/// What is wrong with an address, without any part of it.
fn address_fault(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Configuration(source) => match source.downcast_ref::<std::num::ParseIntError>() {
            Some(_) => "its port is not a number".to_owned(),
            None => "it could not be read".to_owned(),
        },
        _ => "it could not be read".to_owned(),
    }
}
