//! `/storage/v1/object`: files in buckets, read and stored by a session or by a signed URL.
//!
//! Buckets are part of the schema and private. An object belongs to the team of whoever stored it;
//! other teams may have objects of the same name, and neither sees those of the other.

mod download;
mod error;
mod multipart;
mod name;
mod objects;
mod range;
mod route;
mod sign;
mod token;
mod upload;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) use self::download::{Reader, answer};
pub(super) use self::error::StorageError;
use self::name::ObjectName;
use self::objects::Place;
pub(super) use self::objects::{Describe, Object};
use self::route::{By, Change, Route};
use self::sign::MAX_BATCH;
pub(super) use self::token::UrlTokens;
use self::token::{Purpose, TokenError};
pub(super) use self::upload::{drain, next_chunk};
use super::app::{App, Shared, now_micros, wire_time};
use super::contents::Contents;
use super::credentials::{self, CallerError, query_value};
use super::rules::Rule;
use super::store::schema::Bucket;
use super::{Caller, body, guard};

/// Where it is served.
const ROOT: &str = "/storage/v1/";
/// How often a reader looks again for an object that changes under its hands.
const LOOKS: usize = 3;

/// How much storage takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageLimits {
    /// Of one object, bytes; a bucket may allow less. Default 5 GiB.
    pub max_object_bytes: u64,
    /// Of all contents together, those on their way in included, bytes; equal contents count once.
    /// Default 50 GiB.
    pub max_total_bytes: u64,
}

impl Default for StorageLimits {
    fn default() -> Self {
        const GIB: u64 = 1024 * 1024 * 1024;
        Self { max_object_bytes: 5 * GIB, max_total_bytes: 50 * GIB }
    }
}

/// What the handlers need.
#[derive(Debug)]
pub(super) struct Storage {
    pub(super) contents: Contents,
    pub(super) tokens: UrlTokens,
    pub(super) limits: StorageLimits,
}

/// What the one route of storage serves, e.g. `GET /storage/v1/object/{bucket}/{name}`.
#[cfg(test)]
pub(super) fn listed() -> Vec<String> {
    let full = |operation: String| operation.replacen(' ', &format!(" {ROOT}"), 1);
    route::listed().map(full).collect()
}

/// A failure, and whether it has an answer of its own shape.
enum Failure {
    Storage(StorageError),
    Key(credentials::KeyError),
}

impl<E: Into<StorageError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Storage(error.into())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prefixes {
    prefixes: Vec<String>,
}

/// Answers every request below [`ROOT`]. Objects may take as long to come in as they like, as long
/// as they do come in; all else is bounded as everywhere.
pub(super) async fn handle(State(app): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().strip_prefix(ROOT).unwrap_or_default();
    match Route::of(&parts.method, path) {
        Ok(Route::Store { bucket, name, by }) => {
            response(store(&app, &parts, body, (bucket, name, by)).await)
        }
        Ok(Route::Load { bucket, name, by }) => {
            let loaded = load(&app, &parts, (bucket, name, by));
            guard::in_time(async { response(loaded.await) }).await
        }
        Ok(Route::Change(asked)) => {
            let changed = change(&app, &parts, body, asked);
            guard::in_time(async { response(changed.await) }).await
        }
        Err(error) => error.response(),
    }
}

fn response(answer: Result<Response, Failure>) -> Response {
    match answer {
        Ok(response) => response,
        Err(Failure::Storage(error)) => error.response(),
        Err(Failure::Key(error)) => error.response(),
    }
}

