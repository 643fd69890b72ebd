//! From the command's start to the end of its last process.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait};

use super::control::Control;
use super::launch::Leader;
use super::now;
use crate::process::strike;
use crate::process::table::{self, Entry};
use crate::process::wire::{Descriptors, Exited, Order, Report, Start};
use crate::process::{Background, Exit, FirstSignal, StopSequence};

/// After this long the gateway is told that something cannot be killed.
const STUCK: Duration = Duration::from_secs(5);
/// Between two rounds of killing, at first and at most.
const ROUND: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// Where a run stands.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The command runs.
    Running,
    /// The command was asked to end and to clean up, and has time until then.
    Asking { terminate_at: Instant, kill_at: Instant },
    /// Everything was asked to end, and has time until then.
    Stopping { kill_at: Instant },
    /// Everything is killed, in rounds, until nothing is left.
    Killing { since: Instant, round: u32, next: Instant },
    /// The command has ended normally, what it left may live.
    Lingering,
    /// Nothing is left to hold.
    Over,
}

pub(super) struct Supervisor {
    control: Option<Control>,
    children: system::Children,
    start: Start,
    /// Read ends of the command's pipes, while somebody may hold the other ends.
    outputs: Vec<OwnedFd>,
    own_pid: i32,
    leader: Leader,
    exit: Option<(Exit, Duration)>,
    stopped: bool,
    reported: bool,
    phase: Phase,
}

impl Supervisor {
    /// Closes the write ends: only the command and its offspring hold them from here on.
    pub(super) fn new(
        control: Control,
        start: Start,
        descriptors: Descriptors,
        leader: Leader,
    ) -> Self {
        Self {
            control: Some(control),
            children: system::Children::new(),
            start,
            outputs: vec![descriptors.stdout.read, descriptors.stderr.read],
            own_pid: rustix::process::getpid().as_raw_nonzero().get(),
            leader,
            exit: None,
            stopped: false,
            reported: false,
            phase: Phase::Running,
        }
    }

    /// Returns when nothing is left to hold.
    pub(super) fn run(mut self) {
        loop {
            let nothing_left = self.reap();
            self.advance(nothing_left);
            if matches!(self.phase, Phase::Over) {
                return;
            }
            self.wait_for_events();
        }
    }

