//! Bad frames, bad joins, and too many of good ones.

use futures_util::SinkExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{INJECTIONS, answers_quickly, contents, with_a_job};
use crate::context::Context;
use crate::realtime::socket::{Socket, dial};

const MIB: usize = 1024 * 1024;

/// What is sent.
enum Sent {
    Text(String),
    Binary(Vec<u8>),
    /// Below websockets.
    Raw(Vec<u8>),
}

fn text(text: &str) -> Sent {
    Sent::Text(text.to_owned())
}

/// A frame with one field that is far too long, at that place.
fn long_field(place: usize, length: usize) -> Sent {
    let mut frame = [json!("1"), json!("1"), json!("realtime:a"), json!("phx_join"), json!({})];
    frame[place] = json!(format!("realtime:{}", "x".repeat(length)));
    Sent::Text(json!(frame).to_string())
}

/// Each closes the socket.
fn no_frames() -> Vec<(Sent, CloseCode)> {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let mut all: Vec<(Sent, CloseCode)> = [
        "",
        " ",
        "\0",
        "hello",
        "null",
        "7",
        "\"x\"",
        "{}",
        "[]",
        "[1,2,3]",
        r#"[null,null,"t","e"]"#,
        r#"[null,null,"t","e",{},1]"#,
        r#"[null,null,null,"e",{}]"#,
        r#"[null,null,"t",null,{}]"#,
        r#"[1,2,"t","e",{}]"#,
        r"[[],[],[],[],[]]",
        r#"[null,null,"t","e",{}"#,
        r#"[null,null,"t","e",{}] x"#,
        r#"[null,null,"t","e",{"a":1e999}]"#,
        r#"{"topic":"realtime:a","event":"phx_join","payload":{},"ref":"1"}"#,
    ]
    .into_iter()
    .map(|sent| (text(sent), CloseCode::Protocol))
    .collect();
    all.extend([
        (Sent::Text("[".repeat(10_000)), CloseCode::Protocol),
        (Sent::Text(deep(10_000)), CloseCode::Protocol),
        (
            Sent::Text(format!("[\"1\",\"1\",\"realtime:a\",\"phx_join\",{}]", deep(200))),
            CloseCode::Protocol,
        ),
        (Sent::Text("x".repeat(MIB + 1)), CloseCode::Size),
        (Sent::Text("x".repeat(8 * MIB)), CloseCode::Size),
        (Sent::Binary(vec![0; MIB + 1]), CloseCode::Size),
        // An opcode that is none, a frame without a mask, a text that is no text, and a promise.
        (Sent::Raw(vec![0x83, 0x80, 0, 0, 0, 0]), CloseCode::Protocol),
        (Sent::Raw(vec![0x81, 0x01, b'x']), CloseCode::Protocol),
        (Sent::Raw(vec![0x81, 0x81, 0, 0, 0, 0, 0xff]), CloseCode::Invalid),
        (Sent::Raw([&[0x82, 0xff, 0, 0xff][..], &[0xff; 10]].concat()), CloseCode::Size),
        (Sent::Raw(b"GET / HTTP/1.1\r\n\r\n".to_vec()), CloseCode::Protocol),
    ]);
    for place in 0..4 {
        all.push((long_field(place, 1024), CloseCode::Protocol));
        all.push((long_field(place, 900 * 1024), CloseCode::Protocol));
    }
    all
}

