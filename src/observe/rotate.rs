//! A file of lines, rotated by size: `gateway.log.1` is the youngest of the old ones.
//!
//! A line that cannot be written is lost and counted, never an error of whoever wrote it; the file
//! is tried again with each line, and the first one that it takes is preceded by a note of how many
//! were lost and why. Whatever stands at the path (a named pipe, a link, another user's file) is
//! refused, never waited for.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::fs::{FsError, append_private};

/// Why lines are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No room.
    Full,
    /// What stands at the path is no file of ours, or the system refuses it.
    Refused,
    /// The disk took too long.
    Silent,
}

impl Trouble {
    fn of(error: &FsError) -> Self {
        if error.is_full() { Self::Full } else { Self::Refused }
    }

    /// For people, of the past.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "the disk was full",
            Self::Refused => "the file could not be used",
            Self::Silent => "the disk did not answer",
        }
    }
}

/// Lines that never came to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) lines: u64,
    pub(crate) why: Trouble,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines = if self.lines == 1 { "line was" } else { "lines were" };
        write!(f, "{} {lines} lost while {}", self.lines, self.why.as_str())
    }
}

/// What the owner of a [`RotatingFile`] shares with who writes it.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileState {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    reopen: AtomicBool,
    failed: AtomicU64,
    lost: AtomicU64,
    /// A [`Trouble`], from 1 on.
    trouble: AtomicU8,
}

impl FileState {
    /// Asks for the file to be opened again before the next line.
    pub(crate) fn request_reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
    }

    /// Writes and rotations that failed.
    pub(crate) fn failures(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Lines that are in no file.
    pub(crate) fn lost_lines(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Why the last line was lost; `None` when it was written.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        match self.shared.trouble.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Trouble::Full),
            2 => Some(Trouble::Refused),
            _ => Some(Trouble::Silent),
        }
    }

    fn set_trouble(&self, trouble: Option<Trouble>) {
        let code = match trouble {
            None => 0,
            Some(Trouble::Full) => 1,
            Some(Trouble::Refused) => 2,
            Some(Trouble::Silent) => 3,
        };
        self.shared.trouble.store(code, Ordering::Relaxed);
    }

    fn failed(&self) {
        self.shared.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a line that is in no file.
    pub(super) fn lost(&self, why: Trouble) {
        self.failed();
        self.shared.lost.fetch_add(1, Ordering::Relaxed);
        self.set_trouble(Some(why));
    }
}

/// Bounds of a log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// A file that would grow past this many bytes is rotated first.
    pub(crate) size: u64,
    /// Old files that are kept.
    pub(crate) keep: u32,
}

/// The writer.
#[derive(Debug)]
pub(crate) struct RotatingFile {
    path: PathBuf,
    bounds: Bounds,
    state: FileState,
    /// Makes the line, with its end, that tells of lost ones.
    note: fn(&Lost) -> String,
    /// The last try to open or write failed for this; not told yet.
    unsaid: Option<Lost>,
    file: Option<File>,
    /// Device and inode of the file when it was opened.
    identity: (u64, u64),
    /// Bytes in the file, less what could not be rotated away.
    size: u64,
    stuck: u64,
    /// The last write left a part of a line.
    torn: bool,
}

impl RotatingFile {
    /// Opens the log now, so that a path that cannot be used is known at the start.
    pub(crate) fn open(
        path: &Path,
        bounds: Bounds,
        state: FileState,
        note: fn(&Lost) -> String,
    ) -> Result<Self, FsError> {
        let mut log = Self::later(path, bounds, state, note);
        log.open_now()?;
        Ok(log)
    }

    /// Opens it with the first line.
    pub(crate) fn later(
        path: &Path,
        bounds: Bounds,
        state: FileState,
        note: fn(&Lost) -> String,
    ) -> Self {
        Self {
            path: path.to_owned(),
            bounds,
            state,
            note,
            unsaid: None,
            file: None,
            identity: (0, 0),
            size: 0,
            stuck: 0,
            torn: false,
        }
    }

    /// Writes a line, which has its end. After an error the line is lost, and counted.
    pub(crate) fn write_line(&mut self, line: &[u8]) -> Result<(), FsError> {
        let written = self.try_to_write(line);
        match &written {
            Ok(()) => self.state.set_trouble(None),
            Err(error) => {
                let why = Trouble::of(error);
                self.missed(1, why);
                self.state.lost(why);
            }
        }
        written
    }

    /// So many lines that were lost are to be told of. They are counted already.
    pub(super) fn missed(&mut self, lines: u64, why: Trouble) {
        if lines > 0 {
            let lines = self.unsaid.map_or(0, |lost| lost.lines) + lines;
            self.unsaid = Some(Lost { lines, why });
        }
    }

    fn try_to_write(&mut self, line: &[u8]) -> Result<(), FsError> {
        if self.state.shared.reopen.swap(false, Ordering::AcqRel) || self.is_replaced() {
            (self.file, self.stuck) = (None, 0);
        }
        if self.file.is_none() {
            self.open_now()?;
        }
        if self.size > 0 && self.size.saturating_add(line.len() as u64) > self.bounds.size {
            self.rotate();
            self.open_now()?;
        }
        if let Some(lost) = self.unsaid {
            self.append((self.note)(&lost).as_bytes())?;
            self.unsaid = None;
        }
        self.append(line)
    }

    fn open_now(&mut self) -> Result<(), FsError> {
        let file = append_private(&self.path)?;
        let metadata = file.metadata().map_err(|e| FsError::io("examine", &self.path, e))?;
        self.identity = (metadata.dev(), metadata.ino());
        self.size = metadata.len().saturating_sub(self.stuck);
        self.torn &= metadata.len() > 0;
        self.file = Some(file);
        Ok(())
    }

    /// Something else, or nothing, stands at the path by now: who looks for the log looks there.
    fn is_replaced(&self) -> bool {
        if self.file.is_none() {
            return false;
        }
        match self.path.symlink_metadata() {
            Ok(metadata) => (metadata.dev(), metadata.ino()) != self.identity,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    fn append(&mut self, line: &[u8]) -> Result<(), FsError> {
        let failed = |error| FsError::io("write", &self.path, error);
        let Some(file) = &mut self.file else {
            return Err(failed(io::ErrorKind::NotFound.into()));
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
        written.map_err(failed)
    }

    /// Failing to move one file away leaves the log growing, which beats losing it.
    fn rotate(&mut self) {
        self.file = None;
        for number in (1..self.bounds.keep).rev() {
            let _absent_is_fine =
                std::fs::rename(rotated(&self.path, number), rotated(&self.path, number + 1));
        }
        let moved = std::fs::rename(&self.path, rotated(&self.path, 1));
        if moved.is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
            self.state.failed();
            // Try again only after as much again was written.
            self.stuck = self.path.metadata().map_or(0, |metadata| metadata.len());
        } else {
            self.stuck = 0;
        }
    }
}

/// The name of an old file: 1 is the youngest.
pub(crate) fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

impl Write for RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _lost_lines_are_counted = self.write_line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
