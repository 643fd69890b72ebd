//! What a tick has done and what is left.

use std::time::Duration;

use super::super::path::{PathError, RelPath};
use super::super::plan::{Action, Blocked, HoldReason, Step};
use super::super::planner::LeftOut;

/// The outcome of one tick.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tick {
    /// Changes that the feed told.
    pub pulled: usize,
    /// A snapshot is on its way; nothing is done until it is whole.
    pub resyncing: bool,
    /// Whether the server's digest was equal to ours; `None`: it was not compared.
    pub digest: Option<bool>,
    /// What was done.
    pub done: Done,
    /// What the plan asked for when the tick began to carry it out.
    pub planned: Pending,
    /// What was refused or failed the last time it was tried, in this tick or before, and is tried
    /// again later, with the reason; at most 100 of them.
    pub failed: Vec<(RelPath, String)>,
    /// How often something was not done, by what it was.
    pub missed: Missed,
    /// Paths where something has to wait before it is tried again.
    pub waiting: usize,
    /// When the first of them is due.
    pub retry_in: Option<Duration>,
    /// Conflict names under which changes were kept that came while a file was being replaced.
    pub rescued: Vec<RelPath>,
    /// Conflict names that local losers of a conflict took.
    pub conflicts: Vec<RelPath>,
    /// Deletions wait for a person, and why.
    pub held: Option<HoldReason>,
    /// What takes no part, and why.
    pub blocked: Vec<(RelPath, Blocked)>,
    /// Entries of the server that this disk cannot hold, and why.
    pub unholdable: Vec<(String, PathError)>,
    /// Places of which the server has not told enough yet.
    pub unclear: Vec<RelPath>,
    /// Bytes free, when that is too little to fetch what is wanted.
    pub short_of_space: Option<u64>,
    /// The server said that this drive may only be read.
    pub read_only: bool,
    /// Up to here the feed was read.
    pub cursor: u64,
    /// There is more to do at once: another tick is wanted without waiting.
    pub more: bool,
    /// Disk, server and base are the same, as far as they can be: nothing had to be done.
    pub at_rest: bool,
    /// So they are after what was done, as far as is known without another look.
    pub settled: bool,
}

/// How often what was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the plan's actions; the bytes are of files")]
pub struct Done {
    pub adopted: usize,
    pub forgotten: usize,
    pub set_aside: usize,
    pub moved_here: usize,
    pub folders_made_here: usize,
    pub fetched: usize,
    pub fetched_bytes: u64,
    pub deleted_here: usize,
    pub folders_removed_here: usize,
    pub moved_there: usize,
    pub folders_made_there: usize,
    pub sent: usize,
    pub sent_bytes: u64,
    pub deleted_there: usize,
    pub folders_removed_there: usize,
    /// Answers that had been lost, and are known now.
    pub recalled: usize,
}

impl Done {
    /// Of every kind together, on disk and server.
    pub fn effects(&self) -> usize {
        self.set_aside
            + self.moved_here
            + self.folders_made_here
            + self.fetched
            + self.moved_there
            + self.folders_made_there
            + self.sent
            + self.deletions()
    }

    /// How often this was done.
    pub fn of(&self, deed: Deed) -> usize {
        match deed {
            Deed::Fetch => self.fetched,
            Deed::Send => self.sent,
            Deed::Move => self.moved_here + self.moved_there,
            Deed::Delete => self.deletions(),
            Deed::MakeFolder => self.folders_made_here + self.folders_made_there,
            Deed::SetAside => self.set_aside,
            Deed::Note => self.adopted + self.forgotten,
        }
    }

    /// Files and folders that are gone, on both sides.
    pub fn deletions(&self) -> usize {
        self.deleted_here
            + self.folders_removed_here
            + self.deleted_there
            + self.folders_removed_there
    }
}

/// What steps do, in few words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// A content comes.
    Fetch,
    /// A content goes.
    Send,
    /// A file moves, on either side.
    Move,
    /// A file or folder goes away, on either side.
    Delete,
    /// A folder is made, on either side.
    MakeFolder,
    /// The loser of a conflict gets another name.
    SetAside,
    /// What is so already is noted.
    Note,
}

