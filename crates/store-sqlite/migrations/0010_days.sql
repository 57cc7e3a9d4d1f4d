-- How often the facts of a day were changed: what was counted of a day is right as long as this is
-- the same. Days begin at midnight UTC and are numbered from the epoch.
CREATE TABLE run_days (
    workspace TEXT NOT NULL,
    day       INTEGER NOT NULL,
    version   INTEGER NOT NULL,
    PRIMARY KEY (workspace, day)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER run_days_new AFTER INSERT ON run_facts
BEGIN
    INSERT INTO run_days (workspace, day, version)
    VALUES (NEW.workspace, NEW.created_at / 86400000, 1)
    ON CONFLICT (workspace, day) DO UPDATE SET version = version + 1;
END;

CREATE TRIGGER run_days_change AFTER UPDATE ON run_facts
BEGIN
    INSERT INTO run_days (workspace, day, version)
    VALUES (NEW.workspace, NEW.created_at / 86400000, 1)
    ON CONFLICT (workspace, day) DO UPDATE SET version = version + 1;
END;

CREATE TRIGGER run_days_gone AFTER DELETE ON run_facts
BEGIN
    INSERT INTO run_days (workspace, day, version)
    VALUES (OLD.workspace, OLD.created_at / 86400000, 1)
    ON CONFLICT (workspace, day) DO UPDATE SET version = version + 1;
END;
