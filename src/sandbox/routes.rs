//! All routes, and the layers around them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, any, get, post, put};
use axum::{Json, Router, middleware};
use serde_json::json;

use super::access::AccessError;
use super::app::Shared;
use super::body::BodyError;
use super::credentials::CallerError;
use super::guard::{self, Hosts};
use super::rest::{self, RestRequest};
use super::{admin, auth, body, credentials, drives, functions, realtime, storage};

const REST: &str = "/rest/v1/";

/// One method of one path, or all of them.
pub(super) struct Route {
    /// `None`: any.
    method: Option<Method>,
    path: &'static str,
    handler: MethodRouter<Shared>,
}

impl Route {
    /// A `GET`, and `HEAD` with it.
    pub(super) fn get<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self { method: Some(Method::GET), path, handler: get(handler) }
    }

    /// A `POST`.
    pub(super) fn post<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self { method: Some(Method::POST), path, handler: post(handler) }
    }

    /// A `PUT`.
    pub(super) fn put<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self { method: Some(Method::PUT), path, handler: put(handler) }
    }

    /// Whatever method; the handler tells them apart.
    pub(super) fn any<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self { method: None, path, handler: any(handler) }
    }

    fn method_name(&self) -> &str {
        self.method.as_ref().map_or("ANY", Method::as_str)
    }
}

/// A router of these.
pub(super) fn router(routes: Vec<Route>) -> Router<Shared> {
    routes.into_iter().fold(Router::new(), |router, route| {
        tracing::trace!(method = route.method_name(), path = route.path, "serving");
        router.route(route.path, route.handler)
    })
}

/// The routes that stand alone.
fn own() -> Vec<Route> {
    vec![
        Route::get("/healthz", healthz),
        Route::any("/rest/v1/", tables),
        Route::any("/rest/v1/{*path}", tables),
        Route::get("/realtime/v1/websocket", realtime::websocket),
        Route::any("/functions/v1/{name}", functions::invoke),
    ]
}

/// What bounds its time by itself, since objects may be large.
fn unhurried() -> Vec<Route> {
    let mut routes = vec![Route::any("/storage/v1/{*path}", storage::handle)];
    routes.extend(drives::transfers());
    routes
}

/// Everything that is served, e.g. `POST /auth/v1/token`: each needs a row in the access matrix.
/// Whatever [`service`] nests belongs here as well.
#[cfg(test)]
pub(super) fn listed() -> Vec<String> {
    let areas = [
        ("", own()),
        ("", unhurried()),
        ("/auth/v1", auth::routes()),
        ("/admin/v1", admin::routes()),
    ];
    let listed = areas.iter().flat_map(|(prefix, routes)| {
        routes.iter().map(move |route| format!("{} {prefix}{}", route.method_name(), route.path))
    });
    listed.collect()
}

/// The whole service.
pub(super) fn service(app: Shared, hosts: Hosts) -> Router {
    let hosts = (Arc::new(hosts), app.rules);
    router(own())
        .nest("/auth/v1", router(auth::routes()))
        .nest("/admin/v1", admin::router(&app))
        .fallback(async || guard::refusal(StatusCode::NOT_FOUND, "not_found", "no such page"))
        .method_not_allowed_fallback(guard::wrong_method)
        .layer(middleware::from_fn(guard::limit_time))
        .merge(router(unhurried()))
        .layer(middleware::from_fn_with_state(hosts, guard::check_host))
        .layer(middleware::from_fn(guard::add_security_headers))
        .with_state(app)
}

/// Whether it serves and its database takes writes; says nothing about who is asked.
async fn healthz(State(app): State<Shared>) -> Response {
    if app.health.takes_writes(&app.store).await {
        return Json(json!({"status": "ok"})).into_response();
    }
    let message = "the sandbox's database takes no writes; its log says why";
    let mut response =
        guard::refusal(StatusCode::SERVICE_UNAVAILABLE, "database_unavailable", message);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(1));
    response
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
    let limit = if caller.is_gateway() { body::LARGE } else { body::SMALL };
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
