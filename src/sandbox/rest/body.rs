//! Bodies: JSON objects become typed values of a table's columns.

use rusqlite::types::Value as Sql;
use serde_json::{Map, Value};

use super::error::RestError;
use crate::sandbox::store::schema::{Column, Table};
use crate::sandbox::store::value;

/// Columns with their values, in the order of the body.
pub(super) type Values = Vec<(&'static Column, Sql)>;

fn parse(body: &[u8]) -> Result<Value, RestError> {
    serde_json::from_slice(body).map_err(|error| {
        RestError::new("PGRST102", "Empty or invalid json").details(error.to_string())
    })
}

/// The one object of a PATCH.
pub(super) fn object(table: &'static Table, body: &[u8]) -> Result<Values, RestError> {
    let Value::Object(fields) = parse(body)? else {
        return Err(RestError::new("PGRST102", "The body of an update is a JSON object"));
    };
    values(table, &fields)
}

/// The arguments of a function; no body counts as `{}`.
pub(super) fn arguments(body: &[u8]) -> Result<Map<String, Value>, RestError> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    let Value::Object(fields) = parse(body)? else {
        return Err(RestError::new("PGRST102", "The arguments of a function are a JSON object"));
    };
    Ok(fields)
}

/// The rows of a POST: one object, or an array of objects with the same keys. With `columns`, those
/// keys only; one that a row lacks is NULL, or left out when `missing_default`.
pub(super) fn rows(
    table: &'static Table,
    body: &[u8],
    columns: Option<&[String]>,
    missing_default: bool,
) -> Result<Vec<Values>, RestError> {
    let parsed = parse(body)?;
    let items = if let Value::Array(items) = parsed { items } else { vec![parsed] };
    let mut objects = Vec::with_capacity(items.len());
    for item in items {
        let Value::Object(fields) = item else {
            return Err(RestError::new("PGRST102", "The body is an object or an array of them"));
        };
        objects.push(fields);
    }
    let Some(names) = columns else {
        if let Some((first, others)) = objects.split_first()
            && others.iter().any(|other| {
                other.len() != first.len() || !first.keys().all(|key| other.contains_key(key))
            })
        {
            return Err(RestError::new("PGRST102", "All object keys must match"));
        }
        return objects.iter().map(|fields| values(table, fields)).collect();
    };
    let picked = objects.into_iter().map(|mut fields| {
        let mut row = Map::new();
        for name in names {
            match fields.remove(name) {
                Some(value) => drop(row.insert(name.clone(), value)),
                None if missing_default => drop(column(table, name)?),
                None => drop(row.insert(name.clone(), Value::Null)),
            }
        }
        values(table, &row)
    });
    picked.collect()
}

fn values(table: &'static Table, fields: &Map<String, Value>) -> Result<Values, RestError> {
    let mut values = Vec::with_capacity(fields.len());
    for (name, given) in fields {
        let column = column(table, name)?;
        values.push((column, value::from_json(column.kind, given)?));
    }
    Ok(values)
}

/// The column of that name, for a body.
pub(super) fn column(table: &'static Table, name: &str) -> Result<&'static Column, RestError> {
    table.column(name).ok_or_else(|| {
        let message =
            format!("Could not find the '{name}' column of '{}' in the schema cache", table.name);
        RestError::new("PGRST204", message)
    })
}
