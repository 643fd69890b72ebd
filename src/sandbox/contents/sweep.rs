//! Removes contents that no row names: at start whatever a crash left, later what was released.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, params};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::usage::Usage;
use super::{ContentError, ContentHash, Contents, DIRECTORY, INCOMING, Inner, path_in};
use crate::fs::{self, FsError};
use crate::sandbox::store::Store;

/// How many are removed at a time: each holds up the database's writer for a moment.
const BATCH: usize = 64;
/// After a failure nobody says that there is something to remove.
const RETRY: Duration = Duration::from_mins(1);

/// A content that nobody names, as it was when that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unheld {
    hash: ContentHash,
    size: u64,
    version: i64,
    in_database: bool,
}

/// Makes the directories, and removes every file in them that the database does not name. All
/// contents together may take `limit` bytes. The data dir must be ours alone.
pub(in crate::sandbox) async fn start(
    data_dir: &Path,
    limit: u64,
    store: &Store,
) -> Result<Contents, ContentError> {
    let directory = data_dir.join(DIRECTORY);
    let (held, in_database): (HashSet<ContentHash>, i64) = store
        .write(|write| {
            write.tx.execute("DELETE FROM contents WHERE holders = 0", [])?;
            let mut all = write.tx.prepare("SELECT sha256 FROM contents WHERE bytes IS NULL")?;
            let held = all.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let small = "SELECT coalesce(sum(size), 0) FROM contents WHERE bytes IS NOT NULL";
            let in_database = write.tx.query_row(small, [], |row| row.get(0))?;
            Ok::<_, ContentError>((held, in_database))
        })
        .await?;
    let swept = directory.clone();
    let used = tokio::task::spawn_blocking(move || sweep(&swept, &held)).await??;
    let used = used.saturating_add(u64::try_from(in_database).unwrap_or(0));
    let usage = Arc::new(Usage::new(used, limit));
    let released = Notify::new();
    Ok(Contents { inner: Arc::new(Inner { directory, limit, usage, released }) })
}

/// Removes what is not in `held`; how many bytes remain.
fn sweep(directory: &Path, held: &HashSet<ContentHash>) -> Result<u64, FsError> {
    let incoming = directory.join(INCOMING);
    fs::ensure_private_dir(directory)?;
    fs::ensure_private_dir(&incoming)?;
    let (mut used, mut found) = (0_u64, 0_usize);
    for parent in entries(directory)? {
        for path in entries(&parent)? {
            let hash = path.file_name().and_then(OsStr::to_str).and_then(|name| name.parse().ok());
            let held =
                hash.is_some_and(|hash| held.contains(&hash) && path == path_in(directory, hash));
            if held {
                let metadata = path.symlink_metadata();
                used = used.saturating_add(metadata.map_or(0, |metadata| metadata.len()));
                found = found.saturating_add(1);
            } else {
                tracing::info!(path = %path.display(), "removing a content that nobody names");
                remove(&path)?;
            }
        }
    }
    if found < held.len() {
        let missing = held.len().saturating_sub(found);
        tracing::error!(missing, "contents of stored objects are missing");
    }
    Ok(used)
}

/// What is in a directory; nothing when it is none.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, FsError> {
    let list = || -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
    };
    match list() {
        Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(Vec::new()),
        listed => listed.map_err(|error| FsError::io("list", directory, error)),
    }
}

/// True when there was something.
fn remove(path: &Path) -> Result<bool, FsError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FsError::io("remove", path, error)),
    }
}

/// Removes what is released, until `stop`.
pub(in crate::sandbox) async fn run(contents: Contents, store: Store, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(RETRY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Cancel safe: a permit or a tick that was not taken comes again.
        tokio::select! {
            () = stop.cancelled() => return,
            () = contents.inner.released.notified() => {}
            _ = ticks.tick() => {}
        }
        loop {
            match remove_batch(&contents, &store).await {
                Ok(BATCH) if !stop.is_cancelled() => {}
                Ok(_) => break,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "could not remove contents that nobody names");
                    break;
                }
            }
        }
    }
}

