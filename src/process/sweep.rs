//! The fallback for a shim that was itself killed: finds what it held, and kills it.
//!
//! Found are the run's leader, the shim's session, every process that carries the run's marker in its
//! environment, and everything below these. A process that left the session, dropped its environment
//! and lost its parents is out of reach: only a living shim holds such a one.

use std::time::Duration;

use super::RunIds;
use super::strike;
use super::table::{self, Entry};
use super::wire::MARKER;

/// Rounds, 5 ms apart, after which what withstands SIGKILL is given up.
const ROUNDS: u32 = 200;

/// A run whose shim is gone.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    pub(super) ids: RunIds,
    /// Pid and start time of the command's first process, where it is known.
    pub(super) leader: Option<(i32, u64)>,
}

/// Kills every process that a run left, when its shim is gone; also the shim, when it is not.
/// Returns true when none is left. For runs of an earlier gateway, by what its journal names.
pub async fn sweep(ids: RunIds) -> bool {
    sweep_lost(Lost { ids, leader: None }).await
}

/// Whether the run's shim still lives. One that outlives its gateway either ends the run this very
/// moment, or holds background work that was left on purpose.
pub fn shim_lives(ids: &RunIds) -> bool {
    // A zombie does neither any more, and where nobody reaps orphans it stays one.
    table::one(ids.shim_pid.cast_signed()).is_some_and(|shim| shim.start == ids.shim_start)
}

pub(super) async fn sweep_lost(lost: Lost) -> bool {
    for _ in 0..ROUNDS {
        let lost = lost.clone();
        // Reads the whole process table. It fails only when the runtime is going down.
        let left = tokio::task::spawn_blocking(move || strike::kill(roots(&lost))).await;
        if !matches!(left, Ok(true)) {
            return matches!(left, Ok(false));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    false
}

fn roots(lost: &Lost) -> impl Fn(&Entry) -> bool + use<> {
    let own = std::process::id().cast_signed();
    let shim = lost.ids.shim_pid.cast_signed();
    let shim_start = lost.ids.shim_start;
    // A session keeps its number from being given away. So when somebody else has it as a pid by
    // now, nobody of the session was left, and a session of that number is another's.
    let shim_now = table::start_of(lost.ids.shim_pid);
    let session_is_ours = shim_now == 0 || shim_now == shim_start;
    let leader = lost.leader;
    let marker = format!("{MARKER}={}", lost.ids.run_id);
    move |entry| {
        entry.pid != own
            && ((entry.pid == shim && entry.start == shim_start)
                || (entry.session == shim && session_is_ours)
                || leader == Some((entry.pid, entry.start))
                || table::has_variable(entry.pid, &marker))
    }
}
