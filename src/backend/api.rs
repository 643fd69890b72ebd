//! Every call that a paired gateway makes, typed.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{BackendError, Endpoint, Http, Session};
use crate::model::{
    Capabilities, GatewayId, GatewayStatus, Job, JobId, JobStatus, ResourceId, TeamId,
};

/// Where the next page of a poll starts: the last row's `created_at` (verbatim) and `id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageKey {
    /// The server's text, echoed percent-encoded.
    pub created_at: String,
    /// The row's id.
    pub id: JobId,
}

/// The outcome of a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// It is ours; the row as claimed.
    Won(Value),
    /// Somebody else has it, or it is gone.
    Lost,
}

/// How a job ends.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Completion {
    /// `completed`, `failed` or `cancelled`.
    pub status: JobStatus,
    /// The handler's result.
    pub result: Value,
    /// A text on failure and cancellation, null on success.
    pub error: Option<String>,
    /// Wire time.
    pub completed_at: String,
}

/// What became of a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// Written.
    Written,
    /// The row is no longer `running`: no longer ours.
    NotOurs,
}

/// Our `team_gateways` row.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlState {
    /// The team toggle.
    pub full_control_enabled: bool,
    /// `status`.
    pub status: String,
    /// `last_seen_at` against the server's `Date`; `None` when never seen.
    pub heartbeat_age: Option<Duration>,
    /// `capabilities` as stored.
    pub capabilities: Value,
    /// `vm_id`.
    pub vm_id: Option<String>,
}

/// A row for `gateway_events`.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayEvent {
    /// Provider id, when it is about one.
    pub provider: Option<String>,
    /// `info`, `warn` or `error`.
    pub level: &'static str,
    /// E.g. `config_dir_fallback`.
    pub code: Option<&'static str>,
    /// One line, cut at 2,000 characters.
    pub message: String,
    /// Never null.
    pub details: Map<String, Value>,
}

/// A paired gateway's view of its backend. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    _session: Arc<Session>,
}

#[expect(clippy::unused_async, unused_variables, reason = "stub")]
impl Api {
    /// For this gateway of this team.
    pub fn new(
        http: Http,
        endpoint: Endpoint,
        session: Arc<Session>,
        gateway: GatewayId,
        team: TeamId,
    ) -> Self {
        unimplemented!()
    }

    /// The session behind it.
    pub fn session(&self) -> &Arc<Session> {
        unimplemented!()
    }

    /// `POST functions/v1/gateway-heartbeat`, 20 s.
    pub async fn heartbeat(
        &self,
        status: GatewayStatus,
        capabilities: &Capabilities,
        device_name: &str,
    ) -> Result<(), BackendError> {
        unimplemented!()
    }

    /// One page of queued jobs, raw rows, oldest first. An oversized answer is asked for again with
    /// half the page.
    pub async fn poll_jobs(
        &self,
        after: Option<&PageKey>,
        limit: u32,
    ) -> Result<Vec<Value>, BackendError> {
        unimplemented!()
    }

    /// The conditional update. A lost answer is resolved by reading the row: `running` with our
    /// `gateway_id` and `started_at` = won. Transient failures of that reading are the caller's.
    pub async fn claim(&self, job: &JobId, started_at: &str) -> Result<Claim, BackendError> {
        unimplemented!()
    }

    /// Another job with the same key and attempt that is running or completed.
    pub async fn duplicate_of(&self, job: &Job) -> Result<Option<Value>, BackendError> {
        unimplemented!()
    }

    /// Writes the end of a job while its row is still `running`.
    pub async fn complete(
        &self,
        job: &JobId,
        completion: &Completion,
    ) -> Result<Confirmation, BackendError> {
        unimplemented!()
    }

    /// The row's status; `None` when it is gone.
    pub async fn job_status(&self, job: &JobId) -> Result<Option<JobStatus>, BackendError> {
        unimplemented!()
    }

    /// Our gateway row; `None` when it cannot be seen.
    pub async fn control_state(&self) -> Result<Option<ControlState>, BackendError> {
        unimplemented!()
    }

    /// A resource of our team, as stored.
    pub async fn resource(&self, id: &ResourceId) -> Result<Option<Value>, BackendError> {
        unimplemented!()
    }

    /// Inserts into `gateway_events`.
    pub async fn record_event(&self, event: &GatewayEvent) -> Result<(), BackendError> {
        unimplemented!()
    }
}
