//! A cgroup (v2) for each shell command of a managed VM: its limits, and a way to end all of it.
//!
//! ```text
//! D                        what the service manager gave us (`Delegate=yes`)
//! ├─ panorama-self         the gateway and its shims
//! └─ panorama-jobs-<id>    of the gateway of that id
//!    └─ job-<id>           one command with all that it starts
//! ```

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The cgroup of the gateway itself, which its replacement is born in.
const SELF: &str = "panorama-self";
const JOBS: &str = "panorama-jobs-";
/// After SIGKILL to all: how often it is looked whether anybody is left, and how long between.
const LOOKS: u32 = 400;
const PAUSE: Duration = Duration::from_millis(5);

/// A limit as the kernel takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limit {
    /// Who enforces it, e.g. `memory`.
    pub(super) controller: &'static str,
    /// The file, e.g. `memory.max`.
    pub(super) file: &'static str,
    /// Its contents.
    pub(super) value: String,
}

/// Where commands get their cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Workloads {
    jobs: PathBuf,
    /// Those that are enforced here.
    pub(super) limits: Vec<Limit>,
    /// Those that are not: this machine has no such controller in its v2 hierarchy.
    pub(super) missing: Vec<Limit>,
}

impl Workloads {
    /// Moves this process into a cgroup of its own and makes room for the commands' beside it; ends
    /// what an earlier gateway of this id left. The error says, for people, why there are none.
    pub(super) fn prepare(gateway_id: &str, wanted: Vec<Limit>) -> Result<Self, String> {
        let read = |path| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let own = own_cgroup(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)?;
        Self::prepare_below(&own, gateway_id, wanted)
    }

    /// The same for a process that is in the cgroup `own`.
    fn prepare_below(own: &Path, gateway_id: &str, wanted: Vec<Limit>) -> Result<Self, String> {
        let is_ours = own.file_name().is_some_and(|name| name == SELF);
        let base = own.parent().filter(|_| is_ours).unwrap_or(own);
        let told = |what: &str, path: &Path, error: &io::Error| {
            format!("could not {what} {}: {error}", path.display())
        };
        let leaf = base.join(SELF);
        make(&leaf).map_err(|error| told("make", &leaf, &error))?;
        enter(&leaf, "0").map_err(|error| told("enter", &leaf, &error))?;
        let jobs = base.join(format!("{JOBS}{gateway_id}"));
        make(&jobs).map_err(|error| told("make", &jobs, &error))?;
        if !jobs.join("cgroup.kill").exists() {
            return Err("this kernel cannot kill a cgroup (it is older than 5.14)".to_owned());
        }
        clear(&jobs);
        let (limits, missing) = wanted.into_iter().partition(|limit| {
            let on = |dir: &Path| enable(dir, &leaf, limit.controller);
            let enabled = on(base).and_then(|()| on(&jobs));
            if let Err(error) = &enabled {
                tracing::warn!(limit = limit.file, error, "a limit of jobs is not enforced");
            }
            enabled.is_ok()
        });
        Ok(Self { jobs, limits, missing })
    }

    /// Makes the cgroup of a command.
    pub(super) fn open(&self, workload_id: &str) -> io::Result<Workload> {
        // An older gateway that handed over to this one may have taken it along when it went.
        if make(&self.jobs)? {
            for Limit { controller, .. } in &self.limits {
                let path = self.jobs.join("cgroup.subtree_control");
                fs::write(path, format!("+{controller}"))?;
            }
        }
        let workload = Workload { path: self.jobs.join(workload_id) };
        make(&workload.path)?;
        for Limit { file, value, .. } in &self.limits {
            fs::write(workload.path.join(file), value)?;
        }
        // Of a command that ran out of memory nothing is to be left. Absent where memory is not
        // controlled.
        fs::write(workload.path.join("memory.oom.group"), "1").ok();
        Ok(workload)
    }

    /// Removes what is empty; the next gateway of this id removes the rest.
    pub(super) fn leave(&self) {
        fs::remove_dir(&self.jobs).ok();
    }
}

/// The cgroup of one command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Workload {
    pub(super) path: PathBuf,
}

impl Workload {
    /// Kills all that is in it, waits until nobody is left, and removes it. Blocks, for two seconds
    /// at most.
    pub(super) fn end(self) -> Result<(), String> {
        let told = |error: &io::Error| format!("could not end {}: {error}", self.path.display());
        fs::write(self.path.join("cgroup.kill"), "1").map_err(|error| told(&error))?;
        for _ in 0..LOOKS {
            let events = fs::read_to_string(self.path.join("cgroup.events"));
            if is_empty(&events.map_err(|error| told(&error))?) {
                return fs::remove_dir(&self.path).map_err(|error| told(&error));
            }
            std::thread::sleep(PAUSE);
        }
        Err(format!("processes in {} withstand SIGKILL", self.path.display()))
    }
}

impl Drop for Workload {
    /// One that was not ended is ended by the next gateway.
    fn drop(&mut self) {
        fs::write(self.path.join("cgroup.kill"), "1").ok();
        fs::remove_dir(&self.path).ok();
    }
}

fn is_empty(events: &str) -> bool {
    events.lines().any(|line| line.trim() == "populated 0")
}

/// True when it was not there.
fn make(path: &Path) -> io::Result<bool> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|()| true),
    }
}

fn enter(cgroup: &Path, pid: &str) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), pid)
}

