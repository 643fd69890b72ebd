//! What the planner asks for: steps in order, each with what must still be true when it is taken.

use super::model::{Content, EntryId, Opaque, Remote, Stat, VersionId};
use super::path::{PathError, RelPath};

/// Everything that one look at the three trees asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are to be taken. Steps of one [`Stage`] do not depend on one
    /// another but for parents before children (making) or after them (removing).
    pub steps: Vec<Step>,
    /// Deletions that are not among the steps, because there are suspiciously many of them.
    pub held: Option<Hold>,
    /// What takes no part, and why.
    pub blocked: Vec<(RelPath, Blocked)>,
}

/// The order of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The base learns what is true already.
    Settle,
    /// Local losers of a conflict get out of the way; what is deleted inside them, or inside what
    /// comes in their place, goes first.
    SetAside,
    /// Files go to their new places; the folders that those need are made first.
    Move,
    /// What must be gone before something else can be put in its place.
    MakeRoom,
    /// Folders and files are made, parents first.
    Fill,
    /// What is left to remove, children first.
    Remove,
}

/// One operation. The side on which it acts, its precondition, and what the base becomes once it is
/// done stand in it, so that nothing has to be looked up in trees that have changed since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub stage: Stage,
    /// Where; for a rename or move where from.
    pub path: RelPath,
    /// What.
    pub action: Action,
}

/// What a step does. Each fails, with nothing done, when its precondition does not hold any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Base: both sides agree on this.
    Adopt {
        /// What the server has there.
        remote: Remote,
        /// What the disk has there.
        stat: Stat,
    },
    /// Base: neither side has it any more, or the disk's folder holds only what is never synced and
    /// stays out of the sync from now on.
    Forget,

    /// Disk: the file or folder takes a conflict name beside its own, and is a new local entry
    /// there. The base of the path is dropped, and for a folder that of everything below it. (Below a
    /// path where the disk has a file the base says what it deleted: that is kept.)
    SetAside {
        /// The new name; never replaces anything.
        to: RelPath,
        /// The entry that is meant.
        stat: Stat,
    },
    /// Disk: follows a move that was made at the server.
    MoveLocal {
        /// The new place; never replaces anything.
        to: RelPath,
        /// What the server has there; base after it.
        remote: Remote,
        /// The file that is meant, unchanged.
        stat: Stat,
    },
    /// Disk: a folder.
    MakeLocalDirectory {
        /// The server's; base after it.
        remote: Remote,
    },
    /// Disk: the server's content, whole or not at all.
    Fetch {
        /// The server's; base after it.
        remote: Remote,
        /// Its content.
        content: Content,
        /// The unchanged file that it replaces; `None`: there is nothing at this path.
        replaces: Option<Replaced>,
    },
    /// Disk: an unchanged file goes to the trash.
    DeleteLocal {
        /// The file that is meant.
        replaced: Replaced,
    },
    /// Disk: a folder in which nothing is left.
    RemoveLocalDirectory,

    /// Server: follows a move that was made on the disk.
    MoveRemote {
        /// The new place, where the server has nothing.
        to: RelPath,
        /// The server's entry.
        remote: Remote,
        /// The file at its new place; base after it.
        stat: Stat,
    },
    /// Server: a folder.
    MakeRemoteDirectory {
        /// The disk's; base after it.
        stat: Stat,
    },
    /// Server: the disk's content.
    Send {
        /// What is sent.
        content: Content,
        /// The file that holds it.
        stat: Stat,
        /// The version that it replaces; `None`: the server has nothing at this path.
        expect: Option<VersionId>,
    },
    /// Server: a file that the disk has not any more.
    DeleteRemote {
        /// The entry and the version that may be deleted.
        id: EntryId,
        /// The version.
        version: VersionId,
    },
    /// Server: a folder in which nothing is left.
    RemoveRemoteDirectory {
        /// The entry.
        id: EntryId,
    },
}

impl Step {
    /// The new place, for a rename or move.
    pub fn to(&self) -> Option<&RelPath> {
        match &self.action {
            Action::SetAside { to, .. }
            | Action::MoveLocal { to, .. }
            | Action::MoveRemote { to, .. } => Some(to),
            Action::Adopt { .. }
            | Action::Forget
            | Action::MakeLocalDirectory { .. }
            | Action::Fetch { .. }
            | Action::DeleteLocal { .. }
            | Action::RemoveLocalDirectory
            | Action::MakeRemoteDirectory { .. }
            | Action::Send { .. }
            | Action::DeleteRemote { .. }
            | Action::RemoveRemoteDirectory { .. } => None,
        }
    }
}

/// A file on the disk that may be replaced or deleted, if it still is what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Replaced {
    pub stat: Stat,
    pub content: Content,
}

/// Deletions that wait for a person's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The steps that were taken out.
    pub steps: Vec<Step>,
    /// Why.
    pub why: HoldReason,
}

/// Why deletions are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldReason {
    /// Over half of the drive, and at least ten entries, would go.
    MostOfTheDrive {
        /// Entries that would go.
        deleted: usize,
        /// Entries in the base.
        of: usize,
    },
    /// Nothing would be left on one side.
    Everything {
        /// Entries that would go.
        deleted: usize,
    },
}

impl HoldReason {
    /// How many entries would go.
    pub fn deletions(self) -> usize {
        match self {
            Self::MostOfTheDrive { deleted, .. } | Self::Everything { deleted } => deleted,
        }
    }
}

/// Why nothing is done at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// The disk has something there that takes no part.
    Local(Opaque),
    /// The server has an entry there that this disk cannot hold.
    Name(PathError),
    /// The server may not be written to.
    ReadOnly,
}
