//! What a run came to. Its output decides, not its exit code.

use serde_json::{Value, json};

use super::Printing;
use super::failure;
use super::printed::Printed;
use crate::process::{Ended, Exit};
use crate::providers::{
    Answer, ErrorCode, Format, Left, ModelRequest, Outcome, Plan, json as finding,
};

/// What a run of that plan came to.
pub(super) fn decode(request: &ModelRequest, plan: &Plan, left: &Left) -> Outcome {
    match left.ended {
        Ended::TimeLimit => Outcome::Failure(failure::of_time_limit(plan.time_limit, left)),
        Ended::Cancelled => {
            failed(ErrorCode::ProviderFailed, "Gemini CLI was stopped before it answered", left)
        }
        Ended::ByItself => ended(request, Printing::of(plan), left),
    }
}

fn ended(request: &ModelRequest, printing: Printing, left: &Left) -> Outcome {
    let mut printed = Printed::read(printing, &left.stdout);
    if printing == Printing::Text {
        printed.error = failure::noted(&left.stderr);
    }
    // An object or a last event says that all came, text does not.
    let whole = printing != Printing::Text && printed.finished && !printed.text.is_empty();
    if printed.error.is_some() || !(whole || left.exit == Exit::Code(0)) {
        return Outcome::Failure(failure::of(printing, printed.error.as_ref(), left));
    }
    if !printed.finished {
        return invalid("Gemini CLI ended without a result", left);
    }
    if printed.text.trim().is_empty() {
        return invalid("Gemini CLI's answer is empty", left);
    }
    match &request.format {
        Format::Text => answered(json!({ "text": printed.text }), None, printed),
        Format::Json { .. } => match finding::find_object(finding::unfenced(&printed.text)) {
            Some(object) => answered(Value::Object(object), printed.whole.take(), printed),
            None => invalid("Gemini CLI's answer holds no JSON object", left),
        },
    }
}

fn invalid(message: &str, left: &Left) -> Outcome {
    failed(ErrorCode::ProviderOutputInvalid, message, left)
}

fn failed(code: ErrorCode, message: &str, left: &Left) -> Outcome {
    Outcome::Failure(failure::failed(code, message, left))
}

/// An answer; without the CLI's own object the text stands for it.
fn answered(output: Value, own: Option<Value>, printed: Printed) -> Outcome {
    let model = printed.answered_by();
    Outcome::Answer(Box::new(Answer {
        output,
        raw: own.unwrap_or_else(|| json!({ "text": printed.text })),
        usage: printed.stats,
        model_usage: None,
        model,
        session_id: printed.session_id,
    }))
}
