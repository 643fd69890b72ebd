//! What the control plane answers.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Inline, Metadata};

/// A file or a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its own for life.
    pub id: String,
    /// Where it belongs.
    pub drive_id: String,
    /// Where it is.
    pub path: String,
    /// What it is; an entry never turns into the other one.
    pub entry_type: EntryType,
    /// See [the module](super).
    pub current_version_id: String,
    /// Null for a directory.
    pub content_sha256: Option<String>,
    /// Null for a directory.
    pub size_bytes: Option<u64>,
    /// Null for a directory.
    pub mime_type: Option<String>,
    /// Empty where nothing is known.
    #[serde(default)]
    pub metadata: Metadata,
    /// When it last changed, by the server's clock.
    pub updated_at: String,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryType {
    /// It has a content.
    File,
    /// It has entries.
    Directory,
}

/// What a token may do with a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Look.
    Read,
    /// Look and change.
    Write,
}

/// Answer to [`Action::Hello`](super::Action::Hello).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Those that the token may use, by name.
    pub drives: Vec<Drive>,
    /// When the token ends.
    pub token_expires_at: String,
    /// Bounds on what follows.
    pub limits: Limits,
}

/// A drive as the token sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drive {
    /// Its own for life.
    pub drive_id: String,
    /// For people.
    pub name: String,
    /// For directories: `a-z`, `0-9`, `-`; unique among a team's drives.
    pub slug: String,
    /// What the token may do.
    pub access: Access,
    /// Sequence of its latest change; 0 while there is none.
    pub head_sequence: u64,
    /// Other than last time: the drive was taken back to an earlier state, sequences and versions
    /// that are known from before mean nothing any more.
    pub epoch: String,
}

/// Bounds on requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Entries in a batch.
    pub batch: u32,
    /// Bytes of one inline content.
    pub inline_bytes: u64,
    /// Bytes of all inline contents of one request.
    pub inline_total_bytes: u64,
    /// Bytes of a part.
    pub part_bytes: u64,
    /// Bytes of a file.
    pub file_bytes: u64,
    /// Changes in one answer.
    pub changes: u32,
}

/// Answer to [`Action::Renew`](super::Action::Renew).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// The new one. The old one stays in force until its own end.
    pub token: String,
    /// When it ends.
    pub expires_at: String,
}

impl fmt::Debug for Renewed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Renewed")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Answer to [`Action::Changes`](super::Action::Changes).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// [`Drive::epoch`].
    pub epoch: String,
    /// In the order of their sequences.
    pub changes: Vec<Change>,
    /// Whether there are more: ask again after the last one.
    pub has_more: bool,
    /// Sequence of the latest change of the drive.
    pub head_sequence: u64,
}

/// Something that happened to an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its place in the order.
    pub sequence: u64,
    /// Whose.
    pub entry_id: String,
    /// Where the entry is after it; where it was, if it was deleted.
    pub path: String,
    /// Where it was, if it was moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_path: Option<String>,
    /// What happened.
    pub change: ChangeKind,
    /// The entry as it was right after; absent if it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Entry>,
    /// By which operation.
    pub source_operation_id: String,
    /// [`Request::client_key`](super::Request::client_key) of whoever did it; absent for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
}

/// What happened to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new, or its content or metadata is.
    Upsert,
    /// It is gone.
    Delete,
    /// It is elsewhere, itself or with a directory above it; its version is the same.
    Move,
}

/// Answer to [`Action::Snapshot`](super::Action::Snapshot): a page of all entries, in the byte order of their paths, so that
/// parents come first. All pages together show one moment, that of `as_of_sequence`, whatever
/// happens while they are read. A reader so slow that this moment is not kept any more gets
/// [`Code::CursorExpired`] and starts again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`Drive::epoch`], the same on every page: a page token of another one is
    /// [`Code::CursorExpired`].
    pub epoch: String,
    /// Head of the drive when the first page was read; the same on every page.
    pub as_of_sequence: u64,
    /// Those of this page.
    pub entries: Vec<Entry>,
    /// For [`Action::Snapshot`](super::Action::Snapshot); absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page: Option<String>,
}

/// Answer to [`Action::Digest`](super::Action::Digest).
///
/// Each entry is a line, lines are sorted as bytes, each ends with `\n`, and SHA-256 goes over all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// [`Drive::epoch`].
    pub epoch: String,
    /// Of the state that was hashed.
    pub head_sequence: u64,
    /// Entries.
    pub count: u64,
    /// Over lines `id:version`, 64 hex digits.
    pub sha256: String,
    /// Over lines `id:version:path`, so that a lost move shows too.
    pub paths_sha256: String,
}

/// Answer to [`Action::PrepareUpload`](super::Action::PrepareUpload). Asking again with the same operation goes on with the same
/// upload: a fresh `url`, and what is there by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// For the commit. It is kept for a day; then it is [`Code::UploadNotFound`].
    pub upload_id: String,
    /// Where the bytes go. With `part_size`, `{part}` in it stands for the part's number, from 1.
    pub url: String,
    /// `PUT`.
    pub method: String,
    /// To be sent with each.
    pub headers: BTreeMap<String, String>,
    /// Bytes of each part but the last, if the content goes in parts: any order, some at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_size: Option<u64>,
    /// Parts that are there already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<u32>,
    /// The drive has that content: nothing is to be sent, commit at once.
    pub present: bool,
    /// The operation was done already: nothing is to be sent, nor committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<Done>,
}

