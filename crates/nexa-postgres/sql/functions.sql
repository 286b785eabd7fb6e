-- What is done within the server, each call being one transaction of its own: so no lock is ever held while a message travels,
-- and a node that stands still keeps nobody waiting. The one exception is the cancel of a workload that bears agents faster than
-- messages travel: it holds that workload over three messages, for a second at most (`command.rs`).
--
-- Locks are taken in one order by every function: streams without owner by key, agents by id, streams that come into being by
-- key, blobs by hash, births by id, inbox entries (of agents that are locked), the head. Whoever waits for one holds only
-- earlier ones, so that there is no circle. The leader's row comes before all of them.
--
-- Functions are made again with every step of the schema. One that is called otherwise than before gets the schema's version
-- into its name, so that nodes of the build before go on with theirs.

-- Stores what `batch.rs` has judged, if what it was judged by is still so: otherwise `base` is null, or it fails as a transaction
-- that cannot be serialised, and nothing has changed.
--   _s: streams without owner as they were read, and how they end now; `_s_to` is their version afterwards
--   _a: rows of owners as they were read, and as they are to be
--   _t: agents that are posted to and were there before; their owners are the answer
--   _k blobs, _b births, _p posts, _x inputs that are taken, _e rows of facts in their order;
--   `_e_last` is the place of a row's last fact among the facts of the batch
CREATE OR REPLACE FUNCTION append_batch_3(
    _s_key bytea[], _s_version bigint[], _s_cancelled boolean[], _s_ended boolean[],
    _s_to bigint[], _s_link bytea[], _s_ends boolean[],
    _a_id bytea[], _a_epoch bigint[], _a_version bigint[],
    _a_to bigint[], _a_link bytea[], _a_told boolean[], _a_state text[], _a_due bigint[], _a_ends boolean[],
    _t_id bytea[],
    _k_tenant text[], _k_hash bytea[], _k_bytes bytea[],
    _b_id bytea[], _b_workload bytea[], _b_tenant text[], _b_principal text[], _b_node text[], _b_epoch bigint[],
    _b_version bigint[], _b_link bytea[], _b_state text[], _b_ended boolean[], _b_due bigint[], _b_priority smallint[],
    _b_asks bytea[],
    _p_agent bytea[], _p_sure boolean[], _p_input bytea[], _p_body bytea[], _p_at bigint[], _p_principal text[],
    _x_agent bytea[], _x_input bytea[], _x_at bigint[], _x_principal text[],
    _e_last bigint[], _e_stream bytea[], _e_version bigint[], _e_workload bytea[], _e_header bytea[], _e_payload bytea[],
    _e_tenant text[], _e_blob bytea[], _e_links bytea[]
) RETURNS TABLE (base bigint, owners text[]) LANGUAGE plpgsql
-- So that rows are met one after another in the order of the arrays, which is that of their keys, or in that of an index:
-- what updates them locks them, and in the order of the table two batches could wait for each other.
SET enable_seqscan = off SET enable_hashjoin = off
AS $$
#variable_conflict use_column
DECLARE
    _base bigint;
    _facts bigint;
    _same bigint;
    _owners text[] := '{}';
