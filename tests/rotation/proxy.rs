//! A proxy of raw TCP that stops the answer to one refresh at a chosen point.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use reqwest::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};

const REFRESH: &str = "/auth/v1/token";

/// How far the refresh that is stopped gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The server never hears of it.
    Request,
    /// The server has acted; no byte of its answer gets through.
    Answer,
    /// Half of the answer gets through.
    HalfAnswer,
    /// The whole answer gets through; everything that is asked later is held.
    Later,
    /// The whole answer gets through, and then nobody listens here any more.
    Door,
}

#[derive(Default)]
struct State {
    /// What to do about the next refresh, and whom to tell that it was done.
    armed: Option<(Hold, Arc<Notify>)>,
    /// Requests are held.
    frozen: bool,
    /// A request came while they were.
    asked_since: bool,
}

struct Shared {
    upstream: String,
    client: reqwest::Client,
    state: Mutex<State>,
    /// Whether connections are to be taken, and whether they are.
    door: watch::Sender<Door>,
    refreshes: AtomicUsize,
    pairings: AtomicUsize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Door {
    wanted: bool,
    open: bool,
}

/// See the module.
pub(crate) struct Proxy {
    pub(crate) url: String,
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Proxy {
    pub(crate) async fn before(upstream: &str) -> Self {
        // An error says that one is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            state: Mutex::default(),
            door: watch::Sender::new(Door { wanted: true, open: true }),
            refreshes: AtomicUsize::new(0),
            pairings: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Self { url, shared, task: task.abort_handle() }
    }

    /// Stops the next refresh there. The answer tells when that was done.
    pub(crate) fn arm(&self, hold: Hold) -> Arc<Notify> {
        let done = Arc::new(Notify::new());
        let armed = Some((hold, Arc::clone(&done)));
        *self.shared.state.lock().unwrap() = State { armed, ..State::default() };
        done
    }

    /// Lets everything through again. True when a request came in after the whole answer to the
    /// refresh had got through.
    pub(crate) async fn release(&self) -> bool {
        self.shared.turn_door(true).await;
        std::mem::take(&mut *self.shared.state.lock().unwrap()).asked_since
    }

    /// Refreshes that the server has answered.
    pub(crate) fn refreshes(&self) -> usize {
        self.shared.refreshes.load(Ordering::SeqCst)
    }

    /// Pairing codes that were exchanged.
    pub(crate) fn pairings(&self) -> usize {
        self.shared.pairings.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn turn_door(&self, open: bool) {
        self.door.send_modify(|door| door.wanted = open);
        let _ = self.door.subscribe().wait_for(|door| door.open == open).await;
    }
}

/// The lock that a watch's value comes with is given back.
async fn turned(door: &mut watch::Receiver<Door>, wanted: bool) {
    let _ = door.wait_for(|door| door.wanted == wanted).await;
}

async fn listen(first: TcpListener, shared: Arc<Shared>) {
    let address = first.local_addr().unwrap();
    let mut listener = Some(first);
    let mut door = shared.door.subscribe();
    let mut connections = JoinSet::new();
    loop {
        let Some(open) = &listener else {
            turned(&mut door, true).await;
            listener = Some(TcpListener::bind(address).await.unwrap());
            shared.door.send_modify(|door| door.open = true);
            continue;
        };
        tokio::select! {
            // Cancel safe, each arm: a connection that came stays until it is taken; a watch.
            accepted = open.accept() => {
                connections.spawn(serve(accepted.unwrap().0, Arc::clone(&shared)));
            }
            () = turned(&mut door, false) => {
                listener = None;
                shared.door.send_modify(|door| door.open = false);
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

struct Request {
    method: String,
    target: String,
    headers: reqwest::header::HeaderMap,
    body: Vec<u8>,
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await {
        let is_refresh = request.target.starts_with(REFRESH);
        let (frozen, armed) = {
            let mut state = shared.state.lock().unwrap();
            state.asked_since |= state.frozen;
            (state.frozen, if is_refresh { state.armed.take() } else { None })
        };
        if frozen {
            return gone(stream).await;
        }
        if let Some((Hold::Request, done)) = armed {
            done.notify_one();
            return gone(stream).await;
        }
        let Some(answer) = forward(&shared, request).await else { return };
        if is_refresh {
            shared.refreshes.fetch_add(1, Ordering::SeqCst);
        }
        let Some((hold, done)) = armed else {
            if stream.write_all(&answer).await.is_err() {
                return;
            }
            continue;
        };
        match hold {
            Hold::Request | Hold::Answer => {}
            Hold::HalfAnswer => {
                // Well into the body, whatever the head is.
                let half = answer.len() * 3 / 4;
                let _ = stream.write_all(&answer[..half]).await;
            }
            Hold::Later => {
                shared.state.lock().unwrap().frozen = true;
                let _ = stream.write_all(&answer).await;
            }
            Hold::Door => {
                shared.turn_door(false).await;
                let _ = stream.write_all(&answer).await;
                // The connection ends here: there is no other way to ask anything.
                done.notify_one();
                return;
            }
        }
        done.notify_one();
        if hold != Hold::Later {
            return gone(stream).await;
        }
    }
}

/// Waits until the other side hangs up.
async fn gone(mut stream: TcpStream) {
    let mut rest = [0; 1024];
    while matches!(stream.read(&mut rest).await, Ok(read) if read > 0) {}
}

/// The answer as it goes over the wire; `None` when the server cannot be reached.
async fn forward(shared: &Shared, request: Request) -> Option<Vec<u8>> {
    let is_pairing = request.target.ends_with("/exchange-gateway-pairing-code");
    let method = reqwest::Method::from_bytes(request.method.as_bytes()).unwrap();
    let answer = shared
        .client
        .request(method, format!("{}{}", shared.upstream, request.target))
        .headers(request.headers)
        .body(request.body)
        .send()
        .await
        .ok()?;
    if is_pairing && answer.status().is_success() {
        shared.pairings.fetch_add(1, Ordering::SeqCst);
    }
    let mut bytes = format!("HTTP/1.1 {} X\r\n", answer.status().as_u16()).into_bytes();
    for (name, value) in answer.headers() {
        if ![CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION].contains(name) {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
    }
    let body = answer.bytes().await.ok()?;
    bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(&body);
    Some(bytes)
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer.drain(..end).collect()).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let mut start = lines.next()?.split(' ').map(str::to_owned);
    let (method, target) = (start.next()?, start.next()?);
    let mut headers = reqwest::header::HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let name: reqwest::header::HeaderName = name.parse().unwrap();
        headers.append(name, value.parse().unwrap());
    }
    headers.remove(HOST);
    let length = headers
        .remove(CONTENT_LENGTH)
        .map_or(0, |value| value.to_str().unwrap().parse::<usize>().unwrap());
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer.drain(..length).collect();
    Some(Request { method, target, headers, body })
}
