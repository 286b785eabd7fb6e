//! What PostgreSQL reports, sorted by what can be done about it and by whether anything may have been stored.

use nexa_ports::store::StoreError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// What a failed call means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No room. Nothing was stored; it works again when there is room.
    Full,
    /// Somebody else was in the way. Nothing was stored; the next try may do better.
    Again,
    /// The server refused it, and goes on. Nothing was stored.
    Refused,
    /// It took the server too long, or it waited too long for others. Nothing was stored.
    Slow,
    /// What is stored is damaged.
    Damaged,
    /// The connection is gone, or will be: what was sent may have been done.
    Lost,
}

/// Sorts an error by the classes of PostgreSQL's error codes (its documentation, appendix A).
pub(crate) fn trouble(error: &sqlx::Error) -> Trouble {
    let Some(database) = error.as_database_error() else {
        return match error {
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::RowNotFound => Trouble::Damaged,
            sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) | sqlx::Error::TypeNotFound { .. } => {
                Trouble::Refused
            }
            _ => Trouble::Lost,
        };
    };
    // A session that is ended may have been ended after its commit.
    let fatal = database
        .try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic));
    let code = database.code().unwrap_or_default();
    match &*code {
        "53100" => Trouble::Full,
        _ if fatal => Trouble::Lost,
        // A deadlock, a serialisation failure, a key that somebody else has just made.
        "40001" | "40P01" | "23505" => Trouble::Again,
        "57014" | "55P03" => Trouble::Slow,
        "XX001" | "XX002" => Trouble::Damaged,
        _ => Trouble::Refused,
    }
}

/// Why a question or a write within a connection failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The connection or a statement.
    Sql(sqlx::Error),
    /// What was found.
    Store(StoreError),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    /// Whether the connection must not be used any more.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(self, Self::Sql(error) if trouble(error) == Trouble::Lost)
    }

    /// Whether the same again may do better at once.
    pub(crate) fn is_again(&self) -> bool {
        matches!(self, Self::Sql(error) if trouble(error) == Trouble::Again)
    }

    /// Whether of several calls together one may have been the reason.
    pub(crate) fn may_be_one_call_s(&self) -> bool {
        match self {
            Self::Sql(error) => matches!(trouble(error), Trouble::Full | Trouble::Refused | Trouble::Damaged),
            Self::Store(error) => !matches!(error, StoreError::Ambiguous { .. }),
        }
    }

    /// What a caller is told whose call can have stored nothing.
    pub(crate) fn refusal(self) -> StoreError {
        let error = match self {
            Self::Store(error) => return error,
            Self::Sql(error) => error,
        };
        match trouble(&error) {
            Trouble::Full => StoreError::DiskFull,
            Trouble::Damaged => StoreError::Corrupt { detail: told(&error) },
            Trouble::Again | Trouble::Refused | Trouble::Slow | Trouble::Lost => {
                StoreError::Unavailable { detail: told(&error) }
            }
        }
    }

    /// What a caller is told whose call was on its way to being stored.
    pub(crate) fn outcome(self) -> StoreError {
        match &self {
            Self::Sql(error) if trouble(error) == Trouble::Lost => StoreError::Ambiguous { detail: told(error) },
            _ => self.refusal(),
        }
    }
}

/// An error as a line, with the server's code. Connection strings are never part of it.
pub(crate) fn told(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(database) => format!("{} ({})", database.message(), database.code().unwrap_or_default()),
        None => error.to_string(),
    }
}
