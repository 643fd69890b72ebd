//! One socket: reads frames, writes answers and changes, and keeps the time.
//!
//! A text that is no frame, or one with endless names, closes the socket (1002), so does a binary
//! message in version 1 (1003); in version 2 those are broadcasts, which mean nothing here. Idle
//! sockets are closed with 1000, those that fall behind with 1013, and all with 1012 when the
//! server stops.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::channels::Channels;
use super::token::{self, Grant, TokenError};
use super::{Heard, Newcomer};
use crate::phoenix::{Frame, Version};
use crate::sandbox::app::{Shared, now_micros};

/// A message of a client at most.
const MOST_BYTES: usize = 1024 * 1024;
/// A topic, an event or a reference at most: they come back with what is told.
const MOST_NAME: usize = 1024;
/// What waits for a slow client at most; holds the largest message.
const MOST_WAITING: usize = 4 * 1024 * 1024;
const BUFFER: usize = 16 * 1024;
/// How long a client may be silent; it should send a heartbeat every 25 s.
const IDLE: Duration = Duration::from_mins(1);
/// How long the rest of the handshake, a write, and a farewell may take.
const UPGRADE_TIME: Duration = Duration::from_secs(10);
const WRITE_TIME: Duration = Duration::from_secs(10);
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// Tokens are looked at this often even if none should expire, since the wall clock may be set.
const RECHECK: Duration = Duration::from_mins(5);

/// Why a socket is closed by us.
type Closing = (CloseCode, &'static str);

/// Finishes the handshake and serves the socket.
pub(super) async fn start(
    app: Shared,
    newcomer: Newcomer,
    heard: broadcast::Receiver<Heard>,
    stop: CancellationToken,
) {
    let Newcomer { upgrade, version, place } = newcomer;
    // Cancel safe: the connection is dropped with the handshake.
    let upgraded = tokio::select! {
        () = stop.cancelled() => return,
        upgraded = timeout(UPGRADE_TIME, upgrade) => upgraded,
    };
    let Ok(Ok(upgraded)) = upgraded else {
        tracing::debug!("a realtime socket did not come out of its handshake");
        return;
    };
    let channels = Channels::new(app.store.schema().clone(), app.rules);
    let read = |token: &str| read_token(&app, token);
    serve(TokioIo::new(upgraded), version, channels, &read, heard, stop).await;
    drop(place);
}

fn read_token(app: &Shared, token: &str) -> Result<Grant, TokenError> {
    if app.secrets.is_anon_key(token) {
        return Ok(Grant::anonymous());
    }
    token::read(&app.access, token, seconds())
}

fn seconds() -> i64 {
    now_micros().div_euclid(1_000_000)
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    version: Version,
    mut channels: Channels,
    read: &(impl Fn(&str) -> Result<Grant, TokenError> + Sync),
    mut heard: broadcast::Receiver<Heard>,
    stop: CancellationToken,
) {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(MOST_WAITING)
        .max_message_size(Some(MOST_BYTES))
        .max_frame_size(Some(MOST_BYTES));
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let mut idle_at = Instant::now() + IDLE;
    let closing = loop {
        let expiry = sleep(until_expiry(channels.next_expiry()));
        // All are cancel safe: a message or change that was not taken stays where it is, and
        // writing happens outside.
        let out = tokio::select! {
            () = stop.cancelled() => break Some((CloseCode::Restart, "the sandbox is stopping")),
            () = sleep_until(idle_at) => break Some((CloseCode::Normal, "no message for a minute")),
            message = socket.next() => {
                idle_at = Instant::now() + IDLE;
                match receive(message, version, &mut channels, read) {
                    Ok(out) => out,
                    Err(closing) => break closing,
                }
            }
            change = heard.recv() => match told(change, &channels, version) {
                Ok(out) => out,
                Err(closing) => break Some(closing),
            },
            () = expiry => encoded(channels.expire(seconds()), version),
        };
        match timeout(WRITE_TIME, write(&mut socket, out)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "a realtime socket broke");
                return;
            }
            Err(_) => {
                tracing::warn!("a realtime socket takes no messages: it is dropped");
                return;
            }
        }
    };
    if let Some((code, reason)) = closing {
        tracing::debug!(%code, reason, "a realtime socket is closed");
    }
    let frame = closing.map(|(code, reason)| CloseFrame { code, reason: reason.into() });
    // Who does not answer is dropped, and whether they heard us is theirs to know.
    let _ = timeout(CLOSE_TIME, farewell(socket, frame)).await;
}

