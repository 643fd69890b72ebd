//! `column=op.value`: which rows a binding wants. Pure.
//!
//! Operators: `eq`, `neq`, `lt`, `lte`, `gt`, `gte`, and `in.(a,b)` with up to 100 values, which
//! may be in double quotes. One filter a binding. A null matches nothing, as in SQL.

use std::cmp::Ordering;

use rusqlite::types::Value as Sql;
use serde_json::Value;

use crate::sandbox::store::schema::{Column, Table, Type};
use crate::sandbox::store::value::{self, BadValue};

/// Values in a list at most.
const MOST_VALUES: usize = 100;

/// Why a filter is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FilterError {
    /// Not `column=op.value`.
    #[error("the filter \"{0}\" is not column=op.value")]
    Form(String),
    /// The table has no such column.
    #[error("invalid column for filter {0}")]
    Column(String),
    /// An operator that is not known here.
    #[error("unknown operator {0}: use eq, neq, lt, lte, gt, gte or in")]
    Operator(String),
    /// Values of that type have no order and no text to compare.
    #[error("a filter cannot test the JSON column {0}")]
    Json(&'static str),
    /// The value is not one of the column's type.
    #[error(transparent)]
    Value(#[from] BadValue),
    /// Not `(a,b)`.
    #[error("the values of in must be given as (a,b)")]
    List,
    /// Too many values.
    #[error("a filter takes {MOST_VALUES} values at most")]
    TooMany,
}

/// A condition on one column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Filter {
    column: &'static Column,
    test: Test,
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    Equal(Sql),
    NotEqual(Sql),
    Less(Sql),
    LessOrEqual(Sql),
    Greater(Sql),
    GreaterOrEqual(Sql),
    OneOf(Vec<Sql>),
}

impl Filter {
    /// Reads the text of a filter on `table`.
    pub(super) fn parse(table: &'static Table, text: &str) -> Result<Self, FilterError> {
        let form = || FilterError::Form(text.to_owned());
        let (name, rest) = text.split_once('=').ok_or_else(form)?;
        let (operator, given) = rest.split_once('.').ok_or_else(form)?;
        let column = table.column(name).ok_or_else(|| FilterError::Column(name.to_owned()))?;
        if column.kind == Type::Jsonb {
            return Err(FilterError::Json(column.name));
        }
        let one = || value::from_text(column.kind, given);
        let condition = match operator {
            "eq" => Test::Equal(one()?),
            "neq" => Test::NotEqual(one()?),
            "lt" => Test::Less(one()?),
            "lte" => Test::LessOrEqual(one()?),
            "gt" => Test::Greater(one()?),
            "gte" => Test::GreaterOrEqual(one()?),
            "in" => {
                let values = list(given)?;
                let values = values.iter().map(|text| value::from_text(column.kind, text));
                Test::OneOf(values.collect::<Result<_, _>>()?)
            }
            other => return Err(FilterError::Operator(other.to_owned())),
        };
        Ok(Self { column, test: condition })
    }

    /// Whether a row, as REST shows it, is one of those.
    pub(super) fn matches(&self, row: &Value) -> bool {
        let Some(shown) = row.get(self.column.name) else { return false };
        let Ok(found) = value::from_json(self.column.kind, shown) else { return false };
        let order = |wanted: &Sql| compare(&found, wanted);
        match &self.test {
            Test::Equal(wanted) => order(wanted).is_some_and(Ordering::is_eq),
            Test::NotEqual(wanted) => order(wanted).is_some_and(Ordering::is_ne),
            Test::Less(wanted) => order(wanted).is_some_and(Ordering::is_lt),
            Test::LessOrEqual(wanted) => order(wanted).is_some_and(Ordering::is_le),
            Test::Greater(wanted) => order(wanted).is_some_and(Ordering::is_gt),
            Test::GreaterOrEqual(wanted) => order(wanted).is_some_and(Ordering::is_ge),
            Test::OneOf(all) => all.iter().any(|one| order(one).is_some_and(Ordering::is_eq)),
        }
    }
}

/// `None` when one of them is null.
fn compare(one: &Sql, other: &Sql) -> Option<Ordering> {
    match (one, other) {
        (Sql::Integer(one), Sql::Integer(other)) => Some(one.cmp(other)),
        (Sql::Text(one), Sql::Text(other)) => Some(one.cmp(other)),
        _ => None,
    }
}

