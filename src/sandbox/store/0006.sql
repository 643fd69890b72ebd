-- Managed VMs. A VM has one gateway, whoever bootstraps it how often; `generation` counts that.
CREATE TABLE vms (
    id TEXT PRIMARY KEY,
    team_id TEXT NOT NULL REFERENCES teams (id),
    gateway_id TEXT REFERENCES team_gateways (id),
    generation INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- A token works once: `used_key_sha256` is of the key that its user chose, who may ask again when
-- the answer was lost.
CREATE TABLE vm_tokens (
    token_sha256 TEXT PRIMARY KEY,
    vm_id TEXT NOT NULL REFERENCES vms (id),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER,
    used_key_sha256 TEXT
) STRICT;

-- Names of secrets that jobs in VMs may ask placeholders for. Nothing here puts values in their
-- place, so none are kept.
CREATE TABLE secrets (
    team_id TEXT NOT NULL REFERENCES teams (id),
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (team_id, name)
) STRICT;
