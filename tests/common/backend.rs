//! A backend that misbehaves: forwards to a real control plane, or does what it is told instead.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What a path answers instead of being forwarded.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This status and body.
    Answer(u16, &'static str, String),
    /// So many bytes of blanks, slowly made, as JSON.
    Huge(u64),
    /// Nothing for this long, then forwarded.
    Slow(Duration),
    /// Does what it is asked to at once, and says so only after this.
    Late(Duration),
    /// On its way for this long, and arrives even when whoever sent it is gone by then.
    Adrift(Duration),
    /// The first half of what a longer body would be, then the connection is cut.
    Half(&'static str),
    /// Forwarded, but the answer is lost.
    LostAnswer,
    /// Lost on its way there; the connection breaks.
    LostRequest,
    /// Forwarded, and the answer is changed: query, JSON.
    Changed(fn(&str, &mut serde_json::Value)),
    /// Forwarded, after this was done.
    After(Hook),
}

/// Something that a test does while a request is on its way.
#[derive(Clone)]
pub(crate) struct Hook(pub(crate) Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

impl Fault {
    /// See [`Self::After`].
    pub(crate) fn after(act: impl Fn() + Send + Sync + 'static) -> Self {
        Self::After(Hook(Arc::new(act)))
    }
}

#[derive(Clone)]
struct Shared {
    upstream: String,
    client: reqwest::Client,
    faults: Arc<Mutex<HashMap<String, Fault>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    secrets: Arc<Mutex<BTreeSet<String>>>,
    /// Connections that became sockets.
    sockets: Arc<Mutex<JoinSet<()>>>,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
}

/// A server between a gateway and its control plane.
pub(crate) struct Middleman {
    shared: Shared,
    pub(crate) url: String,
    cut: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Middleman {
    pub(crate) async fn before(upstream: &str) -> Self {
        // An error says that one is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let shared = Shared {
            upstream: upstream.to_owned(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            faults: Arc::default(),
            seen: Arc::default(),
            secrets: Arc::default(),
            sockets: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(handle).with_state(shared.clone());
        let (cut, is_cut) = watch::channel(false);
        #[expect(clippy::disallowed_methods, reason = "ended by the handle when dropped")]
        let task = tokio::spawn(serve(listener, router, is_cut));
        Self { shared, url, cut, task }
    }

    /// From now on requests whose path ends like this meet the fault: `/user`, or with a method
    /// `PATCH /gateway_jobs`, or with a part of the query `/gateway_jobs?idempotency_key=`.
    pub(crate) fn fault(&self, which: &str, fault: Fault) {
        self.shared.faults.lock().unwrap().insert(which.to_owned(), fault);
    }

    /// Breaks every connection, requests in hand included, and each new one at once.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
        self.shared.sockets.lock().unwrap().abort_all();
    }

    pub(crate) fn heal(&self) {
        self.shared.faults.lock().unwrap().clear();
        self.cut.send_replace(false);
    }

    /// Every token and key that came by.
    pub(crate) fn secrets(&self) -> BTreeSet<String> {
        self.shared.secrets.lock().unwrap().clone()
    }

    /// Only this fault stays.
    pub(crate) fn heal_but(&self, which: &str) {
        self.shared.faults.lock().unwrap().retain(|fault, _| fault == which);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn forget(&self) {
        self.shared.seen.lock().unwrap().clear();
    }
}

impl Drop for Middleman {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, router: Router, mut cut: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                if *cut.borrow() {
                    continue;
                }
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    // A connection that breaks is the peer's business.
                    let _ =
                        http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
                });
            }
            Ok(()) = cut.changed() => {
                if *cut.borrow_and_update() {
                    connections.abort_all();
                }
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// The fields of an answer or a request that hold tokens.
fn tokens(body: &[u8]) -> Vec<String> {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let token = |name: &str| json[name].as_str().map(str::to_owned);
    ["access_token", "refresh_token"].into_iter().filter_map(token).collect()
}

async fn handle(State(shared): State<Shared>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let body = axum::body::to_bytes(body, 100 * 1024 * 1024).await.unwrap_or_default();
    let path = parts.uri.path().to_owned();
    shared.seen.lock().unwrap().push(Seen {
        method: parts.method.to_string(),
        path: path.clone(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
    });
    {
        let mut secrets = shared.secrets.lock().unwrap();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        secrets.extend(header("apikey").map(str::to_owned));
        let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        secrets.extend(bearer.map(str::to_owned));
        secrets.extend(tokens(&body));
    }
    let fault = {
        let faults = shared.faults.lock().unwrap();
        let query = parts.uri.query().unwrap_or_default();
        let meets = |which: &str| {
            let (method, end) = which.split_once(' ').unwrap_or((parts.method.as_str(), which));
            let (end, within) = end.split_once('?').unwrap_or((end, ""));
            parts.method == method && path.ends_with(end) && query.contains(within)
        };
        faults.iter().find(|(which, _)| meets(which)).map(|(_, fault)| fault.clone())
    };
    match fault {
        None if parts.headers.contains_key(header::UPGRADE) => {
            carry(&shared, &parts, upgrade).await
        }
        None => forward(&shared, &parts, body).await,
        Some(Fault::Slow(pause)) => {
            tokio::time::sleep(pause).await;
            forward(&shared, &parts, body).await
        }
        Some(Fault::Late(pause)) => {
            let answer = forward(&shared, &parts, body).await;
            tokio::time::sleep(pause).await;
            answer
        }
        Some(Fault::Adrift(pause)) => {
            #[expect(clippy::disallowed_methods, reason = "outlives the connection on purpose")]
            let arrived = tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                forward(&shared, &parts, body).await
            });
            arrived.await.unwrap()
        }
        Some(Fault::After(hook)) => {
            (hook.0)();
            forward(&shared, &parts, body).await
        }
        Some(Fault::Answer(status, content_type, text)) => {
            let status = StatusCode::from_u16(status).unwrap();
            (status, [(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Some(Fault::Huge(bytes)) => {
            let chunk = Bytes::from(vec![b' '; 64 * 1024]);
            let chunks = bytes / 65_536;
            let stream = futures_util::stream::iter(
                (0..chunks).map(move |_| Ok::<_, std::io::Error>(chunk.clone())),
            );
            json_response(Body::from_stream(stream))
        }
        Some(Fault::Half(text)) => {
            let parts = [Ok(Bytes::from(text)), Err(std::io::Error::other("cut"))];
            json_response(Body::from_stream(futures_util::stream::iter(parts)))
        }
        Some(Fault::Changed(change)) => {
            let answer = forward(&shared, &parts, body).await;
            let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            let mut json = serde_json::from_slice(&bytes).unwrap_or_default();
            change(parts.uri.query().unwrap_or_default(), &mut json);
            json_response(Body::from(json.to_string()))
        }
        Some(Fault::LostAnswer) => {
            forward(&shared, &parts, body).await;
            broken()
        }
        Some(Fault::LostRequest) => broken(),
    }
}

/// A socket, byte for byte, until either side ends or the backend is cut off.
async fn carry(shared: &Shared, parts: &Parts, upgrade: Option<OnUpgrade>) -> Response {
    let Ok(answer) = send(shared, parts, Bytes::new()).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(upgrade)) = (answer.status(), upgrade) {
        shared.sockets.lock().unwrap().spawn(async move {
            if let (Ok(mut there), Ok(here)) = tokio::join!(answer.upgrade(), upgrade) {
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(here), &mut there).await;
            }
        });
    }
    response
}

/// An answer whose connection breaks.
fn broken() -> Response {
    let lost = Err::<Bytes, _>(std::io::Error::other("lost"));
    json_response(Body::from_stream(futures_util::stream::iter([lost])))
}

fn json_response(body: Body) -> Response {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn send(
    shared: &Shared,
    parts: &Parts,
    body: Bytes,
) -> Result<reqwest::Response, reqwest::Error> {
    let target = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut headers = parts.headers.clone();
    headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    let url = format!("{}{target}", shared.upstream);
    shared.client.request(parts.method.clone(), url).headers(headers).body(body).send().await
}

async fn forward(shared: &Shared, parts: &Parts, body: Bytes) -> Response {
    let Ok(answer) = send(shared, parts, body).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONTENT_LENGTH);
    let bytes = answer.bytes().await.unwrap_or_default();
    shared.secrets.lock().unwrap().extend(tokens(&bytes));
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
