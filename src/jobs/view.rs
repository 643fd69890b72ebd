//! What people may know of the jobs that wait and run, for status and for the status socket.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::queue::{Entry, Work};
use crate::model::Job;

/// Most waiting jobs that a list names.
pub(super) const MOST_QUEUED: usize = 100;

/// How far a job in hand is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobPhase {
    /// The backend is asked whether it is ours.
    Claiming,
    /// Its work is being done.
    #[default]
    Running,
    /// Its result is being brought to the backend.
    Reporting,
}

/// The subagent and the run that a job is about, as far as its payload names them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The subagent.
    #[serde(default)]
    pub subagent_id: Option<String>,
    /// Its run.
    #[serde(default)]
    pub run_id: Option<String>,
}

impl Target {
    pub(super) fn of(job: &Job) -> Self {
        let text = |names: [&str; 2]| {
            let found = names.into_iter().find_map(|name| job.payload.get(name));
            // An id is a UUID; what is longer is no id, and nobody's to read here.
            found.and_then(Value::as_str).filter(|id| id.len() <= 64).map(str::to_owned)
        };
        Self { subagent_id: text(["subagent_id", "subagentId"]), run_id: text(["run_id", "runId"]) }
    }
}

/// A job in hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveJob {
    /// `gateway_jobs.id`.
    pub id: String,
    /// `job_type`.
    #[serde(rename = "type")]
    pub job_type: String,
    /// Wire time of the claim.
    pub started_at: String,
    /// How far it is.
    #[serde(default)]
    pub phase: JobPhase,
    /// Whom it is about.
    #[serde(flatten)]
    pub target: Target,
}

/// A job that waits here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedJob {
    /// `gateway_jobs.id`.
    pub id: String,
    /// `job_type`; empty for a row that cannot be read, which is taken only to say so.
    #[serde(rename = "type")]
    pub job_type: String,
    /// The backend's time at which it was queued.
    pub created_at: Option<String>,
    /// Whom it is about.
    #[serde(flatten)]
    pub target: Target,
}

impl From<&Entry> for QueuedJob {
    fn from(entry: &Entry) -> Self {
        let job = match &entry.work {
            Work::Run(job) => Some(job),
            Work::Refuse(_) => None,
        };
        Self {
            id: entry.id.to_string(),
            job_type: entry.job_type().to_owned(),
            created_at: job.map(|job| job.created_at.clone()),
            target: job.map(|job| Target::of(job)).unwrap_or_default(),
        }
    }
}

/// Everything that waits and runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobList {
    /// Being claimed, running, or being reported.
    pub active: Vec<ActiveJob>,
    /// The first that wait, in their order.
    pub queued: Vec<QueuedJob>,
    /// How many wait in all.
    pub queued_total: usize,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{GatewayId, JobId, JobStatus, TeamId};

    fn job(payload: Value) -> Job {
        Job {
            id: JobId::new("j1"),
            team_id: TeamId::new("t"),
            gateway_id: GatewayId::new("g"),
            job_type: "subagent_run".to_owned(),
            status: JobStatus::Queued,
            payload: serde_json::from_value(payload).unwrap(),
            attempt: 1,
            idempotency_key: None,
            created_at: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    #[test]
    fn ids_are_found_under_both_names_and_nothing_else_of_the_payload_is_told() {
        let target = Target::of(&job(json!({"subagent_id": "s", "runId": "r", "prompt": "p"})));
        assert_eq!(
            (target.subagent_id.as_deref(), target.run_id.as_deref()),
            (Some("s"), Some("r"))
        );
        let odd = Target::of(&job(json!({"subagent_id": 7, "run_id": "x".repeat(65)})));
        assert_eq!(odd, Target::default());
    }

    #[test]
    fn a_list_is_flat_for_those_who_read_it() {
        let run = Work::Run(Box::new(job(json!({"subagent_id": "s"}))));
        let readable = QueuedJob::from(&Entry { id: JobId::new("j1"), work: run });
        assert_eq!(
            serde_json::to_value(readable).unwrap(),
            json!({"id": "j1", "type": "subagent_run", "created_at": "2026-01-01T00:00:00Z",
                "subagent_id": "s", "run_id": null})
        );
        let refused = Entry { id: JobId::new("j2"), work: Work::Refuse("no".to_owned()) };
        assert_eq!(QueuedJob::from(&refused).created_at, None);
    }

    #[test]
    fn an_active_job_of_an_older_gateway_can_be_read() {
        let old = json!({"id": "j", "type": "shell_exec", "started_at": "2026-01-01T00:00:00Z"});
        let read: ActiveJob = serde_json::from_value(old).unwrap();
        assert_eq!((read.phase, read.target), (JobPhase::Running, Target::default()));
    }
}
