//! Who changed what: temporary triggers on the writer's connection note every change of a table
//! that REST shows, whatever statement made it. The notes are rolled back with the change.

use std::fmt::Write as _;

use rusqlite::Connection;
use rusqlite::types::{Value as Sql, ValueRef};
use serde_json::{Map, Value};

use super::schema::{Schema, Table};
use super::value;

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Insert,
    /// It is another.
    Update,
    /// It is gone.
    Delete,
}

/// A committed change of one row; sent after the commit, in commit order.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Table.
    pub table: &'static str,
    /// What happened.
    pub kind: ChangeKind,
    /// The row after it (before it, for a deletion), as REST shows it.
    pub row: Value,
    /// The row before it; for updates and deletions.
    pub old: Option<Value>,
}

/// Starts noting on this connection.
pub(super) fn watch(connection: &Connection, schema: &Schema) -> rusqlite::Result<()> {
    let mut sql = "CREATE TEMP TABLE noted (seq INTEGER PRIMARY KEY, name TEXT NOT NULL, \
                   before TEXT, after TEXT);"
        .to_owned();
    for table in schema.tables() {
        let name = table.name;
        let (old, new) = (columns(table, "OLD"), columns(table, "NEW"));
        for (event, before, after) in
            [("INSERT", "NULL", &*new), ("UPDATE", &*old, &*new), ("DELETE", &*old, "NULL")]
        {
            // Writing to a String does not fail.
            let _ = write!(
                sql,
                "CREATE TEMP TRIGGER \"noted_{event}_{name}\" AFTER {event} ON main.\"{name}\" \
                 BEGIN INSERT INTO noted (name, before, after) \
                 VALUES ('{name}', {before}, {after}); END;"
            );
        }
    }
    connection.execute_batch(&sql)
}

fn columns(table: &Table, row: &str) -> String {
    let columns: Vec<String> =
        table.columns.iter().map(|column| format!("{row}.\"{}\"", column.name)).collect();
    format!("json_array({})", columns.join(", "))
}

/// Takes what was noted since the last time, inside the transaction that is about to commit.
/// `wanted` is false when nobody listens: then the notes are only dropped.
pub(super) fn take(
    connection: &Connection,
    schema: &Schema,
    wanted: bool,
) -> rusqlite::Result<Vec<Change>> {
    let mut changes = Vec::new();
    if wanted {
        let mut notes =
            connection.prepare_cached("SELECT name, before, after FROM noted ORDER BY seq")?;
        let mut rows = notes.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            let Some(table) = schema.table(&name) else { continue };
            let (before, after) = (row.get_ref(1)?, row.get_ref(2)?);
            changes.extend(change(table, noted_row(table, before), noted_row(table, after)));
        }
    }
    connection.prepare_cached("DELETE FROM noted")?.execute([])?;
    Ok(changes)
}

fn change(table: &Table, before: Option<Value>, after: Option<Value>) -> Option<Change> {
    let table = table.name;
    match (before, after) {
        (None, Some(row)) => Some(Change { table, kind: ChangeKind::Insert, row, old: None }),
        (old @ Some(_), Some(row)) => Some(Change { table, kind: ChangeKind::Update, row, old }),
        (Some(row), None) => {
            Some(Change { table, kind: ChangeKind::Delete, old: Some(row.clone()), row })
        }
        (None, None) => None,
    }
}

/// The note is a JSON array of the stored values in the order of the table's columns.
fn noted_row(table: &Table, note: ValueRef<'_>) -> Option<Value> {
    let ValueRef::Text(note) = note else { return None };
    let values: Vec<Value> = serde_json::from_slice(note).ok()?;
    let fields: Map<String, Value> = table
        .columns
        .iter()
        .zip(values)
        .map(|(column, stored)| {
            let stored = match stored {
                Value::String(text) => Sql::Text(text),
                Value::Number(number) => match number.as_i64() {
                    Some(number) => Sql::Integer(number),
                    None => Sql::Real(number.as_f64().unwrap_or(f64::NAN)),
                },
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => Sql::Null,
            };
            (column.name.to_owned(), value::to_json(column.kind, (&stored).into()))
        })
        .collect();
    Some(Value::Object(fields))
}
