-- Contents of files, one row a file below `objects/`. `holders` counts the rows elsewhere that name
-- it; at 0 the file is about to be removed. `version` counts the changes of `holders`, so that a
-- remover sees whether anything happened since it looked.
CREATE TABLE contents (
    sha256 TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    holders INTEGER NOT NULL CONSTRAINT contents_holders_check CHECK (holders >= 0),
    version INTEGER NOT NULL
) STRICT;
CREATE INDEX contents_unheld ON contents (sha256) WHERE holders = 0;

-- Storage's objects. Each team has its own names in each bucket; the buckets themselves are in the
-- program.
CREATE TABLE objects (
    id TEXT PRIMARY KEY,
    team_id TEXT NOT NULL REFERENCES teams (id),
    bucket TEXT NOT NULL,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL REFERENCES contents (sha256),
    size INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    max_age INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CONSTRAINT objects_name_key UNIQUE (team_id, bucket, name)
) STRICT;
CREATE INDEX objects_by_content ON objects (sha256);
