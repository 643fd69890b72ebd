//! What the supervisors of one gateway tell each other. Watches and short locks only.

mod report;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::deliveries::Deliveries;
use super::liveness::Liveness;
use super::status::{Contact, ListenState, Phase, RealtimeState, SupervisorState};
use super::status_rule::{self, Facts};
use super::upgrade::Memory;
use crate::backend::Api;
use crate::backend::realtime::State;
use crate::clock::Moment;
use crate::drive_sync::keeper::Monitor;
use crate::guest::Guest;
use crate::jobs::journal::Journal;
use crate::jobs::{Activity, Level, News};
use crate::model::{GatewayStatus, time};
use crate::observe::logging::LogHandle;
use crate::observe::{Audit, JobMetrics};
use crate::providers::Roster;
use crate::task::Pulse;

/// How often the backend is asked for jobs.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// The same in a managed VM, which nobody tells of jobs.
pub(super) const GUEST_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How the session is, as far as the rest of the gateway minds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Login {
    /// Not proven to the backend yet.
    Unknown,
    /// Proven.
    Proven,
    /// Over for good; the terminal code.
    Ended(String),
}

/// Text facts for `status`.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) heartbeat: Contact,
    pub(super) poll: Contact,
    pub(super) session_error: Option<String>,
    pub(super) realtime: Realtime,
    pub(super) supervisors: BTreeMap<&'static str, SupervisorState>,
    pub(super) metrics_listen: Option<ListenState>,
    /// Why `gateway.json` cannot be read now.
    pub(super) config_trouble: Option<String>,
    /// The client of the identity in force.
    pub(super) api: Option<Api>,
}

/// What `status` says of realtime.
#[derive(Debug, Default)]
pub(super) struct Realtime {
    /// `None` while it is not used.
    state: Option<State>,
    since: Option<String>,
    connections: u64,
    error: Option<String>,
}

impl Realtime {
    /// Another state at this wire time.
    pub(super) fn change(&mut self, state: State, why: Option<String>, at: String) {
        (self.state, self.error, self.since) = (Some(state), why, Some(at));
    }

    /// A connection was made. False for the first one.
    pub(super) fn connected(&mut self) -> bool {
        self.connections += 1;
        self.connections > 1
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state == Some(State::Ready)
    }

