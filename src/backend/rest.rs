//! Tables: `postgrest`'s query builder makes the request, our client sends it.
//!
//! The builder belongs to an older reqwest. Its request is taken apart (method, URL, headers, body)
//! and put together again; its own client is made once and never used. Credentials do not pass
//! through it, because it panics on header values that it cannot take.

use std::sync::OnceLock;

use postgrest::{Builder, Postgrest};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::answer::TABLE_FIELDS;
use super::http::{Call, Limits};
use super::{BackendError, Endpoint};

/// What a write answers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Prefer {
    /// The rows that it touched.
    Representation,
    /// Nothing: reading back needs a right that insert-only tables do not give.
    Minimal,
}

/// The tables of one backend.
#[derive(Debug, Default)]
pub(super) struct Tables {
    builder: OnceLock<Shown>,
}

/// `Postgrest` has no `Debug`.
struct Shown(Postgrest);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Postgrest")
    }
}

impl Tables {
    /// Starts a query.
    pub(super) fn table(&self, endpoint: &Endpoint, name: &str) -> Builder {
        let base = || format!("{}/rest/v1", endpoint.url.trim_end_matches('/'));
        self.builder.get_or_init(|| Shown(Postgrest::new(base()))).0.from(name)
    }
}

/// A query that reads.
pub(super) fn read(query: Builder) -> Result<Call, BackendError> {
    convert(query)
}

/// A query that reads at most `limit` rows. The builder would ask by a `Range` header.
pub(super) fn read_at_most(query: Builder, limit: u32) -> Result<Call, BackendError> {
    let mut call = convert(query)?;
    call.url.query_pairs_mut().append_pair("limit", &limit.to_string());
    Ok(call)
}

/// A query that writes `body`. The builder gets an empty one: it would keep megabytes twice.
pub(super) fn write(query: Builder, body: String, prefer: Prefer) -> Result<Call, BackendError> {
    let mut call = convert(query)?;
    call.body = Some(body.into());
    let prefer = match prefer {
        Prefer::Representation => "return=representation",
        Prefer::Minimal => "return=minimal",
    };
    call.headers.insert(HeaderName::from_static("prefer"), HeaderValue::from_static(prefer));
    Ok(call)
}

/// A value inside `in.(…)`, `or=(…)` or `and(…)`.
pub(super) fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

fn convert(query: Builder) -> Result<Call, BackendError> {
    let unsendable = |error: &dyn std::fmt::Display| BackendError::Unsendable(error.to_string());
    let built = query.build().build().map_err(|error| unsendable(&error))?;
    let method = Method::from_bytes(built.method().as_str().as_bytes())
        .map_err(|error| unsendable(&error))?;
    let mut headers = HeaderMap::new();
    for (name, value) in built.headers() {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        headers.insert(
            name.map_err(|error| unsendable(&error))?,
            value.map_err(|error| unsendable(&error))?,
        );
    }
    Ok(Call {
        repeatable: method == Method::GET,
        method,
        url: built.url().clone(),
        headers,
        body: None,
        limits: Limits::REST,
        secrets: Vec::new(),
        error_fields: TABLE_FIELDS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> (Tables, Endpoint) {
        let endpoint = Endpoint { url: "http://127.0.0.1:1/".into(), anon_key: "k".into() };
        (Tables::default(), endpoint)
    }

    #[test]
    fn values_arrive_as_they_are() {
        let (tables, endpoint) = tables();
        for value in ["2025-11-03T09:32:55.1+00:00", "a b&c=d#e?f/%2B", "ü😀\n\u{1}", ""] {
            let call = read(tables.table(&endpoint, "t").eq("c", value)).unwrap();
            let found: Vec<_> = call.url.query_pairs().into_owned().collect();
            assert_eq!(found, [("c".to_owned(), format!("eq.{value}"))]);
        }
        let call = read(tables.table(&endpoint, "t").eq("c", "1+00:00")).unwrap();
        assert_eq!(call.url.as_str(), "http://127.0.0.1:1/rest/v1/t?c=eq.1%2B00%3A00");
        assert!(call.body.is_none() && call.repeatable);
    }

    #[test]
    fn writes_ask_for_what_they_need() {
        let (tables, endpoint) = tables();
        let query = tables.table(&endpoint, "t").insert("{}");
        let call = write(query, "{}".to_owned(), Prefer::Minimal).unwrap();
        assert_eq!(call.headers["prefer"], "return=minimal");
        assert_eq!(call.headers["content-type"], "application/json");
        assert_eq!((call.method, call.repeatable), (Method::POST, false));
    }

    #[test]
    fn a_url_that_cannot_be_used_is_an_error() {
        let endpoint = Endpoint { url: "not a url".into(), anon_key: "k".into() };
        let error = read(Tables::default().table(&endpoint, "t")).unwrap_err();
        assert!(matches!(error, BackendError::Unsendable(_)), "{error:?}");
    }

    #[test]
    fn quotes_and_backslashes_are_escaped_inside_lists() {
        assert_eq!(quoted(r#"a,(b)"c\"#), r#""a,(b)\"c\\""#);
    }
}
