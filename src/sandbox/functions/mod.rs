//! `/functions/v1`: the edge functions.

mod added;
mod finalize;
mod full_control;
mod heartbeat;
mod pairing;
mod vm_bootstrap;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use rusqlite::Connection;
use serde_json::{Value, json};

pub use self::added::{EdgeFunction, EdgeRequest};
pub(super) use self::pairing::{code_hash, new_code};
pub(super) use self::vm_bootstrap::{new_token as new_vm_token, token_hash as vm_token_hash};
use super::Caller;
use super::app::{App, Peer, Shared};
use super::body::{self, BodyError};
use super::credentials::{self, CallerError};
use super::rules::{Rule, Rules};
use super::store::{Store, StoreError};
use super::{drives, guard};
use crate::drive_sync::wire;
use crate::model::{GatewayId, TeamId};

/// All functions by name.
pub(super) const NAMES: [&str; 6] = [
    pairing::NAME,
    vm_bootstrap::NAME,
    heartbeat::NAME,
    finalize::NAME,
    full_control::NAME,
    wire::FUNCTION,
];

/// A function's failure: the body says `success: false` and why.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FunctionError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// Seconds.
    retry_after: Option<u64>,
}

impl FunctionError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "a function failed");
        let message = "the sandbox could not do it; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }
}

impl From<StoreError> for FunctionError {
    fn from(error: StoreError) -> Self {
        if error.passes() {
            tracing::warn!(error = &error as &dyn std::error::Error, "a function must wait");
            let message = "the sandbox's database takes nothing now; try again";
            return Self {
                retry_after: Some(1),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
            };
        }
        Self::internal(&error)
    }
}

impl From<rusqlite::Error> for FunctionError {
    fn from(error: rusqlite::Error) -> Self {
        StoreError::from(error).into()
    }
}

/// Runs the function `name`.
pub(super) async fn invoke(
    State(app): State<Shared>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    if let Some(added) = added::find(&app, name.as_ref()) {
        return added::invoke(&app, added, request).await;
    }
    if name.as_ref().is_ok_and(|Path(name)| name == wire::FUNCTION) {
        return drives::handle(&app, request).await;
    }
    let (parts, body) = request.into_parts();
    let known = name.ok().and_then(|Path(name)| NAMES.into_iter().find(|known| *known == name));
    let caller = match caller(&app, &parts, known) {
        Ok(caller) => caller,
        Err(CallerError::Key(error)) => return error.response(),
        Err(CallerError::Token(_)) => return platform_error("UNAUTHORIZED_INVALID_JWT"),
    };
    let Some(name) = known else { return platform_error("NOT_FOUND") };
    if parts.method != Method::POST {
        return failure(&FunctionError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this function takes POST only",
        ));
    }
    let is_foreign = !guard::is_same_origin(&parts.headers) && app.rules.hold(Rule::Origin);
    if matches!(caller, Asker::Operator) && is_foreign {
        return guard::foreign_origin();
    }
    // The output of a run may be as large as a job's.
    let is_large = name == finalize::NAME && matches!(&caller, Asker::Other(c) if c.is_gateway());
    let limit = if is_large { body::LARGE } else { body::SMALL };
    let result = match body::read(body, limit).await {
        Ok(body) => run(&app, name, &caller, &parts, &body).await,
        Err(BodyError::TooLarge(limit)) => Err(FunctionError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("the body is larger than {limit} bytes"),
        )),
        Err(BodyError::Broken) => Err(FunctionError::invalid("the body broke off")),
    };
    match result {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => failure(&error),
    }
}

/// Who calls.
enum Asker {
    /// With the admin token, where that is what the function wants.
    Operator,
    /// With anything else that is taken.
    Other(Caller),
}

fn caller(app: &App, parts: &Parts, name: Option<&str>) -> Result<Asker, CallerError> {
    let query = parts.uri.query().unwrap_or_default();
    let token = credentials::bearer(&parts.headers);
    if name == Some(full_control::NAME)
        && token.is_some_and(|token| app.secrets.is_admin_token(token))
    {
        credentials::check_key(app, &parts.headers, query).map_err(CallerError::Key)?;
        return Ok(Asker::Operator);
    }
    credentials::caller(app, &parts.headers, query, 0).map(Asker::Other)
}

async fn run(
    app: &App,
    name: &str,
    caller: &Asker,
    parts: &Parts,
    body: &[u8],
) -> Result<Value, FunctionError> {
    let caller = match caller {
        Asker::Operator => return full_control::set(app, body).await,
        Asker::Other(Caller::Drive { .. }) => {
            let message = "a drive token is good for drive sync only";
            return Err(FunctionError::new(StatusCode::FORBIDDEN, "insufficient_scope", message));
        }
        Asker::Other(caller) => caller,
    };
    let peer = parts.extensions.get::<Peer>().copied();
    match name {
        pairing::NAME => pairing::exchange(app, peer, body).await,
        vm_bootstrap::NAME => vm_bootstrap::exchange(app, peer, &parts.headers, body).await,
        heartbeat::NAME => heartbeat::record(app, caller, body).await,
        finalize::NAME => finalize::finalize(app, caller, body).await,
        _ if app.rules.hold(Rule::Toggle) => Err(not_the_operator(caller)),
        _ => full_control::set(app, body).await,
    }
}

fn not_the_operator(caller: &Caller) -> FunctionError {
    let status = if caller.is_gateway() { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
    let message = "the team's toggle needs the admin token as bearer";
    FunctionError::new(status, "not_the_operator", message)
}

/// The gateway that calls.
fn gateway(caller: &Caller) -> Result<(GatewayId, TeamId), FunctionError> {
    match caller {
        Caller::Gateway { gateway_id, team_id, .. } => Ok((gateway_id.clone(), team_id.clone())),
        Caller::Anonymous | Caller::Drive { .. } => {
            let message = "this needs the access token of a paired gateway as bearer";
            Err(FunctionError::new(StatusCode::UNAUTHORIZED, "not_a_gateway", message))
        }
    }
}

/// Whether a gateway is known, and of that team where the rule holds.
fn is_of_team(
    tx: &Connection,
    gateway_id: &str,
    team_id: &TeamId,
    rules: Rules,
    rule: Rule,
) -> rusqlite::Result<bool> {
    let row = Store::row(tx, "team_gateways", gateway_id)?;
    Ok(row.is_some_and(|row| row["team_id"] == team_id.as_str() || !rules.hold(rule)))
}

fn failure(error: &FunctionError) -> Response {
    let body = json!({"success": false, "error": error.message, "code": error.code});
    let mut response = (error.status, Json(body)).into_response();
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// What the platform itself answers, before any function runs.
fn platform_error(code: &'static str) -> Response {
    let (status, message) = match code {
        "NOT_FOUND" => (StatusCode::NOT_FOUND, "Requested function was not found"),
        _ => (StatusCode::UNAUTHORIZED, "Invalid JWT"),
    };
    let mut response = (status, Json(json!({"code": code, "message": message}))).into_response();
    response.headers_mut().insert("sb-error-code", HeaderValue::from_static(code));
    response
}
