//! Spools that an earlier gateway left: found at start, brought to their end, removed in time.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::spool;
use super::{Ended, open};
use crate::jobs::handlers::Host;
use crate::model::{GatewayId, RunId, SubagentId};

/// Spools that nothing refers to are kept this long after the last change.
const KEEP: Duration = Duration::from_hours(24 * 7);

/// A spool that an earlier gateway left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::jobs) struct Left {
    /// The subagent.
    pub(in crate::jobs) subagent_id: SubagentId,
    /// Its run.
    pub(in crate::jobs) run_id: RunId,
}

/// The spools of this gateway that were left. Those of 7 days and more are removed, unless their run
/// is one of `recorded`, those that the journal still has to bring to their end. To be called before
/// new runs begin.
pub(in crate::jobs) async fn left(host: &Host, recorded: Vec<RunId>) -> Vec<Left> {
    let (dir, gateway) = (host.journal.events_dir(), host.api.gateway().clone());
    let found = tokio::task::spawn_blocking(move || find(&dir, &gateway, &recorded)).await;
    found.unwrap_or_default()
}

fn find(dir: &Path, gateway: &GatewayId, recorded: &[RunId]) -> Vec<Left> {
    let mut found = Vec::new();
    for path in spool::files(dir) {
        let owner = match spool::owner_of(&path) {
            Ok(owner) => owner,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a file of events is left alone");
                continue;
            }
        };
        let wanted = owner.as_ref().is_some_and(|owner| recorded.contains(&owner.run));
        if !wanted && is_old(&path) {
            if std::fs::remove_file(&path).is_ok() {
                tracing::warn!(path = %path.display(), "events of a run are past their time");
            }
            continue;
        }
        // The disk was full, or a kill came, just when it was made.
        if owner.is_none() && is_empty(&path) {
            let _ = std::fs::remove_file(&path);
            continue;
        }
        // Those of an earlier pairing cannot be sent any more.
        if let Some(owner) = owner.filter(|owner| owner.gateway == *gateway) {
            found.push(Left { subagent_id: owner.subagent, run_id: owner.run });
        }
    }
    found
}

/// Sends what was left of a run and deletes its spool, however long the backend is away. May be
/// dropped at any time: the rest stays on disk.
pub(in crate::jobs) async fn finish(host: &Host, left: &Left, stop: CancellationToken) -> Ended {
    let (events, driver) = open(host, &left.subagent_id, &left.run_id, stop);
    let removed = async move {
        if events.settled().await {
            events.remove().await;
        }
    };
    let (ended, ()) = tokio::join!(driver.run(), removed);
    ended
}

/// Deletes a spool. One that comes back after a power cut is settled once more.
pub(super) async fn remove(path: PathBuf) {
    let shown = path.clone();
    let removed = tokio::task::spawn_blocking(move || std::fs::remove_file(path)).await;
    match removed {
        Ok(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %shown.display(), %error, "a file of events cannot be removed");
        }
        Ok(Ok(()) | Err(_)) | Err(_) => {}
    }
}

fn is_old(path: &Path) -> bool {
    let changed = path.symlink_metadata().and_then(|meta| meta.modified());
    changed.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age >= KEEP))
}

fn is_empty(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::spool::Owner;
    use super::*;

    fn owner(gateway: &str, run: &str) -> Owner {
        Owner {
            gateway: GatewayId::new(gateway),
            subagent: SubagentId::new("s"),
            run: RunId::new(run),
        }
    }

    #[test]
    fn spools_are_found_again_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("events");
        assert_eq!(find(&dir, &GatewayId::new("g"), &[]), []);
        for (gateway, run) in [("g", "young"), ("g", "old"), ("g", "wanted"), ("other", "foreign")]
        {
            let path = dir.join(format!("{run}.jsonl"));
            spool::Spool::open(&path, &owner(gateway, run)).unwrap();
            if run == "old" || run == "wanted" {
                let long_ago = SystemTime::now() - KEEP;
                std::fs::File::open(&path).unwrap().set_modified(long_ago).unwrap();
            }
            let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&dir), mode(&path)), (0o700, 0o600));
        }
        std::fs::write(dir.join("damaged.jsonl"), "{").unwrap();
        std::fs::write(dir.join("empty.jsonl"), "").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.join("link.jsonl")).unwrap();
        let found = find(&dir, &GatewayId::new("g"), &[RunId::new("wanted")]);
        let runs: Vec<_> = found.iter().map(|left| left.run_id.as_str()).collect();
        assert_eq!(runs, ["wanted", "young"]);
        assert!(!dir.join("old.jsonl").exists() && !dir.join("empty.jsonl").exists());
        assert!(dir.join("foreign.jsonl").exists() && dir.join("damaged.jsonl").exists());
    }
}
