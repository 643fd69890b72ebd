//! The journal: what this gateway has claimed and how it ended, on disk before the backend is told.
//!
//! One file a job, `jobs/<id>.json`, written whole (temp file, fsync, rename) and owner only. A
//! record begins as an intent before the claim, gets the result before the report, and goes when
//! the backend has confirmed or the row is no longer ours. So whatever kills the gateway, the next
//! one knows what it must report (`replay`). The journal is bounded: past its bounds nothing new
//! is claimed.

mod record;
pub(super) mod replay;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tokio::sync::watch;

pub use record::{Record, RunEnd, SubagentWork};

use crate::backend::json::to_exact_string;
use crate::fs::{self, FsError};
use crate::model::JobId;

/// Most records at a time.
pub(crate) const MAX_RECORDS: usize = 1_000;
/// Most bytes of all records.
pub(crate) const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// Far above any result: two bounded streams, escaped.
const MAX_RECORD: u64 = 128 * 1024 * 1024;
/// Results that the backend refused are kept this long.
const KEEP_REJECTED: Duration = Duration::from_hours(24 * 7);
/// Where they are kept, below the journal.
const REJECTED: &str = "rejected";
/// Where the events of runs wait for the backend, below the journal.
const EVENTS: &str = "events";

/// Why a record could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The bounds are reached.
    #[error("the journal is full: {records} results wait for the backend ({bytes} bytes)")]
    Full {
        /// How many records there are.
        records: usize,
        /// Their bytes.
        bytes: u64,
    },
    /// The disk does not take it.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// It cannot be written as JSON.
    #[error("a record cannot be written")]
    Encode(#[source] serde_json::Error),
    /// The runtime is going down.
    #[error("the gateway is going down")]
    GoingDown,
}

/// The journal of one config dir. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    /// Bytes of each record that is on disk or about to be.
    sizes: Mutex<HashMap<JobId, u64>>,
    /// Why nothing new can be claimed; `None` while all is well.
    trouble: watch::Sender<Option<String>>,
}

impl Journal {
    /// Opens the journal in `dir`, made when absent. Leftovers of interrupted writes and rejected
    /// results past their time are removed. Blocks. The caller holds the instance lock.
    pub fn open(dir: &Path) -> Result<Self, FsError> {
        fs::ensure_private_dir(dir)?;
        remove_old(&dir.join(REJECTED), KEEP_REJECTED);
        remove_leftovers(dir)?;
        let shared = Shared {
            dir: dir.to_owned(),
            sizes: Mutex::default(),
            trouble: watch::Sender::new(None),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What an earlier gateway left, read from disk. A file that is no record, or that cannot be
    /// used, is logged and left alone.
    pub async fn found(&self) -> Vec<Record> {
        let dir = self.shared.dir.clone();
        let read = tokio::task::spawn_blocking(move || read_all(&dir)).await;
        let found = match read {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::error!(error = %error, "the journal cannot be read");
                Vec::new()
            }
            // Going down.
            Err(_) => Vec::new(),
        };
        let mut sizes = self.sizes();
        sizes.clear();
        sizes.extend(found.iter().map(|(record, size)| (record.id.clone(), *size)));
        drop(sizes);
        found.into_iter().map(|(record, _)| record).collect()
    }

    /// Why nothing new can be claimed, and every change of that.
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.shared.trouble.subscribe()
    }

    /// How many records there are, and their bytes.
    pub fn usage(&self) -> (usize, u64) {
        let sizes = self.sizes();
        (sizes.len(), sizes.values().sum())
    }

    /// Keeps the intent of a claim. An error means: do not claim.
    pub async fn intend(&self, record: &Record) -> Result<(), JournalError> {
        let (records, bytes) = self.usage();
        let result = if records >= MAX_RECORDS || bytes >= MAX_BYTES {
            Err(JournalError::Full { records, bytes })
        } else {
            self.save(record).await
        };
        self.note(result.as_ref().err());
        result
    }

    /// Tries whether what was in the way of the last intent is gone. Called now and then while
    /// there is trouble: without new jobs no intent would find out.
    pub async fn try_again(&self) {
        let (records, bytes) = self.usage();
        if records >= MAX_RECORDS || bytes >= MAX_BYTES {
            return;
        }
        let probe = self.shared.dir.join("probe");
        let tried = tokio::task::spawn_blocking(move || {
            let written = fs::save(&probe, &[b' '; 4096]);
            let _ = std::fs::remove_file(&probe);
            written
        });
        if let Ok(Ok(())) = tried.await {
            self.note(None);
        }
    }

    /// Keeps a record as it is now. What was kept of it before stands when this fails.
    pub async fn save(&self, record: &Record) -> Result<(), JournalError> {
        self.write(record, fs::save).await
    }

    /// Keeps a record whose change matters only to a gateway that follows on this boot.
    pub async fn save_for_this_boot(&self, record: &Record) -> Result<(), JournalError> {
        self.write(record, fs::save_unsynced).await
    }

