-- What the server said last. The path is the told one with NUL between its names, so that BINARY
-- order keeps a folder directly before all that is in it; for one that no disk can hold it is the
-- told text itself (holdable = 0). Several entries may stand at one path for a moment.
CREATE TABLE remote (
    path BLOB NOT NULL,
    id TEXT NOT NULL,
    holdable INTEGER NOT NULL,
    version TEXT NOT NULL,
    sha256 BLOB,            -- NULL: a folder
    size INTEGER NOT NULL,
    executable INTEGER NOT NULL,
    PRIMARY KEY (path, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX remote_id ON remote (id);

-- A snapshot that is not whole yet: takes the place of `remote` when it is.
CREATE TABLE pending (
    path BLOB NOT NULL,
    id TEXT NOT NULL,
    holdable INTEGER NOT NULL,
    version TEXT NOT NULL,
    sha256 BLOB,
    size INTEGER NOT NULL,
    executable INTEGER NOT NULL,
    PRIMARY KEY (path, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX pending_id ON pending (id);

-- Entries that we changed ourselves, by changes of the feed that were not read yet: what the feed
-- says of them before that is older than what we know.
CREATE TABLE ours (
    id TEXT NOT NULL PRIMARY KEY,
    sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- On what disk and server agreed last, and how the disk's entry looked then.
CREATE TABLE base (
    path BLOB NOT NULL PRIMARY KEY,
    id TEXT NOT NULL,
    version TEXT NOT NULL,
    sha256 BLOB,
    size INTEGER NOT NULL,
    executable INTEGER NOT NULL,
    dev INTEGER,            -- NULL: not known
    ino INTEGER,
    bytes INTEGER,
    mtime INTEGER,
    ctime INTEGER,
    mode INTEGER,
    racy INTEGER NOT NULL   -- a later change may show the same stat
) STRICT, WITHOUT ROWID;

-- What was about to be asked of the server: its answer may have been lost.
CREATE TABLE intent (
    number INTEGER PRIMARY KEY,
    operation_id TEXT NOT NULL UNIQUE,
    what TEXT NOT NULL,     -- send, mkdir, delete, rmdir, move
    path BLOB NOT NULL,
    target BLOB,            -- of a move
    id TEXT,
    version TEXT,
    sha256 BLOB,
    size INTEGER NOT NULL,
    executable INTEGER NOT NULL,
    dev INTEGER,
    ino INTEGER,
    bytes INTEGER,
    mtime INTEGER,
    ctime INTEGER,
    mode INTEGER
) STRICT;

-- Single values by name.
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;
