//! `/rest/v1`: PostgREST's grammar, typed, turned into SQL with bound parameters only.
//!
//! A request is parsed (`query`, `headers`, `body`), resolved against the table's definition
//! (`resolve`), turned into SQL with the caller's rights in it (`sql`), and run (`read`, `write`,
//! `rpc`). What is not understood is refused, never ignored.

mod body;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod headers;
mod query;
mod read;
mod resolve;
mod rpc;
mod scan;
mod sql;
mod write;

#[cfg(test)]
mod tests;

use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::Value;

use super::store::schema::Table;
use super::{Caller, store::Store};
pub use error::RestError;
use headers::{Form, Give, Preferences};
use query::Query;
use read::{MOST_ROWS, Page, Window};
use rpc::{Answer, Call};
use write::{Change, Done};

/// One request below `/rest/v1`.
#[derive(Debug, Clone)]
pub struct RestRequest {
    /// HTTP method.
    pub method: http::Method,
    /// `gateway_jobs`, or `rpc/name`.
    pub path: String,
    /// Raw query string, still percent-encoded.
    pub query: String,
    /// Headers.
    pub headers: http::HeaderMap,
    /// Body, bounded by the server.
    pub body: Vec<u8>,
}

/// A good answer before it is put into words.
#[derive(Debug)]
struct Reply {
    status: StatusCode,
    content_range: Option<String>,
    location: Option<String>,
    applied: Vec<&'static str>,
    /// `None`: a really empty body.
    body: Option<Value>,
    form: Form,
}

/// Answers one request. Never panics; every failure is a PostgREST error body.
pub async fn handle(store: &Store, caller: &Caller, request: RestRequest) -> Response<Vec<u8>> {
    let head = request.method == Method::HEAD;
    let result = route(store, caller, request).await;
    let mut response = match result {
        Ok(reply) => spoken(reply),
        Err(error) => refused(caller, &error),
    };
    if head {
        response.body_mut().clear();
    }
    response
}

/// The answer to a refused request; also for the server's own refusals, e.g. of a bad token.
pub fn refused(caller: &Caller, error: &RestError) -> Response<Vec<u8>> {
    let mut response = Response::new(error.body().to_string().into_bytes());
    let status = error.status(*caller == Caller::Anonymous);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    // HEAD has no body to tell the code.
    insert(headers, "proxy-status", &format!("PostgREST; error={}", error.code));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn spoken(reply: Reply) -> Response<Vec<u8>> {
    let mut response = Response::new(Vec::new());
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    if let Some(range) = reply.content_range {
        insert(headers, "content-range", &range);
    }
    if let Some(location) = reply.location {
        insert(headers, "location", &location);
    }
    if !reply.applied.is_empty() {
        insert(headers, "preference-applied", &reply.applied.join(", "));
    }
    if let Some(body) = reply.body {
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(match reply.form {
                Form::Array => "application/json; charset=utf-8",
                Form::Object => "application/vnd.pgrst.object+json; charset=utf-8",
            }),
        );
        *response.body_mut() = body.to_string().into_bytes();
    }
    response
}

