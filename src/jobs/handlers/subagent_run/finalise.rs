//! How a run ended: what backend and job are told of it. Pure.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::metadata::{About, merged, shut_down};
use crate::backend::Finalization;
use crate::jobs::handlers::Finished;
use crate::jobs::journal::RunEnd;
use crate::model::JobStatus;
use crate::observe::Redactor;
use crate::process::{Ended, Exit};
use crate::providers::agent::{AgentRun, Envelope};
use crate::providers::{ErrorCode, Failure, ProviderId};

/// An event's type and payload.
pub(super) type Event = (&'static str, Map<String, Value>);

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// It gave this.
    Completed(Envelope),
    /// The reason, for people.
    Failed(String),
    /// The reason.
    Cancelled(String),
}

/// What is told of a run's process. All of it is empty for a run that had none.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Ran {
    /// Redacted.
    pub(super) command: Option<String>,
    /// `None` when a signal ended it.
    pub(super) exit_code: Option<i32>,
    pub(super) duration: Duration,
    pub(super) timed_out: bool,
    pub(super) stdout_truncated: bool,
    pub(super) stderr_truncated: bool,
    pub(super) output_format: &'static str,
    pub(super) parse_error: Option<String>,
    /// What the CLI says of itself.
    pub(super) adapter: Map<String, Value>,
    /// Redacted.
    pub(super) stderr: Option<String>,
}

impl Ran {
    /// Of a run that has ended.
    pub(super) fn of(mut self, redactor: &Redactor, run: &AgentRun) -> Self {
        let own = |value: Value| redactor.own_secrets_in(value);
        self.exit_code = match run.exit {
            Exit::Code(code) => Some(code),
            Exit::Signal(_) => None,
        };
        self.duration = run.duration;
        self.timed_out = run.ended == Ended::TimeLimit;
        self.stdout_truncated = run.stdout_truncated;
        self.stderr_truncated = run.stderr_truncated;
        self.parse_error = run.outcome.parse_error.as_deref().map(|text| redactor.text(text));
        self.adapter = merged([own(Value::Object(run.outcome.metadata.clone()))]);
        self.stderr = Some(redactor.text(&run.stderr));
        self
    }

    pub(super) fn duration_ms(&self) -> u64 {
        u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX)
    }
}

/// What became of a run that nobody cancelled; the error is for the provider's health.
pub(super) fn judge(run: &AgentRun) -> Result<Envelope, Box<Failure>> {
    let failure = match &run.outcome.result {
        Ok(envelope) if run.ended != Ended::TimeLimit => return Ok(envelope.clone()),
        Ok(_) => timeout(run),
        Err(failure) => failure.clone(),
    };
    // A run that our limit ended is a timeout, unless the CLI told what kept it.
    let told = matches!(
        failure.code,
        ErrorCode::ProviderAuth | ErrorCode::ProviderRateLimited | ErrorCode::ProviderUnavailable
    );
    let failure = if run.ended == Ended::TimeLimit && !told { timeout(run) } else { failure };
    Err(Box::new(failure))
}

fn timeout(run: &AgentRun) -> Failure {
    let message = format!("it did not finish within {} ms", run.duration.as_millis());
    Failure { code: ErrorCode::ProviderTimeout, message, summary: None }
}

/// A failure as people read it.
pub(super) fn failure_text(provider: ProviderId, why: &str) -> String {
    let why = why.trim().trim_end_matches('.');
    let title = provider.title();
    format!("{title} failed: {why}. Run `panorama-gateway doctor` to check it.")
}

/// The end of a run that was tried, with the events that follow.
pub(super) fn run_end(
    about: About<'_>,
    redactor: &Redactor,
    ran: &Ran,
    verdict: &Verdict,
    now: &str,
) -> (Finalization, Vec<Event>) {
    let cancelled = match verdict {
        Verdict::Cancelled(reason) => Some(reason.as_str()),
        Verdict::Completed(_) | Verdict::Failed(_) => None,
    };
    let patch = about.ended(ran, cancelled, now);
    let mut end = finalization(about, redactor, verdict, now, patch);
    end.stderr.clone_from(&ran.stderr);
    let duration_ms = ran.duration_ms();
    let events = match verdict {
        Verdict::Completed(_) => vec![event(
            "run_completed",
            json!({"duration_ms": duration_ms, "parse_error": ran.parse_error, "retry_count": 0}),
        )],
        Verdict::Failed(reason) => vec![event(
            "run_failed",
            json!({
                "reason": reason, "duration_ms": duration_ms, "parse_error": ran.parse_error,
            }),
        )],
        Verdict::Cancelled(reason) => {
            cancelled_events(reason, "gateway", json!({"duration_ms": duration_ms}))
        }
    };
    (end, events)
}

