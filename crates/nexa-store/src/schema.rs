//! What tells that a file is a `nexa.db`, and how an earlier one becomes one of today.

use rusqlite::Connection;

use crate::tables::{APPLICATION_ID, SCHEMA_VERSION, STEPS};

/// What stands in for the indices of the last step where they are not there yet and may not be made: for who only looks at a file.
const STAND_IN: &str = "
CREATE TEMP VIEW stream_index AS SELECT stream, version, position FROM events;
CREATE TEMP VIEW workload_index AS SELECT workload, position FROM events WHERE workload IS NOT NULL;
CREATE TEMP VIEW indexed AS SELECT coalesce(max(position), 0) AS position FROM events;
";

/// How many facts there must be, by what the streams' own rows say.
pub(crate) const FACTS_TOLD: &str =
    "SELECT (SELECT coalesce(sum(version), 0) FROM agents) + (SELECT coalesce(sum(version), 0) FROM streams)";

/// What a file says about itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is ours, of this schema and format floor.
    Ours { schema: i64, format: i64 },
    /// It is some other program's database.
    Foreign,
}

/// Looks at a file without changing it.
pub(crate) fn inspect(connection: &Connection) -> rusqlite::Result<Found> {
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if application != APPLICATION_ID {
        return Ok(Found::Foreign);
    }
    let schema = number(connection, "schema_version")?;
    Ok(Found::Ours { schema, format: number(connection, "format_floor")? })
}

fn number(connection: &Connection, key: &str) -> rusqlite::Result<i64> {
    connection.query_row("SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?1", [key], |row| row.get(0))
}

/// Brings an older file up to date, in one transaction: its tables, and the format that a build must read which opens it.
pub(crate) fn upgrade(connection: &mut Connection, from: i64, format: u16) -> rusqlite::Result<()> {
    let change = connection.transaction()?;
    let taken = usize::try_from(from - 1).unwrap_or(usize::MAX);
    STEPS.iter().skip(taken).try_for_each(|step| change.execute_batch(step))?;
    for (key, value) in [("schema_version", SCHEMA_VERSION.to_string()), ("format_floor", format.to_string())] {
        change.execute("UPDATE meta SET value = ?2 WHERE key = ?1", [key, &value])?;
    }
    change.commit()
}

/// Lets a connection ask the file of an earlier schema as one of this. Leaves other files alone.
pub(crate) fn stand_in(connection: &Connection) -> rusqlite::Result<()> {
    let is_earlier = "SELECT 1 FROM sqlite_schema WHERE name = 'events_by_stream'";
    if connection.prepare(is_earlier)?.exists([])? { connection.execute_batch(STAND_IN) } else { Ok(()) }
}

/// The id that the store got when it was made.
pub(crate) fn store_id(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("SELECT value FROM meta WHERE key = 'store_id'", [], |row| row.get(0))
}
