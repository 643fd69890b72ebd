//! Handshakes, and how sockets and channels end.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::socket::{Socket, dial};
use crate::context::Context;

const PATH: &str = "/realtime/v1/websocket";

fn jobs() -> Value {
    json!([{"event": "INSERT", "schema": "public", "table": "gateway_jobs"}])
}

/// Status and `error` of a refused handshake.
async fn refusal(context: &Context, query: &str) -> (u16, String) {
    match dial(context, query).await {
        Err(Error::Http(answer)) => {
            let body: Value = serde_json::from_slice(answer.body().as_ref().unwrap()).unwrap();
            (answer.status().as_u16(), body["error"].as_str().unwrap().to_owned())
        }
        other => panic!("{:?}", other.map(drop)),
    }
}

#[tokio::test]
async fn refused_handshakes_say_why() {
    let context = Context::with(|options| options.realtime_sockets = 2).await;
    let key = context.server.anon_key();
    assert_eq!(refusal(&context, "").await.0, 401);
    assert_eq!(refusal(&context, "?apikey=bad&vsn=2.0.0").await.0, 401);
    let (status, error) = refusal(&context, &format!("?apikey={key}&vsn=3.0.0")).await;
    assert_eq!((status, error.as_str()), (400, "vsn must be 1.0.0 or 2.0.0"));
    let _sockets = [Socket::open(&context).await, Socket::open(&context).await];
    let (status, error) = refusal(&context, &format!("?apikey={key}")).await;
    assert_eq!(status, 429);
    assert!(error.starts_with("ConnectionRateLimitReached"), "{error}");
}

