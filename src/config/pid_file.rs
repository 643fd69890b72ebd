//! `gateway.pid`: for people and scripts; the instance lock decides, not this file.

use std::path::Path;

use crate::fs::FsError;

/// What a pid file and `/proc` say about each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PidRecord {
    /// No pid file, or nothing readable in it.
    None,
    /// The pid names no live panorama-gateway.
    Stale(i32),
    /// A live process of ours (same user) whose executable or command line is a
    /// panorama-gateway.
    Gateway(i32),
}

/// The pid file while it is ours; removed by [`PidFile::remove`], and only if it still names us.
#[derive(Debug)]
pub struct PidFile {
    _path: std::path::PathBuf,
}

impl PidFile {
    /// Writes our pid.
    pub fn write(path: &Path) -> Result<Self, FsError> {
        unimplemented!("{path:?}")
    }

    /// Removes the file if it still holds our pid.
    pub fn remove(self) {
        unimplemented!()
    }

    /// Reads the file and looks the process up.
    pub fn inspect(path: &Path) -> PidRecord {
        unimplemented!("{path:?}")
    }
}
