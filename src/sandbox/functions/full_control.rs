//! `set-gateway-full-control`: the team's toggle of machine control.
//!
//! The team's side of the sandbox is its operator, so the bearer is the admin token. No gateway may
//! turn its own toggle on.

use axum::http::StatusCode;
use rusqlite::params;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::FunctionError;
use crate::sandbox::app::{App, now_micros};
use crate::sandbox::rules::Rule;
use crate::sandbox::{body, rows};

pub(super) const NAME: &str = "set-gateway-full-control";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    gateway_id: Uuid,
    enabled: bool,
}

/// Sets the toggle of one gateway of the operator's team; the answer shows it.
pub(super) async fn set(app: &App, body: &[u8]) -> Result<Value, FunctionError> {
    let request: Request = body::parse(body).map_err(FunctionError::invalid)?;
    let id = request.gateway_id.to_string();
    let (team, rules) = (app.team_id.clone(), app.rules);
    app.store
        .write(move |write| {
            let missing = || {
                let message = "this team has no such gateway";
                FunctionError::new(StatusCode::NOT_FOUND, "gateway_not_found", message)
            };
            if !super::is_of_team(write.tx, &id, &team, rules, Rule::ToggleTeam)? {
                return Err(missing());
            }
            let row = rows::update(
                write.tx,
                "team_gateways",
                &id,
                "UPDATE team_gateways SET full_control_enabled = ?2, updated_at = ?3
                 WHERE id = ?1",
                params![id, request.enabled, now_micros()],
            )?
            .ok_or_else(missing)?;
            Ok(json!({
                "success": true,
                "gateway_id": row["id"],
                "full_control_enabled": row["full_control_enabled"],
            }))
        })
        .await
}