impl Deed {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Fetch,
        Self::Send,
        Self::Move,
        Self::Delete,
        Self::MakeFolder,
        Self::SetAside,
        Self::Note,
    ];

    pub(super) fn of(action: &Action) -> Self {
        match action {
            Action::Fetch { .. } => Self::Fetch,
            Action::Send { .. } => Self::Send,
            Action::MoveLocal { .. } | Action::MoveRemote { .. } => Self::Move,
            Action::DeleteLocal { .. }
            | Action::RemoveLocalDirectory
            | Action::DeleteRemote { .. }
            | Action::RemoveRemoteDirectory { .. } => Self::Delete,
            Action::MakeLocalDirectory { .. } | Action::MakeRemoteDirectory { .. } => {
                Self::MakeFolder
            }
            Action::SetAside { .. } => Self::SetAside,
            Action::Adopt { .. } | Action::Forget => Self::Note,
        }
    }

    /// Where it stands in [`Self::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// For records that programs read.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Send => "send",
            Self::Move => "move",
            Self::Delete => "delete",
            Self::MakeFolder => "make_folder",
            Self::SetAside => "set_aside",
            Self::Note => "note",
        }
    }
}

/// How often something was not done. By the place of the deed in [`Deed::ALL`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Missed {
    /// It was refused, or failed.
    pub refused: [usize; Deed::ALL.len()],
    /// Things had changed since they were looked at.
    pub stale: [usize; Deed::ALL.len()],
}

impl Missed {
    pub(super) fn add(&mut self, deed: Deed, stale: bool) {
        let counts = if stale { &mut self.stale } else { &mut self.refused };
        counts[deed.index()] += 1;
    }
}

/// What a plan asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Pending {
    pub downloads: usize,
    pub download_bytes: u64,
    pub uploads: usize,
    pub upload_bytes: u64,
    pub deletions: usize,
    /// Everything else.
    pub others: usize,
}

impl Pending {
    /// What is left out is counted as if it were files only.
    pub(super) fn of(steps: &[Step], left_out: LeftOut) -> Self {
        let mut pending = Self {
            downloads: left_out.there,
            download_bytes: left_out.there_bytes,
            uploads: left_out.here,
            upload_bytes: left_out.here_bytes,
            ..Self::default()
        };
        for step in steps {
            match &step.action {
                Action::Fetch { content, .. } => {
                    pending.downloads += 1;
                    pending.download_bytes += content.size;
                }
                Action::Send { content, .. } => {
                    pending.uploads += 1;
                    pending.upload_bytes += content.size;
                }
                Action::DeleteLocal { .. }
                | Action::RemoveLocalDirectory
                | Action::DeleteRemote { .. }
                | Action::RemoveRemoteDirectory { .. } => pending.deletions += 1,
                Action::Adopt { .. }
                | Action::Forget
                | Action::SetAside { .. }
                | Action::MoveLocal { .. }
                | Action::MakeLocalDirectory { .. }
                | Action::MoveRemote { .. }
                | Action::MakeRemoteDirectory { .. } => pending.others += 1,
            }
        }
        pending
    }

    /// What is left of it when so much is done.
    #[must_use]
    pub fn less(&self, done: &Done) -> Self {
        let others = [Deed::Move, Deed::MakeFolder, Deed::SetAside, Deed::Note];
        let others: usize = others.into_iter().map(|deed| done.of(deed)).sum();
        Self {
            downloads: self.downloads.saturating_sub(done.fetched),
            download_bytes: self.download_bytes.saturating_sub(done.fetched_bytes),
            uploads: self.uploads.saturating_sub(done.sent),
            upload_bytes: self.upload_bytes.saturating_sub(done.sent_bytes),
            deletions: self.deletions.saturating_sub(done.deletions()),
            others: self.others.saturating_sub(others),
        }
    }

    /// Of every kind together.
    pub fn steps(&self) -> usize {
        self.downloads + self.uploads + self.deletions + self.others
    }
}
