//! The process table: who is whose child, in which session, and since when.
//!
//! Everything here is a reading of a moment. A pid alone names nobody: pid and start time do.

use std::collections::{HashMap, HashSet};

/// A living process (zombies are left out: they cannot be signalled, and have no children).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    /// Clock ticks since boot; 0 where the system does not tell.
    pub(super) start: u64,
}

/// All processes, the youngest first, each read when it is asked for.
pub(super) fn newest_first() -> impl Iterator<Item = Entry> {
    system::newest_first()
}

/// One process.
pub(super) fn one(pid: i32) -> Option<Entry> {
    system::one(pid)
}

/// Start time of a process, zombies included; 0 where it cannot be had.
pub(super) fn start_of(pid: u32) -> u64 {
    system::start_of(pid)
}

/// True when the process carries `NAME=value` in the environment that it was started with.
pub(super) fn has_variable(pid: i32, variable: &str) -> bool {
    system::has_variable(pid, variable)
}

/// The processes for which `is_root` holds and everything below them, parents before children.
pub(super) fn tree(entries: &[Entry], is_root: impl Fn(&Entry) -> bool) -> Vec<Entry> {
    let mut children: HashMap<i32, Vec<Entry>> = HashMap::new();
    for entry in entries {
        children.entry(entry.parent).or_default().push(*entry);
    }
    let roots: Vec<Entry> = entries.iter().filter(|entry| is_root(entry)).copied().collect();
    let is_listed: HashSet<i32> = roots.iter().map(|entry| entry.pid).collect();
    let (below, tops): (Vec<Entry>, Vec<Entry>) =
        roots.into_iter().partition(|root| is_listed.contains(&root.parent));
    let mut members = Vec::new();
    let mut seen = HashSet::new();
    // Roots below roots come with their parents, but for loops, which a listing over time may show.
    for root in tops.into_iter().chain(below) {
        if !seen.insert(root.pid) {
            continue;
        }
        let mut next = members.len();
        members.push(root);
        while let Some(parent) = members.get(next).map(|entry: &Entry| entry.pid) {
            next += 1;
            let below = children.get(&parent).into_iter().flatten();
            members.extend(below.filter(|child| seen.insert(child.pid)));
        }
    }
    members
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;

    use super::Entry;

    /// Pids are given in a circle, so the highest is the youngest but once a round.
    pub(super) fn newest_first() -> impl Iterator<Item = Entry> {
        let names = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut pids: Vec<i32> =
            names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        pids.into_iter().rev().filter_map(one)
    }

    pub(super) fn one(pid: i32) -> Option<Entry> {
        parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
            .filter(|(state, _)| !matches!(state, b'Z' | b'X'))
            .map(|(_, entry)| entry)
    }

    pub(super) fn start_of(pid: u32) -> u64 {
        let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
        parse(0, &stat).map_or(0, |(_, entry)| entry.start)
    }

    pub(super) fn has_variable(pid: i32, variable: &str) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
    }

    /// State and entry of a `stat` line. The name, second, may hold blanks and brackets: fields are
    /// counted from the last bracket.
    fn parse(pid: i32, line: &[u8]) -> Option<(u8, Entry)> {
        let name_end = line.iter().rposition(|byte| *byte == b')')?;
        let fields = std::str::from_utf8(&line[name_end + 1..]).ok()?;
        let mut fields = fields.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let session = fields.next()?.parse().ok()?;
        let start = fields.nth(15)?.parse().ok()?;
        Some((state, Entry { pid, parent, group, session, start }))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_name_may_look_like_fields() {
            let stat = b"42 (a) R 1 (b) S 7 8 9 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 1234 5 6";
            let entry = Entry { pid: 42, parent: 7, group: 8, session: 9, start: 1234 };
            assert_eq!(parse(42, stat), Some((b'S', entry)));
            assert_eq!(parse(42, b"42 (a"), None);
            assert_eq!(parse(42, b""), None);
        }

        #[test]
        fn this_process_is_in_the_table() {
            let pid = std::process::id();
            let own = newest_first().find(|entry| entry.pid.cast_unsigned() == pid).unwrap();
            assert!(own.start > 0);
            assert_eq!(own.start, start_of(pid));
            assert_eq!(one(own.pid), Some(own));
        }
    }
}

/// By `ps`: written for macOS, untested.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::process::{Command, Stdio};

    use super::Entry;

    pub(super) fn newest_first() -> impl Iterator<Item = Entry> {
        all().into_iter()
    }

    fn all() -> Vec<Entry> {
        let listing = Command::new("/bin/ps")
            .args(["-axo", "pid=,ppid=,pgid=,sess=,stat="])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(listing) = listing else { return Vec::new() };
        let own = listing.id();
        let text = listing.wait_with_output().map(|output| output.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().filter_map(parse).filter(|entry| entry.pid.cast_unsigned() != own).collect()
    }

    pub(super) fn one(pid: i32) -> Option<Entry> {
        all().into_iter().find(|entry| entry.pid == pid)
    }

    pub(super) fn start_of(_pid: u32) -> u64 {
        0
    }

    pub(super) fn has_variable(_pid: i32, _variable: &str) -> bool {
        false
    }

    fn parse(line: &str) -> Option<Entry> {
        let mut fields = line.split_ascii_whitespace();
        let pid = fields.next()?.parse().ok()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let session = i32::from_str_radix(fields.next()?, 16).unwrap_or(0);
        (!fields.next()?.starts_with('Z')).then_some(Entry {
            pid,
            parent,
            group,
            session,
            start: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: i32, parent: i32) -> Entry {
        Entry { pid, parent, group: 0, session: 0, start: 1 }
    }

    #[test]
    fn a_tree_has_its_parents_first_whatever_their_pids() {
        let entries = [entry(3, 9), entry(5, 3), entry(7, 1), entry(9, 4), entry(8, 5)];
        let pids: Vec<i32> =
            tree(&entries, |entry| entry.parent == 4).iter().map(|entry| entry.pid).collect();
        assert_eq!(pids, [9, 3, 5, 8]);
    }

    #[test]
    fn parents_are_first_even_where_all_of_a_session_are_roots() {
        // As they are listed: the newest process first.
        let entries = [entry(8, 5), entry(6, 5), entry(5, 4), entry(4, 1)];
        let pids: Vec<i32> =
            tree(&entries, |entry| entry.pid > 4).iter().map(|entry| entry.pid).collect();
        assert_eq!(pids, [5, 8, 6]);
    }

    #[test]
    fn roots_below_roots_are_listed_once_and_loops_end() {
        let entries = [entry(2, 3), entry(3, 2), entry(4, 2)];
        let pids: Vec<i32> =
            tree(&entries, |entry| entry.pid < 4).iter().map(|entry| entry.pid).collect();
        assert_eq!(pids, [2, 3, 4]);
    }
}
