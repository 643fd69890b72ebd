//! What can go wrong between the gateway and its backend.

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

type Source = Box<dyn Error + Send + Sync>;

/// One failed call. Ask it questions; its `Display` never holds a token.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No connection, or it broke.
    #[error("could not reach the backend")]
    Unreachable(#[source] Source),
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
    TokenStore(#[source] Source),
    /// The URL, key or token cannot be put into a request at all.
    #[error("the request cannot be made: {0}")]
    Unsendable(String),
}

impl BackendError {
    /// Trying again may help: connect and read errors, time limits, 408, 425, 429, 5xx, the lock
    /// contention of auth (409 `conflict`), and a token store that is busy.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut(_) | Self::TokenStore(_) => true,
            Self::Status { status, .. } => {
                matches!(status, 408 | 425 | 429 | 500..=599) || self.is_auth_conflict()
            }
            Self::Contract(_) | Self::TooLarge(_) | Self::SessionEnded(_) | Self::Unsendable(_) => {
                false
            }
        }
    }

    /// The session is over for good.
    pub fn ends_session(&self) -> bool {
        matches!(self, Self::SessionEnded(_))
    }

    /// The backend will never take this request: 4xx other than 401, 408, 409 of auth, 425, 429.
    pub fn is_permanent_refusal(&self) -> bool {
        match self.status() {
            Some(401 | 408 | 425 | 429) => false,
            Some(400..=499) => !self.is_auth_conflict(),
            _ => false,
        }
    }

    /// How long the backend asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        let Self::Status { retry_after, .. } = self else { return None };
        *retry_after
    }

    /// The backend wants to be left alone for a while: 429, or an answer with `Retry-After`.
    pub fn asks_for_time(&self) -> bool {
        self.status() == Some(429) || self.retry_after().is_some()
    }

    /// The status of an error answer.
    pub fn status(&self) -> Option<u16> {
        let Self::Status { status, .. } = self else { return None };
        Some(*status)
    }

    /// The code of an error answer, e.g. `23505`.
    pub fn code(&self) -> Option<&str> {
        let Self::Status { code, .. } = self else { return None };
        code.as_deref()
    }

    /// The whole chain on one line: for records that hold a text, such as `status`.
    pub fn report(&self) -> String {
        chain(self)
    }

    /// Auth's 409 (two refreshes at once) passes; a 409 of the tables (`23505`) does not.
    fn is_auth_conflict(&self) -> bool {
        self.status() == Some(409) && self.code() == Some("conflict")
    }
}

/// Callers that waited for one shared attempt all get its error. The sources become texts.
impl Clone for BackendError {
    fn clone(&self) -> Self {
        match self {
            Self::Unreachable(source) => Self::Unreachable(chain(source.as_ref()).into()),
            Self::TimedOut(limit) => Self::TimedOut(*limit),
            Self::Status { status, code, message, retry_after } => Self::Status {
                status: *status,
                code: code.clone(),
                message: message.clone(),
                retry_after: *retry_after,
            },
            Self::Contract(what) => Self::Contract(what.clone()),
            Self::TooLarge(limit) => Self::TooLarge(*limit),
            Self::SessionEnded(code) => Self::SessionEnded(code.clone()),
            Self::TokenStore(source) => Self::TokenStore(chain(source.as_ref()).into()),
            Self::Unsendable(what) => Self::Unsendable(what.clone()),
        }
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16, code: Option<&str>) -> BackendError {
        BackendError::Status {
            status,
            code: code.map(str::to_owned),
            message: "no".into(),
            retry_after: None,
        }
    }

    #[test]
    fn what_may_be_tried_again_and_what_is_refused_for_good() {
        // (status, code, transient, refused for good)
        let table = [
            (400, None, false, true),
            (400, Some("PGRST204"), false, true),
            (401, Some("PGRST303"), false, false),
            (403, Some("42501"), false, true),
            (404, None, false, true),
            (408, None, true, false),
            (409, Some("23505"), false, true),
            (409, Some("conflict"), true, false),
            (413, None, false, true),
            (425, None, true, false),
            (429, None, true, false),
            (500, Some("57014"), true, false),
            (503, Some("PGRST002"), true, false),
            (520, None, true, false),
            (301, None, false, false),
        ];
        for (number, code, transient, permanent) in table {
            let error = status(number, code);
            assert_eq!(error.is_transient(), transient, "{number} {code:?}");
            assert_eq!(error.is_permanent_refusal(), permanent, "{number} {code:?}");
        }
        assert!(BackendError::TimedOut(Duration::from_secs(1)).is_transient());
        assert!(BackendError::Unreachable("x".into()).is_transient());
        assert!(!BackendError::Contract("x".into()).is_transient());
        assert!(!BackendError::SessionEnded("x".into()).is_transient());
        assert!(BackendError::SessionEnded("x".into()).ends_session());
    }

    #[test]
    fn a_copy_says_the_same_as_the_original() {
        let source = std::io::Error::new(std::io::ErrorKind::BrokenPipe, "pipe is gone");
        let error = BackendError::Unreachable(Box::new(source));
        assert_eq!(error.report(), "could not reach the backend: pipe is gone");
        assert_eq!(error.clone().report(), error.report());
        assert_eq!(status(409, Some("23505")).clone().to_string(), "the backend answered 409: no");
    }
}
