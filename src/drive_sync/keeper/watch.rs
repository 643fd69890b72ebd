//! Hints from the system that something in a drive's folder has changed.
//!
//! Only hints: they may be late, doubled or lost, and writes through a memory map give none. What is
//! so is found by the look at everything, which comes now and then.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::{Config, ErrorKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::super::path::RelPath;

/// Hints that wait to be taken.
const WAITING: usize = 4096;

/// Where something has changed; `None`: hints were lost.
pub(super) type Hint = Option<RelPath>;

/// The watch over one folder.
#[derive(Debug)]
pub(super) struct Watch {
    /// Dropped, it ends.
    watcher: RecommendedWatcher,
    root: PathBuf,
    hints: mpsc::Receiver<Hint>,
    lost: Arc<AtomicBool>,
    /// There were no more watches for a folder that was made meanwhile.
    incomplete: Arc<AtomicBool>,
}

impl Watch {
    /// Begins to watch what can be read. An error (there are only so many watches to be had) means
    /// that changes are found by looking only.
    pub(super) fn over(root: &Path, wake: mpsc::Sender<()>) -> notify::Result<Self> {
        let (send, hints) = mpsc::channel(WAITING);
        let (lost, incomplete) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (home, dropped, out) = (root.to_owned(), Arc::clone(&lost), Arc::clone(&incomplete));
        let heard = move |event: notify::Result<notify::Event>| {
            if matches!(&event, Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch)) {
                out.store(true, Ordering::Relaxed);
            }
            for hint in hints_of(&home, event) {
                if send.try_send(hint).is_err() {
                    dropped.store(true, Ordering::Relaxed);
                }
                // Full: there is a wake-up on its way already.
                let _ = wake.try_send(());
            }
        };
        // A link may lead to anywhere, and is never followed by drive sync itself.
        let config = Config::default().with_follow_symlinks(false);
        let mut watcher = RecommendedWatcher::new(heard, config)?;
        watch_below(&mut watcher, root)?;
        Ok(Self { watcher, root: root.to_owned(), hints, lost, incomplete })
    }

    /// Watches a folder that could not be read before.
    pub(super) fn opened(&mut self, folder: &RelPath) -> Opened {
        let path = self.root.join(folder.to_string());
        if !is_folder(&path) {
            return Opened::NoFolder;
        }
        match watch_below(&mut self.watcher, &path) {
            Ok(()) => Opened::Watched,
            Err(error) => {
                if matches!(error.kind, ErrorKind::MaxFilesWatch) {
                    self.incomplete.store(true, Ordering::Relaxed);
                }
                Opened::Closed
            }
        }
    }

    /// The hints since the last time.
    pub(super) fn take(&mut self) -> Vec<Hint> {
        let mut hints = Vec::new();
        while let Ok(hint) = self.hints.try_recv() {
            hints.push(hint);
        }
        if self.lost.swap(false, Ordering::Relaxed) {
            hints.push(None);
        }
        hints
    }

    /// Whether all folders are watched.
    pub(super) fn is_complete(&self) -> bool {
        !self.incomplete.load(Ordering::Relaxed)
    }
}

/// What became of a folder that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// It is watched from now on.
    Watched,
    /// It still cannot be watched.
    Closed,
    /// It is none, or none any more.
    NoFolder,
}

/// Watches a folder with all below it, but for what cannot be read, or is gone again: it would be the
/// end of the watch for all that is looked at after it.
fn watch_below(watcher: &mut RecommendedWatcher, folder: &Path) -> notify::Result<()> {
    let Err(error) = watcher.watch(folder, RecursiveMode::Recursive) else { return Ok(()) };
    if !is_passed_over(&error) || error.paths.iter().any(|path| path == folder) {
        return Err(error);
    }
    for entry in std::fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        if !is_folder(&path) {
            continue;
        }
        match watch_below(watcher, &path) {
            Err(error) if !is_passed_over(&error) => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn is_passed_over(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(error) => {
            matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound)
        }
        ErrorKind::Generic(_)
        | ErrorKind::WatchNotFound
        | ErrorKind::InvalidConfig(_)
        | ErrorKind::MaxFilesWatch => false,
    }
}

/// Itself, and not by a link.
fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|facts| facts.is_dir())
}

fn hints_of(root: &Path, event: notify::Result<notify::Event>) -> Vec<Hint> {
    match event {
        Err(_) => vec![None],
        Ok(event) if event.need_rescan() => vec![None],
        Ok(event) if event.kind.is_access() => Vec::new(),
        Ok(event) => event.paths.iter().filter_map(|path| place(root, path)).map(Some).collect(),
    }
}

/// The place inside the drive; the engine's own entries and the root itself are none.
fn place(root: &Path, path: &Path) -> Option<RelPath> {
    RelPath::parse(path.strip_prefix(root).ok()?.to_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places of which a hint comes, up to that one.
    #[expect(clippy::disallowed_methods, reason = "the system's own hints take real time")]
    fn hints_until(watch: &mut Watch, last: &str) -> Vec<String> {
        let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
        let mut places = Vec::new();
        while !places.iter().any(|place| place == last) {
            assert!(std::time::Instant::now() < deadline, "no hint of {last}: {places:?}");
            places.extend(watch.take().into_iter().flatten().map(|place| place.to_string()));
            std::thread::yield_now();
        }
        places
    }

    #[test]
    fn what_links_lead_to_is_not_watched() {
        let dir = tempfile::tempdir().unwrap();
        let (root, elsewhere) = (dir.path().join("root"), dir.path().join("elsewhere"));
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, root.join("link")).unwrap();
        let mut watch = Watch::over(&root, mpsc::channel(1).0).unwrap();
        std::fs::write(elsewhere.join("a"), "").unwrap();
        std::fs::write(root.join("b"), "").unwrap();
        let places = hints_until(&mut watch, "b");
        assert!(places.iter().all(|place| place == "b"), "{places:?}");
        assert!(watch.is_complete());
    }

    /// Whether this process may read everything whatever its mode says.
    fn reads_all(closed: &Path) -> bool {
        std::fs::read_dir(closed).is_ok()
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_passed_over_and_watched_when_it_can_be() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let closed = dir.path().join("a/closed");
        std::fs::create_dir_all(closed.join("in")).unwrap();
        std::fs::create_dir_all(dir.path().join("a/z/in")).unwrap();
        let mode = |mode| {
            std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(0);
        if reads_all(&closed) {
            // Shown with the real binary for another user.
            return mode(0o755);
        }
        let mut watch = Watch::over(dir.path(), mpsc::channel(1).0).unwrap();
        let folder = RelPath::parse("a/closed").unwrap();
        assert_eq!(watch.opened(&folder), Opened::Closed);
        std::fs::write(dir.path().join("a/z/in/file"), "").unwrap();
        hints_until(&mut watch, "a/z/in/file");
        mode(0o755);
        assert_eq!(watch.opened(&folder), Opened::Watched);
        std::fs::write(closed.join("in/file"), "").unwrap();
        hints_until(&mut watch, "a/closed/in/file");
        let file = RelPath::parse("a/z/in/file").unwrap();
        assert_eq!(watch.opened(&file), Opened::NoFolder);
        assert!(Watch::over(&dir.path().join("none"), mpsc::channel(1).0).is_err());
    }
}
