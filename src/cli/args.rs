//! The grammar of the command line. Nothing here runs anything.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::drive_sync::DriveSyncCommand;
use super::sandbox::args::SandboxCommand;
use crate::config::GlobalOptions;

/// A century of seconds is as good as for ever, and safe to subtract from any clock.
const LONGEST_AGE: u64 = 100 * 366 * 86400;

/// Runs a team's jobs on this machine and brings back their results
#[derive(Debug, Parser)]
#[command(name = "panorama-gateway", version = crate::VERSION, propagate_version = true)]
#[command(disable_help_subcommand = true)]
#[command(max_term_width = 100)]
#[command(
    after_help = "Pair once with `panorama-gateway pair <CODE>`; it starts the gateway, too.\n\
    `panorama-gateway sandbox up` gives a backend of its own to try it with."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Flags that stand before or after the command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Say more: causes of errors, ids, paths
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Read the env file of an environment: local, dev, test, stage or prod
    #[arg(long, global = true, value_name = "NAME", value_parser = environment_name)]
    pub env: Option<String>,
    /// Read this env file
    #[arg(long, global = true, value_name = "PATH")]
    pub env_file: Option<PathBuf>,
    /// Where the gateway keeps its files [default: ~/.panorama/gateway]
    #[arg(long, global = true, value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// The config file [default: gateway.json in the config dir]
    #[arg(long, global = true, value_name = "PATH")]
    pub config_path: Option<PathBuf>,
    /// The log file [default: gateway.log beside the config file]
    #[arg(long, global = true, value_name = "PATH")]
    pub log_path: Option<PathBuf>,
    /// The pid file [default: gateway.pid beside the config file]
    #[arg(long, global = true, value_name = "PATH")]
    pub pid_path: Option<PathBuf>,
    /// The name that the team sees [default: the host's name]
    #[arg(long, global = true, value_name = "NAME")]
    pub device_name: Option<String>,
    /// The backend
    #[arg(long, global = true, value_name = "URL")]
    pub supabase_url: Option<String>,
    /// The backend's public key
    #[arg(long, global = true, value_name = "KEY")]
    pub anon_key: Option<String>,
    /// The Claude Code executable
    #[arg(long, global = true, value_name = "PATH")]
    pub claude_cli: Option<String>,
    /// The Codex CLI executable
    #[arg(long, global = true, value_name = "PATH")]
    pub codex_cli: Option<String>,
    /// The Gemini CLI executable
    #[arg(long, global = true, value_name = "PATH")]
    pub gemini_cli: Option<String>,
}

