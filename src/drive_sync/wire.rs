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

mod answers;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use self::answers::{
    Access, BatchDone, Change, ChangeKind, Changes, Code, Digest, Done, Download, DownloadResult,
    Downloads, Drive, Entry, EntryType, ErrorBody, ErrorDetail, Hello, Limits, OperationResult,
    Prepared, Renewed, Snapshot,
};

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
    /// A new drive token, for one that is in force, or for the access token of the gateway's session
    /// as bearer: a machine may have slept for longer than its drive token lasted. Answer:
    /// [`Renewed`].
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

impl Action {
    /// About how many bytes of JSON it becomes, so that there is room for them at once.
    pub fn length(&self) -> usize {
        const USUAL: usize = 512;
        let with = |content: &Inline| USUAL + content.0.len() * 4 / 3;
        match self {
            Self::Put { content, .. } => with(content),
            Self::Batch { operations, .. } => {
                let one = |operation: &Operation| {
                    if let Operation::Put { content, .. } = operation {
                        with(content)
                    } else {
                        USUAL
                    }
                };
                USUAL + operations.iter().map(one).sum::<usize>()
            }
            Self::Downloads { entries, .. } => USUAL + entries.len() * 128,
            Self::Hello { .. }
            | Self::Renew
            | Self::Changes { .. }
            | Self::Snapshot { .. }
            | Self::Digest { .. }
            | Self::PrepareUpload { .. }
            | Self::CommitUpload { .. }
            | Self::Download { .. }
            | Self::Mkdir { .. }
            | Self::Delete { .. }
            | Self::Move { .. } => USUAL,
        }
    }
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