/// The requests with a small body and a JSON answer.
async fn change(app: &App, parts: &Parts, body: Body, asked: Change) -> Result<Response, Failure> {
    let team_id = session(app, parts)?;
    let body = body::read(body, body::SMALL).await?;
    let seconds = now_micros() / 1_000_000;
    let (storage, rows) = (&app.storage, &app.store);
    let answer = match asked {
        Change::Sign { bucket, name } => {
            let place = Place { team_id, bucket: known(app, &bucket)?, name };
            sign::one(storage, rows, place, &body, seconds).await
        }
        Change::SignMany { bucket } => {
            let bucket = known(app, &bucket)?;
            sign::many(storage, rows, (team_id, bucket), &body, seconds).await
        }
        Change::SignUpload { bucket, name } => {
            let place = Place { team_id, bucket: known(app, &bucket)?, name };
            let replace = sign::wants_upsert(&parts.headers);
            sign::upload(storage, rows, place, replace, seconds).await
        }
        Change::Remove { bucket, name } => {
            let bucket = known(app, &bucket)?;
            let removed = remove(app, team_id, bucket, vec![name]).await?;
            if removed.is_empty() {
                return Err(StorageError::no_object().into());
            }
            Ok(json!({"message": "Successfully deleted"}))
        }
        Change::RemoveMany { bucket } => {
            let bucket = known(app, &bucket)?;
            let Prefixes { prefixes } = body::parse(&body).map_err(StorageError::invalid)?;
            if prefixes.len() > MAX_BATCH {
                let message = format!("at most {MAX_BATCH} objects at a time");
                return Err(StorageError::invalid(message).into());
            }
            // What can be no name names no object.
            let names = prefixes.iter().filter_map(|name| ObjectName::new(name).ok()).collect();
            Ok(remove(app, team_id, bucket, names).await?.into())
        }
    };
    Ok(Json(answer?).into_response())
}

/// The team of the session behind a request.
fn session(app: &App, parts: &Parts) -> Result<String, Failure> {
    let query = parts.uri.query().unwrap_or_default();
    let leeway = i64::try_from(app.clock_leeway.as_secs()).unwrap_or(0);
    match credentials::caller(app, &parts.headers, query, leeway) {
        Ok(Caller::Gateway { team_id, .. }) => {
            let team_id = if app.rules.hold(Rule::ObjectTeam) { &team_id } else { &app.team_id };
            Ok(team_id.as_str().to_owned())
        }
        Ok(Caller::Anonymous | Caller::Drive { .. }) => {
            Err(StorageError::denied("this takes a session").into())
        }
        Err(CallerError::Key(error)) => Err(Failure::Key(error)),
        Err(CallerError::Token(error)) => Err(error.into()),
    }
}

/// Where a signed URL leads, and what it is for.
fn signed(
    app: &App,
    parts: &Parts,
    bucket: &str,
    name: ObjectName,
) -> Result<(Place, Purpose), StorageError> {
    let token = query_value(parts.uri.query().unwrap_or_default(), "token");
    let token = token.ok_or_else(|| StorageError::denied("the URL has no token"))?;
    let grant = app.storage.tokens.read(&token, now_micros() / 1_000_000)?;
    let is_elsewhere = (grant.bucket != bucket && app.rules.hold(Rule::UrlBucket))
        || (grant.name != name.as_str() && app.rules.hold(Rule::UrlName));
    if is_elsewhere {
        return Err(TokenError::Invalid.into());
    }
    let bucket = known(app, bucket)?;
    Ok((Place { team_id: grant.team_id, bucket, name }, grant.purpose))
}

fn known(app: &App, bucket: &str) -> Result<&'static Bucket, StorageError> {
    #[cfg(test)]
    if !app.rules.hold(Rule::Bucket) {
        let bucket = Bucket { name: bucket.to_owned().leak(), max_object_bytes: None };
        return Ok(Box::leak(Box::new(bucket)));
    }
    app.store.schema().bucket(bucket).ok_or_else(StorageError::no_bucket)
}

async fn load(
    app: &App,
    parts: &Parts,
    (bucket, name, by): (String, ObjectName, By),
) -> Result<Response, Failure> {
    let (place, download) = match by {
        By::Session => {
            let team_id = session(app, parts)?;
            (Place { team_id, bucket: known(app, &bucket)?, name }, None)
        }
        By::Url => {
            let (place, purpose) = signed(app, parts, &bucket, name)?;
            if purpose != Purpose::Download && app.rules.hold(Rule::UrlReads) {
                return Err(TokenError::Invalid.into());
            }
            (place, query_value(parts.uri.query().unwrap_or_default(), "download"))
        }
    };
    Ok(read(app, parts, place, download).await?)
}

