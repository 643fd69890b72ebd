//! One bounded question to a command: its arguments in, what it said out.
//!
//! `--version`, help and the like. A command that hangs, floods or forks is ended with all that it
//! started; nothing of it is left.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Environment;
use crate::guest::{GUEST_TMP, Guest};
use crate::process::{
    Background, Confine, Ended, ExecUser, Exit, Run, RunSpec, StopSequence, child_environment,
    guest_environment,
};

/// Far above any help text.
const CAPTURE_LIMIT: usize = 256 * 1024;
/// After its time, a command may take so long to end by itself.
const GRACE: Duration = Duration::from_millis(500);

/// Asks commands, with one environment for all.
#[derive(Debug, Clone)]
pub struct Asker {
    environment: Vec<(OsString, OsString)>,
    umask: u32,
    guest: Option<Guest>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, thiserror::Error)]
#[error("{text}")]
pub struct NoAnswer {
    /// One line.
    pub text: String,
    /// It took too long: on a host that is busy, or has just started, it may answer yet.
    pub is_slow: bool,
}

impl NoAnswer {
    fn because(text: String) -> Self {
        Self { text, is_slow: false }
    }

    fn slow(text: String) -> Self {
        Self { text, is_slow: true }
    }
}

impl Asker {
    /// Commands get this environment, less what is the gateway's own, and `tmp` for their files.
    pub fn new(environment: &Environment, tmp: &Path, umask: u32) -> Self {
        Self { environment: child_environment(environment, tmp), umask, guest: None }
    }

    /// The same; in a managed VM commands run as that says.
    pub fn in_guest(
        environment: &Environment,
        tmp: &Path,
        umask: u32,
        guest: Option<Guest>,
    ) -> Self {
        match guest {
            Some(guest) => Self {
                environment: guest_environment(environment, GUEST_TMP.as_ref(), None),
                umask,
                guest: Some(guest),
            },
            None => Self::new(environment, tmp, umask),
        }
    }

    /// What the command prints on stdout when it is called with these arguments, `/dev/null` on
    /// stdin and these variables more, and ends well within the limit.
    pub async fn ask(
        &self,
        program: &Path,
        args: &[&str],
        variables: &[(&str, &str)],
        limit: Duration,
    ) -> Result<String, NoAnswer> {
        let asked = || format!("{} {}", program.display(), args.join(" "));
        let failed = |error| NoAnswer::because(format!("{:#}", anyhow::Error::new(error)));
        let user = match &self.guest {
            Some(guest) => {
                guest.exec_user().await.map_err(|error| NoAnswer::because(error.to_string()))?
            }
            None => None,
        };
        let run = Run::spawn(self.spec(program, args, variables, user));
        let run = match tokio::time::timeout(limit, run).await {
            Ok(run) => run.map_err(failed)?,
            Err(_) => {
                return Err(NoAnswer::slow(format!("{} could not be started in time", asked())));
            }
        };
        let outcome = run.wait(Some(limit), &CancellationToken::new()).await.map_err(failed)?;
        match (outcome.ended, outcome.exit) {
            (Ended::TimeLimit | Ended::Cancelled, _) => {
                let seconds = limit.as_secs();
                Err(NoAnswer::slow(format!("{} did not end within {seconds} seconds", asked())))
            }
            (Ended::ByItself, Exit::Code(0)) => Ok(outcome.stdout.into_text()),
            (Ended::ByItself, Exit::Code(code)) => {
                let said = first_line(&outcome.stderr.into_text());
                Err(NoAnswer::because(format!("{} ended with exit code {code}{said}", asked())))
            }
            (Ended::ByItself, Exit::Signal(signal)) => {
                Err(NoAnswer::because(format!("{} was ended by signal {signal}", asked())))
            }
        }
    }

    fn spec(
        &self,
        program: &Path,
        args: &[&str],
        variables: &[(&str, &str)],
        user: Option<ExecUser>,
    ) -> RunSpec {
        let mut env = self.environment.clone();
        let own = user.as_ref().map(ExecUser::variables).into_iter().flatten();
        put_over(&mut env, own.map(|(name, value)| (name.into(), value)));
        let more = variables.iter().map(|(name, value)| (name.into(), value.into()));
        let path = with_own_directory(&env, program);
        put_over(&mut env, path.into_iter().chain(more));
        RunSpec {
            program: program.into(),
            args: args.iter().map(OsString::from).collect(),
            env,
            cwd: "/".into(),
            umask: self.umask,
            stop: StopSequence::Shell { grace: GRACE },
            background: Background::Swept,
            stdin: None,
            confine: Confine { user, cgroup: None },
            capture_limit: CAPTURE_LIMIT,
        }
    }
}

/// Each of these replaces the variable of its name.
pub(super) fn put_over(
    environment: &mut Vec<(OsString, OsString)>,
    over: impl IntoIterator<Item = (OsString, OsString)>,
) {
    for (name, value) in over {
        environment.retain(|(other, _)| *other != name);
        environment.push((name, value));
    }
}

/// `PATH` with the command's own directory first: the interpreter that it was installed with is
/// there.
pub(super) fn with_own_directory(
    environment: &[(OsString, OsString)],
    program: &Path,
) -> Option<(OsString, OsString)> {
    let dir = program.parent().filter(|dir| dir.is_absolute())?;
    // A directory with a colon cannot stand in it.
    if dir.as_os_str().as_bytes().contains(&b':') {
        return None;
    }
    let path = environment.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
    let others = path.iter().flat_map(std::env::split_paths).filter(|other| other != dir);
    let dirs = std::iter::once(PathBuf::from(dir)).chain(others);
    Some(("PATH".into(), std::env::join_paths(dirs).ok()?))
}

/// `: ` and the first line that says something, cut short; nothing when there is none.
fn first_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    line.map(|line| format!(": {}", line.chars().take(300).collect::<String>())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_own_directory_comes_first_on_the_path_once() {
        let with = |path: Option<&str>, program: &str| {
            let environment: Vec<(OsString, OsString)> =
                path.iter().map(|path| ("PATH".into(), path.into())).collect();
            with_own_directory(&environment, Path::new(program)).map(|(_, path)| path)
        };
        assert_eq!(with(Some("/bin:/x"), "/x/gemini"), Some("/x:/bin".into()));
        assert_eq!(with(None, "/x/gemini"), Some("/x".into()));
        assert_eq!(with(Some("/bin"), "gemini"), None);
        assert_eq!(with(Some("/bin"), "/a:b/gemini"), None);
    }

    #[test]
    fn one_short_line_tells_of_a_failure() {
        assert_eq!(first_line("\n  node: not found\nmore"), ": node: not found");
        assert_eq!(first_line(" \n"), "");
        assert_eq!(first_line(&"x".repeat(5000)).len(), 302);
    }
}
