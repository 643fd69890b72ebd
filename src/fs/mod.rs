//! Durable, owner-only files: everything that the gateway keeps on disk goes through here.
//!
//! Directories are 0700 and files 0600, created that way; what is ours and looser is repaired, what
//! is somebody else's or of the wrong kind is refused. Writes go to a temp file in the same
//! directory, fsync, rename, fsync of the directory.

use std::fs::File;
use std::path::{Path, PathBuf};

/// Why a path cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// Owned by another user.
    #[error("{} belongs to another user", path.display())]
    ForeignOwner {
        /// The path.
        path: PathBuf,
    },
    /// A symlink, fifo, directory … where a regular file is wanted (or no directory where one is).
    #[error("{} is {found}, not {wanted}", path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// What stands there, e.g. `a symbolic link`.
        found: &'static str,
        /// What is wanted, e.g. `a regular file`.
        wanted: &'static str,
    },
    /// Larger than the reader takes.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The path.
        path: PathBuf,
        /// The bound, bytes.
        limit: u64,
    },
    /// The operating system refused.
    #[error("could not {verb} {}", path.display())]
    Io {
        /// What was tried, e.g. `write`.
        verb: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Makes `path` (and missing parents) a directory of ours with mode 0700; repairs a looser one of
/// ours; follows a symlink to a directory of ours. Returns the path as given.
pub fn ensure_private_dir(path: &Path) -> Result<(), FsError> {
    unimplemented!("{path:?}")
}

/// Checks `path` before use: absent is `Ok(false)`; a regular file of ours is repaired to 0600 and
/// is `Ok(true)`; anything else is refused. Never follows a symlink.
pub fn check_private_file(path: &Path) -> Result<bool, FsError> {
    unimplemented!("{path:?}")
}

/// Reads a checked private file of at most `limit` bytes; `None` when it is absent.
pub fn read_private(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, FsError> {
    unimplemented!("{path:?} {limit}")
}

/// Opens a private file for appending, made 0600 when absent, checked when present.
pub fn append_private(path: &Path) -> Result<File, FsError> {
    unimplemented!("{path:?}")
}

/// Replaces `path` by `contents`: temp file in the same directory (0600 from birth), fsync, rename,
/// fsync of the directory. A reader sees the old contents or the new, never a part.
pub fn save(path: &Path, contents: &[u8]) -> Result<(), FsError> {
    unimplemented!("{path:?} {}", contents.len())
}
