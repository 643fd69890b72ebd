//! The realtime client against scripted sockets. Time stands still but for what a story lets pass.

mod scene;

use std::time::Duration;

use base64::Engine as _;
use futures_util::{SinkExt as _, StreamExt as _};
use panorama_gateway::backend::realtime::{Event, State, Topic};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use self::scene::{INSERTS, Scene, UPDATES, pass, settled, token};
use super::context::{KEY, exposed};

#[tokio::test]
async fn the_backends_word_is_readiness_and_jobs_are_told_from_then_on() {
    let mut scene = Scene::new().await;
    let (mut peer, asked) = scene.accept().await;
    assert_eq!(asked, format!("/realtime/v1/websocket?apikey={KEY}&vsn=2.0.0"));
    let join = peer.take_join(&scene.first).await;
    let binding = json!([{"event": "INSERT", "schema": "public", "table": "gateway_jobs",
                          "filter": "team_id=eq.t"}]);
    assert_eq!((&join[2], &join[4]["config"]["postgres_changes"]), (&json!(INSERTS), &binding));
    peer.take_join(&scene.first).await;
    peer.answer_join(INSERTS, "ok", json!({"postgres_changes": binding})).await;
    peer.system(INSERTS, "postgres_changes", "ok", "Subscribed to PostgreSQL").await;
    let mut told = Vec::new();
    while !matches!(told.last(), Some(Event::State(State::Ready, None))) {
        told.push(scene.events.recv().await.unwrap());
    }
    let [
        Event::Connected,
        Event::State(State::Joining, None),
        Event::Subscribed(Topic::Inserts),
        _,
    ] = told.as_slice()
    else {
        panic!("{told:?}")
    };
    peer.inserted("job").await;
    let Event::Queued { row, .. } =
        scene.until(|event| matches!(event, Event::Queued { .. })).await
    else {
        unreachable!()
    };
    assert_eq!(row["id"], "job");
    assert_eq!(scene.auth.seen().len(), 0, "a token that lives is not refreshed");
}

#[tokio::test]
async fn without_the_backends_word_both_channels_are_joined_again_after_15_s() {
    let mut scene = Scene::new().await;
    let (mut peer, _) = scene.accept().await;
    peer.take_joins(&scene.first).await;
    let stale = peer.joins.clone();
    peer.answer_join(INSERTS, "ok", json!({})).await;
    settled().await;
    pass(Duration::from_secs(15)).await;
    peer.take_joins(&scene.first).await;
    assert!(peer.joins.iter().all(|join| !stale.contains(join)));
    // Frames of the first join do nothing.
    for (topic, reference) in &stale {
        let payload = json!({"extension": "postgres_changes", "status": "ok"});
        peer.send(json!([reference, null, topic, "system", payload])).await;
        peer.send(json!([reference, reference, topic, "phx_close", {}])).await;
    }
    peer.confirm(INSERTS).await;
    let ready = |event: &Event| matches!(event, Event::State(..) | Event::Subscribed(_));
    scene.until(|event| matches!(event, Event::State(State::Joining, _))).await;
    let first = scene.until(ready).await;
    assert!(matches!(first, Event::Subscribed(Topic::Inserts)), "{first:?}");
}

#[tokio::test]
async fn a_heartbeat_without_answer_drops_the_connection_and_a_new_one_is_made() {
    let mut scene = Scene::new().await;
    let mut peer = scene.ready().await;
    pass(Duration::from_secs(25)).await;
    let beat = peer.next().await;
    assert_eq!((&beat[2], &beat[3]), (&json!("phoenix"), &json!("heartbeat")));
    let ok = json!({"status": "ok", "response": {}});
    peer.send(json!([null, beat[1], "phoenix", "phx_reply", ok])).await;
    settled().await;
    pass(Duration::from_secs(25)).await;
    let beat = peer.next().await;
    assert_eq!(beat[3], "heartbeat");
    settled().await;
    pass(Duration::from_secs(25)).await;
    peer.is_dropped().await;
    let Event::State(State::Disconnected, why) =
        scene.until(|event| matches!(event, Event::State(..)) && !is_ready(event)).await
    else {
        panic!()
    };
    assert_eq!(why.as_deref(), Some("a heartbeat was not answered"));
    let (mut again, _) = scene.accept_later(Duration::from_secs(5)).await;
    again.take_joins(&scene.first).await;
}

