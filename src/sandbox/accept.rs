//! The accept loop: one owned task a connection, each with bounds.
//!
//! When all places are taken, a new connection gets that of the one that has been without a request
//! for longest: whoever opens connections and stays silent locks nobody out.
//!
//! Stops when its token is cancelled: no new connections, requests in hand are answered, then
//! connections close; what has not ended by then is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::app::Peer;
use crate::task::{Ending, Group};

const MAX_CONNECTIONS: usize = 512;
const MAX_HEADERS: usize = 64;
/// Request line and headers together.
const MAX_HEAD: usize = 64 * 1024;
/// Also ends idle connections, so it is longer than the 90 s for which clients keep theirs.
const HEAD_TIME_LIMIT: Duration = Duration::from_secs(95);
/// How long requests in hand may take after the stop.
pub(super) const DRAIN: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until `stop`.
pub(super) async fn run(listener: TcpListener, router: Router, stop: CancellationToken) {
    run_with(MAX_CONNECTIONS, listener, router, stop).await;
}

async fn run_with(most: usize, listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut connections = Group::new(stop.child_token());
    let slots = Arc::new(Semaphore::new(most));
    let mut places = Places::default();
    let mut waiting: Option<(TcpStream, SocketAddr)> = None;
    loop {
        if waiting.is_some() && slots.available_permits() == 0 {
            places.free_one();
        }
        // All are cancel safe: a slot that was taken is given back, and a connection that was not
        // handed out stays in the listener's queue.
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.next(), if !connections.is_empty() => {
                if let Ending::Panicked(panic) = ended.ending {
                    tracing::error!(%panic, "a connection's task panicked");
                }
            }
            accepted = listener.accept(), if waiting.is_none() => match accepted {
                Ok(accepted) => waiting = Some(accepted),
                Err(error) => {
                    // Out of descriptors, or the peer is gone already.
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            slot = Arc::clone(&slots).acquire_owned(), if waiting.is_some() => {
                let (Some((stream, peer)), Ok(slot)) = (waiting.take(), slot) else { continue };
                let place = places.take();
                let router = router.clone();
                connections.spawn("connection", move |stop| {
                    serve(stream, peer, router, (slot, place), stop)
                });
            }
        }
    }
    drop(listener);
    connections.stop(DRAIN).await;
}

/// Which connections there are, and which of them could give way.
#[derive(Debug, Default)]
struct Places {
    turn: Arc<AtomicU64>,
    taken: Vec<Arc<Place>>,
}

/// One connection as the others see it.
#[derive(Debug)]
struct Place {
    /// One of the constants below.
    state: AtomicU8,
    /// When it last did something, in turns of all connections.
    last: AtomicU64,
    turn: Arc<AtomicU64>,
    given_up: CancellationToken,
}

/// No request is being handled. An answer may still be on its way to a slow reader.
const IDLE: u8 = 0;
const SERVING: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Places {
    fn take(&mut self) -> Arc<Place> {
        // The connection's task holds the other reference.
        self.taken.retain(|place| Arc::strong_count(place) > 1);
        let place = Arc::new(Place {
            state: AtomicU8::new(IDLE),
            last: AtomicU64::new(0),
            turn: Arc::clone(&self.turn),
            given_up: CancellationToken::new(),
        });
        place.touch();
        self.taken.push(Arc::clone(&place));
        place
    }

    /// Ends the connection that has been idle for longest, if one is idle.
    fn free_one(&mut self) {
        self.taken.sort_unstable_by_key(|place| place.last.load(Ordering::Relaxed));
        let live = self.taken.iter().filter(|place| Arc::strong_count(place) > 1);
        for place in live {
            if place.change(IDLE, GIVEN_UP) {
                tracing::debug!("all connections are taken: an idle one is closed");
                place.given_up.cancel();
                return;
            }
        }
    }
}

impl Place {
    fn touch(&self) {
        self.last.store(self.turn.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    (slot, place): (OwnedSemaphorePermit, Arc<Place>),
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "could not set TCP_NODELAY");
    }
    let router = TowerToHyperService::new(router);
    let serving = Arc::clone(&place);
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer.ip()));
        let (place, router) = (Arc::clone(&serving), router.clone());
        async move {
            if !place.change(IDLE, SERVING) {
                // Given up already: nothing may be done that nobody would hear of.
                std::future::pending::<()>().await;
            }
            place.touch();
            let answer = router.call(request).await;
            place.touch();
            place.change(SERVING, IDLE);
            answer
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_LIMIT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    let mut connection =
        std::pin::pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = place.given_up.cancelled() => Ok(()),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    drop(slot);
    if let Err(error) = result {
        tracing::debug!(%error, "a connection broke");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Notify;

    use super::*;

    const MOST: usize = 4;

    struct Running {
        address: SocketAddr,
        _tasks: Group,
    }

    /// `/slow` says `began`, and answers when told to `go_on`.
    async fn start(began: Arc<Notify>, go_on: Arc<Notify>) -> Running {
        let slow = get(move || async move {
            began.notify_one();
            go_on.notified().await;
            "slow"
        });
        let router = Router::new().route("/fast", get(async || "fast")).route("/slow", slow);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = Group::new(CancellationToken::new());
        tasks.spawn("accept", move |stop| run_with(MOST, listener, router, stop));
        Running { address, _tasks: tasks }
    }

    async fn ask(stream: &mut TcpStream, path: &str) {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
    }

    async fn hear(stream: &mut TcpStream, end: &str) {
        let mut heard = Vec::new();
        while !heard.ends_with(end.as_bytes()) {
            assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0, "closed before its answer");
        }
    }

    async fn closed(stream: &mut TcpStream) {
        // An end or a reset, as the kernel likes.
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn silent_connections_lock_nobody_out() {
        let running = start(Arc::default(), Arc::default()).await;
        let mut silent = Vec::new();
        for _ in 0..3 * MOST {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            // Half a head is silence, too.
            stream.write_all(b"GET /fast HT").await.unwrap();
            silent.push(stream);
        }
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        ask(&mut stream, "/fast").await;
        hear(&mut stream, "fast").await;
        for stream in silent.iter_mut().take(2 * MOST) {
            closed(stream).await;
        }
        ask(&mut stream, "/fast").await;
        hear(&mut stream, "fast").await;
    }

    #[tokio::test]
    async fn a_connection_with_a_request_in_hand_does_not_give_way() {
        let (began, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let running = start(Arc::clone(&began), Arc::clone(&go_on)).await;
        let mut busy = TcpStream::connect(running.address).await.unwrap();
        ask(&mut busy, "/slow").await;
        began.notified().await;
        for _ in 0..2 * MOST {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            ask(&mut stream, "/fast").await;
            hear(&mut stream, "fast").await;
        }
        go_on.notify_one();
        hear(&mut busy, "slow").await;
    }
}
