-- Times and durations are milliseconds. JSON is kept as text, versioned by its writers
-- (crates/store-rows). Text sorts by bytes, whatever the database's language.

CREATE TABLE sandboxes (
    id         TEXT COLLATE "C" PRIMARY KEY,
    workspace  TEXT NOT NULL,
    template   TEXT NOT NULL,
    state      TEXT NOT NULL,
    generation BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    deadline   BIGINT,
    due        BIGINT,
    metadata   TEXT NOT NULL,
    body       TEXT NOT NULL
);

CREATE INDEX sandboxes_by_start ON sandboxes (workspace, started_at, id);
CREATE INDEX sandboxes_by_due ON sandboxes (due, id) WHERE due IS NOT NULL;

CREATE TABLE events (
    sandbox TEXT COLLATE "C" NOT NULL,
    seq     BIGINT NOT NULL,
    at      BIGINT NOT NULL,
    level   TEXT NOT NULL,
    kind    TEXT NOT NULL,
    message TEXT NOT NULL,
    fields  TEXT NOT NULL,
    PRIMARY KEY (sandbox, seq)
);

-- The end of each log: the next sequence number, and what trimming looks at.
CREATE TABLE event_logs (
    sandbox  TEXT COLLATE "C" PRIMARY KEY,
    last_seq BIGINT NOT NULL,
    last_at  BIGINT NOT NULL
);

CREATE INDEX event_logs_by_age ON event_logs (last_at, sandbox);

CREATE TABLE snapshots (
    id         TEXT COLLATE "C" PRIMARY KEY,
    workspace  TEXT NOT NULL,
    source     TEXT NOT NULL,
    purpose    TEXT NOT NULL,
    state      TEXT NOT NULL,
    generation BIGINT NOT NULL,
    name       TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    bytes      BIGINT NOT NULL,
    body       TEXT NOT NULL
);

CREATE UNIQUE INDEX snapshots_by_name ON snapshots (workspace, name)
    WHERE name IS NOT NULL AND state <> 'deleting';
CREATE INDEX snapshots_by_age ON snapshots (workspace, created_at, id)
    WHERE state <> 'deleting';
CREATE INDEX snapshots_by_source ON snapshots (workspace, source, created_at, id)
    WHERE state <> 'deleting';

CREATE TABLE sandbox_sessions (
    id            TEXT COLLATE "C" PRIMARY KEY,
    workspace     TEXT NOT NULL,
    sandbox       TEXT NOT NULL UNIQUE,
    project       TEXT NOT NULL,
    "user"        TEXT NOT NULL,
    framework     TEXT NOT NULL,
    auto_pause_ms BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL,
    last_activity BIGINT NOT NULL,
    ended_at      BIGINT
);

CREATE INDEX sandbox_sessions_by_age ON sandbox_sessions (workspace, created_at, id);
CREATE INDEX sandbox_sessions_ended ON sandbox_sessions (ended_at, id)
    WHERE ended_at IS NOT NULL;

CREATE TABLE templates (
    id         TEXT COLLATE "C" PRIMARY KEY,
    -- NULL for the server's.
    workspace  TEXT COLLATE "C",
    name       TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    body       TEXT NOT NULL
);

CREATE UNIQUE INDEX templates_by_name ON templates (coalesce(workspace, ''), name);

CREATE TABLE builds (
    id         TEXT COLLATE "C" PRIMARY KEY,
    template   TEXT COLLATE "C" NOT NULL REFERENCES templates (id) ON DELETE CASCADE,
    state      TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    layers     TEXT NOT NULL,
    body       TEXT NOT NULL
);

CREATE INDEX builds_by_age ON builds (template, created_at, id);
CREATE INDEX builds_unfinished ON builds (created_at, id)
    WHERE state IN ('waiting', 'building');

CREATE TABLE build_log (
    build   TEXT COLLATE "C" NOT NULL REFERENCES builds (id) ON DELETE CASCADE,
    line    BIGINT NOT NULL,
    at      BIGINT NOT NULL,
    level   TEXT NOT NULL,
    step    TEXT,
    message TEXT NOT NULL,
    PRIMARY KEY (build, line)
);

CREATE TABLE layer_cache (
    key    TEXT COLLATE "C" PRIMARY KEY,
    layer  TEXT NOT NULL,
    config TEXT NOT NULL
);

CREATE TABLE api_keys (
    id           TEXT COLLATE "C" PRIMARY KEY,
    workspace    TEXT NOT NULL,
    name         TEXT NOT NULL,
    scope        TEXT NOT NULL,
    hint         TEXT NOT NULL,
    digest       BYTEA NOT NULL UNIQUE,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT,
    last_used_at BIGINT
);

