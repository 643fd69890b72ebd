//! What becomes of a record that an earlier gateway left.

use serde_json::json;

use super::Record;
use crate::backend::retry::Backoff;
use crate::backend::{Claim, Completion};
use crate::jobs::handlers::Host;
use crate::jobs::report::report;
use crate::model::{JobStatus, time};
use crate::process::{shim_lives, sweep};

/// Brings a record to its end, however long the backend is away: a result is reported; a claim
/// whose gateway died over it is failed, once its processes are gone; an intent that never became a
/// claim is dropped. The future may be dropped at any time: the record stays for the next gateway.
pub(in crate::jobs) async fn replay(host: &Host, mut record: Record) {
    if record.gateway_id != *host.api.gateway() {
        give_up(host, &record).await;
        return;
    }
    if record.completion.is_none() {
        if !is_still_ours(host, &record).await {
            host.journal.remove(&record.id).await;
            return;
        }
        // A shim outlives its gateway only to end the run, or to hold work that was left on
        // purpose. One that was killed itself could do neither.
        if let Some(run) = record.run.clone().filter(|run| !shim_lives(run))
            && !sweep(run).await
        {
            tracing::warn!("processes of a job whose gateway died may be left");
        }
        record.completion = Some(restarted(&record));
    }
    report(host, record).await;
}

/// Whether the row runs under this very claim; asked until there is an answer.
async fn is_still_ours(host: &Host, record: &Record) -> bool {
    let mut backoff = Backoff::new();
    loop {
        match host.api.resolve_claim(&record.id, &record.started_at).await {
            Ok(Some(Claim::Won(_))) => return true,
            Ok(Some(Claim::Lost) | None) => return false,
            Err(error) => {
                tracing::debug!(%error, "a job of an earlier gateway waits for the backend");
                tokio::time::sleep(backoff.after(&error)).await;
            }
        }
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
