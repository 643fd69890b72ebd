//! How the model stands in columns.

use rusqlite::Row;
use rusqlite::types::Value;

use super::StateError;
use crate::drive_sync::model::{Content, Kind, Remote, Sha256, Stat, device};
use crate::drive_sync::path::RelPath;

/// A path's key from its column.
pub(super) fn key<'a>(row: &'a Row<'_>, index: usize) -> Result<&'a str, StateError> {
    let bytes = row.get_ref(index)?.as_blob().map_err(wrong)?;
    std::str::from_utf8(bytes).map_err(wrong)
}

/// A path from its column.
pub(super) fn path(row: &Row<'_>, index: usize) -> Result<RelPath, StateError> {
    Ok(RelPath::from_key(key(row, index)?)?)
}

/// `sha256, size, executable`.
pub(super) fn kind(row: &Row<'_>, index: usize) -> Result<Kind, StateError> {
    let sha256 = row.get_ref(index)?.as_blob_or_null().map_err(wrong)?;
    let Some(sha256) = sha256 else { return Ok(Kind::Directory) };
    Ok(Kind::File(Content {
        sha256: Sha256(sha256.try_into().map_err(wrong)?),
        size: row.get::<_, i64>(index + 1)?.cast_unsigned(),
        executable: row.get(index + 2)?,
    }))
}

/// `id, version, sha256, size, executable`.
pub(super) fn remote(row: &Row<'_>, index: usize) -> Result<Remote, StateError> {
    Ok(Remote { id: row.get(index)?, version: row.get(index + 1)?, kind: kind(row, index + 2)? })
}

/// `dev, ino, bytes, mtime, ctime, mode`.
pub(super) fn stat(row: &Row<'_>, index: usize) -> Result<Option<Stat>, StateError> {
    let Some(dev) = row.get::<_, Option<i64>>(index)? else { return Ok(None) };
    let number = |offset: usize| row.get::<_, i64>(index + offset);
    Ok(Some(Stat {
        dev: device(dev.cast_unsigned()),
        ino: number(1)?.cast_unsigned(),
        size: number(2)?.cast_unsigned(),
        mtime: number(3)?,
        ctime: number(4)?,
        mode: u32::try_from(number(5)?).map_err(wrong)?,
    }))
}

/// The columns of [`kind`].
pub(super) fn of_kind(kind: &Kind) -> (Option<[u8; 32]>, i64, bool) {
    match kind {
        Kind::File(content) => {
            (Some(content.sha256.0), content.size.cast_signed(), content.executable)
        }
        Kind::Directory => (None, 0, false),
    }
}

/// The columns of [`stat`].
pub(super) fn of_stat(stat: Option<&Stat>) -> [Value; 6] {
    let Some(stat) = stat else { return std::array::from_fn(|_| Value::Null) };
    [
        i64::from(stat.dev),
        stat.ino.cast_signed(),
        stat.size.cast_signed(),
        stat.mtime,
        stat.ctime,
        i64::from(stat.mode),
    ]
    .map(Value::Integer)
}

/// What stands in a column is not what was written there.
pub(super) fn wrong(error: impl std::fmt::Display) -> StateError {
    StateError::Damaged(error.to_string())
}
