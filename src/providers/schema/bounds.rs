//! How large a schema may be. Looks without recursion, so that no depth is too much for it.

use serde_json::Value;

use super::SchemaError;

/// Levels of nesting that are handled.
pub const MAX_DEPTH: usize = 500;
/// Bytes of its text, about.
pub const MAX_BYTES: usize = 5_000_000;
/// What a value adds to the text besides its letters: quotes, commas, digits.
const PER_VALUE: usize = 3;

/// Refuses what is past either bound.
pub(super) fn check(schema: &Value) -> Result<(), SchemaError> {
    let mut bytes = 0_usize;
    let mut todo = vec![(schema, 1_usize)];
    while let Some((value, depth)) = todo.pop() {
        bytes = bytes.saturating_add(PER_VALUE);
        match value {
            Value::String(text) => bytes = bytes.saturating_add(text.len()),
            Value::Array(items) => todo.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => {
                bytes = bytes.saturating_add(fields.keys().map(|key| key.len() + PER_VALUE).sum());
                todo.extend(fields.values().map(|value| (value, depth + 1)));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        if depth > MAX_DEPTH {
            return Err(SchemaError::TooDeep);
        }
        if bytes > MAX_BYTES {
            return Err(SchemaError::TooLong);
        }
    }
    Ok(())
}

/// How deep a value is nested, and how many values it holds, itself included.
pub(super) fn measured(value: &Value) -> (usize, usize) {
    let (mut deepest, mut count) = (0, 0);
    let mut todo = vec![(value, 1_usize)];
    while let Some((value, depth)) = todo.pop() {
        (deepest, count) = (deepest.max(depth), count + 1);
        match value {
            Value::Array(items) => todo.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => todo.extend(fields.values().map(|value| (value, depth + 1))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    (deepest, count)
}
