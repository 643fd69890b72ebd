//! Where everything lies.

use std::path::{Path, PathBuf};

use super::layers::{Layers, Source, Sourced};
use super::variable::{CONFIG_DIR, CONFIG_PATH, LOG_PATH, PID_PATH, Variable};
use super::{ConfigError, ConfigStore, Environment, GlobalOptions, Purpose, env_file};
use crate::fs::{self, FsError};

const CONFIG_FILE: &str = "gateway.json";
const LOG_FILE: &str = "gateway.log";
const AUDIT_FILE: &str = "audit.jsonl";
const PID_FILE: &str = "gateway.pid";
/// More than any config: what is carried over is taken as it is.
const LARGEST_CONFIG: u64 = 16 * 1024 * 1024;

/// The gateway's files. All absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The config dir, `~/.panorama/gateway` by default.
    pub dir: PathBuf,
    /// `gateway.json`.
    pub config_file: PathBuf,
    /// `gateway.log`, beside the config file by default.
    pub log_file: PathBuf,
    /// `gateway.pid`, beside the config file by default.
    pub pid_file: PathBuf,
}

impl Paths {
    /// Everything in one directory, under its usual name.
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            config_file: dir.join(CONFIG_FILE),
            log_file: dir.join(LOG_FILE),
            pid_file: dir.join(PID_FILE),
        }
    }

    /// The paths alone, for what must work however the config looks (`stop`, `logs`, `doctor`).
    /// Unless it is for pairing, makes nothing.
    pub fn resolve(
        options: &GlobalOptions,
        mut environment: Environment,
        purpose: Purpose,
    ) -> Result<Self, ConfigError> {
        let current_dir = current_dir();
        let mut warnings = Vec::new();
        let file = env_file::overlay(options, &mut environment, &current_dir, &mut warnings)?;
        let mut layers = Layers::new(&environment, file.as_ref(), warnings);
        Ok(resolve(options, &mut layers, &current_dir, purpose)?.paths)
    }

    /// Makes the config dir, or checks and repairs it: the first thing that a command which writes
    /// does. (Missing parents of files elsewhere are made when those are written.)
    pub fn prepare(&self) -> Result<(), FsError> {
        fs::ensure_private_dir(&self.dir)
    }

    /// Who asked for what; beside the log.
    pub fn audit_file(&self) -> PathBuf {
        self.log_file.with_file_name(AUDIT_FILE)
    }

    /// TMPDIR of shell children.
    pub fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// Work dirs of runs, by kind.
    pub fn work(&self, kind: &str) -> PathBuf {
        self.dir.join("work").join(kind)
    }

    /// The capabilities that the backend last accepted.
    pub fn capabilities(&self) -> PathBuf {
        self.dir.join("capabilities.json")
    }

    /// The journal.
    pub fn journal(&self) -> PathBuf {
        self.dir.join("jobs")
    }

    /// The status socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("gateway.sock")
    }

    /// Held for the life of the gateway.
    pub fn instance_lock(&self) -> PathBuf {
        self.beside_config("gateway.lock")
    }

    /// Held for the milliseconds of one read-modify-write of `gateway.json`.
    pub fn config_lock(&self) -> PathBuf {
        self.beside_config("gateway.config.lock")
    }

    /// Held for one network call that rotates the session.
    pub fn refresh_lock(&self) -> PathBuf {
        self.beside_config("gateway.refresh.lock")
    }

    fn beside_config(&self, name: &str) -> PathBuf {
        self.config_file.with_file_name(name)
    }
}

/// Where each path came from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the source of the path of the same name")]
pub struct PathSources {
    pub dir: Source,
    pub config_file: Source,
    pub log_file: Source,
    pub pid_file: Source,
}

/// The paths in force.
pub(super) struct Resolved {
    pub(super) paths: Paths,
    pub(super) sources: PathSources,
    /// `(default, current)` when the default dir does not serve.
    pub(super) fallback: Option<(PathBuf, PathBuf)>,
}

/// Finds the paths, and a config dir that can be written. [`Purpose::Pair`] makes it; otherwise
/// nothing is made, so that asking for the status leaves no trace.
pub(super) fn resolve(
    options: &GlobalOptions,
    layers: &mut Layers<'_>,
    current_dir: &Path,
    purpose: Purpose,
) -> Result<Resolved, ConfigError> {
    let home = home(layers.environment(), current_dir);
    let named = |flag: &'static str, given: &Option<PathBuf>, variable: Variable| {
        let found = layers.path(flag, given.as_deref(), variable)?;
        Ok::<_, ConfigError>(found.map(|found| Sourced {
            value: absolute(&found.value, home.as_deref(), current_dir),
            source: found.source,
        }))
    };
    let dir = named("--config-dir", &options.config_dir, CONFIG_DIR)?;
    let config_file = named("--config-path", &options.config_path, CONFIG_PATH)?;
    let log_file = named("--log-path", &options.log_path, LOG_PATH)?;
    let pid_file = named("--pid-path", &options.pid_path, PID_PATH)?;

    let mut fallback = None;
    let dir = if let Some(dir) = dir {
        make_usable(&dir.value, purpose).or_else(|error| good_enough_to_look_at(error, purpose))?;
        dir
    } else {
        let home = home.as_deref().ok_or(ConfigError::NoHome)?;
        let default = home.join(".panorama").join("gateway");
        let data = data_dir(layers.environment(), home);
        let value = choose(&default, &data, config_file.is_some(), purpose, layers)?;
        if value != default {
            fallback = Some((default, value.clone()));
        }
        Sourced { value, source: Source::Default }
    };

    let or_beside = |named: Option<Sourced<PathBuf>>, beside: PathBuf| match named {
        Some(named) => named,
        None => Sourced { value: beside, source: Source::Default },
    };
    let config_file = or_beside(config_file, dir.value.join(CONFIG_FILE));
    let log_file = or_beside(log_file, config_file.value.with_file_name(LOG_FILE));
    let pid_file = or_beside(pid_file, config_file.value.with_file_name(PID_FILE));
    Ok(Resolved {
        sources: PathSources {
            dir: dir.source,
            config_file: config_file.source,
            log_file: log_file.source,
            pid_file: pid_file.source,
        },
        paths: Paths {
            dir: dir.value,
            config_file: config_file.value,
            log_file: log_file.value,
            pid_file: pid_file.value,
        },
        fallback,
    })
}

