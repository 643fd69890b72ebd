//! One socket: reads frames, writes answers and changes, and keeps the time.
//!
//! A text that is no frame closes the socket (1002), so does a binary message in version 1 (1003);
//! in version 2 those are broadcasts, which mean nothing here. Idle sockets are closed with 1000,
//! those that fall behind with 1013, and all with 1012 when the server stops.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
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
    let channels = Channels::new(app.store.schema().clone());
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
        let frame = CloseFrame { code, reason: reason.into() };
        // One that does not answer is dropped.
        let _ = timeout(CLOSE_TIME, farewell(&mut socket, frame)).await;
    }
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
        Some(Err(Error::Protocol(_))) => Err(Some((CloseCode::Protocol, "not a websocket"))),
        Some(Ok(Message::Close(_)) | Err(_)) | None => Err(None),
    }
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
    frames.iter().filter_map(|frame| frame.encode(version).ok()).collect()
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

/// Says goodbye and waits for the client to do so.
async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    frame: CloseFrame,
) -> Result<(), Error> {
    socket.close(Some(frame)).await?;
    while let Some(message) = socket.next().await {
        message?;
    }
    Ok(())
}
