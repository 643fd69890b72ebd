//! `/metrics`, `/healthz` and `/readyz` by HTTP, for those who cannot use the status socket.
//!
//! One request a connection, few connections, each for a few seconds. An address that is taken is a
//! warning and tried again; it never holds up the gateway. Nothing that is served is a secret.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::metrics;
use super::shared::Shared;
use super::status::ListenState;
use crate::task::Group;

/// Scrapers and probes; more wait in the system's queue.
const MAX_CONNECTIONS: usize = 16;
/// Request line and headers have to be there within this time.
const HEAD_LIMIT: Duration = Duration::from_secs(3);
/// A connection lasts no longer, whoever reads slowly included.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// How often an address that could not be had is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const PATHS: &str = "/metrics, /healthz, /readyz\n";

/// Serves until `stop`.
pub(super) async fn run(shared: Arc<Shared>, address: SocketAddr, stop: CancellationToken) {
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "metrics and health are open to other machines");
    }
    let listener = tokio::select! {
        // Cancel safe: a listener that was made is closed again.
        listener = listen(&shared, address) => listener,
        () = stop.cancelled() => return,
    };
    serve_all(&shared, &listener, stop).await;
    note(&shared, address, false, None);
}

/// Tries until the address can be had.
async fn listen(shared: &Shared, address: SocketAddr) -> TcpListener {
    let mut warned = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(address);
                tracing::info!(%address, "serving metrics and health");
                note(shared, address, true, None);
                return listener;
            }
            Err(error) => {
                if !warned {
                    tracing::warn!(%address, %error,
                        "metrics and health cannot be served there; trying again every 5 s");
                }
                warned = true;
                note(shared, address, false, Some(error.to_string()));
            }
        }
        tokio::time::sleep(BIND_AGAIN).await;
    }
}

fn note(shared: &Shared, address: SocketAddr, listening: bool, error: Option<String>) {
    let state = ListenState { address: address.to_string(), listening, error };
    shared.notes().metrics_listen = Some(state);
}

async fn serve_all(shared: &Arc<Shared>, listener: &TcpListener, stop: CancellationToken) {
    let mut connections = Group::new(stop.child_token());
    loop {
        tokio::select! {
            // Cancel safe, each arm: accept and join.
            () = stop.cancelled() => break,
            Some(_) = connections.next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let shared = Arc::clone(shared);
                    connections.spawn("metrics connection", move |stop| async move {
                        tokio::select! {
                            // What is cut off is a reader that can ask again.
                            () = serve(shared, stream) => {}
                            () = tokio::time::sleep(CONNECTION_LIMIT) => {}
                            () = stop.cancelled() => {}
                        }
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: do not spin.
                    tracing::debug!(%error, "could not accept a connection for metrics");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.stop(Duration::from_secs(1)).await;
}

async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let answer = answer(&shared, request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEAD_LIMIT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection for metrics broke");
    }
}

fn answer(shared: &Shared, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return response(StatusCode::METHOD_NOT_ALLOWED, "text/plain", PATHS);
    }
    match path {
        "/metrics" => response(StatusCode::OK, metrics::CONTENT_TYPE, metrics::scrape(shared)),
        "/healthz" => {
            let health = shared.health();
            json(health.ok, &serde_json::json!({"ok": health.ok}))
        }
        "/readyz" => {
            let health = shared.health();
            json(health.ready, &health)
        }
        _ => response(StatusCode::NOT_FOUND, "text/plain", PATHS),
    }
}

fn json(good: bool, body: &impl Serialize) -> Response<Full<Bytes>> {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = serde_json::to_string(body).unwrap_or_default();
    text.push('\n');
    response(status, "application/json", text)
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::runtime::status::Phase;

    struct Running {
        shared: Arc<Shared>,
        address: SocketAddr,
        _group: Group,
        _dir: tempfile::TempDir,
    }

    async fn listening(shared: &Shared) -> SocketAddr {
        loop {
            let state = shared.notes().metrics_listen.clone();
            if let Some(state) = state.filter(|state| state.listening) {
                return state.address.parse().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn start() -> Running {
        let (shared, dir) = Shared::for_tests();
        let shared = Arc::new(shared);
        let mut group = Group::new(CancellationToken::new());
        let own = Arc::clone(&shared);
        group.spawn("server", move |stop| run(own, "127.0.0.1:0".parse().unwrap(), stop));
        let address = listening(&shared).await;
        Running { shared, address, _group: group, _dir: dir }
    }

    async fn ask(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A reset after the answer is as good as an end.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    }

    #[tokio::test]
    async fn readiness_turns_with_the_facts_and_health_does_not() {
        let running = start().await;
        let (shared, address) = (&running.shared, running.address);
        let ready = ask(address, &get("/readyz")).await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("starting"), "{ready}");
        assert!(ask(address, &get("/healthz")).await.starts_with("HTTP/1.1 200"));
        shared.heard.send_replace(Some(crate::clock::Clock::system().now()));
        shared.polled.send_replace(Some(tokio::time::Instant::now()));
        shared.phase.send_replace(Phase::Up);
        let ready = ask(address, &get("/readyz")).await;
        assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("\"reasons\":[]"), "{ready}");
        shared.phase.send_replace(Phase::Draining);
        let ready = ask(address, &get("/readyz")).await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("draining"), "{ready}");
        let metrics = ask(address, &get("/metrics")).await;
        assert!(metrics.contains("openmetrics-text") && metrics.ends_with("# EOF\n"), "{metrics}");
    }

    #[tokio::test]
    async fn other_requests_are_refused() {
        let running = start().await;
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2 * MAX_HEAD));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(2 * MAX_HEADERS));
        for (head, status) in [
            (get("/"), "404"),
            (get("/metrics/../secret"), "404"),
            ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".to_owned(), "405"),
            ("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "200"),
            ("\0\0nonsense\r\n\r\n".to_owned(), "400"),
            (long, "4"),
            (many, "431"),
        ] {
            let answer = ask(running.address, &head).await;
            let start = format!("HTTP/1.1 {status}");
            assert!(answer.starts_with(&start), "{status}: {answer:.200}");
        }
    }

    #[tokio::test]
    async fn silent_connections_give_way_to_those_who_ask() {
        let running = start().await;
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            stream.write_all(b"GET /metr").await.unwrap();
            silent.push(stream);
        }
        let answer = ask(running.address, &get("/healthz")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_tried_again() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let (shared, _dir) = Shared::for_tests();
        let shared = Arc::new(shared);
        let mut group = Group::new(CancellationToken::new());
        let own = Arc::clone(&shared);
        group.spawn("server", move |stop| run(own, address, stop));
        let error = loop {
            if let Some(state) = shared.notes().metrics_listen.clone() {
                break state.error.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        assert!(error.contains("in use"), "{error}");
        drop(taken);
        tokio::time::pause();
        assert_eq!(listening(&shared).await, address);
        let answer = group.stop(Duration::from_secs(5)).await;
        assert_eq!(answer[0].ending, crate::task::Ending::Returned);
        assert!(!shared.notes().metrics_listen.clone().unwrap().listening);
    }
}
