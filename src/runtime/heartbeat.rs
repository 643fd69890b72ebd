//! The heartbeat supervisor: every 30 s, and at once when status or capabilities change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::identity::Identity;
use super::shared::Login;
use super::status::Phase;
use super::{contact, session};
use crate::backend::BackendError;
use crate::backend::retry::Backoff;
use crate::model::{Capabilities, GatewayStatus, Providers, time};
use crate::providers::{ProviderId, Standings};

const INTERVAL: Duration = Duration::from_secs(30);
/// The last heartbeat of a gateway that goes is not waited for any longer.
const OFFLINE_LIMIT: Duration = Duration::from_secs(5);

/// Beats until `stop`. One heartbeat is in flight at a time.
pub(super) async fn run(identity: Arc<Identity>, stop: CancellationToken) {
    let shared = &identity.shared;
    let mut login = shared.login.subscribe();
    tokio::select! {
        // Cancel safe: a watch.
        _ = login.wait_for(|login| *login != Login::Unknown) => {}
        () = stop.cancelled() => return,
    }
    let mut backoff = Backoff::new();
    let mut log = contact::Log::default();
    let mut changes = Changes::new(&identity);
    let mut woken = false;
    let mut kept: Option<(String, Capabilities)> = None;
    loop {
        // Marked before the facts are read: a change in between is seen twice rather than never.
        changes.seen();
        let (status, _) = shared.status_now();
        let checked_at = time::now_wire();
        let capabilities = identity.capabilities(&checked_at);
        let sent = tokio::select! {
            // Cancel safe: the one that is dropped is sent again.
            sent = beat(&identity, status, &capabilities) => sent,
            // Its connection is of before the wake.
            Ok(()) = changes.woken.changed() => {
                woken = true;
                continue;
            }
        };
        let accepted = sent.is_ok();
        let next = match sent {
            Ok(()) => {
                backoff.reset();
                log.well(&identity);
                // Written only when something else than the time has changed.
                if kept.as_ref().is_none_or(|kept| identity.capabilities(&kept.0) != kept.1) {
                    identity.keep_capabilities(&capabilities).await;
                    kept = Some((checked_at.clone(), capabilities.clone()));
                }
                Instant::now() + INTERVAL
            }
            Err(error) => {
                session::note_ended(shared, &error);
                let text = log.failed(&identity, "heartbeat failed", &error);
                shared.notes().heartbeat.broke(text);
                Instant::now() + contact::pause(&mut backoff, &error)
            }
        };
        if std::mem::take(&mut woken) {
            shared.poll_soon();
        }
        let said = Said { status, capabilities, checked_at, accepted };
        match wait(&identity, &mut changes, &stop, next, &said).await {
            Due::Stop => return,
            Due::Now => {}
            Due::Woken => woken = true,
        }
    }
}

/// What the last heartbeat said.
struct Said {
    status: GatewayStatus,
    capabilities: Capabilities,
    checked_at: String,
    accepted: bool,
}

/// Why the next heartbeat is due.
enum Due {
    /// It is not: the task must stop.
    Stop,
    /// By time, or because what it would say has changed.
    Now,
    /// The machine woke up.
    Woken,
}

/// Waits until the next heartbeat is due.
async fn wait(
    identity: &Identity,
    changes: &mut Changes,
    stop: &CancellationToken,
    next: Instant,
    said: &Said,
) -> Due {
    loop {
        let wake_at = identity.shared.status_now().1.map_or(next, |stale_at| stale_at.min(next));
        let woken = tokio::select! {
            // Cancel safe, each arm: timers and watches.
            () = stop.cancelled() => return Due::Stop,
            () = sleep_until(wake_at) => false,
            woken = changes.next() => woken,
        };
        if woken {
            return Due::Woken;
        }
        let differs = identity.shared.status_now().0 != said.status
            || identity.capabilities(&said.checked_at) != said.capabilities;
        // After a failed heartbeat a change does not hurry the next one: the backend is away.
        if Instant::now() >= next || (differs && said.accepted) {
            return Due::Now;
        }
    }
}

async fn beat(
    identity: &Identity,
    status: GatewayStatus,
    capabilities: &Capabilities,
) -> Result<(), BackendError> {
    let shared = &identity.shared;
    let result = identity.api.heartbeat(status, capabilities, &identity.device_name).await;
    if result.is_ok() {
        // First: whoever waits for a heartbeat may mind what it said.
        identity.host.providers.team_knows(ready(&capabilities.providers));
        shared.was_heard(status, identity.api.clock().now());
        let before = shared.reported.send_replace(Some(status));
        if before != Some(status) {
            tracing::info!(status = status.as_str(), "the backend knows our status");
        }
        shared.notes().heartbeat.worked(time::now_wire());
        if status == GatewayStatus::Ready {
            shared.phase.send_if_modified(|phase| {
                let came_up = *phase == Phase::Starting;
                if came_up {
                    tracing::info!("the gateway is up");
                    *phase = Phase::Up;
                }
                came_up
            });
        }
    }
    result
}

fn ready(providers: &Providers) -> BTreeSet<ProviderId> {
    let Providers { claude_code, codex, gemini } = providers;
    let all = [
        (ProviderId::ClaudeCode, claude_code),
        (ProviderId::Codex, codex),
        (ProviderId::Gemini, gemini),
    ];
    all.into_iter().filter(|(_, provider)| provider.available).map(|(id, _)| id).collect()
}

/// The last heartbeat; a backend that is away is not waited for.
pub(super) async fn say_offline(identity: &Identity) {
    let capabilities = identity.capabilities(&time::now_wire());
    let offline = beat(identity, GatewayStatus::Offline, &capabilities);
    match tokio::time::timeout(OFFLINE_LIMIT, offline).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let error = identity.host.redactor.text(&error.to_string());
            tracing::warn!(error, "the backend was not told that the gateway is offline");
        }
        Err(_) => tracing::warn!("the backend was not told that the gateway is offline"),
    }
}

/// Everything that a heartbeat depends on.
struct Changes {
    level: tokio::sync::watch::Receiver<crate::jobs::Level>,
    polled: tokio::sync::watch::Receiver<Option<Instant>>,
    toggle: tokio::sync::watch::Receiver<bool>,
    journal: tokio::sync::watch::Receiver<Option<String>>,
    providers: tokio::sync::watch::Receiver<Standings>,
    woken: tokio::sync::watch::Receiver<u64>,
}

impl Changes {
    fn new(identity: &Identity) -> Self {
        let shared = &identity.shared;
        Self {
            level: shared.level.subscribe(),
            polled: shared.polled.subscribe(),
            toggle: shared.toggle.subscribe(),
            journal: shared.journal.trouble(),
            providers: identity.host.providers.subscribe(),
            woken: shared.woken.subscribe(),
        }
    }

    fn seen(&mut self) {
        self.level.mark_unchanged();
        self.polled.mark_unchanged();
        self.toggle.mark_unchanged();
        self.journal.mark_unchanged();
        self.providers.mark_unchanged();
    }

    /// The next change; true when it was a wake. Cancel safe.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.level.changed() => false,
            _ = self.polled.changed() => false,
            _ = self.toggle.changed() => false,
            _ = self.journal.changed() => false,
            _ = self.providers.changed() => false,
            _ = self.woken.changed() => true,
        }
    }
}
