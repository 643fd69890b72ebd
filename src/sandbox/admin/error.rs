//! Error answers of the admin API: `{error: {code, message}}`, and the job where one is at stake.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::sandbox::body::BodyError;
use crate::sandbox::store::StoreError;

/// Why an admin call failed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AdminError {
    status: StatusCode,
    code: Cow<'static, str>,
    message: String,
    /// The job as it is, where the error is about one.
    job: Option<Box<Value>>,
}

impl AdminError {
    pub(super) fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self { status, code: code.into(), message: message.into(), job: None }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    pub(super) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// Shows the job as it is.
    pub(super) fn about(mut self, job: Value) -> Self {
        self.job = Some(Box::new(job));
        self
    }

    pub(super) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "an admin call failed");
        let message = "the sandbox could not do it; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        if error.passes() {
            tracing::warn!(error = &error as &dyn std::error::Error, "an admin call must wait");
            let message = "the sandbox's database takes nothing now: is its disk full?";
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
        }
        Self::internal(&error)
    }
}

impl From<rusqlite::Error> for AdminError {
    fn from(error: rusqlite::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl From<BodyError> for AdminError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge(limit) => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                format!("the body is larger than {limit} bytes"),
            ),
            BodyError::Broken => Self::invalid("the body broke off"),
        }
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let mut body = json!({"error": {"code": self.code, "message": self.message}});
        if let Some(job) = self.job {
            body["job"] = *job;
        }
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
