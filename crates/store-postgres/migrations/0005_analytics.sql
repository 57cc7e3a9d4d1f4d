-- What is known of each run for sums. Kept by triggers, in the transactions that change the runs
-- and the books: no writer can forget it.
CREATE TABLE run_facts (
    workspace          TEXT NOT NULL,
    created_at         BIGINT NOT NULL,
    run                TEXT COLLATE "C" PRIMARY KEY,
    thread             TEXT NOT NULL,
    agent              TEXT,
    -- The one that was asked for (then `asked`), or the first one that was used.
    model              TEXT,
    asked              BIGINT NOT NULL,
    created_by         TEXT NOT NULL,
    state              TEXT NOT NULL,
    ended_at           BIGINT,
    duration_ms        BIGINT,
    error_code         TEXT,
    error_message      TEXT,
    input_tokens       BIGINT NOT NULL DEFAULT 0,
    output_tokens      BIGINT NOT NULL DEFAULT 0,
    cache_read_tokens  BIGINT NOT NULL DEFAULT 0,
    cache_write_tokens BIGINT NOT NULL DEFAULT 0,
    model_cost         BIGINT NOT NULL DEFAULT 0,
    compute_cost       BIGINT NOT NULL DEFAULT 0,
    unpriced           BIGINT NOT NULL DEFAULT 0
);

CREATE INDEX run_facts_by_age ON run_facts (workspace, created_at);
CREATE INDEX run_facts_by_thread ON run_facts (workspace, thread, created_at);
CREATE INDEX run_facts_by_state ON run_facts (state);

CREATE TABLE run_tools (
    run    TEXT COLLATE "C" NOT NULL,
    tool   TEXT COLLATE "C" NOT NULL,
    calls  BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    PRIMARY KEY (run, tool)
);

-- A text in JSON; NULL if it is not there or is no JSON.
CREATE FUNCTION run_facts_text(doc TEXT, VARIADIC path TEXT[])
RETURNS TEXT LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN plain_json(doc) #>> path;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

CREATE FUNCTION run_facts_number(doc TEXT, VARIADIC path TEXT[])
RETURNS BIGINT LANGUAGE sql IMMUTABLE AS $$
    SELECT (plain_json(doc) #>> path)::BIGINT
$$;

CREATE FUNCTION run_facts_run() RETURNS TRIGGER LANGUAGE plpgsql AS $$
DECLARE
    wanted TEXT;
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM run_facts WHERE run = OLD.id;
        DELETE FROM run_tools WHERE run = OLD.id;
        RETURN NULL;
    END IF;
    IF TG_OP = 'INSERT' THEN
        wanted := run_facts_text(NEW.body, 'work', 'prompt', 'model');
        INSERT INTO run_facts
            (workspace, created_at, run, thread, agent, model, asked, created_by, state)
        VALUES (NEW.workspace, NEW.created_at, NEW.id, NEW.thread, NEW.agent, wanted,
            (wanted IS NOT NULL)::INT, NEW.created_by, NEW.state);
    ELSIF NEW.state = OLD.state THEN
        RETURN NULL;
    END IF;
    UPDATE run_facts SET
        state = NEW.state,
        ended_at = NEW.ended_at,
        duration_ms = CASE
            WHEN run_facts_number(NEW.body, 'state', 'ended', 'since') IS NULL THEN NULL
            ELSE GREATEST(0,
                NEW.ended_at - run_facts_number(NEW.body, 'state', 'ended', 'since')) END,
        error_code = run_facts_text(NEW.body, 'state', 'ended', 'outcome', 'failed', 'code'),
        error_message = run_facts_text(NEW.body, 'state', 'ended', 'outcome', 'failed', 'message')
    WHERE run = NEW.id;
    RETURN NULL;
END
$$;

CREATE TRIGGER run_facts_run AFTER INSERT OR UPDATE OR DELETE ON runs
FOR EACH ROW EXECUTE FUNCTION run_facts_run();

CREATE FUNCTION run_facts_sums() RETURNS TRIGGER LANGUAGE plpgsql AS $$
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
    RETURN NULL;
END
$$;

CREATE TRIGGER run_facts_sums AFTER UPDATE ON run_logs
FOR EACH ROW WHEN (
    (NEW.input_tokens, NEW.output_tokens, NEW.cache_read_tokens, NEW.cache_write_tokens,
        NEW.model_cost, NEW.compute_cost, NEW.unpriced)
    IS DISTINCT FROM
    (OLD.input_tokens, OLD.output_tokens, OLD.cache_read_tokens, OLD.cache_write_tokens,
        OLD.model_cost, OLD.compute_cost, OLD.unpriced)
) EXECUTE FUNCTION run_facts_sums();

CREATE FUNCTION run_facts_model() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    UPDATE run_facts SET model = (
        SELECT model FROM usage_entries WHERE run = NEW.run AND model IS NOT NULL
        ORDER BY at, key COLLATE "C" LIMIT 1
    ) WHERE run = NEW.run AND asked = 0;
    RETURN NULL;
END
$$;

CREATE TRIGGER run_facts_model AFTER INSERT ON usage_entries
FOR EACH ROW WHEN (NEW.run IS NOT NULL AND NEW.model IS NOT NULL)
EXECUTE FUNCTION run_facts_model();

CREATE FUNCTION run_tools_note() RETURNS TRIGGER LANGUAGE plpgsql AS $$
DECLARE
    called TEXT;
BEGIN
    IF NEW.kind = 'tool_use' THEN
        INSERT INTO run_tools (run, tool, calls, errors)
        SELECT NEW.run, name, 1, 0 FROM run_facts_text(NEW.data, 'name') AS name
        WHERE name IS NOT NULL
        ON CONFLICT (run, tool) DO UPDATE SET calls = run_tools.calls + 1;
    ELSIF run_facts_text(NEW.data, 'is_error') = 'true' THEN
        SELECT run_facts_text(data, 'name') INTO called FROM run_events
        WHERE run = NEW.run AND kind = 'tool_use'
            AND run_facts_text(data, 'id') = run_facts_text(NEW.data, 'tool_use_id')
        ORDER BY seq DESC LIMIT 1;
        UPDATE run_tools SET errors = errors + 1 WHERE run = NEW.run AND tool = called;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER run_tools_note AFTER INSERT ON run_events
FOR EACH ROW WHEN (NEW.kind IN ('tool_use', 'tool_result')) EXECUTE FUNCTION run_tools_note();

INSERT INTO run_facts
    (workspace, created_at, run, thread, agent, model, asked, created_by, state, ended_at,
    duration_ms, error_code, error_message, input_tokens, output_tokens, cache_read_tokens,
    cache_write_tokens, model_cost, compute_cost, unpriced)
SELECT workspace, created_at, id, thread, agent,
    COALESCE(
        run_facts_text(body, 'work', 'prompt', 'model'),
        (SELECT model FROM usage_entries e WHERE e.run = id AND model IS NOT NULL
            ORDER BY at, key LIMIT 1)
    ),
    (run_facts_text(body, 'work', 'prompt', 'model') IS NOT NULL)::INT, created_by, state, ended_at,
    CASE WHEN run_facts_number(body, 'state', 'ended', 'since') IS NULL THEN NULL
        ELSE GREATEST(0, ended_at - run_facts_number(body, 'state', 'ended', 'since')) END,
    run_facts_text(body, 'state', 'ended', 'outcome', 'failed', 'code'),
    run_facts_text(body, 'state', 'ended', 'outcome', 'failed', 'message'),
    input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, model_cost, compute_cost,
    unpriced
FROM runs JOIN run_logs ON run_logs.run = id;
