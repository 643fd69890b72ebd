//! `gateway.pid`: for people and scripts; the instance lock decides, not this file.

use std::path::{Path, PathBuf};

use crate::fs::FsError;

/// A pid file holds a number and a line end.
const LONGEST: u64 = 64;
#[cfg(target_os = "linux")]
const PROGRAM: &str = "panorama-gateway";

/// What a pid file and `/proc` say about each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PidRecord {
    /// No pid file, or nothing readable in it.
    None,
    /// The pid names no live panorama-gateway.
    Stale(i32),
    /// A live process of ours (same user) whose executable or command line is a
    /// panorama-gateway.
    Gateway(i32),
}

/// The pid file while it is ours; removed by [`PidFile::remove`], and only if it still names us.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes our pid.
    pub fn write(path: &Path) -> Result<Self, FsError> {
        crate::fs::save(path, format!("{}\n", std::process::id()).as_bytes())?;
        Ok(Self { path: path.to_owned() })
    }

    /// Removes the file if it still holds our pid.
    pub fn remove(self) {
        if read_pid(&self.path).is_some_and(is_our_own) {
            // It may be gone already, and a file that stays is taken for stale.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Reads the file and looks the process up. Our own pid is stale: a predecessor had it, as
    /// happens in containers, where pids start over.
    pub fn inspect(path: &Path) -> PidRecord {
        match read_pid(path) {
            None => PidRecord::None,
            Some(pid) if !is_our_own(pid) && is_gateway(pid) => PidRecord::Gateway(pid),
            Some(pid) => PidRecord::Stale(pid),
        }
    }
}

fn is_our_own(pid: i32) -> bool {
    u32::try_from(pid).is_ok_and(|pid| pid == std::process::id())
}

fn read_pid(path: &Path) -> Option<i32> {
    let contents = crate::fs::read_private(path, LONGEST).ok()??;
    let pid = std::str::from_utf8(&contents).ok()?.trim().parse().ok()?;
    // Zero and negative numbers name process groups: never a process to look up, let alone signal.
    (pid > 0).then_some(pid)
}

/// Alive, run by us, and a panorama-gateway by its executable, its name, or (for the Node package)
/// its script.
#[cfg(target_os = "linux")]
fn is_gateway(pid: i32) -> bool {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let Ok(status) = std::fs::read_to_string(proc.join("status")) else { return false };
    if !is_alive_and_ours(&status, rustix::process::geteuid().as_raw()) {
        return false;
    }
    let executable = std::fs::read_link(proc.join("exe")).unwrap_or_default();
    let command_line = std::fs::read(proc.join("cmdline")).unwrap_or_default();
    names_gateway(&executable, &command_line)
}

/// Without `/proc` only this much can be said: there is such a process and we may signal it.
#[cfg(not(target_os = "linux"))]
fn is_gateway(pid: i32) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok()
}

/// Reads `/proc/<pid>/status`. The owner of the directory would not do: it is root for a process
/// that cannot be dumped.
#[cfg(target_os = "linux")]
fn is_alive_and_ours(status: &str, uid: u32) -> bool {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().split_whitespace()
    };
    let dead = matches!(field("State").next(), None | Some("Z" | "X"));
    // Real, effective, saved, file system.
    let effective = field("Uid").nth(1).and_then(|uid| uid.parse().ok());
    !dead && effective == Some(uid)
}

#[cfg(target_os = "linux")]
fn names_gateway(executable: &Path, command_line: &[u8]) -> bool {
    let executable = executable.to_string_lossy();
    // An executable that was replaced while it ran shows like this.
    let executable = base_name(executable.strip_suffix(" (deleted)").unwrap_or(&executable));
    let command_line = String::from_utf8_lossy(command_line);
    let mut arguments = command_line.split('\0');
    let name = base_name(arguments.next().unwrap_or_default());
    if executable == PROGRAM || name == PROGRAM {
        return true;
    }
    let is_node = [executable, name].iter().any(|name| matches!(*name, "node" | "nodejs" | "bun"));
    is_node && arguments.any(is_script_of_gateway)
}

/// Whether an argument is a path through something called `panorama-gateway` (with or without an
/// extension) or through the Node package.
#[cfg(target_os = "linux")]
fn is_script_of_gateway(argument: &str) -> bool {
    let named = argument.split('/').any(|part| {
        part == PROGRAM || part.rsplit_once('.').is_some_and(|(stem, _)| stem == PROGRAM)
    });
    named || argument.contains("/@panorama-ai/gateway/")
}

