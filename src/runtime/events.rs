//! What the team reads about this gateway: rows for `gateway_events`, without secrets.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::identity::Identity;
use crate::backend::retry::{Bounds, bounded};
use crate::backend::{Api, GatewayEvent};
use crate::observe::Redactor;

/// Records an event; one that the backend does not take is a line in the log, no more.
pub(super) async fn record(identity: &Identity, event: GatewayEvent) {
    record_by(&identity.api, &identity.host.redactor, event).await;
}

/// The same, of whoever has a session.
pub(super) async fn record_by(api: &Api, redactor: &Redactor, event: GatewayEvent) {
    let event = redacted(event, redactor);
    if let Err(error) = bounded(Bounds::READ, || api.record_event(&event)).await {
        tracing::warn!(%error, code = event.code, "an event could not be recorded");
    }
}

/// What the backend is told once, when it has heard of us.
pub(super) async fn first(identity: &Identity, fallback: Option<(PathBuf, PathBuf)>) {
    let Some((previous, current)) = fallback else { return };
    let mut heard = identity.shared.heard.subscribe();
    if heard.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let path = |path: PathBuf| Value::from(path.display().to_string());
    let event = GatewayEvent {
        provider: None,
        level: "warn",
        code: Some("config_dir_fallback"),
        message: "The default config dir cannot be written; another one is used".to_owned(),
        details: Map::from_iter([
            ("previous".to_owned(), path(previous)),
            ("current".to_owned(), path(current)),
        ]),
    };
    record(identity, event).await;
}

fn redacted(event: GatewayEvent, redactor: &Redactor) -> GatewayEvent {
    let details = event.details.iter().map(|(name, value)| (name.clone(), redactor.value(value)));
    GatewayEvent { message: redactor.text(&event.message), details: details.collect(), ..event }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_secret_reaches_the_team() {
        let redactor = Redactor::default();
        redactor.add_secret("correct-horse-battery");
        let event = GatewayEvent {
            provider: None,
            level: "warn",
            code: Some("config_dir_fallback"),
            message: "Bearer correct-horse-battery".to_owned(),
            details: Map::from_iter([(
                "previous".to_owned(),
                json!("/home/correct-horse-battery/x"),
            )]),
        };
        let shown = redacted(event, &redactor);
        assert_eq!(shown.message, "Bearer [REDACTED]");
        assert_eq!(shown.details["previous"], "/home/[REDACTED]/x");
    }
}
