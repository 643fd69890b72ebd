//! Exchange of a VM's bootstrap token for an identity.

use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::http::{Call, Limits};
use super::pairing::{identity, succeeded};
use super::{BackendError, Endpoint, Http, Pairing};

/// What a token was exchanged for.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// Gateway, team, session.
    pub pairing: Pairing,
    /// The VM.
    pub vm_id: String,
    /// Which of the VM's lives this is; null where the backend does not count them.
    pub generation: Value,
    /// The first token for drive sync and when it ends (RFC 3339), where there are drives.
    pub drive_sync: Option<(SecretString, String)>,
}

/// `POST U/functions/v1/exchange-vm-bootstrap-token`
/// `{"bootstrap_token","device_name","gateway_version"}`; 30 s. The `key` goes along as
/// `Idempotency-Key`: with the same one a lost answer can be had again.
///
/// Errors as those of [`super::exchange_pairing_code`].
pub async fn exchange_vm_bootstrap_token(
    http: &Http,
    endpoint: &Endpoint,
    token: &SecretString,
    device_name: &str,
    key: &str,
) -> Result<Bootstrap, BackendError> {
    let body = json!({
        "bootstrap_token": token.expose_secret().trim(),
        "device_name": device_name,
        "gateway_version": crate::VERSION,
    });
    let name = "exchange-vm-bootstrap-token";
    let mut call = Call::function(endpoint, name, body.to_string(), Limits::PAIRING)?;
    call.authorize(endpoint, &endpoint.anon_key)?;
    call.secrets.push(token.clone());
    let key = HeaderValue::from_str(key)
        .map_err(|_| BackendError::Unsendable("the idempotency key is no header".to_owned()))?;
    call.headers.insert(HeaderName::from_static("idempotency-key"), key);
    let answer = http.send(&call).await?;
    let body = succeeded(&answer, &call)?;
    let pairing = identity(&body, &answer, &mut call, endpoint)?;
    let vm_id = body.get("vm_id").and_then(Value::as_str).filter(|id| !id.trim().is_empty());
    let vm_id = vm_id.ok_or_else(|| {
        BackendError::Contract(format!("vm_id is missing ({})", answer.describe()))
    })?;
    let drive_sync = body.get("drive_sync").and_then(|sync| {
        let text = |name: &str| sync.get(name)?.as_str();
        Some((text("token")?.into(), text("expires_at")?.to_owned()))
    });
    Ok(Bootstrap {
        pairing,
        vm_id: vm_id.to_owned(),
        generation: body.get("generation").cloned().unwrap_or_default(),
        drive_sync,
    })
}
