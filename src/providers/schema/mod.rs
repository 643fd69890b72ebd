//! JSON Schema for CLIs: made strict for those that demand it, and answers checked against it.
//!
//! Pure: nothing is fetched, a reference that leads out of a schema is refused.

mod args;
mod bounds;
mod effort;
mod look;
mod nulls;
mod strict;
mod validate;

#[cfg(test)]
mod tests;

use serde_json::Value;

pub use args::{Reshaped, reshaped};
pub use bounds::{MAX_BYTES, MAX_DEPTH};
pub use strict::strict;
pub use validate::{Mismatch, schema_errors};

/// Why a schema is refused before a run: the caller's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Nested too deep to be handled safely.
    #[error("the JSON schema is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Too long.
    #[error("the JSON schema is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// Its answers need not be objects.
    #[error("the JSON schema must ask for an object at its top level: {0}")]
    NotAnObject(String),
}

/// Whether a schema can be asked for at all: within the bounds, and for an object.
pub fn check(schema: &Value) -> Result<(), SchemaError> {
    bounds::check(schema)?;
    let refused = |reason: &str| Err(SchemaError::NotAnObject(reason.to_owned()));
    let Value::Object(fields) = schema else {
        return refused(if schema.is_boolean() {
            "it is a boolean"
        } else {
            "it is not an object"
        });
    };
    if let Some(word) = ["anyOf", "oneOf", "allOf", "not", "$ref", "enum", "const"]
        .into_iter()
        .find(|word| fields.contains_key(*word))
    {
        return refused(&format!("it has `{word}` there"));
    }
    match fields.get("type") {
        Some(Value::String(kind)) if kind == "object" => Ok(()),
        Some(Value::Array(kinds)) if matches!(kinds.as_slice(), [kind] if kind == "object") => {
            Ok(())
        }
        Some(kind) => refused(&format!("its type is {kind}")),
        None if fields.get("properties").is_some_and(Value::is_object) => Ok(()),
        None => refused("it has neither `type` nor `properties`"),
    }
}

/// The answer to a schema that was reshaped and made strict, in the form that `original` asks for:
/// without the nulls that only strictness added, and with `args` in place of `args_json`.
pub fn restored(original: &Value, mut answer: Value) -> Value {
    nulls::remove(&reshaped(original).schema, &mut answer);
    args::decode(original, &mut answer);
    answer
}
