//! Why a request about drives was refused, and how that is told.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use crate::drive_sync::wire::{Code, Entry, ErrorBody, ErrorDetail};
use crate::sandbox::contents::ContentError;
use crate::sandbox::store::StoreError;

/// A refusal that is the answer to one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sandbox) struct Refused {
    pub(in crate::sandbox) code: Code,
    pub(in crate::sandbox) message: String,
    current: Option<Box<Entry>>,
}

/// Why nothing came of a request.
#[derive(Debug)]
pub(in crate::sandbox) enum Failure {
    /// It is the requester's.
    Refused(Refused),
    /// It is ours, and nothing of the request was done.
    Store(StoreError),
}

impl Refused {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), current: None }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, message)
    }

    /// What is there is not what was expected.
    pub(super) fn conflict(current: Option<Entry>) -> Self {
        let message = match &current {
            Some(entry) => format!("{:?} is another version", entry.path),
            None => "nothing is there".to_owned(),
        };
        Self { current: current.map(Box::new), ..Self::new(Code::VersionConflict, message) }
    }

    pub(super) fn not_empty(current: Entry) -> Self {
        let message = format!("the directory {:?} has entries", current.path);
        Self { current: Some(Box::new(current)), ..Self::new(Code::NotEmpty, message) }
    }

    pub(super) fn no_drive() -> Self {
        Self::new(Code::DriveNotFound, "there is no such drive here")
    }

    pub(super) fn no_version() -> Self {
        Self::new(Code::NotFound, "there is no such version of such a file")
    }

    pub(super) fn no_upload() -> Self {
        Self::new(Code::UploadNotFound, "there is no such upload, or not any more")
    }

    pub(super) fn internal() -> Self {
        Self::new(Code::Internal, "the sandbox could not do it; its log says why")
    }

    pub(super) fn body(self) -> ErrorBody {
        let Self { code, message, current } = self;
        ErrorBody { error: ErrorDetail { code, message, current } }
    }

    pub(super) fn response(self) -> Response {
        let status = status(self.code);
        let mut response = (status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The HTTP status of a code.
pub(in crate::sandbox) fn status(code: Code) -> StatusCode {
    match code {
        Code::Unauthorized | Code::TokenExpired => StatusCode::UNAUTHORIZED,
        Code::InvalidRequest | Code::InvalidPath | Code::UnsupportedProtocol => {
            StatusCode::BAD_REQUEST
        }
        Code::ReadOnly => StatusCode::FORBIDDEN,
        Code::DriveNotFound | Code::NotFound | Code::UploadNotFound => StatusCode::NOT_FOUND,
        Code::VersionConflict
        | Code::NotEmpty
        | Code::ParentMissing
        | Code::OperationReused
        | Code::ContentMissing => StatusCode::CONFLICT,
        Code::CursorExpired => StatusCode::GONE,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::ContentMismatch => StatusCode::UNPROCESSABLE_ENTITY,
        Code::NoRoom => StatusCode::INSUFFICIENT_STORAGE,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal | Code::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Failure {
    /// What the requester is told.
    pub(in crate::sandbox) fn told(self) -> Refused {
        match self {
            Self::Refused(refused) => refused,
            Self::Store(error) if error.passes() => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a drive must wait");
                let message = "the sandbox's database takes nothing now; try again";
                Refused::new(Code::Unavailable, message)
            }
            Self::Store(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a drive failed");
                Refused::internal()
            }
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<ContentError> for Failure {
    fn from(error: ContentError) -> Self {
        let refused = match error {
            ContentError::TooLarge { limit } => {
                Refused::new(Code::TooLarge, format!("that is more than {limit} bytes"))
            }
            ContentError::NoRoom { limit } => {
                tracing::warn!(limit, "storage is full");
                let message = format!("all contents together may take no more than {limit} bytes");
                Refused::new(Code::NoRoom, message)
            }
            ContentError::Store(error) => return Self::Store(error),
            ContentError::Fs(error) if error.is_full() => {
                tracing::error!(error = &error as &dyn std::error::Error, "the disk is full");
                Refused::new(Code::NoRoom, "the sandbox's disk is full")
            }
            ContentError::Fs(_) | ContentError::Interrupted(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a content failed");
                Refused::internal()
            }
        };
        Self::Refused(refused)
    }
}
