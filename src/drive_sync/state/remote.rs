//! What the server said last: the feed's pages go in, the trees come out as streams.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256 as Hasher};

use super::meta::{self, Cursor};
use super::{State, StateError, rows};
use crate::drive_sync::model::{EntryId, Remote, Sha256};
use crate::drive_sync::path::{PathError, RelPath};
use crate::drive_sync::ports::{Change, RemoteEntry};

/// Where entries of the server are kept: what is known, or a snapshot that is not whole yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Remote,
    Pending,
}

impl Table {
    fn upsert(self) -> &'static str {
        match self {
            Self::Remote => {
                "INSERT OR REPLACE INTO remote \
                 (path, id, holdable, version, sha256, size, executable) \
                 VALUES (?, ?, ?, ?, ?, ?, ?)"
            }
            Self::Pending => {
                "INSERT OR REPLACE INTO pending \
                 (path, id, holdable, version, sha256, size, executable) \
                 VALUES (?, ?, ?, ?, ?, ?, ?)"
            }
        }
    }

    fn delete(self) -> &'static str {
        match self {
            Self::Remote => "DELETE FROM remote WHERE id = ?",
            Self::Pending => "DELETE FROM pending WHERE id = ?",
        }
    }
}

/// What is known of the server, in short: to be compared with what it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Entries.
    pub count: u64,
    /// Over what they are.
    pub sha256: Sha256,
    /// Over what and where they are.
    pub paths: Sha256,
}

impl State {
    /// A page of the feed, with the cursor after it. What it says of an entry that we have changed
    /// ourselves later is left out. Returns how many rows became others.
    pub fn take_page(
        &mut self,
        epoch: &str,
        changes: &[Change],
        cursor: u64,
    ) -> Result<usize, StateError> {
        let transaction = self.connection.transaction()?;
        let mut taken = 0;
        for change in changes {
            if !is_older_than_ours(&transaction, change)? {
                taken += usize::from(take(&transaction, Table::Remote, change)?);
            }
        }
        is_read(&transaction, epoch, cursor)?;
        transaction.commit()?;
        Ok(taken)
    }

    /// Takes what comes next in the feed for read as far as all of it is our own: sequences without
    /// a gap leave no room for anybody else's. Returns how far the feed was read then.
    pub fn pass_over_ours(&mut self) -> Result<Option<Cursor>, StateError> {
        let Some(mut cursor) = self.cursor()? else { return Ok(None) };
        let before = cursor.sequence;
        let mut statement = self
            .connection
            .prepare_cached("SELECT sequence FROM ours WHERE sequence > ? ORDER BY sequence")?;
        let mut rows = statement.query([before.cast_signed()])?;
        while let Some(row) = rows.next()? {
            if row.get::<_, i64>(0)?.cast_unsigned() != cursor.sequence + 1 {
                break;
            }
            cursor.sequence += 1;
        }
        drop(rows);
        drop(statement);
        if cursor.sequence > before {
            let transaction = self.connection.transaction()?;
            is_read(&transaction, &cursor.epoch, cursor.sequence)?;
            transaction.commit()?;
        }
        Ok(Some(cursor))
    }

