//! The tables of `nexa.db`, and what tells that a file is one.

use rusqlite::Connection;

/// Marks a file as ours: "nexa" in ASCII.
pub(crate) const APPLICATION_ID: i64 = 0x6e65_7861;

/// The newest schema that this build knows. Files of earlier ones are brought up to it by [`STEPS`].
pub(crate) const SCHEMA_VERSION: i64 = 4;

/// What leads from a version to the next one, from version 1 on. A new file takes them as well.
const STEPS: [&str; 3] = [LEADERSHIP, ASKS, INDICES];

/// The newest leadership that anybody told of, and what leaders keep.
const LEADERSHIP: &str = "
CREATE TABLE leader (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL) STRICT;
INSERT INTO leader (one, epoch) VALUES (1, 0);
CREATE TABLE records (
    name    TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    epoch   INTEGER NOT NULL,
    value   BLOB NOT NULL
) STRICT;
";

/// What agents ask of their nodes, as it stands in their first facts; null for nothing.
const ASKS: &str = "ALTER TABLE agents ADD COLUMN asks BLOB;";

/// Indices that are filled in runs, behind the facts: `indexed` says how far.
const INDICES: &str = "
CREATE TABLE stream_index (
    stream   BLOB NOT NULL,
    version  INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (stream, version)
) WITHOUT ROWID, STRICT;
CREATE TABLE workload_index (
    workload BLOB NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (workload, position)
) WITHOUT ROWID, STRICT;
CREATE TABLE indexed (one INTEGER PRIMARY KEY CHECK (one = 1), position INTEGER NOT NULL) STRICT;
INSERT INTO stream_index SELECT stream, version, position FROM events ORDER BY stream, version;
INSERT INTO workload_index SELECT workload, position FROM events WHERE workload IS NOT NULL ORDER BY workload, position;
INSERT INTO indexed SELECT 1, coalesce(max(position), 0) FROM events;
DROP INDEX events_by_stream;
DROP INDEX events_by_workload;
";

/// What stands in for [`INDICES`] where they are not there yet and may not be made: for who only looks at a file.
const STAND_IN: &str = "
CREATE TEMP VIEW stream_index AS SELECT stream, version, position FROM events;
CREATE TEMP VIEW workload_index AS SELECT workload, position FROM events WHERE workload IS NOT NULL;
CREATE TEMP VIEW indexed AS SELECT coalesce(max(position), 0) AS position FROM events;
";

const TABLES: &str = "
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID, STRICT;

-- Facts of all streams in the order of their arrival. `payload` is null if its bytes are a blob.
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    stream   BLOB NOT NULL,
    version  INTEGER NOT NULL,
    workload BLOB,
    header   BLOB NOT NULL,
    payload  BLOB,
    blob     BLOB,
    link     BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_by_stream ON events (stream, version);
CREATE INDEX events_by_workload ON events (workload) WHERE workload IS NOT NULL;

-- Where each stream without an owner ends.
CREATE TABLE streams (
    stream    BLOB PRIMARY KEY,
    version   INTEGER NOT NULL,
    link      BLOB NOT NULL,
    cancelled INTEGER NOT NULL,
    ended     INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- One row an agent: the fence, the directory, and where its stream ends.
CREATE TABLE agents (
    agent     BLOB PRIMARY KEY,
    workload  BLOB NOT NULL,
    tenant    TEXT NOT NULL,
    principal TEXT NOT NULL,
    node      TEXT,
    epoch     INTEGER NOT NULL,
    version   INTEGER NOT NULL,
    link      BLOB NOT NULL,
    state     TEXT NOT NULL,
    ended     INTEGER NOT NULL,
    due       INTEGER,
    cancelled INTEGER NOT NULL,
    priority  INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX agents_by_workload ON agents (workload);
CREATE INDEX agents_live ON agents (agent) WHERE ended = 0;
CREATE INDEX agents_unplaced ON agents (agent) WHERE ended = 0 AND node IS NULL;
CREATE INDEX agents_due ON agents (due) WHERE ended = 0 AND due IS NOT NULL;

-- What waits for agents. `body` is null once it was taken: the row stays, so that it cannot come twice.
CREATE TABLE inbox (
    arrival   INTEGER PRIMARY KEY,
    agent     BLOB NOT NULL,
    input     BLOB NOT NULL,
    body      BLOB,
    at        INTEGER NOT NULL,
    principal TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX inbox_by_input ON inbox (agent, input);
CREATE INDEX inbox_waiting ON inbox (agent, arrival) WHERE body IS NOT NULL;

CREATE TABLE snapshots (
    agent    BLOB PRIMARY KEY,
    version  INTEGER NOT NULL,
    bytes    BLOB NOT NULL,
    checksum BLOB NOT NULL
) STRICT;

CREATE TABLE blobs (
    tenant TEXT NOT NULL,
    hash   BLOB NOT NULL,
    bytes  BLOB NOT NULL,
    PRIMARY KEY (tenant, hash)
) STRICT;
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

/// Makes the tables in an empty file, in one transaction.
pub(crate) fn create(connection: &mut Connection, format: u16) -> rusqlite::Result<()> {
    let change = connection.transaction()?;
    change.execute_batch(TABLES)?;
    STEPS.iter().try_for_each(|step| change.execute_batch(step))?;
    change.pragma_update(None, "application_id", APPLICATION_ID)?;
    for (key, value) in [("schema_version", SCHEMA_VERSION.to_string()), ("format_floor", format.to_string())] {
        change.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", [key, &value])?;
    }
    // Tells one store from another, as when the read models of one lie beside the facts of another.
    change.execute("INSERT INTO meta (key, value) VALUES ('store_id', lower(hex(randomblob(16))))", [])?;
    change.commit()
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
