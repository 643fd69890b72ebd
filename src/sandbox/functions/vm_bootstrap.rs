//! `exchange-vm-bootstrap-token`: a provisioned VM gets its gateway, with a session of its own.
//!
//! A VM keeps its gateway: another token of the same VM gives the same gateway a new session, and
//! ends those that it had. A token works once. Whoever lost the answer asks again with the same
//! `Idempotency-Key` as before; nobody else is answered.

use axum::http::{HeaderMap, StatusCode};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{FunctionError, pairing};
use crate::model::{GatewayId, TeamId};
use crate::sandbox::access::{DriveToken, Identity};
use crate::sandbox::app::{App, Peer, now_micros, wire_time};
use crate::sandbox::rules::{Rule, Rules};
use crate::sandbox::{auth, body, drives, secrets};

pub(super) const NAME: &str = "exchange-vm-bootstrap-token";

/// Tells what a token is for, to people who find one.
const PREFIX: &str = "pano_vm_";
const KEY: &str = "idempotency-key";
const LONGEST_KEY: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    bootstrap_token: String,
    device_name: String,
    #[serde(rename = "gateway_version")]
    _gateway_version: String,
}

/// A new token: 256 random bits.
pub(in crate::sandbox) fn new_token() -> Result<String, getrandom::Error> {
    Ok(format!("{PREFIX}{}", secrets::random_token()?))
}

/// Who was bootstrapped.
struct Guest {
    identity: Identity,
    vm_id: String,
    generation: i64,
}

