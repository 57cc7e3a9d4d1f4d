-- What workspaces say about sleep, and who keeps which sandbox awake.

CREATE TABLE workspace_sleep (
    workspace  TEXT PRIMARY KEY NOT NULL,
    sleep      TEXT NOT NULL,
    generation INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE sandbox_holds (
    sandbox    TEXT NOT NULL,
    name       TEXT NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (sandbox, name)
) STRICT, WITHOUT ROWID;
