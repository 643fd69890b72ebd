//! Brings the end of a subagent's run, which its own gateway only noted, to the backend.

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::handlers::{Finished, Host, run_finished};
use super::journal::RunEnd;
use super::patience::read;
use super::run_event;
use super::run_events::{self, Left};
use crate::backend::{BackendError, Finalization, Finalized};
use crate::model::{JobStatus, RunId, SubagentId};
use crate::providers::agent::Envelope;

/// Sends what a run told and nobody sent, however long the backend is away.
pub(super) async fn send_events(host: &Host, subagent: &SubagentId, run: &RunId) {
    let left = Left { subagent_id: subagent.clone(), run_id: run.clone() };
    let ended = run_events::finish(host, &left, CancellationToken::new()).await;
    if ended != run_events::Ended::Settled {
        tracing::warn!(run_id = %run, "events of a subagent's run are left");
    }
}

/// Finalises the run as it ended, appends the events that follow, and gives how the job ends:
/// however long the backend is away. Done again after a crash, it does what is missing.
pub(super) async fn bring(host: &Host, end: &RunEnd) -> Finished {
    let finalization = &end.finalization;
    match read(host, || host.api.finalize_run(finalization)).await {
        // Its row was cancelled meanwhile: so was the run.
        Ok(Finalized::Otherwise(status)) if status == JobStatus::Cancelled.as_str() => {
            let end = cancelled(end);
            let told = read(host, || host.api.finalize_run(&end.finalization)).await;
            conclude(host, &end, told).await
        }
        told => conclude(host, end, told).await,
    }
}

/// How the job of a run ends that is over already, though its record does not say so: a gateway brought
/// it to its end and died before it could note that. `None` while it is not over, or when it failed only
/// because its job did. Its last event may be missing, and is appended then.
pub(super) async fn found(host: &Host, run: &RunId) -> Option<Finished> {
    let row = read(host, || host.api.subagent_run(run)).await.ok()??;
    let end = end_of(run, &row)?;
    if let Err(error) = append_events(host, &end).await {
        tracing::error!(%error, run_id = %run, "a run's last event may be missing");
    }
    Some(run_finished(end.finalization, None))
}

/// The end that a run's row tells.
fn end_of(run: &RunId, row: &Value) -> Option<RunEnd> {
    let metadata = row.get("metadata").and_then(Value::as_object)?;
    if metadata.get("gateway_error").is_some_and(|error| !error.is_null()) {
        return None;
    }
    let text = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
    let field = |name: &str| (name.to_owned(), metadata.get(name).cloned().unwrap_or_default());
    let reason = || ("reason".to_owned(), json!(text("error")));
    let (final_status, event_type, payload) = match text("status")?.as_str() {
        "completed" => {
            let fields = [field("duration_ms"), field("parse_error"), field("retry_count")];
            (JobStatus::Completed, "run_completed", Map::from_iter(fields))
        }
        "failed" => {
            let fields = [reason(), field("duration_ms"), field("parse_error")];
            (JobStatus::Failed, "run_failed", Map::from_iter(fields))
        }
        "cancelled" => {
            (JobStatus::Cancelled, "run_cancelled", of_cancel(&text("error").unwrap_or_default()))
        }
        _ => return None,
    };
    let finalization = Finalization {
        subagent_id: SubagentId::new(text("subagent_id")?),
        run_id: run.clone(),
        final_status,
        output: row.get("output").filter(|output| !output.is_null()).cloned(),
        failure_output: None,
        final_error: text("error"),
        completed_at: text("completed_at").unwrap_or_default(),
        stderr: None,
        metadata_patch: Map::new(),
    };
    Some(RunEnd { finalization, events: vec![(event_type.to_owned(), payload)] })
}

fn of_cancel(reason: &str) -> Map<String, Value> {
    Map::from_iter([
        ("reason".to_owned(), json!(reason)),
        ("source".to_owned(), json!("gateway")),
        ("cancellation_scope".to_owned(), json!("gateway")),
    ])
}

async fn conclude(host: &Host, end: &RunEnd, told: Result<Finalized, BackendError>) -> Finished {
    let output = match told {
        Ok(Finalized::Written(output)) => output,
        Ok(Finalized::Otherwise(status)) => {
            return refused(end, &format!("the run is {status} already"));
        }
        Err(error) => return refused(end, &format!("{:#}", anyhow::Error::new(error))),
    };
    if let Err(error) = append_events(host, end).await {
        tracing::error!(%error, run_id = %end.finalization.run_id, "a run's last events are lost");
    }
    finished(end, output)
}

/// The same end as that of a run that was cancelled.
fn cancelled(end: &RunEnd) -> RunEnd {
    const REASON: &str = "Cancelled";
    let mut finalization = end.finalization.clone();
    finalization.final_status = JobStatus::Cancelled;
    finalization.output = None;
    finalization.failure_output = Some(Envelope::error(REASON).to_value());
    finalization.final_error = Some(REASON.to_owned());
    let payload = of_cancel(REASON);
    let mut last = payload.clone();
    if let Some(duration) = finalization.metadata_patch.get("duration_ms") {
        last.insert("duration_ms".to_owned(), duration.clone());
    }
    let patch = &mut finalization.metadata_patch;
    patch.insert("cancelled".to_owned(), json!(true));
    patch.insert("cancel_state".to_owned(), json!("acknowledged"));
    patch.insert("cancel_reason".to_owned(), json!(REASON));
    let events =
        vec![("cancellation_acknowledged".to_owned(), payload), ("run_cancelled".to_owned(), last)];
    RunEnd { finalization, events }
}

