//! What SQLite reports, sorted by what can be done about it.

use nexa_ports::store::StoreError;
use rusqlite::ErrorCode;

/// What a failed statement means for the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No room. Nothing was written; it works again when there is room.
    Full,
    /// Somebody else holds the file for a moment.
    Busy,
    /// The file is damaged.
    Damaged,
    /// Too large for SQLite or out of memory: this call only.
    Refused,
    /// Reading or writing failed; the descriptor cannot be trusted any more.
    Broken,
}

/// Sorts an error.
pub(crate) fn trouble(error: &rusqlite::Error) -> Trouble {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Trouble::Full,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OperationInterrupted) => Trouble::Busy,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::TypeMismatch) => Trouble::Damaged,
        Some(ErrorCode::TooBig | ErrorCode::OutOfMemory) => Trouble::Refused,
        Some(_) => Trouble::Broken,
        // A column of another type than the schema says.
        None => Trouble::Damaged,
    }
}

/// What a caller is told about a failed reading statement, or a writing one that was rolled back.
pub(crate) fn refusal(error: &rusqlite::Error) -> StoreError {
    match trouble(error) {
        Trouble::Full => StoreError::DiskFull,
        Trouble::Damaged => StoreError::Corrupt { detail: error.to_string() },
        Trouble::Busy | Trouble::Refused | Trouble::Broken => StoreError::Unavailable { detail: error.to_string() },
    }
}
