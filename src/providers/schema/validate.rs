//! Checks an answer against the caller's schema: no CLI guarantees that it fits.

use jsonschema::{PatternOptions, ValidationError};
use serde::Serialize;
use serde_json::Value;

use super::{bounds, effort};

/// Mismatches that are told of.
const MAX_TOLD: usize = 20;
/// Characters of a message.
const MESSAGE_CHARS: usize = 500;
/// Schemas and values nested deeper are not checked; JSON that is read here never is.
const MAX_CHECKED_DEPTH: usize = 128;
/// Steps back that one match of a pattern may take.
const BACKTRACK_STEPS: usize = 100_000;
/// Bytes of a compiled pattern.
const PATTERN_BYTES: usize = 1_000_000;

/// One way in which an answer does not fit its schema; an entry of `schema_errors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// JSON pointer into the answer; empty for the whole.
    pub path: String,
    /// For people.
    pub message: String,
}

/// How an answer does not fit a schema: empty when it fits, at most 20. A schema that cannot be
/// used, or would take too long, is one entry about the whole.
pub fn schema_errors(schema: &Value, output: &Value) -> Vec<Mismatch> {
    match checked(schema, output) {
        Ok(mismatches) => mismatches,
        Err(reason) => {
            let message = format!("the schema cannot be checked: {reason}");
            vec![Mismatch { path: String::new(), message: cut(&message) }]
        }
    }
}

fn checked(schema: &Value, output: &Value) -> Result<Vec<Mismatch>, String> {
    bounds::check(schema).map_err(|error| error.to_string())?;
    let (schema_depth, _) = bounds::measured(schema);
    let (output_depth, values) = bounds::measured(output);
    if schema_depth.max(output_depth) > MAX_CHECKED_DEPTH {
        return Err(format!("nested deeper than {MAX_CHECKED_DEPTH} levels"));
    }
    effort::check(schema, output, values)?;
    let patterns =
        PatternOptions::fancy_regex().backtrack_limit(BACKTRACK_STEPS).size_limit(PATTERN_BYTES);
    let validator = jsonschema::options()
        .offline()
        .with_pattern_options(patterns)
        .build(schema)
        .map_err(|error| at(&error))?;
    Ok(validator.iter_errors(output).take(MAX_TOLD).map(|error| mismatch(&error)).collect())
}

/// The fault of a schema and where it is.
fn at(error: &ValidationError<'_>) -> String {
    match error.instance_path().as_str() {
        "" => error.to_string(),
        path => format!("{path}: {error}"),
    }
}

fn mismatch(error: &ValidationError<'_>) -> Mismatch {
    Mismatch { path: error.instance_path().to_string(), message: cut(&error.to_string()) }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