async fn read(
    app: &App,
    parts: &Parts,
    place: Place,
    download: Option<String>,
) -> Result<Response, StorageError> {
    let reader = Reader { method: &parts.method, headers: &parts.headers, download };
    for _ in 0..LOOKS {
        let place = place.clone();
        let found = app.store.read(move |reader| {
            let Some(object) = objects::find(reader, &place)? else { return Ok(None) };
            let small = Contents::small(reader, object.hash)?;
            Ok::<_, StorageError>(Some((object, small)))
        });
        let (object, small) = found.await?.ok_or_else(StorageError::no_object)?;
        let answered = answer(&app.storage.contents, (&object, small), &reader);
        if let Some(response) = answered.await? {
            return Ok(response);
        }
    }
    tracing::error!(object = %place.key(), "the content of an object is missing");
    Err(StorageError::internal())
}

async fn store(
    app: &App,
    parts: &Parts,
    mut body: Body,
    wanted: (String, ObjectName, By),
) -> Result<Response, Failure> {
    let stored = stored(app, parts, &mut body, wanted).await;
    if let Err(Failure::Storage(error)) = &stored
        && error.hears_the_client_out()
        && !parts.headers.contains_key("expect")
    {
        upload::drain(body).await;
    }
    stored
}

async fn stored(
    app: &App,
    parts: &Parts,
    body: &mut Body,
    (bucket, name, by): (String, ObjectName, By),
) -> Result<Response, Failure> {
    let (place, replace) = match by {
        By::Session => {
            let team_id = session(app, parts)?;
            let place = Place { team_id, bucket: known(app, &bucket)?, name };
            (place, parts.method == Method::PUT || sign::wants_upsert(&parts.headers))
        }
        By::Url => {
            let (place, purpose) = signed(app, parts, &bucket, name)?;
            if purpose == Purpose::Download && app.rules.hold(Rule::UrlStores) {
                return Err(TokenError::Invalid.into());
            }
            (place, purpose == Purpose::Upsert || !app.rules.hold(Rule::UrlReplaces))
        }
    };
    let replace = replace || !app.rules.hold(Rule::ObjectStays);
    if !replace {
        let place = place.clone();
        let found =
            app.store.read(move |reader| Ok::<_, StorageError>(objects::find(reader, &place)?));
        if found.await?.is_some() {
            return Err(StorageError::duplicate().into());
        }
    }
    let storage = &app.storage;
    let of_bucket = place.bucket.max_object_bytes.filter(|_| app.rules.hold(Rule::ObjectSize));
    let most = storage.limits.max_object_bytes.min(of_bucket.unwrap_or(u64::MAX));
    let (describe, finished) =
        upload::receive(&storage.contents, &parts.headers, body, most).await?;
    let key = place.key();
    let contents = storage.contents.clone();
    // The content is moved to its place once and for all.
    let put = app.store.write_alone(move |write| {
        objects::put(write.tx, &contents, &place, (&describe, finished), replace, now_micros())
    });
    let id = put.await?;
    storage.contents.remove_released();
    let answer = match by {
        By::Session => json!({"Id": id, "Key": key}),
        By::Url => json!({"Key": key}),
    };
    Ok(Json(answer).into_response())
}

/// Removes what is there of these; it as it was.
async fn remove(
    app: &App,
    team_id: String,
    bucket: &'static Bucket,
    names: Vec<ObjectName>,
) -> Result<Vec<Value>, StorageError> {
    let removed = app.store.write(move |write| {
        let mut removed = Vec::new();
        for name in &names {
            let place = Place { team_id: team_id.clone(), bucket, name: name.clone() };
            let object = objects::remove(write.tx, &place)?;
            removed.extend(object.map(|object| shown(&place, &object)));
        }
        Ok::<_, StorageError>(removed)
    });
    let removed = removed.await?;
    app.storage.contents.remove_released();
    Ok(removed)
}

/// An object as lists show it.
fn shown(place: &Place, object: &Object) -> Value {
    json!({
        "id": object.id,
        "bucket_id": place.bucket.name,
        "name": place.name.as_str(),
        "created_at": wire_time(object.created_at),
        "updated_at": wire_time(object.updated_at),
        "metadata": {
            "eTag": format!("\"{}\"", object.hash),
            "size": object.size,
            "mimetype": object.describe.content_type,
        },
    })
}
