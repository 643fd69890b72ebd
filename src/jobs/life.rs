//! One job from intent to report.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::audit::JobAudit;
use super::handlers::{self, Finished, Host};
use super::journal::Record;
use super::patience::read;
use super::progress::Progress;
use super::queue::{Entry, Work};
use super::report::report;
use super::stop::{JobStop, StopReason};
use super::subagent_failure;
use crate::backend::retry::Backoff;
use crate::backend::{BackendError, Claim, Completion, SessionState};
use crate::model::{Job, JobId, JobStatus, time};
use crate::task::catch_panic;

/// How often a running job's row is looked at: somebody may have cancelled it.
const LOOK_EVERY: Duration = Duration::from_secs(15);

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
    let record = Record::intent(
        entry.id.clone(),
        host.api.gateway().clone(),
        entry.job_type().to_owned(),
        started_at.clone(),
    );
    if let Err(error) = host.journal.intend(&record).await {
        // Still queued at the backend: it comes again with the next poll.
        tracing::debug!(%error, "the job is not claimed");
        return;
    }
    let row = match claim(&host, &entry.id, &started_at, &stop).await {
        Ok(row) => row,
        Err(Unclaimed::NotOurs) => return host.journal.remove(&entry.id).await,
        Err(Unclaimed::Refused(error)) => {
            tracing::warn!(error = %error, "could not claim the job");
            return host.journal.remove(&entry.id).await;
        }
        // The record stays: the next gateway finds out.
        Err(Unclaimed::Unknown(error)) => {
            tracing::warn!(error = %error, "it is not known whether the job was claimed");
            return;
        }
    };
    let (job, refusal) = read_claimed(&host, entry, &row);
    claimed(Claimed { id: job.id.clone(), job_type: job.job_type.clone(), started_at }).await;
    let audit = JobAudit::of(&host.audit, &host.redactor, &job, &row);
    let progress = Progress::new(&host.journal, record, audit);
    let finished = match refusal {
        Some(reason) => Finished::failed(json!({
            "message": format!("The job's row cannot be read: {reason}"),
            "error_code": "invalid_request",
        })),
        None => work(&host, &job, &stop, &progress).await,
    };
    end(&host, &job, &stop, progress.into_parts(), finished).await;
}

/// From the handler's word to the end of the record.
async fn end(
    host: &Host,
    job: &Job,
    stop: &JobStop,
    (mut record, audit): (Record, JobAudit),
    finished: Finished,
) {
    if record.subagent.as_ref().is_some_and(|work| work.end.is_some())
        && matches!(host.api.session().state(), SessionState::Ended(_))
    {
        // The record has the end of the run, which may be untold: with no completion it is told
        // first by a gateway whose pairing is restored.
        tracing::error!("the session ended before the end of a subagent's run was sure to be told");
        return;
    }
    host.learn_secrets().await;
    let finished = finished.redacted(&host.redactor);
    let completion = Completion {
        status: finished.status,
        result: finished.result,
        error: finished.error,
        completed_at: time::now_wire(),
    };
    // First: a job whose gateway dies from here on has this line, and perhaps a successor's.
    audit.ends(&record.started_at, &completion).await;
    record.completion = Some(completion);
    let settled = subagent_failure::settle(host, &record, &job.payload).await;
    if stop.reason() != Some(StopReason::RowEnded) {
        return report(host, record).await;
    }
    tracing::info!("the job was cancelled at the backend; its processes are gone");
    if settled {
        host.journal.remove(&job.id).await;
    }
}

/// The job as it was claimed, and why it cannot be run. The claimed row is newer than the polled
/// one and counts.
fn read_claimed(host: &Host, entry: Entry, row: &Value) -> (Job, Option<String>) {
    match (Job::decode(row), entry.work) {
        (Ok(job), _) => (job, None),
        (Err(error), Work::Run(job)) => (*job, Some(error.reason)),
        (Err(error), Work::Refuse(_)) => (stand_in(host, &entry.id), Some(error.reason)),
    }
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

/// Why a row is not to be worked on.
enum Unclaimed {
    /// Somebody else has it, or it is gone.
    NotOurs,
    /// The backend refuses the claim.
    Refused(BackendError),
    /// The gateway goes, and whether the last claim arrived is not known.
    Unknown(BackendError),
}

/// The conditional update, until its outcome is known: an answer that was lost may have claimed the
/// row, and a row that is ours must not be left `running`.
async fn claim(
    host: &Host,
    id: &JobId,
    started_at: &str,
    stop: &JobStop,
) -> Result<Value, Unclaimed> {
    let mut backoff = Backoff::new();
    let mut outcome = host.api.claim(id, started_at).await;
    loop {
        match outcome {
            Ok(Claim::Won(row)) => return Ok(row),
            Ok(Claim::Lost) => return Err(Unclaimed::NotOurs),
            Err(error) if error.ends_session() || error.is_permanent_refusal() => {
                return Err(Unclaimed::Refused(error));
            }
            Err(error) => {
                tokio::select! {
                    // Cancel safe: nothing is under way.
                    () = tokio::time::sleep(backoff.after(&error)) => {}
                    () = stop.token().cancelled() => return Err(Unclaimed::Unknown(error)),
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

/// Duplicate check and handler, beside a watch on the row. A panic in a handler is a failed job,
/// never a dead gateway.
async fn work(host: &Host, job: &Job, stop: &JobStop, progress: &Progress<'_>) -> Finished {
    let carried_out = async {
        match find_duplicate(host, job, stop).await {
            Some(finished) => finished,
            None => handlers::run(host, job, stop, progress).await,
        }
    };
    let handled = tokio::select! {
        // Not cancelled by the other arm, which never ends.
        handled = catch_panic(carried_out) => handled,
        never = watch_row(host, &job.id, stop) => match never {},
    };
    match handled {
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

/// How a job ends that needs no handler: a duplicate, or one that was stopped while that was asked.
async fn find_duplicate(host: &Host, job: &Job, stop: &JobStop) -> Option<Finished> {
    let key = job.idempotency_key.as_deref()?;
    let asked = tokio::select! {
        // Cancel safe: it only reads.
        asked = read(host, || host.api.duplicate_of(job)) => asked,
        // The handler of a subagent's run knows how to end one that has not begun.
        () = stop.token().cancelled() => {
            return (job.job_type != subagent_failure::JOB_TYPE).then(Finished::stopped);
        }
    };
    match asked {
        Ok(None) => None,
        Ok(Some(_)) => Some(duplicate(job, key)),
        Err(error) => Some(Finished::failed(json!({
            "message": format!("Could not check for a duplicate of the job: {error}"),
        }))),
    }
}

/// Looks at the row now and then, and when it is said to have changed, and stops the job when it no
/// longer runs there. What cannot be read is no reason to stop anything.
async fn watch_row(host: &Host, id: &JobId, stop: &JobStop) -> std::convert::Infallible {
    loop {
        tokio::select! {
            // Cancel safe, each arm: a timer and a notification.
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.asked_to_look() => {}
        }
        if let Ok(status) = host.api.job_status(id).await
            && status != Some(JobStatus::Running)
        {
            tracing::info!(
                status = status.map(JobStatus::as_str),
                "the job was ended at the backend; stopping it"
            );
            stop.stop(StopReason::RowEnded);
            std::future::pending::<()>().await;
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
