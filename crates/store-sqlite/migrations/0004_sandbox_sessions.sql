-- What applications remember about their sandboxes. A session stays when its sandbox goes, so
-- the sandbox is no reference; whether it runs is looked up there and not kept here.
CREATE TABLE sandbox_sessions (
    id            TEXT PRIMARY KEY NOT NULL,
    workspace     TEXT NOT NULL,
    sandbox       TEXT NOT NULL UNIQUE,
    project       TEXT NOT NULL,
    user          TEXT NOT NULL,
    framework     TEXT NOT NULL,
    auto_pause_ms INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    last_activity INTEGER NOT NULL,
    ended_at      INTEGER
) STRICT;

CREATE INDEX sandbox_sessions_by_age ON sandbox_sessions (workspace, created_at, id);

CREATE INDEX sandbox_sessions_by_project
    ON sandbox_sessions (workspace, project, created_at, id);

CREATE INDEX sandbox_sessions_by_user ON sandbox_sessions (workspace, user, created_at, id);

CREATE INDEX sandbox_sessions_ended ON sandbox_sessions (ended_at, id)
    WHERE ended_at IS NOT NULL;

-- Those of the living, for lists by state: what ended long ago is not walked over.
CREATE INDEX sandbox_sessions_living ON sandbox_sessions (workspace, created_at, id)
    WHERE ended_at IS NULL;
