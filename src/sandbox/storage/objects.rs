//! The rows of objects: every statement names the team, so no other team's rows are seen.

use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use super::error::StorageError;
use super::name::ObjectName;
use crate::sandbox::contents::{ContentHash, Contents, Finished};
use crate::sandbox::store::schema::Bucket;

/// Where an object is, or could be.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) team_id: String,
    pub(super) bucket: &'static Bucket,
    pub(super) name: ObjectName,
}

impl Place {
    /// Bucket and name, as clients know it.
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.bucket.name, self.name.as_str())
    }
}

/// What an object's headers are when it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sandbox) struct Describe {
    pub(in crate::sandbox) content_type: String,
    /// Seconds for which a reader may keep it; `None`: it asks again each time.
    pub(in crate::sandbox) max_age: Option<u32>,
}

/// One object.
#[derive(Debug, Clone)]
pub(in crate::sandbox) struct Object {
    pub(in crate::sandbox) id: String,
    pub(in crate::sandbox) hash: ContentHash,
    /// Bytes.
    pub(in crate::sandbox) size: u64,
    pub(in crate::sandbox) describe: Describe,
    /// Microseconds since 1970.
    pub(in crate::sandbox) created_at: i64,
    pub(in crate::sandbox) updated_at: i64,
}

/// The object there.
pub(super) fn find(connection: &Connection, place: &Place) -> rusqlite::Result<Option<Object>> {
    connection
        .prepare_cached(
            "SELECT id, sha256, size, content_type, max_age, created_at, updated_at FROM objects
             WHERE team_id = ?1 AND bucket = ?2 AND name = ?3",
        )?
        .query_row(params![place.team_id, place.bucket.name, place.name.as_str()], |row| {
            Ok(Object {
                id: row.get(0)?,
                hash: row.get(1)?,
                size: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
                describe: Describe { content_type: row.get(3)?, max_age: row.get(4)? },
                created_at: row.get(5)?,
                updated_at: row.get(6)?,
            })
        })
        .optional()
}

/// Stores an object; its id. What is there stays, and is an error, unless `replace`.
pub(super) fn put(
    tx: &Connection,
    contents: &Contents,
    place: &Place,
    (describe, finished): (&Describe, Finished),
    replace: bool,
    now: i64,
) -> Result<String, StorageError> {
    let former = find(tx, place)?;
    if former.is_some() && !replace {
        return Err(StorageError::duplicate());
    }
    let (hash, size) = (finished.hash(), i64::try_from(finished.size()).unwrap_or(i64::MAX));
    contents.hold(tx, finished)?;
    let Describe { content_type, max_age } = describe;
    let Some(former) = former else {
        let id = Uuid::new_v4().to_string();
        let (bucket, name) = (place.bucket.name, place.name.as_str());
        tx.prepare_cached(
            "INSERT INTO objects (id, team_id, bucket, name, sha256, size, content_type, max_age,
                 created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)",
        )?
        .execute(params![
            id,
            place.team_id,
            bucket,
            name,
            hash,
            size,
            content_type,
            max_age,
            now
        ])?;
        return Ok(id);
    };
    tx.prepare_cached(
        "UPDATE objects SET sha256 = ?2, size = ?3, content_type = ?4, max_age = ?5,
             updated_at = ?6 WHERE id = ?1",
    )?
    .execute(params![former.id, hash, size, content_type, max_age, now])?;
    Contents::release(tx, former.hash)?;
    Ok(former.id)
}

/// Removes an object; it as it was.
pub(super) fn remove(tx: &Connection, place: &Place) -> rusqlite::Result<Option<Object>> {
    let Some(object) = find(tx, place)? else { return Ok(None) };
    tx.prepare_cached("DELETE FROM objects WHERE id = ?1")?.execute([&object.id])?;
    Contents::release(tx, object.hash)?;
    Ok(Some(object))
}