/// A value that is no header is left out.
fn insert(headers: &mut http::HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A request whose headers and query string parsed.
struct Parsed {
    query: Query,
    preferences: Preferences,
    form: Form,
    window: Window,
}

async fn route(store: &Store, caller: &Caller, request: RestRequest) -> Result<Reply, RestError> {
    let path = request.path.clone();
    // Before the query string: that of a GET would hold the arguments.
    if path.starts_with("rpc/") && request.method != Method::POST {
        return Err(RestError::new("PGRST101", "Only POST is allowed on RPC"));
    }
    headers::check_profile(&request.headers, &request.method)?;
    let reads = request.method == Method::GET || request.method == Method::HEAD;
    let query = Query::parse(&request.query)?;
    let window = window(&query, &request, reads)?;
    let parsed = Parsed {
        preferences: Preferences::parse(&request.headers)?,
        form: headers::accepted(&request.headers)?,
        query,
        window,
    };
    if let Some(name) = path.strip_prefix("rpc/") {
        headers::check_content_type(&request.headers)?;
        let call = Call::find(store.schema(), name, caller, &request.body)?;
        return called(store, caller, parsed, call).await;
    }
    if path.contains('/') || path.is_empty() {
        return Err(RestError::new("PGRST125", "Invalid path specified in request URL"));
    }
    let table = store.schema().table(&path).ok_or_else(|| {
        let message = format!("Could not find the table 'public.{path}' in the schema cache");
        RestError::new("PGRST205", message)
    })?;
    if reads {
        return got(store, caller, parsed, table).await;
    }
    written(store, caller, parsed, table, request).await
}

/// `limit` and `offset` together with `Range` (reads only).
fn window(query: &Query, request: &RestRequest, reads: bool) -> Result<Window, RestError> {
    let (first, length) = if reads { headers::range(&request.headers)? } else { (0, None) };
    let offset = query.offset.max(first);
    let end = |offset: u64, limit: Option<u64>| limit.map(|limit| offset.saturating_add(limit));
    let ends = [end(query.offset, query.limit), end(first, length)];
    let end = ends.into_iter().flatten().min();
    Ok(Window { offset, limit: end.map(|end| end.saturating_sub(offset)) })
}

async fn got(
    store: &Store,
    caller: &Caller,
    parsed: Parsed,
    table: &'static Table,
) -> Result<Reply, RestError> {
    if parsed.query.columns.is_some() || parsed.query.on_conflict.is_some() {
        return Err(misplaced("columns and on_conflict belong to inserts"));
    }
    let Parsed { query, preferences, form, window } = parsed;
    let selection = read::selection(table, &query, caller, Vec::new())?;
    let window = capped(window);
    let count = preferences.count;
    let page =
        store.read(move |connection| read::page(connection, &selection, window, count)).await?;
    paged(page, window, form, preferences.applied)
}

fn capped(window: Window) -> Window {
    Window { limit: Some(window.limit.unwrap_or(MOST_ROWS).min(MOST_ROWS)), ..window }
}

/// The answer to a read.
fn paged(
    page: Page,
    window: Window,
    form: Form,
    applied: Vec<&'static str>,
) -> Result<Reply, RestError> {
    let shown = page.rows.len() as u64;
    let partial = page.total.is_some_and(|total| shown < total);
    Ok(Reply {
        status: if partial { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK },
        content_range: Some(content_range(window.offset, shown, page.total)),
        location: None,
        applied,
        body: Some(in_form(page.rows, form)?),
        form,
    })
}

/// `0-24/100`, `*/*`
fn content_range(first: u64, shown: u64, total: Option<u64>) -> String {
    let total = total.map_or_else(|| "*".to_owned(), |total| total.to_string());
    match shown.checked_sub(1) {
        Some(more) => format!("{first}-{}/{total}", first.saturating_add(more)),
        None => format!("*/{total}"),
    }
}

fn in_form(mut rows: Vec<Value>, form: Form) -> Result<Value, RestError> {
    match form {
        Form::Array => Ok(Value::Array(rows)),
        Form::Object => match rows.pop() {
            Some(row) if rows.is_empty() => Ok(row),
            Some(_) => Err(write::not_one_row(rows.len() as u64 + 1)),
            None => Err(write::not_one_row(0)),
        },
    }
}

async fn called(
    store: &Store,
    caller: &Caller,
    parsed: Parsed,
    call: Call,
) -> Result<Reply, RestError> {
    if parsed.query.columns.is_some() || parsed.query.on_conflict.is_some() {
        return Err(misplaced("columns and on_conflict belong to inserts"));
    }
    let Parsed { query, preferences, form, window } = parsed;
    let (caller, window, count) = (caller.clone(), capped(window), preferences.count);
    let work = move |write: &mut super::store::Write<'_>| {
        let answer = call.run(write.tx, &caller, &query, window, count)?;
        // An object that is not one row rolls back, so it is looked for before the commit.
        match answer {
            Answer::Rows(page) => paged(page, window, form, preferences.applied.clone()),
            Answer::Scalar(value) => {
                Ok(plain(StatusCode::OK, Some(value), preferences.applied.clone()))
            }
            Answer::Void => Ok(plain(StatusCode::NO_CONTENT, None, preferences.applied.clone())),
        }
    };
    store.write(work).await
}

