//! Opening the database file: its mode, its format, its settings.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use super::limit::TimeLimit;
use super::{Schema, StoreError, functions};
use crate::sqlite;

/// A change of a table is one more file at the end.
const MIGRATIONS: &[&str] = &[
    include_str!("0001.sql"),
    include_str!("0002.sql"),
    include_str!("0003.sql"),
    include_str!("0004.sql"),
    include_str!("0005.sql"),
    include_str!("0006.sql"),
];

/// How long SQLite waits for another process that holds the file, e.g. a backup.
const BUSY: Duration = Duration::from_secs(5);

/// KiB (negative, by SQLite's custom) that the writer may keep of the database, so that it need not
/// read the pages of large indexes for each row anew.
const WRITER_CACHE: i64 = -16 * 1024;
/// Pages of the write-ahead log after which they are moved to their places.
const WRITTEN_AT_ONCE: i64 = 4000;
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
    sqlite::make_private(path)
        .map_err(|source| StoreError::File { path: path.to_owned(), source })?;
    let mut connection = Connection::open_with_flags(path, sqlite::flags())?;
    connection.busy_timeout(BUSY)?;
    let found = sqlite::format(&connection)?;
    let known = known_format();
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "cache_size", WRITER_CACHE)?;
    connection.pragma_update(None, "wal_autocheckpoint", WRITTEN_AT_ONCE)?;
    let limit = settings(&mut connection)?;
    sqlite::migrate(&mut connection, MIGRATIONS)?;
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
    let mut connection = Connection::open_with_flags(path, sqlite::flags())?;
    connection.busy_timeout(BUSY)?;
    let limit = settings(&mut connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok((connection, limit))
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

/// The newest format that this version knows.
pub(super) fn known_format() -> i64 {
    sqlite::newest(MIGRATIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every statement that made something, as SQLite keeps it.
    fn made(connection: &Connection) -> Vec<String> {
        let sql = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name";
        let mut statement = connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_database_of_every_earlier_format_is_opened_with_its_rows() {
        const TEAM: &str = "INSERT INTO teams (id, name, created_at) VALUES ('t', 'ours', 0)";
        let dir = tempfile::tempdir().unwrap();
        let (fresh, _) = writer(&dir.path().join("fresh.db"), &Schema::built_in()).unwrap();
        for earlier in 1..=MIGRATIONS.len() {
            let path = dir.path().join(format!("{earlier}.db"));
            let mut connection = Connection::open(&path).unwrap();
            sqlite::migrate(&mut connection, &MIGRATIONS[..earlier]).unwrap();
            connection.execute(TEAM, []).unwrap();
            drop(connection);
            let (connection, _) = writer(&path, &Schema::built_in()).unwrap();
            assert_eq!(sqlite::format(&connection).unwrap(), known_format());
            assert_eq!(made(&connection), made(&fresh), "from format {earlier}");
            let team = connection.query_row("SELECT name FROM teams", [], |row| row.get(0));
            assert_eq!(team, Ok("ours".to_owned()));
        }
    }
}
