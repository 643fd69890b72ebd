//! The calls about jobs: polled, claimed, read, completed.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::body;
use super::http::may_have_arrived;
use super::rest::{Prefer, quoted, read, read_at_most, write};
use super::{Api, BackendError};
use crate::model::{Job, JobId, JobStatus, time};

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

impl Api {
    /// Up to `limit` queued jobs, raw rows, oldest first; fewer than `limit` = there are no more.
    ///
    /// An oversized answer is asked for again with half the page, down to a single row, and the
    /// rest of the page follows by key.
    pub async fn poll_jobs(
        &self,
        after: Option<&PageKey>,
        limit: u32,
    ) -> Result<Vec<Value>, BackendError> {
        let mut rows: Vec<Value> = Vec::new();
        let mut after = after.cloned();
        let mut page = limit.max(1);
        loop {
            let wanted = page.min(limit.saturating_sub(count(&rows)).max(1));
            let mut found = match self.poll_page(after.as_ref(), wanted).await {
                Err(BackendError::TooLarge(_)) if wanted > 1 => {
                    page = wanted / 2;
                    continue;
                }
                result => result?,
            };
            let full = count(&found) >= wanted;
            let next = found.last().and_then(page_key);
            rows.append(&mut found);
            if !full || count(&rows) >= limit || next.is_none() {
                return Ok(rows);
            }
            after = next;
        }
    }

    async fn poll_page(
        &self,
        after: Option<&PageKey>,
        limit: u32,
    ) -> Result<Vec<Value>, BackendError> {
        let mut query = self
            .jobs()
            .select("*")
            .eq("team_id", self.team().as_str())
            .eq("status", "queued")
            .eq("gateway_id", self.gateway().as_str())
            .order("created_at.asc,id.asc");
        if let Some(PageKey { created_at, id }) = after {
            let (at, id) = (quoted(created_at), quoted(id.as_str()));
            query = query.or(format!("created_at.gt.{at},and(created_at.eq.{at},id.gt.{id})"));
        }
        self.send(read_at_most(query, limit)?).await?.rows()
    }

