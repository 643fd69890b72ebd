//! Values on their way between JSON or text, as Postgres reads and shows them, and SQLite.

use jiff::Timestamp;
use rusqlite::types::{Value as Sql, ValueRef};
use serde_json::Value;
use uuid::Uuid;

use super::schema::Type;

/// Why a text is no value of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// It does not read as one.
    #[error("invalid input syntax for type {}: \"{text}\"", .kind.sql_name())]
    Syntax {
        /// The type that was wanted.
        kind: Type,
        /// The text.
        text: String,
    },
    /// A whole number, but too large.
    #[error("value \"{text}\" is out of range for type {}", .kind.sql_name())]
    Range {
        /// The type that was wanted.
        kind: Type,
        /// The text.
        text: String,
    },
    /// Postgres stores no U+0000.
    #[error("unsupported Unicode escape sequence")]
    Nul,
}

impl BadValue {
    /// The SQLSTATE.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Syntax { kind: Type::Timestamptz, .. } => "22007",
            Self::Syntax { .. } => "22P02",
            Self::Range { .. } => "22003",
            Self::Nul => "22P05",
        }
    }
}

/// Reads the text form of a value.
pub fn from_text(kind: Type, text: &str) -> Result<Sql, BadValue> {
    if text.contains('\0') {
        return Err(BadValue::Nul);
    }
    let syntax = || BadValue::Syntax { kind, text: text.to_owned() };
    match kind {
        Type::Text => Ok(Sql::Text(text.to_owned())),
        Type::Uuid => {
            let bare = text.trim();
            // `urn:uuid:` is known to the crate, not to Postgres.
            let id = Uuid::parse_str(bare).ok().filter(|_| !bare.starts_with('u'));
            id.map(|id| Sql::Text(id.to_string())).ok_or_else(syntax)
        }
        Type::Int4 | Type::Int8 => whole_number(kind, text),
        Type::Bool => match text.trim().to_ascii_lowercase().as_str() {
            "t" | "true" | "y" | "yes" | "on" | "1" => Ok(Sql::Integer(1)),
            "f" | "false" | "n" | "no" | "off" | "0" => Ok(Sql::Integer(0)),
            _ => Err(syntax()),
        },
        Type::Timestamptz => {
            let at: Timestamp = text.trim().parse().map_err(|_| syntax())?;
            Ok(Sql::Integer(to_micros(at)))
        }
        Type::Jsonb => {
            let value: Value = serde_json::from_str(text).map_err(|_| syntax())?;
            from_json(kind, &value)
        }
    }
}

fn whole_number(kind: Type, text: &str) -> Result<Sql, BadValue> {
    let digits = text.trim();
    let bare = digits.strip_prefix(['-', '+']).unwrap_or(digits);
    if bare.is_empty() || !bare.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadValue::Syntax { kind, text: text.to_owned() });
    }
    let number = digits.parse::<i64>().ok();
    let number = number.filter(|number| kind == Type::Int8 || i32::try_from(*number).is_ok());
    number.map(Sql::Integer).ok_or_else(|| BadValue::Range { kind, text: text.to_owned() })
}

/// Reads a field of a JSON body. Null is NULL; for other columns than JSON a scalar's text counts,
/// so `"5"` is a number and `5` is a text.
pub fn from_json(kind: Type, value: &Value) -> Result<Sql, BadValue> {
    match (kind, value) {
        (_, Value::Null) => Ok(Sql::Null),
        (Type::Jsonb, _) => {
            if has_nul(value) {
                return Err(BadValue::Nul);
            }
            Ok(Sql::Text(value.to_string()))
        }
        (_, Value::String(text)) => from_text(kind, text),
        (_, Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            from_text(kind, &value.to_string())
        }
    }
}

/// Whether a name or text in it holds U+0000.
pub fn has_nul(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value))
        }
    }
}

/// Shows a stored value as JSON.
pub fn to_json(kind: Type, value: ValueRef<'_>) -> Value {
    match (kind, value) {
        (Type::Bool, ValueRef::Integer(number)) => Value::Bool(number != 0),
        (Type::Timestamptz, ValueRef::Integer(micros)) => Value::String(time(micros, 'T', ":00")),
        (_, ValueRef::Integer(number)) => Value::from(number),
        (_, ValueRef::Real(number)) => Value::from(number),
        (Type::Jsonb, ValueRef::Text(text)) => serde_json::from_slice(text)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(text).into_owned())),
        (_, ValueRef::Text(text)) => Value::String(String::from_utf8_lossy(text).into_owned()),
        (_, ValueRef::Null | ValueRef::Blob(_)) => Value::Null,
    }
}

