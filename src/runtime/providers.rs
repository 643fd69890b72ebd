//! The providers supervisor: looks after the three CLIs and tells the team what is wrong with them.
//!
//! One loop a provider, so that a slow one holds up none of the others. After each heartbeat that
//! was accepted it looks whether anything changed on disk; a SIGHUP has everything asked again.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::identity::Identity;
use super::{events, validation};
use crate::backend::GatewayEvent;
use crate::config::Settings;
use crate::providers::health::Status;
use crate::providers::{self, Asker, Attendant, Check, Worsened};

/// Events that wait to be recorded; what is beyond is a line in the log.
const EVENTS: usize = 32;

/// Attends to the providers until `stop`. Dropping it ends what it has started.
pub(super) async fn run(
    identity: Arc<Identity>,
    settings: Settings,
    check: impl Check,
    stop: CancellationToken,
) {
    let roster = &identity.host.providers;
    let (tell, worsened) = mpsc::channel(EVENTS);
    roster.listen(tell);
    let (record, events) = mpsc::channel(EVENTS);
    let tmp = identity.host.config.paths().tmp();
    let host = &identity.host;
    let guest = host.guest.clone();
    let asker = Asker::in_guest(&host.environment, &tmp, host.caller_umask, guest);
    let attend = providers::all().map(|provider| {
        let roster = Arc::clone(roster);
        let attendant = Attendant::new(provider, &settings, asker.clone(), roster);
        attend(&identity, attendant, &check, record.clone())
    });
    tokio::select! {
        // Cancel safe, each arm: none of them ends, and what they hold ends with them.
        _ = join_all(attend) => {}
        () = record_events(&identity, worsened, events) => {}
        () = stop.cancelled() => {}
    }
}

async fn attend(
    identity: &Identity,
    mut attendant: Attendant,
    check: &impl Check,
    record: mpsc::Sender<GatewayEvent>,
) {
    let (id, roster) = (attendant.id(), &identity.host.providers);
    let mut heard = identity.shared.heard.subscribe();
    let mut reload = identity.shared.reload.subscribe();
    // A supervisor that was started again has told already.
    let mut is_to_be_told = roster.standing(id).health.is_undecided();
    loop {
        heard.mark_unchanged();
        attendant.light().await;
        attendant.full_if_due(check).await;
        let health = roster.standing(id).health;
        if std::mem::take(&mut is_to_be_told) && !health.is_ready() {
            let event = validation::event(identity.occasion, id, &health);
            if record.try_send(event).is_err() {
                tracing::warn!(provider = id.as_str(), "an event could not be recorded");
            }
        }
        tokio::select! {
            // Cancel safe, each arm: watches and a timer.
            _ = heard.changed() => {}
            _ = reload.changed() => attendant.forget(),
            () = at(health.again_at()) => {}
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Records what comes, once the backend has heard of us.
async fn record_events(
    identity: &Identity,
    mut worsened: mpsc::Receiver<Worsened>,
    mut events: mpsc::Receiver<GatewayEvent>,
) {
    let mut heard = identity.shared.heard.subscribe();
    if heard.wait_for(Option::is_some).await.is_err() {
        return;
    }
    loop {
        let event = tokio::select! {
            // Cancel safe, each arm: a channel.
            Some(worsened) = worsened.recv() => unhealthy(&worsened),
            Some(event) = events.recv() => event,
            else => return,
        };
        events::record(identity, event).await;
    }
}

/// `provider_unhealthy`: a run changed its provider's health for the worse.
fn unhealthy(worsened: &Worsened) -> GatewayEvent {
    let Worsened { ran, error } = worsened;
    let details = [
        ("context", json!(ran.context)),
        ("status", json!(Status::Unhealthy.as_str())),
        ("error", json!(error)),
        ("job_id", json!(ran.job_id)),
        ("run_id", json!(ran.run_id)),
    ];
    validation::about(ran.provider, "error", "provider_unhealthy", error, details)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::providers::{ProviderId, Ran};

    #[test]
    fn a_run_that_showed_a_provider_unhealthy_is_named() {
        let ran = Ran {
            provider: ProviderId::Gemini,
            context: "subagent_run",
            job_id: "j".to_owned(),
            run_id: Some("r".to_owned()),
        };
        let event = unhealthy(&Worsened { ran, error: "no login".to_owned() });
        assert_eq!((event.level, event.code), ("error", Some("provider_unhealthy")));
        assert_eq!(
            Value::Object(event.details),
            json!({"context": "subagent_run", "status": "unhealthy", "error": "no login",
                "job_id": "j", "run_id": "r"})
        );
    }
}
