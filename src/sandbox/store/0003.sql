-- Subagents, their runs and what happens in them. An event names its run together with all that
-- says whose run it is, so that nobody adds to another's.
CREATE TABLE subagents (
    id TEXT PRIMARY KEY,
    team_id TEXT NOT NULL REFERENCES teams (id),
    gateway_id TEXT REFERENCES team_gateways (id),
    owner_agent_id TEXT,
    subagent_type TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'idle'
        CONSTRAINT subagents_status_check CHECK (status IN ('idle', 'running', 'completed', 'failed', 'cancelled')),
    config TEXT NOT NULL DEFAULT '{}',
    input TEXT NOT NULL DEFAULT '{}',
    output TEXT,
    error TEXT,
    metadata TEXT NOT NULL DEFAULT '{}'
        CONSTRAINT subagents_metadata_check CHECK (json_type(metadata) = 'object'),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    started_at INTEGER,
    completed_at INTEGER
) STRICT;

CREATE TABLE subagent_runs (
    id TEXT PRIMARY KEY,
    subagent_id TEXT NOT NULL REFERENCES subagents (id),
    team_id TEXT NOT NULL REFERENCES teams (id),
    gateway_id TEXT NOT NULL REFERENCES team_gateways (id),
    run_sequence INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'running'
        CONSTRAINT subagent_runs_status_check CHECK (status IN ('queued', 'running', 'completed', 'failed', 'cancelled')),
    prompt TEXT NOT NULL,
    output TEXT,
    error TEXT,
    metadata TEXT NOT NULL DEFAULT '{}'
        CONSTRAINT subagent_runs_metadata_check CHECK (json_type(metadata) = 'object'),
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    completed_at INTEGER,
    cancellation_requested_at INTEGER,
    UNIQUE (subagent_id, run_sequence),
    UNIQUE (id, subagent_id, team_id, gateway_id)
) STRICT;

CREATE TABLE subagent_run_events (
    id TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    subagent_id TEXT NOT NULL,
    team_id TEXT NOT NULL,
    gateway_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    event_type TEXT NOT NULL
        CONSTRAINT subagent_run_events_type_check CHECK (event_type IN (
            'message', 'system', 'tool_call', 'tool_result', 'run_started', 'run_progress',
            'cancellation_requested', 'cancellation_acknowledged', 'run_completed', 'run_failed',
            'run_cancelled')),
    payload TEXT NOT NULL DEFAULT '{}',
    created_at INTEGER NOT NULL,
    UNIQUE (run_id, sequence),
    FOREIGN KEY (run_id, subagent_id, team_id, gateway_id)
        REFERENCES subagent_runs (id, subagent_id, team_id, gateway_id)
) STRICT;

-- What stands for a secret in a job; the secret itself is never here.
CREATE TABLE job_secret_placeholders (
    job_id TEXT NOT NULL REFERENCES gateway_jobs (id) ON DELETE CASCADE,
    env_name TEXT NOT NULL,
    secret_name TEXT NOT NULL,
    placeholder TEXT NOT NULL,
    PRIMARY KEY (job_id, env_name)
) STRICT;
