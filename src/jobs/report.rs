//! Brings the end of a job to the backend, however long that takes.

use std::path::PathBuf;

use serde_json::json;

use super::handlers::Host;
use super::journal::Record;
use super::patience::pause;
use crate::backend::retry::Backoff;
use crate::backend::{BackendError, Completion, Confirmation};
use crate::model::{JobStatus, time};

/// Keeps the result in the journal, then completes the row, again and again until the backend has
/// taken it or the row is no longer ours, and forgets the record.
///
/// A result that the backend refuses for good is set aside and replaced by a small one that says
/// so, so that no row stays `running` for ever. `record` has its completion.
pub(super) async fn report(host: &Host, mut record: Record) {
    let mut backoff = Backoff::new();
    let mut replaced = false;
    let mut kept = keep(host, &record).await;
    while let Some(completion) = &record.completion {
        let refused = match host.api.complete(&record.id, completion).await {
            Ok(Confirmation::Written) => {
                tracing::info!(status = completion.status.as_str(), "job ended");
                break;
            }
            Ok(Confirmation::NotOurs) => {
                tracing::warn!("the job's row is no longer running; its result is dropped");
                break;
            }
            Err(error) => error,
        };
        if refused.ends_session() {
            // Kept: a gateway whose pairing is restored reports it.
            tracing::error!(error = %refused, "the job's result cannot be reported");
            return;
        }
        if refused.is_permanent_refusal() {
            if replaced {
                tracing::error!(error = %refused, "the backend refuses the job's end");
                break;
            }
            record.completion = Some(reject(host, &record, &refused).await);
            kept = keep(host, &record).await;
            replaced = true;
            continue;
        }
        if host.api.may_warn() {
            tracing::warn!(error = %refused, "the job's result waits for the backend");
        }
        pause(host, &refused, backoff.after(&refused)).await;
        if !kept {
            kept = keep(host, &record).await;
        }
    }
    host.journal.remove(&record.id).await;
}

/// Whether the result is on disk. A disk that is full does not keep it from being reported.
async fn keep(host: &Host, record: &Record) -> bool {
    let kept = host.journal.save(record).await;
    if let Err(error) = &kept {
        let why = format!("{:#}", anyhow::Error::msg(error.to_string()));
        tracing::warn!(error = %why, "the job's result is in memory only");
    }
    kept.is_ok()
}

/// Sets the full result aside; what stands in for it.
async fn reject(host: &Host, record: &Record, refused: &BackendError) -> Completion {
    let why = host.redactor.text(&refused.to_string());
    match host.journal.set_aside(record).await {
        Ok(path) => log_rejected(&why, Some(path)),
        Err(error) => {
            tracing::warn!(%error, "the refused result cannot be set aside");
            log_rejected(&why, None);
        }
    }
    let message = format!("The backend refused the job's result: {why}");
    Completion {
        status: JobStatus::Failed,
        result: json!({
            "message": message, "error_code": "result_rejected", "status": refused.status(),
        }),
        error: Some(message),
        completed_at: time::now_wire(),
    }
}

fn log_rejected(why: &str, path: Option<PathBuf>) {
    let path = path.map(|path| path.display().to_string());
    tracing::error!(why, path, "the backend refuses the job's result; it is kept for 7 days");
}