/// Exchanges a token. Wrong ones are counted together with wrong pairing codes.
pub(super) async fn exchange(
    app: &App,
    peer: Option<Peer>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Value, FunctionError> {
    let request: Request = body::parse(body).map_err(FunctionError::invalid)?;
    if request.bootstrap_token.trim().is_empty() {
        return Err(FunctionError::invalid("bootstrap_token is empty"));
    }
    let device_name = pairing::device_name(&request.device_name)?
        .ok_or_else(|| FunctionError::invalid("device_name is empty"))?;
    let key = headers
        .get(KEY)
        .and_then(|key| key.to_str().ok())
        .filter(|key| !key.is_empty() && key.len() <= LONGEST_KEY)
        .map(auth::sha256_hex);
    pairing::admit_guess(app, peer, "VM bootstrap tokens")?;
    let refresh_token = secrets::random_token().map_err(|error| FunctionError::internal(&error))?;
    let use_up = Use {
        token: token_hash(&request.bootstrap_token),
        key,
        device_name,
        refresh_token: refresh_token.clone(),
        rules: app.rules,
    };
    let guest = app.store.write(move |write| use_up.run(write.tx, now_micros())).await?;
    pairing::forgive_guess(app, peer);
    let Guest { identity, vm_id, generation } = guest;
    tracing::info!(gateway_id = %identity.gateway_id, vm_id, generation, "a VM was bootstrapped");
    let now = now_micros() / 1_000_000;
    let expires_at = now.saturating_add(app.access.lifetime()).saturating_mul(1_000_000);
    let mut answer = json!({
        "success": true,
        "gateway_id": identity.gateway_id,
        "team_id": identity.team_id,
        "vm_id": vm_id,
        "generation": generation,
        "access_token": app.access.mint(&identity, now),
        "refresh_token": refresh_token,
        "expires_at": wire_time(expires_at),
        "token_type": "bearer",
    });
    answer["drive_sync"] = drive_sync(app, &identity, &vm_id);
    Ok(answer)
}

/// The VM's first token for drive sync.
fn drive_sync(app: &App, identity: &Identity, vm_id: &str) -> Value {
    let token = DriveToken {
        gateway_id: identity.gateway_id.clone(),
        team_id: identity.team_id.clone(),
        vm_id: Some(vm_id.to_owned()),
    };
    let minted = drives::mint_token(app, &token);
    json!({"token": minted.token, "expires_at": minted.expires_at})
}

/// How a token is stored and looked up: the time that a look-up takes says nothing of the token.
pub(in crate::sandbox) fn token_hash(token: &str) -> String {
    auth::sha256_hex(token.trim())
}

/// One use of a token.
struct Use {
    token: String,
    key: Option<String>,
    device_name: String,
    refresh_token: String,
    rules: Rules,
}

/// A token that can be used.
#[expect(clippy::struct_field_names, reason = "these are the names of the columns")]
struct Usable {
    vm_id: String,
    team_id: TeamId,
    gateway_id: Option<String>,
}

impl Use {
    /// Uses the token up and makes gateway, session and first refresh token, or changes nothing.
    fn run(&self, tx: &Connection, now: i64) -> Result<Guest, FunctionError> {
        let Usable { vm_id, team_id, gateway_id } = self.usable(tx, now)?;
        tx.execute(
            "UPDATE vm_tokens SET used_at = ?2, used_key_sha256 = ?3 WHERE token_sha256 = ?1",
            params![self.token, now, self.key],
        )?;
        let gateway_id = match gateway_id {
            Some(id) => self.known_gateway(tx, id, now)?,
            None => self.new_gateway(tx, &team_id, &vm_id, now)?,
        };
        let generation = tx.query_row(
            "UPDATE vms SET gateway_id = ?2, generation = generation + 1, updated_at = ?3
             WHERE id = ?1 RETURNING generation",
            params![vm_id, gateway_id, now],
            |row| row.get(0),
        )?;
        let identity = Identity {
            user_id: Uuid::new_v4().to_string(),
            session_id: Uuid::new_v4().to_string(),
            gateway_id: GatewayId::new(gateway_id),
            team_id,
        };
        auth::open_session(tx, &identity, &self.refresh_token, now)?;
        Ok(Guest { identity, vm_id, generation })
    }

    fn usable(&self, tx: &Connection, now: i64) -> Result<Usable, FunctionError> {
        let found = tx
            .query_row(
                "SELECT vms.id, vms.team_id, vms.gateway_id, token.used_at IS NOT NULL,
                     token.used_key_sha256, token.expires_at <= ?2
                 FROM vm_tokens AS token JOIN vms ON vms.id = token.vm_id
                 WHERE token.token_sha256 = ?1",
                params![self.token, now],
                |row| {
                    let team_id = TeamId::new(row.get::<_, String>(1)?);
                    let usable = Usable { vm_id: row.get(0)?, team_id, gateway_id: row.get(2)? };
                    let used: Option<Option<String>> =
                        row.get::<_, bool>(3)?.then(|| row.get(4)).transpose()?;
                    Ok((usable, used, row.get::<_, bool>(5)?))
                },
            )
            .optional()?;
        let Some((usable, used, expired)) = found else {
            return Err(refused(StatusCode::BAD_REQUEST, "vm_token_unknown", "is not known"));
        };
        // The same caller once more: the answer was lost.
        let is_used = used.is_some_and(|key| key.is_none() || key != self.key);
        if is_used && self.rules.hold(Rule::VmTokenOnce) {
            return Err(refused(StatusCode::GONE, "vm_token_used", "was used already"));
        }
        if expired && self.rules.hold(Rule::VmTokenExpiry) {
            return Err(refused(StatusCode::GONE, "vm_token_expired", "has expired"));
        }
        Ok(usable)
    }

    /// The VM's gateway goes on; whoever had a session of it so far has none any more.
    fn known_gateway(&self, tx: &Connection, id: String, now: i64) -> rusqlite::Result<String> {
        auth::end_sessions_of(tx, &id, now)?;
        tx.execute(
            "UPDATE team_gateways SET device_name = ?2, updated_at = ?3 WHERE id = ?1",
            params![id, self.device_name, now],
        )?;
        Ok(id)
    }

    fn new_gateway(
        &self,
        tx: &Connection,
        team: &TeamId,
        vm_id: &str,
        now: i64,
    ) -> rusqlite::Result<String> {
        let id = Uuid::now_v7().to_string();
        tx.execute(
            "INSERT INTO team_gateways (id, team_id, device_name, vm_id, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
            params![id, team.as_str(), self.device_name, vm_id, now],
        )?;
        Ok(id)
    }
}

fn refused(status: StatusCode, code: &'static str, why: &str) -> FunctionError {
    FunctionError::new(status, code, format!("this VM bootstrap token {why}; mint a new one"))
}