#[cfg(target_os = "linux")]
fn base_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Child, Command, Stdio};

    use tempfile::TempDir;

    use super::*;

    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    fn scratch() -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.pid");
        (dir, path)
    }

    /// A real process that was started from a file of this name and runs.
    fn process(dir: &TempDir, name: &str) -> Running {
        let program = dir.path().join(name);
        // A link, not a copy: a file that another thread's fork holds open cannot be executed.
        std::os::unix::fs::symlink("/bin/cat", &program).unwrap();
        let mut child =
            Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Its command line can be read for certain only when it has done something.
        let mut echo = [0];
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut echo).unwrap();
        Running(child)
    }

    fn pid_of(child: &Running) -> i32 {
        child.0.id().try_into().unwrap()
    }

    #[test]
    fn ours_is_written_and_removed() {
        let (_dir, path) = scratch();
        let ours = PidFile::write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        ours.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_names_another_is_left_alone() {
        let (_dir, path) = scratch();
        let ours = PidFile::write(&path).unwrap();
        crate::fs::save(&path, b"1\n").unwrap();
        ours.remove();
        assert_eq!(std::fs::read(&path).unwrap(), b"1\n");
    }

    #[test]
    fn nothing_readable_is_none() {
        let (_dir, path) = scratch();
        assert_eq!(PidFile::inspect(&path), PidRecord::None);
        for junk in ["", "abc", "0", "-1", "-123", "99999999999", "12 34", &"1".repeat(100)] {
            std::fs::write(&path, junk).unwrap();
            assert_eq!(PidFile::inspect(&path), PidRecord::None, "{junk:?}");
        }
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(PidFile::inspect(&path), PidRecord::None);
    }

    #[test]
    fn our_own_pid_was_a_predecessors() {
        let (_dir, path) = scratch();
        let own = std::process::id().try_into().unwrap();
        PidFile::write(&path).unwrap();
        assert_eq!(PidFile::inspect(&path), PidRecord::Stale(own));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_running_gateway_is_told_from_a_recycled_and_a_dead_pid() {
        let (dir, path) = scratch();
        let gateway = process(&dir, PROGRAM);
        let other = process(&dir, "vim");

        std::fs::write(&path, pid_of(&gateway).to_string()).unwrap();
        assert_eq!(PidFile::inspect(&path), PidRecord::Gateway(pid_of(&gateway)));
        std::fs::write(&path, format!(" {}\n", pid_of(&other))).unwrap();
        assert_eq!(PidFile::inspect(&path), PidRecord::Stale(pid_of(&other)));

        let dead = pid_of(&gateway);
        drop(gateway);
        std::fs::write(&path, dead.to_string()).unwrap();
        assert_eq!(PidFile::inspect(&path), PidRecord::Stale(dead));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_zombie_and_another_users_process_do_not_count() {
        let status = |state: &str, uid: u32| {
            format!("Name:\tpanorama-gatewa\nState:\t{state}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
        };
        assert!(is_alive_and_ours(&status("S (sleeping)", 1000), 1000));
        assert!(!is_alive_and_ours(&status("Z (zombie)", 1000), 1000));
        assert!(!is_alive_and_ours(&status("S (sleeping)", 1001), 1000));
        assert!(!is_alive_and_ours("", 0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn gateways_are_known_by_executable_name_or_script() {
        let is = |exe: &str, line: &str| names_gateway(Path::new(exe), line.as_bytes());
        assert!(is("/usr/bin/panorama-gateway", ""));
        assert!(is("/usr/bin/panorama-gateway (deleted)", "x\0"));
        assert!(is("/lib/ld.so", "/opt/panorama-gateway\0start\0"));
        assert!(is("/usr/bin/node", "node\0/usr/local/bin/panorama-gateway\0start\0"));
        assert!(is("/usr/bin/node", "node\0--require\0x.js\0/srv/panorama-gateway.mjs\0"));
        assert!(is("/usr/bin/node", "node\0/x/node_modules/@panorama-ai/gateway/dist/cli.js\0"));
        assert!(!is("/usr/bin/node", "node\0server.js\0"));
        assert!(!is("/usr/bin/vim", "vim\0/src/panorama-gateway/README.md\0"));
        assert!(!is("/usr/bin/panorama-gateway-helper", "panorama-gateway-helper\0"));
        assert!(!is("", ""));
    }
}
