//! Realtime over real sockets: who hears of which change, and how sockets and channels end.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use panorama_gateway::sandbox::client::NewJob;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::context::{Context, Paired};

const PATIENCE: Duration = Duration::from_secs(20);

/// A client of version 2.0.0.
struct Socket {
    stream: WebSocketStream<TcpStream>,
    next_ref: u64,
}

/// `[join_ref, ref, topic, event, payload]`.
#[derive(Debug)]
struct Got(Value);

impl Got {
    fn event(&self) -> &str {
        self.0[3].as_str().unwrap()
    }

    fn payload(&self) -> &Value {
        &self.0[4]
    }
}

async fn dial(context: &Context, query: &str) -> Result<WebSocketStream<TcpStream>, Error> {
    let address = context.server.local_addr();
    let url = format!("ws://{address}/realtime/v1/websocket{query}");
    let stream = TcpStream::connect(address).await.unwrap();
    tokio_tungstenite::client_async(url, stream).await.map(|(stream, _)| stream)
}

impl Socket {
    async fn open(context: &Context) -> Self {
        let query = format!("?apikey={}&vsn=2.0.0", context.server.anon_key());
        Self { stream: dial(context, &query).await.unwrap(), next_ref: 1 }
    }

    async fn send(
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

    async fn next(&mut self) -> Got {
        loop {
            match timeout(PATIENCE, self.stream.next()).await.unwrap().unwrap().unwrap() {
                Message::Text(text) => return Got(serde_json::from_str(&text).unwrap()),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Joins and waits until the subscription is live; the `ref` of the join.
    async fn subscribe(&mut self, topic: &str, access: &str, bindings: Value) -> String {
        let payload = json!({"config": {"postgres_changes": bindings}, "access_token": access});
        let join_ref = self.send(None, topic, "phx_join", payload).await;
        let reply = self.next().await;
        assert_eq!((reply.event(), &reply.payload()["status"]), ("phx_reply", &json!("ok")));
        let system = self.next().await;
        assert_eq!(system.payload()["message"], "Subscribed to PostgreSQL", "{system:?}");
        join_ref
    }
}

fn jobs_of(paired: &Paired) -> Value {
    json!([{"event": "INSERT", "schema": "public", "table": "gateway_jobs",
            "filter": format!("team_id=eq.{}", paired.team_id)}])
}

async fn submit(context: &Context, paired: &Paired, number: usize) -> String {
    let payload = json!({"command": "true", "number": number});
    let job = NewJob {
        gateway_id: Some(paired.gateway_id.clone()),
        job_type: "shell_exec".to_owned(),
        payload: payload.as_object().unwrap().clone(),
        ..NewJob::default()
    };
    context.admin().submit_job(&job).await.unwrap()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_new_job_is_told_to_its_gateway() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let mut socket = Socket::open(&context).await;
    socket.subscribe("realtime:jobs", &ours.access, jobs_of(&ours)).await;
    let id = submit(&context, &ours, 1).await;
    let told = socket.next().await;
    assert_eq!(told.event(), "postgres_changes");
    assert_eq!(told.payload()["data"]["record"]["id"], json!(id));
}
