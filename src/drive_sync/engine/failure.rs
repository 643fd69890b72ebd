//! What a failed call means: stop, look again, try later, or never.

use std::io;
use std::time::Duration;

use super::super::ports::{FsError, RemoteError};
use super::super::state::StateError;

/// Why a tick ended early. What it had done until then is recorded; the next one goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum TickError {
    /// The engine is to stop.
    #[error("stopped")]
    Stopped,
    /// The drive's folder is missing or is another one: nothing was done.
    #[error("the drive's folder is not the one that it was: {0}")]
    RootLost(String),
    /// Too little space is left for anything.
    #[error("only {free} bytes are free on the disk")]
    NoSpace {
        /// Bytes.
        free: u64,
    },
    /// The drive is gone, or may not be seen any more. The files stay.
    #[error("no access to the drive")]
    AccessLost,
    /// The server cannot be reached, or is busy.
    #[error("the server cannot be reached: {message}")]
    Unavailable {
        /// What went wrong.
        message: String,
        /// When to try again.
        retry_in: Duration,
    },
    /// The disk could not be looked at.
    #[error("the disk: {0}")]
    Disk(#[source] FsError),
    /// The state could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What a failed call means for the step that made it.
#[derive(Debug)]
pub(super) enum Failure {
    /// Things are not as the plan saw them: look and plan again.
    Stale(String),
    /// It will be refused again for a while.
    Refused(String),
    /// The disk takes nothing more.
    Full(String),
    /// The server may not be written to.
    ReadOnly,
    /// The server cannot be reached: no use in going on.
    Unavailable { message: String, retry_after: Option<Duration> },
    /// No use in going on.
    Halt(TickError),
}

impl From<FsError> for TickError {
    fn from(error: FsError) -> Self {
        match error {
            FsError::Stopped => Self::Stopped,
            FsError::RootLost(why) => Self::RootLost(why),
            FsError::Changed
            | FsError::Exists
            | FsError::NotEmpty
            | FsError::WrongContent
            | FsError::Name(_)
            | FsError::Full
            | FsError::Io(_) => Self::Disk(error),
        }
    }
}

impl From<FsError> for Failure {
    fn from(error: FsError) -> Self {
        match &error {
            FsError::Stopped | FsError::RootLost(_) => Self::Halt(error.into()),
            FsError::Changed | FsError::Exists | FsError::NotEmpty => {
                Self::Stale(error.to_string())
            }
            FsError::Io(source) if is_gone(source) => Self::Stale(error.to_string()),
            FsError::Full => Self::Full(error.to_string()),
            FsError::WrongContent | FsError::Name(_) | FsError::Io(_) => {
                Self::Refused(error.to_string())
            }
        }
    }
}

/// A folder above is not there any more, or is no folder.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Stopped => Self::Halt(TickError::Stopped),
            RemoteError::AccessLost => Self::Halt(TickError::AccessLost),
            RemoteError::Unavailable { message, retry_after } => {
                Self::Unavailable { message, retry_after }
            }
            RemoteError::TokenRefused { .. } => {
                Self::Unavailable { message: error.to_string(), retry_after: None }
            }
            RemoteError::ReadOnly => Self::ReadOnly,
            RemoteError::Full => Self::Full(error.to_string()),
            RemoteError::Conflict { .. } | RemoteError::SourceChanged => {
                Self::Stale(error.to_string())
            }
            RemoteError::CursorExpired | RemoteError::Local(_) | RemoteError::Refused { .. } => {
                Self::Refused(error.to_string())
            }
        }
    }
}

impl Failure {
    /// The engine was stopped: nothing more may happen, not even a record of what was done.
    pub(super) fn is_stop(&self) -> bool {
        matches!(self, Self::Halt(TickError::Stopped))
    }
}
