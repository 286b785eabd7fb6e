-- Read models, views version 1. All of it can be folded again; names and texts are bytes, since they may hold what `text`
-- refuses.

-- How far they have seen. `right_no` grows with each projector that takes over; `asked` and `made` count rebuilds.
CREATE TABLE view_meta (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    format   bigint NOT NULL,
    applied  bigint NOT NULL,
    right_no bigint NOT NULL,
    holder   integer,
    asked    bigint NOT NULL,
    made     bigint NOT NULL
) WITH (fillfactor = 10);

CREATE TABLE view_workloads (
    id bytea PRIMARY KEY, tenant text NOT NULL, seq bigint NOT NULL, state text NOT NULL, body bytea NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX view_workloads_by_tenant ON view_workloads (tenant, seq);

CREATE TABLE view_agents (
    id bytea PRIMARY KEY, tenant text NOT NULL, workload bytea NOT NULL, seq bigint NOT NULL, state text NOT NULL,
    body bytea NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX view_agents_by_tenant ON view_agents (tenant, seq);
CREATE INDEX view_agents_by_workload ON view_agents (workload, seq);

CREATE TABLE view_approvals (
    id bytea PRIMARY KEY, tenant text NOT NULL, workload bytea NOT NULL, seq bigint NOT NULL, open boolean NOT NULL,
    body bytea NOT NULL
);
CREATE INDEX view_approvals_by_tenant ON view_approvals (tenant, seq);
CREATE INDEX view_approvals_open ON view_approvals (tenant, seq) WHERE open;

CREATE TABLE view_programs (
    tenant text NOT NULL, name bytea NOT NULL, module bytea NOT NULL, seq bigint NOT NULL, body bytea NOT NULL,
    PRIMARY KEY (tenant, name, module)
);
CREATE INDEX view_programs_by_tenant ON view_programs (tenant, seq);

CREATE TABLE view_memories (
    tenant text NOT NULL, workload bytea NOT NULL, key bytea NOT NULL, seq bigint NOT NULL, value bytea NOT NULL,
    PRIMARY KEY (tenant, workload, key)
);
CREATE INDEX view_memories_by_age ON view_memories (tenant, workload, seq);

CREATE TABLE view_history (
    position bigint PRIMARY KEY, at bigint NOT NULL, tenant text NOT NULL, workload bytea, agent bytea, kind text NOT NULL,
    text bytea NOT NULL, words tsvector NOT NULL
);
CREATE INDEX view_history_words ON view_history USING gin (words);
CREATE INDEX view_history_by_tenant ON view_history (tenant, position);
