//! A scripted stand-in for the APIs that the agent CLIs speak with, on loopback.
//!
//! It answers by what the prompt says (see [`script`]), records every request with its body, and
//! refuses to be a proxy: a CLI whose `HTTPS_PROXY` it is shows which outside hosts it tries to
//! reach.

mod dialects;
mod script;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{JoinHandle, JoinSet};

use dialects::{Dialect, Written};
use script::{Plan, Trouble};

/// How long the half of an answer stands before the connection is cut.
const CUT_AFTER: Duration = Duration::from_millis(100);

/// Before each piece of an answer that comes slowly.
const PIECE_AFTER: Duration = Duration::from_millis(100);

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Method and address.
    pub(crate) target: String,
    /// A host elsewhere was meant.
    pub(crate) is_proxied: bool,
    /// As it came.
    pub(crate) body: String,
    /// What the user said in it.
    pub(crate) prompt: String,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    errors: Mutex<HashMap<String, usize>>,
    number: AtomicUsize,
}

/// The server; ended when dropped.
pub(crate) struct FakeLlm {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl FakeLlm {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let task = spawn(listener, &shared);
        Self { address, shared, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on connections are refused; those that are open are cut.
    pub(crate) async fn close(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// Listens again, at the same address.
    pub(crate) fn open(&mut self) {
        let socket = TcpSocket::new_v4().unwrap();
        // Connections that were cut may still wait for their end.
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        self.task = spawn(socket.listen(64).unwrap(), &self.shared);
    }

    /// Everything that came.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The requests in which the user said this.
    pub(crate) fn asked(&self, marker: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.prompt.contains(marker)).collect()
    }

    /// Whether this stands in any request: what was not sent did not leave this machine.
    pub(crate) fn was_told(&self, text: &str) -> bool {
        self.seen().iter().any(|seen| seen.body.contains(text))
    }

    /// The outside hosts that somebody tried to reach by it.
    pub(crate) fn outside(&self) -> Vec<String> {
        let seen = self.seen().into_iter();
        seen.filter(|seen| seen.is_proxied).map(|seen| seen.target).collect()
    }
}

impl Drop for FakeLlm {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "ended by the handle when dropped")]
fn spawn(listener: TcpListener, shared: &Arc<Shared>) -> JoinHandle<()> {
    tokio::spawn(serve(listener, Arc::clone(shared)))
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let shared = Arc::clone(&shared);
                let service = hyper::service::service_fn(move |request: Request<_>| {
                    let shared = Arc::clone(&shared);
                    async move {
                        Ok::<_, Infallible>(handle(&shared, request.map(Body::new)).await)
                    }
                });
                connections.spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    // A connection that breaks is the peer's business.
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn handle(shared: &Shared, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let is_proxied = parts.method == Method::CONNECT || parts.uri.authority().is_some();
    let bytes = if parts.method == Method::CONNECT {
        Bytes::new()
    } else {
        axum::body::to_bytes(body, 100 * 1024 * 1024).await.unwrap_or_default()
    };
    let path = parts.uri.path();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let dialect = Dialect::of(path).filter(|_| !is_proxied && parts.method == Method::POST);
    let turn = dialect.map(|dialect| dialect.turn(&body)).unwrap_or_default();
    shared.seen.lock().unwrap().push(Seen {
        target: format!("{} {}", parts.method, parts.uri),
        is_proxied,
        body: String::from_utf8_lossy(&bytes).into_owned(),
        prompt: turn.user.clone(),
    });
    if is_proxied {
        return answer_json(502, &json!({"error": "there is nothing outside"}));
    }
    if parts.headers.contains_key(header::UPGRADE) {
        return answer_json(426, &json!({"error": {"message": "no sockets here"}}));
    }
    let Some(dialect) = dialect else { return small_talk(&parts.uri.to_string()) };
    let plan = Plan::of(&turn);
    if let Some(trouble) = error_now(shared, &plan, &turn.user) {
        let mut answer = answer_json(trouble.status, &dialect.error(trouble.status));
        let wait = trouble.retry_after.map(HeaderValue::from);
        answer.headers_mut().extend(wait.map(|wait| (header::RETRY_AFTER, wait)));
        return answer;
    }
    tokio::time::sleep(plan.pause).await;
    if plan.hang {
        std::future::pending::<()>().await;
    }
    let number = shared.number.fetch_add(1, Ordering::Relaxed);
    match dialect.write(path, &body, &plan, number) {
        Written::Json(json) => answer_json(200, &json),
        Written::Events { events, pieces } => answer_events(&events, pieces, &plan),
    }
}

/// The error that this request meets, if any: each prompt has its own count.
fn error_now<'a>(shared: &Shared, plan: &'a Plan, prompt: &str) -> Option<&'a Trouble> {
    let trouble = plan.error.as_ref()?;
    let mut errors = shared.errors.lock().unwrap();
    let so_far = errors.entry(prompt.to_owned()).or_default();
    *so_far += 1;
    trouble.most.is_none_or(|most| *so_far <= most).then_some(trouble)
}

/// What the CLIs ask besides.
fn small_talk(target: &str) -> Response<Body> {
    let path = target.split('?').next().unwrap_or_default();
    match path {
        "/" => answer_json(200, &json!({})),
        _ if path.ends_with("/count_tokens") => answer_json(200, &json!({"input_tokens": 100})),
        _ if path.ends_with(":countTokens") => answer_json(200, &json!({"totalTokens": 100})),
        // Codex takes a list of its own kind, which may be empty.
        _ if target.contains("client_version") => answer_json(200, &json!({"models": []})),
        _ if path.ends_with("/models") => {
            answer_json(200, &json!({"object": "list", "has_more": false, "data": []}))
        }
        _ => answer_json(404, &json!({"error": {"message": format!("there is no {path}")}})),
    }
}

fn answer_json(status: u16, json: &Value) -> Response<Body> {
    let answer = Response::builder().header(header::CONTENT_TYPE, "application/json");
    answer.status(StatusCode::from_u16(status).unwrap()).body(json.to_string().into()).unwrap()
}

fn answer_events(
    events: &[(Option<&str>, Value)],
    pieces: Range<usize>,
    plan: &Plan,
) -> Response<Body> {
    let shown = if plan.cut { pieces.start + 1 } else { events.len() };
    let write = |(name, data): &(Option<&str>, Value)| {
        let name = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
        Bytes::from(format!("{name}data: {data}\n\n"))
    };
    let chunks: Vec<_> = events.iter().take(shown).map(write).enumerate().collect();
    let is_slow = plan.slow.is_some();
    let chunks = futures_util::stream::iter(chunks).then(move |(at, chunk)| {
        let waits = is_slow && pieces.contains(&at);
        async move {
            if waits {
                tokio::time::sleep(PIECE_AFTER).await;
            }
            Ok(chunk)
        }
    });
    // What is not flushed when the cut comes is thrown away: it comes a little later.
    let cut = futures_util::stream::iter(plan.cut.then_some(())).then(async |()| {
        tokio::time::sleep(CUT_AFTER).await;
        Err(std::io::Error::other("cut"))
    });
    let answer = Response::builder().header(header::CONTENT_TYPE, "text/event-stream");
    answer.body(Body::from_stream(chunks.chain(cut))).unwrap()
}
