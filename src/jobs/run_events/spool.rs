//! The spool: a run's events on disk, so that memory stays small and a kill loses nothing.
//!
//! One file a run, owner only. Its first line says how far the backend has followed and is
//! overwritten in place, which takes no room on a disk that is full; the second says whose events
//! these are; then comes one event a line. Nothing is synced: what is here outlives the process.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backend::json::to_exact_string;
use crate::fs::{self, FsError};
use crate::model::{GatewayId, RunId, SubagentId};

/// Bytes of the first line, its end included.
const HEADER: usize = 128;
/// Version of the format.
const VERSION: u32 = 1;
/// The longest line that is taken for one: far above any event.
const MAX_LINE: usize = 4 * 1024 * 1024;
/// How much is read at a time, unless a line is longer. Small, because what is read takes many times
/// its size once it is decoded.
const CHUNK: u64 = 64 * 1024;
/// How much is read for such a line; one that is longer still is read alone.
const LARGE_CHUNK: u64 = 512 * 1024;
/// A file without waiting events is emptied when it is larger.
const WORTH_EMPTYING: u64 = 1024 * 1024;

/// How far the backend has followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    version: u32,
    /// Every event before this index is settled.
    pub(super) done: u64,
    /// The number of the next row; `None` until the backend was asked for its highest.
    pub(super) next: Option<i64>,
}

impl Progress {
    pub(super) fn start() -> Self {
        Self { version: VERSION, done: 0, next: None }
    }
}

/// Whose events a spool holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// Who wrote it.
    pub(super) gateway: GatewayId,
    /// The subagent.
    pub(super) subagent: SubagentId,
    /// Its run.
    pub(super) run: RunId,
}

/// One event as it waits.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// Counts what was told of the run, from 0.
    pub(super) index: u64,
    pub(super) event_type: String,
    pub(super) payload: Value,
    /// Bytes of the payload as JSON, about.
    pub(super) size: usize,
}

#[derive(Deserialize)]
struct RawLine {
    #[serde(rename = "i")]
    index: u64,
    #[serde(rename = "t")]
    event_type: String,
    #[serde(rename = "p")]
    payload: Value,
}

/// Only the index, for counting.
#[derive(Deserialize)]
struct Counted {
    i: u64,
}

impl Line {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let RawLine { index, event_type, payload } = serde_json::from_slice(bytes).ok()?;
        Some(Self { index, event_type, payload, size: bytes.len() })
    }
}

/// The line of an event, with its end. `payload` is JSON, `event_type` a plain word.
pub(super) fn encode(index: u64, event_type: &str, payload: &str) -> String {
    format!("{{\"i\":{index},\"t\":\"{event_type}\",\"p\":{payload}}}\n")
}

/// [`encode`] the other way round, for lines that never came to disk.
pub(super) fn decode(line: &str) -> Option<Line> {
    Line::decode(line.trim_end().as_bytes())
}

/// The open file of one run.
#[derive(Debug)]
pub(super) struct Spool {
    file: Arc<File>,
    /// Where the events begin.
    start: u64,
    /// Where the next one goes: after the last whole line.
    len: u64,
    /// What lies before was read.
    read: u64,
    /// The index after the last event in the file.
    end: u64,
    progress: Progress,
}

impl Spool {
    /// Opens the spool at `path`, which an earlier gateway may have left, or makes it. A last line
    /// that was torn by a kill is dropped. What is no spool of this owner is overwritten: nobody
    /// could send it. Blocks.
    pub(super) fn open(path: &Path, owner: &Owner) -> Result<Self, FsError> {
        let file = fs::edit_private(path)?;
        let failed = |error| FsError::io("read", path, error);
        match read_head(&file).map_err(failed)? {
            Some((progress, found, start)) if found == *owner => {
                let (len, end) = measure(&file, start).map_err(failed)?;
                file.set_len(len).map_err(|error| FsError::io("write", path, error))?;
                let end = end.max(progress.done);
                Ok(Self { file: Arc::new(file), start, len, read: start, end, progress })
            }
            _ => {
                let start = begin(&file, owner).map_err(|e| FsError::io("write", path, e))?;
                let (len, progress) = (start, Progress::start());
                Ok(Self { file: Arc::new(file), start, len, read: start, end: 0, progress })
            }
        }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    /// The index after the last event in it.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is something that was not read.
    pub(super) fn has_more(&self) -> bool {
        self.read < self.len
    }

    /// Appends whole lines; `end` is the index after the last. After an error nothing of them is in
    /// the file.
    pub(super) async fn append(&mut self, lines: Vec<u8>, end: u64) -> io::Result<()> {
        let (file, at) = (Arc::clone(&self.file), self.len);
        let length = lines.len() as u64;
        blocking(move || {
            let written = file.write_all_at(&lines, at);
            if written.is_err() {
                // What is left of it would be overwritten, or dropped by the next gateway.
                let _ = file.set_len(at);
            }
            written
        })
        .await?;
        self.len += length;
        self.end = end;
        Ok(())
    }

    /// The events that follow, of `from` and later, [`CHUNK`] of them or a few that are larger. Lines
    /// that are damaged are passed over.
    pub(super) async fn read_on(&mut self, from: u64) -> io::Result<Vec<Line>> {
        let (file, at, left) = (Arc::clone(&self.file), self.read, self.len - self.read);
        let (bytes, whole) = blocking(move || {
            for most in [CHUNK, LARGE_CHUNK] {
                let (bytes, whole) = read_lines(&file, at, left.min(most))?;
                if whole > 0 || left <= most {
                    return Ok((bytes, whole));
                }
            }
            read_lines(&file, at, left.min(MAX_LINE as u64))
        })
        .await?;
        // Not a single line end: what is there cannot be used.
        self.read += if whole == 0 { bytes.len() as u64 } else { whole as u64 };
        let mut lines = Vec::new();
        for text in bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match Line::decode(text) {
                Some(line) if line.index >= from => lines.push(line),
                Some(_) => {}
                None => tracing::warn!("a damaged event of a subagent's run is passed over"),
            }
        }
        Ok(lines)
    }

