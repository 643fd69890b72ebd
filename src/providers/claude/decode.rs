//! What Claude Code printed, read as an answer or a failure.
//!
//! Its exit code and the `subtype` of its result mislead; `is_error` and what the result holds do
//! not.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::failure;
use crate::backend::json::parse_json;
use crate::process::{Ended, Exit};
use crate::providers::{
    Answer, ErrorCode, Failure, Format, Left, ModelRequest, Outcome, Plan, json,
};

/// Where versions put an object that was asked for, before the text of `result`.
const OBJECTS: [&str; 5] =
    ["structured_output", "structuredOutput", "output", "tool_call", "toolCall"];

pub(super) fn decode(request: &ModelRequest, plan: &Plan, left: &Left) -> Outcome {
    if let Some(failure) = stopped(plan.time_limit, left) {
        return Outcome::Failure(failure);
    }
    if !prints_json(plan) {
        return text_mode(request, left);
    }
    match result(&left.stdout) {
        Some(result) => of_result(request, result, left),
        None => unprinted(left),
    }
}

/// Why there is no answer when it was stopped from here.
pub(super) fn stopped(time_limit: Duration, left: &Left) -> Option<Failure> {
    let (code, message) = match left.ended {
        Ended::TimeLimit => {
            let message = format!("no answer within {} s", time_limit.as_secs_f64());
            (ErrorCode::ProviderTimeout, message)
        }
        Ended::Cancelled => (ErrorCode::ProviderFailed, "cancelled".to_owned()),
        Ended::ByItself => return None,
    };
    Some(failure::failure(code, &message, &left.stderr))
}

/// Whether the plan asked for JSON: `--output-format json` or `stream-json`.
pub(super) fn prints_json(plan: &Plan) -> bool {
    let flag = plan.args.iter().position(|arg| arg == "--output-format");
    flag.and_then(|flag| plan.args.get(flag + 1)).is_some_and(|format| format != "text")
}

/// The run's verdict: the last line that is a result (others may follow it), else an object of no
/// type, on one line or several, else the last result in a list of messages, which a verbose CLI
/// prints.
pub(super) fn result(stdout: &str) -> Option<Map<String, Value>> {
    let of_type = |object: &Map<String, Value>| object.get("type").map(|kind| kind == "result");
    json::objects(stdout)
        .filter(|object| of_type(object) == Some(true))
        .last()
        .or_else(|| json::objects(stdout).find(|object| of_type(object).is_none()))
        .or_else(|| {
            json::object(between(stdout, '{', '}')?).filter(|one| of_type(one) != Some(false))
        })
        .or_else(|| {
            let Ok(Value::Array(messages)) = parse_json(stdout.trim().as_bytes()) else {
                return None;
            };
            messages.into_iter().rev().find_map(|message| match message {
                Value::Object(message) => (of_type(&message) == Some(true)).then_some(message),
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_) => None,
            })
        })
}

/// From the first `open` to the last `close`.
fn between(text: &str, open: char, close: char) -> Option<&str> {
    text.get(text.find(open)?..=text.rfind(close)?)
}

fn of_result(request: &ModelRequest, result: Map<String, Value>, left: &Left) -> Outcome {
    if result.get("is_error") == Some(&Value::Bool(true)) {
        return Outcome::Failure(failure::of_result(&result, &left.stderr));
    }
    let said = result.get("result").and_then(Value::as_str).unwrap_or_default();
    if let Some(message) = not_asked(&result) {
        return failed(ErrorCode::ProviderOutputInvalid, &message, left);
    }
    let output = match &request.format {
        Format::Text => (!said.trim().is_empty()).then(|| json!({ "text": said })),
        Format::Json { .. } => object_of(&result),
    };
    match output {
        Some(output) => Outcome::Answer(Box::new(answer(request, output, result))),
        None if result.contains_key("errors") => {
            Outcome::Failure(failure::of_result(&result, &left.stderr))
        }
        None => {
            let message = match &request.format {
                Format::Text => "the answer is empty".to_owned(),
                Format::Json { .. } => format!("the answer is no JSON object: {said}"),
            };
            failed(ErrorCode::ProviderOutputInvalid, &message, left)
        }
    }
}

