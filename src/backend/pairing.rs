//! Exchange of a pairing code for an identity.

use serde_json::{Value, json};

use super::answer::Answer;
use super::http::{Call, Limits};
use super::{BackendError, Endpoint, Http, Tokens};
use crate::model::{GatewayId, TeamId};

/// What a code was exchanged for.
#[derive(Debug, Clone)]
pub struct Pairing {
    /// The new gateway.
    pub gateway_id: GatewayId,
    /// Its team.
    pub team_id: TeamId,
    /// Its session.
    pub tokens: Tokens,
}

/// `POST U/functions/v1/exchange-gateway-pairing-code` `{"code","device_name"}`; 30 s.
///
/// A refusal is a [`BackendError::Status`] with the backend's own text, also when the backend wraps
/// it in a 2xx. An answer that lacks a field is a [`BackendError::Contract`] that names it.
pub async fn exchange_pairing_code(
    http: &Http,
    endpoint: &Endpoint,
    code: &str,
    device_name: &str,
) -> Result<Pairing, BackendError> {
    let body = json!({"code": code.trim(), "device_name": device_name}).to_string();
    let name = "exchange-gateway-pairing-code";
    let mut call = Call::function(endpoint, name, body, Limits::PAIRING)?;
    call.authorize(endpoint, &endpoint.anon_key)?;
    let answer = http.send(&call).await?;
    let body = succeeded(&answer, &call)?;
    identity(&body, &answer, &mut call, endpoint)
}

/// The gateway and session in an answer.
pub(super) fn identity(
    body: &Value,
    answer: &Answer,
    call: &mut Call,
    endpoint: &Endpoint,
) -> Result<Pairing, BackendError> {
    let field = |name: &str| {
        body.get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.trim().is_empty())
            .ok_or_else(|| missing(name, answer))
    };
    let tokens =
        Tokens { access: field("access_token")?.into(), refresh: field("refresh_token")?.into() };
    call.authorize(endpoint, &tokens.access)
        .map_err(|error| BackendError::Contract(error.to_string()))?;
    field("token_type")?;
    if body.get("expires_at").is_none_or(Value::is_null) {
        return Err(missing("expires_at", answer));
    }
    Ok(Pairing {
        gateway_id: GatewayId::new(field("gateway_id")?),
        team_id: TeamId::new(field("team_id")?),
        tokens,
    })
}

/// The object of an edge function's answer, provided that it says `success: true`.
pub(super) fn succeeded(answer: &Answer, call: &Call) -> Result<Value, BackendError> {
    if !answer.status.is_success() {
        return Err(answer.error(call));
    }
    let body = answer.json()?;
    match body.get("success").and_then(Value::as_bool) {
        Some(true) => Ok(body),
        Some(false) => Err(answer.error(call)),
        None => Err(missing("success", answer)),
    }
}

fn missing(name: &str, answer: &Answer) -> BackendError {
    BackendError::Contract(format!("{name} is missing ({})", answer.describe()))
}