BEGIN
    IF cardinality(_s_key) > 0 THEN
        PERFORM FROM streams WHERE stream = ANY(_s_key) ORDER BY stream FOR NO KEY UPDATE;
    END IF;
    IF cardinality(_s_key) > 0 AND EXISTS (
        SELECT FROM unnest(_s_key, _s_version, _s_cancelled, _s_ended) AS w (key, version, cancelled, ended)
        LEFT JOIN streams AS s ON s.stream = w.key
        WHERE coalesce(s.version, 0) <> w.version OR coalesce(s.cancelled, false) <> w.cancelled
           OR coalesce(s.ended, false) <> w.ended
    ) THEN
        RETURN QUERY SELECT NULL::bigint, NULL::text[];
        RETURN;
    END IF;
    IF cardinality(_t_id) > 0 THEN
        PERFORM FROM agents WHERE agent = ANY(_a_id || _t_id) ORDER BY agent FOR NO KEY UPDATE;
    END IF;
    -- From here on the batch is stored as a whole or not at all.
    IF cardinality(_a_id) > 0 THEN
        UPDATE agents AS a SET
            version = w.version_to, link = w.link,
            state = coalesce(w.state, a.state),
            due = CASE WHEN w.told THEN w.due ELSE a.due END,
            ended = w.ends
        FROM unnest(_a_id, _a_epoch, _a_version, _a_to, _a_link, _a_told, _a_state, _a_due, _a_ends)
             AS w (id, epoch, version, version_to, link, told, state, due, ends)
        WHERE a.agent = w.id AND a.epoch = w.epoch AND a.version = w.version AND NOT a.ended;
        GET DIAGNOSTICS _same = ROW_COUNT;
        IF _same <> cardinality(_a_id) THEN
            RAISE serialization_failure USING MESSAGE = 'an agent is not as it was read';
        END IF;
    END IF;

    IF cardinality(_s_key) > 0 THEN
        INSERT INTO streams (stream, version, link, ended)
        SELECT w.key, w.version_to, w.link, w.ends
        FROM unnest(_s_key, _s_version, _s_to, _s_link, _s_ends) AS w (key, version, version_to, link, ends)
        WHERE w.version = 0 AND w.version_to > 0 ORDER BY w.key;
        UPDATE streams AS s SET version = w.version_to, link = w.link, ended = s.ended OR w.ends
        FROM unnest(_s_key, _s_version, _s_to, _s_link, _s_ends) AS w (key, version, version_to, link, ends)
        WHERE s.stream = w.key AND w.version > 0 AND w.version_to > w.version;
    END IF;
    IF cardinality(_k_hash) > 0 THEN
        INSERT INTO blobs (tenant, hash, bytes)
        SELECT * FROM unnest(_k_tenant, _k_hash, _k_bytes) AS w (tenant, hash, bytes) ORDER BY w.tenant, w.hash
        ON CONFLICT (tenant, hash) DO NOTHING;
    END IF;
    IF cardinality(_b_id) > 0 THEN
        INSERT INTO agents
            (agent, workload, tenant, principal, node, epoch, version, link, state, ended, due, priority,
             asks)
        SELECT * FROM unnest(_b_id, _b_workload, _b_tenant, _b_principal, _b_node, _b_epoch, _b_version, _b_link,
                             _b_state, _b_ended, _b_due, _b_priority, _b_asks) AS w (id) ORDER BY w.id;
    END IF;
    IF cardinality(_p_agent) > 0 THEN
        INSERT INTO inbox (agent, input, body, at, principal)
        SELECT w.agent, w.input, w.body, w.at, w.principal
        FROM unnest(_p_agent, _p_sure, _p_input, _p_body, _p_at, _p_principal)
             WITH ORDINALITY AS w (agent, sure, input, body, at, principal, nth)
        -- Whoever ends with this batch lived when it was posted to: what was posted later has been left out.
        WHERE w.sure OR EXISTS (
            SELECT FROM agents AS a WHERE a.agent = w.agent AND (NOT a.ended OR a.agent = ANY(_a_id)))
        ORDER BY w.nth
        ON CONFLICT (agent, input) DO NOTHING;
    END IF;
    IF cardinality(_x_agent) > 0 THEN
        INSERT INTO inbox (agent, input, body, at, principal)
        SELECT w.agent, w.input, NULL, w.at, w.principal
        FROM unnest(_x_agent, _x_input, _x_at, _x_principal) AS w (agent, input, at, principal)
        ON CONFLICT (agent, input) DO UPDATE SET body = NULL;
    END IF;
    IF cardinality(_t_id) > 0 THEN
        SELECT array_agg(CASE WHEN NOT a.ended OR a.agent = ANY(_a_id) THEN a.node END ORDER BY w.nth) INTO _owners
        FROM unnest(_t_id) WITH ORDINALITY AS w (id, nth) LEFT JOIN agents AS a ON a.agent = w.id;
    END IF;
    IF cardinality(_e_stream) = 0 THEN
        RETURN QUERY SELECT h.position, _owners FROM head AS h;
        RETURN;
    END IF;
    _facts := _e_last[cardinality(_e_last)];
    UPDATE head AS h SET position = h.position + _facts RETURNING h.position - _facts INTO _base;
    INSERT INTO events (position, stream, version, workload, header, payload, tenant, blob, link)
    SELECT _base + w.last, w.stream, w.version, w.workload, w.header, w.payload, w.tenant, w.blob, w.links
    FROM unnest(_e_last, _e_stream, _e_version, _e_workload, _e_header, _e_payload, _e_tenant, _e_blob, _e_links)
         AS w (last, stream, version, workload, header, payload, tenant, blob, links);
    RETURN QUERY SELECT _base, _owners;
END $$;

-- Puts one entry into an inbox from outside. Says what became of it, and whose the agent is.
CREATE OR REPLACE FUNCTION post_one_1(
    _agent bytea, _input bytea, _body bytea, _at bigint, _principal text, _entries_max bigint
) RETURNS TABLE (said text, owner text) LANGUAGE plpgsql AS $$
DECLARE
    _ended boolean;
    _node text;