/// How long until tokens must be looked at.
fn until_expiry(next: Option<i64>) -> Duration {
    let micros = next.map(|at| at.saturating_mul(1_000_000).saturating_sub(now_micros()).max(0));
    micros
        .and_then(|micros| u64::try_from(micros).ok())
        .map_or(RECHECK, |micros| Duration::from_micros(micros).min(RECHECK))
}

/// Answers a message. `Err(None)`: the client is gone or has said goodbye.
fn receive(
    message: Option<Result<Message, Error>>,
    version: Version,
    channels: &mut Channels,
    read: &impl Fn(&str) -> Result<Grant, TokenError>,
) -> Result<Vec<String>, Option<Closing>> {
    match message {
        Some(Ok(Message::Text(text))) => {
            let frame = Frame::decode(version, &text)
                .map_err(|_| (CloseCode::Protocol, "not a frame of the realtime protocol"))?;
            if !is_moderate(&frame) {
                let reason = "a topic, an event or a reference may have one KiB at most";
                return Err(Some((CloseCode::Protocol, reason)));
            }
            Ok(encoded(channels.receive(frame, text.len(), read), version))
        }
        Some(Ok(Message::Binary(_))) => match version {
            Version::V1 => Err(Some((CloseCode::Unsupported, "version 1.0.0 is text only"))),
            Version::V2 => Ok(Vec::new()),
        },
        // Pings are answered by the library when it writes next.
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(Vec::new()),
        Some(Err(Error::Capacity(_))) => {
            Err(Some((CloseCode::Size, "a message may have one MiB at most")))
        }
        Some(Err(Error::Utf8(_))) => Err(Some((CloseCode::Invalid, "not UTF-8"))),
        Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => Err(None),
        Some(Err(Error::Protocol(_))) => Err(Some((CloseCode::Protocol, "not a websocket"))),
        Some(Ok(Message::Close(_)) | Err(_)) | None => Err(None),
    }
}

/// Whether its names are of a bearable length.
fn is_moderate(frame: &Frame) -> bool {
    let references = [&frame.join_ref, &frame.reference].into_iter().flatten();
    let mut names = references.chain([&frame.topic, &frame.event]);
    names.all(|name| name.len() <= MOST_NAME)
}

/// The messages about a change.
fn told(
    change: Result<Heard, RecvError>,
    channels: &Channels,
    version: Version,
) -> Result<Vec<String>, Closing> {
    const BEHIND: Closing = (CloseCode::Again, "changes came faster than they were taken");
    match change {
        Ok(Heard::Change(event)) => Ok(channels.deliver(&event, version)),
        Ok(Heard::Lost) | Err(RecvError::Lagged(_)) => Err(BEHIND),
        Err(RecvError::Closed) => Err((CloseCode::Restart, "the sandbox is stopping")),
    }
}

fn encoded(frames: Vec<Frame>, version: Version) -> Vec<String> {
    // Values that were read or made here are always encodable.
    frames.into_iter().filter_map(|frame| frame.encode(version).ok()).collect()
}

async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    texts: Vec<String>,
) -> Result<(), Error> {
    for text in texts {
        socket.feed(Message::text(text)).await?;
    }
    // Also sends what the library has to say itself.
    socket.flush().await
}