#[tokio::test]
async fn a_closed_socket_frees_its_place() {
    let context = Context::with(|options| options.realtime_sockets = 1).await;
    let query = format!("?apikey={}", context.server.anon_key());
    let mut socket = Socket::open(&context).await;
    assert_eq!(refusal(&context, &query).await.0, 429);
    socket.stream.close(None).await.unwrap();
    while socket.stream.next().await.is_some() {}
    let deadline = Instant::now() + Duration::from_secs(20);
    while dial(&context, &query).await.is_err() {
        assert!(Instant::now() < deadline, "the place is still taken");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn requests_that_are_no_handshake_are_told_so() {
    let context = Context::new().await;
    let plain = context.request(Method::GET, PATH).send().await.unwrap();
    assert_eq!(plain.status(), 426);
    assert_eq!(plain.headers()["upgrade"], "websocket");
    let upgrade = |version: &str, key: &str| {
        context
            .request(Method::GET, PATH)
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", version)
            .header("sec-websocket-key", key)
            .send()
    };
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    assert_eq!(upgrade("12", key).await.unwrap().status(), 426);
    assert_eq!(upgrade("13", "short").await.unwrap().status(), 400);
    let answer = upgrade("13", key).await.unwrap();
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let post = context.request(Method::POST, PATH).send().await.unwrap();
    assert_eq!(post.status(), 405);
}

/// The next message of version 1.
async fn object(stream: &mut WebSocketStream<TcpStream>) -> Value {
    let message = stream.next().await.unwrap().unwrap();
    serde_json::from_str(message.to_text().unwrap()).unwrap()
}

#[tokio::test]
async fn version_1_speaks_objects() {
    let context = Context::new().await;
    let ours = context.pair().await;
    for version in ["", "&vsn=1.0.0"] {
        let query = format!("?apikey={}{version}", context.server.anon_key());
        let mut stream = dial(&context, &query).await.unwrap();
        let payload = json!({"config": {"postgres_changes": jobs()}, "access_token": ours.access});
        let join =
            json!({"topic": "realtime:a", "event": "phx_join", "payload": payload, "ref": "1"});
        stream.send(Message::text(join.to_string())).await.unwrap();
        let reply = object(&mut stream).await;
        assert_eq!((&reply["event"], &reply["ref"]), (&json!("phx_reply"), &json!("1")));
        assert_eq!(reply["payload"]["status"], "ok");
        assert_eq!(object(&mut stream).await["payload"]["message"], "Subscribed to PostgreSQL");
        let leave = json!({"topic": "realtime:a", "event": "phx_leave", "payload": {}, "ref": "2"});
        stream.send(Message::text(leave.to_string())).await.unwrap();
        assert_eq!(object(&mut stream).await["ref"], "2");
        let close = object(&mut stream).await;
        assert_eq!((&close["event"], &close["ref"]), (&json!("phx_close"), &json!("1")));
    }
}

#[tokio::test]
async fn a_channel_is_closed_when_its_token_expires() {
    let lifetime = Duration::from_secs(2);
    let context = Context::with(|options| options.access_token_lifetime = lifetime).await;
    let ours = context.pair().await;
    let mut socket = Socket::open(&context).await;
    let join_ref = socket.subscribe("realtime:a", &ours.access, jobs()).await;
    let system = socket.next().await;
    assert_eq!(system.event(), "system");
    assert_eq!(system.payload()["status"], "error");
    let message = system.payload()["message"].as_str().unwrap();
    assert!(message.starts_with("Token has expired"), "{message}");
    let close = socket.next().await;
    assert_eq!(close.0, json!([join_ref, join_ref, "realtime:a", "phx_close", {}]));
    let payload = json!({"config": {"postgres_changes": jobs()}, "access_token": ours.access});
    socket.send(None, "realtime:a", "phx_join", payload).await;
    let reply = socket.next().await;
    let reason = reply.payload()["response"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("InvalidJWTToken: Token has expired "), "{reason}");
    assert!(reason.ends_with(" seconds ago"), "{reason}");
    let (_, fresh) = context.refresh(&ours.refresh).await;
    let access = fresh["access_token"].as_str().unwrap();
    socket.subscribe("realtime:a", access, jobs()).await;
}

#[tokio::test]
async fn a_refreshed_token_keeps_the_channel() {
    let lifetime = Duration::from_secs(2);
    let context = Context::with(|options| options.access_token_lifetime = lifetime).await;
    let ours = context.pair().await;
    let mut socket = Socket::open(&context).await;
    let join_ref = socket.subscribe("realtime:a", &ours.access, jobs()).await;
    let mut refresh = ours.refresh;
    let mut ticks = tokio::time::interval(lifetime / 4);
    // Well past the expiry of the first token.
    for _ in 0..9 {
        ticks.tick().await;
        let (status, pair) = context.refresh(&refresh).await;
        assert_eq!(status, 200);
        refresh = pair["refresh_token"].as_str().unwrap().to_owned();
        let push = json!({"access_token": pair["access_token"]});
        socket.send(Some(&join_ref), "realtime:a", "access_token", push).await;
        let system = socket.next().await;
        assert_eq!(system.payload()["message"], "Subscribed to PostgreSQL", "{system:?}");
    }
}

#[tokio::test]
async fn what_is_no_frame_closes_the_socket_and_no_other() {
    let context = Context::new().await;
    let mut other = Socket::open(&context).await;
    for (message, code) in [
        (Message::text("hello"), CloseCode::Protocol),
        (Message::text("[1,2,3]"), CloseCode::Protocol),
        (Message::text(format!("[{}", "[".repeat(10_000))), CloseCode::Protocol),
        (Message::text("x".repeat(1024 * 1024 + 1)), CloseCode::Size),
        (Message::text("x".repeat(8 * 1024 * 1024)), CloseCode::Size),
    ] {
        let mut socket = Socket::open(&context).await;
        // The server may hang up before it has read all of it.
        let _ = socket.stream.send(message).await;
        assert_eq!(socket.closed().await, code);
    }
    let mut socket = Socket::open(&context).await;
    socket.stream.send(Message::binary(vec![3, 0, 0, 0, 0, 0, 1])).await.unwrap();
    socket.is_silent().await;
    other.is_silent().await;
}

#[tokio::test]
async fn a_stop_closes_all_sockets_in_time() {
    let context = Context::new().await;
    let ours = context.pair().await;
    let mut polite = Socket::open(&context).await;
    polite.subscribe("realtime:a", &ours.access, jobs()).await;
    // Never reads, so it never says goodbye.
    let _deaf = Socket::open(&context).await;
    let began = Instant::now();
    let Context { server, .. } = context;
    let (code, ()) = futures_util::future::join(polite.closed(), server.shutdown()).await;
    assert_eq!(code, CloseCode::Restart);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}