impl GlobalArgs {
    /// As the settings take them.
    pub(crate) fn options(&self) -> GlobalOptions {
        GlobalOptions {
            verbose: self.verbose,
            env: self.env.clone(),
            env_file: self.env_file.clone(),
            config_dir: self.config_dir.clone(),
            config_path: self.config_path.clone(),
            log_path: self.log_path.clone(),
            pid_path: self.pid_path.clone(),
            device_name: self.device_name.clone(),
            supabase_url: self.supabase_url.clone(),
            anon_key: self.anon_key.clone(),
            claude_cli: self.claude_cli.clone(),
            codex_cli: self.codex_cli.clone(),
            gemini_cli: self.gemini_cli.clone(),
            // A flag of `start` alone.
            metrics_listen: None,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Exchange a pairing code for an identity, then start the gateway
    Pair(PairArgs),
    /// Start the gateway
    Start(StartArgs),
    /// Stop the gateway once its work in hand is done
    Stop(StopArgs),
    /// Say whether the gateway runs, and how it is
    Status(StatusArgs),
    /// Show the log and follow it
    Logs(LogsArgs),
    /// Look at everything that the gateway needs, and say what to do about it
    Doctor(DoctorArgs),
    /// Allow or forbid machine control on this host
    FullControl(FullControlArgs),
    /// Have this machine's service manager start the gateway and keep it running
    #[command(subcommand, arg_required_else_help = true)]
    Service(ServiceCommand),
    /// Give up the pairing: stop, remove identity and tokens
    Unpair(UnpairArgs),
    /// Look at the configuration
    #[command(subcommand, arg_required_else_help = true)]
    Config(ConfigCommand),
    /// The team's drives that this machine mirrors
    #[command(subcommand, arg_required_else_help = true)]
    DriveSync(DriveSyncCommand),
    /// A backend of your own on this machine
    #[command(subcommand, arg_required_else_help = true)]
    Sandbox(SandboxCommand),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PairArgs {
    /// The pairing code; `-` reads it from stdin
    #[arg(
        value_name = "CODE",
        required_unless_present = "code_flag",
        conflicts_with = "code_flag"
    )]
    pub code: Option<String>,
    /// The pairing code, as a flag
    #[arg(long = "code", id = "code_flag", value_name = "CODE")]
    pub code_flag: Option<String>,
    /// Only pair
    #[arg(long)]
    pub no_start: bool,
    /// Allow (or, with `=false`, forbid) machine control on this host; else it stays as it was
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = boolean)]
    pub full_control: Option<bool>,
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct StartArgs {
    /// Stay in this terminal
    #[arg(long, conflicts_with = "daemon")]
    pub foreground: bool,
    /// Go to the background (the default of an installed gateway)
    #[arg(long, visible_alias = "background")]
    pub daemon: bool,
    /// What this gateway is: on a host of its own, or in a managed VM
    #[arg(long, value_enum, default_value_t = Mode::Local)]
    pub mode: Mode,
    /// Serve /metrics, /healthz and /readyz by HTTP at this address, like 127.0.0.1:9464
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    #[default]
    Local,
    Managed,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Wait until it has stopped, for at most SECONDS when given
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true,
          default_missing_value = "", value_parser = wait_limit)]
    pub wait: Option<Wait>,
    /// Cancel the work in hand
    #[arg(long)]
    pub force: bool,
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// As long as it takes.
    Forever,
    /// At most so long.
    AtMost(Duration),
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// One JSON object with every field
    #[arg(long)]
    pub json: bool,
    /// Exit with 3 when the gateway is not running
    #[arg(long)]
    pub check: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// How many of the last lines to show first [default: 200, with --since: all]
    #[arg(long, value_name = "N", value_parser = line_count)]
    pub lines: Option<u32>,
    /// Do not wait for more
    #[arg(long)]
    pub no_follow: bool,
    /// Who had this gateway do what, instead of the log
    #[arg(long, conflicts_with = "level")]
    pub audit: bool,
    /// Only lines of this level or worse
    #[arg(long, value_enum)]
    pub level: Option<Level>,
    /// Only lines that are not older than this, e.g. 90s, 10m, 2h, 1d
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub since: Option<Duration>,
    /// The lines as they were written
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// One JSON object with every check
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FullControlArgs {
    /// What to do
    #[arg(value_enum, default_value_t = Toggle::Status, value_name = "ACTION")]
    pub action: Toggle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Toggle {
    #[value(alias = "on", alias = "true")]
    Enable,
    #[value(alias = "off", alias = "false")]
    Disable,
    Status,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Install, enable and start the service; global options given here are the service's
    Install(ServiceInstallArgs),
    /// Stop the service and remove it
    Uninstall(ServiceScopeArgs),
    /// Say whether it is installed, enabled and running
    Status(ServiceScopeArgs),
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServiceScopeArgs {
    /// The service of this user (the default)
    #[arg(long, conflicts_with = "system")]
    pub user: bool,
    /// The service of this machine
    #[arg(long)]
    pub system: bool,
    /// The service manager [default: this system's]
    #[arg(long, value_enum, value_name = "NAME")]
    pub manager: Option<Manager>,
}

/// A service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Manager {
    Systemd,
    Launchd,
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServiceInstallArgs {
    #[command(flatten)]
    pub scope: ServiceScopeArgs,
    /// With --system: the user that the gateway and its jobs run as [default: who called sudo]
    #[arg(long, value_name = "USER", requires = "system")]
    pub run_as: Option<String>,
    /// Only print the service file
    #[arg(long)]
    pub dry_run: bool,
    /// Let (or, with `=false`, do not let) this user's services run without a login; else it is asked
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = boolean, conflicts_with = "system")]
    pub linger: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct UnpairArgs {
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Every effective setting and where it came from
    Show(ConfigShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigShowArgs {
    /// A JSON array
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Takes out a lone `--` in front of the command, which script runners put there.
pub(crate) fn without_leading_dashes(mut words: Vec<OsString>) -> Vec<OsString> {
    if words.get(1).is_some_and(|word| word == "--") {
        words.remove(1);
    }
    words
}

fn environment_name(text: &str) -> Result<String, String> {
    let known =
        ["local", "dev", "test", "stage", "prod", "production", "development"].contains(&text);
    if known { Ok(text.to_owned()) } else { Err("use local, dev, test, stage or prod".to_owned()) }
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err("use true or false".to_owned()),
    }
}

fn line_count(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|lines| *lines > 0)
        .ok_or_else(|| "use a whole number from 1 on".to_owned())
}

fn wait_limit(text: &str) -> Result<Wait, String> {
    if text.is_empty() {
        return Ok(Wait::Forever);
    }
    text.parse()
        .map(|seconds| Wait::AtMost(Duration::from_secs(seconds)))
        .map_err(|_| "use a number of seconds".to_owned())
}

/// `90`, `90s`, `10m`, `2h`, `1d`.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    let refused = || "use a number and s, m, h or d, like 10m".to_owned();
    let (digits, unit) = match text.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        Some((at, _)) => text.split_at(at),
        None => (text, "s"),
    };
    let factor: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(refused()),
    };
    let seconds: u64 = digits.parse().map_err(|_| refused())?;
    Ok(Duration::from_secs(seconds.saturating_mul(factor).min(LONGEST_AGE)))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        let words = std::iter::once("panorama-gateway").chain(words.iter().copied());
        Cli::try_parse_from(without_leading_dashes(words.map(OsString::from).collect()))
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_work_before_and_after_the_command() {
        for words in [
            ["--config-dir", "/x", "-v", "status"].as_slice(),
            &["status", "--config-dir=/x", "--verbose"],
            &["-v", "status", "--config-dir", "/x"],
            &["--", "status", "-v", "--config-dir", "/x"],
        ] {
            let cli = parse(words).unwrap();
            assert!(matches!(cli.command, Some(Command::Status(_))), "{words:?}");
            assert!(cli.global.verbose, "{words:?}");
            assert_eq!(cli.global.config_dir, Some("/x".into()), "{words:?}");
        }
    }

    #[test]
    fn pairing_codes_come_one_way_only() {
        assert!(parse(&["pair"]).is_err());
        assert!(parse(&["pair", "A", "--code", "B"]).is_err());
        let Ok(Cli { command: Some(Command::Pair(pair)), .. }) = parse(&["pair", "-"]) else {
            panic!("`pair -` is right");
        };
        assert_eq!(pair.code.as_deref(), Some("-"));
        assert_eq!(pair.full_control, None);
    }

    #[test]
    fn full_control_of_pair_takes_its_value_by_equals_only() {
        for (words, wanted) in [
            (["pair", "--full-control", "CODE"], Some(true)),
            (["pair", "--full-control=false", "CODE"], Some(false)),
            (["pair", "CODE", "--full-control=on"], Some(true)),
        ] {
            let Some(Command::Pair(pair)) = parse(&words).unwrap().command else {
                panic!("not pair")
            };
            assert_eq!((pair.full_control, pair.code.as_deref()), (wanted, Some("CODE")));
        }
        assert!(parse(&["pair", "CODE", "--full-control=maybe"]).is_err());
    }

    #[test]
    fn toggles_have_other_names() {
        for (word, wanted) in [
            ("enable", Toggle::Enable),
            ("on", Toggle::Enable),
            ("true", Toggle::Enable),
            ("off", Toggle::Disable),
            ("false", Toggle::Disable),
            ("status", Toggle::Status),
        ] {
            let Some(Command::FullControl(args)) = parse(&["full-control", word]).unwrap().command
            else {
                panic!("not full-control")
            };
            assert_eq!(args.action, wanted);
        }
    }

    #[test]
    fn numbers_of_lines_are_checked() {
        for bad in ["0", "-1", "many", "1.5"] {
            assert!(parse(&["logs", "--lines", bad]).is_err(), "{bad}");
        }
        assert!(parse(&["logs", "--lines=1"]).is_ok());
    }

    #[test]
    fn waits_and_ages() {
        assert_eq!(wait_limit(""), Ok(Wait::Forever));
        assert_eq!(wait_limit("3"), Ok(Wait::AtMost(Duration::from_secs(3))));
        assert!(wait_limit("x").is_err());
        assert_eq!(age("10m"), Ok(Duration::from_mins(10)));
        assert_eq!(age("90"), Ok(Duration::from_secs(90)));
        assert!(age("99999999999d").is_ok());
        for bad in ["", "m", "10x", "1h30m", "ä"] {
            assert!(age(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn foreground_and_daemon_exclude_each_other() {
        assert!(parse(&["start", "--foreground", "--background"]).is_err());
        let Some(Command::Start(start)) = parse(&["start", "--background"]).unwrap().command else {
            panic!("not start")
        };
        assert!(start.daemon);
    }
}
