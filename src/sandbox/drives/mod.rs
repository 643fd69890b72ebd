//! Drives: trees of files that a team's VMs mirror, with a feed of changes and all versions of a
//! while. `POST /functions/v1/vm-drive-sync` serves [`crate::drive_sync::wire`].
//!
//! Writes of a drive go through one place (`Writer`), whoever makes them: a VM with its drive
//! token, or the operator. An answer to a write is given when what was written outlives a power
//! cut, since a mirror relies on what it was told.

mod access;
mod downloads;
mod error;
mod feed;
mod keep;
mod list;
mod path;
mod tree;
mod uploads;
mod urls;
mod writes;

#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

pub(super) use self::access::{Minted, mint_token};
use self::access::{Right, Who};
pub(super) use self::error::{Failure, Refused, status};
#[cfg(test)]
pub(super) use self::keep::sweep;
pub(super) use self::keep::{restore, run};
pub(super) use self::list::{NewDrive, create, entries, list, set_access};
use self::tree::Edit;
use self::uploads::Uploads;
pub(super) use self::urls::DriveUrls;
#[cfg(test)]
pub(super) use self::urls::Purpose;
use self::writes::{Checked, Work};
use super::app::{App, now_micros};
use super::body::{self, BodyError};
use super::routes::Route;
use crate::drive_sync::wire::{
    Action, BatchDone, Code, Done, Hello, Limits, MAX_BATCH, MAX_INLINE, MAX_INLINE_TOTAL,
    Operation, OperationResult, PART_SIZE, PROTOCOL, Renewed,
};

/// What all inline contents of a request take as base64, and room for 500 long paths.
const MAX_BODY: usize = MAX_INLINE_TOTAL / 3 * 4 + 8 * 1024 * 1024;

/// How long drives keep what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriveLimits {
    /// Changes in the feed, and versions that are no longer current. Default 30 days. Zero: until
    /// the next sweep.
    pub keep_history: Duration,
    /// An upload that is not committed. Default a day.
    pub keep_uploads: Duration,
    /// How long a drive token lasts (whole seconds). Default 7 days: a VM may sleep for a weekend.
    pub token_lifetime: Duration,
}

impl Default for DriveLimits {
    fn default() -> Self {
        let days = |days: u64| Duration::from_hours(24 * days);
        Self { keep_history: days(30), keep_uploads: days(1), token_lifetime: days(7) }
    }
}

/// What the handlers need.
#[derive(Debug)]
pub(super) struct Drives {
    pub(super) urls: DriveUrls,
    pub(super) limits: DriveLimits,
}

/// Contents may take as long as they like, as long as they move.
pub(super) fn transfers() -> Vec<Route> {
    vec![
        Route::put("/drives/v1/uploads/{upload}/{part}", uploads::receive),
        Route::get("/drives/v1/contents/{version}", downloads::send),
    ]
}

/// Answers [`crate::drive_sync::wire::Request`]. The drive token is all that is looked at; a new one is
/// given for the access token of the gateway's session, too.
pub(super) async fn handle(app: &App, request: Request) -> Response {
    match handled(app, request).await {
        Ok(response) => response,
        Err(failure) => failure.told().response(),
    }
}

async fn handled(app: &App, request: Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let shown = access::of_token(app, &parts).await?;
    if parts.method != Method::POST {
        let mut response = Refused::invalid("this takes POST only").response();
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        return Ok(response);
    }
    let bytes = body::read(body, MAX_BODY).await.map_err(bad_body)?;
    let request = parse::<crate::drive_sync::wire::Request>(bytes).await?;
    let who = shown.for_action(&request.action, app.rules)?;
    writes::check_key("client_key", &request.client_key)?;
    answer(app, &who, &base(&parts), Some(request.client_key), request.action).await
}

/// The operator's requests, who need no `client_key` and may use every drive of their team.
pub(super) async fn handle_operator(app: &App, request: Request) -> Response {
    let answered = async {
        let (parts, body) = request.into_parts();
        let bytes = body::read(body, MAX_BODY).await.map_err(bad_body)?;
        let action = parse::<Action>(bytes).await?;
        answer(app, &Who::Operator, &base(&parts), None, action).await
    };
    answered.await.unwrap_or_else(|failure: Failure| failure.told().response())
}

fn bad_body(error: BodyError) -> Failure {
    match error {
        BodyError::TooLarge(limit) => {
            Refused::new(Code::TooLarge, format!("the body is larger than {limit} bytes")).into()
        }
        BodyError::Broken => Refused::invalid("the body broke off").into(),
    }
}

