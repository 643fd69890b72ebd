//! `/functions/v1`: the edge functions that a gateway calls.

mod added;
mod heartbeat;
mod pairing;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

pub use self::added::{EdgeFunction, EdgeRequest};
pub(super) use self::pairing::{code_hash, new_code};
use super::Caller;
use super::app::{App, Peer, Shared};
use super::body::{self, BodyError};
use super::credentials::{self, CallerError};
use super::store::StoreError;

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
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let caller = match credentials::caller(&app, &parts.headers, query, 0) {
        Ok(caller) => caller,
        Err(CallerError::Key(error)) => return error.response(),
        Err(CallerError::Token(_)) => return platform_error("UNAUTHORIZED_INVALID_JWT"),
    };
    let name = match name {
        Ok(Path(name)) if matches!(&*name, pairing::NAME | heartbeat::NAME) => name,
        Ok(_) | Err(_) => return platform_error("NOT_FOUND"),
    };
    if parts.method != Method::POST {
        return failure(&FunctionError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this function takes POST only",
        ));
    }
    let peer = parts.extensions.get::<Peer>().copied();
    let result = match body::read(body, body::SMALL).await {
        Ok(body) => run(&app, &name, &caller, peer, &body).await,
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

async fn run(
    app: &App,
    name: &str,
    caller: &Caller,
    peer: Option<Peer>,
    body: &[u8],
) -> Result<Value, FunctionError> {
    match name {
        pairing::NAME => pairing::exchange(app, peer, body).await,
        _ => heartbeat::record(app, caller, body).await,
    }
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
