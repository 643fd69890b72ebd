//! What a person asks of a drive, by a file in the state dir that the keeper takes away.

use std::path::{Path, PathBuf};

use crate::fs::{self, FsError};

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Let the held deletions go.
    ReleaseDeletions,
    /// Compare everything anew.
    Resync,
    /// Take the folder that is there now for the drive's.
    AcceptRoot,
}

impl Request {
    const ALL: [Self; 3] = [Self::ReleaseDeletions, Self::Resync, Self::AcceptRoot];

    fn word(self) -> &'static str {
        match self {
            Self::ReleaseDeletions => "release-deletions",
            Self::Resync => "resync",
            Self::AcceptRoot => "accept-root",
        }
    }
}

fn dir(state_dir: &Path) -> PathBuf {
    state_dir.join("requests")
}

fn file(state_dir: &Path, drive_id: &str, request: Request) -> PathBuf {
    dir(state_dir).join(format!("{}.{drive_id}", request.word()))
}

/// Asks.
pub fn ask(state_dir: &Path, drive_id: &str, request: Request) -> Result<(), FsError> {
    fs::ensure_private_dir(&dir(state_dir))?;
    fs::save(&file(state_dir, drive_id, request), b"")
}

/// Whether it still waits to be taken.
pub fn is_waiting(state_dir: &Path, drive_id: &str, request: Request) -> bool {
    file(state_dir, drive_id, request).exists()
}

/// What is asked of a drive now. Each has to be [`done`] when it is.
pub(super) fn waiting(state_dir: &Path, drive_id: &str) -> Vec<Request> {
    Request::ALL.into_iter().filter(|request| is_waiting(state_dir, drive_id, *request)).collect()
}

/// It is done.
pub(super) fn done(state_dir: &Path, drive_id: &str, request: Request) {
    let _ = std::fs::remove_file(file(state_dir, drive_id, request));
}
