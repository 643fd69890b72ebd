//! The status socket: one JSON request a line, one JSON answer a line, for processes of our user.
//!
//! Requests: `{"request":"status"}` → [`super::status::LiveStatus`]; `{"request":"cancel"}` →
//! `{"ok":true}`, and the work in hand is cancelled as by a second signal. Anything else →
//! `{"error":"…"}`.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::task::Group;

const MAX_CONNECTIONS: usize = 16;
const MAX_REQUEST: u64 = 64 * 1024;
/// A connection that says nothing for this long is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// Binds the socket, 0600. The caller holds the instance lock, so whatever lies there is stale.
fn bind(path: &Path) -> std::io::Result<StdListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // The directory is 0700, so the socket is never reachable for others, even before its mode is
    // set.
    let listener = StdListener::bind(path)?;
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
    loop {
        tokio::select! {
            // Cancel safe, each arm: accept and join.
            () = stop.cancelled() => break,
            Some(_) = connections.next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) if is_ours(&stream) => {
                    let shared = Arc::clone(&shared);
                    connections.spawn("status connection", move |stop| async move {
                        tokio::select! {
                            () = serve(&shared, stream) => {}
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

fn is_ours(stream: &UnixStream) -> bool {
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw() || peer.uid() == 0)
}

async fn serve(shared: &Shared, mut stream: UnixStream) {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(MAX_REQUEST);
        let read = bounded.read_until(b'\n', &mut line);
        match tokio::time::timeout(IDLE_LIMIT, read).await {
            Ok(Ok(length)) if length > 0 => {}
            Ok(Ok(_) | Err(_)) | Err(_) => return,
        }
        let mut answer = answer(shared, &line).to_string();
        answer.push('\n');
        if writer.write_all(answer.as_bytes()).await.is_err() || line.last() != Some(&b'\n') {
            return;
        }
    }
}

fn answer(shared: &Shared, line: &[u8]) -> Value {
    let request = serde_json::from_slice::<Value>(line).ok();
    match request.as_ref().and_then(|request| request.get("request")).and_then(Value::as_str) {
        Some("status") => serde_json::to_value(shared.live_status())
            .unwrap_or_else(|error| json!({ "error": error.to_string() })),
        Some("cancel") => {
            tracing::info!("cancelling the work in hand, as asked over the status socket");
            shared.request_cancel();
            json!({"ok": true})
        }
        Some(other) => json!({ "error": format!("unknown request {other:?}") }),
        None => {
            json!({"error": "not a request: one JSON object a line, {\"request\": \"status\"}"})
        }
    }
}
