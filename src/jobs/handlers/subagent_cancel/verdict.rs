//! What a cancel comes to, decided by the rows alone.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::model::{GatewayId, JobStatus, RunId, SubagentId};
use crate::providers::ProviderId;

const DEFAULT_REASON: &str = "Cancelled";
const RUNNING: &str = "running";
/// `cancel_result`s.
const ACCEPTED: &str = "accepted";
const ALREADY_TERMINAL: &str = "already_terminal";
const NO_ACTIVE_RUN: &str = "no_active_run";
const REJECTED: &str = "rejected";
/// `cancel_state`s.
const REQUESTED: &str = "requested";
const NONE: &str = "none";

/// A checked payload.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) subagent_id: SubagentId,
    /// The run that is meant; without one, the one that runs.
    pub(super) run_id: Option<RunId>,
    pub(super) reason: String,
}

impl Request {
    /// `None` when no subagent is named.
    pub(super) fn of(payload: &Map<String, Value>) -> Option<Self> {
        let text = |names: [&str; 2]| {
            let texts = names.into_iter().filter_map(|name| payload.get(name)?.as_str());
            texts.map(str::trim).find(|text| !text.is_empty())
        };
        Some(Self {
            subagent_id: SubagentId::new(as_stored(text(["subagent_id", "subagentId"])?)),
            run_id: text(["run_id", "runId"]).map(as_stored).map(RunId::new),
            reason: text(["reason", "reason"]).unwrap_or(DEFAULT_REASON).to_owned(),
        })
    }
}

/// An id in the form in which tables have it.
fn as_stored(id: &str) -> String {
    Uuid::parse_str(id).map_or_else(|_| id.to_owned(), |id| id.to_string())
}

/// Which run a refusal names.
#[derive(Debug, Clone, PartialEq)]
enum Names {
    /// `run_id`: the one that was asked for.
    Asked,
    /// `run_id` null, and `active_run_id`: the one that runs instead, if any.
    Active(Option<RunId>),
}

/// Why nothing is cancelled.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    cancel_result: &'static str,
    cancel_state: &'static str,
    supported: bool,
    status: String,
    message: String,
    names: Names,
}

impl Refusal {
    fn not_here(status: &str, message: &str) -> Self {
        Self {
            cancel_result: NO_ACTIVE_RUN,
            cancel_state: NONE,
            supported: false,
            status: status.to_owned(),
            message: message.to_owned(),
            names: Names::Asked,
        }
    }

    fn here(cancel_result: &'static str, status: &str, message: String) -> Self {
        Self {
            cancel_result,
            cancel_state: NONE,
            supported: true,
            status: status.to_owned(),
            message,
            names: Names::Active(None),
        }
    }

    /// The job's result.
    pub(super) fn to_result(&self, request: &Request) -> Value {
        let (run_id, active) = match &self.names {
            Names::Asked => (request.run_id.as_ref(), None),
            Names::Active(active) => (None, Some(active)),
        };
        let mut result = json!({
            "subagent_id": request.subagent_id,
            "run_id": run_id,
            "cancelled_active_run": false,
            "reason": request.reason,
            "cancel_result": self.cancel_result,
            "cancel_state": self.cancel_state,
            "cancel_supported": self.supported,
            "status": self.status,
            "message": self.message,
        });
        if let Some(active) = active {
            result["active_run_id"] = json!(active);
        }
        result
    }
}

/// Whether there is anything to cancel of this subagent, by its row.
pub(super) fn of_subagent(gateway: &GatewayId, row: Option<&Value>) -> Result<(), Refusal> {
    let Some(row) = row else {
        return Err(Refusal::not_here("not_found", "There is no such subagent"));
    };
    let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("gateway_id") != gateway.as_str() {
        let message = "The subagent is assigned to another gateway";
        return Err(Refusal::not_here(RUNNING, message));
    }
    let (status, subagent_type) = (text("status"), text("subagent_type"));
    if ProviderId::of_subagent_type(subagent_type).is_none() {
        let message = format!("This gateway does not know the subagent type {subagent_type:?}");
        let refusal = Refusal::here(REJECTED, status, message);
        return Err(Refusal { cancel_state: REJECTED, supported: false, ..refusal });
    }
    if status == RUNNING {
        return Ok(());
    }
    Err(if JobStatus::parse(status).is_some_and(JobStatus::is_terminal) {
        let message = format!("The subagent's run has ended already: it is {status}");
        Refusal::here(ALREADY_TERMINAL, status, message)
    } else if status == "idle" {
        Refusal::here(NO_ACTIVE_RUN, status, "The subagent is idle".to_owned())
    } else {
        let message = format!("A subagent that is {status:?} cannot be cancelled");
        Refusal::here(REJECTED, status, message)
    })
}

/// The run to cancel, by the row of the one that runs. The subagent is `running`.
pub(super) fn of_run(request: &Request, row: Option<&Value>) -> Result<RunId, Refusal> {
    let running = row.and_then(|row| row.get("id")).and_then(Value::as_str).map(RunId::new);
    let Some(running) = running else {
        let message = "The subagent has no run that is running".to_owned();
        return Err(Refusal::here(NO_ACTIVE_RUN, RUNNING, message));
    };
    match &request.run_id {
        Some(asked) if *asked != running => {
            let message = format!("The run {asked} is not the one that is running");
            let refusal = Refusal::here(NO_ACTIVE_RUN, RUNNING, message);
            Err(Refusal { names: Names::Active(Some(running)), ..refusal })
        }
        Some(_) | None => Ok(running),
    }
}

/// A row's metadata with what says that a cancel was asked for at `at`.
pub(super) fn marked(row: &Value, run: &RunId, reason: &str, at: &str) -> Map<String, Value> {
    let mut metadata = row.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    for (name, value) in [
        ("cancel_run_id", run.as_str()),
        ("cancel_requested_at", at),
        ("cancel_reason", reason),
        ("cancel_state", REQUESTED),
        ("cancel_support", "gateway"),
        ("cancellation_scope", "gateway"),
    ] {
        metadata.insert(name.to_owned(), value.into());
    }
    metadata
}

/// `cancellation_requested`'s payload.
pub(super) fn event(request: &Request, active_process: bool) -> Value {
    json!({
        "reason": request.reason,
        "source": "gateway_cancel_job",
        "active_process": active_process,
        "cancel_state": REQUESTED,
    })
}

/// The job's result when the cancel is accepted.
pub(super) fn accepted(request: &Request, run: &RunId, active_process: bool) -> Value {
    let message = if active_process {
        "The run is being ended"
    } else {
        "The run has no process now; it is cancelled as soon as it would go on"
    };
    json!({
        "subagent_id": request.subagent_id,
        "run_id": run,
        "cancelled_active_run": active_process,
        "reason": request.reason,
        "cancel_result": ACCEPTED,
        "cancel_state": REQUESTED,
        "cancel_supported": true,
        "status": RUNNING,
        "message": message,
    })
}

#[cfg(test)]
mod tests;
