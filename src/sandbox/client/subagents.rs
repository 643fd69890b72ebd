//! The calls about subagents.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{AdminClient, AdminClientError, segment, typed};

/// A subagent to make.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NewSubagent {
    /// Default: the gateway that was seen most recently.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_id: Option<String>,
    /// `claude_code_gateway`, `codex_gateway` or `gemini_gateway`.
    pub subagent_type: String,
    /// What it is to do first.
    pub prompt: String,
    /// E.g. `model`, `full_control`, `allowed_tools`, `timeout_ms`.
    pub config: Map<String, Value>,
}

/// Another prompt for a subagent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NewRun {
    /// What it is to do next.
    pub prompt: String,
    /// Keys of its config that are otherwise from now on.
    pub config: Map<String, Value>,
}

/// A run that was queued: rows of `subagents`, `subagent_runs` and `gateway_jobs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartedRun {
    /// Whose run it is.
    pub subagent: Value,
    /// The run.
    pub run: Value,
    /// The `subagent_run` job.
    pub job: Value,
}

impl AdminClient {
    /// Makes a subagent and queues its first run.
    pub async fn create_subagent(
        &self,
        subagent: &NewSubagent,
    ) -> Result<StartedRun, AdminClientError> {
        typed(self.post("subagents", subagent).await?)
    }

    /// Queues another run of a subagent. Refused with `subagent_is_running` before the last one has
    /// ended.
    pub async fn continue_subagent(
        &self,
        id: &str,
        run: &NewRun,
    ) -> Result<StartedRun, AdminClientError> {
        typed(self.post(&format!("subagents/{}/runs", segment(id)), run).await?)
    }

    /// Subagents, newest first; at most 1,000.
    pub async fn subagents(&self, limit: Option<u32>) -> Result<Vec<Value>, AdminClientError> {
        let query = limit.map_or_else(String::new, |limit| format!("?limit={limit}"));
        typed(self.get(&format!("subagents{query}")).await?)
    }

    /// One subagent.
    pub async fn subagent(&self, id: &str) -> Result<Value, AdminClientError> {
        self.get(&format!("subagents/{}", segment(id))).await
    }

    /// A subagent's runs, newest first; at most 100.
    pub async fn subagent_runs(&self, id: &str) -> Result<Vec<Value>, AdminClientError> {
        typed(self.get(&format!("subagents/{}/runs", segment(id))).await?)
    }

    /// One run.
    pub async fn subagent_run(&self, id: &str) -> Result<Value, AdminClientError> {
        self.get(&format!("subagent-runs/{}", segment(id))).await
    }

    /// At most 100 events of a run with a sequence above `after` (all are above -1), in order. Where
    /// there are none yet, once there are, or none after `wait` (at most 25 s).
    pub async fn run_events(
        &self,
        run_id: &str,
        after: i64,
        wait: Duration,
    ) -> Result<Vec<Value>, AdminClientError> {
        let (run_id, wait) = (segment(run_id), wait.as_millis());
        typed(
            self.get(&format!("subagent-runs/{run_id}/events?after={after}&wait_ms={wait}"))
                .await?,
        )
    }

    /// Queues a job that calls off a subagent's run (this one, where one is named); the job's row.
    /// Refused with `run_not_running` when there is none to call off.
    pub async fn cancel_subagent(
        &self,
        id: &str,
        run_id: Option<&str>,
        reason: Option<&str>,
    ) -> Result<Value, AdminClientError> {
        let mut body = json!({});
        for (name, value) in [("run_id", run_id), ("reason", reason)] {
            if let Some(value) = value {
                body[name] = json!(value);
            }
        }
        self.post(&format!("subagents/{}/cancel", segment(id)), &body).await
    }
}
