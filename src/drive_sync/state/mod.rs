//! What drive sync knows of one drive, in one SQLite file: cursor, rows and intents change together.
//!
//! A commit is on the disk when it returns. The trees are read as streams in path order, so that a
//! large drive is not held in memory.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::path::PathError;

mod base;
mod intent;
mod meta;
mod open;
mod remote;
mod resync;
mod rows;
#[cfg(test)]
mod tests;
mod trees;

pub use base::Effect;
pub use intent::{Intended, Intent};
pub use meta::{Cursor, Note};
pub use remote::Known;
pub use resync::Resync;
pub use trees::Trees;

/// The state of one drive. One task uses it; whoever opens it holds the lock of its folder.
#[derive(Debug)]
pub struct State {
    connection: Connection,
    set_aside: Option<PathBuf>,
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A later version of the gateway wrote it; nothing was changed.
    #[error(
        "the state of drive sync has format {found}, this version knows {known}: use the newer gateway"
    )]
    Newer {
        /// Of the file.
        found: i64,
        /// The newest that this version knows.
        known: i64,
    },
    /// It holds something that was never written there: it is to be opened anew, which sets it aside.
    #[error("the state of drive sync is damaged: {0}")]
    Damaged(String),
    /// The file cannot be made, or a damaged one cannot be set aside.
    #[error("could not prepare {}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// SQLite could not read or write.
    #[error("the state of drive sync: {0}")]
    Sqlite(rusqlite::Error),
}

impl State {
    /// Opens the file, or makes it; an older format is migrated. A damaged file is renamed, and a new
    /// one begun, which is a first sync: both sides are kept, nothing is deleted.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        open::open(path)
    }

    /// One that is gone with the process.
    pub fn in_memory() -> Result<Self, StateError> {
        open::in_memory()
    }

    /// Where the damaged file is that this one replaces.
    pub fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }
}

impl From<rusqlite::Error> for StateError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match error.sqlite_error_code() {
            Some(NotADatabase | DatabaseCorrupt) => Self::Damaged(error.to_string()),
            _ => Self::Sqlite(error),
        }
    }
}

impl From<PathError> for StateError {
    fn from(error: PathError) -> Self {
        Self::Damaged(error.to_string())
    }
}
