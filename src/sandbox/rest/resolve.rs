//! A parsed query against a table's definition: names become columns, texts become values.

use rusqlite::types::Value as Sql;
use serde_json::Value;

use super::error::RestError;
use super::query::{Compare, Field, Filter, Is, Item, Query, Step};
use crate::sandbox::Caller;
use crate::sandbox::store::schema::{Column, Owned, Table, Type};
use crate::sandbox::store::value;

/// Columns of an answer at most; `*` may be asked for more than once.
const MOST_OUTPUTS: usize = 500;

/// A column, or a place in a JSON column.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) column: &'static Column,
    pub(super) path: Option<Path>,
}

/// Along which steps into a JSON column.
#[derive(Debug, Clone)]
pub(super) struct Path {
    /// A JSON array of keys and indexes.
    pub(super) steps: String,
    /// `->>`
    pub(super) as_text: bool,
}

impl Target {
    /// The type of what is there.
    pub(super) fn kind(&self) -> Type {
        match &self.path {
            None => self.column.kind,
            Some(path) if path.as_text => Type::Text,
            Some(_) => Type::Jsonb,
        }
    }

    /// Whether it may be NULL.
    pub(super) fn nullable(&self) -> bool {
        self.column.nullable || self.path.is_some()
    }
}

/// A condition whose names and values are known to be good.
#[derive(Debug, Clone)]
pub(super) enum Condition {
    Not(Box<Condition>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Compare(Target, Compare, Sql),
    /// The values as a JSON array.
    In(Target, String),
    Is(Target, Is),
    /// `rowid` is one of these, a JSON array.
    Rows(String),
}

/// One field of the rows that are shown.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) name: String,
    pub(super) target: Target,
    /// `::text`
    pub(super) text: bool,
}

/// One term of the order.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) target: Target,
    pub(super) descending: bool,
    pub(super) nulls_first: bool,
}

/// What rows to show, and how.
#[derive(Debug)]
pub(super) struct Selection {
    pub(super) table: &'static Table,
    pub(super) outputs: Vec<Output>,
    pub(super) condition: Condition,
    pub(super) order: Vec<Order>,
}

/// Resolves the select list and order; the condition is the caller's business.
pub(super) fn selection(
    table: &'static Table,
    query: &Query,
    condition: Condition,
) -> Result<Selection, RestError> {
    let mut outputs = Vec::new();
    for item in query.select.as_deref().unwrap_or(&[Item::All]) {
        match item {
            Item::All => outputs.extend(table.columns.iter().map(|column| Output {
                name: column.name.to_owned(),
                target: Target { column, path: None },
                text: false,
            })),
            Item::One { field, alias, text } => outputs.push(Output {
                name: alias.clone().unwrap_or_else(|| natural_name(field)),
                target: target(table, field)?,
                text: *text,
            }),
        }
    }
    if outputs.len() > MOST_OUTPUTS {
        return Err(RestError::too_complex("columns in the answer", MOST_OUTPUTS));
    }
    let mut order = Vec::new();
    for term in &query.order {
        let target = target(table, &term.field)?;
        if target.kind() == Type::Jsonb {
            return Err(not_on_json());
        }
        order.push(Order { target, descending: term.descending, nulls_first: term.nulls_first });
    }
    Ok(Selection { table, outputs, condition, order })
}

/// The last key of a path, else the column.
fn natural_name(field: &Field) -> String {
    let key = field.path.iter().rev().find_map(|step| match step {
        Step::Key(key) => Some(key.clone()),
        Step::Index(_) => None,
    });
    key.unwrap_or_else(|| field.column.clone())
}

/// Resolves the filters of a query; all must hold.
pub(super) fn filters(table: &'static Table, filters: &[Filter]) -> Result<Condition, RestError> {
    let all: Result<Vec<Condition>, RestError> =
        filters.iter().map(|filter| condition(table, filter)).collect();
    Ok(Condition::All(all?))
}

/// The rows that the caller owns. A caller without the claim owns none.
pub(super) fn owned(table: &'static Table, rows: &[Owned], caller: &Caller) -> Condition {
    let conditions = rows.iter().map(|owned| {
        let column = table.column(owned.column);
        match column.zip(owned.claim.of(caller)) {
            Some((column, claim)) => equals(column, claim),
            None => Condition::Any(Vec::new()),
        }
    });
    Condition::All(conditions.collect())
}

