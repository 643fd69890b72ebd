//! SQL functions that SQLite lacks or understands otherwise than Postgres.
//!
//! `pg_like(text, pattern)` and `pg_ilike(text, pattern)`; `pg_json(json, steps)` and
//! `pg_json_text(json, steps)` are `->` and `->>` along a path, a JSON array of keys and indexes.

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value as Sql, ValueRef};
use rusqlite::{Connection, Result};
use serde_json::Value;

use super::limit::TimeLimit;

/// Steps of a match between two looks at the clock.
const STEPS: u32 = 1 << 16;

/// Adds the functions to a connection.
pub(super) fn register(connection: &Connection, limit: &TimeLimit) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    let clock = || limit.clone();
    let time = clock();
    connection
        .create_scalar_function("pg_like", 2, flags, move |context| like(context, false, &time))?;
    let time = clock();
    connection
        .create_scalar_function("pg_ilike", 2, flags, move |context| like(context, true, &time))?;
    let time = clock();
    connection.create_scalar_function("pg_json", 2, flags, move |context| {
        time.check()?;
        Ok(at_path(context).map(|value| Sql::Text(value.to_string())))
    })?;
    let time = clock();
    connection.create_scalar_function("pg_json_text", 2, flags, move |context| {
        time.check()?;
        Ok(at_path(context).and_then(|value| match value {
            Value::Null => None,
            Value::String(text) => Some(text),
            other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Some(other.to_string())
            }
        }))
    })
}

fn like(context: &Context<'_>, ignore_case: bool, time: &TimeLimit) -> Result<Option<bool>> {
    let (ValueRef::Text(text), ValueRef::Text(pattern)) = (context.get_raw(0), context.get_raw(1))
    else {
        return Ok(None);
    };
    let fold = |bytes: &[u8]| -> Vec<char> {
        let text = String::from_utf8_lossy(bytes);
        if ignore_case { text.to_lowercase().chars().collect() } else { text.chars().collect() }
    };
    matches(&fold(text), &fold(pattern), || time.check()).map(Some)
}

/// LIKE: `%` is any run, `_` any character, `\` takes the next one literally. Goes back to the last
/// `%` only, which suffices and bounds the work to the product of the lengths; asks now and then
/// whether it may go on.
fn matches(
    text: &[char],
    pattern: &[char],
    mut may_go_on: impl FnMut() -> Result<()>,
) -> Result<bool> {
    let (mut at, mut in_pattern) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    let mut steps = 0_u32;
    loop {
        steps = steps.wrapping_add(1);
        if steps.is_multiple_of(STEPS) {
            may_go_on()?;
        }
        let step = match pattern.get(in_pattern) {
            Some('%') => {
                in_pattern += 1;
                retry = Some((in_pattern, at));
                continue;
            }
            None if at == text.len() => return Ok(true),
            None => None,
            Some('_') => text.get(at).map(|_| 1),
            Some('\\') if in_pattern + 1 < pattern.len() => {
                (text.get(at) == pattern.get(in_pattern + 1)).then_some(2)
            }
            Some(wanted) => (text.get(at) == Some(wanted)).then_some(1),
        };
        if let Some(step) = step {
            at += 1;
            in_pattern += step;
            continue;
        }
        match retry {
            Some((after, from)) if from < text.len() => {
                retry = Some((after, from + 1));
                (in_pattern, at) = (after, from + 1);
            }
            _ => return Ok(false),
        }
    }
}

fn at_path(context: &Context<'_>) -> Option<Value> {
    let (ValueRef::Text(json), ValueRef::Text(steps)) = (context.get_raw(0), context.get_raw(1))
    else {
        return None;
    };
    let mut value: Value = serde_json::from_slice(json).ok()?;
    let steps: Vec<Value> = serde_json::from_slice(steps).ok()?;
    for step in steps {
        value = match (&mut value, step) {
            (Value::Object(fields), Value::String(key)) => fields.get_mut(&key)?.take(),
            (Value::Array(items), Value::Number(index)) => {
                let place = place(index.as_i64()?, items.len())?;
                items.get_mut(place)?.take()
            }
            _ => return None,
        };
    }
    Some(value)
}

/// A negative index counts from the end.
fn place(index: i64, len: usize) -> Option<usize> {
    let back = usize::try_from(index.unsigned_abs()).ok()?;
    if index < 0 { len.checked_sub(back) } else { Some(back) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like(text: &str, pattern: &str) -> bool {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        matches(&chars(text), &chars(pattern), || Ok(())).unwrap()
    }

    #[test]
    fn patterns_match_as_in_postgres() {
        for (text, pattern, expected) in [
            ("abc", "abc", true),
            ("abc", "a%", true),
            ("abc", "%c", true),
            ("abc", "%b%", true),
            ("abc", "a_c", true),
            ("abc", "a_", false),
            ("abc", "ABC", false),
            ("", "%", true),
            ("", "_", false),
            ("a%c", "a\\%c", true),
            ("abc", "a\\%c", false),
            ("aXbXc", "%X%c", true),
            ("aab", "%ab", true),
            ("ünï", "_n_", true),
            ("a\\", "a\\", true),
        ] {
            assert_eq!(like(text, pattern), expected, "{text} like {pattern}");
        }
        assert!(!like(&"a".repeat(2000), &"%a".repeat(20).replace("%a%a", "%a%b")));
    }

    #[test]
    fn paths_are_walked_as_in_postgres() {
        let connection = Connection::open_in_memory().unwrap();
        register(&connection, &TimeLimit::new()).unwrap();
        let get = |function: &str, path: &str| -> Option<String> {
            let json = r#"{"a":[1,{"b":"x"}],"0":true,"n":null,"q\"k":1.50}"#;
            let sql = format!("SELECT {function}(?1, ?2)");
            connection.query_row(&sql, [json, path], |row| row.get(0)).unwrap()
        };
        assert_eq!(get("pg_json", r#"["a",-1]"#).as_deref(), Some(r#"{"b":"x"}"#));
        assert_eq!(get("pg_json_text", r#"["a",1,"b"]"#).as_deref(), Some("x"));
        assert_eq!(get("pg_json", r#"["n"]"#).as_deref(), Some("null"));
        assert_eq!(get("pg_json_text", r#"["n"]"#), None);
        assert_eq!(get("pg_json_text", r#"["0"]"#).as_deref(), Some("true"));
        assert_eq!(get("pg_json_text", r"[0]"), None);
        assert_eq!(get("pg_json_text", r#"["a",-3]"#), None);
        assert_eq!(get("pg_json_text", r#"["q\"k"]"#).as_deref(), Some("1.5"));
    }
}
