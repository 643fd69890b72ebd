//! Finds the gateway that runs on this config dir, if one does.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::socket::{self, Answer};
use crate::config::{FileLock, LockError, Paths, PidFile, PidRecord};
use crate::runtime::status::LiveStatus;

/// Another command may hold the instance lock for the blink of its own look.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
const LOOKS: u32 = 20;

/// What was found.
#[derive(Debug)]
pub(crate) enum Instance {
    /// One runs.
    Running {
        /// Its process, when that could be found out.
        pid: Option<i32>,
        /// What it says of itself; `None` while it starts, when it hangs, and for another program
        /// of this name.
        live: Option<Box<LiveStatus>>,
    },
    /// None runs.
    Stopped {
        /// What the pid file wrongly says.
        stale_pid: Option<i32>,
    },
}

impl Instance {
    /// Looks at the status socket, the pid file and the instance lock, in this order.
    pub(crate) fn find(paths: &Paths) -> Self {
        let mut looks = 0;
        loop {
            if let Answer::Live(status) = socket::status(&paths.socket()) {
                let pid = i32::try_from(status.pid).ok();
                return Self::Running { pid, live: Some(Box::new(status)) };
            }
            let stale_pid = match PidFile::inspect(&paths.pid_file) {
                PidRecord::Gateway(pid) if !is_this_process(pid) => {
                    return Self::Running { pid: Some(pid), live: None };
                }
                PidRecord::Gateway(pid) | PidRecord::Stale(pid) => Some(pid),
                PidRecord::None => None,
            };
            if !lock_is_held(paths) {
                return Self::Stopped { stale_pid };
            }
            looks += 1;
            if looks == LOOKS {
                return Self::Running { pid: None, live: None };
            }
            std::thread::sleep(LOOK_AGAIN_AFTER);
        }
    }

    /// True when one runs.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }
}

fn is_this_process(pid: i32) -> bool {
    u32::try_from(pid).is_ok_and(|pid| pid == std::process::id())
}

/// Looking takes the lock for a moment, so nobody looks who has no need to.
fn lock_is_held(paths: &Paths) -> bool {
    let lock = paths.instance_lock();
    lock.exists() && matches!(FileLock::try_acquire(&lock), Err(LockError::Held))
}

/// A process that is told apart from a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pid: i32,
    start: Option<u64>,
}

impl Process {
    /// The process of this number now.
    pub(crate) fn of(pid: i32) -> Self {
        Self { pid, start: look_up(pid).map(|(_, start)| start) }
    }

    /// Runs still: not gone, not a zombie, not another one.
    pub(crate) fn is_alive(&self) -> bool {
        if !cfg!(target_os = "linux") {
            return kill(Pid::from_raw(self.pid), None).is_ok();
        }
        look_up(self.pid)
            .is_some_and(|(state, start)| !matches!(state, 'Z' | 'X') && Some(start) == self.start)
    }

    /// Sends a signal, unless the process is gone. True when it was sent.
    pub(crate) fn signal(&self, signal: Signal) -> nix::Result<bool> {
        if !self.is_alive() {
            return Ok(false);
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) => Ok(true),
            Err(nix::Error::ESRCH) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// State and start time (clock ticks since boot) of `/proc/<pid>/stat`.
fn look_up(pid: i32) -> Option<(char, u64)> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(stat: &str) -> Option<(char, u64)> {
    // The name in parentheses may hold anything, parentheses and blanks included.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(parse_stat(&format!("7 (a) b (c) {tail}")), Some(('S', 4242)));
        assert_eq!(parse_stat("7 (sh) S"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_zombie_is_not_alive() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(i32::try_from(child.id()).unwrap());
        assert!(process.is_alive());
        child.kill().unwrap();
        // The zombie stays until it is waited for; wait for the state without reaping.
        nix::sys::wait::waitid(
            nix::sys::wait::Id::Pid(Pid::from_raw(process.pid)),
            nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
        )
        .unwrap();
        assert!(!process.is_alive());
        assert_eq!(process.signal(Signal::SIGTERM), Ok(false));
        child.wait().unwrap();
        assert!(!process.is_alive());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn another_process_of_the_same_number_is_another() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(Process::of(own).is_alive());
        assert!(!Process { pid: own, start: Some(1) }.is_alive());
    }
}
