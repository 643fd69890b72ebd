//! What can go wrong between the gateway and its backend.

use std::time::Duration;

/// One failed call. Ask it questions; its `Display` never holds a token.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No connection, or it broke.
    #[error("could not reach the backend")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time.
    #[error("the backend did not answer within {0:?}")]
    TimedOut(Duration),
    /// An error answer.
    #[error("the backend answered {status}: {message}")]
    Status {
        /// HTTP status.
        status: u16,
        /// `code` of a PostgREST body, `error_code`/`code` of an auth body.
        code: Option<String>,
        /// What it says, one line.
        message: String,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// An answer that is not what the contract says (HTML, half a JSON, missing fields).
    #[error("the backend's answer did not match the contract: {0}")]
    Contract(String),
    /// An answer over the bound.
    #[error("the backend's answer is larger than {0} bytes")]
    TooLarge(u64),
    /// The session is over for good: pair again. The terminal code.
    #[error("the pairing was revoked ({0})")]
    SessionEnded(String),
    /// Tokens could not be read or saved.
    #[error("could not keep the session's tokens")]
    TokenStore(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl BackendError {
    /// Trying again may help: connect and read errors, time limits, 408, 425, 429, 5xx.
    pub fn is_transient(&self) -> bool {
        unimplemented!()
    }

    /// The session is over for good.
    pub fn ends_session(&self) -> bool {
        matches!(self, Self::SessionEnded(_))
    }
}
