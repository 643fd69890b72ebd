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
        let test = match operator {
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
        Ok(Self { column, test })
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
        let (value, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (raw, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                (raw.to_owned(), after)
            }
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
