//! Contents of files, kept once each under their SHA-256 and shared by all rows that name it.
//! Small ones of drives are kept in the database, all others are files.
//!
//! A content comes in as a temp file, hashed on the way and synced ([`Upload`]). A write
//! transaction then gives it its name and counts the row that names it ([`Contents::hold`]); other
//! rows let go of theirs ([`Contents::release`]). A content that no row names is removed soon after
//! (`sweep`). A crash in between leaves a file that nobody names, which the next start removes.

mod hash;
mod sweep;
mod usage;

use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, Take};
use tokio::sync::Notify;

pub(super) use self::hash::ContentHash;
pub(super) use self::sweep::{run, start};
use self::usage::{Room, Usage};
use super::store::StoreError;
use crate::fs::{self, FsError};

/// Below the data dir.
const DIRECTORY: &str = "objects";
/// Below that: what is on its way in.
const INCOMING: &str = "incoming";

/// Why a content could not be kept or read. `Display` says what.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Longer than the caller allows.
    #[error("the content is larger than {limit} bytes")]
    TooLarge {
        /// The bound, bytes.
        limit: u64,
    },
    /// All contents together would be larger than the server's bound.
    #[error("all contents together may take no more than {limit} bytes")]
    NoRoom {
        /// The bound, bytes.
        limit: u64,
    },
    /// A file or directory cannot be used.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The work was cut short, which only a bug or a stopping runtime does.
    #[error("work on a content was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl From<rusqlite::Error> for ContentError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// All contents of a data dir. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// One directory for each first two digits, each file named by all digits.
    directory: PathBuf,
    limit: u64,
    usage: Arc<Usage>,
    /// Something was released.
    released: Notify,
}

/// A content on its way in. Dropping it leaves nothing.
#[derive(Debug)]
pub(super) struct Upload {
    temp: NamedTempFile,
    hasher: Sha256,
    size: u64,
    most: u64,
    limit: u64,
    room: Room,
}

/// A content that came in whole and is on the disk, but has no name yet. Dropping it leaves
/// nothing.
#[derive(Debug)]
pub(super) struct Finished {
    temp: NamedTempFile,
    hash: ContentHash,
    size: u64,
    room: Room,
}

impl Contents {
    /// Begins a content of at most `most` bytes.
    pub(super) async fn begin(&self, most: u64) -> Result<Upload, ContentError> {
        let inner = Arc::clone(&self.inner);
        let upload = tokio::task::spawn_blocking(move || {
            let temp = fs::temp_in(&inner.directory.join(INCOMING))?;
            let room = Room::new(Arc::clone(&inner.usage));
            Ok(Upload { temp, hasher: Sha256::new(), size: 0, most, limit: inner.limit, room })
        });
        upload.await?
    }

