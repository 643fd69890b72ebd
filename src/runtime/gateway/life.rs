//! One identity's life: from its supervisors' start until its work is over.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{ExitReason, Gateway, SUPERVISOR_BUDGET, StartError};
use crate::jobs::Level;
use crate::model::GatewayStatus;
use crate::runtime::heartbeat;
use crate::runtime::identity::Identity;
use crate::runtime::shared::Login;
use crate::runtime::status::Phase;
use crate::runtime::upgrade::{Offer, Stage};
use crate::runtime::validation::Occasion;
use crate::task::Group;

/// How long jobs that were cancelled may take to end and to be reported.
const CANCEL_BUDGET: Duration = Duration::from_secs(30);
/// How long a hand-over waits for the backend to hear of it.
const PENDING_LIMIT: Duration = Duration::from_secs(2);

/// Why one identity's life ended.
#[derive(Debug)]
pub(super) enum IdentityEnd {
    Exit(ExitReason),
    NewIdentity,
    HandOver(Box<Offer>),
}

impl IdentityEnd {
    fn reason(&self) -> &'static str {
        match self {
            Self::Exit(ExitReason::Stopped) => "asked to stop",
            Self::Exit(ExitReason::PairingRevoked(_)) => "the pairing was revoked",
            Self::Exit(ExitReason::Unpaired) => "the pairing was removed from this machine",
            Self::NewIdentity => "paired anew",
            Self::HandOver(_) | Self::Exit(ExitReason::HandedOver) => "a new version takes over",
        }
    }
}

impl Gateway {
    pub(super) async fn live_identity(
        &mut self,
        occasion: Occasion,
        offer: &mpsc::Sender<Offer>,
        offers: &mut mpsc::Receiver<Offer>,
    ) -> Result<IdentityEnd, StartError> {
        let identity = Arc::new(self.identity(occasion)?);
        let mut group = Group::new(CancellationToken::new());
        self.start_supervisors(&mut group, &identity, offer);
        let end = self.watch_identity(&identity, offers).await;
        let gone_at_once = *self.shared.stops.borrow() >= 3;
        if matches!(end, IdentityEnd::HandOver(_)) {
            self.pending_was_said().await;
        }
        // One that is not up leaves it to the old process what the team is told.
        let is_last = !*self.shared.provisional.borrow();
        if !gone_at_once && is_last && matches!(end, IdentityEnd::Exit(ExitReason::Stopped)) {
            // The heartbeat supervisor has been told to drain; its part ends before this one.
            group.stop(SUPERVISOR_BUDGET).await;
            heartbeat::say_offline(&identity).await;
        } else {
            group.stop(if gone_at_once { Duration::ZERO } else { SUPERVISOR_BUDGET }).await;
        }
        Ok(end)
    }

    /// The team learns that nothing is accepted before somebody else says that it is.
    async fn pending_was_said(&self) {
        let mut reported = self.shared.reported.subscribe();
        let pending = reported.wait_for(|status| *status == Some(GatewayStatus::Pending));
        if tokio::time::timeout(PENDING_LIMIT, pending).await.is_err() {
            tracing::warn!("the backend was not told that the gateway hands over");
        }
    }

