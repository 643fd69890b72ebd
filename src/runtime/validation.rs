//! What is told to the team of a provider that is not healthy after a check.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::events;
use crate::backend::{Api, GatewayEvent};
use crate::observe::Redactor;
use crate::providers::health::{Health, Status};
use crate::providers::{ProviderId, Standings};

/// What made somebody check the providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// The gateway was started.
    Startup,
    /// The machine was paired.
    Pairing,
    /// Somebody asked how everything is.
    Doctor,
}

impl Occasion {
    fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Pairing => "pairing",
            Self::Doctor => "doctor",
        }
    }
}

/// Records an event for every provider that is not healthy. One that the backend does not take is a
/// line in the log, no more.
pub async fn record(api: &Api, redactor: &Redactor, occasion: Occasion, standings: &Standings) {
    let unhealthy = standings.iter().filter(|(_, standing)| !standing.health.is_ready());
    join_all(unhealthy.map(|(id, standing)| {
        events::record_by(api, redactor, event(occasion, *id, &standing.health))
    }))
    .await;
}

/// `provider_validation`: a provider that is not healthy after the check.
pub(super) fn event(occasion: Occasion, id: ProviderId, health: &Health) -> GatewayEvent {
    let level = if health.status() == Status::Unhealthy { "error" } else { "warn" };
    let error = health.error().unwrap_or("not checked");
    let details = [
        ("context", json!(occasion.as_str())),
        ("status", json!(health.status().as_str())),
        ("check_type", json!(health.check_type())),
        ("error", json!(health.error())),
        ("duration_ms", json!(health.duration_ms())),
    ];
    about(id, level, "provider_validation", error, details)
}

/// An event about a provider.
pub(super) fn about(
    id: ProviderId,
    level: &'static str,
    code: &'static str,
    error: &str,
    details: [(&str, Value); 5],
) -> GatewayEvent {
    GatewayEvent {
        provider: Some(id.as_str().to_owned()),
        level,
        code: Some(code),
        message: format!("{}: {error}", id.title()),
        details: details.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::providers::health::Lack;
    use crate::providers::{ErrorCode, Failure};

    #[tokio::test(start_paused = true)]
    async fn what_a_check_found_is_told_with_its_details() {
        let mut health = Health::default();
        health.missing("Codex CLI was not found on this host", Lack::Absent, Instant::now());
        let told = event(Occasion::Startup, ProviderId::Codex, &health);
        assert_eq!((told.level, told.code), ("warn", Some("provider_validation")));
        assert_eq!(told.provider.as_deref(), Some("codex"));
        assert_eq!(
            Value::Object(told.details),
            json!({"context": "startup", "status": "unavailable", "check_type": "light",
                "error": "Codex CLI was not found on this host", "duration_ms": null})
        );
        let message = "no login".to_owned();
        let failure = Failure { code: ErrorCode::ProviderAuth, message, summary: None };
        let took = Duration::from_millis(250);
        health.checked(Err(Box::new(failure)), "2026-11-21T22:00:00.000Z", took, Instant::now());
        let told = event(Occasion::Pairing, ProviderId::Codex, &health);
        assert_eq!((told.level, told.message.as_str()), ("error", "Codex CLI: no login"));
        assert_eq!(
            Value::Object(told.details),
            json!({"context": "pairing", "status": "unhealthy", "check_type": "full",
                "error": "no login", "duration_ms": 250})
        );
    }
}
