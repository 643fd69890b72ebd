//! What a subagent's run came to.

use serde_json::{Map, Value};

use crate::process::Exit;
use crate::providers::agent::{ContentType, Envelope};
use crate::providers::claude::{decode, failure};
use crate::providers::{ErrorCode, Failure, Left, json};

const STRUCTURED: [&str; 2] = ["structured_output", "structuredOutput"];
/// Names in the metadata, and what the CLI's versions call them.
const METADATA: [(&str, &[&str]); 4] = [
    ("total_cost_usd", &["total_cost_usd"]),
    ("usage", &["usage", "usage_metadata"]),
    ("model_usage", &["modelUsage", "model_usage"]),
    ("permission_denials", &["permission_denials"]),
];

/// A verdict, and why the output could not be read as it was asked for.
pub(super) type Verdict = (Result<Envelope, Failure>, Option<String>);

/// Of a run that printed this result. `object`: the caller gave a schema.
pub(super) fn of_result(result: &Map<String, Value>, object: bool, left: &Left) -> Verdict {
    if result.get("is_error") == Some(&Value::Bool(true)) {
        return (Err(failure::of_result(result, &left.stderr)), None);
    }
    if let Some(message) = decode::not_asked(result) {
        let code = ErrorCode::ProviderOutputInvalid;
        return (Err(failure::failure(code, &message, &left.stderr)), None);
    }
    match content(result, object) {
        Some((content, kind)) => {
            let parse_error = (object && kind != ContentType::Json)
                .then(|| "the answer is no JSON object".to_owned());
            (Ok(envelope(content, kind, result)), parse_error)
        }
        None if result.contains_key("errors") => {
            (Err(failure::of_result(result, &left.stderr)), None)
        }
        None => invalid("the result holds no answer", left),
    }
}

/// Of a run that printed none; `printed`: there was something on stdout.
pub(super) fn without_result(left: &Left, printed: bool) -> Verdict {
    let mut failure = decode::without_result(left, printed);
    // Values of flags are the caller's in a subagent's run.
    if failure.message.contains("argument '") && failure.message.contains("is invalid") {
        failure.code = ErrorCode::InvalidRequest;
    }
    let unreadable = left.exit == Exit::Code(0);
    let parse_error = unreadable.then(|| failure.message.clone());
    (Err(failure), parse_error)
}

/// Of a run that printed plain text, an error too.
pub(super) fn of_text(left: &Left) -> Verdict {
    let text = left.stdout.strip_suffix('\n').unwrap_or(&left.stdout);
    if left.exit != Exit::Code(0) || text.trim().is_empty() {
        return without_result(left, !text.trim().is_empty());
    }
    (Ok(Envelope::new(text.into(), ContentType::Text)), None)
}

/// What the CLI says of itself. `session`: the one that it said it began.
pub(super) fn metadata(
    result: Option<&Map<String, Value>>,
    session: Option<&str>,
) -> Map<String, Value> {
    let empty = Map::new();
    let result = result.unwrap_or(&empty);
    let said = |names: &[&str]| names.iter().find_map(|name| result.get(*name)).cloned();
    let mut metadata = Map::new();
    // One that could not be continued is told by the id that was asked for, or by one made up.
    let began = session.is_some() || result.get("num_turns").and_then(Value::as_u64) != Some(0);
    let named = said(&["session_id", "sessionId"])
        .filter(|id| began && id.as_str().is_some_and(|id| !id.is_empty()));
    if let Some(id) = named.or_else(|| session.map(Value::from)) {
        metadata.insert("session_id".to_owned(), id);
    }
    for (name, names) in METADATA {
        if let Some(value) = said(names).filter(|value| !value.is_null()) {
            metadata.insert(name.to_owned(), value);
        }
    }
    metadata
}

fn invalid(message: &str, left: &Left) -> Verdict {
    let failure = failure::failure(ErrorCode::ProviderOutputInvalid, message, &left.stderr);
    let parse_error = Some(failure.message.clone());
    (Err(failure), parse_error)
}

/// An object that was asked for, else the model's last words; of an object that is no event and
/// has neither, all of it.
fn content(result: &Map<String, Value>, object: bool) -> Option<(Value, ContentType)> {
    let there = |name: &str| result.get(name).filter(|value| !value.is_null());
    if let Some(structured) = STRUCTURED.into_iter().find_map(there) {
        return Some((structured.clone(), ContentType::Json));
    }
    match there("result") {
        Some(Value::String(text)) => {
            let found = if object { json::find_object(text) } else { None };
            Some(match found {
                Some(found) => (Value::Object(found), ContentType::Json),
                None => (text.as_str().into(), ContentType::Markdown),
            })
        }
        Some(other) => Some((other.clone(), ContentType::Json)),
        None if result.contains_key("type") => None,
        None => Some((Value::Object(result.clone()), ContentType::Json)),
    }
}

/// With what stands beside or inside the content.
fn envelope(content: Value, kind: ContentType, result: &Map<String, Value>) -> Envelope {
    let places: Vec<_> = content.as_object().into_iter().chain([result]).collect();
    let summary = places.iter().find_map(|place| {
        let text = |name: &&str| place.get(*name)?.as_str().filter(|text| !text.trim().is_empty());
        ["summary", "overview"].iter().find_map(text).map(str::to_owned)
    });
    let sources = places.iter().find_map(|place| sources(place.get("sources")?));
    Envelope { summary, sources, ..Envelope::new(content, kind) }
}

/// Those that are texts, or have an address.
fn sources(value: &Value) -> Option<Vec<String>> {
    let sources: Vec<_> = value.as_array()?.iter().filter_map(source).collect();
    (!sources.is_empty()).then_some(sources)
}

fn source(source: &Value) -> Option<String> {
    source.as_str().or_else(|| source.get("url")?.as_str()).map(str::to_owned)
}
