//! A gateway from lock to exit.

use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use secrecy::ExposeSecret;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::identity::Identity;
use super::notify::ServiceManager;
use super::shared::{Login, Shared};
use super::status::Phase;
use super::upgrade::handing_over::HandOver;
use super::upgrade::standby::{self, Predecessor};
use super::upgrade::{self, Offer, Relaunch, Stage};
use super::validation::Occasion;
use super::{
    clock, config_watch, events, heartbeat, house_audit, hygiene, ingress, liveness, memory,
    metrics_server, providers, realtime, service_manager, session, status_socket, supervisor,
};
use crate::backend::{Api, Endpoint, Http, RedactedTokens, Session};
use crate::clock::Clock;
use crate::config::{
    ConfigError, ConfigStore, FileLock, LockError, PidFile, PidRecord, Purpose, SavedConfig,
    Settings, Source, Sourced,
};
use crate::jobs::journal::Journal;
use crate::jobs::{Activity, Controller, EventTurns, Host, Level, MODEL_WORK, Slots, Subagents};
use crate::model::{GatewayId, GatewayStatus, TeamId};
use crate::observe::logging::LogHandle;
use crate::observe::{Audit, Redactor};
use crate::providers::{Roster, VALIDATION_WORK, sweep_work_dirs};
use crate::task::Group;

/// A probe may hold the instance lock for a moment; a gateway holds it for life.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// News under way to the controller: a page of a poll each, or one row.
const NEWS: usize = 4;
/// How long jobs that were cancelled may take to end and to be reported.
const CANCEL_BUDGET: Duration = Duration::from_secs(30);
/// How long a hand-over waits for the backend to hear of it.
const PENDING_LIMIT: Duration = Duration::from_secs(2);
/// How long supervisors may take to stop.
const SUPERVISOR_BUDGET: Duration = Duration::from_secs(5);

/// What a gateway is started with.
#[derive(Debug)]
pub struct GatewayOptions {
    /// The merged settings.
    pub settings: Settings,
    /// Shared with logging.
    pub redactor: Redactor,
    /// What status says of the log; `None` when there is none.
    pub log: Option<LogHandle>,
    /// The umask of whoever started the gateway; children get it.
    pub caller_umask: u32,
    /// How it is started once more when a new version is installed; `None`: it never is.
    pub relaunch: Option<Arc<Relaunch>>,
    /// Who started this process, if that is a service manager.
    pub service: ServiceManager,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another one holds the lock, or a foreign panorama-gateway runs.
    #[error("a gateway is running already")]
    AlreadyRunning {
        /// Its pid, when it is known.
        pid: Option<i32>,
    },
    /// No identity in `gateway.json`.
    #[error("this machine is not paired")]
    NotPaired,
    /// Bad configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// Why a gateway ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// It was asked to.
    Stopped,
    /// The backend refuses the pairing for good; the terminal code.
    PairingRevoked(String),
    /// The pairing was taken away on this machine.
    Unpaired,
    /// A new version runs in its place.
    HandedOver,
}

/// Steers a gateway from outside. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GatewayHandle {
    shared: Arc<Shared>,
}

impl GatewayHandle {
    /// One request to stop: the first drains, the second cancels the work, the third goes at once.
    /// Requests within a second count once.
    pub fn stop(&self) {
        self.shared.request_stop();
    }

    /// Reads `gateway.json` again.
    pub fn reload(&self) {
        self.shared.reload.send_modify(|reloads| *reloads += 1);
    }

    /// What a wake of the machine does: over new connections, checks the session, then beats and
    /// joins realtime anew, then polls.
    pub fn wake(&self) {
        self.shared.wake.send_modify(|wakes| *wakes += 1);
    }

    /// True when the runtime has shown within this time that its tasks get their turn: what a
    /// watchdog asks before it says that all is well.
    pub fn alive_within(&self, limit: Duration) -> bool {
        self.shared.alive_within(limit)
    }

