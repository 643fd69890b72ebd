//! Rows as REST shows them, for code that does not come through REST.

use rusqlite::types::{Value as Sql, ValueRef};
use rusqlite::{Connection, OptionalExtension, Params, Row};
use serde_json::{Map, Value};

use super::schema::{Fallback, Table};
use super::value::{self, BadValue};

/// Why a row was not inserted.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// No such column.
    #[error("the table {table} has no column \"{column}\"")]
    Column {
        /// The table.
        table: &'static str,
        /// The name that it does not know.
        column: String,
    },
    /// A value is not of its column's type.
    #[error("column {column} does not take that value")]
    Value {
        /// The column.
        column: &'static str,
        /// What is wrong.
        #[source]
        source: BadValue,
    },
    /// SQLite said no.
    #[error("could not use the sandbox's database")]
    Sqlite(#[from] rusqlite::Error),
}

/// Stored bytes in one list at most, a first row that is larger aside: a page of results of 10 MB
/// each must not take the machine's memory.
pub const MOST_BYTES: usize = 64 * 1024 * 1024;

/// The rows that `tail` picks, up to [`MOST_BYTES`], e.g. `WHERE team_id = ?1 ORDER BY created_at DESC LIMIT 50`, each
/// with all its columns.
pub(super) fn select(
    connection: &Connection,
    table: &Table,
    tail: &'static str,
    parameters: impl Params,
) -> rusqlite::Result<Vec<Value>> {
    let sql = format!("SELECT {} FROM \"{}\" {tail}", names(table), table.name);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(parameters)?;
    let (mut list, mut bytes) = (Vec::new(), 0_usize);
    while let Some(row) = rows.next()? {
        for index in 0..table.columns.len() {
            if let ValueRef::Text(text) = row.get_ref(index)? {
                bytes = bytes.saturating_add(text.len());
            }
        }
        if bytes > MOST_BYTES && !list.is_empty() {
            break;
        }
        list.push(shown(table, row)?);
    }
    Ok(list)
}

/// The row with that key (the first column of it).
pub(super) fn by_key(
    connection: &Connection,
    table: &Table,
    key: &str,
) -> rusqlite::Result<Option<Value>> {
    let column = table.key.first().copied().unwrap_or("rowid");
    let sql = format!("SELECT {} FROM \"{}\" WHERE \"{column}\" = ?1", names(table), table.name);
    connection.prepare_cached(&sql)?.query_row([key], |row| shown(table, row)).optional()
}

/// Inserts a row given as REST would take it, with the table's defaults, and returns it as REST
/// would show it. No right is asked for.
pub(super) fn insert(
    connection: &Connection,
    table: &'static Table,
    fields: &Map<String, Value>,
) -> Result<Value, RowError> {
    let mut names = Vec::new();
    let mut values = Vec::new();
    for (name, given) in fields {
        let column = table
            .column(name)
            .ok_or_else(|| RowError::Column { table: table.name, column: name.clone() })?;
        let given = value::from_json(column.kind, given)
            .map_err(|source| RowError::Value { column: column.name, source })?;
        names.push(column.name);
        values.push(given);
    }
    for column in table.columns.iter().filter(|column| !fields.contains_key(column.name)) {
        if let Some(value) = fallback(column.fallback) {
            names.push(column.name);
            values.push(value);
        }
    }
    let sql = format!(
        "INSERT INTO \"{}\" ({}) VALUES ({}) RETURNING rowid",
        table.name,
        names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", "),
        vec!["?"; names.len()].join(", "),
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rowid: i64 = statement.query_row(rusqlite::params_from_iter(values), |row| row.get(0))?;
    let mut rows = select(connection, table, "WHERE rowid = ?1", [rowid])?;
    rows.pop().ok_or_else(|| rusqlite::Error::QueryReturnedNoRows.into())
}

/// A default that the server makes; a claim has none here.
fn fallback(fallback: Fallback) -> Option<Sql> {
    match fallback {
        Fallback::NewUuid => Some(Sql::Text(uuid::Uuid::new_v4().to_string())),
        Fallback::Now => Some(Sql::Integer(value::now())),
        Fallback::Sql | Fallback::Claim(_) => None,
    }
}

fn names(table: &Table) -> String {
    let names: Vec<String> =
        table.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
    names.join(", ")
}

fn shown(table: &Table, row: &Row<'_>) -> rusqlite::Result<Value> {
    let mut fields = Map::new();
    for (index, column) in table.columns.iter().enumerate() {
        let value = value::to_json(column.kind, row.get_ref(index)?);
        fields.insert(column.name.to_owned(), value);
    }
    Ok(Value::Object(fields))
}
