-- Servers that share this database, and which of them has what. A server says who it is in the
-- settings of its connections: `woodfrog.node` is its node, `woodfrog.process` its process, and
-- `woodfrog.lease_ms` how long its leases last. Connections that do not say so are a lone
-- server's, for which nothing of this is kept or checked.
CREATE TABLE nodes (
    id      TEXT COLLATE "C" PRIMARY KEY,
    name    TEXT NOT NULL,
    process TEXT NOT NULL,
    seen_at BIGINT NOT NULL
);

-- A row stays a while after its sandbox: who was late must not write about what is gone either.
CREATE TABLE leases (
    sandbox TEXT COLLATE "C" PRIMARY KEY,
    -- NULL: nobody has it, it is in the archive.
    node    TEXT COLLATE "C",
    process TEXT,
    token   BIGINT NOT NULL,
    until   BIGINT NOT NULL,
    wanted  TEXT COLLATE "C",
    refused TEXT
);

CREATE INDEX leases_by_node ON leases (node, sandbox);
CREATE INDEX leases_wanted ON leases (node) WHERE wanted IS NOT NULL;

-- The node that wrote a record last: what belongs to it is on that node's disk.
ALTER TABLE snapshots ADD COLUMN node TEXT COLLATE "C";
ALTER TABLE builds ADD COLUMN node TEXT COLLATE "C";
ALTER TABLE runs ADD COLUMN node TEXT COLLATE "C";

CREATE FUNCTION this_node() RETURNS TEXT LANGUAGE sql STABLE AS
    $$ SELECT nullif(current_setting('woodfrog.node', true), '') $$;

CREATE FUNCTION this_process() RETURNS TEXT LANGUAGE sql STABLE AS
    $$ SELECT nullif(current_setting('woodfrog.process', true), '') $$;

-- Milliseconds by this database's clock, the only one that leases go by.
CREATE FUNCTION lease_now() RETURNS BIGINT LANGUAGE sql VOLATILE AS
    $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

CREATE FUNCTION lease_until() RETURNS BIGINT LANGUAGE sql VOLATILE AS
    $$ SELECT lease_now() + current_setting('woodfrog.lease_ms')::bigint $$;

-- Refuses a write about a sandbox whose lease another process has. The row is locked until the
-- end of the transaction: nobody takes the lease between the check and the commit.
CREATE FUNCTION fence(about TEXT) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    holder TEXT;
BEGIN
    IF this_node() IS NULL THEN
        RETURN;
    END IF;
    SELECT process INTO holder FROM leases WHERE sandbox = about FOR SHARE;
    IF FOUND AND holder IS DISTINCT FROM this_process() THEN
        RAISE EXCEPTION 'the lease of % is another process''s', about USING ERRCODE = 'WF001';
    END IF;
END
$$;

CREATE FUNCTION fence_sandbox() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM fence(OLD.id);
        RETURN OLD;
    END IF;
    PERFORM fence(NEW.id);
    RETURN NEW;
END
$$;

CREATE TRIGGER sandboxes_fenced BEFORE UPDATE OR DELETE ON sandboxes
    FOR EACH ROW EXECUTE FUNCTION fence_sandbox();

CREATE FUNCTION fence_events() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    PERFORM fence(NEW.sandbox);
    RETURN NEW;
END
$$;

CREATE TRIGGER event_logs_fenced BEFORE INSERT OR UPDATE ON event_logs
    FOR EACH ROW EXECUTE FUNCTION fence_events();

-- A new sandbox is its maker's.
CREATE FUNCTION lease_new() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF this_node() IS NOT NULL THEN
        INSERT INTO leases (sandbox, node, process, token, until)
        VALUES (NEW.id, this_node(), this_process(), 1, lease_until());
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER sandboxes_leased AFTER INSERT ON sandboxes
    FOR EACH ROW EXECUTE FUNCTION lease_new();

CREATE FUNCTION note_node() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    NEW.node := coalesce(this_node(), NEW.node);
    RETURN NEW;
END
$$;

CREATE TRIGGER snapshots_noted BEFORE INSERT OR UPDATE ON snapshots
    FOR EACH ROW EXECUTE FUNCTION note_node();
CREATE TRIGGER builds_noted BEFORE INSERT OR UPDATE ON builds
    FOR EACH ROW EXECUTE FUNCTION note_node();
CREATE TRIGGER runs_noted BEFORE INSERT OR UPDATE ON runs
    FOR EACH ROW EXECUTE FUNCTION note_node();
