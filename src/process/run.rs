//! One run: spawn under the shim, capture, time limit, stop, result.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::input::Input;
use super::output::Output;
use super::spawn::{self, Control, Shim};
use super::sweep::{Lost, sweep_lost};
use super::table;
use super::wire::{Order, Report, Step};
use super::{Captured, ExecUser};

/// Over the grace: how long the shim may take to end a run. It reports what it cannot kill sooner.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a shim may take to say that the command runs: a hundred times what it needs on a machine
/// that is busy. A command that stops its own supervisor at once must not hold the job for ever.
const START: Duration = Duration::from_secs(15);
/// How long a shim may take to exit after its last report.
const REAP: Duration = Duration::from_secs(1);

/// What happens to processes that a run leaves behind by its own normal exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Background {
    /// They live on, their output drained (a plain `shell_exec` outside guests).
    Allowed,
    /// They are killed.
    Swept,
}

/// How a run is stopped before everything of it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopSequence {
    /// SIGTERM to every process of the run, the grace for all of them, then SIGKILL to all.
    Shell {
        /// The grace.
        grace: Duration,
    },
    /// A first signal, half the grace or until the command has ended, SIGTERM to every process of
    /// the run, the rest of the grace, then SIGKILL to all.
    Agent {
        /// What the command cleans up on.
        first: FirstSignal,
        /// The whole grace.
        grace: Duration,
    },
}

impl StopSequence {
    /// From the first signal to SIGKILL.
    pub fn grace(self) -> Duration {
        match self {
            Self::Shell { grace } | Self::Agent { grace, .. } => grace,
        }
    }
}

/// The first step of stopping an agent CLI. Their own commands run in sessions of their own, which
/// only the CLI ends in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstSignal {
    /// SIGINT to the CLI itself, which cleans up on it.
    Interrupt,
    /// SIGTERM to the CLI's process group.
    TerminateGroup,
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
    /// What the command reads on stdin, which is closed behind it; `None`: stdin is `/dev/null`.
    pub stdin: Option<Vec<u8>>,
    /// As whom and in which cgroup it runs.
    pub confine: Confine,
    /// Bytes kept of stdout and of stderr, each.
    pub capture_limit: usize,
}

/// As whom and in which cgroup a command runs; by default as the gateway does. Linux only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confine {
    /// Another user.
    pub user: Option<ExecUser>,
    /// The directory of a cgroup (v2) of its own, entered before the command begins. The shim itself
    /// stays outside.
    pub cgroup: Option<PathBuf>,
}

impl Confine {
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Names the processes of a run, for journal and status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct RunIds {
    pub run_id: String,
    pub shim_pid: u32,
    /// Start time of the shim in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub shim_start: u64,
}

/// How the leader ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    ids: RunIds,
    /// Pid and start time of the command's first process.
    leader: (u32, u64),
    shim: Shim,
    started: Instant,
    grace: Duration,
    stdin: Vec<u8>,
    capture_limit: usize,
}

impl Run {
    /// Starts the command under a shim. Returns when it runs. Cancelled half-way, nothing of it is
    /// left.
    pub async fn spawn(spec: RunSpec) -> Result<Self, RunError> {
        let failed = |source| RunError::Spawn {
            program: spec.program.to_string_lossy().into_owned(),
            source,
        };
        let run_id = uuid::Uuid::new_v4().to_string();
        let mut shim = spawn::start(&spec, &run_id).await.map_err(failed)?;
        let shim_pid = shim.child.id().unwrap_or_default();
        let ids = RunIds { run_id, shim_pid, shim_start: table::start_of(shim_pid) };
        let leader = match timeout(START, shim.control.report()).await {
            Ok(Ok(Some(Report::Started { pid, start }))) => (pid, start),
            Ok(Ok(Some(Report::Failed { step, errno }))) => {
                // It has nothing left to do; what is not awaited here is reaped by tokio.
                timeout(REAP, shim.child.wait()).await.ok();
                return Err(failed(start_error(step, errno, &spec)));
            }
            Ok(Ok(Some(Report::Exited(_)) | None) | Err(_)) | Err(_) => {
                return Err(lose(shim.child, Lost { ids, leader: None }).await);
            }
        };
        Ok(Self {
            ids,
            leader,
            shim,
            started: Instant::now(),
            grace: spec.stop.grace(),
            stdin: spec.stdin.unwrap_or_default(),
            capture_limit: spec.capture_limit,
        })
    }

    /// Its processes' names.
    pub fn ids(&self) -> &RunIds {
        &self.ids
    }

    /// Waits for the end: by itself, by the limit (counted from the start), or by `cancel`. Dropping
    /// the future ends the run's whole tree.
    pub async fn wait(
        self,
        limit: Option<Duration>,
        cancel: &CancellationToken,
    ) -> Result<Outcome, RunError> {
        self.watch(limit, cancel, None).await
    }

    /// The same, with all of stdout given to `tap` as it comes, and none of it kept. While `tap` is
    /// full nothing more of it is read, so that the command waits; it is closed at the end.
    pub async fn wait_tapped(
        self,
        limit: Option<Duration>,
        cancel: &CancellationToken,
        tap: mpsc::Sender<Vec<u8>>,
    ) -> Result<Outcome, RunError> {
        self.watch(limit, cancel, Some(tap)).await
    }