    /// Takes leave of every child that has ended. True when there is none left; orphans of the
    /// tree become children of the shim, so then the tree is gone.
    fn reap(&mut self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.note(pid.as_raw_nonzero().get(), status),
                Ok(None) => return false,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return system::IS_REAPER_OF_ALL || self.is_tree_gone(),
            }
        }
    }

    fn is_tree_gone(&self) -> bool {
        !table::newest_first().any(|entry| self.is_root()(&entry))
    }

    fn note(&mut self, pid: i32, status: WaitStatus) {
        if pid == self.leader.pid && self.exit.is_none() {
            let exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => return,
            };
            self.exit = Some((exit, now() - self.leader.since));
        }
    }

    /// Goes on to what the state of the tree asks for.
    fn advance(&mut self, nothing_left: bool) {
        let now = now();
        match self.phase {
            Phase::Running if self.exit.is_some() => self.after_normal_exit(nothing_left),
            Phase::Asking { .. } | Phase::Stopping { .. } | Phase::Killing { .. }
                if nothing_left =>
            {
                self.finish();
            }
            // Who would clean up is gone, or takes too long.
            Phase::Asking { terminate_at, kill_at }
                if now >= terminate_at || self.exit.is_some() =>
            {
                self.terminate_all(kill_at);
            }
            Phase::Stopping { kill_at } if now >= kill_at => self.begin_killing(),
            Phase::Killing { since, round, next } if now >= next => {
                strike::kill(self.is_root());
                if now - since >= STUCK {
                    self.report(false, true);
                }
                let pause = (ROUND.0 * 2_u32.saturating_pow(round.min(10))).min(ROUND.1);
                self.phase = Phase::Killing { since, round: round + 1, next: super::now() + pause };
            }
            Phase::Lingering if nothing_left && self.outputs.is_empty() => self.phase = Phase::Over,
            Phase::Running
            | Phase::Asking { .. }
            | Phase::Stopping { .. }
            | Phase::Killing { .. }
            | Phase::Lingering
            | Phase::Over => {}
        }
    }

    fn after_normal_exit(&mut self, nothing_left: bool) {
        let may_stay = self.start.background == Background::Allowed;
        if may_stay && (!nothing_left || self.outputs_are_held()) {
            self.report(true, false);
            self.phase = Phase::Lingering;
        } else if nothing_left {
            self.finish();
        } else {
            self.begin_killing();
        }
    }

    fn finish(&mut self) {
        self.report(false, false);
        self.phase = Phase::Over;
    }

    fn begin_killing(&mut self) {
        let now = now();
        // The tree may be busy enough to keep the shim from running; only root may do this.
        rustix::process::setpriority_process(None, -20).ok();
        self.phase = Phase::Killing { since: now, round: 0, next: now };
        self.advance(false);
    }

    fn begin_stop(&mut self) {
        self.stopped = true;
        let grace = self.start.stop.grace();
        if grace.is_zero() {
            return self.begin_killing();
        }
        let now = now();
        match self.start.stop {
            StopSequence::Shell { .. } => self.terminate_all(now + grace),
            StopSequence::Agent { first, .. } => {
                self.ask(first);
                self.phase = Phase::Asking { terminate_at: now + grace / 2, kill_at: now + grace };
            }
        }
    }

    fn terminate_all(&mut self, kill_at: Instant) {
        strike::terminate(self.is_root());
        self.phase = Phase::Stopping { kill_at };
    }

    /// The command is not reaped yet, so its number, and that of its group, is its own. A stopped
    /// process learns of a signal when it goes on.
    fn ask(&self, first: FirstSignal) {
        let Some(leader) = rustix::process::Pid::from_raw(self.leader.pid) else { return };
        match first {
            FirstSignal::Interrupt => {
                for signal in [Signal::INT, Signal::CONT] {
                    kill_process(leader, signal).ok();
                }
            }
            FirstSignal::TerminateGroup => {
                for signal in [Signal::TERM, Signal::CONT] {
                    kill_process_group(leader, signal).ok();
                }
            }
        }
    }

    /// Children of the shim (the command, and orphans below it), and who is still in its session.
    fn is_root(&self) -> impl Fn(&Entry) -> bool + use<> {
        let shim = self.own_pid;
        move |entry| entry.parent == shim || (entry.session == shim && entry.pid != shim)
    }

    fn report(&mut self, background: bool, stuck: bool) {
        if std::mem::replace(&mut self.reported, true) {
            return;
        }
        // Without an exit the leader itself withstands SIGKILL so far, e.g. in the kernel.
        let (exit, duration) = self.exit.unwrap_or((Exit::Signal(9), now() - self.leader.since));
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let stopped = self.stopped;
        let exited = Exited { exit, nanoseconds, stopped, background, stuck };
        if let Some(control) = &mut self.control {
            control.report(&Report::Exited(exited));
        }
    }

    fn wait_for_events(&mut self) {
        let draining = self.control.is_none();
        let lingering = matches!(self.phase, Phase::Lingering);
        let mut watched = Vec::with_capacity(4);
        watched.extend(self.children.as_fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        watched.extend(
            self.control.as_ref().map(|control| PollFd::new(control.as_fd(), PollFlags::POLLIN)),
        );
        if lingering {
            // The gateway still reads while it is there; until then only their end is of interest.
            let flags = if draining { PollFlags::POLLIN } else { PollFlags::empty() };
            watched.extend(self.outputs.iter().map(|output| PollFd::new(output.as_fd(), flags)));
        }
        // An interruption is as good as an event: everything is looked at again.
        poll(&mut watched, self.timeout()).ok();
        self.children.acknowledge();
        self.hear();
        if lingering {
            self.outputs.retain(|output| is_held(output, draining));
        }
    }

    fn timeout(&self) -> PollTimeout {
        let until = match self.phase {
            Phase::Asking { terminate_at, .. } => Some(terminate_at),
            Phase::Stopping { kill_at } => Some(kill_at),
            Phase::Killing { next, .. } => Some(next),
            Phase::Running | Phase::Lingering | Phase::Over => None,
        };
        // Rounded up, so as not to wake just before the time.
        let left = until
            .map(|until| until.saturating_duration_since(now()) + Duration::from_millis(1))
            .map(|left| i32::try_from(left.as_millis()).unwrap_or(i32::MAX));
        let most =
            self.children.tick().map(|tick| i32::try_from(tick.as_millis()).unwrap_or(i32::MAX));
        match (left, most) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
        .map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))
    }

    /// Listens to the gateway.
    fn hear(&mut self) {
        let Some(control) = &mut self.control else { return };
        let news = control.news();
        // An exit that is there already came before the order.
        self.reap();
        let running = matches!(self.phase, Phase::Running) && self.exit.is_none();
        if news.closed {
            self.control = None;
            if running || matches!(self.phase, Phase::Asking { .. } | Phase::Stopping { .. }) {
                self.stopped = true;
                self.begin_killing();
            }
        } else if running && news.orders.contains(&Order::Stop) {
            self.begin_stop();
        }
    }

    fn outputs_are_held(&mut self) -> bool {
        self.outputs.retain(|output| is_held(output, false));
        !self.outputs.is_empty()
    }
}

