//! What a `subagent_run` that failed leaves in order: its run and its subagent fail too. Otherwise a
//! subagent would stay `running` for ever.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::handlers::{Host, run_context};
use super::journal::Record;
use super::patience::read;
use super::{run_end, run_event};
use crate::backend::BackendError;
use crate::model::{JobStatus, RunId, SubagentId, time};
use crate::providers::agent::Envelope;

/// `job_type` of a subagent's run.
pub(super) const JOB_TYPE: &str = "subagent_run";
const RUNNING: &str = "running";
const FAILED: &str = "failed";
const RUN_FAILED: &str = "run_failed";
/// The key that tells a run that was failed here.
const GATEWAY_ERROR: &str = "gateway_error";

/// A failed job's subagent.
#[derive(Debug, Clone, PartialEq)]
struct Failure {
    subagent_id: SubagentId,
    /// The run that the job was for, as far as that is known.
    run_id: Option<RunId>,
    error: String,
}

impl Failure {
    /// `None` unless the job was for a subagent's run and failed. `payload` is the job's.
    fn of(record: &Record, payload: &Map<String, Value>) -> Option<Self> {
        let completion = record.completion.as_ref()?;
        if record.job_type != JOB_TYPE || completion.status != JobStatus::Failed {
            return None;
        }
        let subagent_id = match &record.subagent {
            Some(work) => work.subagent_id.clone(),
            None => SubagentId::new(id(payload, ["subagent_id", "subagentId"])?),
        };
        let run_id = run_of(record, Some(payload));
        let error = completion.error.clone().unwrap_or_else(|| "The job failed".to_owned());
        Some(Self { subagent_id, run_id, error })
    }
}

/// The run that a job is for, as far as its record or its payload tell. `None` for other jobs.
pub(super) fn run_of(record: &Record, payload: Option<&Map<String, Value>>) -> Option<RunId> {
    if record.job_type != JOB_TYPE {
        return None;
    }
    let known = record.subagent.as_ref().map(|work| work.run_id.clone());
    known.or_else(|| id(payload?, ["run_id", "runId"]).map(RunId::new))
}

/// What is no UUID names no row.
fn id(payload: &Map<String, Value>, names: [&str; 2]) -> Option<String> {
    let texts = names.into_iter().filter_map(|name| payload.get(name)?.as_str());
    texts.map(str::trim).find_map(|text| Some(Uuid::parse_str(text).ok()?.to_string()))
}

/// Between the end of a job and its report: when it was a subagent's run that failed, its rows follow,
/// however long the backend is away. Done again after a crash, it does what is missing. The record is
/// kept first, so that a crash finds the job failed. False: the session ended before it was done, and
/// a gateway whose pairing is restored has to go on with it.
pub(super) async fn settle(host: &Host, record: &Record, payload: &Map<String, Value>) -> bool {
    let Some(failure) = Failure::of(record, payload) else { return true };
    if let Err(error) = host.journal.save(record).await {
        tracing::warn!(%error, "the end of a subagent's job is in memory only");
    }
    let Err(error) = fail(host, &failure).await else { return true };
    tracing::error!(%error, subagent_id = %failure.subagent_id,
        "a subagent whose job failed may stay `running`");
    !error.ends_session()
}

async fn fail(host: &Host, failure: &Failure) -> Result<(), BackendError> {
    let id = &failure.subagent_id;
    let Some(subagent) = read(host, || host.api.subagent(id)).await? else { return Ok(()) };
    if text(&subagent, "status") != RUNNING
        || text(&subagent, "gateway_id") != host.api.gateway().as_str()
    {
        return Ok(());
    }
    let running = read(host, || host.api.running_run(id)).await?;
    let running = running.as_ref().map(|row| RunId::new(text(row, "id")));
    let now = time::now_wire();
    let change = change(&subagent, &failure.error, &now);
    match (running, &failure.run_id) {
        (Some(other), Some(ours)) if other != *ours => {
            tracing::info!(run_id = %other, "the subagent has gone on with another run");
            return Ok(());
        }
        (Some(run), _) => {
            // What the run told comes first.
            run_end::send_events(host, id, &run).await;
            let failed = read(host, || host.api.change_running_run(&run, id, &change)).await?;
            // No row matches once more what was written already, its answer lost.
            if failed || was_failed_here(host, &run).await? {
                append_event(host, failure, &run).await?;
            }
        }
        // Failed by us before, perhaps, but killed before its event.
        (None, Some(run)) if was_failed_here(host, run).await? => {
            append_event(host, failure, run).await?;
        }
        (None, _) => {}
    }
    if read(host, || host.api.change_running_subagent(id, &change)).await? {
        tracing::info!(subagent_id = %id, "the subagent failed with its job");
    }
    Ok(())
}