    async fn watch(
        self,
        limit: Option<Duration>,
        cancel: &CancellationToken,
        tap: Option<mpsc::Sender<Vec<u8>>>,
    ) -> Result<Outcome, RunError> {
        let Self { ids, leader, shim, started, grace, stdin, capture_limit } = self;
        let Shim { mut child, mut control, stdin: pipe, stdout, stderr } = shim;
        let mut input = Input::new(pipe, stdin);
        let mut output = Output::new(stdout, stderr, capture_limit);
        if let Some(tap) = tap {
            output.tap_stdout(tap);
        }
        let limit = limit.and_then(|limit| started.checked_add(limit));
        let mut asked = Asked { ended: Ended::ByItself, patience: None };
        let exited = loop {
            tokio::select! {
                // Cancel safe: what came in is kept by the control.
                report = control.report() => match report {
                    Ok(Some(Report::Exited(exited))) => break Some(exited),
                    Ok(Some(Report::Started { .. } | Report::Failed { .. })) => {}
                    Ok(None) | Err(_) => break None,
                },
                // Cancel safe: what was read is kept by the output.
                () = output.read_some() => {}
                // Cancel safe: what was written is counted by the input.
                () = input.write_some() => {}
                // Cancel safe: a point in time, and a flag.
                () = until(limit), if asked.patience.is_none() => {
                    asked.stop(Ended::TimeLimit, grace, &control);
                }
                () = cancel.cancelled(), if asked.patience.is_none() => {
                    asked.stop(Ended::Cancelled, grace, &control);
                }
                () = until(asked.patience) => break None,
            }
        };
        let Some(exited) = exited else {
            let leader = Some((leader.0.cast_signed(), leader.1));
            return Err(lose(child, Lost { ids, leader }).await);
        };
        drop(input);
        output.read_rest().await;
        if exited.stuck {
            tracing::warn!(run_id = %ids.run_id, "processes of a run cannot be killed");
        }
        if !exited.background && !exited.stuck {
            // It is about to exit. A shim that stays is reaped by tokio when it has ended.
            timeout(REAP, child.wait()).await.ok();
        }
        let (stdout, stderr) = output.finish();
        Ok(Outcome {
            exit: exited.exit,
            ended: if exited.stopped { asked.ended } else { Ended::ByItself },
            stdout,
            stderr,
            duration: Duration::from_nanos(exited.nanoseconds),
            left_background: exited.background,
        })
    }
}

/// Whether, and why, the shim was told to stop the run.
#[derive(Debug)]
struct Asked {
    ended: Ended,
    /// When to stop waiting for the shim to have done so.
    patience: Option<Instant>,
}

impl Asked {
    fn stop(&mut self, why: Ended, grace: Duration, control: &Control) {
        control.order(Order::Stop);
        self.ended = why;
        self.patience = Instant::now().checked_add(grace + PATIENCE);
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Sweeps what a shim held that was killed, or that does not do its work.
async fn lose(mut shim: Child, lost: Lost) -> RunError {
    tracing::warn!(run_id = %lost.ids.run_id, "a run's shim was lost");
    shim.start_kill().ok();
    // Before it is reaped: until then its session's number is nobody else's.
    if !sweep_lost(lost).await {
        tracing::warn!("processes of a run whose shim was lost may be left");
    }
    timeout(REAP, shim.wait()).await.ok();
    RunError::ShimLost
}

/// Why a command did not start, in words where the system's own do not name the thing.
fn start_error(step: Step, errno: i32, spec: &RunSpec) -> io::Error {
    let source = io::Error::from_raw_os_error(errno);
    let what = match step {
        Step::Program => return source,
        Step::WorkDir => format!("could not enter the working directory {}", spec.cwd.display()),
        Step::Cgroup => "could not enter the command's cgroup".to_owned(),
        Step::User => {
            let name = spec.confine.user.as_ref().map_or("", |user| user.name.as_str());
            format!("could not become the user {name:?}")
        }
        Step::Prepare => "could not set up the run's supervisor".to_owned(),
    };
    io::Error::new(source.kind(), Described { what, source })
}

#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct Described {
    what: String,
    source: io::Error,
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// The only test here that starts a shim: which binary that is stands once for the process.
    #[tokio::test(start_paused = true)]
    async fn a_shim_that_says_nothing_is_given_up_and_ended() {
        let folder = tempfile::tempdir().unwrap();
        let [script, told] = ["shim", "pid"].map(|name| folder.path().join(name));
        let text = format!("#!/bin/sh\necho $$ >{}\nexec /bin/sleep 1000\n", told.display());
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o700)).unwrap();
        spawn::set_shim_binary(&script);
        let spec = RunSpec {
            program: "/bin/true".into(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: "/".into(),
            umask: 0o077,
            stop: StopSequence::Shell { grace: Duration::ZERO },
            background: Background::Swept,
            stdin: None,
            confine: Confine::default(),
            capture_limit: 0,
        };
        // The paused clock does not go on while this waits.
        let pid = tokio::task::spawn_blocking(move || {
            loop {
                let text = std::fs::read_to_string(&told).unwrap_or_default();
                match text.trim().parse::<i32>() {
                    Ok(pid) => return pid,
                    Err(_) => std::thread::yield_now(),
                }
            }
        });
        let (spawned, pid) = tokio::join!(Box::pin(Run::spawn(spec)), pid);
        assert!(matches!(spawned, Err(RunError::ShimLost)));
        let pid = pid.unwrap();
        assert!(table::one(pid).is_none(), "{pid} is left");
    }
}