/// Reads away what is in the pipe, if it shall be, and says whether a writer is left.
fn is_held(output: &OwnedFd, draining: bool) -> bool {
    let flags = if draining { PollFlags::POLLIN } else { PollFlags::empty() };
    let mut buffer = [0; 16 << 10];
    loop {
        let mut watched = [PollFd::new(output.as_fd(), flags)];
        if poll(&mut watched, PollTimeout::ZERO).is_err() {
            return true;
        }
        let seen = watched[0].revents().unwrap_or(PollFlags::empty());
        if seen.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
            return false;
        }
        if !seen.contains(PollFlags::POLLIN) || rustix::io::read(output, &mut buffer).is_err() {
            return true;
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::os::fd::{AsFd, BorrowedFd};
    use std::time::Duration;

    use nix::sys::signal::{SigSet, Signal};
    use nix::sys::signalfd::{SfdFlags, SignalFd};

    /// Orphans of the tree become children of the shim.
    pub(super) const IS_REAPER_OF_ALL: bool = true;

    /// Tells that a child has ended.
    pub(super) struct Children(Option<SignalFd>);

    impl Children {
        pub(super) fn new() -> Self {
            let mut ended = SigSet::empty();
            ended.add(Signal::SIGCHLD);
            let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
            Self(SignalFd::with_flags(&ended, flags).ok())
        }

        pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
            self.0.as_ref().map(AsFd::as_fd)
        }

        /// How often to look without being told.
        pub(super) fn tick(&self) -> Option<Duration> {
            self.0.is_none().then_some(Duration::from_millis(20))
        }

        pub(super) fn acknowledge(&self) {
            while let Some(Ok(Some(_))) = self.0.as_ref().map(SignalFd::read_signal) {}
        }
    }
}

/// Without signal descriptors: written for macOS, untested.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::os::fd::BorrowedFd;
    use std::time::Duration;

    /// Orphans go elsewhere.
    pub(super) const IS_REAPER_OF_ALL: bool = false;

    /// Nothing tells that a child has ended.
    pub(super) struct Children;

    impl Children {
        pub(super) fn new() -> Self {
            Self
        }

        #[expect(clippy::unused_self, reason = "as where there is a descriptor")]
        pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
            None
        }

        #[expect(clippy::unused_self, reason = "as where there is a descriptor")]
        pub(super) fn tick(&self) -> Option<Duration> {
            Some(Duration::from_millis(20))
        }

        #[expect(clippy::unused_self, reason = "as where there is a descriptor")]
        pub(super) fn acknowledge(&self) {}
    }
}