    /// The conditional update. A lost answer is resolved by reading the row: `running` with our
    /// `gateway_id` and `started_at` = won. When that reading fails too, or finds the row still
    /// queued, the error of the update is returned.
    pub async fn claim(&self, job: &JobId, started_at: &str) -> Result<Claim, BackendError> {
        let gateway = self.gateway().as_str();
        let change = json!({"status": "running", "gateway_id": gateway, "started_at": started_at});
        let query = self
            .jobs()
            .update("")
            .eq("id", job.as_str())
            .eq("team_id", self.team().as_str())
            .eq("status", "queued")
            .eq("gateway_id", gateway);
        let claimed =
            match self.send(write(query, change.to_string(), Prefer::Representation)?).await {
                Ok(answer) => answer.rows(),
                Err(error) => Err(error),
            };
        match claimed {
            Ok(rows) => Ok(rows.into_iter().next().map_or(Claim::Lost, Claim::Won)),
            Err(error) if may_have_arrived(&error) => {
                tracing::debug!(job_id = %job, error = %error, "reading whether a claim was won");
                match self.resolve_claim(job, started_at).await {
                    Ok(Some(claim)) => Ok(claim),
                    Ok(None) | Err(_) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// What became of a claim without an answer; `None` when the row is still queued.
    pub async fn resolve_claim(
        &self,
        job: &JobId,
        started_at: &str,
    ) -> Result<Option<Claim>, BackendError> {
        let query =
            self.jobs().select("*").eq("id", job.as_str()).eq("team_id", self.team().as_str());
        let Some(row) = self.first(read(query)?).await? else { return Ok(Some(Claim::Lost)) };
        if text_of(&row, "status") == JobStatus::Queued.as_str() {
            return Ok(None);
        }
        let ours = self.is_claim(&row, JobStatus::Running, started_at);
        Ok(Some(if ours { Claim::Won(row) } else { Claim::Lost }))
    }

    /// The row that we claimed at `started_at`, when it was cancelled since.
    pub async fn cancelled_claim(
        &self,
        job: &JobId,
        started_at: &str,
    ) -> Result<Option<Value>, BackendError> {
        let query =
            self.jobs().select("*").eq("id", job.as_str()).eq("team_id", self.team().as_str());
        let row = self.first(read(query)?).await?;
        Ok(row.filter(|row| self.is_claim(row, JobStatus::Cancelled, started_at)))
    }

    /// Whether the row runs under our id, but by a claim at another time than `started_at`.
    pub async fn claimed_by_twin(
        &self,
        job: &JobId,
        started_at: &str,
    ) -> Result<bool, BackendError> {
        let query = self.jobs().select("status,gateway_id,started_at").eq("id", job.as_str());
        let row = self.first(read(query)?).await?;
        let runs = |row: &Value| {
            text_of(row, "status") == JobStatus::Running.as_str()
                && text_of(row, "gateway_id") == self.gateway().as_str()
        };
        Ok(row
            .as_ref()
            .is_some_and(|row| runs(row) && !self.is_claim(row, JobStatus::Running, started_at)))
    }

    /// The backend writes our time in another way: instants are compared, not texts.
    fn is_claim(&self, row: &Value, status: JobStatus, started_at: &str) -> bool {
        let started = time::parse(text_of(row, "started_at"));
        text_of(row, "status") == status.as_str()
            && text_of(row, "gateway_id") == self.gateway().as_str()
            && started.is_some()
            && started == time::parse(started_at)
    }

    /// Another job with the same key and attempt that is running or completed: its `id`, `status`,
    /// `result`, `error`. A job without a key has none, and nothing is asked.
    pub async fn duplicate_of(&self, job: &Job) -> Result<Option<Value>, BackendError> {
        let Some(key) = &job.idempotency_key else { return Ok(None) };
        let query = self
            .jobs()
            .select("id,status,result,error")
            .eq("team_id", job.team_id.as_str())
            .eq("idempotency_key", key)
            .eq("attempt", job.attempt.to_string())
            .in_("status", ["running", "completed"])
            .neq("id", job.id.as_str())
            .order("created_at.asc");
        self.first(read_at_most(query, 1)?).await
    }

    /// Writes the end of a job while its row is still `running`. A row that is not may have been
    /// written by an earlier attempt whose answer was lost: one that ended with our status at our
    /// `completed_at` is ours.
    pub async fn complete(
        &self,
        job: &JobId,
        completion: &Completion,
    ) -> Result<Confirmation, BackendError> {
        let query =
            self.jobs().update("").select("id").eq("id", job.as_str()).eq("status", "running");
        let call = write(query, body(completion)?, Prefer::Representation)?;
        let rows = self.send(call).await?.rows()?;
        if !rows.is_empty() || self.ended_so(job, completion).await? {
            return Ok(Confirmation::Written);
        }
        Ok(Confirmation::NotOurs)
    }

    /// Whether the row holds this very end.
    async fn ended_so(&self, job: &JobId, completion: &Completion) -> Result<bool, BackendError> {
        let query = self.jobs().select("status,completed_at").eq("id", job.as_str());
        let row = match self.first(read(query)?).await {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(false),
            // What may not be read tells nothing, and is no refusal of the result.
            Err(error) if error.is_permanent_refusal() => return Ok(false),
            Err(error) => return Err(error),
        };
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
        let ended = time::parse(text("completed_at"));
        Ok(text("status") == completion.status.as_str()
            && ended.is_some()
            && ended == time::parse(&completion.completed_at))
    }

    /// Writes the job's `debug` column, in whatever state the row is.
    pub async fn write_debug(&self, job: &JobId, debug: &Value) -> Result<(), BackendError> {
        let query = self.jobs().update("").eq("id", job.as_str());
        let body = body(&json!({"debug": debug}))?;
        self.send(write(query, body, Prefer::Minimal)?).await.map(|_| ())
    }

    /// The row's status; `None` when it is gone.
    pub async fn job_status(&self, job: &JobId) -> Result<Option<JobStatus>, BackendError> {
        let query = self.jobs().select("status").eq("id", job.as_str());
        let Some(row) = self.first(read(query)?).await? else { return Ok(None) };
        row.get("status").and_then(Value::as_str).and_then(JobStatus::parse).map(Some).ok_or_else(
            || BackendError::Contract("the job's status is missing or not known".to_owned()),
        )
    }

    fn jobs(&self) -> postgrest::Builder {
        self.table("gateway_jobs")
    }
}

fn count(rows: &[Value]) -> u32 {
    u32::try_from(rows.len()).unwrap_or(u32::MAX)
}

/// Where the page after this row starts.
fn text_of<'a>(row: &'a Value, name: &str) -> &'a str {
    row.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn page_key(row: &Value) -> Option<PageKey> {
    Some(PageKey {
        created_at: row.get("created_at")?.as_str()?.to_owned(),
        id: JobId::new(row.get("id")?.as_str()?),
    })
}
