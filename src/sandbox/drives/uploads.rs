//! Contents on their way in: prepared, sent in one part or several, made a file's by the commit.
//!
//! A part that has come is a content of its own, held by its row, so that it outlives a restart. An
//! upload that is never committed expires, and its parts with it.

use std::collections::HashMap;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio_util::io::ReaderStream;

use super::error::{Failure, Refused};
use super::tree::{self, DriveRow, Edit, signed, unsigned};
use super::urls::Purpose;
use super::writes::{Checked, mismatch, reused};
use crate::drive_sync::wire::{Code, Done, Operation, PART_SIZE, Prepared, PutFile};
use crate::sandbox::app::{App, Shared, micros, now_micros};
use crate::sandbox::contents::{ContentHash, Contents, Finished};
use crate::sandbox::credentials::query_value;
use crate::sandbox::rules::{Rule, Rules};
use crate::sandbox::storage;

/// Bytes read at a time when parts are put together.
const CHUNK: usize = 256 * 1024;

/// What preparing needs beside the database.
#[derive(Debug, Clone)]
pub(super) struct Uploads {
    pub(super) urls: super::urls::DriveUrls,
    /// Where the requester reaches us, e.g. `http://127.0.0.1:54321`.
    pub(super) base: String,
    /// How long an upload may take, microseconds.
    pub(super) lifetime: i64,
    pub(super) rules: Rules,
}

/// An upload that was prepared.
pub(super) struct UploadRow {
    pub(super) file: PutFile,
    pub(super) hash: ContentHash,
    pub(super) fingerprint: String,
}

/// The content of an upload in parts, whole.
pub(super) struct Assembled(Finished);

