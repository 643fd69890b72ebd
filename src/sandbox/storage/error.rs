//! Error answers of storage: HTTP 400 for nearly all, the real status as a string in the body.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::name::NameError;
use super::token::TokenError;
use crate::sandbox::access::AccessError;
use crate::sandbox::body::BodyError;
use crate::sandbox::contents::ContentError;
use crate::sandbox::store::StoreError;

/// `{statusCode, error, message, code}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sandbox) struct StorageError {
    /// `statusCode`.
    status: StatusCode,
    error: &'static str,
    code: &'static str,
    message: String,
}

impl StorageError {
    fn new(
        status: StatusCode,
        error: &'static str,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { status, error, code, message: message.into() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", "InvalidRequest", message)
    }

    pub(super) fn no_object() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "NoSuchKey", "Object not found")
    }

    pub(super) fn no_bucket() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "NoSuchBucket", "Bucket not found")
    }

    /// No such route, or one of storage's that the sandbox does not have.
    pub(super) fn not_served() -> Self {
        let message = "the sandbox's storage does not serve this path with this method";
        Self::new(StatusCode::NOT_FOUND, "not_served", "NotImplemented", message)
    }

    pub(super) fn duplicate() -> Self {
        let message = "The resource already exists";
        Self::new(StatusCode::CONFLICT, "Duplicate", "ResourceAlreadyExists", message)
    }

    /// A caller without a session, or a signed URL that does not cover what is asked for.
    pub(super) fn denied(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Unauthorized", "AccessDenied", message)
    }

    fn bad_token(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Unauthorized", "InvalidJWT", message)
    }

    pub(super) fn too_large(limit: u64) -> Self {
        let message = format!("The object exceeded the maximum allowed size of {limit} bytes");
        Self::too_much(message)
    }

    fn too_much(message: String) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "Payload too large", "EntityTooLarge", message)
    }

    /// The client sent nothing for too long.
    pub(super) fn stalled() -> Self {
        let message = "nothing more of the body came in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", "RequestTimeout", message)
    }

    pub(super) fn broken_body() -> Self {
        Self::invalid("the body broke off")
    }

    /// The object's content cannot be read, or the log says more.
    pub(super) fn internal() -> Self {
        let message = "the sandbox could not do it; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "InternalError", message)
    }

    pub(super) fn range_outside() -> Self {
        let status = StatusCode::RANGE_NOT_SATISFIABLE;
        let message = "the object has no such range";
        Self::new(status, "invalid_range", "InvalidRange", message)
    }

    /// What `If-Match` names is not what is there.
    pub(super) fn another_content() -> Self {
        let status = StatusCode::PRECONDITION_FAILED;
        Self::new(status, "precondition_failed", "PreconditionFailed", "the content is another one")
    }

    fn unavailable() -> Self {
        let message = "the sandbox's database takes nothing now; try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "ServiceUnavailable", message)
    }

    /// Whether a client that is still sending should be heard out for a while, so that it reads
    /// this answer.
    pub(in crate::sandbox) fn hears_the_client_out(&self) -> bool {
        self.status != StatusCode::REQUEST_TIMEOUT
    }

    /// What a list of results says of one that failed.
    pub(in crate::sandbox) fn message(&self) -> &str {
        &self.message
    }

    pub(in crate::sandbox) fn response(&self) -> Response {
        // Clients look into the body, but for statuses that have a meaning of their own in HTTP.
        let http = match self.status {
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::RANGE_NOT_SATISFIABLE
            | StatusCode::PRECONDITION_FAILED => self.status,
            status if status.is_server_error() => status,
            _ => StatusCode::BAD_REQUEST,
        };
        let body = json!({
            "statusCode": self.status.as_str(),
            "error": self.error,
            "message": self.message,
            "code": self.code,
        });
        let mut response = (http, Json(body)).into_response();
        if http == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<ContentError> for StorageError {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::TooLarge { limit } => Self::too_large(limit),
            ContentError::NoRoom { limit } => {
                tracing::warn!(limit, "storage is full");
                Self::too_much(format!("all objects together may take no more than {limit} bytes"))
            }
            ContentError::Store(error) => error.into(),
            ContentError::Fs(error) if error.is_full() => {
                tracing::error!(error = &error as &dyn std::error::Error, "the disk is full");
                let status = StatusCode::INSUFFICIENT_STORAGE;
                Self::new(status, "disk_full", "DiskFull", "the sandbox's disk is full")
            }
            ContentError::Fs(_) | ContentError::Interrupted(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "storage failed");
                Self::internal()
            }
        }
    }
}

impl From<StoreError> for StorageError {
    fn from(error: StoreError) -> Self {
        if error.passes() {
            tracing::warn!(error = &error as &dyn std::error::Error, "storage must wait");
            return Self::unavailable();
        }
        tracing::error!(error = &error as &dyn std::error::Error, "storage failed");
        Self::internal()
    }
}

impl From<rusqlite::Error> for StorageError {
    fn from(error: rusqlite::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl From<NameError> for StorageError {
    fn from(error: NameError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidKey", "InvalidKey", error.to_string())
    }
}

impl From<TokenError> for StorageError {
    fn from(error: TokenError) -> Self {
        Self::bad_token(match error {
            TokenError::Invalid => "the URL's token is not valid for this",
            TokenError::Expired => "the URL's token has expired",
        })
    }
}

impl From<AccessError> for StorageError {
    fn from(error: AccessError) -> Self {
        Self::bad_token(match error {
            AccessError::Invalid => "JWT could not be decoded or verified",
            AccessError::Expired => "jwt expired",
            AccessError::NotYet => "jwt issued at future",
        })
    }
}

impl From<BodyError> for StorageError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge(limit) => {
                Self::too_much(format!("the body is larger than {limit} bytes"))
            }
            BodyError::Broken => Self::broken_body(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::*;
    use crate::fs::FsError;

    #[test]
    fn a_full_disk_is_an_error_of_the_server_that_says_so() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let error = FsError::io("write", Path::new("x"), kind.into());
            let error = StorageError::from(ContentError::Fs(error));
            assert_eq!((error.status.as_u16(), error.code), (507, "DiskFull"));
            assert_eq!(error.response().status(), StatusCode::INSUFFICIENT_STORAGE);
        }
        let other = FsError::io("write", Path::new("x"), io::ErrorKind::PermissionDenied.into());
        assert_eq!(StorageError::from(ContentError::Fs(other)), StorageError::internal());
    }

    #[test]
    fn refusals_are_400_whatever_they_say() {
        for error in [
            StorageError::no_object(),
            StorageError::duplicate(),
            StorageError::denied("no"),
            StorageError::too_large(1),
        ] {
            assert_eq!(error.response().status(), StatusCode::BAD_REQUEST, "{error:?}");
        }
    }
}
