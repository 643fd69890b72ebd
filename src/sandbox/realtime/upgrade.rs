//! `GET /realtime/v1/websocket`: the handshake, and who is refused before it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Newcomer;
use crate::phoenix::Version;
use crate::sandbox::app::Shared;
use crate::sandbox::credentials::{check_key, query_value};

/// Answers the handshake and hands the socket over. Refusals say `{"error"}`.
pub(in crate::sandbox) async fn websocket(
    State(app): State<Shared>,
    mut request: Request,
) -> Response {
    let query = request.uri().query().unwrap_or_default();
    if check_key(&app, request.headers(), query).is_err() {
        let message = "send the project's key as ?apikey=";
        return refusal(StatusCode::UNAUTHORIZED, message);
    }
    let Some(version) = Version::parse(query_value(query, "vsn").as_deref()) else {
        return refusal(StatusCode::BAD_REQUEST, "vsn must be 1.0.0 or 2.0.0");
    };
    let accept = match accept_key(request.headers()) {
        Ok(accept) => accept,
        Err(error) => return error.response(),
    };
    let Ok(place) = Arc::clone(&app.realtime.places).try_acquire_owned() else {
        return refusal(
            StatusCode::TOO_MANY_REQUESTS,
            "ConnectionRateLimitReached: too many sockets are open",
        );
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let newcomer = Newcomer { upgrade, version, place };
    if app.realtime.newcomers.send(newcomer).await.is_err() {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "the sandbox is stopping");
    }
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Why a request is no handshake.
#[derive(Debug, Clone, Copy)]
enum HandshakeError {
    NoUpgrade,
    Version,
    Key,
}

impl HandshakeError {
    fn response(self) -> Response {
        let message = match self {
            Self::NoUpgrade => "connect with a websocket client",
            Self::Version => "the websocket protocol has version 13",
            Self::Key => {
                return refusal(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not a key");
            }
        };
        let headers = [(header::UPGRADE, "websocket"), (header::SEC_WEBSOCKET_VERSION, "13")];
        (headers, refusal(StatusCode::UPGRADE_REQUIRED, message)).into_response()
    }
}

/// What proves that we understood, for a request that is a handshake.
fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, HandshakeError> {
    if !lists(headers, &header::CONNECTION, "upgrade")
        || !lists(headers, &header::UPGRADE, "websocket")
    {
        return Err(HandshakeError::NoUpgrade);
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
        return Err(HandshakeError::Version);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let key = key.filter(|key| STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16));
    key.and_then(|key| HeaderValue::try_from(derive_accept_key(key)).ok())
        .ok_or(HandshakeError::Key)
}

/// Whether a header that is a list names a token.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

fn refusal(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": message}))).into_response()
}
