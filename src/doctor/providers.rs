//! The agent CLIs: their full validation, and how one is told of in a line.

use futures_util::future::join_all;

use super::Check;
use crate::config::Settings;
use crate::providers::health::Status;
use crate::providers::{self, Asker, Attendant, ModelCheck, ProviderId, Roster, Standing};

const LOGIN: &str = "run it by hand once, to log in or to see what it wants";

/// What is to be validated with what.
#[derive(Debug)]
pub struct Validation<'a> {
    /// Which CLIs a person named.
    pub settings: &'a Settings,
    /// Asks for versions and help.
    pub asker: Asker,
    /// Has a model answer.
    pub check: ModelCheck,
    /// Where the outcome is entered.
    pub roster: std::sync::Arc<Roster>,
}

impl Validation<'_> {
    /// Looks for one CLI and has it answer; how it is then.
    pub async fn one(&self, id: ProviderId) -> Standing {
        let Some(provider) = providers::by_id(id) else {
            self.roster.not_run_yet(id);
            return self.roster.standing(id);
        };
        let roster = std::sync::Arc::clone(&self.roster);
        let mut attendant = Attendant::new(provider, self.settings, self.asker.clone(), roster);
        attendant.light().await;
        attendant.full_if_due(&self.check).await;
        self.roster.standing(id)
    }
}

/// Has every CLI that is known to be there answer once more, all at the same time. Dropping the
/// future ends what runs.
pub async fn validate_known(roster: &Roster, check: &ModelCheck) {
    let known = providers::all().filter_map(|provider| {
        let installed = roster.standing(provider.id()).installed?;
        Some(async move {
            providers::full_check(provider, &installed, check, roster).await;
        })
    });
    join_all(known).await;
}

/// As a check. A gateway works without any of them.
pub fn check(id: ProviderId, standing: &Standing) -> Check {
    let name = match id {
        ProviderId::ClaudeCode => "provider_claude_code",
        ProviderId::Codex => "provider_codex",
        ProviderId::Gemini => "provider_gemini",
    };
    let detail = match version(standing) {
        Some(version) => format!("{version}, {}", verdict(id, standing)),
        None => verdict(id, standing),
    };
    let mut check = match (standing.health.status(), &standing.command) {
        (Status::Healthy, _) => Check::ok(name, detail),
        (Status::Unknown, _) => Check::warn(name, detail, "it is checked when the gateway starts"),
        (_, Some(command)) => Check::warn(name, detail, format!("{LOGIN} ({})", command.display())),
        (_, None) if providers::by_id(id).is_none() => {
            Check::warn(name, detail, "a later version will")
        }
        (_, None) => Check::warn(name, detail, format!("install it, or name it by {}", id.flag())),
    };
    check.duration_ms = standing.health.duration_ms().unwrap_or(0);
    check
}

/// Whether any can be used.
pub fn any(healthy: usize) -> Check {
    const ID: &str = "providers";
    match healthy {
        0 => Check::warn(
            ID,
            "none is healthy: shell commands run, models do not",
            "install one of them and log in to it",
        ),
        1 => Check::ok(ID, "1 is healthy"),
        some => Check::ok(ID, format!("{some} are healthy")),
    }
}

/// The number alone, where there is one.
pub fn version(standing: &Standing) -> Option<String> {
    let printed = standing.installed.as_ref()?.version.as_ref()?;
    Some(providers::version_number(printed).unwrap_or_else(|| printed.clone()))
}

/// `healthy (1.2 s, claude-sonnet-5)`, or what is wrong.
pub fn verdict(id: ProviderId, standing: &Standing) -> String {
    let health = &standing.health;
    let error = health.error().unwrap_or("no reason known");
    // Whoever reads it sees whose verdict it is.
    let error = error.strip_prefix(id.title()).map_or(error, str::trim_start);
    let error = error.strip_prefix("was ").unwrap_or(error);
    match health.status() {
        Status::Healthy => {
            let told = health.to_wire("");
            let took =
                told.duration_ms.map(|took| format!("{}.{} s", took / 1000, took % 1000 / 100));
            let known: Vec<String> = took.into_iter().chain(told.model).collect();
            if known.is_empty() {
                "healthy".to_owned()
            } else {
                format!("healthy ({})", known.join(", "))
            }
        }
        Status::Unhealthy => format!("unhealthy: {error}"),
        Status::Unavailable => error.to_owned(),
        Status::Unknown => "not checked yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::doctor;
    use crate::providers::health::{CheckReport, Lack};
    use crate::providers::{ErrorCode, Failure, Installed};

    fn installed(result: Result<Option<&str>, &str>) -> Standing {
        let mut standing = Standing {
            searched: true,
            command: Some("/bin/claude".into()),
            installed: Some(Installed {
                version: Some("2.1.197 (Claude Code)".to_owned()),
                ..Installed::default()
            }),
            ..Standing::default()
        };
        let result = match result {
            Ok(model) => Ok(CheckReport { model: model.map(str::to_owned) }),
            Err(error) => Err(Box::new(Failure {
                code: ErrorCode::ProviderAuth,
                message: error.to_owned(),
                summary: None,
            })),
        };
        let took = Duration::from_millis(1_234);
        standing.health.checked(result, "2026-11-21T22:00:00.000Z", took, Instant::now());
        standing
    }

    #[test]
    fn how_each_state_is_told() {
        let of = |standing: &Standing| {
            let check = check(ProviderId::ClaudeCode, standing);
            (check.status, check.detail, check.duration_ms)
        };
        let detail = |text: &str| text.to_owned();
        let healthy = installed(Ok(Some("claude-sonnet-5")));
        let told = detail("2.1.197, healthy (1.2 s, claude-sonnet-5)");
        assert_eq!(of(&healthy), (doctor::Status::Ok, told, 1_234));
        let unhealthy = installed(Err("no login"));
        let told = detail("2.1.197, unhealthy: no login");
        assert_eq!(of(&unhealthy), (doctor::Status::Warn, told, 1_234));
        let mut missing = Standing::default();
        assert_eq!(of(&missing), (doctor::Status::Warn, detail("not checked yet"), 0));
        missing.health.missing("Claude Code was not found", Lack::Absent, Instant::now());
        assert_eq!(of(&missing), (doctor::Status::Warn, detail("not found"), 0));
        let hint = check(ProviderId::ClaudeCode, &missing).hint;
        assert_eq!(hint.as_deref(), Some("install it, or name it by --claude-cli"));
    }

    #[test]
    fn none_that_is_healthy_is_a_warning() {
        assert_eq!(any(0).status, doctor::Status::Warn);
        assert_eq!(any(2).detail, "2 are healthy");
    }
}