    /// Follows signals, session, config and upgrades until this identity's work is over.
    async fn watch_identity(
        &self,
        identity: &Identity,
        offers: &mut mpsc::Receiver<Offer>,
    ) -> IdentityEnd {
        let shared = &self.shared;
        let mut stops = shared.stops.subscribe();
        let mut login = shared.login.subscribe();
        let mut config_identity = shared.identity.subscribe();
        let mut activity = shared.activity.subscribe();
        let mut beat = shared.pulse.beat("gateway");
        let mut deadline: Option<tokio::time::Instant> = None;
        let mut end: Option<IdentityEnd> = None;
        loop {
            let requests = *stops.borrow_and_update();
            // Asked again each time: a revoked gateway that drains may be paired anew meanwhile.
            let reason = if requests >= 1 {
                Some(IdentityEnd::Exit(ExitReason::Stopped))
            } else {
                reason_to_end(identity, &login, &config_identity)
            };
            if let Some(reason) = reason
                && let Some(IdentityEnd::HandOver(offer)) = end.replace(reason)
            {
                let limit = self.options.settings.drain_timeout.value;
                deadline = limit.map(|limit| tokio::time::Instant::now() + limit);
                offer.withdraw(shared).await;
            }
            if requests >= 3 {
                tracing::warn!("going at once, as asked");
                return IdentityEnd::Exit(ExitReason::Stopped);
            }
            if let Some(end) = &end
                && *shared.level.borrow() == Level::Accepting
            {
                let limit = self.begin_drain(end);
                deadline = limit.map(|limit| tokio::time::Instant::now() + limit);
            }
            let expired = deadline.is_some_and(|at| at <= tokio::time::Instant::now());
            if (requests >= 2 || (expired && end.is_some()))
                && *shared.level.borrow() < Level::Cancelling
            {
                tracing::warn!("cancelling the work in hand");
                shared.raise(Level::Cancelling);
                deadline = Some(tokio::time::Instant::now() + CANCEL_BUDGET);
            } else if expired && *shared.level.borrow() == Level::Cancelling {
                tracing::error!("cancelled jobs did not end in time; going anyway");
                return end.unwrap_or(IdentityEnd::Exit(ExitReason::Stopped));
            }
            let idle = {
                let activity = activity.borrow_and_update();
                activity.draining && activity.active == 0
            };
            if idle && let Some(end) = end.take() {
                return end;
            }
            tokio::select! {
                // Cancel safe, each arm: watches, a channel, what a replacement says, a timer.
                _ = stops.changed() => {}
                _ = login.changed() => {}
                _ = config_identity.changed() => {}
                _ = activity.changed() => {}
                Some(offer) = offers.recv(), if end.is_none() => {
                    end = Some(IdentityEnd::HandOver(Box::new(offer)));
                }
                why = no_good(end.as_mut()) => {
                    if let Some(IdentityEnd::HandOver(offer)) = end.take() {
                        offer.fail(shared, &self.options.redactor.text(&why)).await;
                        deadline = None;
                        shared.resume();
                    }
                }
                () = at(deadline) => {}
                () = beat.asked() => {}
            }
        }
    }

    /// How long the work in hand may take.
    fn begin_drain(&self, end: &IdentityEnd) -> Option<Duration> {
        let active = self.shared.activity.borrow().active;
        tracing::info!(active, because = end.reason(), "draining");
        self.shared.phase.send_replace(Phase::Draining);
        self.shared.raise(Level::Draining);
        let settings = &self.options.settings;
        if let IdentityEnd::HandOver(offer) = end {
            self.shared.upgrade.reached(Stage::Draining, offer.version());
            return settings.restart_max_wait.value;
        }
        settings.drain_timeout.value
    }
}

/// Why the replacement that waits is no good, as soon as it shows.
async fn no_good(end: Option<&mut IdentityEnd>) -> String {
    match end {
        Some(IdentityEnd::HandOver(offer)) => offer.gone().await,
        Some(IdentityEnd::Exit(_) | IdentityEnd::NewIdentity) | None => {
            std::future::pending().await
        }
    }
}

/// What, other than a request to stop, ends this identity's work.
fn reason_to_end(
    identity: &Identity,
    login: &watch::Receiver<Login>,
    config_identity: &watch::Receiver<Option<String>>,
) -> Option<IdentityEnd> {
    match &*config_identity.borrow() {
        None => return Some(IdentityEnd::Exit(ExitReason::Unpaired)),
        Some(id) if id != identity.api.gateway().as_str() => {
            return Some(IdentityEnd::NewIdentity);
        }
        Some(_) => {}
    }
    match &*login.borrow() {
        Login::Ended(code) => Some(IdentityEnd::Exit(ExitReason::PairingRevoked(code.clone()))),
        Login::Unknown | Login::Proven => None,
    }
}

async fn at(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