/// What the CLI said itself when it asked no model: the prompt was a command to it.
pub(super) fn not_asked(result: &Map<String, Value>) -> Option<String> {
    let said = result.get("result").and_then(Value::as_str).unwrap_or_default();
    let asked = result.get("num_turns").and_then(Value::as_u64) != Some(0);
    (!asked).then(|| format!("no model was asked: {said}"))
}

/// The object that was asked for, wherever this version puts it.
fn object_of(result: &Map<String, Value>) -> Option<Value> {
    OBJECTS.iter().chain(&["result"]).find_map(|name| match result.get(*name)? {
        Value::Object(object) => Some(Value::Object(object.clone())),
        Value::String(text) => json::find_object(text).map(Value::Object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    })
}

fn answer(request: &ModelRequest, output: Value, result: Map<String, Value>) -> Answer {
    let first = |names: [&str; 2]| names.into_iter().find_map(|name| result.get(name)).cloned();
    let text = |value: Option<Value>| match value {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        Some(_) | None => None,
    };
    let model_usage = first(["modelUsage", "model_usage"]);
    let by_model = model_usage.as_ref().and_then(Value::as_object).filter(|all| !all.is_empty());
    Answer {
        usage: first(["usage", "usage_metadata"]).unwrap_or_default(),
        model: text(first(["model", "provider_model"])).or_else(|| main_model(by_model?)),
        model_usage: by_model.cloned().map(Value::Object),
        session_id: text(first(["session_id", "sessionId"])),
        raw: match request.format {
            Format::Text => output.clone(),
            Format::Json { .. } => Value::Object(result),
        },
        output,
    }
}

/// The model that wrote most; the first of several that wrote as much.
fn main_model(by_model: &Map<String, Value>) -> Option<String> {
    let written = |usage: &Value| usage.get("outputTokens").and_then(Value::as_u64).unwrap_or(0);
    let most = by_model.iter().rev().max_by_key(|(_, usage)| written(usage));
    most.map(|(name, _)| name.clone())
}

/// Text mode: stdout is the answer, or the error.
fn text_mode(request: &ModelRequest, left: &Left) -> Outcome {
    if left.exit != Exit::Code(0) {
        return unprinted(left);
    }
    let text = left.stdout.strip_suffix('\n').unwrap_or(&left.stdout);
    let output = match &request.format {
        Format::Text => (!text.trim().is_empty()).then(|| json!({ "text": text })),
        Format::Json { .. } => json::find_object(text).map(Value::Object),
    };
    match output.filter(|_| !left.stdout_truncated) {
        Some(output) => {
            let raw = output.clone();
            Outcome::Answer(Box::new(Answer { output, raw, ..Answer::default() }))
        }
        None => unprinted(left),
    }
}

fn unprinted(left: &Left) -> Outcome {
    Outcome::Failure(without_result(left, !left.stdout.trim().is_empty()))
}

/// Why there is no result; `printed`: there was something on stdout.
pub(super) fn without_result(left: &Left, printed: bool) -> Failure {
    let ended = match left.exit {
        Exit::Code(0) => {
            let message = if left.stdout_truncated {
                "the output is longer than its bound"
            } else if printed {
                "the output holds no answer"
            } else {
                "nothing was printed"
            };
            return failure::failure(ErrorCode::ProviderOutputInvalid, message, &left.stderr);
        }
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
    };
    // Words on stdout are the error, events that led nowhere are not.
    let said = if json::objects(&left.stdout).next().is_some() { "" } else { &left.stdout };
    failure::of_words(said, &ended, &left.stderr)
}

fn failed(code: ErrorCode, message: &str, left: &Left) -> Outcome {
    Outcome::Failure(failure::failure(code, message, &left.stderr))
}
