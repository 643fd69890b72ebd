//! This machine: what it is, whether files are private, how much room there is.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Check;
use crate::config::Paths;

/// Below, nothing may be written at any moment.
const LEAST_SPACE: u64 = 64 << 20;
/// Below, runs of agents may fill the disk.
pub(crate) const LITTLE_SPACE: u64 = 1 << 30;

/// The machine and the program.
pub fn host() -> Check {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let detail = format!("panorama-gateway {} on {os} {arch}, {cores} cores", crate::VERSION);
    Check::ok("host", detail)
}

/// What is wrong with the owner or the mode of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// Somebody else owns it.
    Foreign,
    /// Others may read or change it.
    Loose(u32),
}

fn flaw(owner: u32, mode: u32, user: u32) -> Option<Flaw> {
    match mode & 0o777 {
        _ if owner != user => Some(Flaw::Foreign),
        mode if mode & 0o077 != 0 => Some(Flaw::Loose(mode)),
        _ => None,
    }
}

/// The gateway's own directory and files are its user's alone. Changes nothing; what is not there
/// yet is in order. Reads directories.
pub fn permissions(paths: &Paths) -> Check {
    const ID: &str = "permissions";
    let user = rustix::process::geteuid().as_raw();
    let mut loose = None;
    let places = [
        paths.dir.clone(),
        paths.config_file.clone(),
        paths.log_file.clone(),
        paths.tmp(),
        paths.journal(),
    ];
    for path in &places {
        let Ok(metadata) = std::fs::metadata(path) else { continue };
        match flaw(metadata.uid(), metadata.mode(), user) {
            Some(Flaw::Foreign) => {
                let detail = format!("{} belongs to another user", path.display());
                return Check::fail(
                    ID,
                    detail,
                    "give it to the user that runs the gateway: `chown`",
                );
            }
            Some(Flaw::Loose(mode)) => {
                loose.get_or_insert((path, mode));
            }
            None => {}
        }
    }
    if let Err(error) = crate::fs::check_writable_dir(&paths.dir) {
        let hint = "let the gateway's user write there, or name another place by --config-dir";
        return Check::fail(ID, error.to_string(), hint);
    }
    match loose {
        Some((path, mode)) => {
            let detail = format!("{} is open to others (mode {mode:04o})", path.display());
            Check::warn(ID, detail, "the gateway takes that back when it uses it next")
        }
        None => Check::ok(ID, format!("{} is private", paths.dir.display())),
    }
}

/// Bytes that may still be written at `dir`; `None` when the file system does not tell.
pub(crate) fn free_space(dir: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(dir).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The room for files of the gateway. Asks the file system.
pub fn disk_space(dir: &Path) -> Check {
    let existing = dir.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(dir);
    match rustix::fs::statvfs(existing) {
        Ok(found) => room(existing, found.f_bavail.saturating_mul(found.f_frsize)),
        Err(error) => Check::warn(
            "disk_space",
            format!("{}: {error}", existing.display()),
            "see whether the file system is in order",
        ),
    }
}

fn room(dir: &Path, free: u64) -> Check {
    const ID: &str = "disk_space";
    let detail = format!("{} free at {}", size(free), dir.display());
    let hint = "make room: no job is taken while nothing can be written";
    match free {
        ..LEAST_SPACE => Check::fail(ID, detail, hint),
        LEAST_SPACE..LITTLE_SPACE => Check::warn(ID, detail, hint),
        LITTLE_SPACE.. => Check::ok(ID, detail),
    }
}

/// `1.5 GiB`.
fn size(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    let tenths = bytes / (GIB / 10);
    if bytes >= GIB {
        format!("{}.{} GiB", tenths / 10, tenths % 10)
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::doctor::Status;

    #[test]
    fn owner_and_mode_are_judged() {
        assert_eq!(flaw(0, 0o100_600, 0), None);
        assert_eq!(flaw(0, 0o040_755, 0), Some(Flaw::Loose(0o755)));
        assert_eq!(flaw(1, 0o100_600, 0), Some(Flaw::Foreign));
    }

    #[test]
    fn a_loose_file_is_told_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::in_dir(dir.path());
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(permissions(&paths).status, Status::Ok);
        std::fs::write(&paths.config_file, "{}").unwrap();
        std::fs::set_permissions(&paths.config_file, std::fs::Permissions::from_mode(0o644))
            .unwrap();
        let check = permissions(&paths);
        assert_eq!(check.status, Status::Warn);
        assert!(check.detail.ends_with("gateway.json is open to others (mode 0644)"));
        let mode = std::fs::metadata(&paths.config_file).unwrap().mode();
        assert_eq!(mode & 0o777, 0o644);
    }

    #[test]
    fn little_room_is_a_warning_and_none_a_failure() {
        let status = |free| room(Path::new("/x"), free).status;
        assert_eq!(status(1 << 20), Status::Fail);
        assert_eq!(status(LEAST_SPACE), Status::Warn);
        assert_eq!(status(LITTLE_SPACE), Status::Ok);
        assert_eq!(room(Path::new("/x"), 3 << 29).detail, "1.5 GiB free at /x");
        assert_eq!(room(Path::new("/x"), 900 << 20).detail, "900 MiB free at /x");
    }
}
