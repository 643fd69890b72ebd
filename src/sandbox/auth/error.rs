//! Error answers of auth, in both of their shapes.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use crate::sandbox::store::StoreError;

const VERSION_HEADER: &str = "x-supabase-api-version";
const VERSION: &str = "2024-01-01";

/// An error with the code that clients branch on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AuthError {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl AuthError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "auth could not use the database");
        let message = "the sandbox could not use its database";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "unexpected_failure", message)
    }

    /// The answer in the shape that the request's version header asks for.
    pub(super) fn response(&self, version: ApiVersion) -> Response {
        let body = match version {
            ApiVersion::Dated => json!({"code": self.code, "message": self.message}),
            ApiVersion::Initial => json!({
                "code": self.status.as_u16(), "error_code": self.code, "msg": self.message,
            }),
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert("x-sb-error-code", HeaderValue::from_static(self.code));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<StoreError> for AuthError {
    fn from(error: StoreError) -> Self {
        if error.passes() {
            tracing::warn!(error = &error as &dyn std::error::Error, "auth must wait");
            let message = "the sandbox's database takes nothing now; try again";
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "unexpected_failure", message);
        }
        Self::internal(&error)
    }
}

impl From<rusqlite::Error> for AuthError {
    fn from(error: rusqlite::Error) -> Self {
        StoreError::from(error).into()
    }
}

/// Which shape of error body a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ApiVersion {
    /// No version named.
    Initial,
    /// 2024-01-01 or later.
    Dated,
}

impl ApiVersion {
    /// Reads the version header; what is no date counts as none.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let named = headers.get(VERSION_HEADER).and_then(|value| value.to_str().ok());
        let date = named.and_then(|text| text.parse::<jiff::civil::Date>().ok());
        match date {
            Some(date) if date >= jiff::civil::date(2024, 1, 1) => Self::Dated,
            _ => Self::Initial,
        }
    }

    /// Tells the client which version it was answered in.
    pub(super) fn echo(self, response: &mut Response) {
        if self == Self::Dated {
            response.headers_mut().insert(VERSION_HEADER, HeaderValue::from_static(VERSION));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dates_from_2024_on_ask_for_the_new_shape() {
        let version = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(VERSION_HEADER, HeaderValue::from_static(text));
            ApiVersion::of(&headers)
        };
        assert_eq!(version("2024-01-01"), ApiVersion::Dated);
        assert_eq!(version("2025-06-01"), ApiVersion::Dated);
        assert_eq!(version("2023-12-31"), ApiVersion::Initial);
        assert_eq!(version("latest"), ApiVersion::Initial);
        assert_eq!(ApiVersion::of(&HeaderMap::new()), ApiVersion::Initial);
    }
}
