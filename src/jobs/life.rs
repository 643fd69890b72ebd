//! One job from claim to report.

use std::sync::Arc;

use serde_json::{Value, json};

use super::handlers::{self, Finished, Host};
use super::queue::{Entry, Work};
use super::report::report;
use super::stop::JobStop;
use crate::backend::retry::{Backoff, Bounds, bounded};
use crate::backend::{BackendError, Claim};
use crate::model::{Job, JobId, JobStatus, time};
use crate::task::catch_panic;

/// What the controller is told once a job is ours.
pub(super) struct Claimed {
    pub(super) id: JobId,
    pub(super) job_type: String,
    pub(super) started_at: String,
}

/// Claims the row and, if it is ours now, carries it to its end. `claimed` is called in between.
pub(super) async fn live(
    host: Arc<Host>,
    entry: Entry,
    stop: JobStop,
    claimed: impl AsyncFnOnce(Claimed),
) {
    let started_at = time::now_wire();
    let row = match claim(&host, &entry.id, &started_at, &stop).await {
        Ok(Some(row)) => row,
        Ok(None) => return,
        Err(error) => {
            // Not ours as far as we know; a row that is still queued comes with the next poll.
            tracing::warn!(error = %error, "could not claim the job");
            return;
        }
    };
    // The row as claimed is newer than the one that was polled.
    let (job, refusal) = match (Job::decode(&row), entry.work) {
        (Ok(job), _) => (job, None),
        (Err(error), Work::Run(job)) => (*job, Some(error.reason)),
        (Err(error), Work::Refuse(_)) => (stand_in(&host, &entry.id), Some(error.reason)),
    };
    claimed(Claimed { id: job.id.clone(), job_type: job.job_type.clone(), started_at }).await;
    let finished = match refusal {
        Some(reason) => Finished::failed(json!({
            "message": format!("The job's row cannot be read: {reason}"),
            "error_code": "invalid_request",
        })),
        None => work(&host, &job, &stop).await,
    };
    report(&host, &job, finished).await;
}

/// What is known of a row that does not decode: enough to complete it.
fn stand_in(host: &Host, id: &JobId) -> Job {
    Job {
        id: id.clone(),
        team_id: host.api.team().clone(),
        gateway_id: host.api.gateway().clone(),
        job_type: String::new(),
        status: JobStatus::Running,
        payload: serde_json::Map::new(),
        attempt: 1,
        idempotency_key: None,
        created_at: String::new(),
    }
}

/// The conditional update, until its outcome is known: an answer that was lost may have claimed the
/// row, and a row that is ours must not be left `running`.
async fn claim(
    host: &Host,
    id: &JobId,
    started_at: &str,
    stop: &JobStop,
) -> Result<Option<Value>, BackendError> {
    let mut backoff = Backoff::new();
    let mut outcome = host.api.claim(id, started_at).await;
    loop {
        match outcome {
            Ok(Claim::Won(row)) => return Ok(Some(row)),
            Ok(Claim::Lost) => return Ok(None),
            Err(error) if error.ends_session() || error.is_permanent_refusal() => {
                return Err(error);
            }
            Err(error) => {
                tokio::select! {
                    // Cancel safe: nothing is under way.
                    () = tokio::time::sleep(backoff.after(&error)) => {}
                    () = stop.token().cancelled() => return Err(error),
                }
                outcome = match host.api.resolve_claim(id, started_at).await {
                    Ok(Some(claim)) => Ok(claim),
                    Ok(None) => host.api.claim(id, started_at).await,
                    Err(error) => Err(error),
                };
            }
        }
    }
}

/// Duplicate check and handler. A panic in a handler is a failed job, never a dead gateway.
async fn work(host: &Arc<Host>, job: &Job, stop: &JobStop) -> Finished {
    if let Some(key) = &job.idempotency_key {
        match bounded(Bounds::READ, || host.api.duplicate_of(job)).await {
            Ok(None) => {}
            Ok(Some(_)) => return duplicate(job, key),
            Err(error) => {
                let why = host.redactor.text(&error.to_string());
                return Finished::failed(json!({
                    "message": format!("Could not check for a duplicate of the job: {why}"),
                }));
            }
        }
    }
    match catch_panic(handlers::run(host, job, stop)).await {
        Ok(finished) => finished,
        Err(text) => {
            tracing::error!(panic = %text, "the job's handler panicked");
            Finished::failed(json!({
                "message": "The gateway failed inside; its log says more",
                "job_type": job.job_type,
            }))
        }
    }
}

fn duplicate(job: &Job, key: &str) -> Finished {
    let message = "Another job with this idempotency key is running or completed";
    Finished {
        status: JobStatus::Cancelled,
        result: json!({"message": message, "idempotency_key": key, "attempt": job.attempt}),
        error: Some(message.to_owned()),
    }
}
