//! What a fuzzer sees of the grammar (`--cfg fuzzing` only).

use http::HeaderMap;

use super::query::Query;
use super::{Preferences, headers, read, sql};
use crate::sandbox::Caller;
use crate::sandbox::store::schema::Schema;

/// Reads headers and a query string; for one that fits the table, the statement with its number of
/// parameters.
pub fn statement(
    schema: &Schema,
    table: &str,
    caller: &Caller,
    query: &str,
    headers: &HeaderMap,
) -> Option<(String, usize)> {
    // Each by itself: the refusal of one must not keep the others from being read.
    let _ = Preferences::parse(headers);
    let _ = headers::accepted(headers);
    let _ = headers::range(headers);
    let _ = headers::check_content_type(headers);
    let query = Query::parse(query).ok()?;
    let selection = read::selection(schema.table(table)?, &query, caller, Vec::new()).ok()?;
    let sql = sql::select(&selection, query.limit, query.offset);
    Some((sql.text().to_owned(), sql.values().count()))
}