/// Answer to a write that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The entry right after it; as it was, if it was deleted.
    pub entry: Entry,
    /// Of the operation's last change.
    pub sequence: u64,
}

/// Answer to [`Action::Download`](super::Action::Download).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// `GET` gives the bytes, without a token. It honours `Range` and, with an `ETag` of
    /// `"<content_sha256>"`, `If-Match` and `If-Range`. Empty if `content` is there.
    pub url: String,
    /// To be sent with it.
    pub headers: BTreeMap<String, String>,
    /// Of the content.
    pub size_bytes: u64,
    /// Of the content.
    pub content_sha256: String,
    /// When `url` ends.
    pub expires_at: String,
    /// The content itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Inline>,
}

/// Answer to [`Action::Downloads`](super::Action::Downloads).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downloads {
    /// One for each that was asked for, in that order.
    pub results: Vec<DownloadResult>,
}

impl Downloads {
    /// About how many bytes of JSON they become.
    pub fn length(&self) -> usize {
        let content = |result: &DownloadResult| match result {
            DownloadResult::Found(Download { content: Some(content), .. }) => content.0.len(),
            DownloadResult::Found(_) | DownloadResult::Refused(_) => 0,
        };
        self.results.iter().map(|result| 512 + content(result) * 4 / 3).sum::<usize>() + 64
    }
}

/// One of many downloads: [`Download`] or [`ErrorBody`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, try_from = "Either")]
pub enum DownloadResult {
    /// `{error: …}`
    Refused(ErrorBody),
    /// With `content` if it is small and the answer has room for it, with `url` otherwise.
    Found(Download),
}

/// What either has, so that contents are read where they stand; trying one after the other would
/// have all of it in memory once more.
#[derive(Deserialize)]
struct Either {
    error: Option<ErrorDetail>,
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    size_bytes: Option<u64>,
    content_sha256: Option<String>,
    expires_at: Option<String>,
    content: Option<Inline>,
}

impl TryFrom<Either> for DownloadResult {
    type Error = &'static str;

    fn try_from(either: Either) -> Result<Self, Self::Error> {
        if let Some(error) = either.error {
            return Ok(Self::Refused(ErrorBody { error }));
        }
        let found = || {
            Some(Download {
                url: either.url?,
                headers: either.headers,
                size_bytes: either.size_bytes?,
                content_sha256: either.content_sha256?,
                expires_at: either.expires_at?,
                content: either.content,
            })
        };
        found().map(Self::Found).ok_or("neither a download nor an error")
    }
}

/// Answer to [`Action::Batch`](super::Action::Batch).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchDone {
    /// One for each operation, in that order.
    pub results: Vec<OperationResult>,
}

/// One of many writes: the answer that the action alone would have had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OperationResult {
    /// `{error: …}`
    Refused(ErrorBody),
    /// `{entry, sequence}`
    Done(Box<Done>),
    /// `{upload_id, …}`
    Prepared(Box<Prepared>),
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What it is about.
    pub error: ErrorDetail,
}

/// The error proper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// For programs.
    pub code: Code,
    /// For people; one sentence.
    pub message: String,
    /// With [`Code::VersionConflict`] and [`Code::NotEmpty`]: what is at the path (of a move: at
    /// `from` if that is not as expected, else at `to`). Absent: nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Box<Entry>>,
}

/// For programs. In brackets: the HTTP status, where it is not inside an answer to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The token is none, forged, or not for drives \[401\].
    Unauthorized,
    /// The token has ended: get a new one \[401\].
    TokenExpired,
    /// It cannot be meant so \[400\].
    InvalidRequest,
    /// A path breaks the rules \[400\].
    InvalidPath,
    /// [`PROTOCOL`](super::PROTOCOL) is another one \[400\].
    UnsupportedProtocol,
    /// The token may only read that drive \[403\].
    ReadOnly,
    /// There is no such drive for that token \[404\].
    DriveNotFound,
    /// There is no such version \[404\].
    NotFound,
    /// There is no such upload, or not any more \[404\].
    UploadNotFound,
    /// What is there is not what was expected \[409\].
    VersionConflict,
    /// The directory has entries \[409\].
    NotEmpty,
    /// No directory is where the parent would be \[409\].
    ParentMissing,
    /// The operation's id belongs to another request \[409\].
    OperationReused,
    /// Parts of the content are missing \[409\].
    ContentMissing,
    /// Changes after that sequence are not kept any more: take a snapshot \[410\].
    CursorExpired,
    /// A bound is passed \[413\].
    TooLarge,
    /// Size or hash of the content are not what was said \[422\].
    ContentMismatch,
    /// The server has no room \[507\].
    NoRoom,
    /// Not now: try again \[503\].
    Unavailable,
    /// The server's own fault \[500\].
    Internal,
    /// One that this version does not know.
    #[serde(other)]
    Unknown,
}