/// Where the requester reaches us: `Host` was looked at before.
fn base(parts: &Parts) -> String {
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    format!("http://{}", host.unwrap_or_default())
}

/// Megabytes of base64 take a while, so other requests go on meanwhile.
async fn parse<T: serde::de::DeserializeOwned + Send + 'static>(
    bytes: Vec<u8>,
) -> Result<T, Failure> {
    let parsed = blocking(move || {
        serde_json::from_slice(&bytes)
            .map_err(|error| Refused::invalid(format!("the body is not what is expected: {error}")))
    });
    Ok(parsed.await??)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refused> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "a request was cut short");
        Refused::internal()
    })
}

async fn answer(
    app: &App,
    who: &Who,
    base: &str,
    client_key: Option<String>,
    action: Action,
) -> Result<Response, Failure> {
    let (drive_id, operation) = match action {
        Action::Hello { .. } | Action::Renew => return about_token(app, who, action).await,
        Action::Changes { .. }
        | Action::Snapshot { .. }
        | Action::Digest { .. }
        | Action::Download { .. }
        | Action::Downloads { .. } => return read(app, who, base, action).await,
        Action::Batch { drive_id, operations } => {
            if operations.len() > MAX_BATCH {
                let message = format!("a batch has at most {MAX_BATCH} operations");
                return Err(Refused::new(Code::TooLarge, message).into());
            }
            let writer = Writer { app, who, base, client_key };
            let results = writer.write(drive_id, operations).await?;
            return Ok(json(BatchDone { results }));
        }
        Action::PrepareUpload { drive_id, file } => (drive_id, Operation::PrepareUpload(file)),
        Action::CommitUpload { drive_id, upload } => (drive_id, Operation::CommitUpload(upload)),
        Action::Put { drive_id, file, content } => (drive_id, Operation::Put { file, content }),
        Action::Mkdir { drive_id, directory } => (drive_id, Operation::Mkdir(directory)),
        Action::Delete { drive_id, what } => (drive_id, Operation::Delete(what)),
        Action::Move { drive_id, what } => (drive_id, Operation::Move(what)),
    };
    let writer = Writer { app, who, base, client_key };
    match writer.write(drive_id, vec![operation]).await?.pop() {
        Some(OperationResult::Done(done)) => Ok(json::<Done>(*done)),
        Some(OperationResult::Prepared(prepared)) => Ok(json(prepared)),
        Some(OperationResult::Refused(body)) => {
            Ok((status(body.error.code), Json(body)).into_response())
        }
        None => Err(Refused::internal().into()),
    }
}

fn json<T: Serialize>(answer: T) -> Response {
    Json(answer).into_response()
}

/// The same where about so many bytes come out: they would be copied each time they grow.
fn long_json<T: Serialize>(answer: T, length: usize) -> Response {
    let mut body = Vec::with_capacity(length);
    match serde_json::to_writer(&mut body, &answer) {
        Ok(()) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        // It tells why.
        Err(_) => json(answer),
    }
}

async fn about_token(app: &App, who: &Who, action: Action) -> Result<Response, Failure> {
    let Action::Hello { protocol } = action else {
        let Minted { token, expires_at } = access::renew(app, who)?;
        return Ok(json(Renewed { token, expires_at }));
    };
    if protocol != PROTOCOL {
        let message = format!("this server speaks protocol {PROTOCOL}");
        return Err(Refused::new(Code::UnsupportedProtocol, message).into());
    }
    let seen = who.clone();
    let (team, rules) = (app.team_id.clone(), app.rules);
    let drives = app.store.read(move |connection| {
        access::visible(connection, &seen, &team, rules).map_err(Failure::from)
    });
    let limits = Limits {
        batch: u32::try_from(MAX_BATCH).unwrap_or(u32::MAX),
        inline_bytes: MAX_INLINE as u64,
        inline_total_bytes: MAX_INLINE_TOTAL as u64,
        part_bytes: PART_SIZE,
        file_bytes: app.storage.limits.max_object_bytes,
        changes: feed::PAGE,
    };
    let token_expires_at = who.token_ends();
    Ok(json(Hello { drives: drives.await?, token_expires_at, limits }))
}

