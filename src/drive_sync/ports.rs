//! What the engine needs from outside: a disk, a server, a clock, chance.
//!
//! The engine runs as one control task on a thread of its own, so these are plain blocking calls.
//! Where work can be done side by side a call takes a whole batch, and its implementation decides how
//! much of it at once; in tests it is done one by one in an order that a seed gives.

use std::collections::BTreeSet;
use std::time::Duration;

use super::model::{Content, EntryId, Kind, LocalTree, Remote, Sha256, Stat, VersionId};
use super::path::{PathError, RelPath};
use super::plan::Replaced;

// ---------------------------------------------------------------- disk

/// One drive's folder.
///
/// When a call that changes something returns `Ok`, the change is durable: a loss of power right
/// after it does not undo it. No call follows a symbolic link, leaves the root, or replaces content
/// that it did not expect without keeping it.
pub trait Fs {
    /// What this root is, by its marker and its device and inode. `Ok(None)`: it is there, and has
    /// no marker.
    fn root(&self) -> Result<Option<Root>, FsError>;

    /// Makes an empty or unmarked root this drive's, with a new marker.
    fn plant_marker(&self, drive_id: &str, marker: &str) -> Result<Root, FsError>;

    /// The tree as it is now. `previous` is what the last scan saw, and is used up: a file that shows
    /// the same stat and was not racy is not read again. With a scope only those places (and what is
    /// below them) are looked at, and the rest is taken from `previous`.
    fn scan(&self, previous: LocalTree, scope: &Scope) -> Result<LocalTree, FsError>;

    /// Makes one folder; its parent is there. An existing folder is [`FsError::Exists`].
    fn make_directory(&self, path: &RelPath) -> Result<Stat, FsError>;

    /// Removes a folder if nothing is in it, else [`FsError::NotEmpty`].
    fn remove_directory(&self, path: &RelPath) -> Result<(), FsError>;

    /// Gives an entry another place, where there must be nothing ([`FsError::Exists`]). The entry is
    /// the one with this device and inode, else [`FsError::Changed`] with nothing done. Returns the
    /// stat that it has then.
    fn rename(&self, from: &RelPath, to: &RelPath, stat: &Stat) -> Result<Stat, FsError>;

    /// Where a download is written: on the same file system, not visible as an entry. One that was
    /// begun for the same `key` before is continued.
    fn stage(&self, key: &str, content: &Content) -> Result<Box<dyn StageWriter + '_>, FsError>;

    /// Puts staged files in their places, all of them made durable together. Each as in
    /// [`Install`]; the results are in the order of the items.
    fn install(&self, items: Vec<Install>) -> Vec<Result<Installed, FsError>>;

    /// Puts a file into the trash if it is still as expected, else [`FsError::Changed`] with the
    /// file where it was.
    fn delete(&self, path: &RelPath, replaced: &Replaced) -> Result<(), FsError>;

    /// Opens a file to be sent. [`FsError::Changed`] when it is not the one expected.
    fn open(&self, path: &RelPath, stat: &Stat) -> Result<Box<dyn Source + '_>, FsError>;

    /// Bytes free for this drive.
    fn free_space(&self) -> Result<u64, FsError>;
}

/// Identity of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Root {
    pub drive_id: String,
    pub marker: String,
    pub dev: u32,
    pub ino: u64,
}

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    All,
    /// At these places and below them.
    Only(BTreeSet<RelPath>),
}

/// A download under way.
pub trait StageWriter: Send {
    /// Bytes that are there already, from an earlier try.
    fn written(&self) -> u64;
    /// Appends.
    fn write(&mut self, bytes: &[u8]) -> Result<(), FsError>;
    /// Starts over: what is there does not belong to this content.
    fn restart(&mut self) -> Result<(), FsError>;
    /// Size and hash are checked; [`FsError::WrongContent`] when they differ, and then nothing is
    /// left of it.
    fn finish(self: Box<Self>) -> Result<Staged, FsError>;
}

