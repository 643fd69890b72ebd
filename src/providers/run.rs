//! Carries out a plan: a work dir of its own, the run in it, and what it left.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ask::{put_over, with_own_directory};
use super::work_dir::{WorkDir, WorkDirError};
use super::{Left, OutputMode, Plan};
use crate::config::Environment;
use crate::fs::{self, FsError, Owner};
use crate::guest::{Guest, PlaceError};
use crate::process::{
    Background, Confine, ExecUser, Run, RunError, RunIds, RunSpec, StopSequence, child_environment,
    guest_environment,
};

/// Bytes kept of stdout, of stderr, and of the output file, each.
pub const OUTPUT_LIMIT: usize = 5_000_000;

/// Where plans are carried out.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// The dir of all work dirs of this kind.
    pub work: PathBuf,
    /// What the CLI's environment starts from.
    pub environment: &'a Environment,
    /// The CLI's umask.
    pub umask: u32,
    /// From the first signal to SIGKILL, when it is stopped.
    pub grace: Duration,
    /// Set in a managed VM.
    pub guest: Option<Guest>,
}

impl Place<'_> {
    /// As whom the CLI runs, where that is not as the gateway.
    pub async fn user(&self) -> Result<Option<ExecUser>, PlaceError> {
        match &self.guest {
            Some(guest) => guest.agent_user().await,
            None => Ok(None),
        }
    }
}

/// A run that has ended.
#[derive(Debug)]
pub struct PlanRun {
    /// For the decoder.
    pub left: Left,
    /// Why the output file is not in it, when there is one that cannot be used.
    pub refused_file: Option<RefusedFile>,
    /// From the CLI's start to its exit.
    pub duration: Duration,
    /// How many bytes came on stdout.
    pub stdout_bytes: u64,
    /// How many bytes came on stderr.
    pub stderr_bytes: u64,
    /// More came on stderr than was kept.
    pub stderr_truncated: bool,
}

/// Why an output file is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusedFile {
    /// It is over [`OUTPUT_LIMIT`].
    TooLarge,
    /// It is no regular file of ours, or cannot be read.
    Unusable(String),
}

/// Why a plan was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum PlanRunError {
    /// There is nobody to run it as, or no place of theirs.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The work dir could not be made.
    #[error(transparent)]
    WorkDir(#[from] WorkDirError),
    /// The CLI could not be run.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Carries the plan out in `<work>/<id>`, which is there only meanwhile. `started` is told when the
/// CLI runs. Dropping the future ends the run's whole tree and removes the work dir.
pub async fn run_plan(
    place: &Place<'_>,
    id: &str,
    plan: &Plan,
    cancel: &CancellationToken,
    started: impl AsyncFnOnce(RunIds),
) -> Result<PlanRun, PlanRunError> {
    let user = place.user().await?;
    let dir = WorkDir::make_as(user, &place.work, id, &plan.files).await?;
    let ran = run_in(place, &dir, plan, cancel, started).await;
    dir.remove().await;
    ran
}

async fn run_in(
    place: &Place<'_>,
    dir: &WorkDir,
    plan: &Plan,
    cancel: &CancellationToken,
    started: impl AsyncFnOnce(RunIds),
) -> Result<PlanRun, PlanRunError> {
    let run = Run::spawn(spec(place, dir, plan)).await?;
    started(run.ids().clone()).await;
    let outcome = run.wait(Some(plan.time_limit), cancel).await?;
    let (file, refused_file) = match output_path(dir.path(), plan) {
        Some(path) => read_output(path, dir.owner()).await,
        None => (None, None),
    };
    Ok(PlanRun {
        refused_file,
        duration: outcome.duration,
        stdout_bytes: outcome.stdout.total,
        stderr_bytes: outcome.stderr.total,
        stderr_truncated: outcome.stderr.truncated,
        left: Left {
            stdout_truncated: outcome.stdout.truncated,
            stdout: outcome.stdout.into_text(),
            stderr: outcome.stderr.into_text(),
            exit: outcome.exit,
            ended: outcome.ended,
            file,
        },
    })
}

/// What is run for a plan in its work dir.
pub(super) fn spec(place: &Place<'_>, dir: &WorkDir, plan: &Plan) -> RunSpec {
    let tmp = dir.tmp();
    let env = match &place.guest {
        Some(_) => guest_environment(place.environment, &tmp, dir.user()),
        None => child_environment(place.environment, &tmp),
    };
    RunSpec {
        program: plan.program.clone().into(),
        args: plan.args.iter().map(OsString::from).collect(),
        env: environment(env, plan),
        cwd: dir.path().to_owned(),
        umask: place.umask,
        stop: StopSequence::Agent { first: plan.stop, grace: place.grace },
        background: Background::Swept,
        stdin: Some(plan.stdin.clone().into_bytes()),
        confine: Confine { user: dir.user().cloned(), cgroup: None },
        capture_limit: OUTPUT_LIMIT,
    }
}

/// A child's environment, the CLI's own directory on its `PATH`, and what the plan puts over both.
fn environment(mut variables: Vec<(OsString, OsString)>, plan: &Plan) -> Vec<(OsString, OsString)> {
    let path = with_own_directory(&variables, &plan.program);
    let own = plan.env.iter().map(|(name, value)| (name.into(), value.into()));
    put_over(&mut variables, path.into_iter().chain(own));
    variables
}

/// Where the plan's CLI writes its answer, when that is a file.
pub fn output_path(work_dir: &Path, plan: &Plan) -> Option<PathBuf> {
    match &plan.output {
        OutputMode::File(name) => Some(work_dir.join(name)),
        OutputMode::Stdout | OutputMode::Stream => None,
    }
}

/// The CLI, or a command of it, may have put anything there: a link is not followed, nobody is
/// waited for at a named pipe.
async fn read_output(path: PathBuf, owner: Option<Owner>) -> (Option<String>, Option<RefusedFile>) {
    let read = move || {
        fs::acting_as(owner, || fs::read_unrepaired(&path, OUTPUT_LIMIT as u64))
            .unwrap_or_else(|error| Err(FsError::io("read", &path, error)))
    };
    let refused = match tokio::task::spawn_blocking(read).await {
        Ok(Ok(bytes)) => {
            return (bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()), None);
        }
        Ok(Err(FsError::TooLarge { .. })) => RefusedFile::TooLarge,
        Ok(Err(error)) => RefusedFile::Unusable(error.to_string()),
        Err(error) => RefusedFile::Unusable(error.to_string()),
    };
    (None, Some(refused))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::FirstSignal;

    #[test]
    fn what_a_plan_sets_stands_once_and_over_everything() {
        let pairs = [("A", "1"), ("TERM", "dumb"), ("SUPABASE_URL", "u"), ("PATH", "/bin")];
        let parent = Environment::from_pairs(pairs);
        let plan = Plan {
            program: "/opt/bin/cli".into(),
            args: Vec::new(),
            env: [("TERM", "xterm"), ("TMP", "/t")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            files: Vec::new(),
            stdin: String::new(),
            output: OutputMode::Stdout,
            time_limit: Duration::from_secs(1),
            stop: FirstSignal::Interrupt,
        };
        let mut variables = environment(child_environment(&parent, Path::new("/w/.tmp")), &plan);
        variables.sort();
        let wanted = [
            ("A", "1"),
            ("PATH", "/opt/bin:/bin"),
            ("TEMP", "/w/.tmp"),
            ("TERM", "xterm"),
            ("TMP", "/t"),
            ("TMPDIR", "/w/.tmp"),
        ];
        assert_eq!(variables, wanted.map(|(name, value)| (name.into(), value.into())));
    }
}
