//! Keeps what gateways leave on disk within bounds: at the start and every hour.
//!
//! What goes is decided by `plan`, which is pure; `places` knows what lies where. Nothing that a job
//! or a process works with is touched. The journal is never swept: its records are results that the
//! backend does not have yet.

mod on_disk;
mod open_files;
mod places;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::identity::Identity;
use crate::config::Paths;
use crate::doctor::host::{LITTLE_SPACE, free_space};
use crate::jobs;
use crate::providers::remove_tree;
pub(crate) use on_disk::check;
use open_files::OpenFiles;
use places::{Keeper, Place, look, places};
use plan::outgoing;

const SWEEP_EVERY: Duration = Duration::from_hours(1);

/// Runs until `stop`.
pub(super) async fn run(identity: Arc<Identity>, stop: CancellationToken) {
    let mut heard = identity.shared.heard.subscribe();
    tokio::select! {
        // Cancel safe, each arm: a watch and a token. A start has other things to do first.
        heard = heard.wait_for(Option::is_some) => if heard.is_err() { return },
        () = stop.cancelled() => return,
    }
    loop {
        jobs::bound_kept_folders(&identity.host).await;
        let paths = identity.host.config.paths().clone();
        let live =
            identity.shared.activity.borrow().jobs.iter().map(|job| job.id.clone()).collect();
        let swept = tokio::task::spawn_blocking(move || sweep(&paths, &live));
        tokio::select! {
            // Cancel safe: a sweep goes on by itself.
            _ = swept => {}
            () = stop.cancelled() => return,
        }
        tokio::select! {
            // Cancel safe, each arm: a timer and a token.
            () = tokio::time::sleep(SWEEP_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Removes what is past its bounds. `live`: names of the work dirs of jobs in hand. Blocks.
fn sweep(paths: &Paths, live: &HashSet<String>) {
    let (now, open) = (SystemTime::now(), OpenFiles::below(&paths.dir));
    for place in places(paths) {
        sweep_place(&place, now, &open, live);
    }
    if let Some(free) = free_space(&paths.dir).filter(|free| *free < LITTLE_SPACE) {
        let dir = paths.dir.display();
        tracing::warn!(%dir, free_bytes = free, "little room is left on the disk");
    }
}

fn sweep_place(place: &Place, now: SystemTime, open: &OpenFiles, live: &HashSet<String>) {
    match place.keeper {
        Keeper::Sweep => {}
        Keeper::SweepOfClosed if open.is_known() => {}
        Keeper::SweepOfClosed | Keeper::Owner => return,
    }
    let found: Vec<_> = place.found.iter().map(|entry| look(entry, now, open, live)).collect();
    let (mut removed, mut bytes) = (0, 0);
    for at in outgoing(&found, place.bounds) {
        let (Some(entry), Some(found)) = (place.found.get(at), found.get(at)) else { continue };
        remove_tree(&entry.path);
        if entry.path.symlink_metadata().is_err() {
            removed += 1;
            bytes += found.bytes;
        }
    }
    if removed > 0 {
        tracing::info!(kind = place.kind, removed, bytes, "swept what is past its bounds");
    }
}
