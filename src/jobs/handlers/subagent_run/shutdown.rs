//! A shutdown that does not wait: run and subagent are marked as cancelled.

use serde_json::{Map, Value, json};

use super::finalise::{self, Event};
use super::metadata::{About, merged, shut_down};
use super::policy::FullControl;
use super::target::{Asked, Target};
use crate::backend::BackendError;
use crate::jobs::handlers::{Finished, Host};
use crate::jobs::patience::read;
use crate::jobs::progress::Progress;
use crate::model::time;

const REASON: &str = "The gateway was shut down before the run was done";

/// What is left to do.
pub(super) struct CalledOff {
    /// Of a run that was marked; the terminal one last.
    pub(super) events: Vec<Event>,
    /// The job's end.
    pub(super) finished: Finished,
}

/// Marks both rows where they are `running`, however far the job was.
pub(super) async fn call_off(host: &Host, progress: &Progress<'_>, asked: &Asked) -> CalledOff {
    let marked = mark(host, progress, asked).await;
    let (events, finished) = match marked {
        Ok(Ok(events)) => (events, Finished::stopped()),
        // The job was none of ours, or had a fault of its own.
        Ok(Err(refusal)) => (Vec::new(), refusal),
        Err(error) => {
            tracing::error!(%error, "a run that was called off is not marked as cancelled");
            (Vec::new(), Finished::stopped())
        }
    };
    CalledOff { events, finished }
}

type Marked = Result<Vec<Event>, Finished>;

async fn mark(host: &Host, progress: &Progress<'_>, asked: &Asked) -> Result<Marked, BackendError> {
    // Read again: others may have written to the metadata since the start.
    let row = match asked.subagent() {
        Some(id) => read(host, || host.api.subagent(&id)).await?,
        None => None,
    };
    let target = match asked.target(row.as_ref(), host.api.gateway()) {
        Ok(target) => target,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let run = read(host, || host.api.subagent_run(&target.run_id)).await?;
    if let Err(refusal) = target.accept(run.as_ref()) {
        return Ok(Err(refusal));
    }
    let now = time::now_wire();
    let nothing = FullControl { requested: false, denied: None };
    let about = About { target: &target, full_control: &nothing };
    let (end, events) = finalise::shut_down_end(about, &host.redactor, REASON, &now);
    progress.is_for(&target.subagent_id, &target.run_id).await;
    if let Err(error) = progress.run_ended(&finalise::kept(&end, &events)).await {
        tracing::warn!(%error, "the end of a subagent's run is in memory only");
    }
    let body = |own: Option<&Value>| {
        let own = own.cloned().unwrap_or_else(|| Value::Object(Map::new()));
        let keys = shut_down(target.run_id.as_str(), REASON, &now);
        json!({
            "status": end.final_status, "output": end.failure_output, "error": end.final_error,
            "completed_at": end.completed_at, "metadata": merged([own, Value::Object(keys)]),
        })
    };
    let of_run = body(run.as_ref().and_then(|run| run.get("metadata")));
    let of_subagent = body(row.as_ref().and_then(|row| row.get("metadata")));
    let matched = end_rows(host, &target, &of_run, &of_subagent).await?;
    Ok(Ok(if matched { events } else { Vec::new() }))
}

/// Ends the run's row, then the subagent's, each where it is `running`. Whether the run's row took
/// it: an answer that was lost counts when the row says the same by then.
pub(super) async fn end_rows(
    host: &Host,
    target: &Target,
    of_run: &Value,
    of_subagent: &Value,
) -> Result<bool, BackendError> {
    let api = &host.api;
    let change = || api.change_running_run(&target.run_id, &target.subagent_id, of_run);
    let matched = read(host, change).await? || {
        let row = read(host, || api.subagent_run(&target.run_id)).await?.unwrap_or_default();
        ["status", "error"].iter().all(|name| row.get(name) == of_run.get(name))
    };
    read(host, || api.change_running_subagent(&target.subagent_id, of_subagent)).await?;
    Ok(matched)
}
