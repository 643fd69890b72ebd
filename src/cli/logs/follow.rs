//! New lines of a file that grows, is truncated, or is replaced by a younger one.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::tail::MOST_ROTATED;
use crate::fs::{FsError, open_to_look};
use crate::observe::rotate::rotated;

/// Read at a time; what is more waits for the next look.
const MOST_AT_ONCE: u64 = 1024 * 1024;

pub(super) struct Follower {
    path: PathBuf,
    file: File,
    position: u64,
    /// A line whose end has not come yet.
    partial: Vec<u8>,
}

impl Follower {
    /// From the end of the file on; `None` when there is none.
    pub(super) fn at_end(path: &Path) -> Result<Option<Self>, FsError> {
        let Some(file) = open_to_look(path)? else { return Ok(None) };
        let metadata = file.metadata().map_err(|error| FsError::io("examine", path, error))?;
        let position = metadata.len();
        Ok(Some(Self { path: path.to_owned(), file, position, partial: Vec::new() }))
    }

    /// The file, and how far it was when following began: the path may name another by now.
    pub(super) fn start(&mut self) -> (&mut File, u64) {
        (&mut self.file, self.position)
    }

    /// Lines that came since. A log that cannot be read now is looked at again the next time.
    pub(super) fn poll(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        // Who writes goes on in the younger file only once the older one is moved away, so what is
        // read after a younger one was seen is the rest of the older.
        let younger = self.younger_file();
        let came = self.read_on(&mut lines).unwrap_or(0);
        if came == 0
            && let Some(younger) = younger
        {
            if !self.partial.is_empty() {
                lines.push(text(&std::mem::take(&mut self.partial)));
            }
            self.file = younger;
            self.position = 0;
            let _read_on_next_time = self.read_on(&mut lines);
        }
        lines
    }

    fn read_on(&mut self, lines: &mut Vec<String>) -> io::Result<usize> {
        if self.file.metadata()?.len() < self.position {
            self.position = 0;
            self.partial.clear();
        }
        self.file.seek(SeekFrom::Start(self.position))?;
        let mut came = Vec::new();
        let size = (&mut self.file).take(MOST_AT_ONCE).read_to_end(&mut came)?;
        self.position += size as u64;
        for piece in came.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() as u64 >= MOST_AT_ONCE {
                lines.push(text(&std::mem::take(&mut self.partial)));
            }
        }
        Ok(size)
    }

    /// The file that came after ours: the log, unless it was rotated more than once since.
    fn younger_file(&self) -> Option<File> {
        let ours = identity(&self.file)?;
        // Absent between a rotation and the next line.
        let mut younger = open_to_look(&self.path).ok().flatten();
        if younger.as_ref().and_then(identity) == Some(ours) {
            return None;
        }
        for number in 1..=MOST_ROTATED {
            let Ok(Some(older)) = open_to_look(&rotated(&self.path, number)) else { break };
            if identity(&older)? == ours {
                return younger;
            }
            younger = Some(older);
        }
        // Ours is too old to be kept, or was moved elsewhere.
        open_to_look(&self.path).ok()?
    }
}

fn identity(file: &File) -> Option<(u64, u64)> {
    let metadata = file.metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line)).into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn append(path: &Path, text: &str) {
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn whole_lines_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "before\n");
        let mut follower = Follower::at_end(&path).unwrap().unwrap();
        assert_eq!(follower.poll(), Vec::<String>::new());
        append(&path, "one\ntw");
        assert_eq!(follower.poll(), ["one"]);
        append(&path, "o\n");
        assert_eq!(follower.poll(), ["two"]);
    }

    #[test]
    fn rotation_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "");
        let mut follower = Follower::at_end(&path).unwrap().unwrap();
        append(&path, "last of the old\n");
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        assert_eq!(follower.poll(), ["last of the old"]);
        assert_eq!(follower.poll(), Vec::<String>::new(), "no younger file yet");
        append(&path, "first of the new\n");
        assert_eq!(follower.poll(), ["first of the new"]);
    }

    #[test]
    fn rotation_twice_between_looks_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "");
        let mut follower = Follower::at_end(&path).unwrap().unwrap();
        append(&path, "first\n");
        std::fs::rename(&path, rotated(&path, 2)).unwrap();
        append(&rotated(&path, 1), "second\n");
        append(&path, "third\n");
        let mut lines = Vec::new();
        for _ in 0..4 {
            lines.extend(follower.poll());
        }
        assert_eq!(lines, ["first", "second", "third"]);
    }

    #[test]
    fn truncation_starts_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "a long line before\n");
        let mut follower = Follower::at_end(&path).unwrap().unwrap();
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(follower.poll(), ["new"]);
    }

    #[test]
    fn what_takes_the_place_of_the_log_and_is_no_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "");
        let mut follower = Follower::at_end(&path).unwrap().unwrap();
        std::fs::rename(&path, dir.path().join("gone")).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(follower.poll(), Vec::<String>::new());
        std::fs::remove_file(&path).unwrap();
        append(&path, "back\n");
        assert_eq!(follower.poll(), ["back"]);
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let refused = Follower::at_end(&fifo).map(|_| ()).unwrap_err();
        assert!(refused.to_string().ends_with("is a named pipe, not a regular file"));
    }
}
