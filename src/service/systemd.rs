//! systemd: the unit file and what `systemctl` says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::quote;
use super::{Description, MARKER, Scope, Unsayable};
use crate::config::Environment;

/// The unit's name.
pub const UNIT: &str = "panorama-gateway.service";
/// The first systemd that waits longer after each failure.
const HAS_BACKOFF: u32 = 254;
/// A drain is granted more by the gateway itself as long as it lives; a hung one is ended then.
const STOP_LIMIT: Duration = Duration::from_mins(2);

/// Where the unit file belongs.
pub fn file(scope: &Scope, environment: &Environment) -> Option<PathBuf> {
    match scope {
        Scope::System { .. } => Some(Path::new("/etc/systemd/system").join(UNIT)),
        Scope::User => {
            let config = environment.path("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
            let config = config.or_else(|| Some(environment.path("HOME")?.join(".config")))?;
            Some(config.join("systemd/user").join(UNIT))
        }
    }
}

/// The unit file's text for a systemd of this version (unknown: what every version takes).
///
/// docs/OPERATIONS.md says why each line is as it is, docs/SECURITY.md why the usual hardening is
/// missing: jobs are the remote shells of this user, and most of it would reach into them.
pub fn unit(description: &Description, version: Option<u32>) -> Result<String, Unsayable> {
    let mut lines = Vec::new();
    let mut add = |line: String| lines.push(line);
    let (flag, target) = match description.scope {
        Scope::User => ("--user ", "default.target"),
        Scope::System { .. } => ("", "multi-user.target"),
    };
    add(format!("# {MARKER}; `service uninstall` removes it."));
    add(format!("# Changes of yours belong into `systemctl {flag}edit {UNIT}`.\n"));
    add("[Unit]\nDescription=Panorama gateway".to_owned());
    if matches!(description.scope, Scope::System { .. }) {
        // User managers have no such target; the gateway waits for its backend anyway.
        add("Wants=network-online.target\nAfter=network-online.target".to_owned());
    }
    add("# A gateway that fails is started again for ever, if slowly.\nStartLimitIntervalSec=0\n"
        .to_owned());
    add("[Service]\nType=notify".to_owned());
    add("# After an upgrade the replacement speaks before it is the main process.\nNotifyAccess=all".to_owned());
    add(format!("ExecStart={}", command(description)?));
    add("ExecReload=/bin/kill -HUP $MAINPID".to_owned());
    if let Scope::System { user } = &description.scope {
        add(format!("User={}", user.replace('%', "%%")));
    }
    add("WorkingDirectory=/".to_owned());
    if let Some(path) = &description.path {
        add(format!("Environment={}", quote::assignment("PATH", path)));
    }
    add(format!(
        "# For jobs; the gateway's own files are its user's alone.\nUMask={:04o}",
        description.umask
    ));
    add("Restart=on-failure\nRestartSec=5".to_owned());
    if version.is_some_and(|version| version >= HAS_BACKOFF) {
        add("RestartSteps=8\nRestartMaxDelaySec=5min".to_owned());
    }
    add("# Wrong usage, and a pairing that is missing or was revoked.\nRestartPreventExitStatus=2 4"
        .to_owned());
    add("TimeoutStartSec=60".to_owned());
    let stop = description.stop_limit().unwrap_or_default().max(STOP_LIMIT).as_secs();
    add(format!(
        "# A drain that takes longer has this extended, as long as the gateway lives.\nTimeoutStopSec={stop}"
    ));
    add("TimeoutAbortSec=10\nWatchdogSec=60".to_owned());
    add("# The gateway ends what it runs by itself, also when it is killed. What a job has left in the\n# background on purpose is not its to end, nor the manager's.\nKillMode=process".to_owned());
    add("# A job that runs out of memory is that job's trouble.\nOOMPolicy=continue".to_owned());
    add("# Tokens do not belong into core dumps; jobs may raise it.\nLimitCORE=0:infinity\n"
        .to_owned());
    add(format!("[Install]\nWantedBy={target}"));
    Ok(lines.join("\n") + "\n")
}

fn command(description: &Description) -> Result<String, Unsayable> {
    let (program, arguments) = match description.command.split_first() {
        Some((program, arguments)) => (quote::program(program)?, arguments),
        None => return Err(Unsayable::Program(String::new())),
    };
    let words = arguments.iter().map(|word| quote::argument(word));
    Ok(std::iter::once(program).chain(words).collect::<Vec<_>>().join(" "))
}

/// The properties that [`State::parse`] reads.
pub const PROPERTIES: &str = "LoadState,UnitFileState,ActiveState,SubState,MainPID,Result,ExecMainStatus,NRestarts,StatusText";

/// What systemd knows of the unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    values: BTreeMap<String, String>,
}

impl State {
    /// From the output of `systemctl show`.
    pub fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Self { values: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    }

    /// A property that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The main process, while there is one.
    pub fn main_pid(&self) -> Option<i32> {
        self.get("MainPID")?.parse().ok().filter(|pid| *pid > 0)
    }

    /// Whether it starts with the machine or the session.
    pub fn is_enabled(&self) -> bool {
        self.get("UnitFileState").is_some_and(|state| state.starts_with("enabled"))
    }

    /// Whether it runs, or is about to.
    pub fn is_active(&self) -> bool {
        matches!(
            self.get("ActiveState"),
            Some("active" | "activating" | "reloading" | "deactivating")
        )
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let mut line = self.get("ActiveState").unwrap_or("unknown").to_owned();
        if let Some(state) = self.get("SubState") {
            line = format!("{line} ({state})");
        }
        if let Some(pid) = self.main_pid() {
            line = format!("{line}, pid {pid}");
        }
        match (self.get("Result"), self.get("ExecMainStatus")) {
            (None | Some("success"), _) => {}
            (Some("exit-code"), Some(code)) => {
                line = format!("{line}, ended with exit code {code}");
            }
            (Some(result), _) => line = format!("{line}, ended by {result}"),
        }
        match self.get("NRestarts") {
            None | Some("0") => line,
            Some(restarts) => format!("{line}, restarted {restarts} times"),
        }
    }
}

/// The number in what `systemctl show --property=Version` says: `Version=252.38-1~deb12u1`.
pub fn version(text: &str) -> Option<u32> {
    let digits = text.trim().trim_start_matches("Version=").trim_start_matches('v');
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}
