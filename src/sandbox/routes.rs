//! All routes, and the layers around them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::{Json, Router, middleware};
use serde_json::{Value, json};

use super::access::AccessError;
use super::app::Shared;
use super::body::BodyError;
use super::credentials::CallerError;
use super::guard::{self, Hosts};
use super::rest::{self, RestRequest};
use super::{Caller, admin, auth, body, credentials, functions, realtime};

const REST: &str = "/rest/v1/";

/// The whole service.
pub(super) fn router(app: Shared, hosts: Hosts) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .nest("/auth/v1", auth::router())
        .route("/rest/v1/", any(tables))
        .route("/rest/v1/{*path}", any(tables))
        .route("/realtime/v1/websocket", get(realtime::websocket))
        .route("/functions/v1/{name}", any(functions::invoke))
        .nest("/admin/v1", admin::router(&app))
        .fallback(async || guard::refusal(StatusCode::NOT_FOUND, "not_found", "no such page"))
        .method_not_allowed_fallback(guard::wrong_method)
        .layer(middleware::from_fn(guard::limit_time))
        .layer(middleware::from_fn_with_state(Arc::new(hosts), guard::check_host))
        .layer(middleware::from_fn(guard::add_security_headers))
        .with_state(app)
}

/// Alive; says nothing about who is asked.
async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

async fn tables(State(app): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let leeway = i64::try_from(app.clock_leeway.as_secs()).unwrap_or(0);
    let caller = match credentials::caller(&app, &parts.headers, query, leeway) {
        Ok(caller) => caller,
        Err(CallerError::Key(error)) => return error.response(),
        Err(CallerError::Token(error)) => return token_error(error),
    };
    // Only a paired gateway has results to send.
    let limit = if caller == Caller::Anonymous { body::SMALL } else { body::LARGE };
    let body = match body::read(body, limit).await {
        Ok(body) => body,
        Err(BodyError::TooLarge(limit)) => {
            let message = format!("the body is larger than {limit} bytes");
            return rest_error(StatusCode::PAYLOAD_TOO_LARGE, "PGRST102", &message);
        }
        Err(BodyError::Broken) => {
            return rest_error(StatusCode::BAD_REQUEST, "PGRST102", "the body broke off");
        }
    };
    let request = RestRequest {
        method: parts.method,
        path: parts.uri.path().strip_prefix(REST).unwrap_or_default().to_owned(),
        query: credentials::query_without(query, "apikey"),
        headers: parts.headers,
        body,
    };
    rest::handle(&app.store, &caller, request).await.map(Body::from)
}

fn token_error(error: AccessError) -> Response {
    let (code, message) = match error {
        AccessError::Invalid => ("PGRST301", "JWT could not be decoded or verified"),
        AccessError::Expired => ("PGRST303", "JWT expired"),
        AccessError::NotYet => ("PGRST303", "JWT issued at future"),
    };
    let mut response = rest_error(StatusCode::UNAUTHORIZED, code, message);
    response.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Bearer error=\"invalid_token\""),
    );
    response
}

fn rest_error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({"code": code, "message": message, "details": null, "hint": null});
    (status, Json(body)).into_response()
}
