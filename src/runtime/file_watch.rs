//! Tells when files of given names are changed, replaced or removed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Notifies `changed` until the watcher is dropped; now and then also when nothing changed. The
/// directories are watched: a file is replaced by a rename, which its own watch would not follow.
/// Watches can be exhausted and events lost, so whoever asks looks by himself now and then, too.
pub(super) fn watch(files: &[PathBuf], changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let names: Vec<_> = files.iter().filter_map(|file| file.file_name()).collect();
    let names: Vec<_> = names.into_iter().map(ToOwned::to_owned).collect();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let concerns_us = match &event {
            // Lost events and errors mean: look.
            Err(_) => true,
            Ok(event) => {
                let mut touched = event.paths.iter().filter_map(|path| path.file_name());
                let is_ours = |name| names.iter().any(|ours| ours == name);
                event.need_rescan() || (!event.kind.is_access() && touched.any(is_ours))
            }
        };
        if concerns_us {
            changed.notify_one();
        }
    })?;
    for file in files {
        let dir = file.parent().unwrap_or(Path::new("/"));
        watcher.watch(dir, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}