/// Ends the commands of an earlier gateway.
fn clear(jobs: &Path) {
    for entry in fs::read_dir(jobs).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let left = Workload { path: entry.path() };
            if let Err(error) = left.end() {
                tracing::warn!(error, "what an earlier gateway left cannot be ended");
            }
        }
    }
}

/// Hands a controller down from `dir`. A cgroup with processes of its own hands nothing down, but
/// for the root: they go to the gateway's.
fn enable(dir: &Path, leaf: &Path, controller: &str) -> Result<(), String> {
    let path = dir.join("cgroup.subtree_control");
    let write = || fs::write(&path, format!("+{controller}"));
    let told = |error: io::Error| format!("{}: {error}", path.display());
    match write() {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => {
            let processes = fs::read_to_string(dir.join("cgroup.procs")).map_err(told)?;
            for pid in processes.split_whitespace() {
                // One that has ended meanwhile is not there to be moved.
                enter(leaf, pid).ok();
            }
            write().map_err(told)
        }
        written => written.map_err(told),
    }
}

/// The directory of this process's cgroup in the v2 hierarchy.
fn own_cgroup(cgroups: &str, mounts: &str) -> Result<PathBuf, String> {
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::"));
    let own = own.ok_or("this machine has no cgroups of version 2")?;
    for line in mounts.lines() {
        // Id, parent, device, root, mount point, options, …, "-", type, source, options.
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        if kind.split(' ').next() != Some("cgroup2") {
            continue;
        }
        let mut fields = mount.split(' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
        let root = root.trim_end_matches('/');
        let below = own.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        if let Some(rest) = below {
            return Ok(Path::new(point).join(rest.trim_start_matches('/')));
        }
    }
    Err("the cgroup file system of version 2 is not mounted here".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_found_among_the_mounts() {
        let hybrid = "25 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      26 25 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      27 25 0:24 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let found = |cgroups: &str, mounts: &str| own_cgroup(cgroups, mounts);
        assert_eq!(
            found("4:memory:/x\n0::/system.slice/a.service\n", hybrid),
            Ok("/sys/fs/cgroup/unified/system.slice/a.service".into())
        );
        assert_eq!(found("0::/", hybrid), Ok("/sys/fs/cgroup/unified/".into()));
        let container = "27 25 0:24 /pod/one /sys/fs/cgroup ro - cgroup2 cgroup2 rw";
        assert_eq!(found("0::/pod/one/job", container), Ok("/sys/fs/cgroup/job".into()));
        assert!(found("0::/pod/one-more", container).is_err());
        assert!(found("4:memory:/x", hybrid).unwrap_err().contains("version 2"));
        assert!(found("0::/", "26 25 0:23 / /m rw - cgroup cgroup rw").is_err());
    }

    /// A directory tree that behaves like cgroups as far as files go; the kernel makes them itself.
    fn tree(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        dir
    }

    fn limit(controller: &'static str) -> Limit {
        let file = if controller == "memory" { "memory.max" } else { "pids.max" };
        Limit { controller, file, value: "7".into() }
    }

    #[test]
    fn the_gateway_goes_to_a_leaf_and_hands_controllers_down() {
        let dir = tree(&["panorama-jobs-g/cgroup.kill"]);
        let base = dir.path();
        let wanted = vec![limit("memory")];
        let made = Workloads::prepare_below(base, "g", wanted.clone()).unwrap();
        assert_eq!((&made.limits, made.missing.len()), (&wanted, 0));
        let read = |path: &str| fs::read_to_string(base.join(path)).unwrap();
        assert_eq!(read("panorama-self/cgroup.procs"), "0");
        assert_eq!(read("cgroup.subtree_control"), "+memory");
        assert_eq!(read("panorama-jobs-g/cgroup.subtree_control"), "+memory");
        fs::remove_dir_all(base.join("panorama-jobs-g")).unwrap();
        let job = made.open("job-1").unwrap();
        assert_eq!(read("panorama-jobs-g/cgroup.subtree_control"), "+memory");
        assert_eq!(read("panorama-jobs-g/job-1/memory.max"), "7");
        assert_eq!(job.path, base.join("panorama-jobs-g/job-1"));
        drop(job);
        fs::write(base.join("panorama-jobs-g/cgroup.kill"), "").unwrap();
        // A replacement is born in the leaf.
        let again = Workloads::prepare_below(&base.join("panorama-self"), "g", wanted).unwrap();
        assert_eq!(again, made);
        assert!(!base.join("panorama-self/panorama-self").exists());
    }

    #[test]
    fn what_cannot_be_had_is_said() {
        let dir = tree(&["panorama-jobs-g/cgroup.kill", "cgroup.subtree_control/in the way"]);
        let made = Workloads::prepare_below(dir.path(), "g", vec![limit("pids")]).unwrap();
        assert_eq!((made.limits.len(), &made.missing), (0, &vec![limit("pids")]));
        let old = tempfile::tempdir().unwrap();
        let why = Workloads::prepare_below(old.path(), "g", Vec::new()).unwrap_err();
        assert!(why.contains("5.14"), "{why}");
        let none = Workloads::prepare_below(Path::new("/nowhere"), "g", Vec::new()).unwrap_err();
        assert!(none.contains("/nowhere/panorama-self"), "{none}");
    }

    #[test]
    fn a_cgroup_is_empty_when_the_kernel_says_so() {
        assert!(is_empty("populated 0\nfrozen 0\n"));
        assert!(!is_empty("populated 1\nfrozen 0\n") && !is_empty(""));
    }
}
