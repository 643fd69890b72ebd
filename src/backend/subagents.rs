//! The calls about subagents, their runs, and the events of those.

use serde::Serialize;
use serde_json::{Map, Value};

use super::api::body;
use super::http::{Call, Limits};
use super::pairing::succeeded;
use super::rest::{Prefer, read, read_at_most, write};
use super::{Api, BackendError};
use crate::model::{GatewayId, JobStatus, RunId, SubagentId, TeamId};

const SUBAGENTS: &str = "subagents";
const RUNS: &str = "subagent_runs";
const EVENTS: &str = "subagent_run_events";
const RUNNING: &str = "running";

/// A row to insert. Borrowed: payloads are large, and many.
#[derive(Serialize)]
struct EventRow<'a> {
    run_id: &'a RunId,
    subagent_id: &'a SubagentId,
    team_id: &'a TeamId,
    gateway_id: &'a GatewayId,
    sequence: i64,
    event_type: &'a str,
    payload: &'a Value,
}

/// How a run ended, for `finalize-gateway-subagent-run`. Also what the journal keeps of it.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize)]
pub struct Finalization {
    /// The subagent.
    pub subagent_id: SubagentId,
    /// The run.
    pub run_id: RunId,
    /// `completed`, `failed` or `cancelled`.
    pub final_status: JobStatus,
    /// An output envelope, of a completed run; else absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// An envelope that tells of the error; null for a completed run.
    pub failure_output: Option<Value>,
    /// Null for a completed run.
    pub final_error: Option<String>,
    /// Wire time.
    pub completed_at: String,
    /// The CLI's; `None` leaves what is stored alone.
    pub stderr: Option<String>,
    /// Laid over the metadata of run and subagent.
    pub metadata_patch: Map<String, Value>,
}

/// What the backend made of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Finalized {
    /// It stands as we said; the stored output, which may hold more keys than ours.
    Written(Option<Value>),
    /// The run had ended otherwise, with this status.
    Otherwise(String),
}

impl Api {
    /// A subagent of our team, raw; `None` when there is none.
    pub async fn subagent(&self, id: &SubagentId) -> Result<Option<Value>, BackendError> {
        let query = self
            .table(SUBAGENTS)
            .select("*")
            .eq("id", id.as_str())
            .eq("team_id", self.team().as_str());
        self.first(read(query)?).await
    }

    /// A run of our team, raw; `None` when there is none.
    pub async fn subagent_run(&self, id: &RunId) -> Result<Option<Value>, BackendError> {
        let query =
            self.table(RUNS).select("*").eq("id", id.as_str()).eq("team_id", self.team().as_str());
        self.first(read(query)?).await
    }

    /// The newest run of the subagent that is `running`, raw.
    pub async fn running_run(&self, of: &SubagentId) -> Result<Option<Value>, BackendError> {
        let query = self
            .table(RUNS)
            .select("*")
            .eq("subagent_id", of.as_str())
            .eq("team_id", self.team().as_str())
            .eq("status", RUNNING)
            .order("run_sequence.desc");
        self.first(read_at_most(query, 1)?).await
    }

    /// Changes a run while it is `running`; false when it is not (or not of that subagent).
    pub async fn change_running_run(
        &self,
        run: &RunId,
        of: &SubagentId,
        change: &Value,
    ) -> Result<bool, BackendError> {
        let query = self
            .table(RUNS)
            .update("")
            .select("id")
            .eq("id", run.as_str())
            .eq("subagent_id", of.as_str())
            .eq("status", RUNNING);
        let call = write(query, body(change)?, Prefer::Representation)?;
        Ok(!self.send(call).await?.rows()?.is_empty())
    }

    /// Changes a subagent while it is `running`; false when it is not.
    pub async fn change_running_subagent(
        &self,
        id: &SubagentId,
        change: &Value,
    ) -> Result<bool, BackendError> {
        let query = self
            .table(SUBAGENTS)
            .update("")
            .select("id")
            .eq("id", id.as_str())
            .eq("team_id", self.team().as_str())
            .eq("status", RUNNING);
        let call = write(query, body(change)?, Prefer::Representation)?;
        Ok(!self.send(call).await?.rows()?.is_empty())
    }

    /// The highest sequence number among a run's events; `None` when it has none.
    pub async fn last_event_sequence(&self, run: &RunId) -> Result<Option<i64>, BackendError> {
        let query =
            self.table(EVENTS).select("sequence").eq("run_id", run.as_str()).order("sequence.desc");
        let Some(row) = self.first(read_at_most(query, 1)?).await? else { return Ok(None) };
        row.get("sequence").and_then(Value::as_i64).map(Some).ok_or_else(|| {
            BackendError::Contract("an event's sequence is missing or no number".to_owned())
        })
    }

    /// `event_type` and `payload` of the events with these numbers (both included), by `sequence`.
    pub async fn run_events(
        &self,
        run: &RunId,
        from: i64,
        to: i64,
    ) -> Result<Vec<Value>, BackendError> {
        let query = self
            .table(EVENTS)
            .select("sequence,event_type,payload")
            .eq("run_id", run.as_str())
            .gte("sequence", from.to_string())
            .lte("sequence", to.to_string())
            .order("sequence.asc");
        self.send(read(query)?).await?.rows()
    }

    /// Inserts events of one run, `(sequence, event_type, payload)` each; all of them or none. A
    /// number that is taken is an error of code `23505`.
    pub async fn insert_run_events(
        &self,
        of: &SubagentId,
        run: &RunId,
        events: &[(i64, &str, &Value)],
    ) -> Result<(), BackendError> {
        let rows: Vec<EventRow<'_>> = events
            .iter()
            .map(|&(sequence, event_type, payload)| EventRow {
                run_id: run,
                subagent_id: of,
                team_id: self.team(),
                gateway_id: self.gateway(),
                sequence,
                event_type,
                payload,
            })
            .collect();
        let query = self.table(EVENTS).insert("");
        self.send(write(query, body(&rows)?, Prefer::Minimal)?).await.map(|_| ())
    }

    /// `finalize-gateway-subagent-run`, one attempt, 60 s. A refusal may come after an answer that
    /// was lost: a run that has our status by then was written by us.
    pub async fn finalize_run(&self, end: &Finalization) -> Result<Finalized, BackendError> {
        let body = body(end)?;
        let call = Call::function(
            self.endpoint(),
            "finalize-gateway-subagent-run",
            body,
            Limits::FINALISE,
        )?;
        let refused =
            match self.send(call.clone()).await.and_then(|answer| succeeded(&answer, &call)) {
                Ok(answer) => return Ok(Finalized::Written(answer.get("output").cloned())),
                Err(error) if error.is_permanent_refusal() => error,
                Err(error) => return Err(error),
            };
        let Ok(Some(run)) = self.subagent_run(&end.run_id).await else { return Err(refused) };
        match run.get("status").and_then(Value::as_str) {
            Some(status) if status == end.final_status.as_str() => {
                Ok(Finalized::Written(run.get("output").filter(|out| !out.is_null()).cloned()))
            }
            Some(status) if status != RUNNING => Ok(Finalized::Otherwise(status.to_owned())),
            Some(_) | None => Err(refused),
        }
    }
}
