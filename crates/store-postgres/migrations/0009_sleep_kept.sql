-- What workspaces say about sleep, and who keeps which sandbox awake.

CREATE TABLE workspace_sleep (
    workspace  TEXT COLLATE "C" PRIMARY KEY,
    sleep      TEXT NOT NULL,
    generation BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE sandbox_holds (
    sandbox    TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT,
    PRIMARY KEY (sandbox, name)
);
