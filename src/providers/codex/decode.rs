//! What a run of Codex came to.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::json::find_object;
use super::super::{
    Answer, ErrorCode, Failure, Format, Left, ModelRequest, Outcome, OutputMode, Plan, schema,
};
use super::events::{Events, Verdict};
use super::{plan, trouble};
use crate::process::{Ended, Exit};

/// The model's answer, or why there is none.
pub(super) fn decode(request: &ModelRequest, plan: &Plan, left: &Left) -> Outcome {
    let decoded = if plan::prints_events(plan) {
        of_events(request, plan, left)
    } else {
        of_text(request, plan, left)
    };
    decoded.map_or_else(
        |failure| Outcome::Failure(*failure),
        |answer| Outcome::Answer(Box::new(answer)),
    )
}

/// By the events' verdict alone: exit codes and `error` events mislead.
fn of_events(request: &ModelRequest, plan: &Plan, left: &Left) -> Result<Answer, Box<Failure>> {
    let events = Events::read(&left.stdout);
    // The verdict may be past the bound of what is kept, while the file is whole.
    let beyond = events.verdict.is_none() && left.stdout_truncated && ended_well(left);
    if !(beyond && written(plan, left).is_some()) {
        judge(&events, plan.time_limit, left)?;
    }
    let text = written(plan, left).or(events.message.as_deref());
    let answer = answer(request, plan, text)?;
    Ok(Answer { usage: events.usage, session_id: events.thread, ..answer })
}

/// Whether a run with these events came to a good end.
pub(super) fn judge(events: &Events, limit: Duration, left: &Left) -> Result<(), Box<Failure>> {
    match &events.verdict {
        Some(Verdict::Completed) => Ok(()),
        Some(Verdict::Failed(message)) => Err(trouble::failure(message).into()),
        None => Err(without_verdict(limit, left, events).into()),
    }
}

fn without_verdict(limit: Duration, left: &Left, events: &Events) -> Failure {
    let warning = events.warning.as_deref();
    if let Some(failure) = ended_by_us(limit, left, warning) {
        return failure;
    }
    match (left.exit, warning) {
        (Exit::Signal(signal), _) => by_signal(signal),
        (Exit::Code(0), _) => {
            trouble::silent(ErrorCode::ProviderOutputInvalid, "Codex ended without a verdict")
        }
        (Exit::Code(_), Some(warning)) if !trouble::is_retry(warning) => trouble::failure(warning),
        (Exit::Code(code), _) if events.any => by_code(code),
        (Exit::Code(code), _) => did_not_start(code, &left.stderr),
    }
}

fn of_text(request: &ModelRequest, plan: &Plan, left: &Left) -> Result<Answer, Box<Failure>> {
    let message = last_message(&plan.stdin, plan.time_limit, left)?;
    answer(request, plan, written(plan, left).or(Some(message)))
}

/// Without events Codex prints its last message on stdout and all else on stderr, the prompt too.
pub(super) fn last_message<'a>(
    prompt: &str,
    limit: Duration,
    left: &'a Left,
) -> Result<&'a str, Box<Failure>> {
    let complaint = trouble::last_complaint(&left.stderr, prompt);
    if let Some(failure) = ended_by_us(limit, left, complaint) {
        return Err(failure.into());
    }
    match (left.exit, complaint) {
        (Exit::Code(0), _) => Ok(left.stdout.strip_suffix('\n').unwrap_or(&left.stdout)),
        (Exit::Signal(signal), _) => Err(by_signal(signal).into()),
        (Exit::Code(_), Some(complaint)) if !trouble::is_retry(complaint) => {
            Err(trouble::failure(complaint).into())
        }
        (Exit::Code(code), _) if left.stderr.contains("OpenAI Codex v") => {
            Err(by_code(code).into())
        }
        (Exit::Code(code), _) => Err(did_not_start(code, &left.stderr).into()),
    }
}

/// When the gateway stopped it: for what it was retrying then, if that says anything.
fn ended_by_us(limit: Duration, left: &Left, warning: Option<&str>) -> Option<Failure> {
    match left.ended {
        Ended::ByItself => None,
        Ended::Cancelled => {
            Some(trouble::silent(ErrorCode::ProviderFailed, "stopped: the run was cancelled"))
        }
        Ended::TimeLimit => {
            let limit = limit.as_secs_f64();
            let known = warning.map(trouble::failure);
            Some(match known.filter(|known| known.code != ErrorCode::ProviderFailed) {
                Some(known) => {
                    let message =
                        format!("{} (stopped at the time limit of {limit} s)", known.message);
                    Failure { message, ..known }
                }
                None => trouble::silent(
                    ErrorCode::ProviderTimeout,
                    format!("no answer within the time limit of {limit} s"),
                ),
            })
        }
    }
}

fn by_signal(signal: i32) -> Failure {
    let message = format!("Codex was ended by signal {signal} before it answered");
    trouble::silent(ErrorCode::ProviderFailed, message)
}

fn by_code(code: i32) -> Failure {
    let message = format!("Codex ended with exit code {code} before it answered");
    trouble::silent(ErrorCode::ProviderFailed, message)
}

fn did_not_start(code: i32, stderr: &str) -> Failure {
    trouble::start_up(stderr).map_or_else(|| by_code(code), |reason| trouble::failure(&reason))
}

fn ended_well(left: &Left) -> bool {
    left.exit == Exit::Code(0) && left.ended == Ended::ByItself
}

/// What the file for the answer holds; Codex leaves it empty when there is none.
fn written<'a>(plan: &Plan, left: &'a Left) -> Option<&'a str> {
    match plan.output {
        OutputMode::File(_) => left.file.as_deref().filter(|text| !text.trim().is_empty()),
        OutputMode::Stdout | OutputMode::Stream => None,
    }
}

/// The text of an answer, which there has to be.
pub(super) fn said(text: Option<&str>) -> Result<&str, Box<Failure>> {
    text.filter(|text| !text.is_empty())
        .ok_or_else(|| invalid("Codex ended without an answer").into())
}

fn invalid(message: &str) -> Failure {
    trouble::silent(ErrorCode::ProviderOutputInvalid, message)
}

fn answer(request: &ModelRequest, plan: &Plan, text: Option<&str>) -> Result<Answer, Box<Failure>> {
    let text = said(text)?;
    match &request.format {
        Format::Text => {
            let output = json!({ "text": text });
            Ok(Answer { raw: output.clone(), output, ..Answer::default() })
        }
        Format::Json { schema } => {
            let object =
                find_object(text).ok_or_else(|| invalid("the answer holds no JSON object"))?;
            let raw = Value::Object(object);
            let output = if plan::has_schema(plan) {
                schema::restored(&Value::Object(schema.clone()), raw.clone())
            } else {
                raw.clone()
            };
            Ok(Answer { output, raw, ..Answer::default() })
        }
    }
}
