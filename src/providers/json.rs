//! Finds JSON in what CLIs and models print: among warnings, in a fenced block, or within prose.
//!
//! Linear in the text: attempts to parse share a budget of bytes.

use serde_json::{Deserializer, Map, Value};

use crate::backend::json::parse_json;

/// Bytes that attempts may read together, in lengths of the text, and whatever its length.
const BUDGET: (usize, usize) = (8, 64 * 1024);
/// What an attempt costs at least, in bytes.
const ATTEMPT: usize = 32;

/// The object that a text is or holds: the whole text, else the contents of a fenced block, else
/// the first line that is an object, else the first balanced `{…}` that parses.
pub fn find_object(text: &str) -> Option<Map<String, Value>> {
    let text = text.trim();
    object(text)
        .or_else(|| fenced(text).and_then(object))
        .or_else(|| text.lines().find_map(|line| object(line.trim())))
        .or_else(|| first_balanced(text))
}

/// The objects that the lines of a text are, in order; other lines are left out.
pub fn objects(text: &str) -> impl Iterator<Item = Map<String, Value>> + '_ {
    text.lines().filter_map(|line| object(line.trim()))
}

/// A text without the code fence around it, if it is one fenced block.
pub fn unfenced(text: &str) -> &str {
    let text = text.trim();
    fenced(text).filter(|_| text.starts_with("```") && text.ends_with("```")).unwrap_or(text)
}

/// The object that the whole text is.
pub fn object(text: &str) -> Option<Map<String, Value>> {
    if !(text.starts_with('{') && text.ends_with('}')) {
        return None;
    }
    match parse_json(text.as_bytes()) {
        Ok(Value::Object(object)) => Some(object),
        Ok(_) | Err(_) => None,
    }
}

/// What stands between the first fence and the next one.
pub fn fenced(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("```")?;
    let (_language, rest) = rest.split_once('\n')?;
    let (block, _) = rest.split_once("```")?;
    Some(block.trim())
}

fn first_balanced(text: &str) -> Option<Map<String, Value>> {
    let mut budget = text.len().saturating_mul(BUDGET.0).saturating_add(BUDGET.1);
    let mut from = 0;
    while let Some(found) = text.get(from..)?.find('{') {
        let start = from + found;
        let rest = text.get(start..)?;
        match Deserializer::from_str(rest).into_iter::<Map<String, Value>>().next()? {
            Ok(object) => return Some(object),
            Err(error) => {
                budget = budget.checked_sub(read_until(rest, &error).max(ATTEMPT))?;
                from = start + 1;
            }
        }
    }
    None
}

/// How many bytes were read before the error.
fn read_until(text: &str, error: &serde_json::Error) -> usize {
    let lines = text.split_inclusive('\n').take(error.line().saturating_sub(1));
    lines.map(str::len).sum::<usize>() + error.column().max(1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(text: &str) -> Value {
        find_object(text).map_or(Value::Null, Value::Object)
    }

    #[test]
    fn objects_are_found_wherever_they_stand() {
        for text in [
            r#"{"a":1}"#,
            "  {\"a\":\n1}\n",
            "Here:\n```json\n{\"a\": 1}\n```\nDone {not json}",
            "warning: x\n{\"a\":1}\nmore",
            "The {answer} is {\"a\": 1}, see {\"b\": 2}.",
            "{ broken {\"a\":1}",
        ] {
            assert_eq!(found(text), json!({"a": 1}), "{text}");
        }
        for text in ["", "{", "[1]", "no", "```\nno\n```", "{]", "{{{{"] {
            assert_eq!(found(text), Value::Null, "{text}");
        }
    }

    #[test]
    fn what_only_javascript_takes_is_taken() {
        assert_eq!(found(r#"{"a":"\ud800"}"#), json!({"a": "\u{fffd}"}));
    }

    #[test]
    fn hostile_texts_cost_no_more_than_their_length() {
        for part in ["{", "{\"a\":", "{\"a\":\"", "```", "{\"a\":[", "{\n"] {
            let text = part.repeat(200_000 / part.len());
            assert_eq!(found(&text), Value::Null, "{part}");
        }
    }

    #[test]
    fn fences_are_taken_off_whole_blocks_only() {
        assert_eq!(unfenced("```json\n{\"a\":1}\n```"), "{\"a\":1}");
        assert_eq!(unfenced("a ```b\nc\n``` d"), "a ```b\nc\n``` d");
        assert_eq!(unfenced(" plain "), "plain");
    }
}