    /// Keeps how far the backend has followed. A file whose events are all settled is emptied once
    /// it is worth it.
    pub(super) async fn settle(&mut self, done: u64, next: i64) -> io::Result<()> {
        self.progress = Progress { version: VERSION, done, next: Some(next) };
        let empty = done >= self.end && self.len - self.start > WORTH_EMPTYING;
        let (file, start, header) = (Arc::clone(&self.file), self.start, header(self.progress));
        blocking(move || {
            file.write_all_at(&header, 0)?;
            if empty { file.set_len(start) } else { Ok(()) }
        })
        .await?;
        if empty {
            (self.len, self.read) = (start, start);
        }
        Ok(())
    }
}

/// Runs what may wait for the disk where that holds up nothing else.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::other("the gateway is going down")),
    }
}

/// The first line: as long as ever, so that it can be overwritten.
fn header(progress: Progress) -> Vec<u8> {
    let mut text = serde_json::to_vec(&progress).unwrap_or_default();
    text.resize(HEADER - 1, b' ');
    text.push(b'\n');
    text
}

/// Makes a file new; where its events begin.
fn begin(file: &File, owner: &Owner) -> io::Result<u64> {
    file.set_len(0)?;
    let mut head = header(Progress::start());
    head.extend(to_exact_string(owner)?.into_bytes());
    head.push(b'\n');
    file.write_all_at(&head, 0)?;
    Ok(head.len() as u64)
}

/// The two first lines and where the events begin; `None` when they are not whole or not ours.
fn read_head(file: &File) -> io::Result<Option<(Progress, Owner, u64)>> {
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(0))?;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    read_line(&mut reader, &mut first)?;
    read_line(&mut reader, &mut second)?;
    if first.len() != HEADER || second.last() != Some(&b'\n') {
        return Ok(None);
    }
    let head = (serde_json::from_slice(&first), serde_json::from_slice(&second));
    let (Ok(progress), Ok(owner)) = head else { return Ok(None) };
    let progress: Progress = progress;
    let start = (first.len() + second.len()) as u64;
    Ok((progress.version == VERSION).then_some((progress, owner, start)))
}

/// Where the last whole line ends, and the index after the last event.
fn measure(file: &File, start: u64) -> io::Result<(u64, u64)> {
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(start))?;
    let (mut len, mut end) = (start, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        read_line(&mut reader, &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok((len, end));
        }
        len += line.len() as u64;
        if let Ok(Counted { i }) = serde_json::from_slice(&line) {
            end = i + 1;
        }
    }
}

/// Up to and with the line's end, [`MAX_LINE`] at most.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<()> {
    io::Read::take(reader, MAX_LINE as u64).read_until(b'\n', line).map(|_| ())
}

/// The bytes at `at`, and how many of them are whole lines.
fn read_lines(file: &File, at: u64, length: u64) -> io::Result<(Vec<u8>, usize)> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, at)?;
    let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |end| end + 1);
    Ok((bytes, whole))
}

/// Whose spool lies at `path`; `None` when it is none of this format.
pub(super) fn owner_of(path: &Path) -> Result<Option<Owner>, FsError> {
    // Not by `edit_private`, which would make one.
    if !fs::check_private_file(path)? {
        return Ok(None);
    }
    let file = File::open(path).map_err(|error| FsError::io("read", path, error))?;
    let head = read_head(&file).map_err(|error| FsError::io("read", path, error))?;
    Ok(head.map(|(_, owner, _)| owner))
}

/// The `*.jsonl` files of a directory, in the order of their names. An absent one has none.
pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort_unstable();
    files
}