async fn was_failed_here(host: &Host, run: &RunId) -> Result<bool, BackendError> {
    let row = read(host, || host.api.subagent_run(run)).await?;
    Ok(row.is_some_and(|row| {
        text(&row, "status") == FAILED && !row["metadata"][GATEWAY_ERROR].is_null()
    }))
}

async fn append_event(host: &Host, failure: &Failure, run: &RunId) -> Result<(), BackendError> {
    let payload = json!({"reason": failure.error, "source": "gateway_job_failure"});
    host.subagents.announced(&failure.subagent_id, run).await;
    if run_event::is_among_last(host, run, RUN_FAILED, &payload).await? {
        return Ok(());
    }
    run_event::append(host, &failure.subagent_id, run, RUN_FAILED, payload).await
}

/// What run and subagent get.
fn change(subagent: &Value, error: &str, now: &str) -> Value {
    let own = subagent.get("metadata").and_then(Value::as_object).cloned();
    let mut metadata = own.unwrap_or_default();
    let of_failure = json!({
        "schema_version": 1,
        "runner": "gateway",
        "subagent_type": text(subagent, "subagent_type"),
        "last_run_at": now,
        "gateway_error": error,
    });
    for fields in [of_failure, run_context()] {
        if let Value::Object(fields) = fields {
            metadata.extend(fields);
        }
    }
    json!({
        "status": FAILED,
        "error": error,
        "output": Envelope::error(error).to_value(),
        "completed_at": now,
        "metadata": metadata,
    })
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Completion;
    use crate::jobs::journal::SubagentWork;
    use crate::model::{GatewayId, JobId};

    const SUBAGENT: &str = "11111111-1111-4111-8111-11111111abcd";
    const RUN: &str = "22222222-2222-4222-8222-22222222abcd";

    fn record(job_type: &str, status: JobStatus) -> Record {
        let (id, gateway) = (JobId::new("j"), GatewayId::new("g"));
        let mut record = Record::intent(id, gateway, job_type.into(), "now".into());
        record.completion = Some(Completion {
            status,
            result: json!({}),
            error: Some("no".into()),
            completed_at: "now".into(),
        });
        record
    }

    fn failure(record: &Record, payload: Value) -> Option<Failure> {
        Failure::of(record, &serde_json::from_value(payload).unwrap())
    }

    #[test]
    fn only_failed_runs_of_subagents_count() {
        let payload = || json!({"subagent_id": SUBAGENT, "runId": RUN});
        let failed = record(JOB_TYPE, JobStatus::Failed);
        let wanted = Failure {
            subagent_id: SubagentId::new(SUBAGENT),
            run_id: Some(RunId::new(RUN)),
            error: "no".into(),
        };
        assert_eq!(failure(&failed, payload()), Some(wanted.clone()));
        let upper = json!({"subagentId": SUBAGENT.to_uppercase(), "run_id": "nonsense"});
        let found = failure(&failed, upper).unwrap();
        assert_eq!((found.subagent_id, found.run_id), (SubagentId::new(SUBAGENT), None));
        for payload in [json!({}), json!({"subagent_id": "nonsense"}), json!({"subagent_id": 7})] {
            assert_eq!(failure(&failed, payload), None);
        }
        for other in [
            record(JOB_TYPE, JobStatus::Cancelled),
            record(JOB_TYPE, JobStatus::Completed),
            record("model_run", JobStatus::Failed),
        ] {
            assert_eq!(failure(&other, payload()), None);
        }
        let mut known = failed;
        known.subagent = Some(SubagentWork {
            subagent_id: SubagentId::new(SUBAGENT),
            run_id: RunId::new(RUN),
            end: None,
        });
        assert_eq!(failure(&known, json!({})), Some(wanted), "what is known needs no payload");
    }

    #[test]
    fn rows_of_a_failure() {
        let subagent = json!({
            "subagent_type": "codex_gateway", "metadata": {"kept": 1, "runner": "other"},
        });
        let mut change = change(&subagent, "no", "now");
        let output = change["output"].take();
        assert_eq!(output, Envelope::error("no").to_value());
        let wanted = json!({
            "status": "failed", "error": "no", "output": null, "completed_at": "now",
            "metadata": {
                "kept": 1, "schema_version": 1, "runner": "gateway",
                "subagent_type": "codex_gateway", "last_run_at": "now", "gateway_error": "no",
                "execution_lane": "cloud", "execution_bridge": "gateway",
                "execution_substrate": "gateway_host", "trust_zone": "user_delegated_host",
                "delegate_kind": "gateway_cli",
            },
        });
        assert_eq!(change, wanted);
    }
}
