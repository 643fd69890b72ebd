//! The gateway of a lane: one that the lane has started, or one that took over from another process.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgrp, getpid};

use crate::common::{Gateway, ProcessName};

/// See the module. Killed when dropped.
pub(crate) struct Process {
    pid: i32,
    /// Unless another process has started it.
    started: Option<Gateway>,
    end: Option<ExitStatus>,
    /// Upgrades that it has begun: three within ten minutes are the most.
    pub(crate) tries: usize,
    /// Versions that it does not try again.
    pub(crate) failed: BTreeSet<String>,
}

/// Whoever loses its parent becomes a child of this process, which so learns how gateways end that
/// it has not started.
pub(crate) fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_child_subreaper(true).unwrap();
}

/// Takes note of the ends of orphans that are no gateways, as an init does. Those run in groups of
/// their own.
pub(crate) fn reap_orphans() {
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let (Some(pid), Some((_, rest))) = (pid, stat.rsplit_once(") ")) else { continue };
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<i32>().ok());
        let is_orphan = number(1) == Some(getpid().as_raw());
        if fields.first() == Some(&"Z") && is_orphan && number(2) != Some(getpgrp().as_raw()) {
            let _gone = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
        }
    }
}

/// All gateways of this program, by their command lines; the oldest first.
pub(crate) fn of_program(program: &Path) -> Vec<i32> {
    let mut found: Vec<(u64, i32, i32, Option<u64>)> = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        let is_gateway = words.next() == Some(program.as_os_str().as_encoded_bytes())
            && words.next() == Some(b"start");
        if let Some(pid) = pid.filter(|_| is_gateway)
            && let Some(name) = ProcessName::of(pid)
        {
            found.push((name.start, pid, parent(pid), executable(pid)));
        }
    }
    // A child that has not come to its own program yet; a replacement runs another file.
    let is_fork = |(_, _, parent, runs): &(u64, i32, i32, Option<u64>)| {
        found.iter().any(|(_, pid, _, its)| pid == parent && its == runs)
    };
    let mut gateways: Vec<_> = found.iter().filter(|process| !is_fork(process)).collect();
    gateways.sort_unstable();
    gateways.into_iter().map(|(_, pid, ..)| *pid).collect()
}

fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    rest.split(' ').nth(1).and_then(|field| field.parse().ok()).unwrap_or_default()
}

/// The number of the file that a process runs.
fn executable(pid: i32) -> Option<u64> {
    std::fs::metadata(format!("/proc/{pid}/exe")).ok().map(|metadata| metadata.ino())
}

pub(crate) fn signal(pid: i32, signal: Signal) -> bool {
    nix::sys::signal::kill(Pid::from_raw(pid), signal).is_ok()
}

impl Process {
    /// One that was just started.
    pub(crate) fn started(gateway: Gateway) -> Self {
        Self::new(gateway.pid(), Some(gateway))
    }

    /// One whose parent is gone.
    pub(crate) fn adopted(pid: i32) -> Self {
        Self::new(pid, None)
    }

    fn new(pid: i32, started: Option<Gateway>) -> Self {
        Self { pid, started, end: None, tries: 0, failed: BTreeSet::new() }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn signal(&self, what: Signal) {
        assert!(signal(self.pid, what));
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.end.is_none() {
            self.end = match &mut self.started {
                Some(gateway) => gateway.child.try_wait().unwrap(),
                None => end_of_orphan(self.pid),
            };
        }
        self.end
    }

    /// SIGKILL; returns when it is gone.
    pub(crate) async fn kill(&mut self) {
        if self.ended().is_none() {
            signal(self.pid, Signal::SIGKILL);
        }
        crate::common::wait_until("the gateway's end", || {
            let ended = self.ended();
            async move { ended }
        })
        .await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            signal(self.pid, Signal::SIGKILL);
        }
    }
}

fn end_of_orphan(pid: i32) -> Option<ExitStatus> {
    match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Some(ExitStatus::from_raw(code << 8)),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(ExitStatus::from_raw(signal as i32)),
        // Not ours to wait for where there is no adoption.
        Err(Errno::ECHILD) => ProcessName::of(pid).is_none().then(|| ExitStatus::from_raw(0)),
        _ => None,
    }
}
