//! What the status socket answers; a stable schema that `status --json` passes on.

use serde::{Deserialize, Serialize};

use super::health::Health;
use crate::drive_sync::keeper::report::{DriveReport, DriveState, Report};
use crate::guest::GuestState;
use crate::jobs::ActiveJob;

/// How far a gateway is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not yet accepted by the backend.
    Starting,
    /// A `ready` heartbeat was accepted.
    Up,
    /// Takes no more jobs; finishes what runs.
    Draining,
    /// Over.
    Stopped,
}

/// An exchange with the backend: when it last worked, and how it last failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Wire time of the last success.
    pub last_ok_at: Option<String>,
    /// Milliseconds since, by a clock that is never set.
    #[serde(default)]
    pub last_ok_age_ms: Option<u64>,
    /// The last failure since then, one line.
    pub error: Option<String>,
    /// How many worked since the start.
    #[serde(default)]
    pub succeeded: u64,
    /// How many failed since the start.
    #[serde(default)]
    pub failed: u64,
}

impl Contact {
    /// It worked, at this wire time.
    pub(super) fn worked(&mut self, at: String) {
        self.succeeded += 1;
        (self.last_ok_at, self.error) = (Some(at), None);
    }

    /// It failed.
    pub(super) fn broke(&mut self, error: String) {
        self.failed += 1;
        self.error = Some(error);
    }
}

/// What became of log lines that did not reach the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    /// Came faster than they could be written.
    pub dropped_lines: u64,
    /// Refused by the file system.
    pub failed_writes: u64,
    /// In no file because it could not be written.
    #[serde(default)]
    pub lost_lines: u64,
    /// Why the last line was lost; `None` when it was written.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// What became of lines that did not reach the audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditState {
    /// In no file.
    pub lost_lines: u64,
    /// Why the last line was lost; `None` when it was written.
    pub trouble: Option<String>,
}

/// The HTTP address for metrics and probes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenState {
    /// The one asked for; once it listens, with the port that it has.
    pub address: String,
    /// It listens there.
    pub listening: bool,
    /// Why not.
    pub error: Option<String>,
}

/// The channel on which the backend tells of new jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealtimeState {
    /// `disconnected`, `joining`, `ready`, `unavailable` (refused; tried again every 10 minutes) or
    /// `off` (never used here).
    pub state: String,
    /// Wire time of the last change.
    pub since: Option<String>,
    /// How often the connection was made anew.
    pub reconnects: u64,
    /// Jobs that it should have told of, but a poll found.
    pub missed_jobs: u64,
    /// Why it is not ready, or was not; one line.
    pub error: Option<String>,
}

/// Results that are kept until the backend has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalState {
    /// How many records.
    pub records: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Why nothing new is claimed.
    pub trouble: Option<String>,
}

/// A newer version that was installed but did not take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedUpgrade {
    /// Its version; `None` for a file that is no gateway.
    pub version: Option<String>,
    /// Why; one line.
    pub reason: String,
    /// Wire time.
    pub at: String,
}

/// Restart on upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeState {
    /// `off`, `watching`, `preparing` (the replacement gets ready), `draining` or `handing_over`.
    pub state: String,
    /// The version that is to take over.
    pub version: Option<String>,
    /// Wire time at which this state began, while there is such a version.
    pub since: Option<String>,
    /// The last one that failed.
    pub last_failed: Option<FailedUpgrade>,
}

impl Default for UpgradeState {
    /// Of a gateway that says nothing of it.
    fn default() -> Self {
        Self { state: "off".to_owned(), version: None, since: None, last_failed: None }
    }
}

/// A supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorState {
    /// Its name.
    pub name: String,
    /// `running`, `waiting` (to be started again) or `stopped`.
    pub state: String,
    /// How often it was started again.
    pub restarts: u32,
}

/// A provider, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderState {
    /// `claude_code`, `codex` or `gemini`.
    pub id: String,
    /// Can be asked for.
    pub available: bool,
    /// Its version.
    pub version: Option<String>,
    /// Why not.
    pub error: Option<String>,
}

/// The drives of this machine, in short.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveSyncState {
    /// Why none can be kept in step.
    pub problem: Option<String>,
    /// Each of them.
    pub drives: Vec<DriveSummary>,
}

/// One drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveSummary {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: DriveState,
    /// Why, if there is something to say.
    pub reason: Option<String>,
}

impl From<Report> for DriveSyncState {
    fn from(report: Report) -> Self {
        let summary = |drive: DriveReport| {
            let DriveReport { name, state, reason, held, .. } = drive;
            DriveSummary { name, state, reason: held.or(reason) }
        };
        Self { problem: report.problem, drives: report.drives.into_iter().map(summary).collect() }
    }
}

/// The answer to `{"request":"status"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveStatus {
    /// Process id.
    pub pid: u32,
    /// Version of the running binary.
    pub version: String,
    /// Wire time of the start.
    pub started_at: String,
    /// Milliseconds since.
    pub uptime_ms: u64,
    /// Alive, and ready for jobs.
    #[serde(default)]
    pub health: Health,
    /// How far it is.
    pub phase: Phase,
    /// Why it waits while it starts, or what it drains for; one line.
    pub detail: Option<String>,
    /// Last heartbeat's status word.
    pub reported_status: Option<String>,
    /// Heartbeats.
    pub heartbeat: Contact,
    /// Polls.
    pub poll: Contact,
    /// How new jobs are found: `realtime` (and polling beside it) or `polling` alone.
    pub ingress: String,
    /// The channel on which new jobs are told.
    pub realtime: RealtimeState,
    /// `unchecked`, `valid`, `retrying` or `ended`.
    pub session: String,
    /// Refreshes of the session that ended, well or not.
    #[serde(default)]
    pub session_refreshes: u64,
    /// Requests sent to the backend for the identity in force.
    #[serde(default)]
    pub requests_sent: u64,
    /// The host toggle as last read.
    pub full_control_enabled: bool,
    /// Most jobs at a time.
    pub concurrency: usize,
    /// Waiting in the queue.
    pub queued_jobs: usize,
    /// In hand.
    pub active_jobs: Vec<ActiveJob>,
    /// Jobs ended since the start.
    pub finished_jobs: u64,
    /// What is claimed, on disk.
    pub journal: JournalState,
    /// The three CLIs.
    pub providers: Vec<ProviderState>,
    /// The supervisors.
    pub supervisors: Vec<SupervisorState>,
    /// The log's troubles.
    #[serde(default)]
    pub log: LogState,
    /// Why `gateway.json` cannot be read; the gateway goes on with what it read last.
    #[serde(default)]
    pub config_trouble: Option<String>,
    /// The audit log's troubles.
    #[serde(default)]
    pub audit: AuditState,
    /// Set when metrics are to be served by HTTP.
    #[serde(default)]
    pub metrics_listen: Option<ListenState>,
    /// Restart on upgrade.
    #[serde(default)]
    pub upgrade: UpgradeState,
    /// Set in a managed VM.
    #[serde(default)]
    pub guest: Option<GuestState>,
    /// Set when drives are to be kept in step; `drive-sync status` says more.
    #[serde(default)]
    pub drive_sync: Option<DriveSyncState>,
}
