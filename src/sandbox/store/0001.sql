-- Ids are UUIDs, lower-case with hyphens (filters are written so before they are compared).
-- Times are integers, microseconds since 1970 UTC; JSON columns hold JSON text; booleans 0/1.
CREATE TABLE teams (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE pairing_codes (
    code_sha256 TEXT PRIMARY KEY,
    team_id TEXT NOT NULL REFERENCES teams (id),
    device_name TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER
) STRICT;

-- One session a pairing. A refresh token is kept as its SHA-256 only.
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    gateway_id TEXT NOT NULL,
    team_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;

CREATE TABLE refresh_tokens (
    token_sha256 TEXT PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES sessions (id),
    parent_sha256 TEXT,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id);

CREATE TABLE team_gateways (
    id TEXT PRIMARY KEY,
    team_id TEXT NOT NULL REFERENCES teams (id),
    device_name TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'pending'
        CONSTRAINT team_gateways_status_check CHECK (status IN ('pending', 'ready', 'error', 'offline')),
    capabilities TEXT NOT NULL DEFAULT '{}',
    full_control_enabled INTEGER NOT NULL DEFAULT 0,
    last_seen_at INTEGER,
    ready_at INTEGER,
    vm_id TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE gateway_jobs (
    id TEXT PRIMARY KEY,
    team_id TEXT NOT NULL REFERENCES teams (id),
    gateway_id TEXT NOT NULL REFERENCES team_gateways (id),
    job_type TEXT NOT NULL,
    payload TEXT NOT NULL DEFAULT '{}',
    status TEXT NOT NULL DEFAULT 'queued'
        CONSTRAINT gateway_jobs_status_check CHECK (status IN ('queued', 'running', 'completed', 'failed', 'cancelled')),
    result TEXT,
    error TEXT,
    debug TEXT,
    attempt INTEGER NOT NULL DEFAULT 1,
    idempotency_key TEXT,
    retry_of_job_id TEXT,
    requested_via TEXT,
    requested_by_agent_id TEXT,
    requested_by_user_id TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    started_at INTEGER,
    completed_at INTEGER
) STRICT;
CREATE INDEX gateway_jobs_queue ON gateway_jobs (gateway_id, status, created_at, id);
CREATE INDEX gateway_jobs_key ON gateway_jobs (team_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX gateway_jobs_newest ON gateway_jobs (created_at, id);

CREATE TABLE gateway_events (
    id TEXT PRIMARY KEY,
    gateway_id TEXT NOT NULL,
    team_id TEXT NOT NULL,
    provider TEXT,
    level TEXT NOT NULL
        CONSTRAINT gateway_events_level_check CHECK (level IN ('info', 'warn', 'error')),
    code TEXT,
    message TEXT NOT NULL
        CONSTRAINT gateway_events_message_check CHECK (length(message) <= 2000),
    details TEXT NOT NULL DEFAULT '{}'
        CONSTRAINT gateway_events_details_check CHECK (json_type(details) = 'object'),
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE team_resources (
    id TEXT PRIMARY KEY,
    team_id TEXT NOT NULL REFERENCES teams (id),
    resource_type TEXT NOT NULL,
    max_access_level TEXT NOT NULL,
    metadata TEXT NOT NULL DEFAULT '{}',
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