/// A file that is whole, has the right content, and waits for its place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Staged {
    pub key: String,
    pub content: Content,
}

/// A staged file and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Install {
    /// The file.
    pub staged: Staged,
    /// The place.
    pub path: RelPath,
    /// What it replaces. `None`: nothing may be there ([`FsError::Exists`]).
    pub replaces: Option<Replaced>,
    /// Its time of last change, for people; nothing is decided by it. Nanoseconds since 1970.
    pub mtime: Option<i64>,
}

/// A file that is in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// As it stands there.
    pub stat: Stat,
    /// What was replaced turned out to be other than expected: it was kept under this conflict name.
    pub rescued: Option<RelPath>,
}

/// A file to be sent: one open file, whatever happens to its name.
pub trait Source: Send {
    /// Up to `buffer.len()` bytes from there; 0 at the end.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, FsError>;
    /// Whether the open file, and what now stands at its path, are still the file that was opened,
    /// unchanged, and on the disk for good; else [`FsError::Changed`].
    fn check(&mut self) -> Result<(), FsError>;
}

/// Why the disk did not do it.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// The entry is not what was expected any more, or gone.
    #[error("it has changed meanwhile")]
    Changed,
    /// Something is there already.
    #[error("something is there already")]
    Exists,
    /// A folder holds something.
    #[error("the folder is not empty")]
    NotEmpty,
    /// Fetched bytes are not what was announced.
    #[error("the fetched content is not what the server announced")]
    WrongContent,
    /// This disk has no such names.
    #[error("this disk cannot hold the name: {0}")]
    Name(#[from] PathError),
    /// Too little space is left.
    #[error("too little space is left on the disk")]
    Full,
    /// The root is missing, or is another one than before: nothing may be done.
    #[error("the drive's folder is not the one that it was: {0}")]
    RootLost(String),
    /// The engine is to stop; nothing more is done.
    #[error("stopped")]
    Stopped,
    /// Anything else.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

// ---------------------------------------------------------------- server

/// One drive at the server.
pub trait Drive {
    /// Changes after a sequence number, oldest first.
    fn changes(&self, after: u64, limit: u32) -> Result<Changes, RemoteError>;

    /// Everything, a page at a time; `None` asks for the first.
    fn snapshot(&self, page: Option<&str>) -> Result<SnapshotPage, RemoteError>;

    /// What the server holds, in short.
    fn digest(&self) -> Result<Digest, RemoteError>;

    /// Makes, removes, moves: one after the other. A repeated operation id gets the answer that it
    /// got first.
    fn apply(&self, changes: &[Write]) -> Vec<Result<Written, RemoteError>>;

    /// Sends contents. Right before an upload counts, its source is checked: one that has changed is
    /// [`RemoteError::SourceChanged`], and nothing has happened.
    fn send(&self, uploads: Vec<Upload<'_>>) -> Vec<Result<Written, RemoteError>>;

    /// Asks what became of uploads whose answers were lost. `Ok(None)`: the server has not taken it.
    fn recall(&self, uploads: &[Recall]) -> Vec<Result<Option<Written>, RemoteError>>;

    /// Fetches contents into their writers.
    fn fetch(&self, downloads: Vec<Download<'_>>) -> Vec<Result<(), RemoteError>>;
}

/// An entry as the server tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteEntry {
    /// As it was told: it may be one that this disk cannot hold.
    pub path: String,
    /// The entry.
    pub remote: Remote,
}

/// A piece of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Changes {
    pub epoch: String,
    pub changes: Vec<Change>,
    pub has_more: bool,
    pub head: u64,
}

/// One change of the feed. A move is told once for each entry that moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Grows; gaps are normal.
    pub sequence: u64,
    /// The entry.
    pub id: EntryId,
    /// As it is now; `None`: it is gone.
    pub entry: Option<RemoteEntry>,
}