#[tokio::test]
async fn what_is_no_frame_closes_its_socket_only() {
    let (context, ours, _) = with_a_job().await;
    let before = contents(&context);
    let mut other = Socket::open(&context).await;
    for (number, (sent, code)) in no_frames().into_iter().enumerate() {
        let mut socket = Socket::open(&context).await;
        // The server may hang up before it has read all of it.
        let _ = match sent {
            Sent::Text(text) => socket.stream.send(Message::text(text)).await,
            Sent::Binary(bytes) => socket.stream.send(Message::binary(bytes)).await,
            Sent::Raw(bytes) => socket.stream.get_mut().write_all(&bytes).await.map_err(Error::Io),
        };
        assert_eq!(socket.closed().await, code, "number {number}");
    }
    // A binary message is a broadcast in version 2, which means nothing, and wrong in version 1.
    for bytes in [vec![], vec![0; 1000], vec![3, 255, 255, 255, 255]] {
        other.stream.send(Message::binary(bytes)).await.unwrap();
    }
    let query = format!("?apikey={}&vsn=1.0.0", context.server.anon_key());
    let mut first = Socket::of(dial(&context, &query).await.unwrap());
    first.stream.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(first.closed().await, CloseCode::Unsupported);
    other.is_silent().await;
    answers_quickly(&context, &ours).await;
    assert_eq!(contents(&context), before);
}

/// Topic, event and payload that are answered with an error, and a part of what it says.
fn refused(access: &str) -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let join = |topic, changes: Value| {
        let payload = json!({"access_token": access, "config": {"postgres_changes": changes}});
        (topic, "phx_join", payload)
    };
    let with = |(topic, event, payload), why| (topic, event, payload, why);
    let token = |token: &str| ("realtime:a", "phx_join", json!({"access_token": token}));
    let binding = json!({"event": "*", "table": "gateway_jobs"});
    vec![
        with(join("realtime:", json!([])), "TopicNameRequired"),
        with(join("phoenix", json!([])), "unmatched topic"),
        with(join("", json!([])), "unmatched topic"),
        ("realtime:nobody", "access_token", json!({}), "unmatched topic"),
        ("realtime:nobody", "\u{0}", json!([1]), "unmatched topic"),
        with(join("realtime:a", json!({})), "InvalidJoinPayload"),
        with(join("realtime:a", json!("x")), "InvalidJoinPayload"),
        with(join("realtime:a", json!([1])), "InvalidJoinPayload"),
        with(join("realtime:a", json!(vec![binding; 101])), "InvalidJoinPayload"),
        with(token("x"), "JWT"),
        with(token("a.b.c"), "JWT"),
        with(token(&format!("{access}x")), "JWT"),
        with(token(&"y".repeat(10_000)), "JWT"),
    ]
}

/// Bindings that cannot be subscribed to, and a part of why.
fn no_bindings() -> Vec<(Value, &'static str)> {
    let mut all = vec![
        (json!({"event": "EXPLODE", "table": "gateway_jobs"}), "unknown event"),
        (json!({"event": 7, "table": "gateway_jobs"}), "event must be a text"),
        (json!({"schema": "secret"}), "does not exist"),
        (json!({"table": "pairing_codes"}), "does not exist"),
        (json!({"table": ["gateway_jobs"]}), "table must be a text"),
        (json!({"table": "*", "filter": "id=eq.1"}), "a filter needs a table"),
        (json!({"table": "gateway_jobs", "filter": {}}), "filter must be a text"),
    ];
    let mut filter = |filter: &str, why| {
        all.push((json!({"table": "gateway_jobs", "filter": filter}), why));
    };
    for (text, why) in [
        ("status", "is not column=op.value"),
        ("=", "is not column=op.value"),
        ("status=queued", "is not column=op.value"),
        ("absent=eq.1", "invalid column"),
        ("status=like.x", "unknown operator"),
        ("payload=eq.{}", "JSON column"),
        ("attempt=eq.1e3", "invalid input syntax"),
        ("attempt=eq.99999999999999999999", "out of range"),
        ("created_at=gt.yesterday", "invalid input syntax"),
        ("status=in.(a", "must be given as (a,b)"),
        ("status=in.(\"a)", "must be given as (a,b)"),
    ] {
        filter(text, why);
    }
    filter(&format!("status=in.({})", vec!["a"; 101].join(",")), "100 values at most");
    filter(&"=".repeat(100_000), "is not column=op.value");
    for text in INJECTIONS {
        filter(&format!("id=eq.{text}"), "invalid input syntax");
        filter(text, "");
    }
    all
}