    async fn write(
        &self,
        record: &Record,
        save: fn(&Path, &[u8]) -> Result<(), FsError>,
    ) -> Result<(), JournalError> {
        let text = to_exact_string(record).map_err(JournalError::Encode)?;
        let (id, size) = (record.id.clone(), text.len() as u64);
        let before = self.sizes().insert(id.clone(), size);
        let path = self.path(&id);
        let saved = tokio::task::spawn_blocking(move || save(&path, text.as_bytes())).await;
        let result = match saved {
            Ok(saved) => saved.map_err(JournalError::Fs),
            Err(_) => Err(JournalError::GoingDown),
        };
        if result.is_err() {
            match before {
                Some(size) => self.sizes().insert(id, size),
                None => self.sizes().remove(&id),
            };
        }
        result
    }

    /// Forgets a job: the backend has its end, or it was never ours.
    pub async fn remove(&self, id: &JobId) {
        let path = self.path(id);
        let shown = path.clone();
        // Not synced: a record that comes back after a power cut is dropped by its replay.
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_file(path)).await;
        match removed {
            Ok(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %shown.display(), %error, "a journal record cannot be removed");
            }
            Ok(Ok(()) | Err(_)) | Err(_) => {}
        }
        self.sizes().remove(id);
        let (records, bytes) = self.usage();
        if records < MAX_RECORDS && bytes < MAX_BYTES {
            self.note(None);
        }
    }

    /// Sets a result aside that the backend refused for good; where it lies now.
    pub async fn set_aside(&self, record: &Record) -> Result<PathBuf, JournalError> {
        let text = to_exact_string(record).map_err(JournalError::Encode)?;
        let dir = self.shared.dir.join(REJECTED);
        let path = dir.join(file_name(&record.id));
        let target = path.clone();
        let saved = tokio::task::spawn_blocking(move || {
            fs::ensure_private_dir(&dir)?;
            fs::save(&target, text.as_bytes())
        });
        saved.await.map_err(|_| JournalError::GoingDown)??;
        Ok(path)
    }

    /// Where the events of subagents' runs wait for the backend.
    pub(super) fn events_dir(&self) -> PathBuf {
        self.shared.dir.join(EVENTS)
    }

    fn path(&self, id: &JobId) -> PathBuf {
        self.shared.dir.join(file_name(id))
    }

    fn sizes(&self) -> MutexGuard<'_, HashMap<JobId, u64>> {
        self.shared.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, error: Option<&JournalError>) {
        let now = error.map(|error| match error {
            JournalError::Fs(_) | JournalError::Encode(_) => {
                format!("the journal cannot be written: {}", report(error))
            }
            JournalError::Full { .. } | JournalError::GoingDown => error.to_string(),
        });
        self.shared.trouble.send_if_modified(|trouble| {
            let changed = *trouble != now;
            if changed {
                if let Some(why) = &now {
                    tracing::error!(why, "no new jobs are claimed");
                } else {
                    tracing::info!("the journal is in order again");
                }
                *trouble = now;
            }
            changed
        });
    }
}

/// An error and its sources on one line.
fn report(error: &JournalError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// `<id>.json`; see [`file_stem`].
fn file_name(id: &JobId) -> String {
    format!("{}.json", file_stem(id.as_str()))
}

/// The id itself; one that is no plain word becomes its hash, so that no id leads elsewhere.
pub(super) fn file_stem(text: &str) -> String {
    let plain = (1..=128).contains(&text.len())
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if plain { text.to_owned() } else { format!("{:x}.sha256", Sha256::digest(text)) }
}

/// The `*.json` files of a directory, in the order of their names.
fn files(dir: &Path) -> Result<Vec<PathBuf>, FsError> {
    let unread = |source| FsError::Io { verb: "read", path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unread)? {
        let path = entry.map_err(unread)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Every record of a directory with the bytes of its file.
fn read_all(dir: &Path) -> Result<Vec<(Record, u64)>, FsError> {
    let mut records = Vec::new();
    for path in files(dir)? {
        let why = match fs::read_private(&path, MAX_RECORD) {
            Ok(None) => continue,
            Ok(Some(bytes)) => match record::decode(&bytes) {
                Ok(record) => {
                    records.push((record, bytes.len() as u64));
                    continue;
                }
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        tracing::warn!(path = %path.display(), why, "a journal record is left alone");
    }
    Ok(records)
}

/// Removes the temp files of writes that were killed half-way.
fn remove_leftovers(dir: &Path) -> Result<(), FsError> {
    let unread = |source| FsError::Io { verb: "read", path: dir.to_owned(), source };
    for entry in std::fs::read_dir(dir).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let name = entry.file_name();
        let is_temp =
            name.to_str().is_some_and(|name| name.starts_with('.') && name.contains(".json."));
        if is_temp {
            // One that cannot be removed is found again by the next gateway.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Removes files that were not changed for `age`. What cannot be looked at stays.
fn remove_old(dir: &Path, age: Duration) {
    for path in files(dir).unwrap_or_default() {
        let changed = path.symlink_metadata().and_then(|meta| meta.modified());
        let old = changed
            .is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|passed| passed >= age));
        if old && std::fs::remove_file(&path).is_ok() {
            tracing::info!(path = %path.display(), "a rejected result is past its time");
        }
    }
}

#[cfg(test)]
mod tests;
