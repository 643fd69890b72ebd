//! A tree of processes that are hard to end, grown by a job; each member reports pid and start time.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{ProcessName, say, wait_until};

/// How long a member may outlive what ends it.
pub(crate) const GONE_WITHIN: Duration = Duration::from_secs(5);

/// A member as it reported itself.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) label: String,
    pub(crate) process: ProcessName,
}

/// The tree of one job.
pub(crate) struct Tree {
    log: PathBuf,
    members: &'static [&'static str],
}

impl Tree {
    pub(crate) fn new(dir: &Path, members: &'static [&'static str]) -> Self {
        Self { log: dir.join("tree.log"), members }
    }

    /// The shell command that grows it, as one simple command.
    pub(crate) fn command(&self) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process_trees/tree.py");
        let (log, members) = (self.log.display(), self.members.join(" "));
        format!("python3 -S -E {script} {log} {members}")
    }

    /// Shell words that wait until all members are there.
    pub(crate) fn await_grown(&self) -> String {
        let (log, count) = (self.log.display(), self.members.len() + 1);
        format!("until [ \"$(wc -l < {log})\" -ge {count} ]; do sleep 0.02; done 2>/dev/null")
    }

    /// What has been reported so far.
    pub(crate) fn reported(&self) -> Vec<Member> {
        let member = |line: &str| {
            let mut fields = line.split(' ');
            let label = fields.next()?.to_owned();
            let pid = fields.next()?.parse().ok()?;
            let start = fields.next()?.parse().ok()?;
            Some(Member { label, process: ProcessName { pid, start } })
        };
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.split_inclusive('\n').filter_map(|line| member(line.strip_suffix('\n')?)).collect()
    }

    /// All members, once they are there.
    pub(crate) async fn grown(&self) -> Vec<Member> {
        wait_until("the tree to grow", || async {
            let members = self.reported();
            (members.len() == self.members.len() + 1).then_some(members)
        })
        .await
    }
}

impl Drop for Tree {
    /// A test that fails half-way leaves nobody.
    fn drop(&mut self) {
        for member in self.reported() {
            end(&member.process);
        }
    }
}

/// Waits until every member is gone and prints when each was; they must be within `limit` of
/// `since`.
pub(crate) async fn all_gone(what: &str, members: &[Member], since: Instant, limit: Duration) {
    let mut gone: Vec<Option<Duration>> = vec![None; members.len()];
    while gone.iter().any(Option::is_none) && since.elapsed() <= limit {
        for (member, gone) in members.iter().zip(&mut gone) {
            if gone.is_none() && !member.process.is_alive() {
                *gone = Some(since.elapsed());
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut table = format!("{what}\n    member         pid       start        gone after\n");
    for (member, gone) in members.iter().zip(&gone) {
        let ProcessName { pid, start } = member.process;
        let after = gone.map_or("ALIVE".to_owned(), |after| format!("{} ms", after.as_millis()));
        let _ = writeln!(table, "    {:<14} {pid:<9} {start:<12} {after}", member.label);
    }
    say(&table);
    let alive: Vec<_> = members.iter().filter(|member| member.process.is_alive()).collect();
    for member in &alive {
        end(&member.process);
    }
    assert!(alive.is_empty() && gone.iter().all(Option::is_some), "{what}: left {alive:?}");
}

/// Ends what a test found alive.
pub(crate) fn end(process: &ProcessName) {
    if process.is_alive() {
        let pid = nix::unistd::Pid::from_raw(process.pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
}

/// The parent of a process that is there.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(1)?.parse().ok()
}

/// When a process was started.
pub(crate) fn started(process: &ProcessName) -> Instant {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    // Start times count in hundredths of a second, as user space sees them.
    let ticks = Duration::from_millis(process.start * 10);
    let age = Duration::from_secs_f64(uptime).saturating_sub(ticks);
    Instant::now().checked_sub(age).unwrap()
}