    /// How far the gateway is.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.shared.phase.subscribe()
    }

    /// What waits, runs and has ended.
    pub fn activity(&self) -> watch::Receiver<Activity> {
        self.shared.activity.subscribe()
    }
}

/// A gateway that holds the instance lock.
#[derive(Debug)]
pub struct Gateway {
    pub(super) options: GatewayOptions,
    clock: Clock,
    pub(super) config: ConfigStore,
    pub(super) audit: Audit,
    pub(super) shared: Arc<Shared>,
    pub(super) socket: Option<Arc<StdListener>>,
    pub(super) pid_file: Option<PidFile>,
    pub(super) lock: FileLock,
    /// The old process, until this one is up.
    pub(super) predecessor: Option<Predecessor>,
    /// A client that has spoken to this backend already.
    http: Option<(Endpoint, Http)>,
}

/// What a replacement has got ready before it takes over.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) endpoint: Endpoint,
    pub(super) http: Http,
    pub(super) roster: Arc<Roster>,
}

/// Why one identity's life ended.
#[derive(Debug)]
enum IdentityEnd {
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
    /// Everything that needs no network: lock, pid file, status socket, config. Blocks for
    /// milliseconds (for a second when another gateway holds the lock).
    pub fn prepare(options: GatewayOptions) -> Result<Self, StartError> {
        Self::prepare_with(options, None)
    }

    /// The same for one that got ready already.
    pub(super) fn prepare_with(
        options: GatewayOptions,
        ready: Option<Ready>,
    ) -> Result<Self, StartError> {
        let config = ConfigStore::new(options.settings.paths.clone());
        config.paths().prepare().map_err(ConfigError::from)?;
        let lock = claim_instance(&config)?;
        Self::prepare_holding(options, lock, ready)
    }

    /// The same for one that was handed the lock.
    pub(super) fn prepare_holding(
        options: GatewayOptions,
        lock: FileLock,
        ready: Option<Ready>,
    ) -> Result<Self, StartError> {
        let config = ConfigStore::new(options.settings.paths.clone());
        let paths = config.paths();
        let saved = config.load()?;
        if !saved.is_paired() {
            return Err(StartError::NotPaired);
        }
        let (url, key) = options.settings.backend(Purpose::Start)?;
        save_backend(&config, &saved, &url, key.expose_secret())?;
        crate::fs::ensure_private_dir(&paths.tmp()).map_err(ConfigError::from)?;
        // Nobody works in there: the lock is ours.
        sweep_work_dirs(&paths.work(MODEL_WORK));
        // But for a `doctor`, perhaps, which then says that its check failed.
        sweep_work_dirs(&paths.work(VALIDATION_WORK));
        let journal = Journal::open(&paths.journal()).map_err(ConfigError::from)?;
        let pid_file = write_pid(&paths.pid_file)?;
        let socket = status_socket::open(&paths.socket());
        let (roster, http) = match ready {
            Some(ready) => (ready.roster, Some((ready.endpoint, ready.http))),
            None => (Arc::new(Roster::new(options.redactor.clone())), None),
        };
        let shared = Shared::new(
            options.settings.concurrency.value,
            saved.full_control(),
            saved.text("gatewayId").map(str::to_owned),
            journal,
            roster,
        );
        let audit = Audit::new(&paths.audit_file(), options.redactor.clone());
        let shared = Arc::new(shared.with_logs(options.log.clone(), audit.clone()));
        let clock = Clock::system();
        Ok(Self {
            options,
            clock,
            config,
            audit,
            shared,
            socket,
            pid_file,
            lock,
            predecessor: None,
            http,
        })
    }

    /// Goes by these clocks instead of the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Steers it.
    pub fn handle(&self) -> GatewayHandle {
        GatewayHandle { shared: Arc::clone(&self.shared) }
    }

