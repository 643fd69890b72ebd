use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Barrier;
use tokio_util::sync::CancellationToken;

use super::*;

/// Requests that are under way at the same time.
const AT_ONCE: usize = 3;

/// A server that takes no token but one that it gives to the session.
struct Server {
    /// Refusals wait until so many are due.
    all_there: Barrier,
    refused: AtomicUsize,
    renewed: AtomicUsize,
    answered: AtomicUsize,
}

async fn answer(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    Json(request): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let token = headers[AUTHORIZATION].to_str().unwrap();
    match (token, request["action"].as_str().unwrap()) {
        ("Bearer session", "renew") => {
            let count = server.renewed.fetch_add(1, Ordering::Relaxed);
            let token = format!("new {count}");
            (StatusCode::OK, Json(json!({ "token": token, "expires_at": "2030-01-01T00:00:00Z" })))
        }
        ("Bearer new 0", "hello") => {
            server.answered.fetch_add(1, Ordering::Relaxed);
            (StatusCode::OK, Json(json!("hello")))
        }
        _ => {
            server.refused.fetch_add(1, Ordering::Relaxed);
            server.all_there.wait().await;
            let error = json!({ "code": "token_expired", "message": "it has ended" });
            (StatusCode::UNAUTHORIZED, Json(json!({ "error": error })))
        }
    }
}

async fn serve(at_once: usize) -> (Arc<Server>, Link, Arc<Mutex<Vec<String>>>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Arc::new(Server {
        all_there: Barrier::new(at_once),
        refused: AtomicUsize::new(0),
        renewed: AtomicUsize::new(0),
        answered: AtomicUsize::new(0),
    });
    let router = Router::new()
        .route(&format!("/functions/v1/{}", wire::FUNCTION), post(answer))
        .with_state(Arc::clone(&server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    // It ends with the test's runtime.
    #[expect(clippy::disallowed_methods, reason = "a test's server")]
    tokio::spawn(async move { axum::serve(listener, router).await });
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    let link = Link::new(
        reqwest::Client::new(),
        url,
        "anon".into(),
        "vm".to_owned(),
        "old".into(),
        CancellationToken::new(),
        Duration::from_secs(30),
    )
    .unwrap()
    .with_keys(
        Some(SessionToken(Arc::new(|| "session".into()))),
        Some(KeepToken(Arc::new(move |renewed| keep.lock().unwrap().push(renewed.token.clone())))),
    );
    (server, link, kept)
}

/// Another token would be as good, but each is one more that opens the drives until it ends.
#[tokio::test]
async fn of_requests_that_are_refused_at_the_same_time_one_gets_a_new_token_for_all() {
    let (server, link, kept) = serve(AT_ONCE).await;
    let hello = || link.ask::<String>(Action::Hello { protocol: wire::PROTOCOL });
    let answers = futures_util::future::join_all((0..AT_ONCE).map(|_| hello())).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    assert_eq!(count(&server.refused), AT_ONCE);
    assert_eq!((count(&server.renewed), count(&server.answered)), (1, AT_ONCE));
    assert_eq!(*kept.lock().unwrap(), ["new 0"]);
    // It is used from here on, by clones too.
    let clone = link.clone();
    clone.ask::<String>(Action::Hello { protocol: wire::PROTOCOL }).await.unwrap();
    assert_eq!(count(&server.refused), AT_ONCE);
}

/// Answers a request on each connection, and closes it.
fn close_each(listener: &std::net::TcpListener, closed: &std::sync::mpsc::Sender<()>) {
    use std::io::{BufRead, BufReader, Read, Write};
    let limits = json!({"batch": 1, "inline_bytes": 1, "inline_total_bytes": 1, "part_bytes": 1,
        "file_bytes": 1, "changes": 1});
    let hello = json!({"drives": [], "token_expires_at": "2030-01-01T00:00:00Z", "limits": limits});
    let hello = hello.to_string();
    let length = |line: &str| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok();
    for stream in listener.incoming() {
        let mut stream = BufReader::new(stream.unwrap());
        let lines = stream.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty());
        let Some(size) = lines.collect::<Vec<_>>().iter().find_map(|line| length(line)) else {
            return;
        };
        std::io::copy(&mut stream.by_ref().take(size), &mut std::io::sink()).unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{hello}", hello.len());
        stream.get_mut().write_all(answer.as_bytes()).unwrap();
        drop(stream);
        closed.send(()).unwrap();
    }
}

/// Between two calls nobody looks at the connection.
#[test]
fn a_connection_that_was_closed_while_it_rested_is_no_failure() {
    const CALLS: usize = 20;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (closed, is_closed) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || close_each(&listener, &closed));
        let link = Link::new(
            reqwest::Client::new(),
            format!("http://{address}").parse().unwrap(),
            "anon".into(),
            "vm".to_owned(),
            "token".into(),
            CancellationToken::new(),
            Duration::from_secs(30),
        )
        .unwrap();
        for call in 0..CALLS {
            let hello = link.hello();
            assert!(hello.is_ok(), "call {call}: {hello:?}");
            is_closed.recv().unwrap();
        }
        // An empty one ends the server.
        drop(std::net::TcpStream::connect(address));
    });
}