/// An upload of that drive that has not expired.
pub(super) fn find(
    connection: &Connection,
    drive: &DriveRow,
    upload_id: &str,
    now: i64,
) -> Result<Option<UploadRow>, Failure> {
    let found: Option<(String, ContentHash, String)> = connection
        .prepare_cached(
            "SELECT request, sha256, fingerprint FROM drive_uploads
             WHERE id = ?1 AND drive = ?2 AND expires_at > ?3",
        )?
        .query_row(params![upload_id, drive.number, now], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((request, hash, fingerprint)) = found else { return Ok(None) };
    let file = serde_json::from_str(&request).map_err(|error| {
        tracing::error!(%error, upload_id, "a prepared upload cannot be read");
        Refused::internal()
    })?;
    Ok(Some(UploadRow { file, hash, fingerprint }))
}

/// The parts that are there: number, hash, size.
fn parts(
    connection: &Connection,
    upload_id: &str,
) -> rusqlite::Result<Vec<(u32, ContentHash, u64)>> {
    connection
        .prepare_cached(
            "SELECT part, sha256, size FROM drive_upload_parts WHERE upload_id = ?1 ORDER BY part",
        )?
        .query_map([upload_id], |row| Ok((row.get(0)?, row.get(1)?, unsigned(row.get(2)?))))?
        .collect()
}

/// Removes an upload and lets go of its parts.
pub(super) fn forget(tx: &Connection, upload_id: &str) -> rusqlite::Result<()> {
    for (_, hash, _) in parts(tx, upload_id)? {
        Contents::release(tx, hash)?;
    }
    tx.prepare_cached("DELETE FROM drive_upload_parts WHERE upload_id = ?1")?
        .execute([upload_id])?;
    tx.prepare_cached("DELETE FROM drive_uploads WHERE id = ?1")?.execute([upload_id]).map(drop)
}

/// Removes some of the uploads that have expired; how many.
pub(super) fn expire(tx: &Connection, now: i64, most: u32) -> rusqlite::Result<usize> {
    let old: Vec<String> = tx
        .prepare_cached("SELECT id FROM drive_uploads WHERE expires_at <= ?1 LIMIT ?2")?
        .query_map(params![now, most], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for upload_id in &old {
        forget(tx, upload_id)?;
    }
    Ok(old.len())
}

/// How many parts a content of that size has.
fn count(size: u64) -> u64 {
    size.div_ceil(PART_SIZE).max(1)
}

/// Bytes of a part (from 1); `None` when there is no such part.
fn size_of_part(size: u64, part: u32) -> Option<u64> {
    let before = u64::from(part).checked_sub(1)?;
    (before < count(size)).then(|| (size - before * PART_SIZE).min(PART_SIZE))
}

impl Uploads {
    /// Begins an upload or goes on with it. `committed`: it was done already.
    pub(super) fn prepare(
        &self,
        edit: &Edit<'_>,
        file: &PutFile,
        fingerprint: &str,
        committed: Option<Done>,
    ) -> Result<Prepared, Failure> {
        let mut prepared = Prepared {
            upload_id: String::new(),
            url: String::new(),
            method: "PUT".to_owned(),
            headers: std::collections::BTreeMap::new(),
            part_size: None,
            parts: Vec::new(),
            present: true,
            committed,
        };
        if prepared.committed.is_some() {
            return Ok(prepared);
        }
        let upload_id = self.begin(edit, file, fingerprint)?;
        let until = edit.now.saturating_add(self.lifetime).div_euclid(1_000_000);
        let token = self.urls.mint(Purpose::Upload, &upload_id, until);
        let has_parts = file.size_bytes > PART_SIZE;
        let part = if has_parts { "{part}" } else { "1" };
        prepared.url = format!("{}/drives/v1/uploads/{upload_id}/{part}?token={token}", self.base);
        prepared.part_size = has_parts.then_some(PART_SIZE);
        let there = parts(edit.tx, &upload_id)?;
        prepared.parts = there.into_iter().map(|(number, ..)| number).collect();
        prepared.present = self.is_present(edit, file)?;
        prepared.upload_id = upload_id;
        Ok(prepared)
    }

    fn begin(&self, edit: &Edit<'_>, file: &PutFile, fingerprint: &str) -> Result<String, Failure> {
        let expires_at = edit.now.saturating_add(self.lifetime);
        let known: Option<(String, String, i64)> = edit
            .tx
            .prepare_cached(
                "SELECT id, fingerprint, expires_at FROM drive_uploads
                 WHERE drive = ?1 AND operation_id = ?2",
            )?
            .query_row(params![edit.drive.number, file.operation_id], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        if let Some((id, known, ends)) = known {
            if known != fingerprint {
                return Err(reused().into());
            }
            if ends > edit.now {
                edit.tx
                    .prepare_cached("UPDATE drive_uploads SET expires_at = ?2 WHERE id = ?1")?
                    .execute(params![id, expires_at])?;
                return Ok(id);
            }
            forget(edit.tx, &id)?;
        }
        let id = tree::new_id();
        // Texts and numbers always become JSON.
        let request = serde_json::to_string(file).map_err(|_| Refused::internal())?;
        edit.tx
            .prepare_cached(
                "INSERT INTO drive_uploads (id, drive, operation_id, fingerprint, request, size,
                     sha256, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                id,
                edit.drive.number,
                file.operation_id,
                fingerprint,
                request,
                signed(file.size_bytes),
                file.content_sha256,
                expires_at
            ])?;
        Ok(id)
    }

    /// Whether the drive has the content. Only its own count: a hash that somebody knows must not
    /// give them what others stored.
    fn is_present(&self, edit: &Edit<'_>, file: &PutFile) -> Result<bool, Failure> {
        let Ok(hash) = file.content_sha256.parse() else { return Ok(false) };
        let anybodys = !self.rules.hold(Rule::DriveContent);
        let size = tree::own_content(edit.tx, &edit.drive, hash, anybodys)?;
        Ok(size == Some(file.size_bytes))
    }

    /// Has the content of an upload held once more, by the version that is about to be.
    pub(super) fn hold(
        &self,
        edit: &Edit<'_>,
        contents: &Contents,
        (upload_id, row): (&str, &UploadRow),
        assembled: Option<Assembled>,
    ) -> Result<(), Failure> {
        if self.is_present(edit, &row.file)? {
            return Ok(Contents::hold_again(edit.tx, row.hash)?);
        }
        let size = row.file.size_bytes;
        if let Some(Assembled(finished)) = assembled {
            if finished.hash() != row.hash || finished.size() != size {
                return Err(mismatch().into());
            }
            return Ok(contents.hold(edit.tx, finished)?);
        }
        match parts(edit.tx, upload_id)?.first() {
            Some((1, hash, _)) if count(size) == 1 && *hash == row.hash => {
                Ok(Contents::hold_again(edit.tx, row.hash)?)
            }
            Some(_) if count(size) == 1 => Err(mismatch().into()),
            _ => {
                let message = "the content, or a part of it, was not sent yet";
                Err(Refused::new(Code::ContentMissing, message).into())
            }
        }
    }
}

/// Puts together what the commits among these operations need, before the write begins: it takes
/// its time.
pub(super) async fn assemble(
    app: &App,
    drive: &DriveRow,
    operations: &[Result<Checked, Refused>],
) -> Result<HashMap<String, Assembled>, Failure> {
    let mut assembled = HashMap::new();
    for checked in operations.iter().flatten() {
        let Operation::CommitUpload(commit) = &checked.operation else { continue };
        let (drive, id) = (drive.clone(), commit.upload_id.clone());
        let found = app.store.read(move |connection| {
            let Some(row) = find(connection, &drive, &id, now_micros())? else { return Ok(None) };
            let parts = parts(connection, &id)?
                .into_iter()
                .map(|(_, hash, size)| Ok((hash, size, Contents::small(connection, hash)?)))
                .collect::<rusqlite::Result<Vec<_>>>()?;
            Ok::<_, Failure>(Some((row.file.size_bytes, parts)))
        });
        let Some((size, parts)) = found.await? else { continue };
        if size > PART_SIZE && parts.len() as u64 == count(size) {
            let whole = put_together(&app.storage.contents, size, parts).await?;
            assembled.extend(whole.map(|whole| (commit.upload_id.clone(), whole)));
        }
    }
    Ok(assembled)
}

/// `None` when a part is gone meanwhile.
async fn put_together(
    contents: &Contents,
    size: u64,
    parts: Vec<(ContentHash, u64, Option<bytes::Bytes>)>,
) -> Result<Option<Assembled>, Failure> {
    let mut whole = contents.begin(size).await?;
    for (hash, size, small) in parts {
        if let Some(bytes) = small {
            whole = whole.write(bytes).await?;
            continue;
        }
        let Some(file) = contents.open(hash, 0..size).await? else { return Ok(None) };
        let mut chunks = ReaderStream::with_capacity(file, CHUNK);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| {
                tracing::error!(%error, "a part of an upload cannot be read");
                Refused::internal()
            })?;
            whole = whole.write(chunk).await?;
        }
    }
    Ok(Some(Assembled(whole.finish().await?)))
}

