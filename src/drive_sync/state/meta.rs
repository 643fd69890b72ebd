//! Single values: how far the feed was read, which root this state belongs to, and notes.

use rusqlite::types::{FromSql, ToSql};
use rusqlite::{Connection, OptionalExtension as _};

use super::{State, StateError};
use crate::drive_sync::model::device;
use crate::drive_sync::ports::Root;

/// How far the feed was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Of the server's numbering: another one begins when the server was restored.
    pub epoch: String,
    /// Everything up to here is known.
    pub sequence: u64,
}

/// A time that is kept for people, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// The last look at the whole disk.
    Audit,
    /// The last comparison with the server's digest.
    Digest,
    /// Disk and server were the same for the first time.
    FirstCopy,
}

impl Note {
    fn name(self) -> &'static str {
        match self {
            Self::Audit => "audit_at",
            Self::Digest => "digest_at",
            Self::FirstCopy => "first_copy_at",
        }
    }
}

impl State {
    /// `None`: nothing was ever read.
    pub fn cursor(&self) -> Result<Option<Cursor>, StateError> {
        let epoch = get(&self.connection, "epoch")?;
        let sequence: Option<i64> = get(&self.connection, "cursor")?;
        Ok(epoch
            .zip(sequence)
            .map(|(epoch, sequence)| Cursor { epoch, sequence: sequence.cast_unsigned() }))
    }

    /// The root that this state is about.
    pub fn root(&self) -> Result<Option<Root>, StateError> {
        let text = |name| get::<String>(&self.connection, name);
        let number = |name| get::<i64>(&self.connection, name);
        let (Some(drive_id), Some(marker)) = (text("root_drive")?, text("root_marker")?) else {
            return Ok(None);
        };
        let (Some(dev), Some(ino)) = (number("root_dev")?, number("root_ino")?) else {
            return Ok(None);
        };
        Ok(Some(Root {
            drive_id,
            marker,
            dev: device(dev.cast_unsigned()),
            ino: ino.cast_unsigned(),
        }))
    }

    /// From now on this state is about `root`. Whatever was agreed about another one is forgotten,
    /// so that nothing is deleted for its sake.
    pub fn bind_root(&mut self, root: &Root) -> Result<(), StateError> {
        let transaction = self.connection.transaction()?;
        transaction.execute("DELETE FROM base", [])?;
        set(&transaction, "root_drive", &root.drive_id)?;
        set(&transaction, "root_marker", &root.marker)?;
        set(&transaction, "root_dev", i64::from(root.dev))?;
        set(&transaction, "root_ino", root.ino.cast_signed())?;
        Ok(transaction.commit()?)
    }

    /// The start of the machine at which the root was seen last.
    pub fn root_start(&self) -> Result<Option<String>, StateError> {
        get(&self.connection, "root_start")
    }

    /// The root was seen as it is known.
    pub fn root_seen(&mut self, start: &str) -> Result<(), StateError> {
        if self.root_start()?.is_some_and(|seen| seen == start) {
            return Ok(());
        }
        set(&self.connection, "root_start", start)
    }

    /// The root's disk has this number since the last start of the machine. What is remembered of its
    /// files stays: all else about them is as it was.
    pub fn root_has_device(&mut self, dev: u32, start: &str) -> Result<(), StateError> {
        let transaction = self.connection.transaction()?;
        transaction.execute(
            "UPDATE base SET dev = ?1
             WHERE dev = (SELECT value FROM meta WHERE name = 'root_dev')",
            [dev],
        )?;
        set(&transaction, "root_dev", i64::from(dev))?;
        set(&transaction, "root_start", start)?;
        Ok(transaction.commit()?)
    }

    /// The crash of the machine whose traces were all looked at, in nanoseconds since 1970.
    pub fn crash_settled(&self) -> Result<Option<i64>, StateError> {
        get(&self.connection, "crash_settled")
    }

    /// Nothing is held back any more for the sake of that crash.
    pub fn settle_crash(&mut self, crash: i64) -> Result<(), StateError> {
        set(&self.connection, "crash_settled", crash)
    }

    /// Whether a person has let held deletions go.
    pub fn deletions_released(&self) -> Result<bool, StateError> {
        Ok(get(&self.connection, "release_deletions")?.unwrap_or(false))
    }

    /// Lets held deletions go, or takes that back.
    pub fn release_deletions(&mut self, release: bool) -> Result<(), StateError> {
        set(&self.connection, "release_deletions", release)
    }

    /// When that was last.
    pub fn noted(&self, note: Note) -> Result<Option<i64>, StateError> {
        get(&self.connection, note.name())
    }

    /// That was now.
    pub fn note(&mut self, note: Note, at: i64) -> Result<(), StateError> {
        set(&self.connection, note.name(), at)
    }
}

pub(super) fn set_cursor(
    connection: &Connection,
    epoch: &str,
    sequence: u64,
) -> Result<(), StateError> {
    set(connection, "epoch", epoch)?;
    set(connection, "cursor", sequence.cast_signed())
}

pub(super) fn get<T: FromSql>(
    connection: &Connection,
    name: &str,
) -> Result<Option<T>, StateError> {
    Ok(connection
        .prepare_cached("SELECT value FROM meta WHERE name = ?")?
        .query_row([name], |row| row.get(0))
        .optional()?)
}

pub(super) fn set(
    connection: &Connection,
    name: &str,
    value: impl ToSql,
) -> Result<(), StateError> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)")?
        .execute((name, value))?;
    Ok(())
}

pub(super) fn unset(connection: &Connection, name: &str) -> Result<(), StateError> {
    connection.prepare_cached("DELETE FROM meta WHERE name = ?")?.execute([name])?;
    Ok(())
}
