//! Signed URLs: making them, and reading what they grant.

use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Storage;
use super::error::StorageError;
use super::name::ObjectName;
use super::objects::{self, Place};
use super::token::{Grant, Purpose};
use crate::sandbox::body;
use crate::sandbox::store::Store;
use crate::sandbox::store::schema::Bucket;

/// Seconds for which a URL to store an object works.
const UPLOAD_LIFETIME: u32 = 2 * 3600;
/// Seconds for which a URL to read an object works at most.
const MAX_LIFETIME: u32 = 366 * 24 * 3600;
/// Objects of one request.
pub(super) const MAX_BATCH: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    #[serde(rename = "expiresIn")]
    expires_in: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Many {
    #[serde(rename = "expiresIn")]
    expires_in: u32,
    paths: Vec<String>,
}

fn lifetime(seconds: u32) -> Result<u32, StorageError> {
    if (1..=MAX_LIFETIME).contains(&seconds) {
        return Ok(seconds);
    }
    Err(StorageError::invalid(format!("expiresIn is 1 to {MAX_LIFETIME} seconds")))
}

/// `{signedURL}` of an object that is there.
pub(super) async fn one(
    storage: &Storage,
    store: &Store,
    place: Place,
    body: &[u8],
    now: i64,
) -> Result<Value, StorageError> {
    let One { expires_in } = body::parse(body).map_err(StorageError::invalid)?;
    let lifetime = lifetime(expires_in)?;
    let looked_up = place.clone();
    let found =
        store.read(move |reader| objects::find(reader, &looked_up).map_err(StorageError::from));
    found.await?.ok_or_else(StorageError::no_object)?;
    Ok(json!({"signedURL": download_url(storage, &place, now, lifetime)}))
}

/// `[{error, path, signedURL}]`, in the order of the paths.
pub(super) async fn many(
    storage: &Storage,
    store: &Store,
    (team_id, bucket): (String, &'static Bucket),
    body: &[u8],
    now: i64,
) -> Result<Value, StorageError> {
    let Many { expires_in, paths } = body::parse(body).map_err(StorageError::invalid)?;
    let lifetime = lifetime(expires_in)?;
    if paths.len() > MAX_BATCH {
        return Err(StorageError::invalid(format!("at most {MAX_BATCH} paths at a time")));
    }
    let found = store.read(move |reader| {
        let look_up = |path: String| {
            let place = ObjectName::new(&path).map_err(StorageError::from).and_then(|name| {
                let place = Place { team_id: team_id.clone(), bucket, name };
                let found = objects::find(reader, &place)?;
                found.map(|_| place).ok_or_else(StorageError::no_object)
            });
            (path, place)
        };
        Ok::<_, StorageError>(paths.into_iter().map(look_up).collect::<Vec<_>>())
    });
    let answers = found.await?.into_iter().map(|(path, place)| match place {
        Ok(place) => {
            let url = download_url(storage, &place, now, lifetime);
            json!({"error": null, "path": path, "signedURL": url})
        }
        Err(error) => json!({"error": error.message(), "path": path, "signedURL": null}),
    });
    Ok(answers.collect())
}

/// `{url, token}` to store an object; without `replace` none may be there.
pub(super) async fn upload(
    storage: &Storage,
    store: &Store,
    place: Place,
    replace: bool,
    now: i64,
) -> Result<Value, StorageError> {
    if !replace {
        let looked_up = place.clone();
        let found =
            store.read(move |reader| objects::find(reader, &looked_up).map_err(StorageError::from));
        if found.await?.is_some() {
            return Err(StorageError::duplicate());
        }
    }
    let purpose = if replace { Purpose::Upsert } else { Purpose::Upload };
    let token = storage.tokens.mint(&grant(purpose, &place), now, UPLOAD_LIFETIME);
    let path = place.name.to_path();
    let url = format!("/object/upload/sign/{}/{path}?token={token}", place.bucket.name);
    Ok(json!({"url": url, "token": token}))
}

/// Relative to `/storage/v1`.
fn download_url(storage: &Storage, place: &Place, now: i64, lifetime: u32) -> String {
    let token = storage.tokens.mint(&grant(Purpose::Download, place), now, lifetime);
    let path = place.name.to_unescaped_path();
    format!("/object/sign/{}/{path}?token={token}", place.bucket.name)
}

fn grant(purpose: Purpose, place: &Place) -> Grant {
    Grant {
        purpose,
        team_id: place.team_id.clone(),
        bucket: place.bucket.name.to_owned(),
        name: place.name.as_str().to_owned(),
    }
}

/// Whether a request's `x-upsert` header asks to replace what is there.
pub(super) fn wants_upsert(headers: &HeaderMap) -> bool {
    headers.get("x-upsert").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}
