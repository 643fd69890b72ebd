//! A row of `gateway_jobs`, decoded leniently: one bad row never hides the good ones beside it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{GatewayId, JobId, TeamId};

/// `gateway_jobs.status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Waiting for its gateway.
    Queued,
    /// Claimed.
    Running,
    /// Done; a command that failed is done too.
    Completed,
    /// The gateway could not do it.
    Failed,
    /// Called off.
    Cancelled,
}

impl JobStatus {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the word on the wire.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Queued, Self::Running, Self::Completed, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|status| status.as_str() == word)
    }

    /// True once nothing more happens to the row.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// What the gateway needs of a `gateway_jobs` row.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// `id`.
    pub id: JobId,
    /// `team_id`.
    pub team_id: TeamId,
    /// `gateway_id`.
    pub gateway_id: GatewayId,
    /// `job_type`, known to us or not.
    pub job_type: String,
    /// `status`.
    pub status: JobStatus,
    /// `payload`; an absent or null one is the empty object.
    pub payload: Map<String, Value>,
    /// `attempt`, 1 when absent.
    pub attempt: i64,
    /// `idempotency_key`.
    pub idempotency_key: Option<String>,
    /// `created_at`, the server's text verbatim: paging echoes it.
    pub created_at: String,
}

/// Why a row was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("job row does not decode: {reason}")]
pub struct JobRowError {
    /// The row's id when that much could be read; such a row is claimed and failed.
    pub id: Option<JobId>,
    /// Which field, and what is wrong with it.
    pub reason: String,
}

impl Job {
    /// Decodes one row of a poll.
    pub fn decode(row: &Value) -> Result<Self, JobRowError> {
        let id = row.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()).map(JobId::new);
        let refuse = |reason: String| JobRowError { id: id.clone(), reason };
        let text = |name: &str| {
            row.get(name)
                .and_then(Value::as_str)
                .ok_or_else(|| refuse(format!("{name} is not a text")))
        };
        let status = text("status")?;
        let payload = match row.get("payload") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(fields)) => fields.clone(),
            Some(_) => return Err(refuse("payload is not an object".into())),
        };
        let attempt = match row.get("attempt") {
            None | Some(Value::Null) => 1,
            Some(number) => {
                number.as_i64().ok_or_else(|| refuse("attempt is not a whole number".into()))?
            }
        };
        let idempotency_key = match row.get("idempotency_key") {
            None | Some(Value::Null) => None,
            Some(Value::String(key)) => Some(key.clone()).filter(|key| !key.is_empty()),
            Some(_) => return Err(refuse("idempotency_key is not a text".into())),
        };
        Ok(Self {
            team_id: TeamId::new(text("team_id")?),
            gateway_id: GatewayId::new(text("gateway_id")?),
            job_type: text("job_type")?.to_owned(),
            status: JobStatus::parse(status)
                .ok_or_else(|| refuse(format!("status {status:?} is not known")))?,
            created_at: text("created_at")?.to_owned(),
            payload,
            attempt,
            idempotency_key,
            id: id.clone().ok_or_else(|| refuse("id is not a text".into()))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row() -> Value {
        json!({"id": "j", "team_id": "t", "gateway_id": "g", "job_type": "diagnostic",
               "status": "queued", "created_at": "2025-11-03T09:32:55.1+00:00", "unknown": 1})
    }

    #[test]
    fn absent_fields_have_their_defaults() {
        let job = Job::decode(&row()).unwrap();
        assert_eq!((job.attempt, job.idempotency_key, job.payload.len()), (1, None, 0));
        assert_eq!(job.created_at, "2025-11-03T09:32:55.1+00:00");
    }

    #[test]
    fn a_bad_row_keeps_its_id() {
        for (field, bad) in
            [("payload", json!([1])), ("attempt", json!("x")), ("status", json!("nonsense"))]
        {
            let mut row = row();
            row[field] = bad;
            let error = Job::decode(&row).unwrap_err();
            assert_eq!(error.id, Some(JobId::new("j")), "{field}");
            assert!(error.reason.contains(field), "{}", error.reason);
        }
        assert_eq!(Job::decode(&json!("text")).unwrap_err().id, None);
    }
}
