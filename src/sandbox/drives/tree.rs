//! The rows of a drive: its tree, its feed, its versions. Whatever changes one changes the others.
//!
//! Sequences are given out inside the write transaction, which is alone until its commit: they
//! become visible in their order.

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use uuid::Uuid;

use super::error::Failure;
use super::path;
use crate::drive_sync::wire::{ChangeKind, Done, Entry, EntryType, Metadata};
use crate::sandbox::app::wire_time;
use crate::sandbox::contents::{ContentHash, Contents};

/// A drive, for statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sandbox) struct DriveRow {
    pub(super) number: i64,
    pub(super) id: String,
    pub(super) epoch: String,
    pub(super) head: i64,
    pub(super) floor: i64,
}

/// The columns that [`entry`] reads, in its order.
macro_rules! entry_columns {
    () => {
        "entry_id, path, entry_type, version_id, sha256, size, mime_type, mode, created_at"
    };
}
pub(super) use entry_columns;

/// An entry from the first columns of a row.
pub(super) fn entry(drive_id: &str, row: &Row<'_>) -> rusqlite::Result<Entry> {
    let is_file = row.get_ref(2)?.as_str()? == "file";
    let size: Option<i64> = row.get(5)?;
    Ok(Entry {
        id: row.get(0)?,
        drive_id: drive_id.to_owned(),
        path: row.get(1)?,
        entry_type: if is_file { EntryType::File } else { EntryType::Directory },
        current_version_id: row.get(3)?,
        content_sha256: row.get(4)?,
        size_bytes: size.map(unsigned),
        mime_type: row.get(6)?,
        metadata: Metadata { mode: row.get(7)? },
        updated_at: wire_time(row.get(8)?),
    })
}

/// A sequence or a size as SQLite keeps it; it keeps no negative one of ours.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The reverse; what is larger than SQLite's numbers is larger than all of them.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What is at a path.
pub(super) fn find(
    connection: &Connection,
    drive: &DriveRow,
    path: &str,
) -> rusqlite::Result<Option<Entry>> {
    connection
        .prepare_cached(concat!(
            "SELECT ",
            entry_columns!(),
            " FROM drive_changes
             WHERE drive = ?1 AND path = ?2 AND until IS NULL AND change <> 'delete'"
        ))?
        .query_row(params![drive.number, path], |row| entry(&drive.id, row))
        .optional()
}

/// Whether a directory has entries.
pub(super) fn has_entries(
    connection: &Connection,
    drive: &DriveRow,
    directory: &str,
) -> rusqlite::Result<bool> {
    let (from, to) = path::below(directory);
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM drive_changes
                 WHERE drive = ?1 AND path > ?2 AND path < ?3
                     AND until IS NULL AND change <> 'delete')",
        )?
        .query_row(params![drive.number, from, to], |row| row.get(0))
}

/// What was done under an operation's id.
pub(super) struct Remembered {
    pub(super) fingerprint: String,
    pub(super) upload_id: Option<String>,
    pub(super) done: Done,
}

/// See [`Remembered`]; `None` if nothing was.
pub(super) fn remembered(
    connection: &Connection,
    drive: &DriveRow,
    operation_id: &str,
) -> rusqlite::Result<Option<Remembered>> {
    // In two steps: planned together they are planned anew for each operation, for what is asked for
    // might be in one of the partial indexes. And most operations are new.
    let known = connection
        .prepare_cached(
            "SELECT fingerprint, upload_id, sequence, entry_sequence FROM drive_operations
             WHERE drive = ?1 AND operation_id = ?2",
        )?
        .query_row(params![drive.number, operation_id], |row| {
            Ok((row.get(0)?, row.get(1)?, unsigned(row.get(2)?), row.get(3)?))
        })
        .optional()?;
    let Some((fingerprint, upload_id, sequence, of_entry)) = known else { return Ok(None) };
    let of_entry: i64 = of_entry;
    let entry = connection
        .prepare_cached(concat!(
            "SELECT ",
            entry_columns!(),
            " FROM drive_changes WHERE drive = ?1 AND sequence = ?2"
        ))?
        .query_row(params![drive.number, of_entry], |row| entry(&drive.id, row))
        .optional()?;
    Ok(entry.map(|entry| Remembered { fingerprint, upload_id, done: Done { entry, sequence } }))
}

/// Changes of one drive in one transaction. [`Edit::finish`] must come last.
pub(super) struct Edit<'a> {
    pub(super) tx: &'a Connection,
    pub(super) drive: DriveRow,
    /// Microseconds since 1970.
    pub(super) now: i64,
    pub(super) client_key: Option<&'a str>,
}

