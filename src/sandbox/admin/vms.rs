//! Managed VMs: their bootstrap tokens, and the secrets that their jobs may name.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::AdminError;
use super::{Answer, Created, Input};
use crate::model::TeamId;
use crate::sandbox::app::{Shared, micros, now_micros, wire_time};
use crate::sandbox::functions;

const TOKEN_LIFETIME: Duration = Duration::from_hours(1);
const LONGEST_LIFETIME: Duration = Duration::from_hours(30 * 24);
const LONGEST_NAME: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    vm_id: Option<String>,
    expires_in_seconds: Option<u64>,
}

/// Makes a bootstrap token, and its VM when there is none of that id; only the token's hash is kept.
pub(super) async fn make_token(
    State(app): State<Shared>,
    Input(input): Input<NewToken>,
) -> Created {
    let vm_id = match input.vm_id {
        Some(id) => checked_name("vm_id", &id)?,
        None => Uuid::now_v7().to_string(),
    };
    let lifetime = input.expires_in_seconds.map_or(TOKEN_LIFETIME, Duration::from_secs);
    if lifetime.is_zero() || lifetime > LONGEST_LIFETIME {
        return Err(AdminError::invalid("expires_in_seconds must be 1 to 2592000 (30 days)"));
    }
    let token = functions::new_vm_token().map_err(|error| AdminError::internal(&error))?;
    let (hash, team, now) = (functions::vm_token_hash(&token), app.team_id.clone(), now_micros());
    let expires_at = now.saturating_add(micros(lifetime));
    let vm = vm_id.clone();
    app.store
        .write(move |write| {
            make_vm(write.tx, &team, &vm, now)?;
            write.tx.execute(
                "INSERT INTO vm_tokens (token_sha256, vm_id, created_at, expires_at)
                 VALUES (?1, ?2, ?3, ?4)",
                params![hash, vm, now, expires_at],
            )?;
            Ok::<_, AdminError>(())
        })
        .await?;
    let answer = json!({
        "token": token,
        "vm_id": vm_id,
        "url": app.public_url,
        "anon_key": app.secrets.anon_key,
        "expires_at": wire_time(expires_at),
    });
    Ok((StatusCode::CREATED, Json(answer)))
}

fn make_vm(tx: &Connection, team: &TeamId, id: &str, now: i64) -> Result<(), AdminError> {
    let owner = tx
        .query_row("SELECT team_id FROM vms WHERE id = ?1", [id], |row| row.get::<_, String>(0))
        .optional()?;
    match owner {
        Some(owner) if owner == team.as_str() => Ok(()),
        Some(_) => {
            Err(AdminError::new(StatusCode::CONFLICT, "vm_exists", "another team has that VM"))
        }
        None => {
            tx.execute(
                "INSERT INTO vms (id, team_id, created_at, updated_at) VALUES (?1, ?2, ?3, ?3)",
                params![id, team.as_str(), now],
            )?;
            Ok(())
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretName {
    name: String,
}

/// Lets jobs in VMs ask for a placeholder for this secret. Adding it again changes nothing.
pub(super) async fn add_secret(
    State(app): State<Shared>,
    Input(input): Input<SecretName>,
) -> Created {
    let name = checked_name("name", &input.name)?;
    let (team, added) = (app.team_id.clone(), name.clone());
    app.store
        .write(move |write| {
            write.tx.execute(
                "INSERT OR IGNORE INTO secrets (team_id, name, created_at) VALUES (?1, ?2, ?3)",
                params![team.as_str(), added, now_micros()],
            )?;
            Ok::<_, AdminError>(())
        })
        .await?;
    Ok((StatusCode::CREATED, Json(json!({"name": name}))))
}

/// Forgets a secret. Placeholders that jobs have already stay theirs.
pub(super) async fn remove_secret(
    State(app): State<Shared>,
    Input(input): Input<SecretName>,
) -> Answer {
    let (team, name) = (app.team_id.clone(), input.name);
    app.store
        .write(move |write| {
            let removed = write.tx.execute(
                "DELETE FROM secrets WHERE team_id = ?1 AND name = ?2",
                params![team.as_str(), name],
            )?;
            if removed == 0 {
                let message = format!("there is no secret {name:?}");
                return Err(AdminError::not_found("secret_not_found", message));
            }
            Ok(Json(json!({"name": name})))
        })
        .await
}

/// Their names, in order, at most 1,000.
pub(super) async fn list_secrets(State(app): State<Shared>) -> Answer {
    let team = app.team_id.clone();
    app.store
        .read(move |connection| {
            let mut found = connection.prepare_cached(
                "SELECT name, created_at FROM secrets WHERE team_id = ?1
                 ORDER BY name LIMIT 1000",
            )?;
            let rows = found.query_map([team.as_str()], |row| {
                let created_at = wire_time(row.get(1)?);
                Ok(json!({"name": row.get::<_, String>(0)?, "created_at": created_at}))
            })?;
            Ok(Json(Value::Array(rows.collect::<Result<_, _>>()?)))
        })
        .await
}

/// Names that can stand in a command line, a path and a metadata field as they are.
fn checked_name(what: &str, name: &str) -> Result<String, AdminError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(fits) {
        let message = format!(
            "{what} must be 1 to {LONGEST_NAME} letters, digits, hyphens, underscores and dots"
        );
        return Err(AdminError::invalid(message));
    }
    Ok(name.to_owned())
}