/// `(a,"b, c")`: a value is raw up to the next comma, or quoted with `\` before `"` and `\`.
fn list(text: &str) -> Result<Vec<String>, FilterError> {
    let inside = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    let mut rest = inside.ok_or(FilterError::List)?;
    let mut values = Vec::new();
    if rest.is_empty() {
        return Ok(values);
    }
    loop {
        if values.len() == MOST_VALUES {
            return Err(FilterError::TooMany);
        }
        let (value, after) = if let Some(quoted) = rest.strip_prefix('"') {
            unquoted(quoted)?
        } else {
            let (raw, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
            (raw.to_owned(), after)
        };
        values.push(value);
        if after.is_empty() {
            return Ok(values);
        }
        rest = after.strip_prefix(',').ok_or(FilterError::List)?;
    }
}

/// The text up to the closing quote, and what is behind that.
fn unquoted(text: &str) -> Result<(String, &str), FilterError> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next().ok_or(FilterError::List)? {
            '"' => return Ok((value, chars.as_str())),
            '\\' => value.push(chars.next().ok_or(FilterError::List)?),
            char => value.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sandbox::store::schema::Schema;

    const TEAM: &str = "00000000-0000-4000-8000-00000000000a";

    fn parse(text: &str) -> Result<Filter, FilterError> {
        Filter::parse(Schema::built_in().table("gateway_jobs").unwrap(), text)
    }

    fn row() -> Value {
        json!({
            "id": TEAM, "status": "queued", "attempt": 9, "error": null, "payload": {},
            "job_type": "a, b", "created_at": "2025-11-03T09:32:55.1+00:00",
        })
    }

    #[test]
    fn values_are_compared_as_their_column_says() {
        for (text, matches) in [
            ("status=eq.queued", true),
            ("status=eq.Queued", false),
            ("status=neq.running", true),
            ("attempt=eq.9", true),
            ("attempt=lt.10", true),
            ("attempt=lte.9", true),
            ("attempt=gt.9", false),
            ("attempt=gte.+9", true),
            ("created_at=eq.2025-11-03T10:32:55.100+01:00", true),
            ("created_at=lt.2025-11-03T09:32:55.2Z", true),
            ("id=eq.00000000-0000-4000-8000-00000000000A", true),
            ("job_type=eq.a, b", true),
            ("status=in.(running,queued)", true),
            ("status=in.(running)", false),
            ("status=in.()", false),
            (r#"job_type=in.("a, b")"#, true),
            (r#"job_type=in.(x,"a\, b")"#, true),
            ("job_type=in.(a, b)", false),
            ("attempt=in.(1,9)", true),
        ] {
            assert_eq!(parse(text).unwrap().matches(&row()), matches, "{text}");
        }
    }

    #[test]
    fn null_matches_nothing() {
        for text in ["error=eq.null", "error=neq.x", "error=in.(null)", "error=lt.x"] {
            assert!(!parse(text).unwrap().matches(&row()), "{text}");
        }
        assert!(!parse("requested_via=eq.x").unwrap().matches(&row()), "a row that lacks it");
    }

    #[test]
    fn refusals_say_why() {
        for (text, why) in [
            ("", "is not column=op.value"),
            ("status", "is not column=op.value"),
            ("status=queued", "is not column=op.value"),
            ("no_such_col=eq.1", "invalid column for filter no_such_col"),
            ("status=like.q%", "unknown operator like"),
            ("status=not.eq.q", "unknown operator not"),
            ("payload=eq.{}", "JSON column payload"),
            ("attempt=eq.x", "invalid input syntax for type integer: \"x\""),
            ("attempt=eq.2147483648", "out of range"),
            ("attempt=in.(1,x)", "invalid input syntax"),
            ("attempt=in.(1,,2)", "invalid input syntax"),
            ("status=in.a", "must be given as (a,b)"),
            ("status=in.(\"a)", "must be given as (a,b)"),
            ("status=in.(\"a\"b)", "must be given as (a,b)"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_list_has_a_hundred_values_at_most() {
        let list = |count: usize| format!("status=in.({})", vec!["a"; count].join(","));
        assert!(parse(&list(100)).is_ok());
        assert_eq!(parse(&list(101)), Err(FilterError::TooMany));
    }
}
