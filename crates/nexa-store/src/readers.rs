//! A small pool of read-only connections.
//!
//! A caller waits for a free one, then reads on a thread that may block. Both together end after `READ_DEADLINE`:
//! then the statement is interrupted and the caller told that the store is not available.
//!
//! The wait for a turn is done on the threads of whoever opened the store. A caller on other threads who is given a turn
//! and does not come to use it, because those threads have too much to do, would keep everybody else from reading.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nexa_ports::store::StoreError;
use rusqlite::{Connection, OpenFlags};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::open::prepare;
use crate::schema;
use crate::trouble::refusal;

/// Connections of one pool.
const READERS_MAX: usize = 4;
/// How long one read may take, waiting for its turn included.
const READ_DEADLINE: Duration = Duration::from_secs(10);
/// Statements that one connection keeps compiled.
pub(crate) const STATEMENTS_MAX: usize = 64;

/// The pool.
pub(crate) struct Readers {
    pool: Pool,
    /// Where turns are waited for; `None` if the store was opened on a thread without a runtime.
    home: Option<Handle>,
}

#[derive(Clone)]
struct Pool {
    path: Arc<Path>,
    free: Arc<Mutex<Vec<Connection>>>,
    turns: Arc<Semaphore>,
}

/// A connection that goes back to the pool, also when its reader panics.
struct Lent {
    connection: Option<Connection>,
    free: Arc<Mutex<Vec<Connection>>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(connection), Ok(mut free)) = (self.connection.take(), self.free.lock()) {
            free.push(connection);
        }
    }
}

impl Readers {
    /// A pool for a file that exists. Connections are opened when they are first needed.
    pub(crate) fn new(path: &Path) -> Self {
        let pool = Pool { path: path.into(), free: Arc::default(), turns: Arc::new(Semaphore::new(READERS_MAX)) };
        Self { pool, home: Handle::try_current().ok() }
    }

    /// Closes all connections and makes a change while nobody reads; later reads open new ones. Blocks until the reads
    /// of this moment are over, which is at most `READ_DEADLINE`.
    pub(crate) fn renew<T>(&self, change: impl FnOnce() -> T) -> T {
        let all = self.pool.turns.acquire_many(READERS_MAX as u32);
        let _turns = futures::executor::block_on(all).expect("nobody closes it");
        self.pool.free.lock().expect("no holder of this lock can panic").clear();
        change()
    }

    /// Runs a question within one read transaction, so that all it sees is of one moment. Cancel-safe.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match &self.home {
            Some(home) if Handle::current().id() != home.id() => {
                let mut reading = Reading(home.spawn(self.pool.clone().read(question)));
                let ended = |error| Err(StoreError::Unavailable { detail: format!("a read ended early: {error}") });
                (&mut reading.0).await.unwrap_or_else(ended)
            }
            _ => self.pool.clone().read(question).await,
        }
    }
}

/// A read elsewhere, given up with its caller.
struct Reading<T>(JoinHandle<T>);

impl<T> Drop for Reading<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Pool {
    async fn read<T: Send + 'static>(
        self,
        question: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let late = || StoreError::Unavailable { detail: format!("a read took longer than {READ_DEADLINE:?}") };
        let start = tokio::time::Instant::now();
        let turn = tokio::time::timeout(READ_DEADLINE, Arc::clone(&self.turns).acquire_owned())
            .await
            .map_err(|_| late())?
            .map_err(|_| StoreError::Unavailable { detail: "the store was closed".into() })?;
        let idle = self.free.lock().expect("no holder of this lock can panic").pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.path).map_err(|error| refusal(&error))?,
        };
        let interrupt = connection.get_interrupt_handle();
        let lent = Lent { connection: Some(connection), free: Arc::clone(&self.free) };
        let reading = tokio::task::spawn_blocking(move || {
            // The connection is back before the turn is.
            let (_turn, lent) = (turn, lent);
            let connection = lent.connection.as_ref().expect("it is only taken when it is given back");
            let snapshot = connection.unchecked_transaction().map_err(|error| refusal(&error))?;
            question(&snapshot)
        });
        match tokio::time::timeout_at(start + READ_DEADLINE, reading).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => Err(StoreError::Unavailable { detail: format!("a reader ended: {panic}") }),
            Err(_) => {
                interrupt.interrupt();
                Err(late())
            }
        }
    }
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    prepare(&connection)?;
    // Who only looks at a folder may meet an earlier one.
    schema::stand_in(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}
