//! The folders in which subagents run: those of dead runs go, those that are kept stay in bounds.

use super::handlers::Host;
use super::journal::SubagentWork;
use crate::fs::{Owner, acting_as};
use crate::providers::{KeptBounds, bound_kept_dirs, remove_work_dir};

/// Kind of the work dirs: a folder for each subagent, and in it, where none is kept, one for each
/// run.
pub(crate) const WORK: &str = "subagents";

/// Removes what a run of an earlier gateway left. A folder that is kept for the next run stays.
pub(super) async fn remove(host: &Host, work: &SubagentWork) {
    let all = host.work(WORK);
    let (subagent, run) = (work.subagent_id.to_string(), work.run_id.to_string());
    let owner = owner(host).await;
    let removed = tokio::task::spawn_blocking(move || {
        acting_as(owner, || remove_work_dir(&all, &[&subagent, &run])).ok();
    });
    // It fails only when the runtime is going down.
    removed.await.ok();
}

/// Removes folders past their bounds, but none that a run is in. May be dropped at any time.
pub(crate) async fn bound(host: &Host) {
    let (all, subagents) = (host.work(WORK), host.subagents.clone());
    let owner = owner(host).await;
    let bounded = tokio::task::spawn_blocking(move || {
        let in_use = |subagent: &str| subagents.holds(subagent);
        acting_as(owner, || bound_kept_dirs(&all, KeptBounds::USUAL, &in_use)).ok();
    });
    bounded.await.ok();
}

/// Whose the folders are, where they are not ours.
async fn owner(host: &Host) -> Option<Owner> {
    let user = host.guest.as_ref()?.exec_user().await.ok()??;
    Some(user.owner())
}
