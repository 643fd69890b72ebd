//! The gateway as a service of this machine: the files that tell systemd and launchd about it, and
//! the talk with their tools.
//!
//! `service-manager` was weighed for this. It takes the file as a ready-made text, and then does
//! the easy half: it never reloads systemd, overwrites and removes files that are not its own, knows
//! nothing of `is enabled` or of the state that `show` gives, and speaks launchd's old commands
//! (`load`, `unload`). What would be left to it is less than what it brings in.

pub mod launchd;
pub mod quote;
pub mod systemd;
pub mod tool;

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fs::{self, FsError};

/// Stands in every file of ours, and in none of anybody else's.
pub const MARKER: &str = "Made by `panorama-gateway service install`";
/// No service file is longer.
const LONGEST: u64 = 1024 * 1024;
/// Cancelled jobs take up to 30 s, their reports and the goodbye a little longer.
const AFTER_DRAIN: Duration = Duration::from_secs(90);

/// Whose service it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The user's own, run by the user's service manager.
    User,
    /// The machine's, run as this user.
    System {
        /// Its name.
        user: String,
    },
}

/// What a service file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Whose it is.
    pub scope: Scope,
    /// Program and arguments; all paths absolute.
    pub command: Vec<OsString>,
    /// `PATH`, where the manager's own would miss what the user has.
    pub path: Option<OsString>,
    /// The umask of jobs.
    pub umask: u32,
    /// How long a drain may take; `None` is for ever.
    pub drain_limit: Option<Duration>,
}

impl Description {
    /// How long an orderly stop takes at most, when there is a limit.
    fn stop_limit(&self) -> Option<Duration> {
        self.drain_limit.map(|limit| limit.saturating_add(AFTER_DRAIN))
    }
}

/// What cannot be said in a service file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsayable {
    /// systemd takes no program path with quotes, backslashes or control characters.
    #[error("systemd cannot start a program at {0}")]
    Program(String),
    /// Property lists are UTF-8 without control characters.
    #[error("launchd cannot be told of {0}")]
    Text(String),
}

/// What lies where the service file belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Present {
    /// Nothing.
    Nothing,
    /// A file of ours, with this text.
    Ours(String),
    /// A file that somebody else has put there.
    Foreign,
}

/// Looks at a service file.
pub fn look(path: &Path) -> io::Result<Present> {
    use std::io::Read;
    let file = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Present::Nothing),
        Err(error) => return Err(error),
        // A link is how a unit is masked or linked by hand.
        Ok(meta) if !meta.is_file() => return Ok(Present::Foreign),
        Ok(_) => std::fs::File::open(path)?,
    };
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    match String::from_utf8(text) {
        Ok(text) if text.contains(MARKER) => Ok(Present::Ours(text)),
        _ => Ok(Present::Foreign),
    }
}

/// Writes a service file, readable for everybody: it holds no secret, and its manager, and whoever
/// looks after the machine, read it. Missing directories are made with the usual mode.
pub fn write(path: &Path, text: &str) -> Result<(), FsError> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|error| FsError::io("create", dir, error))?;
    }
    fs::save(path, text.as_bytes())?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
        .map_err(|error| FsError::io("open to readers", path, error))
}

/// The program as its user calls it: a link that leads to it is kept, since an upgrade may switch
/// the link.
pub fn program(called_as: Option<&OsString>, path: Option<OsString>, real: &Path) -> PathBuf {
    let leads_here = |candidate: &PathBuf| candidate.canonicalize().is_ok_and(|to| to == real);
    let Some(word) = called_as else { return real.to_owned() };
    if Path::new(word).components().count() > 1 {
        let absolute = std::path::absolute(word).ok().filter(leads_here);
        return absolute.unwrap_or_else(|| real.to_owned());
    }
    let path = path.unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(word))
        .find(leads_here)
        .unwrap_or_else(|| real.to_owned())
}

#[cfg(test)]
mod tests;