async fn append_events(host: &Host, end: &RunEnd) -> Result<(), BackendError> {
    let (subagent, run) = (&end.finalization.subagent_id, &end.finalization.run_id);
    host.subagents.announced(subagent, run).await;
    for (event_type, payload) in &end.events {
        // A run has one of each of them, and may have got it before the crash.
        let payload = Value::Object(payload.clone());
        if !run_event::is_among_last(host, run, event_type, &payload).await? {
            run_event::append(host, subagent, run, event_type, payload).await?;
        }
    }
    Ok(())
}

fn refused(end: &RunEnd, why: &str) -> Finished {
    if is_shutdown(end) {
        return Finished::stopped();
    }
    Finished::failed(json!({
        "message": format!("The run's end was not accepted: {why}"),
        "subagent_id": end.finalization.subagent_id,
        "run_id": end.finalization.run_id,
    }))
}

/// A shutdown cancelled the run, and its job with it.
fn is_shutdown(end: &RunEnd) -> bool {
    end.events.iter().any(|(_, payload)| {
        payload.get("source").and_then(Value::as_str) == Some("gateway_shutdown")
    })
}

/// The end of the job; `stored` is the output that the backend has.
fn finished(end: &RunEnd, stored: Option<Value>) -> Finished {
    if is_shutdown(end) {
        Finished::stopped()
    } else {
        run_finished(end.finalization.clone(), stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(final_status: JobStatus, error: Option<&str>) -> RunEnd {
        let envelope = || Some(json!({"content": "ours"}));
        RunEnd {
            finalization: Finalization {
                subagent_id: SubagentId::new("s"),
                run_id: RunId::new("r"),
                final_status,
                output: error.map_or_else(envelope, |_| None),
                failure_output: error.and_then(|_| envelope()),
                final_error: error.map(str::to_owned),
                completed_at: "now".into(),
                stderr: None,
                metadata_patch: serde_json::Map::new(),
            },
            events: Vec::new(),
        }
    }

    #[test]
    fn a_run_that_is_over_tells_how_its_job_ends() {
        let row = |status: &str, error: Value, metadata: Value| {
            json!({
                "subagent_id": "s", "status": status, "output": {"content": "stored"},
                "error": error, "completed_at": "then", "metadata": metadata,
            })
        };
        let ended = |row: &Value| {
            let RunEnd { finalization, events } = end_of(&RunId::new("r"), row)?;
            Some((run_finished(finalization, None), events))
        };
        let metadata = json!({"duration_ms": 7, "parse_error": null, "retry_count": 0, "x": 1});
        let (job, events) = ended(&row("completed", json!(null), metadata.clone())).unwrap();
        assert_eq!(
            (job.status, &job.result["output"]["content"]),
            (JobStatus::Completed, &json!("stored"))
        );
        let payload = json!({"duration_ms": 7, "parse_error": null, "retry_count": 0});
        assert_eq!(events, [("run_completed".to_owned(), payload.as_object().unwrap().clone())]);
        let (job, events) = ended(&row("failed", json!("why"), metadata.clone())).unwrap();
        assert_eq!((job.status, job.error.as_deref()), (JobStatus::Failed, Some("why")));
        assert_eq!((events[0].0.as_str(), &events[0].1["reason"]), ("run_failed", &json!("why")));
        let (job, events) = ended(&row("cancelled", json!("why"), metadata)).unwrap();
        assert_eq!(
            (job.status, &job.result["status"]),
            (JobStatus::Completed, &json!("cancelled"))
        );
        assert_eq!(
            (events[0].0.as_str(), &events[0].1["source"]),
            ("run_cancelled", &json!("gateway"))
        );
        assert_eq!(ended(&row("running", json!(null), json!({}))), None);
        let by_its_job = row("failed", json!("why"), json!({"gateway_error": "why"}));
        assert_eq!(ended(&by_its_job), None);
    }

    #[test]
    fn jobs_end_as_their_runs_did() {
        let stored = || Some(json!({"content": "stored"}));
        let completed = finished(&end(JobStatus::Completed, None), stored());
        assert_eq!((completed.status, completed.error), (JobStatus::Completed, None));
        let wanted = json!({
            "subagent_id": "s", "status": "completed", "output": {"content": "stored"},
            "error": null,
        });
        assert_eq!(completed.result, wanted);
        let ours = finished(&end(JobStatus::Completed, None), None);
        assert_eq!(ours.result["output"]["content"], "ours");
        let cancelled = finished(&end(JobStatus::Cancelled, Some("why")), None);
        assert_eq!((cancelled.status, cancelled.error), (JobStatus::Completed, None));
        assert_eq!(cancelled.result["status"], "cancelled");
        assert_eq!(cancelled.result["error"], "why");
        let mut shut_down = end(JobStatus::Cancelled, Some("gone"));
        let source = serde_json::from_value(json!({"source": "gateway_shutdown"})).unwrap();
        shut_down.events.push(("run_cancelled".into(), source));
        assert_eq!(finished(&shut_down, stored()), Finished::stopped());
        assert_eq!(refused(&shut_down, "over"), Finished::stopped());
        let failed = finished(&end(JobStatus::Failed, Some("no")), stored());
        assert_eq!((failed.status, failed.error.as_deref()), (JobStatus::Failed, Some("no")));
        assert_eq!(
            (&failed.result["output"], &failed.result["error"]),
            (&Value::Null, &json!("no"))
        );
    }
}
