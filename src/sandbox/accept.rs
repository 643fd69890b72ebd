//! The accept loop: one owned task a connection, each with bounds.
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
    let mut connections = Group::new(stop.child_token());
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // All three are cancel safe: a slot that was taken is given back, and a connection that
        // was not handed out stays in the listener's queue.
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.next(), if !connections.is_empty() => {
                if let Ending::Panicked(panic) = ended.ending {
                    tracing::error!(%panic, "a connection's task panicked");
                }
            }
            accepted = accept(&listener, &slots) => match accepted {
                Ok((stream, peer, slot)) => {
                    let router = router.clone();
                    connections.spawn("connection", move |stop| {
                        serve(stream, peer, router, slot, stop)
                    });
                }
                Err(error) => {
                    // Out of descriptors, or the peer is gone already.
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    connections.stop(DRAIN).await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, slot))
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    _slot: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "could not set TCP_NODELAY");
    }
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer.ip()));
        router.call(request)
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
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection broke");
    }
}
