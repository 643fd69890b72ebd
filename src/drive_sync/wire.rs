//! What a VM and its control plane say to each other about drives: one shape for both ends.
//!
//! Every request is `POST {backend}/functions/v1/vm-drive-sync` with `Authorization: Bearer <drive
//! token>` and a [`Request`] as JSON. An answer with a status of 2xx is the type that the action
//! names; any other one is an [`ErrorBody`]. Both ends ignore fields that they do not know.
//!
//! # Units
//! Sizes are bytes. Times are RFC 3339 text. A `content_sha256` is 64 lower-case hex digits. A
//! `path` is relative to the drive's root: UTF-8, components joined by single `/`, none of them
//! empty, `.` or `..`, no NUL; at most 255 bytes a component and 4,096 in all. Paths are compared
//! byte by byte: neither letter case nor Unicode form is folded.
//!
//! # Sequences
//! Every change of a drive has a `sequence`, which grows in the order in which changes became
//! visible; there may be gaps. Replaying all changes after some state of the tree, in order, gives
//! the tree at the last one. A parent's change comes before its children's. An operation that
//! changes many entries (the move of a directory) is visible whole or not at all; its changes have
//! sequences of their own, one an entry.
//!
//! # Operations
//! Each write carries an `operation_id`, the writer's to choose (a random UUID). One that was done
//! is not done again: a repetition gets the answer of the first time, whatever happened since. One
//! that was refused left nothing behind and may be tried again under the same id. An id that was
//! used for another request is [`Code::OperationReused`].
//!
//! # Versions
//! An entry keeps its `id` for life, over edits and moves. Its `current_version_id` changes with its
//! content or metadata, not with its place. A directory has one version, from when it was made.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The function's name below `/functions/v1/`.
pub const FUNCTION: &str = "vm-drive-sync";
/// The protocol that [`Action::Hello`] speaks.
pub const PROTOCOL: u32 = 1;
/// Entries in one [`Action::Batch`] or [`Action::Downloads`] at most.
pub const MAX_BATCH: usize = 500;
/// Bytes of one content that may travel inside a request or an answer.
pub const MAX_INLINE: usize = 64 * 1024;
/// Bytes of all contents inside one request or answer at most.
pub const MAX_INLINE_TOTAL: usize = 8 * 1024 * 1024;
/// Bytes of each part of a larger content but the last; one of up to that many goes in one part.
pub const PART_SIZE: u64 = 8 * 1024 * 1024;
/// Bytes of one component of a path.
pub const MAX_NAME: usize = 255;
/// Bytes of a path.
pub const MAX_PATH: usize = 4096;

/// What a VM asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Names this mirror, so that it knows its own changes in the feed. At most 200 bytes.
    pub client_key: String,
    /// And what it wants.
    #[serde(flatten)]
    pub action: Action,
}

/// The request proper; `action` in JSON names which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Which drives there are. Answer: [`Hello`].
    Hello {
        /// [`PROTOCOL`]; another one is [`Code::UnsupportedProtocol`].
        protocol: u32,
    },
    /// A new drive token, while the old one is in force. Answer: [`Renewed`].
    Renew,
    /// What happened after a sequence. Answer: [`Changes`].
    Changes {
        /// Of which drive.
        drive_id: String,
        /// 0: from the beginning. Below what is kept: [`Code::CursorExpired`].
        after_sequence: u64,
        /// Changes at most: 1 to [`Limits::changes`]; more is taken as that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    },
    /// All that is there. Answer: [`Snapshot`].
    Snapshot {
        /// Of which drive.
        drive_id: String,
        /// [`Snapshot::next_page`] of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        page_token: Option<String>,
    },
    /// A hash over all that is there. Answer: [`Digest`].
    Digest {
        /// Of which drive.
        drive_id: String,
    },
    /// Where to send a content. Answer: [`Prepared`].
    PrepareUpload {
        /// Into which drive.
        drive_id: String,
        /// What is to be stored.
        #[serde(flatten)]
        file: PutFile,
    },
    /// Makes the content that was sent the file's. Answer: [`Done`].
    CommitUpload {
        /// Into which drive.
        drive_id: String,
        /// Which one.
        #[serde(flatten)]
        upload: CommitUpload,
    },
    /// A file with its content, in one step. Answer: [`Done`].
    Put {
        /// Into which drive.
        drive_id: String,
        /// What is to be stored.
        #[serde(flatten)]
        file: PutFile,
        /// Its bytes, [`MAX_INLINE`] at most.
        content: Inline,
    },
    /// Where to get a content. Answer: [`Download`], never with `content`.
    Download {
        /// From which drive.
        drive_id: String,
        /// Which one.
        #[serde(flatten)]
        wanted: Wanted,
    },
    /// Many contents: small ones right away, the place of others. Answer: [`Downloads`].
    Downloads {
        /// From which drive.
        drive_id: String,
        /// Up to [`MAX_BATCH`].
        entries: Vec<Wanted>,
    },
    /// A new directory. Answer: [`Done`].
    Mkdir {
        /// In which drive.
        drive_id: String,
        /// Where.
        #[serde(flatten)]
        directory: Mkdir,
    },
    /// Removes a file or an empty directory. Answer: [`Done`].
    Delete {
        /// From which drive.
        drive_id: String,
        /// What.
        #[serde(flatten)]
        what: Delete,
    },
    /// Gives a file or a whole directory another path. Answer: [`Done`].
    Move {
        /// In which drive.
        drive_id: String,
        /// From where, to where.
        #[serde(flatten)]
        what: Move,
    },
    /// Many writes. Answer: [`BatchDone`].
    Batch {
        /// In which drive, all of them.
        drive_id: String,
        /// Up to [`MAX_BATCH`], done in this order; one that is refused keeps no other. Each sees
        /// what those before it did. Contents inside take up to [`MAX_INLINE_TOTAL`].
        operations: Vec<Operation>,
    },
}

