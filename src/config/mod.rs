//! What the gateway was told: flags, environment, env file, `gateway.json`, defaults.

mod env_file;
mod environment;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod layers;
mod lock;
mod paths;
mod pid_file;
mod saved;
mod settings;
mod store;
pub(crate) mod variable;

pub use environment::Environment;
pub use error::ConfigError;
pub use layers::{Source, Sourced};
pub use lock::{FileLock, LockError};
pub use paths::{PathSources, Paths};
pub use pid_file::{PidFile, PidRecord};
pub use saved::SavedConfig;
pub use settings::guest::GuestSettings;
pub use settings::{GlobalOptions, Purpose, Settings};
pub use store::ConfigStore;
