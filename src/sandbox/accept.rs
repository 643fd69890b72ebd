//! The accept loop: one owned task a connection, each with bounds.
//!
//! When all places are taken, a new connection gets that of one that does nothing (see `places`):
//! whoever opens connections and stays silent, or does not read, locks nobody out.
//!
//! Stops when its token is cancelled: no new connections, requests in hand are answered, then
//! connections close; what has not ended by then is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
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
use super::places::{Answer, PATIENCE, Place, Places, Watched};
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
/// How often one that waits for a place looks for one that could give way.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Serves `router` until `stop`.
pub(super) async fn run(listener: TcpListener, router: Router, stop: CancellationToken) {
    run_with((MAX_CONNECTIONS, PATIENCE), listener, router, stop).await;
}

async fn run_with(
    (most, patience): (usize, Duration),
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) {
    let mut connections = Group::new(stop.child_token());
    let slots = Arc::new(Semaphore::new(most));
    let mut places = Places::new(patience);
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
            () = tokio::time::sleep(LOOK_AGAIN), if waiting.is_some() => {}
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
            let Some(serving) = place.serve() else { return std::future::pending().await };
            let answer = router.call(request).await;
            answer.map(|answer| answer.map(|body| Answer { body, serving }))
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_LIMIT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    let io = TokioIo::new(Watched { stream, place: Arc::clone(&place) });
    let mut connection = std::pin::pin!(http.serve_connection(io, service).with_upgrades());
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
    /// More than the system takes off our hands.
    const LARGE: usize = 64 * 1024 * 1024;

    struct Running {
        address: SocketAddr,
        _tasks: Group,
    }

    /// `/slow` says `began`, and answers when told to `go_on`.
    async fn start(began: Arc<Notify>, go_on: Arc<Notify>) -> Running {
        start_with(PATIENCE, began, go_on).await
    }

    async fn start_with(patience: Duration, began: Arc<Notify>, go_on: Arc<Notify>) -> Running {
        let slow = get(move || async move {
            began.notify_one();
            go_on.notified().await;
            "slow"
        });
        let chunks = || {
            let chunk = axum::body::Bytes::from(vec![b'x'; LARGE / 64]);
            let chunks = (0..64).map(move |_| Ok::<_, std::convert::Infallible>(chunk.clone()));
            Body::from_stream(futures_util::stream::iter(chunks))
        };
        let router = Router::new()
            .route("/fast", get(async || "fast"))
            .route("/slow", slow)
            .route("/whole", get(async || vec![b'x'; LARGE]))
            .route("/stream", get(async move || chunks()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = Group::new(CancellationToken::new());
        tasks.spawn("accept", move |stop| run_with((MOST, patience), listener, router, stop));
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
        let mut others = Vec::new();
        for _ in 0..2 * MOST {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            ask(&mut stream, "/fast").await;
            hear(&mut stream, "fast").await;
            others.push(stream);
        }
        go_on.notify_one();
        hear(&mut busy, "slow").await;
    }

    /// Begins a download: its first bytes.
    async fn download(running: &Running, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        ask(&mut stream, path).await;
        stream.read_exact(&mut [0; 100]).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn a_download_that_is_read_does_not_give_way() {
        for path in ["/whole", "/stream"] {
            let running = start(Arc::default(), Arc::default()).await;
            let mut reader = download(&running, path).await;
            let mut others = Vec::new();
            for _ in 0..2 * MOST {
                let mut stream = TcpStream::connect(running.address).await.unwrap();
                ask(&mut stream, "/fast").await;
                hear(&mut stream, "fast").await;
                others.push(stream);
                reader.read_exact(&mut vec![0; LARGE / 64]).await.unwrap();
            }
            let mut rest = 0;
            while rest < LARGE - 2 * MOST * (LARGE / 64) - 200 {
                let read = reader.read(&mut vec![0; LARGE / 64]).await.unwrap();
                assert_ne!(read, 0, "{path} was cut off");
                rest += read;
            }
        }
    }

    #[tokio::test]
    async fn readers_that_take_nothing_give_way_after_a_while() {
        const PATIENCE: Duration = Duration::from_millis(300);
        for path in ["/whole", "/stream"] {
            let running = start_with(PATIENCE, Arc::default(), Arc::default()).await;
            let began = tokio::time::Instant::now();
            let mut stuck = Vec::new();
            for _ in 0..MOST {
                stuck.push(download(&running, path).await);
            }
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            ask(&mut stream, "/fast").await;
            hear(&mut stream, "fast").await;
            assert!(began.elapsed() >= PATIENCE, "{:?}", began.elapsed());
        }
    }

    #[tokio::test]
    async fn a_place_is_free_once_the_answer_was_taken() {
        let running = start(Arc::default(), Arc::default()).await;
        let mut kept = Vec::new();
        for _ in 0..MOST {
            let mut reader = download(&running, "/stream").await;
            hear(&mut reader, "x\r\n0\r\n\r\n").await;
            kept.push(reader);
        }
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        ask(&mut stream, "/fast").await;
        hear(&mut stream, "fast").await;
        closed(&mut kept[0]).await;
        ask(&mut kept[1], "/fast").await;
        hear(&mut kept[1], "fast").await;
    }
}