BEGIN
    SELECT a.ended, a.node INTO _ended, _node FROM agents AS a WHERE a.agent = _agent FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'nobody', NULL::text;
    ELSIF EXISTS (SELECT FROM inbox AS i WHERE i.agent = _agent AND i.input = _input) THEN
        RETURN QUERY SELECT 'accepted', _node;
    ELSIF _ended THEN
        RETURN QUERY SELECT 'ended', _node;
    ELSIF (SELECT count(*) FROM inbox AS i WHERE i.agent = _agent AND i.body IS NOT NULL) >= _entries_max THEN
        RETURN QUERY SELECT 'full', _node;
    ELSE
        INSERT INTO inbox (agent, input, body, at, principal) VALUES (_agent, _input, _body, _at, _principal);
        RETURN QUERY SELECT 'accepted', _node;
    END IF;
END $$;

-- Cancels a workload whose stream and live agents are still as they were read; whether they were.
CREATE OR REPLACE FUNCTION cancel_workload_1(
    _key bytea, _version bigint, _workload bytea, _header bytea, _payload bytea, _tenant text, _blob bytea, _link bytea,
    _a_id bytea[], _a_epoch bigint[], _a_input bytea[], _a_body bytea[], _at bigint, _principal text
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _position bigint;
BEGIN
    PERFORM FROM streams AS s WHERE s.stream = _key FOR NO KEY UPDATE;
    IF NOT EXISTS (
        SELECT FROM streams AS s WHERE s.stream = _key AND s.version = _version AND NOT s.cancelled AND NOT s.ended
    ) THEN
        RETURN NULL;
    END IF;
    -- With the stream locked nothing is born any more, and with the agents locked none ends.
    PERFORM FROM agents AS a WHERE a.workload = _workload AND NOT a.ended ORDER BY a.agent FOR NO KEY UPDATE;
    IF EXISTS (
        SELECT FROM (SELECT a.agent, a.epoch FROM agents AS a WHERE a.workload = _workload AND NOT a.ended) AS a
        FULL JOIN unnest(_a_id, _a_epoch) AS w (id, epoch) ON a.agent = w.id
        WHERE a.epoch IS DISTINCT FROM w.epoch
    ) THEN
        RETURN NULL;
    END IF;
    UPDATE streams AS s SET version = _version + 1, link = _link, cancelled = true WHERE s.stream = _key;
    INSERT INTO inbox AS i (agent, input, body, at, principal)
    SELECT w.id, w.input, w.body, _at, _principal FROM unnest(_a_id, _a_input, _a_body) AS w (id, input, body)
    ON CONFLICT (agent, input) DO UPDATE SET body = excluded.body WHERE i.body IS NOT NULL;
    UPDATE agents AS a SET epoch = a.epoch + 1, cancelled = true WHERE a.agent = ANY(_a_id);
    UPDATE head AS h SET position = h.position + 1 RETURNING h.position INTO _position;
    INSERT INTO events (position, stream, version, workload, header, payload, tenant, blob, link)
    VALUES (_position, _key, _version + 1, _workload, _header, _payload, _tenant, _blob, _link);
    RETURN _position;
END $$;

-- Changes owners, each wish judged alone and in order. The epoch is the new one, or the row's if it is another; of an agent
-- that has ended it is the row's as well, or 0 if only live ones count.
CREATE OR REPLACE FUNCTION place_all_1(_agents bytea[], _froms bigint[], _nodes text[], _live_only boolean)
RETURNS TABLE (changed boolean, epoch bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _nth integer;
    _epoch bigint;
BEGIN
    PERFORM FROM agents AS a WHERE a.agent = ANY(_agents) ORDER BY a.agent FOR NO KEY UPDATE;
    FOR _nth IN 1 .. cardinality(_agents) LOOP
        UPDATE agents AS a SET epoch = a.epoch + 1, node = _nodes[_nth],
            state = CASE a.state WHEN 'ready' THEN 'placed' ELSE a.state END
        WHERE a.agent = _agents[_nth] AND a.epoch = _froms[_nth] AND NOT a.ended
        RETURNING a.epoch INTO _epoch;
        IF FOUND THEN
            RETURN QUERY SELECT true, _epoch;
        ELSE
            RETURN QUERY SELECT false, coalesce(
                (SELECT a.epoch FROM agents AS a WHERE a.agent = _agents[_nth] AND NOT (_live_only AND a.ended)), 0);
        END IF;
    END LOOP;
END $$;

-- Notes that somebody leads under an epoch, and says the newest one that is known. An older one changes nothing.
CREATE OR REPLACE FUNCTION lead_1(_epoch bigint) RETURNS bigint LANGUAGE sql AS $$
    -- Whoever writes as an earlier leader holds a share of this row until it has committed, and is waited for here.
    UPDATE leader AS l SET epoch = greatest(l.epoch, _epoch) RETURNING l.epoch
$$;

-- Keeps whoever leads under an epoch leading until the transaction ends, and says the newest epoch that is known: if it is
-- another, nothing may be written.
CREATE OR REPLACE FUNCTION lead_on_1(_epoch bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _known bigint;
BEGIN
    SELECT l.epoch INTO _known FROM leader AS l;
    IF _known < _epoch THEN
        RETURN lead_1(_epoch);
    END IF;
    SELECT l.epoch INTO _known FROM leader AS l FOR SHARE;
    RETURN _known;
END $$;

-- Changes owners on behalf of a leader. One row for the leadership, then one a wish if it still stands.
CREATE OR REPLACE FUNCTION place_as_1(_leader bigint, _agents bytea[], _froms bigint[], _nodes text[])
RETURNS TABLE (changed boolean, epoch bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _known bigint := lead_on_1(_leader);
BEGIN
    RETURN QUERY SELECT _known = _leader, _known;
    IF _known = _leader THEN
        RETURN QUERY SELECT * FROM place_all_1(_agents, _froms, _nodes, true);
    END IF;
END $$;

-- Writes a record that still has this version. `known` is another epoch than the writer's if somebody else leads; `found` is
-- the version that the record had; `kept` says whether it was written.
CREATE OR REPLACE FUNCTION put_record_1(
    _leader bigint, _name bytea, _expected bigint, _value bytea, _records_max bigint
) RETURNS TABLE (known bigint, found bigint, kept boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _known bigint := lead_on_1(_leader);
    _found bigint;
BEGIN
    IF _known <> _leader THEN
        RETURN QUERY SELECT _known, 0::bigint, false;
        RETURN;
    END IF;
    -- Two writes of one leader that make records meet here, so that they cannot go beyond the bound together.
    PERFORM pg_advisory_xact_lock(hashtext('nexa records'), 0);
    SELECT r.version INTO _found FROM records AS r WHERE r.name = _name FOR UPDATE;
    _found := coalesce(_found, 0);
    IF _found <> _expected OR (_found = 0 AND (SELECT count(*) FROM records) >= _records_max) THEN
        RETURN QUERY SELECT _known, _found, false;
        RETURN;
    END IF;
    INSERT INTO records AS r (name, version, epoch, value) VALUES (_name, 1, _leader, _value)
    ON CONFLICT (name) DO UPDATE SET version = r.version + 1, epoch = _leader, value = _value;
    RETURN QUERY SELECT _known, _found, true;
END $$;

-- Takes over entries of memories in their order. Without a key all of a memory is forgotten, without a value one entry; after
-- each, whatever was stored before the newest ones that fit.
CREATE OR REPLACE FUNCTION remember_all_1(
    _tenant text[], _workload bytea[], _key bytea[], _seq bigint[], _value bytea[], _entries_max bigint
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _nth integer;
BEGIN
    FOR _nth IN 1 .. cardinality(_tenant) LOOP
        IF _key[_nth] IS NULL THEN
            DELETE FROM view_memories AS m WHERE m.tenant = _tenant[_nth] AND m.workload = _workload[_nth];
        ELSIF _value[_nth] IS NULL THEN
            DELETE FROM view_memories AS m
            WHERE m.tenant = _tenant[_nth] AND m.workload = _workload[_nth] AND m.key = _key[_nth];
        ELSE
            INSERT INTO view_memories (tenant, workload, key, seq, value)
            VALUES (_tenant[_nth], _workload[_nth], _key[_nth], _seq[_nth], _value[_nth])
            ON CONFLICT (tenant, workload, key) DO UPDATE SET seq = excluded.seq, value = excluded.value;
            DELETE FROM view_memories AS m
            WHERE m.tenant = _tenant[_nth] AND m.workload = _workload[_nth] AND m.seq <= (
                SELECT o.seq FROM view_memories AS o WHERE o.tenant = _tenant[_nth] AND o.workload = _workload[_nth]
                ORDER BY o.seq DESC LIMIT 1 OFFSET _entries_max
            );
        END IF;
    END LOOP;
END $$;
