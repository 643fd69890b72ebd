//! JSON at the border: lenient about what comes in, clean about what goes out.
//!
//! JavaScript writes lone surrogate escapes and hosts write invalid UTF-8, both of which
//! `serde_json` refuses; Postgres refuses U+0000 in every text. All three become U+FFFD.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// Values nested deeper than this are refused.
pub const MAX_DEPTH: usize = 127;

/// Why a text is not taken as JSON. Never quotes the text: it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Nested too deep to be read safely.
    #[error("JSON nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// It ends in the middle.
    #[error("JSON that ends in the middle")]
    Incomplete,
    /// Not JSON.
    #[error("not JSON (line {line}, column {column})")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1, bytes.
        column: usize,
    },
}

/// Reads JSON; lone surrogate escapes and invalid UTF-8 become U+FFFD. Linear in the text.
pub fn parse_json(bytes: &[u8]) -> Result<Value, JsonError> {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if depth(text) > MAX_DEPTH {
        return Err(JsonError::TooDeep);
    }
    serde_json::from_str(&replace_lone_surrogates(text)).map_err(|error| {
        if error.is_eof() {
            JsonError::Incomplete
        } else {
            JsonError::Syntax { line: error.line(), column: error.column() }
        }
    })
}

/// Replaces U+0000 by U+FFFD in every string and key. Of keys that become equal the last wins.
pub fn clean_json(value: &mut Value) {
    match value {
        Value::String(text) => clean_text(text),
        Value::Array(items) => items.iter_mut().for_each(clean_json),
        Value::Object(fields) => {
            if fields.keys().any(|key| key.contains('\0')) {
                *fields = std::mem::take(fields)
                    .into_iter()
                    .map(|(key, value)| (key.replace('\0', "\u{fffd}"), value))
                    .collect::<Map<_, _>>();
            }
            fields.values_mut().for_each(clean_json);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn clean_text(text: &mut String) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
}

/// Serializes for the wire, without U+0000. Large values are copied only when they hold one.
pub(super) fn to_clean_body(body: &impl serde::Serialize) -> Result<String, serde_json::Error> {
    let text = to_exact_string(body)?;
    // An escaped backslash before `u0000` looks the same here; cleaning is then merely idle.
    if !text.contains("\\u0000") {
        return Ok(text);
    }
    let mut value = serde_json::to_value(body)?;
    clean_json(&mut value);
    serde_json::to_string(&value)
}

/// [`serde_json::to_string`] in one allocation of the right size: a result of megabytes would
/// otherwise grow its text to nearly twice of it, which the process keeps.
pub(crate) fn to_exact_string(body: &impl serde::Serialize) -> Result<String, serde_json::Error> {
    let mut length = Length(0);
    serde_json::to_writer(&mut length, body)?;
    let mut text = Vec::with_capacity(length.0);
    serde_json::to_writer(&mut text, body)?;
    String::from_utf8(text).map_err(serde::ser::Error::custom)
}

/// Counts what is written.
struct Length(usize);

impl std::io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The deepest nesting of brackets outside strings.
fn depth(text: &str) -> usize {
    let (mut deepest, mut now) = (0usize, 0usize);
    let mut bytes = text.bytes();
    let mut in_string = false;
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if in_string => {
                bytes.next();
            }
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' if !in_string => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Rewrites `\uD800`..`\uDFFF` escapes that are not half of a pair.
fn replace_lone_surrogates(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut rewritten = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find('\\') {
        let escape = at + found;
        match unicode_escape(bytes, escape) {
            Some(0xD800..=0xDBFF)
                if matches!(unicode_escape(bytes, escape + 6), Some(0xDC00..=0xDFFF)) =>
            {
                at = escape + 12;
            }
            Some(0xD800..=0xDFFF) => {
                rewritten.push_str(&text[copied..escape]);
                rewritten.push_str("\\ufffd");
                at = escape + 6;
                copied = at;
            }
            Some(_) => at = escape + 6,
            // A two-character escape; the second may be a backslash and must not start another.
            None => {
                at = escape + 1;
                at += text[at..].chars().next().map_or(0, char::len_utf8);
            }
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    rewritten.push_str(&text[copied..]);
    Cow::Owned(rewritten)
}

/// The code unit of a `\uXXXX` that starts at `at`.
fn unicode_escape(bytes: &[u8], at: usize) -> Option<u16> {
    let escape = bytes.get(at..at + 6)?;
    let digits = escape.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0u16, |unit, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(digit).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn lone_surrogates_are_replaced_and_pairs_are_kept() {
        for (text, wanted) in [
            (r#"["\ud800"]"#, json!(["\u{fffd}"])),
            (r#"["\udc00\ud800"]"#, json!(["\u{fffd}\u{fffd}"])),
            (r#"["\uD83D\uDE00\ud83d"]"#, json!(["😀\u{fffd}"])),
            (r#"["\ud83d\ud83d\ude00"]"#, json!(["\u{fffd}😀"])),
            (r#"["\\ud800\ud800"]"#, json!(["\\ud800\u{fffd}"])),
            (r#"{"\ud800k": "\ud800\n"}"#, json!({"\u{fffd}k": "\u{fffd}\n"})),
            (r#"["\\\ud800"]"#, json!(["\\\u{fffd}"])),
        ] {
            assert_eq!(parse_json(text.as_bytes()), Ok(wanted), "{text}");
        }
        assert_eq!(parse_json(b"[\"a\xff\"]"), Ok(json!(["a\u{fffd}"])));
        assert_eq!(parse_json("\u{feff}[1]".as_bytes()), Ok(json!([1])));
    }

    #[test]
    fn numbers_come_back_as_they_were() {
        for number in ["8.8888833333333e+46", "1.1111111211111111e+58", "0.1", "1e-7", "5e-324"] {
            let once = parse_json(number.as_bytes()).unwrap();
            assert_eq!(once.as_f64(), number.parse().ok(), "{number}");
            assert_eq!(parse_json(once.to_string().as_bytes()), Ok(once), "{number}");
        }
    }

    #[test]
    fn what_is_not_json_is_named() {
        assert_eq!(parse_json(b"[1,"), Err(JsonError::Incomplete));
        assert_eq!(parse_json(b""), Err(JsonError::Incomplete));
        assert_eq!(parse_json(b"<html>"), Err(JsonError::Syntax { line: 1, column: 1 }));
        assert!(parse_json(br#"["\ud8"]"#).is_err());
        assert!(parse_json(br#"["\"#).is_err());
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse_json(deep(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(parse_json(deep(MAX_DEPTH + 1).as_bytes()), Err(JsonError::TooDeep));
        assert_eq!(parse_json("[".repeat(1_000_000).as_bytes()), Err(JsonError::TooDeep));
    }

    #[test]
    fn a_body_is_cleaned_in_keys_and_strings() {
        let body = json!({"a\0": ["x\0y", {"b\0\0": 1}], "plain": "\\u0000"});
        let sent = to_clean_body(&body).unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&sent).unwrap(),
            json!({"a\u{fffd}": ["x\u{fffd}y", {"b\u{fffd}\u{fffd}": 1}], "plain": "\\u0000"})
        );
    }

    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<u16>().prop_map(|unit| format!("\\u{unit:04x}")),
            (0xD800u16..0xE000).prop_map(|unit| format!("\\u{unit:04X}")),
            prop::sample::select(vec!["\\\\", "\\\"", "\\n", "\\/", "u", "d800", "[", "é", "😀"])
                .prop_map(str::to_owned),
        ]
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let text = prop::collection::vec(prop::sample::select(vec!['\0', 'a', '\\', 'u']), 0..6)
            .prop_map(|chars| chars.into_iter().collect::<String>());
        let leaf =
            prop_oneof![text.clone().prop_map(Value::from), any::<i64>().prop_map(Value::from)];
        leaf.prop_recursive(4, 32, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((text.clone(), inner), 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_text_with_surrogate_escapes_parses(pieces in prop::collection::vec(piece(), 0..20)) {
            let text = format!("{{\"{0}\": [\"{0}\"]}}", pieces.concat());
            prop_assert!(parse_json(text.as_bytes()).is_ok(), "{text}");
        }

        #[test]
        fn what_serde_reads_is_read_the_same(text in ".*") {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                prop_assert_eq!(parse_json(text.as_bytes()), Ok(value));
            }
        }

        #[test]
        fn any_bytes_are_an_answer_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut quoted = b"[\"".to_vec();
            quoted.extend(&bytes);
            let _ = parse_json(&bytes);
            let _ = parse_json(&quoted);
        }

        #[test]
        fn no_nul_survives(value in any_value()) {
            let sent = to_clean_body(&value).unwrap();
            let mut cleaned = value;
            clean_json(&mut cleaned);
            prop_assert_eq!(&serde_json::from_str::<Value>(&sent).unwrap(), &cleaned);
            prop_assert!(!has_nul(&cleaned));
        }
    }

    fn has_nul(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(items) => items.iter().any(has_nul),
            Value::Object(fields) => {
                fields.iter().any(|(key, value)| key.contains('\0') || has_nul(value))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
}
