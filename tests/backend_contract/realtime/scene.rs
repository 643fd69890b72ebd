//! A client, time that stands still, and the backend's end of a socket.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper_util::client::proxy::matcher::Matcher;
use panorama_gateway::backend::Session;
use panorama_gateway::backend::realtime::{Client, Event, Topic};
use panorama_gateway::model::{GatewayId, TeamId};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};
use tokio_util::sync::CancellationToken;

use crate::context::{MemoryStore, access, endpoint, pair, session};
use crate::fake::Fake;

pub(super) const INSERTS: &str = "realtime:gateway_jobs_g";
pub(super) const UPDATES: &str = "realtime:gateway_jobs_g_updates";

/// A client of gateway `g` of team `t`, and the backend that it connects to.
pub(super) struct Scene {
    pub(super) listener: TcpListener,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) session: Arc<Session>,
    /// Answers refreshes with the tokens `second`, `third`.
    pub(super) auth: Fake,
    pub(super) first: String,
    pub(super) wake: watch::Sender<u64>,
    pub(super) back: watch::Sender<u64>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: JoinSet<()>,
    _still: std::sync::mpsc::Sender<()>,
}

/// Access tokens in the order of their use.
pub(super) fn token(name: &str) -> String {
    access(name, 3600)
}

impl Scene {
    pub(super) async fn new() -> Self {
        Self::through(None).await
    }

    /// With a proxy: the backend is then known by a name that only the proxy can find.
    pub(super) async fn through(proxy: Option<&str>) -> Self {
        // While a blocking task runs, paused time does not pass by itself.
        let (still, held) = std::sync::mpsc::channel::<()>();
        tokio::time::pause();
        let mut tasks = JoinSet::new();
        tasks.spawn_blocking(move || {
            // An error says that the scene is over.
            let _ = held.recv();
        });
        let count = Mutex::new(0);
        let auth = Fake::start(move |_| {
            let mut count = count.lock().unwrap();
            *count += 1;
            pair(&token(["second", "third", "fourth"][*count - 1]), &format!("refresh {count}"))
        })
        .await;
        let first = token("first");
        let session = session(&auth, &MemoryStore::with(&first, "refresh"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (url, proxies) = match proxy {
            None => (format!("http://{address}"), Matcher::builder().all("http://127.0.0.1:1")),
            Some(proxy) => {
                ("http://backend.invalid:8000".to_owned(), Matcher::builder().http(proxy))
            }
        };
        let (gateway, team) = (GatewayId::new("g"), TeamId::new("t"));
        let own = Arc::clone(&session);
        let client = Client::new(&endpoint(&url), own, gateway, team, proxies.build()).unwrap();
        let (tell, events) = mpsc::channel(64);
        let (wake, back) = (watch::Sender::new(0), watch::Sender::new(0));
        let stop = CancellationToken::new();
        let (woken, returned, stopped) = (wake.subscribe(), back.subscribe(), stop.clone());
        tasks.spawn(async move { client.run(tell, woken, returned, stopped).await });
        Self { listener, events, session, auth, first, wake, back, stop, tasks, _still: still }
    }

    /// The next connection, upgraded; its request's path and query.
    pub(super) async fn accept(&mut self) -> (Peer, String) {
        let (stream, _) = self.listener.accept().await.unwrap();
        upgrade(stream).await
    }

    /// A connection whose two channels are ready.
    pub(super) async fn ready(&mut self) -> Peer {
        let (mut peer, _) = self.accept().await;
        peer.take_joins(&self.first).await;
        peer.confirm(INSERTS).await;
        peer.confirm(UPDATES).await;
        self.until(|event| matches!(event, Event::Subscribed(Topic::Updates))).await;
        peer
    }

    /// Skips events up to this one.
    pub(super) async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.events.recv().await.expect("the client runs");
            if wanted(&event) {
                return event;
            }
        }
    }

    /// Lets time pass until the client connects again.
    pub(super) async fn accept_later(&mut self, limit: Duration) -> (Peer, String) {
        let mut passed = Duration::ZERO;
        let step = Duration::from_millis(100);
        loop {
            tokio::select! {
                biased;
                accepted = self.listener.accept() => return upgrade(accepted.unwrap().0).await,
                () = settled() => {}
            }
            assert!(passed <= limit, "no connection within {limit:?}");
            tokio::time::advance(step).await;
            passed += step;
        }
    }
}

