//! The status socket: one JSON request a line, one JSON answer a line, for processes of our user.
//!
//! | request | answer |
//! |---|---|
//! | `{"request":"status"}` | [`super::status::LiveStatus`] |
//! | `{"request":"jobs"}` | [`crate::jobs::JobList`] |
//! | `{"request":"health"}` | [`super::health::Health`] |
//! | `{"request":"metrics"}` | `{"content_type":"…","metrics":"…"}`, Prometheus text |
//! | `{"request":"cancel"}` | `{"ok":true}`; the work in hand is cancelled as by a second signal |
//!
//! Anything else is answered `{"error":"…"}`. Connections are few and bounded in every way: who
//! says nothing gives way to who comes new, who does not read is closed, a line has an end.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::metrics;
use super::shared::Shared;
use crate::task::Group;

/// One of them is always kept free for who comes new, unless all are being answered.
const MAX_CONNECTIONS: usize = 16;
const MAX_REQUEST: u64 = 64 * 1024;
/// A connection that says nothing for this long is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// One that does not take its answer for this long is closed.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// While all places are taken: how often somebody is looked for who could give way.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Binds the socket, 0600. The caller holds the instance lock, so whatever lies there is stale.
fn bind(path: &Path) -> std::io::Result<StdListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // The directory is 0700, so the socket is never reachable for others, even before its mode is
    // set.
    let listener = crate::fs::socket::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The same; a gateway without one works, but tells less.
pub(super) fn open(path: &Path) -> Option<Arc<StdListener>> {
    let bound = bind(path).inspect_err(|error| {
        tracing::warn!(path = %path.display(), %error,
            "no status socket: `status` and `stop --wait` will know less");
    });
    bound.ok().map(Arc::new)
}

/// Serves until `stop`.
pub(super) async fn run(shared: Arc<Shared>, listener: Arc<StdListener>, stop: CancellationToken) {
    let listener = match listener.try_clone().and_then(UnixListener::from_std) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the status socket cannot be served");
            return;
        }
    };
    let mut connections = Group::new(stop.clone());
    let mut seats: Vec<Weak<Seat>> = Vec::new();
    loop {
        let full = connections.len() >= MAX_CONNECTIONS;
        if full {
            free_one(&mut seats);
        }
        tokio::select! {
            // Cancel safe, each arm: accept, join and a timer.
            () = stop.cancelled() => break,
            Some(_) = connections.next(), if !connections.is_empty() => {}
            () = tokio::time::sleep(LOOK_AGAIN), if full => {}
            accepted = listener.accept(), if !full => match accepted {
                Ok((stream, _)) if is_ours(&stream) => {
                    let shared = Arc::clone(&shared);
                    let seat = Arc::new(Seat::default());
                    seats.push(Arc::downgrade(&seat));
                    connections.spawn("status connection", move |stop| async move {
                        tokio::select! {
                            () = serve(&shared, stream, &seat) => {}
                            () = seat.given_up.cancelled() => {}
                            () = stop.cancelled() => {}
                        }
                    });
                }
                Ok(_) => tracing::warn!("another user's connection to the status socket is refused"),
                Err(error) => {
                    tracing::warn!(%error, "the status socket refused a connection");
                    // Out of descriptors, most likely: do not spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    connections.stop(Duration::from_secs(1)).await;
}

/// A connection's place.
#[derive(Debug)]
struct Seat {
    /// `None` while it is being answered.
    idle_since: Mutex<Option<Instant>>,
    given_up: CancellationToken,
}

impl Default for Seat {
    fn default() -> Self {
        let idle_since = Mutex::new(Some(Instant::now()));
        Self { idle_since, given_up: CancellationToken::new() }
    }
}

impl Seat {
    fn idle_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who has said nothing for the longest time gives way.
fn free_one(seats: &mut Vec<Weak<Seat>>) {
    seats.retain(|seat| seat.strong_count() > 0);
    let seats = seats.iter().filter_map(Weak::upgrade);
    let idle = seats.filter_map(|seat| {
        let since = *seat.idle_since();
        Some((since?, seat))
    });
    if let Some((_, seat)) = idle.min_by_key(|(since, _)| *since) {
        seat.given_up.cancel();
    }
}

fn is_ours(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| may_ask(peer.uid(), own))
}

/// Our user, and root, whom nothing could be kept from anyway.
fn may_ask(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

async fn serve(shared: &Shared, mut stream: UnixStream, seat: &Seat) {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(MAX_REQUEST);
        let read = bounded.read_until(b'\n', &mut line);
        match timeout(IDLE_LIMIT, read).await {
            Ok(Ok(length)) if length > 0 => {}
            Ok(Ok(_) | Err(_)) | Err(_) => return,
        }
        *seat.idle_since() = None;
        let whole = line.last() == Some(&b'\n');
        let mut answer = answer(shared, &line).await.to_string();
        answer.push('\n');
        let written = timeout(WRITE_LIMIT, writer.write_all(answer.as_bytes())).await;
        if !whole || !matches!(written, Ok(Ok(()))) {
            return;
        }
        *seat.idle_since() = Some(Instant::now());
    }
}

async fn answer(shared: &Shared, line: &[u8]) -> Value {
    if line.len() as u64 >= MAX_REQUEST && line.last() != Some(&b'\n') {
        return json!({ "error": format!("a request has at most {MAX_REQUEST} bytes") });
    }
    let request = serde_json::from_slice::<Value>(line).ok();
    match request.as_ref().and_then(|request| request.get("request")).and_then(Value::as_str) {
        Some("status") => value(&shared.live_status()),
        Some("health") => value(&shared.health()),
        Some("jobs") => match shared.jobs().await {
            Some(jobs) => value(&jobs),
            None => json!({"error": "the jobs are busy; ask again"}),
        },
        Some("metrics") => json!({
            "content_type": metrics::CONTENT_TYPE, "metrics": metrics::scrape(shared),
        }),
        Some("cancel") => {
            tracing::info!("cancelling the work in hand, as asked over the status socket");
            shared.request_cancel();
            json!({"ok": true})
        }
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            json!({ "error": format!("unknown request {shown:?}") })
        }
        None => {
            json!({"error": "not a request: one JSON object a line, {\"request\": \"status\"}"})
        }
    }
}

fn value(answer: &impl Serialize) -> Value {
    serde_json::to_value(answer).unwrap_or_else(|error| json!({ "error": error.to_string() }))
}

#[cfg(test)]
mod tests;
