//! Opening the file: its format, its settings, and what happens to a damaged one.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{State, StateError};

/// Each brings the format from its index to the next; the format is SQLite's `user_version`. One
/// that was released is never changed: a change of a table is one more file at the end.
const MIGRATIONS: &[&str] = &[include_str!("0001.sql")];

/// How long SQLite waits for another process that looks into the file.
const BUSY: Duration = Duration::from_secs(5);

/// Statements of this many shapes stay prepared.
const PREPARED: usize = 64;

pub(super) fn open(path: &Path) -> Result<State, StateError> {
    match opened(path) {
        Ok(connection) => Ok(State { connection, set_aside: None }),
        Err(StateError::Damaged(_)) => {
            let set_aside = set_aside(path).map_err(|source| failed(path, source))?;
            Ok(State { connection: opened(path)?, set_aside: Some(set_aside) })
        }
        Err(error) => Err(error),
    }
}

pub(super) fn in_memory() -> Result<State, StateError> {
    let mut connection = Connection::open_in_memory()?;
    settings(&connection)?;
    migrate(&mut connection, MIGRATIONS)?;
    Ok(State { connection, set_aside: None })
}

/// The format is looked at before anything is changed.
fn opened(path: &Path) -> Result<Connection, StateError> {
    make_private(path).map_err(|source| failed(path, source))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    let (found, known) = (format(&connection)?, known_format());
    if found > known {
        return Err(StateError::Newer { found, known });
    }
    check(&connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    settings(&connection)?;
    migrate(&mut connection, MIGRATIONS)?;
    Ok(connection)
}

/// The file exists before SQLite opens it, so that it never has another mode; SQLite gives the
/// files beside it the same.
fn make_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

fn settings(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    Ok(())
}

/// A page that is not what it was is found here, and not in the middle of a sync.
fn check(connection: &Connection) -> Result<(), StateError> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(StateError::Damaged(verdict)) }
}

fn format(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn known_format() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Each migration is one transaction with its number: a crash leaves either format, whole.
fn migrate(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    for (number, sql) in (1_i64..).zip(migrations) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if format(&transaction)? < number {
            transaction.execute_batch(sql)?;
            transaction.pragma_update(None, "user_version", number)?;
        }
        transaction.commit()?;
    }
    Ok(())
}

fn failed(path: &Path, source: io::Error) -> StateError {
    StateError::File { path: path.to_owned(), source }
}

/// Renames the file and those that SQLite keeps beside it; the log goes first, for without its
/// database it would be taken for that of the next one.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let beside = |base: &Path, suffix: &str| {
        let mut name = base.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let mut number = 1_u32;
    let mut target = beside(path, ".damaged-1");
    while fs::symlink_metadata(&target).is_ok() {
        number += 1;
        target = beside(path, &format!(".damaged-{number}"));
    }
    for suffix in ["-wal", "-shm"] {
        match fs::rename(beside(path, suffix), beside(&target, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    fs::rename(path, &target)?;
    Ok(target)
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
        migrate(&mut connection, &[FIRST, SECOND]).unwrap();
        assert_eq!(row(&connection), ("old".to_owned(), "new".to_owned()));
    }
}