    fn report(&self, missed_jobs: u64) -> RealtimeState {
        let state = match self.state {
            None => "off",
            Some(State::Disconnected) => "disconnected",
            Some(State::Joining) => "joining",
            Some(State::Ready) => "ready",
            Some(State::Unavailable) => "unavailable",
        };
        RealtimeState {
            state: state.to_owned(),
            since: self.since.clone(),
            reconnects: self.connections.saturating_sub(1),
            missed_jobs,
            error: self.error.clone(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    /// Set in a managed VM.
    pub(super) guest: Option<Guest>,
    /// How often the backend is asked for jobs.
    pub(super) poll_interval: Duration,
    /// How much the gateway still does.
    pub(super) level: watch::Sender<Level>,
    /// When the backend last accepted a heartbeat.
    pub(super) heard: watch::Sender<Option<Moment>>,
    /// The same, for those who claim: not before a replacement is up.
    pub(super) may_claim: watch::Sender<Option<Moment>>,
    /// When the backend last answered a poll.
    pub(super) polled: watch::Sender<Option<Instant>>,
    /// What the controller does.
    pub(super) activity: watch::Sender<Activity>,
    /// How far the gateway is.
    pub(super) phase: watch::Sender<Phase>,
    /// The host toggle as last read.
    pub(super) toggle: watch::Sender<bool>,
    /// The session.
    pub(super) login: watch::Sender<Login>,
    /// The gateway id that `gateway.json` names now.
    pub(super) identity: watch::Sender<Option<String>>,
    /// Counts up at each wake. The session is seen to first; see `woken`.
    pub(super) wake: watch::Sender<u64>,
    /// Counts up when a wake has reached everybody else: they try again at once.
    pub(super) woken: watch::Sender<u64>,
    /// Counts up when the backend, after it was out of reach, has answered.
    pub(super) back: watch::Sender<u64>,
    /// Counts up at each SIGHUP.
    pub(super) reload: watch::Sender<u64>,
    /// Which of them `gateway.json` was read for.
    pub(super) reloaded: watch::Sender<u64>,
    /// Requests to stop: 1 drains, 2 cancels, 3 goes at once.
    pub(super) stops: watch::Sender<u32>,
    /// The last status that the backend accepted.
    pub(super) reported: watch::Sender<Option<GatewayStatus>>,
    /// What is claimed, on disk.
    pub(super) journal: Journal,
    /// Counts up when there may be jobs that nobody told of.
    pub(super) poll_now: watch::Sender<u64>,
    /// The controller's ear, while there is one.
    pub(super) news: watch::Sender<Option<mpsc::Sender<News>>>,
    /// The agent CLIs.
    pub(super) providers: Arc<Roster>,
    /// A replacement that is not up yet: the old process may have to go on.
    pub(super) provisional: watch::Sender<bool>,
    /// Restart on upgrade.
    pub(super) upgrade: Memory,
    /// Whether the loops that matter turn.
    pub(super) pulse: Pulse,
    /// Shows that tasks get their turn.
    pub(super) liveness: Liveness,
    /// Counts what jobs do.
    pub(super) job_metrics: JobMetrics,
    /// What is known of the drives.
    pub(super) drives: Monitor,
    log: Option<LogHandle>,
    audit: Option<Audit>,
    /// The last call of a supervisor found nobody.
    out_of_reach: AtomicBool,
    notes: Mutex<Notes>,
    deliveries: Mutex<Deliveries>,
    last_stop: Mutex<Option<Instant>>,
    started_at: String,
    started: Instant,
    concurrency: usize,
}

/// Signals within this time count once: a terminal sends ^C to a whole group.
const STOPS_COUNT_ONCE: Duration = Duration::from_secs(1);

impl Shared {
    pub(super) fn new(
        concurrency: usize,
        toggle: bool,
        identity: Option<String>,
        journal: Journal,
        providers: Arc<Roster>,
    ) -> Self {
        Self {
            guest: None,
            poll_interval: POLL_INTERVAL,
            journal,
            providers,
            provisional: watch::Sender::new(false),
            upgrade: Memory::default(),
            may_claim: watch::Sender::new(None),
            level: watch::Sender::new(Level::Accepting),
            heard: watch::Sender::new(None),
            polled: watch::Sender::new(None),
            activity: watch::Sender::new(Activity::default()),
            phase: watch::Sender::new(Phase::Starting),
            toggle: watch::Sender::new(toggle),
            login: watch::Sender::new(Login::Unknown),
            identity: watch::Sender::new(identity),
            wake: watch::Sender::new(0),
            woken: watch::Sender::new(0),
            back: watch::Sender::new(0),
            reload: watch::Sender::new(0),
            reloaded: watch::Sender::new(0),
            pulse: Pulse::default(),
            stops: watch::Sender::new(0),
            reported: watch::Sender::new(None),
            poll_now: watch::Sender::new(0),
            liveness: Liveness::new(),
            job_metrics: JobMetrics::default(),
            drives: Monitor::default(),
            log: None,
            audit: None,
            news: watch::Sender::new(None),
            out_of_reach: AtomicBool::new(false),
            notes: Mutex::default(),
            deliveries: Mutex::default(),
            last_stop: Mutex::default(),
            started_at: time::now_wire(),
            started: Instant::now(),
            concurrency,
        }
    }

    /// Reports on these logs, too.
    pub(super) fn with_logs(self, log: Option<LogHandle>, audit: Audit) -> Self {
        Self { log, audit: Some(audit), ..self }
    }

    /// Of a managed VM.
    pub(super) fn with_guest(self, guest: Option<Guest>) -> Self {
        let poll_interval = if guest.is_some() { GUEST_POLL_INTERVAL } else { self.poll_interval };
        Self { guest, poll_interval, ..self }
    }

    /// A fresh start under a new identity: all but the requests to stop is forgotten.
    pub(super) fn begin_identity(&self) {
        self.begin_again();
        self.providers.forget();
    }

    /// A fresh start under the same identity.
    pub(super) fn begin_again(&self) {
        self.level.send_replace(Level::Accepting);
        self.heard.send_replace(None);
        self.may_claim.send_replace(None);
        self.polled.send_replace(None);
        self.reported.send_replace(None);
        self.activity.send_replace(Activity::default());
        self.login.send_replace(Login::Unknown);
        self.phase.send_replace(Phase::Starting);
        self.news.send_replace(None);
        *self.deliveries() = Deliveries::default();
        let mut notes = self.notes();
        (notes.heartbeat, notes.poll) = (Contact::default(), Contact::default());
        notes.session_error = None;
        notes.realtime = Realtime::default();
    }

    pub(super) fn deliveries(&self) -> MutexGuard<'_, Deliveries> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the backend asked for jobs at once.
    pub(super) fn poll_soon(&self) {
        self.poll_now.send_modify(|polls| *polls += 1);
    }

    /// Notes whether a call to the backend was answered at all.
    pub(super) fn reached(&self, answered: bool) {
        let was_out_of_reach = self.out_of_reach.swap(!answered, Ordering::Relaxed);
        if answered && was_out_of_reach {
            self.back.send_modify(|returns| *returns += 1);
        }
    }

    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request to stop; see [`STOPS_COUNT_ONCE`].
    pub(super) fn request_stop(&self) {
        let now = Instant::now();
        let mut last = self.last_stop.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|at| now.duration_since(at) >= STOPS_COUNT_ONCE) {
            *last = Some(now);
            self.stops.send_modify(|stops| *stops += 1);
        }
    }

    /// Cancels the work in hand at once: what a second request to stop does. A signal that was sent
    /// with it but arrives later is the same request, not a third one.
    pub(super) fn request_cancel(&self) {
        let mut last = self.last_stop.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(Instant::now());
        self.stops.send_modify(|stops| *stops = (*stops).max(2));
    }

    /// The backend has accepted a heartbeat of this status now.
    pub(super) fn was_heard(&self, status: GatewayStatus, now: Moment) {
        let now = Some(now);
        if status == GatewayStatus::Ready || !*self.provisional.borrow() {
            self.may_claim.send_replace(now);
        }
        self.heard.send_replace(now);
    }

    /// A drain that came to nothing: jobs are taken again.
    pub(super) fn resume(&self) {
        self.level.send_replace(Level::Accepting);
        self.phase.send_if_modified(|phase| {
            let drained = *phase == Phase::Draining;
            if drained {
                *phase = Phase::Up;
            }
            drained
        });
        self.poll_soon();
    }

    /// Raises the level; it falls only by [`Self::resume`] within one identity.
    pub(super) fn raise(&self, level: Level) {
        self.level.send_if_modified(|now| {
            let higher = level > *now;
            *now = level.max(*now);
            higher
        });
    }

    /// The status for a heartbeat now, and when it would change by the mere passing of time.
    pub(super) fn status_now(&self) -> (GatewayStatus, Option<Instant>) {
        let polled = *self.polled.borrow();
        let facts = Facts {
            host_available: true,
            journal_in_order: self.journal.trouble().borrow().is_none(),
            accepting: *self.level.borrow() == Level::Accepting,
            last_good_poll: polled.map(|at| at.elapsed()),
            poll_interval: self.poll_interval,
        };
        let status = status_rule::status(facts);
        let stale_at = polled
            .filter(|_| status == GatewayStatus::Ready)
            .map(|at| at + self.poll_interval * 3 + Duration::from_millis(1));
        (status, stale_at)
    }
}

#[cfg(test)]
impl Shared {
    /// With a journal of its own, which goes with the directory.
    pub(super) fn for_tests() -> (Self, tempfile::TempDir) {
        use crate::observe::Redactor;
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&dir.path().join("jobs")).unwrap();
        (Self::new(1, false, None, journal, Arc::new(Roster::new(Redactor::default()))), dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[tokio::test(start_paused = true)]
    async fn stops_within_a_second_count_once() {
        let (shared, _dir) = Shared::for_tests();
        for (wait, expected) in [(0, 1), (900, 1), (100, 2), (999, 2), (1, 3)] {
            tokio::time::advance(Duration::from_millis(wait)).await;
            shared.request_stop();
            assert_eq!(*shared.stops.borrow(), expected, "after {wait} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_that_comes_just_after_a_cancel_request_is_no_third_one() {
        let (shared, _dir) = Shared::for_tests();
        shared.request_cancel();
        shared.request_stop();
        assert_eq!(*shared.stops.borrow(), 2);
        tokio::time::advance(Duration::from_secs(1)).await;
        shared.request_stop();
        assert_eq!(*shared.stops.borrow(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_whose_polls_stop_turns_to_error_by_itself() {
        let (shared, _dir) = Shared::for_tests();
        assert_eq!(shared.status_now(), (GatewayStatus::Pending, None));
        shared.polled.send_replace(Some(Instant::now()));
        let (status, stale_at) = shared.status_now();
        assert_eq!(status, GatewayStatus::Ready);
        tokio::time::sleep_until(stale_at.unwrap()).await;
        assert_eq!(shared.status_now(), (GatewayStatus::Error, None));
    }

    #[tokio::test]
    async fn a_replacement_claims_nothing_before_it_is_up() {
        let (shared, _dir) = Shared::for_tests();
        shared.provisional.send_replace(true);
        shared.was_heard(GatewayStatus::Pending, Clock::system().now());
        assert!(shared.heard.borrow().is_some() && shared.may_claim.borrow().is_none());
        shared.was_heard(GatewayStatus::Ready, Clock::system().now());
        assert!(shared.may_claim.borrow().is_some());
        let (shared, _dir) = Shared::for_tests();
        shared.was_heard(GatewayStatus::Pending, Clock::system().now());
        assert!(shared.may_claim.borrow().is_some(), "any other gateway does");
    }

    #[tokio::test]
    async fn a_drain_for_an_upgrade_that_failed_is_undone() {
        let (shared, _dir) = Shared::for_tests();
        shared.raise(Level::Draining);
        shared.phase.send_replace(Phase::Draining);
        shared.resume();
        assert_eq!(*shared.level.borrow(), Level::Accepting);
        assert_eq!(*shared.phase.borrow(), Phase::Up);
    }

    #[tokio::test(start_paused = true)]
    async fn the_level_never_falls() {
        let (shared, _dir) = Shared::for_tests();
        shared.raise(Level::Cancelling);
        shared.raise(Level::Draining);
        assert_eq!(*shared.level.borrow(), Level::Cancelling);
        assert_eq!(shared.status_now().0, GatewayStatus::Pending);
    }
}