/// Removes some; how many were looked at.
async fn remove_batch(contents: &Contents, store: &Store) -> Result<usize, ContentError> {
    let unheld = store.read(|reader| Ok::<_, ContentError>(unheld(reader)?)).await?;
    let looked_at = unheld.len();
    if unheld.is_empty() {
        return Ok(0);
    }
    // A power cut must not bring back a row whose file is gone.
    store.sync().await?;
    let mut result = Ok(looked_at);
    for one in unheld {
        let contents = contents.clone();
        // The writer is where rows come to name contents, so nothing does meanwhile. Others may
        // share this transaction and it may fail, so the row must be as it was committed.
        let removed = store.write(move |write| remove_one(&contents, write.tx, one)).await;
        // One that cannot be removed keeps no other.
        result = removed.and(result);
    }
    result
}

fn unheld(reader: &Connection) -> rusqlite::Result<Vec<Unheld>> {
    reader
        .prepare_cached(
            "SELECT sha256, size, version, bytes IS NOT NULL FROM contents
             WHERE holders = 0 LIMIT ?1",
        )?
        .query_map([i64::try_from(BATCH).unwrap_or(i64::MAX)], |row| {
            let size = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
            let (hash, version, in_database) = (row.get(0)?, row.get(2)?, row.get(3)?);
            Ok(Unheld { hash, size, version, in_database })
        })?
        .collect()
}

fn remove_one(contents: &Contents, tx: &Connection, unheld: Unheld) -> Result<(), ContentError> {
    let Unheld { hash, size, version, in_database } = unheld;
    let gone = tx
        .prepare_cached("DELETE FROM contents WHERE sha256 = ?1 AND holders = 0 AND version = ?2")?
        .execute(params![hash, version])?;
    // One in the database has no file, and its bytes went with the row.
    if gone > 0 && (remove(&contents.path(hash))? || in_database) {
        contents.inner.usage.give_back(size);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contents with one file on the disk that nobody names, and its row.
    async fn one_unheld(directory: &Path) -> (Contents, Connection, Unheld) {
        let store = Store::open(&directory.join("sandbox.db")).unwrap();
        let contents = start(directory, u64::MAX, &store).await.unwrap();
        let finished = finished(&contents).await;
        let hash = finished.hash();
        let database = Connection::open(directory.join("sandbox.db")).unwrap();
        contents.hold(&database, finished).unwrap();
        Contents::release(&database, hash).unwrap();
        let unheld = unheld(&database).unwrap();
        assert_eq!(unheld, [Unheld { hash, size: 4, version: 2, in_database: false }]);
        (contents, database, unheld[0])
    }

    async fn finished(contents: &Contents) -> super::super::Finished {
        let upload = contents.begin(4).await.unwrap();
        upload.write("some".into()).await.unwrap().finish().await.unwrap()
    }

    #[tokio::test]
    async fn what_nobody_names_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let (contents, database, unheld) = one_unheld(directory.path()).await;
        remove_one(&contents, &database, unheld).unwrap();
        assert!(!contents.path(unheld.hash).exists());
        assert!(super::unheld(&database).unwrap().is_empty());
        assert!(contents.open(unheld.hash, 0..4).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_somebody_named_meanwhile_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (contents, database, seen) = one_unheld(directory.path()).await;
        contents.hold(&database, finished(&contents).await).unwrap();
        remove_one(&contents, &database, seen).unwrap();
        assert!(contents.path(seen.hash).exists());
        // Named and let go of in a transaction that may yet fail.
        Contents::release(&database, seen.hash).unwrap();
        remove_one(&contents, &database, seen).unwrap();
        assert!(contents.path(seen.hash).exists());
    }

    #[tokio::test]
    async fn a_content_that_was_removed_can_come_again() {
        let directory = tempfile::tempdir().unwrap();
        let (contents, database, unheld) = one_unheld(directory.path()).await;
        // The removal was done and its transaction failed: the row is back, the file is not.
        std::fs::remove_file(contents.path(unheld.hash)).unwrap();
        contents.hold(&database, finished(&contents).await).unwrap();
        assert!(contents.path(unheld.hash).exists());
    }
}
