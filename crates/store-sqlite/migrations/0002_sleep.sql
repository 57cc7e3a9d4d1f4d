-- When the clock has to look at a sandbox next (Sandbox::due); NULL is never. It replaces the
-- deadlines of running ones, which it is for the rows that are there.
ALTER TABLE sandboxes ADD COLUMN due INTEGER;

UPDATE sandboxes SET due = deadline WHERE state = 'running';

DROP INDEX sandboxes_by_deadline;

CREATE INDEX sandboxes_by_due ON sandboxes (due, id) WHERE due IS NOT NULL;

-- Lists may ask for states, `deleting` among them: the state is looked at without the row.
DROP INDEX sandboxes_by_start;

CREATE INDEX sandboxes_by_start ON sandboxes (workspace, started_at, id, state);

CREATE TABLE snapshots (
    id         TEXT PRIMARY KEY NOT NULL,
    workspace  TEXT NOT NULL,
    source     TEXT NOT NULL,
    purpose    TEXT NOT NULL,
    state      TEXT NOT NULL,
    generation INTEGER NOT NULL,
    name       TEXT,
    created_at INTEGER NOT NULL,
    -- What it takes: written and disk bytes.
    bytes      INTEGER NOT NULL,
    body       TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX snapshots_by_name ON snapshots (workspace, name)
    WHERE name IS NOT NULL AND state <> 'deleting';

-- `bytes` and `state` are for the sum of what a workspace keeps, which reads no rows.
CREATE INDEX snapshots_by_age ON snapshots (workspace, created_at, id, bytes, state)
    WHERE state <> 'deleting';

-- What callers made, without walking over what every sleeping sandbox has.
CREATE INDEX snapshots_checkpoints ON snapshots (workspace, created_at, id)
    WHERE state <> 'deleting' AND purpose = 'checkpoint';

CREATE INDEX snapshots_by_source ON snapshots (workspace, source, created_at, id)
    WHERE state <> 'deleting';
