//! What a model's last words are: JSON, or prose.

use serde_json::{Map, Value};

use super::{AgentOutcome, ContentType, Envelope};
use crate::backend::json::parse_json;
use crate::providers::Failure;
use crate::providers::json::fenced;

/// A model's answer as it is shown: the JSON inside it, else the text as markdown.
pub fn envelope(text: &str) -> Envelope {
    match json_inside(text) {
        Some(value) => Envelope::new(value, ContentType::Json),
        None => Envelope::new(text.into(), ContentType::Markdown),
    }
}

/// The object or list that a text is or holds: the whole text, else the first fenced block, else
/// from the first `{` to the last `}`, else from the first `[` to the last `]`. A text whose fenced
/// block is something else is prose with code in it, whatever its braces hold.
pub fn json_inside(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Some(whole) = container(text) {
        return Some(whole);
    }
    match fenced(text) {
        Some(block) => container(block),
        None => [('{', '}'), ('[', ']')]
            .into_iter()
            .find_map(|(open, close)| container(between(text, open, close)?)),
    }
}

/// What a run of a CLI that continues no session came to: `usage`, unless null, is all of its
/// metadata. Prose is an answer even when JSON was wanted, but not without a word about it.
pub fn outcome(result: Result<Envelope, Failure>, usage: &Value, wants_json: bool) -> AgentOutcome {
    let is_prose = |envelope: &Envelope| envelope.content_type == ContentType::Markdown;
    let missing = wants_json && result.as_ref().is_ok_and(is_prose);
    let usage = (!usage.is_null()).then(|| ("usage".to_owned(), usage.clone()));
    AgentOutcome {
        result,
        metadata: usage.into_iter().collect::<Map<_, _>>(),
        parse_error: missing.then(|| "the answer holds no JSON".to_owned()),
    }
}

fn container(text: &str) -> Option<Value> {
    if !text.starts_with(['{', '[']) {
        return None;
    }
    parse_json(text.as_bytes()).ok()
}

/// From the first `open` to the last `close`.
fn between(text: &str, open: char, close: char) -> Option<&str> {
    text.get(text.find(open)?..=text.rfind(close)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_found_where_it_is_all_that_counts() {
        for (text, value) in [
            (r#"{"a":1}"#, json!({"a": 1})),
            (" [1, 2]\n", json!([1, 2])),
            ("Sure:\n```json\n{\"a\": 1}\n```\nThat is {all}.", json!({"a": 1})),
            ("```\n[1]\n```", json!([1])),
            ("It is {\"a\": {\"b\": 2}}, I think.", json!({"a": {"b": 2}})),
            (r#"[{"a":1}]"#, json!([{"a": 1}])),
            ("{\n\"a\": \"```\",\n\"b\": \"```\"\n}", json!({"a": "```", "b": "```"})),
            (r#"[{"a":1},{"a":2}]"#, json!([{"a": 1}, {"a": 2}])),
            (r#"The list: [{"a":1},{"a":2}]."#, json!([{"a": 1}, {"a": 2}])),
            ("{\"code\": \"```sh\\nls\\n```\"}", json!({"code": "```sh\nls\n```"})),
        ] {
            assert_eq!(json_inside(text), Some(value.clone()), "{text}");
            let envelope = envelope(text);
            assert_eq!((envelope.content, envelope.content_type), (value, ContentType::Json));
        }
    }

    #[test]
    fn prose_stays_as_it_is() {
        for text in [
            "",
            "hello",
            "42",
            "\"quoted\"",
            "null",
            "a {b} c",
            "}{ ][",
            "{\"a\":1} and {\"b\":2}",
            "```sh\nls\n```\nIt printed {\"a\":1}",
            "```json\n{broken\n```",
        ] {
            assert_eq!(json_inside(text), None, "{text}");
            let envelope = envelope(text);
            assert_eq!(envelope.content, text);
            assert_eq!(envelope.content_type, ContentType::Markdown);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_one_of_both(text in "[\\[\\]{}`\"a1:,\n é]{0,40}") {
            let envelope = envelope(&text);
            match envelope.content_type {
                ContentType::Json => prop_assert!(!envelope.content.is_string()),
                ContentType::Markdown => prop_assert_eq!(envelope.content, text),
                ContentType::Text => prop_assert!(false),
            }
        }
    }
}
