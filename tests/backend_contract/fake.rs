//! A backend of raw TCP on loopback that records requests and answers as a test says, well or badly.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// What came in.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    /// As on the wire.
    pub raw_query: String,
    /// Names are lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    pub fn bearer(&self) -> &str {
        self.header("authorization").and_then(|text| text.strip_prefix("Bearer ")).unwrap_or("")
    }

    /// A parameter, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        let url = url::Url::parse(&format!("http://x/?{}", self.raw_query)).ok()?;
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// Method, path, decoded query, `prefer`, body: what a call is.
    pub fn line(&self) -> String {
        let url = url::Url::parse(&format!("http://x/?{}", self.raw_query)).unwrap();
        let query: Vec<_> =
            url.query_pairs().map(|(key, value)| format!("{key}={value}")).collect();
        let prefer = self.header("prefer").map(|text| format!(" [{text}]")).unwrap_or_default();
        format!("{} {}?{}{prefer} {}", self.method, self.path, query.join("&"), self.body)
    }
}

/// What goes out.
pub enum Reply {
    /// Status, more header lines, body.
    Full(u16, String, String),
    /// These bytes, then the connection is closed.
    Raw(Vec<u8>),
    /// These bytes, then more of them for ever.
    Endless(Vec<u8>),
    /// Nothing, ever.
    Never,
    /// The second one, once the event came.
    After(Arc<Notify>, Box<Reply>),
}

pub fn json(status: u16, body: impl Into<Value>) -> Reply {
    json_with(status, "", body)
}

/// `headers`: whole lines, each with its `\r\n`.
pub fn json_with(status: u16, headers: &str, body: impl Into<Value>) -> Reply {
    let headers = format!("content-type: application/json\r\n{headers}");
    Reply::Full(status, headers, body.into().to_string())
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

pub struct Fake {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    pub async fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let connections = Arc::<Mutex<usize>>::default();
        let handler: Arc<Handler> = Arc::new(handler);
        let mut tasks = JoinSet::new();
        let (log, count) = (Arc::clone(&seen), Arc::clone(&connections));
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                *count.lock().unwrap() += 1;
                open.spawn(serve(stream, Arc::clone(&handler), Arc::clone(&log)));
            }
        });
        Self { url, seen, connections, _tasks: tasks }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Paths in the order of their requests.
    pub fn paths(&self) -> Vec<String> {
        self.seen().iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request")
    }

    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

async fn serve(mut stream: TcpStream, handler: Arc<Handler>, log: Arc<Mutex<Vec<Seen>>>) {
    let mut buffer = Vec::new();
    while let Some(seen) = read_request(&mut stream, &mut buffer).await {
        log.lock().unwrap().push(seen.clone());
        let mut reply = handler(&seen);
        while let Reply::After(event, next) = reply {
            event.notified().await;
            reply = *next;
        }
        match reply {
            Reply::Full(status, headers, body) => {
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\n\r\n");
                if stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.is_err() {
                    return;
                }
            }
            Reply::Raw(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Reply::Endless(bytes) => while stream.write_all(&bytes).await.is_ok() {},
            Reply::Never | Reply::After(..) => std::future::pending().await,
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
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
    let mut start = lines.next()?.split(' ');
    let method = start.next()?.to_owned();
    let target = start.next()?.to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, value)| value.parse().unwrap());
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8(buffer.drain(..length).collect()).unwrap();
    let (path, raw_query) = target.split_once('?').unwrap_or((&target, ""));
    Some(Seen { method, path: path.into(), raw_query: raw_query.into(), headers, body })
}