/// A piece of everything.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct SnapshotPage {
    pub epoch: String,
    pub as_of: u64,
    pub entries: Vec<RemoteEntry>,
    pub next_page: Option<String>,
}

/// What the server holds, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Digest {
    pub head: u64,
    pub count: u64,
    /// Over the lines `id:version`, sorted.
    pub sha256: Sha256,
    /// Over the lines `id:version:path`, sorted: a lost move shows here only.
    pub paths: Sha256,
}

/// A change of the server's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// A repetition has the same.
    pub operation_id: String,
    /// What.
    pub what: What,
}

/// What a [`Write`] does. Something other than expected is [`RemoteError::Conflict`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum What {
    MakeDirectory { path: RelPath },
    Delete { path: RelPath, id: EntryId, version: VersionId },
    RemoveDirectory { path: RelPath, id: EntryId },
    Move { from: RelPath, to: RelPath, id: EntryId, version: VersionId },
}

/// A file to send.
#[expect(missing_docs, reason = "the names say it")]
pub struct Upload<'a> {
    pub operation_id: String,
    pub path: RelPath,
    pub content: Content,
    /// The version that it replaces; `None`: nothing is there.
    pub expect: Option<VersionId>,
    pub source: Box<dyn Source + 'a>,
}

/// An upload whose end is not known, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Recall {
    pub operation_id: String,
    pub path: RelPath,
    pub content: Content,
    pub expect: Option<VersionId>,
}

/// A file to fetch.
#[expect(missing_docs, reason = "the names say it")]
pub struct Download<'a> {
    pub id: EntryId,
    pub version: VersionId,
    pub content: Content,
    pub into: &'a mut (dyn StageWriter + 'a),
}

/// The server did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The entry after it; `None`: it is gone.
    pub entry: Option<RemoteEntry>,
    /// Of the change in the feed.
    pub sequence: u64,
}

/// Why the server did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RemoteError {
    /// Something else than expected is there.
    #[error("the server has another version")]
    Conflict {
        /// What is there.
        current: Option<RemoteEntry>,
    },
    /// The feed does not reach back that far.
    #[error("the server has forgotten the changes since then")]
    CursorExpired,
    /// The file to send is not what it was.
    #[error("the file changed while it was sent")]
    SourceChanged,
    /// Writing on this side failed.
    #[error("could not write what was fetched: {0}")]
    Local(String),
    /// So did writing on this side, for want of space.
    #[error("too little space is left on the disk")]
    Full,
    /// This gateway may not write.
    #[error("the drive may only be read")]
    ReadOnly,
    /// This gateway has no access to the drive any more, or it is gone.
    #[error("no access to the drive")]
    AccessLost,
    /// The token that opens the drives is not accepted, and no other one could be had.
    #[error("the drives' token is not accepted: {message}")]
    TokenRefused {
        /// The server's words, and why there is no other one.
        message: String,
    },
    /// This will never be taken.
    #[error("the server refuses it: {code}: {message}")]
    Refused {
        /// The server's code.
        code: String,
        /// Its words.
        message: String,
    },
    /// Not reached, or busy: worth another try.
    #[error("the server cannot be reached: {message}")]
    Unavailable {
        /// What went wrong.
        message: String,
        /// When the server asks for time.
        retry_after: Option<Duration>,
    },
    /// The engine is to stop; nothing more is done.
    #[error("stopped")]
    Stopped,
}

impl Written {
    /// What stands at the path now.
    pub fn kind(&self) -> Option<Kind> {
        self.entry.as_ref().map(|entry| entry.remote.kind)
    }
}

// ---------------------------------------------------------------- time and chance

/// Time, as the engine sees it.
pub trait Clock {
    /// Nanoseconds since 1970; for names and records that people read.
    fn wall(&self) -> i64;
    /// Since some start; only grows.
    fn elapsed(&self) -> Duration;
}

/// Chance: for operation ids and for spreading retries.
pub trait Rng {
    /// 64 random bits.
    fn bits(&mut self) -> u64;
}
