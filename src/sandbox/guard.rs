//! What stands before every route: `Host`, a time limit, and headers that keep browsers honest.
//!
//! A page that a browser loaded from elsewhere can reach a server on loopback. It must not talk to
//! this one: a foreign name that resolves to us (DNS rebinding) is told by its `Host`, a foreign
//! page by its `Origin`. There is no CORS.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

/// From a request's headers to the end of its answer; long polls end well before.
const TIME_LIMIT: Duration = Duration::from_mins(1);

/// Which names this server answers to.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    allow_remote: bool,
    bound: IpAddr,
    /// Lower case.
    names: Vec<String>,
}

impl Hosts {
    /// `names` are further host names, e.g. the machine's own.
    pub(super) fn new(bound: IpAddr, allow_remote: bool, names: &[String]) -> Self {
        let names = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { allow_remote, bound, names }
    }

    /// Whether a request for this host is meant for us. `host` has no port; an IPv6 address stands
    /// in brackets.
    pub(super) fn allows(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if host == "localhost" {
            return true;
        }
        let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match literal.unwrap_or(&host).parse::<IpAddr>() {
            // A literal address cannot be rebound by anybody's DNS.
            Ok(address) => self.allow_remote || address.is_loopback() || address == self.bound,
            Err(_) => self.allow_remote && self.names.contains(&host),
        }
    }

    fn allows_request(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let Some(host) = host.to_str().ok().and_then(authority) else { return false };
        self.allows(host.host())
            && uri.authority().is_none_or(|named| {
                authority(named.as_str()).is_some_and(|named| self.allows(named.host()))
            })
    }
}

/// A host with or without a port; no user, and no port that is not one.
fn authority(text: &str) -> Option<Authority> {
    let named: Authority = text.parse().ok()?;
    let port = text.strip_prefix(named.host())?;
    let is_port = |port: &str| port.is_empty() || port.parse::<u16>().is_ok();
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(named)
}

/// Refuses requests for other hosts.
pub(super) async fn check_host(
    State(hosts): State<Arc<Hosts>>,
    request: Request,
    next: Next,
) -> Response {
    if hosts.allows_request(request.uri(), request.headers()) {
        return next.run(request).await;
    }
    let message = "this server does not answer to that Host";
    refusal(StatusCode::MISDIRECTED_REQUEST, "wrong_host", message)
}

/// Refuses requests that a page from elsewhere makes.
pub(super) async fn check_origin(request: Request, next: Next) -> Response {
    if is_same_origin(request.headers()) {
        return next.run(request).await;
    }
    refusal(StatusCode::FORBIDDEN, "foreign_origin", "requests from other origins are refused")
}

/// True when no page, or a page of ours, is behind the request.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if !matches!(site, None | Some(b"same-origin" | b"none")) {
        return false;
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => true,
        (Some(origin), None) => {
            let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
            let own = host.map(|host| format!("http://{}", host.to_ascii_lowercase()));
            origin.to_str().ok().map(str::to_ascii_lowercase) == own
        }
        (Some(_), Some(_)) => false,
    }
}

/// Bounds how long a request may take.
pub(super) async fn limit_time(request: Request, next: Next) -> Response {
    in_time(next.run(request)).await
}

/// The answer, unless it takes too long.
pub(super) async fn in_time(answer: impl Future<Output = Response>) -> Response {
    match tokio::time::timeout(TIME_LIMIT, answer).await {
        Ok(response) => response,
        Err(_) => refusal(StatusCode::REQUEST_TIMEOUT, "timeout", "the request took too long"),
    }
}

/// Adds what browsers need to know; a route's own values win.
pub(super) async fn add_security_headers(request: Request, next: Next) -> Response {
    const HEADERS: [(HeaderName, &str); 6] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Answers a method that a page does not take; `Allow` names those that it does.
pub(super) async fn wrong_method() -> Response {
    let message = "this method is not allowed here";
    refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// An error answer of no API in particular.
pub(super) fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({"error": {"code": code, "message": message}, "message": message});
    (status, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn hosts(allow_remote: bool) -> Hosts {
        let bound = if allow_remote { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        Hosts::new(bound.into(), allow_remote, &["Build-Box".into()])
    }

    #[test]
    fn loopback_answers_to_loopback_only() {
        for host in ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(hosts(false).allows(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "10.0.0.1",
            "build-box",
            "0",
            "2130706433",
            "[::1",
        ] {
            assert!(!hosts(false).allows(host), "{host}");
        }
    }

    #[test]
    fn a_remote_server_answers_to_addresses_and_to_its_names() {
        for host in ["192.168.1.20", "[fd00::1]", "build-box", "BUILD-BOX.", "localhost"] {
            assert!(hosts(true).allows(host), "{host}");
        }
        assert!(!hosts(true).allows("evil.example"));
    }

    fn request_allowed(uri: &str, hosts_sent: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts_sent {
            headers.append(header::HOST, HeaderValue::from_static(host));
        }
        hosts(false).allows_request(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn one_host_header_and_no_tricks() {
        assert!(request_allowed("/", &["127.0.0.1:54321"]));
        assert!(request_allowed("http://localhost:1/", &["localhost:1"]));
        assert!(!request_allowed("/", &[]));
        assert!(!request_allowed("/", &["localhost", "evil.example"]));
        assert!(!request_allowed("/", &["localhost@evil.example"]));
        assert!(!request_allowed("/", &["evil.example@localhost"]));
        assert!(!request_allowed("http://evil.example/", &["localhost"]));
        assert!(!request_allowed("/", &["localhost/evil"]));
        assert!(!request_allowed("/", &["127.0.0.1:evil.example"]));
        assert!(!request_allowed("/", &["localhost:80,evil.example"]));
        assert!(!request_allowed("/", &["localhost:65536"]));
    }

    #[test]
    fn only_our_own_pages_have_our_origin() {
        let check = |pairs: &[(HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("localhost:8000"));
            for (name, value) in pairs {
                headers.append(name.clone(), HeaderValue::from_static(value));
            }
            is_same_origin(&headers)
        };
        let site = HeaderName::from_static("sec-fetch-site");
        assert!(check(&[]));
        assert!(check(&[(header::ORIGIN, "http://localhost:8000")]));
        assert!(check(&[(site.clone(), "same-origin")]));
        assert!(!check(&[(header::ORIGIN, "http://localhost:8001")]));
        assert!(!check(&[(header::ORIGIN, "https://localhost:8000")]));
        assert!(!check(&[(header::ORIGIN, "null")]));
        assert!(!check(&[
            (header::ORIGIN, "http://localhost:8000"),
            (header::ORIGIN, "http://evil.example")
        ]));
        assert!(!check(&[(site, "cross-site")]));
    }
}
