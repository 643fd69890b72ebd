//! `exchange-gateway-pairing-code`: a code becomes a gateway with a session of its own.

use axum::http::StatusCode;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::FunctionError;
use crate::model::{GatewayId, TeamId};
use crate::sandbox::access::Identity;
use crate::sandbox::app::{App, Peer, now_micros, wire_time};
use crate::sandbox::rules::{Rule, Rules};
use crate::sandbox::{auth, body, secrets};

pub(super) const NAME: &str = "exchange-gateway-pairing-code";

/// Letters and digits that people do not mix up; 32 of them, so that a byte maps evenly.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const MAX_DEVICE_NAME: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    code: String,
    device_name: String,
}

/// A new code, `XXXX-XXXX-XXXX`: 60 random bits.
pub(in crate::sandbox) fn new_code() -> Result<String, getrandom::Error> {
    let symbols: Vec<char> = secrets::random_bytes::<12>()?
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
        .collect();
    let groups: Vec<String> = symbols.chunks(4).map(|group| group.iter().collect()).collect();
    Ok(groups.join("-"))
}

/// How a code is stored. Case and separators do not matter to the person who types it.
///
/// Codes are looked up by this hash, so the time that a look-up takes says nothing of the code.
pub(in crate::sandbox) fn code_hash(code: &str) -> String {
    let plain: String = code
        .chars()
        .filter(|symbol| !symbol.is_whitespace() && *symbol != '-')
        .map(|symbol| symbol.to_ascii_uppercase())
        .collect();
    auth::sha256_hex(&plain)
}

/// Exchanges a code. Wrong codes are counted, right ones are not.
pub(super) async fn exchange(
    app: &App,
    peer: Option<Peer>,
    body: &[u8],
) -> Result<Value, FunctionError> {
    let request: Request = body::parse(body).map_err(FunctionError::invalid)?;
    if request.code.trim().is_empty() {
        return Err(FunctionError::invalid("code is empty"));
    }
    let device_name = device_name(&request.device_name)?;
    admit_guess(app, peer, "pairing codes")?;
    let refresh_token = secrets::random_token().map_err(|error| FunctionError::internal(&error))?;
    let first_token = refresh_token.clone();
    let rules = app.rules;
    let identity = app
        .store
        .write(move |write| {
            let code = code_hash(&request.code);
            use_code(write.tx, &code, device_name.clone(), &first_token, now_micros(), rules)
        })
        .await?;
    forgive_guess(app, peer);
    tracing::info!(gateway_id = %identity.gateway_id, "a gateway was paired");
    let now = now_micros() / 1_000_000;
    let expires_at = now.saturating_add(app.access.lifetime()).saturating_mul(1_000_000);
    Ok(json!({
        "success": true,
        "gateway_id": identity.gateway_id,
        "team_id": identity.team_id,
        "access_token": app.access.mint(&identity, now),
        "refresh_token": refresh_token,
        "expires_at": wire_time(expires_at),
        "token_type": "bearer",
    }))
}

/// A trimmed device name; `None` when it is blank.
pub(super) fn device_name(given: &str) -> Result<Option<String>, FunctionError> {
    if given.chars().count() > MAX_DEVICE_NAME {
        let message = format!("device_name is longer than {MAX_DEVICE_NAME} characters");
        return Err(FunctionError::invalid(message));
    }
    Ok(Some(given.trim().to_owned()).filter(|name| !name.is_empty()))
}

/// Counts a try of what can be guessed; too many are refused.
pub(super) fn admit_guess(app: &App, peer: Option<Peer>, what: &str) -> Result<(), FunctionError> {
    let Some(Peer(address)) = peer.filter(|_| app.rules.hold(Rule::Guesses)) else {
        return Ok(());
    };
    app.guesses.admit(address, Instant::now()).map_err(|wait| FunctionError {
        retry_after: Some(wait.as_secs().max(1)),
        ..FunctionError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "over_request_rate_limit",
            format!("too many wrong {what}; wait a minute and try again"),
        )
    })
}

/// It was right.
pub(super) fn forgive_guess(app: &App, peer: Option<Peer>) {
    if let Some(Peer(address)) = peer {
        app.guesses.forgive(address);
    }
}

/// A code that can still be used.
struct UsableCode {
    team_id: TeamId,
    device_name: Option<String>,
}

fn usable_code(
    connection: &Connection,
    hash: &str,
    now: i64,
    rules: Rules,
) -> Result<UsableCode, FunctionError> {
    let found = connection
        .query_row(
            "SELECT team_id, device_name, used_at IS NOT NULL, expires_at <= ?2
             FROM pairing_codes WHERE code_sha256 = ?1",
            params![hash, now],
            |row| {
                let team_id = TeamId::new(row.get::<_, String>(0)?);
                let code = UsableCode { team_id, device_name: row.get(1)? };
                Ok((code, row.get::<_, bool>(2)?, row.get::<_, bool>(3)?))
            },
        )
        .optional()?;
    match found {
        None => Err(refused(StatusCode::BAD_REQUEST, "pairing_code_unknown", "is not known")),
        Some((_, true, _)) if rules.hold(Rule::CodeOnce) => {
            Err(refused(StatusCode::GONE, "pairing_code_used", "was used already"))
        }
        Some((_, _, true)) if rules.hold(Rule::CodeExpiry) => {
            Err(refused(StatusCode::GONE, "pairing_code_expired", "has expired"))
        }
        Some((code, ..)) => Ok(code),
    }
}

/// Uses the code up and makes gateway, session and first token, or changes nothing.
fn use_code(
    connection: &Connection,
    hash: &str,
    device_name: Option<String>,
    refresh_token: &str,
    now: i64,
    rules: Rules,
) -> Result<Identity, FunctionError> {
    let code = usable_code(connection, hash, now, rules)?;
    let device_name = device_name
        .or(code.device_name)
        .ok_or_else(|| FunctionError::invalid("device_name is empty"))?;
    let identity = Identity {
        user_id: Uuid::new_v4().to_string(),
        session_id: Uuid::new_v4().to_string(),
        gateway_id: GatewayId::new(Uuid::now_v7().to_string()),
        team_id: code.team_id,
    };
    connection.execute(
        "UPDATE pairing_codes SET used_at = ?2 WHERE code_sha256 = ?1",
        params![hash, now],
    )?;
    connection.execute(
        "INSERT INTO team_gateways (id, team_id, device_name, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?4)",
        params![identity.gateway_id.as_str(), identity.team_id.as_str(), device_name, now],
    )?;
    auth::open_session(connection, &identity, refresh_token, now)?;
    Ok(identity)
}

fn refused(status: StatusCode, code: &'static str, why: &str) -> FunctionError {
    FunctionError::new(status, code, format!("this pairing code {why}; ask for a new one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_readable_and_differ() {
        let code = new_code().unwrap();
        assert_eq!(code.len(), 14);
        assert!(code.bytes().all(|byte| byte == b'-' || ALPHABET.contains(&byte)), "{code}");
        assert_ne!(code, new_code().unwrap());
    }

    #[test]
    fn case_blanks_and_dashes_do_not_matter() {
        assert_eq!(code_hash("ABCD-EFGH-2345"), code_hash(" abcdefgh 2345\n"));
        assert_ne!(code_hash("ABCD-EFGH-2345"), code_hash("ABCD-EFGH-2346"));
    }
}