#[tokio::test]
async fn bad_joins_are_answered_with_errors_and_hear_nothing() {
    let (context, ours, _) = with_a_job().await;
    let before = contents(&context);
    let mut socket = Socket::open(&context).await;
    for (topic, event, payload, why) in refused(&ours.access) {
        let reference = socket.send(None, topic, event, payload).await;
        let reply = socket.next().await;
        assert_eq!((reply.event(), &reply.0[1]), ("phx_reply", &json!(reference)), "{reply:?}");
        assert_eq!(reply.payload()["status"], "error");
        let reason = reply.payload()["response"]["reason"].as_str().unwrap();
        assert!(reason.contains(why), "{topic} {event}: {reason}");
    }
    for (binding, why) in no_bindings() {
        let payload =
            json!({"access_token": ours.access, "config": {"postgres_changes": [binding]}});
        let mut socket = Socket::open(&context).await;
        socket.send(None, "realtime:a", "phx_join", payload).await;
        assert_eq!(socket.next().await.payload()["status"], "ok");
        let system = socket.next().await;
        assert_eq!(system.payload()["status"], "error", "{binding:.200}");
        let message = system.payload()["message"].as_str().unwrap();
        assert!(message.contains(why), "{binding:.200}: {message:.200}");
        socket.is_silent().await;
    }
    answers_quickly(&context, &ours).await;
    assert_eq!(contents(&context), before);
}

#[tokio::test]
async fn the_channel_and_the_socket_too_many_are_refused() {
    let (context, ours, _) = with_a_job().await;
    let mut sockets = vec![Socket::open(&context).await];
    let changes = json!([{"event": "*", "table": "gateway_jobs"}]);
    for number in 0..100 {
        sockets[0].subscribe(&format!("realtime:{number}"), &ours.access, changes.clone()).await;
    }
    sockets[0].send(None, "realtime:100", "phx_join", json!({})).await;
    let reply = sockets[0].next().await;
    let reason = reply.payload()["response"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("ChannelRateLimitReached"), "{reason}");
    while sockets.len() < 512 {
        sockets.push(Socket::open(&context).await);
    }
    let query = format!("?apikey={}&vsn=2.0.0", context.server.anon_key());
    let Err(Error::Http(answer)) = dial(&context, &query).await else { panic!("it was let in") };
    assert_eq!(answer.status(), 429);
    let said = String::from_utf8_lossy(answer.body().as_deref().unwrap()).into_owned();
    assert!(said.contains("ConnectionRateLimitReached"), "{said}");
    answers_quickly(&context, &ours).await;
    for socket in &mut sockets {
        socket.is_silent().await;
    }
}

/// The status of a handshake with further headers.
async fn upgrade(context: &Context, query: &str, headers: &[(&str, &str)]) -> u16 {
    let mut request = context
        .http
        .request(Method::GET, format!("{}/realtime/v1/websocket{query}", context.server.url()))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_page_from_elsewhere_needs_the_key_and_our_name() {
    let context = Context::new().await;
    let key = format!("?apikey={}&vsn=2.0.0", context.server.anon_key());
    let forged = format!("?apikey={}x", context.server.anon_key());
    let page = ("origin", "http://evil.example");
    // With the key any page may: a session's token is still needed to hear of anything.
    for headers in [&[][..], &[page], &[("origin", "null")], &[("host", "localhost")]] {
        assert_eq!(upgrade(&context, &key, headers).await, 101, "{headers:?}");
    }
    for query in ["", "?apikey=", "?apikey=x", &forged] {
        assert_eq!(upgrade(&context, query, &[page]).await, 401, "{query}");
    }
    // A name that somebody's DNS has turned to us.
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1"] {
        let own = format!("http://{host}");
        for headers in [&[("host", host)][..], &[("host", host), ("origin", &own)]] {
            assert_eq!(upgrade(&context, &key, headers).await, 421, "{headers:?}");
        }
    }
}
