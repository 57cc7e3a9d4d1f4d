-- Prices, budgets, and webhooks with what is on its way to them.
CREATE TABLE price_tables (
    version    INTEGER PRIMARY KEY NOT NULL,
    created_at INTEGER NOT NULL,
    body       TEXT NOT NULL
) STRICT;

CREATE TABLE budgets (
    workspace  TEXT PRIMARY KEY NOT NULL,
    amount     INTEGER NOT NULL,
    thresholds TEXT NOT NULL,
    hard       INTEGER NOT NULL,
    policy     TEXT NOT NULL,
    reserve    INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- Money that is set aside for runs that go on.
CREATE TABLE budget_reservations (
    run       TEXT PRIMARY KEY NOT NULL,
    workspace TEXT NOT NULL,
    amount    INTEGER NOT NULL,
    at        INTEGER NOT NULL
) STRICT;

CREATE INDEX budget_reservations_by_workspace ON budget_reservations (workspace);
CREATE INDEX budget_reservations_by_age ON budget_reservations (at, run);

CREATE TABLE budget_alerts (
    workspace TEXT NOT NULL,
    month     INTEGER NOT NULL,
    threshold INTEGER NOT NULL,
    amount    INTEGER NOT NULL,
    spent     INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (workspace, month, threshold, amount)
) STRICT, WITHOUT ROWID;

CREATE TABLE webhooks (
    id          TEXT PRIMARY KEY NOT NULL,
    workspace   TEXT NOT NULL,
    url         TEXT NOT NULL,
    description TEXT NOT NULL,
    events      TEXT NOT NULL,
    secret      BLOB NOT NULL,
    failing_since  INTEGER,
    disabled_since INTEGER,
    generation  INTEGER NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX webhooks_by_workspace ON webhooks (workspace, id);

CREATE TABLE webhook_deliveries (
    number      INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    webhook     TEXT NOT NULL,
    event       TEXT NOT NULL,
    workspace   TEXT NOT NULL,
    kind        TEXT NOT NULL,
    at          INTEGER NOT NULL,
    data        TEXT NOT NULL,
    state       TEXT NOT NULL,
    -- When it is due, or ended.
    moment      INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    last_at     INTEGER,
    last_status INTEGER,
    last_error  TEXT
) STRICT;

CREATE UNIQUE INDEX webhook_deliveries_by_event ON webhook_deliveries (webhook, event);
CREATE INDEX webhook_deliveries_by_number ON webhook_deliveries (webhook, number);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (moment) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (moment, number)
    WHERE state != 'pending';

-- What happened to runs, sessions and sandboxes, noted in the transaction that it happens in, so
-- that no writer can forget it, until it is on its way to webhooks.
CREATE TABLE happenings (
    number    INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    workspace TEXT NOT NULL,
    kind      TEXT NOT NULL,
    subject   TEXT NOT NULL,
    place     INTEGER NOT NULL,
    at        INTEGER NOT NULL
) STRICT;

CREATE TRIGGER happenings_run_new AFTER INSERT ON runs
WHEN EXISTS (SELECT 1 FROM webhooks WHERE workspace = NEW.workspace)
BEGIN
    INSERT INTO happenings (workspace, kind, subject, place, at)
    VALUES (NEW.workspace, 'run.queued', NEW.id, NEW.generation, NEW.created_at);
END;

CREATE TRIGGER happenings_run_state AFTER UPDATE ON runs
WHEN NEW.state != OLD.state AND NEW.state != 'booting'
    AND EXISTS (SELECT 1 FROM webhooks WHERE workspace = NEW.workspace)
BEGIN
    INSERT INTO happenings (workspace, kind, subject, place, at)
    VALUES (
        NEW.workspace,
        CASE NEW.state WHEN 'running' THEN 'run.started' ELSE 'run.' || NEW.state END,
        NEW.id,
        NEW.generation,
        COALESCE(NEW.ended_at, json_extract(NEW.body, '$.state.running.since'))
    );
END;

CREATE TRIGGER happenings_run_held AFTER UPDATE ON runs
WHEN NEW.state = 'running' AND OLD.state = 'running'
    AND EXISTS (SELECT 1 FROM webhooks WHERE workspace = NEW.workspace)
    AND (json_extract(NEW.body, '$.state.running.held.since') IS NULL)
        != (json_extract(OLD.body, '$.state.running.held.since') IS NULL)
BEGIN
    INSERT INTO happenings (workspace, kind, subject, place, at)
    VALUES (
        NEW.workspace,
        CASE WHEN json_extract(NEW.body, '$.state.running.held.since') IS NULL
            THEN 'run.continued' ELSE 'run.held' END,
        NEW.id,
        NEW.generation,
        COALESCE(
            json_extract(NEW.body, '$.state.running.held.since'),
            CAST(unixepoch('subsec') * 1000 AS INTEGER)
        )
    );
END;

CREATE TRIGGER happenings_session_new AFTER INSERT ON sessions
WHEN EXISTS (SELECT 1 FROM webhooks WHERE workspace = NEW.workspace)
BEGIN
    INSERT INTO happenings (workspace, kind, subject, place, at)
    VALUES (NEW.workspace, 'session.created', NEW.id, 1, NEW.created_at);
END;

CREATE TRIGGER happenings_session_end AFTER UPDATE OF ended_at ON sessions
WHEN OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL
    AND EXISTS (SELECT 1 FROM webhooks WHERE workspace = NEW.workspace)
BEGIN
    INSERT INTO happenings (workspace, kind, subject, place, at)
    VALUES (NEW.workspace, 'session.ended', NEW.id, 2, NEW.ended_at);
END;

CREATE TRIGGER happenings_sandbox AFTER INSERT ON events
WHEN NEW.kind IN (
    'sandbox.created', 'sandbox.paused', 'sandbox.hibernated', 'sandbox.archived',
    'sandbox.woken', 'sandbox.deleted', 'sandbox.expired', 'sandbox.exited', 'sandbox.lost'
) AND EXISTS (SELECT 1 FROM webhooks)
BEGIN
    INSERT INTO happenings (workspace, kind, subject, place, at)
    SELECT workspace, NEW.kind, NEW.sandbox, NEW.seq, NEW.at FROM sandboxes s
    WHERE s.id = NEW.sandbox
        AND EXISTS (SELECT 1 FROM webhooks w WHERE w.workspace = s.workspace);
END;

-- How far the time of each sandbox is booked.
CREATE TABLE meters (
    sandbox    TEXT PRIMARY KEY NOT NULL,
    workspace  TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    -- NULL before the first rung and after the last.
    rung       TEXT,
    since      INTEGER,
    cpu_millis INTEGER NOT NULL,
    memory_mib INTEGER NOT NULL,
    disk_mib   INTEGER NOT NULL,
    saved      INTEGER NOT NULL
) STRICT;

CREATE INDEX meters_on ON meters (sandbox) WHERE rung IS NOT NULL;

-- Sandboxes whose log has grown since their meter looked at it.
CREATE TABLE meters_behind (
    sandbox TEXT PRIMARY KEY NOT NULL
) STRICT;

CREATE TRIGGER meters_behind_new AFTER INSERT ON event_logs
BEGIN
    INSERT INTO meters_behind (sandbox) VALUES (NEW.sandbox) ON CONFLICT DO NOTHING;
END;

CREATE TRIGGER meters_behind_more AFTER UPDATE ON event_logs
BEGIN
    INSERT INTO meters_behind (sandbox) VALUES (NEW.sandbox) ON CONFLICT DO NOTHING;
END;

INSERT INTO meters_behind (sandbox) SELECT sandbox FROM event_logs;
