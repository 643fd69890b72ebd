//! One job from intent to report.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::audit::JobAudit;
use super::handlers::{self, Finished, Host};
use super::journal::Record;
use super::patience::read;
use super::progress::Progress;
use super::queue::{Entry, Work};
use super::report::report;
use super::stop::{JobStop, StopReason};
use super::view::Target;
use super::{subagent_failure, twin};
use crate::backend::retry::Backoff;
use crate::backend::{BackendError, Claim, Completion, SessionState};
use crate::model::{Job, JobId, JobStatus, time};
use crate::task::catch_panic;

/// How often a running job's row is looked at: somebody may have cancelled it.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// What the controller is told while a job goes on.
pub(super) struct Step {
    pub(super) id: JobId,
    pub(super) what: What,
}

/// See [`Step`].
pub(super) enum What {
    /// It is ours.
    Claimed { job_type: String, started_at: String, target: Target },
    /// Its work is done; the backend is not told yet.
    Reporting,
}

/// Tells the controller how far one job is.
pub(super) struct Steps {
    id: JobId,
    tell: mpsc::Sender<Step>,
}

impl Steps {
    pub(super) fn new(id: JobId, tell: mpsc::Sender<Step>) -> Self {
        Self { id, tell }
    }

    async fn tell(&self, what: What) {
        // The controller is gone only when the whole process goes.
        let _ = self.tell.send(Step { id: self.id.clone(), what }).await;
    }
}

/// Claims the row and, if it is ours now, carries it to its end. `earlier` is the intent of a claim
/// that may be on its way still: ours says the same, so that it does not matter which of them arrives.
pub(super) async fn live(
    host: Arc<Host>,
    entry: Entry,
    earlier: Option<Record>,
    stop: JobStop,
    steps: Steps,
) {
    let may_be_ours = earlier.is_some();
    let record = earlier.unwrap_or_else(|| {
        let (id, gateway) = (entry.id.clone(), host.api.gateway().clone());
        Record::intent(id, gateway, entry.job_type().to_owned(), time::now_wire())
    });
    let started_at = record.started_at.clone();
    if let Err(error) = host.journal.intend(&record).await {
        // Still queued at the backend: it comes again with the next poll.
        tracing::debug!(%error, "the job is not claimed");
        return;
    }
    let row = match claim(&host, &record, may_be_ours, &stop).await {
        Ok(row) => row,
        Err(Unclaimed::NotOurs) => {
            twin::look(&host, &record).await;
            return host.journal.remove(&entry.id).await;
        }
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
    host.metrics.claimed(&job.job_type);
    let began = Instant::now();
    let (job_type, target) = (job.job_type.clone(), Target::of(&job));
    steps.tell(What::Claimed { job_type, started_at, target }).await;
    let audit = JobAudit::of(&host.audit, &host.redactor, &job, &row);
    let progress = Progress::new(&host.journal, record, audit);
    let finished = match refusal {
        Some(reason) => Finished::failed(json!({
            "message": format!("The job's row cannot be read: {reason}"),
            "error_code": "invalid_request",
        })),
        None => work(&host, &job, &stop, &progress).await,
    };
    let status = match stop.reason() {
        Some(StopReason::RowEnded) => JobStatus::Cancelled,
        Some(StopReason::Shutdown) | None => finished.status,
    };
    host.metrics.ended(&job.job_type, status, began.elapsed());
    steps.tell(What::Reporting).await;
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
/// row, and a row that is ours must not be left `running`. With `may_be_ours` an earlier claim may
/// have won it for this very intent.
async fn claim(
    host: &Host,
    record: &Record,
    mut may_be_ours: bool,
    stop: &JobStop,
) -> Result<Value, Unclaimed> {
    let Record { id, started_at, .. } = record;
    let mut backoff = Backoff::new();
    let mut outcome = host.api.claim(id, started_at).await;
    loop {
        match outcome {
            Ok(Claim::Won(row)) => return Ok(row),
            Ok(Claim::Lost) if may_be_ours => {
                may_be_ours = false;
                outcome = host.api.resolve_claim(id, started_at).await.map(|found| {
                    // Queued once more by somebody: it comes with a poll.
                    found.unwrap_or(Claim::Lost)
                });
            }
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
