//! A call, `{name, args}`, whose arguments travel as a text.
//!
//! Strictness allows no object of unknown properties, which arguments of any tool are.

use serde_json::{Map, Value, json};

use crate::backend::json::parse_json;

const NOTE: &str = "Put the arguments into `args_json` as a JSON-encoded string of one object, \
                    for example \"{\\\"path\\\":\\\"notes.txt\\\"}\"; \"{}\" when there are none.";

/// A schema as it is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Reshaped {
    /// With `args_json` in place of `args`, if it has `name` and `args`; else as it was.
    pub schema: Value,
    /// What the model is to be told about it.
    pub note: Option<&'static str>,
}

/// The schema with a text in place of a call's arguments.
pub fn reshaped(schema: &Value) -> Reshaped {
    let mut schema = schema.clone();
    if !is_call(&schema) {
        return Reshaped { schema, note: None };
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        *properties = std::mem::take(properties).into_iter().map(as_text).collect();
    }
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        for name in required.iter_mut().filter(|name| *name == "args") {
            *name = "args_json".into();
        }
    }
    Reshaped { schema, note: Some(NOTE) }
}

fn as_text((name, schema): (String, Value)) -> (String, Value) {
    if name == "args" {
        ("args_json".into(), json!({"type": "string", "description": NOTE}))
    } else {
        (name, schema)
    }
}

fn is_call(schema: &Value) -> bool {
    schema.get("properties").and_then(Value::as_object).is_some_and(|properties| {
        ["name", "args"].iter().all(|name| properties.contains_key(*name))
            && !properties.contains_key("args_json")
    })
}

/// Puts the arguments back in place of their text, if the original schema has them. A text that
/// is no JSON stays where it is.
pub(super) fn decode(original: &Value, answer: &mut Value) {
    let Value::Object(answer) = answer else { return };
    if !is_call(original) || answer.contains_key("args") {
        return;
    }
    let Some((key, args)) = ["args_json", "argsJson"].into_iter().find_map(|key| {
        let args = decoded(answer.get(key)?)?;
        Some((key, args))
    }) else {
        return;
    };
    *answer = std::mem::take(answer)
        .into_iter()
        .map(
            |(name, value)| if name == key { ("args".into(), args.clone()) } else { (name, value) },
        )
        .collect::<Map<_, _>>();
}

fn decoded(text: &Value) -> Option<Value> {
    match text {
        Value::String(text) if text.trim().is_empty() => Some(json!({})),
        Value::String(text) => parse_json(text.as_bytes()).ok(),
        Value::Null => None,
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Some(text.clone())
        }
    }
}
