//! The launcher: what a confined command is started through.
//!
//! The shim stays who it is, since it has to kill what it started. So it starts this very binary once
//! more in the command's process group; that enters the cgroup, becomes the user and turns into the
//! command. Until then nothing of the command's own environment is about: it comes by a descriptor.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::unistd::{Gid, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::launch::{Failure, errno_of, find};
use crate::process::wire::{self, Inbox, Step, Strings};
use crate::process::{Confine, ExecUser};

/// The hidden first argument that makes the binary a launcher.
pub const LAUNCH_WORD: &str = "__run-launch";

/// Where the launcher finds its orders, and where it tells why it failed.
const ORDERS: i32 = 3;
const OUTCOME: i32 = 4;
/// Descriptors that are to become those two are put out of their way first.
const ASIDE: i32 = 10;

/// What a launcher is to do.
#[derive(Debug, Serialize, Deserialize)]
struct Orders {
    confine: Confine,
    args: usize,
}

/// Why it did not.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    step: Step,
    errno: i32,
}

/// The shim's side of a launcher that is about to be started.
pub(super) struct Launcher {
    orders: OwnedFd,
    outcome: OwnedFd,
    told: File,
}

impl Launcher {
    /// With its orders; `block` is what [`Strings::read`] reads.
    pub(super) fn new(confine: &Confine, args: usize, block: &[u8]) -> Result<Self, Errno> {
        let io = |error: std::io::Error| {
            error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
        };
        let mut bytes = Vec::with_capacity(block.len() + 1024);
        wire::push_json(&mut bytes, &Orders { confine: confine.clone(), args }).map_err(io)?;
        wire::push_frame(&mut bytes, block).map_err(io)?;
        let mut orders = File::from(memory()?);
        orders.write_all(&bytes).map_err(io)?;
        let (told, outcome) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        Ok(Self { orders: aside(orders)?, outcome: aside(outcome)?, told: told.into() })
    }

    /// Descriptors by the number under which the launcher has them.
    pub(super) fn descriptors(&self) -> [(i32, i32); 2] {
        [(self.orders.as_raw_fd(), ORDERS), (self.outcome.as_raw_fd(), OUTCOME)]
    }

    /// Waits until it has turned into the command, or for why it has not.
    pub(super) fn wait(self) -> Option<Failure> {
        let Self { outcome, mut told, .. } = self;
        drop(outcome);
        let mut bytes = Vec::new();
        told.read_to_end(&mut bytes).ok();
        let Told { step, errno } = serde_json::from_slice(&bytes).ok()?;
        Some(Failure { step, errno: Errno::from_raw_os_error(errno) })
    }
}

fn aside(descriptor: impl AsFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(descriptor, ASIDE)
}

#[cfg(target_os = "linux")]
fn memory() -> Result<OwnedFd, Errno> {
    rustix::fs::memfd_create("panorama-launch", rustix::fs::MemfdFlags::CLOEXEC)
}

/// Managed VMs are Linux.
#[cfg(not(target_os = "linux"))]
fn memory() -> Result<OwnedFd, Errno> {
    Err(Errno::NOTSUP)
}

/// The launcher's whole life: it ends as the command, or as a failure.
pub fn launch_main() -> ExitCode {
    // Opened anew, these close themselves when the command begins; the ones that came do not.
    let orders = File::open(format!("/proc/self/fd/{ORDERS}"));
    let outcome = File::options().write(true).open(format!("/proc/self/fd/{OUTCOME}"));
    nix::unistd::close(ORDERS).ok();
    nix::unistd::close(OUTCOME).ok();
    let (Ok(mut orders), Ok(mut outcome)) = (orders, outcome) else { return ExitCode::FAILURE };
    let mut bytes = Vec::new();
    let failure = match orders.read_to_end(&mut bytes) {
        Ok(_) => enter(&bytes),
        Err(_) => Failure { step: Step::Prepare, errno: Errno::IO },
    };
    let told = Told { step: failure.step, errno: failure.errno.raw_os_error() };
    if let Ok(text) = serde_json::to_vec(&told) {
        outcome.write_all(&text).ok();
    }
    ExitCode::FAILURE
}

/// Returns only when it failed.
fn enter(bytes: &[u8]) -> Failure {
    let unreadable = Failure { step: Step::Prepare, errno: Errno::INVAL };
    let mut inbox = Inbox::default();
    inbox.push(bytes);
    let (Ok(Some(orders)), Ok(Some(block))) = (inbox.json::<Orders>(), inbox.frame()) else {
        return unreadable;
    };
    let Some(strings) = Strings::read(&block, orders.args) else { return unreadable };
    match confined(&orders.confine, strings.cwd) {
        Ok(()) => run(&strings),
        Err(failure) => failure,
    }
}

/// The cgroup first: only root may enter it.
fn confined(confine: &Confine, cwd: &CStr) -> Result<(), Failure> {
    let at = |step| move |errno| Failure { step, errno: errno_of(errno) };
    if let Some(cgroup) = &confine.cgroup {
        // "0" is who writes it.
        std::fs::write(cgroup.join("cgroup.procs"), "0").map_err(|error| Failure {
            step: Step::Cgroup,
            errno: error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error),
        })?;
    }
    if let Some(user) = &confine.user {
        become_user(user).map_err(at(Step::User))?;
    }
    nix::unistd::chdir(cwd).map_err(at(Step::WorkDir))
}

#[cfg(target_os = "linux")]
fn become_user(user: &ExecUser) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    if nix::unistd::geteuid() == uid {
        return Ok(());
    }
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    nix::unistd::setgroups(&groups)?;
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)
}

#[cfg(not(target_os = "linux"))]
fn become_user(_user: &ExecUser) -> nix::Result<()> {
    Err(nix::errno::Errno::ENOTSUP)
}

/// The program is looked for as the user who is to run it.
fn run(strings: &Strings<'_>) -> Failure {
    let program = match find(strings) {
        Ok(program) => program,
        Err(errno) => return Failure { step: Step::Program, errno },
    };
    let text = |text: &CStr| OsStr::from_bytes(text.to_bytes()).to_owned();
    let mut command = Command::new(text(&program));
    command.arg0(text(strings.program)).args(strings.args.iter().map(|arg| text(arg))).env_clear();
    for entry in &strings.env {
        let entry = entry.to_bytes();
        if let Some(at) = entry.iter().position(|byte| *byte == b'=') {
            command.env(OsStr::from_bytes(&entry[..at]), OsStr::from_bytes(&entry[at + 1..]));
        }
    }
    // Comes back only with an error; it undoes that our runtime ignores SIGPIPE.
    let error = command.exec();
    let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
    Failure { step: Step::Program, errno }
}
