//! Small helpers over the store: rows as REST shows them, and changes told after the commit.

use rusqlite::{Connection, Params};
use serde_json::Value;

use super::store::{Change, Store, Write};

/// The rows that a query names by their ids, in its order.
pub(super) fn select(
    connection: &Connection,
    table: &'static str,
    ids: &str,
    params: impl Params,
) -> rusqlite::Result<Vec<Value>> {
    let mut statement = connection.prepare_cached(ids)?;
    let ids = statement
        .query_map(params, |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut rows = Vec::with_capacity(ids.len());
    for id in ids {
        rows.extend(Store::row(connection, table, &id)?);
    }
    Ok(rows)
}

/// A row that was just inserted; tells the change.
pub(super) fn inserted(
    write: &mut Write<'_>,
    table: &'static str,
    id: &str,
) -> rusqlite::Result<Value> {
    let row = Store::row(write.tx, table, id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    write.changes.push(Change { table, row: row.clone() });
    Ok(row)
}

/// Runs an `UPDATE` of the one row `id`. Returns it as it is now and tells the change; `None` when
/// the statement's conditions did not hold.
pub(super) fn update(
    write: &mut Write<'_>,
    table: &'static str,
    id: &str,
    sql: &str,
    params: impl Params,
) -> rusqlite::Result<Option<Value>> {
    if write.tx.prepare_cached(sql)?.execute(params)? == 0 {
        return Ok(None);
    }
    inserted(write, table, id).map(Some)
}
