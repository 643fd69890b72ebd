//! What is said of a running gateway: its status, its health, its jobs.

use std::time::Duration;

use tokio::sync::oneshot;

use super::super::capabilities;
use super::super::health::{self, Health};
use super::super::status::{
    AuditState, Contact, DriveSyncState, JournalState, LiveStatus, LogState, Phase,
};
use super::{Login, Shared};
use crate::backend::Api;
use crate::clock::Clock;
use crate::guest::Guest;
use crate::jobs::{JobList, Level, News};
use crate::observe::Audit;
use crate::observe::logging::LogHandle;

/// The controller answers at once, unless its disk is slow.
const LIST_LIMIT: Duration = Duration::from_secs(1);

impl Shared {
    /// True when the runtime has shown within this time that its tasks get their turn.
    pub(in crate::runtime) fn alive_within(&self, limit: Duration) -> bool {
        self.liveness.age() <= limit
    }

    /// How long ago the last heartbeat was accepted; sleep counts.
    pub(in crate::runtime) fn heard_ago(&self) -> Option<Duration> {
        let heard = (*self.heard.borrow())?;
        let clock = self.notes().api.as_ref().map(|api| api.clock().clone());
        Some(clock.unwrap_or_else(Clock::system).since(heard))
    }

    /// Alive, and ready for jobs.
    pub(in crate::runtime) fn health(&self) -> Health {
        health::health(health::Facts {
            alive: self.alive_within(health::ALIVE_WITHIN),
            phase: *self.phase.borrow(),
            session_ended: matches!(&*self.login.borrow(), Login::Ended(_)),
            journal_in_order: self.journal.trouble().borrow().is_none(),
            heartbeat: self.heard_ago(),
            poll: self.polled.borrow().map(|at| at.elapsed()),
        })
    }

    /// What waits and runs, by the controller itself; `None` when it does not answer in time.
    pub(in crate::runtime) async fn jobs(&self) -> Option<JobList> {
        let Some(controller) = self.news.borrow().clone() else { return Some(JobList::default()) };
        let (asked_by, answer) = oneshot::channel();
        let asked = async {
            controller.send(News::List(asked_by)).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(LIST_LIMIT, asked).await.ok().flatten()
    }

    /// Everything that the status socket answers.
    pub(in crate::runtime) fn live_status(&self) -> LiveStatus {
        let health = self.health();
        let activity = self.activity.borrow().clone();
        let session = match (&*self.login.borrow(), &self.notes().session_error) {
            (Login::Ended(_), _) => "ended",
            (_, Some(_)) => "retrying",
            (Login::Unknown, None) => "unchecked",
            (Login::Proven, None) => "valid",
        };
        let missed = self.deliveries().missed();
        let heard_ago = self.heard_ago();
        let notes = self.notes();
        let (records, bytes) = self.journal.usage();
        let phase = *self.phase.borrow();
        let detail = match phase {
            Phase::Draining => Some(self.drains_for(activity.active)),
            Phase::Starting | Phase::Up | Phase::Stopped => notes.session_error.clone(),
        };
        LiveStatus {
            pid: std::process::id(),
            version: crate::VERSION.to_owned(),
            started_at: self.started_at.clone(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            health,
            phase,
            detail,
            reported_status: self.reported.borrow().map(|status| status.as_str().to_owned()),
            heartbeat: with_age(&notes.heartbeat, heard_ago),
            poll: with_age(&notes.poll, self.polled.borrow().map(|at| at.elapsed())),
            ingress: if notes.realtime.is_ready() { "realtime" } else { "polling" }.to_owned(),
            realtime: notes.realtime.report(missed),
            session: session.to_owned(),
            session_refreshes: notes.api.as_ref().map_or(0, |api| api.session().refreshes()),
            requests_sent: notes.api.as_ref().map_or(0, Api::requests_sent),
            full_control_enabled: *self.toggle.borrow(),
            concurrency: self.concurrency,
            queued_jobs: activity.queued,
            active_jobs: activity.jobs,
            finished_jobs: activity.finished,
            journal: JournalState {
                records,
                bytes,
                trouble: self.journal.trouble().borrow().clone(),
            },
            providers: capabilities::provider_states(&self.providers.standings()),
            supervisors: notes.supervisors.values().cloned().collect(),
            log: self.log.as_ref().map(log_state).unwrap_or_default(),
            audit: self.audit.as_ref().map(audit_state).unwrap_or_default(),
            metrics_listen: notes.metrics_listen.clone(),
            config_trouble: notes.config_trouble.clone(),
            upgrade: self.upgrade.report(),
            guest: self.guest.as_ref().map(Guest::state),
            drive_sync: self.drives.report().map(DriveSyncState::from),
        }
    }

    fn drains_for(&self, active: usize) -> String {
        let jobs = if active == 1 { "job" } else { "jobs" };
        match *self.level.borrow() {
            Level::Cancelling => format!("cancelling {active} {jobs}"),
            Level::Accepting | Level::Draining => format!("{active} {jobs} in hand"),
        }
    }
}

fn with_age(contact: &Contact, age: Option<Duration>) -> Contact {
    let age = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    Contact { last_ok_age_ms: age, ..contact.clone() }
}

fn log_state(log: &LogHandle) -> LogState {
    LogState {
        dropped_lines: u64::try_from(log.dropped_lines()).unwrap_or(u64::MAX),
        failed_writes: log.failed_writes(),
        lost_lines: log.lost_lines(),
        trouble: log.trouble().map(str::to_owned),
    }
}

fn audit_state(audit: &Audit) -> AuditState {
    AuditState { lost_lines: audit.lost_lines(), trouble: audit.trouble().map(str::to_owned) }
}
