//! `subagent_cancel`: a subagent's run is to end now.
//!
//! Rows first, so that whoever reads them knows; then the run itself, wherever it stands; then the
//! event. A row that changed under way is read again. The run is ended by who has it in hand: this
//! job does not wait for that.

mod verdict;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Finished, Host};
use crate::backend::BackendError;
use crate::jobs::patience::read_until;
use crate::jobs::run_event;
use crate::jobs::stop::JobStop;
use crate::jobs::subagents::Met;
use crate::model::{Job, RunId, time};
use verdict::Request;

/// How long a backend that is away is waited for in all. Nobody gets an answer from it before it is
/// back, but a run that is known must be ended all the same, and a drain must not be held.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often rows that change under way are read again.
const ROUNDS: usize = 5;
/// The code for a text that is no id at all.
const NO_UUID: &str = "22P02";

pub(super) async fn run(host: &Host, job: &Job, stop: &JobStop) -> Finished {
    let Some(request) = Request::of(&job.payload) else {
        return Finished::failed(json!({
            "message": "subagent_id is missing", "error_code": "invalid_request",
        }));
    };
    tokio::select! {
        // Cancel safe: each step leaves rows that say no more than what was asked for.
        finished = cancel(host, &request, Instant::now() + PATIENCE) => finished,
        () = stop.token().cancelled() => Finished::stopped(),
    }
}

async fn cancel(host: &Host, request: &Request, until: Instant) -> Finished {
    for _ in 0..ROUNDS {
        match attempt(host, request, until).await {
            Ok(Some(result)) => return Finished::completed(result),
            Ok(None) => tracing::debug!("the run changed while it was to be cancelled"),
            Err(error) => {
                let why = format!("{:#}", anyhow::Error::new(error));
                return failed(request, &format!("Could not read the subagent: {why}"));
            }
        }
    }
    failed(request, "The subagent's runs change too fast to cancel one of them")
}

fn failed(request: &Request, message: &str) -> Finished {
    Finished::failed(json!({"message": message, "subagent_id": request.subagent_id}))
}

/// The result; `None` when the rows changed meanwhile.
async fn attempt(
    host: &Host,
    request: &Request,
    until: Instant,
) -> Result<Option<Value>, BackendError> {
    let id = &request.subagent_id;
    let subagent = match read_until(host, until, || host.api.subagent(id)).await {
        Err(error) if error.code() == Some(NO_UUID) => None,
        read => read?,
    };
    if let Err(refusal) = verdict::of_subagent(host.api.gateway(), subagent.as_ref()) {
        return Ok(Some(refusal.to_result(request)));
    }
    let running = read_until(host, until, || host.api.running_run(id)).await?;
    let run = match verdict::of_run(request, running.as_ref()) {
        Ok(run) => run,
        Err(refusal) => return Ok(Some(refusal.to_result(request))),
    };
    let (subagent, running) = (subagent.unwrap_or_default(), running.unwrap_or_default());
    // The run's last event comes after that of the cancel. Before the rows are marked: a run that
    // begins now knows from them that it is cancelled.
    let _announcing = host.subagents.announce(id, &run);
    match mark(host, request, &run, [&subagent, &running], until).await {
        Ok(false) => return Ok(None),
        Ok(true) => {}
        // It is to end, whatever the rows say: its own end tells them.
        Err(error) => tracing::warn!(%error, "the rows do not say that the run is cancelled"),
    }
    let met = host.subagents.cancel(id, &run, &request.reason);
    tracing::info!(subagent_id = %id, run_id = %run, ?met, "cancelling a subagent's run");
    let active_process = met == Met::Process;
    let payload = verdict::event(request, active_process);
    let told = run_event::append(host, id, &run, "cancellation_requested", payload);
    match tokio::time::timeout_at(until, told).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the event of a cancel is not recorded"),
        Err(_) => tracing::warn!("the event of a cancel is not recorded: no answer in time"),
    }
    Ok(Some(verdict::accepted(request, &run, active_process)))
}

/// Writes into the rows of subagent and run that a cancel was asked for; false when one of them is
/// no longer `running`.
async fn mark(
    host: &Host,
    request: &Request,
    run: &RunId,
    [subagent, running]: [&Value; 2],
    until: Instant,
) -> Result<bool, BackendError> {
    let id = &request.subagent_id;
    let at = time::now_wire();
    let change = |row| json!({"metadata": verdict::marked(row, run, &request.reason, &at)});
    let body = change(subagent);
    if !read_until(host, until, || host.api.change_running_subagent(id, &body)).await? {
        return Ok(false);
    }
    let body = change(running);
    read_until(host, until, || host.api.change_running_run(run, id, &body)).await
}
