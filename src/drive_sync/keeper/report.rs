//! How the drives are, for people and programs: a file in the state dir, written anew when it changes.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::engine::{Deed, Done, Pending, Tick};
use super::super::plan::{Blocked, HoldReason};
pub use super::super::progress::Phase;
use super::super::progress::{Direction, Transfer};
pub use super::first_copy::FirstCopy;
use crate::fs::{self, FsError};

/// Its name.
const NAME: &str = "status.json";
/// Entries of a list that are told one by one.
const TOLD: usize = 100;
/// Of the file.
const LARGEST: u64 = 4 << 20;
/// The file is so much longer than what it says, at least, and a multiple of it: there is room in it
/// for more to say when the disk has none.
const SPARE: usize = 4096;

/// All drives of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The process that keeps them.
    pub pid: u32,
    /// When this was written, RFC 3339.
    pub updated_at: String,
    /// Why no drive can be kept in step now.
    pub problem: Option<String>,
    /// When the server is asked again, RFC 3339.
    #[serde(default)]
    pub retry_at: Option<String>,
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
    /// Why it is in that state, if there is something to say. What went wrong is said until the
    /// drive gets on again.
    pub reason: Option<String>,
    /// Nothing at all could be done for that reason; else only a part of the drive has to wait.
    #[serde(skip)]
    pub halted: bool,
    /// When it is tried again.
    pub retry_at: Option<String>,
    /// What is done at this moment.
    pub doing: Phase,
    /// Entries that the server has told of so far, while it lists everything.
    pub listed: usize,
    /// Until disk and server are the same for the first time.
    pub first_copy: Option<FirstCopy>,
    /// Large contents on their way.
    pub transfers: Vec<Moving>,
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
    pub held_deletions: usize,
    /// Paths that are tried again later.
    pub waiting: usize,
    /// What takes no part, at most 100, and how many in all.
    pub unsyncable: Vec<Unsyncable>,
    pub unsyncable_count: usize,
    /// What went wrong the last time and is tried again later, at most 100.
    pub failed: Vec<Unsyncable>,
    /// Changes are told by the system; else they are found by looking only.
    pub watched: bool,
    /// Why the system does not tell them.
    pub watch_problem: Option<String>,
    /// The last look at everything in the folder.
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

impl DriveState {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Syncing => "syncing",
            Self::UpToDate => "up to date",
            Self::Held => "deletions are held",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
        }
    }

    /// For records that programs read.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Syncing => "syncing",
            Self::UpToDate => "up_to_date",
            Self::Held => "held",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
        }
    }

    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Syncing, Self::UpToDate, Self::Held, Self::Waiting, Self::Stopped];
}

/// A content on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it; sizes are bytes")]
pub struct Moving {
    pub path: String,
    /// From here to the server.
    pub send: bool,
    pub moved: u64,
    pub size: u64,
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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

    /// The process that wrote this is gone, and did not say so.
    pub fn died(&mut self, problem: &str) {
        self.problem = Some(problem.to_owned());
        self.retry_at = None;
        for drive in &mut self.drives {
            drive.state = DriveState::Stopped;
            drive.doing = Phase::Resting;
            drive.transfers.clear();
            drive.retry_at = None;
        }
    }

    pub(super) fn write(&self, state_dir: &Path) -> Result<(), FsError> {
        let path = state_dir.join(NAME);
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.resize((text.len() + SPARE).next_multiple_of(SPARE), b' ');
        match fs::save_unsynced(&path, &text) {
            Err(error) if error.is_full() => write_over(&path, &text).map_err(|_| error),
            saved => saved,
        }
    }
}

/// Writes into the file that is there, which takes no more room of a full disk. Whoever reads at this
/// very moment may see a mixture of both.
fn write_over(path: &Path, text: &[u8]) -> io::Result<()> {
    if !path.exists() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = fs::edit_private(path).map_err(io::Error::other)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut text = text.trim_ascii_end().to_vec();
    if text.len() > length {
        return Err(io::ErrorKind::StorageFull.into());
    }
    text.resize(length, b' ');
    file.write_all_at(&text, 0)
}

impl DriveReport {
    /// What is still so after a restart.
    pub(super) fn lasting(&self) -> Self {
        Self {
            drive_id: self.drive_id.clone(),
            name: self.name.clone(),
            path: self.path.clone(),
            writable: self.writable,
            done: self.done,
            conflicts: self.conflicts.clone(),
            audited_at: self.audited_at.clone(),
            synced_at: self.synced_at.clone(),
            ..Self::default()
        }
    }

