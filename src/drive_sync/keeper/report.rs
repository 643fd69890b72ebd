//! How the drives are, for people and programs: a file in the state dir, written anew when it changes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::engine::{Done, Pending, Tick};
use super::super::plan::{Blocked, HoldReason};
use crate::fs::{self, FsError};

/// Its name.
const NAME: &str = "status.json";
/// Entries of a list that are told one by one.
const TOLD: usize = 100;
/// Of the file.
const LARGEST: u64 = 4 << 20;

/// All drives of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The process that keeps them.
    pub pid: u32,
    /// When this was written, RFC 3339.
    pub updated_at: String,
    /// Why no drive can be kept in step now.
    pub problem: Option<String>,
    /// Each of them.
    pub drives: Vec<DriveReport>,
}

/// One drive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names say it; sizes are bytes, times RFC 3339")]
pub struct DriveReport {
    pub drive_id: String,
    pub name: String,
    pub path: PathBuf,
    pub writable: bool,
    pub state: DriveState,
    /// Why it is in that state, if there is something to say.
    pub reason: Option<String>,
    /// Up to here the server's changes are known, and how many there are.
    pub cursor: u64,
    pub head: u64,
    pub pending: Counts,
    /// Since the gateway started.
    pub done: Totals,
    pub entries: u64,
    /// The newest conflict copies, at most 100.
    pub conflicts: Vec<String>,
    pub held: Option<String>,
    /// What takes no part, at most 100, and how many in all.
    pub unsyncable: Vec<Unsyncable>,
    pub unsyncable_count: usize,
    pub failed: Vec<Unsyncable>,
    /// Changes are told by the system; else they are found by looking only.
    pub watched: bool,
    pub audited_at: Option<String>,
    pub synced_at: Option<String>,
    pub free_bytes: Option<u64>,
}

/// What a drive is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriveState {
    /// Nothing is known yet.
    #[default]
    Starting,
    /// There is something to do.
    Syncing,
    /// Disk and server are the same.
    UpToDate,
    /// Deletions wait for a person.
    Held,
    /// It is tried again later.
    Waiting,
    /// Nothing is done any more until something changes.
    Stopped,
}

/// What is left to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Counts {
    pub downloads: usize,
    pub download_bytes: u64,
    pub uploads: usize,
    pub upload_bytes: u64,
    pub deletions: usize,
    pub others: usize,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Totals {
    pub downloads: usize,
    pub download_bytes: u64,
    pub uploads: usize,
    pub upload_bytes: u64,
    pub deletions: usize,
    pub moves: usize,
    pub conflicts: usize,
    pub rescued: usize,
}

/// An entry that takes no part, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Unsyncable {
    pub path: String,
    pub reason: String,
}

impl Report {
    /// Reads what the keeper wrote last; `None`: it has never written anything.
    ///
    /// # Errors
    /// When the file cannot be read or is none of ours.
    pub fn read(state_dir: &Path) -> anyhow::Result<Option<Self>> {
        let Some(bytes) = fs::read_unrepaired(&state_dir.join(NAME), LARGEST)? else {
            return Ok(None);
        };
        Ok(Some(serde_json::from_slice(&bytes)?))
    }

    pub(super) fn write(&self, state_dir: &Path) -> Result<(), FsError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        fs::save_unsynced(&state_dir.join(NAME), &text)
    }
}

impl DriveReport {
    /// Takes over what a tick has found and done.
    pub(super) fn take(&mut self, tick: &Tick) {
        self.cursor = tick.cursor;
        self.pending = counts(&tick.planned);
        self.done.add(&tick.done);
        self.done.conflicts += tick.conflicts.len();
        self.done.rescued += tick.rescued.len();
        let made = tick.conflicts.iter().chain(&tick.rescued).map(ToString::to_string);
        self.conflicts.extend(made);
        let surplus = self.conflicts.len().saturating_sub(TOLD);
        self.conflicts.drain(..surplus);
        self.held = tick.held.map(held);
        let blocked = tick
            .blocked
            .iter()
            .filter(|(_, why)| !is_ignored(*why))
            .map(|(path, why)| Unsyncable { path: path.to_string(), reason: blocked(*why) });
        let named = tick
            .unholdable
            .iter()
            .map(|(path, why)| Unsyncable { path: path.clone(), reason: why.to_string() });
        let all: Vec<_> = blocked.chain(named).collect();
        self.unsyncable_count = all.len();
        self.unsyncable = all.into_iter().take(TOLD).collect();
        let failed = tick
            .failed
            .iter()
            .map(|(path, reason)| Unsyncable { path: path.to_string(), reason: reason.clone() });
        if tick.waiting == 0 {
            self.failed.clear();
        }
        self.failed.extend(failed);
        let surplus = self.failed.len().saturating_sub(TOLD);
        self.failed.drain(..surplus);
    }
}

impl Totals {
    fn add(&mut self, done: &Done) {
        self.downloads += done.fetched;
        self.download_bytes += done.fetched_bytes;
        self.uploads += done.sent;
        self.upload_bytes += done.sent_bytes;
        self.deletions += done.deletions();
        self.moves += done.moved_here + done.moved_there;
    }
}

fn counts(pending: &Pending) -> Counts {
    Counts {
        downloads: pending.downloads,
        download_bytes: pending.download_bytes,
        uploads: pending.uploads,
        upload_bytes: pending.upload_bytes,
        deletions: pending.deletions,
        others: pending.others,
    }
}

fn held(why: HoldReason) -> String {
    match why {
        HoldReason::MostOfTheDrive { deleted, of } => {
            format!("{deleted} of {of} entries would be deleted")
        }
        HoldReason::Everything { deleted } => {
            format!("all {deleted} entries would be deleted")
        }
    }
}

fn is_ignored(why: Blocked) -> bool {
    why == Blocked::Local(super::super::model::Opaque::Ignored)
}

fn blocked(why: Blocked) -> String {
    use super::super::model::Opaque;
    let text = match why {
        Blocked::ReadOnly => "the drive may only be read",
        Blocked::Name(error) => return error.to_string(),
        Blocked::Local(Opaque::Ignored) => "a name that is never synced",
        Blocked::Local(Opaque::Symlink) => "a symbolic link",
        Blocked::Local(Opaque::Special) => "neither a file nor a folder",
        Blocked::Local(Opaque::Unreadable) => "it cannot be read",
        Blocked::Local(Opaque::Unsettled) => "it changes all the time",
        Blocked::Local(Opaque::Mount) => "another file system is mounted there",
        Blocked::Local(Opaque::TooLarge) => "larger than the server takes",
        Blocked::Local(Opaque::Name) => "its name is not UTF-8",
        Blocked::Local(Opaque::Unread) => "a large file that has not been read yet",
        Blocked::Local(Opaque::Suspicious) => {
            "it is empty after a crash of the machine; write to it or delete it to go on"
        }
    };
    text.to_owned()
}
