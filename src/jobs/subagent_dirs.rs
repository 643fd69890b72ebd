//! The folders in which subagents run: those of dead runs go, those that are kept stay in bounds.

use super::handlers::Host;
use super::journal::SubagentWork;
use crate::providers::{KeptBounds, bound_kept_dirs, remove_work_dir};

/// Kind of the work dirs: a folder for each subagent, and in it, where none is kept, one for each
/// run.
pub(crate) const WORK: &str = "subagents";

/// Removes what a run of an earlier gateway left. A folder that is kept for the next run stays.
pub(super) async fn remove(host: &Host, work: &SubagentWork) {
    let all = host.config.paths().work(WORK);
    let (subagent, run) = (work.subagent_id.to_string(), work.run_id.to_string());
    let removed = tokio::task::spawn_blocking(move || remove_work_dir(&all, &[&subagent, &run]));
    // It fails only when the runtime is going down.
    removed.await.ok();
}

/// Removes folders past their bounds, but none that a run is in. May be dropped at any time.
pub(crate) async fn bound(host: &Host) {
    let (all, subagents) = (host.config.paths().work(WORK), host.subagents.clone());
    let bounded = tokio::task::spawn_blocking(move || {
        bound_kept_dirs(&all, KeptBounds::USUAL, &|subagent| subagents.holds(subagent));
    });
    bounded.await.ok();
}