    /// A part of a content that is a file; `None` when there is no such file.
    pub(super) async fn open(
        &self,
        hash: ContentHash,
        range: Range<u64>,
    ) -> Result<Option<Take<tokio::fs::File>>, ContentError> {
        let path = self.path(hash);
        let mut file = match tokio::fs::File::open(&path).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FsError::io("open", &path, error).into()),
        };
        if range.start > 0 {
            let sought = file.seek(std::io::SeekFrom::Start(range.start)).await;
            sought.map_err(|error| FsError::io("read", &path, error))?;
        }
        Ok(Some(file.take(range.end.saturating_sub(range.start))))
    }

    /// Counts one more row that names this content, and puts the file in place when it is the
    /// first. To be called in the transaction that writes the row; when that is rolled back, the
    /// file stays until the next start.
    pub(super) fn hold(&self, tx: &Connection, finished: Finished) -> Result<(), ContentError> {
        let Finished { temp, hash, size, room } = finished;
        let holders: Option<i64> = tx
            .prepare_cached("SELECT holders FROM contents WHERE sha256 = ?1")?
            .query_row([hash], |row| row.get(0))
            .optional()?;
        if holders.is_none_or(|holders| holders <= 0) {
            let path = self.path(hash);
            let parent = path.parent().unwrap_or(&self.inner.directory);
            if !parent.is_dir() {
                fs::ensure_private_dir(parent)?;
                fs::sync_entries(&self.inner.directory)?;
            }
            // The file may be there, about to be removed: this one takes its place.
            fs::place(temp, &path)?;
            if holders.is_none() {
                room.keep();
            }
        }
        tx.prepare_cached(
            "INSERT INTO contents (sha256, size, holders, version) VALUES (?1, ?2, 1, 1)
             ON CONFLICT (sha256) DO UPDATE SET holders = holders + 1, version = version + 1",
        )?
        .execute(params![hash, i64::try_from(size).unwrap_or(i64::MAX)])?;
        Ok(())
    }

    /// The same for a content that is small enough to be kept in the database itself.
    pub(super) fn hold_small(
        &self,
        tx: &Connection,
        hash: ContentHash,
        bytes: &[u8],
    ) -> Result<(), ContentError> {
        let known = tx
            .prepare_cached(
                "UPDATE contents SET holders = holders + 1, version = version + 1
                 WHERE sha256 = ?1 AND holders > 0",
            )?
            .execute([hash])?;
        if known > 0 {
            return Ok(());
        }
        let mut room = Room::new(Arc::clone(&self.inner.usage));
        let limit = self.inner.limit;
        room.grow(bytes.len() as u64).map_err(|_| ContentError::NoRoom { limit })?;
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let is_new = tx
            .prepare_cached(
                "INSERT INTO contents (sha256, size, holders, version, bytes)
                 VALUES (?1, ?2, 1, 1, ?3) ON CONFLICT (sha256) DO NOTHING",
            )?
            .execute(params![hash, size, bytes])?;
        if is_new > 0 {
            room.keep();
            return Ok(());
        }
        // It is about to be removed, and its file, if it has one, may be gone already.
        tx.prepare_cached(
            "UPDATE contents SET holders = 1, version = version + 1, bytes = ?2 WHERE sha256 = ?1",
        )?
        .execute(params![hash, bytes])?;
        Ok(())
    }

    /// Counts one row more that names a content which another row names already.
    pub(super) fn hold_again(tx: &Connection, hash: ContentHash) -> rusqlite::Result<()> {
        tx.prepare_cached(
            "UPDATE contents SET holders = holders + 1, version = version + 1 WHERE sha256 = ?1",
        )?
        .execute([hash])
        .map(drop)
    }

    /// A content that is kept in the database; `None` for one that is a file, or is not there.
    pub(super) fn small(
        connection: &Connection,
        hash: ContentHash,
    ) -> rusqlite::Result<Option<Bytes>> {
        let bytes: Option<Option<Vec<u8>>> = connection
            .prepare_cached("SELECT bytes FROM contents WHERE sha256 = ?1")?
            .query_row([hash], |row| row.get(0))
            .optional()?;
        Ok(bytes.flatten().map(Bytes::from))
    }

    /// Counts one row less, in the transaction that changes the row. Call
    /// [`Contents::remove_released`] after the commit.
    pub(super) fn release(tx: &Connection, hash: ContentHash) -> rusqlite::Result<()> {
        tx.prepare_cached(
            "UPDATE contents SET holders = holders - 1, version = version + 1 WHERE sha256 = ?1",
        )?
        .execute([hash])
        .map(drop)
    }

    /// Has what nobody names any more removed soon.
    pub(super) fn remove_released(&self) {
        self.inner.released.notify_one();
    }

    fn path(&self, hash: ContentHash) -> PathBuf {
        path_in(&self.inner.directory, hash)
    }
}

fn path_in(directory: &Path, hash: ContentHash) -> PathBuf {
    let name = hash.to_string();
    let first = name.get(..2).unwrap_or_default();
    directory.join(first).join(&name)
}

impl Upload {
    /// Adds to the content. An error ends it. Cancel safe in that nothing is left behind.
    pub(super) async fn write(mut self, bytes: Bytes) -> Result<Self, ContentError> {
        let more = bytes.len() as u64;
        self.size = self.size.saturating_add(more);
        if self.size > self.most {
            return Err(ContentError::TooLarge { limit: self.most });
        }
        self.room.grow(more).map_err(|_| ContentError::NoRoom { limit: self.limit })?;
        let written = tokio::task::spawn_blocking(move || {
            self.hasher.update(&bytes);
            match self.temp.write_all(&bytes) {
                Ok(()) => Ok(self),
                Err(error) => Err(FsError::io("write", self.temp.path(), error).into()),
            }
        });
        written.await?
    }

    /// The content is whole: brings it to the disk.
    pub(super) async fn finish(self) -> Result<Finished, ContentError> {
        let finished = tokio::task::spawn_blocking(move || {
            let Self { temp, hasher, size, room, .. } = self;
            let synced = File::sync_all(temp.as_file());
            synced.map_err(|error| FsError::io("write", temp.path(), error))?;
            Ok(Finished { temp, hash: ContentHash::of(hasher), size, room })
        });
        finished.await?
    }
}

impl Finished {
    /// What it is called from now on.
    pub(super) fn hash(&self) -> ContentHash {
        self.hash
    }

    /// Bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}