    /// Places of which the feed has not told enough yet: several entries at one path, or no folder
    /// where one must be. They hold for all that is below them; none lies inside another.
    pub fn unclear(&self) -> Result<BTreeSet<RelPath>, StateError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT path, sha256 IS NULL FROM remote WHERE holdable = 1 ORDER BY path, id",
        )?;
        let mut rows = statement.query([])?;
        let mut unclear = BTreeSet::new();
        // The folders above the last entry, and the entry itself when it is a folder.
        let mut open: Vec<RelPath> = Vec::new();
        let mut last: Option<RelPath> = None;
        let mut bad: Option<RelPath> = None;
        while let Some(row) = rows.next()? {
            let path = rows::path(row, 0)?;
            if bad.as_ref().is_some_and(|bad| path == *bad || path.is_inside(bad)) {
                continue;
            }
            while open.last().is_some_and(|folder| !path.is_inside(folder)) {
                open.pop();
            }
            let wrong = if last.as_ref() == Some(&path) {
                Some(path.clone())
            } else {
                missing_folder(&path, open.last())
            };
            if let Some(wrong) = wrong {
                unclear.insert(wrong.clone());
                bad = Some(wrong);
                continue;
            }
            if row.get(1)? {
                open.push(path.clone());
            }
            last = Some(path);
        }
        Ok(unclear)
    }

    /// Entries that this disk cannot hold, as they were told, and why.
    pub fn unholdable(&self) -> Result<Vec<(String, PathError)>, StateError> {
        let mut statement =
            self.connection.prepare_cached("SELECT path FROM remote WHERE holdable = 0")?;
        let told = statement.query_and_then([], |row| {
            let told = row.get_ref(0)?.as_blob().map_err(rows::wrong)?;
            let told = String::from_utf8(told.to_vec()).map_err(rows::wrong)?;
            let why = RelPath::parse(&told).err().unwrap_or(PathError::Encoding);
            Ok((told, why))
        })?;
        told.collect()
    }

    /// What is known of the server, in short. The lines that are hashed are `id:version` and
    /// `id:version:path`, each sorted and ended by a newline; no two of them begin with the same id.
    pub fn digest(&self) -> Result<Known, StateError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id || ':' || version AS line, path, holdable FROM remote ORDER BY line",
        )?;
        let mut rows = statement.query([])?;
        let (mut count, mut hasher, mut paths) = (0, Hasher::new(), Hasher::new());
        while let Some(row) = rows.next()? {
            count += 1;
            let line = row.get_ref(0)?.as_str().map_err(rows::wrong)?;
            let path = row.get_ref(1)?.as_blob().map_err(rows::wrong)?;
            hasher.update(line);
            hasher.update("\n");
            paths.update(line);
            paths.update(":");
            if row.get(2)? {
                let told: Vec<u8> =
                    path.iter().map(|byte| if *byte == 0 { b'/' } else { *byte }).collect();
                paths.update(told);
            } else {
                paths.update(path);
            }
            paths.update("\n");
        }
        let [sha256, paths] = [hasher, paths].map(|hasher| Sha256(hasher.finalize().into()));
        Ok(Known { count, sha256, paths })
    }

    /// The entry as the server told it last; for people and tests.
    pub fn remote(&self, id: &str) -> Result<Option<(String, Remote)>, StateError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT path, id, version, sha256, size, executable FROM remote WHERE id = ?",
        )?;
        let mut found = statement.query_and_then([id], |row| {
            let told = row.get_ref(0)?.as_blob().map_err(rows::wrong)?;
            let told = String::from_utf8(told.to_vec()).map_err(rows::wrong)?;
            Ok((told.replace('\0', "/"), rows::remote(row, 1)?))
        })?;
        found.next().transpose()
    }
}

/// The topmost place above `path` where a folder must be and is not; `above` is the innermost
/// folder that is there.
fn missing_folder(path: &RelPath, above: Option<&RelPath>) -> Option<RelPath> {
    let parent = path.parent()?;
    if above == Some(&parent) {
        return None;
    }
    let mut missing = parent;
    while let Some(next) = missing.parent() {
        if above == Some(&next) {
            break;
        }
        missing = next;
    }
    Some(missing)
}

/// The feed was read up to there.
fn is_read(connection: &Connection, epoch: &str, cursor: u64) -> Result<(), StateError> {
    connection
        .prepare_cached("DELETE FROM ours WHERE sequence <= ?")?
        .execute([cursor.cast_signed()])?;
    meta::set_cursor(connection, epoch, cursor)
}

fn is_older_than_ours(connection: &Connection, change: &Change) -> Result<bool, StateError> {
    let ours: Option<i64> = connection
        .prepare_cached("SELECT sequence FROM ours WHERE id = ?")?
        .query_row([&change.id], |row| row.get(0))
        .optional()?;
    Ok(ours.is_some_and(|ours| change.sequence < ours.cast_unsigned()))
}

/// Returns whether anything is another now.
pub(super) fn take(
    connection: &Connection,
    table: Table,
    change: &Change,
) -> Result<bool, StateError> {
    match &change.entry {
        Some(entry) => upsert(connection, table, entry),
        None => Ok(delete(connection, table, &change.id)? > 0),
    }
}

pub(super) fn delete(
    connection: &Connection,
    table: Table,
    id: &EntryId,
) -> Result<usize, StateError> {
    Ok(connection.prepare_cached(table.delete())?.execute([id])?)
}

pub(super) fn upsert(
    connection: &Connection,
    table: Table,
    entry: &RemoteEntry,
) -> Result<bool, StateError> {
    let held = RelPath::parse(&entry.path);
    let (path, holdable) = match &held {
        Ok(path) => (path.key(), true),
        Err(_) => (&*entry.path, false),
    };
    let remote = &entry.remote;
    let (sha256, size, executable) = rows::of_kind(&remote.kind);
    if table == Table::Remote {
        // A name with a NUL in it, which no disk can hold, looks here like a path.
        let same = connection
            .prepare_cached(
                "SELECT 1 FROM remote WHERE path = ? AND id = ? AND holdable = ? \
                 AND version = ? AND sha256 IS ? AND size = ? AND executable = ?",
            )?
            .exists(params![
                path.as_bytes(),
                remote.id,
                holdable,
                remote.version,
                sha256,
                size,
                executable
            ])?;
        if same {
            return Ok(false);
        }
    }
    connection.prepare_cached(table.upsert())?.execute(params![
        path.as_bytes(),
        remote.id,
        holdable,
        remote.version,
        sha256,
        size,
        executable
    ])?;
    Ok(true)
}
