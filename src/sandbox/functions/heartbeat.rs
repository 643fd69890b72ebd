//! `gateway-heartbeat`: what a gateway says of itself, every 30 s.

use axum::http::StatusCode;
use rusqlite::params;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::FunctionError;
use crate::model::GatewayStatus;
use crate::sandbox::app::{App, now_micros};
use crate::sandbox::rules::Rule;
use crate::sandbox::{Caller, body, rows};

pub(super) const NAME: &str = "gateway-heartbeat";

const MAX_DEVICE_NAME: usize = 200;
const PROVIDERS: [&str; 3] = ["claude_code", "codex", "gemini"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    status: GatewayStatus,
    capabilities: Map<String, Value>,
    device_name: String,
}

/// Records a heartbeat of the caller, which must be a gateway.
pub(super) async fn record(
    app: &App,
    caller: &Caller,
    body: &[u8],
) -> Result<Value, FunctionError> {
    let (gateway_id, team_id) = super::gateway(caller)?;
    let request: Request = body::parse(body).map_err(FunctionError::invalid)?;
    check_capabilities(&request.capabilities).map_err(FunctionError::invalid)?;
    let device_name = request.device_name.trim().to_owned();
    if device_name.is_empty() || device_name.chars().count() > MAX_DEVICE_NAME {
        let message = format!("device_name must have 1 to {MAX_DEVICE_NAME} characters");
        return Err(FunctionError::invalid(message));
    }
    let capabilities = Value::Object(request.capabilities).to_string();
    let status = request.status.as_str();
    let rules = app.rules;
    app.store
        .write(move |write| {
            let id = gateway_id.as_str();
            if !super::is_of_team(write.tx, id, &team_id, rules, Rule::BeatTeam)? {
                let message = "this gateway is not known any more; pair it again";
                let status = StatusCode::NOT_FOUND;
                return Err(FunctionError::new(status, "gateway_not_found", message));
            }
            rows::update(
                write.tx,
                "team_gateways",
                id,
                "UPDATE team_gateways
                 SET status = ?2, capabilities = ?3, device_name = ?4, last_seen_at = ?5,
                     updated_at = ?5,
                     ready_at = CASE WHEN ?2 = 'ready' THEN coalesce(ready_at, ?5)
                                ELSE ready_at END
                 WHERE id = ?1",
                params![id, status, capabilities, device_name, now_micros()],
            )?;
            Ok(json!({"success": true}))
        })
        .await
}

/// Checks what readers of the schema rely on; the rest is theirs.
fn check_capabilities(capabilities: &Map<String, Value>) -> Result<(), String> {
    if capabilities.get("schema_version").and_then(Value::as_str) != Some("v1") {
        return Err("capabilities.schema_version must be \"v1\"".into());
    }
    for name in ["providers", "hosts", "services", "runtime"] {
        if capabilities.get(name).is_some_and(|part| !part.is_object()) {
            return Err(format!("capabilities.{name} must be an object"));
        }
    }
    let providers = capabilities.get("providers").and_then(Value::as_object);
    if let Some(other) =
        providers.and_then(|all| all.keys().find(|id| !PROVIDERS.contains(&id.as_str())))
    {
        return Err(format!("capabilities.providers.{other} is not a known provider"));
    }
    capabilities
        .iter()
        .find_map(|(name, value)| null_below(value, &format!("capabilities.{name}")))
        .map_or(Ok(()), |path| Err(format!("{path} is null; optional keys are absent")))
}

/// The path of the first null in `value`.
fn null_below(value: &Value, path: &str) -> Option<String> {
    match value {
        Value::Null => Some(path.to_owned()),
        Value::Object(fields) => {
            fields.iter().find_map(|(name, value)| null_below(value, &format!("{path}.{name}")))
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, value)| null_below(value, &format!("{path}[{index}]"))),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(capabilities: Value) -> Result<(), String> {
        check_capabilities(&serde_json::from_value(capabilities).unwrap())
    }

    #[test]
    fn the_shape_that_readers_need_is_taken() {
        assert_eq!(
            check(json!({"schema_version": "v1", "runtime": {"platform": "linux", "extra": 1},
                         "providers": {"claude_code": {"available": false}}})),
            Ok(())
        );
    }

    #[test]
    fn what_would_break_readers_is_refused_with_its_path() {
        for (capabilities, part) in [
            (json!({}), "schema_version"),
            (json!({"schema_version": "v2"}), "schema_version"),
            (json!({"schema_version": "v1", "hosts": []}), "capabilities.hosts"),
            (json!({"schema_version": "v1", "providers": {"other": {}}}), "providers.other"),
            (
                json!({"schema_version": "v1", "providers": {"codex": {"version": null}}}),
                "capabilities.providers.codex.version is null",
            ),
            (json!({"schema_version": "v1", "x": [1, null]}), "capabilities.x[1] is null"),
        ] {
            let error = check(capabilities).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
