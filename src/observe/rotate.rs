//! `gateway.log`, rotated by size: `gateway.log.1` is the youngest of the old ones.
//!
//! Writing never fails as far as callers can see: a full disk costs lines, which are counted, and
//! logging goes on by itself once there is room again.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::fs::append_private;

/// What the owner of a [`RotatingFile`] shares with its writer thread.
#[derive(Debug, Clone, Default)]
pub(super) struct FileState {
    reopen: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
}

impl FileState {
    /// Asks for the file to be opened again before the next line.
    pub(super) fn request_reopen(&self) {
        self.reopen.store(true, Ordering::Release);
    }

    /// Writes and rotations that failed.
    pub(super) fn failures(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// Bounds of a log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// A file that would grow past this many bytes is rotated first.
    pub(super) size: u64,
    /// Old files that are kept.
    pub(super) keep: u32,
}

/// The writer; lives on the logging thread.
pub(super) struct RotatingFile {
    path: PathBuf,
    bounds: Bounds,
    state: FileState,
    file: Option<File>,
    /// Bytes in the file, less what could not be rotated away.
    size: u64,
    stuck: u64,
    /// The last write left a part of a line.
    torn: bool,
}

impl RotatingFile {
    /// Opens the log now, so that a path that cannot be used is known at the start.
    pub(super) fn open(
        path: &Path,
        bounds: Bounds,
        state: FileState,
    ) -> Result<Self, crate::fs::FsError> {
        let file = append_private(path)?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        Ok(Self {
            path: path.to_owned(),
            bounds,
            state,
            file: Some(file),
            size,
            stuck: 0,
            torn: false,
        })
    }

    fn write_line(&mut self, line: &[u8]) -> Result<(), crate::fs::FsError> {
        if self.state.reopen.swap(false, Ordering::AcqRel) {
            self.file = None;
        }
        if self.size > 0 && self.size.saturating_add(line.len() as u64) > self.bounds.size {
            self.rotate();
        }
        let failed =
            |source| crate::fs::FsError::Io { verb: "write", path: self.path.clone(), source };
        let mut file = if let Some(file) = self.file.take() {
            file
        } else {
            let file = append_private(&self.path)?;
            let size = file.metadata().map_or(0, |metadata| metadata.len());
            self.size = size.saturating_sub(self.stuck);
            file
        };
        if self.torn {
            file.write_all(b"\n").map_err(failed)?;
        }
        let written = file.write_all(line);
        self.torn = written.is_err();
        // Lines that a full disk refused must not rotate away those that it holds.
        if written.is_ok() {
            self.size = self.size.saturating_add(line.len() as u64);
        }
        self.file = Some(file);
        written.map_err(failed)
    }

    /// Failing to move one file away leaves the log growing, which beats losing it.
    fn rotate(&mut self) {
        self.file = None;
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.bounds.keep).rev() {
            let _absent_is_fine = std::fs::rename(numbered(number), numbered(number + 1));
        }
        let moved = std::fs::rename(&self.path, numbered(1));
        if moved.is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
            self.state.failed.fetch_add(1, Ordering::Relaxed);
            // Try again only after as much again was written.
            self.stuck = self.path.metadata().map_or(0, |metadata| metadata.len());
        } else {
            self.stuck = 0;
        }
    }
}

impl Write for RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.write_line(line).is_err() {
            self.state.failed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::read_to_string;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn open(dir: &Path, size: u64) -> (RotatingFile, FileState) {
        let state = FileState::default();
        let bounds = Bounds { size, keep: 2 };
        (RotatingFile::open(&dir.join("log"), bounds, state.clone()).unwrap(), state)
    }

    #[test]
    fn old_files_move_up_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, state) = open(dir.path(), 10);
        for line in ["one-----\n", "two-----\n", "three---\n", "four----\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(read_to_string(dir.path().join("log")).unwrap(), "four----\n");
        assert_eq!(read_to_string(dir.path().join("log.1")).unwrap(), "three---\n");
        assert_eq!(read_to_string(dir.path().join("log.2")).unwrap(), "two-----\n");
        assert!(!dir.path().join("log.3").exists());
        assert_eq!(state.failures(), 0);
        let mode = std::fs::metadata(dir.path().join("log")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_line_longer_than_the_bound_is_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = open(dir.path(), 4);
        log.write_all(b"longer than four\n").unwrap();
        assert_eq!(read_to_string(dir.path().join("log")).unwrap(), "longer than four\n");
    }

    #[test]
    fn what_was_there_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = open(dir.path(), 10);
        log.write_all(b"12345678\n").unwrap();
        let (mut log, _) = open(dir.path(), 10);
        log.write_all(b"next\n").unwrap();
        assert_eq!(read_to_string(dir.path().join("log")).unwrap(), "next\n");
    }

    #[test]
    fn reopening_follows_a_file_that_was_moved_away() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, state) = open(dir.path(), 1000);
        log.write_all(b"old\n").unwrap();
        std::fs::rename(dir.path().join("log"), dir.path().join("moved")).unwrap();
        state.request_reopen();
        log.write_all(b"new\n").unwrap();
        assert_eq!(read_to_string(dir.path().join("moved")).unwrap(), "old\n");
        assert_eq!(read_to_string(dir.path().join("log")).unwrap(), "new\n");
    }

    #[test]
    fn a_full_disk_rotates_nothing_away() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, state) = open(dir.path(), 10);
        log.write_all(b"kept\n").unwrap();
        for _ in 0..9 {
            log.file = Some(File::options().write(true).open("/dev/full").unwrap());
            log.write_all(b"lost\n").unwrap();
        }
        assert_eq!(state.failures(), 9);
        assert_eq!(read_to_string(dir.path().join("log")).unwrap(), "kept\n");
        assert!(!dir.path().join("log.1").exists());
    }

    #[test]
    fn what_cannot_be_rotated_is_tried_again_only_after_as_much_again() {
        let dir = tempfile::tempdir().unwrap();
        for number in ["log.1", "log.2"] {
            std::fs::create_dir_all(dir.path().join(number).join("in the way")).unwrap();
        }
        let (mut log, state) = open(dir.path(), 20);
        for _ in 0..5 {
            log.write_all(b"12345678\n").unwrap();
        }
        assert_eq!(state.failures(), 2, "after 18 bytes and after 36");
        assert_eq!(std::fs::metadata(dir.path().join("log")).unwrap().len(), 45);
    }

    #[test]
    fn a_full_disk_costs_lines_only() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, state) = open(dir.path(), 1000);
        log.file = Some(File::options().write(true).open("/dev/full").unwrap());
        log.write_all(b"lost\n").unwrap();
        assert_eq!(state.failures(), 1);
        log.file = None;
        log.write_all(b"kept\n").unwrap();
        assert_eq!(read_to_string(dir.path().join("log")).unwrap(), "\nkept\n");
    }
}
