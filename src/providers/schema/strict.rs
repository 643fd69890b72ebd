//! The strict form of a schema, as OpenAI's API demands it.
//!
//! Every object takes no other properties than its own and requires all of them; one that was
//! optional may be null instead of left out. `allOf` is treated as any other branch, although the
//! API refuses it.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::look::{BRANCHES, accepts_null};
use super::{SchemaError, bounds};

/// Keywords that hold schemas by name.
const BY_NAME: [&str; 3] = ["properties", "$defs", "definitions"];
/// Keywords that hold a list of schemas for items.
const ITEMS: [&str; 2] = ["items", "prefixItems"];
/// Keywords beside `type` that null would have to pass too.
const BESIDE_TYPE: [&str; 6] = ["anyOf", "oneOf", "allOf", "$ref", "not", "if"];

/// The schema with every object closed and all of its properties required. What is strict already
/// comes out as it was.
pub fn strict(schema: &Value) -> Result<Value, SchemaError> {
    bounds::check(schema)?;
    let mut strict = schema.clone();
    // From the top down and without recursion: a node is closed before its own parts are.
    let mut todo = vec![&mut strict];
    while let Some(part) = todo.pop() {
        let Value::Object(node) = part else { continue };
        if is_object(node) {
            close(schema, node);
        }
        todo.extend(node.iter_mut().flat_map(|(word, value)| parts(word, value)));
    }
    if let Value::Object(top) = &mut strict
        && !top.contains_key("type")
        && top.get("properties").is_some_and(Value::is_object)
    {
        top.insert("type".into(), "object".into());
    }
    Ok(strict)
}

/// The schemas that a keyword holds.
fn parts<'a>(word: &str, value: &'a mut Value) -> Vec<&'a mut Value> {
    if word == "items" && value.is_object() {
        return vec![value];
    }
    match value {
        Value::Object(named) if BY_NAME.contains(&word) => named.values_mut().collect(),
        Value::Array(schemas) if BRANCHES.contains(&word) || ITEMS.contains(&word) => {
            schemas.iter_mut().collect()
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => Vec::new(),
    }
}

/// Whether a schema is about objects.
fn is_object(fields: &Map<String, Value>) -> bool {
    let typed = match fields.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        Some(kind) => kind == "object",
        None => false,
    };
    typed || fields.get("properties").is_some_and(Value::is_object)
}

fn close(root: &Value, node: &mut Map<String, Value>) {
    let mut names = Vec::new();
    let required = node.remove("required").unwrap_or_default();
    let required: HashSet<&str> =
        required.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if let Some(Value::Object(properties)) = node.get_mut("properties") {
        for (name, property) in properties.iter_mut() {
            names.push(Value::from(name.as_str()));
            if !required.contains(name.as_str()) && !accepts_null(root, property) {
                *property = nullable(std::mem::take(property));
            }
        }
    }
    node.insert("required".into(), names.into());
    node.insert("additionalProperties".into(), false.into());
}

/// The schema, or null.
fn nullable(mut schema: Value) -> Value {
    if let Value::Object(fields) = &mut schema
        && fields.contains_key("type")
        && !fields.contains_key("const")
        && !BESIDE_TYPE.iter().any(|word| fields.contains_key(*word))
    {
        for (word, null) in [("type", Value::from("null")), ("enum", Value::Null)] {
            if let Some(value) = fields.get_mut(word) {
                *value = with(null, std::mem::take(value));
            }
        }
        return schema;
    }
    json!({"anyOf": [schema, {"type": "null"}]})
}

/// The value, or list of values, and one more.
fn with(one: Value, value: Value) -> Value {
    let mut values = match value {
        Value::Array(values) => values,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            vec![value]
        }
    };
    if !values.contains(&one) {
        values.push(one);
    }
    values.into()
}
