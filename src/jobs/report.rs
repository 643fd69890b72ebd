//! Brings the end of a job to the backend, however long that takes.

use std::time::Duration;

use serde_json::json;

use super::handlers::{Finished, Host};
use crate::backend::retry::Backoff;
use crate::backend::{BackendError, Completion, Confirmation};
use crate::model::{Job, JobStatus, time};

/// While the backend is away, one warning a minute at most.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// Completes the row, again and again until the backend has taken it or the row is no longer ours.
/// A result that the backend refuses for good is replaced by a small one that says so, so that no
/// row stays `running` for ever.
pub(super) async fn report(host: &Host, job: &Job, finished: Finished) {
    let Finished { status, result, error } = finished;
    let mut completion = Completion {
        status,
        result,
        error: error.map(|error| host.redactor.text(&error)),
        completed_at: time::now_wire(),
    };
    let mut backoff = Backoff::new();
    let mut warned: Option<tokio::time::Instant> = None;
    let mut replaced = false;
    loop {
        let refused = match host.api.complete(&job.id, &completion).await {
            Ok(Confirmation::Written) => {
                tracing::info!(status = completion.status.as_str(), "job ended");
                return;
            }
            Ok(Confirmation::NotOurs) => {
                tracing::warn!("the job's row is no longer running; its result is dropped");
                return;
            }
            Err(error) => error,
        };
        if refused.ends_session() {
            tracing::error!(error = %refused, "the job's result cannot be reported");
            return;
        }
        if refused.is_permanent_refusal() {
            if replaced {
                tracing::error!(error = %refused, "the backend refuses the job's end");
                return;
            }
            tracing::error!(error = %refused, "the backend refuses the job's result");
            completion = rejected(host, &refused);
            replaced = true;
            continue;
        }
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            tracing::warn!(error = %refused, "the job's result waits for the backend");
            warned = Some(tokio::time::Instant::now());
        }
        tokio::time::sleep(backoff.after(&refused)).await;
    }
}

/// What stands in for a result that the backend refuses.
fn rejected(host: &Host, refused: &BackendError) -> Completion {
    let status =
        if let BackendError::Status { status, .. } = refused { Some(*status) } else { None };
    let why = host.redactor.text(&refused.to_string());
    let message = format!("The backend refused the job's result: {why}");
    Completion {
        status: JobStatus::Failed,
        result: json!({"message": message, "error_code": "result_rejected", "status": status}),
        error: Some(message),
        completed_at: time::now_wire(),
    }
}
