-- Conversations with agents. `log` is the short name of a session in the tables below; it is
-- never given out again, since the entries of a session that was removed are deleted later.
CREATE TABLE sessions (
    log        INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL CHECK (log < 1073741824),
    id         TEXT NOT NULL UNIQUE,
    workspace  TEXT NOT NULL,
    sandbox    TEXT NOT NULL,
    face       TEXT NOT NULL,
    name       TEXT NOT NULL,
    holds_name INTEGER NOT NULL,
    agent      TEXT NOT NULL,
    generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    -- NULL while it goes on.
    ended_at   INTEGER,
    body       TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX sessions_by_name ON sessions (sandbox, face, name) WHERE holds_name = 1;

CREATE INDEX sessions_by_age ON sessions (workspace, created_at, id);

CREATE INDEX sessions_by_sandbox ON sessions (workspace, sandbox, created_at, id);

CREATE INDEX sessions_ended ON sessions (ended_at, id) WHERE ended_at IS NOT NULL;

-- Where the logs stand. Small rows of their own: every append changes one.
CREATE TABLE session_logs (
    log             INTEGER PRIMARY KEY NOT NULL,
    last            INTEGER NOT NULL DEFAULT 0,
    first           INTEGER NOT NULL DEFAULT 1,
    universal_last  INTEGER NOT NULL DEFAULT 0,
    universal_first INTEGER NOT NULL DEFAULT 1,
    input           INTEGER NOT NULL DEFAULT 0,
    output          INTEGER NOT NULL DEFAULT 0,
    epoch           INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Entries in the order in which they arrived, whatever their session: an append writes at the end
-- of one table. `place` is log << 33 | stream << 32 | sequence.
CREATE TABLE session_events (
    n          INTEGER PRIMARY KEY NOT NULL,
    place      INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    source     TEXT NOT NULL,
    kind       TEXT NOT NULL,
    author     TEXT,
    connection TEXT,
    payload    TEXT NOT NULL,
    wire       TEXT
) STRICT;

-- Where the entry of a place is. Entries after `upto` are not in it yet: they are added many at a
-- time, so that neighbours share the pages that are written.
CREATE TABLE session_index (
    place INTEGER PRIMARY KEY NOT NULL,
    n     INTEGER NOT NULL
) STRICT;

CREATE TABLE session_indexed (
    only INTEGER PRIMARY KEY NOT NULL CHECK (only = 0),
    upto INTEGER NOT NULL
) STRICT;

INSERT INTO session_indexed (only, upto) VALUES (0, 0);

CREATE TABLE session_turns (
    log        INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    binding    TEXT NOT NULL,
    author     TEXT,
    first      INTEGER NOT NULL,
    last       INTEGER,
    outcome    TEXT,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,
    snapshot   TEXT,
    PRIMARY KEY (log, number)
) STRICT, WITHOUT ROWID;

-- Places whose entries nobody can read any more and that are deleted a few at a time.
CREATE TABLE session_trash (
    low  INTEGER PRIMARY KEY NOT NULL,
    high INTEGER NOT NULL
) STRICT;

-- What clients persist of sessions of their own.
CREATE TABLE persisted_sessions (
    workspace  TEXT NOT NULL,
    id         TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    record     TEXT NOT NULL,
    PRIMARY KEY (workspace, id)
) STRICT;

CREATE INDEX persisted_sessions_by_age ON persisted_sessions (workspace, created_at, id);

CREATE TABLE persisted_events (
    workspace TEXT NOT NULL,
    id        TEXT NOT NULL,
    session   TEXT NOT NULL,
    place     INTEGER NOT NULL,
    record    TEXT NOT NULL,
    PRIMARY KEY (workspace, id)
) STRICT;

CREATE UNIQUE INDEX persisted_events_by_place ON persisted_events (workspace, session, place);
