//! The replacement as the old process sees it: started, asked, and ended when it is no good.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout, timeout_at};

use super::wire::{FromNew, FromOld, Line};
use super::{Relaunch, TAKES_OVER};

/// How long a replacement may take until it is ready, and then again until it is up.
const PATIENCE: Duration = Duration::from_mins(1);
/// After SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// A replacement that was started. Dropping it ends it, unless it was let go.
#[derive(Debug)]
pub(in crate::runtime) struct Replacement {
    // Before the line, so that it is killed before its line closes: an open end means that we are
    // there.
    child: Running,
    line: Line,
    pid: i32,
}

#[derive(Debug)]
struct Running {
    child: Child,
    is_ours: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_ours {
            // Gone already, at worst; tokio waits for it.
            let _gone = self.child.start_kill();
        }
    }
}

impl Replacement {
    /// Starts it, with our arguments and our environment.
    pub(super) fn start(relaunch: &Relaunch) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let mut command = Command::new(relaunch.installation.path());
        command
            .args(&relaunch.args)
            .arg(format!("{TAKES_OVER}{:03o}", relaunch.umask))
            .envs(relaunch.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        if relaunch.is_daemon {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        let child = command.spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        let line = Line::new(ours)?;
        Ok(Self { child: Running { child, is_ours: true }, line, pid })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until it could take over; `Err` is why it never will.
    pub(super) async fn ready(&mut self) -> Result<(), String> {
        match self.word("ready to take over").await? {
            FromNew::Ready { .. } => Ok(()),
            other @ (FromNew::Up | FromNew::Failed { .. }) => {
                Err(format!("it said {other:?} too early"))
            }
        }
    }

    /// Hands over to it, and the talk with a service manager if there is one.
    pub(super) fn hand_over(&self, lock: BorrowedFd<'_>, service: bool) -> Result<(), String> {
        let said = self.line.say(&FromOld::TakeOver { service }, Some(lock));
        said.map_err(|error| format!("it could not be told to take over: {error}"))
    }

    /// Waits until it is up; `Err` is why it never will be.
    pub(super) async fn up(&mut self) -> Result<(), String> {
        match self.word("up").await? {
            FromNew::Up => Ok(()),
            other @ (FromNew::Ready { .. } | FromNew::Failed { .. }) => {
                Err(format!("it said {other:?} instead"))
            }
        }
    }

    /// Waits for its end while it should wait for us; why it is no good. Cancel safe.
    pub(super) async fn gone(&mut self) -> String {
        tokio::select! {
            heard = self.line.hear::<FromNew>() => match heard {
                Ok(Some(FromNew::Failed { reason })) => reason,
                Ok(Some(other)) => format!("it said {other:?} while it should have waited"),
                Ok(None) => self.how_it_ended().await,
                Err(error) => format!("it said something else: {error}"),
            },
            status = self.child.child.wait() => ended(status),
        }
    }

    /// Ends it: SIGTERM, SIGKILL, and it is waited for.
    pub(super) async fn end(mut self) {
        if self.child.child.id().is_some() && self.pid > 0 {
            let _gone = kill(Pid::from_raw(self.pid), Signal::SIGTERM);
        }
        if timeout(GRACE, self.child.child.wait()).await.is_err()
            && let Err(error) = self.child.child.kill().await
        {
            tracing::error!(pid = self.pid, %error, "the replacement could not be ended");
        }
    }

    /// It is its own master from now on.
    pub(super) fn let_go(mut self) {
        self.child.is_ours = false;
    }

    async fn word(&mut self, what: &str) -> Result<FromNew, String> {
        let deadline = Instant::now() + PATIENCE;
        match timeout_at(deadline, self.line.hear()).await {
            Ok(Ok(Some(FromNew::Failed { reason }))) => Err(reason),
            Ok(Ok(Some(word))) => Ok(word),
            Ok(Ok(None)) => Err(self.how_it_ended().await),
            Ok(Err(error)) => Err(format!("it said something else: {error}")),
            Err(_) => Err(format!("it was not {what} within {} seconds", PATIENCE.as_secs())),
        }
    }

    /// After it has closed its end.
    async fn how_it_ended(&mut self) -> String {
        match timeout(GRACE, self.child.child.wait()).await {
            Ok(status) => ended(status),
            Err(_) => "it closed its line to us".to_owned(),
        }
    }
}

fn ended(status: io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("it ended with exit code {code}"),
            (None, Some(signal)) => format!("it was ended by signal {signal}"),
            (None, None) => "it ended".to_owned(),
        },
        Err(error) => format!("it is gone: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::Installation;
    use super::*;

    /// A program that is started as a replacement would be.
    fn shell(script: &str) -> Replacement {
        let program = std::path::Path::new("/bin/sh");
        Replacement::start(&Relaunch {
            installation: Installation::find(program.as_os_str(), program, None).unwrap(),
            args: vec!["-c".into(), script.into(), "sh".into()],
            variables: Vec::new(),
            umask: 0o22,
            is_daemon: true,
        })
        .unwrap()
    }

    fn is_alive(pid: i32) -> bool {
        kill(Pid::from_raw(pid), None).is_ok()
    }

    const READY: &str = r#"echo '{"word":"ready","version":"2","pid":1}' >&0"#;

    #[tokio::test]
    async fn one_that_speaks_is_heard() {
        let up = r#"read word; echo "$word $1" | grep -q 'take_over.*--taking-over=022' && echo '{"word":"up"}' >&0; sleep 60"#;
        let mut new = shell(&format!("{READY}; {up}"));
        assert_eq!(new.ready().await, Ok(()));
        let file = tempfile::tempfile().unwrap();
        new.hand_over(file.as_fd(), false).unwrap();
        assert_eq!(new.up().await, Ok(()));
        let pid = new.pid();
        new.end().await;
        assert!(!is_alive(pid));
    }

    #[tokio::test]
    async fn the_end_of_one_says_how() {
        assert_eq!(shell("exit 7").ready().await, Err("it ended with exit code 7".into()));
        assert_eq!(shell("kill -ABRT $$").ready().await, Err("it was ended by signal 6".into()));
        let gives_up = r#"echo '{"word":"failed","reason":"no"}' >&0; sleep 60"#;
        assert_eq!(shell(gives_up).ready().await, Err("no".into()));
        let mut waits = shell(&format!("{READY}; exit 3"));
        assert_eq!(waits.ready().await, Ok(()));
        assert_eq!(waits.gone().await, "it ended with exit code 3");
    }

    #[tokio::test]
    async fn one_that_is_deaf_to_sigterm_is_killed_and_none_outlives_its_drop() {
        let new = shell(&format!("trap '' TERM; {READY}; while :; do sleep 0.1; done"));
        let pid = new.pid();
        let mut new = new;
        new.ready().await.unwrap();
        new.end().await;
        assert!(!is_alive(pid));

        let mut dropped = shell(&format!("{READY}; sleep 60"));
        dropped.ready().await.unwrap();
        let pid = dropped.pid();
        drop(dropped);
        while is_alive(pid) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
