//! Edge functions that a library's user adds to the sandbox's own.

use axum::Json;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

use crate::sandbox::Caller;

/// A function below `/functions/v1/`, for any method. One of the sandbox's own names is not
/// replaced by it.
#[derive(Debug)]
pub struct EdgeFunction {
    /// Its name.
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
    /// Who asks.
    pub caller: Caller,
}

impl EdgeFunction {
    pub(super) fn answer(&self, request: &EdgeRequest) -> Response {
        let (status, body) = (self.body)(request);
        (status, Json(body)).into_response()
    }
}
