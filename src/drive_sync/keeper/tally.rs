//! What drive sync has done since the gateway started: numbers that only grow.

use super::super::engine::{Deed, Tick, TickError};

/// How ticks end, in the words of the metrics.
pub const TICK_RESULTS: [&str; 7] =
    ["ok", "unavailable", "no_space", "disk", "folder_lost", "access_lost", "state"];

/// What is tried again after it has failed, in the words of the metrics.
pub const RETRIED: [&str; 3] = ["entry", "drive", "server"];

/// All drives together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// By the place of the deed in [`Deed::ALL`].
    pub done: [u64; Deed::ALL.len()],
    /// Refused, or failed.
    pub refused: [u64; Deed::ALL.len()],
    /// Things had changed since they were looked at.
    pub stale: [u64; Deed::ALL.len()],
    /// Bytes of contents that came, those of broken transfers too.
    pub fetched_bytes: u64,
    /// Bytes of contents that went, those of broken transfers too.
    pub sent_bytes: u64,
    /// Changes kept that came while a file was being replaced.
    pub rescued: u64,
    /// Conflict copies made.
    pub conflicts: u64,
    /// Hints of the system that were lost.
    pub watch_overflows: u64,
    /// Looks at everything in a drive's folder.
    pub full_looks: u64,
    /// By the place in [`TICK_RESULTS`].
    pub ticks: [u64; TICK_RESULTS.len()],
    /// By the place in [`RETRIED`].
    pub retries: [u64; RETRIED.len()],
}

impl Tally {
    /// What a tick has done, whether it came to its end or not.
    pub(super) fn add(&mut self, tick: &Tick) {
        for deed in Deed::ALL {
            let at = deed.index();
            self.done[at] += tick.done.of(deed) as u64;
            self.refused[at] += tick.missed.refused[at] as u64;
            self.stale[at] += tick.missed.stale[at] as u64;
            self.retries[0] += (tick.missed.refused[at] + tick.missed.stale[at]) as u64;
        }
        self.rescued += tick.rescued.len() as u64;
        self.conflicts += tick.conflicts.len() as u64;
    }

    /// A tick came to its end.
    pub(super) fn went(&mut self) {
        self.ticks[0] += 1;
    }

    /// It did not. One that was stopped is not counted.
    pub(super) fn failed(&mut self, error: &TickError) {
        let at = match error {
            TickError::Stopped => return,
            TickError::Unavailable { .. } => 1,
            TickError::NoSpace { .. } => 2,
            TickError::Disk(_) => 3,
            TickError::RootLost(_) => 4,
            TickError::AccessLost => 5,
            TickError::State(_) => 6,
        };
        self.ticks[at] += 1;
        self.retries[1] += 1;
    }

    /// The server did not tell which drives there are.
    pub(super) fn not_greeted(&mut self) {
        self.retries[2] += 1;
    }
}
