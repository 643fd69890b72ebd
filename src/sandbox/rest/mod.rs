//! `/rest/v1`: PostgREST's grammar, typed, turned into SQL with bound parameters only.

use super::{Caller, store::Store};

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

/// Answers one request. Never panics; every failure is a PostgREST error body.
pub async fn handle(
    store: &Store,
    caller: &Caller,
    request: RestRequest,
) -> http::Response<Vec<u8>> {
    unimplemented!("{store:?} {caller:?} {request:?}")
}
