-- Runs, their logs, the books, and the files that runs left.
CREATE TABLE runs (
    id              TEXT PRIMARY KEY NOT NULL,
    workspace       TEXT NOT NULL,
    thread          TEXT NOT NULL,
    created_by      TEXT NOT NULL,
    agent           TEXT,
    sandbox         TEXT,
    state           TEXT NOT NULL,
    trace_id        TEXT,
    idempotency_key TEXT,
    generation      INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    ended_at        INTEGER,
    input           TEXT,
    result          TEXT,
    body            TEXT NOT NULL
) STRICT;

CREATE INDEX runs_by_age ON runs (workspace, created_at, id);
CREATE INDEX runs_by_thread ON runs (workspace, thread, created_at, id);
-- Also what the rate of starts is counted by.
CREATE INDEX runs_by_user ON runs (created_by, created_at);
CREATE INDEX runs_by_sandbox ON runs (sandbox, created_at, id) WHERE sandbox IS NOT NULL;
CREATE INDEX runs_by_trace ON runs (workspace, trace_id) WHERE trace_id IS NOT NULL;
CREATE UNIQUE INDEX runs_by_key ON runs (workspace, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX runs_unfinished ON runs (created_at, id) WHERE ended_at IS NULL;
CREATE INDEX runs_with_text ON runs (workspace, ended_at)
    WHERE ended_at IS NOT NULL AND input IS NOT NULL;

-- Where the logs stand and what was used: small rows, which change far more often than the runs.
CREATE TABLE run_logs (
    run                TEXT PRIMARY KEY NOT NULL,
    last_event         INTEGER NOT NULL DEFAULT 0,
    heartbeat_at       INTEGER NOT NULL,
    at_stdout          INTEGER NOT NULL DEFAULT 0,
    at_stderr          INTEGER NOT NULL DEFAULT 0,
    at_log             INTEGER NOT NULL DEFAULT 0,
    input_tokens       INTEGER NOT NULL DEFAULT 0,
    output_tokens      INTEGER NOT NULL DEFAULT 0,
    cache_read_tokens  INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens INTEGER NOT NULL DEFAULT 0,
    model_cost         INTEGER NOT NULL DEFAULT 0,
    compute_cost       INTEGER NOT NULL DEFAULT 0,
    unpriced           INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE run_events (
    run  TEXT NOT NULL,
    seq  INTEGER NOT NULL,
    at   INTEGER NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT;

-- The books. Entries are only ever added.
CREATE TABLE usage_entries (
    workspace          TEXT NOT NULL,
    key                TEXT NOT NULL,
    created_by         TEXT NOT NULL,
    run                TEXT,
    thread             TEXT,
    agent              TEXT,
    sandbox            TEXT,
    at                 INTEGER NOT NULL,
    model              TEXT,
    rung               TEXT,
    input_tokens       INTEGER NOT NULL,
    output_tokens      INTEGER NOT NULL,
    cache_read_tokens  INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    cpu_millis_ms      INTEGER NOT NULL,
    memory_mib_ms      INTEGER NOT NULL,
    disk_mib_ms        INTEGER NOT NULL,
    model_cost         INTEGER NOT NULL,
    compute_cost       INTEGER NOT NULL,
    unpriced           INTEGER NOT NULL,
    price_version      INTEGER NOT NULL,
    PRIMARY KEY (workspace, key)
) STRICT;

CREATE INDEX usage_by_age ON usage_entries (workspace, at, key);
CREATE INDEX usage_by_run ON usage_entries (run) WHERE run IS NOT NULL;

-- The sums of the entries per month: months since January of the year 0.
CREATE TABLE usage_totals (
    workspace          TEXT NOT NULL,
    month              INTEGER NOT NULL,
    input_tokens       INTEGER NOT NULL,
    output_tokens      INTEGER NOT NULL,
    cache_read_tokens  INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    cpu_millis_ms      INTEGER NOT NULL,
    memory_mib_ms      INTEGER NOT NULL,
    disk_mib_ms        INTEGER NOT NULL,
    model_cost         INTEGER NOT NULL,
    compute_cost       INTEGER NOT NULL,
    unpriced           INTEGER NOT NULL,
    entries            INTEGER NOT NULL,
    PRIMARY KEY (workspace, month)
) STRICT, WITHOUT ROWID;

CREATE TABLE artifacts (
    id           TEXT PRIMARY KEY NOT NULL,
    workspace    TEXT NOT NULL,
    run          TEXT NOT NULL,
    thread       TEXT NOT NULL,
    kind         TEXT NOT NULL,
    title        TEXT NOT NULL,
    path         TEXT NOT NULL,
    content_type TEXT NOT NULL,
    size         INTEGER NOT NULL,
    digest       TEXT NOT NULL,
    state        TEXT NOT NULL,
    reviewed_by  TEXT,
    reviewed_at  INTEGER,
    created_at   INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX artifacts_by_path ON artifacts (run, path);
CREATE INDEX artifacts_by_age ON artifacts (workspace, created_at, id);
CREATE INDEX artifacts_by_state ON artifacts (workspace, state, created_at, id);