async fn read(app: &App, who: &Who, base: &str, action: Action) -> Result<Response, Failure> {
    let (who, team, rules) = (who.clone(), app.team_id.clone(), app.rules);
    let links = downloads::Links { urls: app.drives.urls.clone(), base: base.to_owned(), rules };
    // A mirror relies on what it was told, so that must outlive a power cut, too.
    let is_relied_on = matches!(action, Action::Changes { .. } | Action::Snapshot { .. });
    let answered = app.store.read(move |connection| {
        let drive = |id: &str| access::drive(connection, &who, &team, id, Right::Read, rules);
        Ok::<_, Failure>(match action {
            Action::Changes { drive_id, after_sequence, limit } => {
                json(feed::changes(connection, &drive(&drive_id)?, after_sequence, limit)?)
            }
            Action::Snapshot { drive_id, page_token } => {
                json(feed::snapshot(connection, &drive(&drive_id)?, page_token.as_deref())?)
            }
            Action::Digest { drive_id } => json(feed::digest(connection, &drive(&drive_id)?)?),
            Action::Download { drive_id, wanted } => {
                json(links.one(connection, &drive(&drive_id)?, &wanted)?)
            }
            Action::Downloads { drive_id, entries } => {
                if entries.len() > MAX_BATCH {
                    let message = format!("at most {MAX_BATCH} entries at a time");
                    return Err(Refused::new(Code::TooLarge, message).into());
                }
                let found = links.many(connection, &drive(&drive_id)?, &entries)?;
                let length = found.length();
                long_json(found, length)
            }
            Action::Hello { .. }
            | Action::Renew
            | Action::PrepareUpload { .. }
            | Action::CommitUpload { .. }
            | Action::Put { .. }
            | Action::Mkdir { .. }
            | Action::Delete { .. }
            | Action::Move { .. }
            | Action::Batch { .. } => return Err(Refused::internal().into()),
        })
    });
    let answer = answered.await?;
    if is_relied_on {
        app.store.sync().await?;
    }
    Ok(answer)
}

/// One request to write.
struct Writer<'a> {
    app: &'a App,
    who: &'a Who,
    base: &'a str,
    client_key: Option<String>,
}

impl Writer<'_> {
    /// Does operations in their order, in one transaction; a result for each.
    async fn write(
        self,
        drive_id: String,
        operations: Vec<Operation>,
    ) -> Result<Vec<OperationResult>, Failure> {
        let Self { app, who, base, client_key } = self;
        let (who, team, rules) = (who.clone(), app.team_id.clone(), app.rules);
        let drive = {
            let (who, team) = (who.clone(), team.clone());
            let id = drive_id.clone();
            let found = app.store.read(move |connection| {
                access::drive(connection, &who, &team, &id, Right::Write, rules)
            });
            found.await?
        };
        let max_file = app.storage.limits.max_object_bytes;
        let operations: Vec<Result<Checked, Refused>> = blocking(move || {
            check_total(&operations)?;
            let checked = operations.into_iter().map(|one| writes::check(one, max_file));
            Ok::<_, Refused>(checked.collect())
        })
        .await??;
        let assembled = uploads::assemble(app, &drive, &operations).await?;
        let contents = app.storage.contents.clone();
        let uploads = Uploads {
            urls: app.drives.urls.clone(),
            base: base.to_owned(),
            lifetime: uploads::lifetime(app),
            rules,
        };
        // A content that was put together is moved to its place once and for all.
        let written = app.store.write_alone(move |write| {
            // Once more: this is the state that is changed.
            let drive = access::drive(write.tx, &who, &team, &drive_id, Right::Write, rules)?;
            let now = now_micros();
            let client_key = client_key.as_deref();
            let edit = Edit { tx: write.tx, drive, now, client_key };
            let mut work = Work { edit, contents: &contents, assembled, uploads: &uploads };
            let results = operations.into_iter().map(|one| match one {
                Ok(checked) => work.run(&checked),
                Err(refused) => Ok(OperationResult::Refused(refused.body())),
            });
            let results: Vec<OperationResult> = results.collect::<Result<_, Failure>>()?;
            work.edit.finish()?;
            Ok::<_, Failure>(results)
        });
        let results = written.await?;
        app.storage.contents.remove_released();
        app.store.sync().await?;
        Ok(results)
    }
}

fn check_total(operations: &[Operation]) -> Result<(), Refused> {
    let inline = operations.iter().map(|operation| match operation {
        Operation::Put { content, .. } => content.0.len(),
        Operation::PrepareUpload(_)
        | Operation::CommitUpload(_)
        | Operation::Mkdir(_)
        | Operation::Delete(_)
        | Operation::Move(_) => 0,
    });
    if inline.sum::<usize>() > MAX_INLINE_TOTAL {
        let message = format!("all inline contents together have at most {MAX_INLINE_TOTAL} bytes");
        return Err(Refused::new(Code::TooLarge, message));
    }
    Ok(())
}
