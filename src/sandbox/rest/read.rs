//! Rows for an answer.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, params_from_iter};
use serde_json::{Map, Value};

use super::error::RestError;
use super::query::Query;
use super::resolve::{self, Condition, Selection};
use super::sql::{self, Statement};
use crate::sandbox::Caller;
use crate::sandbox::store::MOST_BYTES;
use crate::sandbox::store::schema::Table;
use crate::sandbox::store::value;

/// Rows of a table in one answer at most, as on the hosted platform.
pub(super) const MOST_ROWS: u64 = 1000;

/// What part of the rows is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) offset: u64,
    pub(super) limit: Option<u64>,
}

/// Rows, and how many there are outside the window as well, if that was asked for.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) rows: Vec<Value>,
    pub(super) total: Option<u64>,
}

/// The selection of a read: the query's filters, on rows that the caller may read.
pub(super) fn selection(
    table: &'static Table,
    query: &Query,
    caller: &Caller,
    more: Vec<Condition>,
) -> Result<Selection, RestError> {
    let filters = resolve::filters(table, &query.filters)?;
    let mut conditions = vec![visible(table, caller)?, filters];
    conditions.extend(more);
    resolve::selection(table, query, Condition::All(conditions))
}

/// The rows that the caller may read; an error when it may not read the table at all.
pub(super) fn visible(table: &'static Table, caller: &Caller) -> Result<Condition, RestError> {
    match (caller, table.rights.select) {
        (Caller::Gateway { .. }, Some(rows)) => Ok(resolve::owned(table, rows, caller)),
        (Caller::Anonymous | Caller::Drive { .. }, _) | (Caller::Gateway { .. }, None) => {
            Err(RestError::denied(table.name))
        }
    }
}

/// Fetches; the total only when `count`.
pub(super) fn page(
    connection: &Connection,
    selection: &Selection,
    window: Window,
    count: bool,
) -> Result<Page, RestError> {
    let total = if count {
        Some(self::count(connection, selection.table, &selection.condition)?)
    } else {
        None
    };
    if let Some(total) = total
        && window.offset > total
    {
        return Err(RestError::new("PGRST103", "Requested range not satisfiable").details(
            format!(
                "An offset of {} was requested, but there are only {total} rows.",
                window.offset
            ),
        ));
    }
    let rows = rows(connection, selection, window)?;
    Ok(Page { rows, total })
}

/// How many rows the condition picks.
pub(super) fn count(
    connection: &Connection,
    table: &'static Table,
    condition: &Condition,
) -> Result<u64, RestError> {
    let sql = sql::count(table, condition);
    let mut statement = connection.prepare_cached(sql.text())?;
    let count: i64 = statement.query_row(params_from_iter(sql.values()), |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// The rows themselves; as with too many rows, the rest of what is too large is left out.
pub(super) fn rows(
    connection: &Connection,
    selection: &Selection,
    window: Window,
) -> Result<Vec<Value>, RestError> {
    let sql = sql::select(selection, window.limit, window.offset);
    let mut statement = connection.prepare_cached(sql.text())?;
    let mut rows = statement.query(params_from_iter(sql.values()))?;
    let (mut shown, mut bytes) = (Vec::new(), 0_usize);
    while let Some(row) = rows.next()? {
        let mut fields = Map::new();
        for (index, output) in selection.outputs.iter().enumerate() {
            let stored = row.get_ref(index)?;
            if let ValueRef::Text(text) = stored {
                bytes = bytes.saturating_add(text.len());
            }
            let kind = output.target.kind();
            let shown = if output.text {
                value::to_text(kind, stored)
            } else {
                value::to_json(kind, stored)
            };
            fields.insert(output.name.clone(), shown);
        }
        if bytes > MOST_BYTES && !shown.is_empty() {
            break;
        }
        shown.push(Value::Object(fields));
    }
    Ok(shown)
}

/// Runs a write that returns the `rowid`s that it touched.
pub(super) fn touched(connection: &Connection, sql: &Statement) -> Result<Vec<i64>, RestError> {
    let mut statement = connection.prepare_cached(sql.text())?;
    let rows = statement.query_map(params_from_iter(sql.values()), |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The condition that a row is one of these.
pub(super) fn among(rowids: &[i64]) -> Condition {
    Condition::Rows(Value::from(rowids.to_vec()).to_string())
}
