//! Making the shim what it must be, and starting the command.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use rustix::io::Errno;

use super::control::Request;
use super::enter::{LAUNCH_WORD, Launcher};
use crate::process::wire::{Step, Strings};
use crate::process::{Confine, table};

/// Why the command does not run.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) errno: Errno,
}

/// The command's first process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leader {
    pub(super) pid: i32,
    pub(super) start: u64,
    /// By the shim's clock.
    pub(super) since: Instant,
}

/// Session leader, child subreaper, deaf to signals, with no descriptors but the first three.
pub(super) fn prepare() -> Result<(), Errno> {
    SigSet::all().thread_block().map_err(errno_of)?;
    rustix::process::setsid()?;
    #[cfg(target_os = "linux")]
    {
        nix::sys::prctl::set_child_subreaper(true).map_err(errno_of)?;
        // The name in `ps` and `top`; started through /proc/self/exe it would be `exe`.
        nix::sys::prctl::set_name(c"panorama-shim").ok();
    }
    close_inherited();
    Ok(())
}

/// Whoever started the gateway may have left descriptors open in it; commands must not get them.
fn close_inherited() {
    let folder = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    // Listed first, closed later: the listing has a descriptor of its own.
    let open: Vec<i32> =
        names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        nix::unistd::close(descriptor).ok();
    }
}

/// Starts the command: in a process group of its own, stdin `/dev/null` unless it is fed, no signal
/// blocked or ignored, the umask and working directory of the request.
pub(super) fn launch(request: &Request) -> Result<Leader, Failure> {
    let at = |step| move |errno| Failure { step, errno };
    let strings = Strings::read(&request.strings, request.start.args)
        .ok_or(Errno::INVAL)
        .map_err(at(Step::Prepare))?;
    nix::sys::stat::umask(Mode::from_bits_truncate(request.start.umask));
    let (pid, since) = if let Some(confine) = &request.start.confine {
        (spawn_confined(request, confine)?, super::now())
    } else {
        nix::unistd::chdir(strings.cwd).map_err(errno_of).map_err(at(Step::WorkDir))?;
        let since = super::now();
        (spawn(request, &strings).map_err(at(Step::Program))?, since)
    };
    // The command's working directory must not be kept busy by background work's shim.
    nix::unistd::chdir("/").ok();
    Ok(Leader { pid, start: table::start_of(pid.cast_unsigned()), since })
}

fn spawn(request: &Request, strings: &Strings<'_>) -> Result<i32, Errno> {
    let program = find(strings)?;
    let mut args = vec![strings.program];
    args.extend(&strings.args);
    let actions = file_actions(request).map_err(errno_of)?;
    let attributes = attributes().map_err(errno_of)?;
    posix_spawn(program.as_c_str(), &actions, &attributes, &args, &strings.env)
        .map(nix::unistd::Pid::as_raw)
        .map_err(errno_of)
}

/// Through a launcher, which turns into the command.
fn spawn_confined(request: &Request, confine: &Confine) -> Result<i32, Failure> {
    let at = |errno| Failure { step: Step::Prepare, errno };
    let launcher = Launcher::new(confine, request.start.args, &request.strings).map_err(at)?;
    let pid = (|| {
        let mut actions = file_actions(request)?;
        for (from, to) in launcher.descriptors() {
            actions.add_dup2(from, to)?;
        }
        let word = CString::new(LAUNCH_WORD).map_err(|_| nix::errno::Errno::EINVAL)?;
        let args = [c"panorama-launch", word.as_c_str()];
        // In the child still this very binary.
        posix_spawn(c"/proc/self/exe", &actions, &attributes()?, &args, &[] as &[&CStr])
    })();
    let pid = pid.map_err(errno_of).map_err(at)?;
    match launcher.wait() {
        None => Ok(pid.as_raw()),
        Some(failure) => {
            nix::sys::wait::waitpid(pid, None).ok();
            Err(failure)
        }
    }
}

fn file_actions(request: &Request) -> nix::Result<PosixSpawnFileActions> {
    let mut actions = PosixSpawnFileActions::init()?;
    match &request.descriptors.stdin {
        Some(stdin) => actions.add_dup2(stdin.as_raw_fd(), 0)?,
        None => actions.add_open(0, c"/dev/null", OFlag::O_RDONLY, Mode::empty())?,
    }
    actions.add_dup2(request.descriptors.stdout.write.as_raw_fd(), 1)?;
    actions.add_dup2(request.descriptors.stderr.write.as_raw_fd(), 2)?;
    Ok(actions)
}

fn attributes() -> nix::Result<PosixSpawnAttr> {
    let mut resettable = SigSet::all();
    resettable.remove(Signal::SIGKILL);
    resettable.remove(Signal::SIGSTOP);
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
    )?;
    attributes.set_pgroup(nix::unistd::Pid::from_raw(0))?;
    attributes.set_sigdefault(&resettable)?;
    attributes.set_sigmask(&SigSet::empty())?;
    Ok(attributes)
}

/// The program's file: a name without a slash is looked for in the command's own `PATH`.
pub(super) fn find(strings: &Strings<'_>) -> Result<CString, Errno> {
    if strings.program.to_bytes().contains(&b'/') {
        return Ok(strings.program.to_owned());
    }
    let path = strings.env.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="));
    in_path(path.unwrap_or(b"/usr/bin:/bin"), strings.program)
}

fn in_path(path: &[u8], program: &CStr) -> Result<CString, Errno> {
    let name = Path::new(OsStr::from_bytes(program.to_bytes()));
    let mut refused = None;
    for folder in std::env::split_paths(OsStr::from_bytes(path)) {
        // As shells read it: an empty entry is the working directory.
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
        let file = folder.join(name);
        if !file.is_file() {
            continue;
        }
        match nix::unistd::access(&file, nix::unistd::AccessFlags::X_OK) {
            Ok(()) => {
                return CString::new(file.into_os_string().into_vec()).map_err(|_| Errno::INVAL);
            }
            Err(errno) => refused = Some(errno_of(errno)),
        }
    }
    Err(refused.unwrap_or(Errno::NOENT))
}

pub(super) fn errno_of(errno: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(errno as i32)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_program_is_looked_for_as_shells_do() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
        for (place, mode) in [(&first, 0o600), (&second, 0o700)] {
            std::fs::create_dir(place).unwrap();
            std::fs::create_dir(place.join("folder")).unwrap();
            std::fs::write(place.join("tool"), "").unwrap();
            std::fs::set_permissions(place.join("tool"), PermissionsExt::from_mode(mode)).unwrap();
        }
        let path = format!("/nowhere:{}:{}", first.display(), second.display());
        let found = in_path(path.as_bytes(), c"tool").unwrap();
        assert_eq!(found.to_bytes(), second.join("tool").as_os_str().as_bytes());
        assert_eq!(in_path(path.as_bytes(), c"folder"), Err(Errno::NOENT));
        assert_eq!(in_path(path.as_bytes(), c""), Err(Errno::NOENT));
        let only_refused = first.to_str().unwrap().as_bytes();
        assert_eq!(in_path(only_refused, c"tool"), Err(Errno::ACCESS));
    }
}