/// Timers have a grain of a millisecond.
pub(super) async fn pass(time: Duration) {
    tokio::time::advance(time + Duration::from_millis(1)).await;
}

/// Gives the client (and the machine's sockets) a moment that the paused clock does not see.
pub(super) async fn settled() {
    tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(2))).await.unwrap();
}

pub(super) async fn upgrade(stream: TcpStream) -> (Peer, String) {
    let mut asked = String::new();
    #[expect(clippy::result_large_err, reason = "the library's own type")]
    let note = |request: &Request, response: Response| {
        asked = request.uri().to_string();
        Ok(response)
    };
    let socket = accept_hdr_async(stream, note).await.unwrap();
    (Peer { socket, joins: Vec::new() }, asked)
}

/// The backend's end of a socket.
pub(super) struct Peer {
    pub(super) socket: WebSocketStream<TcpStream>,
    /// Topic and reference.
    pub(super) joins: Vec<(String, String)>,
}

impl Peer {
    pub(super) async fn next(&mut self) -> Value {
        let message = self.socket.next().await.expect("a frame").unwrap();
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    pub(super) async fn send(&mut self, frame: Value) {
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The next frame is a join with this token.
    pub(super) async fn take_join(&mut self, access: &str) -> Value {
        let join = self.next().await;
        assert_eq!((&join[3], &join[0]), (&json!("phx_join"), &join[1]), "{join}");
        assert_eq!(join[4]["access_token"], access, "{join}");
        let text = |index: usize| join[index].as_str().unwrap().to_owned();
        self.joins.retain(|(topic, _)| *topic != text(2));
        self.joins.push((text(2), text(1)));
        join
    }

    pub(super) async fn take_joins(&mut self, access: &str) {
        for _ in 0..2 {
            self.take_join(access).await;
        }
        self.joins.sort();
        let topics: Vec<_> = self.joins.iter().map(|(topic, _)| topic.as_str()).collect();
        assert_eq!(topics, [INSERTS, UPDATES]);
    }

    pub(super) fn reference(&self, topic: &str) -> String {
        self.joins.iter().find(|(joined, _)| joined == topic).unwrap().1.clone()
    }

    pub(super) async fn answer_join(&mut self, topic: &str, status: &str, response: Value) {
        let join = self.reference(topic);
        let payload = json!({"status": status, "response": response});
        self.send(json!([join, join, topic, "phx_reply", payload])).await;
    }

    pub(super) async fn refuse(&mut self, topic: &str, reason: &str) {
        self.answer_join(topic, "error", json!({"reason": reason})).await;
    }

    pub(super) async fn system(
        &mut self,
        topic: &str,
        extension: &str,
        status: &str,
        message: &str,
    ) {
        let join = self.reference(topic);
        let payload = json!({"extension": extension, "status": status, "message": message,
                             "channel": topic.trim_start_matches("realtime:")});
        self.send(json!([join, null, topic, "system", payload])).await;
    }

    /// Join reply, then the word that it tells.
    pub(super) async fn confirm(&mut self, topic: &str) {
        self.answer_join(topic, "ok", json!({})).await;
        self.system(topic, "postgres_changes", "ok", "Subscribed to PostgreSQL").await;
    }

    pub(super) async fn close(&mut self, topic: &str) {
        let join = self.reference(topic);
        self.send(json!([join, join, topic, "phx_close", {}])).await;
    }

    pub(super) async fn inserted(&mut self, id: &str) {
        let row = json!({"id": id, "team_id": "t", "gateway_id": "g", "job_type": "diagnostic",
            "status": "queued", "created_at": "2025-11-03T09:32:55.1+00:00", "payload": {}});
        let data = json!({"schema": "public", "table": "gateway_jobs", "type": "INSERT",
            "commit_timestamp": "2025-11-03T09:32:55.123Z", "columns": [], "record": row,
            "errors": null});
        let payload = json!({"ids": [1], "data": data});
        self.send(json!([null, null, INSERTS, "postgres_changes", payload])).await;
    }

    /// The other end drops the connection, without the courtesy of a close.
    pub(super) async fn is_dropped(&mut self) {
        let end = self.socket.next().await;
        assert!(matches!(end, None | Some(Err(_))), "{end:?}");
    }
}