fn is_ready(event: &Event) -> bool {
    matches!(event, Event::State(State::Ready, _))
}

#[tokio::test]
async fn a_channel_that_is_closed_when_the_token_expires_is_joined_with_a_new_one() {
    let mut scene = Scene::new().await;
    let mut peer = scene.ready().await;
    peer.system(INSERTS, "system", "error", "Token has expired 0 seconds ago").await;
    peer.close(INSERTS).await;
    // The other channel, whose own end did not come yet, gets the new token.
    let frames = [peer.next().await, peer.next().await];
    let by_event = |name: &str| frames.iter().find(|frame| frame[3] == name).unwrap();
    let (join, push) = (by_event("phx_join"), by_event("access_token"));
    assert_eq!((&join[2], &push[2]), (&json!(INSERTS), &json!(UPDATES)));
    assert_eq!(join[4]["access_token"], token("second"));
    assert_eq!(push[4]["access_token"], token("second"));
    assert_eq!(scene.auth.paths(), ["POST /auth/v1/token"]);
}

#[tokio::test]
async fn an_unasked_close_is_a_new_join() {
    let mut scene = Scene::new().await;
    let mut peer = scene.ready().await;
    peer.close(UPDATES).await;
    let join = peer.take_join(&scene.first).await;
    assert_eq!(join[2], UPDATES);
    peer.confirm(UPDATES).await;
    scene.until(|event| matches!(event, Event::Subscribed(Topic::Updates))).await;
}

#[tokio::test]
async fn a_join_that_is_refused_for_an_expired_token_is_repeated_with_a_new_one() {
    let mut scene = Scene::new().await;
    let (mut peer, _) = scene.accept().await;
    peer.take_joins(&scene.first).await;
    peer.confirm(UPDATES).await;
    peer.refuse(INSERTS, "InvalidJWTToken: Token has expired 12 seconds ago").await;
    let frames = [peer.next().await, peer.next().await];
    let join = frames.iter().find(|frame| frame[3] == "phx_join").unwrap();
    assert_eq!((&join[2], &join[4]["access_token"]), (&json!(INSERTS), &json!(token("second"))));
    assert_eq!(scene.auth.paths(), ["POST /auth/v1/token"]);
}

#[tokio::test]
async fn a_refreshed_token_is_pushed_on_both_channels() {
    let mut scene = Scene::new().await;
    let mut peer = scene.ready().await;
    let old = scene.session.access_token();
    scene.session.refresh_if_current(&old).await.unwrap();
    let new = exposed(&scene.session.access_token());
    let mut topics = Vec::new();
    for _ in 0..2 {
        let frame = peer.next().await;
        assert_eq!((&frame[3], &frame[4]), (&json!("access_token"), &json!({"access_token": new})));
        topics.push(frame[2].clone());
    }
    assert_eq!(topics, [INSERTS, UPDATES]);
}

#[tokio::test]
async fn what_is_refused_for_good_is_told_once_and_asked_for_again_after_10_min() {
    let mut scene = Scene::new().await;
    for round in 0..2 {
        let (mut peer, _) = if round == 0 {
            scene.accept().await
        } else {
            scene.accept_later(Duration::from_mins(11)).await
        };
        peer.take_joins(&scene.first).await;
        peer.refuse(INSERTS, "Unauthorized: You do not have permissions").await;
        peer.refuse(UPDATES, "Unauthorized: You do not have permissions").await;
        peer.is_dropped().await;
        let told =
            scene.until(|event| matches!(event, Event::Unavailable(_)) || is_unavailable(event));
        let told = told.await;
        assert_eq!(is_unavailable(&told), round == 1, "{told:?}");
        if round == 0 {
            scene.until(is_unavailable).await;
            pass(Duration::from_secs(599)).await;
            settled().await;
        }
    }
}

fn is_unavailable(event: &Event) -> bool {
    matches!(event, Event::State(State::Unavailable, _))
}