/// The column holds that text.
pub(super) fn equals(column: &'static Column, text: &str) -> Condition {
    let target = Target { column, path: None };
    Condition::Compare(target, Compare::Eq, Sql::Text(text.to_owned()))
}

/// The column of that name, for a filter or a select list.
fn target(table: &'static Table, field: &Field) -> Result<Target, RestError> {
    let column = table.column(&field.column).ok_or_else(|| {
        let message = format!("column {}.{} does not exist", table.name, field.column);
        RestError::new("42703", message)
    })?;
    if field.path.is_empty() {
        return Ok(Target { column, path: None });
    }
    if column.kind != Type::Jsonb {
        return Err(no_operator(column.kind, if field.as_text { "->>" } else { "->" }));
    }
    let steps: Vec<Value> = field
        .path
        .iter()
        .map(|step| match step {
            Step::Key(key) => Value::from(key.as_str()),
            Step::Index(index) => Value::from(*index),
        })
        .collect();
    let path = Path { steps: Value::Array(steps).to_string(), as_text: field.as_text };
    Ok(Target { column, path: Some(path) })
}

fn condition(table: &'static Table, filter: &Filter) -> Result<Condition, RestError> {
    let each = |filters: &[Filter]| -> Result<Vec<Condition>, RestError> {
        filters.iter().map(|filter| condition(table, filter)).collect()
    };
    Ok(match filter {
        Filter::Not(inner) => Condition::Not(Box::new(condition(table, inner)?)),
        Filter::All(members) => Condition::All(each(members)?),
        Filter::Any(members) => Condition::Any(each(members)?),
        Filter::Compare(field, compare, text) => comparison(target(table, field)?, *compare, text)?,
        Filter::In(field, texts) => {
            let target = comparable(target(table, field)?)?;
            let values: Result<Vec<Value>, RestError> = texts
                .iter()
                .map(|text| Ok(plain_json(value::from_text(target.kind(), text)?)))
                .collect();
            Condition::In(target, Value::Array(values?).to_string())
        }
        Filter::Is(field, is) => {
            let target = target(table, field)?;
            if matches!(is, Is::True | Is::False | Is::Unknown) && target.kind() != Type::Bool {
                return Err(RestError::new(
                    "42804",
                    format!(
                        "argument of IS must be type boolean, not type {}",
                        target.kind().sql_name()
                    ),
                ));
            }
            Condition::Is(target, *is)
        }
    })
}

fn comparison(target: Target, compare: Compare, text: &str) -> Result<Condition, RestError> {
    let target = comparable(target)?;
    let kind = target.kind();
    let value = match compare {
        Compare::Like | Compare::Ilike if kind != Type::Text => {
            return Err(no_operator(kind, if compare == Compare::Like { "~~" } else { "~~*" }));
        }
        Compare::Like | Compare::Ilike => value::from_text(kind, &text.replace('*', "%"))?,
        Compare::Eq | Compare::Neq | Compare::Gt | Compare::Gte | Compare::Lt | Compare::Lte => {
            value::from_text(kind, text)?
        }
    };
    Ok(Condition::Compare(target, compare, value))
}

fn comparable(target: Target) -> Result<Target, RestError> {
    if target.kind() == Type::Jsonb { Err(not_on_json()) } else { Ok(target) }
}

fn not_on_json() -> RestError {
    RestError::new("PGRST100", "a JSON value can only be tested with is")
        .hint("take it as text: column->>key")
}

fn no_operator(kind: Type, operator: &str) -> RestError {
    let message = format!("operator does not exist: {} {operator} unknown", kind.sql_name());
    RestError::new("42883", message)
}

/// A stored value as plain JSON, for lists that SQLite takes apart again.
pub(super) fn plain_json(value: Sql) -> Value {
    match value {
        Sql::Null | Sql::Blob(_) => Value::Null,
        Sql::Integer(number) => Value::from(number),
        Sql::Real(number) => Value::from(number),
        Sql::Text(text) => Value::String(text),
    }
}
