//! `/admin/v1`: what the operator of this control plane may do, for the command line and the
//! console. Needs the admin token.
//!
//! All of it is about one team, the operator's: rows of others are as unknown here as to a gateway.

mod drives;
mod error;
mod gateways;
mod jobs;
mod subagents;
mod team;
mod vms;
mod watch;

use axum::extract::{FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::error::AdminError;
use super::app::Shared;
use super::routes::{self, Route};
use super::rules::Rule;
use super::{body, credentials, guard};

type Answer = Result<Json<Value>, AdminError>;
type Created = Result<(StatusCode, Json<Value>), AdminError>;

/// The routes below `/admin/v1`.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/info", info),
        Route::post("/pairing-codes", team::make_pairing_code),
        Route::get("/gateways", gateways::list),
        Route::post("/full-control", gateways::set_full_control),
        Route::get("/jobs", jobs::list),
        Route::post("/jobs", jobs::submit),
        Route::get("/jobs/{id}", jobs::show),
        Route::post("/jobs/{id}/cancel", jobs::cancel),
        Route::get("/subagents", subagents::list),
        Route::post("/subagents", subagents::create),
        Route::get("/subagents/{id}", subagents::show),
        Route::get("/subagents/{id}/runs", subagents::list_runs),
        Route::post("/subagents/{id}/runs", subagents::go_on),
        Route::post("/subagents/{id}/cancel", subagents::cancel),
        Route::get("/subagent-runs/{id}", subagents::show_run),
        Route::get("/subagent-runs/{id}/events", subagents::events),
        Route::get("/resources", team::list_resources),
        Route::post("/resources", team::make_resource),
        Route::get("/events", team::list_events),
        Route::get("/drives", drives::list),
        Route::post("/drives", drives::create),
        Route::get("/drives/{id}/entries", drives::entries),
        Route::post("/drives/{id}/access", drives::set_access),
        Route::post("/drives/{id}/restore", drives::restore),
        Route::post("/drive-tokens", drives::make_token),
        Route::post("/drive-sync", drives::sync),
        Route::post("/vm-tokens", vms::make_token),
        Route::get("/secrets", vms::list_secrets),
        Route::post("/secrets", vms::add_secret),
        Route::post("/secrets/remove", vms::remove_secret),
    ]
}

/// They and what stands before them.
pub(super) fn router(app: &Shared) -> Router<Shared> {
    routes::router(routes())
        .fallback(async || AdminError::not_found("not_found", "there is no such admin call"))
        .method_not_allowed_fallback(guard::wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), authorize))
        .layer(middleware::from_fn_with_state(app.clone(), guard::check_origin))
}

async fn authorize(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let token = credentials::bearer(request.headers());
    let is_operator = token.is_some_and(|token| app.secrets.is_admin_token(token));
    if is_operator || !app.rules.hold(Rule::Admin) {
        return next.run(request).await;
    }
    let message = "the admin API needs the admin token as bearer";
    AdminError::new(StatusCode::UNAUTHORIZED, "unauthorized", message).into_response()
}

async fn info(State(app): State<Shared>) -> Json<Value> {
    Json(json!({
        "team_id": app.team_id,
        "url": app.url,
        "anon_key": app.secrets.anon_key,
        "version": crate::VERSION,
        "pid": std::process::id(),
    }))
}

/// A JSON body, bounded, with no unknown field when `T` says so.
struct Input<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Input<T> {
    type Rejection = AdminError;

    async fn from_request(request: Request, _: &S) -> Result<Self, AdminError> {
        let (parts, body) = request.into_parts();
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let is_json = content_type
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
        let bytes = body::read(body, body::SMALL).await?;
        if !is_json {
            return Err(AdminError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not_json",
                "the body must be application/json",
            ));
        }
        body::parse(&bytes).map(Self).map_err(AdminError::invalid)
    }
}

/// Query parameters.
struct Params<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> axum::extract::FromRequestParts<S> for Params<T> {
    type Rejection = AdminError;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        state: &S,
    ) -> Result<Self, AdminError> {
        axum::extract::Query::<T>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Query(params)| Self(params))
            .map_err(|error| AdminError::invalid(error.body_text()))
    }
}

/// The id in a path.
struct Id(String);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Id {
    type Rejection = AdminError;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        state: &S,
    ) -> Result<Self, AdminError> {
        axum::extract::Path::<String>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(id)| Self(id))
            .map_err(|error| AdminError::not_found("not_found", error.body_text()))
    }
}

/// How many rows a list shows: at most 1,000.
fn row_limit(asked: Option<u32>) -> u32 {
    asked.unwrap_or(100).clamp(1, 1000)
}