#[tokio::test]
async fn answers_to_the_upgrade_are_told_apart() {
    for (status, refused) in [(401, true), (403, true), (404, true), (429, false), (503, false)] {
        let mut scene = Scene::new().await;
        let (mut stream, _) = scene.listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        let body = r#"{"error":"no"}"#;
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.unwrap();
        if refused {
            let told = scene.until(|event| matches!(event, Event::Unavailable(_))).await;
            let Event::Unavailable(why) = told else { unreachable!() };
            assert!(why.contains(&status.to_string()) && !why.contains(KEY), "{why}");
        } else {
            let limit = if status == 429 { 76 } else { 4 };
            settled().await;
            pass(Duration::from_secs(limit - 4)).await;
            scene.accept_later(Duration::from_secs(4)).await;
        }
        // The next scene stops it again.
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_wake_makes_a_new_connection_at_once() {
    let mut scene = Scene::new().await;
    let mut peer = scene.ready().await;
    scene.wake.send_modify(|wakes| *wakes += 1);
    let (mut again, _) = scene.accept().await;
    again.take_joins(&scene.first).await;
    peer.is_dropped().await;
}

#[tokio::test]
async fn the_backends_return_ends_a_wait_but_not_one_that_it_asked_for() {
    for (status, hurries) in [(503, true), (429, false)] {
        let scene = Scene::new().await;
        let (mut stream, _) = scene.listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        drop(stream);
        scene.back.send_modify(|returns| *returns += 1);
        // No time passes.
        let mut connected = false;
        for _ in 0..if hurries { 1_000 } else { 20 } {
            tokio::select! {
                biased;
                accepted = scene.listener.accept() => {
                    accepted.unwrap();
                    connected = true;
                    break;
                }
                () = settled() => {}
            }
        }
        assert_eq!(connected, hurries, "{status}");
        // The next scene stops it again.
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_message_over_the_bound_ends_the_connection() {
    let mut scene = Scene::new().await;
    let mut peer = scene.ready().await;
    let huge = "x".repeat(5 << 20);
    // The other end may go while this is still being sent.
    let _ = peer.socket.send(Message::text(huge)).await;
    scene.until(|event| matches!(event, Event::State(State::Disconnected, _))).await;
    scene.accept_later(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_client_that_stops_leaves_its_channels_and_closes() {
    let mut scene = Scene::new().await;
    let mut peer = scene.ready().await;
    scene.stop.cancel();
    for topic in [INSERTS, UPDATES] {
        let frame = peer.next().await;
        assert_eq!((&frame[2], &frame[3]), (&json!(topic), &json!("phx_leave")));
    }
    let end = peer.socket.next().await;
    assert!(matches!(end, Some(Ok(Message::Close(_)))), "{end:?}");
    assert_eq!(scene.tasks.len(), 2);
    scene.tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn the_socket_goes_through_the_proxy_of_the_environment() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxy.local_addr().unwrap();
    let mut scene = Scene::through(Some(&format!("http://user:pass@{address}"))).await;
    let backend = scene.listener.local_addr().unwrap();
    let (mut down, _) = proxy.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(down.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("connect backend.invalid:8000 http/1.1\r\n"), "{head}");
    let login = base64::engine::general_purpose::STANDARD.encode("user:pass").to_ascii_lowercase();
    assert!(head.contains(&format!("proxy-authorization: basic {login}")), "{head}");
    assert!(!head.contains(KEY), "the key is for the backend: {head}");
    down.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let mut up = TcpStream::connect(backend).await.unwrap();
    scene.tasks.spawn(async move {
        let _ = tokio::io::copy_bidirectional(&mut down, &mut up).await;
    });
    scene.ready().await;
}

#[tokio::test]
async fn a_proxy_that_refuses_is_tried_again() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxy.local_addr().unwrap();
    let mut scene = Scene::through(Some(&format!("http://{address}"))).await;
    let (mut down, _) = proxy.accept().await.unwrap();
    let mut head = vec![0; 4096];
    let _ = down.read(&mut head).await.unwrap();
    down.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await.unwrap();
    drop(down);
    settled().await;
    scene.listener = proxy;
    let mut passed = 0;
    loop {
        tokio::select! {
            biased;
            accepted = scene.listener.accept() => break drop(accepted.unwrap()),
            () = settled() => {}
        }
        passed += 1;
        assert!(passed <= 50, "no second try within 5 s");
        tokio::time::advance(Duration::from_millis(100)).await;
    }
}
