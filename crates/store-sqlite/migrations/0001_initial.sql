-- Times and durations are milliseconds. JSON columns are versioned by their writers (src/stored).

CREATE TABLE sandboxes (
    id         TEXT PRIMARY KEY NOT NULL,
    workspace  TEXT NOT NULL,
    template   TEXT NOT NULL,
    state      TEXT NOT NULL,
    generation INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    deadline   INTEGER,
    metadata   TEXT NOT NULL,
    body       TEXT NOT NULL
) STRICT;

CREATE INDEX sandboxes_by_start ON sandboxes (workspace, started_at, id)
    WHERE state <> 'deleting';

CREATE INDEX sandboxes_by_deadline ON sandboxes (deadline, id)
    WHERE state = 'running' AND deadline IS NOT NULL;

CREATE TABLE events (
    sandbox TEXT NOT NULL,
    seq     INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    level   TEXT NOT NULL,
    kind    TEXT NOT NULL,
    message TEXT NOT NULL,
    fields  TEXT NOT NULL,
    PRIMARY KEY (sandbox, seq)
) STRICT, WITHOUT ROWID;

-- The end of each log: the next sequence number, and what trimming looks at.
CREATE TABLE event_logs (
    sandbox  TEXT PRIMARY KEY NOT NULL,
    last_seq INTEGER NOT NULL,
    last_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX event_logs_by_age ON event_logs (last_at, sandbox);

CREATE TABLE templates (
    id         TEXT PRIMARY KEY NOT NULL,
    workspace  TEXT,
    name       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    body       TEXT NOT NULL
) STRICT;

-- NULL is distinct from NULL in an index: the server's templates get a value of their own.
CREATE UNIQUE INDEX templates_by_name ON templates (ifnull(workspace, ''), name);

CREATE TABLE builds (
    id         TEXT PRIMARY KEY NOT NULL,
    template   TEXT NOT NULL REFERENCES templates (id) ON DELETE CASCADE,
    state      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    layers     TEXT NOT NULL,
    body       TEXT NOT NULL
) STRICT;

CREATE INDEX builds_by_age ON builds (template, created_at, id);

CREATE INDEX builds_unfinished ON builds (created_at, id)
    WHERE state IN ('waiting', 'building');

CREATE TABLE build_log (
    build   TEXT NOT NULL REFERENCES builds (id) ON DELETE CASCADE,
    line    INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    level   TEXT NOT NULL,
    step    TEXT,
    message TEXT NOT NULL,
    PRIMARY KEY (build, line)
) STRICT, WITHOUT ROWID;

CREATE TABLE layer_cache (
    key    TEXT PRIMARY KEY NOT NULL,
    layer  TEXT NOT NULL,
    config TEXT NOT NULL
) STRICT;

CREATE TABLE api_keys (
    id           TEXT PRIMARY KEY NOT NULL,
    workspace    TEXT NOT NULL,
    name         TEXT NOT NULL,
    scope        TEXT NOT NULL,
    hint         TEXT NOT NULL,
    digest       BLOB NOT NULL UNIQUE,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER
) STRICT;

CREATE TABLE settings (
    name  TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE idempotency_keys (
    workspace   TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    claimed_at  INTEGER NOT NULL,
    -- NULL while the request runs.
    result      TEXT,
    PRIMARY KEY (workspace, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (claimed_at);
