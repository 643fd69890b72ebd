//! The layers, merged once into values that remember where they came from.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::{ConfigError, Environment, Paths, SavedConfig};

/// Global flags of the command line, as given.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "each field is the flag of the same name, documented in `cli`")]
pub struct GlobalOptions {
    pub verbose: bool,
    pub env: Option<String>,
    pub env_file: Option<PathBuf>,
    pub config_dir: Option<PathBuf>,
    pub config_path: Option<PathBuf>,
    pub log_path: Option<PathBuf>,
    pub pid_path: Option<PathBuf>,
    pub device_name: Option<String>,
    pub supabase_url: Option<String>,
    pub anon_key: Option<String>,
    pub claude_cli: Option<String>,
    pub codex_cli: Option<String>,
    pub gemini_cli: Option<String>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A flag of this name, e.g. `--supabase-url`.
    Flag(&'static str),
    /// A variable of the process.
    Variable(&'static str),
    /// A variable that only the env file names.
    EnvFile(&'static str, PathBuf),
    /// `gateway.json`.
    Saved,
    /// Built in.
    Default,
}

/// A value and its source.
#[derive(Debug, Clone)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub source: Source,
}

/// What the settings are for: pairing ignores the saved backend and device name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `pair`.
    Pair,
    /// `start` and everything that speaks for a paired gateway.
    Start,
}

/// Every effective setting. Immutable.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "fields are described in `.env.example` by their variables")]
pub struct Settings {
    pub paths: Paths,
    /// Set when the default dir could not be written and the platform's data dir serves instead:
    /// `(previous, current)`.
    pub dir_fallback: Option<(PathBuf, PathBuf)>,
    /// The environment after the env-file overlay: what children start from.
    pub environment: Environment,
    pub supabase_url: Option<Sourced<String>>,
    pub anon_key: Option<Sourced<SecretString>>,
    pub device_name: Sourced<String>,
    pub concurrency: Sourced<usize>,
    pub auto_restart: Sourced<bool>,
    pub restart_check: Sourced<Duration>,
    pub restart_max_wait: Sourced<Option<Duration>>,
    pub drain_timeout: Sourced<Option<Duration>>,
    pub log_filter: Sourced<String>,
    pub live_events: Sourced<bool>,
    pub allow_insecure: Sourced<bool>,
    pub claude_cli: Option<Sourced<String>>,
    pub codex_cli: Option<Sourced<String>>,
    pub gemini_cli: Option<Sourced<String>>,
    /// One line for each variable whose value was not understood.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Merges flags, environment, env file, saved config and defaults.
    ///
    /// Resolves paths first (and makes the config dir when `purpose` needs to write), reads
    /// `gateway.json`, then everything else.
    pub fn resolve(
        options: &GlobalOptions,
        environment: Environment,
        purpose: Purpose,
    ) -> Result<Self, ConfigError> {
        unimplemented!("{options:?} {environment:?} {purpose:?}")
    }

    /// URL (no trailing slash) and key of the backend, or the error that names what to set. A plain
    /// `http://` URL off loopback is refused for [`Purpose::Pair`] unless allowed.
    pub fn backend(&self, purpose: Purpose) -> Result<(String, SecretString), ConfigError> {
        unimplemented!("{purpose:?}")
    }

    /// Name, value (secrets as `set`/`unset`) and source of every setting, for `config show`.
    pub fn table(&self, saved: &SavedConfig) -> Vec<(String, String, String)> {
        unimplemented!("{saved:?}")
    }
}
