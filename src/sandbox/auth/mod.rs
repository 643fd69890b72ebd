//! `/auth/v1`: sessions of paired gateways, as GoTrue serves them.

mod error;
mod refresh;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use self::error::{ApiVersion, AuthError};
use self::refresh::Rotation;
pub(super) use self::refresh::{
    RefreshChain, SessionRow, end_sessions_of, open_session, sha256_hex,
};
use super::access::{AccessError, Identity, app_metadata};
use super::app::{App, Shared, micros, now_micros, wire_time};
use super::body::{self, BodyError};
use super::credentials::{bearer, check_key, query_value};
use super::routes::Route;
use super::rules::Rule;

/// The routes below `/auth/v1`.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::post("/token", token),
        Route::get("/user", user),
        Route::post("/logout", logout),
        Route::get("/health", health),
        Route::get("/.well-known/jwks.json", jwks),
    ]
}

async fn health() -> Json<Value> {
    Json(json!({
        "version": crate::VERSION,
        "name": "Panorama sandbox",
        "description": "The embedded local control plane",
    }))
}

/// Tokens are signed with a secret key: there is no public one to show.
async fn jwks() -> Response {
    let max_age = (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=600"));
    ([max_age], Json(json!({"keys": []}))).into_response()
}

async fn token(State(app): State<Shared>, request: Request) -> Response {
    answer(&app, request, async |app, parts, body| {
        let grant = query_value(parts.uri.query().unwrap_or_default(), "grant_type");
        if grant.as_deref() != Some("refresh_token") {
            let message = "the only grant_type here is refresh_token";
            return Err(AuthError::new(StatusCode::BAD_REQUEST, "unsupported_grant_type", message));
        }
        refresh(app, &body).await.map(|tokens| Json(tokens).into_response())
    })
    .await
}

async fn user(State(app): State<Shared>, request: Request) -> Response {
    answer(&app, request, async |app, parts, _| {
        let session = live_session(app, &parts.headers).await?;
        Ok(Json(user_of(&session)).into_response())
    })
    .await
}

async fn logout(State(app): State<Shared>, request: Request) -> Response {
    answer(&app, request, async |app, parts, _| {
        let session = live_session(app, &parts.headers).await?;
        app.store
            .write(move |write| {
                let id = &session.identity.session_id;
                refresh::end_session(write.tx, id, now_micros()).map_err(AuthError::from)
            })
            .await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

/// What all calls of auth have in common: the key, a bounded body, both shapes of errors.
async fn answer<F>(app: &App, request: Request, handle: F) -> Response
where
    F: AsyncFnOnce(&App, http::request::Parts, Vec<u8>) -> Result<Response, AuthError>,
{
    let (parts, body) = request.into_parts();
    if let Err(error) = check_key(app, &parts.headers, parts.uri.query().unwrap_or_default()) {
        return error.response();
    }
    let version = ApiVersion::of(&parts.headers);
    let result = match body::read(body, body::SMALL).await {
        Ok(body) => handle(app, parts, body).await,
        Err(BodyError::TooLarge(_)) => Err(AuthError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request_too_large",
            "the body is too large",
        )),
        Err(BodyError::Broken) => {
            Err(AuthError::new(StatusCode::BAD_REQUEST, "bad_json", "the body broke off"))
        }
    };
    let mut response = result.unwrap_or_else(|error| error.response(version));
    version.echo(&mut response);
    response
}

async fn refresh(app: &App, body: &[u8]) -> Result<Value, AuthError> {
    let bad = |code, message: &str| AuthError::new(StatusCode::BAD_REQUEST, code, message);
    let body: Value = serde_json::from_slice(body)
        .map_err(|_| bad("bad_json", "could not parse the request body as JSON"))?;
    let token = body.get("refresh_token").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !is_well_formed(&token) {
        return Err(bad("validation_failed", "refresh_token is not valid"));
    }
    let chain = app.chain.clone();
    let rules = app.rules;
    let is_strict = rules.hold(Rule::Reuse);
    let reuse_interval = if is_strict { micros(app.reuse_interval) } else { i64::MAX };
    let rotation = app
        .store
        .write(move |write| {
            refresh::rotate(write.tx, &chain, &token, now_micros(), (reuse_interval, rules))
                .map_err(AuthError::from)
        })
        .await?;
    match rotation {
        Rotation::Live { session, refresh_token } => {
            Ok(token_response(app, &session, &refresh_token))
        }
        Rotation::NotFound => {
            Err(bad("refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found"))
        }
        Rotation::AlreadyUsed => {
            tracing::warn!("a refresh token was used twice: its session was ended");
            Err(bad("refresh_token_already_used", "Invalid Refresh Token: Already Used"))
        }
    }
}

fn is_well_formed(token: &str) -> bool {
    (12..=512).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn token_response(app: &App, session: &SessionRow, refresh_token: &str) -> Value {
    let now = now_micros() / 1_000_000;
    json!({
        "access_token": app.access.mint(&session.identity, now),
        "token_type": "bearer",
        "expires_in": app.access.lifetime(),
        "expires_at": now.saturating_add(app.access.lifetime()),
        "refresh_token": refresh_token,
        "user": user_of(session),
    })
}

/// The session behind the bearer token, which must still be open.
async fn live_session(app: &App, headers: &HeaderMap) -> Result<SessionRow, AuthError> {
    let forbidden = |code, message| AuthError::new(StatusCode::FORBIDDEN, code, message);
    let Some(token) = bearer(headers).filter(|token| !token.is_empty()) else {
        let message = "This endpoint requires a valid Bearer token";
        return Err(AuthError::new(StatusCode::UNAUTHORIZED, "no_authorization", message));
    };
    let identity: Identity =
        app.access.session(token, now_micros() / 1_000_000, 0).map_err(|error| {
            forbidden(
                "bad_jwt",
                match error {
                    AccessError::Invalid => "invalid JWT: unable to parse or verify signature",
                    AccessError::Expired => "invalid JWT: token is expired",
                    AccessError::NotYet => "invalid JWT: token used before issued",
                },
            )
        })?;
    let found = app
        .store
        .read(move |connection| {
            refresh::session(connection, &identity.session_id).map_err(AuthError::from)
        })
        .await?;
    let is_open = |session: &SessionRow| !session.ended || !app.rules.hold(Rule::OpenSession);
    found.filter(is_open).ok_or_else(|| {
        forbidden("session_not_found", "Session from session_id claim in JWT does not exist")
    })
}

fn user_of(session: &SessionRow) -> Value {
    let created_at = wire_time(session.created_at);
    json!({
        "id": session.identity.user_id,
        "aud": "authenticated",
        "role": "authenticated",
        "email": "",
        "phone": "",
        "confirmed_at": created_at,
        "last_sign_in_at": created_at,
        "app_metadata": app_metadata(&session.identity),
        "user_metadata": {},
        "identities": [],
        "created_at": created_at,
        "updated_at": created_at,
        "is_anonymous": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_refresh_tokens_are_told_apart() {
        for good in ["zzzzzzzzzzz0", "abcDEF-_0123456789"] {
            assert!(is_well_formed(good), "{good}");
        }
        for bad in ["", "short", "has a space in it", "zzzzzzzzzzz0=", "ünïcödé-token"] {
            assert!(!is_well_formed(bad), "{bad}");
        }
        assert!(!is_well_formed(&"a".repeat(513)));
    }
}
