-- Small contents are kept right here, not as a file each: then `bytes` is set.
ALTER TABLE contents ADD COLUMN bytes BLOB;

-- Drives of a team. `head` is the sequence of the latest change; changes up to `floor` are not all
-- kept any more. `default_access` is that of gateways that `drive_access` does not name.
CREATE TABLE drives (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    team_id TEXT NOT NULL REFERENCES teams (id),
    name TEXT NOT NULL,
    slug TEXT NOT NULL,
    epoch TEXT NOT NULL,
    head INTEGER NOT NULL DEFAULT 0,
    floor INTEGER NOT NULL DEFAULT 0,
    default_access TEXT NOT NULL
        CONSTRAINT drives_default_access_check CHECK (default_access IN ('none', 'read', 'write')),
    created_at INTEGER NOT NULL,
    CONSTRAINT drives_slug_key UNIQUE (team_id, slug)
) STRICT;

CREATE TABLE drive_access (
    drive INTEGER NOT NULL REFERENCES drives (number),
    gateway_id TEXT NOT NULL REFERENCES team_gateways (id),
    access TEXT NOT NULL
        CONSTRAINT drive_access_access_check CHECK (access IN ('none', 'read', 'write')),
    PRIMARY KEY (drive, gateway_id)
) STRICT;

-- The feed and the tree in one: a row is an entry's state from `sequence` until the entry's next
-- one, `until`. Rows without `until` that are no deletions are the tree; a deletion is a tombstone
-- with the last state in it.
CREATE TABLE drive_changes (
    drive INTEGER NOT NULL REFERENCES drives (number),
    sequence INTEGER NOT NULL,
    until INTEGER,
    change TEXT NOT NULL
        CONSTRAINT drive_changes_change_check CHECK (change IN ('upsert', 'delete', 'move')),
    entry_id TEXT NOT NULL,
    path TEXT NOT NULL,
    from_path TEXT,
    entry_type TEXT NOT NULL
        CONSTRAINT drive_changes_entry_type_check CHECK (entry_type IN ('file', 'directory')),
    version_id TEXT NOT NULL,
    sha256 TEXT,
    size INTEGER,
    mime_type TEXT,
    mode INTEGER,
    operation_id TEXT NOT NULL,
    client_key TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (drive, sequence)
) STRICT;
CREATE UNIQUE INDEX drive_changes_tree ON drive_changes (drive, path)
    WHERE until IS NULL AND change <> 'delete';
CREATE INDEX drive_changes_entries ON drive_changes (drive, entry_id)
    WHERE until IS NULL AND change <> 'delete';
CREATE INDEX drive_changes_paths ON drive_changes (drive, path, sequence);
CREATE INDEX drive_changes_over ON drive_changes (drive, until) WHERE until IS NOT NULL;
CREATE INDEX drive_changes_deletions ON drive_changes (drive, sequence) WHERE change = 'delete';

-- Every content that a file had. `replaced_at`: since when it has another one, or is gone.
CREATE TABLE drive_versions (
    id TEXT PRIMARY KEY,
    drive INTEGER NOT NULL REFERENCES drives (number),
    entry_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    sha256 TEXT NOT NULL REFERENCES contents (sha256),
    size INTEGER NOT NULL,
    mime_type TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    replaced_at INTEGER
) STRICT;
CREATE INDEX drive_versions_by_content ON drive_versions (sha256, drive);
CREATE INDEX drive_versions_by_sequence ON drive_versions (drive, sequence);
CREATE INDEX drive_versions_replaced ON drive_versions (replaced_at) WHERE replaced_at IS NOT NULL;

-- What was done under an id: the change of the entry itself, and the last one. `fingerprint` is a
-- hash of the request.
CREATE TABLE drive_operations (
    drive INTEGER NOT NULL REFERENCES drives (number),
    operation_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    upload_id TEXT,
    entry_sequence INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (drive, operation_id)
) STRICT;
CREATE INDEX drive_operations_by_sequence ON drive_operations (drive, sequence);

-- What is being sent. `request` is the file as JSON.
CREATE TABLE drive_uploads (
    id TEXT PRIMARY KEY,
    drive INTEGER NOT NULL REFERENCES drives (number),
    operation_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    request TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    CONSTRAINT drive_uploads_operation_key UNIQUE (drive, operation_id)
) STRICT;
CREATE INDEX drive_uploads_by_expiry ON drive_uploads (expires_at);

CREATE TABLE drive_upload_parts (
    upload_id TEXT NOT NULL REFERENCES drive_uploads (id),
    part INTEGER NOT NULL,
    sha256 TEXT NOT NULL REFERENCES contents (sha256),
    size INTEGER NOT NULL,
    PRIMARY KEY (upload_id, part)
) STRICT;
