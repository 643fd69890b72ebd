//! Contents on their way out: small ones in the answer, others by a signed URL.

use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::{Failure, Refused};
use super::tree::{DriveRow, unsigned};
use super::urls::{DriveUrls, Purpose};
use crate::drive_sync::wire::{
    Code, Download, DownloadResult, Downloads, Inline, MAX_INLINE, MAX_INLINE_TOTAL, Wanted,
};
use crate::sandbox::app::{App, Shared, now_micros, wire_time};
use crate::sandbox::contents::{ContentHash, Contents};
use crate::sandbox::credentials::query_value;
use crate::sandbox::rules::{Rule, Rules};
use crate::sandbox::storage::{self, Describe, Object, Reader};

/// How long a URL works, seconds.
const LIFETIME: i64 = 3600;

/// What answering needs beside the database.
#[derive(Debug, Clone)]
pub(super) struct Links {
    pub(super) urls: DriveUrls,
    /// Where the requester reaches us.
    pub(super) base: String,
    pub(super) rules: Rules,
}

/// A version that is kept.
struct Version {
    hash: ContentHash,
    size: u64,
    mime_type: String,
    created_at: i64,
}

/// A version; of that drive and entry, where they are given.
fn find(
    connection: &Connection,
    of: Option<(&DriveRow, &str)>,
    version_id: &str,
) -> rusqlite::Result<Option<Version>> {
    let (drive, entry) = of.map(|(drive, entry)| (drive.number, entry)).unzip();
    connection
        .prepare_cached(
            "SELECT sha256, size, mime_type, created_at FROM drive_versions
             WHERE id = ?1 AND (?2 IS NULL OR (drive = ?2 AND entry_id = ?3))",
        )?
        .query_row(params![version_id, drive, entry], |row| {
            Ok(Version {
                hash: row.get(0)?,
                size: unsigned(row.get(1)?),
                mime_type: row.get(2)?,
                created_at: row.get(3)?,
            })
        })
        .optional()
}

impl Links {
    /// Where to get one version.
    pub(super) fn one(
        &self,
        connection: &Connection,
        drive: &DriveRow,
        wanted: &Wanted,
    ) -> Result<Download, Failure> {
        let version = self.version(connection, drive, wanted)?;
        Ok(self.link(&version, wanted, None))
    }

    /// Many, with what is small right away.
    pub(super) fn many(
        &self,
        connection: &Connection,
        drive: &DriveRow,
        entries: &[Wanted],
    ) -> Result<Downloads, Failure> {
        let mut room = MAX_INLINE_TOTAL as u64;
        let results = entries.iter().map(|wanted| {
            let version = match self.version(connection, drive, wanted) {
                Ok(version) => version,
                Err(Failure::Refused(refused)) => {
                    return Ok(DownloadResult::Refused(refused.body()));
                }
                Err(failure) => return Err(failure),
            };
            let mut content = None;
            if version.size <= room.min(MAX_INLINE as u64)
                && let Some(bytes) = Contents::small(connection, version.hash)?
            {
                room -= version.size;
                content = Some(Inline(bytes.into()));
            }
            Ok(DownloadResult::Found(self.link(&version, wanted, content)))
        });
        Ok(Downloads { results: results.collect::<Result<_, Failure>>()? })
    }

    fn version(
        &self,
        connection: &Connection,
        drive: &DriveRow,
        wanted: &Wanted,
    ) -> Result<Version, Failure> {
        let of = Some((drive, wanted.entry_id.as_str()));
        let of = of.filter(|_| self.rules.hold(Rule::DriveVersion));
        let version = find(connection, of, &wanted.version_id)?;
        Ok(version.ok_or_else(Refused::no_version)?)
    }

    /// No address is needed where the content is there.
    fn link(&self, version: &Version, wanted: &Wanted, content: Option<Inline>) -> Download {
        let until = now_micros().div_euclid(1_000_000).saturating_add(LIFETIME);
        let address = || {
            let id = &wanted.version_id;
            let token = self.urls.mint(Purpose::Download, id, until);
            format!("{}/drives/v1/contents/{id}?token={token}", self.base)
        };
        Download {
            url: if content.is_some() { String::new() } else { address() },
            headers: std::collections::BTreeMap::new(),
            size_bytes: version.size,
            content_sha256: version.hash.to_string(),
            expires_at: wire_time(until.saturating_mul(1_000_000)),
            content,
        }
    }
}

/// Sends a version. The URL's token is all that its bearer needs.
pub(super) async fn send(
    State(app): State<Shared>,
    Path(version_id): Path<String>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let token = query_value(query, "token").unwrap_or_default();
    let reader = Reader { method: &parts.method, headers: &parts.headers, download: None };
    match sent(&app, version_id, &token, &reader).await {
        Ok(response) => response,
        Err(failure) => failure.told().response(),
    }
}

async fn sent(
    app: &App,
    version_id: String,
    token: &str,
    reader: &Reader<'_>,
) -> Result<Response, Failure> {
    let now = now_micros().div_euclid(1_000_000);
    if !app.drives.urls.allows(token, Purpose::Download, &version_id, now) {
        let message = "the URL's token is not valid for this, or not any more";
        return Err(Refused::new(Code::Unauthorized, message).into());
    }
    let id = version_id.clone();
    let found = app.store.read(move |connection| {
        let version = find(connection, None, &id)?.ok_or_else(Refused::no_version)?;
        let small: Option<Bytes> = Contents::small(connection, version.hash)?;
        Ok::<_, Failure>((version, small))
    });
    let (version, small) = found.await?;
    let object = Object {
        id: version_id,
        hash: version.hash,
        size: version.size,
        describe: Describe { content_type: version.mime_type, max_age: None },
        created_at: version.created_at,
        updated_at: version.created_at,
    };
    let answered = storage::answer(&app.storage.contents, (&object, small), reader).await;
    match answered {
        Ok(Some(response)) => Ok(response),
        Ok(None) => Err(Refused::no_version().into()),
        Err(error) => Ok(error.response()),
    }
}
