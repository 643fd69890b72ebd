//! A client of version 2.0.0.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::context::Context;

const PATIENCE: Duration = Duration::from_secs(30);

/// One socket and its reference counter.
pub(crate) struct Socket {
    pub(crate) stream: WebSocketStream<TcpStream>,
    next_ref: u64,
}

/// `[join_ref, ref, topic, event, payload]`.
#[derive(Debug)]
pub(crate) struct Got(pub(crate) Value);

impl Got {
    pub(crate) fn event(&self) -> &str {
        self.0[3].as_str().unwrap()
    }

    pub(crate) fn payload(&self) -> &Value {
        &self.0[4]
    }

    /// A field of the new row that a change tells of.
    pub(crate) fn record(&self, name: &str) -> &Value {
        assert_eq!(self.event(), "postgres_changes", "{self:?}");
        &self.payload()["data"]["record"][name]
    }
}

/// Opens a socket with any query.
pub(crate) async fn dial(
    context: &Context,
    query: &str,
) -> Result<WebSocketStream<TcpStream>, Error> {
    let address = context.server.local_addr();
    let url = format!("ws://{address}/realtime/v1/websocket{query}");
    let stream = TcpStream::connect(address).await.unwrap();
    tokio_tungstenite::client_async(url, stream).await.map(|(stream, _)| stream)
}

impl Socket {
    pub(crate) async fn open(context: &Context) -> Self {
        let query = format!("?apikey={}&vsn=2.0.0", context.server.anon_key());
        Self::of(dial(context, &query).await.unwrap())
    }

    pub(crate) fn of(stream: WebSocketStream<TcpStream>) -> Self {
        Self { stream, next_ref: 1 }
    }

    /// Sends a frame; its `ref`.
    pub(crate) async fn send(
        &mut self,
        join_ref: Option<&str>,
        topic: &str,
        event: &str,
        payload: Value,
    ) -> String {
        let reference = self.next_ref.to_string();
        self.next_ref += 1;
        let join_ref = if event == "phx_join" { Some(reference.as_str()) } else { join_ref };
        let text = json!([join_ref, reference, topic, event, payload]).to_string();
        self.stream.send(Message::text(text)).await.unwrap();
        reference
    }

    async fn message(&mut self) -> Message {
        timeout(PATIENCE, self.stream.next()).await.unwrap().unwrap().unwrap()
    }

    pub(crate) async fn next(&mut self) -> Got {
        let message = self.message().await;
        assert!(message.is_text(), "{message:?}");
        Got(serde_json::from_str(message.to_text().unwrap()).unwrap())
    }

    /// The code with which the server closes; nothing else may come before.
    pub(crate) async fn closed(&mut self) -> CloseCode {
        let message = self.message().await;
        let Message::Close(Some(frame)) = message else { panic!("{message:?}") };
        frame.code
    }

    /// Joins and waits until the subscription is live; the `ref` of the join.
    pub(crate) async fn subscribe(&mut self, topic: &str, access: &str, bindings: Value) -> String {
        let payload = json!({"config": {"postgres_changes": bindings}, "access_token": access});
        let join_ref = self.send(None, topic, "phx_join", payload).await;
        let reply = self.next().await;
        assert_eq!(reply.0[1], json!(join_ref));
        assert_eq!((reply.event(), &reply.payload()["status"]), ("phx_reply", &json!("ok")));
        let system = self.next().await;
        assert_eq!(system.payload()["message"], "Subscribed to PostgreSQL", "{system:?}");
        join_ref
    }

    /// Proves that nothing else was on its way: the next message answers a heartbeat.
    pub(crate) async fn is_silent(&mut self) {
        let beat = self.send(None, "phoenix", "heartbeat", json!({})).await;
        let reply = self.next().await;
        assert_eq!((reply.event(), &reply.0[1]), ("phx_reply", &json!(beat)), "{reply:?}");
    }
}