/// One write in a batch: what the action of that name takes, without `drive_id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Operation {
    /// See [`Action::PrepareUpload`].
    PrepareUpload(PutFile),
    /// See [`Action::CommitUpload`].
    CommitUpload(CommitUpload),
    /// See [`Action::Put`].
    Put {
        /// What is to be stored.
        #[serde(flatten)]
        file: PutFile,
        /// Its bytes, [`MAX_INLINE`] at most.
        content: Inline,
    },
    /// See [`Action::Mkdir`].
    Mkdir(Mkdir),
    /// See [`Action::Delete`].
    Delete(Delete),
    /// See [`Action::Move`].
    Move(Move),
}

/// A content that is to be a file's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutFile {
    /// Where; its parent must be a directory ([`Code::ParentMissing`] otherwise).
    pub path: String,
    /// Of the content.
    pub size_bytes: u64,
    /// Of the content.
    pub content_sha256: String,
    /// E.g. `text/plain`. Absent: `application/octet-stream`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// Of the file.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// The version that it replaces; null: nothing is at `path`. Anything else there:
    /// [`Code::VersionConflict`].
    pub expected_version_id: Option<String>,
    /// See [the module](self). The commit of a prepared upload carries the same one.
    pub operation_id: String,
}

/// What a file has beside its content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Unix permission bits, e.g. 493 (octal 755). Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

impl Metadata {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The end of an upload. Its expectation is looked at now, and so are size and hash of what was
/// sent ([`Code::ContentMismatch`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitUpload {
    /// [`Prepared::upload_id`].
    pub upload_id: String,
    /// As it was prepared.
    pub operation_id: String,
}

/// A new directory. Something at `path`: [`Code::VersionConflict`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mkdir {
    /// Where; its parent must be a directory.
    pub path: String,
    /// See [the module](self).
    pub operation_id: String,
}

/// Removes what is at `path`: a file or directory of `expected_version_id`, or a directory if
/// `expect_empty`. One of the two must be given; both may be. A directory that has entries is
/// [`Code::NotEmpty`]; what is not as expected is [`Code::VersionConflict`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// Where.
    pub path: String,
    /// The version that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version_id: Option<String>,
    /// A directory is there, with nothing in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expect_empty: bool,
    /// See [the module](self).
    pub operation_id: String,
}

/// Gives an entry another path. A directory takes all that is in it along, in one step: the feed
/// then has a [`ChangeKind::Move`] for each entry, parents first. Something at `to`:
/// [`Code::VersionConflict`]; `to` inside `from`: [`Code::InvalidRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Where it is.
    pub from: String,
    /// Where it goes; the parent must be a directory.
    pub to: String,
    /// The version that is at `from`.
    pub expected_version_id: String,
    /// See [the module](self).
    pub operation_id: String,
}

/// One version of one file. Old versions are kept for a while; one that is gone, or a directory, is
/// [`Code::NotFound`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wanted {
    /// [`Entry::id`].
    pub entry_id: String,
    /// [`Entry::current_version_id`] now or earlier.
    pub version_id: String,
}

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
    /// See [the module](self).
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

/// Answer to [`Action::Hello`].
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

/// Answer to [`Action::Renew`].
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

/// Answer to [`Action::Changes`].
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
    /// [`Request::client_key`] of whoever did it; absent for a person.
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

/// Answer to [`Action::Snapshot`]: a page of all entries, in the byte order of their paths, so that
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
    /// For [`Action::Snapshot`]; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page: Option<String>,
}

/// Answer to [`Action::Digest`].
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

/// Answer to [`Action::PrepareUpload`]. Asking again with the same operation goes on with the same
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

/// Answer to [`Action::Download`].
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

/// Answer to [`Action::Downloads`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downloads {
    /// One for each that was asked for, in that order.
    pub results: Vec<DownloadResult>,
}

/// One of many downloads: [`Download`] or [`ErrorBody`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DownloadResult {
    /// `{error: …}`
    Refused(ErrorBody),
    /// With `content` if it is small and the answer has room for it, with `url` otherwise.
    Found(Download),
}

/// Answer to [`Action::Batch`].
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
    /// [`PROTOCOL`] is another one \[400\].
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

/// A small content, as base64 (standard alphabet, padded) in JSON.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Inline(pub Vec<u8>);

impl fmt::Debug for Inline {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Inline({} bytes)", self.0.len())
    }
}

impl Serialize for Inline {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Inline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl de::Visitor<'_> for Text {
            type Value = Inline;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("base64 text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Inline, E> {
                STANDARD.decode(text).map(Inline).map_err(|_| E::custom("this is not base64"))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests;
