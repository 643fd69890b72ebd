//! Edge functions that a library's user adds to the sandbox's own.

use axum::Json;
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

use super::{FunctionError, failure, platform_error};
use crate::sandbox::Caller;
use crate::sandbox::app::App;
use crate::sandbox::body::{self, BodyError};
use crate::sandbox::credentials::{self, CallerError};

/// A function below `/functions/v1/`, for any method.
#[derive(Debug)]
pub struct EdgeFunction {
    /// Its name; it stands before one of the sandbox's own.
    pub name: &'static str,
    /// What it does: a status and a JSON body. It must not block.
    pub body: fn(&EdgeRequest) -> (StatusCode, Value),
}

/// What a function is given.
#[derive(Debug)]
pub struct EdgeRequest {
    /// HTTP method.
    pub method: Method,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, bounded by the server.
    pub body: Vec<u8>,
    /// Who asks: the anon key or a paired gateway.
    pub caller: Caller,
}

/// The function of that name, if it was added.
pub(super) fn find<E>(app: &App, name: Result<&Path<String>, E>) -> Option<&'static EdgeFunction> {
    let Path(name) = name.ok()?;
    app.edge_functions.iter().copied().find(|added| added.name == *name)
}

/// Runs it.
pub(super) async fn invoke(
    app: &App,
    function: &'static EdgeFunction,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let caller = match credentials::caller(app, &parts.headers, query, 0) {
        Ok(caller) => caller,
        Err(CallerError::Key(error)) => return error.response(),
        Err(CallerError::Token(_)) => return platform_error("UNAUTHORIZED_INVALID_JWT"),
    };
    let body = match body::read(body, body::SMALL).await {
        Ok(body) => body,
        Err(BodyError::TooLarge(limit)) => {
            return failure(&FunctionError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                format!("the body is larger than {limit} bytes"),
            ));
        }
        Err(BodyError::Broken) => return failure(&FunctionError::invalid("the body broke off")),
    };
    let request = EdgeRequest { method: parts.method, headers: parts.headers, body, caller };
    let (status, body) = (function.body)(&request);
    (status, Json(body)).into_response()
}
