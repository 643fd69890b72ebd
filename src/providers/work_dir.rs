//! The directory that a CLI's run has for itself.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::PlanFile;
use crate::fs::{FsError, Owner, acting_as, ensure_private_dir};
use crate::process::ExecUser;

/// Name of the directory for temporary files inside a work dir.
const TMP: &str = ".tmp";
/// How folders are named that are being removed.
const GOING: &str = ".going.";
/// Somebody else's removal may take an empty parent away so often while a work dir is made.
const TRIES: u32 = 10;

/// Why there is no work dir.
#[derive(Debug, thiserror::Error)]
pub enum WorkDirError {
    /// The id cannot be the name of a directory.
    #[error("the id {0:?} cannot name a work dir")]
    Name(String),
    /// A plan's file would lie outside.
    #[error("a plan's file cannot be named {0:?}")]
    FileName(String),
    /// The parent cannot be used.
    #[error(transparent)]
    Parent(#[from] FsError),
    /// It could not be made, or not be filled.
    #[error("could not make {path}")]
    Io {
        /// What could not be made.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A private directory of one run. It is removed with everything in it, at the latest when this is
/// dropped; of a kept one only the temporary files are.
#[derive(Debug)]
pub struct WorkDir {
    /// `None` when it is removed.
    path: Option<PathBuf>,
    kept: bool,
    /// Whose it is, where it is not ours.
    user: Option<ExecUser>,
}

impl WorkDir {
    /// Makes `<work>/<id>` anew (0700), with these files (0600) and a directory for temporary ones.
    pub async fn make(work: &Path, id: &str, files: &[PlanFile]) -> Result<Self, WorkDirError> {
        Self::make_as(None, work, id, files).await
    }

    /// The same as and for another user, in a `work` of theirs.
    pub async fn make_as(
        user: Option<ExecUser>,
        work: &Path,
        id: &str,
        files: &[PlanFile],
    ) -> Result<Self, WorkDirError> {
        if !is_name(id) {
            return Err(WorkDirError::Name(id.to_owned()));
        }
        Self::prepare(work.join(id), false, user, files).await
    }

    /// The same, with what an earlier run left in it, and left in place for the next one: a session
    /// is continued where it began.
    pub async fn keep(work: &Path, id: &str, files: &[PlanFile]) -> Result<Self, WorkDirError> {
        Self::keep_as(None, work, id, files).await
    }

    /// The same as and for another user, in a `work` of theirs.
    pub async fn keep_as(
        user: Option<ExecUser>,
        work: &Path,
        id: &str,
        files: &[PlanFile],
    ) -> Result<Self, WorkDirError> {
        if !is_name(id) {
            return Err(WorkDirError::Name(id.to_owned()));
        }
        Self::prepare(work.join(id), true, user, files).await
    }

    async fn prepare(
        path: PathBuf,
        kept: bool,
        user: Option<ExecUser>,
        files: &[PlanFile],
    ) -> Result<Self, WorkDirError> {
        let (failed, files) = (path.clone(), files.to_vec());
        // Made in there, so that it is removed even if nobody waits for it any more.
        let made = tokio::task::spawn_blocking(move || {
            let owner = user.as_ref().map(ExecUser::owner);
            acting_as(owner, || Self::prepare_now(path, kept, user, &files))
        });
        match made.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(made) => made,
            Err(source) => Err(WorkDirError::Io { path: failed, source }),
        }
    }

    fn prepare_now(
        path: PathBuf,
        kept: bool,
        user: Option<ExecUser>,
        files: &[PlanFile],
    ) -> Result<Self, WorkDirError> {
        if kept && is_usable(&path) {
            remove_all(&path.join(TMP));
        } else {
            create(&path)?;
        }
        let dir = Self { path: Some(path), kept, user };
        let root = dir.path();
        make_dir(&root.join(TMP))?;
        for file in files {
            if kept {
                std::fs::remove_file(root.join(&file.path)).ok();
            }
            write(root, file)?;
        }
        Ok(dir)
    }

    /// Whose it is, where it is not ours.
    pub fn user(&self) -> Option<&ExecUser> {
        self.user.as_ref()
    }

    pub(super) fn owner(&self) -> Option<Owner> {
        self.user.as_ref().map(ExecUser::owner)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// For temporary files of the run.
    pub fn tmp(&self) -> PathBuf {
        self.path().join(TMP)
    }

    /// Removes it, and its parents as far as they are empty then; of a kept one its temporary files.
    pub async fn remove(mut self) {
        if let Some(path) = self.path.take() {
            let (kept, owner) = (self.kept, self.owner());
            // Goes on when nobody waits for it any more.
            tokio::task::spawn_blocking(move || leave_as(owner, &path, kept)).await.ok();
        }
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            leave_as(self.owner(), &path, self.kept);
        }
    }
}

/// What the bounds of kept work dirs are.
#[derive(Debug, Clone, Copy)]
pub struct KeptBounds {
    /// Since the last run in one.
    pub age: Duration,
    /// Of all of them together.
    pub bytes: u64,
}

impl KeptBounds {
    /// 30 days and 2 GiB.
    pub const USUAL: Self = Self { age: Duration::from_hours(24 * 30), bytes: 2 << 30 };
}

/// Removes kept work dirs that are past their bounds, those that were used longest ago first, but
/// none of `in_use`. Blocks.
pub fn bound_kept_dirs(work: &Path, bounds: KeptBounds, in_use: &dyn Fn(&str) -> bool) {
    if !is_usable(work) {
        return;
    }
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(work).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(GOING.as_bytes()) {
            remove(&path);
            continue;
        }
        let used = entry.metadata().and_then(|meta| meta.modified()).ok();
        if let Some(used) = used.filter(|_| is_usable(&path)) {
            kept.push((used, size_of(&path), path));
        }
    }
    kept.sort_unstable();
    let mut bytes: u64 = kept.iter().map(|(_, size, _)| size).sum();
    for (used, size, path) in kept {
        let too_old = used.elapsed().is_ok_and(|age| age > bounds.age);
        let busy = path.file_name().and_then(|name| name.to_str()).is_some_and(in_use);
        if !busy && (too_old || bytes > bounds.bytes) {
            tracing::info!(path = %path.display(), size, "removing a subagent's folder");
            remove_at_once(&path);
            bytes = bytes.saturating_sub(size);
        }
    }
}

/// A run that begins meanwhile finds the folder whole or gone: removing it takes its time.
fn remove_at_once(path: &Path) {
    let Some(name) = path.file_name() else { return };
    let mut going = std::ffi::OsString::from(GOING);
    going.push(name);
    let going = path.with_file_name(going);
    match std::fs::rename(path, &going) {
        Ok(()) => remove(&going),
        Err(error) => tracing::warn!(path = %path.display(), %error, "a folder cannot be removed"),
    }
}

/// Removes the work dir of these names below each other, and its parents as far as they are empty
/// then. Nobody may work in there. Blocks.
pub fn remove_work_dir(work: &Path, names: &[&str]) {
    let mut path = work.to_owned();
    for name in names {
        // A link to elsewhere is not ours to empty.
        if !is_name(name) || !is_usable(&path) {
            return;
        }
        path.push(name);
    }
    if is_usable(&path) {
        remove(&path);
    }
}

/// Bytes of the files below, links not followed.
fn size_of(path: &Path) -> u64 {
    let (mut bytes, mut dirs) = (0, vec![path.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => dirs.push(entry.path()),
                Ok(meta) => bytes += meta.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

/// A directory, not a link to one.
fn is_usable(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
}

/// As the owner: who may change a directory meanwhile can lead root anywhere.
fn leave_as(owner: Option<Owner>, path: &Path, kept: bool) {
    if let Err(error) = acting_as(owner, || leave(path, kept)) {
        tracing::warn!(path = %path.display(), %error, "a work dir cannot be removed");
    }
}

fn leave(path: &Path, kept: bool) {
    if kept {
        remove_all(&path.join(TMP));
    } else {
        remove(path);
    }
}

/// Removes the work dirs that an earlier gateway left. Nobody may work in there meanwhile.
pub fn sweep_work_dirs(work: &Path) {
    // A link to elsewhere is not ours to empty.
    if !work.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return;
    }
    for entry in std::fs::read_dir(work).into_iter().flatten().flatten() {
        tracing::info!(path = %entry.path().display(), "removing what an earlier run left");
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        } else {
            std::fs::remove_file(entry.path()).ok();
        }
    }
    remove_empty(work);
}

/// One plain component: not empty, not `.` or `..`, without a separator.
fn is_name(id: &str) -> bool {
    let mut components = Path::new(id).components();
    matches!(components.next(), Some(Component::Normal(name)) if name == id)
        && components.next().is_none()
        && !id.contains('\0')
}

fn create(path: &Path) -> Result<(), WorkDirError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let mut tries = 0;
    loop {
        ensure_private_dir(parent)?;
        tries += 1;
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && tries < TRIES => {
                remove(path);
            }
            Err(error) if error.kind() == ErrorKind::NotFound && tries < TRIES => {}
            Err(source) => return Err(WorkDirError::Io { path: path.to_owned(), source }),
        }
    }
}

