//! OS file locks that decide who may do what. A lock file is never unlinked.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error("held by another process")]
    Held,
    /// The file cannot be used.
    #[error(transparent)]
    Fs(#[from] crate::fs::FsError),
}

/// A lock that is held until dropped.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock now, or says who cannot: never waits.
    pub fn try_acquire(path: &Path) -> Result<Self, LockError> {
        unimplemented!("{path:?}")
    }

    /// Takes the lock, trying again for at most `patience`. Blocks the thread (10 ms steps): call
    /// it from a blocking context.
    pub fn acquire(path: &Path, patience: Duration) -> Result<Self, LockError> {
        unimplemented!("{path:?} {patience:?}")
    }
}
