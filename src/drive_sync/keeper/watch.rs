//! Hints from the system that something in a drive's folder has changed.
//!
//! Only hints: they may be late, doubled or lost, and writes through a memory map give none. What is
//! so is found by the look at everything, which comes now and then.

use std::path::Path;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
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
    _watcher: RecommendedWatcher,
    hints: mpsc::Receiver<Hint>,
    lost: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Watch {
    /// Begins to watch. An error (there are only so many watches to be had) means that changes are
    /// found by looking only.
    pub(super) fn over(root: &Path, wake: mpsc::Sender<()>) -> notify::Result<Self> {
        let (send, hints) = mpsc::channel(WAITING);
        let lost = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (home, dropped) = (root.to_owned(), std::sync::Arc::clone(&lost));
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                for hint in hints_of(&home, event) {
                    if send.try_send(hint).is_err() {
                        dropped.store(true, std::sync::atomic::Ordering::Relaxed);
                    }
                    // Full: there is a wake-up on its way already.
                    let _ = wake.try_send(());
                }
            })?;
        watcher.configure(notify::Config::default().with_follow_symlinks(false)).ok();
        watcher.watch(root, RecursiveMode::Recursive)?;
        Ok(Self { _watcher: watcher, hints, lost })
    }

    /// The hints since the last time.
    pub(super) fn take(&mut self) -> Vec<Hint> {
        let mut hints = Vec::new();
        while let Ok(hint) = self.hints.try_recv() {
            hints.push(hint);
        }
        if self.lost.swap(false, std::sync::atomic::Ordering::Relaxed) {
            hints.push(None);
        }
        hints
    }
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