/// The default dir, or the data dir where the default cannot be written.
fn choose(
    default: &Path,
    data: &Path,
    config_elsewhere: bool,
    purpose: Purpose,
    layers: &mut Layers<'_>,
) -> Result<PathBuf, ConfigError> {
    match make_usable(default, purpose) {
        Ok(()) if !config_elsewhere && is_newer(data, default) => {
            // It was in use while the default could not be written, and holds the live session:
            // going back would end the pairing.
            make_usable(data, purpose)?;
            layers.warn(format!(
                "the files of the gateway stay in {}: the config there is newer than in {}, which \
                 can be written again",
                data.display(),
                default.display()
            ));
            Ok(data.to_owned())
        }
        Ok(()) => Ok(default.to_owned()),
        Err(error) if cannot_write(&error, default) => {
            let in_use = || data.join(CONFIG_FILE).exists();
            if purpose == Purpose::Look && error.is_denied() && !in_use() {
                return Ok(default.to_owned());
            }
            // What to repair is the default, so its error is the one to show.
            if make_usable(data, purpose).is_err() {
                good_enough_to_look_at(error, purpose)?;
                return Ok(default.to_owned());
            }
            if !config_elsewhere {
                carry_over(default, data, layers)?;
            }
            layers.warn(format!(
                "{} cannot be written: the files of the gateway are in {} instead",
                default.display(),
                data.display()
            ));
            Ok(data.to_owned())
        }
        Err(error) => Err(error.into()),
    }
}

/// Checks that a dir is ours, private and can be written; one that is missing is made when pairing
/// and otherwise only has to be possible.
fn make_usable(dir: &Path, purpose: Purpose) -> Result<(), FsError> {
    let exists = match dir.symlink_metadata() {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    if exists || purpose == Purpose::Pair {
        fs::ensure_private_dir(dir)?;
    }
    fs::check_writable_dir(dir)
}

/// Who only looks needs nothing that can be written.
fn good_enough_to_look_at(error: FsError, purpose: Purpose) -> Result<(), FsError> {
    if purpose == Purpose::Look && error.is_denied() { Ok(()) } else { Err(error) }
}

/// Whether this is what the data dir is for. A dir of somebody else that we could write all the
/// same (we are root, or it is open to all) is refused, not worked around.
fn cannot_write(error: &FsError, dir: &Path) -> bool {
    match error {
        FsError::ForeignOwner { .. } => fs::check_writable_dir(dir).is_err(),
        FsError::Io { .. } | FsError::WrongKind { .. } | FsError::TooLarge { .. } => {
            error.is_denied()
        }
    }
}

fn is_newer(data: &Path, default: &Path) -> bool {
    let modified = |dir: &Path| dir.join(CONFIG_FILE).symlink_metadata()?.modified();
    match (modified(data), modified(default)) {
        (Ok(data), Ok(default)) => data > default,
        (Ok(_), Err(_)) => true,
        (Err(_), _) => false,
    }
}

/// Copies the default dir's config to the data dir unless there is one already.
fn carry_over(default: &Path, data: &Path, layers: &mut Layers<'_>) -> Result<(), ConfigError> {
    let to = Paths::in_dir(data);
    if fs::check_private_file(&to.config_file)? {
        return Ok(());
    }
    match fs::read_unrepaired(&default.join(CONFIG_FILE), LARGEST_CONFIG) {
        Ok(None) => Ok(()),
        Ok(Some(bytes)) => ConfigStore::new(to).save_if_absent(&bytes),
        Err(error) => {
            layers.warn(format!("the config was not carried over: {error}"));
            Ok(())
        }
    }
}

fn home(environment: &Environment, current_dir: &Path) -> Option<PathBuf> {
    environment.path("HOME").map(|home| current_dir.join(home))
}

#[cfg(not(target_os = "macos"))]
fn data_dir(environment: &Environment, home: &Path) -> PathBuf {
    environment
        .path("XDG_DATA_HOME")
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| home.join(".local/share"))
        .join("panorama-gateway")
}

#[cfg(target_os = "macos")]
fn data_dir(_: &Environment, home: &Path) -> PathBuf {
    home.join("Library/Application Support/Panorama Gateway")
}

/// Only relative paths need it, and those cannot be meant where there is none.
pub(super) fn current_dir() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"))
}

/// Absolute, without `.`; a leading `~`, which no shell expands after `--flag=` or in an env file,
/// is the home.
fn absolute(path: &Path, home: Option<&Path>, current_dir: &Path) -> PathBuf {
    let path = match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        (Ok(_) | Err(_), _) => current_dir.join(path),
    };
    path.components().collect()
}

#[cfg(test)]
mod tests;