/// Takes a part. The URL's token is all that its bearer needs.
pub(super) async fn receive(
    State(app): State<Shared>,
    Path((upload_id, part)): Path<(String, String)>,
    request: Request,
) -> Response {
    let (parts, mut body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let token = query_value(query, "token").unwrap_or_default();
    match received(&app, &upload_id, &part, &token, &mut body).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(failure) => {
            if !parts.headers.contains_key("expect") {
                storage::drain(body).await;
            }
            failure.told().response()
        }
    }
}

async fn received(
    app: &App,
    upload_id: &str,
    part: &str,
    token: &str,
    body: &mut Body,
) -> Result<(), Failure> {
    let now = now_micros();
    if !app.drives.urls.allows(token, Purpose::Upload, upload_id, now.div_euclid(1_000_000)) {
        let message = "the URL's token is not valid for this, or not any more";
        return Err(Refused::new(Code::Unauthorized, message).into());
    }
    let id = upload_id.to_owned();
    let size = app.store.read(move |connection| {
        let size: Option<i64> = connection
            .query_row(
                "SELECT size FROM drive_uploads WHERE id = ?1 AND expires_at > ?2",
                params![id, now],
                |row| row.get(0),
            )
            .optional()?;
        Ok::<_, Failure>(size.map(unsigned))
    });
    let size = size.await?.ok_or_else(Refused::no_upload)?;
    let number = part.parse().ok();
    let (Some(number), Some(expected)) =
        (number, number.and_then(|number| size_of_part(size, number)))
    else {
        return Err(Refused::new(Code::NotFound, "the content has no such part").into());
    };
    let mut upload = app.storage.contents.begin(expected).await?;
    while let Some(bytes) = storage::next_chunk(body).await.map_err(|error| broken(&error))? {
        upload = upload.write(bytes).await?;
    }
    let finished = upload.finish().await?;
    if finished.size() != expected {
        return Err(mismatch().into());
    }
    let (id, contents) = (upload_id.to_owned(), app.storage.contents.clone());
    let kept = app.store.write_alone(move |write| keep(write.tx, &contents, &id, number, finished));
    kept.await?;
    app.storage.contents.remove_released();
    Ok(app.store.sync().await?)
}

fn broken(error: &storage::StorageError) -> Failure {
    Refused::invalid(error.message().to_owned()).into()
}

/// The part takes the place of one of that number.
fn keep(
    tx: &Connection,
    contents: &Contents,
    upload_id: &str,
    part: u32,
    finished: Finished,
) -> Result<(), Failure> {
    let exists = tx
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM drive_uploads WHERE id = ?1)")?
        .query_row([upload_id], |row| row.get::<_, bool>(0))?;
    if !exists {
        // It was committed or it expired meanwhile.
        return Err(Refused::no_upload().into());
    }
    let former: Option<ContentHash> = tx
        .prepare_cached("SELECT sha256 FROM drive_upload_parts WHERE upload_id = ?1 AND part = ?2")?
        .query_row(params![upload_id, part], |row| row.get(0))
        .optional()?;
    let (hash, size) = (finished.hash(), signed(finished.size()));
    contents.hold(tx, finished)?;
    tx.prepare_cached(
        "INSERT OR REPLACE INTO drive_upload_parts (upload_id, part, sha256, size)
         VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![upload_id, part, hash, size])?;
    if let Some(former) = former {
        Contents::release(tx, former)?;
    }
    Ok(())
}

/// How long an upload may take, microseconds.
pub(super) fn lifetime(app: &App) -> i64 {
    micros(app.drives.limits.keep_uploads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_content() {
        assert_eq!((count(0), count(1), count(PART_SIZE)), (1, 1, 1));
        assert_eq!(count(PART_SIZE + 1), 2);
        assert_eq!(size_of_part(0, 1), Some(0));
        assert_eq!(size_of_part(PART_SIZE, 1), Some(PART_SIZE));
        assert_eq!(size_of_part(PART_SIZE + 1, 2), Some(1));
        for part in [0, 3] {
            assert_eq!(size_of_part(PART_SIZE + 1, part), None);
        }
    }
}