    /// Lives until it is stopped. A pairing that replaces the identity meanwhile is adopted: the
    /// work in hand is finished first.
    pub async fn run(mut self) -> Result<ExitReason, StartError> {
        tracing::info!(version = crate::VERSION, pid = std::process::id(), "starting");
        house_audit::started(&self.audit, &self.shared).await;
        let stop = CancellationToken::new();
        let mut house = Group::new(stop.clone());
        let (shared, config) = (Arc::clone(&self.shared), self.config.clone());
        let (redactor, audit) = (self.options.redactor.clone(), self.audit.clone());
        supervisor::spawn(&mut house, &self.shared, "config watch", move |stop| {
            let (shared, config, redactor) =
                (Arc::clone(&shared), config.clone(), redactor.clone());
            config_watch::run(shared, config, redactor, audit.clone(), stop)
        });
        let (shared, watched) = (Arc::clone(&self.shared), self.clock.clone());
        supervisor::spawn(&mut house, &self.shared, "clock", move |stop| {
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
        let mut door = self.open_door();
        let (offer, mut offers) = mpsc::channel(1);
        let (shared, service) = (Arc::clone(&self.shared), self.options.service.clone());
        supervisor::spawn(&mut house, &self.shared, "service manager", move |stop| {
            service_manager::run(Arc::clone(&shared), service.clone(), stop)
        });
        let shared = Arc::clone(&self.shared);
        supervisor::spawn(&mut house, &self.shared, "liveness", move |stop| {
            liveness::run(Arc::clone(&shared), stop)
        });
        if let Some(Sourced { value: address, .. }) = self.options.settings.metrics_listen {
            let shared = Arc::clone(&self.shared);
            supervisor::spawn(&mut house, &self.shared, "metrics", move |stop| {
                metrics_server::run(Arc::clone(&shared), address, stop)
            });
        }
        let mut occasion = Occasion::Startup;
        let result = loop {
            let life = Box::pin(self.live_identity(occasion, &offer, &mut offers));
            match life.await {
                Ok(IdentityEnd::NewIdentity) => {
                    self.shared.begin_identity();
                    occasion = Occasion::Pairing;
                }
                Ok(IdentityEnd::Exit(reason)) => break Ok(reason),
                Ok(IdentityEnd::HandOver(offer)) => match Box::pin(self.hand_over(*offer)).await {
                    Ok(HandOver::Done) => break Ok(ExitReason::HandedOver),
                    Ok(HandOver::Back) => {
                        let old = std::mem::replace(&mut door, self.open_door());
                        old.stop(SUPERVISOR_BUDGET).await;
                    }
                    Err(error) => break Err(error),
                },
                Err(error) => break Err(error),
            }
        };
        door.stop(SUPERVISOR_BUDGET).await;
        self.options.service.stopping();
        house.stop(SUPERVISOR_BUDGET).await;
        house_audit::stopped(&self.audit, &result).await;
        self.shared.phase.send_replace(Phase::Stopped);
        let is_ours =
            !matches!(result, Ok(ExitReason::HandedOver) | Err(StartError::AlreadyRunning { .. }));
        if self.socket.is_some() && is_ours {
            // Under the lock still, so it is ours.
            let _ = std::fs::remove_file(self.config.paths().socket());
        }
        if let Some(pid_file) = self.pid_file {
            pid_file.remove();
        }
        result
    }

    /// Serves the status socket.
    fn open_door(&self) -> Group {
        let mut door = Group::new(CancellationToken::new());
        if let Some(socket) = self.socket.clone() {
            let shared = Arc::clone(&self.shared);
            supervisor::spawn(&mut door, &self.shared, "status socket", move |stop| {
                status_socket::run(Arc::clone(&shared), Arc::clone(&socket), stop)
            });
        }
        door
    }

    async fn live_identity(
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

    /// The identity that `gateway.json` holds now.
    fn identity(&self, occasion: Occasion) -> Result<Identity, StartError> {
        let settings = &self.options.settings;
        let saved = self.config.load()?;
        if !saved.is_paired() {
            return Err(StartError::NotPaired);
        }
        let text = |name: &str| saved.text(name).unwrap_or_default().to_owned();
        saved.secrets().for_each(|secret| self.options.redactor.add_secret(secret));
        // What was resolved at the start was saved; a pairing since then brought its own backend.
        let endpoint =
            Endpoint { url: text("supabaseUrl"), anon_key: text("supabaseAnonKey").into() };
        let http = self.http(&endpoint)?;
        let store = RedactedTokens::new(self.config.clone(), self.options.redactor.clone());
        let session = Session::new(http.clone(), endpoint.clone(), Arc::new(store))
            .context("load the session")?;
        let (gateway, team) = (GatewayId::new(text("gatewayId")), TeamId::new(text("teamId")));
        let api = Api::new(http, endpoint, Arc::new(session), gateway, team);
        self.shared.notes().api = Some(api.clone());
        let host = Arc::new(Host {
            api: api.clone(),
            config: self.config.clone(),
            environment: settings.environment.clone(),
            redactor: self.options.redactor.clone(),
            polled: self.shared.polled.subscribe(),
            journal: self.shared.journal.clone(),
            audit: self.audit.clone(),
            caller_umask: self.options.caller_umask,
            providers: Arc::clone(&self.shared.providers),
            metrics: self.shared.job_metrics.clone(),
            subagents: Subagents::default(),
            event_turns: EventTurns::default(),
            live_events: settings.live_events.value,
        });
        Ok(Identity {
            shared: Arc::clone(&self.shared),
            api,
            host,
            device_name: device_name(settings, &saved),
            image_reference: settings
                .environment
                .get("PANORAMA_VM_IMAGE_REFERENCE")
                .map(str::to_owned),
            is_guest: saved.is_guest(),
            occasion,
        })
    }

    /// The client that has spoken to this backend already, if there is one.
    fn http(&self, endpoint: &Endpoint) -> Result<Http, StartError> {
        match &self.http {
            Some((known, http)) if known.is_same(endpoint) => Ok(http.clone()),
            _ => Ok(Http::with_clock(endpoint, self.clock.clone()).context("make the HTTP client")?),
        }
    }

    fn start_supervisors(
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

fn claim_instance(config: &ConfigStore) -> Result<FileLock, StartError> {
    let paths = config.paths();
    let running = PidFile::inspect(&paths.pid_file);
    let pid = match running {
        PidRecord::Gateway(pid) => Some(pid),
        PidRecord::None | PidRecord::Stale(_) => None,
    };
    match FileLock::acquire(&paths.instance_lock(), LOCK_PATIENCE) {
        // A live gateway without our lock is a foreign one: it would race us for the session.
        Ok(_) if pid.is_some() => Err(StartError::AlreadyRunning { pid }),
        Ok(lock) => Ok(lock),
        Err(LockError::Held) => Err(StartError::AlreadyRunning { pid }),
        Err(LockError::Fs(error)) => Err(ConfigError::from(error).into()),
    }
}

/// `None` on a disk that is full: the lock decides who runs, and the status socket tells our pid too.
fn write_pid(path: &Path) -> Result<Option<PidFile>, ConfigError> {
    match PidFile::write(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.is_full() => {
            tracing::warn!(path = %path.display(), %error, "no pid file");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// A flag, else what the pairing in force was made with.
fn device_name(settings: &Settings, saved: &SavedConfig) -> String {
    let Sourced { value, source } = &settings.device_name;
    match (source, saved.text("deviceName")) {
        (Source::Flag(_), _) | (_, None) => value.clone(),
        (_, Some(name)) => name.to_owned(),
    }
}

/// `start` saves what it resolved.
fn save_backend(
    config: &ConfigStore,
    saved: &SavedConfig,
    url: &str,
    key: &str,
) -> Result<(), ConfigError> {
    if saved.text("supabaseUrl") == Some(url) && saved.text("supabaseAnonKey") == Some(key) {
        return Ok(());
    }
    config.update(|saved| {
        saved.set("supabaseUrl", url);
        saved.set("supabaseAnonKey", key);
    })?;
    Ok(())
}