fn plain(status: StatusCode, body: Option<Value>, applied: Vec<&'static str>) -> Reply {
    Reply { status, content_range: None, location: None, applied, body, form: Form::Array }
}

async fn written(
    store: &Store,
    caller: &Caller,
    parsed: Parsed,
    table: &'static Table,
    request: RestRequest,
) -> Result<Reply, RestError> {
    let Parsed { query, preferences, form, window } = parsed;
    let method = request.method;
    let inserts = method == Method::POST;
    if !inserts && (query.columns.is_some() || query.on_conflict.is_some()) {
        return Err(misplaced("columns and on_conflict belong to inserts"));
    }
    if inserts && !query.filters.is_empty() {
        return Err(misplaced("an insert takes no filters"));
    }
    if query.on_conflict.is_some() && preferences.resolution.is_none() {
        return Err(misplaced("on_conflict needs Prefer: resolution=.."));
    }
    if !caller.is_gateway() {
        return Err(RestError::denied(table.name));
    }
    let change = Change { table, caller: caller.clone(), query, window, preferences, form };
    match method {
        Method::POST => {
            headers::check_content_type(&request.headers)?;
            let rows = body::rows(
                table,
                &request.body,
                change.query.columns.as_deref(),
                change.preferences.missing_default,
            )?;
            store.write(move |write| finished(&change, change.insert(write.tx, &rows)?, true)).await
        }
        Method::PATCH => {
            headers::check_content_type(&request.headers)?;
            let fields = body::object(table, &request.body)?;
            store
                .write(move |write| finished(&change, change.update(write.tx, &fields)?, false))
                .await
        }
        Method::DELETE => {
            store.write(move |write| finished(&change, change.delete(write.tx)?, false)).await
        }
        other => Err(RestError::new("PGRST117", format!("Unsupported HTTP method: {other}"))),
    }
}

/// The answer to a write; made inside the transaction, which an error rolls back.
fn finished(change: &Change, done: Done, inserts: bool) -> Result<Reply, RestError> {
    let preferences = &change.preferences;
    let total = preferences.count.then_some(done.affected);
    let shown = if inserts { 0 } else { done.affected };
    let status = match (inserts, preferences.give) {
        (true, _) if preferences.resolution.is_some() && done.inserted == 0 => StatusCode::OK,
        (true, _) => StatusCode::CREATED,
        (false, Give::Representation) => StatusCode::OK,
        (false, Give::Minimal | Give::HeadersOnly) => StatusCode::NO_CONTENT,
    };
    let form = change.form;
    Ok(Reply {
        status,
        content_range: Some(content_range(0, shown, total)),
        location: done.key.as_ref().map(|row| location(change.table, row)),
        applied: preferences.applied.clone(),
        body: done.rows.map(|rows| in_form(rows, form)).transpose()?,
        form,
    })
}

/// `/table?id=eq.value`
fn location(table: &Table, row: &Value) -> String {
    let key = table.key.iter().map(|name| {
        let value = match row.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let value =
            percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC);
        format!("{name}=eq.{value}")
    });
    format!("/{}?{}", table.name, key.collect::<Vec<_>>().join("&"))
}

fn misplaced(what: &'static str) -> RestError {
    RestError::new("PGRST100", what)
}
