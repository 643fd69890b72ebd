//! A TCP proxy between a gateway and its control plane whose wires can be cut, frozen and muted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// What the wires do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They carry.
    Well,
    /// Nothing comes through, and nobody is told; what was sent arrives when they are well again.
    Frozen,
    /// Like that for ever, but only for the web sockets that are open now; new ones are well.
    HalfOpen,
    /// On a WebSocket that is opened now, the server is not heard once it confirms a subscription.
    Mute,
    /// Every connection is closed, new ones are refused.
    Refused,
}

struct Shared {
    upstream: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Connections of an earlier generation are closed.
    generation: watch::Sender<u64>,
    sockets: AtomicUsize,
}

pub(crate) struct Wire {
    pub(crate) url: String,
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Wire {
    pub(crate) async fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            mode: watch::Sender::new(Mode::Well),
            generation: watch::Sender::new(0),
            sockets: AtomicUsize::new(0),
        });
        let task = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Self { url: format!("http://{address}"), shared, task: task.abort_handle() }
    }

    pub(crate) fn turn(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
        if mode == Mode::Refused {
            self.cut();
        }
    }

    /// Closes every connection.
    pub(crate) fn cut(&self) {
        self.shared.generation.send_modify(|generation| *generation += 1);
    }

    /// How many web sockets were opened.
    pub(crate) fn sockets(&self) -> usize {
        self.shared.sockets.load(Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    let mut mode = shared.mode.subscribe();
    let mut open = JoinSet::new();
    loop {
        let refuse = *mode.borrow_and_update() == Mode::Refused;
        match (&listener, refuse) {
            (Some(_), true) => listener = None,
            (None, false) => listener = Some(TcpListener::bind(address).await.unwrap()),
            _ => {}
        }
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = accept => if let Ok((stream, _)) = accepted {
                open.spawn(carry(stream, Arc::clone(&shared)));
            },
            _ = mode.changed() => {}
            Some(_) = open.join_next(), if !open.is_empty() => {}
        }
    }
}

async fn carry(down: TcpStream, shared: Arc<Shared>) {
    let mut generation = shared.generation.subscribe();
    generation.mark_unchanged();
    tokio::select! {
        () = both_ways(down, &shared) => {}
        _ = generation.changed() => {}
    }
}

async fn both_ways(mut down: TcpStream, shared: &Shared) {
    let mut mode = shared.mode.subscribe();
    // Whoever connects to a frozen wire waits.
    let _ = mode.wait_for(|mode| *mode != Mode::Frozen).await;
    let mut first = vec![0; 16 * 1024];
    let Ok(length) = down.read(&mut first).await else { return };
    first.truncate(length);
    let _ = mode.wait_for(|mode| *mode != Mode::Frozen).await;
    let is_socket = first.starts_with(b"GET /realtime/");
    let mute = is_socket && *mode.borrow() == Mode::Mute;
    // Only what was open before is half-open.
    let mut old = *mode.borrow() != Mode::HalfOpen;
    if is_socket {
        shared.sockets.fetch_add(1, Ordering::SeqCst);
    }
    let Ok(mut up) = TcpStream::connect(shared.upstream).await else { return };
    if up.write_all(&first).await.is_err() {
        return;
    }
    let (mut from_down, mut from_up) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let now = *mode.borrow_and_update();
        if now == Mode::Well {
            old = true;
        }
        let dead = is_socket && old && now == Mode::HalfOpen;
        if dead {
            return std::future::pending().await;
        }
        let carries = now != Mode::Frozen;
        tokio::select! {
            _ = mode.changed() => {}
            read = down.read(&mut from_down), if carries => match read {
                Ok(length) if length > 0 => {
                    if up.write_all(&from_down[..length]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            read = up.read(&mut from_up), if carries => match read {
                Ok(length) if length > 0 => {
                    let said = &from_up[..length];
                    if mute && said.windows(8).any(|window| window == b"\"system\"") {
                        return deaf(down, up).await;
                    }
                    if down.write_all(said).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

/// Takes what the client says, and says nothing.
async fn deaf(mut down: TcpStream, mut up: TcpStream) {
    let _ = tokio::io::copy(&mut down, &mut up).await;
}
