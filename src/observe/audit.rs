//! The audit log: who had this gateway do what, for the admin of its host.
//!
//! One JSON object a line in `audit.jsonl`, owner only, rotated by size. A line is written through
//! before the work that it tells of goes on, so that a flood loses none. What cannot be written is
//! counted and said loudly, and the work goes on: a full disk must not stop the jobs.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::Redactor;
use super::rotate::{Bounds, FileState, Lost, RotatingFile, Trouble};
use crate::fs::{FsError, open_to_look};
use crate::model::time;

/// The file is rotated at this size.
pub(crate) const ROTATE_AT: u64 = 10 * 1024 * 1024;
/// Old files kept.
pub(crate) const KEEP: u32 = 9;
/// How long a job waits for a disk that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// While lines are lost, one error a minute at most.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);
/// How far back the last start is looked for.
const LOOK_BACK: u64 = 1024 * 1024;

/// Cheap to clone; all clones write the same file.
#[derive(Debug, Clone)]
pub struct Audit {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    redactor: Redactor,
    state: FileState,
    /// One at a time, in order; whoever holds it may block on the file.
    turn: Arc<Semaphore>,
    file: Arc<Mutex<RotatingFile>>,
    /// Lines for which the disk took too long, not told in the file yet.
    late: Arc<AtomicU64>,
    complained: Mutex<Option<Instant>>,
}

impl Audit {
    /// Of a gateway. Makes nothing before the first line.
    pub fn new(path: &Path, redactor: Redactor) -> Self {
        Self::with(path, redactor, Bounds { size: ROTATE_AT, keep: KEEP })
    }

    /// Of a command that adds a line beside a gateway, perhaps, which alone rotates the file.
    pub fn of_command(path: &Path, redactor: Redactor) -> Self {
        Self::with(path, redactor, Bounds { size: u64::MAX, keep: KEEP })
    }

    fn with(path: &Path, redactor: Redactor, bounds: Bounds) -> Self {
        let state = FileState::default();
        let file = RotatingFile::later(path, bounds, state.clone(), lost_note);
        Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                redactor,
                state,
                turn: Arc::new(Semaphore::new(1)),
                file: Arc::new(Mutex::new(file)),
                late: Arc::default(),
                complained: Mutex::default(),
            }),
        }
    }

    /// Lines that are in no file, since the start.
    pub fn lost_lines(&self) -> u64 {
        self.shared.state.lost_lines()
    }

    /// Why the last line was lost, e.g. `the disk was full`; `None` when it was written.
    pub fn trouble(&self) -> Option<&'static str> {
        self.shared.state.trouble().map(Trouble::as_str)
    }

    /// Writes one line, with the time and the gateway's own secrets taken out. Waits until it is
    /// written, for some seconds at most; dropped meanwhile, the line may be written all the same.
    pub async fn record(&self, event: &str, fields: Map<String, Value>) {
        let line = self.line(event, fields);
        let written = timeout(PATIENCE, self.write(line)).await;
        if written.is_err() {
            self.shared.late.fetch_add(1, Ordering::Relaxed);
            self.shared.state.lost(Trouble::Silent);
        }
        self.complain();
    }

    /// The same for a command, where nothing else waits. Blocks.
    pub fn record_now(&self, event: &str, fields: Map<String, Value>) -> Result<(), FsError> {
        let line = self.line(event, fields);
        self.shared.file.lock().unwrap_or_else(PoisonError::into_inner).write_line(line.as_bytes())
    }

    async fn write(&self, line: String) {
        let Ok(turn) = Arc::clone(&self.shared.turn).acquire_owned().await else { return };
        let (file, late) = (Arc::clone(&self.shared.file), Arc::clone(&self.shared.late));
        let written = tokio::task::spawn_blocking(move || {
            // Given back by whoever blocks, however long that is: no more than one thread waits.
            let _turn = turn;
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.missed(late.swap(0, Ordering::Relaxed), Trouble::Silent);
            file.write_line(line.as_bytes()).ok();
        });
        // It fails only when the runtime is going down.
        written.await.ok();
    }

    fn line(&self, event: &str, fields: Map<String, Value>) -> String {
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), Value::from(time::now_wire()));
        line.insert("event".to_owned(), Value::from(event));
        line.extend(fields);
        format!("{}\n", self.shared.redactor.own_secrets_in(Value::Object(line)))
    }

    fn complain(&self) {
        let trouble = self.trouble();
        let (lost, path) = (self.lost_lines(), self.shared.path.display());
        let mut complained = self.shared.complained.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(why) if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) => {
                *complained = Some(Instant::now());
                tracing::error!(%path, why, lost, "the audit log cannot be written; jobs go on");
            }
            None if complained.take().is_some() => {
                tracing::warn!(%path, lost, "the audit log is written again");
            }
            Some(_) | None => {}
        }
    }

    /// The version that the last `gateway_started` tells. Blocks.
    pub fn last_version(&self) -> Option<String> {
        let mut file = open_to_look(&self.shared.path).ok()??;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOOK_BACK))).ok()?;
        let mut bytes = Vec::new();
        file.take(LOOK_BACK).read_to_end(&mut bytes).ok()?;
        String::from_utf8_lossy(&bytes).lines().rev().find_map(|line| {
            let line = serde_json::from_str::<Value>(line).ok()?;
            (line["event"] == "gateway_started").then_some(())?;
            line["version"].as_str().map(str::to_owned)
        })
    }
}

/// Name of the user whom this process runs as, or the number of one without a name. Asks the
/// system's user database, which may block, the first time.
pub fn local_user() -> &'static str {
    static USER: OnceLock<String> = OnceLock::new();
    USER.get_or_init(|| {
        let user = nix::unistd::geteuid();
        match nix::unistd::User::from_uid(user) {
            Ok(Some(found)) => found.name,
            Ok(None) | Err(_) => user.to_string(),
        }
    })
}

fn lost_note(lost: &Lost) -> String {
    let line = json!({
        "timestamp": time::now_wire(), "event": "lines_lost", "lines": lost.lines,
        "reason": lost.why.as_str(),
    });
    format!("{line}\n")
}

#[cfg(test)]
mod tests;
