//! The team's pairing codes, resources and events.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rusqlite::params;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::AdminError;
use super::{Answer, Created, Input, Params, gateways, row_limit};
use crate::sandbox::app::{Shared, micros, now_micros, wire_time};
use crate::sandbox::store::Store;
use crate::sandbox::{functions, rows};

const CODE_LIFETIME: Duration = Duration::from_mins(10);
const MAX_DEVICE_NAME: usize = 200;
const RESOURCES: &str = "team_resources";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCode {
    device_name: Option<String>,
}

/// Makes a pairing code; only its hash is kept.
pub(super) async fn make_pairing_code(
    State(app): State<Shared>,
    Input(input): Input<NewCode>,
) -> Created {
    let device_name =
        input.device_name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    if device_name.as_ref().is_some_and(|name| name.chars().count() > MAX_DEVICE_NAME) {
        let message = format!("device_name is longer than {MAX_DEVICE_NAME} characters");
        return Err(AdminError::invalid(message));
    }
    let code = functions::new_code().map_err(|error| AdminError::internal(&error))?;
    let hash = functions::code_hash(&code);
    let team = app.team_id.clone();
    let now = now_micros();
    let expires_at = now.saturating_add(micros(CODE_LIFETIME));
    app.store
        .write(move |write| {
            write.tx.execute(
                "INSERT INTO pairing_codes (code_sha256, team_id, device_name, created_at,
                     expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![hash, team.as_str(), device_name, now, expires_at],
            )?;
            Ok::<_, AdminError>(())
        })
        .await?;
    let answer = json!({
        "code": code,
        "url": app.public_url,
        "anon_key": app.secrets.anon_key,
        "expires_at": wire_time(expires_at),
    });
    Ok((StatusCode::CREATED, Json(answer)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewResource {
    gateway_id: String,
    resource_type: String,
    max_access_level: String,
    #[serde(default)]
    metadata: Map<String, Value>,
}

/// Makes a resource that belongs to a gateway: `metadata.gateway_id` says to which.
pub(super) async fn make_resource(
    State(app): State<Shared>,
    Input(mut input): Input<NewResource>,
) -> Created {
    for (name, value) in
        [("resource_type", &input.resource_type), ("max_access_level", &input.max_access_level)]
    {
        if value.trim().is_empty() {
            return Err(AdminError::invalid(format!("{name} is empty")));
        }
    }
    let owner = Value::String(input.gateway_id.clone());
    if input.metadata.get("gateway_id").is_some_and(|named| *named != owner) {
        return Err(AdminError::invalid("metadata.gateway_id differs from gateway_id"));
    }
    input.metadata.insert("gateway_id".into(), owner);
    let team = app.team_id.clone();
    app.store
        .write(move |write| {
            gateways::choose(write.tx, &team, Some(&input.gateway_id))?;
            let id = Uuid::now_v7().to_string();
            write.tx.execute(
                "INSERT INTO team_resources (id, team_id, resource_type, max_access_level,
                     metadata, created_at, updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
                params![
                    id,
                    team.as_str(),
                    input.resource_type,
                    input.max_access_level,
                    Value::Object(input.metadata.clone()).to_string(),
                    now_micros()
                ],
            )?;
            Ok((StatusCode::CREATED, Json(rows::inserted(write.tx, RESOURCES, &id)?)))
        })
        .await
}

/// The team's resources, oldest first, at most 1,000.
pub(super) async fn list_resources(State(app): State<Shared>) -> Answer {
    let team = app.team_id.clone();
    app.store
        .read(move |connection| {
            let sql = "WHERE team_id = ?1 ORDER BY created_at, id LIMIT 1000";
            Ok(Json(Value::Array(Store::rows(connection, RESOURCES, sql, [team.as_str()])?)))
        })
        .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limit {
    limit: Option<u32>,
}

/// What gateways reported, newest first.
pub(super) async fn list_events(State(app): State<Shared>, Params(limit): Params<Limit>) -> Answer {
    let team = app.team_id.clone();
    app.store
        .read(move |connection| {
            let events = Store::rows(
                connection,
                "gateway_events",
                "WHERE team_id = ?1
                 ORDER BY created_at DESC, id DESC LIMIT ?2",
                params![team.as_str(), row_limit(limit.limit)],
            )?;
            Ok(Json(Value::Array(events)))
        })
        .await
}