/// The end of a run that was cancelled before it began.
pub(super) fn cancelled_before(
    about: About<'_>,
    redactor: &Redactor,
    reason: &str,
    now: &str,
) -> (Finalization, Vec<Event>) {
    let verdict = Verdict::Cancelled(reason.to_owned());
    let patch = about.cancelled_before(reason);
    let end = finalization(about, redactor, &verdict, now, patch);
    let requested = json!({
        "reason": reason, "source": "pending_cancel", "stage": "before_start",
    });
    let mut events = vec![event("cancellation_requested", requested)];
    events.extend(cancelled_events(reason, "gateway", json!({})));
    (end, events)
}

/// The end of a run that a shutdown cancels.
pub(super) fn shut_down_end(
    about: About<'_>,
    redactor: &Redactor,
    reason: &str,
    now: &str,
) -> (Finalization, Vec<Event>) {
    let verdict = Verdict::Cancelled(reason.to_owned());
    let patch = shut_down(about.target.run_id.as_str(), reason, now);
    let patch = merged([Value::Object(about.run()), Value::Object(patch)]);
    let end = finalization(about, redactor, &verdict, now, patch);
    (end, cancelled_events(reason, "gateway_shutdown", json!({})))
}

/// The event of a run that failed before it was tried.
pub(super) fn failed_before(reason: &str) -> Event {
    let payload = json!({"reason": reason, "source": "gateway", "stage": "pre_execution"});
    event("run_failed", payload)
}

fn cancelled_events(reason: &str, source: &str, more: Value) -> Vec<Event> {
    let payload = || json!({"reason": reason, "source": source, "cancellation_scope": "gateway"});
    vec![
        event("cancellation_acknowledged", payload()),
        ("run_cancelled", merged([payload(), more])),
    ]
}

pub(super) fn event(event_type: &'static str, payload: Value) -> Event {
    (event_type, merged([payload]))
}

fn finalization(
    about: About<'_>,
    redactor: &Redactor,
    verdict: &Verdict,
    now: &str,
    patch: Map<String, Value>,
) -> Finalization {
    let own = |envelope: &Envelope| redactor.own_secrets_in(envelope.to_value());
    let (final_status, output, error) = match verdict {
        Verdict::Completed(envelope) => (JobStatus::Completed, Some(own(envelope)), None),
        Verdict::Failed(reason) => (JobStatus::Failed, None, Some(reason)),
        Verdict::Cancelled(reason) => (JobStatus::Cancelled, None, Some(reason)),
    };
    Finalization {
        subagent_id: about.target.subagent_id.clone(),
        run_id: about.target.run_id.clone(),
        final_status,
        output,
        failure_output: error.map(|reason| own(&Envelope::error(reason))),
        final_error: error.cloned(),
        completed_at: now.to_owned(),
        stderr: None,
        metadata_patch: patch,
    }
}

/// For the journal.
pub(super) fn kept(end: &Finalization, events: &[Event]) -> RunEnd {
    let owned = |(event_type, payload): &Event| ((*event_type).to_owned(), payload.clone());
    RunEnd { finalization: end.clone(), events: events.iter().map(owned).collect() }
}

/// The job's end, once the run's is written. `stored` is the output as the backend has it.
pub(in crate::jobs) fn finished(end: Finalization, stored: Option<Value>) -> Finished {
    let (status, output) = match end.final_status {
        JobStatus::Failed => (JobStatus::Failed, None),
        JobStatus::Queued | JobStatus::Running | JobStatus::Completed | JobStatus::Cancelled => {
            (JobStatus::Completed, stored.or(end.output).or(end.failure_output))
        }
    };
    let result = json!({
        "subagent_id": end.subagent_id,
        "status": end.final_status,
        "output": output,
        "error": end.final_error,
    });
    // A run that was cancelled is a job well done.
    let error = if status == JobStatus::Failed { end.final_error } else { None };
    Finished { status, result, error }
}

/// The job's end of a run that failed before it was tried.
pub(super) fn finished_before(about: About<'_>, error: &str) -> Finished {
    let result = json!({
        "subagent_id": about.target.subagent_id,
        "status": JobStatus::Failed,
        "output": null,
        "error": error,
    });
    Finished { status: JobStatus::Failed, result, error: Some(error.to_owned()) }
}
