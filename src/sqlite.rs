//! What the databases have in common: a file that only its owner reads, and a format with a number.
//!
//! A format is SQLite's `user_version`. Migrations are SQL texts, each of which brings the format of
//! its index to the next; one that was released is never changed.

use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

/// The file exists before SQLite opens it, so that it never has another mode; SQLite gives its
/// `-wal` and `-shm` files the same.
///
/// # Errors
///
/// The file can be neither opened nor made, or it is another user's and open to others.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// A connection is used by one thread at a time, so SQLite need not lock it.
pub(crate) fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// The format that a file has; 0 for a new one.
///
/// # Errors
///
/// SQLite cannot read the file.
pub(crate) fn format(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// The newest format that `migrations` lead to.
pub(crate) fn newest(migrations: &[&str]) -> i64 {
    i64::try_from(migrations.len()).unwrap_or(i64::MAX)
}

/// Each migration is one transaction with its number: a crash leaves either format, whole.
///
/// # Errors
///
/// A migration fails; those before it stay done.
pub(crate) fn migrate(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
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
            assert_eq!(format(&connection).unwrap(), newest(&[FIRST, SECOND]));
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

    #[test]
    fn a_file_that_others_could_read_is_closed_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.db");
        make_private(&path).unwrap();
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        make_private(&path).unwrap();
        assert_eq!(mode(), 0o600);
    }
}