fn make_dir(path: &Path) -> Result<(), WorkDirError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| WorkDirError::Io { path: path.to_owned(), source })
}

fn write(root: &Path, file: &PlanFile) -> Result<(), WorkDirError> {
    let inside = Path::new(&file.path);
    let plain = inside.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || inside.file_name().is_none() {
        return Err(WorkDirError::FileName(file.path.clone()));
    }
    let path = root.join(inside);
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut new| new.write_all(file.contents.as_bytes()))
        .map_err(|source| WorkDirError::Io { path, source })
}

/// With its parents, as far as they are empty then.
fn remove(path: &Path) {
    remove_all(path);
    if let Some(parent) = path.parent() {
        remove_empty(parent);
    }
}

/// Best effort: what cannot be removed is swept at the next start.
fn remove_all(path: &Path) {
    let mut removed = std::fs::remove_dir_all(path);
    if removed.as_ref().is_err_and(|error| error.kind() == ErrorKind::PermissionDenied) {
        open_up(path);
        removed = std::fs::remove_dir_all(path);
    }
    match removed {
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            std::fs::remove_file(path).ok();
        }
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a work dir cannot be removed");
        }
        Ok(()) | Err(_) => {}
    }
}

/// Removes a file, a link or a directory with all that is below it, closed directories too. Best
/// effort. Blocks.
pub(crate) fn remove_tree(path: &Path) {
    remove_all(path);
}

/// The dir of the kind, and the one of all kinds.
fn remove_empty(work: &Path) {
    for dir in work.ancestors().take(2) {
        if std::fs::remove_dir(dir).is_err() {
            return;
        }
    }
}

/// A run may have closed directories to its own user.
fn open_up(path: &Path) {
    let mut dirs = vec![path.to_owned()];
    while let Some(dir) = dirs.pop() {
        std::fs::set_permissions(&dir, Permissions::from_mode(0o700)).ok();
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        // Links are not followed: their own type is asked for.
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.extend(below.map(|entry| entry.path()));
    }
}

#[cfg(test)]
mod tests;
