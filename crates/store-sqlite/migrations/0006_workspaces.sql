-- Workspaces, the people in them, and what they may use.

CREATE TABLE workspaces (
    id             TEXT PRIMARY KEY NOT NULL,
    name           TEXT NOT NULL,
    owner          TEXT NOT NULL,
    generation     INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    removing_since INTEGER
) STRICT;

CREATE INDEX workspaces_by_age ON workspaces (created_at, id);
CREATE INDEX workspaces_removing ON workspaces (removing_since, id)
    WHERE removing_since IS NOT NULL;

CREATE TABLE members (
    workspace TEXT NOT NULL,
    user_name TEXT NOT NULL,
    role      TEXT NOT NULL,
    joined_at INTEGER NOT NULL,
    PRIMARY KEY (workspace, user_name)
) STRICT, WITHOUT ROWID;

CREATE INDEX members_by_user ON members (user_name, workspace);

CREATE TABLE workspace_limits (
    workspace  TEXT PRIMARY KEY NOT NULL,
    limits     TEXT NOT NULL,
    generation INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- Whom a key acts for, as what, where, and the secret that a rotation replaced. A key from before
-- did the work of its workspace, or everything.
ALTER TABLE api_keys ADD COLUMN user_name TEXT;
ALTER TABLE api_keys ADD COLUMN role TEXT NOT NULL DEFAULT 'member';
ALTER TABLE api_keys ADD COLUMN reach TEXT NOT NULL DEFAULT 'workspace';
ALTER TABLE api_keys ADD COLUMN previous_digest BLOB;
ALTER TABLE api_keys ADD COLUMN previous_until INTEGER;
UPDATE api_keys SET role = 'owner' WHERE scope = 'admin';
CREATE INDEX api_keys_by_previous ON api_keys (previous_digest) WHERE previous_digest IS NOT NULL;

-- Entries are only ever added behind the last one, and removed from the beginning by age.
CREATE TABLE audit (
    workspace  TEXT NOT NULL,
    sequence   INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    actor      TEXT NOT NULL,
    key        TEXT,
    action     TEXT NOT NULL,
    target     TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    detail     TEXT NOT NULL,
    face       TEXT NOT NULL,
    request_id TEXT NOT NULL,
    hash       BLOB NOT NULL,
    PRIMARY KEY (workspace, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit_ends (
    workspace    TEXT PRIMARY KEY NOT NULL,
    trimmed      INTEGER NOT NULL,
    trimmed_hash BLOB NOT NULL,
    last         INTEGER NOT NULL,
    last_hash    BLOB NOT NULL
) STRICT;