/// By which operation something changes.
#[derive(Clone, Copy)]
pub(super) struct By<'a> {
    pub(super) operation_id: &'a str,
    pub(super) fingerprint: &'a str,
    pub(super) upload_id: Option<&'a str>,
}

/// What a file is to be.
pub(super) struct NewFile<'a> {
    pub(super) path: &'a str,
    pub(super) hash: ContentHash,
    pub(super) size: u64,
    pub(super) mime_type: &'a str,
    pub(super) mode: Option<u32>,
}

impl Edit<'_> {
    /// Keeps what the drive's head is by now.
    pub(super) fn finish(self) -> rusqlite::Result<()> {
        self.tx
            .prepare_cached("UPDATE drives SET head = ?2 WHERE number = ?1 AND head < ?2")?
            .execute(params![self.drive.number, self.drive.head])
            .map(drop)
    }

    /// A new file, or a new version of one. Its content is held already, by this version.
    pub(super) fn put(
        &mut self,
        former: Option<&Entry>,
        file: &NewFile<'_>,
        by: By<'_>,
    ) -> Result<Done, Failure> {
        let id = former.map_or_else(new_id, |former| former.id.clone());
        let version = new_id();
        let sequence = self.next();
        if let Some(former) = former {
            self.end(&former.path, sequence)?;
            self.replace_version(&former.current_version_id)?;
        }
        let entry = Entry {
            id,
            drive_id: self.drive.id.clone(),
            path: file.path.to_owned(),
            entry_type: EntryType::File,
            current_version_id: version,
            content_sha256: Some(file.hash.to_string()),
            size_bytes: Some(file.size),
            mime_type: Some(file.mime_type.to_owned()),
            metadata: Metadata { mode: file.mode },
            updated_at: wire_time(self.now),
        };
        self.tx
            .prepare_cached(
                "INSERT INTO drive_versions (id, drive, entry_id, sequence, sha256, size,
                     mime_type, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                entry.current_version_id,
                self.drive.number,
                entry.id,
                sequence,
                file.hash,
                signed(file.size),
                file.mime_type,
                self.now
            ])?;
        self.add(sequence, ChangeKind::Upsert, &entry, by)?;
        self.done(entry, sequence..sequence, by)
    }

    /// A new directory.
    pub(super) fn mkdir(&mut self, path: &str, by: By<'_>) -> Result<Done, Failure> {
        let sequence = self.next();
        let entry = Entry {
            id: new_id(),
            drive_id: self.drive.id.clone(),
            path: path.to_owned(),
            entry_type: EntryType::Directory,
            current_version_id: new_id(),
            content_sha256: None,
            size_bytes: None,
            mime_type: None,
            metadata: Metadata::default(),
            updated_at: wire_time(self.now),
        };
        self.add(sequence, ChangeKind::Upsert, &entry, by)?;
        self.done(entry, sequence..sequence, by)
    }

    /// Removes an entry; a directory must be empty.
    pub(super) fn delete(&mut self, mut entry: Entry, by: By<'_>) -> Result<Done, Failure> {
        let sequence = self.next();
        self.end(&entry.path, sequence)?;
        if entry.entry_type == EntryType::File {
            self.replace_version(&entry.current_version_id)?;
        }
        entry.updated_at = wire_time(self.now);
        self.add(sequence, ChangeKind::Delete, &entry, by)?;
        self.done(entry, sequence..sequence, by)
    }

    /// Gives an entry and all below it another path, where nothing is. A change each, in the order
    /// of their paths, so parents come first.
    pub(super) fn rename(
        &mut self,
        mut entry: Entry,
        to: &str,
        by: By<'_>,
    ) -> Result<Done, Failure> {
        let (first, from) = (self.drive.head + 1, entry.path.clone());
        let (above, beyond) = path::below(&from);
        self.tx
            .prepare_cached(
                "UPDATE drive_changes SET until = ?5
                 WHERE drive = ?1 AND (path = ?2 OR (path > ?3 AND path < ?4))
                     AND until IS NULL AND change <> 'delete'",
            )?
            .execute(params![self.drive.number, from, above, beyond, first])?;
        let moved = self
            .tx
            .prepare_cached(
                "INSERT INTO drive_changes (drive, sequence, change, entry_id, path, from_path,
                     entry_type, version_id, sha256, size, mime_type, mode, operation_id,
                     client_key, created_at)
                 SELECT drive, ?5 - 1 + row_number() OVER (ORDER BY path), 'move', entry_id,
                     ?6 || substr(path, length(?2) + 1), path, entry_type, version_id, sha256,
                     size, mime_type, mode, ?7, ?8, ?9
                 FROM drive_changes
                 WHERE drive = ?1 AND (path = ?2 OR (path > ?3 AND path < ?4)) AND until = ?5
                 ORDER BY path",
            )?
            .execute(params![
                self.drive.number,
                from,
                above,
                beyond,
                first,
                to,
                by.operation_id,
                self.client_key,
                self.now
            ])?;
        self.drive.head += i64::try_from(moved).unwrap_or(0);
        to.clone_into(&mut entry.path);
        entry.updated_at = wire_time(self.now);
        self.done(entry, first..self.drive.head, by)
    }

    fn next(&mut self) -> i64 {
        self.drive.head += 1;
        self.drive.head
    }

    /// The state at `path` is over.
    fn end(&self, path: &str, sequence: i64) -> rusqlite::Result<()> {
        self.tx
            .prepare_cached(
                "UPDATE drive_changes SET until = ?3
                 WHERE drive = ?1 AND path = ?2 AND until IS NULL AND change <> 'delete'",
            )?
            .execute(params![self.drive.number, path, sequence])
            .map(drop)
    }

    fn replace_version(&self, version_id: &str) -> rusqlite::Result<()> {
        self.tx
            .prepare_cached("UPDATE drive_versions SET replaced_at = ?2 WHERE id = ?1")?
            .execute(params![version_id, self.now])
            .map(drop)
    }

    fn add(
        &self,
        sequence: i64,
        change: ChangeKind,
        entry: &Entry,
        by: By<'_>,
    ) -> rusqlite::Result<()> {
        let change = if change == ChangeKind::Delete { "delete" } else { "upsert" };
        let kind = if entry.entry_type == EntryType::File { "file" } else { "directory" };
        self.tx
            .prepare_cached(
                "INSERT INTO drive_changes (drive, sequence, change, entry_id, path, entry_type,
                     version_id, sha256, size, mime_type, mode, operation_id, client_key,
                     created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            )?
            .execute(params![
                self.drive.number,
                sequence,
                change,
                entry.id,
                entry.path,
                kind,
                entry.current_version_id,
                entry.content_sha256,
                entry.size_bytes.map(signed),
                entry.mime_type,
                entry.metadata.mode,
                by.operation_id,
                self.client_key,
                self.now
            ])
            .map(drop)
    }

    /// Remembers the operation. `sequences`: of the entry's own change, of the last one.
    fn done(&self, entry: Entry, sequences: Range<i64>, by: By<'_>) -> Result<Done, Failure> {
        self.tx
            .prepare_cached(
                "INSERT INTO drive_operations (drive, operation_id, fingerprint, upload_id,
                     entry_sequence, sequence) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                self.drive.number,
                by.operation_id,
                by.fingerprint,
                by.upload_id,
                sequences.start,
                sequences.end
            ])?;
        Ok(Done { entry, sequence: unsigned(sequences.end) })
    }
}

