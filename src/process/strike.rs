//! Signals to a tree of processes: all of it, and nobody else.
//!
//! A signal goes out through a pidfd that was opened before the process was looked at again: it is
//! still the one that was listed, and still the child of a parent that is still the one that was
//! listed. So a pid that was given to somebody else meanwhile is never hit.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::table::{self, Entry};

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// SIGTERM, and SIGCONT so that a stopped process learns of it.
    Terminate,
    /// SIGSTOP.
    Freeze,
    /// SIGKILL.
    Kill,
}

/// Asks every process of the tree once to end, parents first: a shell that outlived its command
/// would go on to the next one.
pub(super) fn terminate(is_root: impl Fn(&Entry) -> bool) {
    let members = table::tree(&table::newest_first().collect::<Vec<_>>(), &is_root);
    send_all(Blow::Terminate, &members, &members, &is_root);
}

/// Kills the tree, and what it starts meanwhile, until a look finds nobody new. Returns whether
/// there was anybody; who is dying by then is still somebody, so the caller looks again.
///
/// What is found is stopped first, so that nobody is there to start others while one after the
/// other is killed. Groups are killed as such: that reaches who is being forked at the moment.
pub(super) fn kill(is_root: impl Fn(&Entry) -> bool) -> bool {
    // What is still new after so many looks keeps for the caller's next round.
    const LOOKS: usize = 50;
    let mut known: HashSet<(i32, u64)> = HashSet::new();
    for _ in 0..LOOKS {
        let (members, new) = look(&is_root, &mut known);
        if new.is_empty() {
            break;
        }
        send_all(Blow::Freeze, &new, &members, &is_root);
        kill_groups(&new);
        send_all(Blow::Kill, &new, &members, &is_root);
    }
    !known.is_empty()
}

/// The tree, and who of it was not known yet.
fn look(
    is_root: &impl Fn(&Entry) -> bool,
    known: &mut HashSet<(i32, u64)>,
) -> (Vec<Entry>, Vec<Entry>) {
    let mut entries = Vec::new();
    for entry in table::newest_first() {
        // At once: who forks and exits, over and over, is gone by the end of the listing.
        if is_root(&entry) {
            send_all(Blow::Freeze, &[entry], &[], is_root);
        }
        entries.push(entry);
    }
    let members = table::tree(&entries, is_root);
    let mut new = members.clone();
    new.retain(|entry| known.insert((entry.pid, entry.start)));
    (members, new)
}

/// A process can only join groups of its own session, and the tree's sessions began in the tree: all
/// of such a group is of the tree. Our own group is spared: a shim is in the session of its command.
fn kill_groups(members: &[Entry]) {
    let own = rustix::process::getpgrp().as_raw_nonzero().get();
    let groups: BTreeSet<i32> = members
        .iter()
        .filter(|member| member.group > 1 && member.group != own)
        // A member that was stopped, or is not reaped yet, keeps the group's number from others.
        .filter(|member| table::one(member.pid).is_some_and(|now| now == **member))
        .map(|member| member.group)
        .collect();
    for group in groups.into_iter().filter_map(rustix::process::Pid::from_raw) {
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
    }
}

fn send_all(blow: Blow, targets: &[Entry], members: &[Entry], is_root: &impl Fn(&Entry) -> bool) {
    let members: HashMap<i32, Entry> = members.iter().map(|entry| (entry.pid, *entry)).collect();
    for target in targets {
        system::send(blow, target.pid, || {
            table::one(target.pid).is_some_and(|now| {
                now.start == target.start && (is_root(&now) || has_parent_among(&members, &now))
            })
        });
    }
}

/// The parent is one that was listed. Parents are signalled first and may be gone by now; then
/// their children have gone to the tree's reaper, and are roots.
fn has_parent_among(members: &HashMap<i32, Entry>, child: &Entry) -> bool {
    members
        .get(&child.parent)
        .is_some_and(|listed| table::one(listed.pid).is_some_and(|now| now.start == listed.start))
}

#[cfg(target_os = "linux")]
mod system {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

    use super::Blow;

    pub(super) fn send(blow: Blow, pid: i32, is_ours: impl FnOnce() -> bool) {
        let Some(pid) = Pid::from_raw(pid) else { return };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if !is_ours() {
            return;
        }
        // Refusals (it is gone, or it is another user's) show in the next listing.
        for signal in match blow {
            Blow::Terminate => [Signal::TERM, Signal::CONT].as_slice(),
            Blow::Freeze => &[Signal::STOP],
            Blow::Kill => &[Signal::KILL],
        } {
            pidfd_send_signal(&process, *signal).ok();
        }
    }
}

/// Without pidfds: written for macOS, untested.
#[cfg(not(target_os = "linux"))]
mod system {
    use rustix::process::{Pid, Signal, kill_process};

    use super::Blow;

    pub(super) fn send(blow: Blow, pid: i32, is_ours: impl FnOnce() -> bool) {
        let Some(pid) = Pid::from_raw(pid) else { return };
        if !is_ours() {
            return;
        }
        for signal in match blow {
            Blow::Terminate => [Signal::TERM, Signal::CONT].as_slice(),
            Blow::Freeze => &[Signal::STOP],
            Blow::Kill => &[Signal::KILL],
        } {
            kill_process(pid, *signal).ok();
        }
    }
}
