//! Hints from the system that something in a drive's folder has changed.
//!
//! Only hints: they may be late, doubled or lost, and writes through a memory map give none. What is
//! so is found by the look at everything, which comes now and then.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::{Config, ErrorKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::super::path::RelPath;
use super::lookout::{Hints, Opened};

/// Hints that wait to be taken.
const WAITING: usize = 4096;

/// Where something has changed; `None`: hints were lost.
pub(super) type Hint = Option<RelPath>;

/// The watch over one folder.
#[derive(Debug)]
pub(super) struct Watch {
    root: PathBuf,
    /// Dropped, it ends.
    watcher: RecommendedWatcher,
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
        let kinds = notify::EventKindMask::CORE;
        let config = Config::default().with_follow_symlinks(false).with_event_kinds(kinds);
        let mut watcher = RecommendedWatcher::new(heard, config)?;
        watcher.watch(root, RecursiveMode::Recursive)?;
        Ok(Self { root: root.to_owned(), watcher, hints, lost, incomplete })
    }
}

impl Hints for Watch {
    fn take(&mut self) -> Vec<Hint> {
        let mut hints = Vec::new();
        while let Ok(hint) = self.hints.try_recv() {
            hints.push(hint);
        }
        if self.lost.swap(false, Ordering::Relaxed) {
            hints.push(None);
        }
        hints
    }

    fn is_complete(&self) -> bool {
        !self.incomplete.load(Ordering::Relaxed)
    }

    /// A folder that is watched already does not take another of the system's watches.
    fn complete(&mut self) -> notify::Result<()> {
        // First: a folder that is made meanwhile may be too much again.
        self.incomplete.store(false, Ordering::Relaxed);
        let watched = self.watcher.watch(&self.root, RecursiveMode::Recursive);
        if watched.is_err() {
            self.incomplete.store(true, Ordering::Relaxed);
        }
        watched
    }

    fn opened(&mut self, folder: &RelPath) -> Opened {
        let path = self.root.join(folder.to_string());
        if !is_folder(&path) {
            return Opened::NoFolder;
        }
        match self.watcher.watch(&path, RecursiveMode::Recursive) {
            Ok(()) => Opened::Watched,
            Err(error) => {
                if matches!(error.kind, ErrorKind::MaxFilesWatch) {
                    self.incomplete.store(true, Ordering::Relaxed);
                }
                Opened::Closed
            }
        }
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

    /// Watching once more what is watched loses nothing, and takes in what was made unseen.
    #[test]
    fn a_watch_that_ran_out_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("old")).unwrap();
        let mut watch = Watch::over(dir.path(), mpsc::channel(1).0).unwrap();
        watch.incomplete.store(true, Ordering::Relaxed);
        assert!(!watch.is_complete());
        watch.complete().unwrap();
        assert!(watch.is_complete());
        std::fs::write(dir.path().join("old/a"), "").unwrap();
        hints_until(&mut watch, "old/a");
        std::fs::create_dir(dir.path().join("new")).unwrap();
        hints_until(&mut watch, "new");
        std::fs::remove_dir_all(dir.path()).unwrap();
        assert!(watch.complete().is_err() && !watch.is_complete());
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
