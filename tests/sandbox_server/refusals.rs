//! What the server refuses whoever asks: foreign hosts and origins, floods, nonsense.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::context::Context;

/// Sends bytes as they are; the answer's status line.
async fn raw(context: &Context, request: &str) -> String {
    let mut stream = TcpStream::connect(context.server.local_addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn only_our_own_names_are_answered_to() {
    let context = Context::new().await;
    let port = context.server.local_addr().port();
    let url = format!("{}/healthz", context.server.url());
    for host in ["localhost".to_owned(), format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        let answer = context.http.get(&url).header("host", &host).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{host}");
    }
    for host in ["evil.example".to_owned(), format!("evil.example:{port}"), "10.1.2.3".to_owned()] {
        let answer = context.http.get(&url).header("host", &host).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST, "{host}");
    }
    for head in [
        "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /healthz HTTP/1.0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        "GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost@evil.example\r\nConnection: close\r\n\r\n",
    ] {
        let status = raw(&context, head).await;
        assert!(status.contains(" 421 ") || status.contains(" 400 "), "{head:?}: {status}");
    }
}

#[tokio::test]
async fn a_rebound_name_gets_nothing_even_with_the_token() {
    let context = Context::new().await;
    let answer = context
        .admin_request(Method::POST, "pairing-codes")
        .header("host", "evil.example")
        .json(&json!({}))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(context.count("pairing_codes"), 0);
}

#[tokio::test]
async fn foreign_pages_cannot_use_the_admin_api() {
    let context = Context::new().await;
    let own = context.server.url().to_owned();
    for (origin, status) in [
        (own.as_str(), 201),
        ("http://evil.example", 403),
        ("https://127.0.0.1", 403),
        ("http://127.0.0.1:1", 403),
        ("null", 403),
    ] {
        let request = context.admin_request(Method::POST, "pairing-codes").json(&json!({}));
        let answer = request.header("origin", origin).send().await.unwrap();
        assert_eq!(answer.status(), status, "{origin}");
    }
    assert_eq!(context.count("pairing_codes"), 1);
    let preflight = context
        .http
        .request(Method::OPTIONS, format!("{own}/admin/v1/info"))
        .header("origin", "http://evil.example")
        .header("access-control-request-method", "GET")
        .send()
        .await
        .unwrap();
    assert!(!preflight.status().is_success());
    assert!(!preflight.headers().keys().any(|name| name.as_str().starts_with("access-control")));
}

#[tokio::test]
async fn answers_tell_browsers_to_keep_out() {
    let context = Context::new().await;
    let answer = context.request(Method::GET, "/nothing/here").send().await.unwrap();
    assert_eq!(answer.status(), 404);
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(answer.headers()[name], value, "{name}");
    }
    let policy = answer.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
}

#[tokio::test]
async fn oversized_bodies_are_refused() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let big = "x".repeat(1024 * 1024 + 1);
    let exchange = "/functions/v1/exchange-gateway-pairing-code";
    for request in [
        context.request(Method::POST, exchange),
        context.request(Method::POST, "/auth/v1/token?grant_type=refresh_token"),
        context.signed(Method::POST, "/functions/v1/gateway-heartbeat", &ours.access),
        context.request(Method::POST, "/rest/v1/gateway_events"),
        context.admin_request(Method::POST, "jobs").header("content-type", "application/json"),
    ] {
        let answer = request.body(big.clone()).send().await.unwrap();
        assert_eq!(answer.status(), 413, "{}", answer.url());
    }
    let head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Big: {big}\r\n\r\n");
    let mut stream = TcpStream::connect(context.server.local_addr()).await.unwrap();
    // The server may hang up before it has read all of it.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn unknown_functions_and_methods() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let missing = context
        .signed(Method::POST, "/functions/v1/no-such-function", &ours.access)
        .json(&json!({}))
        .send()
        .await
        .unwrap();
    assert_eq!(missing.status(), 404);
    assert_eq!(missing.headers()["sb-error-code"], "NOT_FOUND");
    assert_eq!(missing.json::<Value>().await.unwrap()["code"], "NOT_FOUND");
    let get = context.request(Method::GET, "/functions/v1/gateway-heartbeat").send().await.unwrap();
    assert_eq!(get.status(), 405);
    let forged = context
        .signed(Method::POST, "/functions/v1/gateway-heartbeat", "a.b.c")
        .json(&json!({}))
        .send()
        .await
        .unwrap();
    assert_eq!(forged.status(), 401);
    let no_key = format!("{}/functions/v1/gateway-heartbeat", context.server.url());
    assert_eq!(context.http.post(no_key).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn garbage_on_the_wire_does_not_stop_the_server() {
    let context = Context::new().await;
    for garbage in ["\u{0}\u{1}\u{2}\r\n\r\n", "GET\r\n\r\n", "\u{16}\u{3}\u{1}hello\r\n\r\n"] {
        let status = raw(&context, garbage).await;
        assert!(status.is_empty() || status.contains(" 400 "), "{garbage:?}: {status}");
    }
    let half = TcpStream::connect(context.server.local_addr()).await.unwrap();
    drop(half);
    let answer = context.request(Method::GET, "/healthz").send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_table_has_one_path() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let right = context.signed(Method::GET, "/rest/v1/gateway_jobs", &ours.access).send();
    assert_eq!(right.await.unwrap().status(), 200);
    for path in [
        "/rest/v1//gateway_jobs",
        "/rest/v1/gateway_jobs/",
        "/rest/v1/rest/v1/gateway_jobs",
        "/rest/v1/%2e%2e/v1/gateway_jobs",
        "/rest/v1/gateway_jobs%2f",
        "/rest/v1/",
    ] {
        // As it is: a client would tidy it up.
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\napikey: {}\r\nAuthorization: Bearer {}\r\n\
             Connection: close\r\n\r\n",
            context.server.anon_key(),
            ours.access
        );
        let status = raw(&context, &head).await;
        assert!(status.contains(" 404 "), "{path}: {status}");
    }
}

#[tokio::test]
async fn refusals_of_methods_and_names_say_why_in_json() {
    let context = Context::new().await;
    let ours = context.pair().await;
    for (request, status) in [
        (context.request(Method::POST, "/healthz"), 405),
        (context.request(Method::GET, "/auth/v1/token"), 405),
        (context.signed(Method::DELETE, "/auth/v1/user", &ours.access), 405),
        (context.signed(Method::PUT, "/rest/v1/gateway_jobs", &ours.access), 405),
        (context.signed(Method::POST, "/functions/v1/%ff", &ours.access), 404),
        (context.admin_request(Method::DELETE, "info"), 405),
        (context.admin_request(Method::GET, "jobs/%ff"), 404),
        (context.request(Method::DELETE, "/admin/v1/info"), 401),
    ] {
        let answer = request.send().await.unwrap();
        let url = answer.url().clone();
        assert_eq!(answer.status(), status, "{url}");
        let body: Value = answer.json().await.unwrap_or_else(|error| panic!("{url}: {error}"));
        assert!(body.to_string().len() > 20, "{url}: {body}");
    }
}
