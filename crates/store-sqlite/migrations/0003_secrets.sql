-- Values are sealed by the engine; this file never sees them.
CREATE TABLE secrets (
    id         TEXT PRIMARY KEY NOT NULL,
    workspace  TEXT NOT NULL,
    name       TEXT NOT NULL,
    version    INTEGER NOT NULL,
    metadata   TEXT NOT NULL,
    value      BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX secrets_by_name ON secrets (workspace, name);

CREATE TABLE volumes (
    id         TEXT PRIMARY KEY NOT NULL,
    workspace  TEXT NOT NULL,
    name       TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX volumes_by_name ON volumes (workspace, name);
