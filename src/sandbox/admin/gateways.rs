//! Gateways: who is there, and the team's toggle of machine control.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::AdminError;
use super::{Answer, Input};
use crate::model::{TeamId, time};
use crate::sandbox::app::{Shared, now_micros};
use crate::sandbox::store::Store;
use crate::sandbox::{liveness, rows};

/// Gateways of the team, oldest first, at most 1,000, each with `online`.
pub(super) async fn list(State(app): State<Shared>) -> Answer {
    let team = app.team_id.clone();
    app.store
        .read(move |connection| {
            let mut gateways = Store::rows(
                connection,
                "team_gateways",
                "WHERE team_id = ?1 ORDER BY created_at, id LIMIT 1000",
                [team.as_str()],
            )?;
            for gateway in &mut gateways {
                mark_online(gateway, now_micros());
            }
            Ok(Json(Value::Array(gateways)))
        })
        .await
}

/// Sets `online`, and `status` to what it will be after the next sweep.
fn mark_online(gateway: &mut Value, now: i64) {
    let seen = gateway["last_seen_at"].as_str().and_then(time::parse);
    let silent = liveness::is_silent(seen.map(Timestamp::as_microsecond), now);
    gateway["online"] = json!(!silent && gateway["status"] != "offline");
    if silent && seen.is_some() {
        gateway["status"] = json!("offline");
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FullControl {
    gateway_id: Option<String>,
    enabled: bool,
}

/// Turns the team's toggle on or off.
pub(super) async fn set_full_control(
    State(app): State<Shared>,
    Input(input): Input<FullControl>,
) -> Answer {
    let team = app.team_id.clone();
    app.store
        .write(move |write| {
            let id = choose(write.tx, &team, input.gateway_id.as_deref())?;
            rows::update(
                write.tx,
                "team_gateways",
                &id,
                "UPDATE team_gateways SET full_control_enabled = ?2, updated_at = ?3
                 WHERE id = ?1",
                params![id, input.enabled, now_micros()],
            )?
            .map(Json)
            .ok_or_else(|| unknown(&id))
        })
        .await
}

/// The gateway that was named; else the one that was seen most recently.
pub(super) fn choose(
    connection: &Connection,
    team: &TeamId,
    named: Option<&str>,
) -> Result<String, AdminError> {
    if let Some(id) = named {
        return connection
            .query_row(
                "SELECT id FROM team_gateways WHERE id = ?1 AND team_id = ?2",
                [id, team.as_str()],
                |row| row.get(0),
            )
            .optional()?
            .ok_or_else(|| unknown(id));
    }
    connection
        .query_row(
            "SELECT id FROM team_gateways WHERE team_id = ?1
             ORDER BY last_seen_at DESC NULLS LAST, created_at DESC, id DESC LIMIT 1",
            [team.as_str()],
            |row| row.get(0),
        )
        .optional()?
        .ok_or_else(|| {
            AdminError::new(
                StatusCode::CONFLICT,
                "no_gateway",
                "no gateway is paired with this sandbox yet: run `panorama-gateway sandbox code` \
                 and then the `pair` command that it prints",
            )
        })
}

fn unknown(id: &str) -> AdminError {
    AdminError::not_found("gateway_not_found", format!("there is no gateway {id:?}"))
}