/// Says goodbye, or answers the client's, and waits until it is heard.
async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocketStream<S>,
    frame: Option<CloseFrame>,
) -> Result<(), Error> {
    if let Some(frame) = frame {
        socket.close(Some(frame)).await?;
    }
    while socket.next().await.is_some_and(|message| message.is_ok()) {}
    // What still comes in must be read: a reset would overtake our goodbye.
    let mut stream = socket.into_inner();
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use tokio::io::DuplexStream;

    use super::*;
    use crate::model::{GatewayId, TeamId};
    use crate::sandbox::Caller;
    use crate::sandbox::realtime::event::Event;
    use crate::sandbox::rules::Rules;
    use crate::sandbox::store::schema::Schema;
    use crate::sandbox::store::{Change, ChangeKind};
    use crate::task::Group;

    struct Client {
        stream: WebSocketStream<DuplexStream>,
        ring: broadcast::Sender<Heard>,
        _tasks: Group,
    }

    fn grant(token: &str) -> Result<Grant, TokenError> {
        if token != "good" {
            return Err(TokenError::Malformed);
        }
        let caller = Caller::Gateway {
            user_id: "u".into(),
            session_id: "s".into(),
            gateway_id: GatewayId::new("g"),
            team_id: TeamId::new("t"),
        };
        Ok(Grant { caller, expires_at: None })
    }

    /// A socket whose client can be `behind` so many bytes and changes.
    async fn connect(bytes: usize, behind: usize) -> Client {
        let (ours, theirs) = tokio::io::duplex(bytes);
        let (ring, heard) = broadcast::channel(behind);
        let mut tasks = Group::new(CancellationToken::new());
        let channels = Channels::new(Arc::new(Schema::built_in()), Rules::default());
        tasks.spawn("socket", move |stop| async move {
            serve(ours, Version::V2, channels, &grant, heard, stop).await;
        });
        let stream = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        Client { stream, ring, _tasks: tasks }
    }

    impl Client {
        async fn next(&mut self) -> Message {
            self.stream.next().await.unwrap().unwrap()
        }

        async fn subscribe(&mut self) {
            let join = json!(["1", "1", "realtime:a", "phx_join", {"access_token": "good",
                "config": {"postgres_changes": [{"event": "*", "table": "gateway_jobs"}]}}]);
            self.stream.send(Message::text(join.to_string())).await.unwrap();
            assert!(self.next().await.into_text().unwrap().contains("phx_reply"));
            assert!(self.next().await.into_text().unwrap().contains("Subscribed"));
        }

        fn change(&self, number: usize) {
            let schema = Schema::built_in();
            let row = json!({"id": number, "team_id": "t", "error": "x".repeat(1000)});
            let change = Change { table: "gateway_jobs", kind: ChangeKind::Insert, row, old: None };
            let table = schema.table("gateway_jobs").unwrap();
            let event = Event::new(Arc::new(change), table, String::new());
            self.ring.send(Heard::Change(Arc::new(event))).unwrap();
        }

        /// The code of the close that comes next.
        async fn closed(&mut self) -> CloseCode {
            loop {
                if let Message::Close(frame) = self.next().await {
                    return frame.unwrap().code;
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_closed_after_a_minute() {
        let mut client = connect(4096, 16).await;
        let began = Instant::now();
        tokio::time::sleep(Duration::from_secs(50)).await;
        let beat = json!([null, "1", "phoenix", "heartbeat", {}]).to_string();
        client.stream.send(Message::text(beat)).await.unwrap();
        let reply: Value = serde_json::from_str(client.next().await.to_text().unwrap()).unwrap();
        assert_eq!(reply[4], json!({"status": "ok", "response": {}}));
        assert_eq!(client.closed().await, CloseCode::Normal);
        assert_eq!(began.elapsed().as_secs(), 110);
    }

    #[tokio::test]
    async fn a_client_that_falls_behind_is_told_so() {
        let mut client = connect(1 << 20, 4).await;
        client.subscribe().await;
        // The socket's task does not run before we wait.
        for number in 0..10 {
            client.change(number);
        }
        assert_eq!(client.closed().await, CloseCode::Again);
    }

    #[tokio::test]
    async fn more_changes_than_could_be_followed_close_the_socket() {
        let mut client = connect(1 << 20, 4).await;
        client.ring.send(Heard::Lost).unwrap();
        assert_eq!(client.closed().await, CloseCode::Again);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_dropped() {
        let mut client = connect(2048, 64).await;
        client.subscribe().await;
        for number in 0..64 {
            client.change(number);
        }
        let began = Instant::now();
        client.ring.closed().await;
        assert_eq!(began.elapsed(), WRITE_TIME);
    }

    #[test]
    fn an_expiry_in_the_past_is_looked_at_now() {
        assert_eq!(until_expiry(Some(0)), Duration::ZERO);
        assert_eq!(until_expiry(Some(i64::MIN)), Duration::ZERO);
        assert_eq!(until_expiry(Some(i64::MAX)), RECHECK);
        assert_eq!(until_expiry(None), RECHECK);
    }
}
