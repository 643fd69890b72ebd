//! Small helpers over the store.

use rusqlite::{Connection, Params};
use serde_json::Value;

use super::store::Store;

/// Runs an `UPDATE` of the one row `id`. Returns it as it is now; `None` when the statement's
/// conditions did not hold.
pub(super) fn update(
    connection: &Connection,
    table: &'static str,
    id: &str,
    sql: &str,
    params: impl Params,
) -> rusqlite::Result<Option<Value>> {
    if connection.prepare_cached(sql)?.execute(params)? == 0 {
        return Ok(None);
    }
    Store::row(connection, table, id)
}

/// A row that was just inserted.
pub(super) fn inserted(
    connection: &Connection,
    table: &'static str,
    id: &str,
) -> rusqlite::Result<Value> {
    Store::row(connection, table, id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
}
