//! The tables of `nexa.db` and of `views.db`.
//!
//! New files are copies of empty ones that are made once, when this crate is built: making tables takes a processor
//! milliseconds, which is much of a short run. So this file belongs to the build script too, and knows nothing of the crate.

/// Marks a file as ours: "nexa" in ASCII.
pub(crate) const APPLICATION_ID: i64 = 0x6e65_7861;

/// The newest schema that this build knows. Files of earlier ones are brought up to it by [`STEPS`].
pub(crate) const SCHEMA_VERSION: i64 = 4;

/// What leads from a version to the next one, from version 1 on. A new file takes them as well.
pub(crate) const STEPS: [&str; 3] = [LEADERSHIP, ASKS, INDICES];

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

/// Those of `nexa.db`, before [`STEPS`].
#[allow(dead_code, reason = "the build script's")]
pub(crate) const LOG: &str = "
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

/// Grows with every change of the tables or of what the folds mean; the file is then made again.
pub(crate) const VIEWS_VERSION: i64 = 2;

/// Those of `views.db`.
#[allow(dead_code, reason = "the build script's")]
pub(crate) const VIEWS: &str = "
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
CREATE TABLE memories (
    tenant TEXT NOT NULL, workload BLOB NOT NULL, key TEXT NOT NULL, seq INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (tenant, workload, key)
) STRICT;
CREATE INDEX memories_by_age ON memories (tenant, workload, seq);
CREATE TABLE history (
    position INTEGER PRIMARY KEY, at INTEGER NOT NULL, tenant TEXT NOT NULL, workload BLOB, agent BLOB,
    kind TEXT NOT NULL, text TEXT NOT NULL
) STRICT;
CREATE VIRTUAL TABLE history_words USING fts5 (
    text, content = 'history', content_rowid = 'position', tokenize = 'unicode61 remove_diacritics 0'
);
";

/// What the key of a store's id has in an empty file.
pub(crate) const STORE_ID_UNSET: &str = "################################";

/// What the key of its format has.
pub(crate) const FORMAT_UNSET: &str = "#####";
