//! Who is started: the supervisors of the process and those of an identity.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Gateway;
use crate::config::{Settings, Sourced};
use crate::jobs::{Controller, Slots};
use crate::runtime::identity::Identity;
use crate::runtime::upgrade::standby;
use crate::runtime::upgrade::{self, Offer};
use crate::runtime::{
    clock, config_watch, drive_sync, events, heartbeat, hygiene, ingress, liveness, memory,
    metrics_server, providers, realtime, service_manager, session, status_socket, supervisor,
};
use crate::task::Group;

/// News under way to the controller: a page of a poll each, or one row.
const NEWS: usize = 4;

impl Gateway {
    /// Starts what lives as long as the process.
    pub(super) fn keep_house(&mut self, house: &mut Group) {
        let (shared, config) = (Arc::clone(&self.shared), self.config.clone());
        let (redactor, audit) = (self.options.redactor.clone(), self.audit.clone());
        supervisor::spawn(house, &self.shared, "config watch", move |stop| {
            let (shared, config, redactor) =
                (Arc::clone(&shared), config.clone(), redactor.clone());
            config_watch::run(shared, config, redactor, audit.clone(), stop)
        });
        let (shared, watched) = (Arc::clone(&self.shared), self.clock.clone());
        supervisor::spawn(house, &self.shared, "clock", move |stop| {
            clock::run(Arc::clone(&shared), watched.clone(), stop)
        });
        if let Some(predecessor) = self.predecessor.take() {
            self.shared.provisional.send_replace(true);
            let (shared, service) = (Arc::clone(&self.shared), self.options.service.clone());
            // The old process still speaks for both.
            service.fall_silent();
            house.spawn("taking over", move |stop| {
                standby::confirm(shared, service, predecessor, stop)
            });
        }
        let (shared, service) = (Arc::clone(&self.shared), self.options.service.clone());
        supervisor::spawn(house, &self.shared, "service manager", move |stop| {
            service_manager::run(Arc::clone(&shared), service.clone(), stop)
        });
        let shared = Arc::clone(&self.shared);
        supervisor::spawn(house, &self.shared, "liveness", move |stop| {
            liveness::run(Arc::clone(&shared), stop)
        });
        if let Some(Sourced { value: address, .. }) = self.options.settings.metrics_listen {
            let shared = Arc::clone(&self.shared);
            supervisor::spawn(house, &self.shared, "metrics", move |stop| {
                metrics_server::run(Arc::clone(&shared), address, stop)
            });
        }
    }

    /// Serves the status socket.
    pub(super) fn open_door(&self) -> Group {
        let mut door = Group::new(CancellationToken::new());
        if let Some(socket) = self.socket.clone() {
            let shared = Arc::clone(&self.shared);
            supervisor::spawn(&mut door, &self.shared, "status socket", move |stop| {
                status_socket::run(Arc::clone(&shared), Arc::clone(&socket), stop)
            });
        }
        door
    }

    fn start_drive_sync(&self, group: &mut Group, identity: &Arc<Identity>) {
        let (given, environment) =
            (self.options.drive_sync.as_ref(), &self.options.settings.environment);
        let Some(settings) = drive_sync::settings(given, identity.is_guest, environment) else {
            return;
        };
        let settings = settings.map_err(|error| error.to_string());
        let own = Arc::clone(identity);
        supervisor::spawn(group, &self.shared, "drive sync", move |stop| {
            drive_sync::run(Arc::clone(&own), settings.clone(), stop)
        });
    }

    pub(super) fn start_supervisors(
        &self,
        group: &mut Group,
        identity: &Arc<Identity>,
        offer: &mpsc::Sender<Offer>,
    ) {
        let shared = &self.shared;
        let own = Arc::clone(identity);
        supervisor::spawn(group, shared, "session", move |stop| {
            session::run(Arc::clone(&own), stop)
        });
        let own = Arc::clone(identity);
        supervisor::spawn(group, shared, "heartbeat", move |stop| {
            heartbeat::run(Arc::clone(&own), stop)
        });
        // Ingress and controller share a channel, so they are one supervisor.
        let own = Arc::clone(identity);
        let slots = slots(&self.options.settings);
        supervisor::spawn(group, shared, "jobs", move |stop| jobs(Arc::clone(&own), slots, stop));
        let own = Arc::clone(identity);
        supervisor::spawn(group, shared, "hygiene", move |stop| {
            hygiene::run(Arc::clone(&own), stop)
        });
        let own = Arc::clone(identity);
        let settings = self.options.settings.clone();
        supervisor::spawn(group, shared, "providers", move |stop| {
            let check = own.host.model_check();
            providers::run(Arc::clone(&own), settings.clone(), check, stop)
        });
        if !identity.is_guest {
            let own = Arc::clone(identity);
            supervisor::spawn(group, shared, "realtime", move |stop| {
                realtime::run(Arc::clone(&own), stop)
            });
        }
        self.start_drive_sync(group, identity);
        if let Some(relaunch) = self.options.relaunch.clone() {
            let (own, offer) = (Arc::clone(identity), offer.clone());
            let settings = self.options.settings.clone();
            supervisor::spawn(group, shared, "restart", move |stop| {
                let (settings, relaunch) = (settings.clone(), Arc::clone(&relaunch));
                upgrade::run(Arc::clone(&own), settings, relaunch, offer.clone(), stop)
            });
        }
        let own = Arc::clone(identity);
        let fallback = self.options.settings.dir_fallback.clone();
        group.spawn("first events", move |stop| async move {
            tokio::select! {
                // Cancel safe: an event that was not recorded is one line less at the backend.
                () = events::first(&own, fallback) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Ingress and controller until `stop`.
async fn jobs(identity: Arc<Identity>, slots: Slots, stop: CancellationToken) {
    let shared = Arc::clone(&identity.shared);
    let (tell, news) = mpsc::channel(NEWS);
    // Realtime tells the controller too, but its failure is not this task's.
    shared.news.send_replace(Some(tell.clone()));
    let controller = Controller::new(
        Arc::clone(&identity.host),
        slots,
        shared.level.subscribe(),
        shared.may_claim.subscribe(),
        shared.activity.clone(),
    );
    tokio::join!(
        ingress::run(identity, tell, stop.clone()),
        controller.run(news, &shared.pulse, stop)
    );
}

fn slots(settings: &Settings) -> Slots {
    let jobs = settings.concurrency.value;
    let agents = settings.agent_concurrency.as_ref().map(|set| set.value);
    Slots { jobs, agents: agents.unwrap_or_else(|| memory::agents(jobs)).min(jobs) }
}
