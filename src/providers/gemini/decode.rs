//! What a run came to. Its output decides, not its exit code.

use serde_json::{Value, json};

use super::Printing;
use super::failure::{self, failed};
use super::printed::Printed;
use crate::process::{Ended, Exit};
use crate::providers::{
    Answer, ErrorCode, Failure, Format, Left, ModelRequest, Outcome, Plan, json as finding,
};

/// What a run of that plan came to.
pub(super) fn decode(request: &ModelRequest, plan: &Plan, left: &Left) -> Outcome {
    let printing = Printing::of(plan);
    let answer = match left.ended {
        Ended::TimeLimit => Err(failure::of_time_limit(plan.time_limit, left)),
        Ended::Cancelled => {
            Err(failed(ErrorCode::ProviderFailed, "stopped before it answered", left))
        }
        Ended::ByItself => answer(request, printing, left),
    };
    match answer {
        Ok(answer) => Outcome::Answer(Box::new(answer)),
        Err(failure) => Outcome::Failure(failure),
    }
}

fn answer(request: &ModelRequest, printing: Printing, left: &Left) -> Result<Answer, Failure> {
    let printed = Printed::read(printing, &left.stdout);
    let good = left.exit == Exit::Code(0);
    if printed.error.is_some() {
        return Err(failure::of(printing, printed.error.as_ref(), left));
    }
    // An object or a last event says that all came, text says nothing.
    if !good && (printing == Printing::Text || !printed.finished || printed.text.is_empty()) {
        return Err(failure::of(printing, None, left));
    }
    let invalid = |message: &str| Err(failed(ErrorCode::ProviderOutputInvalid, message, left));
    if !printed.finished {
        return invalid("Gemini CLI ended without a result");
    }
    if printed.text.trim().is_empty() {
        return invalid("Gemini CLI's answer is empty");
    }
    let (output, raw) = match &request.format {
        Format::Text => (json!({ "text": printed.text }), json!({ "text": printed.text })),
        Format::Json { .. } => match finding::find_object(finding::unfenced(&printed.text)) {
            Some(object) => (Value::Object(object), own_object(&printed)),
            None => return invalid("Gemini CLI's answer holds no JSON object"),
        },
    };
    let model = printed.answered_by();
    Ok(Answer {
        output,
        raw,
        usage: printed.stats,
        model_usage: None,
        model,
        session_id: printed.session_id,
    })
}

fn own_object(printed: &Printed) -> Value {
    match &printed.whole {
        Value::Null => json!({ "text": printed.text }),
        whole => whole.clone(),
    }
}
