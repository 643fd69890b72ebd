//! The layers, merged once into values that remember where they came from.

mod backend;
pub(crate) mod guest;
mod table;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use self::guest::GuestSettings;
use super::layers::{Layers, Source, Sourced};
use super::paths::{self, PathSources, Resolved};
use super::{ConfigError, ConfigStore, Environment, Paths, SavedConfig, env_file, variable};

const DEFAULT_URL: Option<&str> = option_env!("PANORAMA_DEFAULT_SUPABASE_URL");
const DEFAULT_KEY: Option<&str> = option_env!("PANORAMA_DEFAULT_SUPABASE_ANON_KEY");
const DEFAULT_CONCURRENCY: usize = 10;
/// More is a slip of the pen, and would only wait on the machine.
const LARGEST_CONCURRENCY: usize = 1000;
const DEFAULT_RESTART_CHECK: Duration = Duration::from_secs(30);
const LEAST_RESTART_CHECK: Duration = Duration::from_secs(1);
const DEFAULT_LOG_FILTER: &str = "info";
const DEFAULT_DEVICE_NAME: &str = "panorama-gateway";

/// Global flags of the command line, as given.
#[derive(Clone, Default)]
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
    pub metrics_listen: Option<SocketAddr>,
}

/// Everything but the key.
impl std::fmt::Debug for GlobalOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GlobalOptions")
            .field("verbose", &self.verbose)
            .field("env", &self.env)
            .field("env_file", &self.env_file)
            .field("config_dir", &self.config_dir)
            .field("config_path", &self.config_path)
            .field("log_path", &self.log_path)
            .field("pid_path", &self.pid_path)
            .field("device_name", &self.device_name)
            .field("claude_cli", &self.claude_cli)
            .field("codex_cli", &self.codex_cli)
            .field("gemini_cli", &self.gemini_cli)
            .field("metrics_listen", &self.metrics_listen)
            .finish_non_exhaustive()
    }
}

/// What the settings are for: pairing ignores the saved backend and device name, and looking asks
/// for no more than it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `pair`.
    Pair,
    /// `start` and everything that speaks for a paired gateway.
    Start,
    /// `status` and all that only reads: a dir that cannot be written is as good as any.
    Look,
}

/// Every effective setting. Immutable.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "fields are described in `.env.example` by their variables")]
pub struct Settings {
    pub paths: Paths,
    pub path_sources: PathSources,
    /// Set when the default dir could not be written and the platform's data dir serves instead:
    /// `(previous, current)`.
    pub dir_fallback: Option<(PathBuf, PathBuf)>,
    /// The env file that was read, absolute.
    pub env_file: Option<PathBuf>,
    /// The environment after the env-file overlay: what children start from.
    pub environment: Environment,
    pub supabase_url: Option<Sourced<String>>,
    pub anon_key: Option<Sourced<SecretString>>,
    /// The backend that the saved tokens are for.
    pub paired_url: Option<String>,
    pub device_name: Sourced<String>,
    pub concurrency: Sourced<usize>,
    /// `None`: as many as there is memory for.
    pub agent_concurrency: Option<Sourced<usize>>,
    pub auto_restart: Sourced<bool>,
    pub restart_check: Sourced<Duration>,
    /// `None`: as long as the running work takes.
    pub restart_max_wait: Sourced<Option<Duration>>,
    /// `None`: as long as the running work takes.
    pub drain_timeout: Sourced<Option<Duration>>,
    pub log_filter: Sourced<String>,
    pub metrics_listen: Option<Sourced<SocketAddr>>,
    pub live_events: Sourced<bool>,
    pub guest: GuestSettings,
    pub allow_insecure: Sourced<bool>,
    pub claude_cli: Option<Sourced<String>>,
    pub codex_cli: Option<Sourced<String>>,
    pub gemini_cli: Option<Sourced<String>>,
    /// One line for each variable whose value was not understood, and for all else that works, but
    /// not as one would expect.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Merges flags, environment, env file, saved config and defaults.
    ///
    /// Resolves paths first (pairing makes the config dir; otherwise [`Paths::prepare`] or the first
    /// write does), reads `gateway.json`, then everything else. Pairing takes nothing from a saved
    /// config, so that it can replace a damaged one.
    pub fn resolve(
        options: &GlobalOptions,
        environment: Environment,
        purpose: Purpose,
    ) -> Result<Self, ConfigError> {
        Self::resolve_in(&paths::current_dir(), options, environment, purpose)
    }

    fn resolve_in(
        current_dir: &Path,
        options: &GlobalOptions,
        mut environment: Environment,
        purpose: Purpose,
    ) -> Result<Self, ConfigError> {
        let mut warnings = Vec::new();
        let env_file = env_file::overlay(options, &mut environment, current_dir, &mut warnings)?;
        let mut layers = Layers::new(&environment, env_file.as_ref(), warnings);
        let resolved = paths::resolve(options, &mut layers, current_dir, purpose)?;
        let saved = match purpose {
            Purpose::Pair => SavedConfig::default(),
            Purpose::Start | Purpose::Look => ConfigStore::new(resolved.paths.clone()).load()?,
        };
        let mut settings = merge(options, layers, resolved, &saved)?;
        settings.env_file = env_file.map(|file| file.path);
        settings.environment = environment;
        settings.warn_if_insecure(purpose);
        Ok(settings)
    }
}

