//! What becomes of a record that an earlier gateway left.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Record, SubagentWork};
use crate::backend::retry::Backoff;
use crate::backend::{BackendError, Claim, Completion};
use crate::jobs::audit::ended_by_successor;
use crate::jobs::handlers::{Finished, Host};
use crate::jobs::late_claims::LateClaims;
use crate::jobs::report::report;
use crate::jobs::{run_end, subagent_dirs, subagent_failure};
use crate::model::{JobStatus, RunId, time};
use crate::process::{shim_lives, sweep};

/// Brings a record to its end, however long the backend is away: a result is reported; a claim
/// whose gateway died over it is failed, once its processes are gone; an intent that never became a
/// claim is dropped, or told to `late` while its claim may still arrive. A subagent's run that had
/// ended is finalised as it ended, and one that had not fails with its job. The future may be dropped
/// at any time: the record stays for the next gateway.
pub(in crate::jobs) async fn replay(host: &Arc<Host>, mut record: Record, late: &LateClaims) {
    if record.gateway_id != *host.api.gateway() {
        give_up(host, &record).await;
        return;
    }
    let is_subagents = record.job_type == subagent_failure::JOB_TYPE;
    if record.completion.is_some() && !is_subagents {
        return report(host, record).await;
    }
    let mut row = match asked(|| host.api.resolve_claim(&record.id, &record.started_at)).await {
        Some(Claim::Won(row)) => Some(row),
        None if late.expect(&record, Timestamp::now()) => return,
        Some(Claim::Lost) | None => None,
    };
    if row.is_none() && is_subagents {
        // Its run goes on in the tables, whether or not the record came to know of it.
        row = cancelled_row(host, &record).await;
    }
    if row.is_none() && record.completion.is_none() && record.subagent.is_none() {
        return host.journal.remove(&record.id).await;
    }
    if record.completion.is_none() {
        let run = subagent_failure::run_of(&record, payload_of(row.as_ref()));
        record.completion = Some(finish(host, &record, run.as_ref()).await);
        ended_by_successor(&host.audit, &host.redactor, &record).await;
    }
    if let Some(work) = &record.subagent {
        subagent_dirs::remove(host, work).await;
    }
    // What could not be settled, its report cannot be either: the record stays.
    let payload = payload_of(row.as_ref()).cloned().unwrap_or_default();
    subagent_failure::settle(host, &record, &payload).await;
    report(host, record).await;
}

fn payload_of(row: Option<&Value>) -> Option<&Map<String, Value>> {
    row?.get("payload")?.as_object()
}

/// The row, when it was cancelled under this very claim; asked until there is an answer.
async fn cancelled_row(host: &Host, record: &Record) -> Option<Value> {
    asked(|| host.api.cancelled_claim(&record.id, &record.started_at)).await
}

/// Until there is an answer.
async fn asked<T, F>(mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, BackendError>>,
{
    let mut backoff = Backoff::new();
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => {
                tracing::debug!(%error, "a job of an earlier gateway waits for the backend");
                tokio::time::sleep(backoff.after(&error)).await;
            }
        }
    }
}

/// How a job ends whose gateway died over it. `run` is the subagent's run that it was for.
async fn finish(host: &Host, record: &Record, run: Option<&RunId>) -> Completion {
    // A shim outlives its gateway only to end the run, or to hold work that was left on
    // purpose. One that was killed itself could do neither.
    if let Some(run) = record.run.clone().filter(|run| !shim_lives(run))
        && !sweep(run).await
    {
        tracing::warn!("processes of a job whose gateway died may be left");
    }
    let mut ended = match &record.subagent {
        Some(work) => finish_run(host, work).await,
        None => None,
    };
    if let (None, Some(run)) = (&ended, run) {
        ended = run_end::found(host, run).await;
    }
    let Some(finished) = ended else { return restarted(record) };
    let finished = finished.redacted(&host.redactor);
    Completion {
        status: finished.status,
        result: finished.result,
        error: finished.error,
        completed_at: time::now_wire(),
    }
}

/// The events that wait come first; then the run's end, if it had one.
async fn finish_run(host: &Host, work: &SubagentWork) -> Option<Finished> {
    run_end::send_events(host, &work.subagent_id, &work.run_id).await;
    match &work.end {
        Some(end) => Some(run_end::bring(host, end).await),
        None => None,
    }
}

/// A record of an identity that is not ours any more: its session is gone.
async fn give_up(host: &Host, record: &Record) {
    match host.journal.set_aside(record).await {
        Ok(path) => {
            tracing::warn!(path = %path.display(), gateway_id = %record.gateway_id,
                "a job of an earlier pairing cannot be reported; it is kept for 7 days");
            host.journal.remove(&record.id).await;
        }
        Err(error) => tracing::warn!(%error, "a job of an earlier pairing cannot be set aside"),
    }
}

/// The end of a job whose gateway died over it.
fn restarted(record: &Record) -> Completion {
    let message = "The gateway ended unexpectedly while the job ran; it was not run again";
    Completion {
        status: JobStatus::Failed,
        result: json!({
            "message": message, "error_code": "gateway_restarted", "job_type": record.job_type,
        }),
        error: Some(message.to_owned()),
        completed_at: time::now_wire(),
    }
}
