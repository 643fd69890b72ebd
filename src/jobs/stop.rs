//! How a job learns that it must stop, and why.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Why a job is stopped from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The gateway goes away and does not wait any longer: the job ends as `cancelled`.
    Shutdown,
    /// The row is no longer `running`: somebody cancelled it. Nothing more is written to it.
    RowEnded,
}

/// One job's stop signal. Clones share it; the first reason stays.
#[derive(Debug, Clone, Default)]
pub struct JobStop {
    token: CancellationToken,
    reason: Arc<OnceLock<StopReason>>,
    look: Arc<Notify>,
}

impl JobStop {
    /// Stops the job. A second call changes nothing.
    pub fn stop(&self, reason: StopReason) {
        // Set before the token is cancelled, so that whoever sees the token sees the reason.
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// Why it was stopped, if it was.
    pub fn reason(&self) -> Option<StopReason> {
        self.reason.get().copied()
    }

    /// The row may have been ended: whoever watches it looks now.
    pub fn look(&self) {
        self.look.notify_one();
    }

    /// The next [`Self::look`], one that nobody waited for included. Cancel safe.
    pub async fn asked_to_look(&self) {
        self.look.notified().await;
    }

    /// For what takes a plain token, e.g. a run.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}
