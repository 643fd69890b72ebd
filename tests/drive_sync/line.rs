//! The line between a mirror and the control plane, byte for byte: counted, cut, stopped, slowed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use panorama_gateway::task::Group;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Bytes carried at a time.
const PIECE: usize = 16 << 10;

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

/// What happens on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    Free,
    /// After so many more bytes that way every connection is cut, and then all is free again.
    CutAfter(Way, u64),
    /// After so many more bytes that way nothing moves that way any more.
    FreezeAfter(Way, u64),
    /// So many bytes a second, both ways, on each connection.
    Slow(u64),
}

struct Shared {
    upstream: SocketAddr,
    rule: watch::Sender<Rule>,
    /// When the rule was set, how much had gone up and down.
    since: Mutex<(u64, u64)>,
    up: AtomicU64,
    down: AtomicU64,
    cuts: watch::Sender<u64>,
    heads: Mutex<Vec<String>>,
}

pub(crate) struct Line {
    shared: Arc<Shared>,
    pub(crate) url: String,
    _carrier: Group,
}

impl Line {
    pub(crate) async fn to(url: &str) -> Self {
        let upstream = url.strip_prefix("http://").unwrap().parse().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            rule: watch::Sender::new(Rule::Free),
            since: Mutex::default(),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            cuts: watch::Sender::new(0),
            heads: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut carrier = Group::new(CancellationToken::new());
        let own = Arc::clone(&shared);
        carrier.spawn("line", |stop| async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    Ok((stream, _)) = listener.accept() => {
                        connections.spawn(carry(Arc::clone(&own), stream));
                    }
                    Some(_) = connections.join_next(), if !connections.is_empty() => {}
                }
            }
        });
        Self { shared, url, _carrier: carrier }
    }

    pub(crate) fn rule(&self, rule: Rule) {
        *self.shared.since.lock().unwrap() = self.moved();
        self.shared.rule.send_replace(rule);
    }

    /// Until it was cut.
    pub(crate) async fn was_cut(&self) {
        let mut rule = self.shared.rule.subscribe();
        rule.wait_for(|rule| *rule == Rule::Free).await.unwrap();
    }

    /// Bytes up and down.
    pub(crate) fn moved(&self) -> (u64, u64) {
        (self.shared.up.load(Ordering::Relaxed), self.shared.down.load(Ordering::Relaxed))
    }

    /// The heads of requests with this beginning.
    pub(crate) fn heads(&self, start: &str) -> Vec<String> {
        let heads = self.shared.heads.lock().unwrap();
        heads.iter().filter(|head| head.starts_with(start)).cloned().collect()
    }
}

async fn carry(shared: Arc<Shared>, stream: TcpStream) {
    let Ok(there) = TcpStream::connect(shared.upstream).await else { return };
    let mut cuts = shared.cuts.subscribe();
    let (asked, answered) = stream.into_split();
    let (reply, forwarded) = there.into_split();
    tokio::select! {
        _ = cuts.changed() => {}
        () = pump(&shared, Way::Up, asked, forwarded) => {}
        () = pump(&shared, Way::Down, reply, answered) => {}
    }
}

async fn pump(shared: &Shared, way: Way, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut buffer = vec![0; PIECE];
    loop {
        let rule = *shared.rule.borrow();
        if let Rule::Slow(rate) = rule {
            tokio::time::sleep(Duration::from_micros(PIECE as u64 * 1_000_000 / rate)).await;
        }
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        if way == Way::Up {
            note_head(shared, &buffer[..count]);
        }
        if is_frozen(shared, way) {
            let mut rule = shared.rule.subscribe();
            let _ = rule.wait_for(|rule| !matches!(rule, Rule::FreezeAfter(..))).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        let moved = if way == Way::Up { &shared.up } else { &shared.down };
        moved.fetch_add(count as u64, Ordering::Relaxed);
        let rule = *shared.rule.borrow();
        if let Rule::CutAfter(cut, after) = rule
            && cut == way
            && moved_since(shared, way) >= after
        {
            shared.rule.send_replace(Rule::Free);
            shared.cuts.send_modify(|cuts| *cuts += 1);
        }
    }
}

fn is_frozen(shared: &Shared, way: Way) -> bool {
    let rule = *shared.rule.borrow();
    matches!(rule, Rule::FreezeAfter(frozen, after)
        if frozen == way && moved_since(shared, way) >= after)
}

fn moved_since(shared: &Shared, way: Way) -> u64 {
    let (up, down) = *shared.since.lock().unwrap();
    match way {
        Way::Up => shared.up.load(Ordering::Relaxed) - up,
        Way::Down => shared.down.load(Ordering::Relaxed) - down,
    }
}

fn note_head(shared: &Shared, bytes: &[u8]) {
    let is_head = ["GET ", "PUT ", "POST "].iter().any(|verb| bytes.starts_with(verb.as_bytes()));
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    if let (true, Some(end)) = (is_head, end) {
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let (verb, rest) = head.split_once(' ').unwrap();
        shared.heads.lock().unwrap().push(format!("{} {rest}", verb.to_uppercase()));
    }
}
