-- What is known of each run for sums, in the order in which sums read it. Kept by triggers, in the
-- transactions that change the runs and the books: no writer can forget it.
CREATE TABLE run_facts (
    workspace          TEXT NOT NULL,
    created_at         INTEGER NOT NULL,
    run                TEXT NOT NULL,
    thread             TEXT NOT NULL,
    agent              TEXT,
    -- The one that was asked for (then `asked`), or the first one that was used.
    model              TEXT,
    asked              INTEGER NOT NULL,
    created_by         TEXT NOT NULL,
    state              TEXT NOT NULL,
    ended_at           INTEGER,
    duration_ms        INTEGER,
    error_code         TEXT,
    error_message      TEXT,
    input_tokens       INTEGER NOT NULL DEFAULT 0,
    output_tokens      INTEGER NOT NULL DEFAULT 0,
    cache_read_tokens  INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens INTEGER NOT NULL DEFAULT 0,
    model_cost         INTEGER NOT NULL DEFAULT 0,
    compute_cost       INTEGER NOT NULL DEFAULT 0,
    unpriced           INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (workspace, created_at, run)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX run_facts_by_run ON run_facts (run);
CREATE INDEX run_facts_by_thread ON run_facts (workspace, thread, created_at);
CREATE INDEX run_facts_by_state ON run_facts (state);

CREATE TABLE run_tools (
    run    TEXT NOT NULL,
    tool   TEXT NOT NULL,
    calls  INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    PRIMARY KEY (run, tool)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER run_facts_new AFTER INSERT ON runs
BEGIN
    INSERT INTO run_facts (workspace, created_at, run, thread, agent, model, asked, created_by,
        state, ended_at, duration_ms, error_code, error_message)
    VALUES (
        NEW.workspace, NEW.created_at, NEW.id, NEW.thread, NEW.agent,
        json_extract(NEW.body, '$.work.prompt.model'),
        json_extract(NEW.body, '$.work.prompt.model') IS NOT NULL,
        NEW.created_by, NEW.state, NEW.ended_at,
        MAX(0, NEW.ended_at - json_extract(NEW.body, '$.state.ended.since')),
        json_extract(NEW.body, '$.state.ended.outcome.failed.code'),
        json_extract(NEW.body, '$.state.ended.outcome.failed.message')
    );
END;

CREATE TRIGGER run_facts_state AFTER UPDATE ON runs WHEN NEW.state != OLD.state
BEGIN
    UPDATE run_facts SET
        state = NEW.state,
        ended_at = NEW.ended_at,
        duration_ms = MAX(0, NEW.ended_at - json_extract(NEW.body, '$.state.ended.since')),
        error_code = json_extract(NEW.body, '$.state.ended.outcome.failed.code'),
        error_message = json_extract(NEW.body, '$.state.ended.outcome.failed.message')
    WHERE run = NEW.id;
END;

CREATE TRIGGER run_facts_gone AFTER DELETE ON runs
BEGIN
    DELETE FROM run_facts WHERE run = OLD.id;
    DELETE FROM run_tools WHERE run = OLD.id;
END;

CREATE TRIGGER run_facts_sums
AFTER UPDATE OF input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, model_cost,
    compute_cost, unpriced ON run_logs
WHEN NEW.input_tokens != OLD.input_tokens OR NEW.output_tokens != OLD.output_tokens
    OR NEW.cache_read_tokens != OLD.cache_read_tokens
    OR NEW.cache_write_tokens != OLD.cache_write_tokens OR NEW.model_cost != OLD.model_cost
    OR NEW.compute_cost != OLD.compute_cost OR NEW.unpriced != OLD.unpriced
BEGIN
    UPDATE run_facts SET
        input_tokens = NEW.input_tokens,
        output_tokens = NEW.output_tokens,
        cache_read_tokens = NEW.cache_read_tokens,
        cache_write_tokens = NEW.cache_write_tokens,
        model_cost = NEW.model_cost,
        compute_cost = NEW.compute_cost,
        unpriced = NEW.unpriced
    WHERE run = NEW.run;
END;

CREATE TRIGGER run_facts_model AFTER INSERT ON usage_entries
WHEN NEW.run IS NOT NULL AND NEW.model IS NOT NULL
BEGIN
    UPDATE run_facts SET model = (
        SELECT model FROM usage_entries WHERE run = NEW.run AND model IS NOT NULL
        ORDER BY at, key LIMIT 1
    ) WHERE run = NEW.run AND asked = 0;
END;

CREATE TRIGGER run_tools_use AFTER INSERT ON run_events
WHEN NEW.kind = 'tool_use' AND json_valid(NEW.data)
    AND json_extract(NEW.data, '$.name') IS NOT NULL
BEGIN
    INSERT INTO run_tools (run, tool, calls, errors)
    VALUES (NEW.run, json_extract(NEW.data, '$.name'), 1, 0)
    ON CONFLICT (run, tool) DO UPDATE SET calls = calls + 1;
END;

CREATE TRIGGER run_tools_error AFTER INSERT ON run_events
WHEN NEW.kind = 'tool_result' AND json_valid(NEW.data)
    AND json_extract(NEW.data, '$.is_error') = 1
BEGIN
    UPDATE run_tools SET errors = errors + 1
    WHERE run = NEW.run AND tool = (
        SELECT json_extract(data, '$.name') FROM run_events
        WHERE run = NEW.run AND kind = 'tool_use' AND json_valid(data)
            AND json_extract(data, '$.id') = json_extract(NEW.data, '$.tool_use_id')
        ORDER BY seq DESC LIMIT 1
    );
END;

INSERT INTO run_facts (workspace, created_at, run, thread, agent, model, asked, created_by,
    state, ended_at, duration_ms, error_code, error_message, input_tokens, output_tokens,
    cache_read_tokens, cache_write_tokens, model_cost, compute_cost, unpriced)
SELECT workspace, created_at, id, thread, agent,
    COALESCE(
        json_extract(body, '$.work.prompt.model'),
        (SELECT model FROM usage_entries e WHERE e.run = id AND model IS NOT NULL
            ORDER BY at, key LIMIT 1)
    ),
    json_extract(body, '$.work.prompt.model') IS NOT NULL, created_by, state, ended_at,
    MAX(0, ended_at - json_extract(body, '$.state.ended.since')),
    json_extract(body, '$.state.ended.outcome.failed.code'),
    json_extract(body, '$.state.ended.outcome.failed.message'),
    input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, model_cost, compute_cost,
    unpriced
FROM runs JOIN run_logs ON run_logs.run = id;
