//! How a `model_run` ends. Pure.

use serde_json::{Value, json};

use super::debug::millis;
use super::payload::Asked;
use crate::jobs::handlers::Finished;
use crate::observe::Redactor;
use crate::process::{Ended, Exit};
use crate::providers::schema::Mismatch;
use crate::providers::{
    Answer, ErrorCode, Failure, Left, OUTPUT_LIMIT, Outcome, PlanRun, RefusedFile,
};

const OVER_THE_BOUND: &str = "GATEWAY_MODEL_OUTPUT_LIMIT";

/// What a run came to, before it is told in the wire's words.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The model answered.
    Answer(Box<Answer>),
    /// It did not.
    Failure(Failure),
    /// There was more output than is kept; where.
    OverTheBound(&'static str),
}

/// Judges what a run left: the bounds and who ended it go before what a decoder finds.
pub(super) fn judge(ran: &PlanRun, decode: impl FnOnce(&Left) -> Outcome) -> Verdict {
    if ran.left.stdout_truncated {
        return Verdict::OverTheBound("stdout");
    }
    match &ran.refused_file {
        Some(RefusedFile::TooLarge) => return Verdict::OverTheBound("output_file"),
        Some(RefusedFile::Unusable(reason)) => {
            return Verdict::Failure(Failure {
                code: ErrorCode::ProviderOutputInvalid,
                message: format!("The output file cannot be used: {reason}"),
                summary: None,
            });
        }
        None => {}
    }
    match decode(&ran.left) {
        Outcome::Failure(failure) => Verdict::Failure(in_time(ran, failure)),
        Outcome::Answer(_) if ran.left.ended == Ended::TimeLimit => {
            let message = "The time limit ended the run".to_owned();
            let code = ErrorCode::ProviderTimeout;
            Verdict::Failure(in_time(ran, Failure { code, message, summary: None }))
        }
        Outcome::Answer(answer) => Verdict::Answer(answer),
    }
}

/// A run that our limit ended is a timeout, unless the CLI told what kept it.
fn in_time(ran: &PlanRun, mut failure: Failure) -> Failure {
    let told = matches!(
        failure.code,
        ErrorCode::ProviderAuth | ErrorCode::ProviderRateLimited | ErrorCode::ProviderUnavailable
    );
    if ran.left.ended == Ended::TimeLimit && !told {
        failure.code = ErrorCode::ProviderTimeout;
        failure.message = format!("There was no answer within {} ms", millis(ran.duration));
    }
    failure
}

/// The job's end. `command` is the redacted command line, `mismatches` say how the answer does not fit
/// its schema.
pub(super) fn finish(
    redactor: &Redactor,
    asked: &Asked,
    command: &str,
    ran: &PlanRun,
    verdict: Verdict,
    mismatches: &[Mismatch],
) -> Finished {
    match verdict {
        Verdict::Answer(answer) => {
            let mut result = answered(asked, command, ran, *answer);
            // The caller may repair such an answer.
            if !mismatches.is_empty() {
                result["schema_errors"] = json!(mismatches);
            }
            Finished::completed(result)
        }
        Verdict::Failure(failure) => Finished::failed(failed(redactor, command, ran, &failure)),
        Verdict::OverTheBound(boundary) => Finished::failed(json!({
            "message": format!(
                "The {} is longer than {OUTPUT_LIMIT} bytes",
                if boundary == "stdout" { "output" } else { "output file" }
            ),
            "error_code": OVER_THE_BOUND,
            "boundary": boundary,
            "output_limit_bytes": OUTPUT_LIMIT,
        })),
    }
}

fn answered(asked: &Asked, command: &str, ran: &PlanRun, answer: Answer) -> Value {
    let mut result = json!({
        "output": answer.output,
        "raw": answer.raw,
        "usage": answer.usage,
        "model": answer.model.as_ref().or(asked.request.model.as_ref()),
        "duration_ms": millis(ran.duration),
        "exit_code": exit_code(&ran.left),
        "stdout_truncated": ran.left.stdout_truncated,
        "stderr_truncated": ran.stderr_truncated,
        "command": command,
    });
    if let Some(usage) = answer.model_usage {
        result["model_usage"] = usage;
    }
    result
}

/// The CLI's own words are shown as what tells of a failure is: redacted.
fn failed(redactor: &Redactor, command: &str, ran: &PlanRun, failure: &Failure) -> Value {
    let code = exit_code(&ran.left);
    let mut result = json!({
        "message": failure.message,
        "error_code": failure.code.as_str(),
        "stdout": redactor.text(&ran.left.stdout),
        "stderr": redactor.text(&ran.left.stderr),
        "command": command,
    });
    // Who could not be read and says that all is well has no error of its own.
    if failure.code != ErrorCode::ProviderOutputInvalid || code != Some(0) {
        result["exit_code"] = json!(code);
        result["error_summary"] = redactor.value(&json!(failure.summary));
    }
    result
}

/// A run that did not come about.
pub(super) fn not_run(command: &str, code: ErrorCode, message: &str) -> Finished {
    Finished::failed(json!({
        "message": message,
        "error_code": code.as_str(),
        "exit_code": null,
        "stdout": "",
        "stderr": "",
        "command": command,
        "error_summary": null,
    }))
}

/// The payload is at fault.
pub(super) fn refused(message: &str) -> Finished {
    Finished::failed(json!({
        "message": message, "error_code": ErrorCode::InvalidRequest.as_str(),
    }))
}

/// The CLI's exit code; `None` when a signal ended it.
pub(super) fn exit_code(left: &Left) -> Option<i32> {
    match left.exit {
        Exit::Code(code) => Some(code),
        Exit::Signal(_) => None,
    }
}
