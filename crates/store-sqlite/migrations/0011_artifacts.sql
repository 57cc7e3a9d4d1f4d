-- Runs and artifacts that are not to be kept for ever, and the sandboxes that go with runs.
CREATE INDEX runs_by_end ON runs (workspace, ended_at, id) WHERE ended_at IS NOT NULL;

CREATE INDEX sandboxes_of_runs ON sandboxes (id)
    WHERE instr(metadata, '"woodfrog.run":') > 0;

CREATE INDEX meters_by_workspace ON meters (workspace);
