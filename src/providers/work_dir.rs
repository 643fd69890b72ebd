//! The directory that a CLI's run has for itself.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use super::PlanFile;
use crate::fs::{FsError, ensure_private_dir};

/// Name of the directory for temporary files inside a work dir.
const TMP: &str = ".tmp";
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

/// A private directory that is removed with everything in it, at the latest when this is dropped.
#[derive(Debug)]
pub struct WorkDir {
    /// `None` when it is removed.
    path: Option<PathBuf>,
}

impl WorkDir {
    /// Makes `<work>/<id>` anew (0700), with these files (0600) and a directory for temporary ones.
    pub async fn make(work: &Path, id: &str, files: &[PlanFile]) -> Result<Self, WorkDirError> {
        if !is_name(id) {
            return Err(WorkDirError::Name(id.to_owned()));
        }
        let (path, files) = (work.join(id), files.to_vec());
        let failed = path.clone();
        // Made in there, so that it is removed even if nobody waits for it any more.
        let made = tokio::task::spawn_blocking(move || Self::make_now(path, &files)).await;
        made.unwrap_or_else(|error| {
            Err(WorkDirError::Io { path: failed, source: io::Error::other(error) })
        })
    }

    fn make_now(path: PathBuf, files: &[PlanFile]) -> Result<Self, WorkDirError> {
        create(&path)?;
        let dir = Self { path: Some(path) };
        let root = dir.path();
        make_dir(&root.join(TMP))?;
        for file in files {
            write(root, file)?;
        }
        Ok(dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// For temporary files of the run.
    pub fn tmp(&self) -> PathBuf {
        self.path().join(TMP)
    }

    /// Removes it, and its parents as far as they are empty then.
    pub async fn remove(mut self) {
        if let Some(path) = self.path.take() {
            // Goes on when nobody waits for it any more.
            tokio::task::spawn_blocking(move || remove(&path)).await.ok();
        }
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            remove(&path);
        }
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

/// Best effort: what cannot be removed is swept at the next start.
fn remove(path: &Path) {
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
    if let Some(parent) = path.parent() {
        remove_empty(parent);
    }
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
mod tests {
    use super::*;

    fn file(path: &str) -> PlanFile {
        PlanFile { path: path.to_owned(), contents: "x".to_owned() }
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_work_dir_is_private_and_goes_with_its_empty_parents() {
        let root = tempfile::tempdir().unwrap();
        let work = root.path().join("state/work/model");
        std::fs::create_dir(root.path().join("state")).unwrap();
        let [one, other] = ["one", "other"];
        let files = [file("schema.json"), file(".gemini/settings.json")];
        let one = WorkDir::make(&work, one, &files).await.unwrap();
        let other = WorkDir::make(&work, other, &[]).await.unwrap();
        for dir in [one.path(), &one.tmp(), &one.path().join(".gemini")] {
            assert_eq!(mode(dir), 0o700, "{}", dir.display());
        }
        assert_eq!(mode(&one.path().join(".gemini/settings.json")), 0o600);
        std::fs::write(one.tmp().join("left"), "behind").unwrap();
        one.remove().await;
        assert!(work.exists(), "the other one is still there");
        drop(other);
        assert!(!root.path().join("state/work").exists());
        assert!(root.path().join("state").exists());
    }

    #[tokio::test]
    async fn what_an_earlier_run_of_the_id_left_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let work = root.path().join("work/model");
        let outside = root.path().join("outside");
        std::fs::create_dir_all(work.join("id")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "").unwrap();
        std::fs::write(work.join("id/old"), "").unwrap();
        let dir = WorkDir::make(&work, "id", &[]).await.unwrap();
        assert!(!dir.path().join("old").exists());
        dir.remove().await;
        // A link in its place leads nowhere.
        std::fs::create_dir_all(&work).unwrap();
        std::os::unix::fs::symlink(&outside, work.join("id")).unwrap();
        let dir = WorkDir::make(&work, "id", &[file("kept")]).await.unwrap();
        dir.remove().await;
        assert_eq!(std::fs::read_to_string(outside.join("kept")).unwrap(), "");
    }

    #[tokio::test]
    async fn names_that_lead_elsewhere_are_refused() {
        let root = tempfile::tempdir().unwrap();
        for id in ["", ".", "..", "a/b", "/a", "a/", "./a", "../a", "a\0b"] {
            let made = WorkDir::make(root.path(), id, &[]).await;
            assert!(matches!(made, Err(WorkDirError::Name(_))), "{id:?}");
        }
        for path in ["", "..", "../a", "/etc/a", "a/../../b"] {
            let made = WorkDir::make(root.path(), "id", &[file(path)]).await;
            assert!(matches!(made, Err(WorkDirError::FileName(_))), "{path:?}");
        }
        assert!(!root.path().join("id").exists(), "a half-made one is removed");
    }

    #[test]
    fn a_sweep_takes_everything_but_follows_no_link() {
        let root = tempfile::tempdir().unwrap();
        let work = root.path().join("state/work/model");
        let outside = root.path().join("outside");
        std::fs::create_dir_all(work.join("one/deep/er")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "").unwrap();
        std::fs::write(work.join("file"), "").unwrap();
        std::os::unix::fs::symlink(&outside, work.join("link")).unwrap();
        std::fs::set_permissions(work.join("one/deep"), Permissions::from_mode(0o500)).unwrap();
        sweep_work_dirs(&work);
        assert!(!root.path().join("state/work").exists());
        assert!(outside.join("kept").exists());
        sweep_work_dirs(&work);
        std::fs::create_dir(root.path().join("state/work")).unwrap();
        std::os::unix::fs::symlink(&outside, &work).unwrap();
        sweep_work_dirs(&work);
        assert!(outside.join("kept").exists(), "the dir itself may be a link");
    }
}
