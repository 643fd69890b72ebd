//! Opening the file: its format, its settings, and what happens to a damaged one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::{State, StateError};
use crate::sqlite;

/// A change of a table is one more file at the end.
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
    sqlite::migrate(&mut connection, MIGRATIONS)?;
    Ok(State { connection, set_aside: None })
}

/// The format is looked at before anything is changed.
fn opened(path: &Path) -> Result<Connection, StateError> {
    sqlite::make_private(path).map_err(|source| failed(path, source))?;
    let mut connection = Connection::open_with_flags(path, sqlite::flags())?;
    connection.busy_timeout(BUSY)?;
    let (found, known) = (sqlite::format(&connection)?, sqlite::newest(MIGRATIONS));
    if found > known {
        return Err(StateError::Newer { found, known });
    }
    check(&connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    settings(&connection)?;
    sqlite::migrate(&mut connection, MIGRATIONS)?;
    Ok(connection)
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