/// Shows a stored value as `::text` does.
pub fn to_text(kind: Type, value: ValueRef<'_>) -> Value {
    match (kind, value) {
        (_, ValueRef::Null) => Value::Null,
        (Type::Timestamptz, ValueRef::Integer(micros)) => Value::String(time(micros, ' ', "")),
        (Type::Jsonb, ValueRef::Text(text)) => {
            Value::String(String::from_utf8_lossy(text).into_owned())
        }
        (_, value) => {
            let shown = to_json(kind, value);
            if shown.is_string() { shown } else { Value::String(shown.to_string()) }
        }
    }
}

/// The server's time as it is stored.
pub fn now() -> i64 {
    to_micros(Timestamp::now())
}

fn to_micros(at: Timestamp) -> i64 {
    // Postgres rounds to microseconds, it does not cut.
    let nanos = at.as_nanosecond() + 500;
    i64::try_from(nanos.div_euclid(1000)).unwrap_or(i64::MAX)
}

/// `2025-11-03T09:32:55.123456+00:00`: the fraction without its trailing zeros, absent when zero.
fn time(micros: i64, between: char, minutes: &str) -> String {
    let Ok(at) = Timestamp::from_microsecond(micros) else {
        return "infinity".to_owned();
    };
    let date = at.to_zoned(jiff::tz::TimeZone::UTC).datetime();
    let mut text = format!(
        "{:04}-{:02}-{:02}{between}{:02}:{:02}:{:02}",
        date.year(),
        date.month(),
        date.day(),
        date.hour(),
        date.minute(),
        date.second()
    );
    let fraction = micros.rem_euclid(1_000_000);
    if fraction != 0 {
        let digits = format!("{fraction:06}");
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text + "+00" + minutes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(text: &str) -> Value {
        let stored = from_text(Type::Timestamptz, text).unwrap();
        to_json(Type::Timestamptz, (&stored).into())
    }

    #[test]
    fn times_are_shown_as_postgres_does() {
        for (input, output) in [
            ("2025-11-03T09:32:55Z", "2025-11-03T09:32:55+00:00"),
            ("2025-11-03T09:32:55.100Z", "2025-11-03T09:32:55.1+00:00"),
            ("2025-11-03T10:32:55.123456+01:00", "2025-11-03T09:32:55.123456+00:00"),
            ("2025-11-03T09:32:55.000001Z", "2025-11-03T09:32:55.000001+00:00"),
            ("2025-11-03T09:32:55.9999996Z", "2025-11-03T09:32:56+00:00"),
            ("1969-12-31T23:59:59.25Z", "1969-12-31T23:59:59.25+00:00"),
        ] {
            assert_eq!(shown(input), output, "{input}");
        }
        let stored = from_text(Type::Timestamptz, "2025-11-03T09:32:55.1Z").unwrap();
        let text = to_text(Type::Timestamptz, (&stored).into());
        assert_eq!(text, "2025-11-03 09:32:55.1+00");
    }

    #[test]
    fn a_plus_that_was_not_encoded_is_a_bad_time() {
        let error = from_text(Type::Timestamptz, "2025-11-03T09:32:55.1 00:00").unwrap_err();
        assert_eq!(error.code(), "22007");
    }

    #[test]
    fn bad_values_have_the_codes_of_postgres() {
        for (kind, text, code) in [
            (Type::Uuid, "notauuid", "22P02"),
            (Type::Uuid, "urn:uuid:67e55044-10b1-426f-9247-bb680e5fe0c8", "22P02"),
            (Type::Int4, "2147483648", "22003"),
            (Type::Int8, "9223372036854775808", "22003"),
            (Type::Int8, "1.0", "22P02"),
            (Type::Int8, "", "22P02"),
            (Type::Bool, "maybe", "22P02"),
            (Type::Jsonb, "{", "22P02"),
            (Type::Text, "a\0b", "22P05"),
            (Type::Jsonb, "\"\\u0000\"", "22P05"),
        ] {
            assert_eq!(from_text(kind, text).unwrap_err().code(), code, "{kind:?} {text}");
        }
    }

    #[test]
    fn scalars_of_json_are_read_by_their_text() {
        assert_eq!(from_json(Type::Int8, &json!("-5")), Ok(Sql::Integer(-5)));
        assert_eq!(from_json(Type::Text, &json!(5)), Ok(Sql::Text("5".into())));
        assert_eq!(from_json(Type::Bool, &json!(true)), Ok(Sql::Integer(1)));
        assert_eq!(from_json(Type::Jsonb, &json!("x")), Ok(Sql::Text("\"x\"".into())));
        assert_eq!(from_json(Type::Jsonb, &Value::Null), Ok(Sql::Null));
        let id = from_json(Type::Uuid, &json!("67E55044-10B1-426F-9247-BB680E5FE0C8"));
        assert_eq!(id, Ok(Sql::Text("67e55044-10b1-426f-9247-bb680e5fe0c8".into())));
    }
}