/// The values; the caller adds the environment that the layers borrow.
fn merge(
    options: &GlobalOptions,
    mut layers: Layers<'_>,
    resolved: Resolved,
    saved: &SavedConfig,
) -> Result<Settings, ConfigError> {
    let (supabase_url, anon_key) = backend_values(options, &layers, saved)?;
    let device_name = Layers::flag("--device-name", options.device_name.as_deref())?
        .or_else(|| saved_text(saved, "deviceName"))
        .or_else(|| layers.variable(&[variable::DEVICE_NAME]))
        .unwrap_or_else(|| Sourced::default(host_name()));
    let [claude_cli, codex_cli, gemini_cli] = provider_commands(options, &layers)?;
    Ok(Settings {
        paths: resolved.paths,
        path_sources: resolved.sources,
        dir_fallback: resolved.fallback,
        env_file: None,
        environment: Environment::default(),
        supabase_url,
        anon_key,
        paired_url: saved.text("refreshToken").and(saved.text("supabaseUrl")).map(str::to_owned),
        device_name,
        concurrency: layers.number(
            variable::CONCURRENCY,
            DEFAULT_CONCURRENCY,
            (1, LARGEST_CONCURRENCY),
        ),
        agent_concurrency: layers
            .whole_number(variable::AGENT_CONCURRENCY, (1, LARGEST_CONCURRENCY)),
        auto_restart: layers.boolean(variable::AUTO_RESTART, true),
        restart_check: layers
            .milliseconds(variable::RESTART_CHECK, LEAST_RESTART_CHECK)
            .unwrap_or(Sourced::default(DEFAULT_RESTART_CHECK)),
        restart_max_wait: limit(&mut layers, variable::RESTART_MAX_WAIT),
        drain_timeout: limit(&mut layers, variable::DRAIN_TIMEOUT),
        log_filter: layers
            .variable(&[variable::LOG_FILTER])
            .unwrap_or_else(|| Sourced::default(DEFAULT_LOG_FILTER.to_owned())),
        metrics_listen: metrics_listen(options, &mut layers),
        live_events: layers.boolean(variable::LIVE_EVENTS, true),
        guest: GuestSettings::from_layers(&mut layers),
        allow_insecure: layers.boolean(variable::ALLOW_INSECURE_BACKEND, false),
        claude_cli,
        codex_cli,
        gemini_cli,
        warnings: layers.into_warnings(),
    })
}

type Backend = (Option<Sourced<String>>, Option<Sourced<SecretString>>);

/// URL and key, each by itself.
fn backend_values(
    options: &GlobalOptions,
    layers: &Layers<'_>,
    saved: &SavedConfig,
) -> Result<Backend, ConfigError> {
    let url = [variable::PANORAMA_SUPABASE_URL, variable::SUPABASE_URL];
    let url = layers
        .text("--supabase-url", options.supabase_url.as_deref(), &url)?
        .or_else(|| saved_text(saved, "supabaseUrl"))
        .or_else(|| built_in(DEFAULT_URL));
    let key = [
        variable::PANORAMA_SUPABASE_ANON_KEY,
        variable::SUPABASE_ANON_KEY,
        variable::SUPABASE_PUBLISHABLE_KEY,
    ];
    let key = layers
        .text("--anon-key", options.anon_key.as_deref(), &key)?
        .or_else(|| saved_text(saved, "supabaseAnonKey"))
        .or_else(|| built_in(DEFAULT_KEY));
    Ok((url, key.map(|key| key.map(SecretString::from))))
}

/// Claude's, Codex's and Gemini's executable, where one is named.
fn provider_commands(
    options: &GlobalOptions,
    layers: &Layers<'_>,
) -> Result<[Option<Sourced<String>>; 3], ConfigError> {
    let claude = [variable::PANORAMA_CLAUDE_CLI, variable::CLAUDE_CLI];
    let codex = [variable::PANORAMA_CODEX_CLI, variable::CODEX_CLI];
    let gemini = [variable::PANORAMA_GEMINI_CLI, variable::GEMINI_CLI];
    Ok([
        layers.text("--claude-cli", options.claude_cli.as_deref(), &claude)?,
        layers.text("--codex-cli", options.codex_cli.as_deref(), &codex)?,
        layers.text("--gemini-cli", options.gemini_cli.as_deref(), &gemini)?,
    ])
}

fn saved_text(saved: &SavedConfig, name: &str) -> Option<Sourced<String>> {
    Some(Sourced { value: saved.text(name)?.to_owned(), source: Source::Saved })
}

fn built_in(value: Option<&str>) -> Option<Sourced<String>> {
    let value = value.map(str::trim).filter(|value| !value.is_empty())?;
    Some(Sourced::default(value.to_owned()))
}

fn limit(layers: &mut Layers<'_>, variable: variable::Variable) -> Sourced<Option<Duration>> {
    match layers.milliseconds(variable, Duration::ZERO) {
        Some(found) => found.map(Some),
        None => Sourced::default(None),
    }
}

fn metrics_listen(options: &GlobalOptions, layers: &mut Layers<'_>) -> Option<Sourced<SocketAddr>> {
    let flag = options.metrics_listen;
    flag.map(|value| Sourced { value, source: Source::Flag("--metrics-listen") }).or_else(|| {
        let wrong = "not an address and port, e.g. 127.0.0.1:9464";
        layers.parsed(variable::METRICS_LISTEN, wrong, |text| text.parse().ok())
    })
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok();
    let name = name.map(|name| name.to_string_lossy().trim().to_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| DEFAULT_DEVICE_NAME.to_owned())
}

#[cfg(test)]
mod tests;