/// A content that is the drive's own, now or in a version that is kept: its size.
pub(super) fn own_content(
    connection: &Connection,
    drive: &DriveRow,
    hash: ContentHash,
    anybodys: bool,
) -> rusqlite::Result<Option<u64>> {
    let size: Option<i64> = connection
        .prepare_cached(
            "SELECT size FROM drive_versions WHERE sha256 = ?1 AND (drive = ?2 OR ?3) LIMIT 1",
        )?
        .query_row(params![hash, drive.number, anybodys], |row| row.get(0))
        .optional()?;
    Ok(size.map(unsigned))
}

/// Lets go of the versions that `which` picks, a condition on `drive_versions`, and removes them.
/// Call [`Contents::remove_released`] after the commit.
pub(super) fn forget_versions(
    tx: &Connection,
    which: &'static str,
    parameters: &[&dyn rusqlite::ToSql],
) -> rusqlite::Result<usize> {
    let sql = format!("SELECT id, sha256 FROM drive_versions WHERE {which}");
    let mut doomed = tx.prepare_cached(&sql)?;
    let doomed = doomed
        .query_map(parameters, |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(String, ContentHash)>, _>>()?;
    for (id, hash) in &doomed {
        tx.prepare_cached("DELETE FROM drive_versions WHERE id = ?1")?.execute([id])?;
        Contents::release(tx, *hash)?;
    }
    Ok(doomed.len())
}

pub(super) fn new_id() -> String {
    Uuid::now_v7().to_string()
}