-- Values are sealed by the engine; the database never sees them.
CREATE TABLE secrets (
    id         TEXT COLLATE "C" PRIMARY KEY,
    workspace  TEXT NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    version    BIGINT NOT NULL,
    metadata   TEXT NOT NULL,
    value      BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE UNIQUE INDEX secrets_by_name ON secrets (workspace, name);

CREATE TABLE volumes (
    id         TEXT COLLATE "C" PRIMARY KEY,
    workspace  TEXT NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE UNIQUE INDEX volumes_by_name ON volumes (workspace, name);

CREATE TABLE settings (
    name  TEXT COLLATE "C" PRIMARY KEY,
    value BYTEA NOT NULL
);

CREATE TABLE idempotency_keys (
    workspace   TEXT NOT NULL,
    key         TEXT COLLATE "C" NOT NULL,
    fingerprint TEXT NOT NULL,
    claimed_at  BIGINT NOT NULL,
    -- NULL while the request runs.
    result      TEXT,
    PRIMARY KEY (workspace, key)
);

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (claimed_at);

-- Conversations with agents. `log` is the short name of a session in the tables below; it is
-- never given out again, since the entries of a session that was removed are deleted later.
CREATE TABLE sessions (
    log        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id         TEXT COLLATE "C" NOT NULL UNIQUE,
    workspace  TEXT NOT NULL,
    sandbox    TEXT NOT NULL,
    face       TEXT NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    holds_name BIGINT NOT NULL,
    agent      TEXT NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    -- NULL while it goes on.
    ended_at   BIGINT,
    body       TEXT NOT NULL
);

CREATE UNIQUE INDEX sessions_by_name ON sessions (sandbox, face, name) WHERE holds_name = 1;
CREATE INDEX sessions_by_age ON sessions (workspace, created_at, id);
CREATE INDEX sessions_by_sandbox ON sessions (workspace, sandbox, created_at, id);
CREATE INDEX sessions_ended ON sessions (ended_at, id) WHERE ended_at IS NOT NULL;

-- Where the logs stand. Small rows of their own, with room to be rewritten in place: every append
-- changes one.
CREATE TABLE session_logs (
    session         TEXT COLLATE "C" PRIMARY KEY,
    log             BIGINT NOT NULL,
    last            BIGINT NOT NULL DEFAULT 0,
    first           BIGINT NOT NULL DEFAULT 1,
    universal_last  BIGINT NOT NULL DEFAULT 0,
    universal_first BIGINT NOT NULL DEFAULT 1,
    input           BIGINT NOT NULL DEFAULT 0,
    output          BIGINT NOT NULL DEFAULT 0,
    epoch           BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE session_events (
    log        BIGINT NOT NULL,
    stream     SMALLINT NOT NULL,
    seq        BIGINT NOT NULL,
    at         BIGINT NOT NULL,
    source     TEXT NOT NULL,
    kind       TEXT NOT NULL,
    author     TEXT,
    connection TEXT,
    payload    TEXT NOT NULL,
    wire       TEXT,
    PRIMARY KEY (log, stream, seq)
);

CREATE TABLE session_turns (
    log        BIGINT NOT NULL,
    number     BIGINT NOT NULL,
    binding    TEXT NOT NULL,
    author     TEXT,
    first      BIGINT NOT NULL,
    last       BIGINT,
    outcome    TEXT,
    started_at BIGINT NOT NULL,
    ended_at   BIGINT,
    snapshot   TEXT,
    PRIMARY KEY (log, number)
);

-- Entries that nobody can read any more and that are deleted a few at a time.
CREATE TABLE session_trash (
    id     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    log    BIGINT NOT NULL,
    stream SMALLINT NOT NULL,
    before BIGINT NOT NULL
);

-- What clients persist of sessions of their own.
CREATE TABLE persisted_sessions (
    workspace  TEXT NOT NULL,
    id         TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    record     TEXT NOT NULL,
    PRIMARY KEY (workspace, id)
);

CREATE INDEX persisted_sessions_by_age ON persisted_sessions (workspace, created_at, id);

CREATE TABLE persisted_events (
    workspace TEXT NOT NULL,
    id        TEXT COLLATE "C" NOT NULL,
    session   TEXT COLLATE "C" NOT NULL,
    place     BIGINT NOT NULL,
    record    TEXT NOT NULL,
    PRIMARY KEY (workspace, id),
    UNIQUE (workspace, session, place)
);
