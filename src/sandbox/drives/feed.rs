//! What a drive tells: its changes, all that is there, a hash over that.

use data_encoding::HEXLOWER;
use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};

use super::error::{Failure, Refused};
use super::tree::{self, DriveRow, entry_columns, signed, unsigned};
use crate::drive_sync::wire::{Change, ChangeKind, Changes, Code, Digest, Entry, Snapshot};

/// Changes or entries in one answer at most.
pub(super) const PAGE: u32 = 1000;

/// Changes after a sequence.
pub(super) fn changes(
    connection: &Connection,
    drive: &DriveRow,
    after: u64,
    limit: Option<u32>,
) -> Result<Changes, Failure> {
    let after = signed(after);
    if after < drive.floor {
        return Err(expired().into());
    }
    let limit = limit.unwrap_or(PAGE).clamp(1, PAGE);
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        entry_columns!(),
        ", sequence, from_path, change, operation_id, client_key FROM drive_changes
         WHERE drive = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3"
    ))?;
    let changes = statement.query_map(params![drive.number, after, limit], |row| {
        let change = match row.get_ref(11)?.as_str()? {
            "delete" => ChangeKind::Delete,
            "move" => ChangeKind::Move,
            _ => ChangeKind::Upsert,
        };
        let entry = tree::entry(&drive.id, row)?;
        Ok(Change {
            sequence: unsigned(row.get(9)?),
            entry_id: entry.id.clone(),
            path: entry.path.clone(),
            from_path: row.get(10)?,
            change,
            entry: Some(entry).filter(|_| change != ChangeKind::Delete),
            source_operation_id: row.get(12)?,
            client_key: row.get(13)?,
        })
    })?;
    let changes: Vec<Change> = changes.collect::<Result<_, _>>()?;
    let head_sequence = unsigned(drive.head);
    let has_more = changes.last().is_some_and(|last| last.sequence < head_sequence);
    Ok(Changes { epoch: drive.epoch.clone(), changes, has_more, head_sequence })
}

/// One page of the tree as it was at the head of the first page.
pub(super) fn snapshot(
    connection: &Connection,
    drive: &DriveRow,
    page_token: Option<&str>,
) -> Result<Snapshot, Failure> {
    let (as_of, after) = match page_token {
        None => (drive.head, String::new()),
        Some(token) => {
            let mut fields = token.splitn(3, ':');
            let (epoch, as_of) = (fields.next(), fields.next());
            let (Some(epoch), Some(as_of), Some(after)) =
                (epoch, as_of.and_then(|as_of| as_of.parse().ok()), fields.next())
            else {
                return Err(Refused::invalid("page_token is none of ours").into());
            };
            if epoch != drive.epoch || as_of < drive.floor {
                return Err(expired().into());
            }
            (as_of, after.to_owned())
        }
    };
    let range = Range { directory: "", after: &after, all: true };
    let mut entries = page(connection, drive, as_of, range, PAGE + 1)?;
    let more = entries.len() > PAGE as usize;
    entries.truncate(PAGE as usize);
    let next_page = entries.last().filter(|_| more);
    let next_page = next_page.map(|last| format!("{}:{as_of}:{}", drive.epoch, last.path));
    let as_of_sequence = unsigned(as_of);
    Ok(Snapshot { epoch: drive.epoch.clone(), as_of_sequence, entries, next_page })
}

/// Some of a drive's entries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range<'a> {
    /// Below that; empty is the root.
    pub(super) directory: &'a str,
    /// Whose paths come after that.
    pub(super) after: &'a str,
    /// At any depth, or right below.
    pub(super) all: bool,
}

/// Entries as they were at a sequence, by path.
pub(super) fn page(
    connection: &Connection,
    drive: &DriveRow,
    as_of: i64,
    Range { directory, after, all }: Range<'_>,
    limit: u32,
) -> rusqlite::Result<Vec<Entry>> {
    let (above, beyond) = super::path::below(directory);
    let (above, beyond) = if directory.is_empty() { ("", None) } else { (&*above, Some(beyond)) };
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        entry_columns!(),
        " FROM drive_changes
         WHERE drive = ?1 AND path > max(?2, ?3) AND (?4 IS NULL OR path < ?4) AND sequence <= ?5
             AND (until IS NULL OR until > ?5) AND change <> 'delete'
             AND (?7 OR instr(substr(path, length(?2) + 1), '/') = 0)
         ORDER BY path LIMIT ?6"
    ))?;
    statement
        .query_map(params![drive.number, above, after, beyond, as_of, limit, all], |row| {
            tree::entry(&drive.id, row)
        })?
        .collect()
}

/// A hash over all that is there.
pub(super) fn digest(connection: &Connection, drive: &DriveRow) -> rusqlite::Result<Digest> {
    // Ids have one length each, so their order is that of the lines.
    let mut statement = connection.prepare_cached(
        "SELECT entry_id, version_id, path FROM drive_changes
         WHERE drive = ?1 AND until IS NULL AND change <> 'delete' ORDER BY entry_id",
    )?;
    let mut rows = statement.query([drive.number])?;
    let (mut versions, mut paths, mut count) = (Sha256::new(), Sha256::new(), 0_u64);
    while let Some(row) = rows.next()? {
        let (id, version) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
        versions.update(format!("{id}:{version}\n"));
        paths.update(format!("{id}:{version}:{}\n", row.get_ref(2)?.as_str()?));
        count += 1;
    }
    Ok(Digest {
        epoch: drive.epoch.clone(),
        head_sequence: unsigned(drive.head),
        count,
        sha256: HEXLOWER.encode(&versions.finalize()),
        paths_sha256: HEXLOWER.encode(&paths.finalize()),
    })
}

/// A drive of a team by its id.
pub(super) fn find_drive(
    connection: &Connection,
    team_id: Option<&str>,
    drive_id: &str,
) -> rusqlite::Result<Option<DriveRow>> {
    connection
        .prepare_cached(
            "SELECT number, id, epoch, head, floor FROM drives
             WHERE id = ?1 AND (?2 IS NULL OR team_id = ?2)",
        )?
        .query_row(params![drive_id, team_id], |row| {
            Ok(DriveRow {
                number: row.get(0)?,
                id: row.get(1)?,
                epoch: row.get(2)?,
                head: row.get(3)?,
                floor: row.get(4)?,
            })
        })
        .optional()
}

fn expired() -> Refused {
    let message = "changes after that sequence are not kept any more: take a snapshot";
    Refused::new(Code::CursorExpired, message)
}
