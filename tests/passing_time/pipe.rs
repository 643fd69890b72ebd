//! Carries bytes between a gateway and its control plane, and counts what is asked for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Default)]
pub(crate) struct Counts {
    /// Answered.
    pub(crate) polls: watch::Sender<u64>,
    pub(crate) heartbeats: AtomicU64,
    pub(crate) refreshes: AtomicU64,
    pub(crate) sockets: AtomicU64,
    pub(crate) others: AtomicU64,
    pub(crate) connections: AtomicU64,
}

/// Ends when dropped.
pub(crate) struct Pipe {
    pub(crate) counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

impl Pipe {
    /// And its URL.
    pub(crate) async fn to(upstream: SocketAddr) -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&counts);
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (stream, _) = accepted.unwrap();
                        shared.connections.fetch_add(1, Ordering::Relaxed);
                        open.spawn(carry(stream, upstream, Arc::clone(&shared)));
                    }
                    Some(_) = open.join_next(), if !open.is_empty() => {}
                }
            }
        });
        (Self { counts, _tasks: tasks }, url)
    }
}

async fn carry(mut down: TcpStream, upstream: SocketAddr, counts: Arc<Counts>) {
    let Ok(mut up) = TcpStream::connect(upstream).await else { return };
    let _ = (down.set_nodelay(true), up.set_nodelay(true));
    let (mut asked, mut said) = (vec![0; 16 * 1024], vec![0; 64 * 1024]);
    let mut is_poll = false;
    loop {
        tokio::select! {
            read = down.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                is_poll = counts.take(&asked[..length]);
                if up.write_all(&asked[..length]).await.is_err() {
                    return;
                }
            }
            read = up.read(&mut said) => {
                let Ok(length @ 1..) = read else { return };
                if down.write_all(&said[..length]).await.is_err() {
                    return;
                }
                if std::mem::take(&mut is_poll) {
                    counts.polls.send_modify(|polls| *polls += 1);
                }
            }
        }
    }
}

impl Counts {
    /// Whether these bytes begin a poll.
    fn take(&self, bytes: &[u8]) -> bool {
        let counter = if bytes.starts_with(b"GET /rest/v1/gateway_jobs?") {
            return true;
        } else if bytes.starts_with(b"POST /functions/v1/gateway-heartbeat") {
            &self.heartbeats
        } else if bytes.starts_with(b"POST /auth/v1/token") {
            &self.refreshes
        } else if bytes.starts_with(b"GET /realtime/") {
            &self.sockets
        } else if bytes.starts_with(b"GET ") || bytes.starts_with(b"P") {
            &self.others
        } else {
            // Frames, and the rest of a body.
            return false;
        };
        counter.fetch_add(1, Ordering::Relaxed);
        false
    }
}
