-- What a node keeps in PostgreSQL, as of schema version 1. Everything lies in the schema `nexa`, which every connection has as its
-- search path. What later versions added is in the files `step_N.sql`.

CREATE TABLE meta (key text PRIMARY KEY, value text NOT NULL);

-- The position of the newest fact. Its one row is locked last and given up by the commit, so that positions are given out in
-- the order of commits and without gaps.
CREATE TABLE head (one boolean PRIMARY KEY DEFAULT true CHECK (one), position bigint NOT NULL) WITH (fillfactor = 10);
INSERT INTO head (position) VALUES (0);

-- Facts of all streams. `payload` is null if its bytes are a blob of `tenant`.
CREATE TABLE events (
    position bigint PRIMARY KEY,
    stream   bytea NOT NULL,
    version  bigint NOT NULL,
    workload bytea,
    header   bytea NOT NULL,
    payload  bytea,
    tenant   text,
    blob     bytea,
    link     bytea NOT NULL
);
ALTER TABLE events ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX events_by_stream ON events (stream, version);
CREATE INDEX events_by_workload ON events (workload, position) WHERE workload IS NOT NULL;

-- Where each stream without an owner ends.
CREATE TABLE streams (
    stream    bytea PRIMARY KEY,
    version   bigint NOT NULL,
    link      bytea NOT NULL,
    cancelled boolean NOT NULL DEFAULT false,
    ended     boolean NOT NULL DEFAULT false
) WITH (fillfactor = 70);

-- One row an agent: the fence, the directory, and where its stream ends. No index has a column that every append changes, so
-- that updates stay on their page.
CREATE TABLE agents (
    agent     bytea PRIMARY KEY,
    workload  bytea NOT NULL,
    tenant    text NOT NULL,
    principal text NOT NULL,
    node      text,
    epoch     bigint NOT NULL,
    version   bigint NOT NULL,
    link      bytea NOT NULL,
    state     text NOT NULL,
    ended     boolean NOT NULL,
    due       bigint,
    cancelled boolean NOT NULL DEFAULT false,
    priority  smallint NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX agents_by_workload ON agents (workload, agent);
CREATE INDEX agents_live ON agents (agent) WHERE NOT ended;
CREATE INDEX agents_unplaced ON agents (agent) WHERE NOT ended AND node IS NULL;
CREATE INDEX agents_of ON agents (node, agent) WHERE NOT ended;
CREATE INDEX agents_due ON agents (due) WHERE NOT ended AND due IS NOT NULL;

-- What waits for agents. `body` is null once it was taken: the row stays, so that it cannot come twice.
CREATE TABLE inbox (
    arrival   bigint GENERATED ALWAYS AS IDENTITY,
    agent     bytea NOT NULL,
    input     bytea NOT NULL,
    body      bytea,
    at        bigint NOT NULL,
    principal text NOT NULL,
    PRIMARY KEY (agent, input)
) WITH (fillfactor = 80);
CREATE INDEX inbox_waiting ON inbox (agent, arrival) WHERE body IS NOT NULL;

CREATE TABLE snapshots (
    agent    bytea PRIMARY KEY,
    version  bigint NOT NULL,
    bytes    bytea NOT NULL,
    checksum bytea NOT NULL
);
ALTER TABLE snapshots ALTER COLUMN bytes SET STORAGE EXTERNAL;

CREATE TABLE blobs (
    tenant text NOT NULL,
    hash   bytea NOT NULL,
    bytes  bytea NOT NULL,
    PRIMARY KEY (tenant, hash)
);
ALTER TABLE blobs ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- Who leads, by the newest epoch that anybody told, and what leaders keep. Names are bytes for their order.
CREATE TABLE leader (one boolean PRIMARY KEY DEFAULT true CHECK (one), epoch bigint NOT NULL);
INSERT INTO leader (epoch) VALUES (0);
CREATE TABLE records (
    name    bytea PRIMARY KEY,
    version bigint NOT NULL,
    epoch   bigint NOT NULL,
    value   bytea NOT NULL
);