    /// The same while the engine is made anew: what went wrong is so until it goes well.
    pub(super) fn until_it_goes(&self) -> Self {
        Self {
            state: self.state,
            reason: self.reason.clone(),
            retry_at: self.retry_at.clone(),
            halted: self.halted,
            ..self.lasting()
        }
    }

    /// Takes over what a tick has done, whether it came to its end or not.
    pub(super) fn take_done(&mut self, tick: &Tick) {
        self.cursor = self.cursor.max(tick.cursor);
        // A tick that did not come to plan anything, or only waits, says nothing new.
        let settled = tick.waiting == 0 && (tick.at_rest || tick.held.is_some());
        if tick.planned.steps() > 0 || settled {
            self.pending = tick.planned.less(&tick.done).into();
        }
        self.done.add(&tick.done);
        self.done.conflicts += tick.conflicts.len();
        self.done.rescued += tick.rescued.len();
        if let Some(copy) = &mut self.first_copy {
            copy.add(&tick.done, &self.pending);
        }
        let made = tick.conflicts.iter().chain(&tick.rescued).map(ToString::to_string);
        self.conflicts.extend(made);
        let surplus = self.conflicts.len().saturating_sub(TOLD);
        self.conflicts.drain(..surplus);
    }

    /// Takes over what a tick that came to its end has found and done.
    pub(super) fn take(&mut self, tick: &Tick) {
        self.take_done(tick);
        self.cursor = tick.cursor;
        self.waiting = tick.waiting;
        self.held_deletions = tick.held.map_or(0, HoldReason::deletions);
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
        let failed = tick.failed.iter().skip(tick.failed.len().saturating_sub(TOLD));
        let failed = failed
            .map(|(path, reason)| Unsyncable { path: path.to_string(), reason: reason.clone() });
        self.failed = failed.collect();
    }
}

impl Totals {
    pub(super) fn add(&mut self, done: &Done) {
        self.downloads += done.fetched;
        self.download_bytes += done.fetched_bytes;
        self.uploads += done.sent;
        self.upload_bytes += done.sent_bytes;
        self.deletions += done.deletions();
        self.moves += done.of(Deed::Move);
    }
}

impl FirstCopy {
    fn add(&mut self, done: &Done, left: &Counts) {
        self.files_done += (done.fetched + done.sent) as u64;
        self.bytes_done += done.fetched_bytes + done.sent_bytes;
        self.files = self.files_done + (left.downloads + left.uploads) as u64;
        self.bytes = self.bytes_done + left.download_bytes + left.upload_bytes;
    }
}

impl From<Pending> for Counts {
    fn from(pending: Pending) -> Self {
        Self {
            downloads: pending.downloads,
            download_bytes: pending.download_bytes,
            uploads: pending.uploads,
            upload_bytes: pending.upload_bytes,
            deletions: pending.deletions,
            others: pending.others,
        }
    }
}

impl From<&Transfer> for Moving {
    fn from(transfer: &Transfer) -> Self {
        Self {
            path: transfer.path.as_ref().map(ToString::to_string).unwrap_or_default(),
            send: transfer.direction == Direction::Send,
            moved: transfer.moved,
            size: transfer.size,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_can_be_written_over_where_there_is_no_room_for_another() {
        let dir = tempfile::tempdir().unwrap();
        let drive = DriveReport { name: "Team".into(), ..DriveReport::default() };
        let short = Report { drives: vec![drive.clone()], ..Report::default() };
        let reason = Some("only 0 MiB are free".into());
        let long = Report { drives: vec![DriveReport { reason, ..drive }], ..Report::default() };
        let path = dir.path().join(NAME);
        let text = |report: &Report| serde_json::to_vec_pretty(report).unwrap();
        assert!(write_over(&path, &text(&long)).is_err() && !path.exists());
        short.write(dir.path()).unwrap();
        for report in [&long, &short] {
            let before = path.metadata().unwrap().len();
            write_over(&path, &text(report)).unwrap();
            assert_eq!(Report::read(dir.path()).unwrap().as_ref(), Some(report));
            assert_eq!(path.metadata().unwrap().len(), before, "it takes no more room");
        }
        let too_long = "x".repeat(3 * SPARE);
        assert!(write_over(&path, &text(&Report { problem: Some(too_long), ..long })).is_err());
        assert_eq!(Report::read(dir.path()).unwrap(), Some(short));
    }
}
