//! Connections: how they are made, with which deadlines, and how all of them learn that the server went away.
//!
//! Whoever meets a lost connection starts a new era: connections that idle since before it are thrown away instead of tried,
//! since a write into one whose server was restarted would have an unknown result for no reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nexa_ports::store::StoreError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::trouble::{Fault, told};

/// How long a connection may take, its handshake and its greeting included.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long one call may take on its connection. Beyond the server's own limits, so that it is met only when the server or
/// the way to it stands still.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// How long the server works on one statement.
const STATEMENT_TIMEOUT: &str = "8s";
/// How long a statement waits for somebody else's lock.
const LOCK_TIMEOUT: &str = "5s";
/// How long a transaction may stand still before the server ends its session: projectors have such ones, and a
/// cancel that holds a workload has a shorter time.
const IDLE_TIMEOUT: &str = "10s";
/// Statements that one connection keeps prepared.
const STATEMENTS_MAX: usize = 128;

/// What a connection is for; part of its name, which the server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Appends in batches.
    Append,
    /// Other writes, one statement each.
    Write,
    /// Questions.
    Read,
    /// Folds facts.
    Project,
    /// Asks how far facts and read models are.
    Follow,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Write => "write",
            Self::Read => "read",
            Self::Project => "project",
            Self::Follow => "follow",
        }
    }
}

/// How to reach the server.
#[derive(Clone)]
pub(crate) struct Dial {
    options: PgConnectOptions,
    node: Arc<str>,
    era: Arc<AtomicU64>,
    /// Whether the server did not answer, or let nobody in, when it was last tried.
    is_away: Arc<AtomicBool>,
}

/// A connection and the era that it was made in.
pub(crate) struct Open {
    pub(crate) connection: PgConnection,
    era: u64,
}

impl Dial {
    /// With these options, in the schema of ours and with our limits.
    pub(crate) fn new(options: PgConnectOptions, node: &str) -> Self {
        let options = options.statement_cache_capacity(STATEMENTS_MAX).disable_statement_logging().options([
            ("search_path", "nexa"),
            ("statement_timeout", STATEMENT_TIMEOUT),
            ("lock_timeout", LOCK_TIMEOUT),
            ("idle_in_transaction_session_timeout", IDLE_TIMEOUT),
            ("default_transaction_isolation", "read committed"),
            // Compiling a statement takes longer than any of ours.
            ("jit", "off"),
            // A plan that was made while a table was small must not be kept when it is not.
            ("enable_seqscan", "off"),
            ("plan_cache_mode", "force_generic_plan"),
            ("client_min_messages", "error"),
        ]);
        Self { options, node: node.into(), era: Arc::default(), is_away: Arc::default() }
    }

    /// A new connection, at most within [`CONNECT_DEADLINE`]. Nothing was stored if there is none.
    pub(crate) async fn open(&self, role: Role) -> Result<Open, StoreError> {
        let era = self.era.load(Ordering::Acquire);
        let mut name = format!("nexa {} {}", role.word(), self.node);
        name.truncate((0..=NAME_BYTES_MAX.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0));
        let options = self.options.clone().application_name(&name);
        let making = async {
            let mut connection = PgConnection::connect_with(&options).await?;
            // Whatever the server's default is, an acknowledged append is on its disk.
            sqlx::query("SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')")
                .execute(&mut connection)
                .await?;
            Ok::<_, sqlx::Error>(connection)
        };
        let made = tokio::time::timeout(CONNECT_DEADLINE, making).await;
        self.is_away.store(!matches!(made, Ok(Ok(_))), Ordering::Release);
        match made {
            Ok(Ok(connection)) => Ok(Open { connection, era }),
            Ok(Err(error)) => Err(StoreError::Unavailable { detail: format!("could not connect: {}", told(&error)) }),
            Err(_) => Err(StoreError::Unavailable { detail: format!("no connection within {CONNECT_DEADLINE:?}") }),
        }
    }

    /// Whether a connection may still be used.
    pub(crate) fn is_of_now(&self, open: &Open) -> bool {
        open.era == self.era.load(Ordering::Acquire)
    }

    /// Says that a connection was lost.
    pub(crate) fn lost(&self) {
        self.era.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the server was away when it was last tried. Whoever has others to think of has one of them try.
    pub(crate) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Acquire)
    }

    /// Waits for a call on a connection, at most for [`CALL_DEADLINE`].
    pub(crate) async fn within<T>(&self, call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let answer = match tokio::time::timeout(CALL_DEADLINE, call).await {
            Ok(answer) => answer,
            Err(_) => Err(Fault::Sql(sqlx::Error::Io(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!("the server did not answer within {CALL_DEADLINE:?}"),
            )))),
        };
        if answer.as_ref().is_err_and(Fault::is_loss) {
            self.is_away.store(true, Ordering::Release);
            self.lost();
        } else {
            self.is_away.store(false, Ordering::Release);
        }
        answer
    }
}

/// Bytes of an application name that PostgreSQL keeps.
const NAME_BYTES_MAX: usize = 63;
