//! Drive sync's settings, from the environment.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Environment;
use crate::config::variable::{self, Variable};
use crate::fs::Owner;

/// How drives are kept in step.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "described in `.env.example` by their variables")]
pub struct Settings {
    pub enabled: bool,
    pub root: PathBuf,
    pub state_dir: PathBuf,
    /// Whose the drives' folders are, when they are made; `None`: the gateway's own user's.
    pub folder_owner: Option<Owner>,
    /// `None`: derived from the machine's id and a random one kept in the state dir.
    pub client_key: Option<String>,
    pub change_limit: u32,
    pub max_batches: u32,
    pub debounce: Duration,
    pub poll_interval: Duration,
    pub audit_interval: Duration,
    /// A call to the server that makes no progress for so long is given up.
    pub network_timeout: Duration,
}

/// A setting that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} is {value:?}, and has to be {wanted}")]
pub struct SettingsError {
    variable: &'static str,
    value: String,
    wanted: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: false,
            root: "/panorama/drives".into(),
            state_dir: "/var/lib/panorama/drive-sync".into(),
            folder_owner: None,
            client_key: None,
            change_limit: 50,
            max_batches: 25,
            debounce: Duration::from_secs(1),
            poll_interval: Duration::from_secs(5),
            audit_interval: Duration::from_mins(5),
            network_timeout: Duration::from_mins(1),
        }
    }
}

impl Settings {
    /// Reads the variables; what is not set keeps its default.
    pub fn read(environment: &Environment) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        if let Some(value) = set(environment, variable::DRIVE_SYNC_ENABLED) {
            settings.enabled = match value.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" => true,
                "0" | "false" | "no" | "off" => false,
                _ => {
                    let variable = variable::DRIVE_SYNC_ENABLED;
                    return Err(SettingsError {
                        variable: variable.name(),
                        value,
                        wanted: "true or false",
                    });
                }
            };
        }
        for (variable, place) in [
            (variable::DRIVE_SYNC_ROOT, &mut settings.root),
            (variable::DRIVE_SYNC_STATE_DIR, &mut settings.state_dir),
        ] {
            if let Some(value) = set(environment, variable) {
                *place = value.into();
                if !place.is_absolute() {
                    let value = place.to_string_lossy().into_owned();
                    return Err(SettingsError {
                        variable: variable.name(),
                        value,
                        wanted: "an absolute path",
                    });
                }
            }
        }
        settings.client_key = set(environment, variable::DRIVE_SYNC_CLIENT_KEY);
        number(environment, variable::DRIVE_SYNC_CHANGE_LIMIT, &mut settings.change_limit)?;
        let batches = variable::DRIVE_SYNC_MAX_BATCHES;
        number(environment, batches, &mut settings.max_batches)?;
        for (variable, time) in [
            (variable::DRIVE_SYNC_DEBOUNCE, &mut settings.debounce),
            (variable::DRIVE_SYNC_POLL_INTERVAL, &mut settings.poll_interval),
            (variable::DRIVE_SYNC_AUDIT_INTERVAL, &mut settings.audit_interval),
            (variable::DRIVE_SYNC_NETWORK_TIMEOUT, &mut settings.network_timeout),
        ] {
            let mut milliseconds = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
            number(environment, variable, &mut milliseconds)?;
            *time = Duration::from_millis(u64::from(milliseconds));
        }
        Ok(settings)
    }
}

fn set(environment: &Environment, variable: Variable) -> Option<String> {
    let value = environment.get(variable.name())?.trim().to_owned();
    (!value.is_empty()).then_some(value)
}

fn number(
    environment: &Environment,
    variable: Variable,
    number: &mut u32,
) -> Result<(), SettingsError> {
    let Some(value) = set(environment, variable) else { return Ok(()) };
    match value.parse() {
        Ok(read) if read > 0 => {
            *number = read;
            Ok(())
        }
        _ => {
            Err(SettingsError { variable: variable.name(), value, wanted: "a whole number over 0" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_keeps_its_default() {
        let environment = Environment::from_pairs([
            ("PANORAMA_DRIVE_SYNC_ENABLED", "1"),
            ("PANORAMA_DRIVE_SYNC_ROOT", "/srv/drives"),
            ("PANORAMA_DRIVE_SYNC_DEBOUNCE_MS", " 250 "),
            ("PANORAMA_DRIVE_SYNC_CHANGE_LIMIT", ""),
        ]);
        let expected = Settings {
            enabled: true,
            root: "/srv/drives".into(),
            debounce: Duration::from_millis(250),
            ..Settings::default()
        };
        assert_eq!(Settings::read(&environment), Ok(expected));
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        for (variable, value, text) in [
            ("PANORAMA_DRIVE_SYNC_ENABLED", "perhaps", "true or false"),
            ("PANORAMA_DRIVE_SYNC_ROOT", "drives", "an absolute path"),
            ("PANORAMA_DRIVE_SYNC_POLL_INTERVAL_MS", "0", "a whole number over 0"),
            ("PANORAMA_DRIVE_SYNC_MAX_BATCHES_PER_TICK", "-1", "a whole number over 0"),
        ] {
            let environment = Environment::from_pairs([(variable, value)]);
            let error = Settings::read(&environment).unwrap_err().to_string();
            assert_eq!(error, format!("{variable} is {value:?}, and has to be {text}"));
        }
    }
}
