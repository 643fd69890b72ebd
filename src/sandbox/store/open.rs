//! Opening the database file: its mode, its format, its settings.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::limit::TimeLimit;
use super::{Schema, StoreError, functions};

/// Each brings the format from its index to the next; the format is SQLite's `user_version`. One
/// that was released is never changed: a change of a table is one more file at the end.
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
    migrate(&mut connection, MIGRATIONS)?;
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
fn migrate(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    for (number, sql) in (1_i64..).zip(migrations) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "CREATE TABLE t (a TEXT NOT NULL) STRICT; INSERT INTO t VALUES ('old');";
    const SECOND: &str = "ALTER TABLE t ADD COLUMN b TEXT NOT NULL DEFAULT 'new';";

    fn row(connection: &Connection) -> (String, String) {
        connection
            .query_row("SELECT a, b FROM t", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
    }

    #[test]
    fn an_older_format_is_brought_up_to_date_once_and_keeps_its_rows() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &[FIRST]).unwrap();
        assert_eq!(format(&connection).unwrap(), 1);
        for _ in 0..2 {
            migrate(&mut connection, &[FIRST, SECOND]).unwrap();
            assert_eq!(format(&connection).unwrap(), 2);
            assert_eq!(row(&connection), ("old".to_owned(), "new".to_owned()));
        }
    }

    #[test]
    fn a_migration_that_fails_leaves_the_older_format_whole() {
        let mut connection = Connection::open_in_memory().unwrap();
        let half = format!("{SECOND} INSERT INTO absent VALUES (1);");
        assert!(migrate(&mut connection, &[FIRST, &half]).is_err());
        assert_eq!(format(&connection).unwrap(), 1);
        assert!(connection.prepare("SELECT b FROM t").is_err());
        migrate(&mut connection, &[FIRST, SECOND]).unwrap();
        assert_eq!(row(&connection), ("old".to_owned(), "new".to_owned()));
    }

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
            migrate(&mut connection, &MIGRATIONS[..earlier]).unwrap();
            connection.execute(TEAM, []).unwrap();
            drop(connection);
            let (connection, _) = writer(&path, &Schema::built_in()).unwrap();
            assert_eq!(format(&connection).unwrap(), known_format());
            assert_eq!(made(&connection), made(&fresh), "from format {earlier}");
            let team = connection.query_row("SELECT name FROM teams", [], |row| row.get(0));
            assert_eq!(team, Ok("ours".to_owned()));
        }
    }
}
