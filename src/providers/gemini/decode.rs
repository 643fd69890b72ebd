//! What a run came to. Its output decides, not its exit code.

use std::time::Duration;

use serde_json::{Value, json};

use super::Printing;
use super::failure;
use super::printed::Printed;
use crate::process::{Ended, Exit};
use crate::providers::{
    Answer, ErrorCode, Failure, Format, Left, ModelRequest, Outcome, Plan, json as finding,
};

/// What a run of that plan came to.
pub(super) fn decode(request: &ModelRequest, plan: &Plan, left: &Left) -> Outcome {
    let printing = Printing::of(plan);
    let printed = Printed::read(printing, &left.stdout);
    match judge(printing, plan.time_limit, &printed, left) {
        Ok(()) => answer(request, printed, left),
        Err(failure) => Outcome::Failure(*failure),
    }
}

/// Whether a run that printed this came to a good end.
pub(super) fn judge(
    printing: Printing,
    limit: Duration,
    printed: &Printed,
    left: &Left,
) -> Result<(), Box<Failure>> {
    match left.ended {
        Ended::ByItself => {}
        Ended::TimeLimit => return Err(failure::of_time_limit(limit, left).into()),
        Ended::Cancelled => {
            let message = "Gemini CLI was stopped before it answered";
            return Err(failure::failed(ErrorCode::ProviderFailed, message, left).into());
        }
    }
    let noted = (printing == Printing::Text).then(|| failure::noted(&left.stderr)).flatten();
    let error = noted.as_ref().or(printed.error.as_ref());
    // An object or a last event says that all came, text does not.
    let whole = printing != Printing::Text && printed.finished && !printed.text.is_empty();
    if error.is_some() || !(whole || left.exit == Exit::Code(0)) {
        return Err(failure::of(printing, error, left).into());
    }
    if !printed.finished {
        return Err(invalid("Gemini CLI ended without a result", left).into());
    }
    if printed.text.trim().is_empty() {
        return Err(invalid("Gemini CLI's answer is empty", left).into());
    }
    Ok(())
}

fn answer(request: &ModelRequest, mut printed: Printed, left: &Left) -> Outcome {
    match &request.format {
        Format::Text => answered(json!({ "text": printed.text }), None, printed),
        Format::Json { .. } => match finding::find_object(finding::unfenced(&printed.text)) {
            Some(object) => answered(Value::Object(object), printed.whole.take(), printed),
            None => Outcome::Failure(invalid("Gemini CLI's answer holds no JSON object", left)),
        },
    }
}

fn invalid(message: &str, left: &Left) -> Failure {
    failure::failed(ErrorCode::ProviderOutputInvalid, message, left)
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
