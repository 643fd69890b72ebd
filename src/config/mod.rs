//! What the gateway was told: flags, environment, env file, `gateway.json`, defaults.

mod environment;
mod lock;
mod paths;
mod pid_file;
mod saved;
mod settings;

pub use environment::Environment;
pub use lock::{FileLock, LockError};
pub use paths::Paths;
pub use pid_file::{PidFile, PidRecord};
pub use saved::{ConfigStore, SavedConfig};
pub use settings::{GlobalOptions, Purpose, Settings, Source, Sourced};

use std::path::PathBuf;

/// What is wrong with the configuration. `Display` says what; [`ConfigError::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or directory cannot be used.
    #[error(transparent)]
    Fs(#[from] crate::fs::FsError),
    /// `gateway.json` does not parse; it is never overwritten.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and why it does not parse.
        reason: String,
    },
    /// An env file that was asked for is not there or does not parse.
    #[error("the env file {} cannot be used: {reason}", path.display())]
    EnvFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A flag or variable has a value that cannot be used.
    #[error("{name} cannot be {value:?}: {reason}")]
    Value {
        /// The flag or variable.
        name: String,
        /// Its value.
        value: String,
        /// What it may be.
        reason: String,
    },
    /// No backend URL or key anywhere.
    #[error("no backend is configured: {missing} is not set")]
    NoBackend {
        /// `the Supabase URL` or `the anon key`.
        missing: &'static str,
    },
    /// A plain-http backend that is not on loopback.
    #[error("{url} is not encrypted")]
    Insecure {
        /// The URL.
        url: String,
    },
    /// A lock could not be had in time.
    #[error("another panorama-gateway holds {} for too long", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
}

impl ConfigError {
    /// One line that says what to do about it.
    pub fn hint(&self) -> String {
        unimplemented!()
    }
}
