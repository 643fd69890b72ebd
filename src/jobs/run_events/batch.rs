//! What goes into one insert, and whether rows of the table are ours.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::spool::Line;
use crate::backend::json::{clean_json, to_exact_string};

/// Most rows of one insert.
pub(super) const MAX_ROWS: usize = 50;
/// Most bytes of one insert's payloads; a larger event goes alone.
pub(super) const MAX_BYTES: usize = 512 * 1024;
/// A payload of more characters, as JSON, is cut.
const MAX_CHARACTERS: usize = 200_000;

/// How many of the first events make one insert of at most `limit` rows.
pub(super) fn length(ahead: &VecDeque<Arc<Line>>, limit: usize) -> usize {
    let mut bytes = 0usize;
    let fits = |line: &&Arc<Line>| {
        bytes = bytes.saturating_add(line.size);
        bytes <= MAX_BYTES
    };
    ahead.iter().take(limit).take_while(fits).count().max(1).min(ahead.len())
}

/// Whether there is enough for an insert that is as large as one may be.
pub(super) fn is_full(ahead: &VecDeque<Arc<Line>>) -> bool {
    ahead.len() >= MAX_ROWS || ahead.iter().map(|line| line.size).sum::<usize>() >= MAX_BYTES
}

/// How many of the first `lines` are in the table at `first` and the numbers after it.
pub(super) fn found(lines: &[Arc<Line>], first: i64, rows: &[Value]) -> usize {
    let numbers = first..;
    lines
        .iter()
        .zip(rows)
        .zip(numbers)
        .take_while(|((line, row), number)| {
            row.get("sequence").and_then(Value::as_i64) == Some(*number)
                && row.get("event_type").and_then(Value::as_str) == Some(&line.event_type)
                && row.get("payload").is_some_and(|payload| same(payload, &line.payload))
        })
        .count()
}

/// Equal as values: the database orders keys anew and may write numbers otherwise.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.as_f64() == other.as_f64()
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, value)| other.get(key).is_some_and(|other| same(value, other)))
        }
        (one, other) => one == other,
    }
}

/// A payload as JSON that the table takes: without U+0000, and cut when it is too long.
pub(super) fn shape(payload: Value) -> Result<String, serde_json::Error> {
    let mut payload = payload;
    clean_json(&mut payload);
    let text = to_exact_string(&payload)?;
    drop(payload);
    let Some(preview) = first_characters(&text, MAX_CHARACTERS) else { return Ok(text) };
    let mut cut = Map::new();
    cut.insert("truncated".into(), json!(true));
    cut.insert("original_bytes".into(), json!(text.len()));
    cut.insert("preview".into(), json!(preview));
    to_exact_string(&cut)
}

/// The first characters of a text that has more of them.
fn first_characters(text: &str, most: usize) -> Option<&str> {
    if text.len() <= most {
        return None;
    }
    text.char_indices().nth(most).and_then(|(end, _)| text.get(..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(index: u64, payload: Value, size: usize) -> Arc<Line> {
        Arc::new(Line { index, event_type: "message".into(), payload, size })
    }

    #[test]
    fn an_insert_is_bounded_in_rows_and_bytes_and_never_empty() {
        let of = |sizes: &[usize]| -> VecDeque<_> {
            sizes.iter().map(|size| line(0, json!({}), *size)).collect()
        };
        assert_eq!(length(&of(&[]), MAX_ROWS), 0);
        assert_eq!(length(&of(&[1; 80]), MAX_ROWS), MAX_ROWS);
        assert_eq!(length(&of(&[1; 80]), 3), 3);
        assert_eq!(length(&of(&[MAX_BYTES + 1, 1]), MAX_ROWS), 1, "alone");
        assert_eq!(length(&of(&[1, MAX_BYTES, 1]), MAX_ROWS), 1, "not with others");
        assert_eq!(length(&of(&[MAX_BYTES / 2; 5]), MAX_ROWS), 2);
    }

    #[test]
    fn rows_are_ours_as_far_as_they_say_the_same() {
        let lines = [
            line(7, json!({"a": 1.0, "b": {"x": [1, "é"], "y": null}}), 1),
            line(8, json!({"n": 2}), 1),
        ];
        let row = |sequence: i64, payload: Value| json!({"sequence": sequence, "event_type": "message", "payload": payload});
        let first = || row(3, json!({"b": {"y": null, "x": [1.0, "é"]}, "a": 1}));
        assert_eq!(found(&lines, 3, &[first(), row(4, json!({"n": 2}))]), 2);
        assert_eq!(found(&lines, 3, &[first(), row(4, json!({"n": 3}))]), 1);
        assert_eq!(found(&lines, 3, &[first(), row(5, json!({"n": 2}))]), 1, "a gap");
        assert_eq!(found(&lines, 3, &[]), 0);
        assert_eq!(found(&lines, 2, &[first()]), 0, "another number");
        let mut other = first();
        other["event_type"] = json!("system");
        assert_eq!(found(&lines, 3, &[other]), 0);
        for payload in [json!({"a": 1}), json!({"a": 1, "b": {"x": [1], "y": null}}), json!(null)] {
            assert_eq!(found(&lines, 3, &[row(3, payload)]), 0);
        }
    }

    #[test]
    fn what_is_too_long_becomes_a_preview_of_whole_characters() {
        let text = |length: usize| json!({"t": "é".repeat(length)});
        let fits = shape(text(MAX_CHARACTERS - 8)).unwrap();
        assert_eq!(fits.chars().count(), MAX_CHARACTERS);
        assert!(fits.starts_with(r#"{"t":"é"#));
        let cut: Value = serde_json::from_str(&shape(text(MAX_CHARACTERS - 7)).unwrap()).unwrap();
        assert_eq!(cut["truncated"], true);
        assert_eq!(cut["original_bytes"], 2 * (MAX_CHARACTERS - 7) + 8);
        let preview = cut["preview"].as_str().unwrap();
        assert_eq!(preview.chars().count(), MAX_CHARACTERS);
        assert!(preview.ends_with('"'), "only the last character is gone");
        assert_eq!(cut.as_object().unwrap().len(), 3);
        assert_eq!(shape(json!({"a\0": "b\0"})).unwrap(), "{\"a\u{fffd}\":\"b\u{fffd}\"}");
    }
}
