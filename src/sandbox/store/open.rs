//! Opening the database file: its mode, its format, its settings.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::limit::TimeLimit;
use super::{Schema, StoreError, functions};

/// Each brings the format from its index to the next; the format is SQLite's `user_version`.
const MIGRATIONS: [&str; 3] =
    [include_str!("0001.sql"), include_str!("0002.sql"), include_str!("0003.sql")];

/// How long SQLite waits for another process that holds the file, e.g. a backup.
const BUSY: Duration = Duration::from_secs(5);

/// Statements of this many shapes stay prepared on each connection.
const PREPARED: usize = 128;

/// Makes the file when it is absent, checks its format before anything is changed, and migrates.
/// Returns the writer's connection.
pub(super) fn writer(path: &Path, schema: &Schema) -> Result<(Connection, TimeLimit), StoreError> {
    prepared(path, schema).map_err(|error| {
        let StoreError::Sqlite(source) = error else { return error };
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                StoreError::Damaged { path, source }
            }
            _ => StoreError::Open { path, source },
        }
    })
}

fn prepared(path: &Path, schema: &Schema) -> Result<(Connection, TimeLimit), StoreError> {
    make_private(path).map_err(|source| StoreError::File { path: path.to_owned(), source })?;
    let mut connection = Connection::open_with_flags(path, flags())?;
    connection.busy_timeout(BUSY)?;
    let found = format(&connection)?;
    let known = known_format();
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let limit = settings(&mut connection)?;
    migrate(&mut connection)?;
    for sql in &schema.added_sql {
        connection.execute_batch(sql)?;
    }
    Ok((connection, limit))
}

/// Syncs the write-ahead log, which the `synchronous` setting leaves to checkpoints; a checkpoint
/// syncs what it moves out of it.
pub(super) fn sync(path: &Path) -> Result<(), StoreError> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let path = PathBuf::from(log);
    let synced = File::open(&path).and_then(|log| log.sync_data());
    synced.map_err(|source| StoreError::File { path, source })
}

/// A connection that cannot change anything. The file must have been opened by [`writer`].
pub(super) fn reader(path: &Path) -> Result<(Connection, TimeLimit), StoreError> {
    let mut connection = Connection::open_with_flags(path, flags())?;
    connection.busy_timeout(BUSY)?;
    let limit = settings(&mut connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok((connection, limit))
}

/// The connection is used by one thread at a time, so SQLite need not lock it.
fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// The file exists before SQLite opens it, so that it never has another mode; SQLite gives its
/// `-wal` and `-shm` files the same.
fn make_private(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}

fn settings(connection: &mut Connection) -> rusqlite::Result<TimeLimit> {
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    let limit = TimeLimit::new();
    limit.watch(connection)?;
    functions::register(connection, &limit)?;
    Ok(limit)
}

pub(super) fn format(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// The newest format that this version knows.
pub(super) fn known_format() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Each migration is one transaction with its number: a crash leaves either format, whole.
fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    for (number, sql) in (1_i64..).zip(MIGRATIONS) {
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        if format(&transaction)? < number {
            transaction.execute_batch(sql)?;
            transaction.pragma_update(None, "user_version", number)?;
        }
        transaction.commit()?;
    }
    Ok(())
}
