//! One run: spawn under the shim, capture, time limit, stop, result.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Captured;

/// What happens to processes that a run leaves behind by its own normal exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Background {
    /// They live on, their output drained (a plain `shell_exec` outside guests).
    Allowed,
    /// They are killed.
    Swept,
}

/// How a run is stopped before everything of it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSequence {
    /// SIGTERM to every process of the run, the grace for all of them, then SIGKILL to all.
    Shell {
        /// The grace.
        grace: Duration,
    },
}

/// What to run.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct RunSpec {
    pub program: OsString,
    pub args: Vec<OsString>,
    /// The whole environment of the child; the shim adds `PANORAMA_RUN_ID`.
    pub env: Vec<(OsString, OsString)>,
    pub cwd: PathBuf,
    pub umask: u32,
    pub stop: StopSequence,
    pub background: Background,
    /// Bytes kept of stdout and of stderr, each.
    pub capture_limit: usize,
}

/// Names the processes of a run, for journal and status.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct RunIds {
    pub run_id: String,
    pub shim_pid: u32,
    /// Start time of the shim in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub shim_start: u64,
}

/// How the leader ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Who ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The command itself.
    ByItself,
    /// The time limit.
    TimeLimit,
    /// The cancellation token.
    Cancelled,
}

/// The end of a run.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Outcome {
    pub exit: Exit,
    pub ended: Ended,
    pub stdout: Captured,
    pub stderr: Captured,
    pub duration: Duration,
    /// Background work was left on purpose.
    pub left_background: bool,
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The command could not be started.
    #[error("could not start {program}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The shim was killed, or did not speak; what it held was swept.
    #[error("the run's supervisor ended without a report")]
    ShimLost,
}

/// A run under way. Dropping it ends its whole tree.
#[derive(Debug)]
pub struct Run {
    _private: (),
}

impl Run {
    /// Starts the command under a shim.
    pub async fn spawn(spec: RunSpec) -> Result<Self, RunError> {
        unimplemented!("{spec:?}")
    }

    /// Its processes' names.
    pub fn ids(&self) -> &RunIds {
        unimplemented!()
    }

    /// Waits for the end: by itself, by the limit, or by `cancel`.
    pub async fn wait(
        self,
        limit: Option<Duration>,
        cancel: &CancellationToken,
    ) -> Result<Outcome, RunError> {
        unimplemented!("{limit:?} {cancel:?}")
    }
}
